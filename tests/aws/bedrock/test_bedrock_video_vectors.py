"""Vectors of whole videos by jobs: the same space as texts, tokens, parts that fail, and what the request says."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from vrag.backends.aws.nova_embeddings import NovaEmbedder
from vrag.backends.aws.nova_video_embeddings import NovaVideoEmbedder, encode_request
from vrag.errors import BackendError, NotFoundError, UsageError
from vrag.testing import SampleMedia, make_film
from vrag.values.jobs import Handle
from vrag.values.requests import Shot, VideoRequest
from vrag.values.vectors import Item

RED, BLUE = 6, 1


@pytest.fixture
def embedder(world: Any) -> NovaVideoEmbedder:
    return NovaVideoEmbedder(
        bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, dimension=256, segment_s=2, clock=world.clock
    )


@pytest.fixture
def video(world: Any) -> str:
    """4 s of red and then 2 s of blue, in S3."""
    media, pictures = SampleMedia(), {}
    for shot, number in enumerate((RED, BLUE)):
        with media(media.picture(number, width_px=160, height_px=96)) as stream:
            pictures[shot] = stream.read()
    shots = (Shot(prompt="red", duration_s=4.0), Shot(prompt="blue", duration_s=2.0))
    out = io.BytesIO()
    make_film(VideoRequest(shots=shots, width_px=160, height_px=96, fps=12.0), pictures, out)
    bucket, _, prefix = world.output_uri.removeprefix("s3://").partition("/")
    world.s3.put_object(Bucket=bucket, Key=f"{prefix}/source.mp4", Body=out.getvalue())
    return f"{world.output_uri}/source.mp4"


def test_each_part_has_a_vector_that_a_question_in_words_finds(
    embedder: NovaVideoEmbedder, video: str, world: Any
) -> None:
    handle = embedder.start(video, "video/mp4", "token-1")
    assert embedder.start(video, "video/mp4", "token-1") == handle
    assert embedder.status(handle).state == "running"
    with pytest.raises(NotFoundError):
        embedder.vectors(handle)
    world.clock.advance(100)
    assert embedder.status(handle).state == "succeeded"
    told = embedder.vectors(handle)
    assert [(one.kind, one.start_s, one.end_s) for one in told.segments] == [
        ("AUDIO_VIDEO_COMBINED", 0.0, 2.0),
        ("AUDIO_VIDEO_COMBINED", 2.0, 4.0),
        ("AUDIO_VIDEO_COMBINED", 4.0, 6.0),
    ]
    assert told.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(told.vectors, axis=1), 1)
    words = NovaEmbedder(world.bedrock, dimension=256, retrieval="VIDEO_RETRIEVAL", clock=world.clock)
    assert words.space == embedder.space
    question = words.embed([Item(kind="text", text="blue landscape")], "query")[0]
    assert int(np.argmax(told.vectors @ question)) == 2
    assert len([charge for charge in world.fake.charges if charge.token == "token-1"]) == 1
    assert embedder.find(["token-1"], world.clock.now() - timedelta(hours=1)) == {"token-1": handle}


def test_a_job_that_ends_well_may_lack_parts(embedder: NovaVideoEmbedder, video: str, world: Any) -> None:
    world.fake.jobs.script("truncated_output", "moderation", "missing_output")
    partly, refused, empty = (embedder.start(video, "video/mp4", f"t{number}") for number in range(3))
    world.clock.advance(100)
    told = embedder.vectors(partly)
    assert len(told.segments) == 2
    assert told.missing == ("AUDIO_VIDEO_COMBINED 4 to 6 s: INVALID_CONTENT",)
    status = embedder.status(refused)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "moderation"
    with pytest.raises(NotFoundError):
        embedder.vectors(empty)


def test_what_cannot_be_embedded_is_refused(embedder: NovaVideoEmbedder, world: Any) -> None:
    with pytest.raises(UsageError, match=r"'image/png' is not taken"):
        embedder.start("s3://a/b", "image/png", "t")
    with pytest.raises(UsageError, match="an object in S3"):
        embedder.start("https://example.org/x.mp4", "video/mp4", "t")
    with pytest.raises(BackendError, match="Invalid S3 location"):
        embedder.start("s3://films/nowhere.mp4", "video/mp4", "t")
    with pytest.raises(NotFoundError):
        embedder.status(Handle(provider="local", id="x"))
    with pytest.raises(UsageError, match="1 to 30 s"):
        NovaVideoEmbedder(bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, segment_s=31)
    assert world.fake.charges == ()


def test_the_request_and_the_price(embedder: NovaVideoEmbedder) -> None:
    asked = encode_request("s3://b/k", "video/quicktime", dimension=3072, segment_s=5, mode="AUDIO_VIDEO_SEPARATE")
    assert asked == {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SEGMENTED_EMBEDDING",
        "segmentedEmbeddingParams": {
            "embeddingPurpose": "GENERIC_INDEX",
            "embeddingDimension": 3072,
            "video": {
                "format": "mov",
                "embeddingMode": "AUDIO_VIDEO_SEPARATE",
                "source": {"s3Location": {"uri": "s3://b/k"}},
                "segmentationConfig": {"durationSeconds": 5},
            },
        },
    }
    assert embedder.estimate(100.5).usd_micros == 101 * 560
