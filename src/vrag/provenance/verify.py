"""The check of a video against its record: everything is computed again, and the first thing that is wrong is named."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from attrs import asdict, field, frozen

from vrag.errors import ErasedError, UsageError, VerificationError
from vrag.media.ref import MediaRef, OpenMedia
from vrag.provenance.checks import Check, Checks, Verdict
from vrag.provenance.sidecar import (
    MAX_SIDECAR_BYTES,
    POSITION_TYPE,
    SIGNED,
    read_public_keys,
    read_sidecar,
    sidecar_json,
    sidecar_path,
)
from vrag.provenance.signing import load_public_key, strict_json, verify_envelope
from vrag.provenance.statement import KEYED, Statement, keyed_digest, read_statement
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.ledger import Ledger, leaf_hash

__all__ = ["Check", "CheckCredentials", "Verification", "sidecar_json", "sidecar_path", "verify_file"]

_HEX: Final = re.compile(r"[0-9a-f]{64}")

TRUSTED: Final = "The signer is one that you trust"
SOUND: Final = "The record says what a record must say"
SAME_VIDEO: Final = "The video is the one that the record is about"
SAME_WORDS: Final = "The words shown are the words recorded"
POSITION: Final = "The record has the place in the ledger that its signer stated"
IN_LEDGER: Final = "Every delivered video is in the ledger, and the ledger never changes"
SOURCES: Final = "The pictures that it was made from are kept as they were"
CREDENTIALS: Final = "The file carries the content credentials that the record lists"

CheckCredentials = Callable[[Path | BinaryIO, JSON], str | None]
"""Reads the content credentials of a video and holds them against the statement. What it returns is the detail; None says
that the record lists none. It raises `VerificationError` where they are missing, changed or others."""


@frozen(kw_only=True)
class Verification(Verdict):
    """What the check of a video found. After a broken signature or statement nothing more is read."""

    keyids: tuple[str, ...] = ()
    """The keys that the envelope names."""
    trusted: bool = False
    """Whether one of the given keys signed. Without one the file proves only that it fits itself: anybody can do that."""
    record_id: str | None = None
    kind: str | None = None
    statement: JSON = field(default=None, repr=False)
    """The whole statement, with disclosed words in place; None if it cannot be believed."""

    @property
    def summary(self) -> dict[str, JSON]:
        """What a person asks first, as JSON: sources, prompts (where disclosed), generator, candidates, unmet wishes."""
        made = _find(self.statement, "predicate", "buildDefinition", "internalParameters")
        dependencies = _find(self.statement, "predicate", "buildDefinition", "resolvedDependencies")
        shots = _find(made, "request", "shots")
        return {
            "record_id": self.record_id,
            "kind": self.kind,
            "finished_at": _find(self.statement, "predicate", "runDetails", "metadata", "finishedOn"),
            "generator": _find(made, "generator"),
            "prompts": [_find(shot, "prompt", "text") for shot in shots] if isinstance(shots, list) else [],
            "sources": [
                {
                    "asset_id": _find(one, "annotations", "asset_id"),
                    "role": _find(one, "annotations", "role"),
                    "sha256": _find(one, "digest", "sha256"),
                    "caption": _find(one, "annotations", "caption", "text"),
                    "file_name": _find(one, "annotations", "file_name", "text"),
                    "review": _find(one, "annotations", "review", "state"),
                }
                for one in (dependencies if isinstance(dependencies, list) else [])
                if _find(one, "annotations", "kind") == "asset"
            ],
            "candidates": _find(made, "candidates") or [],
            "unmet": _find(made, "unmet") or [],
        }

    def to_json(self) -> dict[str, JSON]:
        """All of it as JSON."""
        return {
            "ok": self.ok,
            "trusted": self.trusted,
            "keyids": list(self.keyids),
            "checks": [asdict(check) for check in self.checks],
            "record": self.summary,
            "statement": self.statement,
        }


def verify_file(
    video: Path | BinaryIO,
    sidecar: Path | bytes | None = None,
    *,
    trusted_keys: Sequence[bytes] = (),
    storage_open: OpenMedia | None = None,
    ledger: Ledger | None = None,
    credentials: CheckCredentials | None = None,
) -> Verification:
    """Check a video against its record, computing everything again.

    Args:
        video: The file, or its bytes as a stream.
        sidecar: Its sidecar; None is the file beside the video, else the record that `ledger` has of these bytes.
        trusted_keys: Public keys (PEM or DER) whose signature counts. With none, `ok` says only that the record and the
            video fit each other, and `trusted` is False.
        storage_open: Opens pictures by their ref, to check that they are kept.
        ledger: The ledger that should have the record.
        credentials: Checks the content credentials in the file.

    Returns:
        Every check, in order. Nothing is raised for a check that fails.

    Raises:
        VerificationError: There is no record, or it is not one that can be read.
        FormatVersionError: A newer release wrote it.
        UsageError: The video or a trusted key cannot be read.
        BackendError: The storage did not answer.
    """
    trusted = {keyid: der for keyid, _, der in map(load_public_key, trusted_keys)}
    video_sha256 = _sha256(video)
    content = read_sidecar(_sidecar_bytes(video, sidecar, video_sha256, ledger))
    envelope = content["envelope"]
    checks = Checks()
    keyids = _keyids(envelope)
    keys: dict[str, bytes] = {}

    def signature() -> tuple[str, bytes]:
        keys.update(read_public_keys(content["public_keys"]))
        return "one changed byte would show", verify_envelope(envelope, {**keys, **trusted})

    payload = checks.run("signature", SIGNED, signature)
    if payload is None:
        return Verification(checks=tuple(checks.done), keyids=keyids)
    is_trusted = _check_signer(checks, envelope, trusted, keyids)
    statement = checks.run("statement", SOUND, lambda: ("an in-toto statement of vrag", read_statement(payload)))
    if statement is None:
        return Verification(checks=tuple(checks.done), keyids=keyids, trusted=is_trusted)
    checks.run("video", SAME_VIDEO, lambda: _check_video(statement, video_sha256))
    if credentials is not None:
        _check_credentials(checks, credentials, video, statement)
    texts = checks.run("texts", SAME_WORDS, lambda: _check_texts(statement, content["texts"]))
    if content["position"] is None:
        checks.skip("position", POSITION, "the sidecar states none")
        position = None
    else:
        position = checks.run(
            "position", POSITION, lambda: _check_position(content["position"], {**keys, **trusted}, statement, envelope)
        )
    if ledger is None:
        checks.skip("ledger", IN_LEDGER, "no workspace was given")
    else:
        kept = checks.run("ledger", IN_LEDGER, lambda: _check_ledger(ledger, statement, envelope, position))
        texts = {**(kept or {}), **(texts or {})}
    if storage_open is None:
        checks.skip("sources", SOURCES, "no storage was given")
    else:
        checks.run("sources", SOURCES, lambda: _check_sources(statement, storage_open))
    return Verification(
        checks=tuple(checks.done),
        keyids=keyids,
        trusted=is_trusted,
        record_id=statement.record_id,
        kind=statement.kind,
        statement=_disclosed(statement.content, texts or {}),
    )


def _sha256(video: Path | BinaryIO) -> str:
    if isinstance(video, Path):
        try:
            with video.open("rb") as file:
                return _sha256(file)
        except OSError as error:
            raise UsageError(f"The video '{video}' cannot be read: {error.strerror or error}.") from error
    digest = hashlib.sha256()
    while chunk := video.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _sidecar_bytes(video: Path | BinaryIO, sidecar: Path | bytes | None, sha256: str, ledger: Ledger | None) -> bytes:
    if isinstance(sidecar, bytes):
        return sidecar
    path = sidecar or (sidecar_path(video) if isinstance(video, Path) else None)
    if path is not None and (sidecar is not None or path.exists()):
        try:
            if not path.is_file():
                raise UsageError(f"There is no sidecar file '{path}'.")
            with path.open("rb") as file:
                return file.read(MAX_SIDECAR_BYTES + 1)
        except OSError as error:
            raise UsageError(f"The sidecar '{path}' cannot be read: {error.strerror or error}.") from error
    found = ledger.by_artefact(sha256) if ledger is not None else ()
    if not found or ledger is None:
        beside = f"no file '{path.name}' lies beside it" if path is not None else "no sidecar was given"
        known = "" if ledger is None else ", and the workspace knows no such bytes"
        raise VerificationError(
            f"The video with SHA-256 {sha256} has no record: {beside}{known}.", promise="Every video has its record"
        )
    # Choosing a video is recorded too; what belongs beside the video is the record of its making.
    made = [entry for entry in found if _kind(entry.statement) != "choose"] or found
    return sidecar_json(made[-1], texts=ledger.texts(made[-1].record_id))


def _kind(statement: JSON) -> JSON:
    return _find(statement, "predicate", "buildDefinition", "internalParameters", "record", "kind")


def _keyids(envelope: JSON) -> tuple[str, ...]:
    signatures = _find(envelope, "signatures")
    found = [_find(one, "keyid") for one in signatures] if isinstance(signatures, list) else []
    return tuple(keyid for keyid in found if isinstance(keyid, str) and _HEX.fullmatch(keyid))


def _check_signer(checks: Checks, envelope: JSON, trusted: Mapping[str, bytes], keyids: tuple[str, ...]) -> bool:
    shown = ", ".join(keyids)
    if not trusted:
        checks.skip(
            "signer",
            TRUSTED,
            f"SIGNED BY AN UNKNOWN KEY {shown}: anybody can sign with a key of their own; give the public key you trust",
        )
        return False

    def signer() -> tuple[str, bool]:
        try:
            verify_envelope(envelope, trusted)
        except VerificationError as error:
            raise VerificationError(
                f"signed by {shown}, which is none of the {len(trusted)} trusted keys", promise=TRUSTED
            ) from error
        return f"signed by {shown}, which you trust", True

    return checks.run("signer", TRUSTED, signer) is True


def _check_video(statement: Statement, sha256: str) -> tuple[str, bool]:
    subjects = statement.lineage.subjects
    if subjects.get("delivered", sha256) != sha256:
        why = f"the record is about {subjects['delivered']}, this file is {sha256}"
        if sha256 in subjects.values():
            why = "this is the output of the generator as it came, not the video that was delivered"
        raise VerificationError(why, promise=SAME_VIDEO)
    if sha256 not in subjects.values():
        raise VerificationError(f"the record is not about this file, which is {sha256}", promise=SAME_VIDEO)
    if statement.kind in {"generate", "assemble"} and "delivered" not in subjects:
        made = statement.content["predicate"]["buildDefinition"]["internalParameters"]
        why = "given to another step" if _find(made, "for_step") is not None else "withheld"
        raise VerificationError(f"the record says that this video was {why}, not delivered", promise=SAME_VIDEO)
    return f"SHA-256 {sha256}", True


def _check_credentials(
    checks: Checks, credentials: CheckCredentials, video: Path | BinaryIO, statement: Statement
) -> None:
    def read() -> tuple[str, str | None]:
        if not isinstance(video, Path):
            video.seek(0)
        found = credentials(video, statement.content)
        return found or "", found

    found = checks.run("credentials", CREDENTIALS, read)
    if found is None and checks.done[-1].ok:
        checks.done.pop()
        checks.skip("credentials", CREDENTIALS, "the record lists none")


def _check_texts(statement: Statement, listed: JSON) -> tuple[str, dict[str, str]]:
    found: dict[str, str] = {}
    if not isinstance(listed, list):
        raise VerificationError("the disclosed texts are not a list", promise=SAME_WORDS)
    for one in listed:
        if not isinstance(one, dict) or set(one) != {"kind", "text", "key", KEYED}:
            raise VerificationError("a disclosed text has not exactly kind, text, key and digest", promise=SAME_WORDS)
        kind, text, key, digest = one["kind"], one["text"], one["key"], one[KEYED]
        if not all(isinstance(part, str) for part in (kind, text, key, digest)) or not _HEX.fullmatch(key):
            raise VerificationError("a disclosed text is not text, or its key not 32 bytes", promise=SAME_WORDS)
        if "\0" in kind or keyed_digest(bytes.fromhex(key), kind, text) != digest:
            raise VerificationError(f"a disclosed text ({kind[:40]!a}) does not open its digest", promise=SAME_WORDS)
        if digest not in statement.keyed_digests:
            raise VerificationError(f"a disclosed text ({kind[:40]!a}) is not in the record", promise=SAME_WORDS)
        found[digest] = text
    return f"{len(found)} of {len(statement.keyed_digests)} disclosed", found


def _check_position(position: JSON, keys: Mapping[str, bytes], statement: Statement, envelope: JSON) -> tuple[str, int]:
    if not isinstance(position, dict):
        raise VerificationError("the stated place in the ledger is not an envelope", promise=POSITION)
    stated = strict_json(verify_envelope(position, keys, payload_type=POSITION_TYPE), what="ledger position")
    seq = _find(stated, "seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise VerificationError("the stated place in the ledger is not a number", promise=POSITION)
    if _find(stated, "record_id") != statement.record_id or (
        _find(stated, "leaf") != leaf_hash(canonical_json(envelope)).hex()
    ):
        raise VerificationError("the stated place in the ledger is that of another record", promise=POSITION)
    return f"{seq}, as its signer states", seq


def _check_ledger(
    ledger: Ledger, statement: Statement, envelope: JSON, position: int | None
) -> tuple[str, dict[str, str]]:
    entry = ledger.get(statement.record_id)
    if entry.envelope != canonical_json(envelope):
        raise VerificationError(
            f"the record {statement.record_id[:80]!a} in the ledger has other bytes, at {entry.seq}", promise=IN_LEDGER
        )
    if entry.leaf != leaf_hash(entry.envelope):
        raise VerificationError(f"the leaf at {entry.seq} is not that of its envelope", promise=IN_LEDGER)
    if position is not None and position != entry.seq:
        raise VerificationError(
            f"its signer states place {position}; the ledger has it at {entry.seq}", promise=IN_LEDGER
        )
    kept = ledger.texts(entry.record_id)
    for text in kept:
        if keyed_digest(text.key, text.kind, text.value) != text.keyed_digest:
            raise VerificationError(f"a text kept beside it ({text.kind[:40]!a}) was changed", promise=IN_LEDGER)
    return f"the same bytes, at {entry.seq}", {text.keyed_digest: text.value for text in kept}


def _check_sources(statement: Statement, storage_open: OpenMedia) -> tuple[str, bool]:
    dependencies = statement.content["predicate"]["buildDefinition"]["resolvedDependencies"]
    erased: list[str] = []
    for one in dependencies:
        sha256 = one["digest"]["sha256"]
        try:
            ref = MediaRef(
                sha256=sha256, media_type=one["mediaType"], size_bytes=_find(one, "annotations", "size_bytes")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError(f"the input {sha256} is not described soundly", promise=SOURCES) from error
        try:
            with storage_open(ref) as stream:
                found = _sha256(stream)
        except ErasedError as error:
            # What the record says of them stands; that they are gone was decided, and by whom is known.
            erased.append(error.message)
            continue
        if found != sha256:
            raise VerificationError(f"the input {sha256} now has the bytes of {found}", promise=SOURCES)
    kept = f"{len(dependencies) - len(erased)} inputs are kept, byte for byte"
    return "; ".join((kept, *(f"gone by decision: {one}" for one in erased))), True


def _disclosed(value: JSON, texts: Mapping[str, str]) -> JSON:
    if isinstance(value, dict):
        shown = {key: _disclosed(one, texts) for key, one in value.items()}
        return shown | {"text": texts[value[KEYED]]} if value.get(KEYED) in texts else shown
    return [_disclosed(one, texts) for one in value] if isinstance(value, list) else value


def _find(content: JSON, *path: str) -> JSON:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content
