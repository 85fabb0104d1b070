"""Vectors are bought once: those of pictures are kept beside them, those of the last questions in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from threading import Lock
from typing import Final

import numpy as np
from attrs import asdict

from vrag.errors import AlreadyExistsError, NotFoundError
from vrag.interfaces import Embedder, Storage
from vrag.knowledge.rows import Vector
from vrag.media.ref import MediaRef, OpenMedia, sha256_hex
from vrag.values.canonical import canonical_json
from vrag.values.vectors import Item

__all__ = ["Embeddings", "Questions", "kept_names"]

_PROBES: Final = {
    "image": Item(
        kind="image",
        media=MediaRef(sha256="0" * 64, media_type="image/jpeg", size_bytes=1, width_px=64, height_px=64),
    ),
    "text": Item(kind="text", text="x" * 200),
}
_UNIT_TO: Final = 1e-3
_QUESTIONS: Final = 256
_LONGEST: Final = 1000
"""Characters of a question that is remembered."""


class Embeddings:
    """An embedder with a memory, for the pictures of one knowledge base.

    A vector that costs something is written to the storage of the knowledge base as soon as it is there, under
    `embeddings/`, by picture, space and what was embedded of it. So a picture whose ingest was killed, that was taken out
    of the index, or that is reindexed for an embedder that it had before, is not paid again, on any machine. The picture
    comes first in the name, so that whoever deletes it finds all of its vectors, also those of captions it no longer has.
    """

    def __init__(self, embedder: Embedder, storage: Storage) -> None:
        self._embedder = embedder
        self._storage = storage
        probe = _PROBES["image" if "image" in embedder.modalities else "text"]
        self.is_paid = embedder.estimate([probe]).usd_micros != 0
        """It costs something, or that is not known."""

    def known(self, sha256: str, item: Item) -> Vector:
        """What was paid before for this item of the picture with this digest, or None."""
        if not self.is_paid:
            return None
        dimension = self._embedder.space.dimension
        with suppress(NotFoundError), self._storage.open(self._name(sha256, item)) as stream:
            data = stream.read(4 * dimension + 1)
            if len(data) == 4 * dimension:
                vector = np.frombuffer(data, "<f4").astype(np.float32)
                if abs(float(np.linalg.norm(vector)) - 1) <= _UNIT_TO:  # a NaN fails too
                    return vector
        return None

    def of(self, items: Sequence[tuple[str, Item]], media: OpenMedia | None) -> list[Vector]:
        """The vector of each (digest of the picture, item), in order; one call for all that nobody has paid yet.

        Raises:
            BackendError: The embedder or the storage failed.
        """
        found = [self.known(sha256, item) for sha256, item in items]
        missing = [place for place, vector in enumerate(found) if vector is None]
        for place, vector in zip(missing, self.bought([items[place] for place in missing], media), strict=True):
            found[place] = vector
        return found

    def bought(self, items: Sequence[tuple[str, Item]], media: OpenMedia | None) -> list[Vector]:
        """The same, without looking whether they were paid before; each is kept.

        Raises:
            BackendError: The embedder or the storage failed.
        """
        if not items:
            return []
        made = list(self._embedder.embed([item for _, item in items], "index", media))
        if self.is_paid:
            for (sha256, item), vector in zip(items, made, strict=True):
                self._keep(sha256, item, vector)
        return made

    def _keep(self, sha256: str, item: Item, vector: Vector) -> None:
        name, data = self._name(sha256, item), np.asarray(vector, dtype="<f4").tobytes()
        with suppress(AlreadyExistsError):
            self._storage.put_named(name, BytesIO(data))
            return
        if self.known(sha256, item) is None:  # else another process was quicker, and its vector is as good
            self._storage.delete(name)
            with suppress(AlreadyExistsError):
                self._storage.put_named(name, BytesIO(data))

    def _name(self, sha256: str, item: Item) -> str:
        what = {"text": item.text} if item.media is None else {"media": item.media.sha256}
        key = sha256_hex(canonical_json({"space": asdict(self._embedder.space), "kind": item.kind, **what}))
        return f"{_prefix(sha256)}{key[:24]}.f32"


def kept_names(storage: Storage, sha256: str) -> list[str]:
    """The names under which vectors of the picture with this digest are kept."""
    return list(storage.list(_prefix(sha256)))


def _prefix(sha256: str) -> str:
    return f"embeddings/{sha256[:2]}/{sha256}-"


class Questions:
    """The vectors of the last questions to one knowledge base, which the next search need not buy.

    Each knowledge base has its own, so that neither the answer nor its speed tells what was asked of another.
    Safe for many threads.
    """

    def __init__(self, knowledge_base: str, embedder: Embedder) -> None:
        self._knowledge_base = knowledge_base
        self._embedder = embedder
        self._held: OrderedDict[tuple[str, str, str], Vector] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """The vector of each text; one call for those that were not asked lately.

        Raises:
            BackendError: The embedder failed.
        """
        keys = [(self._knowledge_base, str(self._embedder.space), text) for text in texts]
        with self._lock:
            found = {key: self._held[key] for key in keys if key in self._held}
            for key in found:
                self._held.move_to_end(key)
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if missing:
            made = self._embedder.embed([Item(kind="text", text=text) for _, _, text in missing], "query")
            for key, row in zip(missing, made, strict=True):
                vector = np.array(row, np.float32)
                vector.flags.writeable = False  # it is shared
                found[key] = vector
            with self._lock:
                self._held.update((key, found[key]) for key in missing if len(key[2]) <= _LONGEST)
                while len(self._held) > _QUESTIONS:
                    self._held.popitem(last=False)
        return [found[key] for key in keys]
