"""The write-ahead journal: one row a step, its state written before the act that the state names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from vrag.clock import Clock, rfc3339
from vrag.errors import NotFoundError
from vrag.media.ref import MediaRef
from vrag.values.briefs import PlannedEdit, PlannedVideo
from vrag.values.canonical import JSON, to_json
from vrag.values.jobs import Event, Handle, JobStatus, StepState
from vrag.workspace.budget import Budget, Purchase, knowledge_base_of
from vrag.workspace.db import Database
from vrag.workspace.leases import Owner
from vrag.workspace.steps import ENDED, Head, Step, model_key, read_step, token_of, without_words

__all__ = ["ENDED", "Head", "Journal", "Reserved", "Step", "model_key"]

_UNOWNED = ENDED | {StepState.UNDECIDED}
Reserved = Literal["reserved", "moved", "elsewhere", "full"]
"""What became of a reservation: `moved`: the step is no longer planned; `elsewhere`: a living runner works on it; `full`:
as many jobs of its model run as may."""


class Journal:
    """Steps and their states. Every method is one transaction."""

    def __init__(self, database: Database, clock: Clock, budget: Budget | None = None) -> None:
        self._database = database
        self._clock = clock
        self._budget = budget or Budget(database, clock)

    @property
    def locks(self) -> Path:
        """The folder where the runners of this journal show that they live."""
        return self._database.path.parent / "locks"

    # -- planning

    def plan(self, planned: PlannedVideo | PlannedEdit, *, run_id: str | None = None) -> Step:
        """Write the step down with its parts, or find it: the same purchase is the same step.

        Args:
            planned: What is to be made.
            run_id: The run that asks for it; its budget pays, unless it is bought already.
        """
        self.plan_all([planned], run_id=run_id)
        return self.get(planned.step_id)

    def plan_all(self, planned: Iterable[PlannedVideo | PlannedEdit], *, run_id: str | None = None) -> None:
        """Write many steps down at once: all of them, or none."""
        with self._database.transaction() as connection:
            for one in planned:
                self._plan(connection, one, run_id)

    def _plan(self, connection: sqlite3.Connection, planned: PlannedVideo | PlannedEdit, run_id: str | None) -> None:
        parts = planned.parts if isinstance(planned, PlannedVideo) else ()
        for part in parts:
            self._plan(connection, part, run_id)
        now = rfc3339(self._clock.now())
        kind = "edit" if isinstance(planned, PlannedEdit) else "assemble" if parts else "generate"
        added = connection.execute(
            "insert into step(id, state, kind, generator, planned, usd_micros, video_s, created_at, updated_at, model,"
            " knowledge_base, run_id) values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict(id) do nothing",
            (
                planned.step_id,
                StepState.PLANNED,
                kind,
                planned.generator,
                json.dumps(to_json(planned)),
                0 if parts else planned.estimate.usd_micros,
                0.0 if parts else planned.estimate.video_s,
                now,
                now,
                model_key(planned.model),
                knowledge_base_of(planned),
                run_id,
            ),
        ).rowcount
        if not added:
            if run_id is not None:
                connection.execute(
                    "update step set run_id = ? where id = ? and state in (?, ?, ?)",
                    (run_id, planned.step_id, StepState.PLANNED, StepState.FAILED, StepState.CANCELLED),
                )
            return
        connection.executemany(
            "insert or ignore into step_source values(?, ?, ?)",
            [(planned.step_id, source.asset_id, source.original.sha256) for source in planned.sources],
        )
        connection.executemany(
            "insert into step_need values(?, ?, ?)",
            [(planned.step_id, part.step_id, position) for position, part in enumerate(parts)],
        )
        self._event(connection, planned.step_id, StepState.PLANNED, now)

    # -- looking

    def get(self, step_id: str) -> Step:
        """The step with this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute("select * from step where id = ?", (step_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"No step '{step_id[:80]}' in this workspace.", hint="vrag jobs")
        return read_step(row)

    def steps(
        self,
        states: Iterable[StepState] | None = None,
        *,
        kind: str | None = None,
        run_id: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Step]:
        """Steps in these states (all by default), oldest first; what was planned is read only when it is asked for.

        Args:
            states: Which ones.
            kind: `generate`, `edit` or `assemble`.
            run_id: Only those that this run asked for.
            limit: At most so many.
            after: The id of the last step of the page before.
        """
        return [read_step(row) for row in self._rows("*", states, kind, run_id, limit, after)]

    def ids(
        self, states: Iterable[StepState] | None = None, *, kind: str | None = None, run_id: str | None = None
    ) -> list[str]:
        """The ids of steps, as `steps` finds them: cheap for any number."""
        return [row["id"] for row in self._rows("id", states, kind, run_id, None, None)]

    def _rows(
        self,
        columns: str,
        states: Iterable[StepState] | None,
        kind: str | None,
        run_id: str | None,
        limit: int | None,
        after: str | None,
    ) -> list[sqlite3.Row]:
        wanted = json.dumps([str(state) for state in (StepState if states is None else states)])
        with self._database.read() as connection:
            return connection.execute(
                f"select {columns} from step where state in (select value from json_each(:states))"  # noqa: S608  # ours
                " and (:kind is null or kind = :kind) and (:run_id is null or run_id = :run_id)"
                " and (:after is null or (created_at, id) > (select created_at, id from step where id = :after))"
                " order by created_at, id limit :limit",
                {
                    "states": wanted,
                    "kind": kind,
                    "run_id": run_id,
                    "after": after,
                    "limit": -1 if limit is None else limit,
                },
            ).fetchall()

    def heads(self, step_ids: Sequence[str]) -> dict[str, Head]:
        """What a runner must know of these steps; those that do not exist are left out."""
        found: dict[str, Head] = {}
        with self._database.read() as connection:
            for start in range(0, len(step_ids), 500):
                some = list(step_ids[start : start + 500])
                rows = connection.execute(
                    "select id, state, kind, generator, model, owner from step"
                    " where id in (select value from json_each(?))",
                    (json.dumps(some),),
                )
                found |= {row["id"]: Head(**{**dict(row), "state": StepState(row["state"])}) for row in rows}
        return found

    def counts(self, *, run_id: str | None = None) -> dict[StepState, int]:
        """How many steps stand where."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select state, count(*) as count from step where :run_id is null or run_id = :run_id group by state",
                {"run_id": run_id},
            ).fetchall()
        return {StepState(row["state"]): row["count"] for row in rows}

    def events(self, step_id: str | None = None, *, after: int = 0, limit: int = 1000) -> Iterator[tuple[int, Event]]:
        """What happened, to one step or to all, in every process, oldest first, each with its number.

        Args:
            step_id: Only this step.
            after: The number of the last one that was seen.
            limit: At most so many.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "select seq, step_id, state, at, detail from step_event"
                " where seq > :after and (:step_id is null or step_id = :step_id) order by seq limit :limit",
                {"after": after, "step_id": step_id, "limit": limit},
            ).fetchall()
        for row in rows:
            said = row["detail"] or ""
            yield (
                row["seq"],
                Event(
                    step_id=row["step_id"],
                    state=StepState(row["state"]),
                    at=row["at"],
                    message=json.loads(said).get("message", "") if said.startswith("{") else said,
                ),
            )

    def using(self, asset_id: str) -> list[Step]:
        """Steps planned with this picture, whatever became of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select step.* from step join step_source on step_source.step_id = step.id"
                " where step_source.asset_id = ? order by created_at, id",
                (asset_id,),
            ).fetchall()
        return [read_step(row) for row in rows]

    def needed_by(self, step_id: str) -> list[str]:
        """The ids of the joined videos that this step is a part of."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select distinct step_id from step_need where needs = ? order by step_id", (step_id,)
            ).fetchall()
        return [row["step_id"] for row in rows]

    def last_used(self, asset_id: str) -> datetime | None:
        """When a step with this picture was last submitted; None for never."""
        with self._database.read() as connection:
            (moment,) = connection.execute(
                "select max(submitted_at) from step join step_source on step_source.step_id = step.id"
                " where step_source.asset_id = ?",
                (asset_id,),
            ).fetchone()
        return None if moment is None else datetime.fromisoformat(moment)

    # -- moving

    def lease(self, step_id: str, owner: Owner) -> bool:
        """Take a step over, if nobody works on it who is alive."""
        with self._database.transaction() as connection:
            row = connection.execute("select owner from step where id = ?", (step_id,)).fetchone()
            if row is None or not _is_free(row["owner"], owner):
                return False
            connection.execute("update step set owner = ? where id = ?", (owner.id, step_id))
            return True

    def release(self, step_ids: Iterable[str], owner: Owner) -> None:
        """Let go of steps that this owner leaves as they stand."""
        with self._database.transaction() as connection:
            connection.executemany(
                "update step set owner = null where id = ? and owner = ?", [(one, owner.id) for one in step_ids]
            )

    def reserve_and_submit(
        self, step_id: str, gate: Callable[[], None], *, owner: Owner | None = None, in_flight: int | None = None
    ) -> Reserved:
        """Write `submitting` if the step is `planned`, a slot and the money are there, and `gate` does not raise.

        All of it is one transaction.

        Args:
            step_id: The step.
            gate: Raises where its pictures may no longer be used.
            owner: Who is going to send it; the step is leased to it.
            in_flight: How many jobs of its model may run at once, counted over all living runners.

        Raises:
            BudgetError: It would pass a cap; nothing was changed.
        """
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            row = connection.execute(
                "select state, owner, model, kind, attempt, usd_micros, video_s, run_id, knowledge_base from step"
                " where id = ?",
                (step_id,),
            ).fetchone()
            if row["state"] != StepState.PLANNED:
                return "moved"
            if owner is not None and not _is_free(row["owner"], owner):
                return "elsewhere"
            if owner is not None and in_flight is not None and _running(connection, row["model"], owner) >= in_flight:
                return "full"
            gate()
            self._budget.charge(
                connection,
                Purchase(
                    token=token_of(step_id, row["attempt"]),
                    kind=row["kind"],
                    usd_micros=row["usd_micros"],
                    video_s=row["video_s"],
                    run_id=row["run_id"],
                    knowledge_base=row["knowledge_base"],
                ),
            )
            connection.execute(
                "update step set state = ?, submitted_at = ?, updated_at = ?, owner = ? where id = ?",
                (StepState.SUBMITTING, now, now, None if owner is None else owner.id, step_id),
            )
            self._event(connection, step_id, StepState.SUBMITTING, now)
        return "reserved"

    def advance(
        self,
        step_id: str,
        expected: StepState,
        state: StepState,
        *,
        handle: Handle | None = None,
        status: JobStatus | None = None,
        raw: MediaRef | None = None,
        delivered: MediaRef | None = None,
        outputs: Sequence[MediaRef] | None = None,
        marks: JSON = None,
        record_id: str | None = None,
        error: JSON = None,
        within: Callable[[sqlite3.Connection], object] | None = None,
    ) -> bool:
        """Move a step from `expected` to `state` and keep what was learnt; `within` joins the same transaction.

        Whether the attempt was billed is taken from `status` or `error`. Going back to `planned` says that nothing was
        sent.

        Returns:
            False, and nothing is changed, where the step is no longer in `expected`.
        """
        now = rfc3339(self._clock.now())
        learnt = {"handle": handle, "status": status, "raw": raw, "delivered": delivered, "outputs": outputs}
        values: dict[str, str | None] = {
            name: None if value is None else json.dumps(to_json(value)) for name, value in learnt.items()
        }
        values |= {
            "record_id": record_id,
            "error": None if error is None else json.dumps(error),
            "marks": None if marks is None else json.dumps(marks),
        }
        with self._database.transaction() as connection:
            row = connection.execute(
                "update step set state = :state, updated_at = :now, handle = coalesce(:handle, handle),"
                " status = coalesce(:status, status), raw = coalesce(:raw, raw),"
                " delivered = coalesce(:delivered, delivered), outputs = coalesce(:outputs, outputs),"
                " marks = coalesce(:marks, marks), record_id = coalesce(:record_id, record_id), error = :error,"
                " owner = case when :ended then null else owner end"
                " where id = :id and state = :expected returning attempt",
                {
                    **values,
                    "state": state,
                    "now": now,
                    "id": step_id,
                    "expected": expected,
                    "ended": state in _UNOWNED,
                },
            ).fetchone()
            if row is None:
                return False
            if within is not None:
                within(connection)
            token = token_of(step_id, row["attempt"])
            if state is StepState.PLANNED:
                self._budget.release(connection, token)
            else:
                billed = error.get("billed") if isinstance(error, Mapping) else None
                if status is not None:
                    # A film that was made counts in seconds, also where it was free.
                    billed = status.billed or None if status.state == "succeeded" else status.billed
                self._budget.settle(connection, token, billed=billed)
            self._event(connection, step_id, state, now, values["error"])
        return True

    def retry(self, step_id: str) -> bool:
        """Plan a step again that ended, or was lost, without a charge; the next attempt has a token of its own.

        What the attempt before may have cost stays counted, unless it is known not to be billed.
        """
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            again = (StepState.FAILED, StepState.CANCELLED, StepState.SUBMITTING, StepState.SUBMITTED)
            changed = connection.execute(
                "update step set state = ?, attempt = attempt + 1, handle = null, status = null, error = null,"
                " raw = null, delivered = null, outputs = null, marks = null, owner = null, updated_at = ?"
                " where id = ? and state in (?, ?, ?, ?)",
                (StepState.PLANNED, now, step_id, *again),
            ).rowcount
            if changed:
                self._event(connection, step_id, StepState.PLANNED, now, "again")
        return bool(changed)

    def erase_words(self, step_id: str) -> None:
        """Take the user's words out of a step that has ended; digests, sizes and prices stay."""
        planned = self.get(step_id).planned
        silent = without_words(planned)
        with self._database.transaction() as connection:
            connection.execute("update step set planned = ? where id = ?", (json.dumps(to_json(silent)), step_id))
        self._database.forget()

    @staticmethod
    def _event(
        connection: sqlite3.Connection, step_id: str, state: StepState, at: str, detail: str | None = None
    ) -> None:
        connection.execute(
            "insert into step_event(step_id, state, at, detail) values(?, ?, ?, ?)", (step_id, state, at, detail)
        )


def _is_free(owner: str | None, asking: Owner) -> bool:
    return owner is None or owner == asking.id or not asking.is_alive(owner)


def _running(connection: sqlite3.Connection, model: str, asking: Owner) -> int:
    """Jobs of a model that living runners look after. What dead ones left is the provider's to count."""
    rows = connection.execute(
        "select owner, count(*) as count from step where model = ? and state in (?, ?) and owner is not null"
        " group by owner",
        (model, StepState.SUBMITTING, StepState.SUBMITTED),
    ).fetchall()
    return sum(row["count"] for row in rows if asking.is_alive(row["owner"]))
