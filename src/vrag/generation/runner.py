"""Brings steps of the journal to their end: plan by plan, in one process or in many, through every crash."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final

from vrag.clock import Clock
from vrag.errors import GateError, NotFoundError
from vrag.generation.acts import Acts
from vrag.generation.catalogue import Catalogue
from vrag.generation.fleet import Fleet
from vrag.generation.outcomes import left
from vrag.generation.works import Notify, Waiter
from vrag.interfaces import Inpainter, Storage, VideoGenerator
from vrag.media.ref import MediaRef
from vrag.values.canonical import JSON
from vrag.values.jobs import Event, StepState
from vrag.values.requests import ModelRef
from vrag.workspace.hooks import Hook, about, observed
from vrag.workspace.journal import ENDED, Head, Journal, Step
from vrag.workspace.leases import Owner
from vrag.workspace.limits import Limit, Patience

__all__ = ["Runner", "known_limit"]

_LISTEN_S: Final = 0.05
"""How often `drive` looks whether it is to stop or to leave."""


def known_limit(model: ModelRef) -> Limit:
    """What the catalogue knows of an account's quota for a model; 20 jobs at once where it knows nothing."""
    known = Catalogue.load().find(model.provider, model.id)
    quota = known.quotas.get("concurrent_jobs") if known is not None else None
    return Limit() if quota is None or quota.max is None else Limit(in_flight=int(quota.max))


