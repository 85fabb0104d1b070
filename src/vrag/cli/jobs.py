"""`vrag jobs`, `resume`, `where-used` and `revoke`: what became of every video, and of every picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

from vrag.cli.session import Session, session_options
from vrag.errors import NotFoundError, UsageError
from vrag.values.canonical import JSON, to_json
from vrag.values.jobs import StepState
from vrag.workspace.journal import ENDED

if TYPE_CHECKING:
    from vrag.results import Use
    from vrag.workspace import Workspace
    from vrag.workspace.calls import CallRow
    from vrag.workspace.journal import Step

__all__ = ["jobs", "resume", "revoke", "where_used"]


@click.group(invoke_without_command=True)
@click.option("--state", "states", multiple=True, type=click.Choice(list(StepState)), help="May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N. [default: all]")
@click.option("--watch", is_flag=True, help="Show what happens, in whatever process, until Ctrl-C.")
@session_options
@click.pass_context
def jobs(context: click.Context, session: Session, *, states: tuple[str, ...], limit: int | None, watch: bool) -> int:
    """List every video and edit that was asked for, with its state, oldest first; or settle one of them.

    \b
    Examples:
      vrag jobs
      vrag jobs --state undecided --json
      vrag jobs --watch
      vrag jobs show 3fa9c1
      vrag jobs decide 3fa9c1 --buy-again --by "$USER" --reason "nothing arrived"
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    if context.invoked_subcommand is not None:
        return 0
    with _workspace(session) as workspace:
        wanted = [StepState(state) for state in states] or None
        steps = workspace.journal.steps(wanted) if workspace else []
        calls = workspace.calls.undecided() if workspace else []
        if watch:
            _watch(session, workspace)
    _list(session, steps if limit is None else steps[-limit:], calls)
    return 0


def _list(session: Session, steps: list[Step], calls: list[CallRow]) -> None:
    output = session.output
    output.say(f"jobs in the workspace '{session.configuration.folder}': {len(steps)}")
    output.table(
        ("state", "at", "kind", "price, USD", "generator", "id", "prompt"),
        [
            (
                step.state,
                step.updated_at[:19],
                step.kind,
                "not known" if step.usd_micros is None else f"{step.usd_micros / 1e6:.2f}",
                step.generator,
                step.id[:12],
                _prompt(step)[:60],
            )
            for step in steps
        ],
    )
    for step in steps:
        if step.error:
            output.say(f"{step.id[:12]}: {step.error.get('message')}")
    for call in calls:
        output.say(f"undecided {call.kind} {call.id[:12]}: it may have been bought; decide it like a job")
    if calls or any(step.state is StepState.UNDECIDED for step in steps):
        output.note("undecided: nobody knows whether it was bought; look at the provider's console, then decide")
        session.next_step("jobs", "decide", "ID", "--give-up")
    output.document({"jobs": [_as_json(step) for step in steps], "undecided_calls": [to_json(call) for call in calls]})


def _as_json(step: Step) -> dict[str, JSON]:
    return {
        "id": step.id,
        "state": step.state.value,
        "kind": step.kind,
        "attempt": step.attempt,
        "generator": step.generator,
        "usd_micros": step.usd_micros,
        "knowledge_base": step.knowledge_base,
        "prompt": _prompt(step),
        "assets": [source.asset_id for source in step.planned.sources],
        "video_sha256": step.delivered.sha256 if step.delivered else None,
        "record_id": step.record_id,
        "error": step.error,
        "created_at": step.created_at,
        "updated_at": step.updated_at,
    }


def _prompt(step: Step) -> str:
    if step.kind == "edit":
        request = step.edit.request
        return " ".join(part for part in (request.operation, request.mask_prompt, request.prompt) if part)
    return " / ".join(shot.prompt for shot in step.video.request.shots)


@contextmanager
def _workspace(session: Session) -> Iterator[Workspace | None]:
    """The workspace without its backends; None where there is none yet: looking makes nothing."""
    from vrag.workspace import Workspace  # noqa: PLC0415  # only where it is used

    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():
        yield None
        return
    workspace = Workspace(folder)
    try:
        yield workspace
    finally:
        workspace.close()


def _watch(session: Session, workspace: Workspace | None) -> None:
    if workspace is None:
        return
    seen = 0
    while True:
        for number, event in workspace.journal.events(after=seen):
            seen = number
            session.output.say(f"{event.at[:19]}  {event.step_id[:12]}  {event.state}  {event.message}".rstrip())
        workspace.clock.sleep(1.0)


def _step_id(workspace: Workspace, given: str) -> str:
    """The id that begins like this.

    Raises:
        NotFoundError: There is none.
        UsageError: There are several.
    """
    found = [one for one in workspace.journal.ids() if one.startswith(given)]
    if not found:
        raise NotFoundError(f"No job '{given[:80]}' in this workspace.", hint="vrag jobs")
    if len(found) > 1:
        raise UsageError(f"{len(found)} jobs begin with '{given[:80]}'.", hint=f"vrag jobs show {found[0][:20]}")
    return found[0]


