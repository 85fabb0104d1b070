"""Masks become pixels: `draw_mask` paints a `MaskSpec` for one picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vrag.errors import UsageError
from vrag.media.colour import lab_of
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import encode_png, load_alpha, load_image
from vrag.media.mask_spec import MaskSpec
from vrag.media.ref import MediaRef, OpenMedia

__all__ = ["DrawnMask", "draw_mask"]

Plane = NDArray[np.uint8]
Rows = NDArray[np.float64]

_LIMITS: Final = ImageLimits(min_side_px=1)
_MAX_REACH_PX: Final = 512
"""Growing costs a pass over the mask for each pixel of its radius."""
_STRIP_ROWS: Final = 256


@frozen(kw_only=True)
class DrawnMask:
    """A mask for one picture."""

    data: bytes = field(repr=False)
    """PNG, 8-bit grey, of the size of the upright picture; white is repainted."""
    width_px: int
    height_px: int
    box_px: tuple[int, int, int, int]
    """Left, top, right, bottom of what is white, cut at half grey; right and bottom lie just outside."""
    share: float
    """Of the picture that is white, cut at half grey; above 0, up to 1."""


def draw_mask(
    spec: MaskSpec,
    picture: bytes | tuple[int, int],
    *,
    name: str = "picture",
    open_media: OpenMedia | None = None,
) -> DrawnMask:
    """Paint a mask for one picture.

    A pixel is white where its middle lies inside a shape; shapes have hard edges, and only `alpha` and `feather` give
    greys. Backends cut those at half grey (see `MaskSpec.feather`). A mask that is described by words is no `MaskSpec`:
    the backend draws it itself.

    Args:
        spec: What to paint.
        picture: The encoded picture, or its upright (width, height) in pixels where no part reads the picture.
        name: How to call the picture in errors.
        open_media: Opens the bytes of masks that were painted elsewhere.

    Raises:
        UsageError: A shape leaves the picture, no pixel is white, a part reads a picture that was not given or has no
            transparency, a mask has another size, or a radius is over 512 pixels.
        ImageRejectedError: The picture or a mask of it cannot be read.
    """
    canvas = _Canvas(picture, name, open_media)
    plane = canvas.draw(spec)
    white = plane >= 128
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    if not rows.size:
        raise UsageError(
            "The mask is empty: no pixel of it is white, so nothing would be repainted.",
            hint="make the shape larger, or widen the range or tolerance",
        )
    return DrawnMask(
        data=encode_png(Image.fromarray(plane)),
        width_px=canvas.width,
        height_px=canvas.height,
        box_px=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        share=int(np.count_nonzero(white)) / white.size,
    )


class _Canvas:
    """One picture; its pixels are decoded only where a part of the mask reads them, and once."""

    def __init__(self, picture: bytes | tuple[int, int], name: str, open_media: OpenMedia | None) -> None:
        self._picture, self._name, self._open = picture, name, open_media
        self._lab: NDArray[np.float32] | None = None
        if isinstance(picture, tuple):
            self.width, self.height = picture
            if min(picture) < 1 or self.width * self.height > _LIMITS.max_pixels:
                raise UsageError(f"{self.width} x {self.height} is no size of a picture.")
        else:
            opened = open_image(picture, name, _LIMITS)
            self.width, self.height = opened.width_px, opened.height_px

    def draw(self, spec: MaskSpec) -> Plane:
        shapes: dict[str, Callable[[MaskSpec], Plane]] = {
            "rectangle": self._rectangle,
            "ellipse": self._ellipse,
            "polygon": self._polygon,
            "brush": self._brush,
            "alpha": self._alpha,
            "luminance": self._luminance,
            "colour": self._colour,
            "image": self._image,
        }
        if spec.shape in shapes:
            return shapes[spec.shape](spec)
        parts = (self.draw(part) for part in spec.parts)
        match spec.shape:
            case "union":
                return reduce(np.maximum, parts)
            case "intersect":
                return reduce(np.minimum, parts)
            case "subtract":
                return reduce(lambda kept, taken: np.minimum(kept, 255 - taken), parts)
        (plane,) = parts
        if spec.shape == "invert":
            return np.subtract(255, plane)
        radius = self._length(spec)
        if radius > _MAX_REACH_PX:
            raise UsageError(f"'{spec.shape}' by {radius:g} px is too far; up to {_MAX_REACH_PX} px are allowed.")
        if spec.shape == "feather":
            return np.asarray(Image.fromarray(plane).filter(ImageFilter.GaussianBlur(radius)))
        white = plane >= 128
        return _plane(grown(white, radius) if spec.shape == "grow" else ~grown(~white, radius))

    # -- shapes

    def _rectangle(self, spec: MaskSpec) -> Plane:
        left, top, right, bottom = self._box(spec)
        y = self._rows()
        inside = (top <= y) & (y < bottom)
        return self._fill(np.where(inside, left, np.inf), np.where(inside, right, -np.inf))

    def _ellipse(self, spec: MaskSpec) -> Plane:
        left, top, right, bottom = self._box(spec)
        down = (self._rows() - (top + bottom) / 2) / ((bottom - top) / 2)
        inside = np.abs(down) <= 1
        reach = np.where(inside, (right - left) / 2 * np.sqrt(np.maximum(0, 1 - down**2)), -np.inf)
        return self._fill((left + right) / 2 - reach, (left + right) / 2 + reach)

    def _polygon(self, spec: MaskSpec) -> Plane:
        points = [self._point(spec, point) for point in spec.points]
        flips = np.zeros((self.height, self.width + 1), np.uint8)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            (xa, ya), (xb, yb) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
            first, last = math.ceil(ya - 0.5), math.ceil(yb - 0.5)  # rows whose middle lies in [ya, yb)
            if first >= last:
                continue
            rows = np.arange(first, last)
            crossing = xa + (rows + 0.5 - ya) * (xb - xa) / (yb - ya)
            flips[rows, np.clip(np.ceil(crossing - 0.5), 0, self.width).astype(np.intp)] ^= 1
        return _plane(np.bitwise_xor.accumulate(flips, axis=1)[:, : self.width].astype(bool))

    def _brush(self, spec: MaskSpec) -> Plane:
        radius, y = self._length(spec), self._rows()
        edges = np.zeros((self.height, self.width + 1), np.int32)
        for stroke in spec.strokes:
            points = [self._point(spec, point) for point in stroke]
            for start, end in zip(points, points[1:] or points, strict=False):
                _mark(edges, *_capsule(y, start, end, radius))
        return _plane(np.cumsum(edges, axis=1)[:, : self.width] > 0)

    # -- from pixels

    def _alpha(self, spec: MaskSpec) -> Plane:
        alpha = load_alpha(self._bytes(spec), self._name, limits=_LIMITS)
        if alpha is None:
            raise UsageError(
                "The picture has no transparency to take a mask from.", hint="draw a shape, or give a PNG with alpha"
            )
        return 255 - np.asarray(alpha)

    def _luminance(self, spec: MaskSpec) -> Plane:
        lightness = self._lab_of(spec)[..., 0]
        return _plane((lightness >= (spec.low or 0.0) - 1e-3) & (lightness <= (spec.high or 0.0) + 1e-3))

    def _colour(self, spec: MaskSpec) -> Plane:
        lab = self._lab_of(spec)
        near = np.zeros(lab.shape[:2], bool)
        for colour in spec.colours:
            wanted = lab_of(np.array([[tuple(bytes.fromhex(colour[1:]))]], np.uint8))[0, 0]
            for top in range(0, self.height, _STRIP_ROWS):
                strip = slice(top, top + _STRIP_ROWS)
                near[strip] |= ((lab[strip] - wanted) ** 2).sum(axis=-1) <= ((spec.tolerance or 0.0) + 1e-3) ** 2
        return _plane(near)

    def _image(self, spec: MaskSpec) -> Plane:
        ref: MediaRef | None = spec.media
        if ref is None or self._open is None:
            raise UsageError("The mask names a picture, and nothing was given that opens it.", hint="give open_media")
        with self._open(ref) as stream:
            loaded = load_image(stream.read(_LIMITS.max_bytes + 1), "mask", limits=_LIMITS)
        if loaded.transparent:
            raise UsageError(
                "The mask has transparency, which can mean either.", hint="paint it white (repaint) and black (keep)"
            )
        found, wanted = loaded.pixels.size, (self.width, self.height)
        if found != wanted and not spec.resize:
            raise UsageError(
                f"The mask has {found[0]} x {found[1]} pixels, the picture {wanted[0]} x {wanted[1]};"
                " they must be the same.",
                hint="resize=True takes it to the nearest pixel",
            )
        grey = loaded.pixels.convert("L")
        return _plane(np.asarray(grey.resize(wanted, Image.Resampling.NEAREST) if found != wanted else grey) >= 128)

    # -- numbers

    def _rows(self) -> Rows:
        return np.arange(self.height, dtype=np.float64) + 0.5

    def _box(self, spec: MaskSpec) -> tuple[float, float, float, float]:
        assert spec.box is not None
        left, top = self._point(spec, spec.box[:2])
        right, bottom = self._point(spec, spec.box[2:])
        return left, top, right, bottom

    def _point(self, spec: MaskSpec, point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        if spec.unit == "fraction":
            x, y = x * self.width, y * self.height
        if not (0 <= x <= self.width and 0 <= y <= self.height):
            raise UsageError(
                f"The {spec.shape} leaves the picture at ({point[0]:g}, {point[1]:g}) {spec.unit};"
                f" it has {self.width} x {self.height} pixels, and fractions end at 1."
            )
        return x, y

    def _length(self, spec: MaskSpec) -> float:
        assert spec.radius is not None
        return spec.radius * min(self.width, self.height) if spec.unit == "fraction" else spec.radius

    def _fill(self, left: Rows, right: Rows) -> Plane:
        edges = np.zeros((self.height, self.width + 1), np.int32)
        _mark(edges, left, right)
        return _plane(np.cumsum(edges, axis=1)[:, : self.width] > 0)

    def _bytes(self, spec: MaskSpec) -> bytes:
        if isinstance(self._picture, tuple):
            raise UsageError(f"A mask by {spec.shape} reads the picture, and only its size was given.")
        return self._picture

    def _lab_of(self, spec: MaskSpec) -> NDArray[np.float32]:
        if self._lab is None:
            self._lab = lab_of(np.asarray(load_image(self._bytes(spec), self._name, limits=_LIMITS).pixels))
        return self._lab


def _plane(white: NDArray[np.bool_]) -> Plane:
    return white.astype(np.uint8) * np.uint8(255)


def _mark(edges: NDArray[np.int32], left: Rows, right: Rows) -> None:
    """In each row, +1 at the first pixel whose middle is in [left, right), and -1 at the first behind it."""
    width = edges.shape[1] - 1
    first = np.clip(np.ceil(left - 0.5), 0, width)
    last = np.clip(np.ceil(right - 0.5), 0, width)
    rows = np.flatnonzero(first < last)
    edges[rows, first[rows].astype(np.intp)] += 1
    edges[rows, last[rows].astype(np.intp)] -= 1


def _capsule(y: Rows, start: tuple[float, float], end: tuple[float, float], radius: float) -> tuple[Rows, Rows]:
    """Where each row enters and leaves all that is within `radius` of a line."""
    left, right = np.full(y.shape, np.inf), np.full(y.shape, -np.inf)
    for cx, cy in (start, end):
        high = radius**2 - (y - cy) ** 2
        reach = np.where(high >= 0, np.sqrt(np.maximum(high, 0)), -np.inf)
        left, right = np.minimum(left, cx - reach), np.maximum(right, cx + reach)
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return left, right
    across, down = (y1 - y0) / length * radius, -(x1 - x0) / length * radius
    corners = [(x0 + across, y0 + down), (x1 + across, y1 + down), (x1 - across, y1 - down), (x0 - across, y0 - down)]
    for (xa, ya), (xb, yb) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if ya == yb:
            continue
        place = (y - ya) / (yb - ya)
        met = (place >= 0) & (place <= 1)
        x = xa + place * (xb - xa)
        left = np.where(met, np.minimum(left, x), left)
        right = np.where(met, np.maximum(right, x), right)
    return left, right


def grown(white: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """All within `radius` pixels of white, measured from middle to middle; what lies beyond the border is unknown."""
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    if not rows.size:
        return white
    reach = int(radius)
    top, bottom = max(0, int(rows[0]) - reach), int(rows[-1]) + 1 + reach
    side, end = max(0, int(columns[0]) - reach), int(columns[-1]) + 1 + reach
    part = white[top:bottom, side:end]
    near = _distance_in_row(part, reach + 1)
    out = np.zeros_like(part)
    for step in range(reach + 1):
        wide = near <= int(math.sqrt(radius**2 - step**2))
        out[step:] |= wide[: wide.shape[0] - step]
        out[: out.shape[0] - step] |= wide[step:]
    whole = np.zeros_like(white)
    whole[top:bottom, side:end] = out
    return whole


def _distance_in_row(white: NDArray[np.bool_], most: int) -> NDArray[np.uint16]:
    """Pixels to the nearest white one of the same row, up to `most`."""
    x = np.arange(white.shape[1], dtype=np.int32)
    before = np.maximum.accumulate(np.where(white, x, -most - 1), axis=1)
    after = np.minimum.accumulate(np.where(white, x, white.shape[1] + most)[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(np.minimum(x - before, after - x), most).astype(np.uint16)
