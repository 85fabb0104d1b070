"""The first steps of an ingest: read a picture, see whether it was there before, decode it as proof, find look-alikes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Final

from attrs import evolve

from vrag.clock import Clock, rfc3339
from vrag.errors import ImageRejectedError, UsageError
from vrag.interfaces import VectorStore
from vrag.knowledge.captions import caption_of
from vrag.knowledge.duplicates import Looks, Seen
from vrag.knowledge.embedded import embedded_text
from vrag.knowledge.report import NearDuplicate
from vrag.knowledge.rows import asset_of
from vrag.knowledge.sources import NotTaken, SourcePicture
from vrag.knowledge.stages import Calls, Room
from vrag.knowledge.travelling import Chunk, Picture, last_part, merged
from vrag.media.fingerprint import fingerprint
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import load_image
from vrag.media.names import shown
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.assets import Asset, asset_id
from vrag.values.canonical import canonical_json

__all__ = ["CHUNK_PICTURES", "Drafting"]

CHUNK_PICTURES: Final = 64
CHUNK_BYTES: Final = 8 << 20
"""A chunk is closed at this many encoded bytes."""
BYTES_UNDER_WAY: Final = 128 << 20
"""So many encoded bytes are in memory at once, plus those that the readers hold."""
PIXELS_AT_ONCE: Final = 100_000_000
"""So many pixels are decoded at once."""
_DECODERS: Final = min(4, os.cpu_count() or 1)
_DRAFT_PX: Final = (256, 256)
"""Decoding for proof only: JPEG may decode smaller, every format reads all of its data."""


class Drafting:
    """What one run knows of the pictures that came so far. Reading may overlap; chunks are drafted one after the other."""

    def __init__(
        self, knowledge_base: str, *, store: VectorStore, clock: Clock, limits: ImageLimits, fold: bool
    ) -> None:
        """`fold` leaves out new pictures that look like another one."""
        self._knowledge_base = knowledge_base
        self._store = store
        self._clock = clock
        self._limits = limits
        self._fold = fold
        self._bytes = Room(BYTES_UNDER_WAY)
        self._pixels = Room(PIXELS_AT_ONCE)
        self._decoding = Calls(_DECODERS)
        self._looks: Looks | None = None
        self.seen = Seen()

    def stop(self) -> None:
        """Let nobody wait any longer, and end what is being decoded; twice is fine."""
        self._bytes.close()
        self._decoding.close()

    def forget(self) -> None:
        """Remove the temporary files."""
        self.seen.close()
        if self._looks is not None:
            self._looks.close()

    def read(self, entry: SourcePicture | NotTaken) -> Picture | NotTaken:
        """The picture with its bytes and what they say of it."""
        if isinstance(entry, NotTaken):
            return entry
        name = shown(entry.name)
        try:
            with entry.open() as stream:
                size_bytes = _size_of(stream)
                # One byte more than allowed, so that the one check of the size sees it.
                data = stream.read(self._limits.max_bytes + 1) if size_bytes <= self._limits.max_bytes else b""
        except OSError as error:
            why = error.strerror or str(error)
            return NotTaken(name=name, code="unreadable", reason=f"It cannot be read: {shown(why)}.")
        if (size_bytes := max(size_bytes, len(data))) > self._limits.max_bytes:
            mib, allowed = size_bytes / (1 << 20), self._limits.max_bytes / (1 << 20)
            return NotTaken(name=name, code="too_large", reason=f"'{name}' has {mib:.1f} MiB; {allowed:g} are allowed.")
        embedded = embedded_text(data)
        return Picture(
            name=name,
            key=asset_id(self._knowledge_base, sha256_hex(data)),
            source=entry,
            data=data,
            embedded=embedded,
            found=caption_of(entry.name, data, entry.caption, entry.caption_source, embedded=embedded),
        )

    def chunks(self, entries: Iterable[Picture | NotTaken]) -> Iterator[Chunk]:
        """Those entries in chunks; waits while too many bytes are under way."""
        chunk = Chunk()
        for entry in entries:
            size_bytes = len(entry.data or b"") if isinstance(entry, Picture) else 0
            if chunk.entries and chunk.size_bytes + size_bytes > CHUNK_BYTES:
                yield chunk
                chunk = Chunk()
            self._bytes.take(size_bytes)
            chunk.size_bytes += size_bytes
            chunk.entries.append(entry)
            if len(chunk.entries) >= CHUNK_PICTURES:
                yield chunk
                chunk = Chunk()
        if chunk.entries:
            yield chunk

    def done_with(self, chunk: Chunk) -> None:
        """Its bytes are no longer under way."""
        self._bytes.give(chunk.size_bytes)

    def draft(self, chunk: Chunk) -> Chunk:
        """Give every picture the asset it starts from, and replace the entries of those that are not taken."""
        return self._prepare(chunk, self._decoded)

    def glance(self, chunk: Chunk) -> Chunk:
        """The same from the headers alone."""
        return self._prepare(chunk, self._glanced)

    def _prepare(self, chunk: Chunk, make: Callable[[Picture], Picture | NotTaken]) -> Chunk:
        chunk.known = {row.key: row for row in self._store.get(list(dict.fromkeys(p.key for p in chunk.pictures)))}
        assets = {key: asset_of(row) for key, row in chunk.known.items()}
        made = iter(self._decoding.map(make, [p for p in chunk.pictures if p.key not in assets]))
        entries, chunk.entries = chunk.entries, []
        for entry in entries:
            judged: Picture | NotTaken | NearDuplicate = entry
            if isinstance(entry, Picture):
                if entry.key in assets:
                    entry.base, entry.data = assets[entry.key], None
                else:
                    judged = next(made)
            chunk.entries.append(self._judged(judged) if isinstance(judged, Picture) else judged)
        return chunk

    def _judged(self, picture: Picture) -> Picture | NotTaken | NearDuplicate:
        if (erased_at := picture.start.erased_at) is not None:
            reason = f"Its bytes were deleted by decision at {erased_at}; they are not taken again."
            return NotTaken(name=picture.name, code="erased", reason=reason, skipped=True)
        picture.first = self.seen.first_name(picture.key)
        try:
            canonical_json(merged(picture.start, picture, None))  # refuses what could not be stored, before anything is
        except UsageError as error:  # metadata without canonical JSON, a day that is no day
            return NotTaken(name=picture.name, code="bad_metadata", reason=error.message)
        if picture.first is not None:
            picture.data = None
            return picture
        if picture.data is not None and picture.fingerprint is not None:
            if self._looks is None:
                self._looks = _looks_of(self._store)
            sha256 = picture.key[-64:]
            if (near := self._looks.nearest(picture.fingerprint, sha256)) is not None:
                picture.near = NearDuplicate(
                    name=picture.name, like=near[0], like_id=asset_id(self._knowledge_base, near[0]), bits=near[1]
                )
                if self._fold:
                    return evolve(picture.near, folded=True)
            self._looks.add(picture.fingerprint, sha256)
        self.seen.add(picture.key, picture.name)
        return picture

    def _decoded(self, picture: Picture) -> Picture | NotTaken:
        """A picture with the asset that it would be, after its pixels were decoded once as proof."""
        data = picture.data or b""
        try:
            opened = open_image(data, picture.name, self._limits)
            pixels = opened.width_px * opened.height_px
            self._pixels.take(pixels)
            try:
                loaded = load_image(data, picture.name, limits=self._limits, draft_px=_DRAFT_PX)
                picture.fingerprint = fingerprint(loaded.pixels)
            finally:
                self._pixels.give(pixels)
        except ImageRejectedError as error:
            return NotTaken(name=picture.name, code=error.code, reason=error.message)
        picture.base = self._fresh(picture, loaded.media_type, (loaded.width_px, loaded.height_px), loaded.notes)
        return picture

    def _glanced(self, picture: Picture) -> Picture | NotTaken:
        """As `_decoded`, from the header alone."""
        try:
            opened = open_image(picture.data or b"", picture.name, self._limits)
        except ImageRejectedError as error:
            return NotTaken(name=picture.name, code=error.code, reason=error.message)
        picture.base = self._fresh(picture, opened.media_type, (opened.width_px, opened.height_px), ())
        return picture

    def _fresh(self, picture: Picture, media_type: str, size_px: tuple[int, int], notes: Sequence[str]) -> Asset:
        original = MediaRef(
            sha256=picture.key[-64:],
            media_type=media_type,
            size_bytes=len(picture.data or b""),
            width_px=size_px[0],
            height_px=size_px[1],
        )
        return Asset(
            id=picture.key,
            knowledge_base=self._knowledge_base,
            original=original,
            file_name=last_part(picture.name),
            ingested_at=rfc3339(self._clock.now()),
            notes=tuple(notes),
        )


def _size_of(stream: BinaryIO) -> int:
    """How long it is, where it can tell; nothing of it is read."""
    if not stream.seekable():
        return 0
    size_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return size_bytes


def _looks_of(store: VectorStore) -> Looks:
    looks = Looks()
    for row in store.scan():
        if isinstance(look := row.fields.get("fingerprint"), str):
            looks.add(look, row.key[-64:])
    return looks
