"""Take-down: out of use at once and everywhere, what was made from it listed, bytes deleted as a second step."""

import base64
import io
import subprocess
import sys

import pytest
from attrs import evolve
from PIL import Image

from vrag import Brief, VRAGPipeline
from vrag.backends.local.storage import FolderStorage
from vrag.errors import BackendError, ErasedError, GateError, NoSuitableImageError, NotFoundError, UsageError
from vrag.knowledge.erasure import erasure_of
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.provenance.marking import Marking
from vrag.testing import FakeClock, FakeEmbedder, FakeSigner, FakeStorage, FakeVectorStore, FakeVideoGenerator
from vrag.values.assets import ReviewState, Rights
from vrag.values.canonical import canonical_json
from vrag.values.vectors import Is
from vrag.workspace import Workspace
from vrag.workspace.ledger import Draft, Lineage, LineageInput

SHOES = Brief(
    object_prompt="red shoes",
    action_prompt="camera pans down",
    knowledge_base="brand",
    width_px=64,
    height_px=36,
    fps=8,
    duration_s=0.5,
)


def picture(colour):
    out = io.BytesIO()
    Image.new("RGB", (160, 90), colour).save(out, "JPEG")
    return out.getvalue()


def shoes():
    rights = Rights(licence="CC0-1.0", holder="Ann")
    return SourcePicture.from_bytes(
        "IMG_1.jpg", picture("red"), caption="red shoes on a step", tags=["sale"], rights=rights, metadata={"shop": 3}
    )


def base(name, storage=None):
    return KnowledgeBase(
        name, store=FakeVectorStore(), storage=storage or FakeStorage(), embedder=FakeEmbedder(), clock=FakeClock()
    )


@pytest.fixture
def pipeline(tmp_path):
    clock = FakeClock()
    bases = {name: base(name) for name in ("brand", "film", "empty")}
    for name in ("brand", "film"):
        bases[name].ingest([shoes()], approve_by="ann")
    with VRAGPipeline(
        workspace=Workspace(tmp_path / "studio", clock=clock),
        knowledge_bases=bases,
        generators={"film": FakeVideoGenerator(clock=clock)},
        storage=FakeStorage(),
        signer=FakeSigner(),
        marking=Marking(credentials="none"),
        clock=clock,
    ) as made:
        yield made


def test_one_asset_is_taken_down_with_a_receipt_also_by_the_beginning_of_its_digest(pipeline):
    video = pipeline.generate(SHOES)
    asset_id = video.sources[0].asset_id
    planned = pipeline.plan(evolve(SHOES, seed=3))
    for one in planned.videos:
        pipeline.workspace.journal.plan(one)
    done = pipeline.revoke(asset_id[: len("brand/") + 12], by="ann", reason="contract ended")
    assert done.review.asset_id == asset_id
    assert [use.video_sha256 for use in done.videos] == [video.media.sha256]
    assert [use.step_id for use in done.blocked] == [planned.videos[0].step_id]
    (receipt,) = pipeline.workspace.ledger.receipts(asset_id)
    assert (receipt.kind, receipt.by, receipt.reason) == ("revocation", "ann", "contract ended")
    assert receipt.seq == done.receipt
    (ticket,) = pipeline.submit(planned, approved=planned.digest)
    with pytest.raises(GateError, match="revoked"):
        ticket.result(30)
    with pytest.raises(NoSuitableImageError):
        pipeline.generate(evolve(SHOES, seed=4))
    assert len(pipeline.generators["film"].charges) == 1
    # The other knowledge base decides for itself.
    assert pipeline.generate(evolve(SHOES, knowledge_base="film")).sources[0].knowledge_base == "film"


