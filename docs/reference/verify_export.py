"""Checks an audit export with nothing but Python and `cryptography`: run it in the folder of the export.

python verify_export.py [--key TRUSTED.pem]

It checks that every record is the one that was signed, that every record has its place in the ledger, and that the
checkpoint over the ledger is signed. Compare the key that it names with the one that you got another way, or give it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

__all__ = ["BrokenError", "check", "main"]


class BrokenError(Exception):
    """Something in the export is not what was signed."""


def sha256(data: bytes) -> bytes:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).digest()


def unbase64(text: str) -> bytes:
    """Bytes of base64 in its one spelling."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise BrokenError("base64 in another spelling")
    return data


def read_key(path: Path) -> tuple[str, Any, bytes]:
    """Key id, key and DER of a public key in PEM."""
    key = load_pem_public_key(path.read_bytes())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hex(), key, der


def check_signature(key: Any, signature: bytes, message: bytes, what: str) -> None:
    """Raise unless the signature holds."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise BrokenError(f"{what}: the signature does not fit") from None


def read_checkpoint(note: str, keys: dict[str, tuple[Any, bytes]]) -> tuple[int, bytes, str]:
    """Size, root and key id of a checkpoint: a C2SP signed note over origin, size and root."""
    text, _, signatures = note.rpartition("\n\n")
    origin, size, root = text.split("\n")
    if not signatures.endswith("\n"):
        raise BrokenError("checkpoint: it is cut off")
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        if dash != "\u2014":
            raise BrokenError("checkpoint: a signature line is not in its form")
        raw = unbase64(encoded)
        for keyid, (key, der) in keys.items():
            ed = isinstance(key, ed25519.Ed25519PublicKey)
            hint = sha256(origin.encode() + b"\n\x01" + der[-32:])[:4] if ed else sha256(der)[:4]
            if name == origin and hint == raw[:4]:
                check_signature(key, raw[4:], f"{text}\n".encode(), "checkpoint")
                return int(size), unbase64(root), keyid
    raise BrokenError("checkpoint: signed by no key of this export")


def check_inclusion(leaf: bytes, seq: int, size: int, proof: list[bytes], root: bytes) -> None:
    """RFC 9162, section 2.1.3.2: the proof leads from the leaf to the root."""
    at, last, found = seq, size - 1, leaf
    for sister in proof:
        if last == 0:
            raise BrokenError(f"record {seq}: its proof is too long")
        if at & 1 or at == last:
            found = sha256(b"\1" + sister + found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = sha256(b"\1" + found + sister)
        at, last = at >> 1, last >> 1
    if last != 0 or found != root or not 0 <= seq < size:
        raise BrokenError(f"record {seq}: it is not in the ledger of the checkpoint")


def canonical(content: dict[str, Any]) -> bytes:
    """The one spelling (RFC 8785) of an object whose keys are ASCII and whose numbers are whole."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def check_record(line: str, keys: dict[str, tuple[Any, bytes]], size: int, root: bytes) -> dict[str, Any]:
    """One line of `records.jsonl`: its signature (DSSE), its place, and its words where they are disclosed."""
    row: dict[str, Any] = json.loads(line)
    seq, envelope = row["seq"], row["envelope"]
    if set(row) - {"texts"} != {"seq", "record_id", "envelope", "inclusion"} or canonical(row) + b"\n" != line.encode():
        raise BrokenError(f"record {seq}: its line is not in the form that was written")
    payload, kind = unbase64(envelope["payload"]), envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    known = [one for one in envelope["signatures"] if one["keyid"] in keys]
    if not known:
        raise BrokenError(f"record {seq}: signed by no key of this export")
    for one in known:
        check_signature(keys[one["keyid"]][0], unbase64(one["sig"]), signed, f"record {seq}")
    check_inclusion(sha256(b"\0" + canonical(envelope)), seq, size, [*map(unbase64, row["inclusion"])], root)
    statement = json.loads(payload)
    if statement["predicate"]["buildDefinition"]["internalParameters"]["record"]["id"] != row["record_id"]:
        raise BrokenError(f"record {seq}: listed under another id")
    for text in row.get("texts", ()):
        message = f"{text['kind']}\0{text['text']}".encode()
        if hmac.digest(bytes.fromhex(text["key"]), message, "sha256").hex() != text["hmac-sha256"]:
            raise BrokenError(f"record {seq}: a disclosed text does not open its digest")
        if text["hmac-sha256"].encode() not in payload:
            raise BrokenError(f"record {seq}: a disclosed text is not in the record")
    return row


def check(folder: Path, trusted: Path | None) -> str:
    """Check the export in `folder`; what it says is for people."""
    keys = {keyid: (key, der) for keyid, key, der in map(read_key, sorted((folder / "keys").glob("*.pem")))}
    for keyid in keys:
        if not (folder / "keys" / f"{keyid}.pem").is_file():
            raise BrokenError("a key is not the one that its file name says")
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    size, root, signer = read_checkpoint((folder / "checkpoint.txt").read_text(encoding="utf-8"), keys)
    if trusted is not None and read_key(trusted)[0] != signer:
        raise BrokenError(f"the checkpoint is signed by {signer}, not by the key that you trust")
    with (folder / "records.jsonl").open(encoding="utf-8", newline="\n") as lines:
        seqs = [check_record(line, keys, size, root)["seq"] for line in lines]
    if seqs != sorted(set(seqs)) or len(seqs) != about["records"]:
        raise BrokenError(f"{about['records']} records were exported; there are {len(set(seqs))} here, or out of order")
    if about["complete"] and seqs != list(range(size)):
        raise BrokenError(f"the export is of the whole ledger, and records of its {size} are missing")
    whole = "all of" if about["complete"] else "a selection from"
    return f"ok: {len(seqs)} records, {whole} a ledger of {size}, checkpoint signed by {signer}"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Check an audit export.")
    parser.add_argument("--key", type=Path, help="the public key (PEM) that you trust")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args()
    try:
        sys.stdout.write(check(given.folder, given.key) + "\n")
    except (BrokenError, OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"BROKEN: {type(error).__name__}: {error}\n")
        return 1
    if given.key is None:
        sys.stdout.write("The key came with the export: compare its id with one that you got another way.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
