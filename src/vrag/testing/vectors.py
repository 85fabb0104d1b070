"""An embedder that hashes words, and a vector store in memory."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
from attrs import evolve
from numpy.typing import NDArray
from typing_extensions import override

from vrag.errors import SpaceMismatchError, UnsupportedRequestError, UsageError
from vrag.interfaces import Embedder, VectorStore
from vrag.media.ref import OpenMedia
from vrag.testing.faults import Call, Faults
from vrag.testing.media import describe
from vrag.values.requests import Estimate, ModelRef
from vrag.values.vectors import (
    ASSET_FIELDS,
    AllOf,
    AnyOf,
    Between,
    EmbeddingSpace,
    FieldKind,
    Filter,
    Is,
    IsIn,
    Item,
    Match,
    Not,
    Purpose,
    Receipt,
    VectorQuery,
    VectorRecord,
    check_filter,
)

__all__ = ["FAKE_SPACE", "FakeEmbedder", "FakeVectorStore"]

FAKE_SPACE: Final = EmbeddingSpace(model="fake-words", revision="1", dimension=64, preprocessing="lower-words/1")
"""The space of `FakeEmbedder`; comparable with no other."""


class FakeEmbedder(Embedder):
    """Each word is a fixed direction, a text is their sum: texts that share words are near.

    A picture is embedded as two words, its colour and its orientation, so "red" finds a red one.
    """

    def __init__(self, *, space: EmbeddingSpace = FAKE_SPACE, usd_micros: int | None = 0) -> None:
        self.faults = Faults("embed")
        self._space = space
        self._usd_micros = usd_micros

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every `embed` that was sent, in order."""
        return self.faults.calls

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="fake", id=f"{self._space.model}@{self._space.revision}")

    @property
    @override
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    @override
    def modalities(self) -> frozenset[str]:
        return frozenset({"text", "image"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        price = None if self._usd_micros is None else self._usd_micros * len(items)
        return Estimate(usd_micros=price, basis="a made-up price an item")

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> NDArray[np.float32]:
        texts = [_words_of(item, media, self.modalities) for item in items]
        with self.faults.at("embed", items=tuple(items), purpose=purpose):
            rows = [self._sum_of(words) for words in texts]
            return np.array(rows, dtype=np.float32).reshape(-1, self._space.dimension)

    def _sum_of(self, words: Sequence[str]) -> NDArray[np.float64]:
        # The empty word comes with every text, so that none is without a direction.
        total = 0.05 * self._direction("")
        for word, times in Counter(words).items():
            total = total + times * self._direction(word)
        return np.asarray(total / np.linalg.norm(total))

    def _direction(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8])
        direction = np.random.default_rng(seed).standard_normal(self._space.dimension)
        return np.asarray(direction / np.linalg.norm(direction))


def _words_of(item: Item, media: OpenMedia | None, modalities: frozenset[str]) -> Sequence[str]:
    if item.kind not in modalities:
        raise UnsupportedRequestError(
            f"Items of the kind '{item.kind}' are not taken; kinds are: {', '.join(sorted(modalities))}."
        )
    if item.kind == "text" and item.text is not None:
        return _words(item.text)
    if item.kind == "image" and item.media is not None and media is not None:
        with media(item.media) as stream:
            return describe(stream.read())
    raise UsageError(f"An item of the kind '{item.kind}' comes with its {item.kind}, and a picture with `media`.")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class FakeVectorStore(VectorStore):
    """Rows in a dictionary, searched one by one.

    With `delayed=True` searches, `scan` and `count` see a write only after `publish()`, as in a search service.
    """

    def __init__(self, space: EmbeddingSpace | None = FAKE_SPACE, *, delayed: bool = False) -> None:
        self.faults = Faults("upsert", "delete", "settled", "search", "get", "scan", "count")
        self._space = space
        self._delayed = delayed
        self._rows: dict[str, VectorRecord] = {}
        self._visible: dict[str, VectorRecord] = {}
        self._writes = 0
        self._published = 0
        self._lock = Lock()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call, in order."""
        return self.faults.calls

    @property
    @override
    def space(self) -> EmbeddingSpace | None:
        return self._space

    def publish(self) -> None:
        """Let searches see every write so far."""
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        self._visible = dict(self._rows)
        self._published = self._writes

    def _receipt(self, count: int) -> Receipt:
        self._writes += 1
        if not self._delayed:
            self._publish()
        return Receipt(id=str(self._writes), count=count)

    @override
    def upsert(self, records: Sequence[VectorRecord]) -> Receipt:
        rows = {record.key: self._checked(record) for record in records}
        with self.faults.at("upsert", keys=tuple(rows)), self._lock:
            self._rows.update(rows)
            return self._receipt(len(rows))

    def _checked(self, record: VectorRecord) -> VectorRecord:
        if unknown := record.fields.keys() - ASSET_FIELDS.keys():
            raise UsageError(f"No field {sorted(unknown)} in the allow-list; there are: {', '.join(ASSET_FIELDS)}.")
        if record.vector is None:
            return record
        space = self._space
        if space is None:
            raise SpaceMismatchError(f"The row '{record.key}' has a vector, and this store has no space.")
        # A copy, read-only: nobody changes a row from outside.
        vector = np.array(record.vector, dtype=np.float32)
        if vector.shape != (space.dimension,) or not abs(float(np.linalg.norm(vector)) - 1) <= 1e-3:
            raise UsageError(
                f"The vector of '{record.key}' (shape {vector.shape}) is not {space.dimension} finite numbers "
                "of unit length (to 1e-3)."
            )
        vector.setflags(write=False)
        return evolve(record, vector=vector)

    @override
    def delete(self, keys: Sequence[str]) -> Receipt:
        with self.faults.at("delete", keys=tuple(keys)), self._lock:
            return self._receipt(sum(self._rows.pop(key, None) is not None for key in dict.fromkeys(keys)))

    @override
    def settled(self, receipt: Receipt) -> bool:
        with self.faults.at("settled", receipt=receipt), self._lock:
            return int(receipt.id) <= self._published

    @override
    def search(self, query: VectorQuery) -> Sequence[Match]:
        if query.vector is not None and (self._space is None or query.space not in {None, self._space}):
            raise SpaceMismatchError(
                f"The query is a vector of {query.space}; this store holds {self._space or 'words only'}."
            )
        rows = [row for row in self._fulfilling(query.filter) if row.vector is not None or row.text]
        with self.faults.at("search", query=query):
            cosines = self._by_vector(query, rows)
            ranks = self._by_words(query, rows)
        matches = [Match(key=key, cosine=cosines.get(key), word_rank=ranks.get(key)) for key in {*cosines, *ranks}]
        return sorted(matches, key=_best_first)

    @staticmethod
    def _by_vector(query: VectorQuery, rows: Sequence[VectorRecord]) -> dict[str, float]:
        if query.vector is None:
            return {}
        asked = np.asarray(query.vector, dtype=np.float64)
        scored = [(-float(np.dot(asked, row.vector)), row.key) for row in rows if row.vector is not None]
        return {key: -score for score, key in sorted(scored)[: query.top_k]}

    @staticmethod
    def _by_words(query: VectorQuery, rows: Sequence[VectorRecord]) -> dict[str, int]:
        asked = set(_words(query.words or ""))
        scored = [(-len(asked.intersection(_words(row.text))), row.key) for row in rows]
        found = sorted(one for one in scored if one[0] < 0)[: query.top_k]
        return {key: rank for rank, (_, key) in enumerate(found, start=1)}

    @override
    def get(self, keys: Sequence[str]) -> Sequence[VectorRecord]:
        with self.faults.at("get", keys=tuple(keys)), self._lock:
            return [self._rows[key] for key in keys if key in self._rows]

    @override
    def scan(self, filter: Filter | None = None) -> Iterator[VectorRecord]:
        with self.faults.at("scan", filter=filter):
            return iter(sorted(self._fulfilling(filter), key=lambda row: row.key))

    @override
    def count(self, filter: Filter | None = None) -> int:
        with self.faults.at("count", filter=filter):
            return len(self._fulfilling(filter))

    def _fulfilling(self, condition: Filter | None) -> list[VectorRecord]:
        if condition is not None:
            check_filter(condition)
        with self._lock:
            rows = list(self._visible.values())
        return [row for row in rows if condition is None or _holds(condition, row.fields)]

    @override
    def close(self) -> None:
        """Nothing to let go of."""


def _best_first(match: Match) -> tuple[float, float, str]:
    return (
        float("inf") if match.cosine is None else -match.cosine,
        float("inf") if match.word_rank is None else match.word_rank,
        match.key,
    )


def _holds(condition: Filter, fields: Mapping[str, Any]) -> bool:
    match condition:
        case AllOf(all_of=parts):
            return all(_holds(part, fields) for part in parts)
        case AnyOf(any_of=parts):
            return any(_holds(part, fields) for part in parts)
        case Not(negated=part):
            return not _holds(part, fields)
        case Is(field=name, value=value):
            return value in _values(name, fields)
        case IsIn(field=name, values=values):
            return not set(values).isdisjoint(_values(name, fields))
        case Between(field=name, low=low, high=high):
            return any(
                (low is None or low <= value) and (high is None or value <= high) for value in _values(name, fields)
            )


def _values(name: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    value = fields.get(name)
    if value is None:
        return ()
    return value if isinstance(value, tuple) and ASSET_FIELDS[name] is FieldKind.KEYWORD else (value,)
