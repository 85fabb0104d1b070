"""What is said to OpenSearch and what its answers mean: pure functions between our values and JSON.

Sources: OpenSearch documentation "k-NN query", "Spaces" and "Exact k-NN with scoring script" (2.19; read 2026-11-20).
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vrag.backends.local.word_index import indexed_words, match_expressions
from vrag.errors import SpaceMismatchError, UsageError
from vrag.values.canonical import JSON
from vrag.values.vectors import (
    AllOf,
    AnyOf,
    Between,
    EmbeddingSpace,
    FieldKind,
    Filter,
    Is,
    IsIn,
    Not,
    VectorRecord,
    check_filter,
)

__all__ = [
    "checked_vector",
    "cosine_of",
    "document",
    "document_id",
    "filter_clause",
    "nearest_body",
    "record_of",
    "scored_body",
    "word_bodies",
]

MAX_ID_BYTES: Final = 512
MAX_KEYWORD_BYTES: Final = 32_766
MAX_FILTER_VALUES: Final = 10_000
MAX_FILTER_CLAUSES: Final = 1_000
"""Lucene takes 1 024 clauses in one query; ours need a few more than the filter's."""

_LETTER_WEIGHT: Final = 0.3
_TERM: Final = re.compile(r'(text|letters) : "([^"]*)"')
_LETTER: Final = "~"
"""Stands before a single letter in the field `words`; no word of folded text begins with it."""


def document_id(key: str) -> str:
    """The `_id` of a row: its key, or a digest of one that is longer than the 512 bytes of an `_id`."""
    data = key.encode()
    if len(data) <= MAX_ID_BYTES and not key.startswith("sha256:"):
        return key
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(
    record: VectorRecord, space: EmbeddingSpace | None, fields: Mapping[str, FieldKind], write: str
) -> dict[str, JSON]:
    """A row as it is stored. The vector is there twice: scaled to unit length to be searched, and as it was given.

    Raises:
        UsageError: A value of the record is not possible.
        SpaceMismatchError: It has a vector, and there is no space.
    """
    for what, text in (("key", record.key), ("text", record.text), ("payload", record.payload)):
        if not _is_text(text):
            raise UsageError(f"The {what} of {record.key!a} is not text that can be written as UTF-8.")
    stored: dict[str, Any] = {"text": record.text, "payload": record.payload, "fields": {}}
    indexed: dict[str, Any] = {}
    for name, value in record.fields.items():
        several = value if isinstance(value, tuple) else (value,)
        check_filter(IsIn(field=name, values=several), fields)
        if isinstance(value, tuple) and fields[name] is not FieldKind.KEYWORD:
            raise UsageError(f"The field '{name}' of {record.key!a} takes one value, not several.")
        for one in several:
            if not _is_storable(one):
                raise UsageError(f"The field '{name}' of {record.key!a} cannot hold {str(one)[:80]!a}.")
        stored["fields"][name] = indexed[name] = list(value) if isinstance(value, tuple) else value
    words, letters = indexed_words(record.text)
    body: dict[str, Any] = {"key": record.key, "write": write, "fields": indexed, "record": stored}
    if words or letters:
        body["words"] = " ".join([*words.split(), *(_LETTER + letter for letter in letters.split())])
    if record.vector is not None:
        vector = checked_vector(record.vector, space, f"The vector of {record.key!a}")
        stored["vector"] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        body["vector"] = unit(vector)
    return body


def record_of(source: Mapping[str, Any]) -> VectorRecord:
    """The row that `document` made `source` from."""
    stored = source["record"]
    vector = stored.get("vector")
    return VectorRecord(
        key=source["key"],
        vector=None if vector is None else np.frombuffer(base64.b64decode(vector), "<f4").astype(np.float32),
        text=stored["text"],
        fields={name: tuple(value) if isinstance(value, list) else value for name, value in stored["fields"].items()},
        payload=stored["payload"],
    )


