"""Variants of an edit: what is measured of them, who chooses, what the record says, and what a plan shows."""

import base64
import io
import re

import numpy as np
import pytest
from attrs import evolve
from PIL import Image, ImageFilter

from vrag import Brief
from vrag.errors import UsageError
from vrag.media.mask_spec import MaskSpec
from vrag.media.variants import change, repainted, sharpness
from vrag.provenance.audit import verify_workspace
from vrag.provenance.lineage import sources_of
from vrag.testing import FakeInpainter, FakeVideoGenerator
from vrag.values.briefs import Edit, ShotBrief, Variant, best_variant
from vrag.values.canonical import from_json, to_json
from vrag.values.policy import Policy
from vrag.values.requests import EditCapabilities, ImageRule

HEAD = MaskSpec.ellipse(0.45, 0.1, 0.75, 0.6, unit="fraction")
REPLACE = Edit(operation="replace", mask=HEAD, prompt="a lantern", count=3)
HERON = Brief(
    object_prompt="heron",
    action_prompt="camera zooms in",
    width_px=64,
    height_px=36,
    fps=8,
    duration_s=0.5,
    edits=(REPLACE,),
)
SHARPEST, LEAST_CHANGED = 2, 3


class Painter(FakeInpainter):
    """Gives three variants that differ: soft and kept, sharp and changed all over, softer and kept to the last bit."""

    def edit(self, request, media):
        result = super().edit(request, media)
        if request.count == 1 or request.mask is None:
            return result
        with media(request.image) as stream:
            before = Image.open(io.BytesIO(stream.read())).convert("RGB")
        with media(request.mask) as stream:
            white = Image.open(io.BytesIO(stream.read())).convert("L")
        painted = Image.open(io.BytesIO(result.images[0])).convert("RGB")
        soft = Image.composite(
            painted.filter(ImageFilter.GaussianBlur(2)), before.point(lambda v: min(v + 2, 255)), white
        )
        sharp = Image.composite(painted, before.point(lambda v: min(v + 9, 255)), white)
        softer = Image.composite(painted.filter(ImageFilter.GaussianBlur(6)), before, white)
        images = []
        for one in (soft, sharp, softer):
            out = io.BytesIO()
            one.save(out, "PNG")
            images.append(out.getvalue())
        return evolve(result, images=tuple(images))


@pytest.fixture
def painted(studio):
    """A studio whose editor gives variants that differ."""

    def build(name="studio", **parts):
        inpainter, film = Painter(usd_micros=10_000), FakeVideoGenerator()
        return studio(name, **{"generators": {"film": film}, "inpainter": inpainter, **parts}), inpainter

    return build


def choosing(choose):
    return evolve(HERON, edits=(evolve(REPLACE, choose=choose),))


def choices(pipeline):
    found = [entry.statement for entry in pipeline.workspace.ledger.entries()]
    return [
        one for one in found if one["predicate"]["buildDefinition"]["internalParameters"]["record"]["kind"] == "choose"
    ]


# -- what is measured


def photographs():
    from importlib.resources import files

    return sorted(
        (one.name, one.read_bytes())
        for one in (files("vrag") / "demo" / "photos").iterdir()
        if one.name.endswith(".jpg")
    )


