"""Retrieval: which pictures answer a query, in which order, and when the answer is "no suitable picture".

Order is reciprocal rank fusion of the ranking by meaning (weight 2) and the ranking by words (weight 1), k = 10.

A picture is an answer if one of these holds:

1. all content words of the query are words of its caption or tags (in any form: "dogs" finds "dog");
2. the subject of the query ("shoes" of "red shoes") is one of its words, and the whole query is not far in meaning
   (by words only: at least half of the content words are there);
3. the whole query is near in meaning, and its subject alone is not far. The second half refuses a red tulip for "red
   shoes", though its cosine is high: what they share is the adjective.

The thresholds are a prior for each embedding model, chosen on one half of the labelled queries in
`tests/knowledge/data/retrieval.json` and checked on the other; for a model without a prior, only words decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen, validators

from vrag.interfaces import Embedder, VectorStore
from vrag.knowledge.ingest import asset_of
from vrag.knowledge.words import content_words, matched_words, subject
from vrag.values.assets import Asset, ReviewState
from vrag.values.vectors import AllOf, Candidate, Filter, Hit, IsIn, Item, Refusal, SearchResult, VectorQuery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | None
else:
    Vector = Any

__all__ = ["PRIORS", "UNREADABLE", "RetrievalSettings", "Thresholds", "search"]

UNREADABLE: Final = "unreadable"
"""Stands for the state of a picture whose reviews cannot be read; no such picture is used."""
StateOf = Callable[[Asset], str]
"""The review state that holds now, read from the reviews themselves, or `UNREADABLE`."""


@frozen(kw_only=True)
class Thresholds:
    """From which cosine on a meaning counts as near; they belong to one embedding model."""

    min_meaning: float
    """For the whole query, where its subject is not among the words of the picture."""
    min_subject_meaning: float
    """For the subject of the query alone, in the same case."""
    min_meaning_subject_named: float
    """For the whole query, where its subject is among the words of the picture."""


PRIORS: Final[Mapping[str, Thresholds]] = MappingProxyType(
    {"wordllama": Thresholds(min_meaning=0.40, min_subject_meaning=0.15, min_meaning_subject_named=0.20)}
)
"""By the beginning of the name of the embedding model."""


@frozen(kw_only=True)
class RetrievalSettings:
    """How pictures are ranked and when none is good enough."""

    rrf_k: float = field(default=10.0, validator=validators.gt(0))
    dense_weight: float = field(default=2.0, validator=validators.ge(0))
    pool: int = field(default=50, validator=[validators.ge(1), validators.le(10_000)])
    """How many pictures are looked at by meaning, and how many by words; more if more hits are asked for."""
    thresholds: Thresholds | None = None
    """None is the prior of the embedding model."""
    refuse: bool = True
    """False answers with the nearest pictures, however far they are."""

    def thresholds_for(self, model: str) -> Thresholds | None:
        """Those that were given, else the prior of that model; None where there is none."""
        prior = next((prior for name, prior in PRIORS.items() if model.lower().startswith(name)), None)
        return self.thresholds or prior


@frozen(kw_only=True)
class _Shortfall:
    """Why a picture is no answer."""

    words: str
    """With the words of the query, for the person who asked."""
    numbers: str
    """Without them, for the record: a record does not keep what was asked unless its policy says so."""


@define(kw_only=True)
class _Found:
    """A picture in the making of an answer."""

    asset: Asset
    cosine: float | None
    subject_cosine: float | None
    word_rank: int | None
    matched: tuple[str, ...]
    score: float = 0.0
    dense_rank: int | None = None
    state: str | None = None
    """Its review state, once read."""
    shortfall: _Shortfall | None = None
    """Why it is no answer to this query; None for one that is."""


@frozen(kw_only=True)
class _Asked:
    text: str
    words: list[str]
    subject: str | None
    vector: Vector
    subject_vector: Vector


def search(
    text: str,
    *,
    knowledge_base: str,
    store: VectorStore,
    embedder: Embedder | None,
    state_of: StateOf,
    settings: RetrievalSettings,
    states: frozenset[ReviewState],
    condition: Filter | None = None,
    top_k: int = 10,
) -> SearchResult:
    """Answer `text` with at most `top_k` pictures whose review state is one of `states`, or with a refusal."""
    asked = _asked(text, embedder)
    thresholds = settings.thresholds_for(embedder.space.model) if embedder else None
    pool = max(settings.pool, top_k)

    def ranked(known: dict[str, _Found], where: Filter | None) -> tuple[list[_Found], bool]:
        full = _look_up(asked, known, knowledge_base=knowledge_base, store=store, pool=pool, condition=where)
        for found in known.values():
            found.shortfall = _shortfall(found, asked, thresholds)
            if not settings.refuse:
                found.shortfall = None
        return _fused(list(known.values()), settings), full

    def usable(order: list[_Found]) -> list[_Found]:
        chosen: list[_Found] = []
        for found in order:
            if found.shortfall is None and len(chosen) < top_k:
                found.state = found.state or state_of(found.asset)
                if found.state in states:
                    chosen.append(found)
        return chosen

    known: dict[str, _Found] = {}
    order, full = ranked(known, condition)
    hits = usable(order)
    if full and len(hits) < top_k:
        # Pictures that may not be used can fill the pool: look again for those that the index believes usable.
        believed = IsIn(field="review", values=tuple(sorted(states)))
        order, _ = ranked(known, believed if condition is None else AllOf((condition, believed)))
        hits = usable(order)
    used = _settings(settings, thresholds, embedder, pool)
    candidates = tuple(_candidate(found, states) for found in order)
    if hits:
        return SearchResult(
            query=text, hits=tuple(_hit(found, asked) for found in hits), candidates=candidates, settings=used
        )
    best = order[:5]
    for found in best:
        found.state = found.state or state_of(found.asset)
    refusal = Refusal(
        query=text,
        reasons=_reasons(order, knowledge_base),
        candidates=tuple(_hit(found, asked) for found in best),
    )
    return SearchResult(query=text, refusal=refusal, candidates=candidates, settings=used)


def _asked(text: str, embedder: Embedder | None) -> _Asked:
    words, named = content_words(text), subject(text)
    if embedder is None or "text" not in embedder.modalities:
        return _Asked(text=text, words=words, subject=named, vector=None, subject_vector=None)
    alone = named is None or len(words) == 1
    items = [Item(kind="text", text=text)] + ([] if alone else [Item(kind="text", text=named)])
    vectors = embedder.embed(items, "query")
    return _Asked(text=text, words=words, subject=named, vector=vectors[0], subject_vector=vectors[-1])


def _look_up(
    asked: _Asked,
    known: dict[str, _Found],
    *,
    knowledge_base: str,
    store: VectorStore,
    pool: int,
    condition: Filter | None,
) -> bool:
    """Add what the store finds to `known`; whether there may be more."""
    query = VectorQuery(
        vector=asked.vector,
        words=asked.text,
        top_k=pool,
        filter=condition,
        space=None if asked.vector is None else store.space,
    )
    # A store is one knowledge base's own; a row of another one is never looked at, however it came there.
    matches = {match.key: match for match in store.search(query) if match.key.startswith(f"{knowledge_base}/")}
    by_meaning = sum(match.cosine is not None for match in matches.values())
    by_words = sum(match.word_rank is not None for match in matches.values())
    new = [key for key in matches if key not in known]
    # Words that were found before keep their ranks; what only this search brings comes after them.
    ranked_before = max((found.word_rank or 0 for found in known.values()), default=0)
    later = {
        match.key: ranked_before + rank
        for rank, match in enumerate(
            sorted((matches[key] for key in new if matches[key].word_rank), key=lambda match: match.word_rank or 0),
            start=1,
        )
    }
    for record in store.get(new):
        asset = asset_of(record)
        cosine, subject_cosine = matches[record.key].cosine, None
        if record.vector is not None and asked.vector is not None and asked.subject_vector is not None:
            cosine = float(record.vector @ asked.vector) if cosine is None else cosine
            subject_cosine = float(record.vector @ asked.subject_vector)
        known[record.key] = _Found(
            asset=asset,
            cosine=cosine,
            subject_cosine=subject_cosine,
            word_rank=later.get(record.key),
            matched=matched_words(asked.words, record.text),
        )
    return by_meaning >= pool or by_words >= pool


def _fused(found: list[_Found], settings: RetrievalSettings) -> list[_Found]:
    """Best first. Pictures with the same words and the same meaning are equal, and then the larger one is better."""
    # Cosines are compared to 1e-4: beyond that a store promises nothing.
    cosines = sorted({round(one.cosine, 4) for one in found if one.cosine is not None}, reverse=True)
    counts = [sum(one.cosine is not None and round(one.cosine, 4) > cosine for one in found) for cosine in cosines]
    dense_ranks = {cosine: count + 1 for cosine, count in zip(cosines, counts, strict=True)}
    word_ranks: dict[str, int] = {}
    for one in found:
        if one.word_rank is not None:
            caption = _same_words(one.asset)
            word_ranks[caption] = min(one.word_rank, word_ranks.get(caption, one.word_rank))
    for one in found:
        one.dense_rank = None if one.cosine is None else dense_ranks[round(one.cosine, 4)]
        dense = 0.0 if one.dense_rank is None else settings.dense_weight / (settings.rrf_k + one.dense_rank)
        words = 0.0 if one.word_rank is None else 1 / (settings.rrf_k + word_ranks[_same_words(one.asset)])
        one.score = dense + words
    return sorted(found, key=_best_first)


def _same_words(asset: Asset) -> str:
    return "\n".join((asset.caption or "", *asset.tags)).casefold()


def _best_first(found: _Found) -> tuple[float, int, int, str]:
    original = found.asset.original
    return (-found.score, -len(found.matched), -(original.width_px or 0) * (original.height_px or 0), found.asset.id)


def _shortfall(found: _Found, asked: _Asked, thresholds: Thresholds | None) -> _Shortfall | None:
    """Why this picture is no answer; None if it is one."""
    if asked.words and len(found.matched) == len(asked.words):
        return None
    missing = ", ".join(f"'{word}'" for word in asked.words if word not in found.matched)
    unsaid = f"it does not say {missing}" if missing else "no words were asked"
    named = asked.subject in found.matched
    if thresholds is None or found.cosine is None or found.subject_cosine is None:
        if named and 2 * len(found.matched) >= len(asked.words):
            return None
        return _Shortfall(words=unsaid, numbers=f"has {len(found.matched)} of {len(asked.words)} words")
    needed = thresholds.min_meaning_subject_named if named else thresholds.min_meaning
    if found.cosine < needed:
        numbers = f"meaning {found.cosine:.2f}, needs {needed:.2f}"
    elif not named and found.subject_cosine < thresholds.min_subject_meaning:
        numbers = f"meaning of the subject {found.subject_cosine:.2f}, needs {thresholds.min_subject_meaning:.2f}"
    else:
        return None
    return _Shortfall(words=f"{unsaid}; {numbers}", numbers=numbers)


def _hit(found: _Found, asked: _Asked) -> Hit:
    # What cannot be read is as good as not decided; `why` says it.
    state = ReviewState.PROPOSED if found.state in {None, UNREADABLE} else ReviewState(str(found.state))
    return Hit(
        asset=found.asset,
        review=state,
        cosine=found.cosine,
        word_rank=found.word_rank,
        fused_score=found.score,
        why=_why(found, asked),
        matched_words=found.matched,
    )


def _why(found: _Found, asked: _Asked) -> str:
    parts: list[str] = []
    if found.matched:
        missing = [word for word in asked.words if word not in found.matched]
        parts.append(f"words: {', '.join(found.matched)}" + (f" (not: {', '.join(missing)})" if missing else ""))
    if found.cosine is not None:
        parts.append(f"meaning {found.cosine:.2f} ({_ordinal(found.dense_rank or 0)})")
    if found.shortfall:
        parts.append(f"not enough: {found.shortfall.words}")
    if found.state == UNREADABLE:
        parts.append("its reviews cannot be read")
    return "; ".join(parts) or "nothing in common"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _candidate(found: _Found, states: frozenset[ReviewState]) -> Candidate:
    excluded = found.shortfall.numbers if found.shortfall else None
    if excluded is None and found.state is not None and found.state not in states:
        excluded = f"review state {found.state}"
    return Candidate(
        asset_id=found.asset.id,
        cosine=found.cosine,
        word_rank=found.word_rank,
        fused_score=found.score,
        excluded=excluded,
    )


def _reasons(order: Sequence[_Found], knowledge_base: str) -> tuple[str, ...]:
    if not order:
        nothing = f"Nothing in the knowledge base '{knowledge_base}' has anything of it; to add pictures: "
        return (nothing + f"vrag ingest FOLDER --kb {knowledge_base}",)
    barred = [found for found in order if found.shortfall is None]
    if barred:
        states: dict[str, int] = {}
        for found in barred:
            states[str(found.state)] = states.get(str(found.state), 0) + 1
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        reasons = [f"Pictures that suit may not be used; by review state: {counted}."]
        waiting = [found for found in barred if found.state == ReviewState.PROPOSED]
        if waiting:
            reasons.append(
                f"The best of them waits for its review: vrag review --kb {knowledge_base} "
                f"--approve {waiting[0].asset.id} --by NAME"
            )
        return tuple(reasons)
    best = order[0]
    why = best.shortfall.words if best.shortfall else "not enough"
    shown = best.asset.caption or best.asset.file_name
    return (f"No picture in the knowledge base '{knowledge_base}' suits. The nearest is \"{shown}\": {why}.",)


def _settings(
    settings: RetrievalSettings, thresholds: Thresholds | None, embedder: Embedder | None, pool: int
) -> dict[str, str | float]:
    """What goes into the record: the method, its numbers and the embedding space."""
    used: dict[str, str | float] = {
        "fusion": "reciprocal rank fusion",
        "rrf_k": settings.rrf_k,
        "dense_weight": settings.dense_weight,
        "pool": pool,
        "space": "words only" if embedder is None else str(embedder.space),
    }
    if not settings.refuse:
        used["refusal"] = "off: the nearest pictures, however far"
    elif thresholds is None:
        used["refusal"] = "by words: all of the query, or its subject and half of it"
    else:
        used |= {
            "refusal": "by words and meaning: all words; or the subject named and near; or near, and its subject near",
            "thresholds": "given" if settings.thresholds else "prior of the embedding model",
            "min_meaning": thresholds.min_meaning,
            "min_subject_meaning": thresholds.min_subject_meaning,
            "min_meaning_subject_named": thresholds.min_meaning_subject_named,
        }
    return used
