"""What an act on a step needs to know, how it ends, and what people are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import define, field, frozen

from vrag.errors import (
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    JobUndecidedError,
    VRAGError,
)
from vrag.values.jobs import JobStatus, StepState
from vrag.values.requests import EditResult
from vrag.workspace.journal import Step

__all__ = ["Job", "Outcome", "caused", "error_of", "later", "left"]


@define(kw_only=True, eq=False)
class Job:
    """What a runner keeps in mind of a step that it works on; nothing in here is needed after a crash."""

    id: str
    kind: str
    generator: str
    model: str
    in_flight: int | None = None
    leased: bool = False
    fresh: bool = False
    """This runner wrote `submitting` itself and nothing was sent that may have been lost."""
    looks: int = 0
    tries: int = 0
    failing_since_s: float | None = None
    stop: bool = False
    """Somebody asked to cancel it."""
    asked: bool = False
    """The provider was asked to cancel it, and agreed."""
    abandoned: bool = False
    """Nobody waits for it any more: stop after the current write."""
    news: JobStatus | None = None
    bought: EditResult | None = field(default=None, repr=False)
    """What a paid edit gave, until it is stored."""
    tell: Callable[[Step], None] = field(repr=False)


@frozen(kw_only=True)
class Outcome:
    """Why an act stopped."""

    kind: Literal["watch", "again", "later", "throttled", "full", "elsewhere", "ended", "left", "raised"]
    step: Step | None = None
    error: Exception | None = None
    """What is raised if this goes on for too long; or now, where it is `raised`."""
    after_s: float | None = None
    """`later`: not before; None is a growing time with jitter."""


def later(step: Step, error: VRAGError) -> Outcome:
    """Try again after a while; the error is for whoever has waited too long."""
    told = JobError(error.message, job_id=step.id, retryable=True, hint="vrag resume")
    return Outcome(kind="later", step=step, error=caused(told, error))


def caused(error: JobError, cause: Exception) -> JobError:
    """`error` with its cause."""
    error.__cause__ = cause
    return error


def error_of(step: Step) -> JobError:
    """The error that a step ended with."""
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


def left(step_id: str, state: str) -> JobTimeoutError:
    """What somebody is told who waits for a step that is left as it stands."""
    return JobTimeoutError(f"Left while {state}; nothing is lost.", job_id=step_id, retryable=True, hint="vrag resume")
