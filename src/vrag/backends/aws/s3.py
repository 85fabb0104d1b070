"""Bytes in an S3 bucket: media by their digest, small documents by name, all created once and checked end to end.

Sources: Amazon S3 User Guide "Prevent object overwrites with conditional writes", "Checking object integrity",
"Multipart upload limits" and "Download and upload objects with presigned URLs" (read 2026-11-20).
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final, cast

from botocore.exceptions import ClientError, HTTPClientError
from typing_extensions import override

from vrag.backends.aws.errors import translated
from vrag.backends.aws.s3_download import S3Download
from vrag.clock import Clock, SystemClock
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError
from vrag.interfaces import Storage
from vrag.media.ref import MediaRef

S3Client = Any
"""What `boto3.client("s3")` returns; its class is made at run time."""

__all__ = ["S3Storage"]

MIN_PART_BYTES: Final = 5 << 20
MAX_PARTS: Final = 10_000
MAX_PUT_BYTES: Final = 5 << 30
PAGE_KEYS: Final = 1000
MAX_PRESIGN_S: Final = 604_800
"""7 days, the most that Signature Version 4 takes; a URL of temporary credentials ends with them."""

_COPY_BYTES: Final = 1 << 18
_MEMORY_BYTES: Final = 8 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,512}")
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})
_CONFLICT: Final = frozenset({"ConditionalRequestConflict", "409", "OperationAborted"})


class S3Storage(Storage):
    """A bucket, or a part of one, with `objects/ab/abcd…` by SHA-256 and `named/…` by name.

    Every upload is conditional (`If-None-Match: *`), so a key is created once whoever else writes; S3 checks its SHA-256
    while it arrives, and a read from the start is checked against it again. A stream to upload is read once into a
    temporary file, because its digest is its key. Files from `multipart_bytes` go in parts, one after the other; a
    failed upload is aborted, so that no parts stay and cost.

    A broken download goes on where it stopped, on the same version of the object. Nothing else is repeated here: set
    the client's `Config(retries=…)`. A write whose answer was lost is recognised when the client repeats it.

    A client's connections do not survive a fork: in a forked child make a new client and a new storage.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        prefix: str = "",
        *,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        multipart_bytes: int = 64 << 20,
        part_bytes: int = 16 << 20,
        clock: Clock | None = None,
    ) -> None:
        """Use `bucket` through `client`; nothing is sent.

        Args:
            client: `boto3.client("s3", …)`.
            bucket: Its name; it exists.
            prefix: What all keys begin with, such as `vrag/brand`; a slash is put behind it.
            kms_key_id: Encrypt with this KMS key and a bucket key; None is the bucket's own setting.
            bucket_owner: The account that must own the bucket; calls on a bucket of another one are refused.
            multipart_bytes: Files from this size are uploaded in parts; at most 5 GiB.
            part_bytes: Size of a part, 5 MiB or more; larger where a file would need more than 10 000 parts.
            clock: Draws the random mark of each write.

        Raises:
            UsageError: A prefix or a size is not possible.
        """
        if prefix.strip("/"):
            _check_name(prefix.strip("/"))
        if part_bytes < MIN_PART_BYTES:
            raise UsageError(f"A part has {MIN_PART_BYTES} bytes (5 MiB) or more, not {part_bytes}.")
        if not 0 < multipart_bytes <= MAX_PUT_BYTES:
            raise UsageError(f"Multipart begins at 1 to {MAX_PUT_BYTES} bytes (5 GiB), not at {multipart_bytes}.")
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._where: dict[str, Any] = {"Bucket": bucket}
        if bucket_owner is not None:
            self._where["ExpectedBucketOwner"] = bucket_owner
        self._encryption: dict[str, Any] = {}
        if kms_key_id is not None:
            self._encryption = {
                "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id, "BucketKeyEnabled": True
            }  # fmt: skip
        self._multipart_bytes = multipart_bytes
        self._part_bytes = part_bytes
        self._clock = clock or SystemClock()
        self._pid = os.getpid()

    @override
    def put(self, stream: BinaryIO, media_type: str) -> MediaRef:
        try:
            MediaRef(sha256="0" * 64, media_type=media_type, size_bytes=0)
        except (ValueError, TypeError):
            raise UsageError(f"'{media_type}' is no media type; one looks like 'image/jpeg'.") from None
        with _spooled(stream) as (file, sha256, size_bytes):
            ref = MediaRef(sha256=sha256, media_type=media_type, size_bytes=size_bytes)
            # A large file that is there already need not travel; for a small one the question costs as much.
            if size_bytes < self._multipart_bytes or not self.exists(ref):
                self._create(self._key(ref), file, ref)
        return ref

    @override
    def put_named(self, name: str, stream: BinaryIO) -> None:
        key = self._key(name)
        with _spooled(stream) as (file, sha256, size_bytes):
            ref = MediaRef(sha256=sha256, media_type="application/octet-stream", size_bytes=size_bytes)
            if not self._create(key, file, ref):
                raise AlreadyExistsError(f"The name '{name}' is taken; what is stored is never changed.")

    @override
    def open(self, key: MediaRef | str, offset: int = 0) -> BinaryIO:
        """Open bytes for reading from `offset`; see `Storage.open`.

        The stream can seek, with a new request each time. A read from the start is checked as it goes on; one that
        leaves bytes out cannot be, and neither can an `offset` above 0. Named documents are checked against the digest
        that was stored with them.
        """
        if offset < 0:
            raise UsageError(f"The offset {offset} is below 0.")
        where = {**self._where, "Key": self._key(key)}
        raw = S3Download(self._same_process(), where, offset, key if isinstance(key, MediaRef) else None)
        return cast("BinaryIO", io.BufferedReader(raw, _COPY_BYTES))

    @override
    def exists(self, key: MediaRef | str) -> bool:
        return self._head(self._key(key)) is not None

    @override
    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that begin with `prefix`, sorted, by pages of 1 000; see `Storage.list`."""
        root = self._prefix + "named/"
        pages = (
            self._same_process()
            .get_paginator("list_objects_v2")
            .paginate(**self._where, Prefix=root + prefix, PaginationConfig={"PageSize": PAGE_KEYS})
        )
        with translated("ListObjectsV2", "s3"):
            for page in pages:
                for found in page.get("Contents", ()):
                    # What somebody else put here is not one of ours.
                    if _is_name(name := found.get("Key", "")[len(root) :]):
                        yield name

    @override
    def delete(self, key: MediaRef | str) -> None:
        """Remove it; a missing key is no error. In a bucket with versions the older ones stay, as its rules say."""
        with translated("DeleteObject", "s3"):
            self._same_process().delete_object(**self._where, Key=self._key(key))

    @override
    def uri(self, key: MediaRef | str) -> str:
        return f"s3://{self._bucket}/{self._key(key)}"

    def presign(self, key: MediaRef | str, expires_s: int = 3600) -> str:
        """A URL that lets whoever has it read these bytes, as often as they like, until it expires; nothing is sent.

        It ends earlier if the credentials that signed it do. It is a secret: `uri` is the name for records.

        Raises:
            UsageError: `expires_s` is not 1 to 604 800 (7 days).
        """
        if not 1 <= expires_s <= MAX_PRESIGN_S:
            raise UsageError(f"A presigned URL lives 1 to {MAX_PRESIGN_S} s (7 days), not {expires_s} s.")
        with translated("GetObject", "s3"):
            where = {"Bucket": self._bucket, "Key": self._key(key)}
            return str(self._same_process().generate_presigned_url("get_object", Params=where, ExpiresIn=expires_s))

    def _same_process(self) -> S3Client:
        if self._pid != os.getpid():
            raise UsageError(
                "This storage was made in another process, and its connections cannot be shared.",
                hint="make a new client and a new S3Storage after the fork",
            )
        return self._client

    def _key(self, key: MediaRef | str) -> str:
        if isinstance(key, MediaRef):
            return f"{self._prefix}objects/{key.sha256[:2]}/{key.sha256}"
        _check_name(key)
        return f"{self._prefix}named/{key}"

    def _head(self, key: str) -> dict[str, Any] | None:
        client = self._same_process()
        try:
            with translated("HeadObject", "s3"):
                return cast("dict[str, Any]", client.head_object(**self._where, Key=key))
        except NotFoundError:
            return None

    def _create(self, key: str, file: BinaryIO, ref: MediaRef) -> bool:
        """Upload `file` unless the key exists; whether it was this call that created it."""
        client = self._same_process()
        mark = self._clock.token_bytes(16).hex()
        about: dict[str, Any] = {
            "Key": key,
            "ContentType": ref.media_type,
            "Metadata": {"sha256": ref.sha256, "write": mark},
            **self._where,
            **self._encryption,
        }
        in_parts = ref.size_bytes >= self._multipart_bytes
        with translated("CompleteMultipartUpload" if in_parts else "PutObject", "s3"):
            try:
                if in_parts:
                    self._upload_parts(client, about, file, ref.size_bytes)
                else:
                    sha256 = base64.b64encode(bytes.fromhex(ref.sha256)).decode()
                    client.put_object(**about, Body=file, ChecksumSHA256=sha256, IfNoneMatch="*")
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code not in _TAKEN | _CONFLICT:
                    raise
                there = self._head(key)
                if there is None and code in _CONFLICT:
                    raise  # another write is under way and may still fail: try again
                # Ours after all: it was written, its answer was lost, and the client sent it again.
                return there is not None and there.get("Metadata", {}).get("write") == mark
        return True

    def _upload_parts(self, client: S3Client, about: dict[str, Any], file: BinaryIO, size_bytes: int) -> None:
        part_bytes = max(self._part_bytes, -(-size_bytes // MAX_PARTS))
        upload_id = client.create_multipart_upload(**about, ChecksumAlgorithm="SHA256")["UploadId"]
        upload = {**self._where, "Key": about["Key"], "UploadId": upload_id}
        try:
            parts: list[dict[str, Any]] = []
            while data := file.read(part_bytes):
                sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
                number = len(parts) + 1
                answer = client.upload_part(**upload, PartNumber=number, Body=data, ChecksumSHA256=sha256)
                parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": sha256})
            client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*", MpuObjectSize=size_bytes
            )
        except BaseException:
            # What is not aborted is kept and paid for. The first error is the one to tell.
            with suppress(ClientError, HTTPClientError):
                client.abort_multipart_upload(**upload)
            raise


@contextmanager
def _spooled(stream: BinaryIO) -> Iterator[tuple[BinaryIO, str, int]]:
    """All bytes of `stream` in a temporary file, at its start, with their digest and number."""
    digest, size_bytes = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as file:
        while chunk := stream.read(_COPY_BYTES):
            digest.update(chunk)
            file.write(chunk)
            size_bytes += len(chunk)
        file.seek(0)
        yield cast("BinaryIO", file), digest.hexdigest(), size_bytes


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not any(part in {"", ".", ".."} for part in name.split("/"))


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise UsageError(
            f"{name[:80]!a} is no name to store under: 1 to 512 of a-z A-Z 0-9 . _ - /, without empty, '.' or '..' parts."
        )