def test_a_digest_is_taken_down_everywhere_also_where_it_is_not_yet(pipeline):
    videos = {name: pipeline.generate(evolve(SHOES, knowledge_base=name)) for name in ("brand", "film")}
    sha256 = videos["brand"].sources[0].original.sha256
    done = pipeline.revoke_everywhere(sha256, by="ann", reason="court order")
    assert [one.review.asset_id for one in done] == [f"{name}/{sha256}" for name in ("brand", "empty", "film")]
    listed = {one.review.asset_id.partition("/")[0]: [use.video_sha256 for use in one.videos] for one in done}
    assert listed == {"brand": [videos["brand"].media.sha256], "empty": [], "film": [videos["film"].media.sha256]}
    assert len(pipeline.workspace.ledger.receipts()) == 3
    for name in ("brand", "film"):
        with pytest.raises(GateError):
            pipeline.knowledge_base(name).gate(sha256)
    late = pipeline.knowledge_base("empty")
    report = late.ingest([shoes()], approve_by="bob")
    assert (report.new, report.approved) == (1, 0)
    assert late.review_of(sha256).state is ReviewState.REVOKED
    assert late.count(Is(field="review", value="revoked")) == 1
    assert late.search("red shoes").hits == ()
    for wrong in ("", "*", sha256[:20], sha256.upper(), None, [sha256]):
        with pytest.raises(UsageError):
            pipeline.revoke_everywhere(wrong, by="ann", reason="x")
    assert [
        one.review.asset_id for one in pipeline.revoke_everywhere(sha256, by="x", reason="y", knowledge_bases=["film"])
    ]


def test_one_storage_that_fails_does_not_save_the_picture_elsewhere(pipeline):
    sha256 = next(pipeline.knowledge_base("film").assets()).original.sha256
    pipeline.knowledge_base("brand")._storage.faults.on("put_named", error=BackendError("no answer"))
    with pytest.raises(BackendError):
        pipeline.revoke_everywhere(sha256, by="ann", reason="court order")
    with pytest.raises(GateError):
        pipeline.knowledge_base("film").gate(sha256)
    assert len(pipeline.revoke_everywhere(sha256, by="ann", reason="court order")) == 3
    with pytest.raises(GateError):
        pipeline.knowledge_base("brand").gate(sha256)


def test_videos_of_edited_descendants_are_listed(pipeline):
    """A still that was in-painted has a record of its own; what was made from it names only that still."""
    video = pipeline.generate(SHOES)
    asset = pipeline.knowledge_base("brand").asset(video.sources[0].asset_id)
    other = base("other")
    other.ingest(
        [SourcePicture.from_bytes("edited.jpg", picture("blue"), caption="red shoes edited")], approve_by="ann"
    )
    still = next(other.assets())
    pipeline._knowledge_bases["other"] = other
    ledger, database = pipeline.workspace.ledger, pipeline.workspace.ledger._database

    def record(record_id, lineage):
        payload = canonical_json({"record": record_id})
        envelope = canonical_json({"payload": base64.b64encode(payload).decode()})
        with database.transaction() as connection:
            draft = Draft(record_id=record_id, payload=payload, lineage=lineage)
            ledger.append(connection, draft, envelope, public_key=b"key")

    record("mask", Lineage(
        subjects={"edited": "e" * 64},
        inputs=(LineageInput(sha256=asset.original.sha256, role="image", asset_id=asset.id, knowledge_base="brand"),),
    ))  # fmt: skip
    record("again", Lineage(
        subjects={"edited": still.original.sha256}, inputs=(LineageInput(sha256="e" * 64, role="image"),)
    ))  # fmt: skip
    grandchild = pipeline.generate(evolve(SHOES, knowledge_base="other"))
    assert grandchild.sources[0].asset_id == still.id
    uses = pipeline.where_used(asset.id)
    assert [use.video_sha256 for use in uses] == [video.media.sha256, grandchild.media.sha256]
    done = pipeline.revoke(asset.id, by="ann", reason="contract ended")
    assert {use.video_sha256 for use in done.videos} == {video.media.sha256, grandchild.media.sha256}


