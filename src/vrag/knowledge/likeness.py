"""Picture to picture: which pictures of a knowledge base are like another one.

An embedder that takes pictures compares pixels. A text embedder compares captions, so it can be asked about pictures of
the knowledge base only. "Like" has no subject to miss, so nothing is refused for being far: every hit says how near.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import evolve

from vrag.errors import UnsupportedRequestError
from vrag.interfaces import Embedder, VectorStore
from vrag.knowledge.explanation import Asked, Found, candidate_of, hit_of, ordinal, reasons_for
from vrag.knowledge.retrieval import StateOf
from vrag.knowledge.rows import asset_of
from vrag.knowledge.selection import Selection, diverse, reranked, resting
from vrag.media.ref import MediaRef
from vrag.values.assets import ReviewState
from vrag.values.requests import Problem
from vrag.values.vectors import Filter, Hit, Item, Refusal, SearchResult, VectorQuery, VectorRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
else:
    Vector = Any

__all__ = ["search_like"]


def search_like(
    picture: VectorRecord | bytes,
    *,
    media_type: str,
    knowledge_base: str,
    store: VectorStore,
    embedder: Embedder | None,
    state_of: StateOf,
    states: frozenset[ReviewState],
    now: datetime,
    condition: Filter | None = None,
    selection: Selection | None = None,
    top_k: int = 10,
) -> SearchResult:
    """The pictures most like `picture`, a row of the index or encoded bytes; itself left out.

    Raises:
        UnsupportedRequestError: There is nothing to compare it by.
    """
    chosen = selection or Selection()
    vector, how = _vector_of(picture, media_type, embedder)
    itself = picture.key if isinstance(picture, VectorRecord) else f"sha256 {hashlib.sha256(picture).hexdigest()}"
    wanted = top_k * 4 if chosen.reorders else top_k
    query = VectorQuery(vector=vector, top_k=min(max(50, 4 * wanted), 10_000), filter=condition, space=store.space)
    matches = [match for match in store.search(query) if match.key.startswith(f"{knowledge_base}/")]
    rows = {row.key: row for row in store.get([match.key for match in matches])}
    asked = Asked(text=f"pictures like {itself}", words=[], subject=None, vector=vector, subject_vector=None)
    order: list[Found] = []
    for match in matches:
        if match.key != itself and match.key in rows:
            row = rows[match.key]
            found = Found(
                asset=asset_of(row),
                vector=row.vector,
                cosine=match.cosine,
                subject_cosine=None,
                word_rank=None,
                matched=(),
            )
            found.score, found.dense_rank = match.cosine or 0.0, len(order) + 1
            found.resting = resting(match.key, chosen, now)
            order.append(found)
    offered: list[Found] = []
    for found in order:
        if found.resting is None and len(offered) < wanted:
            found.state = state_of(found.asset)
            if found.state in states:
                offered.append(found)
    if chosen.diversity:
        offered = diverse(offered, wanted if chosen.rerank else top_k, chosen.diversity)
    hits = tuple(_hit(found, asked, how) for found in offered)
    if chosen.rerank and hits:
        hits = reranked(asked.text, hits, chosen.rerank)
    used: dict[str, str | float] = {"compared": how, "refusal": "off: the nearest pictures, however far"}
    used["space"] = str(store.space)
    candidates = tuple(candidate_of(found, states) for found in order)
    if hits:
        return SearchResult(query=asked.text, hits=hits[:top_k], candidates=candidates, settings=used)
    for found in order[:5]:
        found.state = found.state or state_of(found.asset)
    refusal = Refusal(
        query=asked.text,
        reasons=reasons_for(order, knowledge_base, states) or ("The reranker left out every picture.",),
        candidates=tuple(_hit(found, asked, how) for found in order[:5]),
    )
    return SearchResult(query=asked.text, refusal=refusal, candidates=candidates, settings=used)


def _hit(found: Found, asked: Asked, how: str) -> Hit:
    hit = hit_of(found, asked)
    meaning = f"meaning {found.cosine or 0.0:.2f} ({ordinal(found.dense_rank or 0)})"
    return evolve(
        hit, why=hit.why.replace(meaning, f"{how} alike {found.cosine or 0.0:.2f} ({ordinal(found.dense_rank or 0)})")
    )


def _vector_of(picture: VectorRecord | bytes, media_type: str, embedder: Embedder | None) -> tuple[Vector, str]:
    """What to look with, and what it is made of: `pixels` or `captions`."""
    sees = embedder is not None and "image" in embedder.modalities
    if isinstance(picture, VectorRecord):
        if picture.vector is not None:
            return picture.vector, "pixels" if sees else "captions"
        raise _refused(
            f"The picture '{picture.key}' has no vector to compare it by: "
            + ("it has no caption." if embedder is not None else "this knowledge base is searched by words only."),
            "give it a caption and ingest it again, or search by words",
        )
    if embedder is None or not sees:
        raise _refused(
            "This knowledge base cannot look at pictures: its embedder takes text only."
            if embedder is not None
            else "This knowledge base cannot look at pictures: it is searched by words only.",
            "search by words, name a picture of the knowledge base by its id, or configure an embedder for pictures",
        )
    ref = MediaRef(sha256=hashlib.sha256(picture).hexdigest(), media_type=media_type, size_bytes=len(picture))

    def opened(_: MediaRef) -> BinaryIO:
        return BytesIO(picture)

    return embedder.embed([Item(kind="image", media=ref)], "query", opened)[0], "pixels"


def _refused(message: str, hint: str) -> UnsupportedRequestError:
    return UnsupportedRequestError(
        message, problems=[Problem(kind="refused", field="picture", message=message)], hint=hint
    )
