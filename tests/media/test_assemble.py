"""Films joined: every frame is there, once, in its place and at its time; and nothing is encoded that need not be."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vrag.errors import MediaRejectedError, UsageError
from vrag.media.assemble import AssembleReport, assemble
from vrag.media.film_track import scan_track
from vrag.media.h264 import merged_configuration
from vrag.media.video import check_video

av = pytest.importorskip("av", reason="needs the extra 'local'")
pytest.importorskip("cv2", reason="needs the extra 'local'")

WIDTH, HEIGHT, FPS = 128, 96, 24
SVT = {"preset": "9", "crf": "26", "svtav1-params": "lp=2"}


def film(
    seed: int,
    frames: int = 48,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    rate: Fraction | int = FPS,
    gop: int = 12,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    times: Callable[[int], int] | None = None,
    tick: Fraction | None = None,
    audio: bool = False,
    bt709: bool = False,
) -> bytes:
    """A pan over a texture of its own: no two frames of any two films are alike, and none is dark."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(60, 256, (height // 8 + 20, width // 8 + 40, 3), np.uint8)
    scene = np.asarray(
        Image.fromarray(coarse).resize((width + 2 * frames + 8, height + frames + 8), Image.Resampling.BICUBIC)
    )
    if options is None:
        options = SVT if codec == "libsvtav1" else {"preset": "veryfast", "crf": "16"} if codec == "libx264" else {}
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        track = container.add_stream(codec, rate=rate, options=options)
        track.width, track.height, track.pix_fmt = width, height, pixel_format
        track.codec_context.gop_size = gop
        track.codec_context.time_base = tick or 1 / Fraction(rate)
        if bt709:
            track.codec_context.colorspace, track.codec_context.color_range = 1, 1
        sound = container.add_stream("aac", rate=48_000) if audio else None
        for at in range(frames):
            pixels = np.ascontiguousarray(scene[at : at + height, 2 * at : 2 * at + width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times(at) if times else at), tick or 1 / Fraction(rate)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 48_000), np.float32), format="fltp", layout="stereo")
            silence.sample_rate = 48_000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return out.getvalue()


def decoded(data: bytes) -> tuple[list[Fraction], list[np.ndarray]]:
    """Times and luma of all frames."""
    times, frames = [], []
    with av.open(io.BytesIO(data), format="mp4") as container:
        for frame in container.decode(video=0):
            times.append(frame.pts * frame.time_base)
            frames.append(frame.to_ndarray(format="yuv420p")[: frame.height].astype(float))
    return times, frames


def join(films: Sequence[bytes], **options: object) -> tuple[bytes, AssembleReport]:
    out = io.BytesIO()
    report = assemble([lambda data=data: io.BytesIO(data) for data in films], out, **options)
    return out.getvalue(), report


