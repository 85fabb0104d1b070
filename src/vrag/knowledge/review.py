"""Reviews: who decided what about a picture, kept with the knowledge base and only ever added to.

One small document a decision, `reviews/<sha256 of the original>/<sequence>.json`, created once in the knowledge base's
own `Storage`. The storage lets one writer win each number, so every machine sees the same order; the highest one holds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from io import BytesIO, StringIO
from typing import Final

from attrs import frozen
from typing_extensions import override

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
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON, canonical_json, from_json, to_json

__all__ = [
    "TRANSITIONS",
    "Decision",
    "ReviewFailure",
    "ReviewReport",
    "Reviews",
    "read_decisions",
]

_FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 10
_MAX_TABLE_BYTES: Final = 64 << 20
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

    def add_for_bytes(self, asset_id: str, state: ReviewState, *, by: str, reason: str | None = None) -> Review:
        """As `add`, for a picture that need not be here: its id is enough.

        Raises:
            UsageError, VerificationError, FormatVersionError: As for `add`.
        """
        name, _, sha256 = asset_id.rpartition("/")
        original = MediaRef(sha256=sha256, media_type="application/octet-stream", size_bytes=0)
        now = rfc3339(self._clock.now())
        alone = Asset(id=asset_id, knowledge_base=name, original=original, file_name="", ingested_at=now)
        return self.add(alone, state, by=by, reason=reason)

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


@frozen(kw_only=True)
class Decision:
    """One row of a table of decisions."""

    line: int
    asset_id: str
    """As it stands there: an id, a digest, or the beginning of one."""
    state: ReviewState
    reason: str | None = None


@frozen(kw_only=True)
class ReviewFailure:
    """A decision that was not made."""

    asset_id: str
    """As it was given."""
    error: str
    """Code of the error."""
    message: str
    line: int | None = None
    """Of the table, from 1; None where there was no table."""


@frozen(kw_only=True)
class ReviewReport:
    """What became of many decisions; each is counted once."""

    knowledge_base: str
    decided: tuple[Review, ...] = ()
    """In order; these hold now, whatever else failed."""
    unchanged: int = 0
    """Said again what held already."""
    failed: tuple[ReviewFailure, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.failed

    @property
    def partial(self) -> bool:
        """Something failed and something was decided."""
        return bool(self.failed and (self.decided or self.unchanged))

    def to_json(self) -> dict[str, JSON]:
        """All of it as JSON, with `ok` and `partial`."""
        return {
            "knowledge_base": self.knowledge_base,
            "decided": [to_json(review) for review in self.decided],
            "unchanged": self.unchanged,
            "failed": [to_json(failure) for failure in self.failed],
            "ok": self.ok,
            "partial": self.partial,
        }

    @override
    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for review in self.decided:
            counts[review.state] = counts.get(review.state, 0) + 1
        lines = [f"Knowledge base '{self.knowledge_base}': {len(self.decided)} decided, {self.unchanged} unchanged."]
        lines += [f"  {state:<10} {count:>7}" for state, count in sorted(counts.items())]
        for failure in self.failed:
            where = failure.asset_id if failure.line is None else f"line {failure.line}"
            lines.append(f"  not decided  {where}: {failure.error}: {failure.message}")
        return "\n".join(lines)


def read_decisions(data: bytes | str) -> Iterator[Decision | ReviewFailure]:
    """The rows of a CSV table with the columns `id`, `state` and, if wanted, `reason`, in any order.

    A row that cannot be understood comes as a failure.

    Raises:
        UsageError: It is no such table as a whole: then nothing of it is meant.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UsageError("The table is not UTF-8.", hint="save it as 'CSV UTF-8'") from None
    if len(text) > _MAX_TABLE_BYTES:
        raise UsageError(f"A table of decisions has at most {_MAX_TABLE_BYTES} characters, not {len(text)}.")
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        line = reader.line_num + 1
        for row in reader:
            rows.append((line, [cell.strip() for cell in row]))
            line = reader.line_num + 1  # a row of several lines is named by its first
    except csv.Error as error:
        raise UsageError(f"Line {reader.line_num} of the table is no CSV: {error}.") from None
    if not {"id", "state"} <= set(header) <= {"id", "state", "reason"} or len(header) != len(set(header)):
        shown = ", ".join(header)[:120] or "nothing"
        raise UsageError(f"The first line of a table of decisions is id,state,reason, not: {shown!a}.")
    for line, row in rows:
        if any(row):
            yield _decision(line, dict(zip(header, row, strict=False)), complete=len(row) == len(header))


def _decision(line: int, row: Mapping[str, str], *, complete: bool) -> Decision | ReviewFailure:
    asset_id, state = row.get("id", ""), row.get("state", "").lower()
    allowed = ", ".join(after for after in ReviewState if after is not ReviewState.PROPOSED)
    message = None
    if not complete:
        message = "It has not as many fields as the first line."
    elif state not in set(ReviewState) - {ReviewState.PROPOSED}:
        message = f"{state[:40]!a} is no decision; it is one of: {allowed}."
    elif state == ReviewState.REVOKED and not row.get("reason"):
        message = "A revocation needs a reason."
    if message is not None:
        return ReviewFailure(line=line, asset_id=asset_id[:150], error=UsageError.code, message=message)
    return Decision(line=line, asset_id=asset_id, state=ReviewState(state), reason=row.get("reason") or None)
