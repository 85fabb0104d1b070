"""Plans on a terminal and on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vrag.cli.session import Session
from vrag.cli.videos import usd
from vrag.errors import FormatVersionError, PlanChangedError, UsageError
from vrag.values.canonical import JSON, from_json, to_json

if TYPE_CHECKING:
    from vrag.batches import Batch
    from vrag.pipeline import VRAGPipeline
    from vrag.values.briefs import OpenVideo, Plan

__all__ = ["next_step", "place", "plan_document", "read_plan", "show_plan", "write_plan"]

_FORMAT = 1
_MAX_PLAN_BYTES = 256 << 20


def show_plan(session: Session, found: Plan, rows: Batch | None) -> None:
    """Every row of a plan: its price and picture, what it waits for, or why it is not possible."""
    output = session.output
    lines = [row.line for row in rows.rows] if rows else []
    output.say(
        f"planned: {len(found.videos)}, waiting: {len(found.open)}, "
        f"not possible: {len(found.failures) + (len(rows.problems) if rows else 0)}"
    )
    output.table(
        ("row", "price, USD", "picture", "prompt"),
        [
            (
                place(lines, index),
                usd(video.estimate.usd_micros),
                ", ".join(source.caption or source.file_name for source in video.sources)[:40] or "none",
                " / ".join(shot.prompt for shot in video.request.shots)[:80],
            )
            for index, video in zip(found.rows, found.videos, strict=True)
        ],
    )
    for one in found.open:
        _show_open(session, place(lines, one.index), one)
    for failure in found.failures:
        output.say(f"row {place(lines, failure.index)}: {failure.error['message']}")
    for problem in rows.problems if rows else ():
        output.say(f"line {problem.line}: {problem.message}")
    output.say(f"price: {usd(found.usd_micros)} USD")
    output.say(f"digest: {found.digest}")


def next_step(session: Session, found: Plan, file: str) -> None:
    """Tell the command that goes on with the plan in `file`."""
    if found.edits:
        session.next_step("prepare", file)
    elif found.open:
        edits = dict.fromkeys(edit.step_id[:12] for one in found.open for edit in one.edits)
        named = [word for edit in edits for word in ("--choose", f"{edit}=1")]
        session.next_step("prepare", file, *(named if len(edits) > 1 else ("--choose", "1")))
    else:
        session.next_step("submit", file)


def _show_open(session: Session, where: str, one: OpenVideo) -> None:
    """An edit with its price, or its variants with what was measured of each."""
    from vrag.values.briefs import ChoiceRule  # noqa: PLC0415  # beside what it needs

    output, rules = session.output, get_args(ChoiceRule)
    output.say(f"row {where}: waits for {len(one.edits)} {one.waits_for}(s)")
    for edit in one.edits if one.waits_for == "edit" else ():
        source = edit.source.caption or edit.source.file_name
        output.say(
            f"  {edit.step_id[:12]}: {edit.request.operation} in '{source[:40]}', {usd(edit.estimate.usd_micros)} USD"
        )
    for edit, variants in zip(one.edits, one.variants, strict=False):
        output.say(f"  {edit.step_id[:12]}: {edit.request.operation}, {len(variants)} variants")
        output.table(
            ("  variant", *rules),
            [
                (f"  {number}", *(f"{variant.scores[rule]:.2f}" if rule in variant.scores else "-" for rule in rules))
                for number, variant in enumerate(variants, 1)
            ],
        )


def place(lines: list[int | None], index: int) -> str:
    """The number of a row, with its line where it stood in a file."""
    line = lines[index] if index < len(lines) else None
    return str(index + 1) if line is None else f"{index + 1} (line {line})"


def plan_document(found: Plan, rows: Batch | None) -> dict[str, JSON]:
    """The plan as JSON."""
    return {
        "digest": found.digest,
        "usd_micros": found.usd_micros,
        "plan": to_json(found),
        "problems": [{"line": problem.line, "message": problem.message} for problem in (rows.problems if rows else ())],
    }


def write_plan(
    session: Session, pipeline: VRAGPipeline, found: Plan, target: str | None, sheet: str | None, *, overwrite: bool
) -> None:
    """Write the plan to `target` and its contact sheet to `sheet`, where they are named."""
    from vrag.media.files import write_new  # noqa: PLC0415  # only where something is written

    if target is not None:
        content = {"format": _FORMAT, "digest": found.digest, "plan": to_json(found)}
        write_new(Path(target), [json.dumps(content, indent=1).encode()], overwrite=overwrite)
        session.output.say(f"plan: {target}")
    if sheet is not None:
        write_new(Path(sheet), [pipeline.contact_sheet(found).to_html().encode()], overwrite=overwrite)
        session.output.say(f"contact sheet: {sheet}")


def read_plan(path: Path) -> Plan:
    """The plan that `write_plan` wrote.

    Raises:
        UsageError: It cannot be read, or is no plan.
        FormatVersionError: Another release wrote it.
        PlanChangedError: It was changed by hand.
    """
    from vrag.values.briefs import Plan  # noqa: PLC0415  # beside what it needs

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The plan '{path}' cannot be read: {error.strerror}.", hint="vrag plan FILE -o plan.json"
        ) from error
    try:
        content = json.loads(data)
        version, digest, body = content["format"], content["digest"], content["plan"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"'{path}' is not a plan of vrag.", hint="vrag plan FILE -o plan.json") from error
    if version != _FORMAT:
        raise FormatVersionError(f"The plan '{path}' has format {version!r:.20}; this release reads {_FORMAT}.")
    found = from_json(Plan, body)
    if found.digest != digest:
        raise PlanChangedError(
            f"The plan '{path}' was changed after it was made: its digest is {found.digest[:12]}…, not {str(digest)[:12]}….",
            hint="vrag plan FILE -o plan.json",
        )
    return found
