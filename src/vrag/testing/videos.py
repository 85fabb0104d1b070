"""A video generator that follows a script, and a video renderer."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import BinaryIO, Final

from attrs import define, evolve, field, frozen
from typing_extensions import override

from vrag.clock import Clock
from vrag.errors import JobCancelledError, NotFoundError, UnsupportedRequestError, UsageError
from vrag.interfaces import VideoGenerator, VideoRenderer
from vrag.media.ref import OpenMedia, sha256_hex
from vrag.testing.clock import FakeClock
from vrag.testing.faults import Call, Faults
from vrag.testing.films import make_film
from vrag.values.canonical import JSON
from vrag.values.jobs import Fault, Handle, JobStatus, Output, Recovery
from vrag.values.requests import Estimate, ModelRef, Problem, VideoCapabilities, VideoRequest

__all__ = ["FakeVideoGenerator", "FakeVideoRenderer", "Script", "failing", "problems_of"]

Script = Sequence[JobStatus | None]
"""What `status` says of a job, ask after ask; the last one stays, and None is "no news"."""

_SUCCESS: Final[Script] = (
    JobStatus(state="queued"),
    JobStatus(state="running", progress=0.5),
    JobStatus(state="succeeded", progress=1.0, billed=True),
)
_CALLS: Final = ("start", "status", "find", "fetch", "cancel")
_ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "lost"})
_FAKE: Final = VideoCapabilities(
    roles=frozenset({"start_frame"}),
    max_shots=6,
    max_duration_s=60.0,
    fields=frozenset({"seed", "negative_prompt", "style", "mood", "lighting"}),
    max_prompt_chars=2000,
)


def failing(code: str, message: str = "scripted", *, billed: bool | None = True, retryable: bool = False) -> Script:
    """A script that ends badly after it has begun to run, such as `failing("moderation")`."""
    fault = Fault(code=code, message=message, retryable=retryable)
    return (*_SUCCESS[:2], JobStatus(state="failed", error=fault, billed=billed))


def problems_of(request: VideoRequest, can: VideoCapabilities) -> tuple[Problem, ...]:
    """Everything that capabilities refuse of a request."""
    return tuple(Problem(kind="refused", field=field, message=message) for field, message in _refusals(request, can))


def _refusals(request: VideoRequest, can: VideoCapabilities) -> Iterator[tuple[str, str]]:
    size = request.width_px, request.height_px
    if len(request.shots) > can.max_shots:
        yield "shots", f"{len(request.shots)} shots are more than {can.max_shots}."
    if can.sizes_px is not None and size not in can.sizes_px:
        yield "width_px", f"{size[0]} x {size[1]} px is not one of {can.sizes_px}."
    if can.sizes_px is None and (max(size) > can.max_side_px or size[0] % 2 or size[1] % 2):
        yield "width_px", f"{size[0]} x {size[1]} px: sides are even and at most {can.max_side_px} px."
    if request.fps > 120 or (can.rates_fps is not None and request.fps not in can.rates_fps):
        yield "fps", f"{request.fps} frames a second are not among {can.rates_fps or 'any up to 120'}."
    if request.codec not in can.codecs:
        yield "codec", f"'{request.codec}' is not one of {', '.join(can.codecs)}."
    for index, shot in enumerate(request.shots):
        here = f"shots[{index}]"
        if can.durations_s is not None and shot.duration_s not in can.durations_s:
            yield f"{here}.duration_s", f"{shot.duration_s} s is not one of {can.durations_s}."
        elif not can.min_duration_s <= shot.duration_s <= can.max_duration_s:
            yield f"{here}.duration_s", f"{shot.duration_s} s is not in {can.min_duration_s}..{can.max_duration_s} s."
        if can.max_prompt_chars is not None and len(shot.prompt) > can.max_prompt_chars:
            yield f"{here}.prompt", f"{len(shot.prompt)} characters are more than {can.max_prompt_chars}."
        given = [one.role for one in shot.inputs]
        for role in sorted({*given} - can.roles):
            yield f"{here}.inputs", f"The role '{role}' is not one of {', '.join(sorted(can.roles)) or 'none'}."
        for role in sorted(can.required_roles - {*given}):
            yield f"{here}.inputs", f"An input with the role '{role}' is needed."


@frozen(kw_only=True)
class _Order:
    request: VideoRequest
    pictures: Mapping[int, bytes]


@define(kw_only=True)
class _Job:
    handle: Handle
    token: str
    started_at: datetime
    order: _Order
    script: Script
    asked: int = 0
    ended: JobStatus | None = None
    film: bytes = b""


@define(kw_only=True)
class _Provider:
    """The far side: what is left when the client's process dies."""

    jobs: dict[str, _Job] = field(factory=dict)
    tokens: dict[str, str] = field(factory=dict)
    scripts: list[Script] = field(factory=list)
    films: dict[str, bytes] = field(factory=dict)
    cuts: dict[str, int] = field(factory=dict)
    lock: Lock = field(factory=Lock)


