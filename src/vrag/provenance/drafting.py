"""What the records of all kinds of step share: how media, pictures, requests and runs are written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import asdict, frozen

from vrag.errors import ProvenanceError
from vrag.media.ref import MediaRef
from vrag.provenance.statement import BUILDER, PREDICATE_TYPE, STATEMENT_TYPE, build_type, read_statement
from vrag.provenance.wording import Commit, Commitments, Words, json_text, plain
from vrag.values.assets import Review
from vrag.values.briefs import Brief, Edit, Source
from vrag.values.canonical import JSON, canonical_json, to_json
from vrag.values.requests import Estimate, ModelRef, Problem, VideoRequest
from vrag.values.vectors import Candidate
from vrag.workspace.ledger import Draft

__all__ = [
    "Run",
    "artefact",
    "brief_json",
    "draft",
    "planned_json",
    "request_json",
    "source_inputs",
    "subject",
]


@frozen(kw_only=True)
class Run:
    """When and by what a step was done."""

    invocation: str
    """The purchase, or what else started it."""
    started_at: str
    finished_at: str
    """RFC 3339 UTC."""
    library_version: str


def draft(
    *,
    kind: str,
    record_id: str,
    subjects: Sequence[JSON],
    asked: JSON,
    made: Mapping[str, JSON],
    inputs: Sequence[JSON],
    run: Run,
    job: JSON = None,
    byproducts: Sequence[JSON] = (),
    commit: Commitments,
) -> Draft:
    """The statement about a step, as canonical JSON, with its lineage and its texts."""
    metadata = {"invocationId": run.invocation, "startedOn": run.started_at, "finishedOn": run.finished_at}
    if job is not None:
        metadata["vrag_job"] = job  # SLSA: a field of one's own begins with a name and an underscore
    payload = canonical_json(
        plain(
            {
                "_type": STATEMENT_TYPE,
                "subject": list(subjects),
                "predicateType": PREDICATE_TYPE,
                "predicate": {
                    "buildDefinition": {
                        "buildType": build_type(kind),
                        "externalParameters": asked,
                        "internalParameters": {"record": {"id": record_id, "kind": kind}, **made},
                        "resolvedDependencies": list(inputs),
                    },
                    "runDetails": {
                        "builder": {"id": BUILDER, "version": {"vrag": run.library_version}},
                        "metadata": metadata,
                        "byproducts": list(byproducts),
                    },
                },
            }
        )
    )
    lineage = read_statement(payload).lineage  # what is written can be read, or is not written
    return Draft(record_id=record_id, payload=payload, lineage=lineage, texts=commit.texts)


def _described(name: str, media: MediaRef) -> dict[str, JSON]:
    return {"name": name, "digest": {"sha256": media.sha256}, "mediaType": media.media_type}


def _measures(media: MediaRef) -> dict[str, JSON]:
    return {
        "size_bytes": media.size_bytes,
        "width_px": media.width_px,
        "height_px": media.height_px,
        "duration_s": media.duration_s,
    }


def subject(name: str, media: MediaRef, **annotations: JSON) -> dict[str, JSON]:
    """Bytes that a step made."""
    return {**_described(name, media), "annotations": {**_measures(media), **annotations}}


def artefact(name: str, media: MediaRef, *, role: str, **annotations: JSON) -> dict[str, JSON]:
    """Bytes that a step was given and another step made."""
    return {
        **_described(name, media),
        "annotations": {"kind": "artefact", "role": role, **_measures(media), **annotations},
    }


def source_inputs(sources: Iterable[Source], reviews: Mapping[str, Review], commit: Commit) -> list[JSON]:
    """Each picture as it was ingested, after each edit, and as it was given; a picture that is used twice stands once.

    Raises:
        ProvenanceError: One has no review.
    """
    found: dict[str, JSON] = {}
    for source in sources:
        last, name = source.original, source.asset_id
        if f"{name} {source.role}" not in found:
            found[f"{name} {source.role}"] = _picture(source, reviews.get(name), commit)
        for number, edit in enumerate(source.edits, 1):
            found[f"{edit.media.sha256} {source.role}"] = artefact(
                f"{name} after edit {number}",
                edit.media,
                role=source.role,
                made_from=last.sha256,
                record_id=edit.step_id,
                operation=edit.operation,
                variant=edit.variant,
            )
            last = edit.media
        fitted = source.conformed
        found[f"{fitted.media.sha256} {source.role}"] = artefact(
            f"{name} as given",
            fitted.media,
            role=source.role,
            made_from=last.sha256,
            crop_px=list(fitted.crop_px),
            mode=fitted.mode,
            upscaled=fitted.upscaled,
        )
    return list(found.values())


def _picture(source: Source, review: Review | None, commit: Commit) -> dict[str, JSON]:
    if review is None:
        raise ProvenanceError(f"The picture '{source.asset_id}' has no review to record.")
    # Licence, territory and last day are terms; a holder, a release or a note may name a person.
    rights = asdict(source.rights)
    for name in ("holder", "notes"):
        rights[name] = None if rights[name] is None else commit(f"rights {name}", rights[name])
    rights["releases"] = [commit("rights release", release) for release in rights["releases"]]
    asset = _described(source.asset_id, source.original)
    asset["annotations"] = {
        "kind": "asset",
        "role": source.role,
        "asset_id": source.asset_id,
        "knowledge_base": source.knowledge_base,
        **_measures(source.original),
        "caption": None if source.caption is None else commit("caption", source.caption),
        "file_name": commit("file name", source.file_name) if source.file_name else None,
        "rights": rights,
        "review": {
            "state": review.state.value,
            "by": commit("reviewer", review.by),
            "at": review.at,
            "reason": None if review.reason is None else commit("review reason", review.reason),
            "sequence": review.sequence,
            "sequence_at_plan": source.review_sequence,
        },
    }
    return asset


def planned_json(
    *,
    generator: str,
    model: ModelRef,
    lifecycle: JSON,
    estimate: Estimate,
    candidates: Iterable[Candidate],
    retrieval: Mapping[str, JSON],
    unmet: Iterable[Problem],
    words: Words,
    commit: Commit,
) -> dict[str, JSON]:
    """What was made of a brief: model, search, price, and what the model cannot do."""
    return {
        "generator": {"name": generator, **asdict(model), "lifecycle": plain(lifecycle, scrub=True)},
        "retrieval": words.guard("retrieval", dict(retrieval)),
        "candidates": [{**asdict(one), "excluded": words.guard("exclusion", one.excluded)} for one in candidates],
        "estimate": {
            "usd_micros": estimate.usd_micros,
            "video_s": estimate.video_s,
            "basis": words.guard("price basis", estimate.basis),
        },
        "unmet": [{"kind": one.kind, "field": one.field, "message": commit("message", one.message)} for one in unmet],
    }


_ASKED = ("knowledge_base", "picture", "text_only", "model", "seed", "width_px", "height_px", "fps", "duration_s")


def brief_json(brief: Brief, commit: Commit) -> dict[str, JSON]:
    """What a user asked; words as keyed digests."""
    asked: dict[str, JSON] = {name: getattr(brief, name) for name in _ASKED}
    for name in ("object_prompt", "action_prompt", "template", "negative_prompt"):
        asked[name] = _optional(name.replace("_", " "), getattr(brief, name), commit)
    return asked | {
        "slots": commit("slots", json_text(brief.slots)) if brief.slots else None,
        "filter": None if brief.filter is None else commit("filter", json_text(to_json(brief.filter))),
        "camera": [move.value for move in brief.camera],
        "look": _look(brief.look.style, brief.look.mood, brief.look.lighting, commit),
        "codec": brief.codec,
        "fit": brief.fit,
        "focus": None if brief.focus is None else list(brief.focus),
        "take": brief.take,
        "edits": [_edit(edit, commit) for edit in brief.edits],
        "shots": [
            {
                "object_prompt": _optional("object prompt", shot.object_prompt, commit),
                "action_prompt": _optional("action prompt", shot.action_prompt, commit),
                "template": _optional("template", shot.template, commit),
                "knowledge_base": shot.knowledge_base,
                "picture": shot.picture,
                "filter": None if shot.filter is None else commit("filter", json_text(to_json(shot.filter))),
                "edits": [_edit(edit, commit) for edit in shot.edits],
                "camera": [move.value for move in shot.camera],
                "fit": shot.fit,
                "focus": None if shot.focus is None else list(shot.focus),
                "duration_s": shot.duration_s,
                "seed": shot.seed,
            }
            for shot in brief.shots
        ],
        "crossfade_s": brief.crossfade_s,
    }


def _edit(edit: Edit, commit: Commit) -> dict[str, JSON]:
    return {
        "operation": edit.operation,
        # A mask is drawn by numbers, but may name a file or hold words for what is masked.
        "mask": None if edit.mask is None else commit("mask", json_text(to_json(edit.mask))),
        "mask_prompt": _optional("mask prompt", edit.mask_prompt, commit),
        "prompt": _optional("edit prompt", edit.prompt, commit),
        "negative_prompt": _optional("negative prompt", edit.negative_prompt, commit),
        "to_video_shape": edit.to_video_shape,
        "extend_px": None if edit.extend_px is None else list(edit.extend_px),
        "count": edit.count,
        "choose": edit.choose,
        "seed": edit.seed,
        "take": edit.take,
    }


def _optional(kind: str, text: str | None, commit: Commit) -> dict[str, str] | None:
    return None if text is None else commit(kind, text)


def request_json(request: VideoRequest, commit: Commit) -> dict[str, JSON]:
    """What a video model was asked."""
    return {
        "shots": [
            {
                "prompt": commit("prompt", shot.prompt),
                "inputs": [{"role": one.role, "sha256": one.media.sha256} for one in shot.inputs],
                "camera": [move.value for move in shot.camera],
                "duration_s": shot.duration_s,
            }
            for shot in request.shots
        ],
        "width_px": request.width_px,
        "height_px": request.height_px,
        "fps": request.fps,
        "seed": request.seed,
        "negative_prompt": _optional("negative prompt", request.negative_prompt, commit),
        "look": _look(request.look.style, request.look.mood, request.look.lighting, commit),
        "codec": request.codec,
    }


def _look(style: str | None, mood: str | None, lighting: str | None, commit: Commit) -> dict[str, JSON]:
    stated = {"style": style, "mood": mood, "lighting": lighting}
    return {name: _optional(name, text, commit) for name, text in stated.items()}
