"""One step, brought to its end through every fault, without a second charge."""

from datetime import timedelta
from io import BytesIO

import pytest

from vrag.errors import (
    AccessDeniedError,
    BackendError,
    GateError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    JobUndecidedError,
)
from vrag.generation.runner import Runner
from vrag.testing import FakeClock, FakeStorage, FakeVideoGenerator, failing
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.jobs import JobStatus, StepState
from vrag.values.requests import Shot, VideoRequest, purchase_id
from vrag.workspace import Workspace


class Studio:
    """A runner over a real journal and a fake provider; `restart` is a new process after a crash."""

    def __init__(self, folder, **generator):
        self.folder = folder
        self.clock = FakeClock()
        self.storage = FakeStorage()
        self.generator = FakeVideoGenerator(clock=self.clock, **generator)
        self.gate = lambda _step: None
        self.records = []
        self.open()

    def open(self):
        self.workspace = Workspace(self.folder, clock=self.clock)
        self.journal = self.workspace.journal
        self.runner = Runner(
            journal=self.journal,
            storage=self.storage,
            generators={"film": self.generator},
            clock=self.clock,
            gate=lambda step: self.gate(step),  # noqa: PLW0108  # tests replace the gate later
            record=lambda step, _closed: self.record(step),
        )

    def record(self, step):
        self.records.append(step.id)
        return self.journal.advance(step.id, StepState.FINISHED, StepState.RECORDED, record_id=step.id)

    def restart(self):
        self.workspace.close()
        self.generator = self.generator.reconnect()
        self.open()

    def plan(self, prompt="a lake"):
        request = VideoRequest(shots=(Shot(prompt=prompt, duration_s=0.5),), width_px=64, height_px=36, fps=8.0)
        model = self.generator.model
        planned = PlannedVideo(
            step_id=purchase_id(request, model, scope=self.workspace.scope),
            brief=Brief(object_prompt=prompt, text_only=True),
            generator="film",
            model=model,
            request=request,
            sources=(),
            estimate=self.generator.estimate(request),
        )
        return self.journal.plan(planned).id


@pytest.fixture
def studio(tmp_path):
    made = []

    def make(**generator):
        made.append(Studio(tmp_path / str(len(made)), **generator))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()


def test_a_step_passes_through_every_state_and_is_charged_once(studio):
    one = studio()
    step_id = one.plan()
    events = []
    step = one.runner.drive(step_id, notify=events.append)
    assert step.state is StepState.DELIVERED
    assert step.raw == step.delivered
    assert (step.raw.width_px, step.raw.height_px) == (64, 36)
    assert [event.state for event in events] == [
        StepState.PLANNED,
        StepState.SUBMITTING,
        StepState.SUBMITTED,
        StepState.SUBMITTED,  # half-way
        StepState.DONE,
        StepState.FETCHED,
        StepState.FINISHED,
        StepState.RECORDED,
        StepState.DELIVERED,
    ]
    assert one.generator.charges == (step_id,)
    assert one.runner.drive(step_id) == step
    assert one.plan() == step_id
    assert one.generator.charges == (step_id,)
    assert one.records == [step_id]


@pytest.mark.parametrize("recovery", ["token", "list"])
@pytest.mark.parametrize("late", [False, True])
def test_a_lost_reply_is_looked_for_and_never_bought_again(studio, recovery, late):
    one = studio(recovery=recovery)
    step_id = one.plan()
    one.generator.faults.on("start", error=BackendError("connection reset"), late=late)
    with pytest.raises(JobError) as caught:
        one.runner.drive(step_id)
    assert caught.value.billed is None
    assert one.journal.get(step_id).state is StepState.SUBMITTING
    one.restart()
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_what_cannot_be_found_again_becomes_undecided_and_waits_for_a_person(studio):
    one = studio(recovery="none")
    step_id = one.plan()
    one.generator.faults.on("start", error=BackendError("connection reset"), late=True)
    with pytest.raises(JobError):
        one.runner.drive(step_id)
    one.restart()
    for _ in range(2):
        with pytest.raises(JobUndecidedError) as caught:
            one.runner.drive(step_id)
        assert caught.value.billed is None
    assert one.generator.charges == (step_id,)


def test_throttling_leaves_the_step_planned_and_says_so(studio):
    one = studio(recovery="none")
    step_id = one.plan()
    one.generator.faults.on("start")
    with pytest.raises(JobError) as caught:
        one.runner.drive(step_id)
    assert (caught.value.retryable, caught.value.billed) == (True, False)
    assert one.runner.drive(step_id).state is StepState.DELIVERED


