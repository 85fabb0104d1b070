"""Decisions: their order, what may follow what, expiry, and documents that someone else wrote."""

import io
import itertools
import json
import threading
from datetime import UTC, datetime

import pytest

from vrag.backends.local.storage import FolderStorage
from vrag.errors import FormatVersionError, UsageError, VerificationError, VRAGError
from vrag.knowledge.review import TRANSITIONS, Reviews
from vrag.knowledge.rights import rights_end, with_expiry
from vrag.media.ref import MediaRef
from vrag.testing import FakeClock, FakeStorage
from vrag.values.assets import Asset, Review, ReviewState, Rights, asset_id

DIGEST = "ab" * 32
P, A, R, E, X = (
    ReviewState.PROPOSED,
    ReviewState.APPROVED,
    ReviewState.REJECTED,
    ReviewState.EXPIRED,
    ReviewState.REVOKED,
)


def asset(kb="brand", expires_on=None):
    return Asset(
        id=asset_id(kb, DIGEST),
        knowledge_base=kb,
        original=MediaRef(sha256=DIGEST, media_type="image/jpeg", size_bytes=3),
        file_name="dog.jpg",
        rights=Rights(expires_on=expires_on),
        ingested_at="2026-01-01T00:00:00.000000Z",
    )


def put(storage, number, document):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    storage.put_named(f"reviews/{DIGEST}/{number:06d}.json", io.BytesIO(data))


def review_json(**changes):
    return {"asset_id": f"brand/{DIGEST}", "state": "approved", "by": "ann", "at": "2026-01-01T00:00:00Z"} | changes


def test_decisions_are_kept_in_order_with_who_when_and_why():
    clock = FakeClock()
    reviews = Reviews(FakeStorage(), clock)
    assert reviews.history(asset()) == ()
    assert reviews.latest(asset()).state is P
    first = reviews.add(asset(), A, by=" ann ", reason="release signed")
    clock.advance(60)
    second = reviews.add(asset(), X, by="bob", reason="model withdrew")
    assert reviews.history(asset()) == (first, second)
    assert reviews.latest(asset()) == second
    assert (first.by, first.at, first.sequence) == ("ann", "2026-01-01T00:00:00.000000Z", 0)
    assert (second.by, second.at, second.sequence) == ("bob", "2026-01-01T00:01:00.000000Z", 1)


@pytest.mark.parametrize("before", list(ReviewState))
@pytest.mark.parametrize("after", list(ReviewState))
def test_what_may_follow_what(before, after):
    path = {P: [], A: [A], R: [R], E: [A, E], X: [X]}[before]
    reviews = Reviews(FakeStorage(), FakeClock())
    for state in path:
        reviews.add(asset(), state, by="ann")
    if after is before:  # said twice is said once
        assert reviews.add(asset(), after, by="bob") == reviews.latest(asset())
        assert len(reviews.history(asset())) == len(path)
    elif after in TRANSITIONS[before]:
        assert reviews.add(asset(), after, by="bob") == reviews.latest(asset())
        assert reviews.latest(asset()).state is after
    else:
        with pytest.raises(UsageError, match=f"is {before}.*cannot become {after}"):
            reviews.add(asset(), after, by="bob")
    assert TRANSITIONS[X] == frozenset()


@pytest.mark.parametrize("by", ["", "  ", "\n"])
def test_nobody_cannot_decide(by):
    storage = FakeStorage()
    with pytest.raises(UsageError, match="name of who"):
        Reviews(storage, FakeClock()).add(asset(), A, by=by)
    assert list(storage.list()) == []


def test_of_two_who_decide_at_once_the_second_is_judged_against_the_first(tmp_path):
    folder = FolderStorage(tmp_path)
    ours, theirs = Reviews(folder, FakeClock()), Reviews(FolderStorage(tmp_path), FakeClock())

    class Late(FakeStorage):
        """Between our look and our write, someone else revokes."""

        def put_named(self, name, stream):
            if name.endswith("000000.json"):
                theirs.add(asset(), X, by="bob", reason="withdrawn")
            folder.put_named(name, stream)

        def list(self, prefix=""):
            return folder.list(prefix)

        def open(self, key, offset=0):
            return folder.open(key, offset)

    with pytest.raises(UsageError, match="is revoked"):
        Reviews(Late(), FakeClock()).add(asset(), A, by="ann")
    assert [review.state for review in ours.history(asset())] == [X]


