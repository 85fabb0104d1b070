"""Facts about a video made from a real photograph, and entries for a ledger; shared by the tests of this folder."""

import hashlib
import io
from importlib.resources import files

from vrag.media.ref import MediaRef, sha256_hex
from vrag.prompts.camera import CameraMove
from vrag.provenance.record import VideoFacts
from vrag.values.assets import Review, ReviewState, Rights, asset_id
from vrag.values.briefs import Brief, Conformed, PlannedVideo, Source
from vrag.values.jobs import Handle, JobStatus, Output
from vrag.values.requests import Estimate, Input, Look, ModelRef, Problem, Shot, VideoRequest, purchase_id
from vrag.values.vectors import Candidate, Is
from vrag.workspace.ledger import Draft, Lineage

PHOTO = files("vrag") / "demo" / "photos" / "dandelion-in-meadow.jpg"
VIDEO = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 20
RAW = VIDEO[:-1] + b"?"
SECRETS = (
    "red shoes on granite",
    "camera pans down swiftly",
    "a blurry watermark",
    "oil on canvas",
    "spring campaign",
    "Dandelion seed head in a meadow",
    "dandelion-in-meadow.jpg",
    "Ada Reviewer",
    "looks good to Ada",
    "Grace Holder",
    "model release of Linus",
    "shoes-final.mp4",
    "confidential-tag",
)
"""Words of people: none may stand in a keyed record, nor a plain hash of one."""


def facts_of(storage, *, record_id="0f" * 32, **changes):
    original = storage.put(io.BytesIO(PHOTO.read_bytes()), "image/jpeg")
    fitted = storage.put(io.BytesIO(PHOTO.read_bytes()[::-1]), "image/png")
    name = asset_id("brand", original.sha256)
    prompt = "red shoes on granite, camera pans down swiftly"
    request = VideoRequest(
        shots=(Shot(prompt=prompt, inputs=(Input(role="start_frame", media=fitted),), camera=(CameraMove.TILT_DOWN,)),),
        seed=7,
        negative_prompt="a blurry watermark",
        look=Look(style="oil on canvas"),
    )
    model = ModelRef(provider="local", id="camera-moves/1", region=None)
    planned = PlannedVideo(
        step_id=purchase_id(request, model, scope="ab" * 32),
        brief=Brief(
            object_prompt="red shoes on granite",
            action_prompt="camera pans down swiftly",
            slots={"season": "spring campaign"},
            look=Look(style="oil on canvas"),
            negative_prompt="a blurry watermark",
            filter=Is(field="tags", value="confidential-tag"),
            seed=7,
        ),
        generator="camera",
        model=model,
        request=request,
        sources=(
            Source(
                asset_id=name,
                knowledge_base="brand",
                role="start_frame",
                original=original,
                conformed=Conformed(media=fitted, crop_px=(0, 10, 1280, 730), mode="cover"),
                review_sequence=0,
                caption="Dandelion seed head in a meadow",
                file_name="dandelion-in-meadow.jpg",
                rights=Rights(licence="CC0-1.0", holder="Grace Holder", releases=("model release of Linus",)),
            ),
        ),
        candidates=(
            Candidate(asset_id=name, cosine=0.61, word_rank=1, fused_score=0.27, chosen=True),
            Candidate(asset_id=asset_id("brand", "0" * 64), cosine=0.2, excluded="review state proposed"),
        ),
        retrieval={"fusion_k": 10, "query": "red shoes on granite", "space": "wordllama@1"},
        estimate=Estimate(usd_micros=0, video_s=6.0, basis="rendered here"),
        unmet=(Problem(kind="unmet", field="shots[0].prompt", message="'swiftly' is not performed"),),
        notes=("'pans down' is a tilt down",),
    )
    film = MediaRef(
        sha256=sha256_hex(VIDEO), media_type="video/mp4", size_bytes=len(VIDEO), width_px=1280, height_px=720
    )
    raw = MediaRef(sha256=sha256_hex(RAW), media_type="video/mp4", size_bytes=len(RAW))
    known = {
        "record_id": record_id,
        "planned": planned,
        "raw": raw,
        "delivered": film,
        "delivered_name": "shoes-final.mp4",
        "handle": Handle(provider="local", id="job-1"),
        "status": JobStatus(
            state="succeeded",
            outputs=(Output(name="output.mp4", sha256=raw.sha256),),
            billed=False,
            report={"encoder": "libx264", "moves": ["tilt down"], "skipped": "granite", "crop_px": [0, 0, 1280, 720]},
        ),
        "reviews": {
            name: Review(
                asset_id=name,
                state=ReviewState.APPROVED,
                by="Ada Reviewer",
                at="2026-01-01T00:00:00.000000Z",
                reason="looks good to Ada",
            )
        },
        "started_at": "2026-01-02T00:00:00.000000Z",
        "finished_at": "2026-01-02T00:00:05.000000Z",
        "library_version": "0.1.0",
    }
    return VideoFacts(**(known | changes))


def add_entries(ledger, signer, *names):
    """Entries that are no records: enough for trees and checkpoints."""
    for name in names:
        draft = Draft(
            record_id=name, payload=name.encode(), lineage=Lineage(subjects={"raw": hashlib.sha256(b"x").hexdigest()})
        )
        with ledger._database.transaction() as connection:
            ledger.append(connection, draft, b"envelope of " + name.encode(), public_key=signer.public_key)
