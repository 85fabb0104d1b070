"""Cohere Embed v4: up to 96 texts a call, or one picture; indexed and asked for in different ways.

Source: Amazon Bedrock User Guide "Cohere Embed v4" (2026-11-20).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from vrag.backends.aws.embedding import BedrockEmbedder, Content
from vrag.values.canonical import JSON
from vrag.values.vectors import Purpose

__all__ = ["CohereEmbedder", "decode_answer", "encode_request"]

_TYPES: Final = {"index": "search_document", "query": "search_query"}


def encode_request(contents: Sequence[Content], purpose: Purpose, dimension: int) -> dict[str, JSON]:
    """The body for some texts, or for one picture."""
    first = contents[0]
    what: dict[str, JSON] = {"texts": [content.text for content in contents]}
    if first.image is not None:
        what = {"images": [f"data:{first.media_type};base64,{base64.b64encode(first.image).decode('ascii')}"]}
    return {
        "input_type": _TYPES[purpose],
        **what,
        "embedding_types": ["float"],
        "output_dimension": dimension,
        "truncate": "RIGHT",
    }


def decode_answer(answer: Mapping[str, Any]) -> list[list[float]]:
    """The vectors of an answer: keyed by type where types were asked for, else a list."""
    told = answer.get("embeddings") or []
    vectors: list[list[float]] = told.get("float", []) if isinstance(told, dict) else told
    return vectors


class CohereEmbedder(BedrockEmbedder):
    """`cohere.embed-v4:0`."""

    batch = 96
    preprocessing = "cut-by-model, fit-1536-px/1"
    max_side_px = 1536

    def __init__(self, client: Any, *, model_id: str = "cohere.embed-v4:0", dimension: int = 1024, **more: Any) -> None:
        """As `BedrockEmbedder`; vectors of 256, 512, 1024 or 1536 numbers."""
        super().__init__(client, model_id=model_id, dimension=dimension, **more)

    @override
    def encode(self, contents: Sequence[Content], purpose: Purpose) -> JSON:
        return encode_request(contents, purpose, self.space.dimension)

    @override
    def decode(self, answer: Mapping[str, Any], count: int) -> list[list[float]]:
        return decode_answer(answer)
