"""Pictures and knowledge bases for the tests of this folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.text_embedder import WordLlamaEmbedder
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.testing import FakeClock, FakeStorage, FakeVectorStore


def make_jpeg(seed, size=(80, 64), description=None):
    ramp = Image.linear_gradient("L").resize(size)
    channels = [ramp.point(lambda v, k=k: (v * (k + 1) + seed * (37 + 11 * k)) % 256) for k in range(3)]
    exif = Image.Exif()
    if description is not None:
        exif[0x010E] = description
    out = io.BytesIO()
    Image.merge("RGB", channels).save(out, "JPEG", quality=80, exif=exif)
    return out.getvalue()


@pytest.fixture
def jpeg():
    """`jpeg(seed, size, description)`: an encoded picture; other seeds, other bytes."""
    return make_jpeg


@pytest.fixture(scope="session")
def wordllama():
    return WordLlamaEmbedder()


@pytest.fixture
def local_kb(wordllama):
    """`local_kb(folder, name)`: on the real embedded backends."""
    opened = []

    def make(folder: Path, name: str = "brand", **options) -> KnowledgeBase:
        embedder = options.pop("embedder", wordllama)
        store = LocalVectorStore(folder / name / "index", embedder.space if embedder else None)
        options.setdefault("clock", FakeClock())
        storage = FolderStorage(folder / name / "storage")
        kb = KnowledgeBase(name, store=store, storage=storage, embedder=embedder, **options)
        opened.append(kb)
        return kb

    yield make
    for kb in opened:
        kb.close()


@pytest.fixture
def fake_kb():
    """`fake_kb(name)`: words only, in memory; parts can be given."""

    def make(name: str = "brand", **parts) -> KnowledgeBase:
        parts.setdefault("store", FakeVectorStore(parts["embedder"].space if parts.get("embedder") else None))
        parts.setdefault("storage", FakeStorage())
        parts.setdefault("clock", FakeClock())
        return KnowledgeBase(name, **parts)

    return make