def parameters(data: bytes) -> bytes:
    with ExitStack() as files:
        return scan_track(lambda: io.BytesIO(data), "x", files).parameters


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    error = float(np.mean((one - two) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def expected(films: Sequence[bytes], fade: int = 0) -> list[np.ndarray]:
    """What a linear blend of the decoded films is."""
    whole = decoded(films[0])[1]
    for data in films[1:]:
        frames = decoded(data)[1]
        if fade:
            blend = [
                (old * (fade - at) + new * (at + 1)) / (fade + 1)
                for at, (old, new) in enumerate(zip(whole[-fade:], frames[:fade], strict=True))
            ]
            whole = [*whole[:-fade], *blend, *frames[fade:]]
        else:
            whole = [*whole, *frames]
    return whole


def check(data: bytes, report: AssembleReport, wanted: Sequence[np.ndarray], least_db: float) -> None:
    times, frames = decoded(data)
    rate = Fraction(report.fps).limit_denominator(1001)
    assert len(frames) == len(wanted) == report.frames
    assert times == [at / rate for at in range(len(times))]
    assert min(psnr(one, two) for one, two in zip(frames, wanted, strict=True)) >= least_db
    info = check_video(io.BytesIO(data), "joined", duration_s=report.duration_s)
    assert info.frames == report.frames
    assert report.duration_s == pytest.approx(len(wanted) / rate)
    assert not info.has_audio
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_hard_cuts_are_copies(codec):
    films = [film(seed, 30 + seed, codec=codec) for seed in range(4)]
    data, report = join(films)
    assert (report.method, report.reason, report.films) == ("copied", "", 4)
    assert report.copied_frames == report.frames == 126
    assert report.codec == ("h264" if codec == "libx264" else "av1")
    check(data, report, expected(films), 99)
    assert len(data) < sum(map(len, films)) + 4096 + 48 * 126


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_crossfades_encode_only_around_the_joints(codec):
    films = [film(seed, 72, codec=codec) for seed in range(3)]
    data, report = join(films, crossfade_s=0.5)
    assert (report.method, report.crossfade_s) == ("joints encoded", 0.5)
    assert report.frames == 3 * 72 - 2 * 12
    assert report.copied_frames == 60 + 48 + 60
    wanted = expected(films, 12)
    check(data, report, wanted, 33)
    frames = decoded(data)[1]
    copied = [*range(60), *range(72, 120), *range(132, 192)]
    assert all(np.array_equal(frames[at], wanted[at]) for at in copied)


@pytest.mark.parametrize("fade", [1, 5, 24])
def test_no_step_of_a_crossfade_is_larger_than_the_motion_of_the_shots(fade):
    films = [film(seed, 72) for seed in range(3)]
    data, report = join(films, crossfade_s=fade / FPS)
    shots = [np.abs(b - a).mean() for one in films for a, b in pairwise(decoded(one)[1])]
    frames = decoded(data)[1]
    steps = [np.abs(b - a).mean() for a, b in pairwise(frames)]
    largest_cut = np.abs(decoded(films[1])[1][0] - decoded(films[0])[1][-1]).mean()
    if fade >= 5:
        assert max(steps) <= max(shots)
    else:
        assert max(steps) < largest_cut
    assert min(frame.mean() for frame in frames) > 50  # none is black
    assert min(steps) > 0.2  # none is repeated
    assert report.crossfade_s == pytest.approx(fade / FPS)


def test_a_film_without_a_key_frame_between_its_crossfades_is_encoded_whole_and_its_neighbours_are_not():
    films = [film(0), film(1, 40, gop=1000, options={"preset": "veryfast", "crf": "16"}), film(2)]
    assert len({parameters(data) for data in films}) == 1
    data, report = join(films, crossfade_s=8 / FPS)
    assert report.method == "joints encoded"
    assert report.copied_frames == 36 + 36
    check(data, report, expected(films, 8), 33)


def test_crossfades_may_take_all_of_a_film():
    films = [film(0, 12), film(1, 24), film(2, 12)]
    data, report = join(films, crossfade_s=0.5)
    assert report.method == "encoded"
    assert report.frames == 24
    check(data, report, expected(films, 12), 33)


def test_other_encoder_settings_are_encoded_and_said():
    films = [film(0), film(1, options={"preset": "veryfast", "crf": "16", "bf": "0"})]
    for options, fade in (({}, 0), ({"crossfade_s": 0.25}, 6)):
        data, report = join(films, names=["one.mp4", "two.mp4"], **options)
        assert report.method == "encoded"
        assert report.copied_frames == 0
        assert "'two.mp4' was encoded with other settings than 'one.mp4'" in report.reason
        check(data, report, expected(films, fade), 33)


def test_two_codecs_become_that_of_the_first():
    films = [film(0, codec="libsvtav1"), film(1)]
    data, report = join(films)
    assert (report.method, report.codec) == ("encoded", "av1")
    assert "h264" in report.reason
    check(data, report, expected(films), 30)


def test_other_codecs_become_h264():
    films = [film(0, 12, codec="mpeg4"), film(1, 12, codec="mpeg4")]
    data, report = join(films)
    assert (report.method, report.codec) == ("encoded", "h264")
    assert "mpeg4" in report.reason
    check(data, report, expected(films), 30)


def test_ten_bit_films_are_copied_and_their_crossfades_are_not_pretended():
    films = [film(seed, pixel_format="yuv420p10le") for seed in range(2)]
    assert join(films)[1].method == "copied"
    data, report = join(films, crossfade_s=0.25)
    assert report.method == "encoded"
    assert "yuv420p10le" in report.reason
    check(data, report, expected(films, 6), 30)


def test_colours_stay_what_they_are_when_matrices_meet():
    films = [film(0, 12), film(1, 12, bt709=True)]
    data, report = join(films)
    assert report.method == "encoded"

    def red(data: bytes, at: int) -> np.ndarray:
        with av.open(io.BytesIO(data), format="mp4") as container:
            frames = list(container.decode(video=0))
            return frames[at].to_ndarray(format="rgb24").astype(float)

    for at in (3, 9):
        assert psnr(red(data, at), red(films[0], at)) > 30
        assert psnr(red(data, 12 + at), red(films[1], at)) > 30


def test_one_film_is_copied():
    data, report = join([film(0)], crossfade_s=1)
    assert (report.method, report.crossfade_s, report.frames) == ("copied", 0, 48)
    check(data, report, expected([film(0)]), 99)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30), Fraction(16)])
