"""The words that `read_camera` knows: data only, so that a person can check it line by line.

Moves are written as the values of `CameraMove`. Where a phrase may mean several they are joined by `|`, and the first
is taken.
"""

from __future__ import annotations

from typing import Final, Literal


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DOCUMENTED: Final = {
    "aerial shot": "aerial shot|aerial view|drone shot|FPV",
    "arc shot": "arc shot|360 degree shot|360 tracking shot|orbit shot",
    "clockwise rotation": "clockwise rotation|camera rolls clockwise",
    "counterclockwise rotation": "counterclockwise rotation|anticlockwise rotation|camera rolls counterclockwise",
    "dolly in": "dolly in|camera moves forward",
    "dolly out": "dolly out|camera moves backward",
    "pan left": "pan left|camera moves to the left",
    "pan right": "pan right|camera moves to the right",
    "whip pan left": "whip pan left",
    "whip pan right": "whip pan right",
    "whip tilt up": "whip tilt up",
    "whip tilt down": "whip tilt down",
    "whip zoom in": "whip zoom in",
    "whip zoom out": "whip zoom out",
    "pedestal down": "pedestal down|ped-down|camera moves down",
    "pedestal up": "pedestal up|ped-up|camera moves up",
    "static shot": "static shot|fixed shot",
    "tilt down": "tilt down|pan down|camera moves down",
    "tilt up": "tilt up|pan up|camera moves up",
    "track left": "track left|truck left|camera moves to the left",
    "track right": "track right|truck right|camera moves to the right",
    "zoom in": "zoom in|camera moves forward",
    "zoom out": "zoom out",
    "dolly zoom": "dolly zoom|zolly|vertigo shot",
    "following shot": "following shot",
    "slow motion": "slow motion|slow-motion|slo-mo|slow-mo|slomo|slowmo",
    "time-lapse": "time-lapse|timelapse|hyperlapse|walklapse|spacelapse",
    "crane up": "crane up",
    "crane down": "crane down",
    "handheld": "handheld|hand-held",
}
DOCUMENTED: Final[dict[str, list[str]]] = {}
"""Documented phrase to the moves that it is listed under, in order."""
for _move, _phrases in _DOCUMENTED.items():
    for _phrase in _phrases.split("|"):
        DOCUMENTED.setdefault(_phrase, []).append(_move)

_INFLECTED: Final = {
    "ascend": "ascends ascending",
    "arc": "arcs arcing arced",
    "circle": "circles circling circled",
    "crane": "cranes craning craned jib jibs jibbing boom booms booming",
    "crash": "snap",
    "descend": "descends descending",
    "dolly": "dollies dollying dollied",
    "drift": "drifts drifting",
    "float": "floats floating",
    "fly": "flies flying",
    "follow": "follows following followed",
    "glide": "glides gliding",
    "lower": "lowers lowering",
    "move": "moves moving moved movement movements",
    "motion": "motions",
    "orbit": "orbits orbiting orbited orbital",
    "pan": "pans panning panned",
    "pedestal": "pedestals pedestaling pedestalling ped peds",
    "pull": "pulls pulling pulled",
    "push": "pushes pushing pushed",
    "revolve": "revolves revolving",
    "rise": "rises rising",
    "shake": "shakes shaking shaky",
    "roll": "rolls rolling rolled",
    "rotate": "rotates rotating rotated rotation",
    "slide": "slides sliding",
    "spin": "spins spinning",
    "tilt": "tilts tilting tilted",
    "track": "tracks tracking tracked",
    "travel": "travels traveling travelling traveled travelled",
    "truck": "trucks trucking trucked",
    "turn": "turns turning turned",
    "whip": "whips whipping swish",
    "zoom": "zooms zooming zoomed",
    "left": "leftward leftwards",
    "right": "rightward rightwards",
    "up": "upward upwards",
    "down": "downward downwards",
    "in": "into inward inwards closer",
    "out": "outward outwards away",
    "forward": "forwards ahead",
    "backward": "backwards back",
    "toward": "towards on onto",
    "counterclockwise": "anticlockwise",
    "camera": "cam cameras",
    "shot": "shots view footage",
    "lapse": "lapses",
    "timelapse": "timelapses hyperlapse hyperlapses walklapse walklapses spacelapse spacelapses",
    "slomo": "slowmo slowmotion",
    "lock": "locked locks",
    "static": "stationary fixed immobile motionless",
    "is": "stay stays staying remain remains remaining hold holds holding stands keeps",
}
FORMS: Final = {form: word for word, forms in _INFLECTED.items() for form in forms.split()}
"""Word form to the word that the tables below use; other words stand for themselves."""

