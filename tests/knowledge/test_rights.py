"""Until when and for what a picture may be used: time zones, summer time, clocks that jump, licences, territories."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.errors import GateError, UsageError
from vrag.knowledge.rights import UsePolicy, rights_end, time_zone_of, with_expiry
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock
from vrag.values.assets import Asset, Review, ReviewState, Rights

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Asia/Kathmandu",
]


@pytest.mark.parametrize(
    ("day", "zone", "end"),
    [
        ("2026-03-29", "UTC", "2026-03-30T00:00:00"),
        # Summer time begins and ends in the night before Sunday, 2026-03-29 and 2026-10-25.
        ("2026-03-28", "Europe/Berlin", "2026-03-28T23:00:00"),
        ("2026-03-29", "Europe/Berlin", "2026-03-29T22:00:00"),
        ("2026-10-24", "Europe/Berlin", "2026-10-24T22:00:00"),
        ("2026-10-25", "Europe/Berlin", "2026-10-25T23:00:00"),
        ("2026-12-31", "America/New_York", "2027-01-01T05:00:00"),
        # Midnight that did not exist: summer time began at 00:00 in São Paulo on 2018-11-04.
        ("2018-11-03", "America/Sao_Paulo", "2018-11-04T03:00:00"),
        # The last hour of the day came twice: it ended at 24:00 of 2018-02-17, which became 23:00.
        ("2018-02-17", "America/Sao_Paulo", "2018-02-18T03:00:00"),
        # Midnight came twice: Havana went back from 01:00 to 00:00 on 2018-11-04; the day ended with the first.
        ("2018-11-03", "America/Havana", "2018-11-04T04:00:00"),
        # Samoa left out 2011-12-30.
        ("2011-12-29", "Pacific/Apia", "2011-12-30T10:00:00"),
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00:00"),
    ],
)
def test_rights_end_with_the_day_of_the_knowledge_base(day, zone, end):
    assert rights_end(day, time_zone_of(zone)) == datetime.fromisoformat(end).replace(tzinfo=UTC)


@given(st.dates(min_value=date(1980, 1, 1), max_value=date(2036, 12, 31)), st.sampled_from(ZONES))
def test_the_last_moment_lies_in_the_day_and_the_end_after_it(day, zone):
    place = time_zone_of(zone)
    end = rights_end(day.isoformat(), place)
    assert (end - timedelta(microseconds=1)).astimezone(place).date() <= day
    assert end.astimezone(place).date() > day


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Phobos", "../../etc/passwd", "/etc/localtime", "Europe", "utc ", None, [], "A" * 500, "Europe/\0"],
)
def test_a_time_zone_that_is_none_is_refused(name, fake_kb):
    with pytest.raises(UsageError, match="time zone"):
        fake_kb(time_zone=name)


@pytest.mark.parametrize(
    "day", ["0001-01-01", "9999-12-31", "9999-12-30", "2026-02-30", "26-1-1", "", "\u0662026-01-01"]
)
def test_a_day_that_is_none_is_refused_in_every_zone(day):
    for zone in ZONES:
        with pytest.raises(UsageError, match="no day"):
            rights_end(day, time_zone_of(zone))


def test_the_gate_and_the_search_close_at_midnight_of_the_place(jpeg, fake_kb):
    start = datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC)  # 23:59:59 in Berlin, an hour of summer time on
    clock = FakeClock(start)
    kb = fake_kb(clock=clock, time_zone="Europe/Berlin")
    kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1), rights=Rights(expires_on="2026-03-29"))], approve_by="ann")
    (asset,) = kb.assets()
    assert kb.gate(asset.id).state is ReviewState.APPROVED
    assert kb.search("dog").hits
    clock.advance(1)
    with pytest.raises(GateError, match=r"2026-03-29 \(Europe/Berlin\)") as caught:
        kb.gate(asset.id)
    assert caught.value.state == "expired"
    assert kb.review_of(asset.id).at == "2026-03-29T22:00:00.000000Z"
    assert kb.search("dog").hits == ()
    # A later day, ingested again, opens it: nothing was written down by its expiry.
    kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1), rights=Rights(expires_on="2026-04-30"))])
    assert kb.gate(asset.id).state is ReviewState.APPROVED
    assert [one.state for one in kb.history(asset.id)] == ["approved"]


def test_a_clock_that_jumps_leaves_no_trace_and_one_that_stopped_is_not_believed(jpeg, fake_kb):
    clock = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))
    kb = fake_kb(clock=clock)
    kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1), rights=Rights(expires_on="2026-06-30"))], approve_by="ann")
    (asset,) = kb.assets()
    (approved,) = kb.history(asset.id)
    later, right = datetime(2099, 1, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC)
    assert with_expiry(asset, approved, later).state is ReviewState.EXPIRED
    assert with_expiry(asset, approved, right) == approved
    # Approved after its rights had ended; then the clock is lost and says 1970.
    old = Asset(
        id=asset.id,
        knowledge_base="brand",
        original=asset.original,
        file_name="dog.jpg",
        rights=Rights(expires_on="2026-04-01"),
        ingested_at=asset.ingested_at,
    )
    assert with_expiry(old, approved, datetime(1970, 1, 1, tzinfo=UTC)).state is ReviewState.EXPIRED
    # Read on a machine whose clock stands far behind: the same answer, for the review itself is later.
    stopped = fake_kb(clock=FakeClock(datetime(1970, 1, 1, tzinfo=UTC)), store=kb._store, storage=kb._storage)
    assert stopped.gate(asset.id).state is ReviewState.APPROVED


def approved(state=ReviewState.APPROVED):
    return Review(asset_id="brand/" + "a" * 64, state=state, by="ann", at="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("policy", "rights", "why"),
    [
        (UsePolicy(), Rights(), None),
        (UsePolicy(licences={"CC0-1.0"}), Rights(licence=" cc0-1.0 "), None),
        (UsePolicy(licences={"CC0-1.0"}), Rights(licence="CC-BY-4.0"), "'CC-BY-4.0'"),
        (UsePolicy(licences={"CC0-1.0"}), Rights(), "states no licence"),
        (UsePolicy(licences=set()), Rights(licence="CC0-1.0"), "only nothing"),
        (UsePolicy(territories={"DE", "AT"}), Rights(territory="de; AT, ch"), None),
        (UsePolicy(territories={"DE", "AT"}), Rights(territory="DE"), "not stated for at"),
        (UsePolicy(territories={"DE"}), Rights(), "not stated for de"),
        (UsePolicy(territories={"DE"}), Rights(territory="Worldwide"), None),
        (UsePolicy(territories=set()), Rights(), None),
        (UsePolicy(licences={"ＣＣ０-1.0"}), Rights(licence="cc0-1.0"), None),  # noqa: RUF001  # full width
    ],
)
def test_a_policy_says_what_may_be_used(policy, rights, why):
    found = policy.refusal(rights)
    assert (found is None) if why is None else (found is not None and why in found)


def test_one_text_is_no_set_of_licences():
    with pytest.raises(UsageError, match="set of texts"):
        UsePolicy(licences="CC0-1.0")


def test_the_policy_is_asked_at_retrieval_and_again_at_the_gate(jpeg, fake_kb):
    free = fake_kb()
    free.ingest(
        [
            SourcePicture.from_bytes("brown-dog.jpg", jpeg(1), rights=Rights(licence="CC0-1.0")),
            SourcePicture.from_bytes("black-cat.jpg", jpeg(2), rights=Rights(licence="All rights reserved")),
        ],
        approve_by="ann",
    )
    strict = fake_kb(store=free._store, storage=free._storage, policy=UsePolicy(licences={"CC0-1.0"}))
    assert strict.policy.licences == {"cc0-1.0"}
    assert free.search("cat").hits
    assert [hit.asset.file_name for hit in strict.search("dog").hits] == ["brown-dog.jpg"]
    refused = strict.search("cat").refusal or pytest.fail("it was found")
    assert "1 not permitted" in refused.reasons[0]
    assert [hit.review for hit in refused.candidates if hit.asset.file_name == "black-cat.jpg"] == ["approved"]
    barred = next(asset for asset in strict.assets() if asset.file_name == "black-cat.jpg")
    with pytest.raises(GateError, match=r"licence is 'All rights reserved'") as caught:
        strict.gate(barred.id)
    assert caught.value.state == "not permitted"
    assert free.gate(barred.id).state is ReviewState.APPROVED
    # What the policy bars is still as it was decided.
    assert strict.review_of(barred.id).state is ReviewState.APPROVED
