"""Paid calls that answer at once: written down before they are made, answered from what was bought before, within the budget."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen

from vrag.clock import Clock, rfc3339
from vrag.errors import (
    BackendError,
    ContentRejectedError,
    JobUndecidedError,
    NotFoundError,
    ThrottledError,
    UsageError,
    VRAGError,
)
from vrag.values.canonical import JSON, digest_json
from vrag.workspace.budget import Budget, Purchase
from vrag.workspace.db import Database
from vrag.workspace.hooks import about
from vrag.workspace.leases import Owner
from vrag.workspace.limits import Lane, Limit, Patience

__all__ = ["CallRow", "Calls", "PaidCall"]

_LIMIT = Limit(in_flight=8)
_SLICE_S = 0.05


@frozen(kw_only=True)
class PaidCall:
    """One call, identified by what is asked."""

    kind: str
    """`caption`, `embed` or `moderate`."""
    model: str
    """JSON of the `ModelRef`, or another name of the model."""
    request: JSON
    """Everything that decides the answer; media by digest."""
    usd_micros: int | None
    """By the backend's estimate; None is not known."""
    knowledge_base: str | None = None
    run_id: str | None = None

    def id(self, scope: str) -> str:
        """The identity of the purchase: the same question to the same model is one."""
        asked = {"kind": self.kind, "model": self.model, "request": self.request, "base": self.knowledge_base}
        return digest_json({**asked, "scope": scope})


@frozen(kw_only=True)
class CallRow:
    """A row of the table of calls, for people."""

    id: str
    kind: str
    model: str
    state: str
    """`open` (it may have been bought), `done`, `failed`, `undecided`."""
    attempt: int
    error: JSON = field(default=None)
    opened_at: str
    ended_at: str | None = None


class _AnsweredError(Exception):
    """What a backend raised, apart from what this module raises."""

    def __init__(self, error: BackendError) -> None:
        super().__init__()
        self.error = error


