"""How much in common a picture and a query need before the picture is an answer: learnt by each knowledge base itself.

No labels are needed. A shipped bank of queries about many unrelated things is asked of the knowledge base; those whose
subject it has are left out. What the others score with its pictures is what a query scores that it cannot answer. A
picture must score far above most of them. Larger libraries come near to anything, so their threshold is higher. It also
rises with the share of the query's words that the library has: those words alone bring its pictures near, and unrelated
queries have hardly any.

It is asked again when a tenth of the pictures came or went. The result is a small document in the storage of the
knowledge base, `calibration/<sequence>.json`, so every machine decides alike and a new process does not ask again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files
from io import BytesIO
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import asdict, evolve, frozen

from vrag.clock import Clock, rfc3339
from vrag.errors import VRAGError
from vrag.interfaces import Embedder, Storage, VectorStore
from vrag.knowledge.words import content_words, matched_words, subject
from vrag.values.canonical import canonical_json
from vrag.values.vectors import Between, Item, VectorQuery

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEWEST_PICTURES", "MODELS", "Calibration", "Calibrator", "KnownModel", "Thresholds", "bank", "known_model"]

FEWEST_PICTURES: Final = 50
"""A smaller library tells too little about itself: there the thresholds of the model are used, if it has some."""

_FEWEST_QUERIES: Final = 100
"""As many queries of the bank must be foreign to the library."""
_ABOVE: Final = 3.1
"""Standard deviations above what the bank scores. In tenths, the least that refuses 95 % of the calibration half of both
public sets of the benchmark, whose captions other people wrote for other pictures."""
_CHANGED: Final = 0.1
_LOOKED_AT: Final = 8
"""Pictures by meaning and by words that can be the best for a query of the bank."""
_FORMAT: Final = 1
_MAX_BYTES: Final = 16 << 10


@frozen(kw_only=True)
class Thresholds:
    """What a picture has in common with a query, as one number, and how much of it is needed."""

    meaning: float
    """What a cosine of 1 with the whole query is worth."""
    subject_meaning: float
    """What a cosine of 1 with the subject of the query is worth."""
    subject_named: float
    """What it is worth that the subject is among the words of the picture."""
    needed: float
    """For a query of one word."""
    needed_per_word: float = 0.0
    """Times the logarithm of the number of content words, on top of `needed`."""
    needed_for_known: float = 0.0
    """Times the share of the content words that the library has in any picture, on top of `needed`."""

    def score(self, cosine: float, subject_cosine: float, *, named: bool) -> float:
        """What a picture has in common with a query."""
        return self.meaning * cosine + self.subject_meaning * subject_cosine + self.subject_named * named

    def needed_for(self, words: int, known: float) -> float:
        """For a query of so many content words, of which the library has this share (0 to 1)."""
        return self.needed + self.needed_per_word * math.log(max(words, 1)) + self.needed_for_known * known


@frozen(kw_only=True)
class KnownModel:
    """What was measured of an embedding model."""

    thresholds: Thresholds
    """For a library of fewer than `FEWEST_PICTURES`, of which too few words are known to count them."""
    weights: Thresholds
    """For a larger one, which learns what is needed."""
    spread: float
    """Standard deviation of the best cosines of the bank with 1000 captions."""
    scripts: frozenset[str] = frozenset()
    """First words of the Unicode names of the letters that it knows; empty is all."""
    limits: str = ""
    """What it cannot do, for people."""


MODELS: Final[Mapping[str, KnownModel]] = MappingProxyType(
    {
        "wordllama": KnownModel(
            thresholds=Thresholds(
                meaning=3.3, subject_meaning=3.8, subject_named=3.0, needed=2.4, needed_per_word=0.25
            ),
            weights=Thresholds(meaning=5, subject_meaning=2, subject_named=5, needed=0, needed_for_known=2),
            spread=0.085,
            scripts=frozenset({"LATIN"}),
            limits="it knows English; text in other scripts is found by its words alone",
        )
    }
)
"""By the beginning of the name of the model. How they were measured: docs/explanation/retrieval-quality.md."""


def known_model(model: str) -> KnownModel | None:
    """What was measured of this model, if it was."""
    return next((known for name, known in MODELS.items() if model.lower().startswith(name)), None)


@cache
def bank() -> tuple[str, ...]:
    """The unrelated queries."""
    text = files("vrag.knowledge").joinpath("background_queries.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@frozen(kw_only=True)
class Calibration:
    """What a knowledge base learnt about itself."""

    thresholds: Thresholds
    pictures: int
    """How many there were."""
    queries: int
    """How many of the bank were foreign to it."""
    at: str
    """RFC 3339 UTC."""


class Calibrator:
    """Keeps the calibration of one knowledge base and renews it when the library has changed. Safe for many threads."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._held: Calibration | None = None
        self._lock = Lock()

    def current(self, store: VectorStore, embedder: Embedder, *, spend: bool = False) -> Calibration | None:
        """The calibration for what is in `store` now; None where there cannot be one.

        That is: fewer than `FEWEST_PICTURES` under a model that was measured (others learn from the first one on), too
        few queries of the bank that are foreign to it, or an embedder that costs money while `spend` is False (one that
        was made before is used then, old as it may be).

        Raises:
            BackendError: The index or the embedder failed.
        """
        pictures = store.count()
        fewest = FEWEST_PICTURES if known_model(embedder.space.model) else 1
        if pictures < fewest or store.space is None or "text" not in embedder.modalities:
            return None
        with self._lock:
            key = _key(embedder)
            held = self._held
            if held is None or _far(held.pictures, pictures):
                held = self._read(key)
                fits = held is not None and not _changed(held, store, pictures)
                if not fits and (spend or embedder.estimate([Item(kind="text", text="a")]).usd_micros == 0):
                    made = calibrate(store, embedder, rfc3339(self._clock.now()), pictures)
                    if made is not None:
                        self._write(made, key)
                    held = made
            self._held = held
            return held

    def _names(self) -> list[str]:
        return list(self._storage.list("calibration/"))

    def _read(self, key: str) -> Calibration | None:
        """The last one that was stored for this embedder and this bank."""
        for name in reversed(self._names()):
            with suppress(ValueError, TypeError, KeyError, VRAGError), self._storage.open(name) as stream:
                document = json.loads(stream.read(_MAX_BYTES))
                if document["format"] == _FORMAT and document["key"] == key:
                    return Calibration(
                        thresholds=Thresholds(**{name: float(value) for name, value in document["thresholds"].items()}),
                        pictures=int(document["pictures"]),
                        queries=int(document["queries"]),
                        at=str(document["at"]),
                    )
        return None

    def _write(self, made: Calibration, key: str) -> None:
        names = self._names()
        number = int(names[-1][-11:-5]) + 1 if names and names[-1][-11:-5].isdecimal() else len(names)
        document = {
            "format": _FORMAT,
            "key": key,
            "thresholds": asdict(made.thresholds),
            "pictures": made.pictures,
            "queries": made.queries,
            "at": made.at,
        }
        # It can be made again at any time: storage that cannot be written, or a race, is no reason to fail a search.
        with suppress(VRAGError):
            self._storage.put_named(f"calibration/{number:06d}.json", BytesIO(canonical_json(document)))