ADJECTIVES: Final = _set(
    "left right clockwise counterclockwise anticlockwise forward backward upward downward inward outward leftward rightward"
)
"""Directions that may stand before the word for the move: "an upward tilt"."""

_BOTH_WAYS = {"in": "in", "forward": "in", "out": "out", "backward": "out"}
_SIDEWAYS = {"left": "track left", "right": "track right"} | {k: f"dolly {v}" for k, v in _BOTH_WAYS.items()}
_CLOCK = {
    "clockwise": "clockwise rotation",
    "counterclockwise": "counterclockwise rotation",
    "": "clockwise rotation|counterclockwise rotation",
}
_TURN = _CLOCK | {
    "left": "counterclockwise rotation|pan left",
    "right": "clockwise rotation|pan right",
    "around": "arc shot",
}
_ARC: dict[str, str] = dict.fromkeys(("left", "right", "around", "clockwise", "counterclockwise", ""), "arc shot")
_MOVE = {
    "left": "pan left|track left",
    "right": "pan right|track right",
    "forward": "dolly in|zoom in",
    "in": "dolly in|zoom in",
    "toward": "dolly in|zoom in",
    "backward": "dolly out",
    "out": "dolly out",
    "up": "pedestal up|tilt up",
    "down": "pedestal down|tilt down",
    "around": "arc shot",
    "": "",
}
_FLY = _MOVE | _SIDEWAYS | {"toward": "dolly in"}
_UP, _DOWN = "crane up|pedestal up", "crane down|pedestal down"

VERBS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "pan": (
        "any",
        {"left": "pan left", "right": "pan right", "up": "tilt up", "down": "tilt down", "": "pan right|pan left"},
    ),
    "zoom": ("any", {k: f"zoom {v}" for k, v in _BOTH_WAYS.items()} | {"toward": "zoom in", "": "zoom in|zoom out"}),
    "dolly": ("any", _SIDEWAYS | {"toward": "dolly in", "": "dolly in|dolly out"}),
    "whip pan": (
        "any",
        {
            "left": "whip pan left",
            "right": "whip pan right",
            "up": "whip tilt up",
            "down": "whip tilt down",
            "": "whip pan right|whip pan left",
        },
    ),
    "whip tilt": ("any", {"up": "whip tilt up", "down": "whip tilt down", "": "whip tilt up|whip tilt down"}),
    "whip zoom": ("any", {k: f"whip zoom {v}" for k, v in _BOTH_WAYS.items()} | {"": "whip zoom in|whip zoom out"}),
    "tilt": (
        "clause",
        {
            "up": "tilt up",
            "down": "tilt down",
            "left": "pan left|counterclockwise rotation",
            "right": "pan right|clockwise rotation",
            "": "tilt up|tilt down",
        },
    ),
    "push": ("clause", {"in": "dolly in", "forward": "dolly in", "toward": "dolly in"}),
    "pull": ("clause", {"out": "dolly out", "backward": "dolly out"}),
    "track": ("clause", _SIDEWAYS | {"": "following shot|track right|track left"}),
    "truck": ("clause", _SIDEWAYS | {"": "track right|track left"}),
    "pedestal": ("clause", {"up": "pedestal up", "down": "pedestal down"}),
    "crane": ("clause", {"up": "crane up", "down": "crane down", "": "crane up|crane down"}),
    "orbit": ("clause", _ARC),
    "arc": ("clause", _ARC),
    "roll": ("clause", _TURN),
    "rotate": ("clause", _TURN),
    "spin": ("camera", _TURN),
    "turn": ("camera", _TURN | {"left": "pan left", "right": "pan right", "": ""}),
    "circle": ("camera", _ARC),
    "revolve": ("camera", _ARC),
    "follow": ("camera", {"": "following shot"}),
    "move": ("camera", _MOVE),
    "motion": ("camera", _MOVE),
    "travel": ("camera", _FLY),
    "glide": ("camera", _FLY),
    "slide": ("camera", _FLY),
    "drift": ("camera", _FLY),
    "float": ("camera", _FLY),
    "fly": ("camera", _FLY),
    "rise": ("camera", {"up": _UP, "": _UP}),
    "ascend": ("camera", {"up": _UP, "": _UP}),
    "lower": ("camera", {"down": _DOWN, "": _DOWN}),
    "descend": ("camera", {"down": _DOWN, "": _DOWN}),
}
"""Word for a move to what it needs around it, and direction to move; "" is no direction, and "" as a move is none.

"any" needs nothing: "zoom in" is hardly anything else. "clause" begins its clause and has no object of its own ("push
in", not "push in the chair"), or has a camera. "camera" needs a camera: not "a dog moves forward".
"""
VERBS["crash zoom"] = VERBS["whip zoom"]
VERBS["whip"] = ("camera", VERBS["whip pan"][1])

