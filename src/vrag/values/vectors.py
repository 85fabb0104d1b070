"""Embedding spaces, the rows of a vector store, filters, and what a search answers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import cmp_using, field, frozen, validators
from typing_extensions import override

from vrag.errors import UsageError
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, ReviewState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
else:
    Vector = Any

__all__ = [
    "ASSET_FIELDS",
    "AllOf",
    "AnyOf",
    "Between",
    "Candidate",
    "EmbeddingSpace",
    "FieldKind",
    "Filter",
    "Hit",
    "Is",
    "IsIn",
    "Item",
    "Match",
    "Not",
    "Purpose",
    "Receipt",
    "Refusal",
    "SearchResult",
    "VectorQuery",
    "VectorRecord",
    "check_filter",
]

Purpose = Literal["index", "query"]
"""Some models embed a stored item and a question differently."""


@frozen(kw_only=True)
class EmbeddingSpace:
    """Which numbers may be compared: equal spaces, and no others."""

    model: str
    revision: str
    dimension: int = field(validator=validators.ge(1))
    preprocessing: str
    """Names what is done to the input before the model, such as `lower-strip/1`."""

    @override
    def __str__(self) -> str:
        return f"{self.model}@{self.revision} ({self.dimension} dimensions, {self.preprocessing})"


@frozen(kw_only=True)
class Item:
    """One thing to embed."""

    kind: str
    """`text`, `image` or a kind that a later embedder knows; an unknown kind is refused at run time."""
    text: str | None = None
    media: MediaRef | None = None


class FieldKind(StrEnum):
    """How a field of a record is compared."""

    KEYWORD = "keyword"
    """Exact text; a tuple of texts matches if one of them does."""
    NUMBER = "number"
    """Integer or float."""
    TIME = "time"
    """RFC 3339 UTC text of `vrag.clock.rfc3339`, which sorts in order of time."""


ASSET_FIELDS: Final[Mapping[str, FieldKind]] = MappingProxyType(
    {
        "tags": FieldKind.KEYWORD,
        "media_type": FieldKind.KEYWORD,
        "orientation": FieldKind.KEYWORD,
        "licence": FieldKind.KEYWORD,
        "holder": FieldKind.KEYWORD,
        "expires_on": FieldKind.TIME,
        "review": FieldKind.KEYWORD,
        "width_px": FieldKind.NUMBER,
        "height_px": FieldKind.NUMBER,
        "size_bytes": FieldKind.NUMBER,
        "ingested_at": FieldKind.TIME,
        "fingerprint": FieldKind.KEYWORD,
        "source": FieldKind.KEYWORD,
    }
)
"""The fields of an asset that filters may name. `review` is a hint: the gate reads the reviews themselves.

