"""Camera moves as geometry: which part of one still each frame of a film shows.

A film looks through a window inside the picture. Each move shifts, scales or turns that window by a stated amount, and
the first window is the largest one of the video's shape for which every later window stays inside the picture. So no
frame can show an edge, and the first frame is an upright crop of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from vrag.prompts.camera import CameraMove

__all__ = ["MOTIONS", "CameraPath", "Easing", "Motion", "Support", "camera_path"]

Support = Literal["performed", "approximated", "unmet"]
"""`performed`: the film shows this motion. `approximated`: its nearest likeness on a flat picture. `unmet`: nothing."""

Easing = Literal["ease", "linear"]
"""`ease` starts and stops softly; `linear` has one speed from the first frame to the last."""

Matrix = NDArray[np.float64]

_FOCAL: Final = 1.2
"""Focal length of the imagined camera in window widths (45 degrees across); only the turning round a point uses it."""
_SOFT_PART: Final = 0.3
"""The part of an eased move at each end in which it gains and loses speed."""
_OVERLAP: Final = 0.2
"""How far a move of a sequence reaches into its neighbours' parts, so that the camera does not stop between them."""
_WHIP_S: Final = 0.35
"""How long a whip lasts; before and after it the camera rests."""


@frozen(kw_only=True)
class Motion:
    """What one camera word does to the window, and how well that shows the word."""

    support: Support
    how: str
    """One sentence for the documentation and for people who ask."""
    right: float = 0.0
    """Way of the camera to the right, in window widths."""
    down: float = 0.0
    """Way of the camera down, in window heights."""
    zoom: float = 1.0
    """Magnification at the end, by a lens: equal ratios in equal times."""
    dolly: float = 1.0
    """Magnification at the end, by coming nearer: equal ways in equal times, so it grows faster and faster."""
    roll_deg: float = 0.0
    """Turn of the camera about its own axis, clockwise."""
    orbit_right_deg: float = 0.0
    """Way of the camera round the middle of the window, to the right, always facing it."""
    orbit_up_deg: float = 0.0
    """The same, upwards."""
    whip: bool = False
    speed: float | None = None
    """Set for words about speed: they have no motion of their own and scale the amount of the others."""
    sway: bool = False
    """Moves through the whole shot, beside the others."""

    @property
    def is_manner(self) -> bool:
        """Whether it colours the whole shot instead of taking its turn."""
        return self.sway or self.speed is not None


_performed = partial(Motion, support="performed")
_approximated = partial(Motion, support="approximated")
_unmet = partial(Motion, support="unmet")
_PAN: Final = (
    "The window slides {0} by a quarter of itself, so the picture moves {1} in the frame; lines stay straight."
)
_SLIDE: Final = "The window slides {0} by a quarter of itself; near and far things move alike: a still has no parallax."
_WHIP: Final = "{0}, in a third of a second, blurred by its speed, with rest before and after."