class Runner:
    """Submits, watches, fetches, checks and hands over to be recorded, any number of steps at once.

    Safe to use from many threads. Several runners, in one or in many processes, may work on one workspace: a step is
    leased to the one that works on it for as long as that one lives.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        storage: Storage,
        generators: Mapping[str, VideoGenerator],
        clock: Clock,
        gate: Callable[[Step], None],
        record: Callable[[Step, GateError | None], object],
        finish: Callable[[Step], tuple[MediaRef, JSON]] | None = None,
        assemble: Callable[[Step, Sequence[MediaRef]], MediaRef] | None = None,
        inpainters: Mapping[str, Inpainter] | None = None,
        rerun_below_usd_micros: int = 0,
        limit_of: Callable[[ModelRef], Limit] = known_limit,
        patience: Patience | None = None,
        threads: int = 16,
        hook: Hook | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            journal: Of the workspace.
            storage: Where films and pictures go.
            generators: By the name that steps were planned for.
            clock: Time and randomness.
            gate: Raises `GateError` for a step whose picture may no longer be used.
            record: Makes the signed record, of a delivery or (given the gate's error) of a withheld result, and writes it
                together with the state `recorded`.
            finish: Puts marks into a video and gives the new file with what was done; without it the raw bytes are delivered.
            assemble: Joins the raw bytes of the parts, in order, and gives the stored film.
            inpainters: By the name that edits were planned for.
            rerun_below_usd_micros: An edit whose answer was lost is bought again by itself up to this price.
            limit_of: Says what an account takes of a model.
            patience: How long is tried again.
            threads: How many steps are submitted or edited at once; a quarter as many are fetched and finished at once.
            hook: Told of each call of a generator, an inpainter and the storage.
        """
        self._journal = journal
        self._clock = clock
        self._storage, self._generators, self._inpainters = storage, generators, inpainters or {}
        if hook is not None:
            see = partial(observed, hook=hook, clock=clock)
            self._storage = see(storage, seam="storage")
            self._generators = {name: see(one, seam="generator") for name, one in generators.items()}
            self._inpainters = {name: see(one, seam="inpainter") for name, one in self._inpainters.items()}
        self._callbacks = (gate, finish or _keep_raw, record, assemble)
        self._rerun_below_usd_micros = rerun_below_usd_micros
        self._limit_of, self._patience, self._threads = limit_of, patience or Patience(), threads
        self._guard = threading.Lock()
        self._begun: tuple[Fleet, Acts, Owner] | None = None
        self._leaving = False

    # -- for callers

    def drive(
        self,
        step_id: str,
        *,
        notify: Notify = lambda _event: None,
        stopped: Callable[[], bool] = lambda: False,
        leaving: Callable[[], bool] = lambda: False,
        timeout_s: float | None = None,
    ) -> Step:
        """Bring the step to its end and return it: delivered or withheld.

        Args:
            step_id: A step of the journal, in any state.
            notify: Called in this thread with each `Event`; what it raises is the caller's own.
            stopped: When it turns true the job is cancelled where the provider can.
            leaving: When it turns true the step is left as it stands, for `resume`.
            timeout_s: How long to wait for the provider; the job runs on, and a later call finds it.

        Raises:
            GateError: A picture of it may not be used; nothing was submitted.
            BudgetError: It would pass a cap; nothing was submitted.
            JobFailedError, JobCancelledError, JobTimeoutError, JobUndecidedError: As they say.
        """
        if leaving():
            step = self._journal.get(step_id)
            if step.state not in ENDED:
                raise left(step_id, step.state)
        news: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        asked = stopped()
        future = self.submit([step_id], notify=news.put, timeout_s=timeout_s, cancelled=asked)[step_id]
        future.add_done_callback(lambda _done: news.put(None))
        fleet, _acts, _owner = self._begin()
        leave = False
        try:
            while True:
                event = None
                with suppress(queue.Empty):
                    event = news.get(timeout=_LISTEN_S)
                    if event is None:
                        return future.result()
                    notify(event)
                if not asked and stopped():
                    asked = True
                    fleet.send(partial(fleet.stop, step_id))
                if not leave and leaving():
                    leave = True
                    fleet.send(partial(fleet.abandon, step_id, future))
        except BaseException:
            if not future.done():
                fleet.send(partial(fleet.abandon, step_id, future))
                with suppress(Exception):
                    future.result()  # until what is being written is written
            raise

    def submit(
        self,
        step_ids: Iterable[str],
        *,
        notify: Notify = lambda _event: None,
        timeout_s: float | None = None,
        cancelled: bool = False,
    ) -> dict[str, Future[Step]]:
        """Begin to bring steps to their end, and return at once; a future for each, as `drive` would end.

        Args:
            step_ids: Steps of the journal, in any state; the parts of joined videos come along by themselves.
            notify: Called with each `Event`, in threads of the runner; it must not block or raise.
            timeout_s: How long to wait for each.
            cancelled: Cancel them, where they are not submitted yet.

        Raises:
            NotFoundError: One of them does not exist; nothing was begun.
        """
        wanted = list(dict.fromkeys(step_ids))
        heads = self._journal.heads(wanted)
        if missing := [one for one in wanted if one not in heads]:
            raise NotFoundError(f"No step '{missing[0][:80]}' in this workspace.", hint="vrag jobs")
        futures: dict[str, Future[Step]] = {}
        waiters: list[tuple[Head, Waiter]] = []
        deadline_s = None if timeout_s is None else self._clock.monotonic_s() + timeout_s
        for step_id in wanted:
            future: Future[Step] = Future()
            future.set_running_or_notify_cancel()  # it is cancelled with `cancel`, not from here
            futures[step_id] = future
            waiters.append((heads[step_id], Waiter(future=future, notify=notify, deadline_s=deadline_s)))
        fleet, _acts, _owner = self._begin()
        fleet.send(partial(fleet.admit, waiters, cancelled=cancelled))
        return futures

    def cancel(self, step_id: str) -> bool:
        """Spend nothing more on a step, and stop it where its provider can.

        Returns:
            Whether it will not be made. False where the provider cannot stop it, or it is being sent just now: the
            charge stands, and a result that arrives is recorded.
        """
        error = {"error": "cancelled", "message": "Cancelled before it was submitted.", "billed": False}
        if self._journal.advance(step_id, StepState.PLANNED, StepState.CANCELLED, error={**error, "retryable": False}):
            if self._begun is not None:  # whoever waits for it is told
                self._begun[0].send(partial(self._begun[0].stop, step_id, ask=False))
            return True
        step = self._journal.get(step_id)
        fleet, acts, _owner = self._begin()
        fleet.send(partial(fleet.stop, step_id, ask=False))
        if step.state is StepState.SUBMITTED and step.handle is not None:
            with about(job_id=step_id):
                return acts.generator(step.generator).cancel(step.handle)
        return step.state is StepState.CANCELLED

    def leave(self, *, now: bool = False) -> None:
        """Stop after the acts that are being done just now; every step is left as it stands, for `resume`.

        Args:
            now: Do not even wait for those: every future ends at once.
        """
        with self._guard:
            self._leaving, begun = True, self._begun
        if begun is not None:
            begun[0].send(partial(begun[0].leave, now=now))

    def close(self) -> None:
        """Leave, wait for the acts that are being done, and let go of everything. Closing twice is fine."""
        self.leave()
        if self._begun is not None:
            fleet, _acts, owner = self._begun
            fleet.close()
            owner.release()

    def _begin(self) -> tuple[Fleet, Acts, Owner]:
        """Threads and a lock file, on first use."""
        with self._guard:
            if self._begun is None:
                gate, finish, record, assemble = self._callbacks
                owner = Owner(self._journal.locks, self._clock)
                acts = Acts(
                    journal=self._journal,
                    storage=self._storage,
                    generators=self._generators,
                    inpainters=self._inpainters,
                    clock=self._clock,
                    owner=owner,
                    gate=gate,
                    finish=finish,
                    record=record,
                    assemble=assemble,
                    rerun_below_usd_micros=self._rerun_below_usd_micros,
                )
                fleet = Fleet(
                    acts=acts,
                    journal=self._journal,
                    owner=owner,
                    clock=self._clock,
                    limit_of=self._limit_of,
                    patience=self._patience,
                    threads=self._threads,
                )
                if self._leaving:
                    fleet.send(partial(fleet.leave, now=False))
                self._begun = fleet, acts, owner
            return self._begun


def _keep_raw(step: Step) -> tuple[MediaRef, JSON]:
    assert step.raw is not None  # written with `fetched`
    return step.raw, None
