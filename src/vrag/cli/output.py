"""What a command says: results on stdout, progress and errors on stderr, one JSON document where `--json` asks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import click

from vrag.errors import NoSuitableImageError, UnsupportedRequestError, VRAGError
from vrag.provenance.report.text import visible
from vrag.values.canonical import JSON

__all__ = ["Output", "Progress", "error_json"]


class Progress(Protocol):
    """Takes news of how far something is."""

    def __call__(self, done: float, total: float, what: str = "") -> None:
        """`done` of `total`; `what` is the thing at hand."""
        ...


class Output:
    """Where a command speaks. Foreign text goes through `visible`, so no name steers the terminal."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, line: str = "") -> None:
        """A line of the result, for people; nothing with `--json`."""
        if not self.as_json:
            click.echo(visible(line))

    def note(self, line: str) -> None:
        """A remark on stderr, for people; nothing with `--json`."""
        if not self.as_json:
            click.echo(visible(line), err=True)

    def document(self, data: JSON) -> None:
        """The one JSON document; nothing without `--json`."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table on a terminal, aligned plain lines elsewhere; nothing with `--json`."""
        if self.as_json or not rows:
            return
        texts = [[visible(cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            from rich.console import Console  # noqa: PLC0415  # costs more than the rest of the command line
            from rich.table import Table  # noqa: PLC0415  # as above
            from rich.text import Text  # noqa: PLC0415  # as above

            table = Table(*heads, header_style="bold", box=None, pad_edge=False)
            for row in texts:
                table.add_row(*(Text(cell) for cell in row))
            Console().print(table)
            return
        widths = [max(len(row[column]) for row in [list(heads), *texts]) for column in range(len(heads))]
        for row in [list(heads), *texts]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def error(self, error: VRAGError) -> None:
        """An error with the next command; as the JSON document with `--json`."""
        if self.as_json:
            self.document(error_json(error))
            return
        click.echo(f"error: {visible(error.message)}", err=True)
        if isinstance(error, UnsupportedRequestError):
            for problem in error.problems:
                if problem.message in error.message:
                    continue
                click.echo(f"  {visible(problem.field)}: {visible(problem.message)}", err=True)
        if isinstance(error, NoSuitableImageError):
            for hit in error.refusal.candidates[:3]:
                click.echo(
                    f"  nearest: {visible(hit.asset.caption or hit.asset.file_name)} ({visible(hit.why)})", err=True
                )
        if error.hint:
            click.echo(f"next: {visible(error.hint)}", err=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A bar on a terminal; elsewhere a plain line at each quarter; nothing with `--json`."""
        if self.as_json:
            yield _silent
        elif sys.stderr.isatty():
            with _bar(label) as bar:
                yield bar
        else:
            yield _Lines(label)


def error_json(error: VRAGError) -> dict[str, JSON]:
    """The error as JSON, with the problems or nearest pictures that belong to it."""
    data = error.to_json()
    if isinstance(error, UnsupportedRequestError):
        data["problems"] = [{"kind": p.kind, "field": p.field, "message": p.message} for p in error.problems]
    if isinstance(error, NoSuitableImageError):
        data["query"] = error.refusal.query
        data["reasons"] = list(error.refusal.reasons)
        data["nearest"] = [
            {"asset_id": hit.asset.id, "caption": hit.asset.caption, "cosine": hit.cosine, "why": hit.why}
            for hit in error.refusal.candidates
        ]
    return data


def _silent(done: float, total: float, what: str = "") -> None:
    """News that nobody reads."""


class _Lines:
    def __init__(self, label: str) -> None:
        self._label = label
        self._said = 0

    def __call__(self, done: float, total: float, what: str = "") -> None:  # noqa: ARG002  # the bar shows it
        quarter = int(4 * done / total) if total else 4
        if quarter > self._said:
            self._said = quarter
            click.echo(f"{self._label}: {quarter * 25} %", err=True)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.console import Console  # noqa: PLC0415  # costs more than the rest of the command line
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415  # as above

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    shown = TextColumn("{task.fields[what]}", markup=False)
    with Progress(*columns, shown, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=1.0, what="")
        yield lambda done, total, what="": progress.update(
            task, completed=done / total if total else 1.0, what=visible(what)[-40:]
        )
