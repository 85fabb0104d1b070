"""Which other files an ONNX file reads, told from its wire format before anything is loaded.

ONNX is protobuf (github.com/onnx/onnx, onnx.proto, checked 2026-11-29): a tensor may keep its numbers in another file,
named by the entry `location` of its `external_data`. Only the fields that lead to such tensors are followed. A location
may be hostile: a path out of the folder, or the marker by which ONNX Runtime names an address in memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from vrag.errors import UsageError
from vrag.media.names import shown

__all__ = ["external_files"]

_LEADS_TO: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Message -> number of a field -> the message in it."""

_MAX_FIELDS: Final = 2_000_000
"""A model of a thousand nodes has some ten thousand."""
_MAX_TEXT: Final = 4096


def external_files(model: Path) -> list[Path]:
    """The files beside `model` that it keeps weights in, sorted; they exist, and lie in its own folder.

    Raises:
        UsageError: It is no ONNX file, or it names a file that is missing, a link, or outside its folder.
    """
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = sorted(set(_locations(data)))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"'{shown(model.name)}' is no ONNX file that can be read: {error}.", hint="export the model again"
        ) from error
    for name in names:
        if name in {"", ".", ".."} or any(sign in name for sign in "/\\\0"):
            raise UsageError(
                f"'{shown(model.name)}' keeps weights in '{shown(name)}'; only a file beside it is read.",
                hint="export the model again, with all weights in one file",
            )
        beside = model.parent / name
        if beside.is_symlink() or not beside.is_file():
            raise UsageError(
                f"'{shown(model.name)}' keeps weights in '{shown(name)}', which is no file of its folder.",
                hint="copy the whole folder, links followed (cp -rL)",
            )
    return [model.parent / name for name in names]


def _locations(data: mmap.mmap) -> Iterator[str]:
    left = _MAX_FIELDS
    waiting = [("model", 0, len(data))]
    while waiting:
        message, at, end = waiting.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise ValueError(f"more than {_MAX_FIELDS} fields")
            number, start, stop, at = _field(data, at, end)
            inner = _LEADS_TO[message].get(number)
            if inner is None:
                continue
            if stop is None:
                raise ValueError("a message that is none")
            if inner != "entry":
                waiting.append((inner, start, stop))
            elif (location := _location(data, start, stop)) is not None:
                yield location


def _location(data: mmap.mmap, at: int, end: int) -> str | None:
    """The value of an entry whose key is `location`."""
    texts = {1: b"", 2: b""}
    while at < end:
        number, start, stop, at = _field(data, at, end)
        if number in texts and stop is not None:
            if stop - start > _MAX_TEXT:
                raise ValueError("a name of more than 4096 bytes")
            texts[number] = data[start:stop]
    return texts[2].decode("utf-8") if texts[1] == b"location" else None


def _field(data: mmap.mmap, at: int, end: int) -> tuple[int, int, int | None, int]:
    """Number, start and stop of its bytes (None for a number), and where the next one begins."""
    tag, at = _varint(data, at, end)
    number, kind = tag >> 3, tag & 7
    if not 1 <= number < 1 << 29:
        raise ValueError("a field without a number")
    start, stop = at, None
    if kind == 0:
        _, at = _varint(data, at, end)
    elif kind == 2:
        length, start = _varint(data, at, end)
        at = stop = start + length
    elif kind in {1, 5}:
        at += 8 if kind == 1 else 4
    else:
        raise ValueError(f"the wire type {kind}")
    if at > end:
        raise ValueError("it ends too early")
    return number, start, stop, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
