"""Nova Multimodal Embeddings of whole videos: one vector for every few seconds, by asynchronous jobs.

The vectors lie in the space of `NovaEmbedder` of the same length: ask with `retrieval="VIDEO_RETRIEVAL"`. The video lies
in S3; one of up to 2 hours and 2 GB is taken.

Source: Amazon Nova User Guide "Complete embeddings request and response schema" and "Using Nova Embeddings" (2026-11-20).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from attrs import field, frozen

from vrag.backends.aws.async_jobs import PROVIDER, AsyncJobs, Summary, decode_failure
from vrag.backends.aws.nova_embeddings import NovaEmbedder
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError, NotFoundError, UsageError
from vrag.generation.catalogue import Catalogue
from vrag.interfaces import Vectors
from vrag.values.canonical import JSON
from vrag.values.jobs import Handle, JobStatus
from vrag.values.requests import Estimate, ModelRef
from vrag.values.vectors import EmbeddingSpace

__all__ = ["NovaVideoEmbedder", "Segment", "VideoVectors", "decode_segments", "encode_request"]

_RESULT: Final = "segmented-embedding-result.json"
_FORMATS: Final = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/mpeg": "mpeg",
}
Mode = Literal["AUDIO_VIDEO_COMBINED", "AUDIO_VIDEO_SEPARATE"]


@frozen(kw_only=True)
class Segment:
    """A part of a video."""

    kind: str
    """`VIDEO`, `AUDIO` or `AUDIO_VIDEO_COMBINED`."""
    index: int
    start_s: float
    end_s: float


@frozen(kw_only=True)
class VideoVectors:
    """What a job made of a video; a job may end well without all of its parts."""

    segments: tuple[Segment, ...]
    vectors: Vectors = field(eq=False, repr=False)
    """float32, of unit length, one row a segment."""
    missing: tuple[str, ...] = ()
    """Why parts have no vector."""


def encode_request(source_uri: str, media_type: str, *, dimension: int, segment_s: int, mode: Mode) -> dict[str, JSON]:
    """The `modelInput` for a video in S3."""
    return {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SEGMENTED_EMBEDDING",
        "segmentedEmbeddingParams": {
            "embeddingPurpose": "GENERIC_INDEX",
            "embeddingDimension": dimension,
            "video": {
                "format": _FORMATS[media_type],
                "embeddingMode": mode,
                "source": {"s3Location": {"uri": source_uri}},
                "segmentationConfig": {"durationSeconds": segment_s},
            },
        },
    }


def decode_segments(kind: str, lines: bytes) -> Iterator[tuple[Segment, list[float], str | None]]:
    """Each part of a JSONL file: what it is, its vector (empty where there is none), and why not."""
    for number, line in enumerate(lines.splitlines()):
        if not line.strip():
            continue
        told: Mapping[str, Any] = json.loads(line)
        about = told.get("segmentMetadata") or {}
        segment = Segment(
            kind=kind,
            index=int(about.get("segmentIndex", number)),
            start_s=float(about.get("segmentStartSeconds", 0.0)),
            end_s=float(about.get("segmentEndSeconds", 0.0)),
        )
        failed = told.get("failureReason") if told.get("status", "SUCCESS") != "SUCCESS" else None
        yield segment, told.get("embedding") or [], failed


class NovaVideoEmbedder:
    """Vectors of videos by jobs; it never waits for one, and its caller keeps handles and tokens."""

    def __init__(
        self,
        *,
        bedrock: Any,
        s3: Any,
        output_uri: str,
        model_id: str = "amazon.nova-2-multimodal-embeddings-v1:0",
        dimension: int = 1024,
        segment_s: int = 5,
        mode: Mode = "AUDIO_VIDEO_COMBINED",
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use ready-made clients; nothing is sent.

        Args:
            bedrock: A boto3 client of `bedrock-runtime`, in us-east-1.
            s3: A boto3 client of `s3` that may read what Bedrock writes.
            output_uri: `s3://bucket/prefix`; each job gets a folder of its own below.
            model_id: The id of the model.
            dimension: 256, 384, 1024 or 3072.
            segment_s: Length of a part, 1 to 30 s.
            mode: Picture and sound in one vector, or in two.
            kms_key_id: ARN of the key that the output is encrypted with.
            bucket_owner: Account number of the bucket's owner.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Limits, prices and lifecycle; by default those of this release.
            clock: Says whether the model has been retired.

        Raises:
            UsageError: One of them is not possible.
        """
        self._catalogue = catalogue or Catalogue.load()
        self._known = self._catalogue.model(PROVIDER, model_id)
        for limit, value in (("dimension", dimension), ("segment_s", segment_s)):
            if (said := self._known.limit(limit).refusal(value)) is not None:
                raise UsageError(said)
        self._jobs = AsyncJobs(
            bedrock=bedrock,
            s3=s3,
            output_uri=output_uri,
            model_id=model_id,
            kms_key_id=kms_key_id,
            bucket_owner=bucket_owner,
        )
        self._segment_s = segment_s
        self._mode: Mode = mode
        self._allow_retired = allow_retired
        self._clock = clock or SystemClock()
        self.model = ModelRef(provider=PROVIDER, id=model_id, region=bedrock.meta.region_name, account=account)
        self.space = EmbeddingSpace(
            model=self._known.id, revision="1", dimension=dimension, preprocessing=NovaEmbedder.preprocessing
        )

    def estimate(self, duration_s: float) -> Estimate:
        """What a video of this length costs; nothing is sent."""
        return self._known.estimate({"input_video_second": math.ceil(duration_s)})

    def start(self, source_uri: str, media_type: str, token: str) -> Handle:
        """Start a job; the same token gives the same job.

        Args:
            source_uri: `s3://bucket/key`, such as `S3Storage.uri` of the video.
            media_type: Of the video.
            token: 1 to 256 visible ASCII characters.

        Raises:
            ModelRetiredError: The model is past its end of life; nothing was sent.
            UsageError: The video is not in S3, its format is not taken, or the token is none.
        """
        self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        if media_type not in _FORMATS:
            raise UsageError(f"'{media_type[:40]}' is not taken; allowed: {', '.join(sorted(_FORMATS))}.")
        if not source_uri.startswith("s3://") or not source_uri.removeprefix("s3://").partition("/")[2]:
            raise UsageError("A video to embed is an object in S3: s3://bucket/key.")
        body = encode_request(
            source_uri, media_type, dimension=self.space.dimension, segment_s=self._segment_s, mode=self._mode
        )
        return self._jobs.start(body, token)

    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        """The jobs that were started with these tokens at or after `since`; the answer is the whole answer."""
        return self._jobs.find(tokens, since)

    def status(self, handle: Handle) -> JobStatus:
        """What is known of a job now.

        Raises:
            NotFoundError: Bedrock knows no such job.
        """
        summary = self._summary(handle)
        if summary.status == "Failed":
            return JobStatus(state="failed", error=decode_failure(summary.failure or ""))
        ended = summary.status == "Completed"
        return JobStatus(state="succeeded" if ended else "running", billed=True if ended else None)

    def vectors(self, handle: Handle) -> VideoVectors:
        """The vectors of a job that has ended well; parts without one are told in `missing`.

        Raises:
            NotFoundError: There is no such job, or it has left no result.
            BackendError: The result is not what it must be, or holds no vector at all.
        """
        summary = self._summary(handle)
        with self._jobs.open(summary, _RESULT) as stream:
            result = json.loads(stream.read())
        segments: list[Segment] = []
        rows: list[list[float]] = []
        missing: list[str] = []
        for part in result.get("embeddingResults") or ():
            kind, file = str(part.get("embeddingType")), str(part.get("outputFileUri") or "").rpartition("/")[2]
            if part.get("status") == "FAILURE" or not file:
                missing.append(f"{kind}: {part.get('failureReason') or part.get('message') or 'no reason is given'}")
                continue
            with self._jobs.open(summary, file) as stream:
                for segment, vector, failed in decode_segments(kind, stream.read()):
                    if failed is not None or len(vector) != self.space.dimension:
                        missing.append(f"{kind} {segment.start_s:g} to {segment.end_s:g} s: {failed or 'no vector'}")
                        continue
                    segments.append(segment)
                    rows.append(vector)
        if not rows:
            raise BackendError(
                f"The job made no vector: {'; '.join(missing) or 'no reason is given'}.",
                backend=f"bedrock:{self.model.id}",
                operation="SEGMENTED_EMBEDDING",
            )
        array = np.asarray(rows, np.float64)
        lengths = np.linalg.norm(array, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise BackendError(
                "The job made a vector without a direction.",
                backend=f"bedrock:{self.model.id}",
                operation="SEGMENTED_EMBEDDING",
            )
        unit: Vectors = (array / lengths).astype(np.float32)
        return VideoVectors(segments=tuple(segments), vectors=unit, missing=tuple(missing))

    def _summary(self, handle: Handle) -> Summary:
        summary = self._jobs.get(handle.id) if self._jobs.is_ours(handle) else None
        if summary is None:
            raise NotFoundError("Amazon Bedrock knows no such job.")
        return summary
