"""What a picture looks like in 64 bits: pictures that look the same have nearly the same bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["NEAR_BITS", "fingerprint"]

NEAR_BITS = 6
"""Two pictures whose fingerprints differ in at most so many bits are near-duplicates.

Measured on 25 different photographs: no two differed in fewer than 12 bits. Copies of them at JPEG quality 40, half and a
sixth of the size, in grey, and with 20 % more brightness or contrast differed in at most 6.
"""


def fingerprint(image: Image.Image) -> str | None:
    """The difference hash of an upright picture, 16 hexadecimal digits; None for one without structure.

    Each bit says whether the picture gets brighter from one of 9 x 8 places to the next.
    """
    grid = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    if int(grid.max()) - int(grid.min()) < 8:
        return None  # an empty page looks like every other
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes().hex()
