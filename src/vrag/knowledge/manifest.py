"""Pictures that a manifest lists: a CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from vrag.errors import UsageError
from vrag.knowledge.source_pictures import (
    COLUMNS,
    MAX_TEXT_BYTES,
    NotTaken,
    SourcePicture,
    is_below,
    open_regular,
    opener,
    picture_of,
    what_is_wrong,
)
from vrag.media.names import shown
from vrag.values.assets import CaptionSource
from vrag.values.canonical import JSON

__all__ = ["ManifestSource"]


class ManifestSource:
    """The pictures that a CSV (with a header) or JSONL file lists; their paths are relative to it and stay below it."""

    def __init__(self, path: Path | str, *, columns: Mapping[str, str] | None = None) -> None:
        """For the file at `path`.

        Args:
            path: `.csv`, or else JSON lines.
            columns: What its columns mean, such as `{"Beschreibung": "caption"}`, beside the names that are known
                (`file`, `caption`, `tags`, `licence` …; the case of letters does not matter).

        Raises:
            UsageError: There is no such meaning.
        """
        self._path = Path(path)
        self._columns = dict(COLUMNS)
        for name, meaning in (columns or {}).items():
            if meaning not in COLUMNS.values():
                allowed = ", ".join(sorted(set(COLUMNS.values())))
                raise UsageError(f"A column cannot mean '{shown(meaning)}'; it can mean: {allowed}.")
            # What the caller says replaces the guess: another column called so is metadata then.
            self._columns = {key: value for key, value in self._columns.items() if value != meaning or key == meaning}
            self._columns[name.strip().lower()] = meaning

    def __len__(self) -> int:
        return sum(1 for _ in self._rows())

    def __iter__(self) -> Iterator[SourcePicture | NotTaken]:
        root = str(self._path.parent)
        for number, row in self._rows():
            name = f"{shown(self._path.name)} line {number}"
            try:
                yield self._listed(root, row)
            except (OSError, ValueError, TypeError, RecursionError) as error:
                yield NotTaken(
                    name=name, code="bad_row", reason=f"Row {number} of the manifest: {what_is_wrong(error)}."
                )

    def _listed(self, root: str, row: JSON) -> SourcePicture:
        if isinstance(row, Exception):
            raise row
        file = next((row[key] for key in row if self._columns.get(key.strip().lower()) == "file"), None)
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            raise ValueError("it names no file; the column is called 'file'")
        path = os.path.join(root, file)  # noqa: PTH118  # as text, see `opener`
        if not is_below(path, root):
            raise ValueError(f"the file '{shown(file)}' lies outside the folder of the manifest")
        if not os.path.exists(path):  # noqa: PTH110  # as above
            raise ValueError(f"there is no file '{shown(file)}'")
        return picture_of(shown(file), opener(path, root), row, CaptionSource.MANIFEST, self._columns)

    def _rows(self) -> Iterator[tuple[int, JSON]]:
        """Line numbers and rows, or the exception that stands for a row."""
        with open_regular(str(self._path)) as stream:
            if self._path.suffix.lower() == ".csv":
                lines = (
                    line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(_lines(stream))
                )
                reader = csv.DictReader(lines, strict=True)
                try:
                    for row in reader:
                        if None in row or None in row.values():
                            yield reader.line_num, ValueError("it has not as many fields as the header")
                        else:
                            yield reader.line_num, {key: value for key, value in row.items() if value != ""}
                except (ValueError, csv.Error) as error:
                    yield reader.line_num + 1, ValueError(f"{what_is_wrong(error)}; nothing after it was read")
                return
            for number, line in enumerate(_lines(stream), start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8-sig"))
                    yield number, row if isinstance(row, dict) else TypeError("it is no JSON object")
                except (ValueError, RecursionError) as error:
                    yield number, error


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(MAX_TEXT_BYTES + 1):
        if len(line) > MAX_TEXT_BYTES:
            raise ValueError(f"a line is longer than {MAX_TEXT_BYTES} bytes")
        yield line
