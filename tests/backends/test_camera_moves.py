"""Camera moves: what the films show, measured on their frames."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vrag
from vrag.errors import (
    BackendError,
    ImageRejectedError,
    JobCancelledError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.media.image import conform
from vrag.prompts.camera import MOVE_PHRASES
from vrag.prompts.camera import CameraMove as Move
from vrag.testing.media import SampleMedia
from vrag.values.requests import Input, Look, Shot, VideoRequest

av = pytest.importorskip("av", reason="the extra 'local' is not installed")
cv2 = pytest.importorskip("cv2", reason="the extra 'local' is not installed")

from vrag.backends.local import camera_film  # noqa: E402  # after the extras are known to be there
from vrag.backends.local.camera_film import CameraFilm, Still  # noqa: E402
from vrag.backends.local.camera_moves import CameraMoveRenderer, frame_rate  # noqa: E402
from vrag.backends.local.camera_path import MOTIONS, camera_path  # noqa: E402

PHOTO = Path(vrag.__file__).parent / "demo" / "photos" / "roman-colosseum.jpg"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "camera-moves.md"


def photograph(width=640, height=360, seed=1):
    """Detail at every scale, as a photograph has, and never near black."""
    chance = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 7):
        noise = chance.normal(size=(2 + 2**octave, 3 + 2**octave, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 30 / 1.3**octave
    for _ in range(25):
        centre = (int(chance.integers(width)), int(chance.integers(height)))
        colour = tuple(float(v) for v in chance.integers(60, 235, 3))
        cv2.circle(picture, centre, int(chance.integers(4, 26)), colour, -1, cv2.LINE_AA)
    return Image.fromarray(np.clip(picture, 50, 245).astype(np.uint8))


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


MEDIA = SampleMedia()
PICTURE = MEDIA.add(png(photograph()), "image/png", 640, 360)


def request(*moves, picture=PICTURE, width_px=320, height_px=180, duration_s=1.0, **rest):
    shot = Shot(
        prompt="", inputs=(Input(role="start_frame", media=picture),), camera=tuple(moves), duration_s=duration_s
    )
    return VideoRequest(shots=(shot,), width_px=width_px, height_px=height_px, **rest)


def render(asked, renderer=None, media=MEDIA):
    out = io.BytesIO()
    report = (renderer or CameraMoveRenderer()).render(asked, media, out, lambda _: None, lambda: False)
    return out.getvalue(), report


def frames_of(data, kind="gray"):
    with av.open(io.BytesIO(data)) as film:
        return [frame.to_ndarray(format=kind) for frame in film.decode(video=0)]


def drawn(moves, picture, video_px, frames, **options):
    """The frames before they are encoded, as (luma, two of chroma)."""
    path = camera_path(
        moves, frames=frames, duration_s=frames / 24, picture_px=picture.size, video_px=video_px, **options
    )
    film = CameraFilm(path=path, still=Still.of(picture, path))
    for number in range(frames):
        yield [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()
            for plane in film.draw(number).planes
        ]


def ssim(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)

    def mean(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    a, b = mean(one), mean(other)
    va, vb, both = mean(one * one) - a * a, mean(other * other) - b * b, mean(one * other) - a * b
    top = (2 * a * b + 6.5025) * (2 * both + 58.5225)
    return float((top / ((a * a + b * b + 6.5025) * (va + vb + 58.5225))).mean())


def whole_motion(frames):
    """How the picture moves from the first to the last frame: sparse optical flow, a similarity a step, composed."""
    height, width = frames[0].shape
    middle = np.array([width / 2, height / 2])
    whole = np.eye(3)
    for one, two in pairwise(frames):
        here = cv2.goodFeaturesToTrack(one, 300, 0.01, 5)
        there, found, _ = cv2.calcOpticalFlowPyrLK(one, two, here, None, winSize=(21, 21), maxLevel=3)
        kept = found.ravel() == 1
        step, _ = cv2.estimateAffinePartial2D(here[kept] - middle, there[kept] - middle, ransacReprojThreshold=0.5)
        whole = np.vstack([step, [0, 0, 1]]) @ whole
    return whole


# Where the picture goes in the frame of 320x180: right, down, times larger, degrees clockwise.
SEEN = {
    Move.PAN_LEFT: (80, 0, 1, 0),
    Move.PAN_RIGHT: (-80, 0, 1, 0),
    Move.TILT_DOWN: (0, -45, 1, 0),
    Move.TILT_UP: (0, 45, 1, 0),
    Move.ZOOM_IN: (0, 0, 1.4, 0),
    Move.ZOOM_OUT: (0, 0, 1 / 1.4, 0),
    Move.CLOCKWISE_ROTATION: (0, 0, 1, -12),
    Move.COUNTERCLOCKWISE_ROTATION: (0, 0, 1, 12),
    Move.STATIC_SHOT: (0, 0, 1, 0),
}
WHIPS = {
    Move.WHIP_PAN_LEFT: (160, 0, 1),
    Move.WHIP_PAN_RIGHT: (-160, 0, 1),
    Move.WHIP_TILT_DOWN: (0, -90, 1),
    Move.WHIP_TILT_UP: (0, 90, 1),
    Move.WHIP_ZOOM_IN: (0, 0, 1.6),
    Move.WHIP_ZOOM_OUT: (0, 0, 1 / 1.6),
}


def test_each_performed_move_is_measured_below():
    performed = {move for move, motion in MOTIONS.items() if motion.support == "performed"}
    assert performed == {*SEEN, *WHIPS, Move.HANDHELD}


@pytest.mark.parametrize("move", SEEN)
def test_optical_flow_has_the_direction_and_the_amount(move):
    motion = whole_motion(frames_of(render(request(move))[0]))
    right, down, larger, clockwise = SEEN[move]
    scale = np.sqrt(np.linalg.det(motion[:2, :2]))
    angle = np.degrees(np.arctan2(motion[1, 0] - motion[0, 1], motion[0, 0] + motion[1, 1]))
    assert motion[0, 2] == pytest.approx(right, abs=1)
    assert motion[1, 2] == pytest.approx(down, abs=1)
    assert scale == pytest.approx(larger, rel=0.01)
    assert angle == pytest.approx(clockwise, abs=0.5)


@pytest.mark.parametrize("move", WHIPS)
def test_a_whip_rests_flies_and_rests(move):
    frames = frames_of(render(request(move))[0])
    right, down, larger = WHIPS[move]
    into = np.array([[larger, 0.0, 160 + right - 160 * larger], [0.0, larger, 90 + down - 90 * larger]])
    first, seen = (cv2.warpAffine(image, into, (320, 180)) for image in (frames[0], np.full((180, 320), 255, np.uint8)))
    both = seen == 255
    assert np.corrcoef(first[both], frames[-1][both])[0, 1] > 0.97
    assert ssim(frames[0], frames[6]) > 0.95
    assert ssim(frames[-1], frames[-7]) > 0.95
    assert cv2.Laplacian(frames[12], cv2.CV_64F).var() < cv2.Laplacian(frames[0], cv2.CV_64F).var() / 2, "no blur"


def test_handheld_sways_a_little_below_two_hertz_and_by_its_seed():
    def places(seed):
        path = camera_path(
            [Move.HANDHELD], frames=240, duration_s=10, picture_px=(640, 360), video_px=(320, 180), seed=seed
        )
        return np.array([path.corners(n).mean(axis=0) for n in range(240)])

    sway = places(7)
    assert np.array_equal(sway, places(7))
    assert not np.allclose(sway, places(8), atol=0.5)
    spread = (sway - sway.mean(axis=0)).std(axis=0)
    assert (spread > 0.8).all(), "it does not sway"
    assert (spread < 12).all(), "a hand does not shake like that"
    power = np.abs(np.fft.rfft((sway - sway.mean(axis=0)) * np.hanning(240)[:, None], axis=0)) ** 2
    assert power[24:].sum() < 0.01 * power.sum(), "there is more than 2.4 Hz in it"
    one, two = (render(request(Move.HANDHELD, seed=seed, duration_s=0.3))[0] for seed in (7, 8))
    assert one != two


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(st.sampled_from(list(Move)), max_size=4),
    frames=st.integers(1, 50),
    video=st.tuples(st.integers(16, 400), st.integers(16, 400)),
    wider=st.floats(-0.01, 0.01),
    easing=st.sampled_from(["ease", "linear"]),
    amount=st.floats(0.05, 2.0),
    seed=st.integers(0, 2**32),
)
def test_no_window_leaves_the_picture(moves, frames, video, wider, easing, amount, seed):
    picture = (round(video[0] * 3 * (1 + wider)), video[1] * 3)
    path = camera_path(
        moves,
        frames=frames,
        duration_s=frames / 24,
        picture_px=picture,
        video_px=video,
        easing=easing,
        amount=amount,
        seed=seed,
    )
    corners = np.array([path.corners(n) for n in range(frames)])
    assert corners.min() >= -1e-6
    assert (corners.max(axis=(0, 1)) <= np.array(picture) + 1e-6).all()
    left_top, right_top, _, left_bottom = corners[0]
    assert left_top[1] == pytest.approx(right_top[1]), "frame 0 is an upright crop"
    assert left_top[0] == pytest.approx(left_bottom[0])
    across, along = right_top[0] - left_top[0], left_bottom[1] - left_top[1]
    assert across / along == pytest.approx(video[0] / video[1]), "and nothing is squashed"
    touched = [corners[..., 0].min(), corners[..., 1].min()], np.array(picture) - corners.max(axis=(0, 1))
    assert min(map(min, touched)) == pytest.approx(0, abs=1e-6), "the largest window touches an edge"


@pytest.mark.parametrize(
    "moves",
    [[move] for move in Move] + [[Move.PAN_LEFT, Move.CLOCKWISE_ROTATION, Move.CRANE_UP, Move.HANDHELD]],
    ids=str,
)
def test_no_pixel_shows_an_edge(moves, monkeypatch):
    monkeypatch.setattr(camera_film.cv2, "BORDER_REPLICATE", cv2.BORDER_CONSTANT)  # beyond the picture is now black
    for luma, *chroma in drawn(moves, photograph(400, 225, seed=2), (160, 90), 13):
        assert luma.min() > 30
        assert min(plane.min() for plane in chroma) > 30


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("move", [Move.STATIC_SHOT, Move.PAN_RIGHT, Move.ZOOM_IN, Move.CLOCKWISE_ROTATION])
def test_frame_0_is_the_recorded_crop(move, codec):
    still = conform(PHOTO.read_bytes(), PHOTO.name, width_px=1280, height_px=720, scale=2.0)
    ref = MEDIA.add(still.data, still.media_type, still.width_px, still.height_px)
    asked = request(move, picture=ref, width_px=1280, height_px=720, codec=codec, duration_s=1.0)
    data, report = render(asked)
    upright = Image.open(io.BytesIO(still.data)).convert("RGB")
    crop = upright.resize((1280, 720), Image.Resampling.LANCZOS, box=tuple(report["start_crop_px"]))
    luma, cb, cr = planes(data)
    assert ssim(luma, 16 + 219 / 255 * (np.asarray(crop) @ [0.2126, 0.7152, 0.0722])) >= 0.98
    red, green, blue = np.asarray(crop, np.float64).transpose(2, 0, 1)
    grey = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    for plane, expected in ((cb, (blue - grey) / 1.8556), (cr, (red - grey) / 1.5748)):
        half = cv2.resize(expected * 224 / 255 + 128, (640, 360), interpolation=cv2.INTER_AREA)
        assert abs(plane.astype(float) - half).mean() < 1.5
        assert abs((plane - half).mean()) < 0.25


def planes(data):
    with av.open(io.BytesIO(data)) as film:
        frame = next(film.decode(video=0))
        return [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()
            for plane in frame.planes
        ]


def test_chroma_lies_where_players_look_for_it():
    """On a ramp of colour each chroma sample tells its place: the left column of its two, between its rows."""
    columns, rows = np.meshgrid(np.arange(64), np.arange(36))
    x, y = np.meshgrid((np.arange(256) + 0.5) / 256, (np.arange(144) + 0.5) / 144)
    for ramp, place, length in ((x, (2 * columns + 0.5) / 128, 128), (y, (2 * rows + 1) / 72, 72)):
        errors = []
        for rising in (200, -200):  # rounding errs to one side, a wrong place to two
            red = 120 + rising * (ramp - 0.5)
            picture = np.stack([red, np.full_like(red, 110), np.full_like(red, 110)], axis=2).round().astype(np.uint8)
            _, _, cr = next(drawn([Move.STATIC_SHOT], Image.fromarray(picture), (128, 72), 1))
            expected = 128 + 0.7874 * (10 + rising * (place - 0.5)) * 224 / 255 / 1.5748
            errors.append((cr - expected)[6:-6, 6:-6].mean())
        steepness = 0.7874 * 200 / length * 224 / 255 / 1.5748
        assert abs(errors[0] - errors[1]) / 2 / steepness < 0.1, "chroma is off by so many pixels"


def test_a_slow_pan_does_not_tremble():
    """0.3 px a frame, registered by ECC; the blur keeps ECC's own error with sub-pixel phase below 0.001 px."""
    amount = 0.3 * 23 / (0.25 * 1280)
    picture = Image.open(PHOTO).convert("RGB")
    frames = [
        cv2.GaussianBlur(luma.astype(np.float32), (0, 0), 3)[30:-30, 30:-30]
        for luma, *_ in drawn([Move.PAN_RIGHT], picture, (1280, 720), 24, easing="linear", amount=amount)
    ]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-9)
    places = []
    for number, frame in enumerate(frames):
        guess = np.array([[1, 0, -0.3 * number], [0, 1, 0]], np.float32)
        places.append(cv2.findTransformECC(frames[0], frame, guess, cv2.MOTION_TRANSLATION, stop, None, 1)[1][0, 2])
    line = np.polyfit(range(24), places, 1)
    assert line[0] == pytest.approx(-0.3, abs=0.001)
    assert np.std(places - np.polyval(line, range(24))) <= 0.002


