"""A knowledge base as a folder or one tar file: pictures, reviews, words and vectors, each under a digest.

```text
vrag-knowledge-base.json   name, embedding space, counts, and size and SHA-256 of the next three files
assets.jsonl               a row a picture, in order of its digest: {"asset": …, "vector": true, "fingerprint": …, "sources": …}
documents.jsonl            deletions and reviews as the storage has them, in order of name: {"name": …, "document": …}
vectors.f32                little-endian float32, a row for each picture that says so, in the same order
media/<sha256>             the original bytes, in the same order; none of a picture whose bytes were deleted
```

Whatever the size, a few rows and one picture are in memory. No embedder takes part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Final

import numpy as np
from attrs import asdict, evolve, frozen
from numpy.typing import NDArray

from vrag.clock import Clock, rfc3339
from vrag.errors import (
    AlreadyExistsError,
    FormatVersionError,
    ImageRejectedError,
    ProvenanceError,
    SpaceMismatchError,
    UsageError,
    VerificationError,
)
from vrag.interfaces import Storage, VectorStore
from vrag.knowledge.archive import Archive, check_digest, open_archive, staging
from vrag.knowledge.erasure import Erasure, open_or_erased
from vrag.knowledge.ingest import Progress
from vrag.knowledge.review import TRANSITIONS, Reviews
from vrag.knowledge.rights import rights_end
from vrag.knowledge.rows import asset_of, record_of, sources_of
from vrag.knowledge.sources import NotTaken
from vrag.media.header import ImageLimits, open_image
from vrag.media.names import shown
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON, canonical_json, from_json, to_json
from vrag.values.vectors import EmbeddingSpace, VectorRecord

__all__ = ["Exported", "Imported", "export_parts", "import_parts"]

_FORMAT: Final = 1
_HEADER: Final = "vrag-knowledge-base.json"
_ASSETS: Final = "assets.jsonl"
_DOCUMENTS: Final = "documents.jsonl"
_VECTORS: Final = "vectors.f32"
_MAX_HEADER_BYTES: Final = 64 << 10
_MAX_DOCUMENT_BYTES: Final = 64 << 10
_MAX_LINE_BYTES: Final = 1 << 20
_BATCH: Final = 64
_DOCUMENT = re.compile(r"(?P<kind>erased|reviews)/(?P<sha256>[0-9a-f]{64})(?:/(?P<number>[0-9]{6}))?\.json")


@frozen(kw_only=True)
class Exported:
    """What was written."""

    path: Path
    pictures: int
    documents: int
    """Reviews and deletions."""
    vectors: int


@frozen(kw_only=True)
class Imported:
    """What became of an export."""

    new: int = 0
    """Pictures that were not here."""
    kept: int = 0
    """Pictures that were here already; their words, rights and vectors stay as they are."""
    reviews: int = 0
    """Decisions that were not here."""
    conflicts: tuple[str, ...] = ()
    """Ids of pictures about which both sides decided differently: what is here holds, and a revocation of either."""
    rejected: tuple[NotTaken, ...] = ()
    """Pictures that the limits of this knowledge base refuse."""

    @property
    def ok(self) -> bool:
        """Nothing was rejected or contradicted."""
        return not self.rejected and not self.conflicts


# -- out


def export_parts(
    name: str, *, store: VectorStore, storage: Storage, path: Path, clock: Clock, progress: Progress | None = None
) -> Exported:
    """See `KnowledgeBase.export_to`."""
    with staging(path) as out:
        pictures, vectors = _write_assets(name, store, out.folder)
        documents = _write_documents(name, storage, out.folder)
        header = {
            "format": _FORMAT,
            "name": name,
            "created_at": rfc3339(clock.now()),
            "space": None if store.space is None else asdict(store.space),
            "pictures": pictures,
            "documents": documents,
            "vectors": vectors,
            "files": {file: _described(out.folder / file) for file in (_ASSETS, _DOCUMENTS, _VECTORS)},
        }
        (out.folder / _HEADER).write_bytes(canonical_json(header))
        out.begin(_HEADER, _ASSETS, _DOCUMENTS, _VECTORS)
        with (out.folder / _ASSETS).open("rb") as lines:
            for done, row in enumerate(_rows(lines, _ASSETS), start=1):
                asset = from_json(Asset, row["asset"])
                if asset.erased_at is None:
                    with open_or_erased(storage, asset.original) as stream:
                        ref = asset.original
                        out.add(f"media/{ref.sha256}", stream, sha256=ref.sha256, size_bytes=ref.size_bytes)
                if progress is not None:
                    progress(done, pictures, asset.file_name)
    return Exported(path=path, pictures=pictures, documents=documents, vectors=vectors)


def _write_assets(name: str, store: VectorStore, folder: Path) -> tuple[int, int]:
    pictures = vectors = 0
    with (folder / _ASSETS).open("xb") as rows, (folder / _VECTORS).open("xb") as numbers:
        for record in store.scan():
            if not record.key.startswith(f"{name}/"):
                continue
            pictures += 1
            row = {
                "asset": to_json(asset_of(record)),
                "vector": record.vector is not None,
                "fingerprint": record.fields.get("fingerprint"),
                "sources": list(sources_of(record)),
            }
            rows.write(canonical_json(row) + b"\n")
            if record.vector is not None:
                vectors += 1
                numbers.write(np.asarray(record.vector, dtype="<f4").tobytes())
    return pictures, vectors


def _write_documents(name: str, storage: Storage, folder: Path) -> int:
    checked = _Histories(name)
    with (folder / _DOCUMENTS).open("xb") as out:
        for prefix in ("erased/", "reviews/"):
            for document_name in storage.list(prefix):
                with storage.open(document_name) as stream:
                    data = stream.read(_MAX_DOCUMENT_BYTES + 1)
                try:
                    document = json.loads(data) if len(data) <= _MAX_DOCUMENT_BYTES else None
                except (ValueError, RecursionError):
                    document = None
                checked.check(document_name, document)
                out.write(canonical_json({"name": document_name, "document": document}) + b"\n")
    return checked.count


def _described(path: Path) -> JSON:
    with path.open("rb") as file:
        return {"size_bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# -- in


def import_parts(
    name: str,
    *,
    store: VectorStore,
    storage: Storage,
    reviews: Reviews,
    limits: ImageLimits,
    path: Path,
    writing: RLock,
    progress: Progress | None = None,
) -> Imported:
    """See `KnowledgeBase.import_from`."""
    with open_archive(path) as archive:
        header = _header(archive, name, store.space)
        assets, documents, vectors = (
            _described_file(archive, header, file) for file in (_ASSETS, _DOCUMENTS, _VECTORS)
        )
        run = _Import(name, store=store, storage=storage, reviews=reviews, limits=limits, writing=writing)
        # Decisions first: no picture is ever here without the revocation that came with it.
        run.take_documents(documents)
        run.take_assets(archive, assets, vectors, total=header["pictures"], progress=progress)
        archive.finish()
    return Imported(
        new=run.new,
        kept=run.kept,
        reviews=run.decisions,
        conflicts=tuple(run.conflicts),
        rejected=tuple(run.rejected),
    )


def _header(archive: Archive, name: str, space: EmbeddingSpace | None) -> JSON:
    stream, size_bytes = archive.file(_HEADER)
    header: JSON = None
    theirs: EmbeddingSpace | None = None
    newer = False
    try:
        header = json.loads(stream.read(_MAX_HEADER_BYTES)) if size_bytes <= _MAX_HEADER_BYTES else None
        version = header["format"]
        newer = isinstance(version, int) and version > _FORMAT
        theirs = None if header["space"] is None else from_json(EmbeddingSpace, header["space"])
        sound = not newer and (
            version == _FORMAT
            and isinstance(header["name"], str)
            and all(_is_count(header[key]) for key in ("pictures", "vectors"))
            and all(
                _is_count(header["files"][file]["size_bytes"]) and isinstance(header["files"][file]["sha256"], str)
                for file in (_ASSETS, _DOCUMENTS, _VECTORS)
            )
            and header["files"][_VECTORS]["size_bytes"]
            == header["vectors"] * 4 * (0 if theirs is None else theirs.dimension)
        )
    except (ValueError, KeyError, TypeError, RecursionError):  # UsageError of `from_json` is a ValueError
        sound = False
    if newer:
        raise FormatVersionError(
            f"The export has format {header['format']}; this release reads up to {_FORMAT}.",
            hint="pip install --upgrade vrag",
        )
    if not sound:
        raise UsageError(f"'{_HEADER}' of the export cannot be read, or contradicts itself.")
    if header["name"] != name:
        raise UsageError(
            f"This is an export of the knowledge base {header['name'][:63]!a}, not of '{name}'; pictures and approvals "
            "of one department do not become those of another.",
            hint="import it under its own name",
        )
    if theirs != space:
        raise SpaceMismatchError(
            f"The export holds vectors of {theirs or 'no space (words only)'}, and the index of '{name}' those of "
            f"{space or 'no space (words only)'}.",
            hint=f"import it with the embedder of the export, then: vrag kb reindex --kb {name}",
        )
    return header


def _described_file(archive: Archive, header: JSON, name: str) -> BinaryIO:
    stream, size_bytes = archive.file(name)
    stated = header["files"][name]
    if size_bytes != stated["size_bytes"]:
        raise VerificationError(
            f"'{name}' has {size_bytes} bytes; the export says {stated['size_bytes']}.", promise="export"
        )
    check_digest(stream, name, stated["sha256"])
    return stream


class _Histories:
    """Goes along documents in order of name, and lets through only what a storage of this knowledge base can hold."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last_name = ""
        self._held: Review | None = None
        self.count = 0

    def check(self, document_name: object, document: JSON) -> tuple[str, Review | Erasure]:
        """The digest that a document is about, and what it says.

        Raises:
            VerificationError: It is out of order, cannot be read, or may not follow the one before it.
        """
        match = _DOCUMENT.fullmatch(document_name) if isinstance(document_name, str) else None
        said: Review | Erasure | None = None
        if match and isinstance(document, dict) and document.get("format") == 1 and len(document) == 2:
            try:
                if match["kind"] == "erased" and match["number"] is None:
                    said = from_json(Erasure, document["erasure"])
                elif match["kind"] == "reviews" and match["number"] is not None:
                    said = self._next(from_json(Review, document["review"]), int(match["number"]))
            except (UsageError, KeyError):
                said = None
        in_order = isinstance(document_name, str) and document_name > self._last_name
        if match is None or said is None or not in_order or said.asset_id != f"{self._name}/{match['sha256']}":
            shown_name = f"{document_name[:120]!a}" if isinstance(document_name, str) else "without a name"
            raise VerificationError(
                f"The document {shown_name} of '{self._name}' cannot be read, is out of order, or is about something else.",
                promise="reviews are complete and readable",
            )
        self._last_name = str(document_name)
        self.count += 1
        return match["sha256"], said

    def _next(self, review: Review, number: int) -> Review | None:
        held = self._held if self._held and self._held.asset_id == review.asset_id else None
        follows = review.sequence == number == (0 if held is None else held.sequence + 1)
        allowed = TRANSITIONS[ReviewState.PROPOSED if held is None else held.state]
        if not follows or review.state not in allowed:
            return None
        self._held = review
        return review


