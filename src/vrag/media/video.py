"""Films: what they are, their frames, and whether they are whole.

Streams are open, seekable binary files. Each function reads from their start, leaves their position anywhere and never
closes them. Only file objects reach the demuxer, and only as MP4: given a name, FFmpeg would take `http:x.mp4` for an
address, and given a choice of formats it would try playlists.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from vrag.errors import MediaRejectedError, MissingExtraError, UsageError
from vrag.media.names import shown

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["VideoInfo", "check_video", "iter_frames", "probe_video", "read_frame"]

_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})
_MAX_SIDE_PX = 8192
_MAX_FRAMES = 120 * 3600
_HD_HEIGHT_PX = 720


@frozen(kw_only=True)
class VideoInfo:
    """What a film is."""

    width_px: int
    height_px: int
    fps: float
    """Mean rate."""
    frames: int
    """As counted in the file, not as announced."""
    duration_s: float
    """Of the picture track."""
    codec: str
    """`h264`, `hevc`, `av1`, `vp9` or `mpeg4`."""
    has_audio: bool


def probe_video(stream: BinaryIO, name: str = "video") -> VideoInfo:
    """What the film is, by its headers and the list of its packets; no frame is decoded.

    Raises:
        MediaRejectedError: `code` is `empty`, `not_a_video`, `truncated`, `no_video_stream`, `unsupported_codec`,
            `too_large` or `undecodable`. Whatever the bytes are, nothing else is raised.
    """
    with _opened(stream, name) as container:
        return _info(container, name)


def check_video(
    stream: BinaryIO,
    name: str,
    *,
    width_px: int | None = None,
    height_px: int | None = None,
    duration_s: float | None = None,
) -> VideoInfo:
    """Make sure that a film is whole and what was asked for: its first and last frames are decoded.

    Args:
        stream: The film.
        name: How to call it in errors.
        width_px: What it must be, if given.
        height_px: What it must be, if given.
        duration_s: What it must be to one frame, if given.

    Raises:
        MediaRejectedError: As `probe_video`; and `wrong_size` or `wrong_duration`.
    """
    with _opened(stream, name) as container:
        info = _info(container, name)
        found = (info.width_px, info.height_px)
        asked = (info.width_px if width_px is None else width_px, info.height_px if height_px is None else height_px)
        if found != asked:
            raise _rejected(
                name,
                "wrong_size",
                f"has {found[0]} x {found[1]} pixels; {asked[0]} x {asked[1]} were asked for.",
                f"{found[0]}x{found[1]}",
            )
        if duration_s is not None and abs(info.duration_s - duration_s) > 1.001 / info.fps:
            raise _rejected(
                name,
                "wrong_duration",
                f"lasts {info.duration_s:.3f} s; {duration_s:g} s were asked for.",
                f"{info.duration_s:.3f}",
            )
        with _decoding(name):
            container.seek(0)
        if next(_decode(container, name), None) is None:
            raise _rejected(name, "truncated", "lacks its first frame.")
        _last(container, name)
    return info


def read_frame(stream: BinaryIO, index: int, name: str = "video") -> Image.Image:
    """One frame, RGB; 0 is the first in order of showing, -1 the last.

    Frames before it are decoded too (seeking by time is exact in no film of varying rate), except for -1.

    Raises:
        UsageError: There is no such frame.
        MediaRejectedError: As `check_video`.
    """
    if index < -1:
        raise UsageError(f"There is no frame {index}; frames count from 0, and -1 is the last.")
    with _opened(stream, name) as container:
        frame = _last(container, name) if index == -1 else next(islice(_decode(container, name), index, None), None)
        if frame is None:
            raise UsageError(f"'{shown(name)}' has no frame {index}.")
        with _decoding(name):
            return Image.fromarray(_rgb(frame))


def iter_frames(stream: BinaryIO, name: str = "video") -> Iterator[NDArray[np.uint8]]:
    """Every frame in order of showing, each an array of its own: height x width x 3, RGB, uint8.

    The stream must stay open, and unread by others, until the iterator ends or is closed.

    Raises:
        MediaRejectedError: As `check_video`; frames before the damage have been given out by then.
    """
    with _opened(stream, name) as container:
        for frame in _decode(container, name):
            with _decoding(name):
                pixels = _rgb(frame)
            yield pixels


# -- av has no types that strict checking accepts; its objects stay below this line


def _rejected(name: str, code: str, what: str, detail: str = "") -> MediaRejectedError:
    return MediaRejectedError(f"'{shown(name)}' {what}", name=name, code=code, detail=detail)


@contextmanager
def _decoding(name: str, code: str = "undecodable", what: str = "is damaged or cut off.") -> Iterator[None]:
    try:
        yield
    except MediaRejectedError:
        raise
    # FFmpeg's errors come as many types; their text, which may quote the file, is not passed on.
    except Exception as error:  # noqa: BLE001
        raise _rejected(name, code, what, type(error).__name__) from None


@contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[Any]:
    try:
        import av  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("Reading video needs the extra 'local'.", hint="pip install 'vrag[local]'") from None
    stream.seek(0, os.SEEK_END)
    if stream.tell() == 0:
        raise _rejected(name, "empty", "is empty.")
    stream.seek(0)
    starts_as_mp4 = stream.read(12)[4:8] in {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"}
    stream.seek(0)
    if not starts_as_mp4:
        raise _rejected(name, "not_a_video", "is not an MP4 file.")
    with _decoding(name, "truncated", "begins as an MP4 file, but has no usable index: it is cut off or damaged."):
        container: Any = av.open(stream, mode="r", format="mp4")
    with container:
        if not container.streams.video:
            raise _rejected(name, "no_video_stream", "holds no picture track.")
        track = container.streams.video[0]
        with _decoding(name):
            codec = track.codec_context.codec.canonical_name
            width, height = track.codec_context.width, track.codec_context.height
        if codec not in _CODECS:
            raise _rejected(
                name, "unsupported_codec", f"has an unexpected codec; {', '.join(sorted(_CODECS))} are read."
            )
        if not (0 < width <= _MAX_SIDE_PX and 0 < height <= _MAX_SIDE_PX):
            raise _rejected(
                name,
                "too_large",
                f"has {width} x {height} pixels; a side has 1 to {_MAX_SIDE_PX}.",
                f"{width}x{height}",
            )
        # The stream inside may announce another size than the header: the decoder itself must refuse.
        track.codec_context.options = {"max_pixels": str(_MAX_SIDE_PX * _MAX_SIDE_PX)}
        yield container


def _info(container: Any, name: str) -> VideoInfo:
    track = container.streams.video[0]
    with _decoding(name):
        frames = 0
        for packet in container.demux(track):
            if packet.size == 0:
                continue
            frames += 1
            if frames > _MAX_FRAMES:
                raise _rejected(name, "too_large", f"has over {_MAX_FRAMES} frames.")
        if frames < track.frames or frames == 0:
            raise _rejected(
                name, "truncated", f"announces {track.frames} frames and holds {frames}.", f"{frames} of {track.frames}"
            )
        duration_s = float(track.duration * track.time_base) if track.duration else container.duration / 1_000_000
        rate = float(track.average_rate) if track.average_rate else frames / duration_s
        if not (duration_s > 0 and rate > 0):
            raise _rejected(name, "undecodable", "has no length.")
        return VideoInfo(
            width_px=track.codec_context.width,
            height_px=track.codec_context.height,
            fps=rate,
            frames=frames,
            duration_s=duration_s,
            codec=track.codec_context.codec.canonical_name,
            has_audio=bool(container.streams.audio),
        )


def _decode(container: Any, name: str) -> Iterator[VideoFrame]:
    """Frames from the current position on, each of the size that the header tells."""
    track = container.streams.video[0]
    size = (track.codec_context.width, track.codec_context.height)
    frames = container.decode(track)
    for _ in range(_MAX_FRAMES):
        with _decoding(name):
            frame = next(frames, None)
        if frame is None:
            return
        if (frame.width, frame.height) != size:
            raise _rejected(name, "undecodable", "changes its size in the middle.")
        yield frame
    raise _rejected(name, "too_large", f"has over {_MAX_FRAMES} frames.")


def _last(container: Any, name: str) -> VideoFrame:
    track = container.streams.video[0]
    with _decoding(name):
        end = (track.start_time or 0) + (track.duration or 0)
        container.seek(end, stream=track, backward=True)
    last = deque(_decode(container, name), maxlen=1)
    if not last:
        raise _rejected(name, "truncated", "lacks its last frame.")
    return last[0]


def _rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    # Files that do not say which matrix they use mean BT.709 from HD on, as players take it; swscale would take BT.601.
    unsaid = frame.colorspace == 2
    matrix = "ITU709" if unsaid and frame.height >= _HD_HEIGHT_PX else None
    return np.asarray(frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray(), np.uint8)
