"""The ledger: appended once, never changed, followed both ways; words can leave it, records cannot."""

import gzip
import hashlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from vrag.errors import NotFoundError, ProvenanceError, UsageError, VerificationError
from vrag.testing import FakeClock
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger, Lineage, LineageInput, Signed, Text


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


def whole_tree(ledger):
    """The hashes of every complete subtree, computed again from the envelopes."""
    levels = [[hashlib.sha256(b"\0" + entry.envelope).digest() for entry in ledger.entries()]]
    while len(levels[-1]) > 1:
        row = levels[-1]
        pairs = zip(row[::2], row[1::2], strict=False)
        levels.append([hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs])
    return [(level, at, found) for level, row in enumerate(levels) for at, found in enumerate(row)]


def test_the_tree_grows_with_the_entries_and_two_rows_an_append_on_average(ledger):
    for number in range(70):
        add(ledger, draft(f"r{number}"))
        if number in {0, 1, 2, 7, 40, 69}:
            assert list(ledger.tree_rows()) == whole_tree(ledger)
    assert len(list(ledger.tree_rows())) < 2 * 70
    leaf = ledger.get("r5").leaf
    with ledger.tree() as tree:
        assert (tree.size, tree.node(0, 5)) == (70, leaf)


def test_a_transaction_that_fails_leaves_no_leaf(ledger, database):
    add(ledger, draft("a"))

    def interrupted():
        with database.transaction() as connection:
            ledger.append(connection, draft("b"), b"e", public_key=b"key")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    add(ledger, draft("c"))
    assert list(ledger.tree_rows()) == whole_tree(ledger)


def test_a_workspace_of_the_first_schema_gets_its_tree(tmp_path):
    packed = Path(__file__).parent / "fixtures" / "workspace-1.db.gz"
    (tmp_path / "vrag.db").write_bytes(gzip.decompress(packed.read_bytes()))
    database = Database(tmp_path / "vrag.db")
    ledger = Ledger(database)
    assert list(ledger.tree_rows()) == []
    leaf = next(ledger.entries()).leaf
    with ledger.tree() as tree:
        assert (tree.size, tree.node(0, 0)) == (1, leaf)
    assert ledger.receipts()[0].record_id is None
    add(ledger, draft("new"))
    assert list(ledger.tree_rows()) == whole_tree(ledger)
    database.close()


def _drop_guards(database):
    with database.transaction() as connection:
        for (name,) in connection.execute("select name from sqlite_master where type='trigger'").fetchall():
            connection.execute(f"drop trigger {name}")


def test_nothing_is_recorded_on_top_of_a_ledger_whose_end_is_gone(ledger, database):
    for name in ("a", "b", "c"):
        add(ledger, draft(name))
    _drop_guards(database)
    with database.transaction() as connection:
        connection.execute("delete from entry where seq = 2")
    with pytest.raises(ProvenanceError, match="removed from its end"):
        add(ledger, draft("d"))
    with database.transaction() as connection:
        connection.execute("delete from tree where level = 0 and position = 2")
        connection.execute("delete from tree where level = 1")
    with pytest.raises(VerificationError, match="lacks its node"):
        [add(ledger, draft(name)) for name in ("d", "e", "f")]


def test_a_receipt_with_its_entry_is_one_transaction(ledger):
    def sign(receipt):
        if receipt.reason == "no":
            raise ProvenanceError("the key is gone")
        return Signed(draft=draft(f"receipt {receipt.seq}", subjects={}), envelope=b"signed", public_key=b"key")

    assert ledger.add_receipt(kind="revocation", subject="brand/a", by="ada", reason="r", sign=sign) == 0
    with pytest.raises(ProvenanceError):
        ledger.add_receipt(kind="revocation", subject="brand/a", by="ada", reason="no", sign=sign)
    assert [(one.seq, one.record_id) for one in ledger.receipts()] == [(0, "receipt 0")]
    assert [entry.record_id for entry in ledger.entries()] == ["receipt 0"]


def _append_until_killed(path, worker, acknowledged):
    database = Database(path)
    ledger = Ledger(database)
    file = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in range(1_000_000):
        name = f"{worker}-{os.getpid()}-{number}"
        add(ledger, draft(name, picture("cat"), words=(name,)))
        os.write(file, f"{name}\n".encode())


def killed_at_random(folder, *, processes, kills, pause_s):
    """Appending processes of which one after the other is killed and another one takes its place."""
    random = np.random.default_rng(7)
    context = multiprocessing.get_context("spawn")
    path = folder / "vrag.db"
    Database(path).close()

    def start(worker):
        made = context.Process(target=_append_until_killed, args=(path, worker, folder / f"{worker}.txt"))
        made.start()
        return made

    running = [start(worker) for worker in range(processes)]
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not all((folder / f"{worker}.txt").exists() for worker in range(processes)):
        running[0].join(0.05)
    for _ in range(kills):
        worker = int(random.integers(processes))
        running[worker].join(float(random.uniform(0, pause_s)))
        os.kill(running[worker].pid, signal.SIGKILL)
        running[worker].join()
        running[worker] = start(worker)
    for one in running:
        one.join(0.2)
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    # On a busy machine one may have been killed before it began; it acknowledged nothing.
    return {name for file in folder.glob("*.txt") for name in file.read_text().splitlines()}


def no_acknowledged_record_is_lost(folder, acknowledged):
    database = Database(folder / "vrag.db")
    ledger = Ledger(database)
    entries = list(ledger.entries())
    print(f"{len(acknowledged)} records acknowledged, {len(entries)} in the ledger")
    assert acknowledged <= {entry.record_id for entry in entries}
    assert len(acknowledged) > 20
    assert [entry.seq for entry in entries] == list(range(len(entries)))
    assert list(ledger.tree_rows()) == whole_tree(ledger)
    assert ledger.strays() == 0
    database.close()


def test_killed_processes_lose_no_acknowledged_record(tmp_path):
    no_acknowledged_record_is_lost(tmp_path, killed_at_random(tmp_path, processes=3, kills=3, pause_s=0.4))


@pytest.mark.slow
def test_sixteen_processes_killed_at_random_lose_no_acknowledged_record(tmp_path):
    no_acknowledged_record_is_lost(tmp_path, killed_at_random(tmp_path, processes=16, kills=80, pause_s=0.5))
