"""`vrag audit`: exports for auditors, checkpoints and where they are kept, proofs; and the check of a whole ledger."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vrag import __version__
from vrag.cli.session import Session, session_options
from vrag.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from vrag.provenance.audit import LedgerVerification
    from vrag.provenance.checkpoints import CheckpointKeeper, StateFolder
    from vrag.workspace import Workspace
    from vrag.workspace.ledger import Entry, Ledger

__all__ = ["audit", "is_database", "read_key", "verify_ledger_at"]

_MARKS = {True: "ok  ", False: "FAIL", None: "-   "}
_MAX_WORKERS = 8


@click.group()
def audit() -> None:
    """Exports for auditors, checkpoints kept outside the workspace, and proofs.

    \b
    Examples:
      vrag audit export -o audit-2026
      vrag audit checkpoint --outside /mnt/safe/studio.note
      vrag audit prove shoes.mp4
    """  # noqa: D301  # \b is click's mark for "do not wrap"


@audit.command()
@click.option("-o", "--output", "target", required=True, metavar="DIR", help="A new folder for the export.")
@click.option("--video", metavar="ID", help="One video: id of its record or step, its SHA-256, or its file.")
@click.option("--picture", "asset", metavar="ASSET", help="What used this picture: its asset id or SHA-256.")
@click.option("--since", metavar="MOMENT", help="From this day or moment on, UTC, such as 2026-01-31.")
@click.option("--until", metavar="MOMENT", help="Up to this day or moment; the day is in.")
@click.option("--kb", "knowledge_base", metavar="NAME", help="What used a picture of this knowledge base.")
@click.option("--with-texts", is_flag=True, help="Disclose prompts, captions and names that have not been erased.")
@session_options
def export(session: Session, *, target: str, video: str | None, with_texts: bool, **chosen: str | None) -> int:
    """Write records with proofs, keys, and a script that checks them without vrag.

    \b
    Examples:
      vrag audit export -o audit-2026 --since 2026-01-01
      vrag audit export -o one-film --video shoes.mp4 --with-texts
      python audit-2026/verify_export.py
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.provenance.checkpoints import checkpoint  # noqa: PLC0415  # cryptography
    from vrag.provenance.export import Selection, export_audit  # noqa: PLC0415  # as above

    with _opened(session) as workspace:
        signer = session.assembly.signer
        report = export_audit(
            workspace.ledger,
            Path(target),
            covered=checkpoint(workspace.ledger, signer, keepers=_keepers(session)),
            signer_key=signer.public_key,
            selection=Selection(video=_named(video), **chosen),
            with_texts=with_texts,
        )
    session.output.say(f"{report.records} records ({report.receipts} of them receipts) of {report.size} in {target}")
    if report.texts:
        session.output.say(f"disclosed: {report.texts} texts")
    session.output.note(f"next: python {Path(target) / 'verify_export.py'}")
    session.output.document(
        {
            "folder": target,
            "records": report.records,
            "receipts": report.receipts,
            "texts": report.texts,
            "size": report.size,
            "complete": report.complete,
        }
    )
    return 0


