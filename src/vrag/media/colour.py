"""Colour as the eye measures it: CIELAB of sRGB pixels."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["lab_of"]

_STRIP_ROWS: Final = 256
_LINEAR: Final = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], np.float32
)
"""sRGB to linear light (IEC 61966-2-1)."""
_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    np.float32,
)
"""Linear sRGB to CIE XYZ; its rows sum to the white point D65."""


def lab_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """L* (0 to 100), a* and b* under D65 of sRGB pixels, height x width x 3."""
    out = np.empty(pixels.shape, np.float32)
    for top in range(0, pixels.shape[0], _STRIP_ROWS):  # strips, or a large picture would need many times its size
        red, green, blue = np.moveaxis(_LINEAR[pixels[top : top + _STRIP_ROWS]], -1, 0)
        x, y, z = (
            # Summed term by term: a matrix product may round otherwise on another processor.
            _bent((row[0] * red + row[1] * green + row[2] * blue) / row.sum())
            for row in _XYZ
        )
        out[top : top + _STRIP_ROWS] = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return out


def _bent(light: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(light > 216 / 24389, np.cbrt(light), light * np.float32(841 / 108) + np.float32(4 / 29))
