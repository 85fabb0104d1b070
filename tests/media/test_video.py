"""Films: probing, frames, and what is not a whole film."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrag.errors import MediaRejectedError, UsageError
from vrag.media.video import check_video, iter_frames, probe_video, read_frame

av = pytest.importorskip("av", reason="needs the extra 'local'")

CODES = {
    "empty",
    "not_a_video",
    "truncated",
    "no_video_stream",
    "unsupported_codec",
    "too_large",
    "undecodable",
    "wrong_size",
    "wrong_duration",
}


def colour(at: int) -> tuple[int, int, int]:
    return (20 + at * 8, 60, 200 - at * 5)


def film(frames=24, width=96, height=64, codec="libx264", *, bt709=False, path=None, audio=False, gop=8) -> bytes:
    out = io.BytesIO()
    options = {"movflags": "faststart"} if path else {}
    with av.open(str(path) if path else out, "w", format="mp4", options=options) as container:
        track = container.add_stream(codec, rate=24)
        track.width, track.height = width, height
        track.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
        track.codec_context.gop_size = gop
        if bt709:
            track.codec_context.colorspace, track.codec_context.color_range = 1, 1
        sound = container.add_stream("aac", rate=48_000) if audio else None
        for at in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), colour(at), np.uint8), format="rgb24")
            if bt709:
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            container.mux(track.encode(frame))
        container.mux(track.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 48_000), np.float32), format="fltp", layout="stereo")
            silence.sample_rate = 48_000
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path.read_bytes() if path else out.getvalue()


@pytest.fixture(scope="module")
def whole() -> bytes:
    return film()


@pytest.fixture(scope="module")
def index_first(tmp_path_factory) -> bytes:
    return film(path=tmp_path_factory.mktemp("film") / "x.mp4")


def refusal(data: bytes, **options: object) -> MediaRejectedError:
    with pytest.raises(MediaRejectedError) as caught:
        check_video(io.BytesIO(data), "x.mp4", **options)
    assert caught.value.code in CODES
    return caught.value


def test_what_a_film_is(whole):
    stream = io.BytesIO(whole)
    stream.seek(77)
    info = probe_video(stream)
    assert (info.width_px, info.height_px, info.frames, info.codec, info.has_audio) == (96, 64, 24, "h264", False)
    assert (info.fps, info.duration_s) == (24.0, 1.0)
    assert check_video(stream, "x", width_px=96, height_px=64, duration_s=1) == info
    assert not stream.closed
    assert probe_video(io.BytesIO(film(audio=True))).has_audio


def test_av1():
    info = check_video(io.BytesIO(film(codec="libsvtav1", frames=5)), "x")
    assert (info.codec, info.frames) == ("av1", 5)


def test_frames_by_index_from_both_ends(whole):
    stream = io.BytesIO(whole)
    for index, at in ((0, 0), (11, 11), (23, 23), (-1, 23)):
        assert read_frame(stream, index).getpixel((40, 30)) == pytest.approx(colour(at), abs=4)
    for index in (24, -2):
        with pytest.raises(UsageError, match="no frame"):
            read_frame(stream, index)


def test_all_frames_in_order_of_showing(whole):
    stream = io.BytesIO(whole)
    frames = list(iter_frames(stream))
    assert len(frames) == 24
    assert all(frame.shape == (64, 96, 3) and frame.dtype == np.uint8 for frame in frames)
    assert [tuple(frame[30, 40]) for frame in frames] == [pytest.approx(colour(at), abs=4) for at in range(24)]
    some = iter_frames(stream)
    next(some)
    some.close()
    assert not stream.closed


def test_colours_follow_the_matrix_of_the_file():
    for size in ((96, 64), (1280, 720)):
        data = film(frames=1, width=size[0], height=size[1], bt709=True)
        assert read_frame(io.BytesIO(data), 0).getpixel((50, 50)) == pytest.approx(colour(0), abs=4)


def test_another_size_or_length_is_refused(whole):
    assert refusal(whole, width_px=1280, height_px=720).code == "wrong_size"
    assert refusal(whole, duration_s=6).code == "wrong_duration"
    check_video(io.BytesIO(whole), "x", duration_s=1 + 1 / 24)


def test_what_is_no_film_is_told_apart(tmp_path):
    assert refusal(b"").code == "empty"
    assert refusal(b"<svg/>" * 50).code == "not_a_video"
    assert refusal(b"#EXTM3U\nhttp://127.0.0.1:1/a.ts\n").code == "not_a_video"
    assert refusal(film(codec="mjpeg", frames=2)).code == "unsupported_codec"
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48_000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    assert refusal(out.getvalue()).code == "no_video_stream"


def test_cut_off_films_are_refused(whole, index_first):
    for data in (whole, index_first):
        end = data.index(b"mdat") + 200
        for cut in range(8, end, max(1, end // 80)):
            refusal(data[:cut])
    assert refusal(index_first[: int(len(index_first) * 0.9)]).code == "truncated"


def test_a_size_that_no_decoder_should_try(whole):
    # The sample entry and the track header both say 96 x 64; make them say 60 000 x 60 000.
    size, huge = struct.pack(">HH", 96, 64), struct.pack(">HH", 60_000, 60_000)
    data = whole.replace(b"\0" * 16 + size, b"\0" * 16 + huge)
    assert data != whole
    with contextlib.suppress(MediaRejectedError):
        assert probe_video(io.BytesIO(data)).width_px == 96  # the decoder's own header corrected it


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_damage_gives_one_kind_of_error(whole, index_first, data):
    film_bytes = bytearray(data.draw(st.sampled_from([whole, index_first])))
    for where, value in data.draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8)):
        film_bytes[int(where * (len(film_bytes) - 1))] = value
    stream = io.BytesIO(bytes(film_bytes))
    for use in (lambda: check_video(stream, "x"), lambda: list(iter_frames(stream)), lambda: read_frame(stream, -1)):
        with contextlib.suppress(MediaRejectedError):
            use()


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused(tail):
    refusal(b"\0\0\0\x18ftypisom" + tail)


def test_messages_do_not_pass_on_hostile_names():
    with pytest.raises(MediaRejectedError) as caught:
        probe_video(io.BytesIO(b"x"), "a\x1b[2J\u202e.mp4")
    assert caught.value.message.isprintable()
