"""Which of the pictures that suit are offered: not the same one twice, not too much alike, in the order of a reranker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
from attrs import field, frozen, validators

from vrag.clock import rfc3339
from vrag.errors import UsageError
from vrag.knowledge.explanation import Found
from vrag.knowledge.words import words_of
from vrag.values.vectors import Hit

__all__ = ["LastUsed", "Rerank", "Selection", "diverse", "reranked", "resting"]

LastUsed = Mapping[str, datetime] | Callable[[str], datetime | None]
"""When a picture (by asset id) was last used, in UTC; None or absent: never."""
Rerank = Callable[[str, Sequence[Hit]], Sequence[Hit]]
"""Puts hits in a better order; it is given the query, and may leave some out."""


def _frozen(ids: Iterable[str]) -> frozenset[str]:
    return frozenset(ids)


@frozen(kw_only=True)
class Selection:
    """How hits are chosen among the pictures that suit; nothing of it makes a picture suit that does not."""

    exclude: frozenset[str] = field(default=frozenset(), converter=_frozen)
    """Asset ids that are not offered, such as those that this batch has used."""
    cool_down: timedelta = timedelta(0)
    """For so long after its last use a picture rests; needs `last_used`."""
    last_used: LastUsed | None = None
    diversity: float = field(default=0.0, validator=[validators.ge(0), validators.le(1)])
    """0 is the best ones, 1 the most different ones after the best; 0.3 is a good beginning."""
    rerank: Rerank | None = None
    """Asked last, with more hits than are wanted."""

    @property
    def reorders(self) -> bool:
        """Whether more pictures are looked at than are wanted."""
        return self.diversity > 0 or self.rerank is not None


def resting(asset_id: str, selection: Selection, now: datetime) -> str | None:
    """Why this picture is not offered now; None if it is."""
    if asset_id in selection.exclude:
        return "used already"
    if selection.last_used is None or not selection.cool_down:
        return None
    look = selection.last_used.get if isinstance(selection.last_used, Mapping) else selection.last_used
    used = look(asset_id)
    # A use that the clock has not reached yet (clocks of two machines differ) is a use.
    if used is None or now >= used + selection.cool_down:
        return None
    return f"used at {rfc3339(used)}, rests until {rfc3339(used + selection.cool_down)}"


def diverse(order: Sequence[Found], count: int, diversity: float) -> list[Found]:
    """The first, then always the one that is good and unlike those chosen before (maximal marginal relevance)."""
    left, chosen = list(order), list(order[:1])
    best = max((found.score for found in left), default=0.0) or 1.0
    left = left[1:]
    while left and len(chosen) < count:
        worth = [
            (1 - diversity) * found.score / best - diversity * max(_alike(found, other) for other in chosen)
            for found in left
        ]
        chosen.append(left.pop(int(np.argmax(worth))))
    return chosen


def _alike(one: Found, other: Found) -> float:
    """Cosine of the vectors; without vectors, the share of words in common."""
    if one.vector is not None and other.vector is not None:
        return float(one.vector @ other.vector)
    words, others = ({*words_of(" ".join((found.asset.caption or "", *found.asset.tags)))} for found in (one, other))
    return len(words & others) / max(len(words | others), 1)


def reranked(query: str, hits: Sequence[Hit], rerank: Rerank) -> tuple[Hit, ...]:
    """The hits as `rerank` orders them.

    Raises:
        UsageError: It gave back something that it was not given, or one hit twice.
    """
    given = {hit.asset.id: hit for hit in hits}
    ordered = [hit.asset.id for hit in rerank(query, tuple(hits))]
    if len(set(ordered)) != len(ordered) or not given.keys() >= set(ordered):
        raise UsageError("A reranker gives back hits that it was given, each at most once, and no others.")
    return tuple(given[key] for key in ordered)
