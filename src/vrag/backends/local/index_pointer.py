"""Which index of a knowledge base is in use: one small file, replaced whole, and nothing else decides it.

```text
index/               the first index lies in the folder itself
index/gen-2/         those that took its place lie in folders below
index/active.json    names the one in use; absent means the first
```
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from vrag.errors import BackendError, FormatVersionError
from vrag.media.files import write_new
from vrag.values.canonical import canonical_json

__all__ = ["active_folder", "active_number", "folder_of", "is_replaced", "set_active"]

_FORMAT: Final = 1
_NAME: Final = "active.json"
_BELOW: Final = re.compile(r"gen-([1-9][0-9]{0,5})")


def active_folder(root: Path) -> Path:
    """Where the index in use lies.

    Raises:
        BackendError: The pointer cannot be read.
        FormatVersionError: A newer release wrote it.
    """
    return folder_of(root, active_number(root))


def folder_of(root: Path, number: int) -> Path:
    """Where the index of this number lies; 1 is the first."""
    return root if number == 1 else root / f"gen-{number}"


def active_number(root: Path) -> int:
    """The number of the index in use; 1 where nothing has ever taken the place of the first."""
    try:
        data = (root / _NAME).read_bytes()
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise _unreadable(root) from error
    try:
        document = json.loads(data)
        version, number = document["format"], document["number"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(root) from error
    if isinstance(version, int) and version > _FORMAT:
        raise FormatVersionError(
            f"'{root / _NAME}' has format {version}; this release reads up to {_FORMAT}.",
            hint="pip install --upgrade vrag",
        )
    if version != _FORMAT or not isinstance(number, int) or not 1 <= number < 1_000_000:
        raise _unreadable(root)
    return number


def set_active(root: Path, number: int) -> None:
    """Make the index of this number the one in use, for everybody and at once."""
    write_new(root / _NAME, [canonical_json({"format": _FORMAT, "number": number})], overwrite=True)


def is_replaced(folder: Path) -> bool:
    """Whether another index has taken the place of the one in `folder`; one that is still being made has not."""
    below = _BELOW.fullmatch(folder.name)
    root, number = (folder.parent, int(below[1])) if below else (folder, 1)
    return active_number(root) > number


def _unreadable(root: Path) -> BackendError:
    return BackendError(
        f"'{root / _NAME}' cannot be read; it names the index in use.",
        backend="local",
        operation="open",
        hint="restore it from a copy, or ingest again into a new knowledge base",
    )
