"""Batch files: many prompts from `prompts.txt`, CSV or JSONL, checked line by line before anything is bought."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from attrs import frozen

from vrag.errors import PromptError
from vrag.prompts.template import MAX_PROMPT_CHARS, PromptTemplate, check_text, nearest, shown

__all__ = ["KNOWN_COLUMNS", "MAX_FILE_BYTES", "MAX_ROWS", "BatchFile", "BatchProblem", "BatchRow", "read_batch"]

MAX_FILE_BYTES = 16 << 20
MAX_ROWS = 100_000
_MAX_LINE_CHARS = 4 * MAX_PROMPT_CHARS
_MAX_COLUMNS = 256

_PROMPTS = ("object_prompt", "action_prompt")
_WHOLE = ("seed", "width_px", "height_px", "take")
_TEXT = (
    *("knowledge_base", "audience", "filter", "picture", "model", "aspect_ratio", "fit"),
    *("negative_prompt", "style", "mood", "lighting"),
)
KNOWN_COLUMNS = (*_PROMPTS, "template", *_TEXT, *_WHOLE, "duration_s")
"""Columns with a meaning of their own; any other column is a slot of the row's template."""


@frozen(kw_only=True)
class BatchRow:
    """One prompt of a batch file."""

    line: int
    """Where the row begins in the file, from 1."""
    template: str
    slots: Mapping[str, str]
    """`object_prompt` and `action_prompt` where known, and the other slots of the template."""
    columns: Mapping[str, str | int | float]
    """The other known columns that have a value; numbers are numbers."""

    @property
    def prompt(self) -> str:
        """The template, filled."""
        template = PromptTemplate.parse(self.template, line=self.line)
        return template.render({name: self.slots[name] for name in template.slots})


@frozen(kw_only=True)
class BatchProblem:
    """Why a line is not taken."""

    line: int
    message: str


@frozen(kw_only=True)
class BatchFile:
    """A batch file, read."""

    name: str
    rows: tuple[BatchRow, ...]
    """The rows that can be rendered, in the order of the file."""
    problems: tuple[BatchProblem, ...] = ()
    """The lines that cannot, in the order of the file."""


_Cells = Mapping[str, str]
_Row = tuple[int, str | None, _Cells]  # line, its template if it has one, values by column


def read_batch(
    data: bytes, name: str, *, slots: Mapping[str, str] | None = None, template: str | None = None
) -> BatchFile:
    """Read a batch file; the end of its name says the format.

    `.txt` (or none): one template a line, each with any slots or none; blank lines and lines that begin with `#` are
    skipped. `.csv` and `.tsv`: a header of slots and `KNOWN_COLUMNS`; comma, semicolon or tab. `.jsonl`: one object a
    line with the same keys. UTF-8, with or without a byte order mark; any line ends. Cells are text and never
    evaluated: "=1+1" is a prompt. An empty cell takes the value in `slots`; where there is none, the slot is empty, which
    is a problem of rows whose template has it.

    Args:
        data: The bytes of the file, at most `MAX_FILE_BYTES` and `MAX_ROWS` rows.
        name: Its name, for the format and for messages.
        slots: Values for slots that a row does not set itself.
        template: The template of rows that have none; where None, theirs is the object prompt and the action prompt,
            those that they have, joined by a comma.

    Raises:
        PromptError: The file as a whole cannot be read: another encoding (named), format or header, too large, or a
            slot given that no row uses. What is wrong with single lines is in `problems`.
    """
    given = dict(slots or {})
    suffix = PurePath(name).suffix.lower()
    readers = {"": _text_rows, ".txt": _text_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}
    if suffix not in readers:
        raise PromptError(f"{shown(name)} is not a batch file; take .txt, .csv, .tsv or .jsonl.")
    text = _decoded(data, name)
    problems: list[BatchProblem] = []
    rows: list[BatchRow] = []
    seen: dict[object, int] = {}
    used: set[str] = set(_PROMPTS)
    for count, (line, own, cells) in enumerate(readers[suffix](text, name, problems)):
        if count >= MAX_ROWS:
            raise PromptError(f"{shown(name)} has more than {MAX_ROWS} rows. Split it.", line=line)
        try:
            row = _row(line, own or template, cells, given, used)
            prompt = row.prompt
        except PromptError as error:
            problems.append(BatchProblem(line=line, message=error.message))
            continue
        key = (prompt, tuple(row.slots.get(slot) for slot in _PROMPTS), tuple(sorted(row.columns.items())))
        if key in seen:
            message = f"The same as line {seen[key]}. To buy a second video, set the column take to 2."
            problems.append(BatchProblem(line=line, message=message))
            continue
        seen[key] = line
        rows.append(row)
    unused = [slot for slot in given if slot not in used]
    if unused and (rows or not problems):
        raise PromptError(f"No row of {shown(name)} has the slot <{shown(unused[0])[1:-1]}>.{nearest(unused[0], used)}")
    return BatchFile(name=name, rows=tuple(rows), problems=tuple(sorted(problems, key=lambda problem: problem.line)))


