"""What an ingest will cost, how far it is, and what it did: for people, for programs and for exit codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from attrs import asdict, field, frozen
from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.knowledge.sources import NotTaken
from vrag.values.canonical import JSON

__all__ = [
    "Duplicate",
    "IngestEstimate",
    "IngestProgress",
    "IngestReport",
    "NearDuplicate",
    "Renamed",
    "Vanished",
    "paced",
]

_WINDOW: Final = 256


@frozen(kw_only=True)
class Duplicate:
    """A picture whose bytes came before in the same source, under another name."""

    name: str
    same_as: str


@frozen(kw_only=True)
class NearDuplicate:
    """A new picture that looks like one that is in the knowledge base, or that came before."""

    name: str
    like: str
    """Name of the other one, where it is known, else its digest."""
    like_id: str
    bits: int
    """In how many of 64 bits their fingerprints differ."""
    folded: bool = False
    """It was not taken, because the other one stands for it."""


@frozen(kw_only=True)
class Renamed:
    """A picture that was known under another name."""

    name: str
    was: str


@frozen(kw_only=True)
class Vanished:
    """A picture of the knowledge base that is no longer in the source it came from."""

    asset_id: str
    name: str
    pruned: bool = False
    """It was taken out of the index; its bytes and its reviews are kept."""


@frozen(kw_only=True)
class IngestEstimate:
    """What an ingest would do and cost; nothing was sent for it."""

    pictures: int
    known: int
    """In the knowledge base already."""
    captions: int
    """How many pictures a captioner would be asked about."""
    embeddings: int
    """How many texts or pictures would be embedded."""
    usd_micros: int | None
    """Integer micro-USD for all of it; None is "not known", which is never zero."""
    basis: tuple[str, ...] = ()
    """Where the prices come from."""

    @override
    def __str__(self) -> str:
        price = "a price that is not known" if self.usd_micros is None else f"about ${self.usd_micros / 1e6:.2f}"
        return (
            f"{self.pictures} pictures ({self.known} known): {self.captions} captions and {self.embeddings} embeddings "
            f"for {price}" + (f" ({'; '.join(self.basis)})" if self.basis else "")
        )


@frozen(kw_only=True)
class IngestProgress:
    """How far an ingest is."""

    done: int
    total: int | None
    """None where the source does not know."""
    name: str
    """The picture just done."""
    rate_per_s: float | None
    """Pictures a second lately; None before there is something to measure."""
    eta_s: float | None
    """Seconds left at this rate."""


def paced(
    show: Callable[[IngestProgress], object], clock: Clock | None = None
) -> Callable[[int, int | None, str], None]:
    """A `progress` for `KnowledgeBase.ingest` that shows rate and time left too.

    The rate is that of the last 256 pictures, so that a stretch of known ones, which take no time, is soon forgotten.
    """
    timer = clock or SystemClock()
    marks: deque[tuple[float, int]] = deque([(timer.monotonic_s(), 0)], maxlen=_WINDOW)

    def progress(done: int, total: int | None, name: str) -> None:
        now = timer.monotonic_s()
        since, before = marks[0]
        marks.append((now, done))
        rate = (done - before) / (now - since) if now > since else None
        left = None if rate is None or total is None else max(0, total - done) / rate
        show(IngestProgress(done=done, total=total, name=name, rate_per_s=rate, eta_s=left))

    return progress


@frozen(kw_only=True)
class IngestReport:
    """What became of every picture of a source. Same counts, same pictures: it can be compared and kept."""

    knowledge_base: str
    new: int = 0
    unchanged: int = 0
    """In the knowledge base already; nothing was written, embedded or paid."""
    updated: int = 0
    """In the knowledge base already, with other words, rights or metadata than now."""
    approved: int = 0
    """Given a first review, because `approve_by` was set."""
    captioned: int = 0
    """Described by the captioner, or by its memory."""
    uncaptioned: int = 0
    """Of those that are in: without a word, found by no word."""
    uncaptioned_examples: tuple[str, ...] = ()
    """Names of ten of them."""
    duplicates: tuple[Duplicate, ...] = ()
    near_duplicates: tuple[NearDuplicate, ...] = ()
    renamed: tuple[Renamed, ...] = ()
    vanished: tuple[Vanished, ...] = ()
    refused: tuple[NotTaken, ...] = ()
    """Pictures that are in, but that the captioner would not describe."""
    rejected: tuple[NotTaken, ...] = ()
    skipped: tuple[NotTaken, ...] = ()
    """Files that are no pictures, and links."""
    notes: tuple[str, ...] = field(default=())
    """What else a person should know."""

    @property
    def taken(self) -> int:
        """How many pictures of the source are in the knowledge base now, each once."""
        return self.new + self.unchanged + self.updated

    @property
    def ok(self) -> bool:
        """Nothing was rejected."""
        return not self.rejected

    @property
    def partial(self) -> bool:
        """Something was rejected and the rest was taken."""
        return bool(self.rejected) and self.taken > 0

    def to_json(self) -> dict[str, JSON]:
        """All of it as JSON, with `taken`, `ok` and `partial`."""

        def rows(entries: Sequence[NotTaken]) -> list[JSON]:
            return [{"name": entry.name, "code": entry.code, "reason": entry.reason} for entry in entries]

        return {
            "knowledge_base": self.knowledge_base,
            "taken": self.taken,
            "new": self.new,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "approved": self.approved,
            "captioned": self.captioned,
            "uncaptioned": self.uncaptioned,
            "uncaptioned_examples": list(self.uncaptioned_examples),
            "duplicates": [asdict(one) for one in self.duplicates],
            "near_duplicates": [asdict(one) for one in self.near_duplicates],
            "renamed": [asdict(one) for one in self.renamed],
            "vanished": [asdict(one) for one in self.vanished],
            "refused": rows(self.refused),
            "rejected": rows(self.rejected),
            "skipped": rows(self.skipped),
            "notes": list(self.notes),
            "ok": self.ok,
            "partial": self.partial,
        }

    def counts(self) -> dict[str, int]:
        """The table: what was counted, and how often."""
        return {
            "new": self.new,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "duplicate": len(self.duplicates),
            "near-duplicate": len(self.near_duplicates),
            "rejected": len(self.rejected),
            "skipped": len(self.skipped),
        } | {
            name: count
            for name, count in {
                "approved": self.approved,
                "captioned": self.captioned,
                "renamed": len(self.renamed),
                "vanished": len(self.vanished),
            }.items()
            if count
        }

    @override
    def __str__(self) -> str:
        lines = [f"Knowledge base '{self.knowledge_base}': {self.taken} pictures of this source are in."]
        lines += [f"  {name:<14} {count:>7}" for name, count in self.counts().items()]
        lines += [f"  rejected   {entry.name}: {entry.code}: {entry.reason}" for entry in self.rejected]
        lines += [f"  duplicate  {one.name} has the bytes of {one.same_as}" for one in self.duplicates]
        lines += [
            f"  {'folded    ' if one.folded else 'looks alike'} {one.name} looks like {one.like} ({one.bits} of 64 bits)"
            for one in self.near_duplicates
        ]
        lines += [f"  renamed    {one.name} was {one.was}" for one in self.renamed]
        lines += [
            f"  vanished   {one.name} ({one.asset_id}) {'left the index' if one.pruned else 'is kept'}"
            for one in self.vanished
        ]
        lines += [f"  no caption {entry.name}: {entry.reason}" for entry in self.refused]
        lines += [f"  skipped    {entry.name}: {entry.code}: {entry.reason}" for entry in self.skipped]
        lines += [f"  {note}" for note in self.notes]
        if self.uncaptioned:
            names = ", ".join(self.uncaptioned_examples) + (" …" if self.uncaptioned > 10 else "")
            lines.append(f"  {self.uncaptioned} without words, so no words will find them: {names}")
            lines.append(
                "  Remedy: name the files by what they show (red-shoes.jpg), or put the words into photo.txt beside "
                "photo.jpg, or into a manifest; then ingest again."
            )
        return "\n".join(lines)
