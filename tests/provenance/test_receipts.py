"""Receipts: signed entries that hide who and why, and tell the rest; a change of the key carries two signatures."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key
from film_facts import add_entries
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from vrag.errors import UsageError, VerificationError
from vrag.provenance.receipt import ReceiptSigner, read_receipt, rotate_key, row_text
from vrag.provenance.signing import LocalSigner, verify_envelope
from vrag.provenance.statement import keyed_digest, read_statement
from vrag.testing import FakeClock
from vrag.workspace.db import Database
from vrag.workspace.ledger import Ledger

KEY = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
NEW = LocalSigner(ec.derive_private_key(7, ec.SECP256R1()))


@pytest.fixture
def ledger(tmp_path):
    database = Database(tmp_path / "vrag.db", clock=FakeClock())
    yield Ledger(database, FakeClock())
    database.close()


def sign(**given):
    return ReceiptSigner(KEY, library_version="0.1.0", clock=FakeClock(seed=given.pop("seed", 3)), **given)


def statement_of(ledger, number):
    entry = ledger.get(ledger.receipts()[number].record_id)
    return read_statement(verify_envelope(entry.envelope, {KEY.keyid: KEY.public_key}))


def test_entry_and_row_say_the_same_and_the_entry_hides_people(ledger):
    body = {
        "review": {
            "asset_id": "brand/" + "0" * 64,
            "by": "Ada",
            "at": "2026-01-01T00:00:00.000000Z",
            "state": "revoked",
        },
        "videos": ["1" * 64, None],
        "said": ["a word of Ada"],
        "link": "https://user:secret@host/x?token=1",
    }
    ledger.add_receipt(
        kind="revocation", subject="brand/" + "0" * 64, by="Ada", reason="the licence ended", body=body, sign=sign()
    )
    statement = statement_of(ledger, 0)
    told = read_receipt(statement)
    row = ledger.receipts()[0]
    assert (told.number, told.kind, told.subject, told.at) == (row.seq, row.kind, row.subject, row.at)
    assert told.body["videos"] == ["1" * 64, None]
    assert told.body["review"]["asset_id"] == "brand/" + "0" * 64
    assert told.body["review"]["at"] == "2026-01-01T00:00:00.000000Z"
    assert told.body["review"]["state"] == "revoked"
    text = json.dumps(statement.content)
    for word in ("Ada", "licence", "secret", "token=1"):
        assert word not in text
    opened = next(one for one in ledger.texts(row.record_id) if one.keyed_digest == told.row_digest)
    assert keyed_digest(opened.key, opened.kind, row_text(row)) == told.row_digest
    assert opened.value == row_text(row)
    assert statement.keyed_digests == {one.keyed_digest for one in ledger.texts(row.record_id)}
    assert statement.lineage.subjects == {}


def test_the_policy_text_shows_who_and_why(ledger):
    ledger.add_receipt(kind="decision", subject="2" * 64, by="Ada", reason="paid twice", sign=sign(text="text"))
    asked = statement_of(ledger, 0).content["predicate"]["buildDefinition"]["externalParameters"]
    assert (asked["by"]["text"], asked["reason"]["text"]) == ("Ada", "paid twice")


@pytest.mark.parametrize(
    ("subject", "sha256"), [("2" * 64, "2" * 64), ("brand/" + "3" * 64, "3" * 64), ("a step", None)]
)
def test_the_subject_is_named_by_its_digest_where_it_has_one(ledger, subject, sha256):
    ledger.add_receipt(kind="decision", subject=subject, by="Ada", reason="r", sign=sign())
    (found,) = statement_of(ledger, 0).content["subject"]
    assert found["name"] == subject
    assert sha256 in {None, found["digest"]["sha256"]}


def test_an_erasure_and_its_receipt_are_one_transaction(ledger):
    add_entries(ledger, KEY, "r")
    with ledger._database.transaction() as connection:
        connection.execute("insert into text values('d', zeroblob(32), 'prompt', 'words', 'r')")

    def broken(_receipt):
        raise UsageError("the key is gone")

    with pytest.raises(UsageError):
        ledger.erase_text("r", by="ada", reason="asked", sign=broken)
    assert len(ledger.texts("r")) == 1
    assert ledger.erase_text("r", by="ada", reason="asked", sign=sign()) == 1
    assert ledger.texts("r") == ()
    assert read_receipt(statement_of(ledger, 0)).kind == "erasure"


def test_a_change_of_the_key_is_signed_by_both_as_an_independent_reader_sees(ledger):
    number = rotate_key(ledger, KEY, NEW, by="Ada", reason="yearly", library_version="0.1.0", clock=FakeClock(seed=4))
    entry = ledger.get(ledger.receipts()[number].record_id)
    content = json.loads(entry.envelope)
    envelope = Envelope.from_dict(
        {
            **content,
            "payload": base64.b64encode(base64.b64decode(content["payload"])).decode(),
        }
    )
    keys = [SSlibKey.from_crypto(load_der_public_key(one.public_key), one.keyid) for one in (KEY, NEW)]
    assert len(envelope.verify(keys, 2)) == 2
    told = read_receipt(read_statement(base64.b64decode(content["payload"])))
    assert (told.kind, told.subject) == ("key rotation", NEW.keyid)
    assert told.body == {"old": KEY.keyid, "new": NEW.keyid}
    with pytest.raises(UsageError, match="the same"):
        rotate_key(ledger, KEY, KEY, by="Ada", reason="yearly", library_version="0.1.0")


def test_what_is_no_receipt_is_refused(ledger):
    ledger.add_receipt(kind="decision", subject="x", by="Ada", reason="r", sign=sign())
    statement = statement_of(ledger, 0)
    for path in (("externalParameters", "receipt"), ("externalParameters", "row"), ("internalParameters", "number")):
        content = json.loads(json.dumps(statement.content))
        place = content["predicate"]["buildDefinition"][path[0]]
        place[path[1]] = None
        changed = type(statement)(
            kind="receipt",
            record_id=statement.record_id,
            lineage=statement.lineage,
            content=content,
            keyed_digests=frozenset(),
        )
        with pytest.raises(VerificationError, match="form of a receipt"):
            read_receipt(changed)