`fingerprint` is what it looks like (`vrag.media.fingerprint`); `source` the ids of the places it was seen in.
"""


@frozen(kw_only=True)
class Is:
    """The field has this value (or holds it, where it has several). False where the field is absent."""

    field: str
    value: str | float


@frozen(kw_only=True)
class IsIn:
    """The field has (or holds) one of these values; no values match nothing."""

    field: str
    values: tuple[str | float, ...]


@frozen(kw_only=True)
class Between:
    """`low <= field <= high`; None is open. For numbers and times. False where the field is absent."""

    field: str
    low: str | float | None = None
    high: str | float | None = None


@frozen
class AllOf:
    """Every one holds; `AllOf(())` holds."""

    all_of: tuple[Filter, ...]


@frozen
class AnyOf:
    """At least one holds; `AnyOf(())` does not."""

    any_of: tuple[Filter, ...]


@frozen
class Not:
    """The other one does not hold."""

    negated: Filter


Filter = Is | IsIn | Between | AllOf | AnyOf | Not
"""A structure, never a string (its JSON differs by field names): no query language of a backend can be reached through it."""


def check_filter(condition: object, fields: Mapping[str, FieldKind] = ASSET_FIELDS, *, depth: int = 0) -> None:
    """Refuse a filter that names a field outside `fields`, or compares it with a value of the wrong type.

    Raises:
        UsageError: With the field, the value and what is allowed.
    """
    if depth > 16:
        raise UsageError("A filter nests at most 16 levels.")
    match condition:
        case AllOf(all_of=parts) | AnyOf(any_of=parts):
            # An iterator would be empty by the time that a store reads it, and the filter would let everything through.
            if not isinstance(parts, tuple) or len(parts) > 500:
                shown = f"{len(parts)} of them" if isinstance(parts, tuple) else f"a {type(parts).__name__}"
                raise UsageError(f"The parts of a filter are a tuple of at most 500, not {shown}.")
            for part in parts:
                check_filter(part, fields, depth=depth + 1)
        case Not(negated=part):
            check_filter(part, fields, depth=depth + 1)
        case Is(field=name, value=value):
            _check_values(name, (value,), fields)
        case IsIn(field=name, values=values):
            _check_values(name, values, fields)
        case Between(field=name, low=low, high=high):
            if _check_values(name, tuple(v for v in (low, high) if v is not None), fields) is FieldKind.KEYWORD:
                raise UsageError(f"The field '{name}' holds words: compare it with Is or IsIn, not Between.")
        case _:
            raise UsageError(f"A filter is Is, IsIn, Between, AllOf, AnyOf or Not, not a {type(condition).__name__}.")


def _check_values(name: object, values: object, fields: Mapping[str, FieldKind]) -> FieldKind:
    if not isinstance(name, str) or name not in fields:
        shown = f"'{name[:80]}'" if isinstance(name, str) else f"a {type(name).__name__}"
        raise UsageError(f"No field {shown} to filter by; there are: {', '.join(sorted(fields))}.")
    if not isinstance(values, tuple):
        raise UsageError(f"The values for '{name}' are a tuple, not a {type(values).__name__}.")
    kind = fields[name]
    for value in values:
        fits = (
            isinstance(value, int | float) and not isinstance(value, bool)
            if kind is FieldKind.NUMBER
            else isinstance(value, str)
        )
        if not fits:
            raise UsageError(f"The field '{name}' is compared with a {kind} value, not with a {type(value).__name__}.")
    return kind


@frozen(kw_only=True)
class VectorRecord:
    """One row of a vector store."""

    key: str = field(validator=[validators.min_len(1), validators.max_len(512)])
    vector: Vector | None = field(default=None, eq=cmp_using(eq=lambda a, b: a is b or _same(a, b)), repr=False)
    """Unit length, float32, `space.dimension` numbers; None for a row that only words can find."""
    text: str = ""
    """The words to find it by; empty is found by no word."""
    fields: Mapping[str, str | float | tuple[str, ...]] = field(factory=dict)
    """Filterable values; names are those of the store's allow-list, absent ones left out."""
    payload: str = "{}"
    """Canonical JSON that comes back unchanged; the store never reads it."""


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    return bool(a.shape == b.shape and (a == b).all())


@frozen(kw_only=True)
class VectorQuery:
    """What to look for: a vector, words, or both. Each gets its own ranking."""

    vector: Vector | None = field(default=None, eq=cmp_using(eq=lambda a, b: a is b or _same(a, b)), repr=False)
    words: str | None = None
    """Plain text of a person; never a query language."""
    top_k: int = field(default=10, validator=[validators.ge(1), validators.le(10_000)])
    """At most this many by vector and this many by words."""
    filter: Filter | None = None
    space: EmbeddingSpace | None = None
    """The space of `vector`; a store of another one refuses."""


@frozen(kw_only=True)
class Match:
    """A record that a store found: by its vector, by its words, or by both."""

    key: str
    cosine: float | None = None
    """Cosine similarity -1..1; None where the vector search did not return it."""
    word_rank: int | None = None
    """1 for the best by words; None where the word search did not return it."""


@frozen(kw_only=True)
class Receipt:
    """What a write was given; `VectorStore.settled` tells whether searches see it already."""

    id: str
    count: int
    """Rows written or deleted."""


@frozen(kw_only=True)
class Hit:
    """An asset that answers a query, with why."""

    asset: Asset
    review: ReviewState
    cosine: float | None = None
    word_rank: int | None = None
    fused_score: float
    """Reciprocal rank fusion: larger is better; comparable only inside one answer."""
    why: str
    """One line for a person, such as "words: dog, ball; meaning 0.61 (2nd)"."""
    matched_words: tuple[str, ...] = ()


@frozen(kw_only=True)
class Candidate:
    """What a record keeps of each picture that was considered."""

    asset_id: str
    cosine: float | None = None
    word_rank: int | None = None
    fused_score: float | None = None
    chosen: bool = False
    excluded: str | None = None
    """Why it could not be used, such as "review state proposed"; None for one that could."""


@frozen(kw_only=True)
class Refusal:
    """An answer too: "no suitable picture", with its reasons and the best that there was."""

    query: str
    reasons: tuple[str, ...]
    candidates: tuple[Hit, ...] = ()
    """Best first, usable or not: what a person would look at to judge the refusal."""


@frozen(kw_only=True)
class SearchResult:
    """What retrieval answers: hits, best first, or a refusal; never both."""

    query: str
    hits: tuple[Hit, ...] = ()
    refusal: Refusal | None = None
    candidates: tuple[Candidate, ...] = ()
    """All that were considered, excluded ones too, for the record."""
    settings: Mapping[str, str | float] = field(factory=dict)
    """What the ranking and the refusal were computed with: fusion, thresholds, embedding space."""
