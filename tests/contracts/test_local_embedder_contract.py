"""The embedded text embedder under the contract of `Embedder`."""

from __future__ import annotations

import pytest

from vrag.testing.contracts import EmbedderContract

pytest.importorskip("wordllama", reason="the extra 'local' is not installed")


class TestWordLlamaEmbedder(EmbedderContract):
    def make(self, tmp_path):
        from vrag.backends.local.text_embedder import WordLlamaEmbedder

        return WordLlamaEmbedder()

    def sent(self, backend):
        return 0
