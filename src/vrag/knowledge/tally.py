"""Counts what an ingest does, picture by picture, for its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from vrag.knowledge.duplicates import Seen
from vrag.knowledge.report import Duplicate, IngestReport, NearDuplicate, Renamed, Vanished
from vrag.knowledge.rows import sources_of
from vrag.knowledge.sources import NotTaken
from vrag.knowledge.travelling import Chunk, Picture
from vrag.values.assets import Asset
from vrag.values.vectors import VectorRecord

__all__ = ["Tally"]

_INCOMPLETE = frozenset({"unreadable", "bad_sidecar", "bad_row"})


class Tally:
    """The report in the making. It grows only by what has to be named."""

    def __init__(self, knowledge_base: str) -> None:
        self._knowledge_base = knowledge_base
        self.done = 0
        self.approved = 0
        self._counts = {"new": 0, "unchanged": 0, "updated": 0}
        self._captioned = 0
        self._duplicates: list[Duplicate] = []
        self._near: list[NearDuplicate] = []
        self._renamed: list[Renamed] = []
        self._vanished: list[Vanished] = []
        self._refused: list[NotTaken] = []
        self._rejected: list[NotTaken] = []
        self._skipped: list[NotTaken] = []
        self._notes: list[str] = []

    @property
    def taken(self) -> int:
        """Different pictures that are in."""
        return sum(self._counts.values())

    @property
    def is_complete(self) -> bool:
        """Everything in the source could be looked at, and there was something."""
        return self.taken > 0 and not any(entry.code in _INCOMPLETE for entry in self._rejected)

    def count(
        self,
        entry: Picture | NotTaken | NearDuplicate,
        chunk: Chunk,
        assets: Mapping[str, Asset],
        before: Mapping[str, Asset],
        rows: Mapping[str, VectorRecord],
        names: Mapping[str, str],
        source_id: str | None,
    ) -> bool:
        """Note what became of an entry; whether it counts as done."""
        if isinstance(entry, NotTaken):
            (self._skipped if entry.skipped else self._rejected).append(entry)
            self.done += not entry.skipped
            return not entry.skipped
        self.done += 1
        if isinstance(entry, NearDuplicate):
            self._near.append(evolve(entry, like=names.get(entry.like_id, entry.like)))
            return True
        if entry.first is not None:
            self._duplicates.append(Duplicate(name=entry.name, same_as=entry.first))
            return True
        held, asset = before.get(entry.key), assets[entry.key]
        if held is None:
            self._counts["new"] += 1
        else:
            is_new_here = source_id is not None and source_id not in sources_of(rows[entry.key])
            self._counts["updated" if asset != held or is_new_here else "unchanged"] += 1
            if held.file_name != asset.file_name:
                self._renamed.append(Renamed(name=asset.file_name, was=held.file_name))
        if entry.near is not None:
            self._near.append(evolve(entry.near, like=names.get(entry.near.like_id, entry.near.like)))
        if (said := chunk.said.get(entry.key)) is not None:
            self._captioned += said.text is not None
            if said.refused is not None:
                self._refused.append(NotTaken(name=entry.name, code="caption_refused", reason=said.refused))
        return True

    def vanished(self, assets: Iterable[Asset], *, pruned: bool, asked: bool) -> None:
        """Note pictures that the source has no more."""
        self._vanished += [Vanished(asset_id=asset.id, name=asset.file_name, pruned=pruned) for asset in assets]
        if asked and not pruned:
            self._notes.append(
                "Nothing was pruned: the source is empty, or something in it could not be read, so what vanished is not certain."
            )

    def report(self, seen: Seen) -> IngestReport:
        """All of it."""
        uncaptioned, examples = seen.uncaptioned(10)
        return IngestReport(
            knowledge_base=self._knowledge_base,
            **self._counts,
            approved=self.approved,
            captioned=self._captioned,
            uncaptioned=uncaptioned,
            uncaptioned_examples=examples,
            duplicates=tuple(self._duplicates),
            near_duplicates=tuple(self._near),
            renamed=tuple(self._renamed),
            vanished=tuple(self._vanished),
            refused=tuple(self._refused),
            rejected=tuple(self._rejected),
            skipped=tuple(self._skipped),
            notes=tuple(self._notes),
        )