def test_moves_of_a_sequence_flow_into_each_other():
    path = camera_path(
        [Move.PAN_RIGHT, Move.TILT_DOWN], frames=97, duration_s=4, picture_px=(640, 360), video_px=(320, 180)
    )
    middles = np.array([path.corners(n).mean(axis=0) for n in range(97)])
    steps = np.hypot(*np.diff(middles, axis=0).T)
    assert steps[30:66].min() > 0.3 * steps.max(), "the camera stops between the moves"
    assert np.abs(np.diff(steps)).max() < 0.12 * steps.max(), "the camera jerks"
    right, down = middles[-1] - middles[0]
    width = path.corners(0)[1, 0] - path.corners(0)[0, 0]
    assert (right, down) == (pytest.approx(0.25 * width), pytest.approx(0.25 * width * 180 / 320))
    still = [*middles[:48, 1], *middles[50:, 0]]
    assert max(abs(np.diff(middles[:36, 1]))) < 1e-9, still


def test_speed_words_change_the_way_and_holding_moves_nothing():
    def way(*moves):
        path = camera_path(moves, frames=25, duration_s=1, picture_px=(640, 360), video_px=(320, 180))
        ends = path.corners(0), path.corners(24)
        return (ends[1] - ends[0])[0, 0] / (ends[0][1] - ends[0][0])[0]

    assert way(Move.PAN_RIGHT) == pytest.approx(0.25)
    assert way(Move.PAN_RIGHT, Move.SLOW_MOTION) == pytest.approx(0.125)
    assert way(Move.TIME_LAPSE, Move.PAN_RIGHT) == pytest.approx(0.375)
    assert way(Move.DOLLY_ZOOM) == way(Move.FOLLOWING_SHOT) == way(Move.STATIC_SHOT) == way() == 0


