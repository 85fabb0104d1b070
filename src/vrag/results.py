"""The live objects that a user holds: a ticket for a video in the making, and the finished video with its proof."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from attrs import field, frozen
from typing_extensions import override

from vrag.errors import JobCancelledError, JobTimeoutError
from vrag.interfaces import Signer, Storage
from vrag.media.files import write_new
from vrag.media.ref import MediaRef
from vrag.provenance.credential_check import credential_check
from vrag.provenance.verify import Verification, sidecar_json, verify_file
from vrag.values.assets import Asset, Review
from vrag.values.briefs import Brief, PlannedVideo, Source
from vrag.values.canonical import JSON
from vrag.values.jobs import Event
from vrag.workspace.journal import Step
from vrag.workspace.ledger import Entry, Ledger

if TYPE_CHECKING:
    from vrag.provenance.lineage import LineageGraph

__all__ = ["AssetView", "BatchFailure", "BatchResult", "FinishedVideo", "Resumed", "Revocation", "Ticket", "Use"]


class FinishedVideo:
    """A video that is made, checked and recorded."""

    def __init__(
        self,
        step: Step,
        *,
        storage: Storage,
        ledger: Ledger,
        signer: Signer,
        open_original: Callable[[Source], BinaryIO],
        anchors: Callable[[], str | None] = lambda: None,
    ) -> None:
        """For a step that is delivered; `VRAGPipeline` makes these."""
        assert step.delivered is not None and step.record_id is not None  # noqa: PT018  # what "delivered" means
        self._storage = storage
        self._ledger = ledger
        self._signer = signer
        self._open_original = open_original
        self._anchors = anchors
        self.id = step.id
        """The id of its step: the identity of the purchase."""
        self.media: MediaRef = step.delivered
        """The delivered file: digest, size, pixels, seconds."""
        self.planned: PlannedVideo = step.video
        """What was planned and approved."""
        self.record_id: str = step.record_id

    @property
    def sources(self) -> tuple[Source, ...]:
        """The pictures it was made from."""
        return self.planned.sources

    @property
    def entry(self) -> Entry:
        """Its row in the ledger."""
        return self._ledger.get(self.record_id)

    @property
    def record(self) -> JSON:
        """The in-toto statement, as JSON."""
        return self.entry.statement

    def lineage(self) -> LineageGraph:
        """What it was made from, through every step, as the records say."""
        from vrag.provenance.lineage import sources_of  # noqa: PLC0415  # only where it is asked for

        return sources_of(self._ledger, self.record_id)

    def open(self) -> BinaryIO:
        """The bytes of the MP4."""
        return self._storage.open(self.media)

    def read_bytes(self) -> bytes:
        """The whole MP4 in memory."""
        with self.open() as stream:
            return stream.read()

    def picture(self) -> bytes | None:
        """The encoded picture that was given to the generator; None for a text-only video."""
        if not self.sources:
            return None
        with self._storage.open(self.sources[0].conformed.media) as stream:
            return stream.read()

    def sidecar(self) -> bytes:
        """The signed record as the file that lies beside the video."""
        return sidecar_json(self.entry, signer=self._signer)

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the MP4 to `path` and its record to `path` + `.vrag.json`.

        Neither file is ever there in part, and the record is there first.

        Raises:
            AlreadyExistsError: A file is there and `overwrite` is not set.
        """
        target = Path(path)
        beside = target.with_name(target.name + ".vrag.json")
        write_new(beside, [self.sidecar()], overwrite=overwrite)
        with self.open() as stream:
            write_new(target, iter(lambda: stream.read(1 << 20), b""), overwrite=overwrite)
        return target

    def verify(self) -> Verification:
        """Recompute everything: digests, signature, ledger row, content credentials, the pictures' bytes."""
        originals = {source.original.sha256: source for source in self.sources}

        def open_media(ref: MediaRef) -> BinaryIO:
            source = originals.get(ref.sha256)
            return self._storage.open(ref) if source is None else self._open_original(source)

        with self.open() as stream, TemporaryFile() as film:
            shutil.copyfileobj(stream, film, 1 << 20)  # a film in a bucket cannot be sought
            film.seek(0)
            return verify_file(
                film,
                self.sidecar(),
                trusted_keys=[self._signer.public_key],
                storage_open=open_media,
                ledger=self._ledger,
                credentials=credential_check(self._anchors()),
            )

    @override
    def __repr__(self) -> str:
        return (
            f"FinishedVideo(id={self.id[:12]}…, {self.media.width_px}x{self.media.height_px},"
            f" {self.media.duration_s} s, sources={len(self.sources)})"
        )

    def _repr_html_(self) -> str:
        """The video with its picture beside it, for a notebook."""
        from vrag.provenance.report.page import figure  # noqa: PLC0415  # only notebooks need it

        return figure(self.read_bytes(), self.picture(), self.planned)


