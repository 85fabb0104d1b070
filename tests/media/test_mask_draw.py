"""Masks from shapes, pixels and other masks: what is painted, and that a spec is JSON and back."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vrag.errors import ImageRejectedError, UsageError
from vrag.media.mask import MaskSpec, check_mask, draw_mask, overlay_mask, rectangle_mask, resize_mask
from vrag.media.mask_spec import MAX_POINTS
from vrag.testing.media import SampleMedia
from vrag.values.canonical import canonical_json, from_json, to_json

WIDTH, HEIGHT = 60, 40
SIZE = (WIDTH, HEIGHT)
DISC = MaskSpec.ellipse(20, 10, 40, 30, unit="px")
BOX = MaskSpec.rectangle(10, 5, 30, 20, unit="px")


def png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def white(spec: MaskSpec, picture: bytes | tuple[int, int] = SIZE, **options: object) -> np.ndarray:
    return levels(spec, picture, **options) >= 128


def levels(spec: MaskSpec, picture: bytes | tuple[int, int] = SIZE, **options: object) -> np.ndarray:
    image = Image.open(io.BytesIO(draw_mask(spec, picture, **options).data))
    assert image.mode == "L"
    assert image.info == {}
    return np.asarray(image)


def middles() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return x + 0.5, y + 0.5


def test_a_rectangle_is_the_one_that_backends_get():
    assert np.array_equal(white(BOX), np.asarray(check_mask(rectangle_mask(*SIZE, (10, 5, 30, 20)), *SIZE)) > 0)


def test_fractions_are_of_the_picture():
    halves = MaskSpec.rectangle(0, 0.5, 0.25, 1, unit="fraction")
    drawn = draw_mask(halves, SIZE)
    assert drawn.box_px == (0, 20, 15, 40)
    assert drawn.share == 1 / 8
    brush = MaskSpec.brush([(0.5, 0.5)], radius=0.25, unit="fraction")
    assert draw_mask(brush, SIZE).box_px == (20, 10, 40, 30)  # 0.25 of the shorter side, 40


def test_an_ellipse_holds_the_pixels_whose_middle_is_inside():
    x, y = middles()
    spec = MaskSpec.ellipse(5, 8, 55, 33, unit="px")
    assert np.array_equal(white(spec), ((x - 30) / 25) ** 2 + ((y - 20.5) / 12.5) ** 2 <= 1)


def test_a_polygon_follows_the_even_odd_rule():
    x, y = middles()
    triangle = MaskSpec.polygon([(10, 5), (50, 5), (10, 35)], unit="px")
    assert np.array_equal(white(triangle), (x > 10) & (y > 5) & ((x - 10) / 40 + (y - 5) / 30 < 1))
    bow = MaskSpec.polygon([(10, 10), (50, 30), (50, 10), (10, 30)], unit="px")
    assert np.array_equal(white(bow), np.abs(y - 20) < np.abs(x - 30) / 2) or np.array_equal(
        white(bow)[10:30, 10:50], (np.abs(y - 20) < np.abs(x - 30) / 2)[10:30, 10:50]
    )
    twice = [(10, 10), (50, 10), (50, 30), (10, 30)] * 2
    with pytest.raises(UsageError, match="empty"):  # wound twice, every place is outside again
        draw_mask(MaskSpec.polygon(twice, unit="px"), SIZE)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=1, max_size=5), st.floats(0.75, 15))
def test_a_brush_paints_what_is_near_its_line(points, radius):
    x, y = middles()
    near = np.full((HEIGHT, WIDTH), np.inf)
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points, strict=False):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1) if length > 1e-12 else 0 * x
        near = np.minimum(near, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    painted = white(MaskSpec.brush(points, radius=radius, unit="px"))
    sure = np.abs(near - radius) > 1e-6
    assert np.array_equal(painted[sure], (near <= radius)[sure])


def test_strokes_are_apart():
    spec = MaskSpec.brush([(5, 5)], [(50, 30), (55, 35)], radius=3, unit="px")
    assert not white(spec)[20, 25]
    assert white(spec)[5, 5]
    assert white(spec)[33, 53]


def test_transparent_parts_are_repainted():
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:30] = 0, 100
    picture = Image.new("RGBA", SIZE, (200, 30, 30, 255))
    picture.putalpha(Image.fromarray(alpha))
    assert np.array_equal(levels(MaskSpec.alpha(), png(picture)), 255 - alpha)
    with pytest.raises(UsageError, match="no transparency"):
        draw_mask(MaskSpec.alpha(), png(Image.new("RGB", SIZE)))


def test_masks_from_pixels_lie_on_the_upright_picture():
    picture = Image.new("RGBA", SIZE, (90, 90, 90, 255))
    picture.paste((250, 250, 250, 0), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left top corner comes to the right
    data = png(picture, exif=exif)
    for spec in (MaskSpec.alpha(), MaskSpec.luminance(95, 100)):
        drawn = draw_mask(spec, data)
        assert (drawn.width_px, drawn.height_px) == (HEIGHT, WIDTH)
        assert drawn.box_px == (30, 0, 40, 10)


def test_luminance_is_lightness_as_seen():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(8, 0))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255]
    lightness = np.array([116 * np.cbrt(v) - 16 if v > 216 / 24389 else v * 24389 / 27 for v in linear])
    found = white(MaskSpec.luminance(25, 75), png(ramp))[0]
    assert np.array_equal(found, (lightness >= 25) & (lightness <= 75))
    assert white(MaskSpec.luminance(0, 0), png(ramp))[0].nonzero()[0].tolist() == [0]
    assert white(MaskSpec.luminance(100, 100), png(ramp))[0].nonzero()[0].tolist() == [255]


def test_colours_are_near_as_the_eye_sees_them():
    # CIE L*a*b* of sRGB primaries, D65, as published tables give them: red 53.24 80.09 67.20, blue 32.30 79.19 -107.86.
    picture = Image.new("RGB", SIZE, (255, 0, 0))
    picture.paste((0, 0, 255), (30, 0, 60, 40))
    apart = math.dist((53.24, 80.09, 67.20), (32.30, 79.19, -107.86))
    left = white(MaskSpec.colour("#0000ff", tolerance=apart - 0.1), png(picture))
    assert not left[:, :30].any()
    assert left[:, 30:].all()
    assert white(MaskSpec.colour("#0000FF", tolerance=apart + 0.1), png(picture)).all()
    assert white(MaskSpec.colour("#ff0000", "#0000ff", tolerance=1), png(picture)).all()


def test_a_painted_mask_has_the_size_of_the_picture_or_is_scaled_when_asked():
    media = SampleMedia()
    fits = media.mask(*SIZE, white=(10, 5, 30, 20))
    half = media.mask(WIDTH // 2, HEIGHT // 2, white=(5, 5, 15, 10))
    assert np.array_equal(white(MaskSpec.image(fits), open_media=media), white(BOX))
    with pytest.raises(UsageError, match="30 x 20"):
        draw_mask(MaskSpec.image(half), SIZE, open_media=media)
    assert draw_mask(MaskSpec.image(half, resize=True), SIZE, open_media=media).box_px == (10, 10, 30, 20)
    with pytest.raises(UsageError, match="opens it"):
        draw_mask(MaskSpec.image(fits), SIZE)
    clear = media.add(png(Image.new("RGBA", SIZE)), "image/png", *SIZE)
    with pytest.raises(UsageError, match="transparency"):
        draw_mask(MaskSpec.image(clear), SIZE, open_media=media)
    broken = media.add(b"no picture", "image/png", *SIZE)
    with pytest.raises(ImageRejectedError):
        draw_mask(MaskSpec.image(broken), SIZE, open_media=media)


def test_masks_join_as_sets():
    disc, box = white(DISC), white(BOX)
    assert np.array_equal(white(DISC | BOX), disc | box)
    assert np.array_equal(white(DISC & BOX), disc & box)
    assert np.array_equal(white(DISC - BOX), disc & ~box)
    assert np.array_equal(white(~DISC), ~disc)
    assert np.array_equal(white(~(~DISC & ~BOX)), disc | box)


@pytest.mark.parametrize("radius", [1, 2.5, 7, 30])
def test_grow_and_shrink_are_round(radius):
    disc = white(DISC)
    x, y = middles()
    at = np.argwhere(disc)
    reach = np.min([np.hypot(y - row - 0.5, x - column - 0.5) for row, column in at], axis=0)
    grown = white(DISC.grow(radius, unit="px"))
    assert np.array_equal(grown, reach <= radius)
    if radius < 10:
        outside = ~white((~DISC).grow(radius, unit="px"))
        assert np.array_equal(white(DISC.shrink(radius, unit="px")), outside)
        assert not (outside & ~disc).any()


def test_growing_stays_in_the_picture_and_shrinking_leaves_the_border():
    corner = MaskSpec.rectangle(0, 0, 10, 10, unit="px")
    assert draw_mask(corner.grow(5, unit="px"), SIZE).box_px == (0, 0, 15, 15)
    # What lies beyond the border is unknown, and no reason to keep the picture there.
    assert draw_mask(corner.shrink(3, unit="px"), SIZE).box_px == (0, 0, 7, 7)


def test_feather_gives_greys_around_the_same_straight_edge():
    left = MaskSpec.rectangle(0, 0, 30, HEIGHT, unit="px")
    soft = levels(left.feather(4, unit="px"))
    assert len(np.unique(soft)) > 10
    assert np.array_equal(soft >= 128, white(left))
    assert np.array_equal(
        np.asarray(check_mask(draw_mask(left.feather(4, unit="px"), SIZE).data, *SIZE)) > 0, white(left)
    )


DEEP = (
    (DISC | MaskSpec.brush([(1, 2), (3.5, 4)], radius=2, unit="px"))
    - MaskSpec.polygon([(0, 0), (0.5, 0), (0.5, 1)], unit="fraction")
    | ~MaskSpec.alpha()
    | MaskSpec.luminance(0, 40).grow(2, unit="px") & MaskSpec.colour("#A0b1C2").shrink(0.01, unit="fraction")
    | MaskSpec.image(SampleMedia().mask(8, 8, white=None), resize=True).feather(3, unit="px")
)


def test_a_spec_is_json_and_back():
    data = json.loads(canonical_json(DEEP))
    assert from_json(MaskSpec, data) == DEEP
    assert canonical_json(from_json(MaskSpec, data)) == canonical_json(DEEP)
    assert hash(from_json(MaskSpec, data)) == hash(DEEP)
    assert to_json(BOX) == {"shape": "rectangle", "unit": "px", "box": (10, 5, 30, 20)}


@pytest.mark.parametrize(
    "data",
    [
        {"shape": "star"},
        {"shape": "rectangle", "unit": "px"},
        {"shape": "rectangle", "box": [0, 0, 1, 1]},
        {"shape": "rectangle", "unit": "cm", "box": [0, 0, 1, 1]},
        {"shape": "rectangle", "unit": "px", "box": [0, 0, 1, 1], "radius": 3},
        {"shape": "rectangle", "unit": "px", "box": [5, 0, 5, 1]},
        {"shape": "rectangle", "unit": "px", "box": [-1, 0, 5, 1]},
        {"shape": "rectangle", "unit": "px", "box": [0, 0, math.inf, 1]},
        {"shape": "rectangle", "unit": "px", "box": [0, 0, math.nan, 1]},
        {"shape": "polygon", "unit": "px", "points": [[0, 0], [1, 1]]},
        {"shape": "polygon", "unit": "px", "points": [[0, 0], [1, 1], [math.nan, 2]]},
        {"shape": "brush", "unit": "px", "strokes": [[]], "radius": 1},
        {"shape": "brush", "unit": "px", "strokes": [[[0, 0]]], "radius": 0},
        {"shape": "luminance", "low": 60, "high": 40},
        {"shape": "luminance", "low": 60, "high": 140},
        {"shape": "colour", "colours": ["red"], "tolerance": 1},
        {"shape": "colour", "colours": ["#ff0000"], "tolerance": -1},
        {"shape": "colour", "colours": ["#ff0000"], "tolerance": 1, "unknown": 1},
        {"shape": "invert", "parts": []},
        {"shape": "invert", "parts": [{"shape": "alpha"}, {"shape": "alpha"}]},
        {"shape": "union"},
    ],
)
def test_what_is_no_mask(data):
    with pytest.raises(UsageError):
        from_json(MaskSpec, data)


def test_zero_is_a_value():
    assert to_json(MaskSpec.luminance(0, 0)) == {"shape": "luminance", "low": 0, "high": 0}
    assert MaskSpec.colour("#ffffff", tolerance=0).tolerance == 0


@pytest.mark.parametrize(
    "spec",
    [
        MaskSpec.rectangle(50, 30, 61, 40, unit="px"),
        MaskSpec.ellipse(0, 0, 1, 1.01, unit="fraction"),
        MaskSpec.polygon([(0, 0), (60, 0), (30, 41)], unit="px"),
        MaskSpec.brush([(70, 10)], radius=20, unit="px"),
    ],
)
def test_shapes_stay_in_the_picture(spec):
    with pytest.raises(UsageError, match="leaves the picture"):
        draw_mask(spec, SIZE)


@pytest.mark.parametrize(
    "spec",
    [BOX & MaskSpec.rectangle(40, 30, 50, 40, unit="px"), BOX - DISC.grow(40, unit="px"), DISC.shrink(30, unit="px")],
)
def test_an_empty_mask_is_refused(spec):
    with pytest.raises(UsageError, match="empty"):
        draw_mask(spec, SIZE)


def test_size_alone_is_not_enough_to_read_pixels():
    with pytest.raises(UsageError, match="only its size"):
        draw_mask(MaskSpec.luminance(0, 50), SIZE)
    with pytest.raises(ImageRejectedError):
        draw_mask(BOX, b"no picture")
    with pytest.raises(UsageError, match="no size"):
        draw_mask(BOX, (1 << 20, 1 << 20))


def test_there_are_caps():
    with pytest.raises(UsageError, match="points"):
        MaskSpec.brush([(1.0, 1.0)] * (MAX_POINTS + 1), radius=1, unit="px")
    with pytest.raises(UsageError, match="parts"):
        MaskSpec.union(*[BOX] * 201)
    deep = BOX
    for _ in range(31):
        deep = ~deep
    with pytest.raises(UsageError, match="32 deep"):
        deep.invert()
    with pytest.raises(UsageError, match="512"):
        draw_mask(BOX.grow(600, unit="px"), SIZE)


def test_an_overlay_tints_what_is_repainted_and_nothing_else():
    picture = png(Image.new("RGB", (400, 300), (60, 120, 60)))
    drawn = draw_mask(MaskSpec.rectangle(0, 0, 200, 300, unit="px"), picture)
    seen = np.asarray(Image.open(io.BytesIO(overlay_mask(picture, drawn.data))).convert("RGB"), int)
    assert seen.shape == (300, 400, 3)
    assert np.abs(seen[:, 220:] - (60, 120, 60)).max() <= 4
    assert (seen[:, :180, 0] > 120).all()
    assert (seen[150, 195:200].min(axis=-1) > 150).any()  # the outline
    small = Image.open(io.BytesIO(overlay_mask(picture, drawn.data, max_side_px=100)))
    assert small.size == (100, 75)
    with pytest.raises(UsageError, match="must be the same"):
        overlay_mask(picture, draw_mask(BOX, SIZE).data)


def test_a_mask_follows_its_picture_to_another_size():
    drawn = draw_mask(DISC | BOX, (600, 400)).data
    assert resize_mask(drawn, 600, 400) is drawn
    half = np.asarray(check_mask(resize_mask(drawn, 300, 200), 300, 200)) > 0
    again = np.asarray(check_mask(drawn, 600, 400)).reshape(200, 2, 300, 2).mean(axis=(1, 3)) >= 127.5
    assert (half != again).mean() < 0.001
    large = np.asarray(check_mask(resize_mask(drawn, 1200, 800), 1200, 800)) > 0
    assert abs(large.mean() - (np.asarray(check_mask(drawn, 600, 400)) > 0).mean()) < 0.0005
    hair = draw_mask(MaskSpec.rectangle(3, 0, 4, 40, unit="px"), SIZE).data
    with pytest.raises(UsageError, match="too thin"):
        resize_mask(hair, 6, 4)


def test_a_bad_spec_in_json_says_where():
    with pytest.raises(UsageError, match=r"parts\[0\]"):
        from_json(MaskSpec, {"shape": "union", "parts": [{"shape": "rectangle", "unit": "px"}]})
