"""Reviews: who decided what about a picture, kept with the knowledge base and only ever added to.

One small document a decision, `reviews/<sha256 of the original>/<sequence>.json`, created once in the knowledge base's
own `Storage`. The storage lets one writer win each number, so every machine sees the same order; the highest one holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from io import BytesIO
from typing import Final

from attrs import evolve

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import (
    AlreadyExistsError,
    FormatVersionError,
    NotFoundError,
    ProvenanceError,
    UsageError,
    VerificationError,
)
from vrag.interfaces import Storage
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import canonical_json, from_json, to_json

__all__ = ["TRANSITIONS", "Reviews", "rights_end", "with_expiry"]

_FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 10
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]{6}\.json")

_DECIDED: Final = frozenset({ReviewState.APPROVED, ReviewState.REJECTED, ReviewState.REVOKED})
TRANSITIONS: Final[Mapping[ReviewState, frozenset[ReviewState]]] = {
    ReviewState.PROPOSED: _DECIDED,
    ReviewState.APPROVED: frozenset({ReviewState.REJECTED, ReviewState.EXPIRED, ReviewState.REVOKED}),
    ReviewState.REJECTED: frozenset({ReviewState.APPROVED, ReviewState.REVOKED}),
    ReviewState.EXPIRED: _DECIDED,
    ReviewState.REVOKED: frozenset(),
}
"""What may follow what. Nothing follows `revoked`; "not decided yet" is not a decision, so nothing leads to `proposed`."""


def rights_end(expires_on: str) -> datetime:
    """The first moment after the last day of use, in UTC.

    Raises:
        UsageError: `expires_on` is no day of the calendar written as YYYY-MM-DD.
    """
    day: date | None = None
    if _DAY.fullmatch(expires_on):
        with suppress(ValueError):
            day = date.fromisoformat(expires_on)
    if day is None or day == date.max:
        shown = "".join(char for char in expires_on[:40] if char.isprintable())
        raise UsageError(f"'{shown}' is no day to expire on; write it as YYYY-MM-DD, such as 2027-12-31.")
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)


def with_expiry(asset: Asset, review: Review, now: datetime) -> Review:
    """`review`, or what has become of it: an approval ends with the rights of the picture.

    Raises:
        UsageError: The day of expiry of the asset cannot be read.
    """
    if review.state is not ReviewState.APPROVED or asset.rights.expires_on is None:
        return review
    end = rights_end(asset.rights.expires_on)
    if now < end:
        return review
    reason = f"its rights ended with {asset.rights.expires_on} (UTC); approved by {review.by}"
    return evolve(review, state=ReviewState.EXPIRED, by="rights", at=rfc3339(end), reason=reason)


class Reviews:
    """The decisions about the pictures of one knowledge base; every answer is read from its storage."""

    def __init__(self, storage: Storage, clock: Clock | None = None) -> None:
        self._storage = storage
        self._clock = clock or SystemClock()

    def history(self, asset: Asset) -> tuple[Review, ...]:
        """Every decision about `asset`, oldest first; empty for one that nobody decided about.

        Raises:
            VerificationError: A decision is missing, cannot be read, or is about another asset.
            FormatVersionError: A decision was written by a newer release.
        """
        count = self._count(asset)
        return tuple(self._read(asset, number) for number in range(count))

    def latest(self, asset: Asset) -> Review:
        """The decision that holds; without one the asset is `proposed`, by its ingest (sequence -1).

        Raises:
            VerificationError, FormatVersionError: As for `history`.
        """
        count = self._count(asset)
        if count:
            return self._read(asset, count - 1)
        return Review(asset_id=asset.id, state=ReviewState.PROPOSED, by="ingest", at=asset.ingested_at, sequence=-1)

    def add(self, asset: Asset, state: ReviewState, *, by: str, reason: str | None = None) -> Review:
        """Record a decision and return it; saying again what holds already changes nothing and returns that.

        A picture whose decisions cannot be read can still be revoked.

        Raises:
            UsageError: `by` is empty, or this state may not follow the one that holds.
            VerificationError, FormatVersionError: As for `history`.
        """
        if not by.strip():
            raise UsageError("A review needs the name of who decided.", hint='add --by "NAME"')
        while True:
            try:
                held = self.latest(asset)
            except (ProvenanceError, FormatVersionError):
                if state is not ReviewState.REVOKED:
                    raise
                number = (
                    max((int(name[-11:-5]) for name in self._names(asset) if _NUMBER.fullmatch(name[-11:])), default=-1)
                    + 1
                )
            else:
                if held.state is state:
                    return held
                if state not in TRANSITIONS[held.state]:
                    raise UsageError(_refusal(asset, held, state))
                number = held.sequence + 1
            review = Review(
                asset_id=asset.id,
                state=state,
                by=by.strip(),
                at=rfc3339(self._clock.now()),
                reason=reason,
                sequence=number,
            )
            document = canonical_json({"format": _FORMAT, "review": to_json(review)})
            if len(document) > _MAX_BYTES:
                raise UsageError(f"A review is at most {_MAX_BYTES} bytes, not {len(document)}; shorten the reason.")
            try:
                self._storage.put_named(_name(asset, number), BytesIO(document))
            except AlreadyExistsError:
                continue  # someone else decided meanwhile: what may follow is judged again
            return review

    def _names(self, asset: Asset) -> list[str]:
        return list(self._storage.list(f"reviews/{asset.original.sha256}/"))

    def _count(self, asset: Asset) -> int:
        names = self._names(asset)
        # A missing number may have been the revocation: then nothing is certain.
        if names != [_name(asset, number) for number in range(len(names))]:
            raise VerificationError(
                f"The reviews of '{asset.id}' are not numbered 0, 1, 2 …: one was removed, or something was put there.",
                promise="reviews are complete",
            )
        return len(names)

    def _read(self, asset: Asset, number: int) -> Review:
        name = _name(asset, number)
        try:
            with self._storage.open(name) as stream:
                text = stream.read(_MAX_BYTES + 1)
            document = json.loads(text) if len(text) <= _MAX_BYTES else None
        except (ValueError, RecursionError, NotFoundError):
            document = None
        version = document.get("format") if isinstance(document, dict) else None
        if isinstance(version, int) and version > _FORMAT:
            raise FormatVersionError(
                f"The review '{name}' has format {version}; this release reads up to {_FORMAT}.",
                hint="pip install --upgrade vrag",
            )
        try:
            review = (
                from_json(Review, document["review"]) if isinstance(document, dict) and version == _FORMAT else None
            )
        except (UsageError, KeyError):
            review = None
        if review is None or (review.asset_id, review.sequence) != (asset.id, number):
            raise VerificationError(
                f"The review '{name}' of '{asset.id}' cannot be read, or is about something else.",
                promise="reviews are readable",
            )
        return review


def _name(asset: Asset, number: int) -> str:
    return f"reviews/{asset.original.sha256}/{number:06d}.json"


def _refusal(asset: Asset, held: Review, state: ReviewState) -> str:
    allowed = ", ".join(sorted(TRANSITIONS[held.state])) or "nothing, that is final"
    return (
        f"'{asset.id}' is {held.state} (by {held.by}, {held.at}) and cannot become {state}; it can become: {allowed}."
    )
