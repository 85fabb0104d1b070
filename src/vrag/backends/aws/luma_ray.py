"""Luma Ray v2: videos of 5 or 9 s from a prompt and, if wanted, a first and a last frame.

Source: Amazon Bedrock User Guide "Luma AI models" (2026-11-20). The page gives shapes and `540p` or `720p`; that this is
the short side of every shape, and the rate of 24 frames a second, are read from its words and not confirmed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

from typing_extensions import override

from vrag.backends.aws.async_invoke import AsyncInvokeGenerator
from vrag.backends.aws.text import tokens_at_most
from vrag.generation.catalogue import Model
from vrag.values.canonical import JSON
from vrag.values.requests import Estimate, ImageRule, Problem, VideoCapabilities, VideoRequest

__all__ = ["LumaRayGenerator", "encode_request", "refusals"]

_ASPECTS: Final = ((1, 1), (16, 9), (9, 16), (4, 3), (3, 4), (21, 9), (9, 21))
_SHORT_PX: Final = (540, 720)
_SIZES: Final = tuple(
    (short * width // min(width, height), short * height // min(width, height))
    for short in _SHORT_PX
    for width, height in _ASPECTS
)
_FRAMES: Final = {"start_frame": "frame0", "end_frame": "frame1"}
_CAPABILITIES: Final = VideoCapabilities(
    roles=frozenset(_FRAMES),
    durations_s=(5.0, 9.0),
    sizes_px=_SIZES,
    rates_fps=(24.0,),
    max_prompt_chars=5000,
    image=ImageRule(min_side_px=512, max_side_px=4096),
)


def encode_request(request: VideoRequest, pictures: Mapping[str, bytes]) -> dict[str, JSON]:
    """The `modelInput` for a request that is not refused; pictures by digest."""
    shot = request.shots[0]
    body: dict[str, JSON] = {
        "prompt": shot.prompt,
        "aspect_ratio": _aspect(request.width_px, request.height_px),
        "loop": False,
        "duration": f"{round(shot.duration_s)}s",
        "resolution": _resolution(request),
    }
    frames = {
        _FRAMES[one.role]: {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": one.media.media_type,
                "data": base64.b64encode(pictures[one.media.sha256]).decode("ascii"),
            },
        }
        for one in shot.inputs
    }
    return {**body, "keyframes": frames} if frames else body


def refusals(model: Model, request: VideoRequest) -> Iterator[tuple[str, str]]:
    """What Luma Ray does not do of a request: the field, and a sentence with limit and value."""
    checks: list[tuple[str, str, str | float]] = [
        ("shots", "shots", len(request.shots)),
        ("width_px", "aspect_ratio", _aspect(request.width_px, request.height_px)),
        ("width_px", "resolution", _resolution(request)),
    ]
    for index, shot in enumerate(request.shots):
        here = f"shots[{index}]"
        roles = [one.role for one in shot.inputs]
        checks += [
            (f"{here}.duration_s", "duration_s", shot.duration_s),
            (f"{here}.prompt", "prompt_chars", len(shot.prompt)),
            (f"{here}.prompt", "prompt_tokens", tokens_at_most(shot.prompt)),
            (f"{here}.inputs", "start_frames", roles.count("start_frame")),
            (f"{here}.inputs", "end_frames", roles.count("end_frame")),
        ]
        for number, one in enumerate(shot.inputs):
            field = f"{here}.inputs[{number}]"
            if one.role not in _FRAMES:
                yield field, f"The role '{one.role}' is not taken; allowed: {', '.join(_FRAMES)}."
            checks.append((field, "image_media_type", one.media.media_type))
            checks += [(field, "image_side_px", side or 0) for side in (one.media.width_px, one.media.height_px)]
    for field, limit, value in checks:
        if (said := model.limit(limit).refusal(value)) is not None:
            yield field, said
    if request.fps != 24.0:
        yield "fps", f"The frame rate: {request.fps:g} frames a second; allowed: 24."
    if request.codec != "h264":
        yield "codec", f"'{request.codec}' is not made; allowed: h264."


class LumaRayGenerator(AsyncInvokeGenerator):
    """Luma Ray v2 by asynchronous jobs, in us-west-2. Whether it can still be called is not certain; see the catalogue."""

    def __init__(self, *, bedrock: Any, s3: Any, output_uri: str, model_id: str = "luma.ray-v2:0", **more: Any) -> None:
        """Use ready-made clients; nothing is sent.

        Args:
            bedrock: A boto3 client of `bedrock-runtime`.
            s3: A boto3 client of `s3`.
            output_uri: `s3://bucket/prefix`.
            model_id: The version.
            more: As for `AsyncInvokeGenerator`.
        """
        super().__init__(bedrock=bedrock, s3=s3, output_uri=output_uri, model_id=model_id, **more)

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        return _CAPABILITIES

    @override
    def refusals(self, request: VideoRequest) -> Iterator[Problem]:
        for field, message in refusals(self._known, request):
            yield Problem(kind="refused", field=field, message=message)
        for field, value in (("seed", request.seed), ("negative_prompt", request.negative_prompt)):
            if value is not None:
                name = field.replace("_", " ")
                yield Problem(kind="unmet", field=field, message=f"Luma Ray has no place for a {name}.")

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        amounts = {"video_second": request.duration_s}
        return self._known.estimate(amounts, video_s=request.duration_s, resolution=_resolution(request))

    @override
    def model_input(self, request: VideoRequest, pictures: Mapping[str, bytes]) -> JSON:
        return encode_request(request, pictures)


def _aspect(width_px: int, height_px: int) -> str:
    """The documented shape of this size, or the size itself where it is none."""
    for width, height in _ASPECTS:
        if width_px * height == height_px * width:
            return f"{width}:{height}"
    return f"{width_px}:{height_px}"


def _resolution(request: VideoRequest) -> str:
    return f"{min(request.width_px, request.height_px)}p"