MOTIONS: Final[Mapping[CameraMove, Motion]] = MappingProxyType(
    {
        CameraMove.AERIAL_SHOT: _approximated(
            how="The window rises and widens as from a climbing drone, ending in a slight view from above;"
            " the viewpoint of the picture stays.",
            down=-0.12,
            dolly=1 / 1.15,
            orbit_up_deg=8,
        ),
        CameraMove.ARC_SHOT: _approximated(
            how="The camera goes 18 degrees round the middle to the right; the picture turns like a flat card.",
            orbit_right_deg=18,
        ),
        CameraMove.CLOCKWISE_ROTATION: _performed(
            how="The camera rolls 12 degrees clockwise, so the picture turns counterclockwise in the frame.",
            roll_deg=12,
        ),
        CameraMove.COUNTERCLOCKWISE_ROTATION: _performed(
            how="The camera rolls 12 degrees counterclockwise, so the picture turns clockwise in the frame.",
            roll_deg=-12,
        ),
        CameraMove.DOLLY_IN: _approximated(
            how="The picture grows to 1.4 times, as when coming nearer at constant speed; all depths grow alike.",
            dolly=1.4,
        ),
        CameraMove.DOLLY_OUT: _approximated(
            how="The picture shrinks from 1.4 times, as when backing away at constant speed; all depths shrink alike.",
            dolly=1 / 1.4,
        ),
        CameraMove.DOLLY_ZOOM: _unmet(
            how="It changes near things against far ones; on one flat picture its two halves cancel out."
        ),
        CameraMove.FOLLOWING_SHOT: _unmet(how="It follows something that moves; nothing moves in a still."),
        CameraMove.PAN_LEFT: _performed(how=_PAN.format("left", "right"), right=-0.25),
        CameraMove.PAN_RIGHT: _performed(how=_PAN.format("right", "left"), right=0.25),
        CameraMove.PEDESTAL_DOWN: _approximated(how=_SLIDE.format("down"), down=0.25),
        CameraMove.PEDESTAL_UP: _approximated(how=_SLIDE.format("up"), down=-0.25),
        CameraMove.STATIC_SHOT: _performed(how="The window rests; alone it shows the whole picture."),
        CameraMove.TILT_DOWN: _performed(how=_PAN.format("down", "up"), down=0.25),
        CameraMove.TILT_UP: _performed(how=_PAN.format("up", "down"), down=-0.25),
        CameraMove.TRACK_LEFT: _approximated(how=_SLIDE.format("left"), right=-0.25),
        CameraMove.TRACK_RIGHT: _approximated(how=_SLIDE.format("right"), right=0.25),
        CameraMove.WHIP_PAN_LEFT: _performed(how=_WHIP.format("Half a window to the left"), right=-0.5, whip=True),
        CameraMove.WHIP_PAN_RIGHT: _performed(how=_WHIP.format("Half a window to the right"), right=0.5, whip=True),
        CameraMove.WHIP_TILT_DOWN: _performed(how=_WHIP.format("Half a window down"), down=0.5, whip=True),
        CameraMove.WHIP_TILT_UP: _performed(how=_WHIP.format("Half a window up"), down=-0.5, whip=True),
        CameraMove.WHIP_ZOOM_IN: _performed(how=_WHIP.format("In to 1.6 times"), zoom=1.6, whip=True),
        CameraMove.WHIP_ZOOM_OUT: _performed(how=_WHIP.format("Out from 1.6 times"), zoom=1 / 1.6, whip=True),
        CameraMove.ZOOM_IN: _performed(
            how="The window shrinks evenly until the picture is 1.4 times as large.", zoom=1.4
        ),
        CameraMove.ZOOM_OUT: _performed(how="The window, at first 1.4 times closer, grows evenly.", zoom=1 / 1.4),
        CameraMove.SLOW_MOTION: _approximated(
            how="The other moves go half their way, at half their speed; nothing in a still moves by itself.", speed=0.5
        ),
        CameraMove.TIME_LAPSE: _approximated(
            how="The other moves go 1.5 times their way, at 1.5 times their speed; no time passes in a still.",
            speed=1.5,
        ),
        CameraMove.CRANE_DOWN: _approximated(
            how="The window sinks and comes a little nearer, ending in a slight view from below; no parallax.",
            down=0.2,
            dolly=1.1,
            orbit_up_deg=-6,
        ),
        CameraMove.CRANE_UP: _approximated(
            how="The window rises and widens a little, ending in a slight view from above; no parallax.",
            down=-0.2,
            dolly=1 / 1.1,
            orbit_up_deg=6,
        ),
        CameraMove.HANDHELD: _performed(
            how="A small sway and roll below 2 Hz through the whole shot, the same for the same seed.", sway=True
        ),
    }
)
"""Every camera word; capabilities, the renderer and the documentation follow this one table."""


@frozen(kw_only=True)
class _Leg:
    """One motion in its place in the film: all of it happens between `begin` and `end` (0..1 of the film)."""

    begin: float
    end: float
    right: float
    """In widths of the first window, along the picture's rows: earlier zooms and rolls are worked in."""
    down: float
    """In widths of the first window, along the picture's columns."""
    log_zoom: float
    dolly: float
    roll: float
    orbit_right: float
    orbit_up: float