def test_same_request_same_bytes_in_another_process():
    asked = request(Move.CRANE_UP, Move.HANDHELD, seed=5, duration_s=0.5)
    script = f"""
import hashlib, io, json, sys
from vrag.backends.local.camera_moves import CameraMoveRenderer
from vrag.values.canonical import from_json
from vrag.values.requests import VideoRequest
picture, out = sys.stdin.buffer.read(), io.BytesIO()
request = from_json(VideoRequest, json.loads({json.dumps(vrag.values.canonical.to_json(asked))!r}))
CameraMoveRenderer().render(request, lambda _: io.BytesIO(picture), out, lambda _: None, lambda: False)
sys.stdout.buffer.write(out.getvalue())
"""
    with MEDIA(PICTURE) as stream:
        other = subprocess.run([sys.executable, "-c", script], input=stream.read(), capture_output=True, check=True)
    assert other.stdout == render(asked)[0] == render(asked)[0]


@pytest.mark.parametrize("fps", [24, 23.976, 29.97, 12.5, 60])
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_film_is_what_was_asked(fps, codec):
    data, report = render(request(Move.ZOOM_IN, width_px=128, height_px=72, fps=fps, codec=codec, duration_s=0.7))
    with av.open(io.BytesIO(data)) as film:
        stream = film.streams.video[0]
        times = [frame.pts * frame.time_base for frame in film.decode(stream)]
        context = stream.codec_context
        assert stream.average_rate == frame_rate(fps) == Fraction(report["rate"])
        assert (context.width, context.height, context.pix_fmt) == (128, 72, "yuv420p")
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tuple(map(int, tags)) == (1, 1, 1, 1), "BT.709, limited range"
    assert len(times) == report["frames"] == round(0.7 * frame_rate(fps))
    assert times == [number / frame_rate(fps) for number in range(len(times))]
    assert data.index(b"moov") < data.index(b"mdat"), "a player needs the whole file before it can start"