@pytest.mark.parametrize(("name", "data"), photographs(), ids=lambda value: value if isinstance(value, str) else "")
def test_sharpness_falls_with_every_blur_of_every_photograph(name, data):
    picture = Image.open(io.BytesIO(data)).convert("RGB").reduce(3)
    white = np.zeros((picture.height, picture.width), np.bool_)
    white[picture.height // 4 : picture.height // 2, picture.width // 4 : picture.width // 2] = True
    scores = []
    for radius in (0, 1, 2, 4):
        out = io.BytesIO()
        picture.filter(ImageFilter.GaussianBlur(radius)).save(out, "PNG")
        scores.append(sharpness(out.getvalue(), white))
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 1.5 * scores[-1]


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_change_is_counted_outside_of_the_mask_and_its_seam_only():
    before = np.full((64, 96, 3), 100, np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 20:40] = 255
    white = repainted(96, 64, mask=png(mask))
    variant = before.copy()
    variant[15:45, 15:45] = 250  # all of the mask, and five pixels around it
    assert change(png(before), png(variant), white) == 0
    variant[:, 60:] += 10
    assert change(png(before), png(variant), white) == pytest.approx(
        10 * 36 * 64 / (96 * 64 - grown_area(white)), abs=1e-3
    )
    assert change(png(before), png(variant[:-1]), white) is None
    assert change(png(before), png(variant), np.ones((64, 96), np.bool_)) is None
    assert change(png(before), png(variant), None) is None


def grown_area(white):
    from vrag.media.mask_draw import grown

    return int(grown(white, 8).sum())


def test_an_outpainted_picture_is_measured_where_it_was_added_and_where_it_was_kept():
    rng = np.random.default_rng(7)
    before = rng.integers(0, 255, (40, 60, 3), np.uint8)
    extend = (10, 0, 10, 20)
    grown_by = np.pad(before, ((0, 20), (10, 10), (0, 0)))
    white = repainted(60, 40, extend_px=extend)
    assert white.shape == (60, 80)
    assert change(png(before), png(grown_by), white, extend) == 0
    assert change(png(before), png(np.roll(grown_by, 1, axis=1)), white, extend) > 50
    assert sharpness(png(grown_by), white) < 20
    assert sharpness(png(grown_by)) > 50
    assert repainted(60, 40) is None


def test_the_best_is_the_first_of_equals_and_none_where_one_was_not_measured(painted):
    pipeline, _ = painted()
    media = pipeline.plan(HERON).edits[0].request.image
    scored = [
        Variant(media=media, scores={"sharpest": score, "least changed": score}) for score in (2.0, 5.0, 5.0, 2.0)
    ]
    assert (best_variant("sharpest", scored), best_variant("least changed", scored)) == (2, 1)
    assert best_variant("sharpest", [*scored, Variant(media=media)]) is None


# -- who chooses


@pytest.mark.parametrize(("rule", "expected"), [("sharpest", SHARPEST), ("least changed", LEAST_CHANGED)])
def test_a_rule_chooses_and_the_record_has_every_candidate_with_its_score(painted, rule, expected):
    pipeline, inpainter = painted()
    video = pipeline.generate(choosing(rule))
    (edit,) = video.sources[0].edits
    assert (edit.variant, len(inpainter.calls)) == (expected, 1)
    (choice,) = choices(pipeline)
    build = choice["predicate"]["buildDefinition"]
    assert (build["externalParameters"]["by"], build["internalParameters"]["chosen"]) == (rule, expected)
    options = build["internalParameters"]["options"]
    assert [one["sha256"] for one in options] == [one.media.sha256 for one in edit.choice.variants]
    scores = [one["scores"][rule] for one in options]
    assert scores.index(max(scores) if rule == "sharpest" else min(scores)) == expected - 1
    assert len(set(scores)) == 3
    assert choice["subject"][0]["digest"]["sha256"] == edit.media.sha256
    assert video.verify().ok
    assert verify_workspace(pipeline.workspace, trusted_keys=[pipeline._signer.public_key]).ok
    graph = sources_of(pipeline.workspace.ledger, video.record_id)
    assert [node.sha256 for node in graph.of_kind("edited")] == [edit.media.sha256], "what was not taken is not in it"
    assert [node.asset_id for node in graph.of_kind("asset")] == [video.sources[0].asset_id]
    # Another way to the same variant is the same film.
    assert pipeline.generate(choosing(expected)).id == video.id
    assert len(choices(pipeline)) == 1


def test_a_number_in_the_brief_and_a_function_are_recorded_without_scores(painted):
    pipeline, _ = painted()
    pipeline.generate(choosing(1))
    other, _ = painted("other", choose=lambda _planned, variants: len(variants))
    other.generate(HERON)
    for one, by, number in ((pipeline, "number in the brief", 1), (other, "function of the pipeline", 3)):
        (choice,) = choices(one)
        build = choice["predicate"]["buildDefinition"]
        assert (build["externalParameters"]["by"], build["internalParameters"]["chosen"]) == (by, number)
        assert [option["scores"] for option in build["internalParameters"]["options"]] == [{}, {}, {}]


def test_the_policy_chooses_where_the_brief_does_not(painted):
    pipeline, _ = painted(policy=Policy(choose="least changed"))
    assert pipeline.generate(HERON).sources[0].edits[0].variant == LEAST_CHANGED
    assert pipeline.generate(choosing(1)).sources[0].edits[0].variant == 1


def test_one_variant_needs_no_choice_and_no_record_of_one(painted):
    pipeline, _ = painted(policy=Policy(choose="sharpest"))
    video = pipeline.generate(evolve(HERON, edits=(evolve(REPLACE, count=1, choose="least changed"),)))
    assert (video.sources[0].edits[0].choice, choices(pipeline)) == (None, [])


def test_a_rule_that_can_measure_nothing_is_refused_before_anything_is_bought(studio):
    able = EditCapabilities(operations=frozenset({"remove_background"}), image=ImageRule(), max_images=2)
    inpainter = FakeInpainter(capabilities=able)
    pipeline = studio(generators={"film": FakeVideoGenerator()}, inpainter=inpainter)
    edit = Edit(operation="remove_background", count=2, choose="least changed")
    with pytest.raises(UsageError, match=r"'least changed' compares what lies outside of a mask"):
        pipeline.generate(evolve(HERON, edits=(edit,)))
    assert inpainter.calls == ()


@pytest.mark.parametrize("value", [0, -1, "prettiest"])
def test_what_is_no_number_and_no_rule_is_refused_by_name(value):
    with pytest.raises(ValueError, match="'sharpest', 'least changed'"):
        Edit(operation="erase", choose=value)
    with pytest.raises(UsageError):
        from_json(Brief, {"object_prompt": "x", "edits": [{"operation": "erase", "choose": value}]})
    assert from_json(Edit, to_json(evolve(REPLACE, choose="sharpest"))).choose == "sharpest"


# -- a plan that waits


def test_a_plan_is_chosen_from_by_number_rule_or_edit_and_nothing_is_bought(painted):
    pipeline, inpainter = painted()
    lake = evolve(HERON, object_prompt="mountain lake")
    plan = pipeline.plan([HERON, lake])
    with pytest.raises(UsageError, match="0 edits wait for a choice"):
        pipeline.choose(plan, 1)
    waiting = pipeline.prepare(plan, approved=plan.digest)
    ids = [one.edits[0].step_id for one in waiting.open]
    assert [len(one.variants[0]) for one in waiting.open] == [3, 3]
    assert set(waiting.open[0].variants[0][0].scores) == {"sharpest", "least changed"}
    with pytest.raises(UsageError, match=r"2 edits wait.*EDIT=NUMBER|2 edits wait"):
        pipeline.choose(waiting, 1)
    with pytest.raises(UsageError, match="No edits that wait for a choice begin with 'zz'"):
        pipeline.choose(waiting, {"zz": 1})
    one = pipeline.choose(waiting, {ids[1][:10]: 2})
    assert ([row.index for row in one.open], one.rows) == ([0], (1,))
    assert one.videos[0].sources[0].edits[0].variant == 2
    ready = pipeline.choose(waiting, "sharpest")
    assert (ready.open, [video.sources[0].edits[0].variant for video in ready.videos]) == ((), [SHARPEST, SHARPEST])
    assert len(inpainter.calls) == 2
    (failed,) = pipeline.choose(one, 9).failures
    assert "There is no variant 9" in failed.error["message"]
    assert len(pipeline.submit(ready, approved=ready.digest)) == 2


def test_shots_of_a_storyboard_are_chosen_for_one_by_one(painted):
    pipeline, _ = painted()
    story = evolve(
        HERON,
        object_prompt=None,
        shots=(ShotBrief(object_prompt="heron"), ShotBrief(object_prompt="mountain lake", edits=(REPLACE,))),
    )
    plan = pipeline.plan(story)
    waiting = pipeline.prepare(plan, approved=plan.digest)
    (row,) = waiting.open
    first, second = (edit.step_id for edit in row.edits)
    half = pipeline.choose(waiting, {first: 1})
    assert [edit.step_id for edit in half.open[0].edits] == [second]
    (video,) = pipeline.choose(half, "sharpest").videos
    assert [source.edits[0].variant for source in video.sources] == [1, SHARPEST]


def test_shots_of_one_request_that_share_an_edit_record_each_choice_once(painted):
    able = FakeVideoGenerator().capabilities
    pipeline, _ = painted(generators={"film": FakeVideoGenerator(capabilities=evolve(able, max_shots=3))})
    one, two = (evolve(REPLACE, choose=number) for number in (1, 2))
    shots = (
        ShotBrief(object_prompt="heron", edits=(one,)),
        ShotBrief(object_prompt="heron", edits=(one,), fit="contain"),
        ShotBrief(object_prompt="heron", edits=(two,)),
    )
    square = evolve(HERON, object_prompt=None, edits=(), shots=shots, width_px=48, height_px=48)
    video = pipeline.generate(square)
    assert (len(video.sources), video.planned.parts) == (3, ())
    assert [one["predicate"]["buildDefinition"]["internalParameters"]["chosen"] for one in choices(pipeline)] == [1, 2]
    assert video.verify().ok


def pictures(html):
    found = re.findall(r'<img src="data:image/(?:jpeg|png);base64,([^"]+)" alt="([^"]*)"', html)
    return [
        (np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), int), alt) for data, alt in found
    ]


