"""The check of whole workspaces: what is sound passes, and each attack is found and named at its first place."""

import io
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from attrs import evolve, frozen
from cryptography.hazmat.primitives.asymmetric import ed25519
from film_facts import RAW, VIDEO, facts_of

from vrag.backends.aws.s3 import S3Storage
from vrag.backends.local.storage import FolderStorage
from vrag.errors import VerificationError
from vrag.media.ref import sha256_hex
from vrag.provenance.audit import verify_ledger, verify_workspace
from vrag.provenance.checkpoints import CheckpointFile, CheckpointStorage, StateFolder, checkpoint
from vrag.provenance.merkle import leaf_hash
from vrag.provenance.receipt import ReceiptSigner, rotate_key
from vrag.provenance.record import video_statement
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.testing import FakeClock
from vrag.values.canonical import canonical_json
from vrag.values.policy import Policy
from vrag.workspace import Workspace

KEY = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
OTHER = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
COUNT = 5


@frozen(kw_only=True)
class Studio:
    folder: Path
    workspace: Workspace
    storage: FolderStorage
    keeper: CheckpointFile
    state: StateFolder

    def check(self, *, trusted=(KEY.public_key,), keepers=None, **more):
        keepers = [self.keeper] if keepers is None else keepers
        return verify_workspace(
            self.workspace, trusted_keys=trusted, keepers=keepers, open_media=self.storage.open, **more
        )

    def sql(self, *statements):
        """What somebody does who can write the file: the guards are no obstacle."""
        connection = sqlite3.connect(self.folder / "studio" / "vrag.db", isolation_level=None)
        for (name,) in connection.execute("select name from sqlite_master where type='trigger'").fetchall():
            connection.execute(f"drop trigger {name}")
        for statement in statements:
            text, values = (statement, ()) if isinstance(statement, str) else statement
            connection.execute(text, values)
        connection.close()

    def rows(self, statement):
        connection = sqlite3.connect(self.folder / "studio" / "vrag.db")
        found = connection.execute(statement).fetchall()
        connection.close()
        return found


def opened(folder):
    return Studio(
        folder=folder,
        workspace=Workspace(folder / "studio", clock=FakeClock()),
        storage=FolderStorage(folder / "media"),
        keeper=CheckpointFile(folder / "outside" / "last.note"),
        state=StateFolder(folder / "state", workspace=folder / "studio"),
    )


def film(number):
    return VIDEO + bytes([number])


def record(studio, number, signer=KEY, **changes):
    facts = facts_of(studio.storage, record_id=f"{number:064x}", **changes)
    delivered = studio.storage.put(io.BytesIO(film(number)), "video/mp4")
    raw = studio.storage.put(io.BytesIO(RAW), "video/mp4")
    facts = evolve(facts, delivered=delivered, raw=evolve(facts.raw, size_bytes=raw.size_bytes))
    draft = video_statement(facts, policy=Policy(), clock=FakeClock(seed=number))
    envelope = sign_envelope(draft.payload, signer)
    ledger = studio.workspace.ledger
    with ledger._database.transaction() as connection:
        connection.execute(
            "insert into step(id, state, kind, generator, planned, record_id, delivered, video_s, created_at, updated_at)"
            " values(?, 'delivered', 'generate', 'camera', '{}', ?, ?, 6, 'x', 'x')",
            (facts.record_id, facts.record_id, json.dumps({"sha256": delivered.sha256})),
        )
        ledger.append(connection, draft, envelope, public_key=signer.public_key)


