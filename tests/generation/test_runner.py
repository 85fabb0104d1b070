"""One step, brought to its end through every fault, without a second charge."""

import threading
from datetime import timedelta
from functools import partial
from io import BytesIO

import pytest
from attrs import evolve

from vrag.errors import (
    AccessDeniedError,
    BackendError,
    BudgetError,
    ContentRejectedError,
    GateError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    JobUndecidedError,
    NotFoundError,
)
from vrag.testing import FakeClock, FakeVideoGenerator, failing
from vrag.values.jobs import JobStatus, StepState
from vrag.values.policy import Caps
from vrag.values.requests import Shot, VideoRequest
from vrag.workspace.limits import Limit

RUNNING = JobStatus(state="running")
PASSING = BackendError("the service is sorry", retryable=True, request_id="r")


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


def test_throttling_is_ridden_out_with_growing_waits(studio):
    one = studio(recovery="none")
    step_id = one.plan()
    one.generator.faults.on("start", times=4)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert [call.name for call in one.generator.calls].count("start") == 5
    assert one.generator.charges == (step_id,)
    assert one.workspace.budget.spent().count == 1


def test_throttling_without_an_end_leaves_the_step_planned_and_says_so(studio):
    one = studio(recovery="none")
    step_id = one.plan()
    one.generator.faults.on("start", times=None)
    with pytest.raises(JobError) as caught:
        one.runner.drive(step_id)
    assert (caught.value.retryable, caught.value.billed, caught.value.hint) == (True, False, "vrag resume")
    assert one.journal.get(step_id).state is StepState.PLANNED
    assert one.workspace.budget.spent().count == 0


@pytest.mark.parametrize("recovery", ["token", "list"])
@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_the_service_is_tried_again_with_the_same_token(studio, recovery, late):
    one = studio(recovery=recovery)
    step_id = one.plan()
    one.generator.faults.on("start", error=PASSING, times=3, late=late)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_a_reply_lost_by_a_provider_that_cannot_tell_is_undecided_at_once(studio):
    one = studio(recovery="none")
    one.generator.faults.on("start", error=PASSING, late=True)
    with pytest.raises(JobUndecidedError) as caught:
        one.runner.drive(one.plan())
    assert caught.value.billed is None
    assert one.workspace.budget.spent().undecided_usd_micros == 50_000


def test_an_answered_refusal_is_final_but_a_job_under_its_token_is_found(studio):
    one = studio(recovery="list")
    first, second = one.plan("first"), one.plan("second")
    refusal = BackendError("not valid", retryable=False, request_id="r")
    one.generator.faults.on("start", error=refusal)
    with pytest.raises(JobFailedError, match="not valid") as caught:
        one.runner.drive(first)
    assert caught.value.billed is False
    one.generator.faults.on("start", error=refusal, late=True)  # such as a conflict: the token is in use
    assert one.runner.drive(second).state is StepState.DELIVERED
    assert one.generator.charges == (second,)


def test_a_list_that_lags_is_not_believed_at_once(studio):
    one = studio(recovery="list", find_lag_s=200.0)
    step_id = one.plan()
    one.generator.faults.on("start", error=BackendError("connection reset"), late=True)
    with pytest.raises(JobError):
        one.runner.drive(step_id)
    one.clock.advance(130)  # the provider may have forgotten the token, and its list does not show the job yet
    one.restart()
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    looks = [call for call in one.generator.calls if call.name == "find"]
    assert len(looks) == 2
    assert [call.name for call in one.generator.calls].count("start") == 0


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


@pytest.mark.parametrize("broken", ["status", "fetch"])
def test_a_broken_answer_is_asked_for_again(studio, broken):
    one = studio()
    step_id = one.plan()
    one.generator.faults.on(broken, error=PASSING, times=4)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_asking_in_vain_for_hours_ends_no_job(studio):
    one = studio()
    one.generator.faults.on("status", times=400)
    assert one.runner.drive(one.plan()).state is StepState.DELIVERED
    assert one.clock.now() - FakeClock().now() > timedelta(hours=1)


