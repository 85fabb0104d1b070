"""`vrag audit` and `vrag verify` of a whole workspace, on one that the command line made."""

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from vrag.cli import main
from vrag.cli.demo import demo_photos
from vrag.provenance.checkpoints import read_checkpoint
from vrag.provenance.merkle import verify_inclusion
from vrag.provenance.signing import LocalSigner

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYPLANTEDKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzPLANTEDTOKEN",
    "VRAG_PASSWORD": "correct-horse-planted-staple",
}
PRESIGNED = "https://bucket.s3.amazonaws.com/a.mp4?X-Amz-Credential=AKIAPLANTED&X-Amz-Signature=c0ffeec0ffeeplanted"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a workspace `studio`, a film, and the state folder of its user."""
    folder = tmp_path_factory.mktemp("audited") / "original"
    (folder / "photos").mkdir(parents=True)
    with demo_photos() as demo:
        shutil.copy(demo / "fig-in-red-bowl.jpg", folder / "photos")
    environment = {**os.environ, **SECRETS, "XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)}
    environment["VRAG_DEBUG"] = ""
    for words in (
        ("ingest", "photos", "--kb", "brand", "--approve", "--by", "ada"),
        ("generate", "--kb", "brand", "--object", "figs", "--action", f"camera pans down {PRESIGNED}",
         "--negative", "password hunter2planted", "--size", "320x180", "--duration", "0.5", "-o", "figs.mp4"),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "vrag.cli", *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        with (folder / "log").open("a") as log:
            log.write(done.stdout + done.stderr)
    return folder


@pytest.fixture
def desk(original, tmp_path, monkeypatch):
    """The folder itself for reading; its path must stay, because the state folder knows it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(original / "state"))
    monkeypatch.chdir(original)
    before = shutil.copytree(original, tmp_path / "before")
    yield original
    for name in ("studio", "state"):
        shutil.rmtree(original / name)
        shutil.copytree(before / name, original / name)
    shutil.copy(before / "figs.mp4", original / "figs.mp4")


@pytest.fixture
def run(capsys):
    def invoke(*arguments):
        capsys.readouterr()
        code = main(arguments)
        found = capsys.readouterr()
        return code, found.out, found.err

    return invoke


