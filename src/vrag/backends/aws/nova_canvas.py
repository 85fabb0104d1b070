"""Nova Canvas: inpainting by mask or mask prompt, outpainting, background removal. Its inpainting repaints black.

It reached its end of life on 2026-09-30; accounts that may still call it say `allow_retired`.

Sources: Amazon Nova User Guide "Image generation and editing" and "Request and response structure for image generation"
(2026-11-20). Of an inpainting mask black is changed and white is kept; of an outpainting mask white is changed. Only pure
black and white are taken, in the size of the picture.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import evolve
from PIL import Image, ImageOps
from typing_extensions import override

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.edits import EditInputs, check, limit_problems, read_inputs, refused, result_of, seam_px
from vrag.backends.aws.invoke import Invoker
from vrag.clock import Clock, SystemClock
from vrag.generation.catalogue import Catalogue, Model
from vrag.interfaces import Inpainter
from vrag.media.image import encode_png, load_image
from vrag.media.ref import OpenMedia
from vrag.values.canonical import JSON
from vrag.values.requests import EditCapabilities, EditRequest, EditResult, Estimate, ImageRule, ModelRef, Problem

__all__ = ["NovaCanvasInpainter", "decode_answer", "encode_request", "encode_variation"]

_SEED: Final = 12
_SMALL_PX: Final = 1024 * 1024
_CAPABILITIES: Final = EditCapabilities(
    operations=frozenset({"erase", "replace", "outpaint", "remove_background", "search_and_replace"}),
    image=ImageRule(min_side_px=320, max_side_px=4096),
    needs_mask=True,
    takes_mask_prompt=True,
    max_images=5,
)


def encode_request(
    request: EditRequest, inputs: EditInputs, quality: Literal["standard", "premium"] = "standard"
) -> dict[str, JSON]:
    """The body for a request that is not refused; white in `inputs.mask` is what is repainted."""
    if request.operation == "remove_background":
        return {"taskType": "BACKGROUND_REMOVAL", "backgroundRemovalParams": {"image": _base64(inputs.png)}}
    words: dict[str, JSON] = {}
    if request.prompt and request.operation != "erase":  # without a text it removes the object
        words["text"] = request.prompt
    if request.negative_prompt:
        words["negativeText"] = request.negative_prompt
    config = {
        "numberOfImages": request.count,
        "quality": quality,
        # Guides of different years name different bounds and defaults.
        "seed": _SEED if request.seed is None else request.seed,
    }
    if request.operation == "outpaint":
        grown, mask = _grown(inputs.picture, request.extend_px or (0, 0, 0, 0))
        picture = {
            "image": _base64(encode_png(grown)),
            "maskImage": _base64(encode_png(mask)),
            "outPaintingMode": "PRECISE",
        }
        return {"taskType": "OUTPAINTING", "outPaintingParams": {**picture, **words}, "imageGenerationConfig": config}
    where: dict[str, JSON] = {"maskPrompt": request.mask_prompt}
    if inputs.mask is not None:
        where = {"maskImage": _base64(encode_png(ImageOps.invert(inputs.mask)))}
    return {
        "taskType": "INPAINTING",
        "inPaintingParams": {"image": _base64(inputs.png), **where, **words},
        "imageGenerationConfig": config,
    }


def encode_variation(
    pictures: Sequence[bytes],
    *,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    similarity: float = 0.7,
    count: int = 1,
    seed: int | None = None,
    quality: Literal["standard", "premium"] = "standard",
) -> dict[str, JSON]:
    """The body for pictures like others: 1 to 5 encoded ones, a similarity of 0.2 (free) to 1.0 (close)."""
    asked: dict[str, JSON] = {"images": [_base64(one) for one in pictures], "similarityStrength": similarity}
    if prompt:
        asked["text"] = prompt
    if negative_prompt:
        asked["negativeText"] = negative_prompt
    config = {"numberOfImages": count, "quality": quality, "seed": _SEED if seed is None else seed}
    return {"taskType": "IMAGE_VARIATION", "imageVariationParams": asked, "imageGenerationConfig": config}


def decode_answer(answer: Mapping[str, Any], count: int) -> tuple[list[bytes], list[str]]:
    """The pictures, and a reason for each of `count` that did not come."""
    images = [base64.b64decode(image) for image in answer.get("images") or [] if image]
    said = str(answer.get("error") or "blocked by content filters")
    return images, [said] * (count - len(images))


class NovaCanvasInpainter(Inpainter):
    """Edits by Nova Canvas."""

    def __init__(
        self,
        client: Any,
        *,
        model_id: str = "amazon.nova-canvas-v1:0",
        quality: Literal["standard", "premium"] = "standard",
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use a ready-made client; nothing is sent.

        Args:
            client: A boto3 client of `bedrock-runtime`, with a read timeout of 300 s or more.
            model_id: The version.
            quality: `standard` or `premium`.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Limits, prices and lifecycle; by default those of this release.
            clock: Says whether the model has been retired.
        """
        self._catalogue = catalogue or Catalogue.load()
        self._known = self._catalogue.model(PROVIDER, model_id)
        self._clock = clock or SystemClock()
        self._allow_retired = allow_retired
        self._quality: Literal["standard", "premium"] = quality
        self._invoker = Invoker(client, model_id)
        self._model = ModelRef(provider=PROVIDER, id=model_id, region=client.meta.region_name, account=account)

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @property
    @override
    def capabilities(self) -> EditCapabilities:
        return _CAPABILITIES

    @override
    def validate(self, request: EditRequest) -> tuple[Problem, ...]:
        problems = list(limit_problems(self._known, request))
        retired = self._catalogue.retired_problem(self._known, self._clock.now(), allow_retired=self._allow_retired)
        problems += [retired] if retired else []
        if request.operation in {"erase", "replace"} and (request.mask is None) == (request.mask_prompt is None):
            problems.append(refused("mask", "It needs either a mask (white is repainted) or a mask prompt."))
        if request.operation == "search_and_replace" and not request.mask_prompt:
            problems.append(refused("mask_prompt", "It needs a mask prompt: what to search for."))
        if request.operation in {"replace", "search_and_replace"} and not request.prompt:
            problems.append(refused("prompt", "It needs a prompt: what to paint."))
        if request.operation == "remove_background" and request.count != 1:
            problems.append(refused("count", f"Pictures: {request.count}; without a background there is 1."))
        if request.operation == "outpaint":
            problems.extend(self._growth(request))
        return tuple(problems)

    def _growth(self, request: EditRequest) -> list[Problem]:
        if not any(request.extend_px or ()):
            return [
                refused("extend_px", "Say how far to grow on the left, top, right and bottom; one of them above 0.")
            ]
        left, top, right, bottom = request.extend_px or (0, 0, 0, 0)
        width_px, height_px = (
            (request.image.width_px or 0) + left + right,
            (request.image.height_px or 0) + top + bottom,
        )
        grown = evolve(request, image=evolve(request.image, width_px=width_px, height_px=height_px))
        return [evolve(one, field="extend_px") for one in limit_problems(self._known, grown) if one.field == "image"]

    @override
    def estimate(self, request: EditRequest) -> Estimate:
        small = (request.image.width_px or 0) * (request.image.height_px or 0) <= _SMALL_PX
        return self._known.estimate({"image": request.count}, quality=self._quality, size="small" if small else "large")

    @override
    def edit(self, request: EditRequest, media: OpenMedia) -> EditResult:
        self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        check(self.validate(request))
        inputs = read_inputs(request, media)
        body = encode_request(request, inputs, self._quality)
        images, reasons = decode_answer(self._invoker.one(body), request.count)
        left, top, right, bottom = request.extend_px or (0, 0, 0, 0)
        width_px, height_px = inputs.picture.size
        return result_of(
            images,
            reasons,
            inputs,
            backend=self._invoker.backend,
            size_px=(width_px + left + right, height_px + top + bottom) if request.operation == "outpaint" else None,
            reach_px=seam_px() if request.operation in {"erase", "replace"} else None,
            report=body.get("imageGenerationConfig", {}),
        )

    def vary(
        self,
        pictures: Sequence[bytes],
        *,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        similarity: float = 0.7,
        count: int = 1,
        seed: int | None = None,
    ) -> EditResult:
        """New pictures in the manner of 1 to 5 others, in one paid call; no member of the seam.

        Args:
            pictures: Encoded; they are sent as PNG.
            prompt: What is to be seen.
            negative_prompt: What is not.
            similarity: 0.2 (free) to 1.0 (close).
            count: How many are wanted, 1 to 5.
            seed: As for an edit.

        Raises:
            ModelRetiredError: The model is past its end of life; nothing was sent.
            UnsupportedRequestError: A value is past its limit; nothing was sent.
            ContentRejectedError: Moderation kept all of them back.
        """
        self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        values: dict[str, float] = {"variation_images": len(pictures), "similarity": similarity, "images": count}
        if prompt is not None:
            values["prompt_chars"] = len(prompt)
        if negative_prompt is not None:
            values["negative_prompt_chars"] = len(negative_prompt)
        if seed is not None:
            values["seed"] = seed
        _checked(self._known, values)
        loaded = [load_image(one, "picture").pixels for one in pictures]
        body = encode_variation(
            [encode_png(one) for one in loaded],
            prompt=prompt,
            negative_prompt=negative_prompt,
            similarity=similarity,
            count=count,
            seed=seed,
            quality=self._quality,
        )
        images, reasons = decode_answer(self._invoker.one(body), count)
        inputs = EditInputs(picture=loaded[0])
        return result_of(images, reasons, inputs, backend=self._invoker.backend, report=body["imageGenerationConfig"])


def _checked(model: Model, values: Mapping[str, float]) -> None:
    problems = [refused(name, said) for name, value in values.items() if (said := model.limit(name).refusal(value))]
    check(tuple(problems))


def _grown(picture: Image.Image, extend_px: tuple[int, int, int, int]) -> tuple[Image.Image, Image.Image]:
    """The picture on a larger grey canvas, and a mask whose white is to be painted."""
    left, top, right, bottom = extend_px
    size = (picture.width + left + right, picture.height + top + bottom)
    grown, mask = Image.new("RGB", size, (128, 128, 128)), Image.new("L", size, 255)
    grown.paste(picture, (left, top))
    mask.paste(0, (left, top, left + picture.width, top + picture.height))
    return grown, mask


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
