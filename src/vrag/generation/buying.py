"""The paid calls themselves: sending a job once, finding one that may have been sent, and edits that answer at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from typing import Final

from attrs import evolve

from vrag.clock import Clock
from vrag.errors import (
    AccessDeniedError,
    BackendError,
    ContentRejectedError,
    JobError,
    MediaRejectedError,
    ModelRetiredError,
    NotFoundError,
    ThrottledError,
    UsageError,
    VRAGError,
)
from vrag.generation.outcomes import Job, Outcome, caused, later
from vrag.interfaces import Inpainter, Storage, VideoGenerator
from vrag.media.header import ImageLimits, open_image
from vrag.media.ref import MediaRef
from vrag.values.jobs import Handle, JobStatus, StepState
from vrag.workspace.hooks import about
from vrag.workspace.journal import Journal, Step

__all__ = ["Buyer", "end"]

_TOKEN_LIFE_S: Final = 120.0
"""So long a provider is trusted to know a token again: neither of the two video services says for how long it does."""
_LOOKS: Final = 2
_LOOK_APART_S: Final = 120.0
"""A list may lag: that a job is not in it is believed when it was not twice, so long apart."""
_REFUSALS: Final = (AccessDeniedError, ContentRejectedError, ModelRetiredError, UsageError, NotFoundError)


class Buyer:
    """Brings a step out of `submitting`; blocking, without any waiting, and without memory of its own."""

    def __init__(
        self,
        *,
        journal: Journal,
        storage: Storage,
        generator: Callable[[str], VideoGenerator],
        inpainters: Mapping[str, Inpainter],
        clock: Clock,
        rerun_below_usd_micros: int,
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._generator = generator
        self._inpainters = inpainters
        self._clock = clock
        self._rerun_below_usd_micros = rerun_below_usd_micros

    def submit(self, step: Step, job: Job) -> Outcome | None:
        """Send a job, or adopt the one that was sent."""
        generator = self._generator(step.generator)
        handle: Handle | None = None
        if not job.fresh:
            # Another process, or a life that ended here, may have sent it: look before anything is bought.
            if generator.recovery == "none" and step.usd_micros != 0:
                self._undecided(step, "It may have been bought; this provider cannot tell.")
                return None
            if generator.recovery == "list":
                try:
                    handle = self._look(step, generator)
                except BackendError as error:
                    return later(step, error)
                if handle is None and self._age_s(step) > _TOKEN_LIFE_S and job.looks < _LOOKS:
                    return self._look_again(step, job)
        if handle is None:
            try:
                with about(usd_micros=step.usd_micros):
                    handle = generator.start(step.video.request, self._storage.open, step.token)
            except ThrottledError as error:
                return self._throttled(step, job, error)
            except (*_REFUSALS, BackendError) as error:
                if isinstance(error, _REFUSALS) or (not error.retryable and error.request_id is not None):
                    return self._refused(step, job, error, generator)
                return self._unknown(step, job, error, generator)
        self._journal.advance(step.id, step.state, StepState.SUBMITTED, handle=handle)
        return None

    def _look(self, step: Step, generator: VideoGenerator) -> Handle | None:
        # Clocks differ between here and there; five minutes cost one more page of a list.
        since = datetime.fromisoformat(step.submitted_at or step.created_at) - timedelta(minutes=5)
        return generator.find([step.token], since).get(step.token)

    def _look_again(self, step: Step, job: Job) -> Outcome | None:
        """An empty answer is believed when it came twice, minutes apart."""
        job.looks += 1
        if job.looks >= _LOOKS:
            return None
        error = JobError("It is being looked for.", job_id=step.id, retryable=True, hint="vrag resume")
        return Outcome(kind="later", step=step, error=error, after_s=_LOOK_APART_S)

    def _age_s(self, step: Step) -> float:
        return (self._clock.now() - datetime.fromisoformat(step.submitted_at or step.created_at)).total_seconds()

    def _throttled(self, step: Step, job: Job, error: ThrottledError) -> Outcome:
        if job.fresh:
            # Nothing was done: the slot and the money are free for others.
            self._journal.advance(step.id, step.state, StepState.PLANNED)
        unpaid = False if job.fresh else None
        job.fresh = False
        told = JobError(error.message, job_id=step.id, retryable=True, billed=unpaid, hint="vrag resume")
        return Outcome(kind="throttled", step=step, error=caused(told, error))

    def _refused(self, step: Step, job: Job, error: VRAGError, generator: VideoGenerator) -> Outcome | None:
        """The provider said no to this call. Was an earlier one of the same token taken?"""
        if generator.recovery == "list" and not isinstance(error, AccessDeniedError | ModelRetiredError | UsageError):
            try:
                handle = self._look(step, generator)  # a conflict says that this token is in use
            except BackendError:
                handle = None
            if handle is not None:
                self._journal.advance(step.id, step.state, StepState.SUBMITTED, handle=handle)
                return None
        if job.fresh or step.usd_micros == 0 or (generator.recovery == "list" and job.looks >= _LOOKS):
            end(self._journal, step, StepState.FAILED, error.code, error.message, billed=False)
            return None
        if isinstance(error, AccessDeniedError):
            told = JobError(error.message, job_id=step.id, retryable=True, hint="vrag resume")
            return Outcome(kind="raised", step=step, error=caused(told, error))
        if generator.recovery == "list":
            return self._look_again(step, job)
        self._undecided(step, f"An earlier call may have bought it; the last one was refused: {error.message}")
        return None

    def _unknown(self, step: Step, job: Job, error: BackendError, generator: VideoGenerator) -> Outcome | None:
        """The reply may be what was lost: the row stays `submitting`, and the job is looked for first."""
        job.fresh = False
        if not error.retryable:
            told = JobError(error.message, job_id=step.id, retryable=True, hint="vrag resume")
            return Outcome(kind="raised", step=step, error=caused(told, error))
        if generator.recovery == "none" and step.usd_micros != 0:
            self._undecided(step, f"It may have been bought: {error.message}")
            return None
        return later(step, error)

    def edit(self, step: Step, job: Job) -> Outcome | None:
        """Buy an edit and keep its pictures."""
        again = step.usd_micros is not None and step.usd_micros <= self._rerun_below_usd_micros
        result = job.bought
        if result is None:
            if not job.fresh and not again:
                self._undecided(step, "This edit may have been bought; its answer was lost.")
                return None
            if not job.fresh and step.usd_micros:
                self._journal.retry(step.id)  # both attempts count as spent
                return None
            try:
                inpainter = self._inpainters[step.generator]
            except KeyError:
                return Outcome(kind="raised", step=step, error=UsageError(f"There is no inpainter '{step.generator}'."))
            sent_before = not job.fresh
            try:
                with about(usd_micros=step.usd_micros):
                    result = inpainter.edit(step.edit.request, self._storage.open)
            except ThrottledError as error:
                return self._throttled(step, job, error)
            except _REFUSALS as error:
                # What moderation kept back may be billed all the same.
                free = not sent_before and not isinstance(error, ContentRejectedError)
                end(self._journal, step, StepState.FAILED, error.code, error.message, billed=False if free else None)
                return None
            except BackendError as error:
                job.fresh = False
                if not error.retryable and error.request_id is not None:
                    end(
                        self._journal,
                        step,
                        StepState.FAILED,
                        error.code,
                        error.message,
                        billed=None if sent_before else False,
                    )
                    return None
                if again:
                    return later(step, error)
                self._undecided(step, f"This edit may have been bought: {error.message}")
                return None
        try:
            outputs = [self._keep(picture) for picture in result.images]
        except MediaRejectedError as error:
            end(self._journal, step, StepState.FAILED, error.code, error.message, billed=result.billed)
            return None
        except BackendError as error:
            job.bought = result  # it was paid for
            return later(step, error)
        job.bought = None
        report = {**(result.report or {}), **({"rejected": list(result.rejected)} if result.rejected else {})}
        status = JobStatus(state="succeeded", billed=result.billed, report=report)
        raw = outputs[0] if outputs else None
        if raw is None:
            end(self._journal, step, StepState.FAILED, "no_picture", "The edit gave no picture.", billed=result.billed)
            return None
        self._journal.advance(step.id, step.state, StepState.FETCHED, outputs=outputs, raw=raw, status=status)
        return None

    def _keep(self, picture: bytes) -> MediaRef:
        try:
            header = open_image(picture, "edited picture", ImageLimits(min_side_px=1))
        except UsageError as error:
            raise MediaRejectedError(error.message, name="edited picture", code="undecodable") from error
        stored = self._storage.put(BytesIO(picture), header.media_type)
        return evolve(stored, width_px=header.width_px, height_px=header.height_px)

    def _undecided(self, step: Step, message: str) -> None:
        end(self._journal, step, StepState.UNDECIDED, "undecided", message, billed=None)


def end(
    journal: Journal,
    step: Step,
    state: StepState,
    code: str,
    message: str,
    *,
    billed: bool | None,
    retryable: bool = False,
) -> None:
    """Write down that a step ended badly, and whether it was billed."""
    error = {"error": code, "message": message, "billed": billed, "retryable": retryable}
    journal.advance(step.id, step.state, state, error=error)
