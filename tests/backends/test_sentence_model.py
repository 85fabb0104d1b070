"""Sentence models from folders: the contract, what the folder says, and folders that cannot be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from vrag.testing.contracts import EmbedderContract
from vrag.values.vectors import Item

pytest.importorskip("onnxruntime")

from vrag.backends.local.sentence_model import SentenceModelEmbedder


class TestSentenceModelEmbedder(EmbedderContract):
    @pytest.fixture(autouse=True)
    def _folder(self, sentence_folder):
        self.folder = sentence_folder()

    def make(self, tmp_path):
        return SentenceModelEmbedder(self.folder)

    def sent(self, backend):
        return 0


def embed(embedder, *texts):
    return embedder.embed([Item(kind="text", text=text) for text in texts], "index")


def test_a_text_is_the_mean_of_its_tokens(sentence_folder):
    embedder = SentenceModelEmbedder(sentence_folder(special=False))
    whole, red, shoes = embed(embedder, "red shoes", "red", "shoes")
    lengths = [np.linalg.norm(embedder._row(word, 8)) for word in ("red", "shoes")]
    mean = red * lengths[0] + shoes * lengths[1]
    assert np.allclose(whole, mean / np.linalg.norm(mean), atol=1e-6)
