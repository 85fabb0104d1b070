"""What the video models of Amazon Bedrock share: each of them says what it takes and how it is asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final

from typing_extensions import override

from vrag.backends.aws.async_jobs import PROVIDER, AsyncJobs, Summary, decode_failure, decode_summary, encode_start
from vrag.backends.aws.errors import without_secrets
from vrag.clock import Clock, SystemClock
from vrag.errors import NotFoundError, UnsupportedRequestError
from vrag.generation.catalogue import Catalogue, Model
from vrag.interfaces import VideoGenerator
from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.canonical import JSON
from vrag.values.jobs import Fault, Handle, JobStatus, Output, Recovery
from vrag.values.requests import Estimate, ModelRef, Problem, VideoRequest

__all__ = ["PROVIDER", "AsyncInvokeGenerator", "Summary", "decode_failure", "decode_summary", "encode_start"]

_FILM: Final = "output.mp4"


class AsyncInvokeGenerator(VideoGenerator):
    """What the video models of Bedrock share; each of them says what it takes and how it is asked."""

    def __init__(
        self,
        *,
        bedrock: Any,
        s3: Any,
        output_uri: str,
        model_id: str,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use ready-made clients; nothing is sent.

        Args:
            bedrock: A boto3 client of `bedrock-runtime`, in a Region that has the model.
            s3: A boto3 client of `s3` that may read and list what Bedrock writes.
            output_uri: `s3://bucket/prefix`, in the Region of the call; each job gets a folder of its own below.
            model_id: The id of the model.
            kms_key_id: ARN of the key that the output is encrypted with.
            bucket_owner: Account number of the bucket's owner.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Limits, prices and lifecycle; by default those of this release.
            clock: Says whether the model has been retired.

        Raises:
            UsageError: The catalogue does not know the model, or the address is none.
        """
        self._jobs = AsyncJobs(
            bedrock=bedrock,
            s3=s3,
            output_uri=output_uri,
            model_id=model_id,
            kms_key_id=kms_key_id,
            bucket_owner=bucket_owner,
        )
        self._allow_retired = allow_retired
        self._catalogue = catalogue or Catalogue.load()
        self._clock = clock or SystemClock()
        self._known: Model = self._catalogue.model(PROVIDER, model_id)
        self._model = ModelRef(provider=PROVIDER, id=model_id, region=bedrock.meta.region_name, account=account)
        # An end is for good, though a list may lag behind what Get has told; and it need not be asked for again.
        self._ended: dict[Handle, JobStatus] = {}

    @abstractmethod
    def refusals(self, request: VideoRequest) -> Iterator[Problem]:
        """What the model does not do of a request."""

    @abstractmethod
    def model_input(self, request: VideoRequest, pictures: Mapping[str, bytes]) -> JSON:
        """The body for a request that is not refused; pictures by their digest."""

    def failure(self, summary: Summary) -> Fault:
        """Why a job failed; a model that writes a status file reads it here."""
        return decode_failure(summary.failure or "")

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @property
    @override
    def recovery(self) -> Recovery:
        return "list"

    @override
    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        now, allowed = self._clock.now(), self._allow_retired
        retired = self._catalogue.retired_problem(self._known, now, allow_retired=allowed)
        return (*([retired] if retired else []), *self.refusals(request))

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        return self._known.estimate({"video_second": request.duration_s}, video_s=request.duration_s)

    @override
    def start(self, request: VideoRequest, media: OpenMedia, token: str) -> Handle:
        self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        refused = [problem for problem in self.validate(request) if problem.kind == "refused"]
        if refused:
            raise UnsupportedRequestError(" ".join(problem.message for problem in refused), problems=refused)
        self._jobs.check_token(token)
        refs = {one.media.sha256: one.media for shot in request.shots for one in shot.inputs}
        body = self.model_input(request, {digest: _read(media, ref) for digest, ref in refs.items()})
        return self._jobs.start(body, token)

    @override
    def status(self, handles: Sequence[Handle]) -> Mapping[Handle, JobStatus]:
        asked = {handle.id: handle for handle in handles if self._jobs.is_ours(handle)}
        open_arns = [arn for arn, handle in asked.items() if handle not in self._ended]
        answer = {}
        for summary in self._jobs.look(open_arns):
            status = self._read_status(summary)
            answer[asked[summary.arn]] = status
            if status.state != "running":
                self._ended.setdefault(asked[summary.arn], status)
        return answer | {handle: self._ended[handle] for handle in asked.values() if handle in self._ended}

    def _read_status(self, summary: Summary) -> JobStatus:
        if summary.status == "Failed":
            return JobStatus(state="failed", error=self.failure(summary))
        if summary.status != "Completed":
            return JobStatus(state="running")
        files = self._jobs.files(summary)
        if _FILM not in files:
            fault = Fault(code="service", message=f"Amazon Bedrock says Completed, but wrote no {_FILM}.")
            return JobStatus(state="failed", error=fault)
        outputs = (
            Output(name=name, role=_role(name), media_type=_type(name), size_bytes=files[name]) for name in files
        )
        return JobStatus(state="succeeded", outputs=tuple(outputs), billed=True)

    @override
    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        return self._jobs.find(tokens, since)

    @override
    def fetch(self, handle: Handle, output: Output, offset: int = 0) -> BinaryIO:
        summary = self._jobs.get(handle.id) if self._jobs.is_ours(handle) else None
        if summary is None:
            raise NotFoundError(f"Amazon Bedrock knows no job '{without_secrets(handle.id)}'.")
        return self._jobs.open(summary, output.name, offset)

    @override
    def cancel(self, handle: Handle) -> bool:
        return False  # there is no operation that stops a job

    @override
    def close(self) -> None:
        """The clients are the caller's."""


def _read(media: OpenMedia, ref: MediaRef) -> bytes:
    with media(ref) as stream:
        return stream.read()


def _role(name: str) -> str:
    if name == _FILM:
        return "video"
    return "shot" if name.startswith("shot_") else "manifest"


def _type(name: str) -> str:
    return "video/mp4" if name.endswith(".mp4") else "application/json"