@frozen(kw_only=True, eq=False)
class CameraPath:
    """Where the camera looks at each moment of a film.

    Coordinates are continuous: the top left corner of a picture is (0, 0), and the middle of its first pixel is
    (0.5, 0.5).
    """

    frames: int
    picture_px: tuple[int, int]
    video_px: tuple[int, int]
    easing: Easing
    legs: tuple[_Leg, ...] = field(repr=False)
    sway: Matrix | None = field(repr=False)
    """Rows of sines: axis (0 right, 1 down, 2 roll), amplitude, cycles in the film, phase. None: no sway."""
    origin: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    """Picture pixels a pixel of the first frame."""

    def matrix(self, frame: float) -> Matrix:
        """The homography (3x3) from pixels of the video to pixels of the picture at `frame` (0..frames - 1, fractions too)."""
        return self._place() @ self.relative(frame)

    def corners(self, frame: float) -> Matrix:
        """Where the corners of the frame lie in the picture: top left, top right, bottom right, bottom left (4x2)."""
        return _corners(self.matrix(frame), self.video_px)

    def speed(self, frame: int) -> float:
        """How far a corner of the frame moves until the next frame, at most, in pixels of the video."""
        here, there = min(frame, self.frames - 2), min(frame + 1, self.frames - 1)
        if self.frames < 2:
            return 0.0
        step = np.linalg.inv(self.matrix(here)) @ self.matrix(there)
        moved = _corners(step, self.video_px) - _corners(np.eye(3), self.video_px)
        return float(np.hypot(moved[:, 0], moved[:, 1]).max())

    def _place(self) -> Matrix:
        (x, y), scale = self.origin, self.scale
        return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])

    def relative(self, frame: float) -> Matrix:
        """From pixels of the video to places on the picture, in pixels of the first frame from its middle."""
        width, height = self.video_px
        time = frame / max(self.frames - 1, 1)
        right = down = log_zoom = roll = orbit_right = orbit_up = 0.0
        for leg in self.legs:
            done = _progress((time - leg.begin) / (leg.end - leg.begin), self.easing)
            right += leg.right * done
            down += leg.down * done
            log_zoom += leg.log_zoom * done - np.log1p((1 / leg.dolly - 1) * done)
            roll += leg.roll * done
            orbit_right += leg.orbit_right * done
            orbit_up += leg.orbit_up * done
        if self.sway is not None:
            axis, size, cycles, phase = self.sway.T
            swing = size * (np.sin(2 * np.pi * cycles * time + phase) - np.sin(phase)) * np.exp(-log_zoom)
            right += float(swing[axis == 0].sum())
            down += float(swing[axis == 1].sum())
            roll += float(swing[axis == 2].sum() * np.exp(log_zoom))
        turned = _orbit(orbit_right, orbit_up, _FOCAL * width) @ _turn(roll) @ _shift(-width / 2, -height / 2)
        closer = np.diag([np.exp(-log_zoom), np.exp(-log_zoom), 1.0])
        return _shift(right * width, down * width) @ closer @ turned


def camera_path(
    moves: Sequence[CameraMove],
    *,
    frames: int,
    duration_s: float,
    picture_px: tuple[int, int],
    video_px: tuple[int, int],
    easing: Easing = "ease",
    amount: float = 1.0,
    seed: int = 0,
) -> CameraPath:
    """Plan a film of `frames` frames that performs `moves` one after the other, in equal parts.

    Moves of a sequence flow into each other. Sway and speed words hold for the whole shot; unmet ones take no part of it.

    Args:
        moves: The camera words, in order; none is a static shot.
        frames: Number of frames, at least 1.
        duration_s: Length of the film; the time of whips and of sway.
        picture_px: Width and height of the picture.
        video_px: Width and height of the video.
        easing: How each move gains and loses speed.
        amount: Scales every move; 1 is the amount in `MOTIONS`.
        seed: Chooses the sway of a handheld shot; the same seed sways alike.
    """
    motions = [MOTIONS[move] for move in moves]
    for motion in motions:
        amount *= motion.speed or 1.0
    turns = [motion for motion in motions if motion.support != "unmet" and not motion.is_manner]
    legs = _legs(turns, duration_s=duration_s, amount=amount, aspect=video_px[1] / video_px[0], easing=easing)
    sway = _sines(seed, duration_s=duration_s, amount=amount) if any(motion.sway for motion in motions) else None
    path = CameraPath(frames=frames, picture_px=picture_px, video_px=video_px, easing=easing, legs=legs, sway=sway)
    return _fit(path)


