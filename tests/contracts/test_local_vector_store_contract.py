"""The embedded vector store under the contract of `VectorStore`."""

from __future__ import annotations

from vrag.backends.local.vector_store import LocalVectorStore
from vrag.testing import FAKE_SPACE
from vrag.testing.contracts import VectorStoreContract


class TestLocalVectorStore(VectorStoreContract):
    def make(self, tmp_path, space=FAKE_SPACE):
        return LocalVectorStore(tmp_path / "store", space)
