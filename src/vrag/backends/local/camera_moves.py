"""A camera-move film from one still: cut a moving window out of the picture, frame by frame, and encode it.

Nothing is drawn, guessed or learnt. The picture is scaled once to about 1.6 times the resolution that the window needs
and split into the planes of the film; each frame is a bilinear warp of each plane. That is smooth to less than a
five-hundredth of a pixel, where cubic kernels of OpenCV and Pillow shift the picture with the sub-pixel phase.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from math import ceil, sqrt
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, BinaryIO, Final

import numpy as np
import PIL
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vrag.backends.local.camera_path import MOTIONS, CameraPath, Easing, Matrix, camera_path
from vrag.errors import (
    BackendError,
    ImageRejectedError,
    JobCancelledError,
    MissingExtraError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.interfaces import VideoRenderer
from vrag.media.image import load_image
from vrag.media.ref import MediaRef, OpenMedia
from vrag.prompts.camera import contradictory
from vrag.values.canonical import JSON
from vrag.values.requests import Estimate, ImageRule, ModelRef, Problem, VideoCapabilities, VideoRequest

try:
    import av
    import cv2
except ImportError as error:
    raise MissingExtraError("Camera moves need the extra 'local'.", hint="pip install 'vrag[local]'") from error

__all__ = ["CameraMoveRenderer", "frame_rate"]

Plane = NDArray[np.uint8]

_VERSION: Final = "camera-moves/1"
"""The picture that a request gives changes with this number only."""
_MIN_SIDE_PX: Final = 16
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
_THREADS: Final = 2
"""Of the encoder; x264 gives other bytes for another number, so it never follows the machine."""
_KEY_FRAME_S: Final = 4.0
_BT709: Final = 1
"""Number of ITU-R BT.709 in H.273, as primaries, transfer and matrix."""
_RGB_TO_YUV: Final = (
    np.array([[0.2126, 0.7152, 0.0722], [-0.2126, -0.7152, 0.9278], [0.7874, -0.7152, -0.0722]])
    * np.array([[219 / 255], [224 / 255 / 1.8556], [224 / 255 / 1.5748]])
)
_ENCODERS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "20", "x264-params": "zones=0,0,q=18"}),
    "av1": (
        "libsvtav1",
        {"preset": "9", "crf": "30", "svtav1-params": f"lp={_THREADS}:startup-mg-size=2:startup-qp-offset=-10"},
    ),
}
"""Encoder and options of each codec. Both spend more on the first frame: it must show the picture as it is."""
_MIN_AV1_SIDE_PX: Final = 64
_CAPABILITIES: Final = VideoCapabilities(
    roles=frozenset({"start_frame"}),
    required_roles=frozenset({"start_frame"}),
    max_duration_s=600.0,
    codecs=tuple(_ENCODERS),
    reads_prompt=False,
    moves=frozenset(move for move, motion in MOTIONS.items() if motion.support != "unmet"),
    fields=frozenset({"seed"}),
    image=ImageRule(min_side_px=_MIN_SIDE_PX, max_side_px=_MAX_PLANE_PX, scale=2.0),
    origin="algorithm",
)


class CameraMoveRenderer(VideoRenderer):
    """Moves a camera over one approved still; free, in this process, and the same bytes each time.

    Frame 0 is exactly the crop that the report names. Colours are BT.709 in limited range, and tagged so. Frames in
    which the picture moves fast are blurred as by a shutter that is open half the time.

    Needs the extra `local`. Its PyAV wheel carries GPL encoders; `codec="av1"` uses SVT-AV1 (BSD) instead of x264.

    Args:
        easing: `ease` starts and stops softly; `linear` keeps one speed.
        amount: Scales every move, 0.05 to 2; 1 is the amount that the documentation names.
    """

    __slots__ = ("_amount", "_easing")

    def __init__(self, *, easing: Easing = "ease", amount: float = 1.0) -> None:
        if easing not in {"ease", "linear"}:
            raise UsageError(f"The easing is 'ease' or 'linear', not '{easing}'.")
        if not 0.05 <= amount <= 2.0:
            raise UsageError(f"The amount is 0.05 to 2, not {amount}.")
        self._easing: Easing = easing
        self._amount = float(amount)

    @property
    @override
    def model(self) -> ModelRef:
        options = "" if (self._easing, self._amount) == ("ease", 1.0) else f";{self._easing};amount={self._amount:g}"
        return ModelRef(provider="local", id=_VERSION + options)

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        return _CAPABILITIES

    @override
    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        return tuple([*_refusals(request), *_unmet(request)])

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        return Estimate(usd_micros=0, video_s=request.duration_s, basis="rendered on this machine")

    @override
    def render(
        self,
        request: VideoRequest,
        media: OpenMedia,
        out: BinaryIO,
        progress: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> JSON:
        refused = list(_refusals(request))
        if refused:
            reasons = " ".join(problem.message for problem in refused)
            raise UnsupportedRequestError(f"The camera-move renderer cannot make this video: {reasons}", problems=refused)
        progress(0.0)
        shot, rate = request.shots[0], frame_rate(request.fps)
        picture = _picture(shot.inputs[0].media, media, request)
        seed = 0 if request.seed is None else request.seed
        path = camera_path(
            shot.camera,
            frames=max(1, round(shot.duration_s * rate)),
            duration_s=shot.duration_s,
            picture_px=picture.size,
            video_px=(request.width_px, request.height_px),
            easing=self._easing,
            amount=self._amount,
            seed=seed,
        )
        film = _Film(path=path, still=_Still.of(picture, path))
        name, options = _ENCODERS[request.codec]
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its banner to stderr, and listens to nothing else
        try:
            _encode(film, out, rate=rate, encoder=name, options=options, progress=progress, stopped=stopped)
        except av.error.FFmpegError as error:
            raise BackendError(f"{name} failed: {error.strerror}.", backend="local", operation="encode") from error
        progress(1.0)
        return {
            "start_crop_px": _box(path, 0),
            "end_crop_px": _box(path, path.frames - 1),
            "end_corners_px": [[round(float(x), 3), round(float(y), 3)] for x, y in path.corners(path.frames - 1)],
            "moves": [{"move": move.value, "support": MOTIONS[move].support} for move in shot.camera],
            "easing": self._easing,
            "amount": self._amount,
            "seed": seed,
            "frames": path.frames,
            "rate": f"{rate.numerator}/{rate.denominator}",
            "colour": "BT.709, limited range, 4:2:0",
            "encoder": {"name": name, **options},
            "versions": {
                "pyav": av.__version__,
                "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
                "opencv": cv2.__version__,
                "pillow": PIL.__version__,
            },
        }


def frame_rate(fps: float) -> Fraction:
    """The exact rate behind a rounded number: 23.976, 29.97 and 59.94 are n x 1000/1001, others are near fractions."""
    for whole in (24, 30, 48, 60, 120):
        if abs(fps - whole / 1.001) < 0.004:
            return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def _refusals(request: VideoRequest) -> Iterator[Problem]:
    def refused(field: str, message: str) -> Problem:
        return Problem(kind="refused", field=field, message=message)

    able = _CAPABILITIES
    lowest = _MIN_AV1_SIDE_PX if request.codec == "av1" else _MIN_SIDE_PX
    for field, side in (("width_px", request.width_px), ("height_px", request.height_px)):
        if side % 2 or not lowest <= side <= able.max_side_px:
            near = min(max(side - side % 2, lowest), able.max_side_px)
            yield refused(field, f"{side} px: a side is even and {lowest} to {able.max_side_px} px; take {near}.")
    if not 1.0 <= request.fps <= 120.0:
        yield refused("fps", f"{request.fps:g} frames a second: it makes 1 to 120.")
    if request.codec not in able.codecs:
        yield refused("codec", f"'{request.codec}': it encodes {' or '.join(able.codecs)}.")
    if request.seed is not None and request.seed < 0:
        yield refused("seed", f"{request.seed}: a seed is 0 or more.")
    if len(request.shots) != 1:
        yield refused("shots", f"{len(request.shots)} shots: it makes one; ask for a video a shot.")
        return
    shot = request.shots[0]
    if not able.min_duration_s <= shot.duration_s <= able.max_duration_s:
        yield refused(
            "shots[0].duration_s", f"{shot.duration_s:g} s: it makes {able.min_duration_s:g} to {able.max_duration_s:g} s."
        )
    if not any(given.role == "start_frame" for given in shot.inputs):
        yield refused(
            "shots[0].inputs",
            "It moves a camera over a picture and makes none from text: give an input with the role 'start_frame',"
            " or take a text-to-video model.",
        )
    for number, given in enumerate(shot.inputs):
        field, ref = f"shots[0].inputs[{number}]", given.media
        if given.role not in able.roles:
            yield refused(field, f"'{given.role}': the only role it takes is 'start_frame'.")
        elif number and given.role in {other.role for other in shot.inputs[:number]}:
            yield refused(field, f"A second '{given.role}': it takes one.")
        elif ref.media_type not in able.image.media_types:
            yield refused(field, f"{ref.media_type}: it takes {' or '.join(able.image.media_types)}.")
        elif ref.width_px and ref.height_px:
            message = _misfit((ref.width_px, ref.height_px), request)
            if message:
                yield refused(field, message)


def _misfit(picture_px: tuple[int, int], request: VideoRequest) -> str | None:
    """Why a picture of this size cannot be shown in this video, or None."""
    width, height = picture_px
    able = _CAPABILITIES.image
    if not able.min_side_px <= min(picture_px) <= max(picture_px) <= able.max_side_px:
        return f"A picture of {width}x{height} px: sides are {able.min_side_px} to {able.max_side_px} px."
    fitting = height * request.width_px / request.height_px
    if abs(width - fitting) > max(0.01 * fitting, 1.0):
        return (
            f"A picture of {width}x{height} px in a video of {request.width_px}x{request.height_px}: the shapes differ,"
            " and nothing is squashed; crop the picture to the shape of the video first (vrag.media.image.conform)."
        )
    return None


def _unmet(request: VideoRequest) -> Iterator[Problem]:
    def unmet(field: str, message: str) -> Problem:
        return Problem(kind="unmet", field=field, message=message)

    reads_nothing = "It moves a camera over the picture and changes nothing in it."
    if request.negative_prompt is not None:
        yield unmet("negative_prompt", f"'{request.negative_prompt}': {reads_nothing}")
    for name in ("style", "mood", "lighting"):
        wish = getattr(request.look, name)
        if wish is not None:
            yield unmet(f"look.{name}", f"'{wish}': {reads_nothing}")
    for number, shot in enumerate(request.shots):
        field = f"shots[{number}].camera"
        motions = [(move, MOTIONS[move]) for move in shot.camera]
        moving = any(move in _CAPABILITIES.moves and _moves(move) for move in shot.camera)
        for move, motion in motions:
            if motion.support == "unmet":
                yield unmet(field, f"'{move}': {motion.how}")
            elif motion.speed is not None and not moving:
                yield unmet(field, f"'{move}': no other move is asked whose speed it could change.")
        # Moves that take turns never contradict; only what holds for the whole shot meets the others at once.
        for one, other in contradictory(shot.camera):
            if MOTIONS[one].is_manner or MOTIONS[other].is_manner:
                yield unmet(field, f"'{one}' and '{other}' contradict each other.")


def _moves(move: Any) -> bool:
    motion = MOTIONS[move]
    return motion.speed is None and motion != MOTIONS[type(move).STATIC_SHOT]


def _picture(ref: MediaRef, media: OpenMedia, request: VideoRequest) -> Image.Image:
    """The start frame, decoded and of the video's shape."""
    name = f"start frame {ref.sha256[:12]}"
    with media(ref) as stream:
        loaded = load_image(stream.read(), name)
    message = _misfit((loaded.width_px, loaded.height_px), request)
    if message:
        raise ImageRejectedError(message, name=name, code="wrong_shape")
    return loaded.pixels


