"""Whose storage and whose index this is: a knowledge base refuses the parts of another one."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Final

from vrag.errors import AlreadyExistsError, FormatVersionError, NotFoundError, UsageError
from vrag.interfaces import Storage, VectorStore
from vrag.values.canonical import canonical_json

__all__ = ["check_owner"]

_FORMAT: Final = 1
_LABEL: Final = "knowledge-base.json"


def check_owner(name: str, *, store: VectorStore, storage: Storage, claim: bool) -> bool:
    """Whether the storage is marked as that of `name`; with `claim` it is marked, if it is nobody's yet.

    Raises:
        UsageError: The storage or the index belongs to another knowledge base.
        FormatVersionError: A newer release made it.
    """
    first = next(iter(store.scan()), None)
    if first is not None and not first.key.startswith(f"{name}/"):
        raise _foreign(name, "index", first.key.partition("/")[0])
    owner = _owner(name, storage)
    if owner is None:
        if not claim:
            return False
        try:
            storage.put_named(_LABEL, BytesIO(canonical_json({"format": _FORMAT, "name": name})))
        except AlreadyExistsError:
            owner = _owner(name, storage)  # another process was quicker
        else:
            owner = name
    if owner != name:
        raise _foreign(name, "storage", owner or "")
    return True


def _owner(name: str, storage: Storage) -> str | None:
    try:
        with storage.open(_LABEL) as stream:
            document = json.loads(stream.read(4096))
        version, owner = document["format"], document["name"]
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"The document '{_LABEL}' in the storage of '{name}' cannot be read.",
            hint="restore it from a backup, or use another folder",
        ) from None
    if isinstance(version, int) and version > _FORMAT:
        raise FormatVersionError(
            f"The knowledge base '{name}' has format {version}; this release reads up to {_FORMAT}.",
            hint="pip install --upgrade vrag",
        )
    return str(owner)


def _foreign(name: str, what: str, owner: str) -> UsageError:
    return UsageError(
        f"The {what} given to the knowledge base '{name}' belongs to '{owner[:63]}'.",
        hint=f"give '{name}' its own folder or bucket",
    )
