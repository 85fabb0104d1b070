"""The write-ahead journal: one row a step, its state written before the act that the state names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TypeVar

from attrs import evolve, frozen
from filelock import FileLock

from vrag.clock import Clock, rfc3339
from vrag.errors import NotFoundError
from vrag.media.ref import MediaRef
from vrag.values.assets import Rights
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.canonical import JSON, from_json, to_json
from vrag.values.jobs import Handle, JobStatus, StepState
from vrag.values.requests import Look
from vrag.workspace.db import Database

__all__ = ["ENDED", "Journal", "Step"]

ValueT = TypeVar("ValueT")
ENDED = frozenset({StepState.DELIVERED, StepState.WITHHELD, StepState.FAILED, StepState.CANCELLED})
"""States that `resume` leaves alone."""


@frozen(kw_only=True)
class Step:
    """A row of the journal."""

    id: str
    state: StepState
    kind: str
    generator: str
    planned: PlannedVideo
    attempt: int
    """1, and one more each time it is tried again after it ended without a charge."""
    handle: Handle | None
    status: JobStatus | None
    raw: MediaRef | None
    delivered: MediaRef | None
    record_id: str | None
    error: JSON
    created_at: str
    submitted_at: str | None
    """When `submitting` was written; a lost job is looked for from then on."""
    updated_at: str

    @property
    def token(self) -> str:
        """What identifies this attempt to the provider: the same token is the same job."""
        return self.id if self.attempt == 1 else f"{self.id}-{self.attempt}"


class Journal:
    """Steps and their states. Every method is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def plan(self, planned: PlannedVideo) -> Step:
        """Write the step down, or find it: the same purchase is the same step."""
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            added = connection.execute(
                "insert into step(id, state, kind, generator, planned, usd_micros, video_s, created_at, updated_at)"
                " values(?, ?, 'generate', ?, ?, ?, ?, ?, ?) on conflict(id) do nothing",
                (
                    planned.step_id,
                    StepState.PLANNED,
                    planned.generator,
                    json.dumps(to_json(planned)),
                    planned.estimate.usd_micros,
                    planned.estimate.video_s,
                    now,
                    now,
                ),
            ).rowcount
            if added:
                connection.executemany(
                    "insert or ignore into step_source values(?, ?, ?)",
                    [(planned.step_id, source.asset_id, source.original.sha256) for source in planned.sources],
                )
                self._event(connection, planned.step_id, StepState.PLANNED, now)
        return self.get(planned.step_id)

    def get(self, step_id: str) -> Step:
        """The step with this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute("select * from step where id = ?", (step_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"No step '{step_id[:80]}' in this workspace.", hint="vrag jobs")
        return _step(row)

    def steps(self, states: Iterable[StepState] | None = None) -> list[Step]:
        """Steps in these states (all by default), oldest first."""
        wanted = list(StepState if states is None else states)
        marks = ", ".join("?" * len(wanted))
        with self._database.read() as connection:
            rows = connection.execute(
                f"select * from step where state in ({marks}) order by created_at, id",  # noqa: S608  # only "?"
                wanted,
            ).fetchall()
        return [_step(row) for row in rows]

    def using(self, asset_id: str) -> list[Step]:
        """Steps planned with this picture, whatever became of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select step.* from step join step_source on step_source.step_id = step.id"
                " where step_source.asset_id = ? order by created_at, id",
                (asset_id,),
            ).fetchall()
        return [_step(row) for row in rows]

    def last_used(self, asset_id: str) -> datetime | None:
        """When a step with this picture was last submitted; None for never."""
        with self._database.read() as connection:
            (moment,) = connection.execute(
                "select max(submitted_at) from step join step_source on step_source.step_id = step.id"
                " where step_source.asset_id = ?",
                (asset_id,),
            ).fetchone()
        return None if moment is None else datetime.fromisoformat(moment)

    def claim(self, step_id: str) -> AbstractContextManager[object]:
        """Only one thread of one process works on a step; the claim ends with the process, however it ends."""
        folder = self._database.path.parent / "locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{step_id[:32]}.lock")

    def reserve_and_submit(self, step_id: str, gate: Callable[[], None]) -> bool:
        """Write `submitting` if the step is `planned` and `gate` does not raise, in one transaction.

        Returns:
            Whether this call did it; False where another process, or an earlier life of this one, was first.
        """
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            row = connection.execute("select state from step where id = ?", (step_id,)).fetchone()
            if row["state"] != StepState.PLANNED:
                return False
            gate()
            connection.execute(
                "update step set state = ?, submitted_at = ?, updated_at = ? where id = ?",
                (StepState.SUBMITTING, now, now, step_id),
            )
            self._event(connection, step_id, StepState.SUBMITTING, now)
        return True

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
        record_id: str | None = None,
        error: JSON = None,
        within: Callable[[sqlite3.Connection], object] | None = None,
    ) -> bool:
        """Move a step from `expected` to `state` and keep what was learnt; `within` joins the same transaction.

        Returns:
            False, and nothing is changed, where the step is no longer in `expected`.
        """
        now = rfc3339(self._clock.now())
        learnt = {"handle": handle, "status": status, "raw": raw, "delivered": delivered}
        values: dict[str, str | None] = {
            name: None if value is None else json.dumps(to_json(value)) for name, value in learnt.items()
        }
        values |= {"record_id": record_id, "error": None if error is None else json.dumps(error)}
        with self._database.transaction() as connection:
            changed = connection.execute(
                "update step set state = :state, updated_at = :now, handle = coalesce(:handle, handle),"
                " status = coalesce(:status, status), raw = coalesce(:raw, raw),"
                " delivered = coalesce(:delivered, delivered), record_id = coalesce(:record_id, record_id),"
                " error = :error where id = :id and state = :expected",
                {**values, "state": state, "now": now, "id": step_id, "expected": expected},
            ).rowcount
            if changed:
                if within is not None:
                    within(connection)
                self._event(connection, step_id, state, now, values["error"])
        return bool(changed)

    def retry(self, step_id: str) -> bool:
        """Plan a step again that ended, or was lost, without a charge; the next attempt has a token of its own."""
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            changed = connection.execute(
                "update step set state = ?, attempt = attempt + 1, handle = null, status = null, error = null,"
                " updated_at = ? where id = ? and state in (?, ?, ?)",
                (StepState.PLANNED, now, step_id, StepState.FAILED, StepState.CANCELLED, StepState.SUBMITTED),
            ).rowcount
            if changed:
                self._event(connection, step_id, StepState.PLANNED, now, "again")
        return bool(changed)

    def erase_words(self, step_id: str) -> None:
        """Take the user's words out of a step that has ended; digests, sizes and prices stay."""
        planned = self.get(step_id).planned
        request = evolve(
            planned.request,
            shots=tuple(evolve(shot, prompt="") for shot in planned.request.shots),
            negative_prompt=None,
            look=Look(),
        )
        brief = planned.brief
        silent = evolve(
            planned,
            brief=Brief(knowledge_base=brief.knowledge_base, model=brief.model, seed=brief.seed, take=brief.take),
            request=request,
            sources=tuple(evolve(source, caption=None, file_name="", rights=Rights()) for source in planned.sources),
            unmet=tuple(evolve(problem, message="") for problem in planned.unmet),
            notes=(),
            retrieval={},
        )
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


def _step(row: sqlite3.Row) -> Step:
    def read(kind: type[ValueT], column: str) -> ValueT | None:
        return None if row[column] is None else from_json(kind, json.loads(row[column]))

    return Step(
        id=row["id"],
        state=StepState(row["state"]),
        kind=row["kind"],
        generator=row["generator"],
        planned=from_json(PlannedVideo, json.loads(row["planned"])),
        attempt=row["attempt"],
        handle=read(Handle, "handle"),
        status=read(JobStatus, "status"),
        raw=read(MediaRef, "raw"),
        delivered=read(MediaRef, "delivered"),
        record_id=row["record_id"],
        error=None if row["error"] is None else json.loads(row["error"]),
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        updated_at=row["updated_at"],
    )
