"""The ledger: appended once, never changed, followed both ways; words can leave it, records cannot."""

import hashlib
import json
import multiprocessing
import sqlite3

import pytest

from vrag.errors import NotFoundError, ProvenanceError, UsageError
from vrag.testing import FakeClock
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger, Lineage, LineageInput, Text


def sha(name):
    return hashlib.sha256(name.encode()).hexdigest()


def picture(name, knowledge_base="brand"):
    return LineageInput(
        sha256=sha(name), role="start_frame", asset_id=f"{knowledge_base}/{sha(name)}", knowledge_base=knowledge_base
    )


def made(name):
    return LineageInput(sha256=sha(name), role="input")


def draft(record_id, *inputs, subjects=None, words=()):
    return Draft(
        record_id=record_id,
        payload=f"statement of {record_id}".encode(),
        lineage=Lineage(subjects={"delivered": sha(record_id)} if subjects is None else subjects, inputs=inputs),
        texts=tuple(
            Text(kind="prompt", value=word, key=hashlib.sha256(word.encode()).digest(), keyed_digest=sha(f"key {word}"))
            for word in words
        ),
    )


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "vrag.db", clock=FakeClock())
    yield database
    database.close()


@pytest.fixture
def ledger(database):
    return Ledger(database, FakeClock())


def add(ledger, one, envelope=None):
    with ledger._database.transaction() as connection:
        return ledger.append(connection, one, envelope or b"envelope of " + one.payload, public_key=b"key")


