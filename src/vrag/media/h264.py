"""H.264 in MP4, as far as joining needs it: what a picture is, and decoder configurations made one.

Rec. ITU-T H.264 (08/2021) 7.3 and table 7-1 for the units, ISO/IEC 14496-15:2022 5.3.3 for `avcC`.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["is_idr", "merged_configuration"]

_IDR: Final = 5
_SLICES: Final = range(1, 6)
_HIGH: Final = frozenset({100, 110, 122, 144})
"""Profiles whose configuration ends with chroma format and bit depths."""


def is_idr(data: bytes, configuration: bytes) -> bool:
    """Whether a picture as MP4 stores it needs nothing that was before it."""
    if len(configuration) < 7 or configuration[0] != 1:
        return False
    length_bytes, at = (configuration[4] & 3) + 1, 0
    while at + length_bytes < len(data):
        kind = data[at + length_bytes] & 31
        if kind in _SLICES:
            return kind == _IDR
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    return False


def merged_configuration(one: bytes, two: bytes) -> bytes | None:
    """One `avcC` with the parameter sets of both, or None if they cannot stand beside each other."""
    first, second = _Configuration.of(one), _Configuration.of(two)
    if first is None or second is None or first.length_bytes != second.length_bytes or first.end != second.end:
        return None
    if first.numbers & second.numbers:
        return None
    sets, pictures = first.sets + second.sets, first.pictures + second.pictures
    if len(sets) > 31 or len(pictures) > 255:
        return None
    profile, level = max(one[1], two[1]), max(one[3], two[3])
    head = bytes([1, profile, one[2] & two[2], level, 0xFC | first.length_bytes - 1, 0xE0 | len(sets)])
    units = [len(unit).to_bytes(2, "big") + unit for unit in (*sets, *pictures)]
    return head + b"".join(units[: len(sets)]) + bytes([len(pictures)]) + b"".join(units[len(sets) :]) + first.end


@frozen(kw_only=True)
class _Configuration:
    length_bytes: int
    sets: tuple[bytes, ...]
    pictures: tuple[bytes, ...]
    end: bytes

    @classmethod
    def of(cls, data: bytes) -> _Configuration | None:
        """The parts of an `avcC`; None if it is cut off or of a profile without the usual end."""
        if len(data) < 7 or data[0] != 1:
            return None
        at, found = 6, []
        for count in (data[5] & 31, None):
            if count is None:
                if at >= len(data):
                    return None
                count, at = data[at], at + 1  # noqa: PLW2901  # known only here
            units = []
            for _ in range(count):
                length = int.from_bytes(data[at : at + 2], "big")
                units.append(data[at + 2 : at + 2 + length])
                at += 2 + length
            found.append(tuple(units))
        if at > len(data) or not all(unit for units in found for unit in units):
            return None
        return cls(length_bytes=(data[4] & 3) + 1, sets=found[0], pictures=found[1], end=data[at:])

    @property
    def numbers(self) -> set[tuple[str, int]]:
        """Which numbers its parameter sets have."""
        return {("sps", _number(unit[4:])) for unit in self.sets} | {
            ("pps", _number(unit[1:])) for unit in self.pictures
        }


def _number(data: bytes) -> int:
    """The Exp-Golomb number at the start (H.264, 9.1)."""
    bits = "".join(f"{byte:08b}" for byte in data[:8])
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
