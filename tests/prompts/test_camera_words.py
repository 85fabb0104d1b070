from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.prompts import _camera_words as tables
from vrag.prompts.camera import MOVE_PHRASES, CameraMove, contradictory, read_camera


def moves(text: str) -> str:
    return ", ".join(read_camera(text).moves)


@pytest.mark.parametrize("phrase", MOVE_PHRASES)
def test_every_documented_phrase(phrase):
    for text in (phrase, phrase.upper(), f"Shoes: {phrase}.", phrase.replace("-", " "), phrase.replace(" ", "-")):
        reading = read_camera(text)
        assert [found.moves for found in reading.phrases] == [MOVE_PHRASES[phrase]], text
        assert reading.moves == MOVE_PHRASES[phrase][:1]
        assert reading.rest.lower() in {"", "shoes"}
        assert bool(reading.ambiguous) == (len(MOVE_PHRASES[phrase]) > 1)


@pytest.mark.parametrize("move", CameraMove)
def test_every_move_reads_as_itself(move):
    assert read_camera(move.value).moves == (move,)
    assert read_camera(f"red shoes on a table, {move.value}").moves == (move,)


READ = {
    "camera pans down": "tilt down",
    "the camera slowly pans to the left": "pan left",
    "panning left": "pan left",
    "pan left to right": "pan right",
    "pans from left to right": "pan right",
    "camera pans across the room to the left": "pan left",
    "camera tilts from the shoes up to the face": "tilt up",
    "tilt the camera up": "tilt up",
    "an upward tilt": "tilt up",
    "the upward tilt": "tilt up",
    "the whip pan left": "whip pan left",
    "slow forward camera movement": "dolly in",
    "zoom into the shoes": "zoom in",
    "zoom out of the window": "zoom out",
    "camera zooms back out": "zoom out",
    "push in": "dolly in",
    "slow push towards the shoes": "dolly in",
    "slowly pull back to reveal the city": "dolly out",
    "trucking right": "track right",
    "camera moves towards the left": "pan left",
    "camera moves toward the shoes": "dolly in",
    "a 360° orbit around the statue": "arc shot",
    "camera does a 360 around the dog": "arc shot",
    "orbit the shoes": "arc shot",
    "camera turns around": "arc shot",
    "camera rolls counter-clockwise": "counterclockwise rotation",
    "anticlockwise camera roll": "counterclockwise rotation",
    "pedestals up": "pedestal up",
    "a slow crane up": "crane up",
    "jib down": "crane down",
    "hand-held camera": "handheld",
    "locked-off": "static shot",
    "still camera": "static shot",
    "The camera remains static.": "static shot",
    "whip-pans to the right": "whip pan right",
    "crash zoom in": "whip zoom in",
    "dolly zoom effect": "dolly zoom",
    "bird’s-eye view": "aerial shot",  # noqa: RUF001 - as people type it
    "tracking shot": "following shot",
    "camera follows the dog and moves left": "following shot, pan left",
    "a hyper-lapse": "time-lapse",
    "slow-motion shot of a dog": "slow motion",
    "camera moves in slow motion": "slow motion",
    "zooms in and then out": "zoom in, zoom out",
    "zooms in after zooming out": "zoom out, zoom in",
    "before zooming out, zoom in": "zoom in, zoom out",
    "camera pans left and up": "pan left, tilt up",
    "pan left → tilt up": "pan left, tilt up",
    "pan left, pan left": "pan left",
    "ＰＡＮ left": "pan left",  # noqa: RUF001
    "zoom\u2011in": "zoom in",
    "pan_left": "pan left",
    "Camera: pan left": "pan left",
    "red shoes pan left": "pan left",
    # negations
    "no camera movement": "static shot",
    "the camera doesn’t move": "static shot",  # noqa: RUF001
    "without moving the camera": "static shot",
    "don't zoom": "",
    "no zooming and panning": "",
    "not a static shot": "",
    "don't pan, zoom in": "zoom in",
}


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_natural_words(text, expected):
    assert moves(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a frying pan",
        "a pan",
        "the pan left on the stove",
        "a pan of soup",
        "gold panning in a river",
        "pancakes",
        "zoom lens",
        "on a Zoom call",
        "a car zooms past",
        "a crane standing in water",
        "a crane up in the sky",
        "a shot of a crane",
        "static electricity",
        "a still life",
        "roll of film",
        "rolling hills",
        "he rolls clockwise",
        "shoes rotating clockwise",
        "track and field",
        "on the right track",
        "train tracks left of the house",
        "the truck left the garage",
        "The truck left.",
        "Dolly in a red dress",
        "a dolly on the shelf",
        "his head tilts up",
        "a tilted hat",
        "push in the chair",
        "pulls out a sword",
        "a dog moves forward",
        "a dog runs and moves left",
        "a plane flying forward in the sky",
        "follow the dog",
        "a man with a camera moves forward",
        "a vintage camera rolls off the table",
        "arc lamp",
        "a handheld console",
        "a pilot holds an fpv drone",
        "camera is still moving",
    ],
)
def test_things_of_the_same_name_are_no_moves(text):
    reading = read_camera(text)
    assert reading.moves == ()
    assert reading.rest or text == "camera is still moving"