def _row(line: int, text: str | None, cells: _Cells, given: Mapping[str, str], used: set[str]) -> BatchRow:
    own = {column: cell for column, cell in cells.items() if column in _PROMPTS or column not in KNOWN_COLUMNS}
    values = {**given, **{column: cell for column, cell in own.items() if cell.strip() or column not in given}}
    if text is None:
        text = ", ".join(f"<{slot}>" for slot in _PROMPTS if slot in values)
        if not text:
            raise PromptError("The row has no template, no object_prompt and no action_prompt.")
    template = PromptTemplate.parse(text)
    used |= set(template.slots)
    for column, cell in own.items():
        if cell.strip() and column not in _PROMPTS and column not in template.slots:
            known = (*KNOWN_COLUMNS, *template.slots)
            raise PromptError(
                f"Unknown slot or column {shown(column)}: the template {shown(text)} has no such slot."
                f"{nearest(column, known) or ' Known columns: ' + ', '.join(KNOWN_COLUMNS) + '.'}"
            )
    slots = {slot: values[slot] for slot in dict.fromkeys((*_PROMPTS, *template.slots)) if slot in values}
    template.render({slot: slots[slot] for slot in template.slots if slot in slots})  # names a slot without a value
    filled = {slot: value for slot, value in slots.items() if value.strip()}
    for slot, value in filled.items():
        check_text(value, f"The value of <{slot}>")
    return BatchRow(line=line, template=text, slots=filled, columns=dict(_columns(cells)))


def _columns(cells: _Cells) -> Iterator[tuple[str, str | int | float]]:
    for column, cell in cells.items():
        value = cell.strip()
        if not value:
            continue
        if column in _TEXT:
            check_text(value, f"The column {column}")
            if column == "aspect_ratio" and not re.fullmatch(r"[1-9][0-9]{0,3}:[1-9][0-9]{0,3}", value):
                raise PromptError(f"The column aspect_ratio is {shown(value)}; write it like 16:9.")
            yield column, value
        elif column in _WHOLE:
            if not re.fullmatch(r"[0-9]{1,18}", value) or (column != "seed" and int(value) < 1):
                least = 0 if column == "seed" else 1
                raise PromptError(f"The column {column} is {shown(value)}; a whole number from {least} is needed.")
            yield column, int(value)
        elif column == "duration_s":
            seconds = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else math.nan
            if not seconds > 0:
                raise PromptError(f"The column duration_s is {shown(value)}; a number above 0 is needed, in seconds.")
            yield column, seconds


_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)


