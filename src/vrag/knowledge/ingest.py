"""Ingest: pictures from a source into a knowledge base, as steps that overlap, each only so far ahead of the next.

```text
read → draft (same bytes known? decode, look-alikes) → caption → embed → keep the bytes → review → index → acknowledge
```

A picture is identified by the digest of its bytes, so running again does only what is left to do, and a killed run is
continued by the next. A picture is acknowledged (progress, report) only after the index has it, and the index gets it
only after its bytes are stored. Pictures travel in chunks, in the order of the source. The encoded bytes under way and
the pixels being decoded are capped, so memory does not grow with the source.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from io import BytesIO
from threading import RLock
from typing import BinaryIO, Final, Literal

from attrs import evolve

from vrag.clock import Clock, rfc3339
from vrag.errors import FormatVersionError, ImageRejectedError, ProvenanceError, UsageError
from vrag.interfaces import Captioner, Embedder, Storage, VectorStore
from vrag.knowledge.captioning import Captions, Spoken
from vrag.knowledge.captions import caption_of
from vrag.knowledge.duplicates import Looks, Seen
from vrag.knowledge.embedded import embedded_text
from vrag.knowledge.estimates import Estimating
from vrag.knowledge.report import IngestEstimate, IngestReport, NearDuplicate
from vrag.knowledge.review import Reviews
from vrag.knowledge.rows import Vector, asset_of, record_of, sources_of
from vrag.knowledge.sources import NotTaken, Source, SourcePicture
from vrag.knowledge.stages import Calls, Room, Stages
from vrag.knowledge.tally import Tally
from vrag.knowledge.travelling import Chunk, Picture, last_part, merged
from vrag.media.fingerprint import fingerprint
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import load_image
from vrag.media.names import shown
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.assets import Asset, CaptionSource, ReviewState, asset_id
from vrag.values.canonical import canonical_json
from vrag.values.vectors import Is, Item, VectorRecord

__all__ = ["ApproveCost", "Ingest", "Progress", "asset_of", "record_of"]

Progress = Callable[[int, int | None, str], None]
"""Called with pictures done, pictures in all (None where the source does not know) and the name of the one just done.