class FakeVideoGenerator(VideoGenerator):
    """Plays a script for each job, and gives films that play.

    Every ask of `status` moves a job one line on in its script. `finish` moves it to the end at once.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        capabilities: VideoCapabilities = _FAKE,
        recovery: Recovery = "token",
        script: Script = _SUCCESS,
        usd_micros_per_s: int | None = 100_000,
        model: ModelRef | None = None,
        find_lag_s: float = 0.0,
    ) -> None:
        """Make a provider of its own, with no jobs.

        Args:
            clock: Says when jobs started; by default one that stands still.
            capabilities: What `validate` checks.
            recovery: `token`: `start` knows tokens again; `list`: `find` does, and `start` too; `none`: a lost handle
                is lost, and the same token in another process buys again.
            script: What each job does, unless `next_job` said otherwise.
            usd_micros_per_s: Price of a second of film; None is not known.
            model: Its name.
            find_lag_s: For so long `find` does not show a new job, as a list that lags.
        """
        self.faults = Faults(*_CALLS)
        self._find_lag = timedelta(seconds=find_lag_s)
        self._clock = clock or FakeClock()
        self._capabilities = capabilities
        self._recovery: Recovery = recovery
        self._script = script
        self._usd_micros_per_s = usd_micros_per_s
        self._model = model or ModelRef(provider="fake", id="fake-video@1")
        self._provider = _Provider()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call that was sent, in order."""
        return self.faults.calls

    @property
    def charges(self) -> tuple[str, ...]:
        """The token of every job that was started, in order: one that comes twice was bought twice."""
        with self._provider.lock:
            return tuple(job.token for job in self._provider.jobs.values())

    def next_job(self, *script: JobStatus | None) -> None:
        """Give the next job that starts its own script; several calls are for several jobs."""
        with self._provider.lock:
            self._provider.scripts.append(script)

    def finish(self, handle: Handle) -> None:
        """Move a job to the end of its script."""
        with self._provider.lock:
            job = self._provider.jobs[handle.id]
            job.asked = max(job.asked, len(job.script) - 1)

    def forget(self, token: str) -> None:
        """Lose a token, as a provider does after some days: `start` buys again and `find` does not find it."""
        with self._provider.lock:
            del self._provider.tokens[token]

    def truncate(self, handle: Handle, *, to_bytes: int) -> None:
        """Give only the first bytes of the job's film, though `status` promises all of them."""
        with self._provider.lock:
            self._provider.cuts[handle.id] = to_bytes

    def reconnect(self) -> FakeVideoGenerator:
        """A second client of the same provider, as a new process would make: same jobs, no faults, no calls."""
        other = copy.copy(self)
        other.faults = Faults(*_CALLS)
        if self._recovery == "none":
            with self._provider.lock:
                self._provider.tokens.clear()
        return other

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        return self._capabilities

    @property
    @override
    def recovery(self) -> Recovery:
        return self._recovery

    @override
    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        return problems_of(request, self._capabilities)

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        return _price(request, self._usd_micros_per_s)

    @override
    def start(self, request: VideoRequest, media: OpenMedia, token: str) -> Handle:
        order = _order(request, media, self.validate(request))
        with self.faults.at("start", request=request, token=token), self._provider.lock:
            known = self._provider.tokens.get(token)
            if known is not None:
                if self._provider.jobs[known].order != order:
                    raise UsageError(f"The token '{token}' was used for another request.")
                return self._provider.jobs[known].handle
            number = len(self._provider.jobs) + 1
            handle = Handle(provider=self._model.provider, id=f"{number:04}-{sha256_hex(token.encode())[:8]}")
            self._provider.tokens[token] = handle.id
            self._provider.jobs[handle.id] = _Job(
                handle=handle,
                token=token,
                started_at=self._clock.now(),
                order=order,
                script=self._provider.scripts.pop(0) if self._provider.scripts else self._script,
            )
            return handle

    @override
    def status(self, handles: Sequence[Handle]) -> Mapping[Handle, JobStatus]:
        with self.faults.at("status", handles=tuple(handles)), self._provider.lock:
            told = ((handle, self._ask(self._provider.jobs.get(handle.id))) for handle in dict.fromkeys(handles))
            return {handle: status for handle, status in told if status is not None}

    def _ask(self, job: _Job | None) -> JobStatus | None:
        if job is None:
            return None
        if job.ended is not None:
            return job.ended
        status = job.script[min(job.asked, len(job.script) - 1)]
        job.asked += 1
        if status is None or status.state not in _ENDED:
            return status
        if status.state == "succeeded" and not status.outputs:
            job.film = self._film(job.order)
            output = Output(name="output.mp4", size_bytes=len(job.film), sha256=sha256_hex(job.film))
            status = evolve(status, outputs=(output,))
        job.ended = status
        return status

    def _film(self, order: _Order) -> bytes:
        key = hashlib.sha256(repr(order.request).encode()).hexdigest()
        if key not in self._provider.films:
            out = io.BytesIO()
            make_film(order.request, order.pictures, out)
            self._provider.films[key] = out.getvalue()
        return self._provider.films[key]

    @override
    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        if self._recovery != "list":
            raise UnsupportedRequestError(
                f"This provider has no list of jobs; a lost job is found by: {self._recovery}."
            )
        with self.faults.at("find", tokens=tuple(tokens), since=since), self._provider.lock:
            known = {token: self._provider.jobs[id_] for token, id_ in self._provider.tokens.items() if token in tokens}
            shown = self._clock.now() - self._find_lag
            return {token: job.handle for token, job in known.items() if since <= job.started_at <= shown}

    @override
    def fetch(self, handle: Handle, output: Output, offset: int = 0) -> BinaryIO:
        with self.faults.at("fetch", handle=handle, output=output, offset=offset), self._provider.lock:
            job = self._provider.jobs.get(handle.id)
            if job is None or job.ended is None or output.name not in {one.name for one in job.ended.outputs}:
                raise NotFoundError(f"The job {handle.id} has no output '{output.name}'.")
            return io.BytesIO(job.film[: self._provider.cuts.get(handle.id)][offset:])

    @override
    def cancel(self, handle: Handle) -> bool:
        with self.faults.at("cancel", handle=handle), self._provider.lock:
            job = self._provider.jobs.get(handle.id)
            if job is None or job.ended is not None:
                return False
            job.ended = JobStatus(state="cancelled", error=Fault(code="cancelled", message="on request"))
            return True

    @override
    def close(self) -> None:
        """Nothing to let go of; the provider and its jobs stay."""


