"""A signer whose key never leaves AWS KMS.

The key must be asymmetric, for signing, with the spec ECC_NIST_P256. KMS gets a SHA-256 digest: its `RAW` messages end at
4096 bytes, and what is signed for content credentials grows with the number of pictures.

Source: AWS KMS API Reference, `Sign` and `GetPublicKey`; service model of `kms` in botocore (checked 2026-11-20).
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from threading import Lock
from typing import Any, Final

from typing_extensions import override

from vrag.backends.aws.errors import translated
from vrag.errors import BackendError, ConfigError
from vrag.interfaces import Signer
from vrag.provenance.signing import load_public_key

__all__ = ["KmsSigner"]

_ALGORITHM: Final = "ECDSA_SHA_256"
_SPEC: Final = "ECC_NIST_P256"
_BACKEND: Final = "kms"


class KmsSigner(Signer):
    """Signs with an asymmetric key of AWS KMS; needs `kms:Sign` and `kms:GetPublicKey`."""

    def __init__(self, client: Any, *, key_id: str) -> None:
        """Use a ready-made client; nothing is sent until the public key is asked for.

        Args:
            client: A boto3 client of `kms`.
            key_id: Key id, key ARN, alias name or alias ARN.
        """
        self._client = client
        self._key_id = key_id
        self._lock = Lock()

    @cached_property
    def _public(self) -> tuple[str, str, bytes]:
        with translated("GetPublicKey", _BACKEND):
            answer = self._client.get_public_key(KeyId=self._key_id)
        if answer.get("KeySpec") != _SPEC or _ALGORITHM not in answer.get("SigningAlgorithms", ()):
            spec = answer.get("KeySpec")
            raise ConfigError(
                f"The KMS key has the spec {spec!s:.40}; it must be {_SPEC} with the usage SIGN_VERIFY.",
                hint="aws kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY",
            )
        return load_public_key(answer["PublicKey"])

    def _known(self) -> tuple[str, str, bytes]:
        with self._lock:  # many threads, one call
            return self._public

    @property
    @override
    def keyid(self) -> str:
        return self._known()[0]

    @property
    @override
    def algorithm(self) -> str:
        return self._known()[1]

    @property
    @override
    def public_key(self) -> bytes:
        return self._known()[2]

    @override
    def sign(self, message: bytes) -> bytes:
        self._known()  # a key of another spec is refused with words of ours
        with translated("Sign", _BACKEND):
            answer = self._client.sign(
                KeyId=self._key_id,
                Message=hashlib.sha256(message).digest(),
                MessageType="DIGEST",
                SigningAlgorithm=_ALGORITHM,
            )
        signature = answer.get("Signature")
        if not isinstance(signature, bytes) or not signature:
            raise BackendError("KMS answered without a signature.", backend=_BACKEND, operation="Sign", retryable=True)
        return signature

    @override
    def __repr__(self) -> str:
        return "KmsSigner(…)"  # an ARN holds the number of an account