`vrag.knowledge.report.paced` adds the rate and the time left.
"""
ApproveCost = Callable[[IngestEstimate], bool]
"""Is shown what an ingest would cost, and says whether it may."""

CHUNK_PICTURES: Final = 64
CHUNK_BYTES: Final = 8 << 20
"""A chunk is closed at this many encoded bytes."""
BYTES_UNDER_WAY: Final = 128 << 20
"""So many encoded bytes are in memory at once, plus those that the readers hold."""
PIXELS_AT_ONCE: Final = 100_000_000
"""So many pixels are decoded at once."""
_READERS: Final = 4
_DECODERS: Final = min(4, os.cpu_count() or 1)
_CAPTION_CHUNKS: Final = 8
"""So many chunks wait for captions together, so that a slow picture does not hold up those behind its chunk."""
_DRAFT_PX: Final = (256, 256)
"""Decoding for proof only: JPEG may decode smaller, every format reads all of its data."""
_WEAK: Final = frozenset({None, CaptionSource.FILE_NAME})
"""Captions that a captioner's replaces."""


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
        captioner: Captioner | None = None,
        approve_by: str | None = None,
        near_duplicates: Literal["report", "fold"] = "report",
        prune: bool = False,
        in_flight: int = 32,
        progress: Progress | None = None,
        writing: RLock | None = None,
    ) -> None:
        """`writing` is held while rows are read and written back, so that a review in between is not undone."""
        if approve_by is not None and not approve_by.strip():
            raise UsageError("Approving needs the name of who approves.", hint='add --by "NAME"')
        if near_duplicates not in {"report", "fold"}:
            raise UsageError(f"Near-duplicates are 'report'ed or 'fold'ed, not '{near_duplicates}'.")
        if in_flight < 1:
            raise UsageError(f"At least 1 call is in flight, not {in_flight}.")
        self._knowledge_base = knowledge_base
        self._store = store
        self._storage = storage
        self._embedder = embedder
        self._kind: Literal["image", "text"] = "image" if embedder and "image" in embedder.modalities else "text"
        self._captions = None if captioner is None else Captions(captioner, storage)
        self._estimating = Estimating(embedder, self._kind, self._captions)
        self._reviews = reviews
        self._clock = clock
        self._limits = limits
        self._approve_by = approve_by
        self._fold = near_duplicates == "fold"
        self._prune = prune
        self._in_flight = in_flight
        self._progress = progress
        self._writing = writing or RLock()
        self._source_id: str | None = None
        self._bytes = Room(BYTES_UNDER_WAY)
        self._pixels = Room(PIXELS_AT_ONCE)
        self._calls = Calls(in_flight)
        self._decoding = Calls(_DECODERS)
        self._seen = Seen()
        self._looks: Looks | None = None
        self._tally = Tally(knowledge_base)

    def run(self, source: Source, *, approve_cost: ApproveCost | None = None) -> IngestReport:
        """Take in every picture of `source`; a bad one is reported and never stops the others.

        Raises:
            UsageError: It would cost something, and nobody approved.
        """
        try:
            if self._estimating.is_paid:
                self._ask(source, approve_cost)
            self._source_id = getattr(source, "source_id", None)
            total = len(source) if isinstance(source, Sized) else None
            with Stages() as stages:
                try:
                    chunks: Iterable[Chunk] = self._chunks(stages.stage(self._read, source, workers=_READERS, ahead=0))
                    chunks = stages.stage(self._draft, chunks)
                    if self._captions is not None:
                        chunks = stages.stage(self._caption, chunks, workers=_CAPTION_CHUNKS, ahead=0)
                    for chunk in stages.stage(self._embed, chunks, ahead=0):
                        self._finish(chunk, total)
                        self._bytes.give(chunk.size_bytes)
                finally:
                    self._stop()  # first, so that no stage waits for a call or for room
            self._look_for_vanished()
            return self._tally.report(self._seen)
        finally:
            self._stop()
            self._forget()

    def estimate(self, source: Source) -> IngestEstimate:
        """What `run` would do and cost. Every picture is read, none is decoded, and nothing is sent."""
        try:
            for chunk in self._chunks(map(self._read, source)):
                self._prepare(chunk, self._glanced)
                self._estimating.add(chunk)
                self._bytes.give(chunk.size_bytes)
        finally:
            self._stop()
            self._forget()
        return self._estimating.result()

    def _stop(self) -> None:
        """Let nobody wait any longer, and end every call; twice is fine."""
        self._bytes.close()
        self._calls.close()
        self._decoding.close()

    def _forget(self) -> None:
        """Remove the temporary files."""
        self._seen.close()
        if self._looks is not None:
            self._looks.close()

    def _ask(self, source: Source, approve_cost: ApproveCost | None) -> None:
        if isinstance(source, Iterator):
            raise UsageError(
                "An ingest that costs something is estimated first, and this source can be read only once.",
                hint="give a list, a folder or a manifest",
            )
        estimate = Ingest(
            self._knowledge_base,
            store=self._store,
            storage=self._storage,
            embedder=self._embedder,
            reviews=self._reviews,
            clock=self._clock,
            limits=self._limits,
            captioner=None if self._captions is None else self._captions.captioner,
        ).estimate(source)
        if estimate.usd_micros == 0 and not estimate.captions and not estimate.embeddings:
            return
        if approve_cost is None:
            raise UsageError(
                f"This ingest costs something and was not approved. {estimate}.",
                hint="give approve_cost=, a function that is shown the estimate and answers True",
            )
        if not approve_cost(estimate):
            raise UsageError(f"The cost of this ingest was not approved; nothing was sent. {estimate}.")

    # -- read

    def _read(self, entry: SourcePicture | NotTaken) -> Picture | NotTaken:
        if isinstance(entry, NotTaken):
            return entry
        name = shown(entry.name)
        try:
            with entry.open() as stream:
                size_bytes = _size_of(stream)
                # One byte more than allowed, so that the one check of the size sees it.
                data = stream.read(self._limits.max_bytes + 1) if size_bytes <= self._limits.max_bytes else b""
        except OSError as error:
            why = error.strerror or str(error)
            return NotTaken(name=name, code="unreadable", reason=f"It cannot be read: {shown(why)}.")
        if (size_bytes := max(size_bytes, len(data))) > self._limits.max_bytes:
            mib, allowed = size_bytes / (1 << 20), self._limits.max_bytes / (1 << 20)
            return NotTaken(name=name, code="too_large", reason=f"'{name}' has {mib:.1f} MiB; {allowed:g} are allowed.")
        embedded = embedded_text(data)
        return Picture(
            name=name,
            key=asset_id(self._knowledge_base, sha256_hex(data)),
            source=entry,
            data=data,
            embedded=embedded,
            found=caption_of(entry.name, data, entry.caption, entry.caption_source, embedded=embedded),
        )

    def _chunks(self, entries: Iterable[Picture | NotTaken]) -> Iterator[Chunk]:
        chunk = Chunk()
        for entry in entries:
            size_bytes = len(entry.data or b"") if isinstance(entry, Picture) else 0
            if chunk.entries and chunk.size_bytes + size_bytes > CHUNK_BYTES:
                yield chunk
                chunk = Chunk()
            self._bytes.take(size_bytes)
            chunk.size_bytes += size_bytes
            chunk.entries.append(entry)
            if len(chunk.entries) >= CHUNK_PICTURES:
                yield chunk
                chunk = Chunk()
        if chunk.entries:
            yield chunk

    # -- draft: one chunk after the other, because what came before decides

    def _draft(self, chunk: Chunk) -> Chunk:
        self._prepare(chunk, self._decoded)
        return chunk

    def _prepare(self, chunk: Chunk, make: Callable[[Picture], Picture | NotTaken]) -> None:
        """Give every picture the asset it starts from, and replace the entries of those that are not taken."""
        chunk.known = {row.key: row for row in self._store.get(list(dict.fromkeys(p.key for p in chunk.pictures)))}
        assets = {key: asset_of(row) for key, row in chunk.known.items()}
        made = iter(self._decoding.map(make, [p for p in chunk.pictures if p.key not in assets]))
        entries, chunk.entries = chunk.entries, []
        for entry in entries:
            judged: Picture | NotTaken | NearDuplicate = entry
            if isinstance(entry, Picture):
                if entry.key in assets:
                    entry.base, entry.data = assets[entry.key], None
                else:
                    judged = next(made)
            chunk.entries.append(self._judged(judged) if isinstance(judged, Picture) else judged)

    def _judged(self, picture: Picture) -> Picture | NotTaken | NearDuplicate:
        if (erased_at := picture.start.erased_at) is not None:
            reason = f"Its bytes were deleted by decision at {erased_at}; they are not taken again."
            return NotTaken(name=picture.name, code="erased", reason=reason, skipped=True)
        picture.first = self._seen.first_name(picture.key)
        try:
            canonical_json(merged(picture.start, picture, None))  # refuses what could not be stored, before anything is
        except UsageError as error:  # metadata without canonical JSON, a day that is no day
            return NotTaken(name=picture.name, code="bad_metadata", reason=error.message)
        if picture.first is not None:
            picture.data = None
            return picture
        if picture.data is not None and picture.fingerprint is not None:
            if self._looks is None:
                self._looks = _looks_of(self._store)
            sha256 = picture.key[-64:]
            if (near := self._looks.nearest(picture.fingerprint, sha256)) is not None:
                picture.near = NearDuplicate(
                    name=picture.name, like=near[0], like_id=asset_id(self._knowledge_base, near[0]), bits=near[1]
                )
                if self._fold:
                    return evolve(picture.near, folded=True)
            self._looks.add(picture.fingerprint, sha256)
        self._seen.add(picture.key, picture.name)
        return picture

    def _decoded(self, picture: Picture) -> Picture | NotTaken:
        """A picture with the asset that it would be, after its pixels were decoded once as proof."""
        data = picture.data or b""
        try:
            opened = open_image(data, picture.name, self._limits)
            pixels = opened.width_px * opened.height_px
            self._pixels.take(pixels)
            try:
                loaded = load_image(data, picture.name, limits=self._limits, draft_px=_DRAFT_PX)
                picture.fingerprint = fingerprint(loaded.pixels)
            finally:
                self._pixels.give(pixels)
        except ImageRejectedError as error:
            return NotTaken(name=picture.name, code=error.code, reason=error.message)
        picture.base = self._fresh(picture, loaded.media_type, (loaded.width_px, loaded.height_px), loaded.notes)
        return picture

    def _glanced(self, picture: Picture) -> Picture | NotTaken:
        """As `_decoded`, from the header alone."""
        try:
            opened = open_image(picture.data or b"", picture.name, self._limits)
        except ImageRejectedError as error:
            return NotTaken(name=picture.name, code=error.code, reason=error.message)
        picture.base = self._fresh(picture, opened.media_type, (opened.width_px, opened.height_px), ())
        return picture

    def _fresh(self, picture: Picture, media_type: str, size_px: tuple[int, int], notes: Sequence[str]) -> Asset:
        original = MediaRef(
            sha256=picture.key[-64:],
            media_type=media_type,
            size_bytes=len(picture.data or b""),
            width_px=size_px[0],
            height_px=size_px[1],
        )
        return Asset(
            id=picture.key,
            knowledge_base=self._knowledge_base,
            original=original,
            file_name=last_part(picture.name),
            ingested_at=rfc3339(self._clock.now()),
            notes=tuple(notes),
        )

    # -- caption and embed

    def _caption(self, chunk: Chunk) -> Chunk:
        captions = self._captions
        if captions is None:
            return chunk
        weak = [
            asset
            for asset in chunk.assets().values()
            if asset.caption_source in _WEAK and asset.erased_at is None and chunk.leads(asset.id)
        ]
        media = self._media(chunk)

        def said(asset: Asset) -> Spoken:
            return captions.of(asset.original, media)

        spoken = self._calls.map(said, weak)
        chunk.said = {asset.id: one for asset, one in zip(weak, spoken, strict=True)}
        return chunk

    def _embed(self, chunk: Chunk) -> Chunk:
        """Vectors for what the chunk will probably need; `_finish` sees what it really does."""
        wanted = {key: asset for key, asset in chunk.assets().items() if chunk.leads(key) or key in chunk.known}
        chunk.vectors = self._vectors(chunk, wanted, chunk.known, {})
        return chunk

    def _vectors(
        self,
        chunk: Chunk,
        assets: Mapping[str, Asset],
        rows: Mapping[str, VectorRecord],
        ready: Mapping[str, tuple[str | None, Vector]],
    ) -> dict[str, tuple[str | None, Vector]]:
        """Caption and vector of each asset, embedding only what neither its row nor `ready` has."""
        found: dict[str, tuple[str | None, Vector]] = {}
        items: dict[str, Item] = {}
        for key, asset in assets.items():
            caption = asset.caption if self._kind == "text" else None
            row = rows.get(key)
            if self._embedder is None or (self._kind == "text" and caption is None):
                found[key] = (caption, None)
            elif (
                row is not None
                and row.vector is not None
                and (self._kind == "image" or asset_of(row).caption == caption)
            ):
                found[key] = (caption, row.vector)
            elif key in ready and ready[key][0] == caption and ready[key][1] is not None:
                found[key] = ready[key]
            else:
                found[key] = (caption, None)
                items[key] = self._estimating.item(asset)
        embedder = self._embedder
        if items and embedder is not None:
            media = self._media(chunk)
            if self._estimating.embeds_alone:
                # Paid, so in all likelihood far away: many calls at once, and a kill loses few that were paid.
                alone = self._calls.map(
                    lambda item: embedder.embed([item], "index", media)[0], list(items.values()), urgency=1
                )
                rows_made: Iterable[Vector] = alone
            else:
                rows_made = embedder.embed(list(items.values()), "index", media)
            found |= {key: (found[key][0], made) for key, made in zip(items, rows_made, strict=True)}
        return found

    def _media(self, chunk: Chunk) -> Callable[[MediaRef], BinaryIO]:
        """Opens pictures of a chunk, of which not all are stored yet."""
        held = {p.key[-64:]: p.data for p in chunk.pictures if p.data is not None}
        return lambda ref: BytesIO(held[ref.sha256]) if ref.sha256 in held else self._storage.open(ref)

    # -- keep, review, index, acknowledge

    def _finish(self, chunk: Chunk, total: int | None) -> None:
        fresh = [picture for picture in chunk.pictures if picture.data is not None]
        self._calls.map(
            lambda p: self._storage.put(BytesIO(p.data or b""), p.start.original.media_type), fresh, urgency=2
        )
        with self._writing:
            # What holds is read again: a review, or another ingest, may have come in between.
            keys = list(dict.fromkeys(picture.key for picture in chunk.pictures))
            rows = {row.key: row for row in self._store.get(keys)}
            before = {key: asset_of(row) for key, row in rows.items()}
            assets = chunk.assets(before)
            self._index(chunk, assets, before, rows)
        likes = {p.near.like_id for p in chunk.pictures if p.near} | {
            entry.like_id for entry in chunk.entries if isinstance(entry, NearDuplicate)
        }
        names = {row.key: asset_of(row).file_name for row in self._store.get(sorted(likes))} if likes else {}
        for entry in chunk.entries:
            counted = self._tally.count(entry, chunk, assets, before, rows, names, self._source_id)
            if isinstance(entry, Picture):
                self._seen.mark(entry.key, uncaptioned=assets[entry.key].caption is None)
            if counted and self._progress is not None:
                self._progress(self._tally.done, total, entry.name)

    def _index(
        self,
        chunk: Chunk,
        assets: Mapping[str, Asset],
        before: Mapping[str, Asset],
        rows: Mapping[str, VectorRecord],
    ) -> None:
        """Review where asked, then write what changed: once this returns, the pictures cannot be lost."""
        changed = {key: asset for key, asset in assets.items() if asset != before.get(key)}
        vectors = self._vectors(chunk, changed, rows, chunk.vectors)
        reviewed = self._calls.map(lambda key: self._review(assets[key], rows.get(key)), list(assets), urgency=2)
        states = {key: state for key, (state, _) in zip(assets, reviewed, strict=True)}
        self._tally.approved += sum(added for _, added in reviewed)
        looks = {p.key: p.fingerprint for p in chunk.pictures if p.fingerprint is not None}
        writes: list[VectorRecord] = []
        for key, asset in assets.items():
            row = rows.get(key)
            if row is None or key in changed:
                sources, look = sources_of(row), looks.get(key)
                if row is not None:
                    look = str(row.fields["fingerprint"]) if "fingerprint" in row.fields else look
                vector = vectors[key][1]
                made = record_of(asset, vector, states[key], fingerprint=look, sources=sources)
            else:
                made = row
            fields = {**made.fields, "review": states[key]}
            if self._source_id is not None and self._source_id not in sources_of(made):
                fields["source"] = (*sources_of(made), self._source_id)
            if made is not row or fields != dict(made.fields):
                writes.append(evolve(made, fields=fields))
        if writes:
            self._store.upsert(writes)

    def _review(self, asset: Asset, before: VectorRecord | None) -> tuple[str, bool]:
        """The state for the index, after approving where that was asked and nobody has decided yet."""
        if self._approve_by is None and before is not None:
            return str(before.fields.get("review", ReviewState.PROPOSED)), False
        try:
            held = self._reviews.latest(asset)
        except (ProvenanceError, FormatVersionError):
            return ReviewState.PROPOSED, False  # the gate says what is wrong with them, when the picture is wanted
        if self._approve_by is None or held.state is not ReviewState.PROPOSED:
            return held.state, False
        held = self._reviews.add(asset, ReviewState.APPROVED, by=self._approve_by, reason="approved with its ingest")
        return held.state, True

    def _look_for_vanished(self) -> None:
        """Report what the index has of this source and the source has no more; with `prune` take it out."""
        source = self._source_id
        # Counting is cheap, and usually the answer: all that is there was seen.
        if source is None or self._store.count(Is(field="source", value=source)) <= self._tally.taken:
            return
        gone = [row for row in self._store.scan(Is(field="source", value=source)) if row.key not in self._seen]
        prune = self._prune and self._tally.is_complete
        if prune:
            with self._writing:
                elsewhere = [row for row in gone if len(sources_of(row)) > 1]
                for row in elsewhere:
                    kept = tuple(one for one in sources_of(row) if one != source)
                    self._store.upsert([evolve(row, fields={**row.fields, "source": kept})])
                self._store.delete([row.key for row in gone if len(sources_of(row)) <= 1])
        self._tally.vanished(map(asset_of, gone), pruned=prune, asked=self._prune)


def _size_of(stream: BinaryIO) -> int:
    """How long it is, where it can tell; nothing of it is read."""
    if not stream.seekable():
        return 0
    size_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return size_bytes


def _looks_of(store: VectorStore) -> Looks:
    looks = Looks()
    for row in store.scan():
        if isinstance(look := row.fields.get("fingerprint"), str):
            looks.add(look, row.key[-64:])
    return looks
