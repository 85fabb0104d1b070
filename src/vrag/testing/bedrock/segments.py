"""How the fake embeds a video: it reads it from S3, decodes it, and hashes what each part looks like.

Written from the vendor's page, apart from our adapter (Amazon Nova User Guide, 2026-11-20).
"""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image

from vrag.errors import MediaRejectedError
from vrag.media.video import iter_frames, probe_video
from vrag.testing.bedrock.bodies import Body
from vrag.testing.bedrock.jobs import Commission, Job
from vrag.testing.bedrock.wire import refuse
from vrag.testing.media import describe
from vrag.testing.vectors import FakeEmbedder
from vrag.values.canonical import JSON
from vrag.values.vectors import EmbeddingSpace, Item

__all__ = ["nova_segments"]


def nova_segments(body: Body, s3: Any) -> Commission:
    """What a body of Nova Multimodal Embeddings asks for.

    Raises:
        Refusal: The model would not take it.
    """
    body.known(needs=("schemaVersion", "taskType", "segmentedEmbeddingParams"))
    body.one_of("schemaVersion", "nova-multimodal-embed-v1")
    body.one_of("taskType", "SEGMENTED_EMBEDDING")
    asked = body.within("segmentedEmbeddingParams").known(needs=("embeddingPurpose", "embeddingDimension", "video"))
    asked.one_of("embeddingPurpose", "GENERIC_INDEX")
    asked.limited("dimension", asked.data["embeddingDimension"], "embeddingDimension")
    video = asked.within("video").known("segmentationConfig", needs=("format", "embeddingMode", "source"))
    video.one_of("format", "mp4", "mov", "mkv", "webm", "flv", "mpeg", "mpg", "wmv", "3gp")
    video.one_of("embeddingMode", "AUDIO_VIDEO_COMBINED", "AUDIO_VIDEO_SEPARATE")
    config = video.within("segmentationConfig", {"durationSeconds": 5}).known(needs=("durationSeconds",))
    segment_s = config.number("durationSeconds", "segment_s")
    uri = video.within("source").known(needs=("s3Location",)).within("s3Location").known("bucketOwner", needs=("uri",))
    bucket, _, key = str(uri.data["uri"]).removeprefix("s3://").partition("/")
    try:
        data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        info = probe_video(io.BytesIO(data))
    except MediaRejectedError:
        raise refuse("The video could not be read.") from None
    except Exception as error:
        raise refuse("Invalid S3 location or credentials.") from error
    space = EmbeddingSpace(
        model=body.model.id, revision="1", dimension=asked.data["embeddingDimension"], preprocessing="words/1"
    )
    kind = "VIDEO" if video.data["embeddingMode"] == "AUDIO_VIDEO_SEPARATE" else "AUDIO_VIDEO_COMBINED"

    def files(job: Job) -> dict[str, bytes]:
        """Written when the job ends; without sound there is no vector of it."""
        lines = _lines(data, info.fps, segment_s, space, partial=job.ending == "truncated_output")
        name = "embedding-video.jsonl"
        failed = any(line["status"] != "SUCCESS" for line in lines)
        result = {
            "embeddingType": kind,
            "status": "PARTIAL_SUCCESS" if failed else "SUCCESS",
            "outputFileUri": f"{job.folder}/{name}",
        }
        told = {"sourceFileUri": uri.data["uri"], "embeddingDimension": space.dimension, "embeddingResults": [result]}
        return {
            "segmented-embedding-result.json": json.dumps(told).encode(),
            name: b"".join(json.dumps(line).encode() + b"\n" for line in lines),
        }

    return Commission(files=files)


def _lines(data: bytes, fps: float, segment_s: float, space: EmbeddingSpace, *, partial: bool) -> list[dict[str, JSON]]:
    """One line a part; with `partial` the last one failed."""
    embedder, step = FakeEmbedder(space=space), max(1, round(segment_s * fps))
    first: dict[int, str] = {}
    count = 0
    for count, frame in enumerate(iter_frames(io.BytesIO(data)), 1):
        if (count - 1) % step == 0:
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "PNG")
            first[(count - 1) // step] = " ".join(describe(picture.getvalue()))
    lines: list[dict[str, JSON]] = []
    for index, words in first.items():
        row = embedder.embed([Item(kind="text", text=words)], "index")[0] * 3
        about = {
            "segmentIndex": index,
            "segmentStartSeconds": index * step / fps,
            "segmentEndSeconds": min((index + 1) * step, count) / fps,
        }
        lines.append({"embedding": [float(number) for number in row], "segmentMetadata": about, "status": "SUCCESS"})
    if partial and lines:
        lines[-1] |= {"embedding": [], "status": "FAILURE", "failureReason": "INVALID_CONTENT"}
    return lines
