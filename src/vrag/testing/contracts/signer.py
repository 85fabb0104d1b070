"""The contract of `Signer`."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from typing_extensions import override

from vrag.interfaces import Signer
from vrag.testing.contracts.clauses import Contract

__all__ = ["SignerContract"]

_MESSAGES: Final = (b"", b"one message", bytes(range(256)) * 64)


class SignerContract(Contract, suite=True):
    """Hooks: `make`, `sent`."""

    seam: ClassVar[type] = Signer

    @override
    def work(self, backend: Signer, number: int) -> object:
        message = f"message {number}".encode()
        return _verifies(backend, backend.sign(message), message)

    def test_keyid__is_the_digest_of_the_key(self, backend: Signer) -> None:
        """Names the public key: SHA-256 of its SubjectPublicKeyInfo DER, hexadecimal.

        When it fails: hash `public_key`, in lower-case hexadecimal; a vendor's own key id is not it.
        """
        assert backend.keyid == hashlib.sha256(backend.public_key).hexdigest()

    def test_algorithm__is_one_of_two(self, backend: Signer) -> None:
        """`ed25519` or `ecdsa-p256-sha256`.

        When it fails: use these very words, and the one that fits the key.
        """
        key = load_der_public_key(backend.public_key)
        if isinstance(key, Ed25519PublicKey):
            assert backend.algorithm == "ed25519"
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey), "The key is neither Ed25519 nor ECDSA."
            assert key.curve.name == "secp256r1"
            assert backend.algorithm == "ecdsa-p256-sha256"

    def test_public_key__is_der(self, backend: Signer) -> None:
        """SubjectPublicKeyInfo, DER.

        When it fails: not PEM, not the 32 raw bytes; the same on each read.
        """
        before = backend.public_key
        try:
            key = load_der_public_key(before)
        except ValueError as error:
            raise AssertionError(f"`public_key` is no SubjectPublicKeyInfo in DER: {error}") from error
        assert key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == before
        assert backend.public_key == before

    def test_sign__verifies_with_the_public_key(self, backend: Signer) -> None:
        """A signature over `message` that verifies with `public_key`; hashing happens inside where the algorithm hashes.

        When it fails: Ed25519 takes the message as it is; a vendor that takes a digest gets one, and is told so.
        """
        for message in _MESSAGES:
            signature = backend.sign(message)
            assert _verifies(backend, signature, message), "The signature does not verify."
            assert not _verifies(backend, signature, message + b"x"), "The signature verifies another message."

    def test_sign__ecdsa_is_der(self, backend: Signer) -> None:
        """ECDSA signatures are DER.

        When it fails: convert the 64 bytes r || s to DER; an Ed25519 signature is its 64 bytes.
        """
        signature = backend.sign(_MESSAGES[1])
        if backend.algorithm == "ed25519":
            assert len(signature) == 64
            return
        try:
            numbers = decode_dss_signature(signature)
        except ValueError as error:
            raise AssertionError("The ECDSA signature is not DER.") from error
        assert all(number > 0 for number in numbers)


def _verifies(signer: Signer, signature: bytes, message: bytes) -> bool:
    key = load_der_public_key(signer.public_key)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
