"""Where pictures come from: a folder, a manifest, one file, or the memory of a program that embeds us.

A source is an iterable of `SourcePicture`, and of `NotTaken` for what it will not hand over; it opens no picture itself.
Captions come, in this order, from the manifest, from a sidecar file (`photo.txt`, `photo.json`), from the picture's own
metadata, from its file name; see `caption_of`.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal

from attrs import field, frozen

from vrag.errors import NotFoundError, UsageError
from vrag.knowledge.captions import clean_text
from vrag.knowledge.rights import rights_end
from vrag.media.names import shown
from vrag.media.ref import sha256_hex
from vrag.values.assets import CaptionSource, Rights
from vrag.values.canonical import JSON

__all__ = [
    "FolderSource",
    "ManifestSource",
    "NotTaken",
    "Source",
    "SourcePicture",
    "judged_by_suffix",
    "open_source",
    "read_capped",
    "sidecar_names",
    "source_id",
    "with_sidecar",
]

PICTURE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .heic .heif .mpo .gif .bmp .tif .tiff .svg .eps .psd .jp2 .jxl".split()  # noqa: SIM905  # a list of words reads better as words
)
"""Files with these names are looked at; which of them are taken is decided by their content."""
BESIDE_SUFFIXES: Final = frozenset(".txt .json .jsonl .csv .xmp .md .db .ini .aae .thm".split())  # noqa: SIM905  # as above
"""Files that lie beside pictures and are none: not worth a word in the report."""
_MANIFEST_SUFFIXES: Final = frozenset({".csv", ".jsonl", ".ndjson"})
_MAX_TEXT_BYTES: Final = 1 << 20
"""Of a sidecar, and of a line of a manifest."""

_COLUMNS: Final[Mapping[str, str]] = {
    alias: column
    for column, aliases in {
        "file": ("file", "file_name", "filename", "path", "image", "picture"),
        "caption": ("caption", "description", "alt", "alt_text"),
        "tags": ("tags", "keywords"),
        "licence": ("licence", "license"),
        "holder": ("holder", "rights_holder", "copyright_holder"),
        "territory": ("territory",),
        "expires_on": ("expires_on", "expires", "expiry"),
        "releases": ("releases",),
        "notes": ("notes",),
    }.items()
    for alias in aliases
}
"""Names of columns (in lower case) and what they mean; every other column goes into the metadata."""


@frozen(kw_only=True)
class SourcePicture:
    """A picture to ingest, not opened yet. None is "not stated": what the knowledge base has already is kept."""

    name: str
    """Its path inside the source, or any name; text for people."""
    open: Callable[[], BinaryIO] = field(repr=False)
    """Opens its bytes; called once."""
    caption: str | None = None
    caption_source: CaptionSource = CaptionSource.MANIFEST
    """Where `caption` is from, if there is one."""
    tags: tuple[str, ...] | None = None
    rights: Rights | None = None
    metadata: JSON = None
    """A JSON object of the caller, or None."""

    def __attrs_post_init__(self) -> None:
        if self.rights is not None and self.rights.expires_on is not None:
            rights_end(self.rights.expires_on)

    @classmethod
    def from_bytes(
        cls,
        name: str,
        data: bytes,
        *,
        caption: str | None = None,
        tags: Sequence[str] | None = None,
        rights: Rights | None = None,
        metadata: JSON = None,
    ) -> SourcePicture:
        """A picture that is in memory already."""
        return cls(
            name=name,
            open=lambda: BytesIO(data),
            caption=caption,
            tags=None if tags is None else tuple(tags),
            rights=rights,
            metadata=metadata,
        )


@frozen(kw_only=True)
class NotTaken:
    """Something in a source that was not ingested."""

    name: str
    code: str
    """Machine-readable: `unknown_suffix`, `symlink`, `undecodable` …"""
    reason: str
    """For people; what to do about it where that is known."""
    skipped: bool = False
    """It is no picture (or lies outside the source), so nothing is missing."""


Source = Iterable[SourcePicture | NotTaken]
"""With a `len` where it knows how many pictures there are."""


def open_source(source: Path | str | Source) -> Source:
    """A source for a folder, a manifest (`.csv`, `.jsonl`), one picture, or an iterable (which comes back as it is).

    Raises:
        NotFoundError: Nothing is at that path.
    """
    if not isinstance(source, Path | str):
        return source
    path = Path(source)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise NotFoundError(f"There is no folder or file '{shown(str(path))}' to ingest.", hint="check the path")
    if path.suffix.lower() in _MANIFEST_SUFFIXES:
        return ManifestSource(path)
    real = Path(os.path.realpath(path))
    return FolderSource(real.parent, only=real.name)


def source_id(kind: str, place: str) -> str:
    """A short name for a place that says nothing about it."""
    return sha256_hex(f"{kind}\0{place}".encode("utf-8", "surrogateescape"))[:16]


class FolderSource:
    """Every picture below a folder, sorted by path. Hidden files are left out, and no link leads out of the folder."""

    def __init__(self, root: Path | str, *, only: str | None = None) -> None:
        """For all of `root`, or for the one file `only` in it."""
        self._root = Path(root)
        self._only = only

    @property
    def source_id(self) -> str | None:
        """Names the folder in the index, so that pictures that vanish from it can be told; None for one file."""
        return None if self._only is not None else source_id("folder", os.path.realpath(self._root))

    def __len__(self) -> int:
        return sum(isinstance(_judged(self._root, path), Path) for path in self._paths([]))

    def __iter__(self) -> Iterator[SourcePicture | NotTaken]:
        problems: list[NotTaken] = []
        for path in self._paths(problems):
            yield from problems
            problems.clear()
            judged = _judged(self._root, path)
            if isinstance(judged, NotTaken):
                yield judged
            elif judged is not None:
                yield _with_sidecar(self._root, judged)
        yield from problems

    def _paths(self, problems: list[NotTaken]) -> Iterator[Path]:
        if self._only is not None:
            yield self._root / self._only
            return

        def unreadable(error: OSError) -> None:
            name = shown(os.path.relpath(str(error.filename), self._root))
            problems.append(
                NotTaken(name=name, code="unreadable", reason=f"The folder cannot be read: {error.strerror}.")
            )

        for folder, folders, files in os.walk(self._root, onerror=unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            for name in folders:
                path = Path(folder, name)
                if path.is_symlink():
                    yield path
            for name in sorted(files):
                if not name.startswith("."):
                    yield Path(folder, name)


def _judged(root: Path, path: Path) -> Path | NotTaken | None:
    """The path if it is to be read; None for what goes without saying."""
    name = shown(os.path.relpath(path, root))
    if path.is_symlink() and (path.is_dir() or not _is_below(path, root)):
        reason = "It is a link, and links are not followed out of the folder, nor to folders."
        return NotTaken(name=name, code="symlink", reason=reason, skipped=True)
    return path if (judged := judged_by_suffix(name, path.suffix)) is True else judged


def judged_by_suffix(name: str, suffix: str) -> NotTaken | Literal[True] | None:
    """True for a name to look at; None for what goes without saying."""
    suffix = suffix.lower()
    if suffix in BESIDE_SUFFIXES:
        return None
    if suffix not in PICTURE_SUFFIXES:
        reason = f"Its name does not end as that of a picture ('{shown(suffix)}')."
        return NotTaken(name=name, code="unknown_suffix", reason=reason, skipped=True)
    return True


def _with_sidecar(root: Path, path: Path) -> SourcePicture | NotTaken:
    name = shown(PurePosixPath(path.relative_to(root)).as_posix())
    beside = next(
        (path.with_name(one) for one in sidecar_names(path.name) if os.path.lexists(path.with_name(one))), None
    )
    return with_sidecar(
        name,
        _opener(path, root),
        None if beside is None else beside.name,
        lambda: read_capped(_opener(beside or path, root)()),
    )


def sidecar_names(name: str) -> tuple[str, ...]:
    """Where the words for a picture may lie, best first."""
    # `photo.jpg.json` is how some photo services export; `photo.json` is the plain way.
    stem = name.rpartition(".")[0]
    return (f"{name}.json", f"{stem}.json", f"{name}.txt", f"{stem}.txt")


def with_sidecar(
    name: str, opened: Callable[[], BinaryIO], beside: str | None, read: Callable[[], str]
) -> SourcePicture | NotTaken:
    """The picture with what its sidecar `beside` says, which `read` reads."""
    if beside is None:
        return SourcePicture(name=name, open=opened)
    try:
        text = read()
        if beside.lower().endswith(".json"):
            return picture_of(name, opened, json.loads(text), CaptionSource.SIDECAR)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return _bad_sidecar(name, beside, error)
    return SourcePicture(name=name, open=opened, caption=clean_text(text), caption_source=CaptionSource.SIDECAR)


def _bad_sidecar(name: str, beside: str, error: Exception) -> NotTaken:
    # Not taken without it: it may say until when the picture may be used.
    return NotTaken(
        name=name,
        code="bad_sidecar",
        reason=f"Its sidecar '{shown(beside)}' cannot be used: {_plain(error)}. Repair or remove it.",
    )


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
        self._columns = dict(_COLUMNS)
        for name, meaning in (columns or {}).items():
            if meaning not in _COLUMNS.values():
                allowed = ", ".join(sorted(set(_COLUMNS.values())))
                raise UsageError(f"A column cannot mean '{shown(meaning)}'; it can mean: {allowed}.")
            # What the caller says replaces the guess: another column called so is metadata then.
            self._columns = {key: value for key, value in self._columns.items() if value != meaning or key == meaning}
            self._columns[name.strip().lower()] = meaning

    def __len__(self) -> int:
        return sum(1 for _ in self._rows())

    def __iter__(self) -> Iterator[SourcePicture | NotTaken]:
        root = self._path.parent
        for number, row in self._rows():
            name = f"{shown(self._path.name)} line {number}"
            try:
                yield self._listed(root, row)
            except (OSError, ValueError, TypeError, RecursionError) as error:
                yield NotTaken(name=name, code="bad_row", reason=f"Row {number} of the manifest: {_plain(error)}.")

    def _listed(self, root: Path, row: JSON) -> SourcePicture:
        if isinstance(row, Exception):
            raise row
        file = next((row[key] for key in row if self._columns.get(key.strip().lower()) == "file"), None)
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            raise ValueError("it names no file; the column is called 'file'")
        path = root / file
        if not _is_below(path, root):
            raise ValueError(f"the file '{shown(file)}' lies outside the folder of the manifest")
        if not path.exists():
            raise ValueError(f"there is no file '{shown(file)}'")
        return picture_of(shown(file), _opener(path, root), row, CaptionSource.MANIFEST, self._columns)

    def _rows(self) -> Iterator[tuple[int, JSON]]:
        """Line numbers and rows, or the exception that stands for a row."""
        with _open_regular(self._path) as stream:
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
                    yield reader.line_num + 1, ValueError(f"{_plain(error)}; nothing after it was read")
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
    while line := stream.readline(_MAX_TEXT_BYTES + 1):
        if len(line) > _MAX_TEXT_BYTES:
            raise ValueError(f"a line is longer than {_MAX_TEXT_BYTES} bytes")
        yield line


def picture_of(
    name: str,
    opened: Callable[[], BinaryIO],
    row: JSON,
    source: CaptionSource,
    columns: Mapping[str, str] = _COLUMNS,
) -> SourcePicture:
    """A row of a manifest, or a JSON sidecar, as a picture; ValueError or TypeError says what is wrong with it."""
    if not isinstance(row, dict):
        raise TypeError("it is no JSON object")
    stated: dict[str, JSON] = {}
    metadata: dict[str, JSON] = {}
    for key, value in row.items():
        column = columns.get(key.strip().lower())
        if column is None or column in stated:
            metadata[key] = value
        elif value is not None:
            stated[column] = value
    stated.pop("file", None)
    words = {column: _words(column, stated.pop(column)) for column in ("tags", "releases") if column in stated}
    for column, value in stated.items():
        if not isinstance(value, str):
            raise TypeError(f"'{column}' is text, not a {type(value).__name__}")
    caption = stated.pop("caption", None)
    rights = Rights(
        **{column: clean_text(value) for column, value in stated.items()}, releases=words.get("releases", ())
    )
    return SourcePicture(
        name=name,
        open=opened,
        caption=None if caption is None else clean_text(caption),
        caption_source=source,
        tags=words.get("tags"),
        rights=rights if rights != Rights() else None,
        metadata=metadata or None,
    )


def _words(column: str, value: JSON) -> tuple[str, ...]:
    """A list of texts, or one text with `;` or `,` between its parts; each once, in order."""
    if isinstance(value, str):
        value = value.split(";" if ";" in value else ",")
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise TypeError(f"'{column}' is a list of texts, or one text with ';' between them")
    return tuple(dict.fromkeys(word for part in value if (word := clean_text(part, limit=100))))


def _is_below(path: Path, root: Path) -> bool:
    # realpath: unlike Path.resolve it never raises, not for a ring of links either
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _opener(path: Path, root: Path) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        # Looked at again: since it was listed, a link may have taken its place.
        if not _is_below(path, root):
            raise PermissionError("it is a link out of the folder")
        return _open_regular(path)

    return opened


def _open_regular(path: Path) -> BinaryIO:
    # A pipe called photo.jpg would be waited for without end.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(number, "rb")
    if not stat.S_ISREG(os.fstat(number).st_mode):
        stream.close()
        raise PermissionError("it is no regular file")
    return stream


def read_capped(stream: BinaryIO) -> str:
    """The text of a sidecar; ValueError where it is too large or no UTF-8."""
    with stream:
        data = stream.read(_MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise ValueError(f"it is larger than {_MAX_TEXT_BYTES} bytes")
    return data.decode("utf-8-sig")


def _plain(error: Exception) -> str:
    """What went wrong, without paths, objects or addresses."""
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case json.JSONDecodeError():
            return f"it is not JSON ({error.msg})"
        case RecursionError():
            return "it is nested too deeply"
        case UsageError():
            return error.message.rstrip(".")
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)
