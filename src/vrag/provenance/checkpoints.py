"""Checkpoints: the size and root of the ledger, signed, and kept where whoever changes the workspace does not reach.

A checkpoint is a C2SP tlog-checkpoint in a C2SP signed note, so that tools for transparency logs read it. Sources: C2SP,
signed-note.md and tlog-checkpoint.md (checked 2026-11-20).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

from attrs import field, frozen
from filelock import FileLock
from typing_extensions import override

from vrag.errors import AlreadyExistsError, NotFoundError, ProvenanceError, UsageError, VerificationError, VRAGError
from vrag.interfaces import Signer, Storage
from vrag.media.files import write_new
from vrag.provenance.merkle import inclusion_proof, root_at
from vrag.provenance.signing import load_public_key, strict_json, unbase64, verify_signature
from vrag.provenance.statement import NAMESPACE
from vrag.values.canonical import canonical_json
from vrag.workspace.ledger import Ledger

__all__ = [
    "NEVER_CUT",
    "Checkpoint",
    "CheckpointFile",
    "CheckpointKeeper",
    "CheckpointStorage",
    "StateFolder",
    "checkpoint",
    "origin_of",
    "read_checkpoint",
    "require_continued",
    "state_folder",
    "tlog_proof",
    "verifier_key",
    "verify_checkpoint",
]

NEVER_CUT: Final = "The ledger is never cut back and never rewritten"
SIGNED: Final = "A checkpoint is what its signer signed"

_MAX_BYTES: Final = 64 << 10
_ED25519: Final = b"\x01"
_ECDSA: Final = b"\x02"
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIGNATURE: Final = re.compile(r"\u2014 ([^ +]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@frozen(kw_only=True)
class Checkpoint:
    """What a ledger was at one moment, with the signatures over it."""

    origin: str
    """Names the ledger: `origin_of(ledger.id)`."""
    size: int
    """How many entries."""
    root: bytes
    """Root of the Merkle tree over them."""
    note: str = field(repr=False)
    """The whole signed note."""
    signatures: tuple[tuple[str, bytes, bytes], ...] = field(repr=False)
    """Key name, key id (4 bytes) and signature, one a line."""

    @property
    def text(self) -> bytes:
        """What is signed."""
        return _text(self.origin, self.size, self.root)


def origin_of(ledger_id: str) -> str:
    """The origin line of a ledger, which is the name of its key too."""
    return f"{NAMESPACE}ledger/{ledger_id}"


def _text(origin: str, size: int, root: bytes) -> bytes:
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def _key(name: str, public_key: bytes) -> tuple[bytes, bytes]:
    """Key id of a signed note, and type byte with the key in its encoding."""
    _, algorithm, der = load_public_key(public_key)
    if algorithm == "ed25519":
        encoded = _ED25519 + der[-32:]  # SubjectPublicKeyInfo of Ed25519 ends with the raw key (RFC 8410)
        return hashlib.sha256(name.encode() + b"\n" + encoded).digest()[:4], encoded
    return hashlib.sha256(der).digest()[:4], _ECDSA + der


def verifier_key(origin: str, public_key: bytes) -> str:
    """The key in the form that tools for signed notes read: name, key id and encoded key, joined by `+`."""
    keyid, encoded = _key(origin, public_key)
    return f"{origin}+{keyid.hex()}+{base64.b64encode(encoded).decode()}"


def _sign(origin: str, size: int, root: bytes, signer: Signer) -> str:
    text = _text(origin, size, root)
    signature = signer.sign(text)
    if not verify_signature(signer.public_key, signature, text):
        raise ProvenanceError(f"The signer '{signer.keyid}' made a signature that does not verify with its public key.")
    line = base64.b64encode(_key(origin, signer.public_key)[0] + signature).decode()
    return f"{text.decode()}\n\u2014 {origin} {line}\n"


def read_checkpoint(note: str | bytes) -> Checkpoint:
    """Read a checkpoint; its signatures are not checked.

    Raises:
        VerificationError: It is none.
    """
    if len(note) > _MAX_BYTES:
        raise VerificationError(f"A checkpoint is at most {_MAX_BYTES} bytes.", promise=SIGNED)
    try:
        whole = note.decode() if isinstance(note, bytes) else note
    except UnicodeDecodeError as error:
        raise VerificationError("This is no checkpoint: it is not UTF-8.", promise=SIGNED) from error
    text, parted, tail = whole.rpartition("\n\n")
    lines = text.split("\n")
    signatures = [_SIGNATURE.fullmatch(line) for line in tail.split("\n")[:-1]]
    if not parted or _CONTROL.search(whole) or not tail.endswith("\n") or not 1 <= len(signatures) <= 64:
        raise VerificationError("This is no checkpoint: it has not the form of a signed note.", promise=SIGNED)
    if len(lines) != 3 or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise VerificationError("This is no checkpoint: it has not origin, size and root.", promise=SIGNED)
    root = unbase64(lines[2], what="root of the checkpoint")
    found: list[tuple[str, bytes, bytes]] = []
    for one in signatures:
        raw = b"" if one is None else unbase64(one[2], what="signature of the checkpoint")
        if one is None or len(raw) <= 4 or len(root) != 32:
            raise VerificationError("This is no checkpoint: a line of it is not sound.", promise=SIGNED)
        found.append((one[1], raw[:4], raw[4:]))
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root, note=whole, signatures=tuple(found))


def verify_checkpoint(
    note: str | bytes, keys: Mapping[str, bytes], *, origin: str | None = None
) -> tuple[Checkpoint, str]:
    """A checkpoint that one of `keys` signed, and the id of that key.

    Args:
        note: The signed note.
        keys: Public keys (PEM or DER) by key id.
        origin: The only ledger that is taken; None takes any.

    Raises:
        VerificationError: It is no checkpoint, of another ledger, changed, or signed by none of `keys`.
    """
    found = read_checkpoint(note)
    if origin is not None and found.origin != origin:
        raise VerificationError(f"The checkpoint is of another ledger: {found.origin[:120]!a}.", promise=NEVER_CUT)
    known = {_key(found.origin, key)[0]: (keyid, key) for keyid, key in keys.items()}
    signer = None
    for name, hint, signature in found.signatures:
        if name == found.origin and hint in known:
            keyid, key = known[hint]
            if not verify_signature(key, signature, found.text):
                raise VerificationError(
                    f"The signature of key {keyid} does not fit the checkpoint of {found.size} entries.", promise=SIGNED
                )
            signer = signer or keyid
    if signer is None:
        hints = ", ".join(hint.hex() for _, hint, _ in found.signatures[:4])
        raise VerificationError(
            f"The checkpoint of {found.size} entries is signed by no key that is known here, but by {hints}.",
            promise=NEVER_CUT,
        )
    return found, signer


def tlog_proof(ledger: Ledger, seq: int, covered: Checkpoint) -> str:
    """That entry `seq` is under a checkpoint, as one text that is checked offline. Source: C2SP, tlog-proof.md (2026-11-20).

    Raises:
        UsageError: The checkpoint does not cover that entry.
    """
    with ledger.tree() as tree:
        hashes = inclusion_proof(seq, covered.size, tree.node)
    lines = ["c2sp.org/tlog-proof@v1", f"index {seq}", *(base64.b64encode(one).decode() for one in hashes)]
    return "\n".join(lines) + f"\n\n{covered.note}"


class CheckpointKeeper(Protocol):
    """A place outside the workspace that keeps the newest checkpoint of a ledger."""

    __slots__ = ()

    @property
    def place(self) -> str:
        """Where, for people."""
        ...

    def newest(self, ledger_id: str) -> str | None:
        """The newest note that was kept of this ledger; None where there is none.

        Raises:
            VerificationError: What is kept cannot belong to this ledger.
            ProvenanceError: It cannot be read.
        """
        ...

    def keep(self, ledger_id: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, if none of as many entries is kept already.

        Raises:
            VerificationError: One of as many entries with another root is kept: the ledger has forked.
            ProvenanceError: It cannot be written.
        """
        ...


