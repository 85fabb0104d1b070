"""An index of ours: its mapping, and how one tells whether it is the one that is meant.

Sources: OpenSearch documentation "k-NN vector", "Methods and engines" and "Similarity" (2.19), Amazon OpenSearch
Serverless "Working with vector search collections" (read 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import asdict

from vrag.backends.local.word_index import WORDS_FORMAT
from vrag.errors import FormatVersionError, SpaceMismatchError, UsageError
from vrag.values.canonical import JSON
from vrag.values.vectors import EmbeddingSpace, FieldKind

__all__ = ["Engine", "Flavour", "check_meta", "field_types", "index_body", "space_type", "stored_space"]

Engine = Literal["lucene", "faiss"]
Flavour = Literal["managed", "serverless-classic", "serverless-next"]
"""A domain or a cluster of one's own; OpenSearch Serverless of the first and of the second generation."""

FORMAT: Final = 1
"""Raised when the shape of documents changes; it is stored in the mapping's `_meta`."""

_SIMILARITY: Final = (
    "double idf = Math.max(1e-6, Math.log((field.docCount - term.docFreq + 0.5) / (term.docFreq + 0.5)));"
    " double mean = (double) field.sumTotalTermFreq / field.docCount;"
    " double f = query.boost * doc.freq;"
    " return idf * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * doc.length / mean));"
)
"""BM25 as SQLite's FTS5 counts it, for equal ranks (sqlite.org/fts5.html#the_bm25_function, checked 2026-11-20).

Lucene's own takes another logarithm: there a word of more than half of the rows still counts, here it hardly does. A
weight is on how often a word occurs, as the weight of a column is there.
"""


def space_type(flavour: Flavour) -> str:
    """How vectors are compared. Classic collections promise no `cosinesimil`; of unit vectors both are the same."""
    return "innerproduct" if flavour == "serverless-classic" else "cosinesimil"


def index_body(
    space: EmbeddingSpace | None,
    fields: Mapping[str, FieldKind],
    *,
    engine: Engine,
    flavour: Flavour,
    shards: int,
    replicas: int,
) -> dict[str, JSON]:
    """The body of `PUT /index`. Nothing is left to a default of the service: these differ by version."""
    managed = flavour == "managed"
    similarity: dict[str, JSON] = {"similarity": "vrag"} if managed else {}  # Serverless runs no scripts
    properties: dict[str, JSON] = {
        "key": {"type": "keyword"},
        "write": {"type": "keyword"},
        "words": {"type": "text", "analyzer": "vrag_words", **similarity},
        "fields": {"properties": {name: {"type": kind} for name, kind in field_types(fields).items()}},
        # What is read back, exactly as it was given; it is not indexed.
        "record": {"type": "object", "enabled": False},
    }
    if space is not None:
        vector: dict[str, JSON] = {"type": "knn_vector", "dimension": space.dimension}
        if flavour == "serverless-next":
            vector |= {"space_type": space_type(flavour)}
        else:
            vector["method"] = {
                "name": "hnsw",
                "engine": engine,
                "space_type": space_type(flavour),
                "parameters": {"m": 16, "ef_construction": 128},
            }
        properties["vector"] = vector
    index: dict[str, JSON] = {"knn": space is not None}
    if managed:
        index |= {
            "number_of_shards": shards,
            "number_of_replicas": replicas,
            "similarity": {"vrag": {"type": "scripted", "script": {"lang": "painless", "source": _SIMILARITY}}},
        }
    return {
        "settings": {
            "index": index,
            "analysis": {
                "analyzer": {"vrag_words": {"type": "custom", "tokenizer": "whitespace", "filter": ["porter_stem"]}}
            },
        },
        "mappings": {"dynamic": "strict", "_meta": {"vrag": meta(space)}, "properties": properties},
    }


def field_types(fields: Mapping[str, FieldKind]) -> dict[str, str]:
    """Times are keywords: RFC 3339 text sorts in order of time, to the microsecond, as it does in the local store."""
    return {name: "double" if kind is FieldKind.NUMBER else "keyword" for name, kind in fields.items()}


def meta(space: EmbeddingSpace | None) -> dict[str, JSON]:
    """What an index says of itself."""
    return {"format": FORMAT, "words_format": WORDS_FORMAT, "space": None if space is None else asdict(space)}


def check_meta(found: Mapping[str, Any], space: EmbeddingSpace | None, index: str) -> None:
    """Refuse an index that is not ours, of another format, or of another space.

    Raises:
        UsageError: The index was not made by this library.
        FormatVersionError: Another release made it.
        SpaceMismatchError: It holds vectors of another space.
    """
    said = found.get("vrag")
    if not isinstance(said, Mapping):
        raise UsageError(f"The index '{index}' was not made by vrag.", hint="name an index that does not exist yet")
    for name, ours in (("format", FORMAT), ("words_format", WORDS_FORMAT)):
        if said.get(name) != ours:
            newer = isinstance(said.get(name), int) and said[name] > ours
            raise FormatVersionError(
                f"The index '{index}' has {name} {said.get(name)}; this release reads {ours}.",
                hint="pip install --upgrade vrag" if newer else "ingest again into a new index, then switch the alias",
            )
    if said.get("space") != meta(space)["space"]:
        stored = said.get("space")
        shown = EmbeddingSpace(**stored) if isinstance(stored, Mapping) else "words only"
        raise SpaceMismatchError(
            f"The index '{index}' was made for {shown}, not for {space or 'words only'}.",
            hint="vrag kb reindex --kb NAME, or configure the embedder that it was made with",
        )


def stored_space(found: Mapping[str, Any], index: str) -> EmbeddingSpace | None:
    """The space that an index was made for, from its `_meta`; None for words only.

    Raises:
        UsageError: The index was not made by this library.
    """
    said = found.get("vrag")
    if not isinstance(said, Mapping):
        raise UsageError(f"The index '{index}' was not made by vrag.", hint="name an index that does not exist yet")
    stored = said.get("space")
    return EmbeddingSpace(**stored) if isinstance(stored, Mapping) else None
