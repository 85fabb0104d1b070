"""`vrag plan`, `prepare`, `submit` and `batch`: many videos in one run, shown and priced before anything is bought."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vrag.cli.choices import read_choices
from vrag.cli.plans import next_step, place, plan_document, read_plan, show_plan, write_plan
from vrag.cli.session import Session, session_options
from vrag.cli.targets import free_path, slug
from vrag.cli.videos import approve, brief_options, configured_brief, describe
from vrag.errors import (
    JobUndecidedError,
    UsageError,
    VRAGError,
)
from vrag.values.canonical import JSON

if TYPE_CHECKING:
    from vrag.batches import Batch, BatchBrief
    from vrag.pipeline import VRAGPipeline
    from vrag.results import Ticket
    from vrag.values.briefs import Plan

__all__ = ["batch", "plan", "prepare", "submit"]


def _batch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What says which videos: a file, or prompts on the command line, or both."""
    options = (
        click.argument("file", required=False, metavar="[FILE]"),
        click.option("--object", "objects", multiple=True, metavar="TEXT", help="What it shows; may be repeated."),
        click.option("--action", "actions", multiple=True, metavar="TEXT", help="What happens; may be repeated."),
        click.option("--template", "templates", multiple=True, metavar="TEXT", help="Prompt with slots; without FILE."),
        click.option("--slot", "slots", multiple=True, metavar="NAME=TEXT", help="Value of a further slot."),
        click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), help="May be repeated."),
        click.option("--audience", "audiences", multiple=True, metavar="ID=KB", help="Whose knowledge base is whose."),
        brief_options,
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _money_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What allows a purchase."""
    return functools.reduce(
        lambda wrapped, option: option(wrapped),
        (
            click.option("--budget-usd", type=click.FloatRange(min=0), metavar="USD", help="Buy up to this, unasked."),
            click.option("--yes", is_flag=True, help="Buy without asking."),
        ),
        command,
    )


@click.command()
@_batch_options
@click.option("-o", "--output", "target", metavar="FILE", help="Write the plan there, for `vrag submit`.")
@click.option("--html", "sheet", metavar="FILE", help="Write a contact sheet: every picture, prompt and price.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@session_options
def plan(session: Session, *, target: str | None, sheet: str | None, overwrite: bool, **asked: Any) -> int:
    """Find the picture, prompt and price of every video, and buy nothing.

    FILE is prompts.txt (one template a line), CSV or JSONL. A line that cannot be planned is named; the others go on.

    \b
    Examples:
      vrag plan prompts.txt --object "red shoes" --action "camera zooms in" -o plan.json --html plan.html
      vrag plan --object "red shoes" --object "a lake" --action "camera pans left" --kb brand
      vrag submit plan.json --yes
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    rows = _rows(session, **asked)
    with session.pipeline() as pipeline:
        found = pipeline.plan(rows.briefs)
        show_plan(session, found, rows)
        write_plan(session, pipeline, found, target, sheet, overwrite=overwrite)
    session.output.document(plan_document(found, rows))
    if target is not None and (found.videos or found.open):
        next_step(session, found, target)
    return _exit_code(len(found.videos) + len(found.open), len(found.failures) + len(rows.problems))


