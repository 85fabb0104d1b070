"""Fitting without distortion: where crops lie, what lies beside a picture, and what an edit begins with."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from vrag.errors import ImageRejectedError, UsageError
from vrag.media.fit import FIT_MODES, centre_crop, crop_around, outpaint_margins
from vrag.media.image import conform, edit_base, encode_png, load_image
from vrag.media.subject import saliency, subject_crop

LABELS = Path(__file__).parents[2] / "benchmarks" / "data" / "subjects.json"
SIZES = st.integers(64, 3000)
ASPECTS = st.sampled_from([16 / 9, 1.0, 9 / 16, 4 / 3, 21 / 9])


def soft(width: int, height: int) -> Image.Image:
    """A smooth backdrop."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([90 + 30 * x / width, 110 + 30 * y / height, 120 + 0 * x], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def with_disc(width: int, height: int, at: tuple[int, int], radius: int) -> Image.Image:
    """A sharp red disc with a pattern before the backdrop."""
    image = soft(width, height)
    draw = ImageDraw.Draw(image)
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=(210, 40, 30))
    for k in range(-radius // 2, radius // 2, 8):
        draw.line((at[0] - radius // 2, at[1] + k, at[0] + radius // 2, at[1] + k), fill=(250, 230, 90), width=2)
    return image


def kept(crop: tuple[int, ...], size: tuple[int, int], box: tuple[float, ...]) -> float:
    left, top, right, bottom = (crop[side] / size[side % 2] for side in range(4))
    across = max(0.0, min(right, box[2]) - max(left, box[0]))
    down = max(0.0, min(bottom, box[3]) - max(top, box[1]))
    return across * down / ((box[2] - box[0]) * (box[3] - box[1]))


# -- crops


@given(SIZES, SIZES, ASPECTS, st.tuples(*[st.floats(0, 1)] * 4))
def test_a_crop_around_a_focus_is_as_large_as_the_centred_one_and_in_the_picture(width, height, aspect, numbers):
    (left, right), (top, bottom) = sorted(numbers[:2]), sorted(numbers[2:])
    x0, y0, x1, y1 = crop_around(width, height, aspect, (left, top, right, bottom))
    a0, b0, a1, b1 = centre_crop(width, height, aspect)
    assert (x1 - x0, y1 - y0) == (a1 - a0, b1 - b0)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    for begin, end, side, low, high in ((x0, x1, width, left, right), (y0, y1, height, top, bottom)):
        if (high - low) * side <= end - begin - 2:
            assert begin <= low * side + 1  # what fits is held whole
            assert end >= high * side - 1


def test_a_focus_lies_in_the_picture():
    for focus in ((0.5, 0.5, 0.4, 0.6), (-0.1, 0, 1, 1), (0, 0, 1, 1.2), (0, float("nan"), 1, 1)):
        with pytest.raises(UsageError, match="focus"):
            crop_around(100, 100, 1.0, focus)


@pytest.mark.parametrize("at", [(80, 150), (400, 150), (720, 150)])
def test_the_crop_follows_the_subject(at):
    picture = with_disc(800, 300, at, 50)
    left, top, right, bottom = subject_crop(picture, picture.size, 1.0)
    assert (top, bottom, right - left) == (0, 300, 300)
    assert left <= at[0] - 50
    assert at[0] + 50 <= right
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    box = subject_crop(turned, turned.size, 1.0)
    assert kept(box, turned.size, (0, 1 - (at[0] + 50) / 800, 1, 1 - (at[0] - 50) / 800)) == pytest.approx(1)


def test_without_a_subject_the_crop_is_centred():
    for picture in (Image.new("RGB", (800, 300), (90, 120, 90)), Image.new("L", (800, 300)).convert("RGB")):
        assert subject_crop(picture, picture.size, 1.0) == centre_crop(800, 300, 1.0)
    assert saliency(Image.new("RGB", (800, 300))).max() == 0


def test_what_is_sharp_counts_before_what_is_soft():
    picture = soft(800, 300)
    soft_disc = with_disc(800, 300, (150, 150), 60).filter(ImageFilter.GaussianBlur(14))
    picture.paste(soft_disc.crop((0, 0, 400, 300)), (0, 0))
    picture.paste(with_disc(800, 300, (650, 150), 60).crop((400, 0, 800, 300)), (400, 0))
    left, _, right, _ = subject_crop(picture, picture.size, 1.0)
    assert left <= 590
    assert right >= 710


def test_a_small_copy_gives_nearly_the_same_crop():
    picture = with_disc(1600, 900, (1200, 400), 120)
    small = picture.resize((512, 288), Image.Resampling.BOX)
    one, two = (subject_crop(image, (1600, 900), 9 / 16) for image in (picture, small))
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 32


def test_labelled_subjects_are_kept_more_often_than_by_the_centre():
    """The photographs that the method was not tuned on; figures in `benchmarks/subject_crop.py`."""
    photos = files("vrag") / "demo" / "photos"
    results = {9 / 16: [], 1.0: [], 16 / 9: []}
    rows = [row for row in json.loads(LABELS.read_text())["pictures"] if row["set"] == "held_out"]
    assert len(rows) == 15
    for row in rows:
        picture = load_image((photos / row["file"]).read_bytes(), row["file"], draft_px=(512, 288)).pixels
        for aspect, found in results.items():
            crops = (subject_crop(picture, picture.size, aspect), centre_crop(*picture.size, aspect))
            found.append([kept(crop, picture.size, row["box"]) for crop in crops])
    ours, centre = np.mean(results[9 / 16], axis=0)
    assert ours >= 1.1 * centre
    ours, centre = np.mean(results[1.0], axis=0)
    assert ours >= 1.05 * centre
    ours, centre = np.mean(results[16 / 9], axis=0)
    assert ours >= centre


# -- conform


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_subject_crops_are_of_the_upright_picture(orientation):
    upright = with_disc(800, 300, (690, 150), 60)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    (upright.transpose(turn[orientation]) if orientation in turn else upright).save(out, "JPEG", quality=95, exif=exif)
    fitted = conform(out.getvalue(), "x.jpg", width_px=200, height_px=200, mode="subject")
    assert fitted.crop_px[2] >= 745
    assert fitted.crop_px[3] == 300
    pixels = np.asarray(Image.open(io.BytesIO(fitted.data)).convert("RGB"), int)
    assert ((pixels[..., 0] > 180) & (pixels[..., 1] < 90)).mean() > 0.05
    assert conform(out.getvalue(), "x.jpg", width_px=200, height_px=200, mode="subject").data == fitted.data


def test_a_given_focus_decides():
    data = encode_png(with_disc(800, 300, (690, 150), 60))
    fitted = conform(data, "x", width_px=300, height_px=300, mode="subject", focus=(0.2, 0.5, 0.2, 0.5))
    assert fitted.crop_px == (10, 0, 310, 300)
    with pytest.raises(UsageError, match="takes no focus"):
        conform(data, "x", width_px=300, height_px=300, focus=(0, 0, 1, 1))
    with pytest.raises(UsageError, match="leaves the picture"):
        conform(data, "x", width_px=300, height_px=300, mode="subject", focus=(0, 0, 1, 2))
    with pytest.raises(UsageError, match="one of cover, contain, blur, subject"):
        conform(data, "x", width_px=300, height_px=300, mode="squash")
    assert FIT_MODES == ("cover", "contain", "blur", "subject")


@pytest.mark.parametrize(("width", "height"), [(400, 400), (160, 400), (640, 100), (800, 300)])
def test_blur_keeps_all_of_the_picture_before_a_soft_copy_of_it(width, height):
    picture = with_disc(800, 300, (400, 150), 120)
    fitted = conform(encode_png(picture), "x", width_px=width, height_px=height, mode="blur", media_type="image/png")
    seen = np.asarray(Image.open(io.BytesIO(fitted.data)), int)
    assert seen.shape == (height, width, 3)
    assert fitted.crop_px == (0, 0, 800, 300)
    with_bars = conform(
        encode_png(picture), "x", width_px=width, height_px=height, mode="contain", media_type="image/png"
    )
    bars = np.asarray(Image.open(io.BytesIO(with_bars.data)), int)
    inside = bars.max(axis=-1) > 0
    assert np.array_equal(seen[inside], bars[inside])
    beside = ~inside
    if beside.any():
        fine = np.abs(np.diff(seen, axis=1))[beside[:, 1:] & beside[:, :-1]]
        assert fine.max() <= 4  # soft: no edge, no detail
        assert 20 < seen[beside].mean() < seen[inside].mean()  # dimmed, not black


# -- outpainting


@given(SIZES, SIZES, ASPECTS, st.sampled_from([1, 8, 16, 64]))
def test_margins_reach_the_shape_and_cut_nothing(width, height, aspect, multiple):
    left, top, right, bottom = outpaint_margins(width, height, aspect, multiple_px=multiple)
    assert min(left, top, right, bottom) >= 0
    wide, high = width + left + right, height + top + bottom
    assert wide % multiple == high % multiple == 0
    assert abs(right - left) <= 1
    assert abs(bottom - top) <= 1
    # Off by at most half a step in one direction; never more than needed in the other.
    assert min(abs(wide - high * aspect), abs(high - wide / aspect) * aspect) <= multiple * max(1, aspect) * 0.5 + 1e-6
    assert wide - width < multiple or high - height < multiple


def test_margins_by_hand():
    assert outpaint_margins(1000, 1000, 16 / 9) == (389, 0, 389, 0)
    assert outpaint_margins(1600, 900, 1.0) == (0, 350, 0, 350)
    assert outpaint_margins(1601, 900, 1.0) == (0, 350, 0, 351)
    assert outpaint_margins(1280, 720, 16 / 9) == (0, 0, 0, 0)
    assert outpaint_margins(1000, 1000, 1.0, multiple_px=64) == (12, 12, 12, 12)
    for bad in ((0, 10, 1.0), (10, 10, 0.0), (10, 10, float("nan"))):
        with pytest.raises(UsageError):
            outpaint_margins(*bad)


# -- edits


def test_an_edit_begins_lossless_upright_and_bare():
    picture = with_disc(400, 300, (100, 100), 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    picture.save(out, "PNG", exif=exif)
    base = edit_base(out.getvalue(), "x.png")
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
    assert (base.media_type, base.width_px, base.height_px, base.crop_px) == ("image/png", 300, 400, (0, 0, 300, 400))
    with Image.open(io.BytesIO(base.data)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert np.array_equal(np.asarray(image), upright)
    again = edit_base(base.data, "x.png")
    assert again.data == base.data


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (1200, 900)),
        ({"max_side_px": 600}, (600, 450)),
        ({"max_pixels": 480_000}, (800, 600)),
        ({"max_side_px": 500, "max_pixels": 480_000}, (500, 375)),
    ],
)
def test_an_edit_is_scaled_down_only_where_it_must_be(options, size):
    base = edit_base(encode_png(soft(1200, 900)), "x", **options)
    assert (base.width_px, base.height_px) == size == Image.open(io.BytesIO(base.data)).size
    assert not base.upscaled


def test_a_picture_that_is_too_small_for_an_edit_is_refused():
    with pytest.raises(ImageRejectedError) as caught:
        edit_base(encode_png(soft(3000, 100)), "long.png", max_side_px=1000, min_side_px=64)
    assert (caught.value.code, caught.value.detail) == ("too_small", "1000x33")
