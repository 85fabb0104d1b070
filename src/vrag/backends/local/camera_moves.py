"""A camera-move film from one still: cut a moving window out of the picture, frame by frame, and encode it.

Nothing is drawn, guessed or learnt. `camera_path` says where the window is, `camera_film` cuts and encodes; this is what
the seam adds: what is refused, what is unmet, and what is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import BinaryIO, Final

import PIL
from PIL import Image
from typing_extensions import override

from vrag.backends.local.camera_path import MOTIONS, CameraPath, Easing, camera_path
from vrag.errors import ImageRejectedError, MissingExtraError, UnsupportedRequestError, UsageError
from vrag.interfaces import VideoRenderer
from vrag.media.image import load_image
from vrag.media.ref import MediaRef, OpenMedia
from vrag.prompts.camera import CameraMove, contradictory
from vrag.values.canonical import JSON
from vrag.values.requests import Estimate, ImageRule, ModelRef, Problem, VideoCapabilities, VideoRequest

try:
    import av
    import cv2

    from vrag.backends.local.camera_film import THREADS, CameraFilm, Still, encode
except ImportError as error:
    raise MissingExtraError("Camera moves need the extra 'local'.", hint="pip install 'vrag[local]'") from error

__all__ = ["CameraMoveRenderer", "frame_rate"]

_VERSION: Final = "camera-moves/1"
"""The picture that a request gives changes with this number only."""
_MIN_SIDE_PX: Final = 16
_MAX_SIDE_PX: Final = 16_384
_ENCODERS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "20", "x264-params": "partitions=i8x8,i4x4:zones=0,0,q=18"}),
    "av1": (
        "libsvtav1",
        {"preset": "9", "crf": "30", "svtav1-params": f"lp={THREADS}:startup-mg-size=2:startup-qp-offset=-8"},
    ),
}
"""Encoder and options of each codec. Both spend more on the first frame: it must show the picture as it is. The parts
of a still all move together, so x264 need not look for small blocks that move by themselves: 12 % less work."""
_MIN_AV1_SIDE_PX: Final = 64
_CAPABILITIES: Final = VideoCapabilities(
    roles=frozenset({"start_frame"}),
    required_roles=frozenset({"start_frame"}),
    max_duration_s=600.0,
    codecs=tuple(_ENCODERS),
    reads_prompt=False,
    moves=frozenset(move for move, motion in MOTIONS.items() if motion.support != "unmet"),
    fields=frozenset({"seed"}),
    image=ImageRule(min_side_px=_MIN_SIDE_PX, max_side_px=_MAX_SIDE_PX, scale=2.0),
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
        return (*_refusals(request), *_unmet(request))

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
            raise UnsupportedRequestError(
                f"The camera-move renderer cannot make this video: {reasons}", problems=refused
            )
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
        name, options = _ENCODERS[request.codec]
        film = CameraFilm(path=path, still=Still.of(picture, path))
        encode(film, out, rate=rate, encoder=name, options=options, progress=progress, stopped=stopped)
        progress(1.0)
        return {
            "start_crop_px": _box(path, 0),
            "end_crop_px": _box(path, path.frames - 1),
            "end_corners_px": [
                [round(abs(float(x)), 3), round(abs(float(y)), 3)] for x, y in path.corners(path.frames - 1)
            ],
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
            "shots[0].duration_s",
            f"{shot.duration_s:g} s: it makes {able.min_duration_s:g} to {able.max_duration_s:g} s.",
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
        moving = any(_moves(move) for move in shot.camera)
        for move, motion in motions:
            if motion.support == "unmet":
                yield unmet(field, f"'{move}': {motion.how}")
            elif motion.speed is not None and not moving:
                yield unmet(field, f"'{move}': no other move is asked whose speed it could change.")
        # Moves that take turns never contradict; only what holds for the whole shot meets the others at once.
        for one, other in contradictory(shot.camera):
            if MOTIONS[one].is_manner or MOTIONS[other].is_manner:
                yield unmet(field, f"'{one}' and '{other}' contradict each other.")


def _moves(move: CameraMove) -> bool:
    motion = MOTIONS[move]
    return motion.support != "unmet" and motion.speed is None and move is not CameraMove.STATIC_SHOT


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
    """Left, top, right and bottom of what a frame shows, in pixels of the picture."""
    corners = path.corners(frame)
    return [round(abs(float(value)), 3) for value in (*corners.min(axis=0), *corners.max(axis=0))]
