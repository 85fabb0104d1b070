"""What a mask is, as a value: shapes and how they are joined; JSON, and no pixel yet."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from attrs import frozen

from vrag.errors import UsageError
from vrag.media.ref import MediaRef

__all__ = ["MAX_POINTS", "MaskShape", "MaskSpec", "MaskUnit"]

MaskShape = Literal[
    "rectangle", "ellipse", "polygon", "brush",
    "alpha", "luminance", "colour", "image",
    "union", "subtract", "intersect", "invert", "grow", "shrink", "feather",
]  # fmt: skip
"""`MaskSpec` has a constructor of the same name for each, which says what it means."""
MaskUnit = Literal["px", "fraction"]
"""Pixels of the upright picture, or fractions: x of its width, y of its height, lengths of its shorter side."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]

MAX_POINTS: Final = 10_000
"""Corners and brush points in one mask, all parts together."""
_MAX_PARTS: Final = 200
_MAX_DEPTH: Final = 32
_HEX: Final = re.compile(r"#[0-9a-fA-F]{6}")
# What each shape takes beside `shape`. A field of another shape is an error, not ignored.
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "rectangle": frozenset({"unit", "box"}),
    "ellipse": frozenset({"unit", "box"}),
    "polygon": frozenset({"unit", "points"}),
    "brush": frozenset({"unit", "strokes", "radius"}),
    "alpha": frozenset(),
    "luminance": frozenset({"low", "high"}),
    "colour": frozenset({"colours", "tolerance"}),
    "image": frozenset({"media", "resize"}),
    "union": frozenset({"parts"}),
    "subtract": frozenset({"parts"}),
    "intersect": frozenset({"parts"}),
    "invert": frozenset({"parts"}),
    "grow": frozenset({"parts", "unit", "radius"}),
    "shrink": frozenset({"parts", "unit", "radius"}),
    "feather": frozenset({"parts", "unit", "radius"}),
}
_OPTIONAL: Final = frozenset({"resize"})


