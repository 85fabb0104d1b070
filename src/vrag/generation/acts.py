"""What is done to one step, state by state, until it has to wait; each act is written down before it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import RawIOBase
from typing import Any, BinaryIO, Final, cast

from attrs import evolve
from typing_extensions import override

from vrag.clock import Clock
from vrag.errors import (
    BackendError,
    GateError,
    JobError,
    MediaRejectedError,
    NotFoundError,
    UsageError,
)
from vrag.generation.buying import Buyer, end
from vrag.generation.outcomes import Job, Outcome, caused, error_of, later
from vrag.interfaces import Inpainter, Storage, VideoGenerator
from vrag.media.ref import MediaRef
from vrag.media.video import check_video
from vrag.values.canonical import JSON
from vrag.values.jobs import Fault, JobStatus, StepState
from vrag.workspace.hooks import about
from vrag.workspace.journal import ENDED, Journal, Step
from vrag.workspace.leases import Owner

__all__ = ["Acts"]

_MISSING_TRIES: Final = 5
_BUSY: Final = frozenset({StepState.PLANNED, *ENDED, StepState.UNDECIDED})


class _Leaving(Exception):  # noqa: N818  # no fault: somebody asked to leave in the middle of a download
    pass


class _Stream(RawIOBase):
    """A download that remembers its own errors and stops when nobody waits for it."""

    def __init__(self, stream: BinaryIO, abandoned: Callable[[], bool]) -> None:
        super().__init__()
        self._stream = stream
        self._abandoned = abandoned
        self.error: Exception | None = None

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1, /) -> bytes:
        if self._abandoned():
            raise _Leaving
        try:
            return self._stream.read(size)
        except Exception as error:
            self.error = error
            raise

    @override
    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Acts:
    """Carries a step on; blocking, without any waiting, and without memory of its own."""

    def __init__(
        self,
        *,
        journal: Journal,
        storage: Storage,
        generators: Mapping[str, VideoGenerator],
        inpainters: Mapping[str, Inpainter],
        clock: Clock,
        owner: Owner,
        gate: Callable[[Step], None],
        finish: Callable[[Step], tuple[MediaRef, JSON]],
        record: Callable[[Step, GateError | None], object],
        assemble: Callable[[Step, Sequence[MediaRef]], MediaRef] | None,
        rerun_below_usd_micros: int,
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._generators = generators
        self._inpainters = inpainters
        self._clock = clock
        self._owner = owner
        self._gate = gate
        self._finish = finish
        self._record = record
        self._assemble = assemble
        self._buyer = Buyer(
            journal=journal,
            storage=storage,
            generator=self.generator,
            inpainters=inpainters,
            clock=clock,
            rerun_below_usd_micros=rerun_below_usd_micros,
        )

    def generator(self, name: str) -> VideoGenerator:
        """The generator that a step was planned for.

        Raises:
            UsageError: There is none of this name.
        """
        try:
            return self._generators[name]
        except KeyError:
            known = ", ".join(sorted(self._generators)) or "none"
            raise UsageError(f"The step was planned for the generator '{name}'; there are: {known}.") from None

    def carry(self, job: Job) -> Outcome:
        """Go on with a step until it has to wait or has ended."""
        with about(job_id=job.id, retry=job.tries):
            while True:
                step = self._journal.get(job.id)
                job.tell(step)
                if step.state in {StepState.DELIVERED, StepState.WITHHELD}:
                    return Outcome(kind="ended", step=step)
                if step.state in _BUSY - {StepState.PLANNED}:
                    return Outcome(kind="ended", step=step, error=error_of(step))
                if job.abandoned:
                    return Outcome(kind="left", step=step)
                if step.state is not StepState.PLANNED and not job.leased:
                    job.leased = self._journal.lease(job.id, self._owner)
                    if not job.leased:
                        return Outcome(kind="elsewhere", step=step)
                with about(tags=_tags(step)):
                    outcome = self._act(step, job)
                if outcome is not None:
                    return outcome

    def _act(self, step: Step, job: Job) -> Outcome | None:
        match step.state:
            case StepState.PLANNED:
                return self._reserve(step, job)
            case StepState.SUBMITTING:
                match step.kind:
                    case "edit":
                        return self._buyer.edit(step, job)
                    case "assemble":
                        return self._join(step)
                    case _:
                        return self._buyer.submit(step, job)
            case StepState.SUBMITTED:
                return self._submitted(step, job)
            case StepState.DONE:
                return self._fetch(step, job)
            case StepState.FETCHED:
                self._mark(step)
            case StepState.FINISHED:
                self._record(step, self._closed_gate(step))
                if self._journal.get(step.id).state is StepState.FINISHED:
                    raise UsageError("`record` wrote no record: it moves the step from `finished` to `recorded`.")
            case _:  # RECORDED
                closed = self._closed_gate(step)
                state = StepState.DELIVERED if closed is None else StepState.WITHHELD
                self._journal.advance(step.id, step.state, state, error=None if closed is None else closed.to_json())
        return None

    def _closed_gate(self, step: Step) -> GateError | None:
        try:
            self._gate(step)
        except GateError as error:
            return error
        return None

    # -- buying

    def _reserve(self, step: Step, job: Job) -> Outcome | None:
        if job.stop:
            end(
                self._journal,
                step,
                StepState.CANCELLED,
                "cancelled",
                "Cancelled before it was submitted.",
                billed=False,
            )
            return None
        if step.kind == "generate":
            self.generator(step.generator)
        reserved = self._journal.reserve_and_submit(
            step.id, partial(self._gate, step), owner=self._owner, in_flight=job.in_flight
        )
        if reserved == "reserved":
            job.leased = job.fresh = True
        elif reserved != "moved":
            return Outcome(kind="full" if reserved == "full" else "elsewhere", step=step)
        return None

    def _join(self, step: Step) -> Outcome | None:
        """Joining costs nothing: what a crash left is made again."""
        if self._assemble is None:
            return Outcome(
                kind="raised", step=step, error=UsageError("This runner was given nothing that joins films.")
            )
        raws = [self._journal.get(part.step_id).raw for part in step.video.parts]
        joined = self._assemble(step, [raw for raw in raws if raw is not None])
        try:
            raw = self._checked(step, joined, "film")
        except MediaRejectedError as error:
            end(self._journal, step, StepState.FAILED, error.code, error.message, billed=False)
            return None
        status = JobStatus(state="succeeded", billed=False)
        self._journal.advance(step.id, step.state, StepState.FETCHED, raw=raw, status=status)
        return None

    # -- watching

    def _submitted(self, step: Step, job: Job) -> Outcome | None:
        status, job.news = job.news, None
        if status is None:
            return Outcome(kind="watch", step=step)
        match status.state:
            case "succeeded":
                self._journal.advance(step.id, step.state, StepState.DONE, status=status)
                job.tell(self._journal.get(step.id))
                return Outcome(kind="again", step=step)
            case "failed" | "cancelled" | "lost":
                self._ended_badly(step, status, asked=job.asked)
                job.leased = False
                return None
            case _:
                return Outcome(kind="watch", step=step)

    def _ended_badly(self, step: Step, status: JobStatus, *, asked: bool) -> None:
        free = step.usd_micros == 0
        # A process that ended took its renders along; nobody asked to cancel them, and they cost nothing.
        if free and (status.state == "lost" or (status.state == "cancelled" and not asked)):
            self._journal.retry(step.id)
            return
        fault = status.error or Fault(code=status.state, message=f"The provider says: {status.state}.")
        state = StepState.CANCELLED if status.state == "cancelled" else StepState.FAILED
        billed = False if free else status.billed
        end(self._journal, step, state, fault.code, fault.message, billed=billed, retryable=fault.retryable)

    # -- what was bought

    def _fetch(self, step: Step, job: Job) -> Outcome | None:
        generator, handle, status = self.generator(step.generator), step.handle, step.status
        assert handle is not None and status is not None  # noqa: PT018  # both written with `done`
        output = next((output for output in status.outputs if output.role == "video"), None)
        if output is None:
            end(
                self._journal,
                step,
                StepState.FAILED,
                "no_video",
                "The job succeeded without a video.",
                billed=status.billed,
            )
            return None
        try:
            with generator.fetch(handle, output) as download:
                stream = _Stream(download, lambda: job.abandoned)
                try:
                    stored = self._storage.put(cast("BinaryIO", stream), output.media_type)
                except _Leaving:
                    return Outcome(kind="left", step=step)
                except BackendError as error:
                    if stream.error is None:  # our own storage: waiting frees no space
                        told = JobError(error.message, job_id=step.id, retryable=True, hint="vrag resume")
                        return Outcome(kind="raised", step=step, error=caused(told, error))
                    raise
        except NotFoundError as error:
            # A store may show a new file late; and what is gone stays gone.
            if job.tries + 1 < _MISSING_TRIES:
                return later(step, error)
            end(self._journal, step, StepState.FAILED, "missing_output", error.message, billed=status.billed)
            return None
        except BackendError as error:
            return later(step, error)
        if output.sha256 not in {None, stored.sha256} or output.size_bytes not in {None, stored.size_bytes}:
            self._storage.delete(stored)
            told = JobError(
                "The download is not what the provider announced; nothing of it was kept.",
                job_id=step.id,
                retryable=True,
                hint="vrag resume",
            )
            if job.tries + 1 < _MISSING_TRIES:
                return Outcome(kind="later", step=step, error=told)
            return Outcome(kind="raised", step=step, error=told)
        try:
            raw = self._checked(step, stored, output.name)
        except MediaRejectedError as error:
            end(self._journal, step, StepState.FAILED, error.code, error.message, billed=status.billed)
            return None
        self._journal.advance(step.id, step.state, StepState.FETCHED, raw=raw)
        return None

    def _checked(self, step: Step, stored: MediaRef, name: str) -> MediaRef:
        request = step.video.request
        with self._storage.open(stored) as stream:
            info = check_video(stream, name, width_px=request.width_px, height_px=request.height_px)
        return evolve(stored, width_px=info.width_px, height_px=info.height_px, duration_s=info.duration_s)

    def _mark(self, step: Step) -> None:
        assert step.raw is not None  # written with `fetched`
        delivered, marks = (step.raw, None) if step.kind == "edit" else self._finish(step)
        self._journal.advance(step.id, step.state, StepState.FINISHED, delivered=delivered, marks=marks)


def _tags(step: Step) -> dict[str, str]:
    """Whose cost it is."""
    tags = {"step": step.kind, "knowledge_base": step.knowledge_base, "run": step.run_id}
    return {name: value for name, value in tags.items() if value is not None}
