"""Deleting the bytes of a picture that was taken down: a document that says who and why stays in their place."""

from __future__ import annotations

import json
from io import BytesIO
from typing import BinaryIO, Final

from attrs import evolve, field, frozen, validators

from vrag.errors import AlreadyExistsError, ErasedError, NotFoundError, UsageError
from vrag.interfaces import Storage
from vrag.knowledge.captioning import caption_names
from vrag.knowledge.embeddings import kept_names
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset
from vrag.values.canonical import canonical_json, from_json, to_json

__all__ = ["Erasure", "erase", "erasure_of", "open_or_erased", "tombstone"]

_FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 10


@frozen(kw_only=True)
class Erasure:
    """The decision to delete the bytes of one picture."""

    asset_id: str
    by: str = field(validator=validators.min_len(1))
    """Who decided."""
    reason: str = field(validator=validators.min_len(1))
    at: str
    """When, RFC 3339 UTC."""


def erase(storage: Storage, asset: Asset, erasure: Erasure) -> Erasure:
    """Write the decision down, then delete the bytes, and captions and vectors that were kept; a killed run is ended by the next. The first decision stays.

    Raises:
        UsageError: The reason is too long.
    """
    document = canonical_json({"format": _FORMAT, "erasure": to_json(erasure)})
    if len(document) > _MAX_BYTES:
        raise UsageError(f"An erasure is at most {_MAX_BYTES} bytes, not {len(document)}; shorten the reason.")
    try:
        storage.put_named(_name(asset.original.sha256), BytesIO(document))
    except AlreadyExistsError:
        erasure = erasure_of(storage, asset.original.sha256) or erasure
    storage.delete(asset.original)
    # What models said of it: sentences and numbers that its bytes could be told by.
    sha256 = asset.original.sha256
    for name in (*caption_names(storage, sha256), *kept_names(storage, sha256)):
        storage.delete(name)
    return erasure


def erasure_of(storage: Storage, sha256: str) -> Erasure | None:
    """The decision to delete these bytes, if there is one that can be read."""
    try:
        with storage.open(_name(sha256)) as stream:
            return from_json(Erasure, json.loads(stream.read(_MAX_BYTES))["erasure"])
    except (NotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def open_or_erased(storage: Storage, ref: MediaRef) -> BinaryIO:
    """The bytes behind `ref`.

    Raises:
        ErasedError: They were deleted by decision.
        NotFoundError: They are not there, and nobody decided that.
    """
    try:
        return storage.open(ref)
    except NotFoundError:
        erasure = erasure_of(storage, ref.sha256)
        if erasure is None:
            raise
        raise ErasedError(
            f"The bytes of '{erasure.asset_id}' were deleted by {erasure.by} at {erasure.at}: {erasure.reason}."
        ) from None


def tombstone(asset: Asset, erasure: Erasure) -> Asset:
    """What is left of an asset: its identity, name and rights; no words and nothing to find it by."""
    return evolve(asset, caption=None, caption_source=None, tags=(), notes=(), metadata={}, erased_at=erasure.at)


def _name(sha256: str) -> str:
    return f"erased/{sha256}.json"