class Calls:
    """Buys answers once.

    A row is `open` from before the call until its answer is stored. One found open by another life may have been bought:
    it is made again by itself only up to `rerun_below_usd_micros`, else it is `undecided` and waits for a person. Throttling
    and errors of the service are tried again with jitter, in one lane a model. Safe to use from many threads.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        budget: Budget,
        *,
        rerun_below_usd_micros: int = 10_000,
        limit_of: Callable[[str], Limit] = lambda _model: _LIMIT,
        patience: Patience | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._budget = budget
        self.rerun_below_usd_micros = rerun_below_usd_micros
        """A call that may have been bought is made again by itself up to this price."""
        self._limit_of = limit_of
        self._patience = patience or Patience(give_up_after_s=300.0)
        self._lanes: dict[str, Lane] = {}
        self._guard = threading.Lock()
        self._running: dict[str, threading.Event] = {}
        self._owner: Owner | None = None

    def buy(self, call: PaidCall, make: Callable[[], bytes]) -> bytes:
        """The answer: from the table, or bought now.

        Args:
            call: What is asked.
            make: Asks the backend and gives the answer as bytes, once a call; it neither waits nor tries again.

        Raises:
            BudgetError: It would pass a cap; nothing was asked.
            ContentRejectedError: The model refuses; it is not asked again.
            JobUndecidedError: An earlier life may have bought it, and a person decides.
            BackendError: It could not be asked.
        """
        call_id = call.id(self._database.workspace_id)
        with self._alone(call_id):
            known = self._known(call_id)
            if known is not None:
                return known
            return self._ask(call_id, call, make)

    @contextmanager
    def _alone(self, call_id: str) -> Iterator[None]:
        """One thread of this process asks a question; the others wait for its answer."""
        while True:
            with self._guard:
                before = self._running.get(call_id)
                if before is None:
                    mine = self._running[call_id] = threading.Event()
                    break
            before.wait()
        try:
            yield
        finally:
            with self._guard:
                del self._running[call_id]
            mine.set()

    def _known(self, call_id: str) -> bytes | None:
        with self._database.read() as connection:
            row = connection.execute("select state, result, error from call where id = ?", (call_id,)).fetchone()
        if row is None or row["state"] == "open":
            return None
        match row["state"]:
            case "done":
                return bytes(row["result"])
            case "undecided":
                raise self._undecided_error(call_id)
            case _:
                error = json.loads(row["error"] or "{}")
                if error.get("error") != ContentRejectedError.code:
                    return None  # it failed without a charge, and may be asked again
                raise ContentRejectedError(error.get("message", "It was refused."), backend=error.get("backend", ""))

    @staticmethod
    def _undecided_error(call_id: str) -> JobUndecidedError:
        return JobUndecidedError(
            "This call may have been bought, and its answer was lost; a person decides.",
            job_id=call_id,
            hint="vrag jobs",
        )

    def _ask(self, call_id: str, call: PaidCall, make: Callable[[], bytes]) -> bytes:
        lane = self._lane(call.model)
        begun_s, tries = self._clock.monotonic_s(), 0
        while True:
            self._wait_for_slot(lane)
            try:
                token = self._open(call_id, call)
                if token is None:
                    # Its answer is ours too.
                    known = self._known(call_id)
                    if known is not None:
                        return known
                    self._clock.sleep(_SLICE_S)
                    continue
                answer = self._make(call_id, call, make, tries)
            except _AnsweredError as answered:
                error = answered.error
                again = self._failed(call_id, call, error, lane)
                if not again or self._clock.monotonic_s() - begun_s > self._patience.give_up_after_s:
                    raise error from error.__cause__
                self._clock.sleep(self._patience.wait_s(tries, self._clock))
                tries += 1
                continue
            finally:
                self._free_slot(lane)
            with self._guard:
                lane.went_well(self._clock.monotonic_s())
            self._done(call_id, token, answer)
            return answer

    def _make(self, call_id: str, call: PaidCall, make: Callable[[], bytes], tries: int) -> bytes:
        try:
            with about(job_id=call_id, retry=tries, usd_micros=call.usd_micros):
                return make()
        except BackendError as error:
            raise _AnsweredError(error) from error
        except VRAGError as error:  # refused before it was sent
            self._end(call_id, "failed", billed=False, error=error.to_json())
            raise

    def _failed(self, call_id: str, call: PaidCall, error: BackendError, lane: Lane) -> bool:
        """Write down what an error means; whether the call may be made again at once."""
        now = self._clock.monotonic_s()
        if isinstance(error, ThrottledError):
            with self._guard:
                lane.throttled(now, self._clock)
            self._end(call_id, "failed", billed=False, error=error.to_json())
            return True
        if isinstance(error, ContentRejectedError):
            self._end(call_id, "failed", billed=None, error=error.to_json())
            return False
        if not error.retryable and error.request_id is not None:
            self._end(call_id, "failed", billed=False, error=error.to_json())
            return False
        # The answer may be what was lost.
        with self._guard:
            lane.failed(now, self._clock)
        if self._may_rerun(call.usd_micros):
            return error.retryable
        self._end(call_id, "undecided", billed=None, error=error.to_json())
        return False

    def _may_rerun(self, usd_micros: int | None) -> bool:
        return usd_micros is not None and usd_micros <= self.rerun_below_usd_micros

    # -- rows

    def _open(self, call_id: str, call: PaidCall) -> str | None:
        """Write the call down with its price; the money counts from here on. None where another process asks it now, or just did."""
        now, owner = rfc3339(self._clock.now()), self._alive()
        with self._database.transaction() as connection:
            row = connection.execute("select state, attempt, owner from call where id = ?", (call_id,)).fetchone()
            attempt = 1 if row is None else row["attempt"]
            if row is not None and row["state"] in {"done", "undecided"}:
                return None  # another process was quicker than our look
            if row is not None and row["state"] == "open":
                if row["owner"] is not None and row["owner"] != owner.id and owner.is_alive(row["owner"]):
                    return None
                if not self._may_rerun(call.usd_micros):
                    connection.execute("update call set state = 'undecided', ended_at = ? where id = ?", (now, call_id))
                    undecided = True
                else:
                    undecided, attempt = False, attempt + 1
            else:
                undecided = False
                attempt += row is not None
            if not undecided:
                self._budget.charge(
                    connection,
                    Purchase(
                        token=_token(call_id, attempt),
                        kind=call.kind,
                        usd_micros=call.usd_micros,
                        run_id=call.run_id,
                        knowledge_base=call.knowledge_base,
                    ),
                )
                connection.execute(
                    "insert into call(id, kind, model, state, attempt, owner, opened_at) values(?, ?, ?, 'open', ?, ?, ?)"
                    " on conflict(id) do update set state = 'open', attempt = excluded.attempt, owner = excluded.owner,"
                    " error = null, ended_at = null",
                    (call_id, call.kind, call.model, attempt, owner.id, now),
                )
        if undecided:
            raise self._undecided_error(call_id)
        return _token(call_id, attempt)

    def _done(self, call_id: str, token: str, answer: bytes) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "update call set state = 'done', result = ?, ended_at = ?, owner = null where id = ?",
                (answer, rfc3339(self._clock.now()), call_id),
            )
            self._budget.settle(connection, token, billed=True)

    def _end(self, call_id: str, state: str, *, billed: bool | None, error: JSON) -> None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "update call set state = ?, error = ?, ended_at = ?, owner = null where id = ? and state = 'open'"
                " returning attempt",
                (state, json.dumps(error), rfc3339(self._clock.now()), call_id),
            ).fetchone()
            if row is not None:
                self._budget.settle(connection, _token(call_id, row["attempt"]), billed=billed)

    # -- for people

    def undecided(self) -> list[CallRow]:
        """Calls of which nobody knows whether they were bought, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute("select * from call where state = 'undecided' order by opened_at, id").fetchall()
        return [_row(row) for row in rows]

    def get(self, call_id: str) -> CallRow:
        """A call.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute("select * from call where id = ?", (call_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"No call '{call_id[:80]}' in this workspace.", hint="vrag jobs")
        return _row(row)

    def decide(self, call_id: str, *, billed: bool | None = None) -> None:
        """Settle an undecided call: it may be asked again, and what it cost is counted as said.

        Args:
            call_id: Of `undecided`.
            billed: Whether the provider's bill has it; None keeps it counted.

        Raises:
            UsageError: It is not undecided.
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                "update call set state = 'failed', error = '{\"error\": \"given_up\"}' where id = ? and state = 'undecided'"
                " returning attempt",
                (call_id,),
            ).fetchone()
            if row is None:
                raise UsageError(f"The call '{call_id[:12]}…' is not undecided.", hint="vrag jobs")
            self._budget.settle(connection, _token(call_id, row["attempt"]), billed=billed)

    def close(self) -> None:
        """Let go of what shows that this process lives; twice is fine."""
        with self._guard:
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.release()

    # -- lanes

    def _alive(self) -> Owner:
        with self._guard:
            if self._owner is None:
                self._owner = Owner(self._locks, self._clock)
            return self._owner

    @property
    def _locks(self) -> Path:
        return self._database.path.parent / "locks"

    def _lane(self, model: str) -> Lane:
        with self._guard:
            if model not in self._lanes:
                self._lanes[model] = Lane(limit=self._limit_of(model), patience=self._patience)
            return self._lanes[model]

    def _wait_for_slot(self, lane: Lane) -> None:
        while True:
            with self._guard:
                now = self._clock.monotonic_s()
                if lane.may_go(now):
                    lane.go(now)
                    return
                wait_s = lane.open_at_s - now
            self._clock.sleep(min(max(wait_s, 0.001), _SLICE_S))

    def _free_slot(self, lane: Lane) -> None:
        with self._guard:
            lane.taken -= 1


def _token(call_id: str, attempt: int) -> str:
    return call_id if attempt == 1 else f"{call_id}-{attempt}"


def _row(row: sqlite3.Row) -> CallRow:
    return CallRow(
        id=row["id"],
        kind=row["kind"],
        model=row["model"],
        state=row["state"],
        attempt=row["attempt"],
        error=None if row["error"] is None else json.loads(row["error"]),
        opened_at=row["opened_at"],
        ended_at=row["ended_at"],
    )
