"""The records of an edited picture and of a choice among variants or takes."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from vrag.clock import Clock
from vrag.errors import ProvenanceError
from vrag.media.ref import MediaRef
from vrag.provenance.drafting import Run, artefact, brief_json, draft, planned_json, source_inputs, subject
from vrag.provenance.wording import Commit, Commitments, Words, texts_of
from vrag.values.assets import Review
from vrag.values.briefs import PlannedEdit
from vrag.values.canonical import JSON
from vrag.values.policy import Policy
from vrag.values.requests import EditRequest
from vrag.workspace.ledger import Draft

__all__ = ["ChoiceFacts", "EditFacts", "Option", "choice_statement", "edit_statement"]


@frozen(kw_only=True)
class EditFacts:
    """What is known when an edited picture is recorded."""

    record_id: str
    planned: PlannedEdit
    variants: tuple[MediaRef, ...]
    """The pictures that came back, in order; variant 1 is the first."""
    rejected: tuple[str, ...] = ()
    """One reason a picture that moderation kept back."""
    billed: bool | None = None
    report: JSON = None
    """What the model says it did."""
    reviews: Mapping[str, Review]
    """The review of the picture that holds at this moment, by asset id."""
    lifecycle: JSON = None
    """What the catalogue says of the model at this moment; None where it lists none."""
    started_at: str
    finished_at: str
    """RFC 3339 UTC."""
    library_version: str


def edit_statement(facts: EditFacts, *, policy: Policy, clock: Clock) -> Draft:
    """The statement about the variants that one edit gave; its step in a video's record is `facts.record_id`.

    Raises:
        ProvenanceError: Nothing came back, or the picture has no review.
    """
    planned, request = facts.planned, facts.planned.request
    if not facts.variants:
        raise ProvenanceError(f"The edit '{facts.record_id}' made no picture to record.")
    commit = Commitments(clock, policy=policy.text)
    words = Words(texts_of(planned), commit)
    mask = () if request.mask is None else (artefact("mask", request.mask, role="mask"),)
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
    return draft(
        kind="edit",
        record_id=facts.record_id,
        subjects=[subject(f"variant {number}", media) for number, media in enumerate(facts.variants, 1)],
        asked=brief_json(planned.brief, commit),
        made={**made, "request": _request(request, commit)},
        inputs=[*source_inputs(planned.sources, facts.reviews, commit), *mask],
        run=Run(
            invocation=planned.step_id,
            started_at=facts.started_at,
            finished_at=facts.finished_at,
            library_version=facts.library_version,
        ),
        job={
            "handle": None,
            "state": "succeeded",
            "billed": facts.billed,
            "report": words.guard("report", facts.report),
            "rejected": words.guard("rejection", list(facts.rejected)),
        },
        commit=commit,
    )


def _request(request: EditRequest, commit: Commit) -> dict[str, JSON]:
    texts = {name: getattr(request, name) for name in ("prompt", "negative_prompt", "mask_prompt")}
    return {
        "operation": request.operation,
        "image_sha256": request.image.sha256,
        "mask_sha256": None if request.mask is None else request.mask.sha256,
        "extend_px": None if request.extend_px is None else list(request.extend_px),
        "count": request.count,
        "seed": request.seed,
        **{name: None if text is None else commit(name.replace("_", " "), text) for name, text in texts.items()},
    }


@frozen(kw_only=True)
class Option:
    """One of the artefacts that were to be chosen from."""

    media: MediaRef
    record_id: str
    """The record about it."""
    scores: Mapping[str, float | None]
    """By name of the score; empty where a person looked."""


@frozen(kw_only=True)
class ChoiceFacts:
    """What is known when a choice is recorded: every candidate, its scores, and who or what took which."""

    record_id: str
    step_id: str
    """The step that chose."""
    options: tuple[Option, ...]
    chosen: int
    """From 1."""
    by: str
    """A person, or the rule that was followed, such as `highest mean score`."""
    is_person: bool
    """A name of a person stands in the record as a keyed digest."""
    reason: str | None = None
    started_at: str
    finished_at: str
    """RFC 3339 UTC."""
    library_version: str


def choice_statement(facts: ChoiceFacts, *, policy: Policy, clock: Clock) -> Draft:
    """The statement about the artefact that was chosen.

    Raises:
        ProvenanceError: The chosen number is none of the options.
    """
    if not 1 <= facts.chosen <= len(facts.options):
        raise ProvenanceError(
            f"The choice '{facts.record_id}' took number {facts.chosen}; there are 1 to {len(facts.options)}."
        )
    commit = Commitments(clock, policy=policy.text)
    taken = facts.options[facts.chosen - 1]
    return draft(
        kind="choose",
        record_id=facts.record_id,
        subjects=[subject("chosen", taken.media)],
        asked={
            "by": commit("chosen by", facts.by) if facts.is_person else facts.by,
            "reason": None if facts.reason is None else commit("reason", facts.reason),
        },
        made={
            "chosen": facts.chosen,
            "options": [
                {"sha256": one.media.sha256, "record_id": one.record_id, "scores": dict(one.scores)}
                for one in facts.options
            ],
        },
        inputs=[
            artefact(f"option {number}", one.media, role="option", record_id=one.record_id)
            for number, one in enumerate(facts.options, 1)
        ],
        run=Run(
            invocation=facts.step_id,
            started_at=facts.started_at,
            finished_at=facts.finished_at,
            library_version=facts.library_version,
        ),
        commit=commit,
    )
