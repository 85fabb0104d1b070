"""The reference page of the record says what records hold, and its scripts check real ones."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from vrag.errors import VerificationError
from vrag.provenance.sidecar import read_sidecar, sidecar_path

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "record.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def members(value, path=""):
    """The paths of all members; a text in its keyed or its null form is one leaf, and a report is free."""
    if isinstance(value, dict) and "hmac-sha256" not in value and not path.endswith(("report", "retrieval")):
        return {found for key, one in value.items() for found in members(one, f"{path}/{key}")}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "hmac-sha256" not in value[0]:
        return {found for one in value for found in members(one, path)}
    return {path}


def test_the_example_has_every_member_of_a_real_record(recorded):
    (example,) = blocks("json")
    assert members(json.loads(example)) == members(json.loads(recorded.draft.payload))


def test_its_scripts_check_a_real_video(recorded, capsys):
    scope = {}
    for code in blocks("python"):
        exec(code, scope)
    key = recorded.folder / "public.pem"
    key.write_bytes(recorded.pem)
    assert scope["check"](recorded.video, key).trusted
    assert "BROKEN" not in capsys.readouterr().out
    assert scope["check_by_hand"](recorded.video, recorded.pem) == json.loads(recorded.draft.payload)

    sidecar = json.loads(recorded.sidecar)
    payload = sidecar["envelope"]["payload"]
    sidecar["envelope"]["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    sidecar_path(recorded.video).write_text(json.dumps(sidecar))
    with pytest.raises(InvalidSignature):
        scope["check_by_hand"](recorded.video, recorded.pem)
    with pytest.raises(VerificationError):
        scope["check"](recorded.video, key)


def test_openssl_computes_the_keyed_digest(recorded):
    text = next(one for one in recorded.draft.texts if one.kind == "object prompt")
    command = "printf 'object prompt\\0red shoes on granite' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY"
    assert command.replace(" on granite", "") in PAGE
    done = subprocess.run(
        ["sh", "-c", command],
        check=False,
        env={"KEY": text.key.hex(), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("no openssl command on this machine")
    assert done.stdout.split()[-1] == text.keyed_digest


def test_its_table_of_the_sidecar_is_complete(recorded):
    table = PAGE[PAGE.index("## The sidecar") : PAGE.index("## Checking a video")]
    for member in read_sidecar(recorded.sidecar):
        assert f"`{member}`" in table
