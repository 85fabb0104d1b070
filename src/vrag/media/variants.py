"""What is measured of the variants of an edit, so that one can be chosen by number or with open eyes.

Neither number knows what a picture shows. `sharpness` counts noise and lettering as detail; `change` says how well the
rest of the picture was kept, and nothing of what was painted. Both compare variants of one edit, never two pictures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vrag.media.image import ImageLimits, load_image
from vrag.media.mask_draw import grown

__all__ = ["change", "repainted", "sharpness"]

_LIMITS: Final = ImageLimits(min_side_px=1)
_SEAM_PX: Final = 8
"""Editors blend a few pixels around a mask; they are neither inside nor outside."""

White = NDArray[np.bool_]


def repainted(
    width_px: int, height_px: int, *, mask: bytes | None = None, extend_px: tuple[int, int, int, int] | None = None
) -> White | None:
    """Which pixels of a variant an edit was to repaint; None where it says neither a mask nor margins.

    Args:
        width_px: Of the picture before the edit.
        height_px: Of the picture before the edit.
        mask: Encoded, of the same size; white from half grey on.
        extend_px: What was added on the left, top, right and bottom.

    Raises:
        ImageRejectedError: The mask cannot be read.
    """
    if mask is not None:
        return np.asarray(load_image(mask, "mask", limits=_LIMITS).pixels.convert("L")) >= 128
    if extend_px is None:
        return None
    left, top, right, bottom = extend_px
    white = np.ones((top + height_px + bottom, left + width_px + right), np.bool_)
    white[top : top + height_px, left : left + width_px] = False
    return white


def sharpness(variant: bytes, white: White | None = None) -> float | None:
    """How much neighbouring pixels differ in what was repainted: the mean of the absolute Laplacian of luma.

    Args:
        variant: The encoded picture.
        white: As `repainted` says; None measures the whole picture.

    Returns:
        Grey levels, from 0 (one colour) to 1020; None where the sizes do not fit or nothing is white.

    Raises:
        ImageRejectedError: It cannot be read.
    """
    luma = np.asarray(load_image(variant, "variant", limits=_LIMITS).pixels.convert("L"), np.int16)
    inside = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return _mean(np.abs(4 * inside - around), None if white is None else white[1:-1, 1:-1])


def change(
    before: bytes, variant: bytes, white: White | None, extend_px: tuple[int, int, int, int] | None = None
) -> float | None:
    """How far what should have been kept was changed: the mean absolute difference outside of the mask and its seam.

    Args:
        before: The encoded picture as it was given to the editor.
        variant: What came back.
        white: As `repainted` says.
        extend_px: What was added on the left, top, right and bottom.

    Returns:
        Levels of a colour channel, from 0 (kept) to 255; None where the sizes do not fit or nothing was to be kept.

    Raises:
        ImageRejectedError: One of them cannot be read.
    """
    if white is None:
        return None
    left, top, right, bottom = extend_px or (0, 0, 0, 0)
    old, new = (
        np.asarray(load_image(data, name, limits=_LIMITS).pixels, np.int16)
        for data, name in ((before, "picture"), (variant, "variant"))
    )
    kept = new[top : new.shape[0] - bottom, left : new.shape[1] - right]
    far = ~grown(white, _SEAM_PX)[top : white.shape[0] - bottom, left : white.shape[1] - right]
    return _mean(np.abs(kept - old).mean(axis=2), far) if kept.shape == old.shape else None


def _mean(values: NDArray[np.generic], where: White | None) -> float | None:
    """Rounded, so that it is the same number in JSON on every machine."""
    if where is None:
        where = np.ones(values.shape, np.bool_)
    if where.shape != values.shape or not where.any():
        return None
    return round(float(values[where].mean(dtype=np.float64)), 4)