@audit.command(name="checkpoint")
@click.option("--outside", multiple=True, metavar="FILE", help="Keep it in this file too, best on another machine.")
@click.option("--new-ledger", is_flag=True, help="Accept that another ledger was in this folder before.")
@session_options
def checkpoint_command(session: Session, *, outside: tuple[str, ...], new_ledger: bool) -> int:
    """Sign the ledger as it is now, and keep that in the state folder of the user.

    A later check compares: a ledger that was cut back or rewritten since then is found.

    \b
    Examples:
      vrag audit checkpoint
      vrag audit checkpoint --outside /mnt/safe/studio.note
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.provenance.checkpoints import checkpoint, verifier_key  # noqa: PLC0415  # cryptography

    with _opened(session) as workspace:
        signer = session.assembly.signer
        if new_ledger:
            _state(session).accept(workspace.ledger.id)
        keepers = _keepers(session, outside)
        made = checkpoint(workspace.ledger, signer, keepers=keepers)
    for line in made.note.splitlines():
        session.output.say(line)
    for keeper in keepers:
        session.output.note(f"kept in {keeper.place}")
    key = verifier_key(made.origin, signer.public_key)
    session.output.document({"note": made.note, "size": made.size, "root": made.root.hex(), "key": key})
    return 0


@audit.command()
@click.option("--folder", metavar="DIR", help="A second store: a folder that this machine can write to.")
@click.option("--bucket", metavar="NAME", help="An S3 bucket with Object Lock; the AWS credentials are the usual ones.")
@click.option("--prefix", default="checkpoints", show_default=True, help="Where in the folder or bucket.")
@click.option("--days", type=click.IntRange(min=1), default=3650, show_default=True, help="How long the lock holds.")
@click.option("--tsa", metavar="URL", help="An RFC 3161 time stamp authority; it gets a digest, nothing else.")
@click.option("--tsa-root", "roots", multiple=True, metavar="PEM", help="Root certificate of that authority.")
@click.option("--by", default=None, help='Who asks for the time stamp. [default: "$USER"]')
@session_options
def anchor(
    session: Session,
    *,
    folder: str | None,
    bucket: str | None,
    prefix: str,
    days: int,
    tsa: str | None,
    roots: tuple[str, ...],
    by: str | None,
) -> int:
    """Put a checkpoint of the ledger under somebody else's lock.

    \b
    Examples:
      vrag audit anchor --folder /mnt/second-store
      vrag audit anchor --bucket our-checkpoints --days 3650
      vrag audit anchor --tsa https://tsa.example/ --tsa-root tsa-root.pem
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.provenance.anchors import time_stamp  # noqa: PLC0415  # cryptography
    from vrag.provenance.checkpoints import checkpoint  # noqa: PLC0415  # as above
    from vrag.provenance.receipt import ReceiptSigner  # noqa: PLC0415  # as above

    anchors = [*_anchors(folder, bucket, prefix, days)]
    if not anchors and tsa is None:
        raise UsageError("Say where the anchor is: --folder, --bucket or --tsa.", hint="vrag audit anchor --help")
    if tsa is not None and not roots:
        raise UsageError("A time stamp is checked: give the root of its authority.", hint="--tsa-root ROOT.pem")
    with _opened(session) as workspace:
        signer = session.assembly.signer
        keepers = [*_keepers(session), *anchors]
        made = checkpoint(workspace.ledger, signer, keepers=keepers)
        stamp = None
        if tsa is not None:
            stamp = time_stamp(
                workspace.ledger,
                made,
                tsa,
                roots=[read_key(root) for root in roots],
                sign=ReceiptSigner(signer, library_version=__version__, text=session.configuration.policy.text),
                by=by or os.environ.get("USER") or "unknown",
            )
            checkpoint(workspace.ledger, signer, keepers=keepers)
    for one in anchors:
        session.output.say(f"checkpoint of {made.size} entries kept in {one.place}")
    if stamp is not None:
        session.output.say(f"checkpoint of {made.size} entries stamped at {stamp.at}")
    session.output.document(
        {
            "size": made.size,
            "root": made.root.hex(),
            "kept": [one.place for one in anchors],
            "stamped_at": None if stamp is None else stamp.at,
        }
    )
    return 0


def _anchors(folder: str | None, bucket: str | None, prefix: str, days: int) -> Iterator[CheckpointKeeper]:
    from vrag.provenance.checkpoints import CheckpointStorage  # noqa: PLC0415  # cryptography

    if folder is not None:
        from vrag.backends.local.storage import FolderStorage  # noqa: PLC0415  # only here

        yield CheckpointStorage(FolderStorage(Path(folder)), prefix=prefix)
    if bucket is not None:
        import boto3  # noqa: PLC0415  # only here

        from vrag.provenance.anchors import ObjectLockBucket  # noqa: PLC0415  # as above

        yield ObjectLockBucket(boto3.client("s3"), bucket, prefix=prefix, retain=timedelta(days=days))


@audit.command()
@click.argument("video", metavar="ID|FILE")
@click.option("-o", "--output", "target", metavar="FILE", help="Write it there instead of showing it.")
@session_options
def prove(session: Session, *, video: str, target: str | None) -> int:
    """Prove that the record of a video is in the ledger, offline and to anybody (a C2SP tlog-proof).

    The leaf that it proves is the SHA-256 of a zero byte and the envelope in canonical form, as it stands in the sidecar.

    \b
    Examples:
      vrag audit prove shoes.mp4 -o shoes.tlog-proof
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.media.files import write_new  # noqa: PLC0415  # beside what follows
    from vrag.provenance.checkpoints import checkpoint, tlog_proof  # noqa: PLC0415  # cryptography

    with _opened(session) as workspace:
        ledger = workspace.ledger
        entry = _entry(ledger, video)
        made = checkpoint(ledger, session.assembly.signer, keepers=_keepers(session))
        proof = tlog_proof(ledger, entry.seq, made)
    if target is not None:
        write_new(Path(target), [proof.encode()])
        session.output.say(f"proof of entry {entry.seq} written to {target}")
    else:
        for line in proof.splitlines():
            session.output.say(line)
    session.output.document({"record_id": entry.record_id, "seq": entry.seq, "leaf": entry.leaf.hex(), "proof": proof})
    return 0


@audit.command(name="rotate-key")
@click.option(
    "--from", "old", required=True, metavar="PEM", help="The old private key; the new one is the configured one."
)
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@session_options
def rotate(session: Session, *, old: str, by: str, reason: str) -> int:
    """State in the ledger, under both keys, that the configured key signs from here on.

    \b
    Examples:
      vrag audit rotate-key --from old-signing.pem --by "$USER" --reason "yearly change"
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.provenance.checkpoints import checkpoint  # noqa: PLC0415  # cryptography
    from vrag.provenance.receipt import rotate_key  # noqa: PLC0415  # as above
    from vrag.provenance.signing import LocalSigner  # noqa: PLC0415  # as above

    path = Path(old)
    if not path.is_file():
        raise NotFoundError(f"There is no key '{old}'.", hint="--from OLD.pem")
    with _opened(session) as workspace:
        before, now = LocalSigner.load_or_create(path), session.assembly.signer
        number = rotate_key(workspace.ledger, before, now, by=by, reason=reason, library_version=__version__)
        checkpoint(workspace.ledger, now, keepers=_keepers(session))
    session.output.say(f"from here on {now.keyid} signs, as {before.keyid} says (receipt {number})")
    session.output.document({"old": before.keyid, "new": now.keyid, "receipt": number})
    return 0


