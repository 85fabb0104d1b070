"""What the record of a step says, read without checking it: for lineage, staleness and pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final, Literal

from vrag.errors import VerificationError
from vrag.media.ref import MediaRef
from vrag.provenance.statement import KEYED, NAMESPACE, RECORD_VERSION, read_statement
from vrag.values.canonical import JSON
from vrag.workspace.ledger import Entry

__all__ = [
    "ERASED",
    "NodeKind",
    "caption_of",
    "dependencies_of",
    "fit_of",
    "input_kind",
    "internal_of",
    "media_of",
    "prompts_of",
    "statement_of",
    "step_detail",
    "step_kind",
    "words_of",
]

NodeKind = Literal["asset", "edited", "fitted", "mask", "artefact", "part", "video"]
ERASED: Final = "words erased"
"""Title of a node whose words were deleted."""

_NOTHING_MADE: Final = frozenset({"choose", "receipt"})
"""Kinds of record about bytes that another step made, or about no bytes at all."""


def statement_of(entry: Entry) -> JSON:
    """The statement of a step that made something, as JSON; None for a choice or a receipt.

    Its signature is not checked here, nor every member of it: that is `vrag verify`, and takes ten times as long.

    Raises:
        VerificationError: It has not the form of a record.
        FormatVersionError: A newer release wrote it.
    """
    content = entry.statement
    stated = f"{NAMESPACE}{{}}/v{RECORD_VERSION}"
    try:
        build = content["predicate"]["buildDefinition"]
        kind = build["internalParameters"]["record"]["kind"]
        if build["buildType"] != stated.format(kind):
            read_statement(
                base64.b64decode(json.loads(entry.envelope)["payload"])
            )  # tells a newer one from a wrong one
        if kind in _NOTHING_MADE:
            return None
        for one in (*content["subject"], *build["resolvedDependencies"]):
            _ = one["name"], one["digest"]["sha256"] + ""
        for one in build["resolvedDependencies"]:
            _ = one["annotations"]["role"] + one["annotations"]["kind"] + one["annotations"].get("asset_id", "")
        _ = content["predicate"]["runDetails"]["metadata"]["finishedOn"] + ""
    except (KeyError, TypeError, AttributeError) as error:
        raise VerificationError(
            f"The record '{entry.record_id[:80]}' has not the form of a record.",
            promise="The record has the form that it claims",
            hint="vrag verify",
        ) from error
    return content


def step_kind(statement: JSON) -> str:
    """The kind of its step: `generate`, `edit` or `assemble`."""
    return str(internal_of(statement)["record"]["kind"])


def dependencies_of(statement: JSON) -> list[JSON]:
    """What the step was given, and what that was made from."""
    found: list[JSON] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    return found


def internal_of(statement: JSON) -> JSON:
    """What was made of what was asked."""
    return statement["predicate"]["buildDefinition"]["internalParameters"]


def words_of(value: JSON, texts: Mapping[str, str]) -> str | None:
    """Words of a record: plain, disclosed, or `ERASED`; None where there were none."""
    if isinstance(value, dict) and KEYED in value:
        found = texts.get(value[KEYED], value.get("text"))
        return found if isinstance(found, str) else ERASED
    return value if isinstance(value, str) else None


def caption_of(notes: JSON, texts: Mapping[str, str]) -> str:
    """Caption or file name of a picture; empty where it had neither."""
    return words_of(notes.get("caption"), texts) or words_of(notes.get("file_name"), texts) or ""


def prompts_of(made: JSON, texts: Mapping[str, str]) -> str:
    """The prompts of a video or an edit, in order."""
    request = made.get("request")
    request = request if isinstance(request, dict) else {}
    shots = request.get("shots")
    found = [words_of(shot.get("prompt"), texts) for shot in shots] if isinstance(shots, list) else []
    found = found or [words_of(request.get("prompt"), texts)]
    return " / ".join(dict.fromkeys(one for one in found if one))


def input_kind(notes: JSON) -> NodeKind:
    """What an input is, by its annotations."""
    if notes["kind"] == "asset":
        return "asset"
    if notes["role"] == "mask":
        return "mask"
    if notes.get("mode"):
        return "fitted"
    return "edited" if notes.get("operation") else "part" if notes["role"] == "part" else "artefact"


def step_detail(kind: str, made: JSON) -> str:
    """Operation, model and fate of a step in a few words."""
    request = made.get("request")
    operation = request.get("operation") if isinstance(request, dict) else None
    generator = made.get("generator")
    model = generator.get("id") if isinstance(generator, dict) else None
    first = operation if isinstance(operation, str) else "joined" if kind == "assemble" else None
    parts = [first, model, "withheld" if made.get("withheld") else None]
    return ", ".join(part for part in parts if isinstance(part, str))


def fit_of(notes: JSON) -> str:
    """How a picture was brought to its shape."""
    size = f", {notes['width_px']} x {notes['height_px']}" if notes.get("width_px") and notes.get("height_px") else ""
    return f"{notes['mode']}{size}{', enlarged' if notes.get('upscaled') else ''}"


def media_of(described: JSON) -> MediaRef | None:
    """Type and size of described bytes, as far as they are known."""
    notes = described.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    try:
        return MediaRef(
            sha256=described["digest"]["sha256"],
            media_type=described["mediaType"],
            size_bytes=notes["size_bytes"],
            width_px=notes.get("width_px"),
            height_px=notes.get("height_px"),
            duration_s=notes.get("duration_s"),
        )
    except (KeyError, TypeError, ValueError):
        return None  # an input may be known by its digest alone
