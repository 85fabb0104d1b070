"""Audit exports: they check themselves, select what was asked, bring no erased word back, and are sound PROV and RO-Crate."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ed25519
from film_facts import SECRETS, facts_of

from vrag.backends.local.storage import FolderStorage
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.checkpoints import checkpoint
from vrag.provenance.export import Selection, export_audit, verifier_script
from vrag.provenance.receipt import ReceiptSigner
from vrag.provenance.record import video_statement
from vrag.provenance.signing import LocalSigner, export_public_key_pem, sign_envelope
from vrag.testing import FakeClock
from vrag.values.assets import asset_id
from vrag.values.policy import Policy
from vrag.workspace.db import Database
from vrag.workspace.ledger import Ledger

KEY = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
OTHER = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))


def film(number):
    return MediaRef(sha256=sha256_hex(bytes([number])), media_type="video/mp4", size_bytes=1)


@pytest.fixture
def studio(tmp_path):
    """Five videos: the fourth from another picture of another knowledge base, each on a day of its own; two receipts."""
    database = Database(tmp_path / "studio" / "vrag.db", clock=FakeClock())
    ledger = Ledger(database, FakeClock())
    storage = FolderStorage(tmp_path / "media")
    dog = storage.put(io.BytesIO(b"dog"), "image/jpeg")
    for number in range(5):
        facts = facts_of(storage, record_id=f"{number:064x}")
        facts = evolve(
            facts, delivered=film(number), raw=film(100 + number), finished_at=f"2026-01-0{number + 1}T12:00:00.000000Z"
        )
        if number == 3:
            source = facts.planned.sources[0]
            name = asset_id("dogs", dog.sha256)
            other = evolve(source, asset_id=name, knowledge_base="dogs", original=dog)
            review = evolve(facts.reviews[source.asset_id], asset_id=name)
            facts = evolve(facts, planned=evolve(facts.planned, sources=(other,)), reviews={name: review})
        draft = video_statement(facts, policy=Policy(), clock=FakeClock(seed=number))
        with database.transaction() as connection:
            ledger.append(connection, draft, sign_envelope(draft.payload, KEY), public_key=KEY.public_key)
    for seed, subject in ((10, facts.planned.sources[0].asset_id), (11, asset_id("dogs", dog.sha256))):
        sign = ReceiptSigner(KEY, library_version="0.1.0", clock=FakeClock(seed=seed))
        ledger.add_receipt(kind="revocation", subject=subject, by="Ada Reviewer", reason="looks good to Ada", sign=sign)
    yield ledger
    database.close()


def exported(ledger, folder, **given):
    return export_audit(
        ledger, folder, covered=checkpoint(ledger, KEY), signer_key=KEY.public_key, clock=FakeClock(), **given
    )


def run(folder, *arguments):
    """The script of the export in a Python that has no vrag."""
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    code = (
        "import sys, runpy; sys.path = [p for p in sys.path if 'vrag' not in p and not p.endswith('/src')];"
        f"sys.path.append({str(site)!r}); sys.modules['vrag'] = None;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder / "verify_export.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={},
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_an_export_checks_itself_without_vrag(studio, tmp_path):
    report = exported(studio, tmp_path / "out")
    assert (report.records, report.receipts, report.complete, report.texts) == (7, 2, True, 0)
    done = run(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"ok: 7 records, all of a ledger of 7, checkpoint signed by {KEY.keyid}" in done.stdout
    key = tmp_path / "key.pem"
    key.write_bytes(export_public_key_pem(KEY))
    assert run(tmp_path / "out", "--key", str(key)).returncode == 0
    key.write_bytes(export_public_key_pem(OTHER))
    done = run(tmp_path / "out", "--key", str(key))
    assert done.returncode == 1
    assert "not by the key that you trust" in done.stderr


def test_every_flipped_byte_of_its_records_and_checkpoint_is_found(studio, tmp_path):
    folder = tmp_path / "out"
    exported(studio, folder, selection=Selection(video=film(2).sha256), with_texts=True)
    scope = {"__name__": "verifier"}
    exec(compile(verifier_script(), "verify_export.py", "exec"), scope)
    scope["check"](folder, None)
    for name, step in (("records.jsonl", 37), ("checkpoint.txt", 3)):
        path = folder / name
        data = path.read_bytes()
        for at in range(0, len(data), step):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises((scope["BrokenError"], ValueError, KeyError, TypeError)):
                scope["check"](folder, None)
        path.write_bytes(data)
    data = (folder / "records.jsonl").read_bytes()
    (folder / "records.jsonl").write_bytes(data.replace(b'"payload":"e', b'"payload":"f', 1))
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr.startswith("BROKEN")


def test_a_record_taken_out_moved_or_added_is_found(studio, tmp_path):
    folder = tmp_path / "out"
    exported(studio, folder)
    scope = {"__name__": "verifier"}
    exec(compile(verifier_script(), "verify_export.py", "exec"), scope)
    rows = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    for wrong in (rows[1:], rows[:3] + rows[4:], rows[:-1], [rows[1], rows[0], *rows[2:]], [*rows, rows[0]]):
        (folder / "records.jsonl").write_text("".join(wrong))
        with pytest.raises(scope["BrokenError"]):
            scope["check"](folder, None)


@pytest.mark.parametrize(
    ("selection", "seqs"),
    [
        (Selection(), [0, 1, 2, 3, 4, 5, 6]),
        (Selection(video=f"{1:064x}"), [1, 5]),
        (Selection(video=film(3).sha256), [3, 6]),
        (Selection(asset=asset_id("dogs", sha256_hex(b"dog"))), [3, 6]),
        (Selection(asset=sha256_hex(b"dog")), [3, 6]),
        (Selection(knowledge_base="dogs"), [3, 6]),
        (Selection(knowledge_base="brand", until="2026-01-02"), [0, 1]),
        (Selection(since="2026-01-04", until="2026-01-05"), [3, 4]),
        (Selection(since="2026-01-03T12:00:00Z", until="2026-01-03"), [2]),
    ],
)
def test_what_is_selected_is_exported_with_the_receipts_about_it(studio, tmp_path, selection, seqs):
    exported(studio, tmp_path / "out", selection=selection)
    found = [row["seq"] for row in lines(tmp_path / "out")]
    if selection.since or selection.until:  # receipts are of the clock's today
        found = [seq for seq in found if seq < 5]
    assert found == seqs
    assert run(tmp_path / "out").returncode == 0


def test_nothing_selected_and_a_used_folder_are_refused(studio, tmp_path):
    with pytest.raises(NotFoundError):
        exported(studio, tmp_path / "out", selection=Selection(knowledge_base="none"))
    with pytest.raises(NotFoundError):
        exported(studio, tmp_path / "out", selection=Selection(video="no such id"))
    with pytest.raises(UsageError, match="no moment"):
        exported(studio, tmp_path / "out", selection=Selection(since="yesterday"))
    exported(studio, tmp_path / "out")
    with pytest.raises(AlreadyExistsError):
        exported(studio, tmp_path / "out")


def everything_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_words_are_exported_only_where_asked_and_erased_ones_never(studio, tmp_path):
    exported(studio, tmp_path / "keyed")
    content = everything_in(tmp_path / "keyed")
    for word in SECRETS:
        assert word.encode() not in content
    studio.erase_text(f"{0:064x}", by="ada", reason="asked for")
    report = exported(studio, tmp_path / "open", with_texts=True)
    assert report.texts > 50
    rows = lines(tmp_path / "open")
    assert rows[0]["texts"] == []
    assert "red shoes on granite" in json.dumps(rows[1]["texts"])
    assert run(tmp_path / "open").returncode == 0
    exported(studio, tmp_path / "one", selection=Selection(video=f"{0:064x}", until="2026-01-01"), with_texts=True)
    content = everything_in(tmp_path / "one")
    for word in {*SECRETS} - {"Ada Reviewer", "looks good to Ada"}:  # she stands in the receipts, which nobody erased
        assert word.encode() not in content


def test_it_is_sound_prov(studio, tmp_path):
    from prov.model import ProvDocument

    exported(studio, tmp_path / "out")
    document = ProvDocument.deserialize(str(tmp_path / "out" / "prov.json"), format="json")
    kinds = [type(record).__name__ for record in document.get_records()]
    assert kinds.count("ProvActivity") == 7
    assert kinds.count("ProvAgent") == 2  # the key and the model
    assert kinds.count("ProvGeneration") == 10
    derived = {
        (str(one.args[0]), str(one.args[1])) for one in document.get_records() if type(one).__name__ == "ProvDerivation"
    }
    assert (f"bytes:{film(3).sha256}", f"bytes:{sha256_hex(b'dog')}") in derived
    assert ProvDocument.deserialize(content=document.serialize(format="json"), format="json") == document


def test_it_is_a_sound_ro_crate(studio, tmp_path):
    from rocrate.rocrate import ROCrate

    exported(studio, tmp_path / "out")
    crate = ROCrate(str(tmp_path / "out"))
    assert crate.root_dataset["name"] == "Audit export"
    actions = crate.get_by_type("CreateAction")
    assert len(actions) == 5
    dog = next(action for action in actions if action.id == f"#record-{3:064x}")
    assert asset_id("dogs", sha256_hex(b"dog")) in {one["name"] for one in dog["object"]}
    assert film(3).sha256 in {one["sha256"] for one in dog["result"]}
    assert dog["instrument"]["name"] == "local:camera-moves/1"
    for file in crate.get_by_type("File"):
        assert (tmp_path / "out" / file.id).is_file()
    listed = {file.id for file in crate.get_by_type("File")} | {"ro-crate-metadata.json"}
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == listed
    shutil.rmtree(tmp_path / "out")


def test_the_published_script_is_the_one_in_the_exports():
    page = Path(__file__).parents[2] / "docs" / "reference" / "verify_export.py"
    assert page.read_text(encoding="utf-8") == verifier_script()
