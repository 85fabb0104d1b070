"""Titan Multimodal Embeddings G1: texts and pictures in one space; it has no purpose switch.

Source: Amazon Bedrock User Guide "Amazon Titan Multimodal Embeddings G1" (2026-11-20). Its limit of text is 256 tokens;
third parties say 128. Texts are cut by an estimate that is rather too careful.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from vrag.backends.aws.embedding import BedrockEmbedder, Content
from vrag.backends.aws.text import cut_to_tokens
from vrag.errors import BackendError
from vrag.values.canonical import JSON
from vrag.values.vectors import Purpose

__all__ = ["TitanEmbedder", "decode_answer", "encode_request"]


def encode_request(content: Content, dimension: int) -> dict[str, JSON]:
    """The body for one text or one picture."""
    what = {"inputText": content.text}
    if content.image is not None:
        what = {"inputImage": base64.b64encode(content.image).decode("ascii")}
    return {**what, "embeddingConfig": {"outputEmbeddingLength": dimension}}


def decode_answer(answer: Mapping[str, Any]) -> list[float]:
    """The vector of an answer.

    Raises:
        BackendError: The answer holds a message: an error inside an HTTP 200.
    """
    if answer.get("message"):
        raise BackendError(
            f"Titan Multimodal Embeddings: {answer['message']}", backend="bedrock", operation="InvokeModel"
        )
    vector: list[float] = answer.get("embedding") or []
    return vector


class TitanEmbedder(BedrockEmbedder):
    """`amazon.titan-embed-image-v1`."""

    preprocessing = "cut-256-tokens, fit-2048-px/1"

    def __init__(
        self, client: Any, *, model_id: str = "amazon.titan-embed-image-v1", dimension: int = 1024, **more: Any
    ) -> None:
        """As `BedrockEmbedder`; vectors of 256, 384 or 1024 numbers."""
        super().__init__(client, model_id=model_id, dimension=dimension, **more)

    @override
    def cut(self, text: str) -> str:
        return cut_to_tokens(text[:4096], int(self._known.limit("text_tokens").max or 0))

    @override
    def encode(self, contents: Sequence[Content], purpose: Purpose) -> JSON:
        return encode_request(contents[0], self.space.dimension)

    @override
    def decode(self, answer: Mapping[str, Any], count: int) -> list[list[float]]:
        return [decode_answer(answer)]
