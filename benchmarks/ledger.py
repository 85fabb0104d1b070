"""The ledger at size: appending, proving, and checking all of it, beside the plain work that the check cannot do without.

    python benchmarks/ledger.py            # 100 000 records, about 4 minutes on two cores
    python benchmarks/ledger.py --records 10000

The records are whole: a video from one picture, with 20 texts behind keyed digests, signed with Ed25519.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vrag.media.ref import MediaRef
from vrag.provenance.audit import verify_ledger
from vrag.provenance.checkpoints import CheckpointFile, checkpoint
from vrag.provenance.merkle import inclusion_proof, root_at, verify_inclusion
from vrag.provenance.record import VideoFacts, video_statement
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.provenance.statement import keyed_digest, read_statement
from vrag.testing import FakeClock
from vrag.values.assets import Review, ReviewState, Rights, asset_id
from vrag.values.briefs import Brief, Conformed, PlannedVideo, Source
from vrag.values.jobs import JobStatus
from vrag.values.policy import Policy
from vrag.values.requests import Estimate, Input, Look, ModelRef, Shot, VideoRequest
from vrag.values.vectors import Candidate
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger, Text

KEY = LocalSigner(ed25519.Ed25519PrivateKey.generate())


def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def template():
    """One real record."""
    picture = MediaRef(sha256=digest("picture"), media_type="image/jpeg", size_bytes=1, width_px=1600, height_px=1066)
    fitted = MediaRef(sha256=digest("fitted"), media_type="image/png", size_bytes=1, width_px=1280, height_px=720)
    film = MediaRef(sha256=digest("film"), media_type="video/mp4", size_bytes=1, width_px=1280, height_px=720)
    name = asset_id("brand", picture.sha256)
    look = Look(style="watercolour", mood="calm", lighting="golden hour")
    source = Source(
        asset_id=name,
        knowledge_base="brand",
        role="start_frame",
        original=picture,
        conformed=Conformed(media=fitted, crop_px=(0, 83, 1600, 983), mode="cover"),
        review_sequence=0,
        caption="Red shoes on a granite step",
        file_name="shoes.jpg",
        rights=Rights(licence="CC0-1.0", holder="Grace Holder", notes="studio", releases=("model", "place")),
    )
    planned = PlannedVideo(
        step_id=digest("step"),
        brief=Brief(
            object_prompt="red shoes", action_prompt="camera pans down", negative_prompt="blur", look=look,
            slots={"season": "spring"},
        ),
        generator="camera",
        model=ModelRef(provider="local", id="camera-moves/1"),
        request=VideoRequest(
            shots=(Shot(prompt="red shoes, camera pans down", inputs=(Input(role="start_frame", media=fitted),)),),
            negative_prompt="blur",
            look=look,
        ),
        sources=(source,),
        candidates=tuple(Candidate(asset_id=asset_id("brand", digest("c", one)), cosine=0.5) for one in range(5)),
        retrieval={"fusion_k": 10, "space": "wordllama@1"},
        estimate=Estimate(usd_micros=0, video_s=6.0, basis="rendered here"),
        notes=("'pans down' is a tilt down",),
    )  # fmt: skip
    review = Review(
        asset_id=name, state=ReviewState.APPROVED, by="Ada", at="2026-01-01T00:00:00.000000Z", reason="good"
    )
    facts = VideoFacts(
        record_id=digest("record"),
        planned=planned,
        raw=MediaRef(sha256=digest("raw"), media_type="video/mp4", size_bytes=1),
        delivered=film,
        delivered_name="shoes.mp4",
        status=JobStatus(state="succeeded", billed=False, report={"encoder": "libx264", "moves": ["tilt down"]}),
        reviews={name: review},
        started_at="2026-01-02T00:00:00.000000Z",
        finished_at="2026-01-02T00:00:05.000000Z",
        library_version="0.1.0",
    )
    return video_statement(facts, policy=Policy(), clock=FakeClock())


def drafts(count, start=0):
    """Many records of that form: other ids, bytes, keys and digests in each."""
    first = template()
    for number in range(start, start + count):
        keys = [hashlib.sha256(f"{number} {at}".encode()).digest() for at in range(len(first.texts))]
        texts = [
            Text(kind=one.kind, value=one.value, key=key, keyed_digest=keyed_digest(key, one.kind, one.value))
            for one, key in zip(first.texts, keys, strict=True)
        ]
        payload = first.payload
        swaps = [(one.keyed_digest, new.keyed_digest) for one, new in zip(first.texts, texts, strict=True)]
        swaps += [(digest(name), digest(name, number)) for name in ("record", "film", "raw", "step")]
        for old, new in swaps:
            payload = payload.replace(old.encode(), new.encode())
        yield Draft(
            record_id=digest("record", number),
            payload=payload,
            lineage=read_statement(payload).lineage,
            texts=tuple(texts),
        )


def processor_s():
    """Processor time of this process and of those that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def timed(name, count, work):
    """Wall clock, and processor time, which other work on the machine changes less."""
    start, busy = time.perf_counter(), processor_s()
    result = work()
    took, busy = time.perf_counter() - start, processor_s() - busy
    print(f"{name:<58} {took:8.2f} s {busy:8.2f} s busy {busy / count * 1e6:8.0f} us each", flush=True)
    return busy, result


