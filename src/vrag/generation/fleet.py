"""All steps that one runner looks after: who goes ahead, who waits, who is told."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final

from vrag.clock import Clock, rfc3339
from vrag.errors import BackendError, JobError, JobFailedError, JobTimeoutError
from vrag.generation.acts import Acts
from vrag.generation.loop import Command, Loop
from vrag.generation.outcomes import Job, Outcome, error_of, left
from vrag.generation.polling import Poller
from vrag.generation.works import Waiter, Work
from vrag.values.canonical import from_json
from vrag.values.jobs import Event, StepState
from vrag.values.requests import ModelRef
from vrag.workspace.hooks import about
from vrag.workspace.journal import ENDED, Head, Journal, Step
from vrag.workspace.leases import Owner
from vrag.workspace.limits import Lane, Limit, Patience, jittered

__all__ = ["Fleet"]

_log = logging.getLogger("vrag.jobs")
_ELSEWHERE_S: Final = 0.5
"""How often a step is looked at that another runner works on."""
_FULL_S: Final = 1.0
_SLICE_S: Final = 0.05
_SETTLED: Final = ENDED | {StepState.UNDECIDED}


class Fleet:
    """Everything here belongs to the deciding thread of the loop."""

    def __init__(
        self,
        *,
        acts: Acts,
        journal: Journal,
        owner: Owner,
        clock: Clock,
        limit_of: Callable[[ModelRef], Limit],
        patience: Patience,
        threads: int,
    ) -> None:
        self._acts, self._journal, self._owner, self._clock = acts, journal, owner, clock
        self._limit_of, self._patience = limit_of, patience
        self._leaving = False
        self._works: dict[str, Work] = {}
        self._lanes: dict[str, Lane] = {}
        self._queues: dict[str, deque[Work]] = {}
        self._wakes: dict[str, float] = {}
        self._elsewhere: dict[str, Work] = {}
        self._looking_elsewhere = False
        self._loop = Loop(
            clock,
            threads=threads,
            turn=self.turn,
            is_idle=lambda: not self._works,
            rest=self._rest,
            failed=self._failed,
        )
        self._poller = Poller(
            self._loop,
            clock,
            patience,
            generator=acts.generator,
            ended=self._act,
            progressed=lambda work, progress: self._notify(work, StepState.SUBMITTED, progress=progress),
            polled=self._check_deadlines,
            given_up=lambda work, error: self._leave_one(work, _told(error, work.job.id)),
        )
        self.send = self._loop.send
        """Let the deciding thread do something."""

    def close(self) -> None:
        """Wait until nobody is left. Closing twice is fine."""
        self._loop.close()

    def _rest(self) -> None:
        self._looking_elsewhere = False
        self._wakes.clear()

    def _failed(self, error: Exception) -> None:
        for work in list(self._works.values()):
            self._drop(work, error)

    def admit(self, asked: list[tuple[Head, Waiter]], *, cancelled: bool) -> None:
        """Somebody asks for steps."""
        for head, waiter in asked:
            work = self._works.get(head.id)
            if work is None:
                work = self._new(head)
            work.waiters.append(waiter)
            work.job.abandoned = self._is_abandoned(work)
            if waiter.deadline_s is not None:
                self._loop.at(waiter.deadline_s, partial(self._check_deadline, work, waiter))
            if self._leaving:
                self._expire(work, waiter, left(head.id, head.state))
                continue
            if cancelled:
                work.job.stop = True
            if work.place == "new":
                try:
                    self._begin(work, head)
                except Exception as error:  # noqa: BLE001  # whoever waits is told
                    self._drop(work, error)

    def _new(self, head: Head) -> Work:
        lane = self._lanes.get(head.model)
        if lane is None:
            model = from_json(ModelRef, json.loads(head.model)) if head.model else ModelRef(provider="", id="")
            lane = self._lanes[head.model] = Lane(limit=self._limit_of(model), patience=self._patience)
            self._queues[head.model] = deque()
        job = Job(
            id=head.id,
            kind=head.kind,
            generator=head.generator,
            model=head.model,
            in_flight=lane.limit.in_flight,
            tell=lambda step: self._tell(work, step.state),
        )
        work = Work(job=job, lane=lane)
        self._works[head.id] = work
        return work

    def _begin(self, work: Work, head: Head) -> None:
        if head.state is not StepState.PLANNED or head.id in self._elsewhere:
            if head.state in {StepState.SUBMITTING, StepState.SUBMITTED} and head.kind == "generate":
                self._take_slot(work)
            slow = head.state in {StepState.DONE, StepState.FETCHED, StepState.FINISHED, StepState.RECORDED}
            self._act(work, slow=slow)
        elif head.kind == "assemble" and not work.job.stop:
            self._begin_parts(work)
        elif work.job.stop:
            self._act(work)
        else:
            self._queue(work)

    def _begin_parts(self, work: Work) -> None:
        step = self._journal.get(work.job.id)
        part_ids = [part.step_id for part in step.video.parts]
        work.place = "parts"
        work.needs = set(part_ids)
        heads = self._journal.heads(part_ids)
        for part_id in dict.fromkeys(part_ids):
            head = heads[part_id]
            if head.state in {StepState.FAILED, StepState.CANCELLED}:
                ended = self._journal.get(part_id)
                if (ended.error or {}).get("billed") is False and self._journal.retry(part_id):
                    head = self._journal.heads([part_id])[part_id]
            part = self._works.get(part_id) or self._new(head)
            part.needed_by.append(work)
            if part.place == "new":
                self._begin(part, head)

    def _queue(self, work: Work, *, first: bool = False) -> None:
        work.place = "lane"
        line = self._queues[work.job.model]
        if first:
            line.appendleft(work)
        else:
            line.append(work)

    def turn(self) -> None:
        """Start what may start now, in each lane."""
        now = self._loop.now_s()
        for model, line in self._queues.items():
            lane = self._lanes[model]
            while line and lane.may_go(now):
                work = line.popleft()
                if work.place == "lane":  # else it was cancelled or dropped in the meantime
                    lane.go(now)
                    work.has_slot = True
                    self._act(work)
            if line and lane.open_at_s > now and self._wakes.get(model) != lane.open_at_s:
                self._wakes[model] = lane.open_at_s
                self._loop.at(lane.open_at_s, _nothing)

    def _take_slot(self, work: Work) -> None:
        if not work.has_slot:
            work.has_slot = True
            work.lane.taken += 1

    def _free_slot(self, work: Work) -> None:
        if work.has_slot:
            work.has_slot = False
            work.lane.taken -= 1

    # -- acting

    def _act(self, work: Work, *, slow: bool = False) -> None:
        work.place, acts, job = "acting", self._acts, work.job

        def act() -> Command:
            try:
                outcome = acts.carry(job)
            except Exception as error:  # noqa: BLE001  # whoever waits is told
                outcome = Outcome(kind="raised", error=_told(error, job.id))
            return partial(self._acted, work, outcome)

        self._loop.act(act, slow=slow or job.kind == "assemble")

    def _acted(self, work: Work, outcome: Outcome) -> None:
        lane, now, state = work.lane, self._loop.now_s(), outcome.step.state if outcome.step else None
        if work.place == "gone":  # its waiters were told already
            if work.job.leased:
                self._let_go([work])
            return
        if outcome.kind not in {"ended", "raised"} and self._is_abandoned(work):
            self._leave_one(work, left(work.job.id, str(state)))
            return
        match outcome.kind:
            case "watch":
                lane.went_well(now)
                work.job.tries, work.job.failing_since_s = 0, None
                self._take_slot(work)
                assert outcome.step is not None  # it is what is watched
                self._poller.watch(work, outcome.step)
                if work.job.stop and not work.job.asked:
                    self._ask_to_cancel(work)
                return
            case "again":
                self._free_slot(work)
                self._act(work, slow=True)
                return
            case "later":
                if state is StepState.SUBMITTING:
                    lane.failed(now, self._clock)
                if not self._try_again(work, outcome, now):
                    self._leave_one(work, outcome.error)
                return
            case "throttled":
                lane.throttled(now, self._clock)
                since = work.job.failing_since_s = work.job.failing_since_s or now
                if lane.waits_in_vain(since, now):
                    self._leave_one(work, outcome.error)
                elif outcome.error is not None and getattr(outcome.error, "billed", None) is False:
                    self._free_slot(work)
                    self._queue(work, first=True)
                else:
                    self._later(work, max(lane.open_at_s, now))
                return
            case "full":
                self._free_slot(work)
                lane.open_at_s = max(lane.open_at_s, now + _FULL_S / 4 + jittered(_FULL_S, self._clock))
                self._queue(work, first=True)
                return
            case "elsewhere":
                self._free_slot(work)
                work.place = "elsewhere"
                self._elsewhere[work.job.id] = work
                if not self._looking_elsewhere:
                    self._look_elsewhere()
                return
            case "left":
                self._act(work)  # somebody came in the meantime
                return
            case "ended":
                self._drop(work, outcome.error, outcome.step)
            case "raised":
                self._leave_one(work, outcome.error)

    def _try_again(self, work: Work, outcome: Outcome, now: float) -> bool:
        job = work.job
        if outcome.after_s is not None:
            self._later(work, now + outcome.after_s)
            return True
        job.failing_since_s = now if job.failing_since_s is None else job.failing_since_s
        if now - job.failing_since_s > self._patience.give_up_after_s:
            return False
        self._later(work, now + self._patience.wait_s(job.tries, self._clock))
        job.tries += 1
        return True

    def _later(self, work: Work, due_s: float) -> None:
        work.place = "timer"
        work.ticket += 1

        def go_on(ticket: int = work.ticket) -> None:
            if work.place != "timer" or work.ticket != ticket:
                return
            if work.has_slot:  # it is being submitted: the lane decides when it goes on
                self._free_slot(work)
                self._queue(work, first=True)
            else:
                self._act(work, slow=True)

        self._loop.at(due_s, go_on)

    # -- what other runners do

    def _look_elsewhere(self) -> None:
        self._looking_elsewhere = bool(self._elsewhere)
        if not self._elsewhere:
            return
        wait_s = _ELSEWHERE_S / 2 + jittered(_ELSEWHERE_S, self._clock)

        def look() -> None:
            wanted = list(self._elsewhere)

            def ask() -> Command:
                try:
                    heads = self._journal.heads(wanted)
                except BackendError:
                    heads = {}
                return partial(self._looked, heads)

            self._loop.act(ask)

        self._loop.at(self._loop.now_s() + wait_s, look)

    def _looked(self, heads: Mapping[str, Head]) -> None:
        owner = self._owner
        alive = {one: owner.is_alive(one) for one in {head.owner for head in heads.values()} if one is not None}
        for head in heads.values():
            work = self._elsewhere.get(head.id)
            if work is None or work.place != "elsewhere":
                continue
            self._tell(work, head.state)
            if head.state in _SETTLED or head.owner is None or not alive[head.owner] or head.owner == owner.id:
                del self._elsewhere[head.id]
                self._begin(work, head)
        self._look_elsewhere()

    # -- ends

    def stop(self, step_id: str, *, ask: bool = True) -> None:
        """Somebody asks to cancel a step; without `ask` its provider was asked already."""
        work = self._works.get(step_id)
        if work is None:
            return
        work.job.stop = True
        if work.place in {"lane", "parts"}:
            self._act(work)
        elif work.place == "watch" and ask and not work.job.asked:
            self._ask_to_cancel(work)
        elif work.place == "watch":
            work.job.asked = True

    def _ask_to_cancel(self, work: Work) -> None:
        acts, handle = self._acts, work.handle
        assert handle is not None  # it is being watched

        def ask() -> Command:
            try:
                with about(job_id=work.job.id):
                    agreed = acts.generator(work.job.generator).cancel(handle)
            except BackendError:
                agreed = False
            return partial(self._cancelled, work, agreed=agreed)

        self._loop.act(ask)

    def _cancelled(self, work: Work, *, agreed: bool) -> None:
        if agreed or work.place != "watch":
            work.job.asked = agreed
            self._poller.soon(work.job.generator)
            return
        error = JobTimeoutError(
            "This provider cannot cancel: the job runs on, and so does its charge. Its result will be recorded.",
            job_id=work.job.id,
            retryable=True,
            hint="vrag resume",
        )
        work.lingers = True
        for waiter in list(work.waiters):
            self._expire(work, waiter, error)

    def _check_deadlines(self, work: Work) -> None:
        for waiter in list(work.waiters):
            self._check_deadline(work, waiter)

    def _check_deadline(self, work: Work, waiter: Waiter) -> None:
        if waiter.deadline_s is None or waiter not in work.waiters or self._loop.now_s() < waiter.deadline_s:
            return
        if work.place == "acting" or (work.place == "watch" and not work.polled):
            self._loop.at(self._loop.now_s() + _SLICE_S, partial(self._check_deadline, work, waiter))
            return
        error = JobTimeoutError(
            "The video is not ready yet; the job runs on.", job_id=work.job.id, retryable=True, hint="vrag resume"
        )
        self._expire(work, waiter, error)

    def _expire(self, work: Work, waiter: Waiter, error: Exception) -> None:
        """One of those who wait goes away."""
        if work.place != "acting" and not work.lingers and len(work.waiters) == 1 and not work.needed_by:
            self._leave_one(work, error)
            return
        work.waiters.remove(waiter)
        waiter.future.set_exception(error)
        work.job.abandoned = self._is_abandoned(work)

    def abandon(self, step_id: str, future: Future[Step]) -> None:
        """Somebody waits no more."""
        work = self._works.get(step_id)
        waiter = next((one for one in work.waiters if one.future is future), None) if work is not None else None
        if work is None or waiter is None:
            return
        if len(work.waiters) == 1 and work.place == "acting" and not work.needed_by and not work.lingers:
            waiter.gone = work.job.abandoned = True  # told when the current act is written
        else:
            self._expire(work, waiter, left(step_id, str(work.told or "planned")))

    def _is_abandoned(self, work: Work) -> bool:
        nobody = all(waiter.gone for waiter in work.waiters) and not work.needed_by and not work.lingers
        return nobody or self._leaving

    def leave(self, *, now: bool) -> None:
        """Everybody is to go."""
        self._leaving = True
        idle = [work for work in self._works.values() if work.place != "acting" or now]
        self._let_go([work for work in idle if work.job.leased])
        for work in idle:
            if work.job.id in self._works:
                self._drop(work, left(work.job.id, str(work.told or "planned")))
        for work in self._works.values():
            work.job.abandoned = True

    def _let_go(self, works: list[Work]) -> None:
        if not works:
            return
        with suppress(BackendError):  # a full disk: the lease ends with this runner
            self._journal.release([work.job.id for work in works], self._owner)
        for work in works:
            work.job.leased = False

    def _leave_one(self, work: Work, error: Exception | None) -> None:
        """Stop working on a step that has not ended."""
        if work.job.leased:
            self._let_go([work])
        self._drop(work, error)

    def _drop(self, work: Work, error: Exception | None, step: Step | None = None) -> None:
        """It has ended, or is left: tell all who wait."""
        self._free_slot(work)
        self._poller.forget(work)
        work.place = "gone"
        self._works.pop(work.job.id, None)
        self._elsewhere.pop(work.job.id, None)
        waiters, work.waiters = work.waiters, []
        for waiter in waiters:
            if error is not None:
                waiter.future.set_exception(error)
            elif step is not None:
                waiter.future.set_result(step)
        for part_id in work.needs:
            part = self._works.get(part_id)
            if part is not None and work in part.needed_by:
                part.needed_by.remove(work)
                if self._is_abandoned(part):
                    part.job.abandoned = True
                    if part.place != "acting":
                        self._leave_one(part, left(part_id, str(part.told or "planned")))
        whole, work.needed_by = work.needed_by, []
        for one in whole:
            one.needs.discard(work.job.id)
            if one.place != "parts":
                continue
            if error is not None:
                self._part_failed(one, error)
            elif not one.needs:
                self._act(one)

    def _part_failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, JobFailedError):
            told = {"error": "part_failed", "message": f"A shot of it failed: {error.message}", "billed": False}
            with suppress(BackendError):
                self._journal.advance(
                    work.job.id, StepState.PLANNED, StepState.FAILED, error={**told, "retryable": error.retryable}
                )
                ended = self._journal.get(work.job.id)
                self._tell(work, ended.state)
                error = error_of(ended)
        self._drop(work, error)

    def _tell(self, work: Work, state: StepState) -> None:
        if state is not work.told:
            work.told = state
            self._notify(work, state)

    def _notify(self, work: Work, state: StepState, *, progress: float | None = None) -> None:
        event = Event(step_id=work.job.id, state=state, progress=progress, at=rfc3339(self._clock.now()))
        _log.debug("%s is %s", work.job.id[:12], state)
        for waiter in list(work.waiters):
            try:
                waiter.notify(event)
            except Exception:  # noqa: BLE001  # whatever it is, it is the hook's
                _log.exception("A listener to the events of a job failed.")


def _nothing() -> None:
    """Only to wake up."""


def _told(error: Exception, step_id: str) -> Exception:
    """What somebody is told of an error of a backend: a job error, which says that the step can be resumed."""
    if not isinstance(error, BackendError):
        return error
    told = JobError(error.message, job_id=step_id, retryable=True, hint="vrag resume")
    told.__cause__ = error
    return told
