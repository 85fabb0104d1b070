"""The record of a generated video: an in-toto statement in the shape of SLSA provenance.

All kinds of step (generate, assemble, edit, choose, receipt) share one shape: `subject` is what the step made,
`resolvedDependencies` is every byte it was given, each with a role, so that lineage is a graph of records.
Words that could be guessed from a plain hash stand as keyed digests (`Commitments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import asdict, frozen

from vrag.clock import Clock
from vrag.errors import ProvenanceError
from vrag.media.ref import MediaRef
from vrag.provenance.drafting import (
    Run,
    artefact,
    brief_json,
    draft,
    planned_json,
    request_json,
    source_inputs,
    subject,
)
from vrag.provenance.edits import ChoiceFacts, EditFacts, Option, choice_statement, edit_statement
from vrag.provenance.wording import Commit, Commitments, Words, plain, texts_of
from vrag.values.assets import Review
from vrag.values.briefs import PlannedVideo
from vrag.values.canonical import JSON
from vrag.values.jobs import Handle, JobStatus
from vrag.values.policy import Policy
from vrag.workspace.ledger import Draft

__all__ = [
    "ChoiceFacts",
    "Commit",
    "Commitments",
    "EditFacts",
    "Option",
    "PartFacts",
    "VideoFacts",
    "choice_statement",
    "edit_statement",
    "video_statement",
]

_OPEN_MARK_KEYS: Final = frozenset({"kind", "state", "standard", "digital_source_type", "sha256"})


@frozen(kw_only=True)
class PartFacts:
    """A shot that was generated on its own and joined to a film."""

    planned: PlannedVideo
    raw: MediaRef
    """The bytes that were joined."""
    record_id: str
    """The record about them."""


@frozen(kw_only=True)
class VideoFacts:
    """What is known when a video is recorded."""

    record_id: str
    planned: PlannedVideo
    raw: MediaRef
    """The bytes as the generator gave them, or as the parts were joined."""
    delivered: MediaRef | None
    """The bytes that the user gets; None for a video that is withheld, or that another step goes on with."""
    delivered_name: str | None = None
    """File name for the user."""
    handle: Handle | None = None
    status: JobStatus | None = None
    """What the provider said at the end; None for a film that was joined here."""
    parts: tuple[PartFacts, ...] = ()
    """The shots that were joined, in order; empty for what one generator made."""
    reviews: Mapping[str, Review]
    """The review of each source that holds at this moment, by asset id; those of the parts too."""
    started_at: str
    finished_at: str
    """RFC 3339 UTC."""
    library_version: str
    marks: JSON = ("none: not configured",)
    """What was put into the delivered file to mark it, in order: a list of texts of ours, or of objects with a `kind`."""
    lifecycle: JSON = None
    """What the catalogue says of the model at this moment: its state and dates; None where it lists none."""
    withheld: str | None = None
    """Why nothing is delivered."""
    for_step: str | None = None
    """The step that goes on with these bytes: the film that they are a part of, or the choice among takes."""


def video_statement(facts: VideoFacts, *, policy: Policy, clock: Clock) -> Draft:
    """The statement about a video, as canonical JSON, with its lineage and its texts: `generate`, or `assemble` with parts.

    It never fails for what a provider reported: a number that JSON cannot keep becomes text, because the video is paid.

    Raises:
        ProvenanceError: A source has no review; or not exactly one of a delivered video, a reason to withhold it, and a
            step that goes on with it.
    """
    planned = facts.planned
    if [facts.delivered, facts.withheld, facts.for_step].count(None) != 2:
        raise ProvenanceError(
            f"The video '{facts.record_id}' is either delivered, or withheld for a reason, or given to another step."
        )
    commit = Commitments(clock, policy=policy.text)
    words = Words(texts_of(planned), commit)
    subjects = []
    if facts.delivered is not None:
        named = {} if facts.delivered_name is None else {"file_name": commit("file name", facts.delivered_name)}
        subjects.append(subject("delivered", facts.delivered, marks=_marks(facts.marks, words), **named))
    subjects.append(subject("raw", facts.raw))
    parts = [
        artefact(f"part {number}", part.raw, role="part", record_id=part.record_id, step_id=part.planned.step_id)
        for number, part in enumerate(facts.parts, 1)
    ]
    sources = [*planned.sources, *(source for part in facts.parts for source in part.planned.sources)]
    inputs = [*parts, *source_inputs(sources, facts.reviews, commit)]
    made = planned_json(
        generator=planned.generator,
        model=planned.model,
        lifecycle=facts.lifecycle,
        estimate=planned.estimate,
        candidates=planned.candidates,
        retrieval=planned.retrieval,
        unmet=planned.unmet,
        words=words,
        commit=commit,
    )
    made["request"] = request_json(planned.request, commit)
    made["notes"] = [commit("note", note) for note in planned.notes]
    if facts.parts:
        made["crossfade_s"] = planned.crossfade_s
    if facts.withheld is not None:
        made["withheld"] = commit("withheld", facts.withheld)
    if facts.for_step is not None:
        made["for_step"] = facts.for_step
    return draft(
        kind="assemble" if facts.parts else "generate",
        record_id=facts.record_id,
        subjects=subjects,
        asked=brief_json(planned.brief, commit),
        made=made,
        inputs=inputs,
        run=Run(
            invocation=planned.step_id,
            started_at=facts.started_at,
            finished_at=facts.finished_at,
            library_version=facts.library_version,
        ),
        job=None if facts.status is None else _job(facts.handle, facts.status, words),
        byproducts=[
            {"name": one.role, "digest": {"sha256": one.sha256}, "mediaType": one.media_type}
            for one in (facts.status.outputs if facts.status else ())
            if one.sha256 is not None and one.sha256 != facts.raw.sha256
        ],
        commit=commit,
    )


def _marks(marks: JSON, words: Words) -> list[JSON]:
    # A text on its own is one of ours, and so are the names of members; what a step reports may repeat a word of the prompt.
    listed = list(marks) if isinstance(marks, list | tuple) else [marks]
    return [
        {
            key: plain(value, scrub=True) if key in _OPEN_MARK_KEYS else words.guard("mark", value)
            for key, value in one.items()
        }
        if isinstance(one, Mapping)
        else plain(one, scrub=True)
        for one in listed
    ]


def _job(handle: Handle | None, status: JobStatus, words: Words) -> dict[str, JSON]:
    return {
        "handle": None if handle is None else words.guard("handle", asdict(handle)),
        "state": status.state,
        "billed": status.billed,
        "report": words.guard("report", status.report),
    }
