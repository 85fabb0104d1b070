"""Requests: what a model is asked, independent of the model; and what a model says that it can do."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators
from typing_extensions import override

from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.values.canonical import JSON, digest_json, to_json

__all__ = [
    "CaptionResult",
    "EditCapabilities",
    "EditOperation",
    "EditRequest",
    "EditResult",
    "Estimate",
    "ImageRule",
    "Input",
    "Look",
    "ModelRef",
    "Problem",
    "Shot",
    "VideoCapabilities",
    "VideoRequest",
    "purchase_id",
]


@frozen(kw_only=True)
class ModelRef:
    """Which model, where and for whose account."""

    provider: str
    """`local`, `aws-bedrock`, or the name of a third party's package."""
    id: str
    """The provider's model id; with its version."""
    region: str | None = None
    account: str | None = None
    """An alias of the caller's, never credentials."""

    @override
    def __str__(self) -> str:
        return f"{self.provider}:{self.id}" + (f" in {self.region}" if self.region else "")


@frozen(kw_only=True)
class Problem:
    """One thing about a request that a model will not do."""

    kind: Literal["refused", "unmet"]
    """`refused`: the request is not sent. `unmet`: it is sent, and the record lists this."""
    field: str
    """What asked for it: `shots[0].camera`, `negative_prompt`, `shots[1].inputs[0]` …"""
    message: str
    """The value, what is allowed, the next step."""


@frozen(kw_only=True)
class Estimate:
    """What a call would cost before it is made."""

    usd_micros: int | None
    """Integer micro-USD (1 USD = 1 000 000); None is "not known", which is never zero."""
    video_s: float = 0.0
    """Seconds of video that it makes."""
    basis: str = ""
    """Where the price comes from, with its date."""


@frozen(kw_only=True)
class ImageRule:
    """What pictures a model takes as an input."""

    exact_size: bool = False
    """The picture must have exactly the size of the video."""
    min_side_px: int = 1
    max_side_px: int = 65_535
    media_types: tuple[str, ...] = ("image/jpeg", "image/png")
    scale: float = 1.0
    """Best size of the picture relative to the video's; above 1 the model looks around inside the picture."""


@frozen(kw_only=True)
class VideoCapabilities:
    """What a video model can be asked. Plans are checked against it before anything is sent."""

    roles: frozenset[str]
    """Input roles it takes: `start_frame`, `end_frame` …"""
    required_roles: frozenset[str] = frozenset()
    """Roles that each shot must have; a model without text-to-video requires `start_frame`."""
    max_shots: int = 1
    durations_s: tuple[float, ...] | None = None
    """The lengths of a shot that it makes; None is any within `min_duration_s`..`max_duration_s`."""
    min_duration_s: float = 0.1
    max_duration_s: float = 3600.0
    sizes_px: tuple[tuple[int, int], ...] | None = None
    """(width, height) pairs; None is any even size up to `max_side_px`."""
    max_side_px: int = 8192
    rates_fps: tuple[float, ...] | None = None
    """Frame rates; None is any up to 120."""
    codecs: tuple[str, ...] = ("h264",)
    reads_prompt: bool = True
    """False for a model that only performs typed camera moves: other words of the prompt are `unmet`."""
    max_prompt_chars: int | None = None
    moves: frozenset[CameraMove] | None = None
    """Typed moves that it performs; None: it reads them as words of the prompt."""
    fields: frozenset[str] = frozenset()
    """Which of `seed`, `negative_prompt`, `style`, `mood`, `lighting` have a place of their own in its request."""
    languages: tuple[str, ...] | None = None
    """BCP 47 tags of the prompt languages it is documented for; None is any."""
    image: ImageRule = ImageRule()
    origin: Literal["trained_model", "model_over_media", "algorithm"] = "trained_model"
    """What makes the pixels; provenance labels follow it."""


@frozen(kw_only=True)
class Input:
    """One media input of a shot and what it is for."""

    role: str
    """`start_frame`, `end_frame`; later style, motion, audio, depth, mesh."""
    media: MediaRef


@frozen(kw_only=True)
class Look:
    """How it should look, apart from what it shows. A model without a place for it gets it as words, or it is unmet."""

    style: str | None = None
    mood: str | None = None
    lighting: str | None = None


@frozen(kw_only=True)
class Shot:
    """One uninterrupted piece of film."""

    prompt: str
    """The final text, as it is sent."""
    inputs: tuple[Input, ...] = ()
    camera: tuple[CameraMove, ...] = ()
    """Typed moves, performed one after the other in equal parts; two that do not contradict may be read from a prompt."""
    duration_s: float = field(default=6.0, validator=validators.gt(0))


@frozen(kw_only=True)
class VideoRequest:
    """What a video model is asked; media by ref, never bytes."""

    shots: tuple[Shot, ...] = field(validator=validators.min_len(1))
    width_px: int = field(default=1280, validator=validators.ge(2))
    height_px: int = field(default=720, validator=validators.ge(2))
    fps: float = field(default=24.0, validator=validators.gt(0))
    seed: int | None = None
    negative_prompt: str | None = None
    look: Look = Look()
    codec: str = "h264"

    @property
    def duration_s(self) -> float:
        """Length of all shots together."""
        return sum(shot.duration_s for shot in self.shots)


def purchase_id(request: VideoRequest | EditRequest, model: ModelRef, *, scope: str, take: int = 1) -> str:
    """The identity of a purchase: the same things asked of the same model are one purchase.

    `scope` is the secret id of a workspace, so that nobody can guess a prompt by hashing candidates.
    """
    return digest_json({"request": to_json(request), "model": to_json(model), "scope": scope, "take": take})


EditOperation = Literal["erase", "replace", "outpaint", "remove_background", "search_and_replace"]


@frozen(kw_only=True)
class EditCapabilities:
    """What an inpainter can be asked."""

    operations: frozenset[EditOperation]
    image: ImageRule = ImageRule()
    needs_mask: bool = True
    takes_mask_prompt: bool = False
    max_images: int = 1
    origin: Literal["trained_model", "model_over_media", "algorithm"] = "model_over_media"


@frozen(kw_only=True)
class EditRequest:
    """One edit of one picture. White in the mask is repainted, in every backend."""

    operation: EditOperation
    image: MediaRef
    mask: MediaRef | None = None
    """8-bit grey, the picture's size; white (255) is repainted, black (0) is kept."""
    mask_prompt: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    extend_px: tuple[int, int, int, int] | None = None
    """Outpaint: how far to grow on the left, top, right and bottom."""
    count: int = field(default=1, validator=validators.ge(1))
    seed: int | None = None


@frozen(kw_only=True)
class EditResult:
    """What one paid edit call gave back."""

    images: tuple[bytes, ...] = field(repr=False)
    """Encoded pictures, lossless (PNG), each the size of the input unless outpainting."""
    rejected: tuple[str, ...] = ()
    """One reason a picture that moderation kept back."""
    billed: bool | None = None
    report: JSON = field(factory=dict)
    """What the model says it did: the effective seed, radius, version …"""


@frozen(kw_only=True)
class CaptionResult:
    """A caption and tags of one picture."""

    text: str
    tags: tuple[str, ...] = ()
    truncated: bool = False
