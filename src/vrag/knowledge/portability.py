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
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from attrs import asdict, frozen

from vrag.clock import Clock, rfc3339
from vrag.errors import UsageError, VerificationError
from vrag.interfaces import Storage, VectorStore
from vrag.knowledge.archive import staging
from vrag.knowledge.erasure import Erasure, open_or_erased
from vrag.knowledge.ingest import Progress
from vrag.knowledge.review import TRANSITIONS
from vrag.knowledge.rows import asset_of, sources_of
from vrag.knowledge.sources import NotTaken
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON, canonical_json, from_json, to_json

__all__ = [
    "ASSETS",
    "DOCUMENTS",
    "FORMAT",
    "HEADER",
    "MAX_DOCUMENT_BYTES",
    "VECTORS",
    "Exported",
    "Histories",
    "Imported",
    "export_parts",
    "rows_of",
]

FORMAT: Final = 1
HEADER: Final = "vrag-knowledge-base.json"
ASSETS: Final = "assets.jsonl"
DOCUMENTS: Final = "documents.jsonl"
VECTORS: Final = "vectors.f32"
MAX_DOCUMENT_BYTES: Final = 64 << 10
_MAX_LINE_BYTES: Final = 1 << 20
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


def export_parts(
    name: str, *, store: VectorStore, storage: Storage, path: Path, clock: Clock, progress: Progress | None = None
) -> Exported:
    """See `KnowledgeBase.export_to`."""
    with staging(path) as out:
        pictures, vectors = _write_assets(name, store, out.folder)
        documents = _write_documents(name, storage, out.folder)
        header = {
            "format": FORMAT,
            "name": name,
            "created_at": rfc3339(clock.now()),
            "space": None if store.space is None else asdict(store.space),
            "pictures": pictures,
            "documents": documents,
            "vectors": vectors,
            "files": {file: _described(out.folder / file) for file in (ASSETS, DOCUMENTS, VECTORS)},
        }
        (out.folder / HEADER).write_bytes(canonical_json(header))
        out.begin(HEADER, ASSETS, DOCUMENTS, VECTORS)
        with (out.folder / ASSETS).open("rb") as lines:
            for done, row in enumerate(rows_of(lines, ASSETS), start=1):
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
    with (folder / ASSETS).open("xb") as rows, (folder / VECTORS).open("xb") as numbers:
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
    checked = Histories(name)
    with (folder / DOCUMENTS).open("xb") as out:
        for prefix in ("erased/", "reviews/"):
            for document_name in storage.list(prefix):
                with storage.open(document_name) as stream:
                    data = stream.read(MAX_DOCUMENT_BYTES + 1)
                try:
                    document = json.loads(data) if len(data) <= MAX_DOCUMENT_BYTES else None
                except (ValueError, RecursionError):
                    document = None
                checked.check(document_name, document)
                out.write(canonical_json({"name": document_name, "document": document}) + b"\n")
    return checked.count


def _described(path: Path) -> JSON:
    with path.open("rb") as file:
        return {"size_bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


class Histories:
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


def rows_of(stream: BinaryIO, name: str) -> Iterator[JSON]:
    """The JSON objects of a file, a line each.

    Raises:
        VerificationError: A line is none, or too long.
    """
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
