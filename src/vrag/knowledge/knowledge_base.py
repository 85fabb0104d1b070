"""A knowledge base: a named, isolated set of vetted pictures that can be ingested, found, reviewed and taken down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Final

from attrs import evolve

from vrag.clock import Clock, SystemClock
from vrag.errors import (
    FormatVersionError,
    GateError,
    NotFoundError,
    ProvenanceError,
    SpaceMismatchError,
    UsageError,
)
from vrag.interfaces import Embedder, Storage, VectorStore
from vrag.knowledge.ingest import Ingest, Progress, asset_of
from vrag.knowledge.owner import check_owner
from vrag.knowledge.report import IngestReport
from vrag.knowledge.retrieval import UNREADABLE, RetrievalSettings, search
from vrag.knowledge.review import Reviews, with_expiry
from vrag.knowledge.sources import Source, open_source
from vrag.media.header import ImageLimits
from vrag.media.image import thumbnail
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, Review, ReviewState, check_knowledge_base_name
from vrag.values.vectors import Filter, Is, SearchResult, VectorRecord, check_filter

__all__ = ["KnowledgeBase"]

_APPROVED: Final = frozenset({ReviewState.APPROVED})
_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_BATCH: Final = 64


class KnowledgeBase:
    """The pictures of one department, brand or film: its own index, its own storage, its own reviews.

    Which knowledge base is meant is decided here, by the objects it is made of, and never by a value in a query. The
    first ingest writes the name into the storage; a storage or index of another knowledge base is refused.

    Safe to call from many threads. Several processes may ingest and review at once.
    """

    def __init__(
        self,
        name: str,
        *,
        store: VectorStore,
        storage: Storage,
        embedder: Embedder | None = None,
        clock: Clock | None = None,
        limits: ImageLimits | None = None,
        retrieval: RetrievalSettings | None = None,
    ) -> None:
        """Join the parts; nothing is read or written yet.

        Args:
            name: 1 to 63 of `a-z 0-9 _ -`, first and last a letter or digit.
            store: The index, of this knowledge base alone.
            storage: Original pictures and reviews, of this knowledge base alone.
            embedder: Makes the vectors of `store`; None with a store that is searched by words only.
            clock: Time of ingest and review.
            limits: Which pictures are taken.
            retrieval: How pictures are ranked and when none is good enough.

        Raises:
            UsageError: The name is none.
            SpaceMismatchError: The embedder makes other vectors than the store holds.
        """
        self._name = check_knowledge_base_name(name)
        space = embedder.space if embedder else None
        if space != store.space:
            raise SpaceMismatchError(
                f"The index of '{name}' holds vectors of {store.space or 'no space (words only)'}, "
                f"and its embedder makes {space or 'none'}; they cannot be compared.",
                hint="use the embedder that the index was made with, or ingest into a new index",
            )
        self._store = store
        self._storage = storage
        self._embedder = embedder
        self._clock = clock or SystemClock()
        self._limits = limits or ImageLimits()
        self._retrieval = retrieval or RetrievalSettings()
        self._reviews = Reviews(storage, self._clock)
        self._owned = False
        # A row is changed by reading it and writing it back.
        self._writing = RLock()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def retrieval(self) -> RetrievalSettings:
        """How pictures are ranked and when none is good enough."""
        return self._retrieval

    def ingest(
        self,
        source: Path | str | Source,
        *,
        approve_by: str | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Take in pictures: a folder, a manifest (`.csv`, `.jsonl`), one file, or `SourcePicture`s.

        Running it again changes nothing and embeds nothing; a changed caption or tag updates the index without decoding
        the picture again. What a source does not state (tags, rights, a caption as good) stays as it is.

        Args:
            source: Where the pictures are.
            approve_by: Who approves each picture of the source that nobody has decided about; None leaves them proposed.
            progress: Called after each picture, when it can no longer be lost.

        Returns:
            Counts, and every picture that was not taken with the reason. Bad pictures do not raise.

        Raises:
            NotFoundError: Nothing is at that path.
            BackendError: The index, the storage or the embedder failed. What was acknowledged stays; ingest again.
        """
        self._own(claim=True)
        run = Ingest(
            self._name,
            store=self._store,
            storage=self._storage,
            embedder=self._embedder,
            reviews=self._reviews,
            clock=self._clock,
            limits=self._limits,
            approve_by=approve_by,
            progress=progress,
            writing=self._writing,
        )
        return run.run(open_source(source))

    def search(
        self,
        text: str,
        *,
        top_k: int = 10,
        filter: Filter | None = None,
        states: frozenset[ReviewState] = _APPROVED,
    ) -> SearchResult:
        """Find pictures for the words of a person: hits, best first, or a refusal with reasons; never both.

        Args:
            text: What should be visible, such as "red shoes"; what the camera does is no part of it.
            top_k: At most so many hits.
            filter: Which pictures are looked at.
            states: Review states of the pictures that may be hits. The reviews themselves are read, not the index.

        Raises:
            UsageError: The text is empty, or the filter names a field that there is not.
        """
        if not isinstance(text, str) or not text.strip():
            raise UsageError("A search needs words, such as 'red shoes'.")
        if top_k < 1:
            raise UsageError(f"A search gives at least 1 hit, not {top_k}.")
        if filter is not None:
            check_filter(filter)
        self._own()
        return search(
            text,
            knowledge_base=self._name,
            store=self._store,
            embedder=self._embedder,
            state_of=self._state_of,
            settings=self._retrieval,
            states=frozenset(states),
            condition=filter,
            top_k=top_k,
        )

    def asset(self, asset_id: str) -> Asset:
        """The picture with this id (`brand/9f86d0…`), digest, or beginning of a digest (8 digits or more).

        Raises:
            NotFoundError: There is none.
            UsageError: It is no id, an id of another knowledge base, or the beginning of several.
        """
        return asset_of(self._record(asset_id))

    def assets(self, filter: Filter | None = None) -> Iterator[Asset]:
        """Every picture that fulfils the filter, in order of id."""
        self._own()
        return (asset_of(record) for record in self._store.scan(filter))

    def count(self, filter: Filter | None = None) -> int:
        """How many pictures fulfil the filter. The field `review` is a hint, and says nothing about expiry."""
        self._own()
        return self._store.count(filter)

    def review(
        self, ids: str | Iterable[str], state: ReviewState, *, by: str, reason: str | None = None
    ) -> tuple[Review, ...]:
        """Decide about pictures; saying again what holds already changes nothing.

        Raises:
            NotFoundError: One of them is not there; nothing was decided.
            UsageError: `by` is empty, or `state` may not follow the state of one of them: those before it are decided.
        """
        records = [self._record(one) for one in ([ids] if isinstance(ids, str) else ids)]
        return self._decide(records, ReviewState(state), by=by, reason=reason)

    def approve_all(self, *, by: str) -> int:
        """Approve every picture that nobody has decided about yet; how many these were.

        Raises:
            UsageError: `by` is empty.
            VerificationError: The reviews of a picture cannot be read; the others are approved.
        """
        if not by.strip():
            raise UsageError("Approving needs the name of who approves.", hint='add --by "NAME"')
        self._own()
        keys = [record.key for record in self._store.scan(Is(field="review", value=ReviewState.PROPOSED))]
        approved = 0
        unreadable: Exception | None = None
        for start in range(0, len(keys), _BATCH):
            waiting: list[VectorRecord] = []
            decided: list[VectorRecord] = []
            for record in self._store.get(keys[start : start + _BATCH]):
                try:
                    state = self._reviews.latest(asset_of(record)).state
                except (ProvenanceError, FormatVersionError) as error:
                    unreadable = error
                    continue
                if state is ReviewState.PROPOSED:
                    waiting.append(record)
                else:
                    decided.append(_with_hint(record, state))
            if decided:  # the index had not heard of it
                self._store.upsert(decided)
            approved += len(self._decide(waiting, ReviewState.APPROVED, by=by, reason=None))
        if unreadable is not None:
            raise unreadable
        return approved

    def review_of(self, asset_id: str) -> Review:
        """What holds for a picture now: its last review, `expired` when its rights have ended.

        Raises:
            NotFoundError: There is no such picture.
            VerificationError: Its reviews cannot be read; then it may not be used.
            FormatVersionError: They were written by a newer release.
        """
        asset = self.asset(asset_id)
        return with_expiry(asset, self._reviews.latest(asset), self._clock.now())

    def history(self, asset_id: str) -> tuple[Review, ...]:
        """Every decision about a picture, oldest first."""
        return self._reviews.history(self.asset(asset_id))

    def gate(self, asset_id: str) -> Review:
        """The review that allows the use of a picture now, read from the storage.

        Raises:
            GateError: It is not approved, its rights have ended, or its reviews cannot be read.
            NotFoundError: There is no such picture.
        """
        asset = self.asset(asset_id)
        try:
            review = with_expiry(asset, self._reviews.latest(asset), self._clock.now())
        except (ProvenanceError, UsageError) as error:
            raise GateError(
                f"The picture '{asset.id}' is not used: {error.message}",
                asset_id=asset.id,
                state=UNREADABLE,
                hint=getattr(error, "hint", None) or "restore the reviews from a backup, or use another picture",
            ) from error
        if review.state is ReviewState.APPROVED:
            return review
        command = f"vrag review --kb {self._name} --approve {asset.id} --by NAME"
        hint = {
            ReviewState.REVOKED: "use another picture: a revoked one stays revoked",
            ReviewState.EXPIRED: f"ingest it again with a later 'expires_on', or use another picture ({command})",
        }.get(review.state, command)
        because = f" ({review.reason})" if review.reason else ""
        raise GateError(
            f"The picture '{asset.id}' may not be used: its review state is {review.state}{because}.",
            asset_id=asset.id,
            state=review.state,
            hint=hint,
        )

    def revoke(self, asset_id: str, *, by: str, reason: str) -> Review:
        """Take a picture down: it is never used again, and what was made from it stays traceable. This is final.

        Raises:
            NotFoundError: There is no such picture.
            UsageError: `by` or `reason` is empty.
        """
        if not reason.strip():
            raise UsageError("A revocation needs a reason.", hint='add --reason "…"')
        (review,) = self._decide([self._record(asset_id)], ReviewState.REVOKED, by=by, reason=reason)
        return review

    def open(self, ref: MediaRef) -> BinaryIO:
        """The bytes of a picture of this knowledge base, as they were ingested (`asset.original`).

        Raises:
            NotFoundError: They are not in its storage.
        """
        return self._storage.open(ref)

    def thumbnail(self, asset_id: str, *, max_side_px: int = 320) -> bytes:
        """A small JPEG of a picture, upright and without metadata."""
        asset = self.asset(asset_id)
        with self.open(asset.original) as stream:
            return thumbnail(stream.read(), asset.file_name, max_side_px=max_side_px, limits=self._limits)

    def close(self) -> None:
        """Close the index; closing twice is fine."""
        self._store.close()

    def _record(self, asset_id: str) -> VectorRecord:
        self._own()
        if not isinstance(asset_id, str):
            raise UsageError(f"A picture is named by its id, not by a {type(asset_id).__name__}.")
        owner, _, digest = asset_id.rpartition("/")
        if owner not in {"", self._name}:
            raise UsageError(f"'{asset_id[:150]}' is no picture of the knowledge base '{self._name}'.")
        if not _PREFIX.fullmatch(digest):
            raise UsageError(
                f"'{asset_id[:150]}' is no id of a picture: it is '{self._name}/' and a SHA-256, or 8 or more of its first digits."
            )
        if len(digest) == 64:
            found = list(self._store.get([f"{self._name}/{digest}"]))
        else:
            key = f"{self._name}/{digest}"
            found = [record for record in self._store.scan() if record.key.startswith(key)]
        if not found:
            raise NotFoundError(
                f"There is no picture '{asset_id[:150]}' in the knowledge base '{self._name}'.",
                hint=f"vrag search WORDS --kb {self._name}",
            )
        if len(found) > 1:
            raise UsageError(f"'{asset_id[:150]}' begins the ids of {len(found)} pictures; give more digits.")
        return found[0]

    def _state_of(self, asset: Asset) -> str:
        try:
            return with_expiry(asset, self._reviews.latest(asset), self._clock.now()).state
        except (ProvenanceError, UsageError):
            return UNREADABLE

    def _decide(
        self, records: Sequence[VectorRecord], state: ReviewState, *, by: str, reason: str | None
    ) -> tuple[Review, ...]:
        reviews: list[Review] = []
        try:
            # One by one: the list has what was decided before an error.
            reviews.extend(self._reviews.add(asset_of(record), state, by=by, reason=reason) for record in records)
        finally:
            # What was decided is told to the index, also when a later one was refused.
            for start in range(0, len(reviews), _BATCH):
                decided = {review.asset_id: review.state for review in reviews[start : start + _BATCH]}
                with self._writing:
                    rows = self._store.get(list(decided))
                    self._store.upsert([_with_hint(row, decided[row.key]) for row in rows])
        return tuple(reviews)

    def _own(self, *, claim: bool = False) -> None:
        if not self._owned:
            self._owned = check_owner(self._name, store=self._store, storage=self._storage, claim=claim)


def _with_hint(record: VectorRecord, state: ReviewState) -> VectorRecord:
    return evolve(record, fields={**record.fields, "review": state})
