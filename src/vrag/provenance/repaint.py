"""Films with something painted on their frames: same size, same times, same number of frames, sound untouched.

Frames stay in the film's own colours: what is painted is grey, so that no conversion to RGB and back touches the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from vrag.errors import MediaRejectedError, MissingExtraError, ProvenanceError
from vrag.media.film_write import steady
from vrag.media.video import VideoInfo, probe_video

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["Paint", "Planes", "Repainted", "container_options", "repaint"]

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Luma, and two of chroma at half size; writable."""
Paint = Callable[[Planes, bool], None]
"""Paints on one frame; the second argument says whether luma goes from 0 to 255 instead of 16 to 235."""

_THREADS: Final = 4
"""x264 gives other bytes for another number, so it never follows the machine."""
_FULL_RANGE: Final = 2
_QUALITY: Final = {
    "libx264": {"preset": "medium", "crf": "14", "flags": "+bitexact"},
    "libsvtav1": {"preset": "7", "crf": "20", "flags": "+bitexact"},
}


@frozen(kw_only=True)
class Repainted:
    """What was done to a film."""

    info: VideoInfo
    encoder: str
    frames_painted: int


def repaint(source: BinaryIO, out: BinaryIO, paint: Paint, *, until_s: float | None = None) -> Repainted:
    """Write the film in `source` to `out` with `paint` done to its frames; the same input gives the same bytes.

    H.264 and AV1 keep their codec, others become H.264. Titles and keys of the container are kept.

    Args:
        source: An MP4, open.
        out: A seekable file, empty.
        paint: Called for each frame to be painted, in order.
        until_s: Paint only frames shown before this time; None is all.

    Raises:
        MediaRejectedError: The film cannot be read.
        ProvenanceError: It cannot be written again with the same frames at the same times.
    """
    try:
        import av  # noqa: PLC0415  # an extra
        from av.codec.codec import UnknownCodecError  # noqa: PLC0415  # as above
        from av.error import FFmpegError  # noqa: PLC0415  # as above
    except ImportError:
        raise MissingExtraError(
            "Painting on films needs the extra 'local'.", hint="pip install 'vrag[local]'"
        ) from None
    info = probe_video(source)
    encoder = "libsvtav1" if info.codec == "av1" else "libx264"
    options = container_options(source, info)
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its banner to stderr, and listens to nothing else
    try:
        with (
            av.open(source, "r", format="mp4") as film,
            av.open(out, "w", format="mp4", options=options) as made,
        ):
            painted = _paint_all(film, made, encoder, paint, until_s)
    except UnknownCodecError as error:
        raise ProvenanceError(f"This build of PyAV lacks {encoder}.", hint="pip install --upgrade av") from error
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ProvenanceError("The disk is full: the label could not be drawn. Free some space.") from error
        raise ProvenanceError(f"The film could not be written again: {type(error).__name__}.") from error
    result = probe_video(out)
    same = (info.width_px, info.height_px, info.frames) == (result.width_px, result.height_px, result.frames)
    if not same or abs(info.duration_s - result.duration_s) > 1 / info.fps:
        raise ProvenanceError(
            f"Painted, the film has {result.frames} frames and {result.duration_s:.3f} s instead of {info.frames} and "
            f"{info.duration_s:.3f} s: it was not used."
        )
    return Repainted(info=info, encoder=encoder, frames_painted=painted)


def container_options(source: BinaryIO, info: VideoInfo) -> dict[str, str]:
    """Options of the MP4 writer: the index first, all metadata keys, and the same bytes each time."""
    seconds_of_sound = info.duration_s * 60 if info.has_audio else 0.0
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    room = 16_384 + 64 * info.frames + int(16 * seconds_of_sound) + min(size // 256, 1 << 20)
    # Edit lists count in the time scale of the movie; its default of 1 ms would cut the end of a film of 29.97 fps.
    return {
        "moov_size": str(room),
        "movie_timescale": "90000",
        "movflags": "use_metadata_tags",
        "fflags": "+bitexact",
    }


# -- av has no types that strict checking accepts; its objects stay below this line


def _paint_all(film: Any, made: Any, encoder: str, paint: Paint, until_s: float | None) -> int:
    track = film.streams.video[0]
    for key, value in film.metadata.items():
        made.metadata[key] = value
    stream = made.add_stream(encoder, rate=track.average_rate, options=steady(encoder, _QUALITY[encoder]))
    given, context = track.codec_context, stream.codec_context
    stream.width, stream.height, stream.pix_fmt = given.width, given.height, "yuv420p"
    stream.time_base = context.time_base = track.time_base
    context.thread_count = _THREADS
    if given.sample_aspect_ratio:
        context.sample_aspect_ratio = given.sample_aspect_ratio
    for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(context, name, getattr(given, name))
    sound = {one.index: made.add_stream_from_template(one, opaque=True) for one in film.streams.audio}
    painted, size = 0, (given.width, given.height)
    for packet in film.demux(track, *film.streams.audio):
        if packet.stream.index != track.index:
            if packet.dts is not None:
                packet.stream = sound[packet.stream.index]
                made.mux(packet)
            continue
        for frame in packet.decode():
            if (frame.width, frame.height) != size or frame.rotation:
                raise MediaRejectedError(
                    "The film changes its size or is turned while it is shown: a label would not stand right.",
                    name="video",
                    code="undecodable",
                )
            if until_s is None or frame.time < until_s:
                frame = _painted(frame, paint)  # noqa: PLW2901
                painted += 1
            frame.pict_type = 0  # the encoder chooses again
            made.mux(stream.encode(frame))
    made.mux(stream.encode(None))
    return painted


def _painted(frame: VideoFrame, paint: Paint) -> VideoFrame:
    # A decoder still refers to the frame that it gave: paint on a copy.
    import av  # noqa: PLC0415  # an extra

    given = frame if frame.format.name in {"yuv420p", "yuvj420p"} else frame.reformat(format="yuv420p")
    copy = av.VideoFrame(given.width, given.height, "yuv420p")
    planes: list[NDArray[np.uint8]] = []
    for into, source in zip(copy.planes, given.planes, strict=True):
        pixels, taken = _pixels(into), _pixels(source)
        pixels[:] = taken
        planes.append(pixels)
    paint((planes[0], planes[1], planes[2]), frame.color_range == _FULL_RANGE)
    copy.pts, copy.time_base, copy.duration = frame.pts, frame.time_base, frame.duration
    for name in ("color_range", "colorspace"):
        setattr(copy, name, getattr(frame, name))
    return copy


def _pixels(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
