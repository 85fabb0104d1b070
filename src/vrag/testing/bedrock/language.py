"""How the fake answers Converse and ApplyGuardrail: it names colour and orientation, and blocks words."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Mapping

from PIL import Image

from vrag.generation.catalogue import Model
from vrag.testing.bedrock.wire import refuse
from vrag.testing.media import describe
from vrag.values.canonical import JSON

__all__ = ["converse", "guard"]

_MAX_GUARD_BYTES = 4_000_000
_MAX_GUARD_IMAGES = 20


def converse(model: Model, asked: Mapping[str, JSON], rejected: Callable[[], str | None]) -> JSON:
    """A caption of the picture in the last message, as JSON text; cut off after `maxTokens` words and signs.

    Raises:
        Refusal: There is no picture, or it is past a limit of the model.
    """
    if model.kind != "captioner":
        raise refuse("The model does not support the Converse API.")
    parts = asked["messages"][-1]["content"]
    images = [part["image"] for part in parts if "image" in part]
    if not images:
        raise refuse("This fake describes pictures; the message holds none.")
    data = images[-1]["source"]["bytes"]
    try:
        with Image.open(io.BytesIO(data)) as opened:
            size, kind = opened.size, (opened.format or "").lower()
    except OSError:
        raise refuse("The image could not be read. It must be raw bytes, not base64.") from None
    if kind != images[-1]["format"]:
        raise refuse("The format of the image is not the one that the request says.")
    for limit, value in (("image_bytes", len(data)), *(("image_side_px", side) for side in size)):
        if (said := model.limit(limit).refusal(value)) is not None:
            raise refuse(said)
    colour, orientation = describe(data)
    caption = f"A {orientation} picture that is mostly {colour}."
    text, reason = json.dumps({"caption": caption, "tags": [colour, orientation]}), "end_turn"
    tokens = re.findall(r"\s*(?:\w+|[^\w\s])", text)
    allowed = asked.get("inferenceConfig", {}).get("maxTokens", 4096)
    if len(tokens) > allowed:
        tokens, reason = tokens[:allowed], "max_tokens"
    if rejected() is not None:
        tokens, reason = ["The generated text has been blocked by our content filters."], "content_filtered"
    usage = {"inputTokens": 230, "outputTokens": len(tokens), "totalTokens": 230 + len(tokens)}
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "".join(tokens)}]}},
        "stopReason": reason,
        "usage": usage,
        "metrics": {"latencyMs": 1},
    }


def guard(asked: Mapping[str, JSON], blocked: Collection[str]) -> JSON:
    """Whether a guardrail steps in: for blocked words, and for pictures that are mostly purple.

    Raises:
        Refusal: A picture is too large for a guardrail.
    """
    found, characters, images = [], 0, 0
    for part in asked["content"]:
        if "text" in part:
            characters += len(part["text"]["text"])
            if {*re.findall(r"\w+", part["text"]["text"].lower())} & {*blocked}:
                found.append("VIOLENCE")
        if "image" in part:
            images += 1
            data = part["image"]["source"]["bytes"]
            if len(data) > _MAX_GUARD_BYTES:
                raise refuse("The image is larger than 4 MB.")
            if "purple" in describe(data):
                found.append("HATE")
    if images > _MAX_GUARD_IMAGES:
        raise refuse(f"A request takes at most {_MAX_GUARD_IMAGES} images.")
    filters = [
        {"type": kind, "confidence": "HIGH", "filterStrength": "HIGH", "action": "BLOCKED", "detected": True}
        for kind in found
    ]
    usage = {
        "topicPolicyUnits": 0,
        "contentPolicyUnits": -(-characters // 1000),
        "wordPolicyUnits": 0,
        "sensitiveInformationPolicyUnits": 0,
        "sensitiveInformationPolicyFreeUnits": 0,
        "contextualGroundingPolicyUnits": 0,
        "contentPolicyImageUnits": images,
    }
    coverage: dict[str, JSON] = {"textCharacters": {"guarded": characters, "total": characters}}
    return {
        "action": "GUARDRAIL_INTERVENED" if found else "NONE",
        "actionReason": "Guardrail blocked." if found else "No action.",
        "outputs": [{"text": "Blocked by the guardrail."}] if found else [],
        "assessments": [{"contentPolicy": {"filters": filters}}] if found else [],
        "usage": usage,
        "guardrailCoverage": coverage | ({"images": {"guarded": images, "total": images}} if images else {}),
    }
