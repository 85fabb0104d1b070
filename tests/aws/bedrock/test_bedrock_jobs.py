"""Jobs from end to end over HTTP: films that are what was asked, every fault, and no second charge."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from vrag.backends.aws.luma_ray import LumaRayGenerator
from vrag.backends.aws.nova_reel import NovaReelGenerator
from vrag.errors import (
    AccessDeniedError,
    BackendError,
    ContentRejectedError,
    JobError,
    JobFailedError,
    ModelRetiredError,
    NotFoundError,
    ThrottledError,
    UnsupportedRequestError,
)
from vrag.generation.runner import Runner
from vrag.testing import FakeStorage, SampleMedia, probe_film
from vrag.testing.bedrock import FakeBedrock, LostReply, Refusal
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.jobs import Output, StepState
from vrag.values.requests import Input, Shot, VideoRequest, purchase_id
from vrag.workspace import Workspace

pytest.importorskip("av", reason="the extra 'testing' is not installed")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def luma(world, **options):
    return LumaRayGenerator(
        bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, clock=world.clock, **options
    )


def reel(world, **options):
    return NovaReelGenerator(
        bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, clock=world.clock, **options
    )


def small(prompt="a lake", **shot):
    return VideoRequest(shots=(Shot(prompt=prompt, duration_s=5.0, **shot),), width_px=540, height_px=540)


def filmed(world, generator, request, media=None):
    handle = generator.start(request, media or SampleMedia(), "token")
    assert generator.status([handle])[handle].state == "running"
    world.clock.advance(91)
    status = generator.status([handle])[handle]
    assert status.state == "succeeded", status
    bucket, _, prefix = world.output_uri.removeprefix("s3://").partition("/")
    written = world.s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
    assert any(one["Key"].endswith("/output.mp4") for one in written.get("Contents", [])), "not in the bucket asked for"
    return handle, status


def read(generator, handle, output):
    with generator.fetch(handle, output) as stream:
        return stream.read()


def near(frame, media, ref):
    with Image.open(media(ref)) as opened:
        picture = np.asarray(opened.convert("RGB").resize(frame.shape[1::-1]))
    return float(np.abs(frame[: frame.shape[0] * 7 // 8].astype(int) - picture[: frame.shape[0] * 7 // 8]).mean())


def test_nova_reel_gives_the_start_frame_the_shots_and_the_film(world):
    generator, media = reel(world), SampleMedia()
    frames = [media.picture(number, width_px=1280, height_px=720, media_type="image/jpeg") for number in (1, 6)]
    shots = tuple(Shot(prompt="a lake", inputs=(Input(role="start_frame", media=one),)) for one in frames)
    handle, status = filmed(world, generator, VideoRequest(shots=shots), media)
    assert [(one.name, one.role) for one in status.outputs if one.role != "manifest"] == [
        ("output.mp4", "video"),
        ("shot_0001.mp4", "shot"),
        ("shot_0002.mp4", "shot"),
    ]
    film = probe_film(read(generator, handle, status.outputs[1]))
    assert (film.width_px, film.height_px, film.fps, film.duration_s) == (1280, 720, 24.0, 12.0)
    assert near(film.first_frame, media, frames[0]) < 4
    assert near(film.first_frame, media, frames[1]) > 40
    second = next(one for one in status.outputs if one.name == "shot_0002.mp4")
    assert near(probe_film(read(generator, handle, second)).first_frame, media, frames[1]) < 4


@pytest.mark.parametrize("size", [(540, 960), (1260, 540)])
def test_luma_ray_gives_the_size_and_the_first_frame(world, size):
    generator, media = luma(world), SampleMedia()
    first, last = (media.picture(number, width_px=size[0], height_px=size[1]) for number in (1, 6))
    inputs = (Input(role="start_frame", media=first), Input(role="end_frame", media=last))
    handle, status = filmed(world, generator, evolve(small(inputs=inputs), width_px=size[0], height_px=size[1]), media)
    film = probe_film(read(generator, handle, next(one for one in status.outputs if one.role == "video")))
    assert (film.width_px, film.height_px, film.duration_s) == (*size, 5.0)
    assert near(film.first_frame, media, first) < 4


@pytest.mark.parametrize("name", ["video-generation-status.json", "generation-status.json"])
@pytest.mark.parametrize(
    ("ending", "code"), [("moderation", "moderation"), ("service", "service"), ("throttled", "throttled")]
)
def test_a_job_that_fails_says_why(world, ending, code, name):
    world.fake.jobs.status_file = name
    world.fake.jobs.script(ending)
    generator = reel(world)
    handle = generator.start(VideoRequest(shots=(Shot(prompt="a lake"),)), SampleMedia(), "token")
    world.fake.jobs.finish(handle.id)
    status = generator.status([handle])[handle]
    assert (status.state, status.error.code, status.billed) == ("failed", code, None)
    with pytest.raises(NotFoundError):
        generator.fetch(handle, Output(name="output.mp4"))


def test_prompts_and_pictures_that_are_refused_at_once_are_typed(world):
    with pytest.raises(ContentRejectedError):
        luma(world).start(small("gore on a lake"), SampleMedia(), "token")
    media = SampleMedia()
    grey = io.BytesIO()
    Image.new("RGBA", (1280, 720), (9, 9, 9, 9)).save(grey, "PNG")
    clear = media.add(grey.getvalue(), "image/png", 1280, 720)
    shot = Shot(prompt="a lake", inputs=(Input(role="start_frame", media=clear),))
    with pytest.raises(UnsupportedRequestError, match="transparent"):
        reel(world).start(VideoRequest(shots=(shot,)), media, "token")
    assert world.fake.jobs.count == 0


def test_a_retired_model_is_refused_before_anything_is_sent(world):
    generator = reel(world)
    world.clock.advance(300 * 86_400)  # past the last of September
    request = VideoRequest(shots=(Shot(prompt="a lake"),))
    assert [one.field for one in generator.validate(request)] == ["model"]
    with pytest.raises(ModelRetiredError, match=r"2026-09-30") as caught:
        generator.start(request, SampleMedia(), "token")
    assert "luma.ray-v2:0" in caught.value.hint
    assert not world.fake.faults.calls
    with pytest.raises(ModelRetiredError, match="end of its life"):  # the account is not entitled after all
        reel(world, allow_retired=True).start(request, SampleMedia(), "token")


def test_a_model_that_is_retired_in_mid_batch_lets_its_jobs_end(world):
    generator = luma(world)
    handle = generator.start(small(), SampleMedia(), "first")
    world.fake.retire("luma.ray-v2:0")
    with pytest.raises(ModelRetiredError):
        generator.start(small(), SampleMedia(), "second")
    world.fake.jobs.finish(handle.id)
    assert generator.status([handle])[handle].state == "succeeded"


def test_a_list_that_lags_and_a_token_that_is_forgotten(world):
    generator = luma(world)
    world.fake.jobs.list_lag_s = 60.0
    handles = [generator.start(small(f"lake {number}"), SampleMedia(), f"token-{number}") for number in range(5)]
    assert generator.find(["token-1"], LONG_AGO) == {}
    assert len(generator.status(handles)) == 5, "Those that the list does not show are asked for one by one."
    world.fake.jobs.finish(handles[0].id)
    assert generator.status(handles)[handles[0]].state == "succeeded"
    world.clock.advance(61)
    assert generator.status(handles)[handles[0]].state == "succeeded"
    world.fake.jobs.forget("token-1")
    assert generator.find(["token-1"], LONG_AGO) == {"token-1": handles[1]}
    again = generator.start(small("lake 1"), SampleMedia(), "token-1")
    assert again != handles[1]
    assert generator.find(["token-1"], LONG_AGO) == {"token-1": handles[1]}, "the one that was bought first"


def test_find_looks_through_every_page_or_raises(world):
    generator = luma(world)
    world.fake.jobs.page_limit = 2
    handles = {
        f"t{number}": generator.start(small(f"lake {number}"), SampleMedia(), f"t{number}") for number in range(7)
    }
    assert generator.find([*handles, "other"], LONG_AGO) == handles
    world.fake.faults.on("ListAsyncInvokes", error=Refusal("InternalServerException", "page"), after=2)
    with pytest.raises(BackendError):
        generator.find(["t6"], LONG_AGO)


def test_many_jobs_are_watched_by_one_call_a_page(world):
    generator = luma(world)
    handles = [generator.start(small(f"lake {number}"), SampleMedia(), f"t{number}") for number in range(40)]
    assert len(generator.status(handles)) == 40
    assert (world.fake.calls("ListAsyncInvokes"), world.fake.calls("GetAsyncInvoke")) == (1, 0)
    assert len(generator.status(handles[:1])) == 1
    assert (world.fake.calls("ListAsyncInvokes"), world.fake.calls("GetAsyncInvoke")) == (1, 1)


def test_a_storm_of_throttling_is_ridden_out_by_the_client_and_else_typed(world):
    world.fake.faults.on("StartAsyncInvoke", times=2)
    patient = LumaRayGenerator(
        bedrock=world.client(attempts=4), s3=world.s3, output_uri=world.output_uri, clock=world.clock
    )
    patient.start(small(), SampleMedia(), "token")
    assert len(world.fake.charges) == 1
    world.fake.faults.on("StartAsyncInvoke")
    with pytest.raises(ThrottledError):
        luma(world).start(small("a hill"), SampleMedia(), "other")
    assert len(world.fake.charges) == 1


def test_a_wrong_secret_is_refused_by_its_signature(world):
    stranger = LumaRayGenerator(
        bedrock=world.client(secret="wrong"), s3=world.s3, output_uri=world.output_uri, clock=world.clock
    )
    with pytest.raises(AccessDeniedError, match="signature"):
        stranger.start(small(), SampleMedia(), "token")
    assert not world.fake.charges


def test_a_bucket_that_cannot_be_written_is_refused(world):
    generator = LumaRayGenerator(bedrock=world.bedrock, s3=world.s3, output_uri="s3://elsewhere/x", clock=world.clock)
    with pytest.raises(BackendError, match="Invalid Output Config"):
        generator.start(small(), SampleMedia(), "token")
    assert not world.fake.charges


def test_one_call_works_inside_a_running_event_loop(world):
    async def inside():
        return luma(world).start(small(), SampleMedia(), "token")

    assert asyncio.run(inside()).provider == "aws-bedrock"


def test_32_threads_share_one_object_and_one_token(world):
    generator = luma(world)
    with ThreadPoolExecutor(32) as pool:
        handles = set(pool.map(lambda _: generator.start(small(), SampleMedia(), "token"), range(32)))
    assert len(handles) == 1
    assert len(world.fake.charges) == 1


class Studio:
    """A runner over a real journal, moto's S3 and the fake Bedrock; `restart` is a new process after a crash."""

    def __init__(self, folder, world):
        self.folder, self.world, self.storage = folder, world, FakeStorage()
        self.workspace = None
        self.restart()

    def restart(self):
        if self.workspace is not None:
            self.workspace.close()
        self.generator = luma(self.world)
        self.workspace = Workspace(self.folder, clock=self.world.clock)
        self.journal = self.workspace.journal
        self.runner = Runner(
            journal=self.journal,
            storage=self.storage,
            generators={"film": self.generator},
            clock=self.world.clock,
            gate=lambda _step: None,
            record=lambda step, _closed: self.journal.advance(
                step.id, StepState.FINISHED, StepState.RECORDED, record_id=step.id
            ),
        )

    def plan(self):
        request, model = small(), self.generator.model
        planned = PlannedVideo(
            step_id=purchase_id(request, model, scope=self.workspace.scope),
            brief=Brief(object_prompt="a lake", text_only=True),
            generator="film",
            model=model,
            request=request,
            sources=(),
            estimate=self.generator.estimate(request),
        )
        return self.journal.plan(planned).id


