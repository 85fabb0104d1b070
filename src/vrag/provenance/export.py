"""Audit exports: records with the proofs of their places, the signed checkpoint, the keys, and a script that checks it all.

The script needs no `vrag`. Beside it lies the same as W3C PROV and as an RO-Crate. Words that were erased cannot come back: an
export reads them from the table that they were erased from.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from attrs import frozen

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError
from vrag.media.files import write_new
from vrag.provenance.checkpoints import Checkpoint
from vrag.provenance.crate import crate_json
from vrag.provenance.merkle import inclusion_proof
from vrag.provenance.prov import prov_json
from vrag.provenance.signing import load_public_key
from vrag.provenance.statement import KEYED, NAMESPACE, Statement, read_statement
from vrag.values.canonical import JSON, canonical_json, pretty_json
from vrag.workspace.ledger import Entry, Ledger

__all__ = ["EXPORT_FORMAT", "ExportReport", "Selection", "export_audit", "verifier_script"]

EXPORT_TYPE: Final = f"{NAMESPACE}audit-export"
EXPORT_FORMAT: Final = 1

_BATCH: Final = 500
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?")
_FILES: Final = {
    "records.jsonl": ("application/jsonl", "One record a line: signed envelope, place in the ledger, proof of it"),
    "checkpoint.txt": ("text/plain", "Size and root of the ledger, signed (C2SP tlog-checkpoint)"),
    "export.json": ("application/json", "What was selected"),
    "verify_export.py": ("text/x-python", "Checks all of it with Python and the package cryptography"),
    "prov.json": ("application/json", "The same steps as W3C PROV-JSON"),
}


@frozen(kw_only=True)
class Selection:
    """Which records are exported; what is None selects nothing out. Receipts about what is selected come with it."""

    video: str | None = None
    """Id of a record or step, or the SHA-256 of a video; the records of its edits, parts and choices come with it."""
    asset: str | None = None
    """An asset id, or the SHA-256 of a picture: every record that used it, itself or edited."""
    since: str | None = None
    until: str | None = None
    """First and last moment, RFC 3339 UTC or a day, `2026-01-31`; the last day is in."""
    knowledge_base: str | None = None
    """Records that used a picture of it."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()


@frozen(kw_only=True)
class ExportReport:
    """What was written."""

    folder: Path
    records: int
    receipts: int
    """How many of them are receipts."""
    texts: int
    """How many texts are disclosed."""
    size: int
    """How many entries the ledger had."""
    complete: bool


def verifier_script() -> str:
    """The script that is put into every export; it needs Python and `cryptography` alone."""
    return (files("vrag.provenance") / "schema" / "verify_export.py").read_text(encoding="utf-8")


def export_audit(
    ledger: Ledger,
    folder: Path,
    *,
    covered: Checkpoint,
    signer_key: bytes,
    selection: Selection | None = None,
    with_texts: bool = False,
    clock: Clock | None = None,
) -> ExportReport:
    """Write an export into a new or empty folder.

    Args:
        ledger: What is exported.
        folder: Where to.
        covered: A checkpoint of it; entries that are newer are left out.
        signer_key: Public key of the one who signed that, PEM or DER.
        selection: Which records; None is all.
        with_texts: Disclose the words behind the keyed digests, where they have not been erased.
        clock: Says when it was made.

    Raises:
        AlreadyExistsError: The folder has files in it.
        NotFoundError: Nothing is selected.
        UsageError: A moment is none.
    """
    chosen = selection or Selection()
    for moment in (chosen.since, chosen.until):
        if moment is not None and not _MOMENT.fullmatch(moment):
            raise UsageError(f"'{moment[:40]}' is no moment in UTC.", hint="2026-01-31 or 2026-01-31T12:00:00Z")
    if folder.is_dir() and any(folder.iterdir()):
        raise AlreadyExistsError(f"The folder '{folder}' is not empty.", hint="choose a new folder")
    picked = [one for one in _selected(ledger, chosen) if one.seq < covered.size]
    if not picked:
        raise NotFoundError("No record is selected.", hint="vrag audit export -o DIR")
    complete = [one.seq for one in picked] == list(range(covered.size))
    at = rfc3339((clock or SystemClock()).now())
    about = {
        "type": EXPORT_TYPE,
        "format": EXPORT_FORMAT,
        "made_at": at,
        "ledger": covered.origin,
        "size": covered.size,
        "records": len(picked),
        "complete": complete,
        "with_texts": with_texts,
        "selection": {name: getattr(chosen, name) for name in ("video", "asset", "since", "until", "knowledge_base")},
    }
    lines = _Lines(ledger, picked, covered, with_texts=with_texts)
    write_new(folder / "records.jsonl", lines)
    pems = {
        keyid: _pem(der)
        for keyid, der in {**lines.keys, load_public_key(signer_key)[0]: load_public_key(signer_key)[2]}.items()
    }
    crate = crate_json(
        (statement for statement, _ in _statements(ledger, picked)),
        files=_FILES | {f"keys/{keyid}.pem": ("application/x-pem-file", "A public key") for keyid in pems},
        name="Audit export",
        description=f"{len(picked)} signed records of a ledger of {covered.size}, with proofs.",
        at=at,
    )
    contents = {
        "checkpoint.txt": covered.note.encode(),
        "export.json": _pretty(about),
        "verify_export.py": verifier_script().encode(),
        "prov.json": _pretty(prov_json(_statements(ledger, picked))),
        "ro-crate-metadata.json": _pretty(crate),
        **{f"keys/{keyid}.pem": pem for keyid, pem in pems.items()},
    }
    for name, content in contents.items():
        write_new(folder / name, [content])
    return ExportReport(
        folder=folder,
        records=len(picked),
        receipts=sum(one.is_receipt for one in picked),
        texts=lines.disclosed,
        size=covered.size,
        complete=complete,
    )


