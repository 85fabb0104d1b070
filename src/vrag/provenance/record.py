"""The record of a generated video: an in-toto statement in the shape of SLSA provenance.

All kinds of step (generate now; edit, choose, assemble, finish later) share one shape: `subject` is what the step made,
`resolvedDependencies` is every byte it was given, each with a role, so that lineage is a graph of records.
Words that could be guessed from a plain hash stand as keyed digests (`Commitments`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from attrs import asdict, frozen

from vrag.clock import Clock
from vrag.errors import ProvenanceError
from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.provenance.statement import (
    BUILDER,
    KEYED,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    build_type,
    keyed_digest,
    read_statement,
)
from vrag.values.assets import Review
from vrag.values.briefs import Brief, PlannedVideo, Source
from vrag.values.canonical import JSON, canonical_json, to_json
from vrag.values.jobs import Handle, JobStatus
from vrag.values.policy import Policy
from vrag.workspace.ledger import Draft, Text

__all__ = ["Commit", "Commitments", "VideoFacts", "video_statement"]

Commit = Callable[[str, str], dict[str, str]]
"""Turns a kind and a text into what stands for it in the record."""


class Commitments:
    """Makes keyed digests, each under 32 random bytes of its own, and keeps the texts for the deletable table."""

    def __init__(self, clock: Clock, *, policy: Literal["keyed", "text"] = "keyed") -> None:
        self._clock = clock
        self._policy = policy
        self._texts: list[Text] = []

    def __call__(self, kind: str, text: str) -> dict[str, str]:
        """What stands for `text` in a record."""
        value = _whole(text)
        key = self._clock.token_bytes(32)
        digest = keyed_digest(key, kind, value)
        self._texts.append(Text(kind=kind, value=value, key=key, keyed_digest=digest))
        return {KEYED: digest, "text": value} if self._policy == "text" else {KEYED: digest}

    @property
    def texts(self) -> tuple[Text, ...]:
        """All texts so far, in order."""
        return tuple(self._texts)


@frozen(kw_only=True)
class VideoFacts:
    """What is known when a video is recorded."""

    record_id: str
    planned: PlannedVideo
    raw: MediaRef
    """The bytes as the generator gave them."""
    delivered: MediaRef | None
    """The bytes that the user gets; None for a video that is withheld."""
    delivered_name: str | None = None
    """File name for the user."""
    handle: Handle | None = None
    status: JobStatus
    reviews: Mapping[str, Review]
    """The review of each source that holds at this moment, by asset id."""
    started_at: str
    finished_at: str
    """RFC 3339 UTC."""
    library_version: str
    marks: tuple[str, ...] = ("none: not configured",)
    """What was put into the delivered file to mark it, in order."""
    withheld: str | None = None
    """Why nothing is delivered."""


def video_statement(facts: VideoFacts, *, policy: Policy, clock: Clock) -> Draft:
    """The statement about a generated video, as canonical JSON, with its lineage and its texts.

    It never fails for what a provider reported: a number that JSON cannot keep becomes text, because the video is paid.

    Raises:
        ProvenanceError: A source has no review; or not exactly one of a delivered video and a reason to withhold it.
    """
    planned = facts.planned
    if (facts.delivered is None) == (facts.withheld is None):
        raise ProvenanceError(f"The video '{facts.record_id}' is either delivered, or withheld for a reason.")
    commit = Commitments(clock, policy=policy.text)
    words = _Words(planned, commit)
    subject = [] if facts.delivered is None else [_subject("delivered", facts.delivered, marks=facts.marks)]
    if facts.delivered is not None and facts.delivered_name is not None:
        subject[0]["annotations"]["file_name"] = commit("file name", facts.delivered_name)
    subject.append(_subject("raw", facts.raw))
    dependencies = [
        one for source in planned.sources for one in _inputs(source, facts.reviews.get(source.asset_id), commit)
    ]
    estimate = planned.estimate
    internal = {
        "record": {"id": facts.record_id, "kind": "generate"},
        "generator": {"name": planned.generator, **asdict(planned.model)},
        "request": _request(planned, commit),
        "retrieval": words.guard("retrieval", dict(planned.retrieval)),
        "candidates": [
            {**asdict(one), "excluded": words.guard("exclusion", one.excluded)} for one in planned.candidates
        ],
        "estimate": {
            "usd_micros": estimate.usd_micros,
            "video_s": estimate.video_s,
            "basis": words.guard("price basis", estimate.basis),
        },
        "unmet": [
            {"kind": one.kind, "field": one.field, "message": commit("message", one.message)} for one in planned.unmet
        ],
        "notes": [commit("note", note) for note in planned.notes],
    }
    if facts.withheld is not None:
        internal["withheld"] = commit("withheld", facts.withheld)
    payload = canonical_json(
        _plain(
            {
                "_type": STATEMENT_TYPE,
                "subject": subject,
                "predicateType": PREDICATE_TYPE,
                "predicate": {
                    "buildDefinition": {
                        "buildType": build_type("generate"),
                        "externalParameters": _asked(planned.brief, commit),
                        "internalParameters": internal,
                        "resolvedDependencies": dependencies,
                    },
                    "runDetails": {
                        "builder": {"id": BUILDER, "version": {"vrag": facts.library_version}},
                        "metadata": {
                            "invocationId": planned.step_id,
                            "startedOn": facts.started_at,
                            "finishedOn": facts.finished_at,
                            # SLSA: a field of one's own begins with a name and an underscore
                            "vrag_job": {
                                "handle": None if facts.handle is None else words.guard("handle", asdict(facts.handle)),
                                "state": facts.status.state,
                                "billed": facts.status.billed,
                                "report": words.guard("report", facts.status.report),
                            },
                        },
                        "byproducts": [
                            {"name": one.role, "digest": {"sha256": one.sha256}, "mediaType": one.media_type}
                            for one in facts.status.outputs
                            if one.sha256 is not None and one.sha256 != facts.raw.sha256
                        ],
                    },
                },
            }
        )
    )
    lineage = read_statement(payload).lineage  # what is written can be read, or is not written
    return Draft(record_id=facts.record_id, payload=payload, lineage=lineage, texts=commit.texts)


def _subject(name: str, media: MediaRef, **annotations: JSON) -> dict[str, JSON]:
    return {**_described(name, media), "annotations": {**_measures(media), **annotations}}


def _described(name: str, media: MediaRef) -> dict[str, JSON]:
    return {"name": name, "digest": {"sha256": media.sha256}, "mediaType": media.media_type}


def _measures(media: MediaRef) -> dict[str, JSON]:
    return {
        "size_bytes": media.size_bytes,
        "width_px": media.width_px,
        "height_px": media.height_px,
        "duration_s": media.duration_s,
    }


def _inputs(source: Source, review: Review | None, commit: Commit) -> list[dict[str, JSON]]:
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
    fitted = _described(f"{source.asset_id} as given", source.conformed.media)
    fitted["annotations"] = {
        "kind": "artefact",
        "role": source.role,
        "made_from": source.original.sha256,
        **_measures(source.conformed.media),
        "crop_px": list(source.conformed.crop_px),
        "mode": source.conformed.mode,
        "upscaled": source.conformed.upscaled,
    }
    return [asset, fitted]


def _asked(brief: Brief, commit: Commit) -> dict[str, JSON]:
    asked = {
        name: getattr(brief, name)
        for name in (
            "knowledge_base",
            "picture",
            "text_only",
            "model",
            "seed",
            "width_px",
            "height_px",
            "fps",
            "duration_s",
        )
    }
    for name in ("object_prompt", "action_prompt", "template", "negative_prompt"):
        text = getattr(brief, name)
        asked[name] = None if text is None else commit(name.replace("_", " "), text)
    return asked | {
        "slots": commit("slots", _json_text(brief.slots)) if brief.slots else None,
        "filter": None if brief.filter is None else commit("filter", _json_text(to_json(brief.filter))),
        "camera": [move.value for move in brief.camera],
        "look": _look(brief.look.style, brief.look.mood, brief.look.lighting, commit),
        "codec": brief.codec,
        "fit": brief.fit,
        "take": brief.take,
    }


def _request(planned: PlannedVideo, commit: Commit) -> dict[str, JSON]:
    request = planned.request
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
        "negative_prompt": (
            None if request.negative_prompt is None else commit("negative prompt", request.negative_prompt)
        ),
        "look": _look(request.look.style, request.look.mood, request.look.lighting, commit),
        "codec": request.codec,
    }


def _look(style: str | None, mood: str | None, lighting: str | None, commit: Commit) -> dict[str, JSON]:
    stated = {"style": style, "mood": mood, "lighting": lighting}
    return {name: None if text is None else commit(name, text) for name, text in stated.items()}


_WORD: Final = re.compile(r"\w{3,}")
_CAMERA_WORDS: Final = frozenset(_WORD.findall(" ".join(["camera", *CameraMove]).casefold()))


class _Words:
    """Keeps a user's words out of what others wrote: reports, settings, reasons."""

    def __init__(self, planned: PlannedVideo, commit: Commit) -> None:
        brief, request = planned.brief, planned.request
        texts = [
            *(brief.object_prompt, brief.action_prompt, brief.template, brief.negative_prompt, *brief.slots.values()),
            *(brief.look.style, brief.look.mood, brief.look.lighting, request.negative_prompt),
            *(request.look.style, request.look.mood, request.look.lighting),
            *(shot.prompt for shot in request.shots),
            *(text for source in planned.sources for text in (source.caption, source.file_name)),
        ]
        lowered = {text.casefold() for text in texts if text}
        self._texts = {text for text in lowered if len(text) > 2 or not text.isascii()} - _CAMERA_WORDS
        self._words = {word for text in lowered for word in _WORD.findall(text)} - _CAMERA_WORDS
        self._commit = commit

    def _tells(self, text: str) -> bool:
        low = text.casefold()
        return not self._words.isdisjoint(_WORD.findall(low)) or any(one in low for one in self._texts)

    def guard(self, kind: str, value: JSON) -> JSON:
        """`value` with each text that repeats a word of the user as a keyed digest; camera words stay."""
        return self._guarded(kind, _plain(value, scrub=True))

    def _guarded(self, kind: str, value: JSON) -> JSON:
        if isinstance(value, str):
            return self._commit(kind, value) if self._tells(value) else value
        if isinstance(value, dict):
            if any(self._tells(key) or key == KEYED for key in value):
                return self._commit(kind, _json_text(value))
            return {key: self._guarded(kind, one) for key, one in value.items()}
        return [self._guarded(kind, one) for one in value] if isinstance(value, list) else value


def _json_text(value: JSON) -> str:
    return canonical_json(_plain(value)).decode()


def _plain(value: JSON, *, scrub: bool = False, depth: int = 0) -> JSON:
    """`value` as JSON that every reader keeps, at most 40 deep: what is no such thing becomes text."""
    if isinstance(value, str):
        return _CREDENTIALS.sub(r"\1\2", _whole(value)) if scrub else _whole(value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else hex(value)
    if isinstance(value, float):
        return value if abs(value) < 1 << 53 else str(value)  # NaN and infinity are text too
    if depth < 40 and isinstance(value, Mapping):
        return {_plain(str(key), scrub=scrub): _plain(one, scrub=scrub, depth=depth + 1) for key, one in value.items()}
    if depth < 40 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(one, scrub=scrub, depth=depth + 1) for one in value]
    return f"({type(value).__name__})"


# What stands in a URL between `//` and `@`, and after `?`, may be a credential.
_CREDENTIALS: Final = re.compile(r"(\w+://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?")


def _whole(text: str) -> str:
    """`text` without half characters, which names of files may have and UTF-8 has not."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
