"""The documented camera moves, typed, and the reader of camera words in a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Literal

from attrs import frozen

from vrag.prompts._camera_words import DOCUMENTED

__all__ = [
    "MOVE_PHRASES",
    "Ambiguity",
    "CameraMove",
    "CameraPhrase",
    "CameraReading",
    "contradictory",
    "read_camera",
]


class CameraMove(StrEnum):
    """One camera motion or speed; the value is the canonical phrase to put into a prompt.

    The first 25 are the 22 motions that Amazon documents for Nova Reel ("whip" comes in pairs of directions), and the
    two speeds; crane and handheld are common film terms beside them.

    Source: Amazon Nova User Guide, "Camera controls" (checked 2026-11-20).
    """

    AERIAL_SHOT = "aerial shot"
    ARC_SHOT = "arc shot"
    CLOCKWISE_ROTATION = "clockwise rotation"
    COUNTERCLOCKWISE_ROTATION = "counterclockwise rotation"
    DOLLY_IN = "dolly in"
    DOLLY_OUT = "dolly out"
    DOLLY_ZOOM = "dolly zoom"
    FOLLOWING_SHOT = "following shot"
    PAN_LEFT = "pan left"
    PAN_RIGHT = "pan right"
    PEDESTAL_DOWN = "pedestal down"
    PEDESTAL_UP = "pedestal up"
    STATIC_SHOT = "static shot"
    TILT_DOWN = "tilt down"
    TILT_UP = "tilt up"
    TRACK_LEFT = "track left"
    TRACK_RIGHT = "track right"
    WHIP_PAN_LEFT = "whip pan left"
    WHIP_PAN_RIGHT = "whip pan right"
    WHIP_TILT_DOWN = "whip tilt down"
    WHIP_TILT_UP = "whip tilt up"
    WHIP_ZOOM_IN = "whip zoom in"
    WHIP_ZOOM_OUT = "whip zoom out"
    ZOOM_IN = "zoom in"
    ZOOM_OUT = "zoom out"
    SLOW_MOTION = "slow motion"
    TIME_LAPSE = "time-lapse"
    CRANE_DOWN = "crane down"
    CRANE_UP = "crane up"
    HANDHELD = "handheld"


MOVE_PHRASES: Mapping[str, tuple[CameraMove, ...]] = MappingProxyType(
    {phrase: tuple(CameraMove(move) for move in moves) for phrase, moves in DOCUMENTED.items()}
)
"""Each documented phrase to its canonical moves; where there are several it is ambiguous, and the first is taken.

