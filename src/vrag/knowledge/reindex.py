"""Reindexing: the same pictures under another embedder, in an index beside the old one, which serves until the switch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final, Protocol, TypeVar

from attrs import define, evolve, frozen

from vrag.errors import UsageError
from vrag.interfaces import Embedder, Storage, VectorStore
from vrag.knowledge.embeddings import Embeddings
from vrag.knowledge.ingest import Progress
from vrag.knowledge.rows import Vector, asset_of
from vrag.values.assets import Asset
from vrag.values.requests import Estimate
from vrag.values.vectors import EmbeddingSpace, Item, VectorRecord

__all__ = ["Indexes", "ReindexReport", "reindex", "reindex_estimate"]

RowT = TypeVar("RowT")
_BATCH: Final = 64
_LOOKS: Final = 4
"""After so many passes the rest is done while writers wait."""


class Indexes(Protocol):
    """The indexes of one knowledge base: the one in use, and one that is made to take its place."""

    __slots__ = ()

    def claim(self) -> AbstractContextManager[object]:
        """Only one at a time makes an index; a second raises `UsageError`, and a claim ends with its process."""
        ...

    def active(self) -> VectorStore:
        """Open the index in use, whatever its space."""
        ...

    def beside(self, space: EmbeddingSpace | None) -> VectorStore:
        """Open the index that is being made for `space`, with what an earlier try has left in it."""
        ...

    def switch(self, old: VectorStore, last_look: Callable[[], None]) -> None:
        """Keep writers of `old` out, call `last_look`, and put the new index in its place, for everybody and at once.

        From then on `old` refuses to be written. If `last_look` raises, nothing is switched.
        """
        ...


@frozen(kw_only=True)
class ReindexReport:
    """What a reindexing did."""

    knowledge_base: str
    before: EmbeddingSpace | None
    after: EmbeddingSpace | None
    pictures: int
    """In the new index."""
    embedded: int
    """Pictures that were sent to the embedder; what an earlier try had done, or was paid before, is not sent again."""
    switched: bool
    """False where the index was one of this embedder already."""


def reindex(
    knowledge_base: str,
    *,
    indexes: Indexes,
    storage: Storage,
    embedder: Embedder | None,
    approve_cost: Callable[[Estimate], bool] | None = None,
    progress: Progress | None = None,
) -> ReindexReport:
    """Embed every picture again, into an index beside the one in use, and switch when both are equal but for vectors.

    Searches and writes go on meanwhile. A killed run is continued by the next. Objects that hold the old index open can
    read it on, and are refused when they write.

    Args:
        knowledge_base: Whose indexes these are.
        indexes: Where they are.
        storage: Has the pictures, for an embedder of pictures.
        embedder: The new one; None makes an index that is searched by words only.
        approve_cost: Is shown the price before anything is sent, and says whether it may; needed unless it is 0.
        progress: Called for each picture of the first pass.

    Raises:
        UsageError: It would cost something, and that was not approved; or another reindexing runs.
        BackendError: The embedder or an index failed; the old index serves on, and a new run continues.
    """
    space = embedder.space if embedder else None
    with indexes.claim():
        old = indexes.active()
        try:
            if old.space == space:
                return ReindexReport(
                    knowledge_base=knowledge_base,
                    before=old.space,
                    after=space,
                    pictures=old.count(),
                    embedded=0,
                    switched=False,
                )
            new = indexes.beside(space)
            try:
                copy = _Copy(knowledge_base, old=old, new=new, storage=storage, embedder=embedder)
                _approve(copy.estimate(), approve_cost)
                for look in range(_LOOKS):
                    if copy.bring_level(progress if look == 0 else None) == 0:
                        break
                indexes.switch(old, copy.finish)
                return ReindexReport(
                    knowledge_base=knowledge_base,
                    before=old.space,
                    after=space,
                    pictures=new.count(),
                    embedded=copy.embedded,
                    switched=True,
                )
            finally:
                new.close()
        finally:
            old.close()


def reindex_estimate(knowledge_base: str, *, indexes: Indexes, storage: Storage, embedder: Embedder | None) -> Estimate:
    """What `reindex` would cost now, without what an earlier try has paid; nothing is sent."""
    with indexes.claim():
        old, new = indexes.active(), indexes.beside(embedder.space if embedder else None)
        try:
            return _Copy(knowledge_base, old=old, new=new, storage=storage, embedder=embedder).estimate()
        finally:
            new.close()
            old.close()


def _approve(estimate: Estimate, approve_cost: Callable[[Estimate], bool] | None) -> None:
    if estimate.usd_micros == 0:
        return
    price = "a price that is not known" if estimate.usd_micros is None else f"{estimate.usd_micros / 1e6:.2f} USD"
    if approve_cost is None or not approve_cost(estimate):
        raise UsageError(f"Reindexing would cost {price}, and nobody approved that; nothing was sent.")


@define(kw_only=True)
class _Wanted:
    row: VectorRecord
    held: VectorRecord | None
    item: Item | None
    """What is to be embedded; None where there is nothing to embed, or the vector is there."""


class _Copy:
    """Makes `new` say what `old` says, with vectors of another embedder."""

    def __init__(
        self, name: str, *, old: VectorStore, new: VectorStore, storage: Storage, embedder: Embedder | None
    ) -> None:
        self._name = name
        self._old = old
        self._new = new
        self._storage = storage
        self._embedder = embedder
        self._embeddings = None if embedder is None else Embeddings(embedder, storage)
        self.embedded = 0

    def estimate(self) -> Estimate:
        """What is left to pay."""
        total: int | None = 0
        basis = "nothing to embed"
        for batch in self._batches():
            asked = [(wanted.row.key[-64:], wanted.item) for wanted in batch if wanted.item is not None]
            if self._embedder is None or self._embeddings is None:
                continue
            items = [item for sha256, item in asked if self._embeddings.known(sha256, item) is None]
            if items:
                found = self._embedder.estimate(items)
                total = None if total is None or found.usd_micros is None else total + found.usd_micros
                basis = found.basis
        return Estimate(usd_micros=total, basis=basis)

    def bring_level(self, progress: Progress | None) -> int:
        """One pass over both; how many rows it had to change."""
        changed, done = 0, 0
        total = self._old.count() if progress else None
        for batch in self._batches():
            vectors = self._vectors(batch)
            rows = [evolve(wanted.row, vector=vectors[wanted.row.key]) for wanted in batch]
            late = [row for row, wanted in zip(rows, batch, strict=True) if row != wanted.held]
            if late:
                self._new.upsert(late)
            changed += len(late)
            for wanted in batch:
                done += 1
                if progress is not None:
                    progress(done, total, asset_of(wanted.row).file_name)
        for keys in _batched(row.key for row in self._new.scan()):
            there = {row.key for row in self._old.get(keys)}
            gone = [key for key in keys if key not in there]
            if gone:
                changed += self._new.delete(gone).count
        return changed

    def finish(self) -> None:
        """The pass after which both are equal, because nobody writes meanwhile."""
        self.bring_level(None)

    def _batches(self) -> Iterator[list[_Wanted]]:
        ours = (row for row in self._old.scan() if row.key.startswith(f"{self._name}/"))
        for rows in _batched(ours):
            held = {row.key: row for row in self._new.get([row.key for row in rows])}
            yield [self._wanted(row, held.get(row.key)) for row in rows]

    def _wanted(self, row: VectorRecord, held: VectorRecord | None) -> _Wanted:
        asset = asset_of(row)
        item = _item(asset, self._embedder)
        if held is not None and held.vector is not None and item == _item(asset_of(held), self._embedder):
            item = None
        return _Wanted(row=row, held=held, item=item)

    def _vectors(self, batch: Sequence[_Wanted]) -> dict[str, Vector]:
        vectors: dict[str, Vector] = {}
        for wanted in batch:
            same = wanted.held is not None and _item(asset_of(wanted.row), self._embedder) is not None
            vectors[wanted.row.key] = wanted.held.vector if same and wanted.held is not None else None
        asked = [(wanted.row.key, wanted.item) for wanted in batch if wanted.item is not None]
        if asked and self._embeddings is not None:
            vectors |= {key: self._embeddings.known(key[-64:], item) for key, item in asked}
            new = [(key[-64:], item) for key, item in asked if vectors[key] is None]
            made = iter(self._embeddings.bought(new, self._storage.open))
            vectors |= {key: next(made) for key, _ in asked if vectors[key] is None}
            self.embedded += len(new)
        return vectors


def _item(asset: Asset, embedder: Embedder | None) -> Item | None:
    """What is embedded of a picture: its pixels where the embedder sees, else its caption; nothing of an erased one."""
    if embedder is None or asset.erased_at is not None:
        return None
    if "image" in embedder.modalities:
        return Item(kind="image", media=asset.original)
    return None if asset.caption is None else Item(kind="text", text=asset.caption)


def _batched(rows: Iterable[RowT]) -> Iterator[list[RowT]]:
    found = iter(rows)
    while batch := list(islice(found, _BATCH)):
        yield batch