def checked_vector(vector: object, space: EmbeddingSpace | None, what: str) -> NDArray[np.float32]:
    """The vector as float32; `UsageError` or `SpaceMismatchError` for one that does not fit the space."""
    if space is None:
        raise SpaceMismatchError(
            f"{what} cannot be used: the index has no embedding space, only words find its rows.",
            hint="open a new index with the space of your embedder",
        )
    array = np.asarray(vector)
    if array.shape != (space.dimension,) or array.dtype.kind not in "fiu":
        raise UsageError(
            f"{what} has shape {array.shape} and type {array.dtype}; the space {space} takes shape "
            f"({space.dimension},) of float32."
        )
    single = array.astype(np.float32)
    length = float(np.linalg.norm(single.astype(np.float64)))
    if not abs(length - 1) <= 1e-3:  # not "> 1e-3": a NaN must fail too
        raise UsageError(f"{what} has the length {length:.6g}; it must be 1 (to 0.001): divide it by its length.")
    return single


def unit(vector: NDArray[np.float32]) -> list[float]:
    """Numbers of exactly unit length, to float32."""
    double = vector.astype(np.float64)
    return [float(number) for number in (double / np.linalg.norm(double)).astype(np.float32)]


def filter_clause(condition: Filter | None, fields: Mapping[str, FieldKind]) -> dict[str, JSON] | None:
    """A filter as a query clause; None for no filter.

    Raises:
        UsageError: A field is not in `fields`, a value does not fit its field, or there are too many of them.
    """
    if condition is None:
        return None
    check_filter(condition, fields)
    counts = {"values": 0, "clauses": 0}
    clause = _clause(condition, counts)
    if counts["values"] > MAX_FILTER_VALUES or counts["clauses"] > MAX_FILTER_CLAUSES:
        raise UsageError(
            f"A filter has at most {MAX_FILTER_CLAUSES} conditions with {MAX_FILTER_VALUES} values, not "
            f"{counts['clauses']} with {counts['values']}.",
            hint="use one IsIn instead of many Is",
        )
    return clause


_NONE: Final[dict[str, JSON]] = {"match_none": {}}


def _clause(condition: Filter, counts: dict[str, int]) -> dict[str, JSON]:
    counts["clauses"] += 1
    match condition:
        case AllOf(all_of=parts):
            return {"bool": {"filter": [_clause(part, counts) for part in parts]}} if parts else {"match_all": {}}
        case AnyOf(any_of=parts):
            # `minimum_should_match` is said: beside a filter its default would be 0.
            some: list[JSON] = [_clause(part, counts) for part in parts]
            return {"bool": {"should": some, "minimum_should_match": 1}} if some else _NONE
        case Not(negated=part):
            return {"bool": {"must_not": [_clause(part, counts)]}}
        case Is(field=name, value=value):
            return _terms(name, (value,), counts)
        case IsIn(field=name, values=values):
            return _terms(name, values, counts)
        case Between(field=name, low=low, high=high):
            counts["values"] += 2
            bounds: dict[str, JSON] = {}
            for operator, bound, open_end in (("gte", low, -math.inf), ("lte", high, math.inf)):
                number = bound if bound is None or isinstance(bound, str) else _double(bound)
                if isinstance(number, str):
                    _refuse_surrogates(number)
                elif number is None or number == open_end:
                    continue
                elif not math.isfinite(number):
                    return _NONE
                bounds[operator] = number
            return {"range": {f"fields.{name}": bounds}} if bounds else {"exists": {"field": f"fields.{name}"}}


def _terms(name: str, values: Sequence[str | float], counts: dict[str, int]) -> dict[str, JSON]:
    counts["values"] += len(values)
    wanted: list[JSON] = []
    for value in values:
        one = value if isinstance(value, str) else _double(value)
        if isinstance(one, str):
            _refuse_surrogates(one)
        elif not math.isfinite(one):
            continue  # no row holds it
        wanted.append(one)
    return {"terms": {f"fields.{name}": wanted}} if wanted else _NONE


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _refuse_surrogates(text: str) -> None:
    if not _is_text(text):
        raise UsageError("A value of the filter is not text that can be written as UTF-8.")


