"""A download from S3 that can be read like a file: resumed where a connection broke, and checked against its digest."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Final, cast

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from typing_extensions import Buffer, override

from vrag.backends.aws.errors import translated
from vrag.errors import BackendError, NotFoundError, VerificationError
from vrag.media.ref import MediaRef

__all__ = ["S3Download"]

_FRUITLESS_RESUMES: Final = 3
_BROKEN: Final = (HTTPClientError, IncompleteReadError, ResponseStreamingError)


class S3Download(io.RawIOBase):
    """An object that is read from S3 as it is asked for, resumed where a connection broke, and checked."""

    def __init__(self, client: Any, where: dict[str, Any], offset: int, ref: MediaRef | None) -> None:
        super().__init__()
        self._client = client
        self._where = where
        self._ref = ref
        self._position = offset
        self._etag: str | None = None
        self._body: Any = None
        self._digest = hashlib.sha256()
        self._checked_bytes = 0
        self._size_bytes, self._sha256 = self._begin()
        if ref is not None:
            self._sha256 = ref.sha256

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        target = max(0, base + offset)
        if target != self._position:
            self._drop()
            self._position = target
        return target

    @override
    def close(self) -> None:
        self._drop()
        super().close()

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        self._check(data)
        self._position += len(data)
        return len(data)

    def _read(self, count: int) -> bytes:
        fruitless = 0
        while self._position < self._size_bytes and count:
            try:
                data = self._answer().read(min(count, self._size_bytes - self._position))
                if data:
                    return bytes(data)
            except FlexibleChecksumError:
                raise self._changed() from None
            except _BROKEN as error:
                if fruitless == _FRUITLESS_RESUMES:
                    with translated("GetObject", "s3"):
                        raise error from None
            fruitless += 1
            self._drop()
            if fruitless > _FRUITLESS_RESUMES:
                break
        if self._position < self._size_bytes and count:
            raise BackendError(
                f"The download of '{self._where['Key']}' broke off at byte {self._position} of {self._size_bytes}.",
                backend="s3",
                operation="GetObject",
                retryable=True,
            )
        return b""

    def _answer(self) -> Any:
        if self._body is None:
            self._begin()
        return self._body

    def _begin(self) -> tuple[int, str | None]:
        """Ask for the bytes from where we stand, of the version that was first answered; its size and digest."""
        options = dict(self._where)
        if self._position:
            options["Range"] = f"bytes={self._position}-"
        if self._etag is not None:
            options["IfMatch"] = self._etag
        key = self._where["Key"]
        try:
            with translated("GetObject", "s3"):
                try:
                    answer = cast("dict[str, Any]", self._client.get_object(**options))
                except ClientError as error:
                    code = error.response.get("Error", {}).get("Code")
                    if code in {"PreconditionFailed", "412"}:
                        raise self._changed() from None
                    if code not in {"InvalidRange", "416"}:
                        raise
                    return self._position, None  # at the end or behind it
        except NotFoundError as error:
            raise NotFoundError(f"There is no '{key}' in the bucket '{self._where['Bucket']}'.") from error
        self._body, self._etag = answer["Body"], answer["ETag"]
        whole = answer.get("ContentRange", "").rpartition("/")[2]
        size_bytes = int(whole) if whole.isdecimal() else int(answer["ContentLength"])
        return size_bytes, answer.get("Metadata", {}).get("sha256")

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def _check(self, data: bytes) -> None:
        """Hash what comes next after what was hashed; compare at the end."""
        skip = self._checked_bytes - self._position
        if 0 <= skip <= len(data):
            self._digest.update(memoryview(data)[skip:])
            self._checked_bytes = self._position + len(data)
        if self._checked_bytes != self._size_bytes or self._position + len(data) != self._size_bytes:
            return
        expected = self._size_bytes if self._ref is None else self._ref.size_bytes
        if self._size_bytes != expected or self._sha256 not in {None, self._digest.hexdigest()}:
            raise self._changed()

    def _changed(self) -> VerificationError:
        return VerificationError(
            f"The bytes of '{self._where['Key']}' are not those that were put: the object was changed, or damaged on "
            "its way.",
            promise="media",
            hint="read it again; if it stays so, restore an older version of the object, or put the original again",
        )