def test_rates_that_people_write():
    assert [frame_rate(fps) for fps in (23.976, 23.98, 29.97, 59.94)] == [
        Fraction(24000, 1001),
        Fraction(24000, 1001),
        Fraction(30000, 1001),
        Fraction(60000, 1001),
    ]
    assert [frame_rate(fps) for fps in (24, 25, 12.5, 1 / 0.75)] == [24, 25, Fraction(25, 2), Fraction(4, 3)]


def test_the_report_says_what_was_done():
    _, report = render(request(Move.TILT_DOWN, Move.TRACK_LEFT, seed=9))
    assert json.loads(json.dumps(report)) == report
    assert report["moves"] == [
        {"move": "tilt down", "support": "performed"},
        {"move": "track left", "support": "approximated"},
    ]
    assert (report["seed"], report["easing"], report["frames"], report["rate"]) == (9, "ease", 24, "24/1")
    assert report["encoder"]["name"] == "libx264"
    assert set(report["versions"]) == {"pyav", "libavcodec", "opencv", "pillow"}
    left, top, right, bottom = report["start_crop_px"]
    assert (right - left) / (bottom - top) == pytest.approx(16 / 9, rel=1e-4)
    assert report["end_crop_px"][1] > top, "tilt down ends lower"
    assert report["end_crop_px"][0] < left, "track left ends further left"
    assert render(request(Move.STATIC_SHOT, duration_s=0.1))[1]["start_crop_px"] == [0, 0, 640, 360]