@pytest.fixture
def studio(world, tmp_path):
    one = Studio(tmp_path / "studio", world)
    yield one
    one.workspace.close()


FAULTS = {
    "none": lambda fake: None,
    "throttled": lambda fake: fake.faults.on("StartAsyncInvoke"),
    "500 before the charge": lambda fake: fake.faults.on(
        "StartAsyncInvoke", error=Refusal("InternalServerException", "sorry")
    ),
    "500 after the charge": lambda fake: fake.faults.on(
        "StartAsyncInvoke", error=Refusal("InternalServerException", "sorry"), late=True
    ),
    "lost reply": lambda fake: fake.faults.on("StartAsyncInvoke", error=LostReply(), late=True),
    "no answer": lambda fake: fake.faults.on("StartAsyncInvoke", error=LostReply()),
    "list throttled": lambda fake: fake.faults.on("StartAsyncInvoke", error=LostReply(), late=True).on(
        "ListAsyncInvokes", times=2
    ),
    "status lost": lambda fake: fake.faults.on("GetAsyncInvoke", error=LostReply(), times=2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_reaches_its_end_through_every_fault_with_one_charge(studio, fault):
    step_id = studio.plan()
    FAULTS[fault](studio.world.fake)
    for _life in range(6):
        try:
            step = studio.runner.drive(step_id)
            break
        except JobFailedError:
            raise
        except JobError:  # worth another life
            studio.restart()
    assert step.state is StepState.DELIVERED
    assert (step.raw.width_px, step.raw.duration_s) == (540, 5.0)
    assert len(studio.world.fake.charges) == 1


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("moderation", "content filters"),
        ("missing_output", "no output.mp4"),
        ("truncated_output", "cut off|truncated|whole|end"),
    ],
)
def test_a_job_that_ends_badly_fails_its_step_and_is_not_bought_again(studio, ending, code):
    studio.world.fake.jobs.script(ending)
    step_id = studio.plan()
    for _ in range(2):
        with pytest.raises(JobFailedError, match=code):
            studio.runner.drive(step_id)
        studio.restart()
    assert len(studio.world.fake.charges) == 1


def test_the_fake_can_be_served_for_people(s3):
    from vrag.testing.bedrock import serve

    with serve(s3=s3, render_s=0.0) as fake:
        assert isinstance(fake, FakeBedrock)
        assert fake.url.startswith("http://127.0.0.1:")
