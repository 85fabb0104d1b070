"""Stability AI image services: inpaint, erase, outpaint, search and replace, remove background. White is repainted there too.

Each operation is a model of its own, called by an inference profile; one picture a call. A refused picture is an HTTP
200 with a finish reason.

Source: Amazon Bedrock User Guide "Stability AI Image Services" (2026-11-20).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.edits import EditInputs, check, limit_problems, read_inputs, refused, result_of, seam_px
from vrag.backends.aws.invoke import Invoker
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError
from vrag.generation.catalogue import Catalogue, Model
from vrag.interfaces import Inpainter
from vrag.media.image import encode_png
from vrag.media.ref import OpenMedia
from vrag.values.canonical import JSON
from vrag.values.requests import (
    EditCapabilities,
    EditOperation,
    EditRequest,
    EditResult,
    Estimate,
    ImageRule,
    ModelRef,
    Problem,
)

__all__ = ["StabilityInpainter", "decode_answer", "encode_request"]

SERVICES: Final[Mapping[EditOperation, str]] = {
    "replace": "stability.stable-image-inpaint-v1:0",
    "erase": "stability.stable-image-erase-object-v1:0",
    "outpaint": "stability.stable-outpaint-v1:0",
    "search_and_replace": "stability.stable-image-search-replace-v1:0",
    "remove_background": "stability.stable-image-remove-background-v1:0",
}
_GROW_PX: Final = 5
_SIDES: Final = ("left", "up", "right", "down")
_PROMPTED: Final = frozenset({"replace", "search_and_replace"})
_CAPABILITIES: Final = EditCapabilities(
    operations=frozenset(SERVICES),
    image=ImageRule(min_side_px=64, media_types=("image/jpeg", "image/png", "image/webp")),
    needs_mask=True,
    max_images=1,
)


def encode_request(request: EditRequest, inputs: EditInputs) -> dict[str, JSON]:
    """The body for a request that is not refused."""
    body: dict[str, JSON] = {"image": _base64(inputs.png), "output_format": "png"}
    if request.operation == "remove_background":
        return body
    body["seed"] = request.seed or 0  # 0 is "any"; the answer tells which one it was
    if request.operation in {"erase", "replace"} and inputs.mask is not None:
        body |= {"mask": _base64(encode_png(inputs.mask)), "grow_mask": _GROW_PX}
    if request.operation == "outpaint":
        body |= {name: pixels for name, pixels in zip(_SIDES, request.extend_px or (), strict=True) if pixels}
    if request.operation == "search_and_replace":
        body["search_prompt"] = request.mask_prompt
    if request.operation != "erase" and request.prompt:
        body["prompt"] = request.prompt
    if request.operation in _PROMPTED and request.negative_prompt:
        body["negative_prompt"] = request.negative_prompt
    return body


def decode_answer(answer: Mapping[str, Any]) -> tuple[list[bytes], list[str], list[int]]:
    """The pictures, the reasons for those that were kept back, and the seeds.

    Raises:
        BackendError: The service failed inside an HTTP 200.
    """
    reasons = [str(reason) for reason in answer.get("finish_reasons") or [] if reason is not None]
    if any("Inference error" in reason for reason in reasons):
        raise BackendError("Stability: inference error.", backend="bedrock", operation="InvokeModel", retryable=True)
    images = answer.get("images") or []
    kept = answer.get("finish_reasons") or [None] * len(images)
    good = [base64.b64decode(image) for image, reason in zip(images, kept, strict=False) if reason is None and image]
    return good, reasons, [int(seed) for seed in answer.get("seeds") or []]


class StabilityInpainter(Inpainter):
    """Edits by the Stability services. Its `model` names the family; which service answers follows from the operation."""

    def __init__(
        self,
        client: Any,
        *,
        profile: str = "us",
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use a ready-made client; nothing is sent.

        Args:
            client: A boto3 client of `bedrock-runtime`, with a read timeout of 300 s or more.
            profile: Prefix of the inference profiles; the bare ids are not offered.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Limits, prices and lifecycle; by default those of this release.
            clock: Says whether a model has been retired.
        """
        self._catalogue = catalogue or Catalogue.load()
        self._clock = clock or SystemClock()
        self._allow_retired = allow_retired
        self._invokers = {operation: Invoker(client, f"{profile}.{service}") for operation, service in SERVICES.items()}
        self._model = ModelRef(
            provider=PROVIDER,
            id=f"{profile}.stability.image-services-v1:0",
            region=client.meta.region_name,
            account=account,
        )

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @property
    @override
    def capabilities(self) -> EditCapabilities:
        return _CAPABILITIES

    def _service(self, request: EditRequest) -> Model:
        return self._catalogue.model(PROVIDER, SERVICES[request.operation])

    @override
    def validate(self, request: EditRequest) -> tuple[Problem, ...]:
        problems = list(limit_problems(self._service(request), request))
        retired = self._catalogue.retired_problem(
            self._service(request), self._clock.now(), allow_retired=self._allow_retired
        )
        problems += [retired] if retired else []
        if request.operation in {"erase", "replace"} and request.mask is None:
            problems.append(refused("mask", "It needs a mask of the picture's size: white is repainted."))
        if request.operation in _PROMPTED and not request.prompt:
            problems.append(refused("prompt", "It needs a prompt: what to paint."))
        if request.operation == "search_and_replace" and not request.mask_prompt:
            problems.append(refused("mask_prompt", "It needs a mask prompt: what to search for."))
        if request.operation == "outpaint" and not any(request.extend_px or ()):
            problems.append(
                refused("extend_px", "Say how far to grow on the left, top, right and bottom; one of them above 0.")
            )
        unused = {"erase": ("prompt", "negative_prompt"), "outpaint": ("negative_prompt",)}
        problems.extend(
            Problem(kind="unmet", field=name, message="This service has no place for it.")
            for name in unused.get(request.operation, ())
            if getattr(request, name) is not None
        )
        return tuple(problems)

    @override
    def estimate(self, request: EditRequest) -> Estimate:
        return self._service(request).estimate({"image": 1})

    @override
    def edit(self, request: EditRequest, media: OpenMedia) -> EditResult:
        model = self._service(request)
        self._catalogue.check_usable(model, self._clock.now(), allow_retired=self._allow_retired)
        check(self.validate(request))
        inputs = read_inputs(request, media)
        invoker = self._invokers[request.operation]
        images, reasons, seeds = decode_answer(invoker.one(encode_request(request, inputs)))
        left, top, right, bottom = request.extend_px or (0, 0, 0, 0)
        width_px, height_px = inputs.picture.size
        return result_of(
            images,
            reasons,
            inputs,
            backend=invoker.backend,
            size_px=(width_px + left + right, height_px + top + bottom) if request.operation == "outpaint" else None,
            reach_px=seam_px(_GROW_PX) if request.operation in {"erase", "replace"} else None,
            report={"service": model.id, "seeds": seeds},
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
