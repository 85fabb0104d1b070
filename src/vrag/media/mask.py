"""Masks: white (255) is repainted, black (0) is kept, in every backend."""

from __future__ import annotations

from PIL import Image

from vrag.errors import UsageError
from vrag.media.image import ImageLimits, encode_png, load_image

__all__ = ["check_mask", "rectangle_mask"]

_LIMITS = ImageLimits(min_side_px=1)


def rectangle_mask(width_px: int, height_px: int, box: tuple[int, int, int, int]) -> bytes:
    """A mask as PNG, for a picture of this size, that repaints one rectangle.

    Args:
        width_px: Of the picture.
        height_px: Of the picture.
        box: Left, top, right, bottom; right and bottom are the first pixels outside.

    Raises:
        UsageError: The box is empty or leaves the picture.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= width_px and 0 <= top < bottom <= height_px):
        raise UsageError(
            f"The box {box} is empty or leaves the picture; left < right <= {width_px} and top < bottom <= {height_px}."
        )
    mask = Image.new("L", (width_px, height_px), 0)
    mask.paste(255, box)
    return encode_png(mask)


def check_mask(mask: bytes, width_px: int, height_px: int) -> Image.Image:
    """Read a mask for a picture of this size: mode L, each pixel 0 or 255, cut at half grey.

    Raises:
        UsageError: It has another size (nothing is scaled: that would move its edge), or it has transparency, which
            some tools use for "repaint here" and others for "keep".
        ImageRejectedError: It is not a picture that can be read.
    """
    loaded = load_image(mask, "mask", limits=_LIMITS)
    if (loaded.width_px, loaded.height_px) != (width_px, height_px):
        raise UsageError(
            f"The mask has {loaded.width_px} x {loaded.height_px} pixels, the picture {width_px} x {height_px};"
            " they must be the same."
        )
    if loaded.transparent:
        raise UsageError(
            "The mask has transparency, which can mean either.", hint="paint it white (repaint) and black (keep)"
        )
    return loaded.pixels.convert("L").point([0] * 128 + [255] * 128)