def checkpoint(ledger: Ledger, signer: Signer, *, keepers: Sequence[CheckpointKeeper] = ()) -> Checkpoint:
    """Sign the ledger as it is now, write that down, and keep it outside. Cheap: some hashes, and a few small writes.

    Nothing is signed that contradicts an earlier checkpoint. Many processes may do it at once.

    Raises:
        VerificationError: The ledger was cut back or rewritten since an earlier checkpoint.
        ProvenanceError: A keeper cannot be read or written; the others have the checkpoint.
        BackendError: The same, of a storage.
    """
    failed: VRAGError | None = None
    for keeper in keepers:
        try:
            note = keeper.newest(ledger.id)
            if note is not None:
                require_continued(ledger, read_checkpoint(note), place=keeper.place)
        except VerificationError:
            raise
        except VRAGError as error:
            failed = failed or error
    origin = origin_of(ledger.id)
    last = ledger.last_checkpoint()
    if last is not None:
        require_continued(ledger, read_checkpoint(last.note), place="the workspace")
    with ledger.tree() as tree:
        size, root = tree.size, root_at(tree.size, tree.node)
    if last is not None and last.size == size:
        made = read_checkpoint(last.note)
    else:
        made = read_checkpoint(_sign(origin, size, root, signer))
        ledger.add_checkpoint(size, made.note)
    for keeper in keepers:
        try:
            keeper.keep(ledger.id, made)
        except VRAGError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return made


