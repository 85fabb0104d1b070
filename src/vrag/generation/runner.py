"""Brings one step of the journal to its end, from wherever an earlier life of the process left it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from attrs import evolve

from vrag.clock import Clock, rfc3339
from vrag.errors import (
    AccessDeniedError,
    BackendError,
    ContentRejectedError,
    GateError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    JobUndecidedError,
    MediaRejectedError,
    ModelRetiredError,
    ThrottledError,
    UsageError,
)
from vrag.interfaces import Storage, VideoGenerator
from vrag.media.ref import MediaRef
from vrag.media.video import check_video
from vrag.values.jobs import Event, Fault, Handle, JobStatus, StepState
from vrag.workspace.journal import ENDED, Journal, Step

__all__ = ["Runner"]

_POLL_FIRST_S = 0.05
_POLL_MAX_S = 10.0
ValueT = TypeVar("ValueT")


class Runner:
    """Submits, watches, fetches, checks and hands over to be recorded; each act is written down before it is done.

    `gate` raises `GateError` for a step whose picture may no longer be used; `record` makes the signed record, of a
    delivery or (given the gate's error) of a withheld result, and writes it together with the state `recorded`.
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
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._generators = generators
        self._clock = clock
        self._gate = gate
        self._record = record

    def drive(
        self,
        step_id: str,
        *,
        notify: Callable[[Event], None] = lambda _event: None,
        stopped: Callable[[], bool] = lambda: False,
        leaving: Callable[[], bool] = lambda: False,
        timeout_s: float | None = None,
    ) -> Step:
        """Bring the step to its end and return it: delivered or withheld.

        Args:
            step_id: A step of the journal, in any state.
            notify: Called with each `Event`; what it raises is the caller's own.
            stopped: When it turns true the job is cancelled where the provider can.
            leaving: When it turns true the step is left as it stands, for `resume`.
            timeout_s: How long to wait for the provider; the job runs on, and a later call finds it.

        Raises:
            GateError: A picture of it may not be used; nothing was submitted.
            JobFailedError, JobCancelledError, JobTimeoutError, JobUndecidedError: As they say.
        """
        with self._journal.claim(step_id):
            return self._drive(step_id, notify, stopped, leaving, timeout_s)

    def _drive(
        self,
        step_id: str,
        notify: Callable[[Event], None],
        stopped: Callable[[], bool],
        leaving: Callable[[], bool],
        timeout_s: float | None,
    ) -> Step:
        deadline_s = None if timeout_s is None else self._clock.monotonic_s() + timeout_s
        fresh = False  # whether this very call wrote `submitting`: only then is it certain that nothing was sent
        while True:
            step = self._journal.get(step_id)
            notify(self._event(step))
            if leaving() and step.state not in ENDED:
                raise self._left(step)
            match step.state:
                case StepState.PLANNED:
                    if stopped():
                        self._end(step, StepState.CANCELLED, "cancelled", "Cancelled before it was submitted.", False)
                    else:
                        fresh = self._journal.reserve_and_submit(step_id, partial(self._gate, step))
                case StepState.SUBMITTING:
                    self._submit(step, fresh=fresh)
                case StepState.SUBMITTED:
                    self._watch(step, notify, stopped, leaving, deadline_s)
                case StepState.DONE:
                    self._fetch(step)
                case StepState.FETCHED:
                    # Marks (label, watermark, content credentials) go here; without them the raw bytes are delivered.
                    self._journal.advance(step_id, step.state, StepState.FINISHED, delivered=step.raw)
                case StepState.FINISHED:
                    self._record(step, self._closed_gate(step))
                case StepState.RECORDED:
                    closed = self._closed_gate(step)
                    if closed is not None:
                        self._journal.advance(step_id, step.state, StepState.WITHHELD, error=closed.to_json())
                    else:
                        self._journal.advance(step_id, step.state, StepState.DELIVERED)
                case StepState.DELIVERED | StepState.WITHHELD:
                    return step
                case StepState.FAILED | StepState.CANCELLED | StepState.UNDECIDED:
                    raise self._error(step)

    def _closed_gate(self, step: Step) -> GateError | None:
        try:
            self._gate(step)
        except GateError as error:
            return error
        return None

    def _event(self, step: Step, progress: float | None = None) -> Event:
        return Event(step_id=step.id, state=step.state, progress=progress, at=rfc3339(self._clock.now()))

    def _generator(self, step: Step) -> VideoGenerator:
        try:
            return self._generators[step.generator]
        except KeyError:
            raise UsageError(
                f"The step was planned for the generator '{step.generator}'; there are: "
                f"{', '.join(sorted(self._generators)) or 'none'}."
            ) from None

    def _submit(self, step: Step, *, fresh: bool) -> None:
        generator = self._generator(step)
        handle: Handle | None = None
        if not fresh:
            # Another process, or a life that ended here, may have sent it: look before anything is bought.
            if generator.recovery == "none" and step.planned.estimate.usd_micros != 0:
                self._end(
                    step, StepState.UNDECIDED, "undecided", "It may have been bought; this provider cannot tell.", None
                )
                return
            if generator.recovery == "list":
                handle = self._translate(step, lambda: generator.find([step.token], _since(step)).get(step.token))
        if handle is None:
            try:
                handle = generator.start(step.planned.request, self._storage.open, step.token)
            except ThrottledError as error:
                self._journal.advance(step.id, step.state, StepState.PLANNED)
                raise JobError(
                    error.message, job_id=step.id, retryable=True, billed=False, hint="vrag resume"
                ) from error
            except (AccessDeniedError, ContentRejectedError, ModelRetiredError, UsageError) as error:
                self._end(step, StepState.FAILED, error.code, error.message, False)
                return
            except BackendError as error:
                # The reply may be what was lost: the row stays `submitting`, and the job is looked for first.
                raise JobError(
                    error.message, job_id=step.id, retryable=True, billed=None, hint="vrag resume"
                ) from error
        self._journal.advance(step.id, step.state, StepState.SUBMITTED, handle=handle)

    @staticmethod
    def _translate(step: Step, call: Callable[[], ValueT]) -> ValueT:
        try:
            return call()
        except BackendError as error:
            raise JobError(error.message, job_id=step.id, retryable=error.retryable, hint="vrag resume") from error

    def _watch(
        self,
        step: Step,
        notify: Callable[[Event], None],
        stopped: Callable[[], bool],
        leaving: Callable[[], bool],
        deadline_s: float | None,
    ) -> None:
        generator = self._generator(step)
        handle = step.handle
        assert handle is not None  # written together with `submitted`
        wait_s, seen, asked = _POLL_FIRST_S, -1.0, False
        while True:
            status = self._translate(step, lambda: generator.status([handle]).get(handle))
            if status is not None:
                match status.state:
                    case "succeeded":
                        self._journal.advance(step.id, step.state, StepState.DONE, status=status)
                        return
                    case "failed" | "cancelled" | "lost":
                        self._ended_badly(step, status, asked=asked)
                        return
                    case "queued" | "running":
                        if status.progress is not None and status.progress > seen:
                            seen = status.progress
                            notify(self._event(step, progress=seen))
            if stopped() and not asked:
                asked = True
                if not generator.cancel(handle):
                    raise JobTimeoutError(
                        "This provider cannot cancel: the job runs on, and so does its charge.",
                        job_id=step.id,
                        retryable=True,
                        hint="vrag resume",
                    )
            if leaving():
                raise self._left(step)
            if deadline_s is not None and self._clock.monotonic_s() >= deadline_s:
                raise JobTimeoutError(
                    "The video is not ready yet; the job runs on.", job_id=step.id, retryable=True, hint="vrag resume"
                )
            self._clock.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _POLL_MAX_S)

    @staticmethod
    def _left(step: Step) -> JobTimeoutError:
        return JobTimeoutError(
            f"Left while {step.state}; nothing is lost.", job_id=step.id, retryable=True, hint="vrag resume"
        )

    def _ended_badly(self, step: Step, status: JobStatus, *, asked: bool) -> None:
        free = step.planned.estimate.usd_micros == 0
        # A process that ended took its renders along; nobody asked to cancel them, and they cost nothing.
        if free and (status.state == "lost" or (status.state == "cancelled" and not asked)):
            self._journal.retry(step.id)
            return
        fault = status.error or Fault(code=status.state, message=f"The provider says: {status.state}.")
        state = StepState.CANCELLED if status.state == "cancelled" else StepState.FAILED
        self._end(step, state, fault.code, fault.message, False if free else status.billed, fault.retryable)

    def _fetch(self, step: Step) -> None:
        generator, handle, status = self._generator(step), step.handle, step.status
        assert handle is not None and status is not None  # noqa: PT018  # both written with `done`
        output = next((output for output in status.outputs if output.role == "video"), None)
        if output is None:
            self._end(step, StepState.FAILED, "no_video", "The job succeeded without a video.", status.billed)
            return
        with self._translate(step, lambda: generator.fetch(handle, output)) as stream:
            stored = self._storage.put(stream, output.media_type)
        if output.sha256 not in {None, stored.sha256} or output.size_bytes not in {None, stored.size_bytes}:
            self._storage.delete(stored)
            raise JobError(
                "The download is not what the provider announced; nothing of it was kept.",
                job_id=step.id,
                retryable=True,
                hint="vrag resume",
            )
        request = step.planned.request
        try:
            with self._storage.open(stored) as stream:
                info = check_video(stream, output.name, width_px=request.width_px, height_px=request.height_px)
        except MediaRejectedError as error:
            self._end(step, StepState.FAILED, error.code, error.message, status.billed)
            return
        raw: MediaRef = evolve(stored, width_px=info.width_px, height_px=info.height_px, duration_s=info.duration_s)
        self._journal.advance(step.id, step.state, StepState.FETCHED, raw=raw)

    def _end(
        self, step: Step, state: StepState, code: str, message: str, billed: bool | None, retryable: bool = False
    ) -> None:
        self._journal.advance(
            step.id,
            step.state,
            state,
            error={"error": code, "message": message, "billed": billed, "retryable": retryable},
        )

    @staticmethod
    def _error(step: Step) -> JobError:
        kind = {StepState.CANCELLED: JobCancelledError, StepState.UNDECIDED: JobUndecidedError}.get(
            step.state, JobFailedError
        )
        error = step.error or {}
        return kind(
            error.get("message", f"The step is {step.state}."),
            job_id=step.id,
            retryable=error.get("retryable", False),
            billed=error.get("billed"),
            hint="vrag jobs" if step.state is StepState.UNDECIDED else None,
        )


def _since(step: Step) -> datetime:
    # Clocks differ between here and there; five minutes cost one more page of a list.
    return datetime.fromisoformat(step.submitted_at or step.created_at) - timedelta(minutes=5)
