"""Where a command writes its films: names that are valid and free on every common disk."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from vrag.errors import AlreadyExistsError, NotFoundError

if TYPE_CHECKING:
    from vrag.values.briefs import Brief

__all__ = ["free_path", "slug", "target_of", "writable"]

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def target_of(given: str | None, brief: Brief, *, overwrite: bool) -> Path:
    """Where the video goes; what cannot be written is found before anything is made or paid."""
    name = slug(brief.object_prompt or brief.template or "video")
    if given is None:
        return free_path(Path(), name)
    path = Path(given)
    return free_path(path, name) if path.is_dir() else writable(path, overwrite=overwrite)


def writable(path: Path, *, overwrite: bool) -> Path:
    """A file that can be written, with its record beside it.

    Raises:
        AlreadyExistsError: One of the two exists.
        NotFoundError: The folder does not.
    """
    if not path.parent.is_dir():
        raise NotFoundError(f"There is no folder '{path.parent}' to write to.", hint=f"mkdir -p '{path.parent}'")
    taken = next((file for file in (path, path.with_name(f"{path.name}.vrag.json")) if file.exists()), None)
    if taken is not None and not overwrite:
        raise AlreadyExistsError(f"The file '{taken}' exists.", hint="--overwrite, or another -o FILE")
    return path


def slug(text: str) -> str:
    """A file name for `text`: lower case letters, digits and `-`, valid and unique on every common disk."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    words = "".join(char if char.isalnum() else " " for char in folded).split()
    name = "-".join(words)[:60].strip("-") or "video"
    return f"{name}-video" if name in _RESERVED else name


def free_path(folder: Path, name: str) -> Path:
    """`name.mp4` in `folder`, else `name-2.mp4` …: nothing there has that name in any case, and no record either."""
    taken = {entry.name.casefold() for entry in folder.iterdir()}
    candidates = (f"{name}.mp4" if number == 1 else f"{name}-{number}.mp4" for number in range(1, len(taken) + 2))
    return folder / next(one for one in candidates if not {one, f"{one}.vrag.json"} & taken)
