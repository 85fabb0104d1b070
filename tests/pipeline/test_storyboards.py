"""Storyboards: retrieved pictures become one film, and its record names all of them."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from attrs import evolve

from vrag import Brief, CameraMove
from vrag.errors import JobFailedError, NoSuitableImageError, UsageError
from vrag.media.mask_spec import MaskSpec
from vrag.media.video import check_video
from vrag.provenance.lineage import sources_of
from vrag.provenance.verify import verify_file
from vrag.testing import FakeVideoGenerator, failing
from vrag.values.briefs import Edit, ShotBrief
from vrag.values.requests import ModelRef

FPS = 24
PICTURES = {
    "mountain lake": "snowy-mountain-lake.jpg",
    "heron": "green-heron-on-branch.jpg",
    "city skyline at night": "city-skyline-at-night.jpg",
    "spices in bowls": "spices-in-bowls.jpg",
    "spaniel dogs": "two-spaniel-dogs.jpg",
}
MOVES = ("camera pans right", "camera zooms in", "camera pans left", "camera tilts down", "camera zooms out")
FIVE = Brief(
    shots=tuple(
        ShotBrief(object_prompt=words, action_prompt=move) for words, move in zip(PICTURES, MOVES, strict=True)
    ),
    width_px=192,
    height_px=108,
    fps=FPS,
    duration_s=1.5,
)
BEAK = Edit(operation="erase", mask=MaskSpec.ellipse(0.45, 0.1, 0.75, 0.6, unit="fraction"))


def decoded(data):
    """Times and brightness of all frames."""
    with av.open(io.BytesIO(data), format="mp4") as container:
        frames = list(container.decode(video=0))
    luma = [frame.to_ndarray(format="yuv420p")[: frame.height].astype(float) for frame in frames]
    return [frame.pts * frame.time_base for frame in frames], luma


def change(one, two):
    return float(np.abs(two - one).mean())


def parts_of(pipeline, video):
    """The frames of each shot, as its generator gave them."""
    shots = []
    for part in video.planned.parts:
        with pipeline._storage.open(pipeline.workspace.journal.get(part.step_id).raw) as stream:
            shots.append(decoded(stream.read())[1])
    return shots


def test_five_retrieved_pictures_become_one_film_without_a_flaw_at_its_cuts(studio, tmp_path):
    pipeline = studio()
    video = pipeline.generate(FIVE)
    data = video.read_bytes()
    info = check_video(io.BytesIO(data), "film", duration_s=7.5)
    assert (info.width_px, info.height_px, info.frames, info.duration_s) == (192, 108, 180, pytest.approx(7.5))
    times, frames = decoded(data)
    assert times == [Fraction(at, FPS) for at in range(180)]

    shots = parts_of(pipeline, video)
    assert [len(shot) for shot in shots] == [36] * 5
    whole = [frame for shot in shots for frame in shot]
    # The moves come to rest, so that neighbours in a shot may look alike: each frame is compared with the one it must be.
    assert all(np.array_equal(got, made) for got, made in zip(frames, whole, strict=True)), (
        "repeated, missing or changed"
    )
    inside = [change(one, two) for shot in shots for one, two in pairwise(shot)]
    for joint in range(36, 180, 36):
        before, after = frames[joint - 1], frames[joint]
        assert change(before, after) > 2 * max(inside), "no cut where one should be"
        assert min(before.mean(), after.mean()) > 24, "a frame is black"

    assert [source.file_name for source in video.sources] == list(PICTURES.values())
    assert video.verify().ok
    named = {
        one["annotations"]["asset_id"]
        for one in video.record["predicate"]["buildDefinition"]["resolvedDependencies"]
        if one["annotations"].get("kind") == "asset"
    }
    assert named == {source.asset_id for source in video.sources}
    graph = sources_of(pipeline.workspace.ledger, video.record_id)
    assert {node.asset_id for node in graph.of_kind("asset")} == named
    assert len(graph.of_kind("part")) == 5

    saved = video.save(tmp_path / "five.mp4")
    alone = verify_file(saved, trusted_keys=[pipeline._signer.public_key])
    assert (alone.ok, alone.trusted) == (True, True)
    assert {source["asset_id"] for source in alone.summary["sources"]} == named
    for source in video.sources:
        uses = pipeline.where_used(source.asset_id)
        assert {use.kind for use in uses} == {"generate", "assemble"}
        assert video.id in {use.step_id for use in uses}


def test_no_change_in_a_crossfade_is_larger_than_the_largest_inside_the_shots(studio):
    pipeline = studio()
    shots = tuple(evolve(shot, action_prompt=None, camera=(CameraMove.PAN_RIGHT,)) for shot in FIVE.shots)
    video = pipeline.generate(evolve(FIVE, shots=shots, duration_s=2.5, crossfade_s=1.0))
    times, frames = decoded(video.read_bytes())
    assert len(frames) == 5 * 60 - 4 * 24
    assert times == [Fraction(at, FPS) for at in range(len(frames))]
    inside = [change(one, two) for shot in parts_of(pipeline, video) for one, two in pairwise(shot)]
    steps = [change(one, two) for one, two in pairwise(frames)]
    assert max(steps) <= max(inside)
    assert min(steps) > 0.05
    assert min(frame.mean() for frame in frames) > 24
    assert video.media.duration_s == pytest.approx(8.5)
    assert video.verify().ok


def small(**asked):
    return evolve(FIVE, width_px=64, height_px=36, fps=8, duration_s=0.5, **asked)


def generator(name, max_shots):
    able = evolve(FakeVideoGenerator().capabilities, max_shots=max_shots)
    return FakeVideoGenerator(capabilities=able, model=ModelRef(provider="fake", id=name))


def test_a_model_that_takes_many_shots_gets_one_request(studio):
    many, single = generator("many", max_shots=5), generator("single", max_shots=1)
    pipeline = studio(generators={"many": many, "single": single})
    video = pipeline.generate(small(model="many"))
    (start,) = [call for call in many.calls if call.name == "start"]
    prompts = [shot.prompt for shot in start.arguments["request"].shots]
    assert prompts == [f"{words}, {move}" for words, move in zip(PICTURES, MOVES, strict=True)]
    assert [source.file_name for source in video.sources] == list(PICTURES.values())
    assert (video.planned.parts, len(many.charges)) == ((), 1)
    assert video.verify().ok
    other = pipeline.generate(small(model="single"))
    assert (len(other.planned.parts), len(single.charges)) == (5, 5)
    # One crossfade needs single shots: no model is asked for what it would not do.
    pipeline.generate(small(model="many", crossfade_s=0.125))
    assert len(many.charges) == 6


def test_the_same_shot_in_two_storyboards_is_bought_once(studio):
    film = generator("film", max_shots=1)
    pipeline = studio(generators={"film": film})
    pipeline.generate(small())
    first, *rest = FIVE.shots
    pipeline.generate(small(shots=(*rest, first)))
    assert len(film.charges) == 5


def test_one_shot_may_be_edited(studio):
    pipeline = studio()
    shots = tuple(evolve(shot, edits=(BEAK,)) if shot.object_prompt == "heron" else shot for shot in FIVE.shots[:3])
    brief = small(shots=shots)
    plan = pipeline.plan(brief)
    assert (plan.videos, [edit.source.file_name for edit in plan.edits]) == ((), ["green-heron-on-branch.jpg"])
    video = pipeline.generate(brief)
    assert [len(source.edits) for source in video.sources] == [0, 1, 0]
    (still,) = sources_of(pipeline.workspace.ledger, video.record_id).of_kind("edited")
    assert still.sha256 == video.sources[1].edits[0].media.sha256
    assert video.verify().ok
    plain = pipeline.generate(small(shots=FIVE.shots[:3]))
    assert [one.step_id == two.step_id for one, two in zip(video.planned.parts, plain.planned.parts, strict=True)] == [
        True,
        False,
        True,
    ]


def test_a_crossfade_that_is_too_long_is_refused_before_anything_is_bought(studio):
    film = FakeVideoGenerator()
    pipeline = studio(generators={"film": film})
    with pytest.raises(UsageError, match=r"crossfade of 0\.3 s is too long for a shot of 0\.5 s"):
        pipeline.generate(small(crossfade_s=0.3))
    assert film.calls == ()


def test_a_shot_without_a_picture_is_named_and_nothing_is_bought(studio):
    film = FakeVideoGenerator()
    pipeline = studio(generators={"film": film})
    with pytest.raises(NoSuitableImageError, match="submarine"):
        pipeline.generate(small(shots=(*FIVE.shots, ShotBrief(object_prompt="submarine"))))
    assert film.calls == ()


def test_revoking_one_picture_of_a_planned_storyboard_stops_all_of_it(studio):
    film = generator("film", max_shots=1)
    pipeline = studio(generators={"film": film})
    plan = pipeline.plan(small())
    third = plan.videos[0].sources[2].asset_id
    pipeline.revoke(third, by="ann", reason="contract ended")
    (ticket,) = pipeline.submit(plan, approved=plan.digest)
    with pytest.raises(Exception, match="revoked"):
        ticket.result(30)
    assert len(film.charges) < 5
    assert [use.state for use in pipeline.where_used(third) if use.state == "delivered"] == []


def test_after_a_failed_shot_the_same_brief_buys_only_what_is_missing(studio):
    film = generator("film", max_shots=1)
    film.next_job(*failing("internal", billed=False))
    pipeline = studio(generators={"film": film})
    with pytest.raises(JobFailedError, match="A shot of it failed"):
        pipeline.generate(small())
    pipeline.resume()  # the other shots, which were on their way
    assert len(film.charges) == 5
    assert pipeline.generate(small()).verify().ok
    assert len(film.charges) == 6
