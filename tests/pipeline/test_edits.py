"""Edit, then animate: what is open, what is bought once, what is recorded, and what is lost on the way (nothing)."""

import io

import av
import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from vrag import Brief
from vrag.errors import (
    BackendError,
    BudgetError,
    GateError,
    JobFailedError,
    NoSuitableImageError,
    NotFoundError,
    PlanChangedError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.media.mask import resize_mask
from vrag.media.mask_draw import draw_mask
from vrag.media.mask_spec import MaskSpec
from vrag.provenance.audit import verify_workspace
from vrag.provenance.lineage import sources_of, used_in
from vrag.provenance.verify import verify_file
from vrag.testing import FakeInpainter, FakeVideoGenerator
from vrag.values.briefs import Edit, ShotBrief

HEAD = MaskSpec.ellipse(0.45, 0.1, 0.75, 0.6, unit="fraction")
CORNER = MaskSpec.rectangle(0.0, 0.8, 0.2, 1.0, unit="fraction")
ERASE = Edit(operation="erase", mask=HEAD)
HERON = Brief(
    object_prompt="heron",
    action_prompt="camera zooms in",
    width_px=64,
    height_px=36,
    fps=8,
    duration_s=0.5,
    edits=(ERASE,),
)
REPLACE = Edit(operation="replace", mask=HEAD, prompt="a lantern", count=3)


@pytest.fixture
def fake(studio):
    """A studio whose models are fakes: every operation, a price, and what was asked of them."""

    def build(name="studio", *, usd_micros=10_000, **parts):
        inpainter, film = FakeInpainter(usd_micros=usd_micros), FakeVideoGenerator()
        pipeline = studio(name, **{"generators": {"film": film}, "inpainter": inpainter, **parts})
        return pipeline, inpainter, film

    return build


def pixels(pipeline, ref):
    with pipeline._storage.open(ref) as stream:
        return np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB"), np.int16)


def upright(pipeline, source):
    with pipeline.knowledge_base("nature").open(source.original) as stream:
        return stream.read()


def white_of(data, *masks):
    """Where any of the masks repaints, at the size of the picture."""
    width, height = Image.open(io.BytesIO(data)).size
    drawn = [resize_mask(draw_mask(mask, data, name="picture").data, width, height) for mask in masks]
    return np.any([np.asarray(Image.open(io.BytesIO(one))) > 0 for one in drawn], axis=0)


# -- the plan


def test_a_plan_shows_the_edit_as_open_and_buys_nothing(fake):
    pipeline, inpainter, film = fake()
    plan = pipeline.plan(HERON)
    assert (plan.videos, plan.failures) == ((), ())
    (one,) = plan.open
    assert (one.index, one.waits_for) == (0, "edit")
    (edit,) = plan.edits
    assert (edit.source.file_name, edit.estimate.usd_micros) == ("green-heron-on-branch.jpg", 10_000)
    assert (edit.request.mask.width_px, edit.request.mask.height_px) == (533, 300)
    assert (inpainter.calls, film.calls, pipeline.workspace.journal.steps()) == ((), (), [])
    assert plan.usd_micros == 10_000
    assert "erase" in pipeline.contact_sheet(plan).to_html()
    with pytest.raises(UsageError, match=r"wait for an edit.*prepare"):
        pipeline.submit(plan, approved=plan.digest)
    assert pipeline.plan(HERON).digest == plan.digest


def test_prepare_buys_each_edit_once_and_the_same_brief_again_buys_nothing(fake):
    pipeline, inpainter, film = fake()
    plan = pipeline.plan([HERON, evolve(HERON, action_prompt="camera pans left")])
    assert len(plan.edits) == 1, "two films of one edited still need one edit"
    ready = pipeline.prepare(plan, approved=plan.digest, budget_usd=1)
    assert (len(inpainter.calls), film.calls) == (1, ())
    assert (ready.open, ready.rows, ready.digest == plan.digest) == ((), (0, 1), False)
    tickets = pipeline.submit(ready, approved=ready.digest, budget_usd=1)
    assert all(ticket.result(30).verify().ok for ticket in tickets)
    again = pipeline.plan([HERON, evolve(HERON, action_prompt="camera pans left")])
    assert again.digest == ready.digest
    assert pipeline.generate(HERON).id == tickets[0].id
    assert (len(inpainter.calls), len(film.charges)) == (1, 2)


def test_what_was_not_approved_is_not_bought(fake):
    pipeline, inpainter, _ = fake()
    plan = pipeline.plan(HERON)
    other = pipeline.plan(evolve(HERON, edits=(evolve(ERASE, mask=CORNER),)))
    assert other.digest != plan.digest, "another mask is another plan"
    with pytest.raises(PlanChangedError):
        pipeline.prepare(other, approved=plan.digest)
    with pytest.raises(BudgetError):
        pipeline.prepare(plan, approved=plan.digest, budget_usd=0.001)
    assert inpainter.calls == ()


def test_another_take_of_an_edit_is_another_purchase(fake):
    pipeline, inpainter, film = fake()
    first = pipeline.generate(HERON)
    second = pipeline.generate(evolve(HERON, edits=(evolve(ERASE, take=2),)))
    assert len(inpainter.calls) == 2
    # This model gives the same pixels again, and a film of the same picture is the film that exists.
    assert (second.id, len(film.charges)) == (first.id, 1)


# -- what goes wrong


def test_a_failed_edit_is_a_failure_of_its_row_and_the_others_go_on(fake):
    pipeline, inpainter, film = fake()
    inpainter.reject_next("weapons")
    plain = evolve(HERON, object_prompt="mountain lake", edits=())
    result = pipeline.run([HERON, plain])
    assert list(result.done) == [1]
    (row,) = result.failed
    assert (row.index, row.error["error"]) == (0, "job_failed")
    assert "weapons" in row.error["message"]
    assert "take" in row.error["hint"]
    assert len(film.charges) == 1
    # It may have been billed, so that nobody pays again without saying so.
    plan = pipeline.plan(HERON)
    assert (plan.open, plan.failures[0].error["error"]) == ((), "job_failed")
    with pytest.raises(JobFailedError, match="weapons"):
        pipeline.generate(HERON)
    assert len(inpainter.calls) == 1
    assert pipeline.generate(evolve(HERON, edits=(evolve(ERASE, take=2),))).verify().ok


def test_an_edit_whose_answer_was_lost_is_undecided_and_not_paid_again(fake):
    pipeline, inpainter, film = fake(usd_micros=5_000_000)
    inpainter.faults.on("edit", error=BackendError("reset"), late=True)
    plan = pipeline.plan(HERON)
    prepared = pipeline.prepare(plan, approved=plan.digest)
    assert ([row.error["error"] for row in prepared.failures], prepared.open) == (["job_undecided"], ())
    (step,) = pipeline.workspace.journal.steps()
    assert step.state == "undecided"
    result = pipeline.run([HERON])
    assert (result.done, result.failed, [row.index for row in result.undecided]) == ({}, (), [0])
    assert (len(inpainter.calls), film.calls) == (1, ())
    pipeline.decide(step.id, "buy again", by="ann", reason="no charge on the bill")
    assert pipeline.generate(HERON).verify().ok
    assert len(inpainter.calls) == 2


def test_an_edit_that_failed_for_nothing_is_told_and_tried_again_when_it_is_asked_for_again(fake):
    pipeline, inpainter, _ = fake()
    refusal = BackendError("bad request", retryable=False)
    refusal.request_id = "r-1"
    inpainter.faults.on("edit", error=refusal)
    plan = pipeline.plan(HERON)
    prepared = pipeline.prepare(plan, approved=plan.digest)
    assert ([row.error["error"] for row in prepared.failures], prepared.open) == (["job_failed"], ())
    assert pipeline.run([HERON]).done
    assert len(inpainter.calls) == 2


def test_what_no_inpainter_can_do_is_refused_with_the_next_step(studio, fake):
    local = studio("local")
    with pytest.raises(UnsupportedRequestError, match="'replace' needs a model"):
        local.generate(evolve(HERON, edits=(evolve(REPLACE, count=1),)))
    with pytest.raises(UnsupportedRequestError, match="would all be the same"):
        local.generate(evolve(HERON, edits=(evolve(ERASE, count=2),)))
    none = studio("none", inpainter=None)
    with pytest.raises(UnsupportedRequestError, match=r"vrag\[local\]"):
        none.generate(HERON)
    pipeline, inpainter, _ = fake("fake")
    with pytest.raises(UsageError, match="Only 'outpaint' grows"):
        pipeline.generate(evolve(HERON, edits=(evolve(ERASE, to_video_shape=True),)))
    assert inpainter.calls == ()


# -- variants


def test_a_person_chooses_among_the_variants(fake):
    pipeline, inpainter, film = fake()
    brief = evolve(HERON, edits=(REPLACE,))
    plan = pipeline.plan(brief)
    assert plan.edits[0].estimate.usd_micros == 30_000
    waiting = pipeline.prepare(plan, approved=plan.digest)
    assert ([one.waits_for for one in waiting.open], waiting.edits) == (["choice"], ())
    with pytest.raises(UsageError, match="several variants"):
        pipeline.generate(brief)
    with pytest.raises(UsageError, match="There is no variant 4"):
        pipeline.generate(evolve(HERON, edits=(evolve(REPLACE, choose=4),)))
    video = pipeline.generate(evolve(HERON, edits=(evolve(REPLACE, choose=2),)))
    assert (video.sources[0].edits[0].variant, len(inpainter.calls), len(film.charges)) == (2, 1, 1)
    step = pipeline.workspace.journal.get(video.sources[0].edits[0].step_id)
    assert len(step.outputs) == 3


def test_a_function_chooses_by_score(fake):
    seen = []

    def brightest(planned, variants):
        seen.append((planned.request.operation, len(variants)))
        return len(variants)

    pipeline, inpainter, _ = fake(choose=brightest)
    video = pipeline.generate(evolve(HERON, edits=(REPLACE,)))
    assert set(seen) == {("replace", 3)}
    assert (video.sources[0].edits[0].variant, len(inpainter.calls)) == (3, 1)


def test_what_moderation_keeps_back_is_in_the_record(fake):
    pipeline, inpainter, _ = fake()
    inpainter.reject_next("weapons", "weapons")
    video = pipeline.generate(evolve(HERON, edits=(REPLACE,)))
    still = pipeline.workspace.ledger.get(video.sources[0].edits[0].step_id)
    assert len(still.statement["subject"]) == 1
    assert "rejected" in str(still.statement)


# -- pixels


def test_a_chain_of_two_edits_is_lossless_outside_the_masks(studio):
    """The OpenCV inpainter is the real one: outside of white and its seam of 4 px no pixel changes."""
    pipeline = studio()
    chain = (ERASE, Edit(operation="erase", mask=CORNER))
    video = pipeline.generate(evolve(HERON, edits=chain))
    (source,) = video.sources
    original = upright(pipeline, source)
    before = np.asarray(Image.open(io.BytesIO(original)).convert("RGB"), np.int16)
    once, twice = (pixels(pipeline, edit.media) for edit in source.edits)
    seam = [HEAD.grow(5, unit="px"), CORNER.grow(5, unit="px")]
    kept = ~white_of(original, seam[0])
    assert np.array_equal(once[kept], before[kept])
    kept = ~white_of(original, seam[1])
    assert np.array_equal(twice[kept], once[kept])
    kept = ~white_of(original, *seam)
    assert np.array_equal(twice[kept], before[kept])
    assert np.abs(twice - before)[white_of(original, HEAD)].mean() > 5
    assert np.abs(twice - before)[white_of(original, CORNER)].mean() > 1


def test_masks_repaint_what_is_white_and_nothing_else(fake):
    pipeline, _, _ = fake()
    video = pipeline.generate(HERON)
    (source,) = video.sources
    original = upright(pipeline, source)
    before = np.asarray(Image.open(io.BytesIO(original)).convert("RGB"), np.int16)
    changed = np.any(pixels(pipeline, source.edits[0].media) != before, axis=2)
    assert np.array_equal(changed, white_of(original, HEAD))


def test_outpainting_to_the_shape_of_the_video_crops_nothing(fake):
    pipeline, inpainter, _ = fake()
    tall = evolve(HERON, width_px=36, height_px=64, edits=(Edit(operation="outpaint", to_video_shape=True),))
    video = pipeline.generate(tall)
    (source,) = video.sources
    margins = inpainter.calls[0].arguments["request"].extend_px
    assert margins[:1] + margins[2:3] == (0, 0)
    media = source.edits[0].media
    assert (media.width_px, media.height_px) == (533, 300 + margins[1] + margins[3])
    assert media.width_px / media.height_px == pytest.approx(9 / 16, abs=1e-3)
    left, top, right, bottom = source.conformed.crop_px
    assert (left, top) <= (1, 1)
    assert (right - left, bottom - top) >= (media.width_px - 2, media.height_px - 2)
    cropped = pipeline.generate(evolve(tall, edits=()))
    left, top, right, bottom = cropped.sources[0].conformed.crop_px
    assert right - left < 200, "without it two thirds of the picture are cut off"


# -- the gate, lineage, the record


def test_revoking_the_picture_between_prepare_and_submit_blocks_the_film(fake):
    pipeline, inpainter, film = fake()
    plan = pipeline.plan(HERON)
    ready = pipeline.prepare(plan, approved=plan.digest)
    asset_id = ready.videos[0].sources[0].asset_id
    pipeline.revoke(asset_id, by="ann", reason="contract ended")
    (ticket,) = pipeline.submit(ready, approved=ready.digest)
    with pytest.raises(GateError):
        ticket.result(30)
    assert (len(inpainter.calls), film.charges) == (1, ())


def test_revoking_the_picture_before_prepare_buys_no_edit(fake):
    pipeline, inpainter, _ = fake()
    plan = pipeline.plan(HERON)
    pipeline.revoke(plan.edits[0].source.asset_id, by="ann", reason="contract ended")
    again = pipeline.prepare(plan, approved=plan.digest)
    assert (inpainter.calls, again.videos, again.open) == ((), (), ())
    assert again.failures[0].error["error"] in {"no_suitable_image", "gate"}


def test_where_used_reaches_the_film_through_the_edited_still(fake):
    pipeline, _, _ = fake()
    video = pipeline.generate(HERON)
    (source,) = video.sources
    (edit,) = source.edits
    uses = pipeline.where_used(source.asset_id)
    assert [(use.kind, use.step_id) for use in uses] == [("edit", edit.step_id), ("generate", video.id)]
    ledger = pipeline.workspace.ledger
    up = sources_of(ledger, video.record_id)
    assert [node.asset_id for node in up.of_kind("asset")] == [source.asset_id]
    assert [node.sha256 for node in up.of_kind("edited")] == [edit.media.sha256]
    down = used_in(ledger, source.asset_id)
    assert video.media.sha256 in {node.sha256 for node in down.of_kind("video")}
    only_edited = used_in(ledger, edit.media.sha256)
    assert video.media.sha256 in {node.sha256 for node in only_edited.of_kind("video")}
    # Revoking the picture finds the film too.
    revoked = pipeline.revoke(source.asset_id, by="ann", reason="contract ended")
    assert [use.video_sha256 for use in revoked.videos] == [video.media.sha256]


def test_the_record_of_the_still_is_in_the_ledger_and_verifies(fake):
    pipeline, _, _ = fake()
    video = pipeline.generate(HERON)
    assert video.verify().ok
    (edit,) = video.sources[0].edits
    entry = pipeline.workspace.ledger.get(edit.step_id)
    assert entry.statement["subject"][0]["digest"]["sha256"] == edit.media.sha256
    inputs = entry.statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {one["annotations"]["role"] for one in inputs} >= {"mask"}
    named = str(video.record["predicate"]["buildDefinition"]["resolvedDependencies"])
    assert edit.step_id in str(video.record)
    assert edit.media.sha256 in named
    trusted = [pipeline._signer.public_key]
    with pipeline._storage.open(edit.media) as still:
        checked = verify_file(still, trusted_keys=trusted, ledger=pipeline.workspace.ledger)
    assert (checked.ok, checked.trusted, checked.record_id) == (True, True, edit.step_id)
    assert verify_workspace(pipeline.workspace, trusted_keys=trusted).ok
    with pytest.raises(NotFoundError, match="no delivered video"):
        pipeline.video(edit.step_id)


def test_formats_are_siblings_of_one_picture_with_their_crops_recorded(fake):
    pipeline, inpainter, film = fake()
    sizes = [(64, 36), (36, 64), (48, 48)]
    briefs = pipeline.formats(evolve(HERON, fit="subject"), sizes)
    assert [(brief.width_px, brief.height_px) for brief in briefs] == sizes
    result = pipeline.run(briefs)
    assert sorted(result.done) == [0, 1, 2]
    films = [result.done[row] for row in range(3)]
    assert len({video.sources[0].asset_id for video in films}) == 1
    assert len({video.sources[0].edits[0].step_id for video in films}) == len(inpainter.calls) == 1
    crops = [video.sources[0].conformed.crop_px for video in films]
    assert len(set(crops)) == 3
    for video, (width_px, height_px), (left, top, right, bottom) in zip(films, sizes, crops, strict=True):
        assert (right - left) / (bottom - top) == pytest.approx(width_px / height_px, rel=0.01)
        assert str([left, top, right, bottom]) in str(video.record)
        assert video.verify().ok
    family = used_in(pipeline.workspace.ledger, films[0].sources[0].asset_id)
    delivered = {node.sha256 for node in family.of_kind("video")}
    assert delivered >= {video.media.sha256 for video in films}
    assert len(film.charges) == 3


SHAPES = [(64, 36), (36, 64), (48, 48)]


def decoded(video):
    """The frames of the delivered film."""
    with video.open() as stream, av.open(io.BytesIO(stream.read())) as film:
        return [frame.to_ndarray(format="rgb24").astype(np.int16) for frame in film.decode(video=0)]


def test_formats_outpaint_the_same_picture_to_each_shape_that_it_has_not(fake):
    pipeline, inpainter, film = fake()
    brief = evolve(HERON, edits=(Edit(operation="outpaint", to_video_shape=True),))
    briefs = pipeline.formats(brief, SHAPES)
    result = pipeline.run(briefs)
    assert (sorted(result.done), result.failed) == ([0, 1, 2], ())
    films = [result.done[row] for row in range(3)]
    assert len({video.sources[0].asset_id for video in films}) == 1
    # The photograph is 16:9 already: nothing is bought for that one.
    assert [len(video.sources[0].edits) for video in films] == [0, 1, 1]
    assert len(inpainter.calls) == 2
    for video, (width_px, height_px) in zip(films, SHAPES, strict=True):
        media = video.sources[0].edits[0].media if video.sources[0].edits else video.sources[0].original
        left, top, right, bottom = video.sources[0].conformed.crop_px
        assert (right - left) >= media.width_px - 2
        assert (bottom - top) >= media.height_px - 2
        assert width_px / height_px == pytest.approx(media.width_px / media.height_px, rel=0.01)
    family = used_in(pipeline.workspace.ledger, films[0].sources[0].asset_id)
    assert {node.sha256 for node in family.of_kind("video")} >= {video.media.sha256 for video in films}
    assert len({video.media.sha256 for video in films}) == len(film.charges) == 3


def test_formats_of_one_edited_still_are_films_that_show_it(studio):
    """With the real eraser and the real camera: what was erased is in none of the three films."""
    pipeline = studio()
    brief = evolve(HERON, edits=(ERASE,), fit="subject", width_px=160, height_px=90, action_prompt="static shot")
    sizes = [(160, 90), (90, 160), (96, 96)]
    plain = pipeline.run(pipeline.formats(evolve(brief, edits=()), sizes))
    edited = pipeline.run(pipeline.formats(brief, sizes))
    assert sorted(edited.done) == sorted(plain.done) == [0, 1, 2]
    assert len({video.sources[0].edits[0].step_id for video in edited.done.values()}) == 1
    for row, (width_px, height_px) in enumerate(sizes):
        video = edited.done[row]
        frames = decoded(video)
        assert {frame.shape for frame in frames} == {(height_px, width_px, 3)}
        assert len(frames) == 4
        # Where the two stills differ, each frame is the edited one.
        still, before = (
            np.asarray(
                Image.fromarray(pixels(pipeline, one.sources[0].conformed.media).astype(np.uint8)).resize(
                    (width_px, height_px), Image.Resampling.BOX
                ),
                np.int16,
            )
            for one in (video, plain.done[row])
        )
        erased = np.abs(still - before).max(axis=2) > 60
        assert erased.mean() > 0.005
        for frame in frames:
            assert np.abs(frame - still)[erased].mean() < 0.3 * np.abs(frame - before)[erased].mean()
        assert video.verify().ok


def test_formats_of_a_storyboard_pin_the_picture_of_each_shot(fake):
    pipeline, inpainter, _ = fake()
    # The same picture twice, and an edit of a shot of its own.
    shots = (
        ShotBrief(object_prompt="heron"),
        ShotBrief(object_prompt="heron", edits=(ERASE,)),
        ShotBrief(object_prompt="mountain lake"),
    )
    story = evolve(HERON, object_prompt=None, edits=(), shots=shots)
    briefs = pipeline.formats(story, SHAPES)
    assert inpainter.calls == ()
    pinned = [[shot.picture for shot in brief.shots] for brief in briefs]
    assert pinned[0] == pinned[1] == pinned[2]
    assert pinned[0][0] == pinned[0][1] != pinned[0][2]
    result = pipeline.run(briefs)
    assert (sorted(result.done), len(inpainter.calls)) == ([0, 1, 2], 1)


def test_formats_of_what_no_picture_suits_say_so(fake):
    pipeline, _, _ = fake()
    with pytest.raises(NoSuitableImageError):
        pipeline.formats(evolve(HERON, object_prompt="quantum tax form"), SHAPES)
