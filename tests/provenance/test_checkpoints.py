"""Checkpoints: their form, their keys, where they are kept, and that a ledger that shrank or changed gets no new one."""

import base64
import hashlib
import multiprocessing
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from film_facts import add_entries

from vrag.backends.local.storage import FolderStorage
from vrag.clock import SystemClock
from vrag.errors import ProvenanceError, VerificationError
from vrag.provenance.checkpoints import (
    CheckpointFile,
    CheckpointStorage,
    StateFolder,
    checkpoint,
    origin_of,
    read_checkpoint,
    state_folder,
    verifier_key,
    verify_checkpoint,
)
from vrag.provenance.merkle import EMPTY_ROOT, MemoryTree
from vrag.provenance.signing import LocalSigner
from vrag.testing import FakeClock
from vrag.workspace.db import Database
from vrag.workspace.ledger import Ledger

ED25519 = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
ECDSA = LocalSigner(ec.derive_private_key(7, ec.SECP256R1()))
OTHER = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))


def add(ledger, *names):
    add_entries(ledger, ED25519, *names)


@pytest.fixture
def ledger(tmp_path):
    database = Database(tmp_path / "studio" / "vrag.db", clock=FakeClock())
    yield Ledger(database, FakeClock())
    database.close()


@pytest.mark.parametrize("signer", [ED25519, ECDSA], ids=["ed25519", "ecdsa"])
def test_a_checkpoint_is_a_signed_note_over_origin_size_and_root(ledger, signer):
    add(ledger, "a", "b", "c")
    made = checkpoint(ledger, signer)
    text, _, tail = made.note.rpartition("\n\n")
    root = MemoryTree(entry.leaf for entry in ledger.entries()).root()
    assert text == f"{origin_of(ledger.id)}\n3\n{base64.b64encode(root).decode()}"
    dash, name, encoded = tail.rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    key = load_der_public_key(signer.public_key)
    if signer is ED25519:  # C2SP signed-note: SHA-256(name, newline, type 0x01, raw key)
        public = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]
        key.verify(raw[4:], f"{text}\n".encode())
        assert verifier_key(name, signer.public_key).endswith(base64.b64encode(b"\x01" + public).decode())
    else:  # the same page: the truncated SHA-256 of the SPKI, type 0x02
        from cryptography.hazmat.primitives import hashes

        assert raw[:4] == hashlib.sha256(signer.public_key).digest()[:4]
        key.verify(raw[4:], f"{text}\n".encode(), ec.ECDSA(hashes.SHA256()))
    assert (dash, name) == ("\u2014", origin_of(ledger.id))
    found, keyid = verify_checkpoint(made.note, {signer.keyid: signer.public_key}, origin=origin_of(ledger.id))
    assert (found, keyid) == (made, signer.keyid)
    assert ledger.last_checkpoint().note == made.note


def test_the_name_of_a_ledger_tells_nothing_of_its_secret(ledger):
    assert ledger._database.workspace_id not in ledger.id
    assert len(ledger.id) == 32


def test_an_empty_ledger_has_a_checkpoint_too(ledger):
    assert checkpoint(ledger, ED25519).root == EMPTY_ROOT


def test_every_changed_byte_of_a_checkpoint_is_found(ledger):
    add(ledger, "a")
    note = checkpoint(ledger, ED25519).note.encode()
    keys = {ED25519.keyid: ED25519.public_key}
    for at in range(len(note)):
        with pytest.raises(VerificationError):
            verify_checkpoint(note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :], keys, origin=origin_of(ledger.id))


def test_unknown_signatures_are_ignored_and_a_known_one_must_hold(ledger):
    note = checkpoint(ledger, ED25519).note
    keys = {ED25519.keyid: ED25519.public_key}
    with pytest.raises(VerificationError, match="no key that is known"):
        verify_checkpoint(note, {OTHER.keyid: OTHER.public_key})
    witness = "\u2014 witness.example " + base64.b64encode(b"1234" + b"x" * 64).decode() + "\n"
    assert verify_checkpoint(note + witness, keys)[1] == ED25519.keyid
    ours = note.splitlines()[-1]
    broken = base64.b64encode(base64.b64decode(ours.split(" ")[2])[:4] + b"x" * 64).decode()
    with pytest.raises(VerificationError, match="does not fit"):
        verify_checkpoint(f"{note}\u2014 {origin_of(ledger.id)} {broken}\n", keys)
    with pytest.raises(VerificationError, match="another ledger"):
        verify_checkpoint(note, keys, origin=origin_of("0" * 32))


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "a\n1\nAA==\n\n",
        "a\n01\n\n\u2014 a AAAA\n",
        "a\n1\n" + "A" * 43 + "=\n\n- a AAAAAAAA\n",
        "x" * 99999,
        b"\xff",
    ],
)
def test_what_is_no_checkpoint_is_refused(note):
    with pytest.raises(VerificationError):
        read_checkpoint(note)


