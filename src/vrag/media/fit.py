"""How a picture meets the shape of a video, in numbers: crops, insets and margins; no pixel."""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

from vrag.errors import UsageError

__all__ = ["FIT_MODES", "FitMode", "Focus", "centre_crop", "crop_around", "inside", "outpaint_margins"]

FitMode = Literal["cover", "contain", "blur", "subject"]
"""`cover` crops around the centre and `subject` around what the picture shows; `contain` keeps all of the picture
between bars of one colour, and `blur` before a blurred copy of itself. None of them squashes."""
FIT_MODES: Final[tuple[FitMode, ...]] = get_args(FitMode)

Focus = tuple[float, float, float, float]
"""What a crop must keep: left, top, right, bottom as fractions of the upright picture. A point is a box without size."""
Box = tuple[int, int, int, int]


def centre_crop(width_px: int, height_px: int, aspect: float) -> Box:
    """The largest centred box of this shape (width over height), its sides rounded to whole pixels."""
    return crop_around(width_px, height_px, aspect, (0.0, 0.0, 1.0, 1.0))


def crop_around(width_px: int, height_px: int, aspect: float, focus: Focus) -> Box:
    """The largest box of this shape whose middle is as near to that of `focus` as the picture allows.

    Raises:
        UsageError: The focus leaves the picture.
    """
    left, top, right, bottom = focus
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise UsageError(f"The focus {focus} leaves the picture; 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1.")
    crop_w = min(width_px, max(1, round(height_px * aspect)))
    crop_h = min(height_px, max(1, round(width_px / aspect)))
    x = min(max(0, math.floor((left + right) / 2 * width_px - crop_w / 2)), width_px - crop_w)
    y = min(max(0, math.floor((top + bottom) / 2 * height_px - crop_h / 2)), height_px - crop_h)
    return (x, y, x + crop_w, y + crop_h)


def inside(width_px: int, height_px: int, max_w: int, max_h: int) -> tuple[int, int]:
    """The largest size of the same shape that fits into a box."""
    ratio = min(max_w / width_px, max_h / height_px)
    return min(max_w, max(1, round(width_px * ratio))), min(max_h, max(1, round(height_px * ratio)))


def outpaint_margins(
    width_px: int, height_px: int, aspect: float, *, multiple_px: int = 1
) -> tuple[int, int, int, int]:
    """How many pixels to add on the left, top, right and bottom, so that a picture gets a shape and nothing is cut.

    Margins are split evenly; an odd pixel goes to the right or the bottom.

    Args:
        width_px: Of the picture.
        height_px: Of the picture.
        aspect: Width over height that is wanted; it is met to half of `multiple_px` in the longer direction.
        multiple_px: Both sides of the result are multiples of it, for models that want that.

    Raises:
        UsageError: A number is not above 0.
    """
    if not (math.isfinite(aspect) and aspect > 0 and min(width_px, height_px, multiple_px) >= 1):
        raise UsageError(
            f"{width_px} x {height_px} px to a shape of {aspect:g} in steps of {multiple_px} px is not possible;"
            " each number is above 0."
        )
    wide, high = _up(width_px, multiple_px), _up(height_px, multiple_px)
    if wide < high * aspect:
        wide = max(wide, multiple_px * round(high * aspect / multiple_px))
    else:
        high = max(high, multiple_px * round(wide / aspect / multiple_px))
    across, down = wide - width_px, high - height_px
    return (across // 2, down // 2, across - across // 2, down - down // 2)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
