"""A signer whose key comes from a number."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typing_extensions import override

from vrag.interfaces import Signer
from vrag.testing.faults import Call, Faults

__all__ = ["FakeSigner"]


class FakeSigner(Signer):
    """Real Ed25519 signatures with a key that everybody can know: for tests only."""

    def __init__(self, *, seed: int = 0) -> None:
        self.faults = Faults("sign")
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"vrag fake {seed}".encode()).digest())

    @property
    def calls(self) -> tuple[Call, ...]:
        """What was signed, in order."""
        return self.faults.calls

    @property
    @override
    def keyid(self) -> str:
        return hashlib.sha256(self.public_key).hexdigest()

    @property
    @override
    def algorithm(self) -> str:
        return "ed25519"

    @property
    @override
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @override
    def sign(self, message: bytes) -> bytes:
        with self.faults.at("sign", message=message):
            return self._key.sign(message)