def keepers(folder):
    return {
        "file": CheckpointFile(folder / "elsewhere" / "last.note"),
        "state": StateFolder(folder / "state", workspace=folder / "studio"),
        "storage": CheckpointStorage(FolderStorage(folder / "bucket")),
    }


@pytest.mark.parametrize("kind", ["file", "state", "storage"])
def test_the_newest_checkpoint_is_kept_outside(ledger, tmp_path, kind):
    keeper = keepers(tmp_path)[kind]
    assert keeper.newest(ledger.id) is None
    add(ledger, "a")
    first = checkpoint(ledger, ED25519, keepers=[keeper])
    add(ledger, "b", "c")
    second = checkpoint(ledger, ED25519, keepers=[keeper])
    assert keeper.newest(ledger.id) == second.note
    keeper.keep(ledger.id, first)  # a slower process comes late
    assert keeper.newest(ledger.id) == second.note
    assert [one.size for one in ledger.checkpoints()] == [1, 3]
    assert checkpoint(ledger, ED25519, keepers=[keeper]) == second


@pytest.mark.parametrize("kind", ["file", "state", "storage"])
def test_a_ledger_that_was_cut_back_gets_no_new_checkpoint(ledger, tmp_path, kind):
    keeper = keepers(tmp_path)[kind]
    add(ledger, "a")
    path = ledger._database.path
    older = tmp_path / "older.db"
    shutil.copy(path, older)
    add(ledger, "b", "c")
    checkpoint(ledger, ED25519, keepers=[keeper])
    ledger._database.close()
    shutil.copy(older, path)
    database = Database(path)
    cut = Ledger(database)
    with pytest.raises(VerificationError, match="cut back") as caught:
        checkpoint(cut, ED25519, keepers=[keeper])
    assert caught.value.promise == "The ledger is never cut back and never rewritten"
    add(cut, "other b", "other c", "d")
    with pytest.raises(VerificationError, match="rewritten"):
        checkpoint(cut, ED25519, keepers=[keeper])
    assert cut.last_checkpoint() is None
    database.close()


def test_two_histories_of_one_length_are_named(ledger, tmp_path):
    keeper = CheckpointFile(tmp_path / "last.note")
    storage = CheckpointStorage(FolderStorage(tmp_path / "bucket"))
    add(ledger, "a")
    made = checkpoint(ledger, ED25519, keepers=[keeper, storage])
    fork = read_checkpoint(
        made.note.replace(base64.b64encode(made.root).decode(), base64.b64encode(b"x" * 32).decode())
    )
    for one in (keeper, storage):
        with pytest.raises(VerificationError, match="two histories"):
            one.keep(ledger.id, fork)


def test_a_workspace_exchanged_as_a_whole_is_named(ledger, tmp_path):
    state = StateFolder(tmp_path / "state", workspace=tmp_path / "studio")
    add(ledger, "a")
    checkpoint(ledger, ED25519, keepers=[state])
    database = Database(tmp_path / "other" / "vrag.db", clock=FakeClock(seed=5))
    other = Ledger(database)
    with pytest.raises(VerificationError, match="exchanged as a whole") as caught:
        checkpoint(other, OTHER, keepers=[state])
    assert caught.value.hint == "vrag audit checkpoint --new-ledger"
    state.accept(other.id)
    checkpoint(other, OTHER, keepers=[state])
    with pytest.raises(VerificationError, match="exchanged as a whole"):
        state.newest(ledger.id)
    database.close()


def test_a_place_that_cannot_be_written_is_an_error_and_the_others_are_kept(ledger, tmp_path):
    (tmp_path / "file").write_text("no folder")
    good = CheckpointFile(tmp_path / "last.note")
    with pytest.raises(ProvenanceError, match="cannot be"):
        checkpoint(ledger, ED25519, keepers=[CheckpointFile(tmp_path / "file" / "last.note"), good])
    assert good.newest(ledger.id)


def test_the_default_place_is_the_users_state_folder(tmp_path):
    assert state_folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "vrag"
    assert state_folder({"XDG_STATE_HOME": "relative"}).parts[-3:] == (".local", "state", "vrag")
    assert state_folder({}).is_absolute()


def _append_and_keep(folder, worker):
    database = Database(folder / "studio" / "vrag.db", clock=SystemClock())
    ledger = Ledger(database)
    keeper = keepers(folder)["state"]
    for number in range(8):
        add(ledger, f"{worker}-{number}")
        checkpoint(ledger, ED25519, keepers=[keeper])
    database.close()


def test_many_processes_keep_the_newest(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_and_keep, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    database = Database(tmp_path / "studio" / "vrag.db")
    ledger = Ledger(database)
    newest = read_checkpoint(keepers(tmp_path)["state"].newest(ledger.id))
    tree = MemoryTree(entry.leaf for entry in ledger.entries())
    assert (newest.size, newest.root) == (24, tree.root())
    assert all(read_checkpoint(one.note).root == tree.root(one.size) for one in ledger.checkpoints())
    database.close()