def test_bytes_are_deleted_as_a_second_step_and_what_was_made_still_verifies(pipeline):
    video = pipeline.generate(SHOES)
    brand = pipeline.knowledge_base("brand")
    asset = brand.asset(video.sources[0].asset_id)
    with pytest.raises(UsageError, match="not revoked") as caught:
        pipeline.erase_media(asset.id, by="ann", reason="asked to")
    assert "vrag revoke" in str(caught.value.hint)
    pipeline.revoke(asset.id, by="ann", reason="contract ended")
    for by, reason in (("", "x"), ("ann", " ")):
        with pytest.raises(UsageError):
            pipeline.erase_media(asset.id, by=by, reason=reason)
    assert brand._storage.exists(asset.original)
    receipt = pipeline.erase_media(asset.id, by="bob", reason="asked to")
    assert not brand._storage.exists(asset.original)
    assert pipeline.workspace.ledger.receipts(asset.id)[receipt].kind == "media erasure"

    left = brand.asset(asset.id)
    assert (left.id, left.original, left.file_name, left.rights) == (
        asset.id,
        asset.original,
        "IMG_1.jpg",
        asset.rights,
    )
    assert (left.caption, left.tags, left.metadata) == (None, (), {})
    assert left.erased_at is not None
    (row,) = brand._store.get([asset.id])
    assert (row.vector, row.text, row.fields["review"]) == (None, "", "revoked")
    assert "sale" not in row.payload
    assert [one.state.value for one in brand.history(asset.id)] == ["approved", "revoked"]
    for call in (lambda: brand.open(asset.original), lambda: brand.thumbnail(asset.id)):
        with pytest.raises(ErasedError, match=r"deleted by bob at .*: asked to"):
            call()
    with pytest.raises(NotFoundError) as other:
        brand.open(evolve(asset.original, sha256="0" * 64))
    assert not isinstance(other.value, ErasedError)

    checked = video.verify()
    assert checked.ok
    (sources,) = [check for check in checked.checks if check.name == "sources"]
    assert sources.ok
    assert "gone by decision" in sources.detail
    assert "deleted by bob" in sources.detail
    # Bytes that are gone without a decision are still a broken promise.
    film = pipeline.generate(evolve(SHOES, knowledge_base="film"))
    pipeline.knowledge_base("film")._storage.delete(asset.original)
    assert film.verify().first_failure.name == "sources"


def test_deleted_bytes_do_not_come_back_with_an_ingest_and_a_killed_deletion_is_ended(pipeline):
    brand = pipeline.knowledge_base("brand")
    (asset,) = brand.assets()
    brand.revoke(asset.id, by="ann", reason="contract ended")
    brand._storage.faults.on("delete", error=BackendError("killed"))
    with pytest.raises(BackendError):
        brand.erase_media(asset.id, by="bob", reason="asked to")
    assert erasure_of(brand._storage, asset.original.sha256).by == "bob"
    # The decision stands, and the first one is kept.
    assert brand.erase_media(asset.id, by="eve", reason="again").by == "bob"
    row = brand._store.get([asset.id])
    sent = len(brand._embedder.calls)
    for _ in range(2):
        report = brand.ingest([shoes()], approve_by="eve")
        assert (report.new, report.updated, report.approved) == (0, 0, 0)
        assert [one.code for one in report.skipped] == ["erased"]
    assert brand._store.get([asset.id]) == row
    assert not brand._storage.exists(asset.original)
    assert len(brand._embedder.calls) == sent


def test_a_revocation_in_another_process_is_seen_before_the_next_use(tmp_path):
    storage = FolderStorage(tmp_path / "pictures")
    here = base("brand", storage)
    here.ingest([shoes()], approve_by="ann")
    (asset,) = here.assets()
    with VRAGPipeline(
        workspace=Workspace(tmp_path / "studio", clock=FakeClock()),
        knowledge_bases={"brand": here},
        generators={"film": FakeVideoGenerator(clock=FakeClock())},
        storage=FakeStorage(),
        signer=FakeSigner(),
        marking=Marking(credentials="none"),
        clock=FakeClock(),
    ) as pipeline:
        plan = pipeline.plan(SHOES)
        there = (
            "import sys; from pathlib import Path; from vrag.backends.local.storage import FolderStorage\n"
            "from vrag.knowledge.knowledge_base import KnowledgeBase; from vrag.testing import FakeVectorStore\n"
            "kb = KnowledgeBase('brand', store=FakeVectorStore(None), storage=FolderStorage(Path(sys.argv[1])))\n"
            "kb.revoke_digest(sys.argv[2], by='zoe', reason='on another machine')\n"
        )
        subprocess.run([sys.executable, "-c", there, tmp_path / "pictures", asset.original.sha256], check=True)
        assert here.count(Is(field="review", value="approved")) == 1  # its own index has not heard of it
        assert here.search("red shoes").hits == ()
        (ticket,) = pipeline.submit(plan, approved=plan.digest)
        with pytest.raises(GateError, match="on another machine"):
            ticket.result(30)
        assert pipeline.generators["film"].charges == ()
