"""`vrag kb`: look after whole knowledge bases."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.errors import UsageError
from vrag.values.canonical import to_json

if TYPE_CHECKING:
    from vrag.values.requests import Estimate

__all__ = ["approve_cost", "kb"]


def approve_cost(session: Session, *, yes: bool, what: str) -> bool:
    """Ask a person at the terminal once; without one, or with `--json`, only `--yes` approves."""
    if yes:
        return True
    if session.output.as_json or not sys.stdin.isatty():
        return False
    return click.confirm(what, err=True)


def _price(estimate: Estimate) -> str:
    return "at a price that is not known" if estimate.usd_micros is None else f"for {estimate.usd_micros / 1e6:.4f} USD"


@click.group()
def kb() -> None:
    """Look after knowledge bases: list, check, move, embed again, erase.

    \b
    Examples:
      vrag kb list
      vrag kb check --kb brand
      vrag kb export brand.tar --kb brand
    """  # noqa: D301  # \b is click's mark for "do not wrap"


@kb.command("list")
@session_options
def list_(session: Session) -> int:
    """List the knowledge bases of the workspace.

    \b
    Example:
      vrag kb list
    """  # noqa: D301  # as above
    rows = []
    for name in session.assembly.knowledge_base_names():
        with session.knowledge_base(name, filled=False) as knowledge_base:
            rows.append({"name": name, "pictures": knowledge_base.count()})
    session.output.table(("knowledge base", "pictures"), [(row["name"], row["pictures"]) for row in rows])
    session.output.document({"knowledge_bases": rows})
    return 0


@kb.command()
@knowledge_base_option
@click.option("--size", default="1280x720", show_default=True, metavar="WxH", help="The size of the videos to make.")
@click.option("--days", type=click.IntRange(0), default=30, show_default=True, help="Rights that end within so many.")
@session_options
def check(session: Session, *, kb: str | None, size: str, days: int) -> int:
    """List what a person should look at: blurred, small, badly shaped, uncaptioned and doubled pictures, ending rights.

    It changes nothing. Exit code 4 where something was found.

    \b
    Example:
      vrag kb check --kb brand --size 1920x1080
    """  # noqa: D301  # as above
    from vrag.knowledge.check import check as look  # noqa: PLC0415  # numpy and Pillow: only where they are used

    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"A size is WIDTHxHEIGHT in pixels, not '{size[:40]}'.", hint="--size 1280x720")
    with session.knowledge_base(kb) as knowledge_base:
        report = look(knowledge_base, size_px=(int(width), int(height)), expires_within_days=days)
    session.output.say(f"{report.knowledge_base}: {report.checked} pictures, {len(report.findings)} things to look at")
    session.output.table(
        ("what", "picture", "asset", "why"),
        [(one.code, one.name, one.asset_id.rpartition("/")[2][:12], one.reason) for one in report.findings],
    )
    session.output.document(report.to_json())
    return 0 if report.ok else 4


@kb.command("export")
@click.argument("path")
@knowledge_base_option
@session_options
def export(session: Session, *, path: str, kb: str | None) -> int:
    """Write a knowledge base (pictures, reviews, vectors) into a folder, or into one file if PATH ends in .tar.

    \b
    Example:
      vrag kb export brand.tar --kb brand
    """  # noqa: D301  # as above
    with session.knowledge_base(kb) as knowledge_base, session.output.progress("export") as progress:
        done = knowledge_base.export_to(path, progress=lambda count, total, name: progress(count, total or 0, name))
    session.output.say(f"{done.path}: {done.pictures} pictures, {done.documents} documents, {done.vectors} vectors")
    session.output.document(to_json(done) | {"path": str(done.path)})
    return 0


@kb.command("import")
@click.argument("path")
@knowledge_base_option
@session_options
def import_(session: Session, *, path: str, kb: str | None) -> int:
    """Take an export into a knowledge base; digests are checked, and no embedder is called.

    \b
    Example:
      vrag kb import brand.tar --kb brand
    """  # noqa: D301  # as above
    with session.knowledge_base(kb, filled=False) as knowledge_base, session.output.progress("import") as progress:
        done = knowledge_base.import_from(path, progress=lambda count, total, name: progress(count, total or 0, name))
    session.output.say(f"{done.new} new, {done.kept} kept, {done.reviews} reviews")
    for line in (*done.conflicts, *done.rejected):
        session.output.say(f"  {line}")
    session.output.document(to_json(done))
    return 0 if done.ok else 4


@kb.command()
@knowledge_base_option
@click.option("--yes", is_flag=True, help="Approve the price without being asked.")
@session_options
def reindex(session: Session, *, kb: str | None, yes: bool) -> int:
    """Embed all captions again, with the embedder that is configured now, into an index beside the old one.

    Searches go on meanwhile; the switch is made at the end, at once. A run that was killed is taken up again.

    \b
    Example:
      vrag kb reindex --kb brand
    """  # noqa: D301  # as above
    name = session.knowledge_base_name(kb)
    session.require_made(name)
    with session.output.progress("reindex") as progress:
        done = session.assembly.reindex(
            name,
            approve_cost=lambda estimate: approve_cost(session, yes=yes, what=f"Embed again {_price(estimate)}?"),
            progress=lambda count, total, what: progress(count, total or 0, what),
        )
    session.output.say(f"{name}: {done.pictures} pictures, {done.embedded} embedded again, now {done.after}")
    session.output.document(to_json(done))
    return 0


@kb.command()
@click.argument("asset")
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept.")
@session_options
def erase(session: Session, *, asset: str, by: str, reason: str) -> int:
    """Delete the bytes and words of a revoked picture; its id, its rights and its history stay.

    \b
    Example:
      vrag kb erase brand/9f86d0… --by "$USER" --reason "the contract asks for it"
    """  # noqa: D301  # as above
    with session.pipeline() as pipeline:
        receipt = pipeline.erase_media(asset, by=by, reason=reason)
    session.output.say(f"erased: {asset}; receipt {receipt}")
    session.output.document({"asset_id": asset, "receipt": receipt})
    return 0