def test_rates_are_kept_exactly(rate):
    films = [film(seed, 24, rate=rate) for seed in range(2)]
    data, report = join(films)
    times = decoded(data)[0]
    assert report.method == "copied"
    assert report.fps == float(rate)
    assert times == [at / rate for at in range(48)]


def test_coarse_clocks_become_even():
    milliseconds = {"times": lambda at: round(at * 1000 / FPS), "tick": Fraction(1, 1000)}
    films = [film(seed, 30, **milliseconds) for seed in range(2)]
    data, report = join(films)
    assert report.method == "copied"
    check(data, report, expected(films), 99)


def test_uneven_films_are_refused():
    wild = film(0, 24, times=lambda at: at * 10 + (4 if at == 11 else 0), tick=Fraction(1, 240))
    with pytest.raises(MediaRejectedError) as caught:
        join([film(1), wild], names=["a.mp4", "b.mp4"])
    assert (caught.value.code, caught.value.name) == ("uneven", "b.mp4")


def test_frames_that_an_edit_list_hides_stay_hidden():
    data = bytearray(film(0))
    entry = data.index(b"elst") + 16
    (media_time,) = struct.unpack_from(">i", data, entry)
    ticks = 12288 // FPS
    struct.pack_into(">i", data, entry, media_time + 5 * ticks)  # the first five frames are cut away
    hidden = decoded(bytes(data))[1]
    assert len(hidden) == 43
    joined, report = join([bytes(data), film(1)])
    assert report.method == "encoded"
    assert "edit list" in report.reason
    check(joined, report, [*hidden, *decoded(film(1))[1]], 33)


def test_sound_is_dropped_and_said():
    data, report = join([film(0, audio=True), film(1)], names=["loud", "silent"])
    assert report.method == "copied"
    assert report.audio_dropped == ("loud",)
    check(data, report, expected([film(0), film(1)]), 99)


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("options", [{}, {"crossfade_s": 0.25}])
def test_the_same_films_give_the_same_bytes(options, codec):
    films = [film(0, codec=codec), film(1, codec=codec)]
    assert join(films, **options)[0] == join(films, **options)[0]


def test_films_that_do_not_fit_are_named():
    with pytest.raises(UsageError, match=r"'a' has 128 x 96 pixels and 'c' 96 x 128"):
        join([film(0), film(1), film(2, size=(96, 128))], names="abc")
    with pytest.raises(UsageError, match=r"'a' has 24 frames a second and 'b' 25"):
        join([film(0), film(1, rate=25)], names="ab")
    with pytest.raises(UsageError, match=r"'b' lasts 1 s, .* need 1.5 s"):
        join([film(0), film(1, 24), film(2)], names="abc", crossfade_s=0.75)
    with pytest.raises(UsageError, match="no film"):
        join([])
    for length in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no length"):
            join([film(0), film(1)], crossfade_s=length)


def test_hostile_films_are_refused_by_name():
    whole = film(1)
    for broken in (b"", b"#EXTM3U\nhttp://localhost/x", whole[: len(whole) // 2], whole[:40] + bytes(4000)):
        with pytest.raises(MediaRejectedError) as caught:
            join([whole, broken], names=["a", "b"])
        assert caught.value.name == "b"


def test_damage_inside_a_film_is_found_where_its_frames_are_read():
    whole = film(1)
    damaged = bytearray(whole)
    start = whole.index(b"mdat") + 400
    rng = np.random.default_rng(3)
    damaged[start : start + 6000] = rng.integers(0, 256, 6000, np.uint8).tobytes()
    try:
        joined, report = join([film(0), bytes(damaged)], crossfade_s=0.5)
    except MediaRejectedError:
        return
    assert len(decoded(joined)[1]) <= report.frames  # a decoder may conceal damage; frames are never made up


def test_parameter_sets_with_the_same_number_are_not_put_together():
    one, two = (parameters(film(seed)) for seed in (0, 1))
    assert merged_configuration(one, two) is None
    third = parameters(film(0, options={"preset": "veryfast", "x264-params": "sps-id=7"}))
    both = merged_configuration(one, third)
    assert both is not None
    assert (both[0], both[5] & 31) == (1, 2)
    assert merged_configuration(both, third) is None
    assert merged_configuration(b"", third) is None
    assert all(merged_configuration(one[:cut], third) is None for cut in range(6, len(one) - 8))
