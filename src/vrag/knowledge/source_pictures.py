"""A picture to ingest that nobody opened yet, what lies beside it, and how files are opened without being led astray."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import BinaryIO, Final, Literal

from attrs import field, frozen

from vrag.errors import UsageError
from vrag.knowledge.captions import clean_text
from vrag.knowledge.rights import rights_end
from vrag.media.names import shown
from vrag.media.ref import sha256_hex
from vrag.values.assets import CaptionSource, Rights
from vrag.values.canonical import JSON

__all__ = [
    "COLUMNS",
    "MAX_TEXT_BYTES",
    "NotTaken",
    "Source",
    "SourcePicture",
    "is_below",
    "judged_by_suffix",
    "open_regular",
    "opener",
    "picture_of",
    "read_capped",
    "sidecar_names",
    "source_id",
    "what_is_wrong",
    "with_sidecar",
]

PICTURE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .heic .heif .mpo .gif .bmp .tif .tiff .svg .eps .psd .jp2 .jxl".split()  # noqa: SIM905  # a list of words reads better as words
)
"""Files with these names are looked at; which of them are taken is decided by their content."""
BESIDE_SUFFIXES: Final = frozenset(".txt .json .jsonl .csv .xmp .md .db .ini .aae .thm".split())  # noqa: SIM905  # as above
"""Files that lie beside pictures and are none: not worth a word in the report."""
MAX_TEXT_BYTES: Final = 1 << 20
"""Of a sidecar, and of a line of a manifest."""

COLUMNS: Final[Mapping[str, str]] = {
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


def source_id(kind: str, place: str) -> str:
    """A short name for a place that says nothing about it."""
    return sha256_hex(f"{kind}\0{place}".encode("utf-8", "surrogateescape"))[:16]


def judged_by_suffix(name: str, suffix: str) -> NotTaken | Literal[True] | None:
    """True for a name to look at; None for what goes without saying."""
    suffix = suffix.lower()
    if suffix in BESIDE_SUFFIXES:
        return None
    if suffix not in PICTURE_SUFFIXES:
        reason = f"Its name does not end as that of a picture ('{shown(suffix)}')."
        return NotTaken(name=name, code="unknown_suffix", reason=reason, skipped=True)
    return True


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
        reason=f"Its sidecar '{shown(beside)}' cannot be used: {what_is_wrong(error)}. Repair or remove it.",
    )


def picture_of(
    name: str,
    opened: Callable[[], BinaryIO],
    row: JSON,
    source: CaptionSource,
    columns: Mapping[str, str] = COLUMNS,
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


def is_below(path: str, root: str) -> bool:
    """Whether `path` lies in `root` after all links were followed."""
    # realpath: unlike Path.resolve it never raises, not for a ring of links either
    real, folder = (os.path.normcase(os.path.realpath(one)) for one in (path, root))
    return real == folder or real.startswith(folder.rstrip(os.sep) + os.sep)


def opener(path: str, root: str) -> Callable[[], BinaryIO]:
    """Opens a file of `root`. Paths are plain text here: `pathlib` keeps the parts of each in a table of the process."""

    def opened() -> BinaryIO:
        # Looked at again: since it was listed, a link may have taken its place.
        if not is_below(path, root):
            raise PermissionError("it is a link out of the folder")
        return open_regular(path)

    return opened


def open_regular(path: str) -> BinaryIO:
    """Open a file that is no pipe and no device."""
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
        data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"it is larger than {MAX_TEXT_BYTES} bytes")
    return data.decode("utf-8-sig")


def what_is_wrong(error: Exception) -> str:
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