class _Import:
    """One import in the making."""

    def __init__(
        self,
        name: str,
        *,
        store: VectorStore,
        storage: Storage,
        reviews: Reviews,
        limits: ImageLimits,
        writing: RLock,
    ) -> None:
        self._name = name
        self._store = store
        self._storage = storage
        self._reviews = reviews
        self._limits = limits
        self._writing = writing
        self.new = self.kept = self.decisions = 0
        self.conflicts: list[str] = []
        self.rejected: list[NotTaken] = []

    def take_documents(self, stream: BinaryIO) -> None:
        """Add what is not here; from the first contradiction on only a revocation of theirs is followed."""
        checked = _Histories(self._name)
        last: Review | None = None
        contradicted = False
        for row in _rows(stream, _DOCUMENTS):
            sha256, said = checked.check(row.get("name"), row.get("document"))
            if last is not None and last.asset_id != said.asset_id:
                self._settle(last, contradicted=contradicted)
                last, contradicted = None, False
            data = canonical_json(row["document"])
            if isinstance(said, Erasure):
                # What is here is not deleted by an import.
                if not self._storage.exists(_bytes_of(sha256)):
                    self._put(row["name"], data)
                continue
            if not contradicted:
                contradicted = not self._put(row["name"], data)
            last = said
        if last is not None:
            self._settle(last, contradicted=contradicted)

    def _put(self, name: str, data: bytes) -> bool:
        """Whether the storage now says this under that name."""
        try:
            self._storage.put_named(name, BytesIO(data))
        except AlreadyExistsError:
            with self._storage.open(name) as stream:
                return stream.read(_MAX_DOCUMENT_BYTES + 1) == data
        self.decisions += name.startswith("reviews/")
        return True

    def _settle(self, last: Review, *, contradicted: bool) -> None:
        if not contradicted:
            return
        self.conflicts.append(last.asset_id)
        if last.state is ReviewState.REVOKED:
            self._reviews.add_for_bytes(last.asset_id, last.state, by=last.by, reason=last.reason)

    def take_assets(
        self, archive: Archive, rows: BinaryIO, vectors: BinaryIO, *, total: int, progress: Progress | None
    ) -> None:
        """Keep the bytes, then index, a batch at a time."""
        waiting: list[VectorRecord] = []
        last = ""
        for done, row in enumerate(_rows(rows, _ASSETS), start=1):
            asset = self._asset(row, last)
            last = asset.id
            record = record_of(
                asset,
                self._vector(vectors) if row["vector"] else None,
                ReviewState.PROPOSED,
                fingerprint=row["fingerprint"],
                sources=tuple(row["sources"]),
            )
            if self._keep_bytes(archive, asset):
                waiting.append(record)
            if len(waiting) >= _BATCH:
                self._index(waiting)
                waiting = []
            if progress is not None:
                progress(done, total, asset.file_name)
        self._index(waiting)
        if vectors.read(1):
            raise VerificationError(f"'{_VECTORS}' has more rows than pictures ask for.", promise="export")

    def _asset(self, row: JSON, last: str) -> Asset:
        try:
            asset = from_json(Asset, row["asset"])
            if asset.rights.expires_on is not None:
                rights_end(asset.rights.expires_on)
            sound = (
                set(row) == {"asset", "vector", "fingerprint", "sources"}
                and isinstance(row["vector"], bool)
                and isinstance(row["fingerprint"], str | None)
                and isinstance(row["sources"], list)
                and all(isinstance(one, str) for one in row["sources"])
            )
        except (KeyError, TypeError, UsageError) as error:
            raise VerificationError(f"A row of '{_ASSETS}' is no picture: {_reason(error)}", promise="export") from None
        if (
            not sound
            or asset.knowledge_base != self._name
            or asset.id != f"{self._name}/{asset.original.sha256}"
            or asset.id <= last
        ):
            raise VerificationError(
                f"A row of '{_ASSETS}' ({asset.id[:150]!a}) is out of order, or of another knowledge base.",
                promise="export",
            )
        return asset

    def _vector(self, vectors: BinaryIO) -> NDArray[np.float32]:
        dimension = 0 if self._store.space is None else self._store.space.dimension
        data = vectors.read(4 * dimension)
        vector = np.frombuffer(data, "<f4").astype(np.float32) if len(data) == 4 * dimension else np.empty(0)
        if not dimension or not abs(float(np.linalg.norm(vector)) - 1) <= 1e-3:  # a NaN must fail too
            raise VerificationError(f"A row of '{_VECTORS}' is missing, or not of unit length.", promise="export")
        return vector.astype(np.float32)

    def _keep_bytes(self, archive: Archive, asset: Asset) -> bool:
        """Whether the picture is to be indexed."""
        if asset.erased_at is not None:
            return True
        ref = asset.original
        stream, size_bytes = archive.file(f"media/{ref.sha256}")
        if size_bytes != ref.size_bytes:
            raise VerificationError(
                f"'media/{ref.sha256}' has {size_bytes} bytes; its row says {ref.size_bytes}.", promise="export"
            )
        if self._storage.exists(ref) or self._store.get([asset.id]):
            return True
        try:
            # Not even read before its size is allowed.
            data = stream.read(min(size_bytes, self._limits.max_bytes + 1))
            if size_bytes <= self._limits.max_bytes and sha256_hex(data) != ref.sha256:
                raise VerificationError(
                    f"'media/{ref.sha256}' has not the bytes that its digest names.", promise="export"
                )
            opened = open_image(data, asset.file_name, self._limits)
            if (opened.media_type, opened.width_px, opened.height_px) != (ref.media_type, ref.width_px, ref.height_px):
                raise VerificationError(
                    f"'media/{ref.sha256}' is {opened.media_type} of {opened.width_px} x {opened.height_px} px; "
                    f"its row says {ref.media_type} of {ref.width_px} x {ref.height_px} px.",
                    promise="export",
                )
        except ImageRejectedError as error:
            self.rejected.append(NotTaken(name=shown(asset.file_name), code=error.code, reason=error.message))
            return False
        self._storage.put(BytesIO(data), ref.media_type)
        return True

    def _index(self, waiting: list[VectorRecord]) -> None:
        with self._writing:
            known = {record.key for record in self._store.get([record.key for record in waiting])}
            rows = [
                evolve(record, fields={**record.fields, "review": self._state(asset_of(record))})
                for record in waiting
                if record.key not in known
            ]
            if rows:
                self._store.upsert(rows)
        self.kept += len(waiting) - len(rows)
        self.new += len(rows)

    def _state(self, asset: Asset) -> ReviewState:
        try:
            return self._reviews.latest(asset).state
        except (ProvenanceError, FormatVersionError):
            return ReviewState.PROPOSED  # the gate says what is wrong with them


def _rows(stream: BinaryIO, name: str) -> Iterator[JSON]:
    number = 0
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        number += 1
        try:
            row = json.loads(line) if len(line) <= _MAX_LINE_BYTES else None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise VerificationError(f"Line {number} of '{name}' is no JSON object, or too long.", promise="export")
        yield row


def _bytes_of(sha256: str) -> MediaRef:
    return MediaRef(sha256=sha256, media_type="application/octet-stream", size_bytes=0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, UsageError) else "something is missing."