def test_a_refusal_of_the_provider_is_final_and_free(studio):
    one = studio()
    step_id = one.plan()
    one.generator.faults.on("start", error=AccessDeniedError("no model access", backend="fake"))
    for _ in range(2):
        with pytest.raises(JobFailedError, match="no model access") as caught:
            one.runner.drive(step_id)
        assert caught.value.billed is False
    assert one.generator.charges == ()


def test_a_failed_job_carries_whether_it_was_billed(studio):
    one = studio(script=failing("moderation", "refused by a filter", billed=True))
    with pytest.raises(JobFailedError, match="refused by a filter") as caught:
        one.runner.drive(one.plan())
    assert (caught.value.billed, caught.value.retryable) == (True, False)


@pytest.mark.parametrize("broken", ["truncated", "status", "fetch"])
def test_a_broken_transfer_keeps_the_job_and_the_next_try_gets_it(studio, broken):
    one = studio()
    step_id = one.plan()
    if broken == "truncated":
        with pytest.raises(JobTimeoutError):
            one.runner.drive(step_id, timeout_s=0)
        handle = one.journal.get(step_id).handle
        one.generator.truncate(handle, to_bytes=100)
    else:
        one.generator.faults.on(broken, error=BackendError("reset", retryable=True))
    with pytest.raises(JobError) as caught:
        one.runner.drive(step_id)
    assert caught.value.retryable
    if broken == "truncated":
        one.generator.truncate(handle, to_bytes=1 << 30)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_a_film_of_another_size_is_not_delivered(studio):
    one = studio()
    step_id = one.plan()
    wrong = FakeVideoGenerator(clock=one.clock)
    request = VideoRequest(shots=(Shot(prompt="x", duration_s=0.5),), width_px=32, height_px=32, fps=8.0)
    handle = wrong.start(request, one.storage.open, "t")
    wrong.finish(handle)
    film = wrong.fetch(handle, wrong.status([handle])[handle].outputs[0]).read()
    one.generator.fetch = lambda *_args: BytesIO(film)
    with pytest.raises(JobError, match="announced"):
        one.runner.drive(step_id)


def test_a_deadline_leaves_the_job_running(studio):
    one = studio(script=[JobStatus(state="running")])
    step_id = one.plan()
    with pytest.raises(JobTimeoutError) as caught:
        one.runner.drive(step_id, timeout_s=60)
    assert caught.value.hint == "vrag resume"
    assert timedelta(seconds=60) <= one.clock.now() - FakeClock().now() < timedelta(seconds=75)
    assert one.journal.get(step_id).state is StepState.SUBMITTED


def test_cancelling_before_and_during(studio):
    one = studio(script=[JobStatus(state="running")])
    before, during = one.plan("before"), one.plan("during")
    with pytest.raises(JobCancelledError):
        one.runner.drive(before, stopped=lambda: True)
    asks = iter([False, True, True])
    with pytest.raises(JobCancelledError):
        one.runner.drive(during, stopped=lambda: next(asks, True))
    assert one.generator.charges == (during,)


def test_leaving_changes_nothing(studio):
    one = studio()
    step_id = one.plan()
    with pytest.raises(JobTimeoutError):
        one.runner.drive(step_id, leaving=lambda: True)
    assert one.journal.get(step_id).state is StepState.PLANNED


def test_a_free_render_that_was_lost_is_made_again(studio):
    one = studio(usd_micros_per_s=0)
    one.generator.next_job(JobStatus(state="lost"))
    step = one.runner.drive(one.plan())
    assert step.state is StepState.DELIVERED
    assert step.attempt == 2
    assert one.generator.charges == (step.id, f"{step.id}-2")


def _revoked(_step):
    raise GateError("revoked", asset_id="brand/0", state="revoked")


def test_the_gate_is_read_before_submission(studio):
    one = studio()
    step_id = one.plan()
    one.gate = _revoked
    with pytest.raises(GateError):
        one.runner.drive(step_id)
    assert one.journal.get(step_id).state is StepState.PLANNED
    assert one.generator.charges == ()


def test_what_was_revoked_while_it_ran_is_recorded_and_withheld(studio):
    one = studio()
    step_id = one.plan()
    with pytest.raises(JobTimeoutError):
        one.runner.drive(step_id, timeout_s=0)
    one.gate = _revoked
    assert one.runner.drive(step_id).state is StepState.WITHHELD
    assert one.records == [step_id]
