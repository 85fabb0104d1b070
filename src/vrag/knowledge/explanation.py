"""What a search says about each picture: why it is an answer, why not, and why the whole answer is a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import define, frozen

from vrag.knowledge.calibration import Thresholds
from vrag.knowledge.rights import NOT_PERMITTED
from vrag.values.assets import Asset, ReviewState
from vrag.values.vectors import Candidate, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32] | None
else:
    Vector = Any

__all__ = ["UNREADABLE", "Asked", "Found", "Shortfall", "candidate_of", "hit_of", "reasons_for", "shortfall_of"]

UNREADABLE: Final = "unreadable"
"""Stands for the state of a picture whose reviews cannot be read; no such picture is used."""


@frozen(kw_only=True)
class Shortfall:
    """Why a picture is no answer."""

    words: str
    """With the words of the query, for the person who asked."""
    numbers: str
    """Without them, for the record: a record does not keep what was asked unless its policy says so."""


@define(kw_only=True)
class Found:
    """A picture in the making of an answer."""

    asset: Asset
    vector: Vector
    cosine: float | None
    subject_cosine: float | None
    word_rank: int | None
    matched: tuple[str, ...]
    score: float = 0.0
    dense_rank: int | None = None
    state: str | None = None
    """Its review state, once read."""
    resting: str | None = None
    """Why it is not offered again now."""
    shortfall: Shortfall | None = None
    """Why it is no answer to this query; None for one that is."""


@frozen(kw_only=True)
class Asked:
    """A query, cut and embedded."""

    text: str
    words: list[str]
    subject: str | None
    vector: Vector
    subject_vector: Vector
    unasked: str | None = None
    """Why its meaning is not looked at, if there is an embedder."""


def shortfall_of(found: Found, asked: Asked, thresholds: Thresholds | None, known: float) -> Shortfall | None:
    """Why this picture is no answer; None if it is one. `known` is the share of the query's words that the library has."""
    if asked.words and len(found.matched) == len(asked.words):
        return None
    missing = ", ".join(f"'{word}'" for word in asked.words if word not in found.matched)
    unsaid = f"it does not say {missing}" if missing else "no words were asked"
    named = asked.subject in found.matched
    if thresholds is None or found.cosine is None or found.subject_cosine is None:
        if named and 2 * len(found.matched) >= len(asked.words):
            return None
        return Shortfall(words=unsaid, numbers=f"has {len(found.matched)} of {len(asked.words)} words")
    score = thresholds.score(found.cosine, found.subject_cosine, named=named)
    needed = thresholds.needed_for(len(asked.words), known)
    if score >= needed:
        return None
    numbers = (
        f"meaning {found.cosine:.2f}, that of the subject {found.subject_cosine:.2f}: "
        f"together {score:.2f}, needs {needed:.2f}"
    )
    return Shortfall(words=f"{unsaid}; {numbers}", numbers=numbers)


def hit_of(found: Found, asked: Asked) -> Hit:
    """The picture as people see it."""
    # What cannot be read is as good as not decided; `why` says it.
    known = {None: ReviewState.PROPOSED, UNREADABLE: ReviewState.PROPOSED, NOT_PERMITTED: ReviewState.APPROVED}
    state = known[found.state] if found.state in known else ReviewState(str(found.state))
    return Hit(
        asset=found.asset,
        review=state,
        cosine=found.cosine,
        word_rank=found.word_rank,
        fused_score=found.score,
        why=_why(found, asked),
        matched_words=found.matched,
    )


def _why(found: Found, asked: Asked) -> str:
    parts: list[str] = []
    if found.matched:
        missing = [word for word in asked.words if word not in found.matched]
        parts.append(f"words: {', '.join(found.matched)}" + (f" (not: {', '.join(missing)})" if missing else ""))
    if found.cosine is not None:
        parts.append(f"meaning {found.cosine:.2f} ({ordinal(found.dense_rank or 0)})")
    if asked.unasked:
        parts.append(f"meaning not asked: {asked.unasked}")
    if found.shortfall:
        parts.append(f"not enough: {found.shortfall.words}")
    if found.state == UNREADABLE:
        parts.append("its reviews cannot be read")
    if found.state == NOT_PERMITTED:
        parts.append("approved, but its rights do not allow this use")
    if found.resting:
        parts.append(found.resting)
    return "; ".join(parts) or "nothing in common"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def candidate_of(found: Found, states: frozenset[ReviewState]) -> Candidate:
    """The picture as a record keeps it."""
    excluded = found.shortfall.numbers if found.shortfall else None
    if excluded is None and found.state is not None and found.state not in states:
        excluded = f"review state {found.state}"
    return Candidate(
        asset_id=found.asset.id,
        cosine=found.cosine,
        word_rank=found.word_rank,
        fused_score=found.score,
        excluded=excluded or found.resting,
    )


def reasons_for(order: Sequence[Found], knowledge_base: str, states: frozenset[ReviewState]) -> tuple[str, ...]:
    """Why there is no hit, the command that helps with it if there is one."""
    if not order:
        nothing = f"Nothing in the knowledge base '{knowledge_base}' has anything of it; to add pictures: "
        return (nothing + f"vrag ingest FOLDER --kb {knowledge_base}",)
    suiting = [found for found in order if found.shortfall is None]
    if not suiting:
        best = order[0]
        why = best.shortfall.words if best.shortfall else "not enough"
        shown = best.asset.caption or best.asset.file_name
        return (f"No picture in the knowledge base '{knowledge_base}' suits. The nearest is \"{shown}\": {why}.",)
    reasons: list[str] = []
    resting = [found for found in suiting if found.resting]
    if resting:
        reasons.append(f"{len(resting)} that suit are not used again now; the best of them: {resting[0].resting}.")
    counts: dict[str, int] = {}
    for found in suiting:
        if found.resting is None and found.state not in states:
            counts[str(found.state)] = counts.get(str(found.state), 0) + 1
    if counts:
        counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        reasons.append(f"Pictures that suit may not be used; by review state: {counted}.")
    waiting = [found for found in suiting if found.state == ReviewState.PROPOSED and found.state not in states]
    if waiting:
        reasons.append(
            f"The best of them waits for its review: vrag review --kb {knowledge_base} "
            f"--approve {waiting[0].asset.id} --by NAME"
        )
    return tuple(reasons)