def plain_work(ledger):
    """Reading the file, hashing, parsing and checking signatures: what no check of such records can leave out."""
    key = load_der_public_key(KEY.public_key)
    from base64 import b64decode

    for entry in ledger.entries():
        content = json.loads(entry.envelope)
        payload = b64decode(content["payload"])
        hashlib.sha256(entry.envelope).digest()
        json.loads(payload)
        kind = content["payloadType"].encode()
        key.verify(
            b64decode(content["signatures"][0]["sig"]), b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder, "vrag.db"))
        ledger = Ledger(database)
        keeper = CheckpointFile(Path(folder, "outside", "last.note"))

        def build():
            made = drafts(given.records)
            done = False
            while not done:
                with database.transaction() as connection:
                    for number, draft in enumerate(made):
                        envelope = sign_envelope(draft.payload, KEY)
                        ledger.append(connection, draft, envelope, public_key=KEY.public_key)
                        if number == 999:
                            break
                    else:
                        done = True

        timed("made, signed and appended, 1000 a transaction", given.records, build)
        checkpoint(ledger, KEY, keepers=[keeper])
        print(f"{'':<58} {ledger.path.stat().st_size / 1e6:8.0f} MB, {os.cpu_count()} cores")

        singles = [*drafts(100, start=given.records)]

        def append_one():
            for draft in singles:
                with database.transaction() as connection:
                    ledger.append(connection, draft, sign_envelope(draft.payload, KEY), public_key=KEY.public_key)
                checkpoint(ledger, KEY, keepers=[keeper])

        timed("one record a transaction, with its checkpoint kept outside", 100, append_one)

        def prove():
            with ledger.tree() as tree:
                root = root_at(tree.size, tree.node)
                for seq in range(0, tree.size, max(1, tree.size // 1000)):
                    proof = inclusion_proof(seq, tree.size, tree.node)
                    assert verify_inclusion(tree.node(0, seq), seq, tree.size, proof, root)

        timed("inclusion proofs, made and checked", 1000, prove)
        floor, _ = timed(
            "plain work: read, parse, hash, signature (1 process)", given.records, lambda: plain_work(ledger)
        )
        for workers in (1, given.workers) if given.records <= 20_000 else (given.workers,):
            took, found = timed(
                f"verify_ledger, {workers} process(es)",
                given.records,
                lambda workers=workers: verify_ledger(
                    ledger, trusted_keys=[KEY.public_key], keepers=[keeper], workers=workers
                ),
            )
            assert found.ok, found.first_failure
            print(f"{'':<58} {took / floor:8.2f} x the processor time of the plain work")
        database.close()


if __name__ == "__main__":
    main()