def scored_body(vector: NDArray[np.float32], top_k: int, clause: dict[str, JSON] | None) -> dict[str, JSON]:
    """An exact search: every row that fulfils the filter is compared.

    By inner product, which is the cosine of unit vectors: what the script gives for `cosinesimil` changed with 2.19,
    from 1 + cos to (1 + cos) / 2 (seen on a node of 2.19.1, 2026-11-20).
    """
    among: list[JSON] = [{"exists": {"field": "vector"}}, *([clause] if clause else [])]
    script: JSON = {
        "lang": "knn",
        "source": "knn_score",
        "params": {"field": "vector", "query_value": unit(vector), "space_type": "innerproduct"},
    }
    return _ranked({"script_score": {"query": {"bool": {"filter": among}}, "script": script}}, top_k)


def nearest_body(
    vector: NDArray[np.float32], top_k: int, clause: dict[str, JSON] | None, *, candidates: int
) -> dict[str, JSON]:
    """A search of the graph, with the filter inside; `candidates` are looked at and the best `top_k` returned."""
    wanted: dict[str, JSON] = {"vector": unit(vector), "k": min(10_000, max(top_k, candidates))}
    if clause is not None:
        wanted["filter"] = clause
    return _ranked({"knn": {"vector": wanted}}, top_k)


def cosine_of(score: float, compared_by: str) -> float:
    """The cosine behind a score: (1 + cos) / 2 for `cosinesimil`; for `innerproduct` 1 + p from 0 on, 1 / (1 - p) below.

    Args:
        score: Of a hit; 0 only for `cosinesimil`.
        compared_by: What `space_type` says of a graph, or `innerproduct` for `scored_body`.
    """
    if compared_by == "cosinesimil":
        return max(-1.0, min(1.0, 2 * score - 1))
    return min(1.0, score - 1) if score >= 1 else max(-1.0, 1 - 1 / score)


def word_bodies(words: str, top_k: int, clause: dict[str, JSON] | None) -> list[dict[str, JSON]]:
    """Searches for a person's words, strictest first; none finds what one before it finds.

    The words are those that the local store looks for, cut by the same code: see `vrag.backends.local.word_index`.
    """
    tiers = [_tier(expression) for expression in match_expressions(words)]
    bodies = []
    for number, tier in enumerate(tiers):
        query: dict[str, JSON] = {**tier, "must_not": [{"bool": before} for before in tiers[:number]]}
        if clause is not None:
            query["filter"] = [clause]
        bodies.append(_ranked({"bool": query}, top_k))
    return bodies


def _tier(expression: str) -> dict[str, JSON]:
    """`text : "red" AND letters : "犬"` as the inside of a `bool` query; the quotes hold letters and digits only."""
    clauses: list[JSON] = []
    for column, text in _TERM.findall(expression):
        phrase: dict[str, JSON] = {"query": text}
        if column == "letters":
            phrase = {"query": _LETTER + text, "boost": _LETTER_WEIGHT}
        clauses.append({"match_phrase": {"words": phrase}})
    if '" OR ' in expression:
        return {"should": clauses, "minimum_should_match": 1}
    return {"must": clauses}


def _ranked(query: dict[str, JSON], top_k: int) -> dict[str, JSON]:
    """Best first, equal ones by key; the key of a hit is its second sort value, so nothing else is read."""
    order: list[JSON] = [{"_score": "desc"}, {"key": "asc"}]
    return {"size": top_k, "_source": False, "track_total_hits": False, "query": query, "sort": order}


def _is_storable(value: str | float) -> bool:
    if isinstance(value, str):
        return _is_text(value) and len(value.encode()) <= MAX_KEYWORD_BYTES
    return math.isfinite(_double(value))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