def test_a_cut_download_keeps_the_job_and_the_next_try_gets_it(studio):
    one = studio()
    step_id = one.plan()
    with pytest.raises(JobTimeoutError):
        one.runner.drive(step_id, timeout_s=0)
    handle = one.journal.get(step_id).handle
    one.generator.truncate(handle, to_bytes=100)
    with pytest.raises(JobError, match="announced") as caught:
        one.runner.drive(step_id)
    assert caught.value.retryable
    one.generator.truncate(handle, to_bytes=1 << 30)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_an_output_that_shows_late_is_waited_for_and_one_that_never_does_is_a_typed_end(studio):
    one = studio()
    late, never = one.plan("late"), one.plan("never")
    one.generator.faults.on("fetch", error=NotFoundError("no such file"), times=3)
    assert one.runner.drive(late).state is StepState.DELIVERED
    one.generator.faults.on("fetch", error=NotFoundError("no such file"), times=None)
    with pytest.raises(JobFailedError, match="no such file") as caught:
        one.runner.drive(never)
    assert caught.value.billed is True
    assert one.workspace.budget.spent().count == 2


def test_a_full_disk_leaves_the_result_with_the_provider(studio):
    one = studio()
    step_id = one.plan()
    one.storage.faults.on("put", error=BackendError("No space left on device", backend="local", retryable=True))
    with pytest.raises(JobError, match="No space") as caught:
        one.runner.drive(step_id)
    assert caught.value.hint == "vrag resume"
    assert one.journal.get(step_id).state is StepState.DONE
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


# -- many at once


def test_as_many_run_at_once_as_the_quota_allows_and_one_call_asks_for_all(studio):
    one = studio(limit=Limit(in_flight=3))
    steps = [one.plan(str(number)) for number in range(10)]
    futures = one.runner.submit(steps)
    assert {future.result(30).state for future in futures.values()} == {StepState.DELIVERED}
    assert sorted(one.generator.charges) == sorted(steps)
    asked = [len(call.arguments["handles"]) for call in one.generator.calls if call.name == "status"]
    assert 1 < max(asked) <= 3


def test_two_runners_share_the_work_and_the_quota(studio):
    one = studio(limit=Limit(in_flight=3))
    other = one.second_runner()
    steps = [one.plan(str(number)) for number in range(8)]
    futures = [*one.runner.submit(steps).values(), *other.submit(steps).values()]
    assert {future.result(30).state for future in futures} == {StepState.DELIVERED}
    assert sorted(one.generator.charges) == sorted(steps)
    assert sorted(one.records) == sorted(steps)
    asked = [len(call.arguments["handles"]) for call in one.generator.calls if call.name == "status"]
    assert max(asked) <= 3
    other.close()


def test_what_a_dead_runner_left_is_taken_over(studio):
    one = studio(script=[RUNNING])
    step_id = one.plan()
    future = one.runner.submit([step_id])[step_id]
    while one.journal.get(step_id).state is not StepState.SUBMITTED:
        one.clock.sleep(0.01)
    assert one.journal.get(step_id).owner is not None
    one.runner.leave(now=True)
    with pytest.raises(JobTimeoutError, match="vrag resume"):
        future.result(10)
    one.restart()
    one.generator.finish(one.journal.get(step_id).handle)
    one.generator._provider.jobs[one.journal.get(step_id).handle.id].script = [JobStatus(state="succeeded")]
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.generator.charges == (step_id,)


def test_closing_leaves_every_step_where_it_stands(studio):
    one = studio(script=[RUNNING], limit=Limit(in_flight=2))
    steps = [one.plan(str(number)) for number in range(4)]
    futures = one.runner.submit(steps)
    while one.journal.counts().get(StepState.SUBMITTED, 0) < 2:
        one.clock.sleep(0.01)
    one.runner.close()
    for future in futures.values():
        with pytest.raises(JobTimeoutError):
            future.result(10)
    assert one.journal.counts() == {StepState.PLANNED: 2, StepState.SUBMITTED: 2}
    assert {one.journal.get(step).owner for step in steps} == {None}
    assert not list(one.journal.locks.glob("*.lock"))


def test_a_breaker_lets_one_try_before_all(studio):
    one = studio()
    steps = [one.plan(str(number)) for number in range(6)]
    one.generator.faults.on("start", error=PASSING, times=12)
    futures = one.runner.submit(steps)
    assert {future.result(30).state for future in futures.values()} == {StepState.DELIVERED}
    assert sorted(one.generator.charges) == sorted(steps)
    assert one.clock.now() - FakeClock().now() > timedelta(seconds=15)


