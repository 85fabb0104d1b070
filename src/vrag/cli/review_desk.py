"""What the review page shows of a knowledge base, and the decisions that come back from it; no HTTP here."""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Final

from vrag.clock import Clock
from vrag.errors import NotFoundError, UsageError, VRAGError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.loopback import error_json
from vrag.provenance.report.text import visible
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON
from vrag.values.vectors import AllOf, AnyOf, Between, Filter, Is, Not

__all__ = ["ReviewDesk"]

_THUMBNAIL_PX: Final = 480
_PREVIEW_PX: Final = 1600


class ReviewDesk:
    """One person's review of one knowledge base, as JSON; safe to call from many threads.

    Foreign text is `visible`: no caption or name reorders what stands around it.
    """

    def __init__(self, knowledge_base: KnowledgeBase, *, by: str, clock: Clock) -> None:
        """Sit down.

        Raises:
            UsageError: `by` is empty.
        """
        if not by.strip():
            raise UsageError("A review needs the name of who decides.", hint='add --by "NAME"')
        self.made: Counter[str] = Counter()
        """How many pictures came to which state."""
        self._knowledge_base = knowledge_base
        self._by = by.strip()
        self._clock = clock
        self._deciding = threading.Lock()
        self._closed = False
        # Thumbnails are asked for again with every filter, and their names are digests.
        self.thumbnail = lru_cache(maxsize=512)(self._thumbnail)

    @property
    def knowledge_base(self) -> str:
        """Its name."""
        return self._knowledge_base.name

    def close(self) -> None:
        """Let the running decision end, and take no other."""
        with self._deciding:
            self._closed = True

    def about(self) -> dict[str, JSON]:
        """What the page shows before the pictures."""
        return {"knowledge_base": self._knowledge_base.name, "by": visible(self._by)}

    def listing(self, *, state: str, query: str, tag: str, after: str, limit: int) -> JSON:
        """One page of pictures in order of id, beginning behind `after`.

        The index finds them, and their reviews say what holds. By id and not by number, because a picture that was
        decided leaves the list of its state.
        """
        found: list[Asset] = []
        words = [_folded(word) for word in query.split()]
        parts = [self._filter(state) if state else None, Is(field="tags", value=tag) if tag else None]
        wanted = tuple(part for part in parts if part is not None)
        condition = AllOf(wanted) if wanted else None
        for asset in self._knowledge_base.assets(condition):
            if asset.id > after and _has(asset, words) and self._is(asset, state):
                found.append(asset)
                if len(found) > limit:
                    break
        counts = self._counts()
        return {
            "assets": [self._card(asset) for asset in found[:limit]],
            "next": found[limit - 1].id if len(found) > limit else None,
            "matching": None if words or tag else counts[state],
            "counts": counts,
        }

    def decide(self, pictures: Mapping[str, int], state: ReviewState, reason: str | None) -> JSON:
        """Decide about each picture whose last review is the one that the person saw.

        Returns:
            The pictures as they are now, and an error for each about which nothing was decided.
        """
        cards: list[JSON] = []
        failed: list[JSON] = []
        for asset_id, seen in pictures.items():
            with self._deciding:
                try:
                    if self._closed:
                        raise UsageError("The review has ended.")  # reported with the others
                    held = self._knowledge_base.review_of(asset_id)
                    if held.sequence != seen:
                        raise UsageError(f"{held.by} decided about it meanwhile: it is {held.state}.")  # as above
                    (review,) = self._knowledge_base.review(asset_id, state, by=self._by, reason=reason)
                    self.made[state.value] += review.sequence != seen  # not where that held already
                except VRAGError as error:
                    failed.append({**error_json(error), "id": asset_id})
            with suppress(NotFoundError):
                cards.append(self._card(self._knowledge_base.asset(asset_id)))
        return {"assets": cards, "failed": failed, "counts": self._counts()}

    def preview(self, sha256: str) -> bytes:
        """A JPEG that fills a screen."""
        return self._knowledge_base.thumbnail(sha256, max_side_px=_PREVIEW_PX)

    def _thumbnail(self, sha256: str) -> bytes:
        return self._knowledge_base.thumbnail(sha256, max_side_px=_THUMBNAIL_PX)

    def _filter(self, state: str) -> Filter:
        """What the index knows of a state; on the border between approved and expired, both."""
        approved = Is(field="review", value=ReviewState.APPROVED)
        over, _, last = self._border()
        match state:
            case ReviewState.APPROVED:
                return AllOf((approved, Not(Between(field="expires_on", high=over))))
            case ReviewState.EXPIRED:
                return AnyOf(
                    (Is(field="review", value=state), AllOf((approved, Between(field="expires_on", high=last))))
                )
            case _:
                return Is(field="review", value=state)

    def _border(self) -> tuple[str, str, str]:
        """The last day of rights that is over in every time zone, then the first and last that is so in some."""
        today = self._clock.now().date()
        return (
            (today - timedelta(days=2)).isoformat(),
            (today - timedelta(days=1)).isoformat(),
            today.isoformat(),
        )

    def _is(self, asset: Asset, state: str) -> bool:
        """Whether it belongs into the list of a state; only on the border is that not known already."""
        _, first, last = self._border()
        if state not in {ReviewState.APPROVED, ReviewState.EXPIRED}:
            return True
        if asset.rights.expires_on is None or not first <= asset.rights.expires_on <= last:
            return True
        return self._has_ended(asset) == (state == ReviewState.EXPIRED)

    def _has_ended(self, asset: Asset) -> bool:
        with suppress(VRAGError):  # a review that cannot be read stays where the index has it
            return self._knowledge_base.review_of(asset.id).state is ReviewState.EXPIRED
        return False

    def _counts(self) -> dict[str, int]:
        count = self._knowledge_base.count
        counts = {"": count(), **{state.value: count(self._filter(state)) for state in ReviewState}}
        _, first, last = self._border()
        unclear = Between(field="expires_on", low=first, high=last)
        on_border = AllOf((Is(field="review", value=ReviewState.APPROVED), unclear))
        for asset in self._knowledge_base.assets(on_border):  # counted twice until here
            counts[ReviewState.APPROVED if self._has_ended(asset) else ReviewState.EXPIRED] -= 1
        return counts

    def _card(self, asset: Asset) -> JSON:
        problem = None
        review: JSON = {"state": "unreadable", "sequence": None}
        history: list[JSON] = []
        try:
            review = _review_json(self._knowledge_base.review_of(asset.id))
            history = [_review_json(one) for one in self._knowledge_base.history(asset.id)]
        except VRAGError as error:
            problem = visible(error.message)
        rights = asset.rights
        return {
            "id": asset.id,
            "sha256": asset.original.sha256,
            "file_name": visible(asset.file_name),
            "caption": None if asset.caption is None else visible(asset.caption),
            "tags": [visible(tag) for tag in asset.tags],
            "rights": {
                "licence": _visible(rights.licence),
                "holder": _visible(rights.holder),
                "territory": _visible(rights.territory),
                "expires_on": _visible(rights.expires_on),
                "releases": [visible(release) for release in rights.releases],
                "notes": _visible(rights.notes),
            },
            "media_type": asset.original.media_type,
            "size_bytes": asset.original.size_bytes,
            "width_px": asset.original.width_px,
            "height_px": asset.original.height_px,
            "ingested_at": asset.ingested_at,
            "review": review,
            "history": history,
            "problem": problem,
        }


def _has(asset: Asset, words: list[str]) -> bool:
    if not words:
        return True
    text = _folded(" ".join(_words_of(asset)))
    return all(word in text for word in words)


def _words_of(asset: Asset) -> Iterator[str]:
    rights = asset.rights
    yield from (asset.caption or "", asset.file_name, asset.id, rights.licence or "", rights.holder or "", *asset.tags)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _review_json(review: Review) -> JSON:
    return {
        "state": review.state.value,
        "by": visible(review.by),
        "at": review.at,
        "reason": _visible(review.reason),
        "sequence": review.sequence,
    }


def _visible(text: str | None) -> str | None:
    return None if text is None else visible(text)
