"""Marks on a delivered film, in their fixed order: label, watermark, container metadata, content credentials.

Each step changes bytes that the next one covers; the credentials come last and sign all of it. The record, written
after, holds the digest of the whole file: C2PA leaves out some boxes (`free`, `skip`) that anybody may append.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol, cast

from attrs import field, frozen
from typing_extensions import override

from vrag.errors import ConfigError, MissingExtraError, ProvenanceError, UsageError, VRAGError
from vrag.media.files import sync_folder
from vrag.media.ref import OpenMedia
from vrag.provenance.certificates import ClaimSigner
from vrag.provenance.credentials import can_embed, read_credentials, sign_credentials
from vrag.provenance.label import Label, check_label, draw_label
from vrag.provenance.manifest import (
    Claim,
    CredentialState,
    GivenPicture,
    Origin,
    SoftBinding,
    digital_source_type,
)
from vrag.provenance.metadata import Aigc, append_xmp, write_aigc
from vrag.values.briefs import Source
from vrag.values.canonical import JSON, digest_json
from vrag.values.requests import ModelRef

__all__ = ["Mark", "Marked", "Marking", "MarkingFacts", "Watermarker", "check_marking", "finish", "given_pictures"]

_MP4: Final = "video/mp4"


class Watermarker(Protocol):
    """Puts a mark into the pixels that people do not see and a detector reads."""

    __slots__ = ()

    @property
    def algorithm(self) -> str:
        """Its name in the C2PA soft binding algorithm list, or one under a domain of its vendor."""
        ...

    def embed(self, film: BinaryIO, out: BinaryIO, *, record_id: str) -> str:
        """Write `film` (an MP4) to `out` (seekable, empty) with the mark, and return the value that a detector reads.

        Size, frames and times stay as they are.
        """
        ...


@frozen(kw_only=True)
class Marking:
    """How delivered films are marked. It is JSON-able, and its digest goes into the record."""

    credentials: Literal["c2pa", "none"] = "c2pa"
    """`none` leaves the film without content credentials, and the record says so."""
    label: Label | None = None
    aigc: Aigc | None = None
    """The implicit label of GB 45438-2025; written only where a trained model made or changed the film."""
    iptc: bool = True
    """IPTC properties as XMP: digital source type, AI system, record id."""

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical JSON."""
        return digest_json(self)


@frozen(kw_only=True)
class MarkingFacts:
    """What the marks say of a film."""

    record_id: str
    raw_sha256: str
    """Of the film as its model made it."""
    model: ModelRef
    origin: Origin
    """From the capabilities of the generator."""
    pictures: tuple[GivenPicture, ...] = ()
    media_type: str = _MP4
    library_version: str

    @property
    def digital_source_type(self) -> str:
        """The IPTC term, as a URI."""
        return digital_source_type(
            self.origin,
            has_pictures=bool(self.pictures),
            edited_by_model=any(picture.edited_by_model for picture in self.pictures),
        )

    @property
    def by_model(self) -> bool:
        """Whether a trained model made or changed any of it."""
        return self.origin != "algorithm" or any(picture.edited_by_model for picture in self.pictures)


@frozen(kw_only=True)
class Mark:
    """One step of marking, as it is recorded."""

    step: Literal["label", "watermark", "aigc", "iptc", "c2pa", "none"]
    text: str
    """For people."""
    details: JSON = field(factory=dict)
    """For programs."""

    @override
    def __str__(self) -> str:
        """`step: text`."""
        return f"{self.step}: {self.text}"


@frozen(kw_only=True)
class Marked:
    """A film that is ready to be delivered."""

    marks: tuple[Mark, ...]
    """What was put into it, in order; never empty."""
    sha256: str
    """Of the delivered bytes."""
    size_bytes: int
    manifest: bytes | None = field(default=None, repr=False)
    """The C2PA manifest where the container holds none: it belongs beside the film as `NAME.c2pa`."""
    credentials: CredentialState
    """As a reader finds them in the finished film."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The marks as text, for `VideoFacts.marks`."""
        return tuple(str(mark) for mark in self.marks)


