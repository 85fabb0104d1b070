"""Assets: the pictures of a knowledge base, their rights and their reviews."""

from __future__ import annotations

import re
from enum import StrEnum

from attrs import field, frozen, validators

from vrag.errors import UsageError
from vrag.media.ref import MediaRef
from vrag.values.canonical import JSON

__all__ = ["Asset", "CaptionSource", "Review", "ReviewState", "Rights", "asset_id", "check_knowledge_base_name"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")


def check_knowledge_base_name(name: object) -> str:
    """`name` if it names a knowledge base: 1 to 63 of `a-z 0-9 _ -`, first and last a letter or digit.

    Lower case only, so that two names never meet on a disk that ignores case.

    Raises:
        UsageError: It does not; lists, None, "", "*" and look-alike letters of other scripts included.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    shown = f"'{name[:80]}'" if isinstance(name, str) else f"a {type(name).__name__}"
    raise UsageError(
        f"A knowledge base is named by 1 to 63 of a-z, 0-9, '_' and '-' (first and last a letter or digit), not {shown}."
    )


def asset_id(knowledge_base: str, sha256: str) -> str:
    """The id of an asset: knowledge base and digest of the original bytes, `brand/9f86d0…`."""
    return f"{knowledge_base}/{sha256}"


class ReviewState(StrEnum):
    """Where an asset stands in vetting. Only `approved` may be used."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVOKED = "revoked"


class CaptionSource(StrEnum):
    """Where a caption came from, best first."""

    MANIFEST = "manifest"
    SIDECAR = "sidecar"
    EMBEDDED = "embedded"
    CAPTIONER = "captioner"
    FILE_NAME = "file name"


@frozen(kw_only=True)
class Rights:
    """What the holder allows. None and empty mean "not stated"."""

    licence: str | None = None
    """SPDX id where there is one, else the words of the licence."""
    holder: str | None = None
    territory: str | None = None
    expires_on: str | None = None
    """Last day of use, `YYYY-MM-DD`; it ends with that day in the time zone of the knowledge base."""
    releases: tuple[str, ...] = ()
    """Model and property releases."""
    notes: str | None = None


@frozen(kw_only=True)
class Review:
    """One decision about one asset; reviews are only ever added."""

    asset_id: str
    state: ReviewState
    by: str = field(validator=validators.min_len(1))
    """Who decided."""
    at: str
    """When, RFC 3339 UTC."""
    reason: str | None = None
    sequence: int = 0
    """0 for the first review of the asset, then 1, 2, …; the highest one holds."""


@frozen(kw_only=True)
class Asset:
    """A source picture of a knowledge base, as the index knows it."""

    id: str
    """`asset_id(knowledge_base, original.sha256)`."""
    knowledge_base: str
    original: MediaRef
    """The bytes as they were ingested."""
    file_name: str
    """Last part of the path it came from; text for people, never a path to open."""
    caption: str | None = None
    """One sentence about what is visible; None is "uncaptioned" and is never matched by words."""
    caption_source: CaptionSource | None = None
    tags: tuple[str, ...] = ()
    rights: Rights = Rights()
    ingested_at: str
    """RFC 3339 UTC."""
    erased_at: str | None = None
    """When its bytes were deleted by decision, RFC 3339 UTC; what is left is a tombstone."""
    notes: tuple[str, ...] = ()
    """What loading noticed, such as "EXIF orientation 6 applied" or "first picture of an MPO file"."""
    metadata: JSON = field(factory=dict)
    """Free JSON object of the caller; the library never reads it."""

    @property
    def orientation(self) -> str:
        """`landscape`, `portrait` or `square`."""
        width, height = self.original.width_px or 0, self.original.height_px or 0
        return "square" if width == height else "landscape" if width > height else "portrait"