Source: Amazon Nova User Guide, "Camera controls" (checked 2026-11-20); crane and handheld are ours.
"""

_AXES: dict[CameraMove, tuple[str, str]] = {
    move: (axis, sign)
    for axis, sign, moves in (
        ("pan", "-", "pan left|whip pan left"),
        ("pan", "+", "pan right|whip pan right"),
        ("tilt", "-", "tilt down|whip tilt down"),
        ("tilt", "+", "tilt up|whip tilt up"),
        ("zoom", "-", "zoom out|whip zoom out"),
        ("zoom", "+", "zoom in|whip zoom in"),
        ("dolly", "-", "dolly out"),
        ("dolly", "+", "dolly in"),
        ("track", "-", "track left"),
        ("track", "+", "track right"),
        ("height", "-", "pedestal down|crane down"),
        ("height", "+", "pedestal up|crane up"),
        ("roll", "-", "counterclockwise rotation"),
        ("roll", "+", "clockwise rotation"),
        ("time", "-", "slow motion"),
        ("time", "+", "time-lapse"),
    )
    for move in map(CameraMove, moves.split("|"))
}
_STILL_WITH = frozenset(
    (
        CameraMove.STATIC_SHOT,
        CameraMove.AERIAL_SHOT,
        CameraMove.SLOW_MOTION,
        CameraMove.TIME_LAPSE,
    )
)


def contradictory(moves: Iterable[CameraMove]) -> tuple[tuple[CameraMove, CameraMove], ...]:
    """Pairs of moves that cannot be performed at once: in and out, left and right, a static shot and any motion.

    A dolly in with a zoom out is no contradiction: together they are a dolly zoom.
    """
    return tuple(pair for pair in combinations(dict.fromkeys(moves), 2) if _opposed(*pair))


def _opposed(one: CameraMove, other: CameraMove) -> bool:
    if CameraMove.STATIC_SHOT in {one, other}:
        return not {one, other} <= _STILL_WITH
    a, b = _AXES.get(one), _AXES.get(other)
    return a is not None and b is not None and a[0] == b[0] and a[1] != b[1]


@frozen(kw_only=True)
class CameraPhrase:
    """Words that were read as camera words."""

    text: str
    """The words as they stand in the prompt."""
    start: int
    end: int
    moves: tuple[CameraMove, ...]
    """What they may mean, and the first is taken; empty where they name no move ("the camera moves")."""
    speed: Literal["slow", "fast"] | None = None
    negated: bool = False
    """A negation stands before them: the move is not taken, and a model that reads the prompt may do it all the same."""


@frozen(kw_only=True)
class Ambiguity:
    """A phrase that may mean several moves."""

    phrase: str
    moves: tuple[CameraMove, ...]

    @property
    def taken(self) -> CameraMove:
        """The first of `moves`."""
        return self.moves[0]


@frozen(kw_only=True)
class CameraReading:
    """What `read_camera` understood."""

    moves: tuple[CameraMove, ...] = ()
    """The moves in the order in which they are to happen: as they stand, except "A after B", which is B, A."""
    phrases: tuple[CameraPhrase, ...] = ()
    """Which words were read, in order of appearance."""
    contradictions: tuple[tuple[CameraMove, CameraMove], ...] = ()
    """Moves that are asked for at once and exclude each other. "Zooms in, then zooms out" is none."""
    rest: str = ""
    """The words that are no camera words, as runs joined by ", ": unmet where a renderer only moves a camera."""
    speed: Literal["slow", "fast"] | None = None
    """The first speed that is said about a move."""

    @property
    def ambiguous(self) -> tuple[Ambiguity, ...]:
        """Phrases that may mean several moves."""
        return tuple(
            Ambiguity(phrase=phrase.text, moves=phrase.moves)
            for phrase in self.phrases
            if len(phrase.moves) > 1 and not phrase.negated
        )

    @property
    def negated(self) -> tuple[CameraPhrase, ...]:
        """Camera words under a negation, except "no camera movement", which is a static shot."""
        return tuple(phrase for phrase in self.phrases if phrase.negated)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the words were read, where a person might be surprised; one sentence each."""
        notes = []
        for phrase in self.phrases:
            words = f"'{phrase.text}'"
            if phrase.negated:
                notes.append(f"{words} is negated: no such move is made.")
            elif len(phrase.moves) > 1:
                notes.append(f"{words} may mean {' or '.join(phrase.moves)}; {phrase.moves[0]} is taken.")
            elif not phrase.moves and not self.moves:
                notes.append(f"{words} does not say how the camera moves: nothing is taken.")
            elif phrase.moves and phrase.moves[0].split()[-2:-1] == ["tilt"] and "pan" in phrase.text.lower():
                notes.append(f"{words} is a {phrase.moves[0]}: a pan goes left or right.")
        notes += [f"'{one}' and '{other}' contradict each other." for one, other in self.contradictions]
        return tuple(dict.fromkeys(notes))


def read_camera(text: str) -> CameraReading:
    """Read the camera words of a prompt; never raises.

    Known are the documented phrases (`MOVE_PHRASES`), their inflections and usual variants: "the camera slowly pans to
    the left", "panning left", "an upward tilt", "push in", "pans from left to right", "zooms in and out". Words that
    are also something else need a direction, the beginning of a clause, or a camera: "a frying pan", "a crane standing
    in water", "track and field" and "a dog moves forward" are no moves. A move without its direction is ambiguous.
    """
    from vrag.prompts._camera_reader import Reader  # noqa: PLC0415 - it imports the values above

    return Reader(text).read()
