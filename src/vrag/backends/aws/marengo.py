"""TwelveLabs Marengo Embed 3.0: texts and pictures, vectors of 512 numbers. Those of 2.7 are not comparable with them.

Source: Amazon Bedrock User Guide "TwelveLabs Marengo Embed 3.0" (2026-11-20). The names of the members inside `text` and
`image` (`inputText`, `mediaSource.base64String`) were not found on that page and are unverified.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from vrag.backends.aws.embedding import BedrockEmbedder, Content
from vrag.backends.aws.text import cut_to_tokens
from vrag.values.canonical import JSON
from vrag.values.vectors import Purpose

__all__ = ["MarengoEmbedder", "decode_answer", "encode_request"]


def encode_request(content: Content) -> dict[str, JSON]:
    """The body for one text or one picture."""
    if content.image is None:
        return {"inputType": "text", "text": {"inputText": content.text}}
    source = {"base64String": base64.b64encode(content.image).decode("ascii")}
    return {"inputType": "image", "image": {"mediaSource": source}}


def decode_answer(answer: Mapping[str, Any]) -> list[float]:
    """The vector of an answer; empty where it holds none."""
    told = answer.get("data") or [{}]
    vector: list[float] = told[0].get("embedding") or []
    return vector


class MarengoEmbedder(BedrockEmbedder):
    """`twelvelabs.marengo-embed-3-0-v1:0`."""

    preprocessing = "cut-500-tokens, fit-1536-px/1"
    max_side_px = 1536

    def __init__(
        self, client: Any, *, model_id: str = "twelvelabs.marengo-embed-3-0-v1:0", dimension: int = 512, **more: Any
    ) -> None:
        """As `BedrockEmbedder`; vectors of 512 numbers."""
        super().__init__(client, model_id=model_id, dimension=dimension, **more)

    @override
    def cut(self, text: str) -> str:
        return cut_to_tokens(text[:8192], int(self._known.limit("text_tokens").max or 0))

    @override
    def encode(self, contents: Sequence[Content], purpose: Purpose) -> JSON:
        return encode_request(contents[0])

    @override
    def decode(self, answer: Mapping[str, Any], count: int) -> list[list[float]]:
        return [decode_answer(answer)]
