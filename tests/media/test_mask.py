"""Masks: white is repainted, the size is the picture's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vrag.errors import ImageRejectedError, UsageError
from vrag.media.mask import check_mask, rectangle_mask


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_a_rectangle_is_white_inside_and_black_outside():
    mask = check_mask(rectangle_mask(30, 20, (5, 6, 10, 12)), 30, 20)
    expected = np.zeros((20, 30), np.uint8)
    expected[6:12, 5:10] = 255
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), expected)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (-1, 0, 4, 4), (0, 0, 31, 4), (9, 9, 3, 12)])
def test_a_box_must_lie_in_the_picture(box):
    with pytest.raises(UsageError):
        rectangle_mask(30, 20, box)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_grey_is_cut_in_the_middle(mode):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(4, 0))
    source = ramp.point([0] * 128 + [255] * 128) if mode == "1" else ramp
    mask = np.asarray(check_mask(png(source.convert(mode)), 256, 4))
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[0] == np.where(np.arange(256) < 128, 0, 255)).mean() > 0.99


def test_another_size_transparency_and_other_files_are_refused():
    with pytest.raises(UsageError, match="30 x 20"):
        check_mask(rectangle_mask(30, 20, (0, 0, 1, 1)), 20, 30)
    with pytest.raises(UsageError, match="transparency"):
        check_mask(png(Image.new("RGBA", (30, 20))), 30, 20)
    with pytest.raises(ImageRejectedError):
        check_mask(b"white", 30, 20)
