"""A watermark that everybody can see: for tests of the marking steps only."""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Final

import numpy as np
from typing_extensions import override

from vrag.media.video import iter_frames
from vrag.provenance.marking import Watermarker
from vrag.provenance.repaint import Planes, repaint

__all__ = ["FakeWatermarker"]

_BITS: Final = 32


class FakeWatermarker(Watermarker):
    """Writes 32 bits of the record id as black and white squares along the upper edge; they survive encoding."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @property
    @override
    def algorithm(self) -> str:
        return "test.vrag.visible-squares"

    @override
    def embed(self, film: BinaryIO, out: BinaryIO, *, record_id: str) -> str:
        self.calls.append(record_id)
        value = hashlib.sha256(record_id.encode()).hexdigest()[: _BITS // 4]
        bits = [int(value, 16) >> (_BITS - 1 - index) & 1 for index in range(_BITS)]

        def paint(planes: Planes, full_range: bool) -> None:  # noqa: ARG001  # 16 and 235 are in both ranges
            luma = planes[0]
            height = _height_px(luma.shape[0])
            for index, bit in enumerate(bits):
                left, right = (index * luma.shape[1] // _BITS, (index + 1) * luma.shape[1] // _BITS)
                luma[:height, left:right] = 235 if bit else 16

        repaint(film, out, paint)
        return value

    @staticmethod
    def detect(film: BinaryIO) -> str:
        """What the squares of the first frame say."""
        frame = next(iter(iter_frames(film))).astype(np.float32).mean(axis=2)
        rows = frame[: _height_px(frame.shape[0])]
        number = 0
        for part in np.array_split(rows, _BITS, axis=1):
            number = number << 1 | int(part.mean() > 128)
        return f"{number:0{_BITS // 4}x}"


def _height_px(height_px: int) -> int:
    return max(4, height_px // 24)
