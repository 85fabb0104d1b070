"""Films written from frames and from packets: even timestamps, index first, the same bytes each time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO, Final

from vrag.errors import BackendError, MissingExtraError
from vrag.media.film_track import FilmTrack

__all__ = ["ENCODERS", "copy_packets", "encode_frames", "layout", "steady"]

ENCODERS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "18"}),
    "av1": ("libsvtav1", {"preset": "9", "crf": "26"}),
}
"""Encoder and options of each codec, for films that were lossy before: a little better than a first encoding needs."""
_THREADS: Final = 4
"""Of the encoder; x264 gives other bytes for another number, so it never follows the machine."""
_KEY_FRAME_S: Final = 4
_CPU_AVX_512F: Final = 13
"""OpenCV's number of it; its Python names have come and gone."""


def steady(encoder: str, options: dict[str, str]) -> dict[str, str]:
    """Options under which the same frames give the same bytes.

    The AVX-512 code of x264 (core 165, in PyAV 18.1) does not: of 400 encodings of twelve frames, beside others, it
    made six different films. Its AVX2 code made one, and the same one as its SSE code.
    """
    if encoder == "libsvtav1":
        given = options.get("svtav1-params", "")
        return options if "lp=" in given else {**options, "svtav1-params": f"{given}:lp={_THREADS}".lstrip(":")}
    try:
        import cv2  # noqa: PLC0415  # an optional extra; it knows the processor
    except ImportError:
        raise MissingExtraError("Writing films needs the extra 'local'.", hint="pip install 'vrag[local]'") from None
    if not cv2.checkHardwareSupport(_CPU_AVX_512F):
        return options
    return {**options, "x264-params": ":".join(filter(None, [options.get("x264-params"), "asm=avx2"]))}


def layout(frames: int) -> dict[str, str]:
    """Options of the MP4 writer: room for the index before the pictures, so that a player can start at once."""
    return {"moov_size": str(4096 + 48 * frames), "fflags": "+bitexact"}


@contextmanager
def _writing(out: BinaryIO, frames: int) -> Iterator[Any]:
    import av  # noqa: PLC0415  # an optional extra
    from av.error import FFmpegError  # noqa: PLC0415

    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its banner to stderr, and listens to nothing else
    try:
        with av.open(out, "w", format="mp4", options=layout(frames)) as container:
            yield container
    except FFmpegError as error:
        raise BackendError(
            f"The film cannot be written: {error.strerror}.", backend="local", operation="assemble"
        ) from error


def encode_frames(
    frames: Iterable[Any], out: BinaryIO, *, like: FilmTrack, codec: str, count: int, sps_id: int | None = None
) -> None:
    """Encode `count` frames (8 bits, 4:2:0) with the size, rate and colours of `like`.

    Args:
        frames: PyAV frames; their timestamps are overwritten.
        out: A seekable file, empty.
        like: A film of the wanted size, rate and colours.
        codec: `h264` or `av1`.
        count: How many frames there are.
        sps_id: Number of H.264's parameter sets, to tell them from those of packets beside them.

    Raises:
        BackendError: The encoder failed, or this build of PyAV has none of that name.
    """
    from av.codec.codec import UnknownCodecError  # noqa: PLC0415  # as above
    from av.video.frame import PictureType  # noqa: PLC0415

    encoder, options = ENCODERS[codec]
    if sps_id is not None:
        options = {**options, "x264-params": f"sps-id={sps_id}"}
    step = 1 / like.rate
    with _writing(out, count) as container:
        try:
            stream = container.add_stream(encoder, rate=like.rate, options=steady(encoder, options))
        except UnknownCodecError as error:
            raise BackendError(
                f"This build of PyAV has no encoder {encoder}.",
                backend="local",
                operation="assemble",
                hint="pip install av",
            ) from error
        stream.width, stream.height, stream.pix_fmt = like.width_px, like.height_px, "yuv420p"
        context = stream.codec_context
        context.time_base = step
        context.gop_size = max(1, round(like.rate * _KEY_FRAME_S))
        context.thread_count = _THREADS
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = like.colours
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, step
            frame.pict_type = PictureType.NONE  # or the encoder would repeat the kinds of the source
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def copy_packets(pieces: Iterable[tuple[FilmTrack, int, int]], out: BinaryIO, *, parameters: bytes) -> None:
    """Join packets without decoding: one frame after the other, on an even grid.

    Args:
        pieces: Films with the first frame and the first one not taken, both of them cuts of the film (or its end).
        out: A seekable file, empty.
        parameters: The decoder configuration that holds for all of them.

    Raises:
        MediaRejectedError: A film changed since it was scanned.
        BackendError: The file cannot be written.
    """
    parts = tuple(pieces)
    first = parts[0][0]
    count = sum(stop - start for _, start, stop in parts)
    delay = max(track.delay for track, _, _ in parts)
    step: Fraction = 1 / first.rate
    with _writing(out, count) as container:
        stream = container.add_stream_from_template(first.stream, opaque=True)
        stream.codec_context.extradata = parameters
        stream.time_base = step
        done = 0
        for track, start, stop in parts:
            for at, packet in enumerate(track.packets(start, stop), done):
                packet.pts = done + track.order[start + at - done] - start
                # Counted anew: films that look ahead further than their neighbours would run back in time.
                packet.dts = at - delay
                packet.duration, packet.time_base, packet.stream = 1, step, stream
                container.mux(packet)
            done += stop - start
