"""Nova Multimodal Embeddings: texts and pictures, indexed and asked for in different ways.

Source: Amazon Nova User Guide "Complete embeddings request and response schema" and "Using Nova Embeddings" (2026-11-20).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from vrag.backends.aws.embedding import BedrockEmbedder, Content
from vrag.errors import UsageError
from vrag.values.canonical import JSON
from vrag.values.vectors import Purpose

__all__ = ["NovaEmbedder", "decode_answer", "encode_request"]

_RETRIEVALS: Final = ("GENERIC_RETRIEVAL", "TEXT_RETRIEVAL", "IMAGE_RETRIEVAL", "DOCUMENT_RETRIEVAL", "VIDEO_RETRIEVAL")


def encode_request(content: Content, purpose: str, dimension: int) -> dict[str, JSON]:
    """The body for one text or one picture.

    Args:
        content: What is embedded.
        purpose: `GENERIC_INDEX`, or a retrieval of what is stored.
        dimension: Length of the vector.
    """
    what: dict[str, JSON] = {"text": {"truncationMode": "END", "value": content.text}}
    if content.image is not None:
        source = {"bytes": base64.b64encode(content.image).decode("ascii")}
        kind = content.media_type.partition("/")[2]
        what = {"image": {"format": kind, "detailLevel": "STANDARD_IMAGE", "source": source}}
    return {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {"embeddingPurpose": purpose, "embeddingDimension": dimension, **what},
    }


def decode_answer(answer: Mapping[str, Any]) -> list[float]:
    """The vector of an answer; empty where it holds none."""
    told = answer.get("embeddings") or [{}]
    vector: list[float] = told[0].get("embedding") or []
    return vector


class NovaEmbedder(BedrockEmbedder):
    """`amazon.nova-2-multimodal-embeddings-v1:0`, in us-east-1."""

    preprocessing = "cut-8192-characters, fit-2048-px/1"

    def __init__(
        self,
        client: Any,
        *,
        model_id: str = "amazon.nova-2-multimodal-embeddings-v1:0",
        dimension: int = 1024,
        retrieval: str = "GENERIC_RETRIEVAL",
        **more: Any,
    ) -> None:
        """As `BedrockEmbedder`; vectors of 256, 384, 1024 or 3072 numbers.

        `retrieval` says what is stored, for questions: `GENERIC_RETRIEVAL`, `IMAGE_RETRIEVAL` …

        Raises:
            UsageError: `retrieval` is none of them.
        """
        super().__init__(client, model_id=model_id, dimension=dimension, **more)
        if retrieval not in _RETRIEVALS:
            raise UsageError(f"'{retrieval}' is no retrieval of Nova; allowed: {', '.join(_RETRIEVALS)}.")
        self._retrieval = retrieval

    @override
    def cut(self, text: str) -> str:
        return text[: int(self._known.limit("text_chars").max or 0)]

    @override
    def encode(self, contents: Sequence[Content], purpose: Purpose) -> JSON:
        wanted = "GENERIC_INDEX" if purpose == "index" else self._retrieval
        return encode_request(contents[0], wanted, self.space.dimension)

    @override
    def decode(self, answer: Mapping[str, Any], count: int) -> list[list[float]]:
        return [decode_answer(answer)]
