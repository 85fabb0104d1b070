"""Anchors: checkpoints under somebody else's lock. A bucket that nobody can empty, and a time stamp of another authority.

Sources: S3 API, `PutObject` (If-None-Match, Object Lock in COMPLIANCE mode) and `ListObjectVersions`; RFC 3161, sections 2.4
and 3.4 (time stamps over HTTP); both checked 2026-11-20.
"""

from __future__ import annotations

import base64
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from typing_extensions import override

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import MissingExtraError, NotFoundError, ProvenanceError, UsageError, VerificationError
from vrag.provenance.checkpoints import Checkpoint, CheckpointKeeper, read_checkpoint
from vrag.provenance.receipt import read_receipt
from vrag.provenance.signing import unbase64
from vrag.provenance.statement import read_statement
from vrag.workspace.ledger import Ledger, SignReceipt

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

__all__ = ["TIMESTAMP", "ObjectLockBucket", "TimeStamp", "time_stamp", "time_stamps"]

TIMESTAMP: Final = "timestamp"
"""The kind of the receipt that holds a checkpoint and its RFC 3161 token."""
STAMPED: Final = "A time stamp authority saw this checkpoint at that time"

_MAX_BYTES: Final = 64 << 10
_MAX_TOKEN_BYTES: Final = 1 << 20