@click.command()
@click.argument("file")
@click.option("-o", "--output", "target", metavar="FILE", help="Where the new plan goes. [default: FILE]")
@click.option("--html", "sheet", metavar="FILE", help="Write a contact sheet of the new plan.")
@click.option(
    "--choose", "choices", multiple=True, metavar="[EDIT=]N|RULE", help="The variant of an edit; may be given again."
)
@_money_options
@session_options
def prepare(
    session: Session,
    *,
    file: str,
    target: str | None,
    sheet: str | None,
    choices: tuple[str, ...],
    budget_usd: float | None,
    yes: bool,
) -> int:
    """Buy the edits that a plan waits for, choose among their variants, and plan again what waited.

    A variant is chosen by its number, or by what is measured: `sharpest` has most detail in what was repainted,
    `least-changed` kept the rest of the picture best. EDIT is the first digits of an edit, as the plan shows it.

    \b
    Examples:
      vrag prepare plan.json --budget-usd 2 --html plan.html
      vrag prepare plan.json --choose 2
      vrag prepare plan.json --choose 3fa9c1=2 --choose 77b0d2=sharpest
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    found = read_plan(Path(file))
    with session.pipeline() as pipeline:
        if choices:
            found = pipeline.choose(found, read_choices(choices))
        edits = found.edits
        if not edits and not choices:
            session.output.say("The plan waits for no edit.")
        elif edits:
            approve(session, [edit.estimate.usd_micros for edit in edits], "edits", budget_usd=budget_usd, yes=yes)
            found = pipeline.prepare(found, approved=found.digest, budget_usd=budget_usd)
        show_plan(session, found, None)
        write_plan(session, pipeline, found, target or file, sheet, overwrite=True)
    session.output.document(plan_document(found, None))
    next_step(session, found, target or file)
    return _exit_code(len(found.videos) + len(found.open), len(found.failures))


@click.command()
@click.argument("file")
@click.option("-o", "--out", "folder", default=".", metavar="DIR", help="Where the videos go. [default: here]")
@_money_options
@session_options
def submit(session: Session, *, file: str, folder: str, budget_usd: float | None, yes: bool) -> int:
    """Buy what a plan says, exactly: a plan that was changed by hand is refused.

    \b
    Examples:
      vrag submit plan.json --budget-usd 20 -o films
      vrag submit plan.json --yes
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    found = read_plan(Path(file))
    with session.pipeline() as pipeline:
        return _make(session, pipeline, found, None, _folder(folder), budget_usd=budget_usd, yes=yes)


