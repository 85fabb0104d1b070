"""What a row of the journal holds."""

from __future__ import annotations

import json
import sqlite3
from functools import cached_property
from typing import Final, TypeVar

from attrs import evolve, field, frozen

from vrag.errors import UsageError
from vrag.media.ref import MediaRef
from vrag.values.assets import Rights
from vrag.values.briefs import Brief, PlannedEdit, PlannedVideo, Source
from vrag.values.canonical import JSON, from_json, to_json
from vrag.values.jobs import Handle, JobStatus, StepState
from vrag.values.requests import Look, ModelRef

__all__ = ["ENDED", "Head", "Step", "model_key", "read_step", "token_of", "without_words"]

ValueT = TypeVar("ValueT")
ENDED: Final = frozenset({StepState.DELIVERED, StepState.WITHHELD, StepState.FAILED, StepState.CANCELLED})
"""States that `resume` leaves alone."""


@frozen(kw_only=True)
class Head:
    """What a runner must know of a step before it is its turn."""

    id: str
    state: StepState
    kind: str
    generator: str
    model: str
    owner: str | None


@frozen(kw_only=True)
class Step:
    """A row of the journal."""

    id: str
    state: StepState
    kind: str
    """`generate`, `edit` (a paid call that answers at once), or `assemble` (joins other steps)."""
    generator: str
    planned_json: str = field(repr=False)
    attempt: int
    """1, and one more each time it is tried again after it ended without a charge."""
    handle: Handle | None
    status: JobStatus | None
    raw: MediaRef | None
    delivered: MediaRef | None
    outputs: tuple[MediaRef, ...] = ()
    """All pictures that an edit made; the first one is `raw` too."""
    marks: JSON = None
    """What was put into the delivered file."""
    record_id: str | None
    error: JSON
    usd_micros: int | None
    """What this attempt costs by its estimate; the parts of a joined video pay for themselves."""
    knowledge_base: str | None = None
    run_id: str | None = None
    owner: str | None = None
    created_at: str
    submitted_at: str | None
    """When `submitting` was written; a lost job is looked for from then on."""
    updated_at: str

    @property
    def token(self) -> str:
        """What identifies this attempt to the provider: the same token is the same job."""
        return token_of(self.id, self.attempt)

    @cached_property
    def planned(self) -> PlannedVideo | PlannedEdit:
        """What was planned."""
        kind: type[PlannedVideo | PlannedEdit] = PlannedEdit if self.kind == "edit" else PlannedVideo
        return from_json(kind, json.loads(self.planned_json))

    @property
    def video(self) -> PlannedVideo:
        """What was planned, of a video.

        Raises:
            UsageError: The step is an edit.
        """
        if isinstance(self.planned, PlannedEdit):
            raise UsageError(f"The step '{self.id[:12]}…' is an edit and makes no video.")
        return self.planned

    @property
    def edit(self) -> PlannedEdit:
        """What was planned, of an edit.

        Raises:
            UsageError: The step makes a video.
        """
        if isinstance(self.planned, PlannedVideo):
            raise UsageError(f"The step '{self.id[:12]}…' makes a video and is no edit.")
        return self.planned


def model_key(model: ModelRef) -> str:
    """What quotas and breakers count by: provider, model, Region and account."""
    return json.dumps(to_json(model), separators=(",", ":"))


def token_of(step_id: str, attempt: int) -> str:
    """What identifies an attempt to the provider."""
    return step_id if attempt == 1 else f"{step_id}-{attempt}"


def without_words(planned: PlannedVideo | PlannedEdit) -> PlannedVideo | PlannedEdit:
    """What was planned, without the user's words; digests, sizes and prices stay."""
    return _silent_edit(planned) if isinstance(planned, PlannedEdit) else _silent_video(planned)


def _silent_video(planned: PlannedVideo) -> PlannedVideo:
    request = evolve(
        planned.request,
        shots=tuple(evolve(shot, prompt="") for shot in planned.request.shots),
        negative_prompt=None,
        look=Look(),
    )
    return evolve(
        planned,
        brief=_silent_brief(planned.brief),
        request=request,
        sources=tuple(map(_silent_source, planned.sources)),
        unmet=tuple(evolve(problem, message="") for problem in planned.unmet),
        notes=(),
        candidates=tuple(evolve(one, excluded=None) for one in planned.candidates),
        retrieval={},
        parts=tuple(map(_silent_video, planned.parts)),
    )


def _silent_edit(planned: PlannedEdit) -> PlannedEdit:
    return evolve(
        planned,
        brief=_silent_brief(planned.brief),
        request=evolve(planned.request, prompt=None, negative_prompt=None, mask_prompt=None),
        source=_silent_source(planned.source),
        unmet=tuple(evolve(problem, message="") for problem in planned.unmet),
        candidates=tuple(evolve(one, excluded=None) for one in planned.candidates),
        retrieval={},
    )


def _silent_brief(brief: Brief) -> Brief:
    return Brief(knowledge_base=brief.knowledge_base, model=brief.model, seed=brief.seed, take=brief.take)


def _silent_source(source: Source) -> Source:
    return evolve(source, caption=None, file_name="", rights=Rights())


def read_step(row: sqlite3.Row) -> Step:
    """A step from its row."""

    def read(kind: type[ValueT], column: str) -> ValueT | None:
        return None if row[column] is None else from_json(kind, json.loads(row[column]))

    return Step(
        id=row["id"],
        state=StepState(row["state"]),
        kind=row["kind"],
        generator=row["generator"],
        planned_json=row["planned"],
        attempt=row["attempt"],
        handle=read(Handle, "handle"),
        status=read(JobStatus, "status"),
        raw=read(MediaRef, "raw"),
        delivered=read(MediaRef, "delivered"),
        outputs=() if row["outputs"] is None else from_json(tuple[MediaRef, ...], json.loads(row["outputs"])),
        marks=None if row["marks"] is None else json.loads(row["marks"]),
        record_id=row["record_id"],
        error=None if row["error"] is None else json.loads(row["error"]),
        usd_micros=row["usd_micros"],
        knowledge_base=row["knowledge_base"],
        run_id=row["run_id"],
        owner=row["owner"],
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        updated_at=row["updated_at"],
    )
