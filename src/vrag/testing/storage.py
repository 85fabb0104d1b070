"""A storage in memory."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from threading import Lock
from typing import BinaryIO

from typing_extensions import override

from vrag.errors import AlreadyExistsError, NotFoundError, UsageError, VerificationError
from vrag.interfaces import Storage
from vrag.media.ref import MediaRef, sha256_hex
from vrag.testing.faults import Call, Faults

__all__ = ["FakeStorage"]

_NAME = re.compile(r"[a-zA-Z0-9._/-]{1,512}")


class FakeStorage(Storage):
    """Bytes in two dictionaries: by digest and by name."""

    def __init__(self) -> None:
        self.faults = Faults("put", "put_named", "open", "exists", "list", "delete")
        self._objects: dict[str, bytes] = {}
        self._documents: dict[str, bytes] = {}
        self._lock = Lock()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call, in order."""
        return self.faults.calls

    @property
    def object_count(self) -> int:
        """How many different bytes are kept by digest."""
        with self._lock:
            return len(self._objects)

    def tamper(self, key: MediaRef | str, data: bytes) -> None:
        """Change what is stored, as a broken disk or an intruder would."""
        with self._lock:
            self._shelf(key)[_label(key)] = data

    @override
    def put(self, stream: BinaryIO, media_type: str) -> MediaRef:
        data = stream.read()
        with self.faults.at("put", media_type=media_type), self._lock:
            ref = MediaRef(sha256=sha256_hex(data), media_type=media_type, size_bytes=len(data))
            self._objects.setdefault(ref.sha256, data)
            return ref

    @override
    def put_named(self, name: str, stream: BinaryIO) -> None:
        _check_name(name)
        data = stream.read()
        with self.faults.at("put_named", name=name), self._lock:
            if name in self._documents:
                raise AlreadyExistsError(f"The name '{name}' is taken; names are written once.")
            self._documents[name] = data

    @override
    def open(self, key: MediaRef | str, offset: int = 0) -> BinaryIO:
        label = _label(key)
        with self.faults.at("open", key=key, offset=offset):
            with self._lock:
                data = self._shelf(key).get(label)
            if data is None:
                raise NotFoundError(f"Nothing is stored as '{label}'.")
            if isinstance(key, MediaRef) and offset == 0 and sha256_hex(data) != key.sha256:
                raise VerificationError(f"The bytes of {key.sha256} have changed in the store.", promise="bytes")
            return io.BytesIO(data[offset:])

    @override
    def exists(self, key: MediaRef | str) -> bool:
        label = _label(key)
        with self.faults.at("exists", key=key), self._lock:
            return label in self._shelf(key)

    @override
    def list(self, prefix: str = "") -> Iterator[str]:
        with self.faults.at("list", prefix=prefix), self._lock:
            return iter(sorted(name for name in self._documents if name.startswith(prefix)))

    @override
    def delete(self, key: MediaRef | str) -> None:
        label = _label(key)
        with self.faults.at("delete", key=key), self._lock:
            self._shelf(key).pop(label, None)

    @override
    def uri(self, key: MediaRef | str) -> str:
        return f"memory:///{'sha256' if isinstance(key, MediaRef) else 'names'}/{_label(key)}"

    def _shelf(self, key: MediaRef | str) -> dict[str, bytes]:
        return self._objects if isinstance(key, MediaRef) else self._documents


def _label(key: MediaRef | str) -> str:
    return key.sha256 if isinstance(key, MediaRef) else _check_name(key)


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise UsageError(
            f"A name is 1 to 512 of a-z A-Z 0-9 . _ - / without empty, '.' or '..' parts, not '{name[:80]}'."
        )
    return name