def test_thirty_two_writers_make_one_order(tmp_path):
    states = [A, R] * 16
    barrier = threading.Barrier(len(states))
    refused = []

    def decide(number, state):
        reviews = Reviews(FolderStorage(tmp_path), FakeClock())
        barrier.wait()
        try:
            reviews.add(asset(), state, by=f"writer {number}")
        except VRAGError as error:  # pragma: no cover  # none is expected
            refused.append(error)

    threads = [threading.Thread(target=decide, args=pair) for pair in enumerate(states)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = Reviews(FolderStorage(tmp_path), FakeClock()).history(asset())
    assert refused == []
    assert [review.sequence for review in history] == list(range(len(history)))
    assert all(one.state is not two.state for one, two in itertools.pairwise(history))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{broken",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b" " * 70_000,
        {"review": review_json()},
        {"format": "1", "review": review_json()},
        {"format": 1},
        {"format": 1, "review": 3},
        {"format": 1, "review": review_json(state="blessed")},
        {"format": 1, "review": review_json(by="")},
        {"format": 1, "review": review_json(extra=1)},
        {"format": 1, "review": review_json(sequence=4)},
        {"format": 1, "review": review_json(asset_id=f"other/{DIGEST}")},
    ],
)
def test_a_hostile_document_is_a_typed_error_and_still_can_be_revoked(document):
    storage = FakeStorage()
    put(storage, 0, document)
    reviews = Reviews(storage, FakeClock())
    for read in (reviews.latest, reviews.history, lambda one: reviews.add(one, A, by="ann")):
        with pytest.raises(VerificationError):
            read(asset())
    assert reviews.add(asset(), X, by="ann", reason="to be safe").sequence == 1
    assert reviews.latest(asset()).state is X


def test_a_newer_format_is_named():
    storage = FakeStorage()
    put(storage, 0, {"format": 2, "review": {"signature": "…"}})
    with pytest.raises(FormatVersionError, match="format 2"):
        Reviews(storage, FakeClock()).latest(asset())


def test_a_missing_number_and_a_strange_name_close_the_book():
    storage = FakeStorage()
    reviews = Reviews(storage, FakeClock())
    for state in (A, R, A):
        reviews.add(asset(), state, by="ann")
    storage.delete(f"reviews/{DIGEST}/000001.json")
    with pytest.raises(VerificationError):
        reviews.latest(asset())
    other = FakeStorage()
    other.put_named(f"reviews/{DIGEST}/note.txt", io.BytesIO(b"hello"))
    with pytest.raises(VerificationError):
        Reviews(other, FakeClock()).latest(asset())


def test_rights_end_with_their_last_day_in_utc_also_when_the_clock_jumps():
    approved = Review(asset_id=f"brand/{DIGEST}", state=A, by="ann", at="2026-01-01T00:00:00Z")
    dated = asset(expires_on="2026-03-29")
    assert rights_end("2026-03-29") == datetime(2026, 3, 30, tzinfo=UTC)
    assert with_expiry(dated, approved, datetime(2026, 3, 29, 23, 59, 59, 999_999, tzinfo=UTC)) == approved
    ended = with_expiry(dated, approved, datetime(2026, 3, 30, tzinfo=UTC))
    assert ended.state is E
    assert "2026-03-29" in (ended.reason or "")
    assert with_expiry(dated, approved, datetime(2026, 1, 1, tzinfo=UTC)) == approved
    assert with_expiry(asset(), approved, datetime(2999, 1, 1, tzinfo=UTC)) == approved
    rejected = Review(asset_id=f"brand/{DIGEST}", state=R, by="ann", at="2026-01-01T00:00:00Z")
    assert with_expiry(dated, rejected, datetime(2999, 1, 1, tzinfo=UTC)) == rejected