def rfc6962_root(leaves):
    """The tree of RFC 6962, section 2.1, over leaf hashes that are given."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    halves = rfc6962_root(leaves[:split]) + rfc6962_root(leaves[split:])
    return hashlib.sha256(b"\1" + halves).digest()


def test_entries_are_numbered_without_gaps_and_carry_their_leaf(ledger):
    entries = [add(ledger, draft(f"r{number}")) for number in range(300)]
    assert [entry.seq for entry in entries] == list(range(300))
    assert list(ledger.entries()) == entries
    assert list(ledger.entries(298)) == entries[298:]
    assert ledger.get("r7") == entries[7]
    assert entries[7].leaf == hashlib.sha256(b"\0" + entries[7].envelope).digest()
    assert entries[7].statement_sha256 == hashlib.sha256(b"statement of r7").hexdigest()
    # a tree over these leaves needs nothing else: its root is that over the envelopes themselves
    hashed = [hashlib.sha256(b"\0" + entry.envelope).digest() for entry in ledger.entries()]
    assert rfc6962_root([entry.leaf for entry in ledger.entries()]) == rfc6962_root(hashed)


def test_the_same_record_again_changes_nothing_and_another_is_refused(ledger):
    first = add(ledger, draft("r", picture("cat"), words=("red shoes",)))
    assert add(ledger, draft("r", picture("cat"), words=("red shoes",))) == first
    with pytest.raises(ProvenanceError, match="already with other bytes, at 0"):
        add(ledger, draft("r"), b"other")
    assert len(list(ledger.entries())) == 1
    assert len(ledger.texts("r")) == 1


def test_a_transaction_that_fails_leaves_nothing(ledger, database):
    def interrupted():
        with database.transaction() as connection:
            ledger.append(connection, draft("r", picture("cat"), words=("w",)), b"e", public_key=b"key")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(NotFoundError):
        ledger.get("r")
    assert ledger.used_in(sha("cat")) == ()
    assert ledger.texts("r") == ()


@pytest.mark.parametrize(
    "statement",
    [
        "update entry set envelope=x'00'",
        "delete from entry",
        "update receipt set reason='other'",
        "delete from receipt",
    ],
)
def test_the_database_refuses_to_change_history(ledger, database, statement):
    add(ledger, draft("r"))
    ledger.add_receipt(kind="revocation", subject="brand/x", by="ada", reason="licence ended")
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute(statement)


def test_lineage_is_followed_both_ways_and_through_other_steps(ledger):
    add(ledger, draft("edit", picture("cat"), subjects={"edited": sha("edited cat")}))
    add(ledger, draft("take 1", made("edited cat")))
    add(ledger, draft("take 2", made("edited cat")))
    add(ledger, draft("film", made("take 1"), picture("dog")))
    add(ledger, draft("text only"))
    assert ledger.used_in(picture("cat").asset_id) == ("edit", "take 1", "take 2", "film")
    assert ledger.used_in(sha("cat")) == ("edit", "take 1", "take 2", "film")
    assert ledger.used_in(sha("edited cat")) == ("take 1", "take 2", "film")
    assert ledger.used_in(picture("dog").asset_id) == ("film",)
    assert ledger.used_in(picture("cat", "other").asset_id) == ()
    assert [entry.record_id for entry in ledger.by_artefact(sha("film"))] == ["film"]
    assert [entry.record_id for entry in ledger.by_artefact(sha("text only"))] == ["text only"]
    assert ledger.by_artefact(sha("cat")) == ()


def test_lineage_in_a_circle_ends(ledger):
    add(ledger, draft("a", made("b")))
    add(ledger, draft("b", made("a")))
    assert ledger.used_in(sha("a")) == ("a", "b")


def test_records_of_the_same_bytes_are_all_found(ledger):
    for name in ("first", "again"):
        add(ledger, draft(name, subjects={"delivered": sha("film"), "raw": sha("film")}))
    assert [entry.record_id for entry in ledger.by_artefact(sha("film"))] == ["first", "again"]


@pytest.mark.parametrize("mode", ["truncate", "wal"])
def test_erased_words_are_gone_from_the_file_and_a_receipt_stays(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3) if mode == "wal" else (3, 40, 1))
    database = Database(tmp_path / "vrag.db", clock=FakeClock())
    ledger = Ledger(database, FakeClock())
    words = ("an unmistakable prompt about violet umbrellas", "a caption about copper kettles")
    add(ledger, draft("r", words=words))
    add(ledger, draft("other", words=("kept words",)))
    assert [text.value for text in ledger.texts("r")] == list(words)
    before = ledger.get("r")
    assert ledger.erase_text("r", by="ada", reason="request of 1 January") == 2
    assert ledger.texts("r") == ()
    assert ledger.get("r") == before
    assert [text.value for text in ledger.texts("other")] == ["kept words"]
    (receipt,) = ledger.receipts("r")
    assert (receipt.kind, receipt.by, receipt.reason) == ("erasure", "ada", "request of 1 January")
    assert json.loads(receipt.body) == {"keyed_digests": sorted(sha(f"key {word}") for word in words)}
    assert ledger.erase_text("r", by="ada", reason="again") == 0
    assert len(ledger.receipts()) == 1
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # the database is still open
    database.close()
    for word in words:
        assert word.encode() not in left
        assert hashlib.sha256(word.encode()).digest() not in left  # its key
    assert b"kept words" in left


def test_erasing_names_a_person_and_a_reason_and_a_record_that_exists(ledger):
    add(ledger, draft("r", words=("w",)))
    with pytest.raises(UsageError, match="who did it and why"):
        ledger.erase_text("r", by=" ", reason="x")
    assert len(ledger.texts("r")) == 1
    with pytest.raises(NotFoundError):
        ledger.erase_text("none", by="ada", reason="x")


def test_receipts_are_numbered_and_filtered(ledger):
    for number, subject in enumerate(("brand/a", "brand/b", "brand/a")):
        body = {"videos": [subject]}
        assert ledger.add_receipt(kind="revocation", subject=subject, by="ada", reason="r", body=body) == number
    assert [receipt.seq for receipt in ledger.receipts("brand/a")] == [0, 2]
    assert len(ledger.receipts()) == 3


def _append(path, worker, count):
    database = Database(path)
    ledger = Ledger(database)
    for number in range(count):
        add(ledger, draft(f"{worker}-{number}", picture("cat")))
    database.close()


def test_many_processes_append_without_gaps(tmp_path):
    path = tmp_path / "vrag.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(path, worker, 20)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    database = Database(path)
    entries = list(Ledger(database).entries())
    database.close()
    assert [entry.seq for entry in entries] == list(range(60))
    assert len({entry.record_id for entry in entries}) == 60
