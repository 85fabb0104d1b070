"""Draws the frames of a camera path over one still, and encodes them.

The picture is scaled once to about 1.6 times the resolution that the window needs and split into the planes of the
film; each frame is a bilinear warp of each plane. That is smooth to less than a five-hundredth of a pixel, where cubic
kernels of OpenCV and Pillow shift the picture with the sub-pixel phase.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from fractions import Fraction
from math import ceil, sqrt
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, BinaryIO, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from vrag.backends.local.camera_path import CameraPath, Matrix
from vrag.errors import BackendError, JobCancelledError, MissingExtraError
from vrag.media.film_write import steady

try:
    import av
    import cv2
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError
except ImportError as error:
    raise MissingExtraError("Camera moves need the extra 'local'.", hint="pip install 'vrag[local]'") from error

__all__ = ["THREADS", "CameraFilm", "Still", "encode"]

Plane = NDArray[np.uint8]

_DENSITY: Final = 1.6
"""Pixels of the scaled picture a pixel of the film; whole and half numbers would lock the phases of neighbours."""
_MAX_DENSITY: Final = 2.0
"""Past two, a bilinear warp skips pixels."""
_MAX_PLANE_PX: Final = 16_384
_BLUR_STEP_PX: Final = 2.0
"""Fast frames are means of several moments of the open shutter, not further apart than this."""
_MAX_MOMENTS: Final = 16
_SHARPEN: Final = np.array([-1.0, 18.0, -1.0]) / 16
"""Gives back, once and evenly, a part of the detail that bilinear warps take; on average, not more."""
_AHEAD: Final = 4
"""Frames drawn while the encoder works."""
THREADS: Final = 4
"""Of the encoder; x264 gives other bytes for another number, so it never follows the machine."""
_KEY_FRAME_S: Final = 4.0
_BT709: Final = 1
"""Number of ITU-R BT.709 in H.273, as primaries, transfer and matrix."""
_RGB_TO_YUV: Final = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.2126, -0.7152, 0.9278], [0.7874, -0.7152, -0.0722]]
) * np.array([[219 / 255], [224 / 255 / 1.8556], [224 / 255 / 1.5748]])


@frozen(kw_only=True, eq=False)
class Still:
    """A picture as planes of a film: luma, and two of chroma at half size, each sample in the middle of four."""

    planes: tuple[Plane, ...]
    scale: tuple[float, float]
    """Pixels of luma a pixel of the picture, across and down."""

    @classmethod
    def of(cls, picture: Image.Image, path: CameraPath) -> Still:
        """Scale the picture for the windows of `path`, once."""
        windows = [_window_px(path, frame) for frame in np.linspace(0, path.frames - 1, min(path.frames, 33))]
        widest, narrowest = max(windows), min(windows)
        own = widest / path.video_px[0]
        wanted = min(_MAX_DENSITY, _DENSITY * sqrt(widest / narrowest))
        if not 0.85 * wanted <= own <= _MAX_DENSITY:
            factor = min(wanted / own, _MAX_PLANE_PX / max(picture.size))
            size = tuple(2 * max(1, round(side * factor / 2)) for side in picture.size)
            scaled = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
        else:
            scaled = picture
        scale = (scaled.width / picture.width, scaled.height / picture.height)
        shift = np.array([[16.0], [128.0], [128.0]])
        yuv = cv2.transform(np.asarray(scaled), np.hstack([_RGB_TO_YUV, shift]))
        odd_y, odd_x = yuv.shape[0] % 2, yuv.shape[1] % 2
        if odd_y or odd_x:
            yuv = cv2.copyMakeBorder(yuv, 0, odd_y, 0, odd_x, cv2.BORDER_REPLICATE)
        half = (yuv.shape[1] // 2, yuv.shape[0] // 2)
        luma, *chroma = cv2.split(yuv)
        small = [cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in chroma]
        crisp = [np.asarray(cv2.sepFilter2D(plane, -1, _SHARPEN, _SHARPEN), np.uint8) for plane in (luma, *small)]
        return cls(planes=tuple(crisp), scale=scale)


def _window_px(path: CameraPath, frame: float) -> float:
    left_top, right_top, right_bottom, left_bottom = path.corners(frame)
    across = np.hypot(*(right_top - left_top)) + np.hypot(*(right_bottom - left_bottom))
    return float(across / 2)


@frozen(kw_only=True, eq=False)
class CameraFilm:
    """Draws the frames of a film; each by itself, from any thread."""

    path: CameraPath
    still: Still

    def draw(self, number: int) -> av.VideoFrame:
        """Frame `number`, 4:2:0."""
        width, height = self.path.video_px
        frame = av.VideoFrame(width, height, "yuv420p")
        moments = self._moments(number)
        matrices = [self.path.matrix(moment) for moment in moments]
        for plane, source, into, out_of in zip(frame.planes, self.still.planes, _SITES, self._sources(), strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            if len(matrices) == 1:
                _warp(source, out_of @ matrices[0] @ into, rows)
                continue
            light = np.zeros(rows.shape, np.float32)
            for matrix in matrices:
                _warp(source, out_of @ matrix @ into, rows)
                cv2.accumulate(rows, light)
            cv2.convertScaleAbs(light, dst=rows, alpha=1 / len(matrices))
        return frame

    def _moments(self, number: int) -> list[float]:
        """The moments that frame `number` sees: one, or several while the shutter is open on a fast move."""
        last = self.path.frames - 1
        step = max(_BLUR_STEP_PX, self.path.video_px[0] / 640)
        count = min(ceil(self.path.speed(number) / 2 / step), _MAX_MOMENTS)
        if count < 2 or number in {0, last}:
            return [float(number)]
        return [min(max(number + (k + 0.5) / count / 2 - 0.25, 0.0), last) for k in range(count)]

    def _sources(self) -> tuple[Matrix, Matrix, Matrix]:
        across, down = self.still.scale
        luma = np.array([[across, 0.0, -0.5], [0.0, down, -0.5], [0.0, 0.0, 1.0]])
        chroma = np.array([[across / 2, 0.0, -0.5], [0.0, down / 2, -0.5], [0.0, 0.0, 1.0]])
        return luma, chroma, chroma


_CHROMA_SITE: Final = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
"""From a chroma sample to pixels: on the left one of its columns, between its rows, as H.264 and AV1 players expect."""
_SITES: Final = (np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]), _CHROMA_SITE, _CHROMA_SITE)


def _warp(source: Plane, matrix: Matrix, into: Plane) -> None:
    """Fill `into` with what `matrix` (from its pixel numbers to those of `source`) finds."""
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (into.shape[1], into.shape[0])
    matrix = matrix / matrix[2, 2]
    if np.abs(matrix[2, :2]).max() < 1e-12:
        cv2.warpAffine(source, matrix[:2], size, dst=into, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    else:
        cv2.warpPerspective(source, matrix, size, dst=into, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def encode(
    film: CameraFilm,
    out: BinaryIO,
    *,
    rate: Fraction,
    encoder: str,
    options: dict[str, str],
    progress: Callable[[float], None],
    stopped: Callable[[], bool],
) -> None:
    """Write `film` to `out` as an MP4 whose index comes first; it leaves no thread behind, however it ends.

    Raises:
        JobCancelledError: `stopped()` turned true.
        BackendError: The encoder failed, or this build of PyAV has none of that name.
    """
    try:
        _write(film, out, rate=rate, encoder=encoder, options=options, progress=progress, stopped=stopped)
    except UnknownCodecError as error:
        raise BackendError(
            f"This build of PyAV has no encoder {encoder}.", backend="local", operation="encode", hint="pip install av"
        ) from error
    except FFmpegError as error:
        raise BackendError(f"{encoder} failed: {error.strerror}.", backend="local", operation="encode") from error


def _write(
    film: CameraFilm,
    out: BinaryIO,
    *,
    rate: Fraction,
    encoder: str,
    options: dict[str, str],
    progress: Callable[[float], None],
    stopped: Callable[[], bool],
) -> None:
    frames = film.path.frames
    # Room for the index before the pictures, so that a player can start at once; a second pass would need a path.
    layout = {"moov_size": str(4096 + 48 * frames), "fflags": "+bitexact"}
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its banner to stderr, and listens to nothing else
    with av.open(out, "w", format="mp4", options=layout) as container:
        stream: Any = container.add_stream(encoder, rate=rate, options=steady(encoder, options))
        stream.width, stream.height = film.path.video_px
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.gop_size = max(1, round(rate * _KEY_FRAME_S))
        context.thread_count = THREADS
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = 1
        with closing(_drawn_ahead(film.draw, frames)) as drawn:
            for number, frame in enumerate(drawn):
                if stopped():
                    raise JobCancelledError("The render was cancelled.", job_id="")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
                progress(0.99 * (number + 1) / frames)
        container.mux(stream.encode(None))


def _drawn_ahead(draw: Callable[[int], av.VideoFrame], frames: int) -> Generator[av.VideoFrame, None, None]:
    """The frames in order, drawn by a thread of their own, at most `_AHEAD` of them waiting."""
    ready: SimpleQueue[av.VideoFrame | BaseException] = SimpleQueue()
    room, over = Semaphore(_AHEAD), Event()

    def work() -> None:
        try:
            for number in range(frames):
                room.acquire()
                if over.is_set():
                    return
                ready.put(draw(number))
        except BaseException as error:  # noqa: BLE001  # it is raised where the frames are taken
            ready.put(error)

    thread = Thread(target=work, name="vrag-camera")
    thread.start()
    try:
        for _ in range(frames):
            frame = ready.get()
            if isinstance(frame, BaseException):
                raise frame
            yield frame
            room.release()
    finally:
        over.set()
        room.release()
        thread.join()
