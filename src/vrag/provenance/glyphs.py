"""Which characters a font has, and whether they can be drawn rightly here.

The character map of a font says exactly what it covers; comparing pictures of characters does not.
Sources: OpenType 1.9.1, `cmap`, `ttcf`; Pillow, "ImageFont" (Raqm shapes complex scripts) (checked 2026-11-20).
"""

from __future__ import annotations

import struct
import unicodedata
from typing import Final

from vrag.errors import UsageError

__all__ = ["covered", "unshapable"]

_PLAIN: Final = frozenset(
    """
    ARMENIAN BOPOMOFO CJK CYRILLIC DIGIT FULLWIDTH GEORGIAN GREEK HALFWIDTH HANGUL HIRAGANA IDEOGRAPHIC KATAKANA LATIN
    """.split()  # noqa: SIM905  # a list of words reads better as words
)
"""Scripts whose characters stand one after the other, as the first words of their names in Unicode say."""
_JOINERS: Final = frozenset("\u200c\u200d")
_TTC: Final = b"ttcf"


def covered(font: bytes) -> frozenset[int]:
    """The code points that the first face of a TrueType or OpenType font has a glyph for.

    Raises:
        UsageError: It is no such font, or its character map is damaged.
    """
    try:
        start = struct.unpack_from(">I", font, 12)[0] if font[:4] == _TTC else 0
        tables = {
            font[at : at + 4]: struct.unpack_from(">I", font, at + 8)[0]
            for at in range(start + 12, start + 12 + 16 * struct.unpack_from(">H", font, start + 4)[0], 16)
        }
        cmap = tables[b"cmap"]
        found: set[int] = set()
        for index in range(struct.unpack_from(">H", font, cmap + 2)[0]):
            platform, encoding, offset = struct.unpack_from(">HHI", font, cmap + 4 + 8 * index)
            if platform == 0 or (platform, encoding) in {(3, 1), (3, 10)}:
                found |= _subtable(font, cmap + offset)
        return frozenset(found)
    except (struct.error, KeyError, IndexError, OverflowError) as error:
        raise UsageError("This is not a TrueType or OpenType font with a character map.") from error


def _subtable(font: bytes, at: int) -> set[int]:
    kind = struct.unpack_from(">H", font, at)[0]
    if kind == 4:
        return _segments(font, at)
    if kind != 12:
        return set()
    found: set[int] = set()
    for group in range(min(struct.unpack_from(">I", font, at + 12)[0], 0x110000)):
        first, last, glyph = struct.unpack_from(">III", font, at + 16 + 12 * group)
        if first <= last < 0x110000 and len(found) <= 0x110000:
            found.update(range(first + (glyph == 0), last + 1))
    return found


def _segments(font: bytes, at: int) -> set[int]:
    double = struct.unpack_from(">H", font, at + 6)[0]
    found: set[int] = set()
    before = -1
    for index in range(double // 2):
        place = at + 14 + 2 * index
        (last,) = struct.unpack_from(">H", font, place)
        (first,) = struct.unpack_from(">H", font, place + double + 2)
        (delta,) = struct.unpack_from(">H", font, place + 2 * double + 2)
        (offset,) = struct.unpack_from(">H", font, place + 3 * double + 2)
        if last <= before:
            raise UsageError("The character map of this font is not in order.")
        before = last
        for code in range(first, min(last, 0xFFFE) + 1):
            glyph = code
            if offset:
                (glyph,) = struct.unpack_from(">H", font, place + 3 * double + 2 + offset + 2 * (code - first))
                if glyph == 0:
                    continue
            if (glyph + delta) & 0xFFFF:
                found.add(code)
    return found


def unshapable(text: str, *, shaper: bool) -> str | None:
    """Why `text` cannot be drawn rightly as one line; None if it can.

    Args:
        text: What is to be drawn, in Unicode normal form C.
        shaper: Whether Raqm is there, which orders, joins and stacks characters.
    """
    for character in text:
        category = unicodedata.category(character)
        if category[0] == "C" and character not in _JOINERS:
            return f"{_named(character)} is a control character or no character"
        if category in {"Zl", "Zp"}:
            return f"{_named(character)} breaks the line"
        if shaper:
            continue
        if category[0] == "M" or character in _JOINERS:
            return f"{_named(character)} must be combined with its neighbours, and this Pillow has no Raqm to do it"
        if category[0] == "L" and unicodedata.name(character, "?").split()[0] not in _PLAIN:
            return f"{_named(character)} belongs to a script that must be shaped, and this Pillow has no Raqm to do it"
    return None


def _named(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