def calibrate(store: VectorStore, embedder: Embedder, at: str, pictures: int) -> Calibration | None:
    """Ask the bank; None where too few of its queries are foreign to the library."""
    known = known_model(embedder.space.model)
    queries = bank()
    subjects = [subject(text) or text for text in queries]
    vectors = embedder.embed([Item(kind="text", text=text) for text in (*queries, *subjects)], "query")

    @cache
    def has(word: str) -> bool:
        rows = store.get([match.key for match in store.search(VectorQuery(words=word, top_k=_LOOKED_AT))])
        return any(matched_words([word], record.text) for record in rows)

    lengths: list[int] = []
    shares: list[float] = []
    found: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for number, (text, named) in enumerate(zip(queries, subjects, strict=True)):
        if has(named):
            continue
        near = store.search(VectorQuery(vector=vectors[number], top_k=_LOOKED_AT, space=store.space))
        rows = [record.vector for record in store.get([match.key for match in near]) if record.vector is not None]
        if rows:
            stacked, words = np.stack(rows), content_words(text)
            lengths.append(len(words))
            shares.append(sum(map(has, words)) / len(words))
            found.append((stacked @ vectors[number], stacked @ vectors[len(queries) + number]))
    if len(found) < _FEWEST_QUERIES:
        return None
    weights = known.weights if known else _for_unknown([float(cosines.max()) for cosines, _ in found])
    best = np.array([max(weights.score(c, s, named=False) for c, s in zip(cs, ss, strict=True)) for cs, ss in found])
    best -= weights.needed_for_known * np.array(shares)
    # A line through the scores by length: a long query comes nearer to something than a short one, or farther.
    line = np.stack([np.ones(len(lengths)), np.log(np.maximum(lengths, 1))], axis=1)
    constant, slope = np.linalg.lstsq(line, best, rcond=None)[0]
    margin = _ABOVE * np.std(best - line @ np.array([constant, slope]))
    learnt = evolve(weights, needed=round(float(constant + margin), 4), needed_per_word=round(float(slope), 4))
    return Calibration(thresholds=learnt, pictures=pictures, queries=len(found), at=at)


def _for_unknown(best: list[float]) -> Thresholds:
    """The weights of the default model, stretched to the range of another's cosines."""
    known = MODELS["wordllama"]
    stretched = known.spread / max(float(np.std(best)), 1e-3)
    return evolve(
        known.weights,
        meaning=known.weights.meaning * stretched,
        subject_meaning=known.weights.subject_meaning * stretched,
    )


def _key(embedder: Embedder) -> str:
    known = known_model(embedder.space.model)
    parts = (str(embedder.space), str(known), str(_ABOVE), *bank())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _far(before: int, now: int) -> bool:
    return abs(now - before) > _CHANGED * before


def _changed(held: Calibration, store: VectorStore, pictures: int) -> bool:
    """Whether a tenth of the library came or went since then."""
    came = store.count(Between(field="ingested_at", low=held.at))
    went = max(held.pictures + came - pictures, 0)
    return came + went > _CHANGED * held.pictures
