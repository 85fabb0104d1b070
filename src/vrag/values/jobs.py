"""Jobs: the handle of a paid call, what a provider says of it, and the step of a plan that it belongs to."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from attrs import field, frozen

from vrag.values.canonical import JSON

__all__ = ["Event", "Fault", "Handle", "JobStatus", "Output", "Recovery", "StepState"]

Recovery = Literal["token", "list", "none"]
"""How a lost job is found again: by sending its token again, by listing jobs, or not at all."""


@frozen(kw_only=True)
class Handle:
    """Names one job at its provider; hashable, JSON, good in any process and on any day."""

    provider: str
    id: str
    """The provider's own id of the job (an ARN, a token …)."""


@frozen(kw_only=True)
class Output:
    """One file that a job made."""

    name: str
    role: str = "video"
    """`video` for the whole film, `shot` for a part, `manifest` for what came with it."""
    media_type: str = "video/mp4"
    size_bytes: int | None = None
    sha256: str | None = None


@frozen(kw_only=True)
class Fault:
    """Why a job failed, in the provider's words, without secrets."""

    code: str
    """`moderation`, `validation`, `throttled`, `service`, `retired`, `lost`, `cancelled` or the provider's own."""
    message: str
    retryable: bool = False


@frozen(kw_only=True)
class JobStatus:
    """What is known of a job now."""

    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
    """`lost`: the provider knows that it will never end; rendered again where its price is zero."""
    progress: float | None = None
    """0..1; None where the provider tells nothing."""
    outputs: tuple[Output, ...] = ()
    """Filled when succeeded; the one with role `video` is the film."""
    error: Fault | None = None
    billed: bool | None = None
    """None while nobody knows."""
    report: JSON = field(factory=dict)
    """What the model says it did: effective seed, crop of the first frame, encoder … It goes into the record."""


class StepState(StrEnum):
    """Where a step stands; each is written before the act that its name announces.

    ```text
    planned → submitting → submitted → done → fetched → finished → recorded → delivered
                  ↘ undecided        ↘ failed, cancelled              ↘ withheld
    ```
    """

    PLANNED = "planned"
    SUBMITTING = "submitting"
    UNDECIDED = "undecided"
    SUBMITTED = "submitted"
    DONE = "done"
    FETCHED = "fetched"
    FINISHED = "finished"
    RECORDED = "recorded"
    DELIVERED = "delivered"
    WITHHELD = "withheld"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class Event:
    """Something happened to a step."""

    step_id: str
    state: StepState
    progress: float | None = None
    """0..1 while the video is made, where the provider tells."""
    at: str
    """RFC 3339 UTC."""
    message: str = ""
