"""Ingest: pictures from a source into a knowledge base, in chunks, each step of a chunk after the one before.

```text
read → draft (same bytes known? decode, caption) → keep the bytes → embed → review → index → acknowledge
```

A picture is identified by the digest of its bytes, so running again does only what is left to do, and a killed run is
continued by the next. A picture is acknowledged (progress, report) only after the index has it, and the index gets it
only after its bytes are stored. Memory is bounded by one chunk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sized
from io import BytesIO
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import define, evolve

from vrag.clock import Clock, rfc3339
from vrag.errors import FormatVersionError, ImageRejectedError, ProvenanceError, UsageError
from vrag.interfaces import Embedder, Storage, VectorStore
from vrag.knowledge.captions import caption_of, clean_text
from vrag.knowledge.report import Duplicate, IngestReport
from vrag.knowledge.review import Reviews
from vrag.knowledge.sources import NotTaken, Source, SourcePicture
from vrag.media.header import ImageLimits
from vrag.media.image import load_image
from vrag.media.names import shown
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.assets import Asset, CaptionSource, ReviewState, Rights, asset_id
from vrag.values.canonical import canonical_json, from_json
from vrag.values.vectors import Item, VectorRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | None
else:
    Vector = Any

__all__ = ["Ingest", "Progress", "asset_of", "record_of"]

Progress = Callable[[int, int | None, str], None]
"""Called with pictures done, pictures in all (None where the source does not know) and the name of the one just done."""

CHUNK_PICTURES: Final = 64
CHUNK_BYTES: Final = 32 << 20
"""A chunk is closed at this many encoded bytes: so much is in memory at once, plus one picture."""
_DRAFT_PX: Final = (256, 256)
"""Decoding for proof only: JPEG may decode smaller, every format reads all of its data."""
_BETTER_FIRST: Final = tuple(CaptionSource)


@define(kw_only=True)
class _Draft:
    """A picture of the chunk that differs from what the index has."""

    asset: Asset
    before: VectorRecord | None
    data: bytes | None
    """The bytes, if they are not stored yet."""


@define(kw_only=True)
class _Read:
    picture: SourcePicture
    name: str
    data: bytes


class Ingest:
    """One run over one source. `KnowledgeBase.ingest` makes it."""

    def __init__(
        self,
        knowledge_base: str,
        *,
        store: VectorStore,
        storage: Storage,
        embedder: Embedder | None,
        reviews: Reviews,
        clock: Clock,
        limits: ImageLimits,
        approve_by: str | None = None,
        progress: Progress | None = None,
        writing: RLock | None = None,
    ) -> None:
        """`writing` is held while rows are read and written back, so that a review in between is not undone."""
        if approve_by is not None and not approve_by.strip():
            raise UsageError("Approving needs the name of who approves.", hint='add --by "NAME"')
        self._knowledge_base = knowledge_base
        self._store = store
        self._storage = storage
        self._embedder = embedder
        self._kind: Literal["image", "text"] = "image" if embedder and "image" in embedder.modalities else "text"
        self._reviews = reviews
        self._clock = clock
        self._limits = limits
        self._approve_by = approve_by
        self._progress = progress
        self._writing = writing or RLock()
        self._total: int | None = None
        self._done = 0
        self._counts = {"new": 0, "unchanged": 0, "updated": 0, "approved": 0}
        self._uncaptioned: dict[str, str] = {}
        self._first_names: dict[str, str] = {}
        self._duplicates: list[Duplicate] = []
        self._rejected: list[NotTaken] = []
        self._skipped: list[NotTaken] = []

    def run(self, source: Source) -> IngestReport:
        """Take in every picture of `source`; a bad one is reported and never stops the others."""
        self._total = len(source) if isinstance(source, Sized) else None
        for chunk in self._chunks(source):
            self._take(chunk)
        return IngestReport(
            knowledge_base=self._knowledge_base,
            **self._counts,
            uncaptioned=len(self._uncaptioned),
            uncaptioned_examples=tuple(list(self._uncaptioned.values())[:10]),
            duplicates=tuple(self._duplicates),
            rejected=tuple(self._rejected),
            skipped=tuple(self._skipped),
        )

    def _chunks(self, source: Source) -> Iterator[list[_Read]]:
        chunk: list[_Read] = []
        size_bytes = 0
        for entry in source:
            if isinstance(entry, NotTaken):
                self._leave(entry)
                continue
            name = shown(entry.name)
            try:
                with entry.open() as stream:
                    # One byte more than allowed, so that the one check of the size sees it.
                    data = stream.read(self._limits.max_bytes + 1)
            except OSError as error:
                why = error.strerror or str(error)
                self._leave(NotTaken(name=name, code="unreadable", reason=f"It cannot be read: {shown(why)}."))
                continue
            chunk.append(_Read(picture=entry, name=name, data=data))
            size_bytes += len(data)
            if len(chunk) >= CHUNK_PICTURES or size_bytes >= CHUNK_BYTES:
                yield chunk
                chunk, size_bytes = [], 0
        if chunk:
            yield chunk

    def _take(self, chunk: list[_Read]) -> None:
        keys = [asset_id(self._knowledge_base, sha256_hex(read.data)) for read in chunk]
        known = {record.key: record for record in self._store.get(list(dict.fromkeys(keys)))}
        assets = {key: asset_of(record) for key, record in known.items()}
        drafts: dict[str, _Draft] = {}
        names: list[str] = []
        for key, read in zip(keys, chunk, strict=True):
            first = self._first_names.get(key)
            try:
                asset = self._drafted(key, read, assets.get(key), fill_only=first is not None)
            except ImageRejectedError as error:
                self._leave(NotTaken(name=read.name, code=error.code, reason=error.message))
                continue
            except UsageError as error:  # metadata without canonical JSON, a day that is no day
                self._leave(NotTaken(name=read.name, code="bad_metadata", reason=error.message))
                continue
            names.append(read.name)
            if asset != assets.get(key):
                assets[key] = asset
                drafts[key] = _Draft(asset=asset, before=known.get(key), data=None if key in known else read.data)
            if first is not None:
                self._duplicates.append(Duplicate(name=read.name, same_as=first))
            else:
                self._first_names[key] = read.name
                self._counts["new" if key not in known else "updated" if key in drafts else "unchanged"] += 1
            if asset.caption is None:
                self._uncaptioned[key] = read.name
            else:
                self._uncaptioned.pop(key, None)
        for draft in drafts.values():
            if draft.data is not None:
                self._storage.put(BytesIO(draft.data), draft.asset.original.media_type)
        vectors = self._embedded(drafts)
        with self._writing:
            self._index(drafts, assets, vectors)
        for name in names:
            self._acknowledge(name)

    def _drafted(self, key: str, read: _Read, before: Asset | None, *, fill_only: bool) -> Asset:
        """The asset as it should be: what the source states replaces, what it does not state stays."""
        picture, data = read.picture, read.data
        if before is None:
            loaded = load_image(data, read.name, limits=self._limits, draft_px=_DRAFT_PX)
            original = MediaRef(
                sha256=key[-64:],
                media_type=loaded.media_type,
                size_bytes=len(data),
                width_px=loaded.width_px,
                height_px=loaded.height_px,
            )
            now = rfc3339(self._clock.now())
            before = Asset(
                id=key,
                knowledge_base=self._knowledge_base,
                original=original,
                file_name=_last_part(read.name),
                ingested_at=now,
                notes=tuple(loaded.notes),
            )
        changes: dict[str, Any] = {}
        found = caption_of(picture.name, data, picture.caption, picture.caption_source)
        if found and _may_replace(found[1], before.caption_source, fill_only=fill_only):
            changes["caption"], changes["caption_source"] = found
        stated = {
            "tags": None
            if picture.tags is None
            else tuple(dict.fromkeys(tag for t in picture.tags if (tag := clean_text(t)))),
            "rights": picture.rights,
            "metadata": picture.metadata,
        }
        empty = {"tags": (), "rights": Rights(), "metadata": {}}
        changes |= {
            name: value
            for name, value in stated.items()
            if value is not None and (not fill_only or getattr(before, name) == empty[name])
        }
        if not fill_only:
            changes["file_name"] = _last_part(read.name)
        asset = evolve(before, **changes)
        canonical_json(asset)  # refuses what could not be stored, before anything is
        return asset

    def _embedded(self, drafts: Mapping[str, _Draft]) -> dict[str, Vector]:
        """A vector for each draft, embedding only what the change touches, in one call."""
        vectors: dict[str, Vector] = {
            key: draft.before.vector if draft.before else None for key, draft in drafts.items()
        }
        items: dict[str, Item] = {}
        for key, draft in drafts.items():
            if self._embedder is None:
                continue
            if self._kind == "image":
                if vectors[key] is None:
                    items[key] = Item(kind="image", media=draft.asset.original)
            elif draft.asset.caption is None:
                vectors[key] = None
            elif vectors[key] is None or draft.before is None or asset_of(draft.before).caption != draft.asset.caption:
                items[key] = Item(kind="text", text=draft.asset.caption)
        if items and self._embedder is not None:
            rows = self._embedder.embed(list(items.values()), "index", self._storage.open)
            vectors.update(zip(items, rows, strict=True))
        return vectors

    def _index(self, drafts: Mapping[str, _Draft], assets: Mapping[str, Asset], vectors: Mapping[str, Vector]) -> None:
        """Review where asked, then write what changed: once this returns, the pictures cannot be lost."""
        known = {record.key: record for record in self._store.get(list(assets))}
        rows: list[VectorRecord] = []
        for key, asset in assets.items():
            before = known.get(key)
            state = self._review(asset, before)
            if key in drafts:
                rows.append(record_of(asset, vectors[key], state))
            elif before is not None and before.fields.get("review") != state:
                rows.append(evolve(before, fields={**before.fields, "review": state}))
        if rows:
            self._store.upsert(rows)

    def _review(self, asset: Asset, before: VectorRecord | None) -> str:
        """The state for the index, after approving where that was asked and nobody has decided yet."""
        if self._approve_by is None and before is not None:
            return str(before.fields.get("review", ReviewState.PROPOSED))
        try:
            held = self._reviews.latest(asset)
        except (ProvenanceError, FormatVersionError):
            return ReviewState.PROPOSED  # the gate says what is wrong with them, when the picture is wanted
        if self._approve_by is not None and held.state is ReviewState.PROPOSED:
            held = self._reviews.add(
                asset, ReviewState.APPROVED, by=self._approve_by, reason="approved with its ingest"
            )
            self._counts["approved"] += 1
        return held.state

    def _leave(self, entry: NotTaken) -> None:
        if entry.skipped:
            self._skipped.append(entry)
        else:
            self._rejected.append(entry)
            self._acknowledge(entry.name)

    def _acknowledge(self, name: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total, name)


def _may_replace(found: CaptionSource, held: CaptionSource | None, *, fill_only: bool) -> bool:
    """A caption gives way to one from as good a source or a better one; beside a duplicate only to a better one."""
    if held is None:
        return True
    found_rank, held_rank = _BETTER_FIRST.index(found), _BETTER_FIRST.index(held)
    return found_rank < held_rank if fill_only else found_rank <= held_rank


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or name


def record_of(asset: Asset, vector: Vector, review: str) -> VectorRecord:
    """The row of an asset in the index."""
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
    }
    return VectorRecord(
        key=asset.id,
        vector=vector,
        text="" if asset.caption is None else "\n".join((asset.caption, *asset.tags)),
        fields={name: value for name, value in fields.items() if value is not None},
        payload=canonical_json(asset).decode(),
    )


def asset_of(record: VectorRecord) -> Asset:
    """The asset of a row that `record_of` made.

    Raises:
        UsageError: It was written by something else, or by a newer release.
    """
    return from_json(Asset, json.loads(record.payload))
