"""Erasing with OpenCV: what changes, what does not, and how close it comes on a real photograph."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vrag.errors import UnsupportedRequestError, UsageError
from vrag.interfaces import Inpainter
from vrag.media.image import encode_png
from vrag.media.mask import rectangle_mask
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.requests import EditRequest

pytest.importorskip("cv2", reason="needs the extra 'local'")
from vrag.backends.local.inpainter import OpenCVInpainter

REACH_PX = 5  # the seam of 4 px and its rounding


class Shelf:
    """Bytes by ref."""

    def __init__(self):
        self.held = {}

    def put(self, data, media_type="image/png"):
        ref = MediaRef(sha256=sha256_hex(data), media_type=media_type, size_bytes=len(data))
        self.held[ref.sha256] = data
        return ref

    def __call__(self, ref):
        return io.BytesIO(self.held[ref.sha256])


def erase(picture: Image.Image, mask: bytes) -> np.ndarray:
    shelf = Shelf()
    request = EditRequest(operation="erase", image=shelf.put(encode_png(picture)), mask=shelf.put(mask))
    result = OpenCVInpainter().edit(request, shelf)
    assert result.billed is False
    (data,) = result.images
    out = Image.open(io.BytesIO(data))
    assert (out.format, out.size) == ("PNG", picture.size)
    return np.asarray(out)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    path = files("vrag.demo") / "photos" / "hikers-on-orange-dune.jpg"
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def test_it_is_an_inpainter_that_costs_nothing():
    inpainter = OpenCVInpainter()
    assert isinstance(inpainter, Inpainter)
    shelf = Shelf()
    ref = shelf.put(b"x")
    assert inpainter.estimate(EditRequest(operation="erase", image=ref)).usd_micros == 0
    assert inpainter.capabilities.operations == {"erase"}
    assert inpainter.capabilities.origin == "algorithm"
    assert "@" in inpainter.model.id


def test_only_the_surroundings_of_the_mask_change(photograph):
    box = (300, 500, 420, 560)
    before = np.asarray(photograph)
    after = erase(photograph, rectangle_mask(*photograph.size, box))
    far = np.ones(before.shape[:2], bool)
    far[box[1] - REACH_PX : box[3] + REACH_PX, box[0] - REACH_PX : box[2] + REACH_PX] = False
    assert np.array_equal(before[far], after[far])
    assert not np.array_equal(before, after)


def test_an_empty_mask_changes_nothing(photograph):
    assert np.array_equal(erase(photograph, encode_png(Image.new("L", photograph.size))), np.asarray(photograph))


def test_the_hidden_part_comes_back_on_a_real_photograph(photograph):
    """A blot on the sky and on the slope is gone, down to the grain of the photograph."""
    truth = np.asarray(photograph, float)
    for centre in ((900, 200), (300, 760)):
        box = (centre[0] - 40, centre[1] - 40, centre[0] + 40, centre[1] + 40)
        blotted = photograph.copy()
        ImageDraw.Draw(blotted).ellipse(box, fill=(0, 0, 0))
        mask = Image.new("L", photograph.size)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        after = erase(blotted, encode_png(mask)).astype(float)
        hole = np.asarray(mask) > 0
        assert 10 * np.log10(255**2 / np.mean((after[hole] - truth[hole]) ** 2)) > 30


def test_a_smooth_slope_is_continued_over_a_wide_hole():
    y, x = np.mgrid[0:300, 0:400]
    slope = Image.fromarray(np.stack([x * 0.6, y * 0.8, 255 - x * 0.5], -1).astype(np.uint8))
    after = erase(slope, rectangle_mask(400, 300, (100, 80, 300, 220))).astype(float)
    assert np.sqrt(np.mean((after - np.asarray(slope, float)) ** 2)) < 6


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (0, 0, 99, 80), (0, 0, 100, 79), (96, 0, 100, 80), (50, 40, 51, 41)])
def test_masks_at_the_edges(box):
    flat = Image.new("RGB", (100, 80), (40, 120, 200))
    assert np.abs(erase(flat, rectangle_mask(100, 80, box)).astype(int) - (40, 120, 200)).max() <= 2


def test_what_it_does_not_do_is_refused_before_anything_is_read():
    inpainter, shelf = OpenCVInpainter(), Shelf()
    ref = shelf.put(b"not a picture")
    for request in (
        EditRequest(operation="replace", image=ref, mask=ref, prompt="a boat"),
        EditRequest(operation="outpaint", image=ref, mask=ref, extend_px=(1, 1, 1, 1)),
        EditRequest(operation="erase", image=ref),
        EditRequest(operation="erase", image=ref, mask=ref, count=2),
    ):
        with pytest.raises(UnsupportedRequestError) as caught:
            inpainter.edit(request, shelf)
        assert caught.value.problems
    problems = inpainter.validate(EditRequest(operation="erase", image=ref, mask=ref, prompt="a boat", seed=3))
    assert {(problem.kind, problem.field) for problem in problems} == {("unmet", "prompt"), ("unmet", "seed")}


def test_a_mask_of_another_size_or_over_everything_is_refused(photograph):
    small = photograph.resize((200, 100))
    with pytest.raises(UsageError, match="must be the same"):
        erase(small, rectangle_mask(100, 200, (0, 0, 5, 5)))
    with pytest.raises(UsageError, match="whole picture"):
        erase(small, rectangle_mask(200, 100, (0, 0, 200, 100)))


def test_the_same_from_many_threads(photograph):
    picture = photograph.resize((320, 214))
    mask = rectangle_mask(320, 214, (100, 100, 160, 150))
    serial = erase(picture, mask)
    with ThreadPoolExecutor(8) as pool:
        for after in pool.map(lambda _: erase(picture, mask), range(16)):
            assert np.array_equal(after, serial)
