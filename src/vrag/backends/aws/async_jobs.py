"""StartAsyncInvoke, GetAsyncInvoke and ListAsyncInvokes: jobs of Amazon Bedrock with tokens, and the files they leave in S3.

Sources: Amazon Bedrock API Reference "StartAsyncInvoke", "GetAsyncInvoke", "ListAsyncInvokes" and the service model of
`bedrock-runtime` in botocore (2026-11-20).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final

from attrs import frozen
from botocore.exceptions import ClientError
from typing_extensions import override

from vrag.backends.aws.errors import translated, without_secrets
from vrag.errors import NotFoundError, UnsupportedRequestError, UsageError
from vrag.values.canonical import JSON
from vrag.values.jobs import Fault, Handle

__all__ = ["PROVIDER", "AsyncJobs", "Summary", "decode_failure", "decode_summary", "encode_start"]

PROVIDER: Final = "aws-bedrock"
_TOKEN: Final = re.compile(r"[!-~]{1,256}")
_ARN: Final = re.compile(r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:async-invoke/[a-z0-9]{12}")
_OUTPUT_URI: Final = re.compile(r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?")
_PAGE: Final = 1000
# A page shows up to 1000 jobs; while it may still stand for so many single questions, one more is worth its call.
_GETS_A_PAGE: Final = 100
_FEW: Final = 2
_UNKNOWN: Final = frozenset({"ValidationException", "ResourceNotFoundException"})


@frozen(kw_only=True)
class Summary:
    """One job as Get and List tell of it."""

    arn: str
    token: str | None
    status: str
    """`InProgress`, `Completed` or `Failed`."""
    failure: str | None
    submitted_at: datetime
    bucket: str
    prefix: str
    """Of the job's own folder, ending in `/`."""


def encode_start(
    model_id: str,
    model_input: JSON,
    token: str,
    output_uri: str,
    *,
    kms_key_id: str | None = None,
    bucket_owner: str | None = None,
) -> dict[str, JSON]:
    """The parameters of StartAsyncInvoke."""
    output = {"s3Uri": output_uri}
    if kms_key_id is not None:
        output["kmsKeyId"] = kms_key_id
    if bucket_owner is not None:
        output["bucketOwner"] = bucket_owner
    return {
        "modelId": model_id,
        "modelInput": model_input,
        "outputDataConfig": {"s3OutputDataConfig": output},
        "clientRequestToken": token,
    }