def _box(path: CameraPath, frame: int) -> list[float]:
    corners = path.corners(frame)
    return [round(float(value), 3) for value in (*corners.min(axis=0), *corners.max(axis=0))]


@frozen(kw_only=True, eq=False)
class _Still:
    """The picture as planes of the film (luma; two of chroma at half size, each sample in the middle of four)."""

    planes: tuple[Plane, Plane, Plane]
    scale: tuple[float, float]
    """Pixels of luma a pixel of the picture, across and down."""

    @classmethod
    def of(cls, picture: Image.Image, path: CameraPath) -> _Still:
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
        crisp = [cv2.sepFilter2D(plane, -1, _SHARPEN, _SHARPEN) for plane in (luma, *small)]
        return cls(planes=(crisp[0], crisp[1], crisp[2]), scale=scale)


def _window_px(path: CameraPath, frame: float) -> float:
    left_top, right_top, right_bottom, left_bottom = path.corners(frame)
    across = np.hypot(*(right_top - left_top)) + np.hypot(*(right_bottom - left_bottom))
    return float(across / 2)


@frozen(kw_only=True, eq=False)
class _Film:
    """Draws the frames of a film; each by itself, from any thread."""

    path: CameraPath
    still: _Still

    def draw(self, number: int) -> av.VideoFrame:
        """Frame `number`, 4:2:0."""
        width, height = self.path.video_px
        frame = av.VideoFrame(width, height, "yuv420p")
        moments = self._moments(number)
        matrices = [self.path.matrix(moment) for moment in moments]
        for plane, source, into, out_of in zip(frame.planes, self.still.planes, _SITES, self._sources(), strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]  # type: ignore[arg-type]
            if len(matrices) == 1:
                rows[:] = _warp(source, out_of @ matrices[0] @ into, (plane.width, plane.height))
                continue
            light = np.zeros(rows.shape, np.float32)
            for matrix in matrices:
                cv2.accumulate(_warp(source, out_of @ matrix @ into, (plane.width, plane.height)), light)
            rows[:] = cv2.convertScaleAbs(light, alpha=1 / len(matrices))
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


def _warp(source: Plane, matrix: Matrix, size_px: tuple[int, int]) -> Plane:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = matrix / matrix[2, 2]
    if np.abs(matrix[2, :2]).max() < 1e-12:
        return cv2.warpAffine(source, matrix[:2], size_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    return cv2.warpPerspective(source, matrix, size_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _encode(
    film: _Film,
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
    with av.open(out, "w", format="mp4", options=layout) as container:
        stream: Any = container.add_stream(encoder, rate=rate, options=options)
        stream.width, stream.height = film.path.video_px
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.gop_size = max(1, round(rate * _KEY_FRAME_S))
        context.thread_count = _THREADS
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


def _drawn_ahead(draw: Callable[[int], av.VideoFrame], frames: int) -> Iterator[av.VideoFrame]:
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