@frozen
class _Picked:
    seq: int
    record_id: str
    is_receipt: bool


def _pretty(content: JSON) -> bytes:
    return f"{pretty_json(content)}\n".encode()


def _statement(entry: Entry) -> Statement:
    return read_statement(base64.b64decode(json.loads(entry.envelope)["payload"]))


def _statements(ledger: Ledger, picked: Iterable[_Picked]) -> Iterator[tuple[Statement, str]]:
    for one in picked:
        entry = ledger.get(one.record_id)
        yield _statement(entry), load_public_key(entry.public_key)[0]


def _pem(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # only here
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    return load_der_public_key(der).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class _Lines:
    """The lines of `records.jsonl`, made while they are written."""

    def __init__(self, ledger: Ledger, picked: list[_Picked], covered: Checkpoint, *, with_texts: bool) -> None:
        self._ledger = ledger
        self._picked = picked
        self._covered = covered
        self._with_texts = with_texts
        self.keys: dict[str, bytes] = {}
        self.disclosed = 0

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._picked), _BATCH):
            some = self._picked[at : at + _BATCH]
            with self._ledger.tree() as tree:
                proofs = [inclusion_proof(one.seq, self._covered.size, tree.node) for one in some]
            for one, proof in zip(some, proofs, strict=True):
                yield self._line(self._ledger.get(one.record_id), proof)

    def _line(self, entry: Entry, proof: list[bytes]) -> bytes:
        self.keys[load_public_key(entry.public_key)[0]] = entry.public_key
        row: dict[str, JSON] = {
            "seq": entry.seq,
            "record_id": entry.record_id,
            "envelope": json.loads(entry.envelope),
            "inclusion": [base64.b64encode(one).decode() for one in proof],
        }
        if self._with_texts:
            texts = self._ledger.texts(entry.record_id)
            self.disclosed += len(texts)
            row["texts"] = [
                {"kind": text.kind, "text": text.value, "key": text.key.hex(), KEYED: text.keyed_digest}
                for text in texts
            ]
        return canonical_json(row) + b"\n"


def _selected(ledger: Ledger, chosen: Selection) -> list[_Picked]:
    wanted = _wanted(ledger, chosen)
    told_by_subject = {row.record_id: row.subject for row in ledger.receipts() if row.record_id is not None}
    # Receipts about what is selected come along; of everything, all of them do.
    narrow = wanted is not None or chosen.knowledge_base is not None
    about: set[str] = set() if chosen.asset is None else {chosen.asset}
    picked: list[_Picked] = []
    told: list[_Picked] = []
    for entry in ledger.entries() if wanted is None else map(ledger.get, sorted({*wanted, *told_by_subject})):
        statement = _statement(entry)
        one = _Picked(entry.seq, entry.record_id, statement.kind == "receipt")
        if one.is_receipt:
            told += [one] if _in_time(statement, chosen) else []
        elif _fits(statement, chosen):
            picked.append(one)
            if narrow:
                about |= {entry.record_id, *statement.lineage.subjects.values()}
                about |= {given.asset_id or given.sha256 for given in statement.lineage.inputs}
    told = [one for one in told if not narrow or told_by_subject.get(one.record_id) in about]
    return sorted([*picked, *told], key=lambda one: one.seq)


def _wanted(ledger: Ledger, chosen: Selection) -> set[str] | None:
    """Ids of the records that the index gives; None is "look at each"."""
    wanted: set[str] | None = None
    if chosen.video is not None:
        made = {entry.record_id for entry in ledger.by_artefact(chosen.video)}
        if not made:
            made = {ledger.get(chosen.video).record_id}
        wanted = _with_origins(ledger, made)
    if chosen.asset is not None:
        used = set(ledger.used_in(chosen.asset))
        wanted = used if wanted is None else wanted & used
    return wanted


def _with_origins(ledger: Ledger, record_ids: set[str]) -> set[str]:
    """These records and all that made what they were given."""
    found, fresh = set(record_ids), set(record_ids)
    while fresh:
        inputs = {one.sha256 for name in fresh for one in _statement(ledger.get(name)).lineage.inputs}
        fresh = {entry.record_id for sha256 in inputs for entry in ledger.by_artefact(sha256)} - found
        found |= fresh
    return found


def _fits(statement: Statement, chosen: Selection) -> bool:
    if chosen.knowledge_base is not None and all(
        one.knowledge_base != chosen.knowledge_base for one in statement.lineage.inputs
    ):
        return False
    return _in_time(statement, chosen)


def _in_time(statement: Statement, chosen: Selection) -> bool:
    at = statement.content["predicate"]["runDetails"]["metadata"]["finishedOn"]
    if chosen.since is not None and at < chosen.since.removesuffix("Z"):
        return False
    # A day or a second, as text, is a beginning of every moment in it.
    until = None if chosen.until is None else chosen.until.removesuffix("Z")
    return until is None or at[: len(until)] <= until
