"""How the fake answers InvokeModel: embedders that hash words, and editors that change exactly what their mask says.

Written from the vendors' pages, apart from our adapters (Amazon Bedrock and Amazon Nova User Guides, 2026-11-20).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrag.testing.bedrock.bodies import Body, Picture, read_picture, word_count
from vrag.testing.bedrock.wire import refuse
from vrag.testing.media import describe
from vrag.testing.vectors import FakeEmbedder
from vrag.values.canonical import JSON
from vrag.values.vectors import EmbeddingSpace, Item

__all__ = ["answer"]

Rejected = Callable[[], str | None]
_PURPOSES: Final = [
    "GENERIC_INDEX",
    "GENERIC_RETRIEVAL",
    "TEXT_RETRIEVAL",
    "IMAGE_RETRIEVAL",
    "VIDEO_RETRIEVAL",
    "DOCUMENT_RETRIEVAL",
    "AUDIO_RETRIEVAL",
    "CLASSIFICATION",
    "CLUSTERING",
]


def answer(body: Body, rejected: Rejected) -> JSON:
    """The answer of the model of a body.

    Raises:
        Refusal: The model would not take it.
    """
    for ids, model in _MODELS.items():
        if body.model.id.startswith(ids):
            return model(body, rejected)
    raise refuse("The model does not support this operation.")


def _vector(body: Body, text: str, dimension: int) -> list[float]:
    body.limited("dimension", dimension)
    space = EmbeddingSpace(model=body.model.id, revision="1", dimension=dimension, preprocessing="words/1")
    row = FakeEmbedder(space=space).embed([Item(kind="text", text=text)], "index")[0]
    return [float(number) for number in row * 3]  # not of unit length: nobody promises that


def _seen(body: Body, picture: Picture) -> str:
    limits: Mapping[str, tuple[str | float, ...]] = {
        "image_bytes": (len(picture.data),),
        "image_base64_bytes": (4 * -(-len(picture.data) // 3),),
        "image_side_px": picture.image.size,
        "image_media_type": (picture.media_type,),
    }
    for limit, values in limits.items():
        for value in values if limit in body.model.limits else ():
            body.limited(limit, value)
    return " ".join(describe(picture.data))


def _titan(body: Body, _rejected: Rejected) -> JSON:
    body.known("inputText", "inputImage", "embeddingConfig")
    config = body.within("embeddingConfig", {}).known("outputEmbeddingLength")
    words = []
    if "inputText" in body.data:
        words.append(body.text("inputText"))
        if not words[0]:
            raise refuse("Malformed input request: expected minLength: 1, actual: 0")
        if (count := word_count(words[0])) > (body.model.limit("text_tokens").max or 0):
            raise refuse(f"Too many input tokens. Max input tokens: 256, request input token count: {count}")
    if "inputImage" in body.data:
        words.append(_seen(body, body.picture("inputImage")))
    if not words:
        raise refuse("Malformed input request: at least one of inputText and inputImage is required")
    vector = _vector(body, " ".join(words), config.data.get("outputEmbeddingLength", 1024))
    return {"embedding": vector, "inputTextTokenCount": word_count(words[0]), "message": None}


def _nova(body: Body, _rejected: Rejected) -> JSON:
    body.known(needs=("schemaVersion", "taskType", "singleEmbeddingParams"))
    body.one_of("schemaVersion", "nova-multimodal-embed-v1")
    body.one_of("taskType", "SINGLE_EMBEDDING")
    asked = body.within("singleEmbeddingParams").known(
        "text", "image", needs=("embeddingPurpose", "embeddingDimension")
    )
    asked.one_of("embeddingPurpose", *_PURPOSES)
    if len({"text", "image"} & {*asked.data}) != 1:
        raise refuse("Exactly one of text, image, audio and video must be given.")
    if "text" in asked.data:
        text = asked.within("text").known(needs=("truncationMode", "value"))
        text.one_of("truncationMode", "START", "END", "NONE")
        kind, words = "TEXT", text.text("value", "text_chars")
    else:
        image = asked.within("image").known("detailLevel", needs=("format", "source"))
        picture = image.within("source").known(needs=("bytes",)).picture("bytes")
        if picture.media_type != f"image/{image.data['format']}":
            raise refuse("The format of the image is not the one that the request says.")
        kind, words = "IMAGE", _seen(body, picture)
    vector = _vector(body, words, asked.data["embeddingDimension"])
    return {"embeddings": [{"embeddingType": kind, "embedding": vector}]}


def _cohere(body: Body, _rejected: Rejected) -> JSON:
    body.known(
        "texts", "images", "embedding_types", "output_dimension", "max_tokens", "truncate", needs=("input_type",)
    )
    body.one_of("input_type", "search_document", "search_query", "classification", "clustering")
    if ("texts" in body.data) == ("images" in body.data):
        raise refuse("Exactly one of texts, images and inputs must be given.")
    if "texts" in body.data:
        words = [str(text) for text in body.data["texts"]]
        body.limited("batch", len(words), "texts")
    else:
        body.limited("batch", len(body.data["images"]), "images")
        words = [_seen(body, read_picture(url.partition(";base64,")[2], "images")) for url in body.data["images"]]
    vectors = [_vector(body, text, body.data.get("output_dimension", 1536)) for text in words]
    return {"id": "fake", "embeddings": {"float": vectors} if "embedding_types" in body.data else vectors}


def _marengo(body: Body, _rejected: Rejected) -> JSON:
    kind = body.one_of("inputType", "text", "image")
    asked = body.known(needs=("inputType", kind)).within(kind)
    if kind == "text":
        words = asked.known(needs=("inputText",)).text("inputText")
        asked.limited("text_tokens", word_count(words), "inputText")
    else:
        source = asked.known(needs=("mediaSource",)).within("mediaSource").known(needs=("base64String",))
        words = _seen(body, source.picture("base64String"))
    return {
        "data": [{"embedding": _vector(body, words, 512), "embeddingOption": None, "startSec": None, "endSec": None}]
    }


# -- editors


def _stability(body: Body, rejected: Rejected) -> JSON:
    needs, more = {
        "stability.stable-image-inpaint-v1:0": (
            ("image", "prompt"),
            ("mask", "grow_mask", "negative_prompt", "style_preset"),
        ),
        "stability.stable-image-erase-object-v1:0": (("image",), ("mask", "grow_mask")),
        "stability.stable-outpaint-v1:0": (
            ("image",),
            ("left", "right", "up", "down", "prompt", "creativity", "style_preset"),
        ),
        "stability.stable-image-search-replace-v1:0": (
            ("image", "prompt", "search_prompt"),
            ("grow_mask", "negative_prompt", "style_preset"),
        ),
        "stability.stable-image-remove-background-v1:0": (("image",), ()),
    }[body.model.id]
    seeded = () if "background" in body.model.id else ("seed",)
    body.known("output_format", *seeded, *more, needs=needs)
    for name in ("prompt", "negative_prompt", "search_prompt"):
        if name in body.data:
            body.text(name, f"{name}_chars" if f"{name}_chars" in body.model.limits else None)
    for name in ("seed", "grow_mask"):
        if name in body.data:
            body.number(name, name)
    picture = body.picture("image")
    pixels = _editable(body, picture)
    if "outpaint" in body.model.id:
        sides = [
            int(body.number(name, "extend_px")) if name in body.data else 0 for name in ("left", "up", "right", "down")
        ]
        if not any(sides):
            raise refuse("At least one of left, right, up and down must be greater than 0.")
        edited = _extended(pixels, sides)
    elif "mask" in body.data:
        mask = body.picture("mask").image.convert("L").resize(picture.image.size, Image.Resampling.NEAREST)
        edited = _changed(pixels, np.asarray(mask) >= 128)  # white is repainted
    elif "search" in body.model.id:
        edited = _changed(pixels, _middle(pixels))
    elif "background" in body.model.id:
        edited = np.dstack([pixels, np.where(_middle(pixels), 255, 0).astype(np.uint8)])
    else:
        raise refuse("Without a mask the image needs an alpha channel.")
    seed = body.data.get("seed") or 1
    if (reason := rejected()) is not None:
        return {"seeds": [seed], "finish_reasons": [f"Filter reason: {reason}"], "images": [""]}
    return {"seeds": [seed], "finish_reasons": [None], "images": [_png(edited)]}


def _canvas(body: Body, rejected: Rejected) -> JSON:
    task = body.one_of("taskType", "INPAINTING", "OUTPAINTING", "BACKGROUND_REMOVAL", "IMAGE_VARIATION")
    if task == "IMAGE_VARIATION":
        return _varied(body, rejected)
    if task == "BACKGROUND_REMOVAL":
        asked = body.known(needs=("taskType", "backgroundRemovalParams")).within("backgroundRemovalParams")
        pixels = _editable(body, asked.known(needs=("image",)).picture("image"))
        return {"images": [_png(np.dstack([pixels, np.where(_middle(pixels), 255, 0).astype(np.uint8)]))]}
    params = "inPaintingParams" if task == "INPAINTING" else "outPaintingParams"
    asked = body.known("imageGenerationConfig", needs=("taskType", params)).within(params)
    modes = () if task == "INPAINTING" else ("outPaintingMode",)
    asked.known("maskPrompt", "maskImage", "text", "negativeText", *modes, needs=("image",))
    for name, limit in (("text", "prompt_chars"), ("negativeText", "negative_prompt_chars")):
        if name in asked.data:
            asked.text(name, limit)
    config = body.within("imageGenerationConfig", {}).known(
        "numberOfImages", "quality", "cfgScale", "seed", "width", "height"
    )
    count = int(config.number("numberOfImages", "images")) if "numberOfImages" in config.data else 1
    if "seed" in config.data:
        config.number("seed", "seed")
    pixels = _editable(body, asked.picture("image"))
    if ("maskPrompt" in asked.data) == ("maskImage" in asked.data):
        raise refuse("Exactly one of maskPrompt and maskImage must be given.")
    change = _middle(pixels)
    if "maskImage" in asked.data:
        mask = np.asarray(asked.picture("maskImage").image.convert("L"))
        if mask.shape != pixels.shape[:2]:
            raise refuse("The mask must have the dimensions of the image.")
        if not np.isin(mask, (0, 255)).all():
            raise refuse("The mask may only contain pure black and pure white pixels.")
        change = mask == (0 if task == "INPAINTING" else 255)  # black is repainted; outpainting repaints white
    return _pictures(_changed(pixels, change), count, rejected)


def _varied(body: Body, rejected: Rejected) -> JSON:
    asked = body.known("imageGenerationConfig", needs=("taskType", "imageVariationParams")).within(
        "imageVariationParams"
    )
    asked.known("similarityStrength", "text", "negativeText", needs=("images",))
    for name, limit in (("text", "prompt_chars"), ("negativeText", "negative_prompt_chars")):
        if name in asked.data:
            asked.text(name, limit)
    if "similarityStrength" in asked.data:
        asked.number("similarityStrength", "similarity", whole=False)
    asked.limited("variation_images", len(asked.data["images"]), "images")
    config = body.within("imageGenerationConfig", {}).known(
        "numberOfImages", "quality", "cfgScale", "seed", "width", "height"
    )
    count = int(config.number("numberOfImages", "images")) if "numberOfImages" in config.data else 1
    pixels = [_editable(body, read_picture(one, "images")) for one in asked.data["images"]]
    return _pictures(pixels[0][:, ::-1], count, rejected)  # the first one, mirrored


def _pictures(edited: NDArray[np.uint8], count: int, rejected: Rejected) -> JSON:
    """So many equal pictures, less those that moderation keeps back."""
    kept = [reason for reason in (rejected() for _ in range(count)) if reason is not None]
    if len(kept) == count:
        raise refuse("All of the generated images have been blocked by our content filters.")
    told: dict[str, JSON] = {"images": [_png(edited)] * (count - len(kept))}
    if kept:
        told["error"] = "Some of the generated images have been blocked by our content filters."
    return told


def _editable(body: Body, picture: Picture) -> NDArray[np.uint8]:
    width_px, height_px = picture.image.size
    values: list[tuple[str, str | float]] = [
        ("image_side_px", width_px),
        ("image_side_px", height_px),
        ("image_pixels", width_px * height_px),
        ("image_aspect", width_px / height_px),
        ("image_media_type", picture.media_type),
    ]
    for limit, value in values:
        body.limited(limit, value, "image")
    return np.asarray(picture.image.convert("RGB"))


def _changed(pixels: NDArray[np.uint8], change: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(change[..., None], pixels ^ 128, pixels)


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What a model that searches would find here: the middle ninth."""
    height, width = pixels.shape[:2]
    found = np.zeros((height, width), bool)
    found[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
    return found


def _extended(pixels: NDArray[np.uint8], sides: list[int]) -> NDArray[np.uint8]:
    left, top, right, bottom = sides
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")


def _png(pixels: NDArray[Any]) -> str:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")


_MODELS: Final[Mapping[str, Callable[[Body, Rejected], JSON]]] = {
    "amazon.titan-embed-image": _titan,
    "amazon.nova-2-multimodal-embeddings": _nova,
    "cohere.embed-v4": _cohere,
    "twelvelabs.marengo-embed-3": _marengo,
    "stability.": _stability,
    "amazon.nova-canvas": _canvas,
}