@click.command()
@_batch_options
@click.option("-o", "--out", "folder", default=".", metavar="DIR", help="Where the videos go. [default: here]")
@_money_options
@session_options
def batch(session: Session, *, folder: str, budget_usd: float | None, yes: bool, **asked: Any) -> int:
    """Make many videos in one run: one a row of FILE, or one for each object with each action, template and seed.

    What failed stands in DIR/failed.jsonl, which can be run alone; finished videos stay. The same command again finds
    the videos that exist and buys none of them twice.

    \b
    Examples:
      vrag batch prompts.txt --object "red shoes" --action "camera zooms in" --budget-usd 20 -o films
      vrag batch campaign.csv --kb brand -o films
      vrag batch films/failed.jsonl -o films
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    rows = _rows(session, **asked)
    out = _folder(folder)
    with session.pipeline() as pipeline:
        found = pipeline.plan(rows.briefs)
        show_plan(session, found, rows)
        while found.edits:
            prices = [edit.estimate.usd_micros for edit in found.edits]
            approve(session, prices, "edits", budget_usd=budget_usd, yes=yes)
            found = pipeline.prepare(found, approved=found.digest, budget_usd=budget_usd)
        return _make(session, pipeline, found, rows, out, budget_usd=budget_usd, yes=yes)


# -- what is asked


def _rows(
    session: Session,
    *,
    file: str | None,
    objects: tuple[str, ...],
    actions: tuple[str, ...],
    templates: tuple[str, ...],
    slots: tuple[str, ...],
    seeds: tuple[int, ...],
    audiences: tuple[str, ...],
    kb: str | None,
    **asked: object,
) -> Batch:
    from vrag.batches import matrix, read_briefs  # noqa: PLC0415  # numpy behind it

    base = configured_brief(session, kb, asked)
    named = dict(_pair(one, "--slot", "colour=red") for one in slots)
    if file is None:
        if not (objects or actions or templates):
            raise UsageError("Name a file of prompts, or an --object.", hint="vrag batch --help")
        from attrs import evolve  # noqa: PLC0415  # beside its use

        return matrix(evolve(base, slots=named), objects=objects, actions=actions, templates=templates, seeds=seeds)
    if templates:
        raise UsageError("A file brings its own templates; leave out --template, or the file.")
    path = Path(file)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The file '{file}' cannot be read: {error.strerror}.", hint="vrag batch --help") from error
    return read_briefs(
        data,
        path.name,
        base=base,
        objects=objects,
        actions=actions,
        slots=named,
        seeds=seeds,
        audiences=dict(_pair(one, "--audience", "press=brand") for one in audiences),
    )


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not (name and mark and value):
        raise UsageError(f"'{text[:80]}' is not NAME=VALUE.", hint=f"{option} {example}")
    return name, value


def _folder(name: str) -> Path:
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{name}' is a file; the videos go into a folder.", hint="-o films")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- videos


def _make(
    session: Session,
    pipeline: VRAGPipeline,
    found: Plan,
    rows: Batch | None,
    folder: Path,
    *,
    budget_usd: float | None,
    yes: bool,
) -> int:
    from attrs import evolve  # noqa: PLC0415  # beside its use

    output = session.output
    ready = evolve(found, open=(), failures=())
    failed: dict[int, dict[str, JSON]] = {failure.index: dict(failure.error) for failure in found.failures}
    for one in found.open:
        names = ", ".join(edit.step_id[:12] for edit in one.edits)
        message = f"It waits for a {one.waits_for} ({names})."
        hint = "vrag prepare plan.json" if one.waits_for == "edit" else "--choose 1, or --choose sharpest"
        failed[one.index] = {"error": "open", "message": message, "hint": hint}
    undecided: dict[int, dict[str, JSON]] = {}
    done: list[dict[str, JSON]] = []
    if ready.videos:
        approve(
            session, [video.estimate.usd_micros for video in ready.videos], "videos", budget_usd=budget_usd, yes=yes
        )
        tickets = pipeline.submit(ready, approved=ready.digest, budget_usd=budget_usd)
        by_future = {ticket.future: (index, ticket) for index, ticket in zip(ready.rows, tickets, strict=True)}
        with output.progress("videos") as progress:
            for count, future in enumerate(as_completed(by_future), 1):
                index, ticket = by_future[future]
                try:
                    done.append(_saved(folder, index, ticket, rows.rows[index] if rows else None))
                except VRAGError as error:
                    (undecided if isinstance(error, JobUndecidedError) else failed)[index] = error.to_json()
                progress(count, len(by_future), f"{count} of {len(by_future)}")
    _report(session, folder, rows, done, failed, undecided)
    problems = len(rows.problems) if rows else 0
    return _exit_code(len(done), len(failed) + len(undecided) + problems)


def _saved(folder: Path, index: int, ticket: Ticket, row: BatchBrief | None) -> dict[str, JSON]:
    video = ticket.result()
    brief = video.planned.brief
    number = row.line if row is not None and row.line is not None else index + 1
    name = f"{number:04d}-{slug(brief.object_prompt or brief.template or 'video')}"
    path = folder / f"{name}.mp4"
    kept = path.is_file() and path.stat().st_size == video.media.size_bytes and _sha256(path) == video.media.sha256
    if not kept:
        path = free_path(folder, name)
        video.save(path)
    return {"row": index, "line": None if row is None else row.line, **describe(video, path)}


def _sha256(path: Path) -> str:
    import hashlib  # noqa: PLC0415  # only for a file that exists

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report(
    session: Session,
    folder: Path,
    rows: Batch | None,
    done: list[dict[str, JSON]],
    failed: dict[int, dict[str, JSON]],
    undecided: dict[int, dict[str, JSON]],
) -> None:
    from vrag.media.files import write_new  # noqa: PLC0415  # only where something is written

    output = session.output
    output.say(f"videos: {len(done)} in {folder}; failed: {len(failed)}; undecided: {len(undecided)}")
    lines = [row.line for row in rows.rows] if rows else []
    for index, error in sorted({**failed, **undecided}.items()):
        output.say(f"row {place(lines, index)}: {error['message']}")
    again = folder / "failed.jsonl"
    if failed and rows:
        text = "".join(json.dumps(rows.rows[index].to_row(), ensure_ascii=False) + "\n" for index in sorted(failed))
        write_new(again, [text.encode()], overwrite=True)
        session.next_step("batch", str(again), "-o", str(folder))
    elif again.exists():
        again.unlink()
    if undecided:
        session.next_step("jobs")
    output.document(
        {
            "done": sorted(done, key=lambda one: one["row"]),
            "failed": [{"row": index, **error} for index, error in sorted(failed.items())],
            "undecided": [{"row": index, **error} for index, error in sorted(undecided.items())],
            "problems": [{"line": one.line, "message": one.message} for one in (rows.problems if rows else ())],
        }
    )


def _exit_code(good: int, bad: int) -> int:
    return 0 if not bad else 4 if good else 1
