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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from io import BytesIO
from threading import RLock
from typing import BinaryIO, Final, Literal

from attrs import evolve

from vrag.clock import Clock
from vrag.errors import FormatVersionError, ProvenanceError, UsageError
from vrag.interfaces import Captioner, Embedder, Storage, VectorStore
from vrag.knowledge.captioning import Captions, Spoken
from vrag.knowledge.drafting import CHUNK_PICTURES, Drafting
from vrag.knowledge.embeddings import Embeddings
from vrag.knowledge.estimates import Estimating
from vrag.knowledge.report import IngestEstimate, IngestReport, NearDuplicate
from vrag.knowledge.review import Reviews
from vrag.knowledge.rows import Vector, asset_of, record_of, sources_of
from vrag.knowledge.sources import Source
from vrag.knowledge.stages import Calls, Stages
from vrag.knowledge.tally import Tally
from vrag.knowledge.travelling import Chunk, Picture
from vrag.media.header import ImageLimits
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, CaptionSource, ReviewState
from vrag.values.vectors import Is, Item, VectorRecord

__all__ = ["ApproveCost", "Ingest", "Progress", "asset_of", "record_of"]

Progress = Callable[[int, int | None, str], None]
"""Called with pictures done, pictures in all (None where the source does not know) and the name of the one just done.

`vrag.knowledge.report.paced` adds the rate and the time left.
"""
ApproveCost = Callable[[IngestEstimate], bool]
"""Is shown what an ingest would cost, and says whether it may."""

_READERS: Final = 4
_CAPTION_CHUNKS: Final = 8
"""So many chunks wait for captions together, so that a slow picture does not hold up those behind its chunk."""
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
        self._embeddings = None if embedder is None else Embeddings(embedder, storage)
        self._estimating = Estimating(embedder, self._embeddings, self._kind, self._captions)
        self._reviews = reviews
        self._clock = clock
        self._limits = limits
        self._approve_by = approve_by
        self._prune = prune
        self._in_flight = in_flight
        self._progress = progress
        self._writing = writing or RLock()
        self._source_id: str | None = None
        self._drafting = Drafting(
            knowledge_base, store=store, clock=clock, limits=limits, fold=near_duplicates == "fold"
        )
        self._seen = self._drafting.seen
        self._calls = Calls(in_flight)
        self._tally = Tally(knowledge_base)

    def run(self, source: Source, *, approve_cost: ApproveCost | None = None) -> IngestReport:
        """Take in every picture of `source`; a bad one is reported and never stops the others.

        Raises:
            UsageError: It would cost something, and nobody approved.
        """
        drafting = self._drafting
        try:
            if self._estimating.is_paid:
                self._ask(source, approve_cost)
            self._source_id = getattr(source, "source_id", None)
            total = len(source) if isinstance(source, Sized) else None
            with Stages() as stages:
                try:
                    chunks: Iterable[Chunk] = drafting.chunks(
                        stages.stage(drafting.read, source, workers=_READERS, ahead=0)
                    )
                    chunks = stages.stage(drafting.draft, chunks)
                    if self._captions is not None:
                        chunks = stages.stage(self._caption, chunks, workers=_CAPTION_CHUNKS, ahead=0)
                    for chunk in stages.stage(self._embed, chunks, ahead=0):
                        self._finish(chunk, total)
                        drafting.done_with(chunk)
                finally:
                    self._stop()  # first, so that no stage waits for a call or for room
            self._look_for_vanished()
            return self._tally.report(self._seen)
        finally:
            self._stop()
            self._drafting.forget()

    def estimate(self, source: Source) -> IngestEstimate:
        """What `run` would do and cost. Every picture is read, none is decoded, and nothing is sent."""
        drafting = self._drafting
        try:
            for chunk in drafting.chunks(map(drafting.read, source)):
                self._estimating.add(drafting.glance(chunk))
                drafting.done_with(chunk)
        finally:
            self._stop()
            self._drafting.forget()
        return self._estimating.result()

    def _stop(self) -> None:
        """Let nobody wait any longer, and end every call; twice is fine."""
        self._drafting.stop()
        self._calls.close()

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
        embeddings = self._embeddings
        if items and embeddings is not None:
            media = self._media(chunk)
            asked = [(key[-64:], item) for key, item in items.items()]
            if embeddings.is_paid:
                # In all likelihood far away: many calls at once, and what one of them brings is kept at once.
                made = self._calls.map(lambda one: embeddings.of([one], media)[0], asked, urgency=1)
            else:
                made = embeddings.of(asked, media)
            found |= {key: (found[key][0], vector) for key, vector in zip(items, made, strict=True)}
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
        gone = [row.key for row in self._store.scan(Is(field="source", value=source)) if row.key not in self._seen]
        prune = self._prune and self._tally.is_complete
        self._tally.vanished(self._gone(gone, source, prune=prune), pruned=prune, asked=self._prune)

    def _gone(self, keys: Sequence[str], source: str, *, prune: bool) -> Iterator[Asset]:
        """These pictures, after they were taken out of the index where that is wanted; a few at a time."""
        for start in range(0, len(keys), CHUNK_PICTURES):
            with self._writing:
                rows = self._store.get(keys[start : start + CHUNK_PICTURES])
                if prune:
                    for row in (row for row in rows if len(sources_of(row)) > 1):
                        kept = tuple(one for one in sources_of(row) if one != source)
                        self._store.upsert([evolve(row, fields={**row.fields, "source": kept})])
                    self._store.delete([row.key for row in rows if len(sources_of(row)) <= 1])
            yield from map(asset_of, rows)
