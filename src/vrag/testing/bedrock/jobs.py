"""The asynchronous jobs of a fake Bedrock: tokens, states, charges and the files that they leave in S3."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any, Final, Literal

from attrs import define, evolve, field, frozen
from typing_extensions import override

from vrag.clock import Clock
from vrag.testing.bedrock.wire import Refusal, refuse
from vrag.testing.films import make_film
from vrag.values.canonical import JSON
from vrag.values.requests import VideoRequest

__all__ = ["Charge", "Commission", "Ending", "Jobs"]

Ending = Literal["success", "moderation", "service", "throttled", "missing_output", "truncated_output"]
"""How a job ends: with a film; with what its failure messages and status file say; or Completed without a whole film."""

_ACCOUNT: Final = "123456789012"
_FAILURES: Final = {
    "moderation": (
        "RAI_VIOLATION_OUTPUT_VIDEO_DEFLECTION",
        "The generated video has been blocked by our content filters.",
    ),
    "service": ("INTERNAL_SERVER_EXCEPTION", "Internal server error."),
    "throttled": ("RATE_LIMIT_EXCEEDED", "Rate limit exceeded."),
}


@frozen(kw_only=True)
class Charge:
    """One thing that the account is billed for."""

    model_id: str
    token: str | None
    """Of a job; None for a call that answers at once."""
    at: datetime


@frozen(kw_only=True)
class Commission:
    """What a job is to make, read from the body of its model."""

    film: VideoRequest | None = None
    """None where the job makes no film but `files`."""
    pictures: Mapping[int, bytes] = field(factory=dict)
    shot_files: bool = False
    """Each shot is a file too."""
    files: Callable[[Job], Mapping[str, bytes]] | None = None
    """Makes what a job without a film leaves behind."""


@define(kw_only=True)
class Job:
    """One job and how it will end."""

    arn: str
    model_id: str
    token: str
    digest: bytes
    folder: str
    commission: Commission
    ending: Ending
    submitted_at: datetime
    ends_at: datetime
    status: str = "InProgress"
    failure: str | None = None

    def summary(self, region: str) -> dict[str, JSON]:
        """What Get and List tell of it."""
        told: dict[str, JSON] = {
            "invocationArn": self.arn,
            "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{self.model_id}",
            "clientRequestToken": self.token,
            "status": self.status,
            "submitTime": _iso(self.submitted_at),
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": self.folder}},
        }
        if self.status != "InProgress":
            told |= {"endTime": _iso(self.ends_at), "lastModifiedTime": _iso(self.ends_at)}
        if self.failure is not None:
            told["failureMessage"] = self.failure
        return told


@define(kw_only=True)
class Jobs:
    """All jobs of an account. `render_s` is how long each one runs, by the clock that is given."""

    s3: Any
    clock: Clock
    region: str
    render_s: float = 90.0
    list_lag_s: float = 0.0
    """For so long a list does not show a job, nor that it has ended."""
    page_limit: int = 1000
    """No page of a list shows more, whatever is asked."""
    status_file: str = "video-generation-status.json"
    """Amazon's page names two; the other is `generation-status.json`."""
    make_film: Callable[..., int] = make_film
    charges: list[Charge] = field(factory=list)
    _jobs: dict[str, Job] = field(factory=dict)
    _tokens: dict[str, str] = field(factory=dict)
    _endings: list[Ending] = field(factory=list)
    _lock: Lock = field(factory=Lock)

    def script(self, *endings: Ending) -> None:
        """How the next jobs will end, one each."""
        with self._lock:
            self._endings.extend(endings)

    def forget(self, token: str) -> None:
        """Lose a token: starting with it again makes another job. Lists still show it with its job."""
        with self._lock:
            del self._tokens[token]

    def finish(self, arn: str) -> None:
        """Let a job end now."""
        with self._lock:
            job = self._jobs[arn]
            job.ends_at = min(job.ends_at, self.clock.now())
            self._settle(job)

    @property
    def count(self) -> int:
        """How many jobs were started."""
        with self._lock:
            return len(self._jobs)

    def start(self, model_id: str, body: JSON, output: Mapping[str, str], token: str, commission: Commission) -> str:
        """Start a job, or name the one that this token started.

        Raises:
            Refusal: The token was used for another request, or the bucket cannot be written.
        """
        same = json.dumps([model_id, body, dict(output)], sort_keys=True).encode()
        digest = hashlib.sha256(same).digest()
        with self._lock:
            if (known := self._tokens.get(token)) is not None:
                if self._jobs[known].digest != digest:
                    raise Refusal("ConflictException", "The client request token was used with other parameters.")
                return known
            now = self.clock.now()
            number = hashlib.sha256(f"{len(self._jobs)}/{token}".encode()).hexdigest()[:12]
            folder = f"{output['s3Uri'].rstrip('/')}/{number}"
            job = Job(
                arn=f"arn:aws:bedrock:{self.region}:{_ACCOUNT}:async-invoke/{number}",
                model_id=model_id,
                token=token,
                digest=digest,
                folder=folder,
                commission=commission,
                ending=self._endings.pop(0) if self._endings else "success",
                submitted_at=now,
                ends_at=now + timedelta(seconds=self.render_s),
            )
            self._put(job, "manifest.json", json.dumps({"requestId": number}).encode())
            self._jobs[job.arn], self._tokens[token] = job, job.arn
            self.charges.append(Charge(model_id=model_id, token=token, at=now))
            return job.arn

    def get(self, arn: str) -> dict[str, JSON]:
        """What is known of one job."""
        with self._lock:
            if arn not in self._jobs:
                raise refuse("The provided invocation ARN is not valid.")
            self._settle(self._jobs[arn])
            return self._jobs[arn].summary(self.region)

    def page(self, asked: Mapping[str, JSON]) -> dict[str, JSON]:
        """One page of the list of jobs."""
        with self._lock:
            seen_until = self.clock.now() - timedelta(seconds=self.list_lag_s)
            jobs = [job for job in self._jobs.values() if job.submitted_at <= seen_until]
            for job in jobs:
                if job.ends_at <= seen_until:
                    self._settle(job)
            if asked.get("sortOrder", "Descending") == "Descending":
                jobs.reverse()
            if (after := asked.get("submitTimeAfter")) is not None:
                jobs = [job for job in jobs if job.submitted_at > after]
            if (before := asked.get("submitTimeBefore")) is not None:
                jobs = [job for job in jobs if job.submitted_at < before]
            if (status := asked.get("statusEquals")) is not None:
                jobs = [job for job in jobs if job.status == status]
            first, size = int(asked.get("nextToken", 0)), min(asked.get("maxResults", 100), self.page_limit)
            shown = [self._seen(job, seen_until) for job in jobs[first : first + size]]
            more = {"nextToken": str(first + size)} if first + size < len(jobs) else {}
            return {"asyncInvokeSummaries": shown, **more}

    def _seen(self, job: Job, until: datetime) -> dict[str, JSON]:
        if job.ends_at <= until or job.status == "InProgress":
            return job.summary(self.region)
        return evolve(job, status="InProgress", failure=None).summary(self.region)

    def _settle(self, job: Job) -> None:
        if job.status != "InProgress" or job.ends_at > self.clock.now():
            return
        film_asked = job.commission.film
        parts = film_asked.shots if film_asked is not None else ()
        if job.ending in _FAILURES:
            kind, job.failure = _FAILURES[job.ending]
            job.status = "Failed"
            failed = {"status": "FAILURE", "failureType": kind, "failureMessage": job.failure}
            self._put_status(job, failed, [failed] * len(parts))
            return
        job.status = "Completed"
        if film_asked is None:
            made = job.commission.files(job) if job.commission.files and job.ending != "missing_output" else {}
            for name, data in made.items():
                self._put(job, name, data)
            return
        film = _filmed(self.make_film, _Order(job.commission))
        if job.ending == "truncated_output":
            film = film[: len(film) // 2]
        if job.ending != "missing_output":
            self._put(job, "output.mp4", film)
        shots = [f"shot_{number:04}.mp4" for number in range(1, len(parts) + 1)] if job.commission.shot_files else []
        for index, name in enumerate(shots):
            alone = {0: job.commission.pictures[index]} if index in job.commission.pictures else {}
            request = evolve(film_asked, shots=(parts[index],))
            self._put(job, name, _filmed(self.make_film, _Order(Commission(film=request, pictures=alone))))
        told = [{"status": "SUCCESS", "location": f"{job.folder}/{name}"} for name in shots]
        self._put_status(job, {"status": "SUCCESS", "location": f"{job.folder}/output.mp4"}, told)

    def _put_status(self, job: Job, film: JSON, shots: list[JSON]) -> None:
        document = {"schemaVersion": "1.0.0", "shots": shots, "fullVideo": film}
        self._put(job, self.status_file, json.dumps(document).encode())

    def _put(self, job: Job, name: str, data: bytes) -> None:
        bucket, _, prefix = job.folder.removeprefix("s3://").partition("/")
        try:
            self.s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
        except Exception as error:
            raise refuse("Invalid Output Config/Credentials") from error


class _Order:
    """A commission that a cache can hold: equal ones make the same film."""

    def __init__(self, commission: Commission) -> None:
        self.commission = commission
        pictures = {index: hashlib.sha256(data).hexdigest() for index, data in commission.pictures.items()}
        self._key = hashlib.sha256(repr((commission.film, sorted(pictures.items()))).encode()).digest()

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Order) and other._key == self._key

    @override
    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=128)
def _filmed(film: Callable[..., int], order: _Order) -> bytes:
    out = io.BytesIO()
    assert order.commission.film is not None  # others make no film
    film(order.commission.film, order.commission.pictures, out)
    return out.getvalue()


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
