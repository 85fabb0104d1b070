"""Captions by the Converse API, with any model or inference profile that sees pictures.

The model is asked for a JSON object with a sentence and tags: no feature of one model is needed. Text that is no JSON is
taken as the caption.

Sources: service model of `bedrock-runtime` in botocore; Amazon Nova User Guide "Multimodal understanding" (2026-11-20).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve
from typing_extensions import override

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.errors import translated
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError, ContentRejectedError
from vrag.generation.catalogue import Catalogue
from vrag.interfaces import Captioner
from vrag.media.image import thumbnail
from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.canonical import JSON
from vrag.values.requests import CaptionResult, Estimate, ModelRef

__all__ = ["BedrockCaptioner", "decode_answer", "encode_request"]

_SYSTEM: Final = "You describe pictures for a picture library, plainly and only by what can be seen."
_PROMPT: Final = (
    'Answer with one JSON object and nothing else: {"caption": "<one sentence>", "tags": ["<word>", …]}. '
    "Name the main subject, its colours and the setting. Give 3 to 8 tags in lower case."
)
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_BLOCKED: Final = frozenset({"content_filtered", "guardrail_intervened"})
_CUT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_REFUSAL: Final = re.compile(
    r"\s*(I['\u2019]m sorry|I am sorry|Sorry,|I (can ?not|can['\u2019]t|am unable|won['\u2019]t))", re.IGNORECASE
)
_CAPTION: Final = re.compile(r'"caption"\s*:\s*"((?:[^"\\]|\\.)*)')
_MAX_SIDE_PX: Final = 1536


def encode_request(
    model_id: str, image: bytes, media_type: str, *, max_tokens: int, prompt: str = _PROMPT
) -> dict[str, JSON]:
    """The parameters of Converse; bytes are raw, boto3 encodes them."""
    return {
        "modelId": model_id,
        "system": [{"text": _SYSTEM}],
        "messages": [
            {
                "role": "user",
                "content": [{"image": {"format": _FORMATS[media_type], "source": {"bytes": image}}}, {"text": prompt}],
            }
        ],
        "inferenceConfig": {"maxTokens": max_tokens, "temperature": 0.0},
    }


def decode_answer(answer: Mapping[str, Any], backend: str = "bedrock") -> CaptionResult:
    """The caption in an answer of Converse.

    Raises:
        ContentRejectedError: A filter, a guardrail or the model itself refused the picture.
        BackendError: The answer holds no text.
    """
    reason = answer.get("stopReason")
    if reason in _BLOCKED:
        raise ContentRejectedError(
            f"{backend} will not describe this picture: {reason}.", backend=backend, operation="Converse"
        )
    parts = answer.get("output", {}).get("message", {}).get("content", [])
    text = "".join(part["text"] for part in parts if "text" in part).strip()
    result = evolve(_read(text), truncated=reason in _CUT)
    if not result.text and not result.truncated:
        raise BackendError(f"{backend} answered without a caption.", backend=backend, operation="Converse")
    if _REFUSAL.match(result.text):
        raise ContentRejectedError(f"{backend} will not describe this picture.", backend=backend, operation="Converse")
    return result


def _read(text: str) -> CaptionResult:
    """Caption and tags from JSON, from JSON in other words, from the beginning of JSON, or from plain words."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    if found is not None:
        try:
            told = json.loads(found.group(), strict=False)
        except ValueError:
            told = None
        if isinstance(told, dict) and isinstance(told.get("caption"), str):
            tags = told.get("tags")
            named = [" ".join(tag.split()) for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
            return CaptionResult(text=_line(told["caption"]), tags=tuple(dict.fromkeys(tag for tag in named if tag)))
    begun = _CAPTION.search(text)
    if begun is not None:
        return CaptionResult(text=_line(re.sub(r"\\(.)", r"\1", begun.group(1))))
    return CaptionResult(text="" if text.startswith("{") else _line(text))


def _line(text: str) -> str:
    return " ".join(text.split())


class BedrockCaptioner(Captioner):
    """Describes pictures by a model on Bedrock."""

    def __init__(
        self,
        client: Any,
        *,
        model_id: str = "us.amazon.nova-2-lite-v1:0",
        max_tokens: int = 512,
        prompt: str = _PROMPT,
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use a ready-made client; nothing is sent.

        Args:
            client: A boto3 client of `bedrock-runtime`.
            model_id: Any model id or inference profile that sees pictures; it need not be in the catalogue.
            max_tokens: Where the answer is cut off.
            prompt: What is asked; it must ask for a JSON object with `caption` and `tags`.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Prices and lifecycle; by default those of this release.
            clock: Says whether the model has been retired.
        """
        self._client = client
        self._max_tokens = max_tokens
        self._prompt = prompt
        self._allow_retired = allow_retired
        self._catalogue = catalogue or Catalogue.load()
        self._clock = clock or SystemClock()
        self._known = self._catalogue.find(PROVIDER, model_id)
        self._model = ModelRef(provider=PROVIDER, id=model_id, region=client.meta.region_name, account=account)
        self._backend = f"bedrock:{model_id}"

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @override
    def estimate(self, images: Sequence[MediaRef]) -> Estimate:
        if self._known is None:
            return Estimate(usd_micros=None, basis=f"no price of {self._model.id} is known")
        a_picture = self._known.quotas["tokens_of_an_image"].max or 0
        words = math.ceil(len(_SYSTEM + self._prompt) / 3)
        amounts = {"input_token": (a_picture + words) * len(images), "output_token": self._max_tokens * len(images)}
        return self._known.estimate(amounts)

    @override
    def caption(self, image: MediaRef, media: OpenMedia) -> CaptionResult:
        if self._known is not None:
            self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        with media(image) as stream:
            # Upright and without metadata: a place or a name in EXIF stays here. Models see no more than this size.
            data = thumbnail(stream.read(), "picture", max_side_px=_MAX_SIDE_PX)
        asked = encode_request(self._model.id, data, "image/jpeg", max_tokens=self._max_tokens, prompt=self._prompt)
        with translated("Converse", self._backend):
            answer = self._client.converse(**asked)
        return decode_answer(answer, self._backend)