def test_a_listener_that_fails_harms_no_job(studio):
    one = studio()
    step_id = one.plan()

    def broken(_event):
        raise ValueError

    assert one.runner.submit([step_id], notify=broken)[step_id].result(30).state is StepState.DELIVERED


def test_two_who_wait_for_one_step_share_it(studio):
    one = studio()
    step_id = one.plan()
    ended = []
    threads = [threading.Thread(target=lambda: ended.append(one.runner.drive(step_id).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [step_id] * 4
    assert one.generator.charges == (step_id,)


def test_cancelling_what_the_provider_cannot_stop_says_so_and_records_the_result(studio):
    one = studio(script=[RUNNING])
    one.generator.cancel = lambda _handle: False
    step_id = one.plan()
    asks = iter([False])
    with pytest.raises(JobTimeoutError, match="charge"):
        one.runner.drive(step_id, stopped=lambda: next(asks, True))
    one.generator._provider.jobs[one.journal.get(step_id).handle.id].script = [
        JobStatus(state="succeeded", billed=True)
    ]
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert one.records == [step_id]


def test_cancelling_by_id_ends_what_waits_its_turn_at_once_and_stops_what_runs(studio):
    one = studio(script=[RUNNING], limit=Limit(in_flight=1))
    first, second = one.plan("first"), one.plan("second")
    futures = one.runner.submit([first, second])
    while one.journal.get(first).state is not StepState.SUBMITTED:
        one.clock.sleep(0.01)
    assert one.runner.cancel(second)
    with pytest.raises(JobCancelledError) as caught:
        futures[second].result(10)
    assert caught.value.billed is False
    assert one.runner.cancel(first)
    with pytest.raises(JobCancelledError):
        futures[first].result(10)
    assert one.generator.charges == (first,)


# -- edits


def test_an_edit_is_bought_once_and_its_pictures_kept(studio):
    one = studio(edit_usd_micros=40_000)
    step_id = one.plan_edit(count=3)
    one.inpainter.reject_next("too red")
    step = one.runner.drive(step_id)
    assert step.state is StepState.DELIVERED
    assert len(step.outputs) == 2
    assert step.raw == step.delivered == step.outputs[0]
    assert (step.raw.width_px, step.raw.height_px) == (64, 36)
    assert step.status.report["rejected"] == ["too red"]
    assert one.runner.drive(step_id) == step
    assert len(one.inpainter.calls) == 1
    assert one.records == [step_id]
    assert one.workspace.budget.spent().usd_micros == 120_000


@pytest.mark.parametrize(("price", "again"), [(0, True), (40_000, False)])
def test_an_edit_whose_answer_was_lost_is_bought_again_only_where_that_is_cheap(studio, price, again):
    one = studio(edit_usd_micros=price)
    step_id = one.plan_edit()
    one.inpainter.faults.on("edit", error=PASSING, late=True)
    if again:
        assert one.runner.drive(step_id).state is StepState.DELIVERED
        return
    for _ in range(2):
        with pytest.raises(JobUndecidedError):
            one.runner.drive(step_id)
        one.restart()
    assert len(one.inpainter.calls) == 1


def test_an_edit_found_open_by_another_life_is_undecided(studio):
    one = studio(edit_usd_micros=40_000)
    step_id = one.plan_edit()
    one.journal.reserve_and_submit(step_id, lambda: None)
    with pytest.raises(JobUndecidedError):
        one.runner.drive(step_id)
    assert one.inpainter.calls == ()
    cheap = studio(edit_usd_micros=40_000, rerun_below_usd_micros=50_000)
    step_id = cheap.plan_edit()
    cheap.journal.reserve_and_submit(step_id, lambda: None)
    assert cheap.runner.drive(step_id).state is StepState.DELIVERED
    assert cheap.workspace.budget.spent().usd_micros == 80_000  # the first one may have been bought too


def test_a_refused_edit_is_final_and_may_have_been_billed(studio):
    one = studio(edit_usd_micros=40_000)
    step_id = one.plan_edit()
    one.inpainter.faults.on("edit", error=ContentRejectedError("all were kept back", backend="fake"))
    with pytest.raises(JobFailedError, match="kept back") as caught:
        one.runner.drive(step_id)
    assert caught.value.billed is None
    assert one.workspace.budget.spent().usd_micros == 40_000


def test_pictures_that_were_paid_for_survive_a_storage_that_fails_for_a_while(studio):
    one = studio(edit_usd_micros=40_000)
    step_id = one.plan_edit()
    one.storage.faults.on("put", error=BackendError("disk", retryable=True), times=3)
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert len(one.inpainter.calls) == 1


# -- joined videos


def test_the_shots_of_a_storyboard_are_steps_and_are_joined(studio):
    one = studio()
    step_id = one.plan_joined("one", "two")
    parts = [part.step_id for part in one.journal.get(step_id).video.parts]
    step = one.runner.drive(step_id)
    assert step.state is StepState.DELIVERED
    assert sorted(one.generator.charges) == sorted(parts)
    assert sorted(one.records) == sorted([*parts, step_id])
    assert one.joined == [[one.journal.get(part).raw for part in parts]]
    assert one.workspace.budget.spent().video_s == 1.0
    assert one.journal.needed_by(parts[0]) == [step_id]


def test_a_storyboard_with_a_failed_shot_fails_and_keeps_the_others(studio):
    one = studio()
    one.generator.next_job(*failing("moderation", "refused by a filter"))
    step_id = one.plan_joined("one", "two")
    with pytest.raises(JobFailedError, match="refused by a filter") as caught:
        one.runner.drive(step_id)
    assert caught.value.billed is False
    states = sorted(one.journal.get(part.step_id).state for part in one.journal.get(step_id).video.parts)
    assert "failed" in states
    assert one.joined == []


def test_a_storyboard_that_was_left_goes_on_where_it_stood(studio):
    one = studio(script=[RUNNING])
    step_id = one.plan_joined("one", "two")
    with pytest.raises(JobTimeoutError):
        one.runner.drive(step_id, timeout_s=30)
    one.restart()
    for job in one.generator._provider.jobs.values():
        job.script = [JobStatus(state="succeeded", billed=True)]
    assert one.runner.drive(step_id).state is StepState.DELIVERED
    assert len(one.generator.charges) == 2


# -- money


def test_a_cap_stops_the_purchase_that_would_pass_it(studio):
    one = studio(caps=Caps(month_usd_micros=120_000))  # a step costs 50 000
    steps = [one.plan(str(number)) for number in range(3)]
    futures = one.runner.submit(steps)
    ended = [future.exception(30) for future in futures.values()]
    (refused,) = [error for error in ended if error is not None]
    assert isinstance(refused, BudgetError)
    assert refused.cap == "month_usd_micros"
    assert len(one.generator.charges) == 2
    one.clock.advance(31 * 86_400)
    left = next(step for step, future in futures.items() if future.exception())
    assert one.runner.drive(left).state is StepState.DELIVERED


def test_marks_are_kept_with_the_delivered_file(studio):
    one = studio()
    marked = FakeVideoGenerator(clock=one.clock)
    request = VideoRequest(shots=(Shot(prompt="marked", duration_s=0.5),), width_px=64, height_px=36, fps=8.0)
    handle = marked.start(request, one.storage.open, "t")
    marked.finish(handle)
    film = marked.fetch(handle, marked.status([handle])[handle].outputs[0]).read()
    one.finish = lambda step: (
        evolve(one.storage.put(BytesIO(film), "video/mp4"), duration_s=step.raw.duration_s),
        ["label"],
    )
    step = one.runner.drive(one.plan())
    assert step.delivered != step.raw
    assert step.marks == ["label"]


def test_who_comes_back_while_a_step_is_being_left_gets_it(studio):
    one = studio()
    step_id = one.plan()
    for _ in range(20):  # whichever act is going on when the first one goes
        first = one.runner.submit([step_id])[step_id]
        fleet = one.runner._begin()[0]
        fleet.send(partial(fleet.abandon, step_id, first))
        second = one.runner.submit([step_id])[step_id]
        assert second.result(30).state is StepState.DELIVERED
        assert first.exception(30) is None or isinstance(first.exception(), JobTimeoutError)
        step_id = one.plan(f"again {_}")
    assert len(set(one.generator.charges)) == len(one.generator.charges)
