"""The folder storage under the contract of `Storage`."""

from __future__ import annotations

from vrag.backends.local.storage import FolderStorage
from vrag.testing.contracts import StorageContract


class TestFolderStorage(StorageContract):
    def make(self, tmp_path):
        return FolderStorage(tmp_path / "storage")

    def tamper(self, backend, ref, data):
        path = backend._root / "objects" / ref.sha256[:2] / ref.sha256
        path.chmod(0o644)
        path.write_bytes(data)

    def object_count(self, backend):
        return sum(path.is_file() for path in (backend._root / "objects").rglob("*"))
