"""An embedder that knows pictures by their colours, and texts by the colours that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vrag.backends import Backend, Context, check_options
from vrag.errors import UnsupportedRequestError, UsageError
from vrag.interfaces import Embedder
from vrag.media.ref import OpenMedia
from vrag.values.requests import Estimate, ModelRef
from vrag.values.vectors import EmbeddingSpace, Item, Purpose

__all__ = ["ColourEmbedder", "backend"]

COLOURS = {
    "black": (20, 20, 20), "white": (240, 240, 240), "grey": (128, 128, 128), "red": (200, 40, 40),
    "orange": (235, 140, 30), "yellow": (235, 215, 50), "green": (40, 150, 60), "blue": (40, 80, 200),
}  # fmt: skip


class ColourEmbedder(Embedder):
    """One number a colour, and a last one that no text and no picture is without."""

    model = ModelRef(provider="vrag-colour", id="nearest-colour@1")
    space = EmbeddingSpace(model="nearest-colour", revision="1", dimension=len(COLOURS) + 1, preprocessing="rgb-64px/1")
    modalities = frozenset({"text", "image"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        return Estimate(usd_micros=0, basis="runs on this machine")

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> NDArray[np.float32]:
        for item in items:
            if item.kind not in self.modalities:
                raise UnsupportedRequestError(f"'{item.kind}' is not one of: {', '.join(sorted(self.modalities))}.")
        rows = np.zeros((len(items), self.space.dimension))
        for number, item in enumerate(items):
            rows[number, :-1] = named(item.text or "") if item.kind == "text" else seen(item, media)
        rows[:, -1] = 0.1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def named(text: str) -> NDArray[np.float64]:
    """How often a text names each colour."""
    words = re.findall(r"[a-z]+", text.lower())
    return np.array([words.count(colour) for colour in COLOURS], dtype=np.float64)


def seen(item: Item, media: OpenMedia | None) -> NDArray[np.float64]:
    """Which part of a picture is nearest to each colour."""
    if item.media is None or media is None:
        raise UsageError("A picture comes with its ref and with `media`, which opens it.")
    with media(item.media) as stream, Image.open(stream) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((64, 64), Image.Resampling.BOX), np.float64).reshape(-1, 1, 3)
    nearest = np.linalg.norm(pixels - np.array(list(COLOURS.values())), axis=2).argmin(axis=1)
    return np.bincount(nearest, minlength=len(COLOURS)) / len(nearest)


def nearest(options: Mapping[str, Any], _context: Context) -> ColourEmbedder:
    check_options(options)
    return ColourEmbedder()


backend: Backend = {"embedder": {"nearest": nearest}}
