"""Keys and envelopes: a local signing key, and DSSE (Dead Simple Signing Envelope) made and opened.

DSSE signs exact bytes, so nothing has to be put in canonical form to check a signature.
Source: secure-systems-lab/dsse, protocol.md and envelope.md, version 1.0 (checked 2026-11-20).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from filelock import FileLock
from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.errors import ProvenanceError, UsageError, VerificationError
from vrag.interfaces import Signer
from vrag.media.files import sync_folder
from vrag.values.canonical import JSON, canonical_json

__all__ = [
    "IN_TOTO",
    "LocalSigner",
    "export_public_key_pem",
    "load_public_key",
    "sign_envelope",
    "strict_json",
    "strict_objects",
    "verify_envelope",
    "verify_signature",
]

IN_TOTO: Final = "application/vnd.in-toto+json"
"""Payload type of an in-toto statement. Source: in-toto attestation framework, spec/v1/envelope.md (2026-11-20)."""

_SIGNED = "The record is what its signer signed"
_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


class LocalSigner(Signer):
    """Signs with a private key held in this process: Ed25519, or ECDSA on P-256."""

    __slots__ = ("_key", "_keyid", "_public_key")

    def __init__(self, key: _PrivateKey) -> None:
        self._key = key
        self._public_key = _der(key.public_key())
        self._keyid = hashlib.sha256(self._public_key).hexdigest()

    @classmethod
    def load_or_create(cls, path: Path, *, clock: Clock | None = None) -> LocalSigner:
        """The key in `path` (PKCS #8, PEM); an Ed25519 key is made where there is none, readable by its owner alone.

        Processes that start at once get the same key; one that is killed leaves a whole key or none.

        Raises:
            ProvenanceError: The file can be read by others, is no such key, or cannot be read or made.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{path}.lock"):
                    if not path.exists():
                        _create(path, clock or SystemClock())
            return cls(_load(path))
        except OSError as error:
            raise ProvenanceError(f"The signing key '{path}' cannot be used: {error.strerror or error}.") from error

    @property
    @override
    def keyid(self) -> str:
        return self._keyid

    @property
    @override
    def algorithm(self) -> str:
        return _algorithm(self._key.public_key())

    @property
    @override
    def public_key(self) -> bytes:
        return self._public_key

    @override
    def sign(self, message: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @override
    def __repr__(self) -> str:
        return f"LocalSigner(keyid='{self._keyid}')"


def _create(path: Path, clock: Clock) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(clock.token_bytes(32))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # ours alone: the lock is held, and a killed process may have left it
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _load(path: Path) -> _PrivateKey:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        # Windows keeps access lists, and its mode bits say nothing about other users.
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise ProvenanceError(
                f"The signing key '{path}' has mode {stat.S_IMODE(mode):04o}: others can read or change it. "
                "It must be for its owner alone (0600).",
                hint=f"chmod 600 '{path}'",
            )
        pem = file.read(1 << 16)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ProvenanceError(f"The file '{path}' is not an unencrypted private key in PEM (PKCS #8).") from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise ProvenanceError(f"The key in '{path}' is neither Ed25519 nor ECDSA on P-256.")


def _der(key: _PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _algorithm(key: _PublicKey) -> str:
    return "ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "ecdsa-p256-sha256"


def load_public_key(data: bytes) -> tuple[str, str, bytes]:
    """Key id, algorithm and DER of a public key (SubjectPublicKeyInfo) in PEM or DER.

    Raises:
        UsageError: It is not an Ed25519 or ECDSA P-256 public key.
    """
    key = _public_key(data)
    der = _der(key)
    return hashlib.sha256(der).hexdigest(), _algorithm(key), der


@lru_cache(maxsize=64)  # a ledger has thousands of signatures by few keys
def _public_key(data: bytes) -> _PublicKey:
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError("This is not a public key in PEM or DER (SubjectPublicKeyInfo).") from error
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise UsageError("This public key is neither Ed25519 nor ECDSA on P-256.")


def export_public_key_pem(signer: Signer) -> bytes:
    """The public key of a signer in PEM, to give to those who verify."""
    return _public_key(signer.public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` was made with the private half of `public_key` (PEM or DER)."""
    key = _public_key(public_key)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload: bytes, signer: Signer, *, payload_type: str = IN_TOTO) -> bytes:
    """A DSSE envelope around `payload`, as canonical JSON: the same content is always the same bytes.

    Raises:
        ProvenanceError: The signer gave a signature that its own public key does not verify.
    """
    message = _pae(payload_type, payload)
    signature = signer.sign(message)
    if not verify_signature(signer.public_key, signature, message):
        raise ProvenanceError(f"The signer '{signer.keyid}' made a signature that does not verify with its public key.")
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": signer.keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )


def verify_envelope(
    envelope: bytes | Mapping[str, JSON], keys: Mapping[str, bytes], *, payload_type: str = IN_TOTO
) -> bytes:
    """The payload of a DSSE envelope that one of `keys` signed.

    Stricter than DSSE asks: every signature that names one of `keys` must hold, and base64 has one spelling, so that no
    changed byte passes.

    Args:
        envelope: Its JSON, or the object in it.
        keys: Public keys (PEM or DER) by key id.
        payload_type: The only payload type that is taken.

    Raises:
        VerificationError: It is no such envelope, or no signature of `keys` holds.
    """
    content = strict_json(envelope, what="envelope") if isinstance(envelope, bytes) else envelope
    if not isinstance(content, Mapping) or set(content) != {"payload", "payloadType", "signatures"}:
        raise VerificationError("The envelope has not exactly payload, payloadType and signatures.", promise=_SIGNED)
    if content["payloadType"] != payload_type:
        raise VerificationError(f"The envelope does not hold '{payload_type}'.", promise=_SIGNED)
    payload = unbase64(content["payload"], what="payload")
    signatures = content["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= 64:
        raise VerificationError("The envelope has not 1 to 64 signatures.", promise=_SIGNED)
    message = _pae(payload_type, payload)
    held = False
    for signature in signatures:
        if not isinstance(signature, dict) or set(signature) != {"keyid", "sig"}:
            raise VerificationError("A signature of the envelope has not exactly keyid and sig.", promise=_SIGNED)
        keyid, raw = signature["keyid"], unbase64(signature["sig"], what="signature")
        if isinstance(keyid, str) and keyid in keys:
            if not verify_signature(keys[keyid], raw, message):
                raise VerificationError(
                    f"The signature of key {keyid} does not fit the content: one of them was changed.", promise=_SIGNED
                )
            held = True
    if not held:
        raise VerificationError("No signature is by a key that was given.", promise=_SIGNED)
    return payload


def unbase64(text: object, *, what: str) -> bytes:
    """Bytes of standard base64 in its one canonical spelling.

    Raises:
        VerificationError: It is something else.
    """
    try:
        if isinstance(text, str):
            data = base64.b64decode(text, validate=True)
            if base64.b64encode(data) == text.encode():
                return data
    except (binascii.Error, ValueError):
        pass
    raise VerificationError(f"The {what} is not canonical base64.", promise=_SIGNED)


def strict_json(data: bytes, *, what: str) -> JSON:
    """JSON of a stranger: UTF-8, no key twice, finite numbers that keep their value, whole characters, at most 64 deep.

    Raises:
        VerificationError: It is not that.
    """
    return strict_objects(data, what=what)[0]


def strict_objects(data: bytes, *, what: str) -> tuple[JSON, list[dict[str, JSON]]]:
    """`strict_json`, and every object in it.

    Raises:
        VerificationError: It is not that.
    """
    try:
        text = data.decode("utf-8")
        content = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_exact)
        objects = _objects(content)
        # Without space before colons each key is followed by `":`. Where these are no more than the keys that were kept,
        # none stands twice, and the slow reading that compares them is spared.
        spaced = any(map(text.__contains__, "\t\r\n")) or (" " in text and " :" in text)
        if spaced or text.count('":') != sum(map(len, objects)):
            json.loads(text, object_pairs_hook=_unique)
        if "\\" in text and "\\u" in text:  # the only way to half a character; one letter is looked for much faster
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise VerificationError(
            f"The {what} is nested too deep to be one.", promise="The record can be read"
        ) from error
    except ValueError as error:  # UnicodeError and JSONDecodeError are its children
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error.args[0] if error.args else ""
        shown = "not UTF-8" if isinstance(error, UnicodeError) else reason
        raise VerificationError(f"The {what} is not sound JSON: {shown}.", promise="The record can be read") from error
    return content, objects


def _objects(content: JSON) -> list[dict[str, JSON]]:
    """Level by level; json makes these types and no children of them."""
    found: list[dict[str, JSON]] = []
    level = [content] if type(content) in _NESTED else []
    for _ in range(64):
        objects = [one for one in level if type(one) is dict]
        found += objects
        members = [*map(dict.values, objects), *(one for one in level if type(one) is list)]
        level = [one for group in members for one in group if type(one) in _NESTED]
        if not level:
            return found
    raise ValueError("it is nested more than 64 deep")


_NESTED: Final = (dict, list)


def _unique(pairs: list[tuple[str, JSON]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice in one object")


def _no_constant(_name: str) -> None:
    raise ValueError("a number is not finite")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is not finite")
    return number


def _exact(text: str) -> int:
    number = int(text)
    if not -(1 << 53) < number < 1 << 53:
        raise ValueError("an integer is past 2**53 - 1")
    return number