def tamper(desk, *statements):
    connection = sqlite3.connect(desk / "studio" / "vrag.db", isolation_level=None)
    for (name,) in connection.execute("select name from sqlite_master where type='trigger'").fetchall():
        connection.execute(f"drop trigger {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_whole_workspace_verifies(desk, run, tmp_path):
    assert run("audit", "checkpoint")[0] == 0
    code, out, _ = run("verify")
    assert code == 0, out
    assert "verified: 1 entries" in out
    run("key", "-o", str(tmp_path / "key.pem"))
    for path in ("studio", "studio/vrag.db"):
        code, out, _ = run("verify", path, "--key", str(tmp_path / "key.pem"))
        assert code == 0, out
    code, out, _ = run("verify", "--json")
    content = json.loads(out)
    assert (code, content["ok"], content["excludes_cutting"]) == (0, True, True)


def test_what_is_wrong_is_named_with_its_place_and_exit_code_5(desk, run):
    tamper(desk, "update entry set leaf = x'00'")
    code, out, _ = run("verify")
    assert code == 5
    assert "NOT verified: leaf at entry 0" in out
    assert "FAIL  The ledger's leaves are those of its entries" in out


def test_a_video_exchanged_in_the_store_is_found(desk, run):
    (film,) = [path for path in (desk / "studio").rglob("*") if path.is_file() and path.read_bytes()[4:8] == b"ftyp"][
        :1
    ]
    film.chmod(0o644)
    film.write_bytes(film.read_bytes() + b"\0\0\0\x08free")
    code, out, _ = run("verify")
    assert code == 5
    assert "NOT verified: media at entry 0" in out


def test_an_older_copy_is_found_by_the_state_folder(desk, run, tmp_path):
    run("audit", "checkpoint")
    shutil.copy(desk / "studio" / "vrag.db", tmp_path / "older.db")
    pictures = json.loads(run("verify", "figs.mp4", "--json")[1])["record"]["sources"]
    assert run("revoke", pictures[0]["asset_id"], "--reason", "licence ended", "--by", "ada")[0] == 0
    assert run("audit", "checkpoint")[0] == 0
    assert run("verify")[0] == 0
    shutil.copy(tmp_path / "older.db", desk / "studio" / "vrag.db")
    code, out, _ = run("verify")
    assert code == 5
    assert "cut back" in out
    code, out, _ = run("audit", "checkpoint")
    assert code == 5  # nothing is signed on top of it


def test_a_checkpoint_in_a_file_is_compared(desk, run, tmp_path):
    kept = str(tmp_path / "kept.note")
    assert run("audit", "checkpoint", "--outside", kept)[0] == 0
    assert run("verify", "--outside", kept)[0] == 0
    (tmp_path / "kept.note").write_text((tmp_path / "kept.note").read_text().replace("\n1\n", "\n9\n"))
    assert run("verify", "--outside", kept)[0] == 5


def test_an_export_is_checked_by_its_own_script(desk, run, tmp_path):
    code, out, err = run("audit", "export", "-o", str(tmp_path / "out"), "--video", "figs.mp4", "--with-texts")
    assert code == 0, err
    assert "1 records" in out
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "verify_export.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, out, _ = run("audit", "export", "-o", str(tmp_path / "out"), "--json")
    assert (code, json.loads(out)["error"]) == (1, "already_exists")


def test_a_proof_is_checked_against_the_checkpoint_in_it(desk, run, tmp_path):
    target = tmp_path / "figs.tlog-proof"
    assert run("audit", "prove", "figs.mp4", "-o", str(target))[0] == 0
    head, _, note = target.read_text().partition("\n\n")
    found = read_checkpoint(note)
    _, out, _ = run("audit", "prove", "figs.mp4", "--json")
    content = json.loads(out)
    assert head.splitlines()[:2] == ["c2sp.org/tlog-proof@v1", f"index {content['seq']}"]
    assert verify_inclusion(bytes.fromhex(content["leaf"]), content["seq"], found.size, [], found.root)
    assert run("audit", "prove", "nothing")[0] == 1


def test_an_anchor_is_a_second_store_that_shows_a_cut(desk, run, tmp_path):
    assert run("audit", "anchor")[0] == 2
    code, out, _ = run("audit", "anchor", "--folder", str(tmp_path / "second"))
    assert code == 0
    assert "checkpoint of 1 entries kept in" in out
    assert run("audit", "anchor", "--tsa", "http://127.0.0.1:9/")[0] == 2


def test_a_key_is_rotated_by_a_statement_of_both(desk, run):
    key = next((desk / "studio" / "keys").glob("signing*.pem"))
    old = desk / "old.pem"
    key.rename(old)
    LocalSigner.load_or_create(key)
    assert run("verify")[0] == 5
    code, out, err = run("audit", "rotate-key", "--from", str(old), "--by", "ada", "--reason", "yearly")
    assert code == 0, err
    code, out, _ = run("verify")
    assert code == 0, out
    old.unlink()
    for name in (*desk.glob("*.lock"), *(desk / "studio" / "keys").glob("*.lock")):
        name.unlink()


def test_looking_makes_no_workspace(desk, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("verify")[0] == 1
    assert run("audit", "checkpoint")[0] == 1
    assert not (tmp_path / "studio").exists()


def test_planted_secrets_stand_nowhere(desk, run, tmp_path):
    assert run("audit", "export", "-o", str(tmp_path / "out"))[0] == 0
    planted = [*SECRETS.values(), "c0ffeec0ffeeplanted", "AKIAPLANTED", "hunter2planted"]
    told = "".join(run(*words)[1] for words in (("verify", "--json"), ("jobs",), ("where-used", "brand/x")))
    everything = {
        "export": b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()),
        "state": b"".join(path.read_bytes() for path in (desk / "state").rglob("*") if path.is_file()),
        "sidecar": (desk / "figs.mp4.vrag.json").read_bytes(),
        "told": told.encode(),
        "log": (desk / "log").read_bytes(),
    }
    connection = sqlite3.connect(desk / "studio" / "vrag.db")
    envelopes = [json.loads(row[0]) for row in connection.execute("select envelope from entry")]
    connection.close()
    everything["ledger"] = b"".join(base64.b64decode(one["payload"]) for one in envelopes)
    # What a person typed as a prompt is theirs: the command line shows it, and the table of words keeps it.
    typed = {"c0ffeec0ffeeplanted", "AKIAPLANTED", "hunter2planted"}
    for place, content in everything.items():
        for secret in planted:
            if place == "log" and secret in typed:
                continue
            assert secret.encode() not in content, (place, secret)
