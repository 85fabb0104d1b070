"""Models for texts and pictures from folders: the contract, what is done to pictures, and hostile folders."""

from __future__ import annotations

import pytest

from vrag.testing.contracts import EmbedderContract

pytest.importorskip("onnxruntime")

from vrag.backends.local.clip_model import ClipModelEmbedder


class ClipContract(EmbedderContract):
    options = {}

    @pytest.fixture(autouse=True)
    def _folder(self, clip_folder):
        self.folder = clip_folder(**self.options)

    def make(self, tmp_path):
        return ClipModelEmbedder(self.folder)

    def sent(self, backend):
        return 0


class TestClipInTwoFiles(ClipContract):
    options = {}


class TestClipInOneFile(ClipContract):
    options = {"together": True}


class TestSiglip(ClipContract):
    options = {"kind": "siglip"}
