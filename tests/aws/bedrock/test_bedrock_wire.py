"""What is sent and read, as JSON files beside this folder. `python tests/aws/bedrock/test_bedrock_wire.py` writes them again."""

from __future__ import annotations

import base64
import io
import json
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from vrag.backends.aws import (
    captioner,
    cohere_embed,
    luma_ray,
    marengo,
    nova_canvas,
    nova_embeddings,
    nova_reel,
    stability,
    titan_embeddings,
)
from vrag.backends.aws.async_invoke import decode_failure, decode_summary, encode_start
from vrag.backends.aws.edits import EditInputs
from vrag.backends.aws.embedding import Content
from vrag.errors import BackendError, ContentRejectedError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.canonical import to_json
from vrag.values.requests import EditRequest, Input, Shot, VideoRequest

WIRE = Path(__file__).parents[1] / "wire"
DATA = b"a picture"
PICTURE = MediaRef(sha256=sha256_hex(DATA), media_type="image/jpeg", size_bytes=len(DATA), width_px=1280, height_px=720)
PICTURES = {PICTURE.sha256: DATA}
TEXT, IMAGE = Content(text="red shoes"), Content(image=DATA, media_type="image/png")


def video(*shots, **options):
    return VideoRequest(shots=shots, **options)


def frame(role="start_frame"):
    return (Input(role=role, media=PICTURE),)


def edit(operation, **options):
    inputs = EditInputs(picture=Image.new("RGB", (4, 2), (255, 0, 0)), mask=Image.new("L", (4, 2), 255))
    return EditRequest(operation=operation, image=PICTURE, **options), inputs


ENCODED = {
    "start": lambda: encode_start(
        "luma.ray-v2:0", {"prompt": "a lake"}, "token", "s3://films/out", bucket_owner="0" * 12
    ),
    "nova-reel-text": lambda: nova_reel.encode_request(video(Shot(prompt="a lake"), seed=7), PICTURES),
    "nova-reel-picture": lambda: nova_reel.encode_request(video(Shot(prompt="a lake", inputs=frame())), PICTURES),
    "nova-reel-automated": lambda: nova_reel.encode_request(video(Shot(prompt="a lake", duration_s=18.0)), PICTURES),
    "nova-reel-manual": lambda: nova_reel.encode_request(
        video(Shot(prompt="a lake"), Shot(prompt="a hill", inputs=frame())), PICTURES
    ),
    "luma-ray-text": lambda: luma_ray.encode_request(
        video(Shot(prompt="a lake", duration_s=5.0), width_px=540, height_px=960), PICTURES
    ),
    "luma-ray-frames": lambda: luma_ray.encode_request(
        video(Shot(prompt="a lake", duration_s=9.0, inputs=frame() + frame("end_frame"))), PICTURES
    ),
    "titan-text": lambda: titan_embeddings.encode_request(TEXT, 384),
    "titan-image": lambda: titan_embeddings.encode_request(IMAGE, 1024),
    "nova-embeddings-text": lambda: nova_embeddings.encode_request(TEXT, "IMAGE_RETRIEVAL", 3072),
    "nova-embeddings-image": lambda: nova_embeddings.encode_request(IMAGE, "GENERIC_INDEX", 256),
    "cohere-texts": lambda: cohere_embed.encode_request([TEXT, Content(text="a lake")], "query", 512),
    "cohere-image": lambda: cohere_embed.encode_request([IMAGE], "index", 1536),
    "marengo-text": lambda: marengo.encode_request(TEXT),
    "marengo-image": lambda: marengo.encode_request(IMAGE),
    "stability-replace": lambda: stability.encode_request(
        *edit("replace", prompt="water", negative_prompt="ice", seed=3)
    ),
    "stability-erase": lambda: stability.encode_request(*edit("erase")),
    "stability-outpaint": lambda: stability.encode_request(*edit("outpaint", prompt="water", extend_px=(1, 2, 3, 0))),
    "stability-search": lambda: stability.encode_request(
        *edit("search_and_replace", prompt="water", mask_prompt="ice")
    ),
    "stability-background": lambda: stability.encode_request(*edit("remove_background")),
    "nova-canvas-replace": lambda: nova_canvas.encode_request(*edit("replace", prompt="water", count=2), "premium"),
    "nova-canvas-erase": lambda: nova_canvas.encode_request(*edit("erase", seed=5)),
    "nova-canvas-outpaint": lambda: nova_canvas.encode_request(*edit("outpaint", extend_px=(2, 0, 2, 0))),
    "nova-canvas-background": lambda: nova_canvas.encode_request(*edit("remove_background")),
    "converse": lambda: {
        **captioner.encode_request(
            "us.amazon.nova-2-lite-v1:0", b"", "image/png", max_tokens=99, prompt="Describe it."
        ),
    },
}


