"""Values to canonical JSON and back: one encoding for ids, rows, records and files.

`cattrs` reads and writes the attrs values; `rfc8785` (JSON Canonicalization Scheme) makes the bytes that are hashed.
Both are imported on use, because `import vrag` must stay cheap.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from vrag.errors import UsageError

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["JSON", "canonical_json", "digest_json", "from_json", "to_json"]

ValueT = TypeVar("ValueT")
JSON = Any
"""What `json` reads and writes: None, bool, int, float, str, list, dict with str keys."""


@cache
def _converter() -> Converter:
    from cattrs.preconf.json import make_converter  # noqa: PLC0415  # costs more than all of `import vrag`

    return make_converter(forbid_extra_keys=True, omit_if_default=True)


def to_json(value: object) -> JSON:
    """An attrs value as JSON: defaults left out, tuples as lists, so that a new optional field changes no old digest."""
    return _converter().unstructure(value)


def from_json(kind: type[ValueT], data: JSON) -> ValueT:
    """The attrs value that `to_json` wrote.

    Raises:
        UsageError: A key is unknown, missing or of the wrong type.
    """
    try:
        return _converter().structure(data, kind)
    except Exception as error:
        from cattrs import transform_error  # noqa: PLC0415  # as above
        from cattrs.v import format_exception  # noqa: PLC0415  # as above

        def told(one: BaseException, kind: type | None) -> str:
            if isinstance(one, UsageError):
                return one.message
            # What a validator says is better than "invalid value".
            said = one.args[0] if isinstance(one, ValueError) and one.args else None
            return said if isinstance(said, str) else format_exception(one, kind)

        grouped = isinstance(error, ExceptionGroup)
        reasons = "; ".join(transform_error(error, format_exception=told)) if grouped else str(error)
        raise UsageError(f"This is not a {kind.__name__}: {reasons}.") from error


def canonical_json(data: JSON) -> bytes:
    """RFC 8785 bytes of JSON data or of an attrs value.

    Raises:
        UsageError: A number is not finite or is past 2**53 - 1, or a text holds a lone surrogate.
    """
    import rfc8785  # noqa: PLC0415  # as above

    plain = data if isinstance(data, dict | list | str | int | float | bool | None) else to_json(data)
    try:
        return rfc8785.dumps(plain)
    except rfc8785.CanonicalizationError as error:
        raise UsageError(f"This value has no canonical JSON: {error}.") from error


def digest_json(data: JSON) -> str:
    """SHA-256 (hexadecimal) of `canonical_json(data)`."""
    return hashlib.sha256(canonical_json(data)).hexdigest()


def pretty_json(data: JSON) -> str:
    """Indented JSON for people, keys in order, other scripts left readable."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)
