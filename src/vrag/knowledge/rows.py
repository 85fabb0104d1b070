"""Assets as rows of the index, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vrag.knowledge.captions import file_name_caption
from vrag.values.assets import Asset, CaptionSource
from vrag.values.canonical import canonical_json, from_json
from vrag.values.vectors import VectorRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | None
else:
    Vector = Any

__all__ = ["Vector", "asset_of", "record_of", "sources_of"]


def record_of(
    asset: Asset, vector: Vector, review: str, *, fingerprint: str | None = None, sources: tuple[str, ...] = ()
) -> VectorRecord:
    """The row of an asset in the index.

    Args:
        asset: The picture.
        vector: Of its words or of its pixels.
        review: The state that filters see; a hint.
        fingerprint: What it looks like, see `vrag.media.fingerprint`.
        sources: Ids of the folders and prefixes that it was seen in.
    """
    original, rights = asset.original, asset.rights
    fields: dict[str, str | float | tuple[str, ...] | None] = {
        "tags": asset.tags or None,
        "media_type": original.media_type,
        "orientation": asset.orientation,
        "licence": rights.licence,
        "holder": rights.holder,
        "expires_on": rights.expires_on,
        "review": review,
        "width_px": original.width_px,
        "height_px": original.height_px,
        "size_bytes": original.size_bytes,
        "ingested_at": asset.ingested_at,
        "fingerprint": fingerprint,
        "source": sources or None,
    }
    return VectorRecord(
        key=asset.id,
        vector=vector,
        text=_text(asset),
        fields={name: value for name, value in fields.items() if value is not None},
        payload=canonical_json(asset).decode(),
    )


def _text(asset: Asset) -> str:
    """What it is found by: caption, tags and the words of its file name; nothing without a caption."""
    if asset.caption is None:
        return ""
    named = None if asset.caption_source is CaptionSource.FILE_NAME else file_name_caption(asset.file_name)
    return "\n".join((asset.caption, *asset.tags, *([named] if named else [])))


def asset_of(record: VectorRecord) -> Asset:
    """The asset of a row that `record_of` made.

    Raises:
        UsageError: It was written by something else, or by a newer release.
    """
    return from_json(Asset, json.loads(record.payload))


def sources_of(record: VectorRecord | None) -> tuple[str, ...]:
    """Where the picture of a row was seen."""
    found = () if record is None else record.fields.get("source", ())
    return found if isinstance(found, tuple) else (str(found),)