def decode_summary(told: Mapping[str, Any]) -> Summary:
    """One answer of GetAsyncInvoke, or one summary of ListAsyncInvokes, as boto3 gives it.

    The folder of the job is told with the id of the invocation at its end; it is added where it is not.
    """
    arn: str = told["invocationArn"]
    number = arn.rpartition("/")[2]
    uri: str = told["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    if prefix.rpartition("/")[2] != number:
        prefix = f"{prefix}/{number}".lstrip("/")
    return Summary(
        arn=arn,
        token=told.get("clientRequestToken"),
        status=told.get("status", "InProgress"),
        failure=told.get("failureMessage"),
        submitted_at=told["submitTime"],
        bucket=bucket,
        prefix=f"{prefix}/",
    )


def decode_failure(message: str) -> Fault:
    """Why a job failed, from its `failureMessage`."""
    said = without_secrets(message) or "Amazon Bedrock gave no reason."
    lower = message.lower()
    if "content filter" in lower or "rai_violation" in lower:
        return Fault(code="moderation", message=said)
    if "end of its life" in lower or "provider as legacy" in lower:
        return Fault(code="retired", message=said)
    if "rate limit" in lower or "throttl" in lower or "too many" in lower:
        return Fault(code="throttled", message=said, retryable=True)
    if "valid" in lower or "malformed" in lower:
        return Fault(code="validation", message=said)
    return Fault(code="service", message=said, retryable=True)


class AsyncJobs:
    """The jobs of one model; safe to use from many threads."""

    def __init__(
        self,
        *,
        bedrock: Any,
        s3: Any,
        output_uri: str,
        model_id: str,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
    ) -> None:
        """Use ready-made clients; nothing is sent.

        Args:
            bedrock: A boto3 client of `bedrock-runtime`, in a Region that has the model.
            s3: A boto3 client of `s3` that may read and list what Bedrock writes.
            output_uri: `s3://bucket/prefix`, in the Region of the call; each job gets a folder of its own below.
            model_id: The id of the model.
            kms_key_id: ARN of the key that the output is encrypted with.
            bucket_owner: Account number of the bucket's owner.

        Raises:
            UsageError: The address is none.
        """
        if not _OUTPUT_URI.fullmatch(output_uri) or len(output_uri) > 1024:
            raise UsageError(
                f"'{without_secrets(output_uri)}' is no folder in S3 of at most 1024 characters.",
                hint='write: output_uri = "s3://my-bucket/videos"',
            )
        self._bedrock = bedrock
        self._s3 = s3
        self._output_uri = output_uri.rstrip("/")
        self._model_id = model_id
        self._kms_key_id = kms_key_id
        self._bucket_owner = bucket_owner
        self._backend = f"bedrock:{model_id}"

    @staticmethod
    def is_ours(handle: Handle) -> bool:
        """Whether a handle names a job of Bedrock."""
        return handle.provider == PROVIDER and _ARN.fullmatch(handle.id) is not None

    @staticmethod
    def check_token(token: str) -> None:
        """Refuse a token that Bedrock would not take, before anything is read or sent.

        Raises:
            UsageError: It is none.
        """
        if not _TOKEN.fullmatch(token):
            raise UsageError("A token is 1 to 256 visible ASCII characters without spaces.")

    def start(self, model_input: JSON, token: str) -> Handle:
        """Start a job, or name the one that this token started.

        Raises:
            UsageError: The token is none.
            UnsupportedRequestError: There is no such model here.
            BackendError: Bedrock refused, or gave no answer: then the job may have been started.
        """
        self.check_token(token)
        asked = encode_start(
            self._model_id,
            model_input,
            token,
            self._output_uri,
            kms_key_id=self._kms_key_id,
            bucket_owner=self._bucket_owner,
        )
        try:
            with translated("StartAsyncInvoke", self._backend):
                answer = self._bedrock.start_async_invoke(**asked)
        except NotFoundError as error:
            raise UnsupportedRequestError(error.message, hint="vrag models") from error
        return Handle(provider=PROVIDER, id=answer["invocationArn"])

    def look(self, arns: Iterable[str]) -> Iterator[Summary]:
        """The newest jobs page by page, as long as pages are likely to be cheaper than single questions; then those."""
        missing = set(arns)
        in_vain = 0
        page: dict[str, str] | None = {}
        while len(missing) > max(_FEW, _GETS_A_PAGE * in_vain) and page is not None:
            summaries, page = self._page(page, sortBy="SubmissionTime", sortOrder="Descending")
            found = [summary for summary in summaries if summary.arn in missing]
            missing -= {summary.arn for summary in found}
            in_vain += not found
            yield from found
        for arn in sorted(missing):
            if (summary := self.get(arn)) is not None:
                yield summary

    def _page(self, page: Mapping[str, str], **asked: Any) -> tuple[list[Summary], dict[str, str] | None]:
        """One page of the list, and what asks for the next one; None after the last."""
        with translated("ListAsyncInvokes", self._backend):
            answer = self._bedrock.list_async_invokes(maxResults=_PAGE, **asked, **page)
        following = answer.get("nextToken")
        told = [decode_summary(one) for one in answer.get("asyncInvokeSummaries", [])]
        return told, {"nextToken": following} if following else None

    def get(self, arn: str) -> Summary | None:
        """One job; None where Bedrock does not know it."""
        with translated("GetAsyncInvoke", self._backend):
            try:
                return decode_summary(self._bedrock.get_async_invoke(invocationArn=arn))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _UNKNOWN:
                    return None
                raise

    def files(self, summary: Summary) -> dict[str, int]:
        """The files of a job with their sizes."""
        with translated("ListObjectsV2", "s3"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=summary.bucket, Prefix=summary.prefix)
            return {
                one["Key"].removeprefix(summary.prefix): one["Size"]
                for page in pages
                for one in page.get("Contents", [])
            }

    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        """The jobs that were started with these tokens at or after `since`; the answer is the whole answer."""
        wanted = set(tokens)
        found: dict[str, Handle] = {}
        # Whether the bound itself is in the list is not documented; nor is how finely times are told.
        after = since.astimezone(UTC) - timedelta(seconds=1)
        page: dict[str, str] | None = {}
        while wanted - found.keys() and page is not None:
            summaries, page = self._page(page, submitTimeAfter=after, sortBy="SubmissionTime", sortOrder="Ascending")
            for summary in summaries:
                if summary.token in wanted and summary.submitted_at >= since.replace(microsecond=0):
                    # The first one: where a token was forgotten and sent again, the later job is not the one looked for.
                    found.setdefault(summary.token, Handle(provider=PROVIDER, id=summary.arn))
        return found

    def open(self, summary: Summary, name: str, offset: int = 0) -> BinaryIO:
        """A file of a job, from `offset`; `NotFoundError` where there is none."""
        part = {"Range": f"bytes={offset}-"} if offset else {}
        with translated("GetObject", "s3"):
            try:
                answer = self._s3.get_object(Bucket=summary.bucket, Key=summary.prefix + name, **part)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in {"InvalidRange", "416"}:
                    return io.BytesIO()  # from its very end
                raise
        return io.BufferedReader(_Download(answer["Body"]), 1 << 16)


class _Download(io.RawIOBase):
    """The body of an S3 answer whose errors are ours."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self._body = body

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int:
        with translated("GetObject", "s3"):
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @override
    def close(self) -> None:
        self._body.close()
        super().close()