def test_what_is_read_is_reported():
    reading = read_camera("A dog runs in the rain; the camera slowly pans down, then moves forward")
    assert reading.moves == (CameraMove.TILT_DOWN, CameraMove.DOLLY_IN)
    assert [phrase.text for phrase in reading.phrases] == ["pans down", "moves forward"]
    assert (reading.speed, reading.rest) == ("slow", "dog runs in the rain")
    (ambiguity,) = reading.ambiguous
    assert ambiguity.moves == (CameraMove.DOLLY_IN, CameraMove.ZOOM_IN)
    assert ambiguity.taken is CameraMove.DOLLY_IN
    assert reading.notes == (
        "'pans down' is a tilt down: a pan goes left or right.",
        "'moves forward' may mean dolly in or zoom in; dolly in is taken.",
    )


def test_a_move_without_its_direction_is_ambiguous_or_left():
    assert read_camera("a slow pan").ambiguous[0].moves == (CameraMove.PAN_RIGHT, CameraMove.PAN_LEFT)
    reading = read_camera("camera flies over the valley")
    assert (reading.moves, reading.rest) == ((), "flies over the valley")
    assert "does not say how the camera moves" in reading.notes[0]


@pytest.mark.parametrize(
    ("text", "clash"),
    [
        ("zoom in and zoom out", True),
        ("zooms in while zooming out", True),
        ("zoom in/out", True),
        ("static shot, camera pans left", True),
        ("slow motion timelapse", True),
        ("whip pan left, pan right", True),
        ("zooms in, then zooms out", False),
        ("zoom in. zoom out.", False),
        ("zooms in before zooming out", False),
        ("after zooming in, the camera zooms out", False),
        ("dolly in while zooming out", False),  # a dolly zoom
        ("pan left and tilt up in slow motion", False),
        ("don't zoom in, zoom out", False),
    ],
)
def test_contradictions_are_at_once(text, clash):
    assert bool(read_camera(text).contradictions) is clash


def test_contradictory_pairs():
    left, right = CameraMove.PAN_LEFT, CameraMove.WHIP_PAN_RIGHT
    assert contradictory([left, CameraMove.TILT_UP, right, left]) == ((left, right),)
    assert contradictory([CameraMove.STATIC_SHOT, CameraMove.TIME_LAPSE, CameraMove.AERIAL_SHOT]) == ()


WORDS = st.sampled_from(
    sorted({*tables.FORMS, *tables.VERBS, *tables.FILLERS, *tables.NEGATIONS, *tables.SPEEDS, "dog", "360°"})
)


@given(st.one_of(st.text(), st.lists(st.one_of(WORDS, st.sampled_from(list(",.;:\n-—/→"))), max_size=30).map(" ".join)))
def test_no_text_raises_and_every_span_is_true(text):
    reading = read_camera(text)
    assert [text[phrase.start : phrase.end] for phrase in reading.phrases] == [
        phrase.text for phrase in reading.phrases
    ]
    starts = [phrase.start for phrase in reading.phrases]
    assert starts == sorted(set(starts))
    assert {*reading.moves} <= {phrase.moves[0] for phrase in reading.phrases if phrase.moves}
    assert all(run in text for run in reading.rest.split(", "))
    assert isinstance(reading.notes, tuple)
    assert read_camera(text) == reading


def test_the_tables_name_moves_that_exist():
    named = [
        move for _, table in tables.VERBS.values() for entry in table.values() for move in entry.split("|") if move
    ]
    assert {CameraMove(move) for move in named} | {CameraMove(move) for _, move in tables.NAMED.values()} == set(
        CameraMove
    )