def given_pictures(sources: tuple[Source, ...], *, edits_by_model: bool = True) -> tuple[GivenPicture, ...]:
    """The pictures of a plan as marks name them: ids and digests, without captions and file names.

    Args:
        sources: Of the plan.
        edits_by_model: Whether its edits were made by a trained model (`EditCapabilities.origin` is not `algorithm`).
    """
    return tuple(
        GivenPicture(
            asset_id=source.asset_id,
            role=source.role,
            original_sha256=source.original.sha256,
            given=source.conformed.media,
            edited_by_model=edits_by_model and bool(source.edits),
        )
        for source in sources
    )


def check_marking(
    marking: Marking,
    *,
    width_px: int,
    height_px: int,
    media_type: str = _MP4,
    signer: ClaimSigner | None = None,
) -> None:
    """Make sure, before anything is bought, that such a film can be marked.

    Raises:
        MissingExtraError: A library is not installed.
        ConfigError: There is no signer, or it signs with an algorithm that C2PA does not take.
        UsageError: The label cannot be drawn, or this container takes none.
    """
    if marking.credentials == "c2pa":
        _signer(signer)
        read_credentials(io.BytesIO())  # raises if the library is not installed
    if (marking.label is not None or marking.aigc is not None) and find_spec("av") is None:
        raise MissingExtraError("Labels and film metadata need the extra 'local'.", hint="pip install 'vrag[local]'")
    if marking.label is not None:
        if media_type != _MP4:
            raise UsageError(f"A label can be drawn on video/mp4, not on {media_type}.")
        check_label(marking.label, width_px=width_px, height_px=height_px)


def finish(
    raw: BinaryIO,
    out: Path | BinaryIO,
    facts: MarkingFacts,
    marking: Marking,
    *,
    media: OpenMedia,
    signer: ClaimSigner | None = None,
    watermarker: Watermarker | None = None,
    anchors: str | None = None,
) -> Marked:
    """Mark the film in `raw` as `marking` says and write it to `out`.

    Args:
        raw: The film as its model made it; an open, seekable file.
        out: A path, which gets the whole film at once or not at all; or a seekable file, empty, open for reading and
            writing.
        facts: What the marks say.
        marking: Which marks.
        media: Opens the pictures as given, for thumbnails; `Storage.open` is one.
        signer: Key and certificates; needed unless `marking.credentials` is `none`.
        watermarker: Puts an invisible mark into the pixels.
        anchors: Roots in PEM, for the state that is reported.

    Raises:
        ConfigError: There is no signer.
        UsageError: The label cannot be drawn.
        MediaRejectedError: The film cannot be read.
        ProvenanceError: A step failed; nothing was published, and the same call may be made again.
        VRAGError: What the signer raised.
    """
    if marking.credentials == "c2pa":
        signer = _signer(signer)
    if facts.media_type != _MP4 and (marking.label is not None or watermarker is not None):
        raise UsageError(f"Labels and watermarks can be put on video/mp4, not on {facts.media_type}.")
    if _digest(raw)[0] != facts.raw_sha256:
        raise ProvenanceError(
            f"The film to mark for the record {facts.record_id} has other bytes than were recorded: nothing was signed."
        )
    folder = out.parent if isinstance(out, Path) else None
    try:
        with ExitStack() as stack:
            steps = _Steps(raw, facts, folder, stack)
            steps.pixels(marking, watermarker)
            steps.container(marking)
            target = stack.enter_context(_published(out)) if isinstance(out, Path) else out
            manifest = steps.credentials(marking, target, signer, media, anchors)
            state = (
                CredentialState(state="none")
                if marking.credentials == "none"
                else read_credentials(target, facts.media_type, anchors=anchors, manifest=manifest)
            )
            sha256, size = _digest(target)
            return Marked(
                marks=tuple(steps.marks), sha256=sha256, size_bytes=size, manifest=manifest, credentials=state
            )
    except VRAGError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ProvenanceError("The disk is full: the film could not be marked. Free some space.") from error
        raise ProvenanceError(f"The film could not be marked: {error.strerror or type(error).__name__}.") from error


