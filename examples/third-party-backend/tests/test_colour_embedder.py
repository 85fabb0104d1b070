from __future__ import annotations

from pathlib import Path

from typing_extensions import override
from vrag_colour import ColourEmbedder

from vrag.interfaces import Embedder
from vrag.testing import SampleMedia
from vrag.testing.contracts import EmbedderContract
from vrag.values.vectors import Item


class TestColourEmbedder(EmbedderContract):
    @override
    def make(self, tmp_path: Path) -> Embedder:
        return ColourEmbedder()

    @override
    def sent(self, backend: Embedder) -> int:
        return 0  # it runs in this process


def test_red_finds_the_red_picture() -> None:
    media = SampleMedia()
    pictures = [Item(kind="image", media=media.picture(number)) for number in range(9)]
    rows = ColourEmbedder().embed(pictures, "index", media)
    red = ColourEmbedder().embed([Item(kind="text", text="something red")], "query")[0]
    assert (rows @ red).argmax() == 6  # the samples are black, blue, green, grey, orange, purple, red, white, yellow