def test_the_sheet_shows_what_would_be_repainted_and_then_each_variant_with_what_to_type(painted):
    pipeline, _ = painted()
    plan = pipeline.plan(HERON)
    for html in (pipeline.contact_sheet(plan).to_html(), pipeline.contact_sheet(plan)._repr_html_()):
        ((overlay, alt),) = pictures(html)
        assert "tinted" in alt
        pinkish = (overlay[..., 0] - overlay[..., 1] > 40) & (overlay[..., 2] - overlay[..., 1] > 0)
        assert pinkish.mean() == pytest.approx(np.pi * 0.15 * 0.25, abs=0.04), "the ellipse"
        assert "0.03 USD" in html
    waiting = pipeline.prepare(plan, approved=plan.digest)
    edit = waiting.open[0].edits[0]
    page, cell = pipeline.contact_sheet(waiting).to_html(), pipeline.contact_sheet(waiting)._repr_html_()
    for html in (page, cell):
        shown = pictures(html)
        assert [alt for _, alt in shown][1:] == [f"variant {n} of replace (a lantern)" for n in (1, 2, 3)]
        for (seen, _), variant in zip(shown[1:], waiting.open[0].variants[0], strict=True):
            with pipeline._storage.open(variant.media) as stream:
                whole = Image.open(io.BytesIO(stream.read())).convert("RGB").resize(seen.shape[1::-1])
            assert np.abs(np.asarray(whole, int) - seen).mean() < 6
        assert edit.step_id[:12] in html
        assert f"{waiting.open[0].variants[0][1].scores['sharpest']:.2f}" in html
    for number in (1, 2, 3):
        assert f"--choose {edit.step_id[:12]}={number}" in page
    assert page.count('class="tag"') == 2, "the best by each measure"


def test_a_plan_that_waits_survives_being_written_down(painted):
    pipeline, _ = painted()
    plan = pipeline.plan(HERON)
    waiting = pipeline.prepare(plan, approved=plan.digest)
    again = from_json(type(waiting), to_json(waiting))
    assert again == waiting
    assert pipeline.choose(again, 2).videos[0].sources[0].edits[0].variant == 2
    # A file from somewhere else whose brief has no such edit.
    forged = evolve(waiting, open=tuple(evolve(one, brief=evolve(one.brief, edits=())) for one in waiting.open))
    with pytest.raises(UsageError, match="The brief has 0 edits"):
        pipeline.choose(forged, 1)