def _legs(
    turns: Sequence[Motion], *, duration_s: float, amount: float, aspect: float, easing: Easing
) -> tuple[_Leg, ...]:
    legs: list[_Leg] = []
    part = 1 / max(len(turns), 1)
    log_size = heading = 0.0
    for number, motion in enumerate(turns):
        begin, end = number * part, (number + 1) * part
        if motion.whip:
            middle, half = (begin + end) / 2, min(_WHIP_S / duration_s, part) / 2
            begin, end = middle - half, middle + half
        elif easing == "ease":
            begin, end = max(0.0, begin - _OVERLAP * part), min(1.0, end + _OVERLAP * part)
        across, along = motion.right * amount, motion.down * aspect * amount
        cos, sin, size = np.cos(heading), np.sin(heading), np.exp(log_size)
        leg = _Leg(
            begin=begin,
            end=end,
            right=float(size * (cos * across - sin * along)),
            down=float(size * (sin * across + cos * along)),
            log_zoom=float(np.log(motion.zoom) * amount),
            dolly=float(motion.dolly**amount),
            roll=float(np.radians(motion.roll_deg) * amount),
            orbit_right=float(np.radians(motion.orbit_right_deg) * amount),
            orbit_up=float(np.radians(motion.orbit_up_deg) * amount),
        )
        legs.append(leg)
        log_size -= leg.log_zoom + float(np.log(leg.dolly))
        heading += leg.roll
    return tuple(legs)


def _sines(seed: int, *, duration_s: float, amount: float) -> Matrix:
    """Band-limited sway: for each axis six sines between 0.25 and 2 Hz, the slow ones larger, as a hand has it."""
    chance = np.random.default_rng(seed)
    rows = []
    for axis, size in enumerate((0.006, 0.004, np.radians(0.35))):  # widths, widths, radians
        hertz = 0.25 * 8.0 ** chance.random(6)
        weight = 1 / hertz
        amplitude = size * amount * weight / np.sqrt((weight**2).sum() / 2)
        phase = chance.random(6) * 2 * np.pi
        rows.append(np.column_stack([np.full(6, axis), amplitude, hertz * duration_s, phase]))
    return np.concatenate(rows)


def _fit(path: CameraPath) -> CameraPath:
    """Place the film in the picture: as large as it goes, in the middle of what is left."""
    outline = np.concatenate([_corners(path.relative(frame), path.video_px) for frame in range(path.frames)])
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    width, height = path.picture_px
    scale = min(width / (right - left), height / (bottom - top))
    origin = (width / 2 - scale * (left + right) / 2, height / 2 - scale * (top + bottom) / 2)
    return evolve(path, origin=(float(origin[0]), float(origin[1])), scale=float(scale))


def _progress(time: float, easing: Easing) -> float:
    """How much of a move is done at `time` (0..1 of it): its speed rises and falls by half a cosine."""
    time = min(max(time, 0.0), 1.0)
    if easing == "linear":
        return time
    if time > 0.5:
        return 1.0 - _progress(1.0 - time, easing)
    if time < _SOFT_PART:
        way = (time - _SOFT_PART / np.pi * np.sin(np.pi * time / _SOFT_PART)) / 2
    else:
        way = time - _SOFT_PART / 2
    return float(way / (1 - _SOFT_PART))


def _orbit(right: float, up: float, focal: float) -> Matrix:
    """From a frame seen by a camera that went round the middle to the picture plane; at 0 it changes nothing."""
    cos, sin = np.cos(right), -np.sin(right)
    yaw = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    cos, sin = np.cos(up), -np.sin(up)
    pitch = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    facing = yaw @ pitch
    stand = -focal * facing[:, 2]
    rays = facing @ np.diag([1.0, 1.0, focal])
    plane = np.stack([stand[i] * rays[2] - stand[2] * rays[i] for i in (0, 1)] + [rays[2]])
    return np.asarray(plane / plane[2, 2], dtype=np.float64)


def _turn(angle: float) -> Matrix:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _corners(matrix: Matrix, size_px: tuple[int, int]) -> Matrix:
    width, height = size_px
    points = matrix @ np.array([[0.0, width, width, 0.0], [0.0, 0.0, height, height], [1.0, 1.0, 1.0, 1.0]])
    return np.asarray((points[:2] / points[2]).T, dtype=np.float64)