def require_continued(ledger: Ledger, kept: Checkpoint, *, place: str) -> None:
    """Go on only if the ledger has grown out of what `kept` says; no signature is looked at.

    Raises:
        VerificationError: It was cut back, or is another one.
    """
    if kept.origin != origin_of(ledger.id):
        raise VerificationError(
            f"The checkpoint kept in {place} is of another ledger: {kept.origin[:120]!a}.", promise=NEVER_CUT
        )
    with ledger.tree() as tree:
        if tree.size < kept.size:
            raise VerificationError(
                f"The ledger has {tree.size} entries; the checkpoint kept in {place} has {kept.size}: it was cut back, or an "
                "older copy of it was put in its place.",
                promise=NEVER_CUT,
                hint="vrag verify",
            )
        if root_at(kept.size, tree.node) != kept.root:
            raise VerificationError(
                f"The first {kept.size} entries of the ledger are not those of the checkpoint kept in {place}: it was "
                "rewritten.",
                promise=NEVER_CUT,
                hint="vrag verify",
            )


class CheckpointFile(CheckpointKeeper):
    """Keeps the newest checkpoint in one file, which may lie on another disk. Processes take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    @override
    def place(self) -> str:
        return f"'{self._path}'"

    @override
    def newest(self, ledger_id: str) -> str | None:
        try:
            with self._path.open("rb") as file:
                return read_checkpoint(file.read(_MAX_BYTES + 1)).note
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProvenanceError(f"The checkpoint {self.place} cannot be read: {error.strerror or error}.") from error

    @override
    def keep(self, ledger_id: str, checkpoint: Checkpoint) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                note = self.newest(ledger_id)
                if note is None or not _has(read_checkpoint(note), checkpoint, place=self.place):
                    write_new(self._path, [checkpoint.note.encode()], overwrite=True)
        except OSError as error:
            raise ProvenanceError(
                f"The checkpoint {self.place} cannot be written: {error.strerror or error}."
            ) from error


def _has(kept: Checkpoint, new: Checkpoint, *, place: str) -> bool:
    if kept.origin != new.origin:
        raise VerificationError(f"The checkpoint kept in {place} is of another ledger.", promise=NEVER_CUT)
    if kept.size == new.size and kept.root != new.root:
        raise VerificationError(
            f"{place} keeps another checkpoint of {new.size} entries: the ledger has two histories.", promise=NEVER_CUT
        )
    return kept.size >= new.size


class StateFolder(CheckpointKeeper):
    """Keeps the newest checkpoint of each ledger of a user, and which ledger lies in which folder.

    So it shows too where a whole workspace, with its keys, was exchanged for another.
    """

    def __init__(self, folder: Path, *, workspace: Path) -> None:
        """Keep it in `folder`, for the workspace in `workspace`."""
        self._folder = folder
        place = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()
        self._place = folder / "workspaces" / f"{place}.json"
        self._workspace = workspace

    @property
    @override
    def place(self) -> str:
        return f"'{self._folder}'"

    def _file(self, ledger_id: str) -> CheckpointFile:
        return CheckpointFile(self._folder / "checkpoints" / f"{ledger_id}.note")

    @override
    def newest(self, ledger_id: str) -> str | None:
        known = self._known()
        if known not in {None, ledger_id}:
            raise VerificationError(
                f"The workspace '{self._workspace}' held another ledger ({known}) when its last checkpoint was kept: it was "
                "exchanged as a whole.",
                promise=NEVER_CUT,
                hint="vrag audit checkpoint --new-ledger",
            )
        return self._file(ledger_id).newest(ledger_id)

    def _known(self) -> str | None:
        try:
            content = strict_json(self._place.read_bytes(), what="note of the workspace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProvenanceError(f"'{self._place}' cannot be read: {error.strerror or error}.") from error
        known = content.get("ledger") if isinstance(content, dict) else None
        return known if isinstance(known, str) else "unreadable"

    @override
    def keep(self, ledger_id: str, checkpoint: Checkpoint) -> None:
        self.newest(ledger_id)  # raises where another ledger is known
        if self._known() is None:
            self.accept(ledger_id)
        self._file(ledger_id).keep(ledger_id, checkpoint)

    def accept(self, ledger_id: str) -> None:
        """Note that this ledger lies in the workspace now, whatever lay there before."""
        note = canonical_json({"folder": str(self._workspace.resolve()), "ledger": ledger_id})
        try:
            write_new(self._place, [note], overwrite=True)
        except OSError as error:
            raise ProvenanceError(f"'{self._place}' cannot be written: {error.strerror or error}.") from error


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where a user's checkpoints are kept by default: `XDG_STATE_HOME/vrag`, else `~/.local/state/vrag`."""
    given = environ.get("XDG_STATE_HOME") or (environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    # The XDG base directory specification says that a relative path is to be ignored.
    return (Path(given) if given and Path(given).is_absolute() else Path.home() / ".local" / "state") / "vrag"


class CheckpointStorage(CheckpointKeeper):
    """Keeps every checkpoint in a `Storage`, such as a bucket of another account; none is ever replaced."""

    def __init__(self, storage: Storage, *, prefix: str = "checkpoints") -> None:
        self._storage = storage
        self._prefix = prefix

    @property
    @override
    def place(self) -> str:
        return f"'{self._storage.uri(self._prefix)}'"

    def _name(self, ledger_id: str, size: int) -> str:
        # Counted down, so that the newest one comes first in a list that is read page by page.
        return f"{self._prefix}/{ledger_id}/{10**19 - size:020d}.note"

    @override
    def newest(self, ledger_id: str) -> str | None:
        name = next(iter(self._storage.list(f"{self._prefix}/{ledger_id}/")), None)
        if name is None:
            return None
        try:
            with self._storage.open(name) as stream:
                return read_checkpoint(stream.read(_MAX_BYTES + 1)).note
        except NotFoundError as error:
            raise ProvenanceError(f"The checkpoint '{name}' went away while it was read.") from error

    @override
    def keep(self, ledger_id: str, checkpoint: Checkpoint) -> None:
        name = self._name(ledger_id, checkpoint.size)
        try:
            self._storage.put_named(name, BytesIO(checkpoint.note.encode()))
        except AlreadyExistsError:
            with self._storage.open(name) as stream:
                _has(read_checkpoint(stream.read(_MAX_BYTES + 1)), checkpoint, place=self.place)
        except UsageError as error:
            raise ProvenanceError(f"The checkpoint '{name}' cannot be written: {error.message}") from error