class ObjectLockBucket(CheckpointKeeper):
    """Keeps every checkpoint in an S3 bucket with Object Lock: for `retain` nobody can delete one, the owner included.

    The bucket needs Object Lock, which comes with versioning. A put under a taken name is refused (`If-None-Match`); one that
    does without that condition makes another version, so the first version is the one that counts.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        *,
        prefix: str = "checkpoints",
        retain: timedelta = timedelta(days=3650),
        clock: Clock | None = None,
    ) -> None:
        """Use a ready-made boto3 `s3` client."""
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._retain = retain
        self._clock = clock or SystemClock()

    @property
    @override
    def place(self) -> str:
        return f"'s3://{self._bucket}/{self._prefix}'"

    def _call(self, operation: str, **given: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # only where it is used

        try:
            return getattr(self._client, operation)(Bucket=self._bucket, **given)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise _RefusedError(f"The anchor {self.place} refused {operation}: {code}.", code=code) from error
        except BotoCoreError as error:
            raise ProvenanceError(f"The anchor {self.place} did not answer: {type(error).__name__}.") from error

    @override
    def newest(self, ledger_id: str) -> str | None:
        found = self._call("list_object_versions", Prefix=f"{self._prefix}/{ledger_id}/", MaxKeys=1000)
        versions = found.get("Versions", ())
        # Names count down, so the first one is the newest checkpoint; its last version is the one that was put first.
        mine = [one for one in versions if one["Key"] == versions[0]["Key"]]
        return self._read(mine[-1]["Key"], mine[-1]["VersionId"]).note if mine else None

    def _read(self, key: str, version: str) -> Checkpoint:
        with self._call("get_object", Key=key, VersionId=version)["Body"] as stream:
            return read_checkpoint(stream.read(_MAX_BYTES + 1))

    @override
    def keep(self, ledger_id: str, checkpoint: Checkpoint) -> None:
        key = f"{self._prefix}/{ledger_id}/{10**19 - checkpoint.size:020d}.note"
        try:
            put = self._call(
                "put_object",
                Key=key,
                Body=checkpoint.note.encode(),
                ContentType="text/plain; charset=utf-8",
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=self._clock.now() + self._retain,
            )
        except _RefusedError as error:
            if error.aws_code not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise
            found = self._call("list_object_versions", Prefix=key)["Versions"]
            kept = self._read(key, found[-1]["VersionId"])
        else:
            if "VersionId" not in put:
                raise ProvenanceError(f"The bucket of {self.place} has no versions: Object Lock is not on.")
            kept = self._read(key, put["VersionId"])
        if (kept.origin, kept.size, kept.root) != (checkpoint.origin, checkpoint.size, checkpoint.root):
            raise VerificationError(
                f"{self.place} keeps another checkpoint of {checkpoint.size} entries: the ledger has two histories.",
                promise="The ledger is never cut back and never rewritten",
            )


class _RefusedError(ProvenanceError):
    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.aws_code = code


@frozen(kw_only=True)
class TimeStamp:
    """A checkpoint that a time stamp authority has seen."""

    checkpoint: Checkpoint
    at: str
    """When, as the authority says, RFC 3339 UTC."""
    receipt: int
    """Number of the receipt that holds it."""


def time_stamp(
    ledger: Ledger,
    checkpoint: Checkpoint,
    url: str,
    *,
    roots: Sequence[bytes],
    sign: SignReceipt,
    by: str,
    intermediates: Sequence[bytes] = (),
    timeout_s: float = 30.0,
) -> TimeStamp:
    """Have a checkpoint stamped by an RFC 3161 authority, check the token, and keep it as a signed receipt in the ledger.

    Only the SHA-256 of the note is sent.

    Args:
        ledger: Gets the receipt, which is an entry after the checkpoint.
        checkpoint: What is stamped.
        url: Of the authority, http or https.
        roots: Certificates (PEM) that its own must chain up to.
        sign: Signs the receipt.
        by: Who asked for it.
        intermediates: Certificates (PEM) between, where the answer lacks them.
        timeout_s: How long to wait for an answer.

    Raises:
        MissingExtraError: `vrag[anchor]` is not installed.
        ProvenanceError: The authority cannot be reached, or refuses.
        VerificationError: Its token does not hold.
        UsageError: `url` is no such URL, or a certificate cannot be read.
    """
    client = _client()
    request = client.TimestampRequestBuilder().data(checkpoint.note.encode()).nonce(nonce=True).build()
    answer = _post(url, request.as_bytes(), timeout_s)
    token = _decoded(answer)
    _check(token, checkpoint, roots, intermediates, nonce=request.nonce)
    body = {"note": checkpoint.note, "token": base64.b64encode(answer).decode()}
    number = ledger.add_receipt(
        kind=TIMESTAMP, subject=checkpoint.root.hex(), by=by, reason="time stamp", body=body, sign=sign
    )
    return TimeStamp(checkpoint=checkpoint, at=rfc3339(token.tst_info.gen_time), receipt=number)


def time_stamps(ledger: Ledger, *, roots: Sequence[bytes], intermediates: Sequence[bytes] = ()) -> Iterator[TimeStamp]:
    """Every time stamp in the ledger, checked again, oldest first.

    Raises:
        MissingExtraError: `vrag[anchor]` is not installed.
        VerificationError: One of them does not hold.
        UsageError: A certificate cannot be read.
    """
    for row in ledger.receipts():
        if row.kind != TIMESTAMP or row.record_id is None:
            continue
        try:
            entry = ledger.get(row.record_id)
        except NotFoundError as error:
            raise VerificationError(f"Receipt {row.seq} has no entry in the ledger.", promise=STAMPED) from error
        body = read_receipt(read_statement(_payload(entry.envelope))).body
        if not isinstance(body, dict) or not isinstance(body.get("note"), str):
            raise VerificationError(f"Receipt {row.seq} holds no checkpoint.", promise=STAMPED)
        checkpoint = read_checkpoint(body["note"])
        token = _decoded(unbase64(body.get("token"), what="time stamp"))
        _check(token, checkpoint, roots, intermediates)
        yield TimeStamp(checkpoint=checkpoint, at=rfc3339(token.tst_info.gen_time), receipt=row.seq)


def _payload(envelope: bytes) -> bytes:
    from vrag.provenance.signing import strict_json  # noqa: PLC0415  # beside its one use

    content = strict_json(envelope, what="envelope")
    return unbase64(content.get("payload") if isinstance(content, dict) else None, what="payload")


def _client() -> Any:
    try:
        import rfc3161_client  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            "Time stamps need the package rfc3161-client.", hint="pip install 'vrag[anchor]'"
        ) from error
    return rfc3161_client


def _post(url: str, body: bytes, timeout_s: float) -> bytes:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise UsageError("The time stamp authority is named by an http or https URL.", hint="--tsa https://…")
    shown = urllib.parse.urlsplit(url).hostname
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310  # checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310  # as above
            data: bytes = answer.read(_MAX_TOKEN_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        reason = error.code if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        raise ProvenanceError(f"The time stamp authority '{shown}' cannot be reached: {reason}.") from error
    if len(data) > _MAX_TOKEN_BYTES:
        raise ProvenanceError(f"The time stamp authority '{shown}' sent more than {_MAX_TOKEN_BYTES} bytes.")
    return data


def _decoded(answer: bytes) -> TimeStampResponse:
    try:
        token: TimeStampResponse = _client().decode_timestamp_response(answer)
    except ValueError as error:
        raise VerificationError("This is no answer of a time stamp authority.", promise=STAMPED) from error
    return token


def _check(
    token: TimeStampResponse,
    checkpoint: Checkpoint,
    roots: Sequence[bytes],
    intermediates: Sequence[bytes],
    *,
    nonce: int | None = None,
) -> None:
    from cryptography import x509  # noqa: PLC0415  # only where it is used

    client = _client()
    if not roots:
        raise UsageError("Give the root certificate of the time stamp authority.", hint="--tsa-root ROOT.pem")
    try:
        verifier = client.VerifierBuilder(
            roots=[one for pem in roots for one in x509.load_pem_x509_certificates(pem)],
            intermediates=[one for pem in intermediates for one in x509.load_pem_x509_certificates(pem)],
            nonce=nonce,
        ).build()
    except ValueError as error:
        raise UsageError("A certificate of the time stamp authority is not PEM.") from error
    try:
        verifier.verify_message(token, checkpoint.note.encode())
    except (client.VerificationError, ValueError) as error:
        raise VerificationError(
            f"The time stamp over the checkpoint of {checkpoint.size} entries does not hold: {error}", promise=STAMPED
        ) from error
