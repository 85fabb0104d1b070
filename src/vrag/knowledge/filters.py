"""Filters as people type them: `tag=dog`, `width_px>=1280`, `licence=CC0-1.0|CC-BY-4.0`, `review!=rejected`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from vrag.clock import rfc3339
from vrag.errors import UsageError
from vrag.values.vectors import ASSET_FIELDS, AllOf, Between, FieldKind, Filter, Is, IsIn, Not

__all__ = ["parse_filters"]

_ALIASES: Final = {
    "tag": "tags",
    "type": "media_type",
    "width": "width_px",
    "height": "height_px",
    "size": "size_bytes",
}
_TERM: Final = re.compile(r"\s*([A-Za-z_]+)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAYS: Final = frozenset({"expires_on"})
"""Times that are stored as a day."""
_EXAMPLE: Final = "such as tag=dog, width_px>=1280, orientation=landscape or expires_on>=2027-01-01"


def parse_filters(terms: Iterable[str]) -> Filter | None:
    """All of `terms` as one filter; None for no terms.

    A term is a field, an operator (`=`, `!=`, and `>=`, `<=`, `>`, `<` for numbers and times) and a value; `a|b` after
    `=` or `!=` is one of several. A time is a day (`2026-11-20`, in UTC) or a moment (`2026-11-20T08:00:00Z`). `!=` also
    finds pictures without that field.

    Raises:
        UsageError: A term is none, names a field that there is not, or its value does not fit the field.
    """
    parsed = tuple(_parsed(term) for term in terms)
    if not parsed:
        return None
    return parsed[0] if len(parsed) == 1 else AllOf(parsed)


def _parsed(term: object) -> Filter:
    found = _TERM.fullmatch(term) if isinstance(term, str) else None
    if found is None or not found[3]:
        shown = f"'{term[:80]}'" if isinstance(term, str) else f"a {type(term).__name__}"
        raise UsageError(f"A filter is a field, one of = != >= <= > <, and a value, not {shown}.", hint=_EXAMPLE)
    given, operator, text = found.groups()
    name = _ALIASES.get(given, given)
    if name not in ASSET_FIELDS:
        allowed = ", ".join(sorted({*ASSET_FIELDS, *_ALIASES}))
        raise UsageError(f"No field '{given[:80]}' to filter by; there are: {allowed}.", hint=_EXAMPLE)
    kind = ASSET_FIELDS[name]
    if operator in {"=", "!="}:
        parts = [part for part in (part.strip() for part in text.split("|")) if part]
        if not parts:
            raise UsageError(f"The filter '{name}{operator}' has no value.", hint=_EXAMPLE)
        if kind is FieldKind.TIME:
            if len(parts) > 1:
                raise UsageError(f"Compare '{name}' with one time.", hint=_EXAMPLE)
            equal: Filter = Between(field=name, low=_first(name, parts[0]), high=_last(name, parts[0]))
        else:
            values = [_number(name, part) if kind is FieldKind.NUMBER else part for part in parts]
            equal = Is(field=name, value=values[0]) if len(values) == 1 else IsIn(field=name, values=tuple(values))
        return equal if operator == "=" else Not(equal)
    if kind is FieldKind.KEYWORD:
        raise UsageError(
            f"The field '{name}' holds words: compare it with = or !=, not with {operator}.", hint=_EXAMPLE
        )
    low: str | float
    high: str | float
    if kind is FieldKind.NUMBER:
        low = high = _number(name, text)
    else:
        low, high = _first(name, text), _last(name, text)
    match operator:
        case ">=":
            return Between(field=name, low=low)
        case "<=":
            return Between(field=name, high=high)
        case ">":
            return AllOf((Between(field=name), Not(Between(field=name, high=high))))
        case _:
            return AllOf((Between(field=name), Not(Between(field=name, low=low))))


def _number(name: str, text: str) -> float:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"The field '{name}' is compared with a number, not with '{text[:80]}'.", hint=_EXAMPLE)
    return int(number) if number.is_integer() else number


def _moment(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"The field '{name}' is compared with a day or a time, not with '{text[:80]}'.", hint=_EXAMPLE
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _first(name: str, text: str) -> str:
    """The first value that this day, or this moment, is written as."""
    moment = _moment(name, text)
    return moment.date().isoformat() if name in _DAYS else rfc3339(moment)


def _last(name: str, text: str) -> str:
    """The last one: `2026-11-20` ends with that day."""
    moment = _moment(name, text)
    if name in _DAYS:
        return moment.date().isoformat()
    return rfc3339(moment + timedelta(days=1, microseconds=-1)) if _DAY.fullmatch(text) else rfc3339(moment)
