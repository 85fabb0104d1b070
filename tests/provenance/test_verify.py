"""The check of a video against its record: what passes, and that every attack is found and named."""

import base64
import io
import json
import shutil
import subprocess
import sys

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vrag.errors import FormatVersionError, UsageError, VerificationError
from vrag.provenance.record import video_statement
from vrag.provenance.sidecar import MAX_SIDECAR_BYTES, sidecar_json, sidecar_path
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.provenance.statement import keyed_digest
from vrag.provenance.verify import verify_file
from vrag.testing import FakeClock
from vrag.values.canonical import canonical_json
from vrag.values.policy import Policy

FIXTURE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def everything(recorded, **given):
    return {
        "trusted_keys": [recorded.pem],
        "storage_open": recorded.storage.open,
        "ledger": recorded.ledger,
    } | given


def names(verification, ok):
    return [check.name for check in verification.checks if check.ok is ok]


def edited(recorded, edit):
    content = json.loads(recorded.sidecar)
    edit(content)
    return canonical_json(content)


def test_a_delivered_video_verifies_in_every_respect(recorded):
    found = verify_file(recorded.video, **everything(recorded))
    assert found.ok
    assert found.trusted
    assert names(found, True) == [
        "signature",
        "signer",
        "statement",
        "video",
        "texts",
        "position",
        "ledger",
        "sources",
    ]
    assert found.record_id == recorded.entry.record_id
    summary = found.summary
    assert summary["prompts"] == ["red shoes on granite, camera pans down swiftly"]
    assert summary["sources"][0]["asset_id"] == recorded.facts.planned.sources[0].asset_id
    assert summary["sources"][0]["caption"] == "Dandelion seed head in a meadow"
    assert summary["sources"][0]["review"] == "approved"
    assert summary["generator"]["id"] == "camera-moves/1"
    assert summary["unmet"][0]["message"]["text"] == "'swiftly' is not performed"
    assert len(summary["candidates"]) == 2
    found.require()
    json.dumps(found.to_json())


