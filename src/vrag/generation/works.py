"""What a runner keeps in mind of the steps that it looks after; all of it may be lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from attrs import define, field

from vrag.generation.outcomes import Job
from vrag.values.jobs import Event, Handle, StepState
from vrag.workspace.journal import Step
from vrag.workspace.limits import Lane

__all__ = ["Notify", "Waiter", "Work"]

Notify: TypeAlias = Callable[[Event], None]


@define(kw_only=True, eq=False)
class Waiter:
    """Somebody who asked for a step."""

    future: Future[Step]
    notify: Notify = field(repr=False)
    deadline_s: float | None
    gone: bool = False


@define(kw_only=True, eq=False)
class Work:
    """A step that this runner looks after."""

    job: Job
    lane: Lane
    waiters: list[Waiter] = field(factory=list)
    needs: set[str] = field(factory=set)
    needed_by: list[Work] = field(factory=list)
    place: str = "new"
    """`acting`, `lane`, `timer`, `watch`, `elsewhere` or `parts`."""
    has_slot: bool = False
    told: StepState | None = None
    """The last state that those who wait were told."""
    lingers: bool = False
    """Nobody waits for it, but it runs and costs: its result is recorded."""
    handle: Handle | None = None
    polled: bool = False
    progress: float = -1.0
    watched_since_s: float = 0.0
    ticket: int = 0
    """Which timer of its is the valid one."""
