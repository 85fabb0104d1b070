"""Retrieval: which pictures answer a query, in which order, and when the answer is "no suitable picture".

Order is reciprocal rank fusion of the ranking by meaning (weight 2) and the ranking by words (weight 1), k = 10. Words
take the first place from the picture that is nearest in meaning only for a picture that has all of them.

A picture is an answer if all content words of the query are words of its caption or tags (in any form: "dogs" finds
"dog"), or if it has enough in common with it: the cosine of the whole query, that of its subject alone ("shoes" of "red
shoes"), and whether the subject is one of its words. The subject counts for more than the rest: what a red tulip shares
with "red shoes" is the adjective. How much is enough, each knowledge base learns from queries that have nothing to do
with it (`vrag.knowledge.calibration`); it is more for a query of whose words the library has many, as they bring its
pictures near without the subject. By words only: the subject and at least half of the content words are there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import field, frozen, validators

from vrag.interfaces import Embedder, VectorStore
from vrag.knowledge.calibration import FEWEST_PICTURES, Calibrator, Thresholds, known_model
from vrag.knowledge.embeddings import Questions
from vrag.knowledge.explanation import UNREADABLE, Asked, Found, candidate_of, hit_of, reasons_for, shortfall_of
from vrag.knowledge.rows import asset_of
from vrag.knowledge.selection import Selection, diverse, reranked, resting
from vrag.knowledge.words import content_words, folded, matched_words, subject
from vrag.values.assets import Asset, ReviewState
from vrag.values.vectors import AllOf, Filter, IsIn, Refusal, SearchResult, VectorQuery

__all__ = ["UNREADABLE", "RetrievalSettings", "StateOf", "Thresholds", "fused", "search", "unknown_script"]

StateOf = Callable[[Asset], str]
"""The review state that holds now, read from the reviews themselves, or `UNREADABLE`."""

_WIDER: Final = 4
"""So many times as many pictures as wanted are looked at when they are put in another order."""


@frozen(kw_only=True)
class RetrievalSettings:
    """How pictures are ranked and when none is good enough."""

    rrf_k: float = field(default=10.0, validator=validators.gt(0))
    dense_weight: float = field(default=2.0, validator=validators.ge(0))
    pool: int = field(default=50, validator=[validators.ge(1), validators.le(10_000)])
    """How many pictures are looked at by meaning, and how many by words; more if more hits are asked for."""
    thresholds: Thresholds | None = None
    """None is what the knowledge base learns about itself, or those of the embedding model."""
    refuse: bool = True
    """False answers with the nearest pictures, however far they are."""


def search(
    text: str,
    *,
    knowledge_base: str,
    store: VectorStore,
    embedder: Embedder | None,
    questions: Questions | None,
    state_of: StateOf,
    settings: RetrievalSettings,
    states: frozenset[ReviewState],
    now: datetime,
    calibrator: Calibrator | None = None,
    condition: Filter | None = None,
    selection: Selection | None = None,
    top_k: int = 10,
) -> SearchResult:
    """Answer `text` with at most `top_k` pictures whose review state is one of `states`, or with a refusal.

    `questions` embeds the text, with what it remembers; None asks by words only.
    """
    asked = _asked(text, embedder, questions)
    chosen = selection or Selection()
    thresholds, origin = _thresholds(asked, settings, embedder, store, calibrator)
    wanted = top_k * _WIDER if chosen.reorders else top_k
    pool = max(settings.pool, top_k)

    def ranked(known: dict[str, Found], where: Filter | None) -> tuple[list[Found], bool]:
        full = _look_up(asked, known, knowledge_base=knowledge_base, store=store, pool=pool, condition=where)
        share = _share_known(known, asked)
        for found in known.values():
            found.shortfall = shortfall_of(found, asked, thresholds, share) if settings.refuse else None
            found.resting = resting(found.asset.id, chosen, now)
        return fused(list(known.values()), settings, asked.words), full

    def usable(order: list[Found]) -> list[Found]:
        offered: list[Found] = []
        for found in order:
            if found.shortfall is None and found.resting is None and len(offered) < wanted:
                found.state = found.state or state_of(found.asset)
                if found.state in states:
                    offered.append(found)
        return offered

    known: dict[str, Found] = {}
    order, full = ranked(known, condition)
    offered = usable(order)
    if full and len(offered) < wanted:
        # Pictures that may not be used can fill the pool: look again for those that the index believes usable.
        believed = IsIn(field="review", values=tuple(sorted(states)))
        order, _ = ranked(known, believed if condition is None else AllOf((condition, believed)))
        offered = usable(order)
    if chosen.diversity:
        offered = diverse(offered, wanted if chosen.rerank else top_k, chosen.diversity)
    hits = tuple(hit_of(found, asked) for found in offered)
    if chosen.rerank and hits:
        hits = reranked(text, hits, chosen.rerank)
    used = _settings(settings, thresholds, origin, asked, _share_known(known, asked), embedder, pool)
    used |= _selected(chosen)
    candidates = tuple(candidate_of(found, states) for found in order)
    if hits:
        return SearchResult(query=text, hits=hits[:top_k], candidates=candidates, settings=used)
    best = order[:5]
    for found in best:
        found.state = found.state or state_of(found.asset)
    reasons = reasons_for(order, knowledge_base, states)
    if asked.unasked and order:
        reasons = (*reasons, f"Only words were compared: {asked.unasked}.")
    if offered:
        reasons = ("The reranker left out every picture that suits.",)
    refusal = Refusal(query=text, reasons=reasons, candidates=tuple(hit_of(found, asked) for found in best))
    return SearchResult(query=text, refusal=refusal, candidates=candidates, settings=used)


def unknown_script(text: str, model: str) -> str | None:
    """Why this model is not asked about `text`: a letter of a script that it does not know; None if it knows all."""
    known = known_model(model)
    if known is None or not known.scripts or text.isascii():
        return None
    for char in folded(text):
        script = unicodedata.name(char, "UNNAMED").split()[0] if char.isalpha() else None
        if script is not None and script not in known.scripts:
            return f"the model '{model}' does not know {script.capitalize() if script != 'CJK' else script} letters"
    return None


def _asked(text: str, embedder: Embedder | None, questions: Questions | None) -> Asked:
    words, named = content_words(text), subject(text)
    if embedder is None or questions is None or "text" not in embedder.modalities:
        return Asked(text=text, words=words, subject=named, vector=None, subject_vector=None)
    if unasked := unknown_script(text, embedder.space.model):
        return Asked(text=text, words=words, subject=named, vector=None, subject_vector=None, unasked=unasked)
    vectors = questions.vectors([text] if named is None or len(words) == 1 else [text, named])
    return Asked(text=text, words=words, subject=named, vector=vectors[0], subject_vector=vectors[-1])


def _thresholds(
    asked: Asked,
    settings: RetrievalSettings,
    embedder: Embedder | None,
    store: VectorStore,
    calibrator: Calibrator | None,
) -> tuple[Thresholds | None, str]:
    """What is enough in common, and where that comes from."""
    if embedder is None or asked.vector is None or not settings.refuse:
        return None, "none"
    if settings.thresholds:
        return settings.thresholds, "given"
    learnt = calibrator.current(store, embedder) if calibrator else None
    if learnt:
        return learnt.thresholds, f"learnt from {learnt.pictures} pictures and {learnt.queries} unrelated queries"
    known = known_model(embedder.space.model)
    if known is None:
        return None, "none"
    why = f"fewer than {FEWEST_PICTURES} pictures" if store.count() < FEWEST_PICTURES else "not calibrated"
    return known.thresholds, f"prior of the embedding model: {why}"


def _look_up(
    asked: Asked,
    known: dict[str, Found],
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
        known[record.key] = Found(
            asset=asset,
            vector=record.vector,
            cosine=cosine,
            subject_cosine=subject_cosine,
            word_rank=later.get(record.key),
            matched=matched_words(asked.words, record.text),
        )
    return by_meaning >= pool or by_words >= pool


def _share_known(known: dict[str, Found], asked: Asked) -> float:
    """Of the words of the query: a word that the library has is found by words, so one of the pictures looked at has it."""
    had = {word for found in known.values() for word in found.matched}
    return len(had) / len(asked.words) if asked.words else 0.0


def fused(found: list[Found], settings: RetrievalSettings, asked: list[str]) -> list[Found]:
    """Best first. Pictures with the same words and the same meaning are equal, and then the larger one is better.

    A rank by words counts as much as the share of the query's words that the picture has: of a long query, a picture
    that happens to have one word is found by words too, and tells nothing. Nor does it outdo the nearest in meaning: a
    sleeping baby is no better answer to "a sleeping dog" than a greyhound asleep.
    """
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
        share = len(set(one.matched)) / len(set(asked)) if asked else 1.0
        words = 0.0 if one.word_rank is None else share / (settings.rrf_k + word_ranks[_same_words(one.asset)])
        one.score = dense + words
    order = sorted(found, key=_best_first)
    leader = next((one for one in order if one.dense_rank == 1), None)
    if leader is not None and settings.dense_weight and len(set(order[0].matched)) < len(set(asked)):
        leader.score = order[0].score
        order.remove(leader)
        order.insert(0, leader)
    return order


def _same_words(asset: Asset) -> str:
    return "\n".join((asset.caption or "", *asset.tags)).casefold()


def _best_first(found: Found) -> tuple[float, int, int, str]:
    original = found.asset.original
    return (-found.score, -len(found.matched), -(original.width_px or 0) * (original.height_px or 0), found.asset.id)


def _settings(
    settings: RetrievalSettings,
    thresholds: Thresholds | None,
    origin: str,
    asked: Asked,
    share_known: float,
    embedder: Embedder | None,
    pool: int,
) -> dict[str, str | float]:
    """What goes into the record: the method, its numbers and the embedding space."""
    used: dict[str, str | float] = {
        "fusion": "reciprocal rank fusion; with some of the words only, none passes the nearest in meaning",
        "rrf_k": settings.rrf_k,
        "dense_weight": settings.dense_weight,
        "pool": pool,
        "space": "words only" if embedder is None else str(embedder.space),
    }
    if asked.unasked:
        used["meaning"] = f"not asked: {asked.unasked}"
    if not settings.refuse:
        used["refusal"] = "off: the nearest pictures, however far"
    elif thresholds is None:
        used["refusal"] = "by words: all of the query, or its subject and half of it"
    else:
        used |= {
            "refusal": "by words and meaning: all words; or enough in common, more of it the more of the words the library has",
            "thresholds": origin,
            "needed": thresholds.needed_for(len(asked.words), share_known),
            "words_known": share_known,
            "needed_for_known": thresholds.needed_for_known,
            "meaning_weight": thresholds.meaning,
            "subject_meaning_weight": thresholds.subject_meaning,
            "subject_named_weight": thresholds.subject_named,
        }
    return used


def _selected(selection: Selection) -> dict[str, str | float]:
    used: dict[str, str | float] = {}
    if selection.exclude:
        used["excluded"] = len(selection.exclude)
    if selection.cool_down and selection.last_used is not None:
        used["cool_down_s"] = selection.cool_down.total_seconds()
    if selection.diversity:
        used["diversity"] = selection.diversity
    if selection.rerank:
        used["rerank"] = getattr(selection.rerank, "__qualname__", type(selection.rerank).__qualname__)
    return used