def _decoded(data: bytes, name: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise PromptError(f"{shown(name)} has {len(data)} bytes; at most {MAX_FILE_BYTES} are read. Split it.")
    quoted = shlex.quote(shown(PurePath(name).name, max_chars=200)[1:-1])
    found = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if found is None and data[:256].count(0) * 3 > len(data[:256]):
        found = "UTF-16LE" if data[1:2] == b"\0" else "UTF-16BE"
    if found:
        raise PromptError(
            f"{shown(name)} is encoded in {found}; UTF-8 is needed.",
            hint=f"iconv -f {found} -t UTF-8 {quoted} > utf8-{quoted}",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = max(data.rfind(b"\n", 0, error.start), data.rfind(b"\r", 0, error.start)) + 1
        before = data[:start].replace(b"\r\n", b"\n")
        line = before.count(b"\n") + before.count(b"\r") + 1
        column = len(data[start : error.start].decode("utf-8-sig", "replace")) + 1
        raise PromptError(
            f"{shown(name)}, line {line}, column {column}: the byte 0x{data[error.start]:02X} is not UTF-8. "
            "The file is probably encoded in Windows-1252.",
            line=line,
            hint=f"iconv -f WINDOWS-1252 -t UTF-8 {quoted} > utf8-{quoted}",
        ) from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _text_rows(text: str, _name: str, _problems: list[BatchProblem]) -> Iterator[_Row]:
    for number, line in _lines(text):
        if not line.startswith("#"):
            yield number, line, {}


def _csv_rows(text: str, name: str, problems: list[BatchProblem]) -> Iterator[_Row]:
    first = re.match(r"[^\r\n]*", text.lstrip("\r\n"))
    heading = first[0] if first else ""
    delimiter = max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Nothing after a broken quote can be trusted
            raise PromptError(f"{shown(name)}, line {line}: not CSV ({error}).", line=line) from None
        if not any(cell.strip() for cell in row):
            continue
        if not header:
            header = _header([cell.strip() for cell in row], name, line)
        elif any(cell.strip() for cell in row[len(header) :]):
            message = f"{len(row)} cells, but the header has {len(header)}. Quote cells that hold a {shown(delimiter)}."
            problems.append(BatchProblem(line=line, message=message))
        else:
            cells = dict.fromkeys(header, "") | dict(zip(header, row, strict=False))
            yield line, cells.get("template", "").strip() or None, cells


def _header(header: list[str], name: str, line: int) -> list[str]:
    if len(header) > _MAX_COLUMNS:
        raise PromptError(f"{shown(name)} has {len(header)} columns; at most {_MAX_COLUMNS} are allowed.", line=line)
    for column in header:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", column):
            guess = nearest(column.lower().replace(" ", "_"), KNOWN_COLUMNS)
            raise PromptError(
                f"{shown(name)}, line {line}: {shown(column)} is not a column name; use a-z, 0-9 and _.{guess}",
                line=line,
            )
        if header.count(column) > 1:
            raise PromptError(f"{shown(name)}, line {line}: the column {shown(column)} is there twice.", line=line)
    return header


def _json_rows(text: str, _name: str, problems: list[BatchProblem]) -> Iterator[_Row]:
    for number, line in _lines(text):
        if len(line) > _MAX_LINE_CHARS:
            message = f"The line has {len(line)} characters; at most {_MAX_LINE_CHARS} are allowed."
            problems.append(BatchProblem(line=number, message=message))
            continue
        try:
            cells = dict(_json_cells(json.loads(line, object_pairs_hook=_Pairs, parse_constant=_no_constant)))
        except PromptError as error:
            problems.append(BatchProblem(line=number, message=error.message))
        except RecursionError:
            problems.append(BatchProblem(line=number, message="Nested too deeply; a flat object is needed."))
        except ValueError as error:
            what = (
                f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number too long"
            )
            problems.append(BatchProblem(line=number, message=f"Not JSON: {what}."))
        else:
            yield number, cells.get("template", "").strip() or None, cells


class _Pairs(tuple[tuple[str, Any], ...]):
    """The members of an object as they stand: a dict would hide that a key is there twice."""

    __slots__ = ()


def _no_constant(constant: str) -> None:
    raise PromptError(f"{constant} is not JSON.")


def _json_cells(value: Any) -> Iterable[tuple[str, str]]:
    if not isinstance(value, _Pairs):
        raise PromptError('An object is needed, such as {"object_prompt": "red shoes"}.')
    keys: set[str] = set()
    for key, cell in value:
        if key in keys:
            raise PromptError(f"The key {shown(key)} is there twice.")
        keys.add(key)
        if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
            raise PromptError(f"The value of {shown(key)} must be text or a number.")
        if cell is not None:
            yield key, str(cell)