# -- the check of a whole ledger, for `vrag verify`


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def read_key(path: str) -> bytes:
    """A small file in PEM.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise UsageError(f"The key '{path}' cannot be read: {error.strerror}.", hint="--key PUBLIC.pem") from error


def verify_ledger_at(
    session: Session, path: Path | None, keys: Sequence[str], outside: Sequence[str], roots: Sequence[str]
) -> int:
    """Check the workspace in a folder (None is the configured one), or a ledger alone; the exit code."""
    folder = session.configuration.folder if path is None else path if path.is_dir() else path.parent
    if not (folder / "vrag.db").is_file():
        raise NotFoundError(f"There is no workspace in '{folder}': it has no vrag.db.", hint="vrag verify FOLDER")
    if folder.resolve() != session.configuration.folder.resolve():
        session = Session(session.output, str(folder), None)
    found = _verified(session, path, [read_key(key) for key in keys], outside)
    stamps = _stamps(session, roots) if roots else None
    for check in found.checks:
        session.output.say(f"{_MARKS[check.ok]}  {check.promise}: {check.detail}")
    if stamps is not None:
        session.output.say(f"ok    time stamps: {', '.join(stamps) or 'none'}")
    failure = found.first_failure
    if failure is not None:
        place = "" if failure.seq is None else f" at entry {failure.seq}"
        session.output.say(f"NOT verified: {failure.name}{place}: {failure.detail}")
    elif not found.trusted:
        session.output.say(f"NOT verified: signed by keys that are not known here ({', '.join(found.keyids)})")
        session.next_step("verify", str(folder), "--key", "PUBLIC.pem")
    else:
        session.output.say(f"verified: {found.size} entries")
    session.output.document({"workspace": str(folder), **found.to_json(), "time_stamps": stamps})
    return 0 if found.ok and found.trusted else 5


def _verified(session: Session, path: Path | None, keys: Sequence[bytes], outside: Sequence[str]) -> LedgerVerification:
    from vrag.provenance.audit import verify_ledger, verify_workspace  # noqa: PLC0415  # cryptography

    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    keepers = _keepers(session, outside)
    with _opened(session) as workspace:
        if path is not None and not path.is_dir():
            return verify_ledger(workspace.ledger, trusted_keys=keys, keepers=keepers, workers=workers)
        trusted = keys or [session.assembly.signer.public_key]
        return verify_workspace(
            workspace,
            trusted_keys=trusted,
            keepers=keepers,
            open_media=session.assembly.open_media,
            workers=workers,
        )


def _stamps(session: Session, roots: Sequence[str]) -> list[str]:
    from vrag.provenance.anchors import time_stamps  # noqa: PLC0415  # an extra

    with _opened(session) as workspace:
        found = time_stamps(workspace.ledger, roots=[read_key(root) for root in roots])
        return [f"{one.checkpoint.size} entries at {one.at}" for one in found]


@contextmanager
def _opened(session: Session) -> Iterator[Workspace]:
    from vrag.workspace import Workspace  # noqa: PLC0415  # only where it is used

    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():  # looking must not make one
        raise NotFoundError(f"There is no workspace in '{folder}'.", hint="vrag generate --help")
    workspace = Workspace(folder)
    try:
        yield workspace
    finally:
        workspace.close()


def _state(session: Session) -> StateFolder:
    from vrag.provenance.checkpoints import StateFolder, state_folder  # noqa: PLC0415  # cryptography

    return StateFolder(state_folder(os.environ), workspace=session.configuration.folder)


def _keepers(session: Session, outside: Sequence[str] = ()) -> list[CheckpointKeeper]:
    from vrag.provenance.checkpoints import CheckpointFile  # noqa: PLC0415  # cryptography

    return [_state(session), *(CheckpointFile(Path(file)) for file in outside)]


def _named(video: str | None) -> str | None:
    """A video's file is named by its SHA-256."""
    if video is None or not Path(video).is_file():
        return video
    with Path(video).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(ledger: Ledger, video: str) -> Entry:
    named = _named(video) or video
    made = ledger.by_artefact(named)
    return made[-1] if made else ledger.get(named)