_NAMED: Final = {
    ("any", "aerial shot"): "aerial shot|drone shot|drone camera shot|fpv shot|fpv drone shot|bird's eye shot",
    ("clause", "aerial shot"): "fpv|fpv drone",
    (
        "any",
        "arc shot",
    ): "360 shot|360 track shot|360 orbit|360 orbit shot|360 camera shot|360 around|360 camera rotate",
    ("any", "dolly zoom"): "dolly zoom|zolly|vertigo shot|vertigo effect",
    ("any", "following shot"): "follow shot|follow camera",
    ("any", "static shot"): "static shot|static camera|static camera shot|still shot|still camera|tripod shot"
    "|lock off|lock off shot|lock off camera|lock shot|lock camera|camera is|camera is in place"
    "|camera static|camera is static|camera still|camera is still|camera lock|camera is lock|camera is lock off",
    ("any", "slow motion"): "slow motion|slo motion|slow mo|slo mo|slomo",
    ("any", "time-lapse"): "time lapse|timelapse|hyper lapse",
    ("any", "handheld"): "handheld camera|handheld shot|hand held camera|hand held shot|camera handheld"
    "|camera shake|shake camera|shake handheld camera",
    ("clause", "handheld"): "handheld|hand held",
}
NAMED: Final = {
    tuple(phrase.split()): (need, move) for (need, move), phrases in _NAMED.items() for phrase in phrases.split("|")
}
"""Phrases that are looked up whole: words to what they need, and the move."""
del NAMED[("camera", "is")]  # only "stays", "holds" … still; the bare verb says nothing

SUBJECTS: Final = frozenset(("camera", "shot", "drone", "lens", "viewpoint"))
NOUNS: Final = frozenset(("camera", "shot", "move", "motion", "effect"))
"""After the word for a move they say that it is one: "crane shot", "pan left camera move"."""
VESSELS: Final = _set(
    "frying sauce cake baking copper iron hot roasting metal steel oil grill dust bread pie drip enamel cooking"
    " non-stick nonstick stick skillet warming gold peter"
)
"""Before "pan" they make it a vessel (or a boy)."""
SPEEDS: Final[dict[str, Literal["slow", "fast"]]] = {
    **dict.fromkeys(_set("slow slower slowly gentle gently gradual gradually leisurely"), "slow"),
    **dict.fromkeys(_set("fast faster quick quickly rapid rapidly swift swiftly"), "fast"),
}
ARTICLES: Final = _set("a an the")
DETERMINERS: Final = ARTICLES | _set("his her its their my your our this that these those some")
JOINING: Final = _set("and or nor then while whilst as but before after afterwards until when once plus")
BEFORE_AFTER: Final = _set("before after once until")
SEQUENCE: Final = BEFORE_AFTER | _set("then afterwards next finally followed later subsequently lastly")
NEGATIONS: Final = _set(
    "no not without never nor don't doesn't isn't won't can't cannot shouldn't avoid avoids avoiding dont doesnt"
)
TAILS: Final = _set("across along over through around past slowly quickly gently smoothly rapidly steadily gradually")
"""What may follow a move without a direction: "panning across the skyline", not "pan of soup"."""
FILLERS: Final = (
    ARTICLES
    | (JOINING - {"but"})
    | (SEQUENCE - {"later"})
    | NOUNS
    | TAILS
    | _set(
        "to toward towards on onto in at by from for into with of is are be being it its starts start starting begins begin"
        " beginning continues continue continuing do does did very also shots slightly smooth steady simultaneously"
        " whole any degree degrees use uses using first this that"
    )
)
"""Words that say nothing by themselves in a camera direction."""
