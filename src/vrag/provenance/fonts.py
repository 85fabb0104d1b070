"""Fonts of this machine: found by file name, or by the characters that they have; nothing is asked of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from vrag.errors import UsageError
from vrag.provenance.glyphs import covered

__all__ = ["MAX_FONT_BYTES", "find_font", "font_with"]

MAX_FONT_BYTES: Final = 64 << 20
_FOLDERS: Final = (
    *("~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts"),
    *("~/Library/Fonts", "/Library/Fonts", "/System/Library/Fonts", "C:/Windows/Fonts"),
)
_KINDS: Final = frozenset({".ttf", ".otf", ".ttc"})
_MOST_FILES: Final = 5000
_LOOKED_INTO: Final = 300
_SPECIAL: Final = ("bold", "italic", "oblique", "mono", "condensed", "light", "serif", "math", "thin", "black")


def _fonts() -> Iterator[Path]:
    """The font files of the usual folders, a person's own first."""
    count = 0
    for folder in _FOLDERS:
        try:
            found = sorted(Path(folder).expanduser().rglob("*"))
        except (OSError, RuntimeError):  # not readable, or there is no home
            continue
        for path in found:
            if path.suffix.lower() in _KINDS and path.is_file():
                count += 1
                if count > _MOST_FILES:
                    return
                yield path


def find_font(name: str) -> Path:
    """The font that `name` means: a path, or a file name in one of the usual folders.

    Raises:
        UsageError: There is none.
    """
    given = Path(name)
    if given.is_file():
        return given
    if given.name == name:
        for path in _fonts():
            if path.name.lower() == name.lower():
                return path
    raise UsageError(
        f"There is no font '{name[:200]}', neither here nor by this file name among the fonts of the system.",
        hint="the path of a .ttf or .otf file",
    )


def font_with(characters: AbstractSet[int]) -> Path | None:
    """A font of this machine that has all these code points, plain ones first; None where none is found."""
    for path in sorted(_fonts(), key=_plainness)[:_LOOKED_INTO]:
        try:
            if path.stat().st_size <= MAX_FONT_BYTES and characters <= covered(path.read_bytes()):
                return path
        except (OSError, UsageError):  # not readable, or no font that can be used
            continue
    return None


def _plainness(path: Path) -> tuple[int, int, str]:
    name = path.stem.lower().replace("sansserif", "sans")
    return sum(word in name for word in _SPECIAL) + ("sans" not in name), len(name), str(path)
