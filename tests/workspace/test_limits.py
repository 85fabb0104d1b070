"""Slots, rates, pauses and the breaker of one model's lane."""

from vrag.testing import FakeClock
from vrag.workspace.limits import Lane, Limit, Patience, jittered


def lane(**limit):
    return Lane(limit=Limit(**limit), patience=Patience())


def test_slots_and_a_rate_bound_what_starts():
    clock, one = FakeClock(), lane(in_flight=2, starts_per_s=0.5)
    assert one.may_go(0)
    one.go(0)
    assert not one.may_go(1.9)
    assert one.may_go(2)
    one.go(2)
    assert not one.may_go(100)  # both slots are taken
    one.taken -= 1
    assert one.may_go(100)
    assert clock.monotonic_s() == 0


def test_throttling_pauses_the_whole_lane_and_longer_each_time():
    clock, one = FakeClock(), lane()
    waits = []
    for _ in range(12):
        one.throttled(0, clock)
        waits.append(one.open_at_s)
    assert waits == sorted(waits)
    assert 0 < waits[-1] <= 30
    one.went_well(40)
    assert one.throttles == 0


def test_a_breaker_opens_after_five_failures_and_lets_one_try():
    clock, one = FakeClock(), lane()
    for _ in range(4):
        one.failed(0, clock)
    assert one.may_go(0)
    one.failed(0, clock)
    assert not one.may_go(14)
    assert one.may_go(31)
    one.go(31)
    assert not one.may_go(31)  # the others wait for how it fares
    one.went_well(32)
    assert one.may_go(32)


def test_who_waits_gives_up_only_when_nothing_goes_well_for_anybody():
    one = lane()
    assert not one.waits_in_vain(0, 900)
    assert one.waits_in_vain(0, 901)
    one.went_well(500)
    assert not one.waits_in_vain(0, 1400)


def test_jitter_is_full_and_its_bound_grows():
    clock = FakeClock()
    drawn = [jittered(1.0, clock) for _ in range(200)]
    assert min(drawn) < 0.1
    assert max(drawn) > 0.9
    assert all(Patience().wait_s(30, clock) <= 30 for _ in range(20))