@frozen(kw_only=True)
class MaskSpec:
    """Which pixels of a picture are repainted (white), before the picture is at hand.

    Made by the constructors below, which also join: `MaskSpec.rectangle(…) - MaskSpec.brush(…)`; `|` is union, `&`
    intersection, `-` subtraction and `~` the opposite. One class holds every shape, so that it is JSON and back
    without a registry; a field that a shape does not use stays empty.

    Raises:
        UsageError: A field is missing, out of range or not for this shape.
    """

    shape: MaskShape
    unit: MaskUnit | None = None
    box: Box | None = None
    """Left, top, right, bottom; right and bottom lie just outside."""
    points: tuple[Point, ...] = ()
    strokes: tuple[tuple[Point, ...], ...] = ()
    radius: float | None = None
    low: float | None = None
    high: float | None = None
    colours: tuple[str, ...] = ()
    tolerance: float | None = None
    media: MediaRef | None = None
    resize: bool = False
    parts: tuple[MaskSpec, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.shape not in _FIELDS:
            raise UsageError(f"There is no mask shape '{self.shape}'; there are {', '.join(_FIELDS)}.")
        used = {name for name, value in self._values().items() if value not in (None, (), False)}
        takes = _FIELDS[self.shape]
        if extra := sorted(used - takes):
            raise UsageError(f"A mask of shape '{self.shape}' takes no {', '.join(extra)}.")
        if missing := sorted(takes - used - _OPTIONAL):
            raise UsageError(f"A mask of shape '{self.shape}' needs {', '.join(missing)}.")
        self._check_values()
        points, parts, depth = self._weight()
        if points > MAX_POINTS:
            raise UsageError(f"The mask has {points} points; {MAX_POINTS} are allowed.", hint="simplify the outline")
        if parts > _MAX_PARTS or depth > _MAX_DEPTH:
            raise UsageError(
                f"The mask has {parts} parts, {depth} deep; {_MAX_PARTS} parts, {_MAX_DEPTH} deep, are allowed."
            )

    # -- shapes

    @classmethod
    def rectangle(cls, left: float, top: float, right: float, bottom: float, *, unit: MaskUnit) -> MaskSpec:
        """White inside; right and bottom lie just outside."""
        return cls(shape="rectangle", unit=unit, box=(left, top, right, bottom))

    @classmethod
    def ellipse(cls, left: float, top: float, right: float, bottom: float, *, unit: MaskUnit) -> MaskSpec:
        """White inside the ellipse that fills this box."""
        return cls(shape="ellipse", unit=unit, box=(left, top, right, bottom))

    @classmethod
    def polygon(cls, points: Sequence[Point], *, unit: MaskUnit) -> MaskSpec:
        """White inside, by the even-odd rule; at least three corners, the last joined to the first."""
        return cls(shape="polygon", unit=unit, points=_points(points))

    @classmethod
    def brush(cls, *strokes: Sequence[Point], radius: float, unit: MaskUnit) -> MaskSpec:
        """White within `radius` of each stroke; a stroke is a line through its points, or a dot."""
        return cls(shape="brush", unit=unit, strokes=tuple(_points(stroke) for stroke in strokes), radius=radius)

    # -- from pixels

    @classmethod
    def alpha(cls) -> MaskSpec:
        """White where the picture is transparent, as image editors mark what is to be painted; grey where half so."""
        return cls(shape="alpha")

    @classmethod
    def luminance(cls, low: float, high: float) -> MaskSpec:
        """White where the lightness is from `low` to `high`: CIE L*, 0 for black to 100 for white."""
        return cls(shape="luminance", low=low, high=high)

    @classmethod
    def colour(cls, *colours: str, tolerance: float = 15.0) -> MaskSpec:
        """White where the picture has one of these colours (`#rrggbb`, sRGB), within `tolerance`.

        The tolerance is the distance in CIELAB (CIE 1976): 2 is just visible, 15 takes in light shading, 100 lies
        between black and white.
        """
        return cls(shape="colour", colours=tuple(colour.lower() for colour in colours), tolerance=tolerance)

    @classmethod
    def image(cls, media: MediaRef, *, resize: bool = False) -> MaskSpec:
        """A mask painted elsewhere: white repaints, cut at half grey.

        It must have the size of the picture; `resize=True` takes another size to the nearest pixel, which moves edges.
        """
        return cls(shape="image", media=media, resize=resize)

    # -- joined

    @classmethod
    def union(cls, *parts: MaskSpec) -> MaskSpec:
        """White where any part is."""
        return cls(shape="union", parts=parts)

    @classmethod
    def subtract(cls, first: MaskSpec, *rest: MaskSpec) -> MaskSpec:
        """White where the first part is and no other."""
        return cls(shape="subtract", parts=(first, *rest))

    @classmethod
    def intersect(cls, *parts: MaskSpec) -> MaskSpec:
        """White where every part is."""
        return cls(shape="intersect", parts=parts)

    def invert(self) -> MaskSpec:
        """Black for white and white for black."""
        return MaskSpec(shape="invert", parts=(self,))

    def grow(self, radius: float, *, unit: MaskUnit) -> MaskSpec:
        """White within `radius` of this mask, which is cut at half grey first."""
        return MaskSpec(shape="grow", parts=(self,), radius=radius, unit=unit)

    def shrink(self, radius: float, *, unit: MaskUnit) -> MaskSpec:
        """White further than `radius` from the black of this mask, which is cut at half grey first."""
        return MaskSpec(shape="shrink", parts=(self,), radius=radius, unit=unit)

    def feather(self, radius: float, *, unit: MaskUnit) -> MaskSpec:
        """Soft edges: a Gaussian of this standard deviation. Half grey stays on straight edges.

        Backends that take only black and white cut at half grey, so that a feather does nothing there but round
        corners; `vrag.media.mask.check_mask` cuts the same way.
        """
        return MaskSpec(shape="feather", parts=(self,), radius=radius, unit=unit)

    def __or__(self, other: MaskSpec) -> MaskSpec:
        return MaskSpec.union(self, other)

    def __and__(self, other: MaskSpec) -> MaskSpec:
        return MaskSpec.intersect(self, other)

    def __sub__(self, other: MaskSpec) -> MaskSpec:
        return MaskSpec.subtract(self, other)

    def __invert__(self) -> MaskSpec:
        return self.invert()

    # -- checks

    def _values(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "box": self.box,
            "points": self.points,
            "strokes": self.strokes,
            "radius": self.radius,
            "low": None if self.low is None else ("low", self.low),  # 0 is a value
            "high": None if self.high is None else ("high", self.high),
            "colours": self.colours,
            "tolerance": None if self.tolerance is None else ("tolerance", self.tolerance),
            "media": self.media,
            "resize": self.resize,
            "parts": self.parts,
        }

    def _check_values(self) -> None:
        if self.unit not in {None, "px", "fraction"}:
            raise UsageError(f"The unit '{self.unit}' is not known; it is 'px' or 'fraction'.")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
                raise UsageError(
                    f"The box {self.box} is empty or leaves the picture; 0 <= left < right and 0 <= top < bottom."
                )
        for x, y in (*self.points, *(point for stroke in self.strokes for point in stroke)):
            if not (0 <= x < math.inf and 0 <= y < math.inf):
                raise UsageError(f"The point ({x:g}, {y:g}) lies outside the picture; coordinates start at 0.")
        if self.shape == "polygon" and len(self.points) < 3:
            raise UsageError(f"A polygon of {len(self.points)} points has no inside; it needs at least 3.")
        if not all(self.strokes):
            raise UsageError("A brush stroke has no point; it needs at least 1.")
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise UsageError(f"The radius {self.radius:g} is not a length; it is above 0.")
        if self.low is not None and self.high is not None and not 0 <= self.low <= self.high <= 100:
            raise UsageError(f"Lightness from {self.low:g} to {self.high:g} is no range; 0 <= low <= high <= 100.")
        for colour in self.colours:
            if not _HEX.fullmatch(colour):
                raise UsageError(f"'{colour[:20]}' is not a colour; write it as #rrggbb.")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise UsageError(f"The tolerance {self.tolerance:g} is not a distance; it is 0 or more.")
        if self.shape in {"invert", "grow", "shrink", "feather"} and len(self.parts) != 1:
            raise UsageError(f"'{self.shape}' has {len(self.parts)} parts; it takes 1.")

    def _weight(self) -> tuple[int, int, int]:
        """Points, parts and depth."""
        below = [part._weight() for part in self.parts]  # noqa: SLF001  # of its own class
        points = len(self.points) + len(self.colours) + sum(len(stroke) for stroke in self.strokes)
        return (
            points + sum(weight[0] for weight in below),
            1 + sum(weight[1] for weight in below),
            1 + max((weight[2] for weight in below), default=0),
        )


def _points(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in points)