@jobs.command()
@click.argument("job", metavar="ID")
@session_options
def show(session: Session, *, job: str) -> int:
    """Show one job: what was asked, what happened and when, what it cost, what became of it.

    \b
    Example:
      vrag jobs show 3fa9c1
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    with _workspace(session) as workspace:
        if workspace is None:
            raise NotFoundError(f"No job '{job[:80]}' in this workspace.", hint="vrag jobs")
        step = workspace.journal.get(_step_id(workspace, job))
        events = [event for _, event in workspace.journal.events(step.id)]
    output = session.output
    price = "not known" if step.usd_micros is None else f"{step.usd_micros / 1e6:.2f} USD"
    for name, value in (
        ("id", step.id),
        ("state", step.state),
        ("prompt", _prompt(step)),
        ("model", f"{step.generator} ({step.planned.model})"),
        ("price", price),
        ("attempt", step.attempt),
        ("pictures", ", ".join(source.asset_id for source in step.planned.sources) or "none"),
        ("video", step.delivered.sha256 if step.delivered else "none yet"),
    ):
        output.say(f"{name:9} {value}")
    for event in events:
        output.say(f"{event.at[:19]}  {event.state}  {event.message}".rstrip())
    output.document(
        {
            **_as_json(step),
            "planned": to_json(step.planned),
            "marks": step.marks,
            "events": [to_json(event) for event in events],
        }
    )
    return 0


@jobs.command("resume")
@click.argument("job", metavar="[ID]", required=False)
@session_options
def resume_one(session: Session, *, job: str | None) -> int:
    """Bring one job, or all unfinished ones, to an end; the same as `vrag resume`.

    \b
    Example:
      vrag jobs resume 3fa9c1
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    return _resume(session, job)


@jobs.command()
@click.argument("job", metavar="ID")
@session_options
def cancel(session: Session, *, job: str) -> int:
    """Spend nothing more on a job, and stop it where its provider can.

    \b
    Example:
      vrag jobs cancel 3fa9c1
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    with session.pipeline() as pipeline:
        step_id = _step_id(pipeline.workspace, job)
        stopped = pipeline.cancel(step_id)
        step = pipeline.workspace.journal.get(step_id)
    if stopped:
        session.output.say(f"cancelled: {step_id[:12]}")
    elif step.state in ENDED:
        session.output.say(f"It has ended already: {step.state}.")
    else:
        session.output.say("This provider cannot stop it: the charge stands, and a result that arrives is recorded.")
        session.next_step("resume")
    session.output.document({"id": step_id, "cancelled": stopped, "state": step.state.value})
    return 0 if stopped else 4


@jobs.command()
@click.argument("job", metavar="ID")
@click.option("--give-up", "decision", flag_value="give up", help="Leave it; what it may have cost stays counted.")
@click.option("--buy-again", "decision", flag_value="buy again", help="Buy it anew; it may then be paid twice.")
@click.option("--by", required=True, metavar="NAME", help="Who decides.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept.")
@session_options
def decide(
    session: Session, *, job: str, decision: Literal["give up", "buy again"] | None, by: str, reason: str
) -> int:
    """Settle a job of which nobody knows whether it was bought. It is never bought again by itself.

    \b
    Examples:
      vrag jobs decide 3fa9c1 --give-up --by "$USER" --reason "it is not in the console"
      vrag jobs decide 3fa9c1 --buy-again --by "$USER" --reason "needed today"
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    if decision is None:
        raise UsageError("Say what is to be done.", hint="--give-up, or --buy-again")
    with session.pipeline() as pipeline:
        calls = [call.id for call in pipeline.workspace.calls.undecided() if call.id.startswith(job)]
        if len(calls) == 1:
            step_id = calls[0]
            pipeline.workspace.calls.decide(step_id)  # asked again when it is needed again
        else:
            step_id = _step_id(pipeline.workspace, job)
            pipeline.decide(step_id, decision, by=by, reason=reason)
    session.output.say(f"decided: {decision} ({step_id[:12]})")
    session.output.document({"id": step_id, "decision": decision})
    if decision == "buy again":
        session.next_step("resume")
    return 0


@click.command("where-used")
@click.argument("asset", metavar="ASSET|SHA256|FILE")
@session_options
def where_used(session: Session, *, asset: str) -> int:
    """List every video that a picture is in, or is planned for, itself or through an edit or a part of a film.

    \b
    Examples:
      vrag where-used brand/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      vrag where-used photos/shoes.jpg
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.cli.lineage import named, through  # noqa: PLC0415  # only where it is used
    from vrag.provenance.lineage import used_in  # noqa: PLC0415  # as above

    with session.pipeline() as pipeline:
        key = named(session, pipeline.workspace, asset)
        uses = pipeline.where_used(key)
        try:
            ways = through(used_in(pipeline.workspace.ledger, key))
        except NotFoundError:  # planned, and not recorded yet
            ways = {}
    session.output.say(f"uses of {key}: {len(uses)}")
    session.output.table(
        ("state", "at", "what", "SHA-256", "step", "through"),
        [
            (
                use.state,
                use.at[:19],
                "edited picture" if use.kind == "edit" else "video",
                use.video_sha256 or "-",
                use.step_id[:12],
                ways.get(use.record_id or "", ""),
            )
            for use in uses
        ],
    )
    if ways:
        session.next_step("lineage", key)
    session.output.document(
        {
            "asset_id": key,
            "uses": [{**to_json(use), "through": ways.get(use.record_id or "") or None} for use in uses],
        }
    )
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
    return _resume(session, None)


def _resume(session: Session, job: str | None) -> int:
    with session.pipeline() as pipeline:
        done = pipeline.resume(None if job is None else [_step_id(pipeline.workspace, job)])
        undecided = pipeline.workspace.journal.ids([StepState.UNDECIDED])
        document = {
            "done": [video.id for video in done.done],
            "failed": to_json(dict(done.failed)),
            "undecided": undecided,
        }
    session.output.say(f"{len(done.done)} finished, {len(done.failed)} failed, {len(undecided)} undecided")
    for step_id, error in done.failed.items():
        session.output.say(f"  {step_id[:12]}: {error['message']}")
    if undecided:
        session.next_step("jobs", "--state", "undecided")
    session.output.document(document)
    return 4 if done.failed and done.done else 1 if done.failed else 0
