"""Sidecars: the record of a video as the file beside it, `NAME.mp4.vrag.json`.

A sidecar is canonical JSON (RFC 8785) of one closed form, so that no byte of it can change unseen.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vrag.errors import FormatVersionError, VerificationError
from vrag.interfaces import Signer
from vrag.provenance.signing import load_public_key, sign_envelope, strict_json, unbase64
from vrag.provenance.statement import KEYED, NAMESPACE
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.ledger import Entry, Text

__all__ = [
    "MAX_SIDECAR_BYTES",
    "POSITION_TYPE",
    "SIDECAR_FORMAT",
    "SIDECAR_TYPE",
    "read_public_keys",
    "read_sidecar",
    "sidecar_json",
    "sidecar_path",
]

SIDECAR_TYPE: Final = f"{NAMESPACE}sidecar"
SIDECAR_FORMAT: Final = 1
POSITION_TYPE: Final = f"{NAMESPACE}ledger-position/v1"
MAX_SIDECAR_BYTES: Final = 16 << 20

READABLE: Final = "The record can be read and has its one form"
SIGNED: Final = "The record is what its signer signed"


def sidecar_path(video: Path) -> Path:
    """Where the sidecar of `video` lies: beside it, `NAME.mp4.vrag.json`."""
    return video.with_name(f"{video.name}.vrag.json")


def sidecar_json(entry: Entry, *, signer: Signer | None = None, texts: Iterable[Text] = ()) -> bytes:
    """The sidecar of a recorded video.

    Args:
        entry: Its place in the ledger.
        signer: The key that signed it: its place in the ledger is then stated and signed too. Another key is no error,
            and states nothing.
        texts: What to disclose of the words behind the keyed digests.
    """
    keyid, algorithm, der = load_public_key(entry.public_key)
    position = None
    if signer is not None and signer.keyid == keyid:
        stated = {"leaf": entry.leaf.hex(), "record_id": entry.record_id, "seq": entry.seq}
        position = strict_json(
            sign_envelope(canonical_json(stated), signer, payload_type=POSITION_TYPE), what="ledger position"
        )
    return canonical_json(
        {
            "type": SIDECAR_TYPE,
            "format": SIDECAR_FORMAT,
            "envelope": strict_json(entry.envelope, what="envelope"),
            "public_keys": [
                {"keyid": keyid, "algorithm": algorithm, "public_key": base64.b64encode(der).decode()},
            ],
            "position": position,
            "texts": [
                {"kind": text.kind, "text": text.value, "key": text.key.hex(), KEYED: text.keyed_digest}
                for text in texts
            ],
        }
    )


def read_sidecar(data: bytes) -> dict[str, JSON]:
    """The members of a sidecar; what they hold is not checked yet.

    Raises:
        VerificationError: It is no sidecar, or not in its one form.
        FormatVersionError: A newer release wrote it.
    """
    if len(data) > MAX_SIDECAR_BYTES:
        raise VerificationError(f"The sidecar is larger than {MAX_SIDECAR_BYTES} bytes.", promise=READABLE)
    content = strict_json(data, what="sidecar")
    if not isinstance(content, dict) or content.get("type") != SIDECAR_TYPE:
        raise VerificationError("This file is not a sidecar of vrag.", promise=READABLE)
    version = content.get("format")
    if type(version) is int and version > SIDECAR_FORMAT:
        raise FormatVersionError(
            f"The sidecar has format {version}; this release reads up to {SIDECAR_FORMAT}.",
            hint="pip install --upgrade vrag",
        )
    keys = {"type", "format", "envelope", "public_keys", "position", "texts"}
    if type(version) is not int or version != SIDECAR_FORMAT or set(content) != keys:
        raise VerificationError("The sidecar has not the members of format 1.", promise=READABLE)
    if canonical_json(content) != data:
        raise VerificationError("The sidecar is not in canonical form: it was changed after writing.", promise=READABLE)
    return content


def read_public_keys(listed: JSON) -> dict[str, bytes]:
    """The public keys in a sidecar, DER by key id.

    Raises:
        VerificationError: They are not 1 to 16 different keys, each under its own id.
        UsageError: One is not a public key that can be used.
    """
    keys: dict[str, bytes] = {}
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict) or set(one) != {"keyid", "algorithm", "public_key"}:
            raise VerificationError("A public key has not exactly keyid, algorithm and public_key.", promise=SIGNED)
        raw = unbase64(one["public_key"], what="public key")
        keyid, algorithm, der = load_public_key(raw)
        if (keyid, algorithm, der) != (one["keyid"], one["algorithm"], raw):
            raise VerificationError("A public key is not the one that its id names.", promise=SIGNED)
        keys[keyid] = der
    if not 1 <= len(keys) <= 16 or len(keys) != len(listed):
        raise VerificationError("The sidecar has not 1 to 16 different public keys.", promise=SIGNED)
    return keys