def test_a_copy_verifies_elsewhere_with_the_public_key_alone(recorded, tmp_path):
    away = tmp_path / "away" / "renamed.mp4"
    away.parent.mkdir()
    shutil.copy(recorded.video, away)
    shutil.copy(sidecar_path(recorded.video), sidecar_path(away))
    code = (
        "import sys, pathlib; from vrag.provenance.verify import verify_file; "
        "found = verify_file(pathlib.Path(sys.argv[1]), trusted_keys=[pathlib.Path(sys.argv[2]).read_bytes()]); "
        "print(found.ok, found.trusted, [c.name for c in found.checks if c.ok is None])"
    )
    key = tmp_path / "away" / "key.pem"
    key.write_bytes(recorded.pem)
    done = subprocess.run([sys.executable, "-c", code, str(away), str(key)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "True True ['ledger', 'sources']"


def test_without_a_trusted_key_it_says_so_loudly(recorded):
    found = verify_file(recorded.video)
    assert found.ok
    assert not found.trusted
    signer = next(check for check in found.checks if check.name == "signer")
    assert signer.ok is None
    assert f"SIGNED BY AN UNKNOWN KEY {recorded.signer.keyid}" in signer.detail


def test_without_a_sidecar_the_workspace_is_asked(recorded):
    sidecar_path(recorded.video).unlink()
    assert verify_file(recorded.video, **everything(recorded)).ok
    with recorded.video.open("rb") as stream:
        assert verify_file(stream, **everything(recorded)).ok
    with pytest.raises(VerificationError, match="has no record"):
        verify_file(recorded.video, trusted_keys=[recorded.pem])
    recorded.video.write_bytes(b"another film")
    with pytest.raises(VerificationError, match="the workspace knows no such bytes"):
        verify_file(recorded.video, **everything(recorded))


def test_every_changed_byte_of_the_sidecar_is_found(recorded):
    sidecar = recorded.sidecar
    video = recorded.video.read_bytes()
    kept = []
    for at in range(0, len(sidecar), 5):
        changed = sidecar[:at] + bytes([sidecar[at] ^ (1 << at % 7)]) + sidecar[at + 1 :]
        try:
            found = verify_file(io.BytesIO(video), changed, trusted_keys=[recorded.pem])
        except (VerificationError, UsageError):
            continue
        if found.ok:
            kept.append((at, sidecar[at : at + 1]))
    assert kept == []


@FIXTURE
@given(data=st.data())
def test_every_changed_byte_of_the_video_is_found(recorded, data):
    video = bytearray(recorded.video.read_bytes())
    at = data.draw(st.integers(0, len(video) - 1))
    video[at] ^= data.draw(st.integers(1, 255))
    found = verify_file(io.BytesIO(bytes(video)), recorded.sidecar, trusted_keys=[recorded.pem])
    assert found.first_failure.name == "video"
    assert found.first_failure.promise == "The video is the one that the record is about"


def resigned(recorded, signer, change=lambda content: None):
    """A sidecar of a changed statement under any key."""
    content = json.loads(recorded.draft.payload)
    change(content)
    payload = canonical_json(content)
    envelope = sign_envelope(payload, signer)
    entry = evolve(recorded.entry, envelope=envelope, public_key=signer.public_key)
    return sidecar_json(entry, texts=recorded.draft.texts)


def test_a_record_resigned_with_another_key_is_not_trusted(recorded):
    forged = resigned(recorded, LocalSigner(ed25519.Ed25519PrivateKey.generate()))
    found = verify_file(recorded.video, forged, trusted_keys=[recorded.pem])
    assert (found.ok, found.trusted, found.first_failure.name) == (False, False, "signer")
    with pytest.raises(VerificationError, match="none of the 1 trusted keys") as caught:
        found.require()
    assert caught.value.promise == "The signer is one that you trust"
    assert verify_file(recorded.video, forged).ok  # it fits itself; `trusted` says what that is worth
    assert verify_file(recorded.video, forged, ledger=recorded.ledger).first_failure.name == "ledger"


def test_ecdsa_records_verify_too(recorded):
    signer = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
    found = verify_file(recorded.video, resigned(recorded, signer), trusted_keys=[signer.public_key])
    assert found.ok
    assert found.trusted


def test_the_raw_output_is_not_the_delivered_video(recorded):
    from_generator = io.BytesIO(recorded.video.read_bytes()[:-1] + b"?")
    found = verify_file(from_generator, recorded.sidecar)
    assert "as it came" in found.first_failure.detail


def test_a_withheld_video_does_not_verify(recorded):
    facts = evolve(recorded.facts, delivered=None, withheld="the picture was revoked")
    draft = video_statement(facts, policy=Policy(), clock=FakeClock())
    entry = evolve(recorded.entry, envelope=sign_envelope(draft.payload, recorded.signer))
    raw = io.BytesIO(recorded.video.read_bytes()[:-1] + b"?")
    found = verify_file(raw, sidecar_json(entry), trusted_keys=[recorded.pem])
    assert "withheld" in found.first_failure.detail


def drop(*path):
    def edit(content):
        *way, last = path
        for step in way:
            content = content[step]
        del content[last]

    return edit


def put(value, *path):
    def edit(content):
        *way, last = path
        for step in way:
            content = content[step]
        content[last] = value

    return edit


ATTACKS = {
    "text changed": (put("blue boots", "texts", 0, "text"), "texts"),
    "kind changed": (put("caption", "texts", 0, "kind"), "texts"),
    "key changed": (put("0" * 64, "texts", 0, "key"), "texts"),
    "key too short": (put("00", "texts", 0, "key"), "texts"),
    "text added": (
        lambda content: content["texts"].append(
            {
                "kind": "prompt",
                "text": "lies",
                "key": "0" * 64,
                "hmac-sha256": keyed_digest(b"\0" * 32, "prompt", "lies"),
            }
        ),
        "texts",
    ),
    "texts are no list": (put({}, "texts"), "texts"),
    "position of another record": (
        lambda content: content["position"].update(payload=base64.b64encode(b'{"leaf":"","seq":5}').decode()),
        "position",
    ),
    "position is text": (put("0", "position"), "position"),
    "payload type changed": (put("application/json", "envelope", "payloadType"), "signature"),
    "no signatures": (put([], "envelope", "signatures"), "signature"),
    "signatures is a number": (put(5, "envelope", "signatures"), "signature"),
    "keyid changed": (put("0" * 64, "public_keys", 0, "keyid"), "signature"),
    "algorithm changed": (put("rsa", "public_keys", 0, "algorithm"), "signature"),
    "no public keys": (put([], "public_keys"), "signature"),
    "public key is noise": (put("AAAA", "public_keys", 0, "public_key"), "signature"),
    "base64 in another spelling": (
        lambda content: content["envelope"].update(payload=content["envelope"]["payload"] + "\n"),
        "signature",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_on_the_sidecar_are_named(recorded, attack):
    edit, name = ATTACKS[attack]
    found = verify_file(recorded.video, edited(recorded, edit))
    assert found.first_failure.name == name


def test_a_place_in_the_ledger_that_is_signed_but_wrong_is_found(recorded):
    lying = sidecar_json(evolve(recorded.entry, seq=7), signer=recorded.signer)
    assert verify_file(recorded.video, lying).ok  # without the workspace it cannot be known
    found = verify_file(recorded.video, lying, ledger=recorded.ledger)
    assert found.first_failure.name == "ledger"
    assert "place 7" in found.first_failure.detail


def test_withdrawn_texts_leave_a_record_that_verifies(recorded):
    silent = sidecar_json(recorded.entry, signer=recorded.signer)
    found = verify_file(recorded.video, silent, trusted_keys=[recorded.pem])
    assert found.ok
    assert found.summary["prompts"] == [None]
    in_workspace = verify_file(recorded.video, silent, **everything(recorded))
    assert in_workspace.summary["prompts"] == ["red shoes on granite, camera pans down swiftly"]
    recorded.ledger.erase_text(recorded.entry.record_id, by="ada", reason="asked for")
    erased = verify_file(recorded.video, silent, **everything(recorded))
    assert erased.ok
    assert erased.trusted
    assert erased.summary["prompts"] == [None]


def test_a_text_changed_in_the_workspace_is_found(recorded):
    with recorded.database.transaction() as connection:
        connection.execute("update text set value='blue boots' where kind='prompt'")
    found = verify_file(recorded.video, sidecar_json(recorded.entry), **everything(recorded))
    assert found.first_failure.name == "ledger"
    assert "'prompt'" in found.first_failure.detail


def test_a_record_that_the_ledger_lacks_or_has_otherwise_is_found(recorded):
    def rename(content):
        content["predicate"]["buildDefinition"]["internalParameters"]["record"]["id"] = "unknown"

    for change in (rename, lambda content: content["predicate"]["runDetails"]["builder"].update(id="urn:other")):
        forged = resigned(recorded, recorded.signer, change)
        found = verify_file(recorded.video, forged, **everything(recorded))
        assert found.first_failure.name == "ledger"


def test_pictures_that_are_gone_or_changed_are_found(recorded):
    original = recorded.facts.planned.sources[0].original

    def swapped(ref):
        return io.BytesIO(b"another picture") if ref.sha256 == original.sha256 else recorded.storage.open(ref)

    found = verify_file(recorded.video, **everything(recorded, storage_open=swapped))
    assert found.first_failure.name == "sources"
    recorded.storage.delete(original)
    found = verify_file(recorded.video, **everything(recorded))
    assert found.first_failure.name == "sources"
    assert names(found, False) == ["sources"]


def test_newer_formats_name_the_remedy(recorded):
    with pytest.raises(FormatVersionError, match="pip install --upgrade vrag"):
        verify_file(recorded.video, edited(recorded, put(2, "format")))
    newer = resigned(recorded, recorded.signer, lambda content: content.update(_type="https://in-toto.io/Statement/v2"))
    with pytest.raises(FormatVersionError):
        verify_file(recorded.video, newer)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 1_000_000,
        b'{"type":1}',
        b'{"format":1,"format":1}',
        b" " * (MAX_SIDECAR_BYTES + 1),
    ],
    ids=["empty", "null", "list", "not utf-8", "deep", "type", "twice", "huge"],
)
def test_what_is_no_sidecar_is_refused(recorded, data):
    with pytest.raises(VerificationError):
        verify_file(recorded.video, data)


@pytest.mark.parametrize(
    "edit",
    [drop("texts"), put(1, "more"), put(True, "format"), put("1", "format"), put("urn:other", "type")],
    ids=["missing", "more", "boolean", "text", "foreign"],
)
def test_a_sidecar_of_another_form_is_refused(recorded, edit):
    with pytest.raises(VerificationError):
        verify_file(recorded.video, edited(recorded, edit))


def test_a_sidecar_reformatted_by_an_editor_is_refused(recorded):
    with pytest.raises(VerificationError, match="canonical form"):
        verify_file(recorded.video, recorded.sidecar + b"\n")


def test_files_that_cannot_be_read_are_usage_errors(recorded, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        verify_file(tmp_path / "no.mp4")
    with pytest.raises(UsageError, match="no sidecar file"):
        verify_file(recorded.video, tmp_path / "no.json")
    with pytest.raises(UsageError, match="no sidecar file"):
        verify_file(recorded.video, tmp_path)
    with pytest.raises(UsageError, match="public key"):
        verify_file(recorded.video, trusted_keys=[b"not a key"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from places(one, (*path, index))


def only_typed_errors(video, sidecar, recorded):
    try:
        found = verify_file(video, sidecar, **everything(recorded))
    except (VerificationError, UsageError):
        return
    json.dumps(found.to_json())
    assert isinstance(found.ok, bool)


@settings(FIXTURE, max_examples=150)
@given(data=st.data())
def test_any_json_anywhere_in_a_sidecar_gives_a_verdict_or_a_typed_error(recorded, data):
    content = json.loads(recorded.sidecar)
    path = data.draw(st.sampled_from([path for path in places(content) if path]))
    put(data.draw(JSON), *path)(content)
    only_typed_errors(io.BytesIO(recorded.video.read_bytes()), json.dumps(content).encode(), recorded)
    try:
        spelled = canonical_json(content)
    except UsageError:
        return
    only_typed_errors(io.BytesIO(recorded.video.read_bytes()), spelled, recorded)


@settings(FIXTURE, max_examples=150)
@given(data=st.data())
def test_any_json_anywhere_in_a_signed_statement_gives_a_verdict_or_a_typed_error(recorded, data):
    content = json.loads(recorded.draft.payload)
    path = data.draw(st.sampled_from([path for path in places(content) if path]))
    put(data.draw(JSON), *path)(content)
    envelope = sign_envelope(json.dumps(content).encode(), recorded.signer)
    sidecar = sidecar_json(evolve(recorded.entry, envelope=envelope), texts=recorded.draft.texts)
    only_typed_errors(io.BytesIO(recorded.video.read_bytes()), sidecar, recorded)


@settings(FIXTURE, max_examples=100)
@given(noise=st.binary(max_size=300))
def test_noise_gives_a_typed_error(recorded, noise):
    with pytest.raises((VerificationError, UsageError)):
        verify_file(io.BytesIO(b""), noise)
