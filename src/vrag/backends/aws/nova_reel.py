"""Nova Reel 1.0 and 1.1: videos of 6 s, of 12 to 120 s from one prompt, and of up to 20 shots of 6 s.

Both versions reached their end of life on 2026-09-30; accounts that may still call them say `allow_retired`.

Sources: Amazon Nova User Guide "Video generation access and usage" and "Error handling" (2026-11-20).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import evolve
from PIL import Image
from typing_extensions import override

from vrag.backends.aws.async_invoke import AsyncInvokeGenerator, Summary, decode_failure
from vrag.errors import NotFoundError, UnsupportedRequestError
from vrag.generation.catalogue import Model
from vrag.values.canonical import JSON
from vrag.values.jobs import Fault
from vrag.values.requests import ImageRule, Problem, VideoCapabilities, VideoRequest

__all__ = ["NovaReelGenerator", "decode_status_file", "encode_request", "refusals"]

_SHOT_S: Final = 6.0
_SEED: Final = 42
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg"}
_STATUS_FILES: Final = ("video-generation-status.json", "generation-status.json")
"""The same page of the guide names both."""
_CODES: Final = {
    "RAI_VIOLATION_OUTPUT_VIDEO_DEFLECTION": ("moderation", False),
    "RATE_LIMIT_EXCEEDED": ("throttled", True),
    "INTERNAL_SERVER_EXCEPTION": ("service", True),
    "ABORTED": ("service", True),
}


def encode_request(request: VideoRequest, pictures: Mapping[str, bytes]) -> dict[str, JSON]:
    """The `modelInput` for a request that is not refused.

    Args:
        request: One shot of 6 s (`TEXT_VIDEO`), one longer shot (`MULTI_SHOT_AUTOMATED`), or several of 6 s
            (`MULTI_SHOT_MANUAL`).
        pictures: The encoded pictures by digest.
    """
    config: dict[str, JSON] = {
        "fps": round(request.fps),
        "dimension": f"{request.width_px}x{request.height_px}",
        # Guides of different years name different defaults.
        "seed": _SEED if request.seed is None else request.seed,
    }
    images = [
        [{"format": _FORMATS[one.media.media_type], "source": {"bytes": _base64(pictures[one.media.sha256])}}]
        if (one := next(iter(shot.inputs), None))
        else []
        for shot in request.shots
    ]
    if len(request.shots) > 1:
        shots = [
            {"text": shot.prompt, **({"image": image[0]} if image else {})}
            for shot, image in zip(request.shots, images, strict=True)
        ]
        return {
            "taskType": "MULTI_SHOT_MANUAL",
            "multiShotManualParams": {"shots": shots},
            "videoGenerationConfig": config,
        }
    shot = next(iter(request.shots))
    config = {"durationSeconds": round(shot.duration_s), **config}
    if shot.duration_s != _SHOT_S:
        return {
            "taskType": "MULTI_SHOT_AUTOMATED",
            "multiShotAutomatedParams": {"text": shot.prompt},
            "videoGenerationConfig": config,
        }
    words: dict[str, JSON] = {"text": shot.prompt, **({"images": images[0]} if images[0] else {})}
    return {"taskType": "TEXT_VIDEO", "textToVideoParams": words, "videoGenerationConfig": config}


def decode_status_file(document: Mapping[str, Any], fallback: Fault) -> Fault:
    """Why a job failed, from the status file in its folder, with the shots that are to blame.

    Args:
        document: The JSON of `video-generation-status.json`.
        fallback: What the answer of GetAsyncInvoke says.
    """
    parts = [("", document.get("fullVideo") or {})]
    parts += [(f"shot {number}: ", shot) for number, shot in enumerate(document.get("shots") or [], 1)]
    failed = [(where, part) for where, part in parts if part.get("status") == "FAILURE"]
    kinds = [str(part.get("failureType")) for _, part in failed]
    if not kinds:
        return fallback
    kind = next((kind for kind in kinds if _CODES.get(kind, ("",))[0] == "moderation"), kinds[0])
    code, retryable = _CODES.get(kind, (fallback.code, fallback.retryable))
    told = dict.fromkeys(f"{where}{part.get('failureMessage') or part.get('failureType')}" for where, part in failed)
    return evolve(decode_failure(" ".join(told)), code=code, retryable=retryable)


def refusals(model: Model, request: VideoRequest) -> Iterator[tuple[str, str]]:
    """What a version of Nova Reel does not do of a request: the field, and a sentence with limit and value."""
    shots = request.shots
    multi = "manual.shots" in model.limits
    task = "text_video"
    if multi and len(shots) > 1:
        task = "manual"
    elif multi and any(shot.duration_s != _SHOT_S for shot in shots):
        task = "automated"
    checks: list[tuple[str, str, str | float]] = [
        ("shots", "manual.shots" if multi else "shots", len(shots)),
        ("fps", "fps", request.fps),
        ("width_px", "size_px", f"{request.width_px}x{request.height_px}"),
    ]
    if request.seed is not None:
        checks.append(("seed", "seed", request.seed))
    for index, shot in enumerate(shots):
        here = f"shots[{index}]"
        checks += [
            (f"{here}.duration_s", f"{task}.duration_s", shot.duration_s),
            (f"{here}.prompt", f"{task}.prompt_chars", len(shot.prompt)),
            (f"{here}.inputs", f"{task}.images", len(shot.inputs)),
        ]
        for number, one in enumerate(shot.inputs):
            field = f"{here}.inputs[{number}]"
            if one.role != "start_frame":
                yield field, f"The role '{one.role}' is not taken; allowed: start_frame."
            checks += [
                (field, "image_media_type", one.media.media_type),
                (field, "image_size_px", f"{one.media.width_px}x{one.media.height_px}"),
            ]
    for field, limit, value in checks:
        if (said := model.limit(limit).refusal(value)) is not None:
            yield field, said
    if request.codec != "h264":
        yield "codec", f"'{request.codec}' is not made; allowed: h264."


class NovaReelGenerator(AsyncInvokeGenerator):
    """Nova Reel by asynchronous jobs. Pictures have exactly 1280 x 720 px; cameras are words of the prompt."""

    def __init__(
        self, *, bedrock: Any, s3: Any, output_uri: str, model_id: str = "amazon.nova-reel-v1:1", **more: Any
    ) -> None:
        """Use ready-made clients; nothing is sent.

        Args:
            bedrock: A boto3 client of `bedrock-runtime`.
            s3: A boto3 client of `s3`.
            output_uri: `s3://bucket/prefix`.
            model_id: The version: `amazon.nova-reel-v1:1` or `amazon.nova-reel-v1:0`.
            more: As for `AsyncInvokeGenerator`.
        """
        super().__init__(bedrock=bedrock, s3=s3, output_uri=output_uri, model_id=model_id, **more)
        several = "manual.shots" in self._known.limits
        self._capabilities = VideoCapabilities(
            roles=frozenset({"start_frame"}),
            max_shots=20 if several else 1,
            durations_s=(_SHOT_S, *(float(length) for length in range(12, 121, 6))) if several else (_SHOT_S,),
            sizes_px=((1280, 720),),
            rates_fps=(24.0,),
            max_prompt_chars=512,
            fields=frozenset({"seed"}),
            languages=("en",),
            image=ImageRule(exact_size=True),
        )

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        """A prompt of a shot of more than 6 s may be longer than `max_prompt_chars`, but such a shot takes no picture."""
        return self._capabilities

    @override
    def refusals(self, request: VideoRequest) -> Iterator[Problem]:
        for field, message in refusals(self._known, request):
            yield Problem(kind="refused", field=field, message=message)
        if request.negative_prompt is not None:
            yield Problem(
                kind="unmet", field="negative_prompt", message="Nova Reel has no place for a negative prompt."
            )

    @override
    def model_input(self, request: VideoRequest, pictures: Mapping[str, bytes]) -> JSON:
        for index, shot in enumerate(request.shots):
            for number, one in enumerate(shot.inputs):
                said = self._known.limit("image_mode").refusal(
                    _pixels(pictures[one.media.sha256], one.media.media_type)
                )
                if said is not None:
                    problem = Problem(kind="refused", field=f"shots[{index}].inputs[{number}]", message=said)
                    raise UnsupportedRequestError(said, problems=[problem])
        return encode_request(request, pictures)

    @override
    def failure(self, summary: Summary) -> Fault:
        told = super().failure(summary)
        for name in _STATUS_FILES:
            try:
                with self._jobs.open(summary, name) as stream:
                    return decode_status_file(json.loads(stream.read()), told)
            except (NotFoundError, ValueError):  # not there, or no JSON: then it tells nothing
                continue
        return told


def _pixels(data: bytes, media_type: str) -> str:
    """`RGB` for 8 bits a channel without transparency in the format that is announced; else what it is."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as picture:
            kind = f"image/{(picture.format or '').lower()}"
            if kind != media_type:
                return f"{kind}, announced as {media_type}"
            if picture.mode == "RGBA":
                alpha = picture.getchannel("A").getextrema()
                return "RGB" if alpha == (255, 255) else "RGBA with transparent pixels"
            return picture.mode
    except OSError:
        return "no picture that can be read"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
