"""What an ingest did, for people, for programs and for exit codes."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from typing_extensions import override

from vrag.knowledge.sources import NotTaken
from vrag.values.canonical import JSON

__all__ = ["Duplicate", "IngestReport"]


@frozen(kw_only=True)
class Duplicate:
    """A picture whose bytes came before in the same source, under another name."""

    name: str
    same_as: str


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
    uncaptioned: int = 0
    """Of those that are in: without a word, found by no word."""
    uncaptioned_examples: tuple[str, ...] = ()
    """Names of the first ten of them."""
    duplicates: tuple[Duplicate, ...] = ()
    rejected: tuple[NotTaken, ...] = ()
    skipped: tuple[NotTaken, ...] = ()
    """Files that are no pictures, and links."""

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
            "uncaptioned": self.uncaptioned,
            "uncaptioned_examples": list(self.uncaptioned_examples),
            "duplicates": [{"name": one.name, "same_as": one.same_as} for one in self.duplicates],
            "rejected": rows(self.rejected),
            "skipped": rows(self.skipped),
            "ok": self.ok,
            "partial": self.partial,
        }

    @override
    def __str__(self) -> str:
        counts = {
            "new": self.new,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "duplicate": len(self.duplicates),
            "rejected": len(self.rejected),
            "skipped": len(self.skipped),
        }
        lines = [f"Knowledge base '{self.knowledge_base}': {self.taken} pictures of this source are in."]
        lines += [f"  {name:<10} {count:>7}" for name, count in counts.items()]
        if self.approved:
            lines.append(f"  {'approved':<10} {self.approved:>7}")
        lines += [f"  rejected   {entry.name}: {entry.code}: {entry.reason}" for entry in self.rejected]
        lines += [f"  duplicate  {one.name} has the bytes of {one.same_as}" for one in self.duplicates]
        lines += [f"  skipped    {entry.name}: {entry.code}: {entry.reason}" for entry in self.skipped]
        if self.uncaptioned:
            names = ", ".join(self.uncaptioned_examples) + (" …" if self.uncaptioned > 10 else "")
            lines.append(f"  {self.uncaptioned} without words, so no words will find them: {names}")
            lines.append(
                "  Remedy: name the files by what they show (red-shoes.jpg), or put the words into photo.txt beside "
                "photo.jpg, or into a manifest; then ingest again."
            )
        return "\n".join(lines)