def sign_receipts(signer=KEY, seed=9):
    return ReceiptSigner(signer, library_version="0.1.0", clock=FakeClock(seed=seed))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A studio with five videos and a receipt, with a checkpoint after each record."""
    folder = tmp_path_factory.mktemp("audit") / "original"
    studio = opened(folder)
    for number in range(COUNT):
        record(studio, number)
        checkpoint(studio.workspace.ledger, KEY, keepers=[studio.keeper])
    subject = facts_of(studio.storage).planned.sources[0].asset_id
    studio.workspace.ledger.add_receipt(
        kind="revocation", subject=subject, by="Ada Reviewer", reason="licence ended", sign=sign_receipts()
    )
    checkpoint(studio.workspace.ledger, KEY, keepers=[studio.keeper])
    studio.workspace.close()
    return folder


@pytest.fixture
def studio(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    made = opened(tmp_path / "copy")
    yield made
    made.workspace.close()


def test_a_sound_workspace_verifies_in_every_respect(studio):
    found = studio.check()
    assert [(check.name, check.ok) for check in found.checks] == [
        (name, True)
        for name in (
            "order",
            "signature",
            "statement",
            "leaf",
            "index",
            "texts",
            "signer",
            "tree",
            "checkpoints",
            "outside",
            "receipts",
            "journal",
            "media",
        )
    ]
    assert (found.ok, found.trusted, found.excludes_cutting, found.size) == (True, True, True, COUNT + 1)
    found.require()
    json.dumps(found.to_json())


def test_an_empty_workspace_verifies(tmp_path):
    workspace = Workspace(tmp_path / "empty")
    found = verify_workspace(workspace)
    assert (found.ok, found.size) == (True, 0)
    workspace.close()


def test_without_a_checkpoint_outside_it_says_that_cutting_back_cannot_be_excluded(studio):
    found = studio.check(keepers=[])
    assert (found.ok, found.excludes_cutting) == (True, False)
    outside = next(check for check in found.checks if check.name == "outside")
    assert outside.ok is None
    assert "ROLL-BACK CANNOT BE EXCLUDED" in outside.detail


def test_without_a_trusted_key_it_says_so(studio):
    found = studio.check(trusted=())
    assert (found.ok, found.trusted) == (True, False)
    assert f"UNKNOWN KEYS {KEY.keyid}" in next(check.detail for check in found.checks if check.name == "signer")


def test_many_entries_are_shared_among_processes(studio, monkeypatch):
    monkeypatch.setattr("vrag.provenance.audit._RANGE", 2)
    assert studio.check(workers=2).to_json() == studio.check().to_json()
    studio.sql("update entry set leaf = x'00' where seq = 4")
    assert studio.check(workers=2).first_failure.seq == 4


# -- each attack, with the check and the place that name it


def changed(data, at=-40):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def envelope_of(studio, seq):
    return studio.rows(f"select envelope from entry where seq = {seq}")[0][0]


def change_envelope(where):
    def attack(studio):
        content = json.loads(envelope_of(studio, 2))
        if where == "payload":
            text = content["payload"]
            content["payload"] = text[:400] + ("A" if text[400] != "A" else "B") + text[401:]
        else:
            text = content["signatures"][0]["sig"]
            content["signatures"][0]["sig"] = ("A" if text[0] != "A" else "B") + text[1:]
        studio.sql(("update entry set envelope = ? where seq = 2", (canonical_json(content),)))

    return attack


def swap(studio):
    studio.sql(
        "update entry set seq = -1 where seq = 1",
        "update entry set seq = 1 where seq = 3",
        "update entry set seq = 3 where seq = -1",
        "update subject set seq = 4 - seq where seq in (1, 3)",
        "update lineage set seq = 4 - seq where seq in (1, 3)",
    )


def delete(seq):
    def attack(studio):
        studio.sql(*(f"delete from {table} where seq = {seq}" for table in ("entry", "subject", "lineage")))

    return attack


def delete_receipt(studio):
    studio.sql("delete from receipt")


def close_ranks(studio):
    """The middle one is taken out and the rest moved up, tree and all, by somebody who knows the tables."""
    studio.sql(
        *(f"delete from {table} where seq = 2" for table in ("entry", "subject", "lineage")),
        *(f"update {table} set seq = seq - 1 where seq > 2" for table in ("entry", "subject", "lineage")),
        "delete from step where record_id not in (select record_id from entry)",
        "delete from text where record_id not in (select record_id from entry)",
        "delete from tree",
    )


def other_step(studio):
    sha256 = sha256_hex(film(1))
    studio.sql(("update step set delivered = ? where id = ?", (json.dumps({"sha256": sha256}), f"{3:064x}")))


def other_video(studio):
    """The bytes of another video of ours, soundly recorded, under the name of this one."""
    paths = [next((studio.folder / "media").rglob(sha256_hex(film(number)))) for number in (1, 3)]
    paths[1].chmod(0o644)
    paths[1].write_bytes(paths[0].read_bytes())


def lose_picture(studio):
    studio.storage.delete(facts_of(studio.storage).planned.sources[0].original)


ATTACKS = {
    "byte of a payload": (change_envelope("payload"), "signature", 2),
    "byte of a signature": (change_envelope("signature"), "signature", 2),
    "byte of a leaf": (lambda s: s.sql("update entry set leaf = x'00' where seq = 2"), "leaf", 2),
    "byte of the tree": (lambda s: s.sql("update tree set hash = x'00' where level = 1 and position = 1"), "tree", 2),
    "rows swapped": (swap, "tree", 1),
    "first deleted": (delete(0), "order", 0),
    "middle deleted": (delete(2), "order", 2),
    "last deleted": (delete(COUNT), "tree", COUNT),
    "ranks closed": (close_ranks, "checkpoints", 3),
    "listed under another id": (lambda s: s.sql("update entry set record_id = 'x' where seq = 1"), "statement", 1),
    "another digest": (lambda s: s.sql("update entry set statement_sha256 = 'x' where seq = 1"), "statement", 1),
    "lineage hidden": (lambda s: s.sql("delete from lineage where seq = 1"), "index", 1),
    "lineage invented": (
        lambda s: s.sql("insert into lineage values(1, 'x', null, null, 'input')"),
        "index",
        1,
    ),
    "index of nothing": (lambda s: s.sql("insert into subject values(77, 'x', 'raw')"), "index", None),
    "a text changed": (lambda s: s.sql("update text set value = 'blue boots' where kind = 'prompt'"), "texts", 0),
    "a key of a text cut short": (lambda s: s.sql("update text set key = x'00' where kind = 'prompt'"), "texts", 0),
    "a checkpoint changed": (
        lambda s: s.sql("update checkpoint set note = replace(note, 'A', 'B') where size = 3"),
        "checkpoints",
        3,
    ),
    "a receipt changed": (lambda s: s.sql("update receipt set reason = 'no reason'"), "receipts", COUNT),
    "a receipt deleted": (delete_receipt, "receipts", COUNT),
    "a step points to another video": (other_step, "journal", 3),
    "a step without its record": (
        lambda s: s.sql(
            "insert into step select 'new', state, kind, generator, planned, attempt, handle, status, raw,"
            " delivered, 'none', error, usd_micros, video_s, created_at, submitted_at, updated_at, model,"
            " knowledge_base, run_id, owner, outputs, marks from step limit 1"
        ),
        "journal",
        None,
    ),
    "another video in its place": (other_video, "media", 3),
    "a picture gone": (lose_picture, "media", 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_named(studio, attack):
    work, name, seq = ATTACKS[attack]
    work(studio)
    failure = studio.check().first_failure
    assert failure is not None
    assert (failure.name, failure.seq) == (name, seq), failure
    with pytest.raises(VerificationError) as caught:
        studio.check().require()
    assert caught.value.promise == failure.promise


def test_a_file_cut_back_to_an_older_state_is_found_by_the_checkpoint_outside_and_only_by_it(studio, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(studio.folder / "studio", older)
    record(studio, 77)
    checkpoint(studio.workspace.ledger, KEY, keepers=[studio.keeper])
    assert studio.check().ok
    studio.workspace.close()
    shutil.copy(older / "vrag.db", studio.folder / "studio" / "vrag.db")
    cut = opened(studio.folder)
    failure = cut.check().first_failure
    assert failure.name == "outside"
    assert failure.promise == "The ledger is never cut back and never rewritten"
    assert "has 6 entries and a checkpoint of it 7" in failure.detail
    blind = cut.check(keepers=[])
    assert (blind.ok, blind.excludes_cutting) == (True, False)
    cut.workspace.close()


def rewritten(folder, signer, scope):
    """The whole database made again under another key, with the same words and videos."""
    opened(folder).workspace.close()
    connection = sqlite3.connect(folder / "studio" / "vrag.db")
    with connection:
        connection.execute("update workspace set id = ?", (scope,))
    connection.close()
    studio = opened(folder)
    for number in range(COUNT - 1):
        record(studio, number, signer)
    checkpoint(studio.workspace.ledger, signer)
    return studio


def test_a_database_rewritten_with_another_key_is_found_by_key_and_by_checkpoint(studio, tmp_path):
    scope = studio.workspace.scope
    made = rewritten(tmp_path / "fake", OTHER, scope)
    by_key = verify_workspace(made.workspace, trusted_keys=[KEY.public_key])
    assert (by_key.first_failure.name, by_key.first_failure.seq) == ("signer", 0)
    by_checkpoint = made.check(trusted=(), keepers=[studio.keeper])
    assert by_checkpoint.first_failure.name == "outside"
    assert "signed by no key that is known here" in by_checkpoint.first_failure.detail
    alone = verify_workspace(made.workspace)
    assert (alone.ok, alone.trusted, alone.excludes_cutting) == (True, False, False)
    made.workspace.close()


def test_a_database_rewritten_with_the_same_key_is_found_by_the_checkpoint(studio, tmp_path):
    made = rewritten(tmp_path / "fake", KEY, studio.workspace.scope)
    record(made, 88)
    record(made, 89)
    failure = made.check(keepers=[studio.keeper]).first_failure
    assert failure.name == "outside"
    assert "the first 6 entries are not those" in failure.detail
    made.workspace.close()


@pytest.fixture(scope="module")
def bucket():
    """An S3 bucket over HTTP on loopback."""
    server = pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    import boto3

    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    client = boto3.client(
        "s3",
        endpoint_url="http://{}:{}".format(*moto.get_host_and_port()),
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="kept")
    yield S3Storage(client, "kept")
    client.close()
    moto.stop()


@pytest.mark.parametrize("place", ["state folder", "file", "S3"])
def test_cutting_back_and_rewriting_are_found_at_every_place_outside(studio, tmp_path, request, place):
    keeper = {
        "state folder": lambda: studio.state,
        "file": lambda: studio.keeper,
        "S3": lambda: CheckpointStorage(request.getfixturevalue("bucket"), prefix=tmp_path.name),
    }[place]()
    older = tmp_path / "older.db"
    shutil.copy(studio.folder / "studio" / "vrag.db", older)
    record(studio, 77)
    checkpoint(studio.workspace.ledger, KEY, keepers=[keeper])
    assert studio.check(keepers=[keeper]).excludes_cutting
    studio.workspace.close()
    shutil.copy(older, studio.folder / "studio" / "vrag.db")
    cut = opened(studio.folder)
    failure = cut.check(keepers=[keeper]).first_failure
    assert failure.name == "outside"
    assert "has 6 entries and a checkpoint of it 7" in failure.detail
    for number in (78, 79):  # the same key signs another history
        record(cut, number)
    cut.sql("delete from checkpoint")
    failure = cut.check(keepers=[keeper]).first_failure
    assert failure.name == "outside"
    assert "the first 7 entries are not those" in failure.detail
    cut.workspace.close()


def test_a_workspace_exchanged_with_its_keys_is_found_by_the_state_folder(studio, tmp_path):
    checkpoint(studio.workspace.ledger, KEY, keepers=[studio.state])
    assert studio.check(keepers=[studio.state]).ok
    made = rewritten(tmp_path / "fake", OTHER, "cd" * 32)
    failure = made.check(trusted=(OTHER.public_key,), keepers=[studio.state]).first_failure
    assert failure.name == "outside"
    assert "exchanged as a whole" in failure.detail
    made.workspace.close()


def test_a_checkpoint_outside_that_cannot_be_read_excludes_nothing(studio):
    studio.keeper._path.write_text("noise")
    assert studio.check().first_failure.name == "outside"
    studio.keeper._path.unlink()
    studio.keeper._path.mkdir()
    found = studio.check()
    assert (found.ok, found.excludes_cutting) == (True, False)
    assert "cannot be read" in next(check.detail for check in found.checks if check.name == "outside")


def test_a_new_key_is_sound_only_where_the_old_one_named_it(studio):
    ledger = studio.workspace.ledger
    rotate_key(ledger, KEY, OTHER, by="Ada", reason="yearly", library_version="0.1.0", clock=FakeClock(seed=5))
    record(studio, 50, OTHER)
    checkpoint(ledger, OTHER, keepers=[studio.keeper])
    for trusted in ((KEY.public_key,), (OTHER.public_key,), (KEY.public_key, OTHER.public_key)):
        found = studio.check(trusted=trusted)
        assert (found.ok, found.trusted) == (True, True), found.first_failure
    record(studio, 51, KEY)  # the old key has handed over
    failure = studio.check().first_failure
    assert (failure.name, failure.seq) == ("signer", COUNT + 3)


def test_a_new_key_that_nobody_named_is_found(studio):
    record(studio, 50, OTHER)
    for trusted in ((), (KEY.public_key,)):
        failure = studio.check(trusted=trusted).first_failure
        assert (failure.name, failure.seq) == ("signer", COUNT + 1)


def test_a_key_that_names_itself_without_the_new_one_changes_nothing(studio):
    """A stranger's entries cannot borrow trust by stating that a trusted key follows."""
    ledger = studio.workspace.ledger
    body = {"old": OTHER.keyid, "new": KEY.keyid}
    ledger.add_receipt(
        kind="key rotation", subject=KEY.keyid, by="m", reason="m", body=body, sign=sign_receipts(OTHER, 12)
    )
    failure = studio.check().first_failure
    assert (failure.name, failure.seq) == ("signer", COUNT + 1)


def test_receipts_of_an_older_release_are_named_as_unsigned(studio):
    studio.workspace.ledger.add_receipt(kind="revocation", subject="brand/x", by="ada", reason="r")
    found = studio.check()
    assert found.ok
    assert "1 of 2 are not signed" in next(check.detail for check in found.checks if check.name == "receipts")


def test_erased_words_leave_a_ledger_that_verifies(studio):
    ledger = studio.workspace.ledger
    assert ledger.erase_text(f"{0:064x}", by="ada", reason="asked for", sign=sign_receipts(seed=13)) > 10
    found = studio.check()
    assert found.ok, found.first_failure
    assert found.size == COUNT + 2


def test_entries_may_be_added_while_it_is_checked(studio):
    ledger = studio.workspace.ledger
    record(studio, 60)
    assert verify_ledger(ledger, trusted_keys=[KEY.public_key], keepers=[studio.keeper]).ok
    assert ledger.last_checkpoint().size == COUNT + 1
    assert leaf_hash(envelope_of(studio, COUNT + 1)) == next(ledger.entries(COUNT + 1)).leaf