def test_progress_rises_and_stopping_is_quick():
    told, asked = [], request(Move.PAN_LEFT, duration_s=2)
    CameraMoveRenderer().render(asked, MEDIA, io.BytesIO(), told.append, lambda: False)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 1)
    assert len(told) > 40
    told.clear()
    with pytest.raises(JobCancelledError):
        CameraMoveRenderer().render(asked, MEDIA, io.BytesIO(), told.append, lambda: len(told) > 5)
    assert len(told) <= 8
    assert not [thread for thread in threading.enumerate() if thread.name == "vrag-camera"]


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_and_a_missing_encoder_are_told(monkeypatch):
    asked = request(Move.PAN_LEFT, duration_s=0.3)
    with pytest.raises(OSError, match="No space left") as caught:
        CameraMoveRenderer().render(asked, MEDIA, FullDisk(), lambda _: None, lambda: False)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setitem(sys.modules["vrag.backends.local.camera_moves"]._ENCODERS, "h264", ("libnone", {}))
    with pytest.raises(BackendError, match="no encoder libnone"):
        render(asked)
    assert not [thread for thread in threading.enumerate() if thread.name == "vrag-camera"]


REFUSED = {
    "width_px": request(width_px=321),
    "height_px": request(height_px=14, width_px=16),
    "fps": request(fps=121.0),
    "codec": request(codec="vp9"),
    "seed": request(seed=-1),
    "shots": evolve(request(), shots=request().shots * 2),
    "shots[0].duration_s": request(duration_s=601.0),
    "shots[0].inputs": evolve(request(), shots=(Shot(prompt="a red shoe"),)),
    "shots[0].inputs[0]": request(width_px=320, height_px=240),
    "shots[0].inputs[1]": evolve(request(), shots=(evolve(request().shots[0], inputs=request().shots[0].inputs * 2),)),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_it_cannot_make_is_refused_before_anything_is_written(field):
    out, renderer = io.BytesIO(), CameraMoveRenderer()
    problems = [problem for problem in renderer.validate(REFUSED[field]) if problem.kind == "refused"]
    assert field in {problem.field for problem in problems}
    with pytest.raises(UnsupportedRequestError) as caught:
        renderer.render(REFUSED[field], MEDIA, out, lambda _: None, lambda: False)
    assert caught.value.problems == tuple(problems)
    assert out.getvalue() == b""


def test_text_only_and_small_av1_say_what_to_do():
    renderer = CameraMoveRenderer()
    (problem,) = renderer.validate(REFUSED["shots[0].inputs"])
    assert "'start_frame'" in problem.message
    assert "text-to-video" in problem.message
    assert not renderer.validate(request(width_px=32, height_px=18))
    assert {problem.field for problem in renderer.validate(request(width_px=32, height_px=18, codec="av1"))} == {
        "width_px",
        "height_px",
    }


def test_a_picture_of_another_shape_is_never_squashed():
    square = MEDIA.add(png(photograph(300, 300)), "image/png", 300, 300)
    with pytest.raises(UnsupportedRequestError, match="nothing is squashed"):
        render(request(Move.PAN_LEFT, picture=square))
    unknown = evolve(square, width_px=None, height_px=None)
    with pytest.raises(ImageRejectedError, match="nothing is squashed"):
        render(request(Move.PAN_LEFT, picture=unknown))
    nearly = MEDIA.add(png(photograph(322, 180)), "image/png", 322, 180)
    _, report = render(request(picture=nearly, duration_s=0.1))
    assert report["start_crop_px"] == [1, 0, 321, 180]
    broken = MEDIA.add(b"\x89PNG\r\n\x1a\n" + b"no picture" * 20, "image/png", 640, 360)
    with pytest.raises(ImageRejectedError):
        render(request(picture=broken))


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        (request(Move.PAN_LEFT, Move.CRANE_UP, seed=1), []),
        (request(Move.ZOOM_IN, Move.ZOOM_OUT), []),  # in turn, as asked
        (request(Move.DOLLY_ZOOM, Move.FOLLOWING_SHOT), ["shots[0].camera"] * 2),
        (request(Move.SLOW_MOTION), ["shots[0].camera"]),
        (request(Move.SLOW_MOTION, Move.PAN_LEFT), []),
        (request(Move.SLOW_MOTION, Move.TIME_LAPSE, Move.PAN_LEFT), ["shots[0].camera"]),
        (request(Move.STATIC_SHOT, Move.HANDHELD), ["shots[0].camera"]),
        (request(negative_prompt="people"), ["negative_prompt"]),
        (request(look=Look(style="noir", mood="calm", lighting="dusk")), ["look.style", "look.mood", "look.lighting"]),
    ],
)
def test_what_it_leaves_out_is_listed_as_unmet(asked, fields):
    problems = CameraMoveRenderer().validate(asked)
    assert [problem.field for problem in problems] == fields
    assert {problem.kind for problem in problems} <= {"unmet"}


def test_capabilities_and_the_model_follow_table_and_options():
    able = CameraMoveRenderer().capabilities
    assert able.moves == {move for move, motion in MOTIONS.items() if motion.support != "unmet"}
    assert (able.reads_prompt, able.origin, able.fields) == (False, "algorithm", {"seed"})
    assert able.required_roles == able.roles == {"start_frame"}
    ids = {CameraMoveRenderer(**options).model.id for options in ({}, {"easing": "linear"}, {"amount": 0.5})}
    assert len(ids) == 3, "another film is another purchase"
    for wrong in ({"easing": "bounce"}, {"amount": 3}):
        with pytest.raises(UsageError):
            CameraMoveRenderer(**wrong)


def test_the_reference_page_says_what_the_table_says():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in REFERENCE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    expected = []
    for move, motion in MOTIONS.items():
        also = [
            f"{phrase} (ambiguous)" if len(meant) > 1 else phrase
            for phrase, meant in MOVE_PHRASES.items()
            if move in meant and phrase != move.value
        ]
        expected.append([move.value, ", ".join(also) or "-", motion.support, motion.how])
    assert [row for row in rows if len(row) == 4][2:] == expected
    assert set(MOTIONS) == set(Move)