def plain(value):
    """JSON with pictures told in words: the bytes of a PNG depend on the version of zlib."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str) and value.startswith("iVBOR"):
        with Image.open(io.BytesIO(base64.b64decode(value))) as picture:
            return f"PNG in base64, {picture.width} x {picture.height}, {picture.mode} {picture.getextrema()}"
    return f"{len(value)} raw bytes" if isinstance(value, bytes) else value


@pytest.mark.parametrize("name", ENCODED)
def test_what_is_sent(name):
    assert plain(ENCODED[name]()) == json.loads((WIRE / f"{name}.json").read_text())


def test_every_file_has_a_case():
    assert {path.stem for path in WIRE.glob("*.json")} == {*ENCODED}


def test_masks_are_inverted_for_nova_canvas_alone():
    ours = EditInputs(picture=Image.new("RGB", (4, 2)), mask=Image.new("L", (4, 2), 255))
    request = EditRequest(operation="erase", image=PICTURE)
    canvas = nova_canvas.encode_request(request, ours)["inPaintingParams"]["maskImage"]
    vendor = EditInputs(picture=ours.picture, mask=Image.new("L", (4, 2), 0))
    assert canvas == stability.encode_request(request, vendor)["mask"]
    assert canvas != stability.encode_request(request, ours)["mask"]


def summary(**options):
    arn = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abcdef012345"
    at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    uri = options.pop("uri", "s3://films/out/abcdef012345")
    return {
        "invocationArn": arn,
        "submitTime": at,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}},
        **options,
    }


def test_a_summary_names_the_folder_of_the_job():
    for uri in ("s3://films/out", "s3://films/out/", "s3://films/out/abcdef012345", "s3://films/out/abcdef012345/"):
        assert decode_summary(summary(uri=uri)).prefix == "out/abcdef012345/"
    assert decode_summary(summary(uri="s3://films")).prefix == "abcdef012345/"
    assert decode_summary(summary()).status == "InProgress"


@pytest.mark.parametrize(
    ("message", "code", "retryable"),
    [
        ("The generated video has been blocked by our content filters.", "moderation", False),
        ("This model version has reached the end of its life.", "retired", False),
        ("Rate limit exceeded", "throttled", True),
        ("The request is not valid", "validation", False),
        ("Internal error", "service", True),
        ("", "service", True),
    ],
)
def test_a_failure_message_is_typed(message, code, retryable):
    fault = decode_failure(message)
    assert (fault.code, fault.retryable) == (code, retryable)
    assert fault.message


def test_the_status_file_names_the_shots_to_blame():
    failed = {"status": "FAILURE", "failureType": "RAI_VIOLATION_OUTPUT_VIDEO_DEFLECTION", "failureMessage": "blocked"}
    document = {"fullVideo": {"status": "FAILURE", "failureType": "ABORTED"}, "shots": [{"status": "SUCCESS"}, failed]}
    fault = nova_reel.decode_status_file(document, decode_failure("Internal error"))
    assert to_json(fault) == {"code": "moderation", "message": "ABORTED shot 2: blocked"}
    assert nova_reel.decode_status_file({}, fault) == fault


def test_errors_inside_a_success_are_errors():
    with pytest.raises(BackendError, match="too long"):
        titan_embeddings.decode_answer({"embedding": [], "message": "too long"})
    with pytest.raises(BackendError, match="inference"):
        stability.decode_answer({"images": [""], "finish_reasons": ["Inference error"]})
    images, reasons, _ = stability.decode_answer(
        {"images": [""], "finish_reasons": ["Filter reason: prompt"], "seeds": [1]}
    )
    assert (images, reasons) == ([], ["Filter reason: prompt"])
    assert nova_canvas.decode_answer({"images": ["YQ=="], "error": "Some"}, 3) == ([b"a"], ["Some", "Some"])
    assert cohere_embed.decode_answer({"embeddings": [[1.0]]}) == cohere_embed.decode_answer(
        {"embeddings": {"float": [[1.0]]}}
    )


def said(text, reason="end_turn"):
    return {"output": {"message": {"content": [{"text": text}]}}, "stopReason": reason}


def test_captions_are_read_from_whatever_comes():
    read = captioner.decode_answer
    whole = read(
        said('Here it is:\n```json\n{"caption": "A red\\n shoe.", "tags": ["shoe", " shoe ", "red", "", 3]}\n```')
    )
    assert (whole.text, whole.tags, whole.truncated) == ("A red shoe.", ("shoe", "red"), False)
    cut = read(said('{"caption": "A \\"red\\" sh', "max_tokens"))
    assert (cut.text, cut.tags, cut.truncated) == ('A "red" sh', (), True)
    assert read(said("A red shoe.")).text == "A red shoe."
    for answer in (
        said("x", "content_filtered"),
        said("x", "guardrail_intervened"),
        said("I can't describe this picture."),
    ):
        with pytest.raises(ContentRejectedError):
            read(answer)
    with pytest.raises(BackendError):
        read(said(""))


if __name__ == "__main__":
    for file, case in ENCODED.items():
        (WIRE / f"{file}.json").write_text(json.dumps(plain(case()), indent=2, ensure_ascii=False) + "\n")
