"""Taking in an export of a knowledge base: nothing in it is believed, and nothing revoked becomes usable by it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Final

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

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
from vrag.knowledge.archive import Archive, check_digest, open_archive
from vrag.knowledge.erasure import Erasure
from vrag.knowledge.ingest import Progress
from vrag.knowledge.portability import (
    ASSETS,
    DOCUMENTS,
    FORMAT,
    HEADER,
    MAX_DOCUMENT_BYTES,
    VECTORS,
    Histories,
    Imported,
    rows_of,
)
from vrag.knowledge.review import Reviews
from vrag.knowledge.rights import rights_end
from vrag.knowledge.rows import asset_of, record_of
from vrag.knowledge.sources import NotTaken
from vrag.media.header import ImageLimits, open_image
from vrag.media.names import shown
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON, canonical_json, from_json
from vrag.values.vectors import EmbeddingSpace, VectorRecord

__all__ = ["import_parts"]

_MAX_HEADER_BYTES: Final = 64 << 10
_BATCH: Final = 64


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
        assets, documents, vectors = (_described_file(archive, header, file) for file in (ASSETS, DOCUMENTS, VECTORS))
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
    stream, size_bytes = archive.file(HEADER)
    header: JSON = None
    theirs: EmbeddingSpace | None = None
    newer = False
    try:
        header = json.loads(stream.read(_MAX_HEADER_BYTES)) if size_bytes <= _MAX_HEADER_BYTES else None
        version = header["format"]
        newer = isinstance(version, int) and version > FORMAT
        theirs = None if header["space"] is None else from_json(EmbeddingSpace, header["space"])
        sound = not newer and (
            version == FORMAT
            and isinstance(header["name"], str)
            and all(_is_count(header[key]) for key in ("pictures", "vectors"))
            and all(
                _is_count(header["files"][file]["size_bytes"]) and isinstance(header["files"][file]["sha256"], str)
                for file in (ASSETS, DOCUMENTS, VECTORS)
            )
            and header["files"][VECTORS]["size_bytes"]
            == header["vectors"] * 4 * (0 if theirs is None else theirs.dimension)
        )
    except (ValueError, KeyError, TypeError, RecursionError):  # UsageError of `from_json` is a ValueError
        sound = False
    if newer:
        raise FormatVersionError(
            f"The export has format {header['format']}; this release reads up to {FORMAT}.",
            hint="pip install --upgrade vrag",
        )
    if not sound:
        raise UsageError(f"'{HEADER}' of the export cannot be read, or contradicts itself.")
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
        checked = Histories(self._name)
        last: Review | None = None
        contradicted = False
        for row in rows_of(stream, DOCUMENTS):
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
                return stream.read(MAX_DOCUMENT_BYTES + 1) == data
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
        for done, row in enumerate(rows_of(rows, ASSETS), start=1):
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
            raise VerificationError(f"'{VECTORS}' has more rows than pictures ask for.", promise="export")

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
            raise VerificationError(f"A row of '{ASSETS}' is no picture: {_reason(error)}", promise="export") from None
        if (
            not sound
            or asset.knowledge_base != self._name
            or asset.id != f"{self._name}/{asset.original.sha256}"
            or asset.id <= last
        ):
            raise VerificationError(
                f"A row of '{ASSETS}' ({asset.id[:150]!a}) is out of order, or of another knowledge base.",
                promise="export",
            )
        return asset

    def _vector(self, vectors: BinaryIO) -> NDArray[np.float32]:
        dimension = 0 if self._store.space is None else self._store.space.dimension
        data = vectors.read(4 * dimension)
        vector = np.frombuffer(data, "<f4").astype(np.float32) if len(data) == 4 * dimension else np.empty(0)
        if not dimension or not abs(float(np.linalg.norm(vector)) - 1) <= 1e-3:  # a NaN must fail too
            raise VerificationError(f"A row of '{VECTORS}' is missing, or not of unit length.", promise="export")
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


def _bytes_of(sha256: str) -> MediaRef:
    return MediaRef(sha256=sha256, media_type="application/octet-stream", size_bytes=0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, UsageError) else "something is missing."
