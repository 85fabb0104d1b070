"""Keys on disk, and envelopes checked against an independent implementation of DSSE in both directions."""

import json
import multiprocessing
import os
import stat
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as ForeignVerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from vrag.errors import ProvenanceError, UsageError, VerificationError
from vrag.interfaces import Signer
from vrag.provenance.signing import (
    IN_TOTO,
    LocalSigner,
    export_public_key_pem,
    load_public_key,
    sign_envelope,
    strict_json,
    verify_envelope,
    verify_signature,
)
from vrag.testing import FakeClock

KEYS = {"ed25519": ed25519.Ed25519PrivateKey.generate(), "ecdsa-p256-sha256": ec.generate_private_key(ec.SECP256R1())}


@pytest.fixture(params=KEYS)
def signer(request):
    return LocalSigner(KEYS[request.param])


def pem_of(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_signer_keeps_the_promises_of_its_seam(signer):
    assert isinstance(signer, Signer)
    keyid, algorithm, der = load_public_key(signer.public_key)
    assert (keyid, algorithm, der) == (signer.keyid, signer.algorithm, signer.public_key)
    assert load_public_key(export_public_key_pem(signer)) == (keyid, algorithm, der)
    signature = signer.sign(b"message")
    assert verify_signature(signer.public_key, signature, b"message")
    assert not verify_signature(signer.public_key, signature, b"massage")
    assert not verify_signature(signer.public_key, b"", b"message")
    assert signer.keyid in repr(signer)


def test_ours_verifies_with_an_independent_dsse(signer):
    payload = b'{"a":1}'
    envelope = sign_envelope(payload, signer)
    key = SSlibKey.from_crypto(serialization.load_der_public_key(signer.public_key), keyid=signer.keyid)
    foreign = Envelope.from_dict(json.loads(envelope))
    assert foreign.payload == payload
    assert set(foreign.verify([key], 1)) == {signer.keyid}
    foreign.payload = b'{"a":2}'
    with pytest.raises(ForeignVerificationError):
        foreign.verify([key], 1)


@pytest.mark.parametrize("algorithm", KEYS)
def test_an_independent_dsse_verifies_with_ours(algorithm):
    private = KEYS[algorithm]
    keyid, _, der = load_public_key(LocalSigner(private).public_key)
    foreign = Envelope(b'{"b":2}', IN_TOTO, {})
    foreign.sign(CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), keyid=keyid)))
    data = json.dumps(foreign.to_dict()).encode()
    assert verify_envelope(data, {keyid: der}) == b'{"b":2}'
    with pytest.raises(VerificationError, match="No signature is by a key"):
        verify_envelope(data, {})
    with pytest.raises(VerificationError, match="does not hold"):
        verify_envelope(data, {keyid: der}, payload_type="application/json")


@given(payload=st.binary(max_size=64), data=st.data())
def test_every_changed_byte_of_an_envelope_is_found(payload, data):
    signer = LocalSigner(KEYS["ed25519"])
    keys = {signer.keyid: signer.public_key}
    envelope = sign_envelope(payload, signer)
    assert verify_envelope(envelope, keys) == payload
    at = data.draw(st.integers(0, len(envelope) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != envelope[at]))
    with pytest.raises(VerificationError):
        verify_envelope(envelope[:at] + bytes([value]) + envelope[at + 1 :], keys)


def test_a_signer_whose_key_does_not_fit_is_refused(signer):
    class Mixed(LocalSigner):
        @property
        def public_key(self):
            return LocalSigner(ed25519.Ed25519PrivateKey.generate()).public_key

    with pytest.raises(ProvenanceError, match="does not verify"):
        sign_envelope(b"x", Mixed(KEYS["ed25519"]))


def test_a_signature_of_a_known_key_must_hold_even_beside_a_good_one():
    good, other = LocalSigner(KEYS["ed25519"]), LocalSigner(KEYS["ecdsa-p256-sha256"])
    envelope = json.loads(sign_envelope(b"x", good))
    envelope["signatures"] += json.loads(sign_envelope(b"y", other))["signatures"]
    assert verify_envelope(envelope, {good.keyid: good.public_key}) == b"x"
    with pytest.raises(VerificationError, match="does not fit"):
        verify_envelope(envelope, {good.keyid: good.public_key, other.keyid: other.public_key})


# -- keys on disk


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "keys" / "signing.pem"
    old = os.umask(0)
    try:
        first = LocalSigner.load_or_create(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert LocalSigner.load_or_create(path).keyid == first.keyid
    assert not list(path.parent.glob("*.part"))


def test_a_key_comes_from_the_clock(tmp_path):
    first, second = (LocalSigner.load_or_create(tmp_path / name, clock=FakeClock(seed=5)) for name in "ab")
    assert first.keyid == second.keyid


def _keyid(path):
    return LocalSigner.load_or_create(path).keyid


def test_processes_that_start_at_once_get_one_key(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert len(set(pool.map(_keyid, [tmp_path / "signing.pem"] * 6))) == 1


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / "signing.pem.part").write_bytes(b"-----BEGIN PRIV")
    assert LocalSigner.load_or_create(tmp_path / "signing.pem").algorithm == "ed25519"
    assert not (tmp_path / "signing.pem.part").exists()


@pytest.mark.skipif(os.name != "posix", reason="mode bits say nothing on Windows")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "signing.pem"
    LocalSigner.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ProvenanceError, match="Next: chmod 600") as caught:
        LocalSigner.load_or_create(path)
    assert f"{mode:04o}" in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an unencrypted private key"),
        (b"\xff" * 100, "not an unencrypted private key"),
        (pem_of(KEYS["ed25519"], b"password"), "not an unencrypted private key"),
        (pem_of(rsa.generate_private_key(65537, 2048)), "neither Ed25519"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "neither Ed25519"),
    ],
    ids=["empty", "noise", "encrypted", "rsa", "p384"],
)
def test_another_file_is_refused_and_kept(tmp_path, content, said):
    path = tmp_path / "signing.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ProvenanceError, match=said):
        LocalSigner.load_or_create(path)
    assert path.read_bytes() == content


def test_an_ecdsa_key_given_by_its_owner_is_used(tmp_path):
    path = tmp_path / "signing.pem"
    path.write_bytes(pem_of(KEYS["ecdsa-p256-sha256"]))
    path.chmod(0o600)
    assert LocalSigner.load_or_create(path).algorithm == "ecdsa-p256-sha256"


def test_a_folder_in_place_of_a_key_is_a_typed_error(tmp_path):
    with pytest.raises(ProvenanceError, match="cannot be used"):
        LocalSigner.load_or_create(tmp_path)


@pytest.mark.parametrize("data", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\x30\x00"])
def test_what_is_no_public_key_is_refused(data):
    with pytest.raises(UsageError):
        load_public_key(data)


# -- JSON of strangers


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a" :1,"a":2}',
        b'{"a"\n:1,"b":{"a"\t:1,"a":2}}',
        b'[{"a":"\\":"},{"b":1,"b":2}]',
        b"[NaN]",
        b"[1e999]",
        b"[-Infinity]",
        b"[9007199254740993]",
        b"[" + b"9" * 5000 + b"]",
        b'["\\ud800"]',
        b'{"\\udfff":1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b"",
        b"{",
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(data):
    with pytest.raises(VerificationError):
        strict_json(data, what="thing")


@given(st.binary(max_size=200))
def test_any_bytes_give_json_or_a_typed_error(data):
    with suppress(VerificationError):
        strict_json(data, what="thing")
