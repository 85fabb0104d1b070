"""A `VideoGenerator` made of a renderer in this process: a queue, its worker threads, and a folder that outlives both."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Event, Lock
from typing import BinaryIO, Final

from attrs import define, evolve, field, frozen
from filelock import FileLock, Timeout
from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.errors import (
    BackendError,
    FormatVersionError,
    JobCancelledError,
    NotFoundError,
    UnsupportedRequestError,
    UsageError,
    VRAGError,
)
from vrag.interfaces import VideoGenerator, VideoRenderer
from vrag.media.files import publish_once, sync_folder, write_new
from vrag.media.ref import OpenMedia
from vrag.values.canonical import canonical_json, from_json, to_json
from vrag.values.jobs import Fault, Handle, JobStatus, Output, Recovery
from vrag.values.requests import Estimate, ModelRef, Problem, VideoCapabilities, VideoRequest

__all__ = ["RenderQueue"]

_FORMAT: Final = 1
_FILM: Final = "video.mp4"
_JOB_ID: Final = re.compile(r"[0-9a-f]{64}")
_ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "lost"})
_LOCK_TIMEOUT_S: Final = 30.0
_LOST: Final = JobStatus(
    state="lost",
    error=Fault(code="lost", message="The process that rendered it ended before the film did.", retryable=True),
    billed=False,
)


@frozen(kw_only=True)
class _Stored:
    """What the folder keeps of a job: no token, and nothing that a token or a prompt could be guessed from."""

    format: int = _FORMAT
    owner: str
    """The queue that renders it; it lives as long as somebody holds its lock file."""
    request: str
    """Digest of the model and the request, keyed with the token."""
    status: JobStatus


@define(kw_only=True, eq=False)
class _Job:
    """A job of this queue that has not ended."""

    id: str
    stored: _Stored
    request: VideoRequest
    media: OpenMedia
    price: int | None
    progress: float | None = None
    stop: Event = field(factory=Event)
    cancelled: bool = False
    future: Future[None] | None = None


class RenderQueue(VideoGenerator):
    """Renders requests one after the other in threads of this process, and keeps the films in a folder.

    Several queues, in one or in several processes, may share a folder: each sees the jobs of all, and renders and
    cancels its own. A job whose queue was killed or closed before its film was there is `lost`; it stays so, and is
    rendered again under a new token. A process that ends without `close` waits for its renders first.

    After `close`, `start` is refused, and the rest still works. After a fork a queue is refused in the child.

    Args:
        renderer: Makes the films.
        folder: Where jobs and films are kept; made on the first `start`.
        clock: Draws the name under which this queue is known in the folder.
        workers: How many films are rendered at once: one for each device.
    """

    __slots__ = ("_clock", "_closed", "_folder", "_jobs", "_life", "_lock", "_owner", "_pid", "_renderer", "_workers")

    def __init__(self, renderer: VideoRenderer, folder: Path, *, clock: Clock | None = None, workers: int = 1) -> None:
        if workers < 1:
            raise UsageError(f"A render queue has at least 1 worker, not {workers}.")
        self._renderer = renderer
        self._folder = Path(folder)
        self._clock = clock or SystemClock()
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="vrag-render")
        self._owner = self._clock.token_bytes(16).hex()
        self._life: FileLock | None = None
        self._jobs: dict[str, _Job] = {}
        self._lock = Lock()
        self._closed = False
        self._pid = os.getpid()

    @property
    @override
    def model(self) -> ModelRef:
        return self._renderer.model

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        return self._renderer.capabilities

    @property
    @override
    def recovery(self) -> Recovery:
        return "token"

    @override
    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        return self._renderer.validate(request)

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        return self._renderer.estimate(request)

    @override
    def start(self, request: VideoRequest, media: OpenMedia, token: str) -> Handle:
        self._check_process()
        if not token:
            raise UsageError("A job needs a token that is not empty.")
        refused = [problem for problem in self.validate(request) if problem.kind == "refused"]
        if refused:
            reasons = " ".join(problem.message for problem in refused)
            raise UnsupportedRequestError(f"{self.model} cannot make this video: {reasons}", problems=refused)
        asked = {"model": to_json(self.model), "request": to_json(request)}
        digest = hmac.new(token.encode(), canonical_json(asked), hashlib.sha256).hexdigest()
        handle = self._handle(token)
        try:
            with self._lock:
                self._open()
                with FileLock(self._folder / "start.lock", timeout=_LOCK_TIMEOUT_S):
                    stored = self._read(handle.id)
                    if stored is None:
                        self._enqueue(handle.id, request, media, digest)
                        return handle
        except Timeout:
            message = f"Another process has held the render folder for {_LOCK_TIMEOUT_S:g} s."
            raise BackendError(message, backend=self.model.provider, operation="start", retryable=True) from None
        except OSError as error:
            raise self._unwritable("start", error) from error
        if stored.request != digest:
            raise UsageError("This token was used for another request; each request has a token of its own.")
        return handle

    @override
    def status(self, handles: Sequence[Handle]) -> Mapping[Handle, JobStatus]:
        self._check_process()
        news = {}
        for handle in handles:
            status = self._status(handle)
            if status is not None:
                news[handle] = status
        return news

    @override
    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        raise UsageError("A render queue lists no jobs.", hint="call start again with the same token: it finds the job")

    @override
    def fetch(self, handle: Handle, output: Output, offset: int = 0) -> BinaryIO:
        self._check_process()
        status = self._status(handle)
        if status is None or output.name not in {made.name for made in status.outputs}:
            state = "unknown" if status is None else status.state
            raise NotFoundError(f"The job {handle.id[:12]} ({state}) has no output '{output.name[:80]}'.")
        try:
            film = self._film(handle.id).open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"The film of the job {handle.id[:12]} is no longer in its folder.") from None
        film.seek(offset)
        return film

    @override
    def cancel(self, handle: Handle) -> bool:
        self._check_process()
        with self._lock:
            job = self._jobs.get(handle.id)
            if job is None or self._closed:
                return False
            job.cancelled = True
            job.stop.set()
            waiting = job.future is not None and job.future.cancel()
        if waiting:
            self._settle(job, self._stopped(job))
        return True

    @override
    def close(self) -> None:
        """Stop what is being rendered (it is `lost`), wait for the workers, and let go of the folder; twice is fine."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop.set()
            if job.future is not None and job.future.cancel():
                self._settle(job, self._stopped(job))
        self._workers.shutdown(wait=True)
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.release()
            with suppress(OSError):  # somebody is just looking whether it is free: they remove it
                self._life_file(self._owner).unlink(missing_ok=True)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                "This render queue belongs to the process that this one was forked from.",
                hint="make a new RenderQueue on the same folder",
            )

    def _open(self) -> None:
        """Take part in the folder, so that others see that this queue is alive."""
        if self._closed:
            raise UsageError("This render queue is closed.", hint="make a new RenderQueue on the same folder")
        if self._life is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            life = FileLock(self._life_file(self._owner), thread_local=False)
            life.acquire(blocking=False)
            self._life = life
            self._sweep()

    def _sweep(self) -> None:
        """Remove what dead queues left half written; whoever writes a state holds the lock meanwhile."""
        with FileLock(self._folder / "start.lock", timeout=_LOCK_TIMEOUT_S):
            for part in self._folder.glob("*.part"):
                stored = self._read(part.stem) if _JOB_ID.fullmatch(part.stem) else None
                if stored is None or not (stored.owner == self._owner or self._is_alive(stored.owner)):
                    part.unlink(missing_ok=True)

    def _enqueue(self, job_id: str, request: VideoRequest, media: OpenMedia, digest: str) -> None:
        stored = _Stored(
            owner=self._owner,
            request=digest,
            status=JobStatus(state="queued", progress=0.0),
        )
        job = _Job(id=job_id, stored=stored, request=request, media=media, price=self.estimate(request).usd_micros)
        self._write(job_id, stored)
        self._jobs[job_id] = job
        job.future = self._workers.submit(self._work, job)

    def _work(self, job: _Job) -> None:
        job.progress = 0.0
        part = self._folder / f"{job.id}.part"
        try:
            status = self._stopped(job) if job.stop.is_set() else self._render(job, part)
        except JobCancelledError:
            status = self._stopped(job)
        except BaseException as error:  # noqa: BLE001  # whatever a renderer raises is the end of its job, not of the queue
            status = JobStatus(state="failed", error=_fault(error), billed=self._billed(job))
        finally:
            part.unlink(missing_ok=True)
        self._settle(job, status)

    def _render(self, job: _Job, part: Path) -> JobStatus:
        def progress(done: float) -> None:
            job.progress = max(job.progress or 0.0, min(done, 1.0))

        with part.open("w+b") as film:
            report = self._renderer.render(job.request, job.media, film, progress, job.stop.is_set)
            json.dumps(report, allow_nan=False)  # a report that is no JSON fails here, before anything is announced
            film.flush()
            os.fsync(film.fileno())
            film.seek(0)
            sha256 = hashlib.file_digest(film, "sha256").hexdigest()
            size = film.tell()
        publish_once(part, self._film(job.id), lock=self._folder / "start.lock")
        sync_folder(self._folder)
        output = Output(name=_FILM, size_bytes=size, sha256=sha256)
        return JobStatus(state="succeeded", progress=1.0, outputs=(output,), billed=self._billed(job), report=report)

    def _settle(self, job: _Job, status: JobStatus) -> None:
        """The one way out for a job: on disk first, so that what was told once is true in every process."""
        stored = evolve(job.stored, status=status)
        try:
            with FileLock(self._folder / "start.lock", timeout=_LOCK_TIMEOUT_S):
                self._write(job.id, stored)
        except (OSError, Timeout):
            # Told from memory while this queue lives; others see it running, and lost afterwards.
            job.stored = stored
            return
        with self._lock:
            self._jobs.pop(job.id, None)

    def _stopped(self, job: _Job) -> JobStatus:
        if not job.cancelled:
            return _LOST
        fault = Fault(code="cancelled", message="Cancelled on request.")
        return JobStatus(state="cancelled", error=fault, billed=self._billed(job))

    @staticmethod
    def _billed(job: _Job) -> bool | None:
        return False if job.price == 0 else None

    def _status(self, handle: Handle) -> JobStatus | None:
        if handle.provider != self.model.provider or not _JOB_ID.fullmatch(handle.id):
            return None
        with self._lock:
            job = self._jobs.get(handle.id)
        if job is not None:
            known = job.stored.status
            if known.state in _ENDED:
                return known
            running = job.future is not None and job.future.running()
            return JobStatus(state="running" if running else "queued", progress=job.progress)
        stored = self._read(handle.id)
        if stored is None or stored.status.state in _ENDED:
            return None if stored is None else stored.status
        if stored.owner == self._owner or self._is_alive(stored.owner):
            return JobStatus(state="running")
        # Its queue is gone, but may have told the end of the job after our first look.
        stored = self._read(handle.id)
        return stored.status if stored is not None and stored.status.state in _ENDED else _LOST

    def _is_alive(self, owner: str) -> bool:
        path = self._life_file(owner)
        if not path.exists():
            return False
        try:
            with FileLock(path, blocking=False):
                pass
        except Timeout:
            return True
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False

    def _handle(self, token: str) -> Handle:
        return Handle(provider=self.model.provider, id=hashlib.sha256(token.encode()).hexdigest())

    def _film(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.mp4"

    def _life_file(self, owner: str) -> Path:
        return self._folder / f"queue-{owner}.lock"

    def _write(self, job_id: str, stored: _Stored) -> None:
        write_new(self._folder / f"{job_id}.json", [json.dumps(to_json(stored)).encode()], overwrite=True)

    def _read(self, job_id: str) -> _Stored | None:
        try:
            data = json.loads((self._folder / f"{job_id}.json").read_bytes())
            version = data.get("format", _FORMAT)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise BackendError(
                f"The state of the job {job_id[:12]} cannot be read: {type(error).__name__}.",
                backend=self.model.provider,
                operation="status",
            ) from error
        if not isinstance(version, int) or version > _FORMAT:
            raise FormatVersionError(
                f"The job {job_id[:12]} has format {version}, and this release reads up to {_FORMAT}.",
                hint="pip install --upgrade vrag",
            )
        return from_json(_Stored, data)

    def _unwritable(self, operation: str, error: OSError) -> BackendError:
        return BackendError(
            f"The render folder cannot be written: {error.strerror or type(error).__name__}.",
            backend=self.model.provider,
            operation=operation,
            retryable=True,
        )


def _fault(error: BaseException) -> Fault:
    """Why a render failed, in words that name no path and no object."""
    match error:
        case VRAGError():
            return Fault(code=error.code, message=str(error), retryable=bool(getattr(error, "retryable", False)))
        case OSError(errno=errno.ENOSPC):
            return Fault(code="disk_full", message="The disk is full: free some space, and try again.", retryable=True)
        case OSError():
            return Fault(code="service", message=error.strerror or type(error).__name__, retryable=True)
        case MemoryError():
            return Fault(code="service", message="Not enough memory for this render.", retryable=True)
        case _:
            return Fault(code="service", message=f"The renderer failed: {type(error).__name__}.")