class FakeVideoRenderer(VideoRenderer):
    """Renders the same small films in the caller's thread."""

    def __init__(self, *, capabilities: VideoCapabilities = _FAKE) -> None:
        self.faults = Faults("render")
        self._capabilities = capabilities

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every `render` that began, in order."""
        return self.faults.calls

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="fake", id="fake-renderer@1")

    @property
    @override
    def capabilities(self) -> VideoCapabilities:
        return self._capabilities

    @override
    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        return problems_of(request, self._capabilities)

    @override
    def estimate(self, request: VideoRequest) -> Estimate:
        return _price(request, 0)

    @override
    def render(
        self,
        request: VideoRequest,
        media: OpenMedia,
        out: BinaryIO,
        progress: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> JSON:
        order = _order(request, media, self.validate(request))

        def on_frame(done: int, total: int) -> None:
            if stopped():
                raise JobCancelledError(f"Stopped after {done} of {total} frames.", job_id="", billed=False)
            progress(done / total)

        with self.faults.at("render", request=request):
            frame_count = make_film(request, order.pictures, out, on_frame)
            progress(1.0)
            return {"frame_count": frame_count}


def _price(request: VideoRequest, usd_micros_per_s: int | None) -> Estimate:
    price = None if usd_micros_per_s is None else round(usd_micros_per_s * request.duration_s)
    return Estimate(usd_micros=price, video_s=request.duration_s, basis="a made-up price a second")


def _order(request: VideoRequest, media: OpenMedia, problems: Sequence[Problem]) -> _Order:
    """Read the pictures now: nobody promises that they can be opened later."""
    if problems:
        raise UnsupportedRequestError(" ".join(problem.message for problem in problems), problems=problems)
    pictures = {}
    for index, shot in enumerate(request.shots):
        for one in shot.inputs:
            with media(one.media) as stream:
                pictures[index] = stream.read()
    return _Order(request=request, pictures=pictures)