class Ticket:
    """A future for one video; safe to use from many threads."""

    def __init__(
        self, step_id: str, *, finished: Callable[[Step], FinishedVideo], cancel: Callable[[], object]
    ) -> None:
        """For a step of the journal; `VRAGPipeline` makes these."""
        self.id = step_id
        """The id of the step."""
        self._future: Future[FinishedVideo] = Future()
        self._future.set_running_or_notify_cancel()
        self._finished = finished
        self._cancel = cancel
        self._events: list[Event] = []
        self._news = threading.Condition()

    def watch(self, step: Future[Step]) -> None:
        """Take the outcome of the step when it is there; the pipeline calls this once."""
        step.add_done_callback(self._ended)

    def _ended(self, step: Future[Step]) -> None:
        try:
            self._future.set_result(self._finished(step.result()))
        except BaseException as error:  # noqa: BLE001  # the future hands it to whoever waits
            self._future.set_exception(error)
        finally:
            with self._news:
                self._news.notify_all()

    def notify(self, event: Event) -> None:
        """Tell those who follow `events`; the pipeline calls this."""
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    @property
    def future(self) -> Future[FinishedVideo]:
        """The same outcome for `concurrent.futures.as_completed` and `wait`."""
        return self._future

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> FinishedVideo:
        """Wait for the video.

        Raises:
            JobTimeoutError: `timeout_s` passed; the job runs on.
            VRAGError: What ended the job.
        """
        try:
            return self._future.result(timeout_s)
        except FutureTimeoutError:
            if self._future.done():
                raise
            raise JobTimeoutError(
                f"Not ready after {timeout_s} s; the job runs on.", job_id=self.id, retryable=True, hint="vrag resume"
            ) from None
        except CancelledError:
            raise JobCancelledError("The ticket was cancelled.", job_id=self.id) from None

    def cancel(self) -> None:
        """Ask to stop; a job that the provider cannot stop runs on, and its charge stands."""
        self._cancel()

    def events(self) -> Iterator[Event]:
        """What happens to it, from its start to its end, waiting for news."""
        seen = 0
        while True:
            with self._news:
                while seen == len(self._events) and not self._future.done():
                    self._news.wait()
                fresh = self._events[seen:]
                if not fresh:
                    return
                seen += len(fresh)
            yield from fresh

    def __await__(self) -> Generator[object, None, FinishedVideo]:
        return asyncio.wrap_future(self._future).__await__()


@frozen(kw_only=True)
class BatchFailure:
    """A row of a batch that gave no video."""

    index: int
    """Its position in what was given, from 0."""
    brief: Brief
    error: Mapping[str, object]
    """The error as JSON: `error`, `message`, `hint` and its ids."""


@frozen(kw_only=True)
class BatchResult:
    """What became of a batch; a row is in exactly one of the three."""

    done: Mapping[int, FinishedVideo]
    """By position of the brief."""
    failed: tuple[BatchFailure, ...] = ()
    undecided: tuple[BatchFailure, ...] = ()
    """Rows of which nobody knows whether they were bought; a person decides."""

    def _repr_html_(self) -> str:
        """The films side by side, for a notebook."""
        from vrag.provenance.report.wall import video_wall  # noqa: PLC0415  # only notebooks need it

        rest = [f"Row {one.index + 1}: {one.error.get('message')}" for one in (*self.failed, *self.undecided)]
        return video_wall(self.done.values(), problems=rest)


@frozen(kw_only=True)
class Use:
    """A video that a picture is in, or is planned for."""

    step_id: str
    kind: str = "generate"
    """`generate`, `assemble` or `edit`."""
    state: str
    asset_id: str
    record_id: str | None
    video_sha256: str | None
    at: str


@frozen(kw_only=True)
class AssetView:
    """A picture with the videos that it is in."""

    asset: Asset
    find_uses: Callable[[str], tuple[Use, ...]] = field(repr=False, eq=False)

    @property
    def used_in(self) -> tuple[Use, ...]:
        """Every step that uses it, itself or edited, oldest first."""
        return self.find_uses(self.asset.id)


@frozen(kw_only=True)
class Revocation:
    """What a take-down did."""

    review: Review
    receipt: int
    """Number of the receipt in the workspace."""
    videos: tuple[Use, ...]
    """Videos that were made from it and exist."""
    blocked: tuple[Use, ...]
    """Steps that will never start, or whose result will be withheld."""


@frozen(kw_only=True)
class Resumed:
    """What `resume` brought to an end."""

    done: tuple[FinishedVideo, ...] = ()
    failed: Mapping[str, Mapping[str, object]] = field(factory=dict)
    """Step id to error."""
