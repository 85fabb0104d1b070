"""Small films that play: the requested size, rate and length, and the start frame first."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from vrag.errors import MissingExtraError
from vrag.values.requests import VideoRequest

__all__ = ["Film", "make_film", "probe_film"]


@frozen(kw_only=True)
class Film:
    """What a decoder says of a film, after decoding every frame."""

    width_px: int
    height_px: int
    fps: float
    frame_count: int
    codec: str
    first_frame: NDArray[np.uint8]
    """RGB, height x width x 3."""

    @property
    def duration_s(self) -> float:
        """Frames over rate."""
        return self.frame_count / self.fps


def make_film(
    request: VideoRequest,
    pictures: Mapping[int, bytes],
    out: BinaryIO,
    on_frame: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write an MP4 to `out`; the same request and pictures give the same bytes.

    Each shot stands still on its start frame, or on a colour that comes from its prompt; a bar along the lower edge
    grows from nothing to the full width over the film, so that frames differ and the first one is the picture.

    Args:
        request: Size, rate, lengths and prompts.
        pictures: Encoded start frames, by the index of their shot.
        out: A seekable file, empty.
        on_frame: Called before each frame with how many are done and how many there are; it may raise to stop.

    Returns:
        The number of frames.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    try:
        from fractions import Fraction  # noqa: PLC0415  # beside the library that needs it

        import av  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError("Fake films need the extra 'testing'.", hint="pip install 'vrag[testing]'") from error
    ends = np.cumsum([shot.duration_s for shot in request.shots])
    total = max(1, round(float(ends[-1]) * request.fps))
    with av.open(out, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(request.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = request.width_px, request.height_px, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "12", "threads": "1", "flags": "+bitexact"}
        shown, still = -1, np.zeros((0, 0, 3), np.uint8)
        for index in range(total):
            on_frame(index, total)
            shot = min(int(np.searchsorted(ends, index / request.fps, side="right")), len(ends) - 1)
            if shot != shown:
                shown, still = shot, _still(request, shot, pictures.get(shot))
            pixels = still.copy()
            height_px = max(2, request.height_px // 16)
            pixels[-height_px:, : round(request.width_px * index / total)] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return total


def _still(request: VideoRequest, shot: int, picture: bytes | None) -> NDArray[np.uint8]:
    size = request.width_px, request.height_px
    if picture is None:
        red, green, blue = hashlib.sha256(request.shots[shot].prompt.encode()).digest()[:3]
        return np.asarray(Image.new("RGB", size, (red, green, blue)))
    with Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def probe_film(data: bytes) -> Film:
    """Decode a whole film.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            "Reading films needs the extra 'testing'.", hint="pip install 'vrag[testing]'"
        ) from error
    with av.open(io.BytesIO(data), "r") as container:
        stream: Any = container.streams.video[0]
        first, count = np.zeros((0, 0, 3), np.uint8), 0
        for frame in container.decode(stream):
            if count == 0:
                first = frame.to_ndarray(format="rgb24")
            count += 1
        return Film(
            width_px=stream.width,
            height_px=stream.height,
            fps=float(stream.average_rate),
            frame_count=count,
            codec=stream.codec_context.name,
            first_frame=first,
        )