class _Steps:
    """The film on its way from step to step, and what was done to it."""

    def __init__(self, raw: BinaryIO, facts: MarkingFacts, folder: Path | None, stack: ExitStack) -> None:
        self.marks: list[Mark] = []
        self._raw = self._film = raw
        self._facts = facts
        self._folder = folder
        self._stack = stack
        self._changes: list[str] = []
        self._bindings: list[SoftBinding] = []

    def _next(self) -> BinaryIO:
        return cast("BinaryIO", self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder)))

    def pixels(self, marking: Marking, watermarker: Watermarker | None) -> None:
        """Label, then watermark."""
        if marking.label is not None:
            made = self._next()
            done = draw_label(self._film, made, marking.label)
            self._film = made
            self._changes.append("visible label")
            shown = "the whole film" if marking.label.at == "all" else f"the first {marking.label.duration_s:g} s"
            text = f"'{marking.label.text}', {marking.label.position}, {marking.label.size_fraction:.1%} of the shorter side"
            self.marks.append(Mark(step="label", text=f"{text}, {shown}", details=done))
        if watermarker is not None:
            made = self._next()
            self._film.seek(0)
            value = watermarker.embed(self._film, made, record_id=self._facts.record_id)
            self._film = made
            self._bindings.append(SoftBinding(algorithm=watermarker.algorithm, value=value))
            told = {"algorithm": watermarker.algorithm, "value": value}
            self.marks.append(Mark(step="watermark", text=watermarker.algorithm, details=told))

    def container(self, marking: Marking) -> None:
        """The key `AIGC`, then XMP."""
        facts = self._facts
        if marking.aigc is not None:
            if not facts.by_model:
                self.marks.append(Mark(step="aigc", text="not written: no trained model made or changed this film"))
            elif facts.media_type != _MP4:
                self.marks.append(Mark(step="aigc", text=f"not written: {facts.media_type} has no place for it"))
            else:
                told, made = marking.aigc.to_mark(facts.record_id), self._next()
                write_aigc(self._film, made, told)
                self._film = made
                self.marks.append(Mark(step="aigc", text="metadata key AIGC", details=told))
        if marking.iptc and facts.media_type == _MP4:
            made = self._next()
            _copy(self._film, made)
            self._film = made
            append_xmp(
                made,
                digital_source_type=facts.digital_source_type,
                model=facts.model,
                record_id=facts.record_id,
                by_model=facts.by_model,
            )
            term = facts.digital_source_type.rpartition("/")[2]
            self.marks.append(Mark(step="iptc", text=f"XMP, {term}", details={"digital_source_type": term}))

    def credentials(
        self, marking: Marking, target: BinaryIO, signer: ClaimSigner | None, media: OpenMedia, anchors: str | None
    ) -> bytes | None:
        """The manifest, last of all; returned where it does not fit into the film."""
        facts = self._facts
        if marking.credentials == "none" or signer is None:
            _copy(self._film, target)
            self.marks.append(Mark(step="none", text="no content credentials, as configured"))
            return None
        before = read_credentials(self._raw, facts.media_type, anchors=anchors)
        claim = Claim(
            record_id=facts.record_id,
            raw_sha256=facts.raw_sha256,
            model=facts.model,
            origin=facts.origin,
            pictures=facts.pictures,
            library_version=facts.library_version,
            changes=tuple(self._changes),
            soft_bindings=tuple(self._bindings),
        )
        embedded = can_embed(facts.media_type)
        manifest = sign_credentials(
            self._film,
            target,
            claim,
            media_type=facts.media_type,
            signer=signer,
            media=media,
            parent=self._raw if before.present else None,
            anchors=anchors,
        )
        term = facts.digital_source_type.rpartition("/")[2]
        what = "development certificate: valid, not trusted" if signer.development else f"signed as '{signer.name}'"
        kept = ", the model's own credentials kept" if before.present else ""
        self.marks.append(
            Mark(
                step="c2pa",
                text=f"{term}, {what}{kept}{'' if embedded else ', in a file beside it'}",
                details={
                    "digital_source_type": term,
                    "signer": signer.name,
                    "keyid": signer.signer.keyid,
                    "development": signer.development,
                    "time_stamp": signer.tsa_url is not None,
                    "embedded": embedded,
                    "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
                    "parent": {"state": before.state, "failure": before.failure} if before.state != "none" else None,
                },
            )
        )
        return None if embedded else manifest


def _signer(signer: ClaimSigner | None) -> ClaimSigner:
    if signer is None:
        raise ConfigError(
            "Content credentials need a signer; without credentials, say so: marking with credentials none."
        )
    return signer


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target, 1 << 20)


def _digest(film: BinaryIO) -> tuple[str, int]:
    film.seek(0)
    digest = hashlib.sha256()
    while chunk := film.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest(), film.tell()


@contextmanager
def _published(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when all went well; until then it has another one, and none after an error."""
    temporary = path.with_name(f".{path.name[:80]}.{os.getpid()}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
