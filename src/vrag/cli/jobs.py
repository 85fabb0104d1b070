"""`vrag jobs`, `resume`, `where-used` and `revoke`: what became of every video, and of every picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vrag.cli.session import Session, session_options
from vrag.values.canonical import to_json

if TYPE_CHECKING:
    from vrag.results import Use
    from vrag.workspace.journal import Step

__all__ = ["jobs", "resume", "revoke", "where_used"]


@click.command()
@session_options
def jobs(session: Session) -> int:
    """List every video that was asked for, with its state, oldest first.

    \b
    Examples:
      vrag jobs
      vrag jobs --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    steps = _steps(session)
    output = session.output
    output.say(f"videos in the workspace '{session.configuration.folder}': {len(steps)}")
    output.table(
        ("state", "at", "generator", "step", "prompt"),
        [(step.state, step.updated_at[:19], step.generator, step.id[:12], _prompt(step)) for step in steps],
    )
    for step in steps:
        if step.error:
            output.say(f"{step.id[:12]}: {step.error.get('message')}")
    output.document(
        {
            "jobs": [
                {
                    "id": step.id,
                    "state": step.state.value,
                    "attempt": step.attempt,
                    "generator": step.generator,
                    "prompt": _prompt(step),
                    "assets": [source.asset_id for source in step.planned.sources],
                    "video_sha256": step.delivered.sha256 if step.delivered else None,
                    "record_id": step.record_id,
                    "error": step.error,
                    "created_at": step.created_at,
                    "updated_at": step.updated_at,
                }
                for step in steps
            ]
        }
    )
    return 0


def _steps(session: Session) -> list[Step]:
    from vrag.workspace import Workspace  # noqa: PLC0415  # only where it is used

    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():  # looking makes no workspace
        return []
    workspace = Workspace(folder)
    try:
        return workspace.journal.steps()
    finally:
        workspace.close()


def _prompt(step: Step) -> str:
    return " / ".join(shot.prompt for shot in step.planned.request.shots)


@click.command("where-used")
@click.argument("asset")
@session_options
def where_used(session: Session, *, asset: str) -> int:
    """List every video that a picture is in, or is planned for.

    \b
    Example:
      vrag where-used brand/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    with session.pipeline() as pipeline:
        uses = pipeline.where_used(asset)
    session.output.say(f"uses of {asset}: {len(uses)}")
    _show_uses(session, uses)
    session.output.document({"asset_id": asset, "uses": to_json(uses)})
    return 0


def _show_uses(session: Session, uses: tuple[Use, ...]) -> None:
    rows = [(use.state, use.at[:19], use.video_sha256 or "-", use.step_id[:12]) for use in uses]
    session.output.table(("state", "at", "video, SHA-256", "step"), rows)


@click.command()
@click.argument("asset")
@click.option(
    "--everywhere", is_flag=True, help="ASSET is the SHA-256 of a picture: revoke it in every knowledge base."
)
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept.")
@session_options
def revoke(session: Session, *, asset: str, everywhere: bool, by: str, reason: str) -> int:
    """Take a picture out of use for ever, and list the videos that were made from it.

    \b
    Examples:
      vrag revoke brand/9f86d0… --by "$USER" --reason "the licence ended"
      vrag revoke 9f86d0… --everywhere --by "$USER" --reason "court order"
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    output = session.output
    with session.pipeline() as pipeline:
        if everywhere:
            names = session.assembly.knowledge_base_names()
            revoked = pipeline.revoke_everywhere(asset, by=by, reason=reason, knowledge_bases=names)
        else:
            revoked = (pipeline.revoke(asset, by=by, reason=reason),)
    for done in revoked:
        output.say(f"revoked: {done.review.asset_id}")
        output.say(f"videos made from it: {len(done.videos)}; unfinished ones now blocked: {len(done.blocked)}")
        _show_uses(session, (*done.videos, *done.blocked))
    output.document({"revoked": to_json(revoked)})
    return 0


@click.command()
@session_options
def resume(session: Session) -> int:
    """Bring every unfinished video to its end; nothing is bought that may have been bought before.

    \b
    Example:
      vrag resume
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    with session.pipeline() as pipeline:
        done = pipeline.resume()
        document = {"done": [video.id for video in done.done], "failed": to_json(dict(done.failed))}
    session.output.say(f"{len(done.done)} finished, {len(done.failed)} failed")
    for step_id, error in done.failed.items():
        session.output.say(f"  {step_id[:12]}: {error['message']}")
    session.output.document(document)
    return 4 if done.failed and done.done else 1 if done.failed else 0
