"""Pictures below a prefix of an S3 bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from vrag.errors import AccessDeniedError, BackendError, NotFoundError
from vrag.knowledge.sources import (
    NotTaken,
    SourcePicture,
    judged_by_suffix,
    read_capped,
    sidecar_names,
    source_id,
    with_sidecar,
)
from vrag.media.header import ImageLimits
from vrag.media.names import shown

__all__ = ["S3Source"]

_DENIED: Final = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_GONE: Final = frozenset({"NoSuchKey", "404", "412", "PreconditionFailed", "InvalidObjectState", "InvalidRange"})


class S3Source:
    """Every picture below a prefix, in the order of keys; sidecars beside them count as in a folder.

    The bucket is listed by pages, while pictures are fetched. An object that was replaced since it was listed is not
    taken: run again.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "", *, max_bytes: int = ImageLimits().max_bytes) -> None:
        """Join the parts; nothing is asked yet.

        Args:
            client: A ready-made `boto3.client("s3")`; its credentials, region and retries are the caller's.
            bucket: Its name.
            prefix: What keys begin with; `photos/` is a folder, `photos` also finds `photos-old/`.
            max_bytes: Of one picture; a larger one is not fetched.
        """
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._max_bytes = max_bytes

    @property
    def source_id(self) -> str:
        """Names the prefix in the index, so that pictures that vanish from it can be told."""
        return source_id("s3", f"{self._bucket}/{self._prefix}")

    def __iter__(self) -> Iterator[SourcePicture | NotTaken]:
        # Keys come sorted, so a picture and its sidecars, which share its name up to the first dot, come together.
        for _, group in groupby(self._listed(), key=lambda found: _family(found["Key"])):
            family = {found["Key"]: found for found in group}
            for key, found in family.items():
                entry = self._entry(key, found, family)
                if entry is not None:
                    yield entry

    def _listed(self) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            with _translated("list", self._bucket):
                page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **token)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _entry(
        self, key: str, found: dict[str, Any], family: dict[str, dict[str, Any]]
    ) -> SourcePicture | NotTaken | None:
        inside = key.removeprefix(self._prefix).lstrip("/")
        parts = PurePosixPath(inside).parts
        if key.endswith("/") or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return None
        name = shown(inside or key.rpartition("/")[2])
        judged = judged_by_suffix(name, PurePosixPath(key).suffix)
        if judged is not True:
            return judged
        if found["Size"] > self._max_bytes:
            reason = f"It has {found['Size'] / (1 << 20):.1f} MiB; {self._max_bytes / (1 << 20):g} are allowed."
            return NotTaken(name=name, code="too_large", reason=reason)
        folder, _, last = key.rpartition("/")
        around = f"{folder}/" if folder else ""
        beside = next((around + one for one in sidecar_names(last) if around + one in family), None)
        read = partial(self._read_text, family[beside]) if beside is not None else str
        return with_sidecar(
            name, partial(self._open, found, self._max_bytes), beside and PurePosixPath(beside).name, read
        )

    def _read_text(self, found: dict[str, Any]) -> str:
        return read_capped(self._open(found, 1 << 21))

    def _open(self, found: dict[str, Any], max_bytes: int) -> BinaryIO:
        """All of an object, but at most one byte more than allowed: a body that ends early is seen here."""
        key = found["Key"]
        with _translated("get", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=found["ETag"])
            with answer["Body"] as body:
                data = cast("Callable[[int], bytes]", body.read)(max_bytes + 1)
            if len(data) < min(found["Size"], max_bytes + 1):
                raise OSError("its bytes ended early")
        return BytesIO(data)


def _family(key: str) -> str:
    folder, _, last = key.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}."


@contextmanager
def _translated(operation: str, what: str) -> Iterator[None]:
    """What concerns one object is an OSError, which rejects that picture; the rest stops the ingest."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        request_id = error.response.get("ResponseMetadata", {}).get("RequestId")
        if operation == "get" and code in _GONE:
            raise FileNotFoundError(f"it is gone, archived, or was replaced since it was listed ({code})") from None
        if operation == "get" and code in _DENIED:
            raise PermissionError(f"the bucket does not let it be read ({code})") from None
        if code == "NoSuchBucket":
            raise NotFoundError(f"There is no bucket '{shown(what)}'.", hint="check its name and region") from None
        kind = AccessDeniedError if code in _DENIED else BackendError
        raise kind(
            f"S3 could not {operation} '{shown(what)}': {code}.",
            backend="s3",
            operation=operation,
            request_id=request_id,
            retryable=code in {"SlowDown", "InternalError", "ServiceUnavailable", "503", "500"},
        ) from error
    except BotoCoreError as error:
        raise BackendError(
            f"S3 could not {operation} '{shown(what)}': {type(error).__name__}.",
            backend="s3",
            operation=operation,
            retryable=True,
        ) from error
