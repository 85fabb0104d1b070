"""Masks: white (255) is repainted, black (0) is kept, in every backend."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vrag.errors import UsageError
from vrag.media.image import ImageLimits, encode_jpeg, encode_png, load_image
from vrag.media.mask_draw import DrawnMask, draw_mask, grown
from vrag.media.mask_spec import MaskSpec

__all__ = ["DrawnMask", "MaskSpec", "check_mask", "draw_mask", "overlay_mask", "rectangle_mask", "resize_mask"]

_LIMITS = ImageLimits(min_side_px=1)
_TINT = (255, 0, 128)  # rare in photographs, and apart from green and blue for every kind of colour blindness
_TINT_SHARE = 0.45


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


def resize_mask(mask: bytes, width_px: int, height_px: int) -> bytes:
    """The mask of a picture for the same picture at another size, as PNG; edges move by less than a pixel.

    Each pixel is the mean of those it stands for, so that greys stay and backends cut at half of the area. At its own
    size the mask comes back unchanged.

    Args:
        mask: The encoded mask.
        width_px: Of the picture that it is for now.
        height_px: Of the picture that it is for now.

    Raises:
        UsageError: Nothing white is left at this size.
        ImageRejectedError: It is not a picture that can be read.
    """
    grey = load_image(mask, "mask", limits=_LIMITS).pixels.convert("L")
    if grey.size == (width_px, height_px):
        return mask
    shrinks = width_px <= grey.width and height_px <= grey.height
    sized = grey.resize((width_px, height_px), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    if not (np.asarray(sized) >= 128).any():
        raise UsageError(
            f"At {width_px} x {height_px} pixels nothing of the mask is left; it is too thin.", hint="grow the mask"
        )
    return encode_png(sized)


def overlay_mask(picture: bytes, mask: bytes, *, name: str = "picture", max_side_px: int = 1280) -> bytes:
    """A picture to look at before an edit is bought: what will be repainted is tinted and has an outline. JPEG.

    Args:
        picture: The encoded picture.
        mask: Its mask, encoded; cut at half grey, as backends do.
        name: How to call the picture in errors.
        max_side_px: The result is scaled down to it; a smaller picture keeps its size.

    Raises:
        UsageError: As `check_mask`.
        ImageRejectedError: The picture or the mask cannot be read.
    """
    loaded = load_image(picture, name, limits=_LIMITS)
    cut = check_mask(mask, loaded.width_px, loaded.height_px)
    shrink = min(1.0, max_side_px / max(cut.size))
    size = (max(1, round(cut.width * shrink)), max(1, round(cut.height * shrink)))
    pixels = np.asarray(loaded.pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), np.float32)
    cover = np.asarray(cut.resize(size, Image.Resampling.BOX), np.float32)[..., None] / 255
    white = cover[..., 0] >= 0.5
    tint = np.array(_TINT, np.float32)
    seen = pixels + cover * _TINT_SHARE * (tint - pixels)
    width = max(1.0, max(size) / 640)
    # White inside, dark outside: one of them is seen on any picture.
    seen[grown(~white, width) & white] = 255
    seen[grown(white, width) & ~white] = 30
    return encode_jpeg(Image.fromarray(np.rint(seen).astype(np.uint8)), quality=88)
