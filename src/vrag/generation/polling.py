"""One poller for all jobs: one call asks for all jobs of a generator, and no failed question ends a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attrs import define, field

from vrag.clock import Clock
from vrag.errors import AccessDeniedError, BackendError, ThrottledError
from vrag.generation.loop import Command, Loop
from vrag.generation.works import Work
from vrag.interfaces import VideoGenerator
from vrag.values.jobs import Handle, JobStatus
from vrag.workspace.hooks import about
from vrag.workspace.journal import Step
from vrag.workspace.limits import Patience, jittered

__all__ = ["Poller"]

_POLL_FIRST_S: Final = 0.05
_POLL_MAX_S: Final = 5.0
_POLL_SHARE: Final = 0.02
"""Of the time that a job has run: whoever waits for long need not ask often."""
_POLL_LEAST_S: Final = 0.25


@define(kw_only=True, eq=False)
class _Watch:
    """The jobs of one generator that are asked for together."""

    works: dict[Handle, Work] = field(factory=dict)
    wait_s: float = _POLL_FIRST_S
    asking: bool = False
    tries: int = 0
    failing_since_s: float | None = None
    timer: int = 0


class Poller:
    """Belongs to the deciding thread of a loop."""

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        patience: Patience,
        *,
        generator: Callable[[str], VideoGenerator],
        ended: Callable[[Work], None],
        progressed: Callable[[Work, float], None],
        polled: Callable[[Work], None],
        given_up: Callable[[Work, Exception], None],
    ) -> None:
        """Watch nothing yet.

        Args:
            loop: Where it runs.
            clock: Randomness of the waits.
            patience: How long questions are asked in vain.
            generator: By its name.
            ended: A job has ended; its `news` say how.
            progressed: A job tells how far it is.
            polled: A job that runs on was asked for.
            given_up: A job cannot be asked for.
        """
        self._loop, self._clock, self._patience = loop, clock, patience
        self._generator = generator
        self._ended, self._progressed, self._polled, self._given_up = ended, progressed, polled, given_up
        self._watches: dict[str, _Watch] = {}

    def soon(self, name: str) -> None:
        """Ask for the jobs of this generator now."""
        watch = self._watches.get(name)
        if watch is not None:
            self._poll_after(name, watch, 0.0)

    def forget(self, work: Work) -> None:
        """Ask no more for this job."""
        if work.handle is not None and work.job.generator in self._watches:
            self._watches[work.job.generator].works.pop(work.handle, None)

    def watch(self, work: Work, step: Step) -> None:
        """Ask for this job from now on."""
        assert step.handle is not None  # written with `submitted`
        watch = self._watches.setdefault(work.job.generator, _Watch())
        work.place, work.handle, work.watched_since_s, work.polled = "watch", step.handle, self._loop.now_s(), False
        if not watch.works:
            watch.wait_s = _POLL_FIRST_S
            self._poll_after(work.job.generator, watch, watch.wait_s)
        watch.works[step.handle] = work

    def _poll_after(self, name: str, watch: _Watch, wait_s: float) -> None:
        watch.timer += 1
        self._loop.at(self._loop.now_s() + wait_s, partial(self._poll, name, watch, watch.timer))

    def _poll(self, name: str, watch: _Watch, timer: int) -> None:
        if timer != watch.timer or watch.asking or not watch.works:
            return
        watch.asking = True
        asked = list(watch.works)

        def ask() -> Command:
            try:
                with about(retry=watch.tries):
                    told = self._generator(name).status(asked)
            except Exception as error:  # noqa: BLE001  # whoever waits is told
                return partial(self._not_told, name, watch, asked, error)
            return partial(self._told, name, watch, asked, told)

        self._loop.act(ask)

    def _told(self, name: str, watch: _Watch, asked: list[Handle], told: Mapping[Handle, JobStatus]) -> None:
        watch.asking, watch.tries, watch.failing_since_s = False, 0, None
        ended = False
        for handle in asked:
            work, status = watch.works.get(handle), told.get(handle)
            if work is None or work.place != "watch":
                continue
            work.polled = True
            if status is not None and status.state not in {"queued", "running"}:
                ended = True
                del watch.works[handle]
                work.job.news = status
                self._ended(work)
            elif status is not None and status.progress is not None and status.progress > work.progress:
                work.progress = status.progress
                self._progressed(work, status.progress)
        now = self._loop.now_s()
        for work in list(watch.works.values()):
            self._polled(work)
        if not watch.works:
            return
        oldest_s = now - min(work.watched_since_s for work in watch.works.values())
        longest_s = min(_POLL_MAX_S, max(_POLL_LEAST_S, _POLL_SHARE * oldest_s))
        watch.wait_s = min(max(watch.wait_s / 2, _POLL_FIRST_S) if ended else watch.wait_s * 1.5, longest_s)
        self._poll_after(name, watch, watch.wait_s * 0.8 + jittered(watch.wait_s * 0.4, self._clock))

    def _not_told(self, name: str, watch: _Watch, asked: list[Handle], error: Exception) -> None:
        """No answer ends no job; after a long time, or without access, jobs are left to be resumed."""
        watch.asking = False
        now = self._loop.now_s()
        watch.failing_since_s = now if watch.failing_since_s is None else watch.failing_since_s
        too_long = now - watch.failing_since_s > self._patience.give_up_after_s
        patient = isinstance(error, ThrottledError) or (
            isinstance(error, BackendError) and not isinstance(error, AccessDeniedError) and not too_long
        )
        for handle in asked:
            work = watch.works.get(handle)
            if work is None or work.place != "watch":
                continue
            if not patient:
                del watch.works[handle]
                self._given_up(work, error)
                continue
            self._polled(work)
        if watch.works:
            self._poll_after(name, watch, self._patience.wait_s(watch.tries, self._clock))
            watch.tries += 1
