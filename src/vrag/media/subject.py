"""Where a picture shows its subject: a crop that follows it, from contrast and sharpness alone.

No model and no weights, so that it costs some 20 ms and needs nothing to download. A place belongs to the subject as
far as its colour differs from the border of the picture, is gathered in one part of it, and is sharp. What people
know (faces, which of two flowers is meant) it does not; a caller who knows better gives a focus instead.

Its few numbers were searched on 26 photographs and drawings that are not in this repository, and measured on the 15
that are; what a search had put in for nothing was then left out with both in sight. See `benchmarks/subject_crop.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrag.media.colour import lab_of
from vrag.media.fit import Box, crop_around

__all__ = ["LOOKED_AT_PX", "saliency", "subject_crop"]

LOOKED_AT_PX = 512
"""Longer side of the picture that is looked at: enough to tell sharp from soft."""
_CELLS = 40
_COLOUR_NEAR = 25.0
_BLUR_CELLS = 1.5
_CONTRAST = 1.5
_PLACES = 200
_EVEN = 0.005

Plane = NDArray[np.float64]


def subject_crop(picture: Image.Image, size_px: tuple[int, int], aspect: float) -> Box:
    """The largest crop of this shape (width over height) that holds the most of the subject.

    Args:
        picture: RGB, upright; a small copy will do.
        size_px: Width and height of the picture that is to be cropped.
        aspect: Width over height of the crop.

    Returns:
        Left, top, right, bottom in pixels of that picture; the same each time.
    """
    width, height = size_px
    map_ = saliency(picture)
    map_ = np.maximum(map_ - map_.mean(), 0) ** _CONTRAST
    left, top, right, bottom = crop_around(width, height, aspect, (0.5, 0.5, 0.5, 0.5))
    x = _best(map_.sum(axis=0), (right - left) / width)
    y = _best(map_.sum(axis=1), (bottom - top) / height)
    return crop_around(width, height, aspect, (x, y, x, y))


def _best(profile: Plane, share: float) -> float:
    """The middle of the window of this length (all is 1) over most of `profile`; between even ones the middle one."""
    total = float(profile.sum())
    if total <= 0 or share >= 1:
        return 0.5
    ends = np.linspace(0, 1, len(profile) + 1)
    below = np.concatenate([[0.0], np.cumsum(profile)]) / total
    starts = np.linspace(0, 1 - share, _PLACES + 1)
    held = np.round(np.interp(starts + share, ends, below) - np.interp(starts, ends, below), 6)
    even = starts[held >= held.max() - _EVEN]
    return float(even[np.argmin(np.abs(even - even.mean()))]) + share / 2


def saliency(picture: Image.Image) -> Plane:
    """How much each part of the picture stands out, from 0 to 1: a grid of at most 40 cells a side."""
    shrink = min(1.0, LOOKED_AT_PX / max(picture.size))
    if shrink < 1:
        small = (max(3, round(picture.width * shrink)), max(3, round(picture.height * shrink)))
        picture = picture.resize(small, Image.Resampling.BOX)
    lab = lab_of(np.asarray(picture))
    cells = (
        max(4, round(picture.width * _CELLS / max(picture.size))),
        max(4, round(picture.height * _CELLS / max(picture.size))),
    )
    colour = np.stack([_shrunk(lab[..., channel], cells) for channel in range(3)], axis=-1)
    sharp = np.sqrt(_shrunk(_detail(lab), cells))
    rows, columns = sharp.shape
    y, x = np.mgrid[0:rows, 0:columns]
    place = np.stack([y, x], axis=-1).reshape(-1, 2) / max(rows, columns)
    flat = colour.reshape(-1, 3)
    apart = np.sqrt(sum((flat[:, None, channel] - flat[None, :, channel]) ** 2 for channel in range(3)))
    # Unlike the border: the distance to the quarter of it that is most alike.
    border = np.sort(apart[:, ((y == 0) | (y == rows - 1) | (x == 0) | (x == columns - 1)).ravel()], axis=1)
    unlike = border[:, : max(1, border.shape[1] // 4)].mean(axis=1)
    # Gathered: how far cells of the same colour lie from each other.
    same = np.exp(-(apart**2) / (2 * _COLOUR_NEAR**2))
    same /= same.sum(axis=1, keepdims=True)
    spread = sum((same * place[:, axis] ** 2).sum(axis=1) - (same * place[:, axis]).sum(axis=1) ** 2 for axis in (0, 1))
    stands_out = _unit(_unit(unlike) * np.exp(-_unit(np.asarray(spread)))) * _unit(sharp.ravel())
    return _blurred(_unit(stands_out).reshape(rows, columns))


def _detail(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """The finest contrast, over all three channels: high where the lens was focused."""
    padded = np.pad(lab, ((1, 1), (1, 1), (0, 0)), "edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    detail: NDArray[np.float32] = np.abs(4 * lab - around).sum(axis=-1)
    return detail


def _shrunk(plane: NDArray[np.float32], size: tuple[int, int]) -> Plane:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX), np.float64)


def _unit(values: Plane) -> Plane:
    span = float(np.ptp(values))
    return (values - values.min()) / span if span > 1e-9 else np.zeros_like(values)


def _blurred(plane: Plane) -> Plane:
    reach = int(3 * _BLUR_CELLS)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * _BLUR_CELLS**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(plane, [(reach, reach) if axis == side else (0, 0) for side in (0, 1)], "edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis)
        plane = (windows * kernel).sum(axis=-1)
    return plane
