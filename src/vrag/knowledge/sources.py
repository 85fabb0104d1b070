"""Where pictures come from: a folder, a manifest, one file, or the memory of a program that embeds us.

A source is an iterable of `SourcePicture`, and of `NotTaken` for what it will not hand over; it opens no picture itself.
Captions come, in this order, from the manifest, from a sidecar file (`photo.txt`, `photo.json`), from the picture's own
metadata, from its file name; see `caption_of`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vrag.errors import NotFoundError
from vrag.knowledge.manifest import ManifestSource
from vrag.knowledge.ordering import in_order
from vrag.knowledge.source_pictures import (
    NotTaken,
    Source,
    SourcePicture,
    is_below,
    judged_by_suffix,
    opener,
    read_capped,
    sidecar_names,
    source_id,
    with_sidecar,
)
from vrag.media.names import shown

__all__ = [
    "FolderSource",
    "ManifestSource",
    "NotTaken",
    "Source",
    "SourcePicture",
    "judged_by_suffix",
    "open_source",
    "read_capped",
    "sidecar_names",
    "source_id",
    "with_sidecar",
]

_FOLDER: Final = "0"
_FILE: Final = "1"
_MANIFEST_SUFFIXES: Final = frozenset({".csv", ".jsonl", ".ndjson"})


def open_source(source: Path | str | Source) -> Source:
    """A source for a folder, a manifest (`.csv`, `.jsonl`), one picture, or an iterable (which comes back as it is).

    Raises:
        NotFoundError: Nothing is at that path.
    """
    if not isinstance(source, Path | str):
        return source
    path = Path(source)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise NotFoundError(f"There is no folder or file '{shown(str(path))}' to ingest.", hint="check the path")
    if path.suffix.lower() in _MANIFEST_SUFFIXES:
        return ManifestSource(path)
    real = Path(os.path.realpath(path))
    return FolderSource(real.parent, only=real.name)


class FolderSource:
    """Every picture below a folder, sorted by path. Hidden files are left out, and no link leads out of the folder."""

    def __init__(self, root: Path | str, *, only: str | None = None) -> None:
        """For all of `root`, or for the one file `only` in it."""
        self._root = str(Path(root))
        self._only = only

    @property
    def source_id(self) -> str | None:
        """Names the folder in the index, so that pictures that vanish from it can be told; None for one file."""
        return None if self._only is not None else source_id("folder", os.path.realpath(self._root))

    def __len__(self) -> int:
        return sum(isinstance(_judged(self._root, path), str) for path in self._paths([]))

    def __iter__(self) -> Iterator[SourcePicture | NotTaken]:
        problems: list[NotTaken] = []
        for path in self._paths(problems):
            yield from problems
            problems.clear()
            judged = _judged(self._root, path)
            if isinstance(judged, NotTaken):
                yield judged
            elif judged is not None:
                yield _with_sidecar(self._root, judged)
        yield from problems

    def _paths(self, problems: list[NotTaken]) -> Iterator[str]:
        if self._only is not None:
            yield os.path.join(self._root, self._only)  # noqa: PTH118  # as text, see `opener`
            return

        waiting = [self._root]
        while waiting:
            folder = waiting.pop()
            below: list[str] = []
            try:
                for kind, name in _listing(folder):
                    path = os.path.join(folder, name)  # noqa: PTH118  # as text, see `opener`
                    if kind == _FILE or os.path.islink(path):  # noqa: PTH114  # as above
                        yield path
                    elif name != "__MACOSX":
                        below.append(path)
            except OSError as error:
                reason = f"The folder cannot be read: {error.strerror}."
                problems.append(NotTaken(name=_name(self._root, folder), code="unreadable", reason=reason))
            waiting += reversed(below)


def _listing(folder: str) -> Iterator[tuple[str, str]]:
    """What is in a folder and not hidden: folders and links to folders, then everything else, each in order of name."""
    with os.scandir(folder) as entries:
        for text in in_order(f"{_kind(entry)}{entry.name}" for entry in entries if not entry.name.startswith(".")):
            yield text[:1], text[1:]


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return _FOLDER if entry.is_dir() else _FILE
    except OSError:  # it leads nowhere
        return _FILE


def _judged(root: str, path: str) -> str | NotTaken | None:
    """The path if it is to be read; None for what goes without saying."""
    name = _name(root, path)
    if os.path.islink(path) and (os.path.isdir(path) or not is_below(path, root)):  # noqa: PTH112, PTH114  # as above
        reason = "It is a link, and links are not followed out of the folder, nor to folders."
        return NotTaken(name=name, code="symlink", reason=reason, skipped=True)
    suffix = os.path.splitext(path)[1]  # noqa: PTH122  # as above
    return path if (judged := judged_by_suffix(name, suffix)) is True else judged


def _name(root: str, path: str) -> str:
    return shown(os.path.relpath(path, root).replace(os.sep, "/"))


def _with_sidecar(root: str, path: str) -> SourcePicture | NotTaken:
    folder, _, file = path.rpartition(os.sep)
    beside = next((one for one in sidecar_names(file) if os.path.lexists(f"{folder}{os.sep}{one}")), None)
    return with_sidecar(
        _name(root, path), opener(path, root), beside, lambda: read_capped(opener(f"{folder}{os.sep}{beside}", root)())
    )
