"""The edits of a picture as a page shows them, read from the records of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vrag.errors import NotFoundError
from vrag.media.ref import MediaRef
from vrag.provenance.report.shown import ShownEdit, Thumbnail
from vrag.provenance.steps import ERASED, statement_of, words_of
from vrag.values.briefs import Source
from vrag.values.canonical import JSON
from vrag.workspace.ledger import Ledger

__all__ = ["shown_edits"]


def shown_edits(ledger: Ledger, sources: Iterable[Source], thumbnail: Thumbnail) -> tuple[ShownEdit, ...]:
    """Every edit of these pictures, each once, in order.

    Args:
        ledger: The ledger of the workspace.
        sources: Of the video.
        thumbnail: Makes a small picture of one in the storage.
    """
    found: dict[str, ShownEdit] = {}
    for source in sources:
        before = source.original
        for edit in source.edits:
            if edit.step_id not in found:
                found[edit.step_id] = _shown(
                    ledger, source.asset_id, edit.step_id, edit.operation, before, edit.media, thumbnail
                )
            before = edit.media
    return tuple(found.values())


def _shown(
    ledger: Ledger,
    asset_id: str,
    record_id: str,
    operation: str,
    before: MediaRef,
    after: MediaRef,
    thumbnail: Thumbnail,
) -> ShownEdit:
    try:
        statement = statement_of(ledger.get(record_id))
    except NotFoundError:
        statement = None
    texts = {text.keyed_digest: text.value for text in ledger.texts(record_id)} if statement is not None else {}
    refs = {} if statement is None else _refs(statement)
    made = {} if statement is None else statement["predicate"]["buildDefinition"]["internalParameters"]
    request: JSON = made.get("request") or {}
    mask = refs.get(str(request.get("mask_sha256")))
    given = refs.get(str(request.get("image_sha256")), before)
    return ShownEdit(
        asset_id=asset_id,
        operation=operation,
        model=_model(made.get("generator")),
        prompt=_asked(request, texts),
        record_id=record_id,
        before=thumbnail(given),
        mask=None if mask is None else thumbnail(mask),
        after=thumbnail(after),
    )


def _refs(statement: JSON) -> dict[str, MediaRef]:
    found = {}
    for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        sha256, size_bytes = one["digest"]["sha256"], one["annotations"].get("size_bytes")
        if isinstance(size_bytes, int) and isinstance(one.get("mediaType"), str):
            found[sha256] = MediaRef(sha256=sha256, media_type=one["mediaType"], size_bytes=size_bytes)
    return found


def _model(generator: JSON) -> str:
    return f"{generator.get('provider')}:{generator.get('id')}" if isinstance(generator, dict) else ""


def _asked(request: JSON, texts: Mapping[str, str]) -> str | None:
    said = [words_of(request.get(name), texts) for name in ("prompt", "mask_prompt")]
    words = [one for one in said if one]
    return (ERASED if ERASED in words else "; ".join(words)) or None
