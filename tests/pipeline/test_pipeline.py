"""The whole flow over fakes: plan, approve, submit, record, deliver, revoke, resume, erase."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve
from PIL import Image

from vrag import Brief, CameraMove, VRAGPipeline
from vrag.errors import (
    AlreadyExistsError,
    BackendError,
    BudgetError,
    GateError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    NoSuitableImageError,
    NotFoundError,
    PlanChangedError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.provenance.marking import Marking
from vrag.provenance.verify import verify_file
from vrag.testing import (
    FAKE_SPACE,
    FakeClock,
    FakeEmbedder,
    FakeSigner,
    FakeStorage,
    FakeVectorStore,
    FakeVideoGenerator,
    failing,
)
from vrag.values.assets import ReviewState
from vrag.values.jobs import JobStatus
from vrag.values.policy import Policy
from vrag.workspace import Workspace

CAPTIONS = {"red shoes on a step": "red", "a brown dog on grass": "brown", "a lake below snowy mountains": "blue"}
SHOES = Brief(
    object_prompt="red shoes",
    action_prompt="camera pans down",
    knowledge_base="brand",
    width_px=64,
    height_px=36,
    fps=8,
    duration_s=0.5,
)


def picture(colour, size=(160, 90)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


def knowledge_base(name, clock):
    return KnowledgeBase(
        name, store=FakeVectorStore(space=FAKE_SPACE), storage=FakeStorage(), embedder=FakeEmbedder(), clock=clock
    )


@pytest.fixture
def make(tmp_path):
    made = []

    def build(*, folder="studio", policy=None, ask=None, **generator):
        clock = FakeClock()
        bases = {name: knowledge_base(name, clock) for name in ("brand", "other")}
        bases["brand"].ingest(
            SourcePicture.from_bytes(f"IMG_{index}.jpg", picture(colour), caption=caption)
            for index, (caption, colour) in enumerate(CAPTIONS.items())
        )
        bases["brand"].approve_all(by="ann")
        pipeline = VRAGPipeline(
            workspace=Workspace(tmp_path / folder, clock=clock),
            knowledge_bases=bases,
            generators={"film": FakeVideoGenerator(clock=clock, **generator)},
            storage=FakeStorage(),
            signer=FakeSigner(),
            policy=policy,
            ask=ask,
            marking=Marking(credentials="none"),
            clock=clock,
        )
        made.append(pipeline)
        return pipeline

    yield build
    for one in made:
        one.close()
        one.close()


def test_a_brief_becomes_a_recorded_video_of_the_right_picture(make, tmp_path):
    pipeline = make()
    video = pipeline.generate(SHOES)
    assert video.sources[0].caption == "red shoes on a step"
    assert video.planned.request.shots[0].camera == (CameraMove.TILT_DOWN,)
    chosen = [candidate for candidate in video.planned.candidates if candidate.chosen]
    assert [one.asset_id for one in chosen] == [video.sources[0].asset_id]
    assert video.verify().ok

    saved = video.save(tmp_path / "shoes.mp4")
    with pytest.raises(AlreadyExistsError):
        video.save(saved)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (saved, saved.with_name("shoes.mp4.vrag.json")):
        (elsewhere / file.name).write_bytes(file.read_bytes())
    checked = verify_file(elsewhere / "shoes.mp4", trusted_keys=[FakeSigner().public_key])
    assert checked.ok
    assert checked.trusted
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    (elsewhere / "shoes.mp4").write_bytes(data)
    assert not verify_file(elsewhere / "shoes.mp4", trusted_keys=[FakeSigner().public_key]).ok


def test_the_same_brief_is_bought_once(make):
    pipeline = make()
    first, second = pipeline.generate(SHOES), pipeline.generate(SHOES)
    assert (first.id, first.media) == (second.id, second.media)
    again = pipeline.generate(evolve(SHOES, take=2))
    assert again.id != first.id
    assert len(pipeline.generators["film"].charges) == 2


def test_no_suitable_picture_is_an_answer(make):
    pipeline = make()
    with pytest.raises(NoSuitableImageError, match="--explain") as caught:
        pipeline.generate(evolve(SHOES, object_prompt="submarine"))
    assert caught.value.refusal.reasons
    assert pipeline.generators["film"].calls == ()


def test_only_approved_pictures_are_used_and_the_refusal_names_the_command(make):
    pipeline = make()
    other = pipeline.knowledge_base("other")
    other.ingest([SourcePicture.from_bytes("a.jpg", picture("red"), caption="red shoes on a step")])
    with pytest.raises(NoSuitableImageError, match="vrag review"):
        pipeline.generate(evolve(SHOES, knowledge_base="other"))
    named = next(iter(other.assets())).id
    with pytest.raises(GateError, match="vrag review"):
        pipeline.generate(evolve(SHOES, knowledge_base="other", picture=named))
    with pytest.raises(UsageError):
        pipeline.generate(evolve(SHOES, picture=named))


def test_a_plan_lists_what_cannot_be_and_buys_nothing(make):
    pipeline = make()
    plan = pipeline.plan([SHOES, Brief(object_prompt="submarine", knowledge_base="brand"), Brief(object_prompt="dog")])
    assert len(plan.videos) == 1
    assert [(one.index, one.error["error"]) for one in plan.failures] == [(1, "no_suitable_image"), (2, "usage")]
    assert pipeline.generators["film"].calls == ()
    with pytest.raises(PlanChangedError):
        pipeline.submit(plan, approved="0" * 64)
    with pytest.raises(BudgetError, match=r"0\.01 USD"):
        pipeline.submit(plan, approved=plan.digest, budget_usd=0.01)
    (ticket,) = pipeline.submit(plan, approved=plan.digest, budget_usd=1)
    assert ticket.result(30).id == plan.videos[0].step_id
    states = [event.state.value for event in ticket.events()]
    assert states[0] == "planned"
    assert states[-1] == "delivered"
    # In a thread of its own: the browser tests keep an event loop running in this one.
    with ThreadPoolExecutor() as threads:
        assert threads.submit(lambda: asyncio.run(awaited(ticket))).result(30).id == ticket.id


async def awaited(ticket):
    return await ticket


def test_an_unknown_price_is_not_zero(make):
    pipeline = make(usd_micros_per_s=None)
    plan = pipeline.plan(SHOES)
    assert plan.usd_micros is None
    with pytest.raises(UsageError, match="not known"):
        pipeline.submit(plan, approved=plan.digest, budget_usd=100)
    open_handed = make(folder="b", usd_micros_per_s=None, policy=Policy(unknown_price="allow"))
    plan = open_handed.plan(SHOES)
    assert open_handed.submit(plan, approved=plan.digest, budget_usd=100)[0].result(30)


def test_a_batch_never_raises_for_one_row(make):
    pipeline = make()
    pipeline.generators["film"].next_job(*failing("moderation", billed=True))
    dog = evolve(SHOES, object_prompt="brown dog")
    nothing = evolve(SHOES, object_prompt="submarine")
    result = pipeline.run([nothing, SHOES, dog, SHOES])
    assert sorted([*result.done, *(row.index for row in result.failed)]) == [0, 1, 2, 3]
    assert result.failed[0].index == 0
    assert {row.error["error"] for row in result.failed} == {"no_suitable_image", "job_failed"}


def test_revoking_blocks_what_is_planned_and_lists_what_was_made(make):
    pipeline = make()
    video = pipeline.generate(SHOES)
    asset_id = video.sources[0].asset_id
    plan = pipeline.plan(evolve(SHOES, seed=3))
    revocation = pipeline.revoke(asset_id, by="ann", reason="contract ended")
    assert [use.video_sha256 for use in revocation.videos] == [video.media.sha256]
    assert revocation.review.state is ReviewState.REVOKED
    (ticket,) = pipeline.submit(plan, approved=plan.digest)
    with pytest.raises(GateError):
        ticket.result(30)
    with pytest.raises(NoSuitableImageError):
        pipeline.generate(evolve(SHOES, seed=4))
    assert [use.state for use in pipeline.where_used(asset_id)] == ["delivered", "planned"]
    assert len(pipeline.generators["film"].charges) == 1


def test_revoking_while_it_runs_withholds_the_result(make):
    pipeline = make()
    plan = pipeline.plan(SHOES)
    with pytest.raises(JobTimeoutError):
        pipeline.generate(SHOES, timeout_s=0)
    pipeline.revoke(plan.videos[0].sources[0].asset_id, by="ann", reason="rights")
    resumed = pipeline.resume()
    assert [error["error"] for error in resumed.failed.values()] == ["gate"]
    step = pipeline.workspace.journal.get(plan.videos[0].step_id)
    assert step.state == "withheld"
    assert pipeline.workspace.ledger.get(step.record_id).statement["subject"]
    with pytest.raises(NotFoundError, match="withheld"):
        pipeline.video(step.id)


def fails(ticket):
    try:
        ticket.result(30)
    except JobError as error:
        return error.billed is None
    return False


def test_resume_finishes_what_was_left(make):
    pipeline = make()
    pipeline.generators["film"].faults.on("start", error=BackendError("reset"), late=True)
    plan = pipeline.plan([SHOES, evolve(SHOES, object_prompt="brown dog")])
    lost = [ticket for ticket in pipeline.submit(plan, approved=plan.digest) if fails(ticket)]
    assert len(lost) == 1
    resumed = pipeline.resume()
    assert len(resumed.done) == 1
    assert resumed.failed == {}
    assert len(pipeline.generators["film"].charges) == 2
    assert pipeline.resume().done == ()


def test_an_undecided_purchase_waits_for_a_person(make):
    pipeline = make(recovery="none")
    pipeline.generators["film"].faults.on("start", error=BackendError("reset"), late=True)
    result = pipeline.run([SHOES])
    assert [row.error["error"] for row in result.failed] == ["job"]
    result = pipeline.run([SHOES])
    (row,) = result.undecided
    assert len(pipeline.generators["film"].charges) == 1
    with pytest.raises(UsageError):
        pipeline.decide(pipeline.generate(evolve(SHOES, seed=9)).id, "buy again")
    pipeline.decide(row.error["job_id"], "buy again")
    assert pipeline.run([SHOES]).done


def test_giving_up_is_final(make):
    pipeline = make(recovery="none")
    pipeline.generators["film"].faults.on("start", error=BackendError("reset"))
    pipeline.run([SHOES])
    (row,) = pipeline.run([SHOES]).undecided
    pipeline.decide(row.error["job_id"], "give up")
    with pytest.raises(JobFailedError, match="gave it up"):
        pipeline.generate(SHOES)


def test_erasing_words_leaves_a_record_that_verifies(make):
    pipeline = make()
    video = pipeline.generate(SHOES)
    assert "red shoes" in str(pipeline.workspace.ledger.texts(video.record_id))
    assert pipeline.erase_text(video.id, by="ann", reason="asked to") > 0
    database = b"".join(path.read_bytes() for path in pipeline.workspace.folder.glob("vrag.db*"))
    assert b"red shoes" not in database
    assert pipeline.video(video.id).verify().ok


def test_the_policy_can_put_words_into_the_record(make):
    keyed = make().generate(SHOES)
    shown = make(folder="b", policy=Policy(text="text")).generate(SHOES)
    assert "red shoes" not in str(keyed.record)
    assert "red shoes" in str(shown.record)


def test_closing_leaves_running_jobs_for_the_next_life(make):
    pipeline = make(script=[JobStatus(state="running")])
    plan = pipeline.plan(SHOES)
    (ticket,) = pipeline.submit(plan, approved=plan.digest)
    closer = threading.Thread(target=pipeline.close)
    closer.start()
    with pytest.raises(JobTimeoutError, match="vrag resume"):
        ticket.result(30)
    closer.join(30)
    assert not closer.is_alive()


def test_refusals_of_the_generator_come_before_anything_is_stored(make):
    pipeline = make()
    with pytest.raises(UnsupportedRequestError, match="900"):
        pipeline.generate(evolve(SHOES, duration_s=900.0))
    with pytest.raises(UsageError, match="film"):
        pipeline.generate(evolve(SHOES, model="sora"))
    with pytest.raises(UsageError, match="brand, other"):
        pipeline.generate(Brief(object_prompt="dog"))
    assert pipeline.workspace.journal.steps() == []


def test_a_batch_may_use_each_picture_once(make):
    again = evolve(SHOES, seed=5)
    assert len(make().run([SHOES, again]).done) == 2
    careful = make(folder="b", policy=Policy(reuse="once a batch"))
    result = careful.run([SHOES, again])
    assert (list(result.done), [row.index for row in result.failed]) == ([0], [1])
    assert careful.generate(again)


def test_a_picture_rests_after_its_use(make):
    pipeline = make(policy=Policy(cool_down_s=3600))
    pipeline.generate(SHOES)
    with pytest.raises(NoSuitableImageError):
        pipeline.generate(evolve(SHOES, seed=5))
    pipeline.workspace.clock.advance(3601)
    assert pipeline.generate(evolve(SHOES, seed=5))


def test_the_policy_says_what_follows_where_no_picture_suits(make):
    nothing = evolve(SHOES, object_prompt="submarine")
    assert make(policy=Policy(no_picture="text only")).generate(nothing).sources == ()

    asked = []

    def first_candidate(brief, refusal):
        asked.append((brief.object_prompt, refusal.query))
        return refusal.candidates[0].asset.id if refusal.candidates else None

    person = make(folder="b", policy=Policy(no_picture="ask"), ask=first_candidate)
    video = person.generate(nothing)
    assert asked == [("submarine", "submarine")]
    assert len(video.sources) == 1
    nobody = make(folder="c", policy=Policy(no_picture="ask"))
    with pytest.raises(NoSuitableImageError):
        nobody.generate(nothing)
