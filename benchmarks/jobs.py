"""The runner of paid jobs against the bounds that it cannot beat.

    python benchmarks/jobs.py [--jobs N] [--speed N] [--planned N]

1. A fake service takes 300 ms to accept a job and 90 s to render it, 20 in flight. The lower bound of list scheduling for
   N jobs is ceil(N / 20) rounds of 90.3 s. Time runs `--speed` times as fast as the clock on the wall (sleeps are real,
   only shorter), so what the program itself needs weighs that much more than it would. Goal: at most 1.05 of the bound.
2. 10 000 planned jobs, opened and taken up by a new process until the first ones are submitted. Goal: under 10 s.
3. A change of state in the journal against a bare commit of one row, same file system, same journal mode. Goal: at most 3.
"""

from __future__ import annotations

import argparse
import io
import math
import sqlite3
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vrag.generation.runner import Runner
from vrag.testing import FakeStorage, make_film
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.jobs import Handle, JobStatus, Output, StepState
from vrag.values.requests import Estimate, ModelRef, Shot, VideoCapabilities, VideoRequest
from vrag.workspace import Workspace
from vrag.workspace.db import use_safest_journal
from vrag.workspace.limits import Limit

SUBMIT_S, RENDER_S, IN_FLIGHT = 0.3, 90.0, 20
GOAL_BOUND, GOAL_RESUME_S, GOAL_COMMIT = 1.05, 10.0, 3.0
MODEL = ModelRef(provider="fake", id="film@1")
FILM = VideoRequest(shots=(Shot(prompt="a lake", duration_s=0.5),), width_px=64, height_px=36, fps=8.0)


class FastClock:
    """Time that runs `speed` times as fast; sleeps are real and that much shorter."""

    def __init__(self, speed: float) -> None:
        self._speed, self._begun = speed, time.monotonic()
        self._drawn = 0

    def monotonic_s(self) -> float:
        return (time.monotonic() - self._begun) * self._speed

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic_s())

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s / self._speed)  # noqa: TID251  # this is the clock

    def token_bytes(self, count: int) -> bytes:
        self._drawn += 1
        return (self._drawn * 2654435761).to_bytes(8, "big")[-count:].rjust(count, b"\x11")


class Service:
    """Takes 300 ms to accept a job and 90 s to render it; refuses nothing, and counts how many run at once."""

    model, recovery, capabilities = MODEL, "list", VideoCapabilities(roles=frozenset())

    def __init__(self, clock: FastClock) -> None:
        self._clock, self._ends, self._lock = clock, {}, threading.Lock()
        self.most = self.asked = 0
        out = io.BytesIO()
        make_film(FILM, {}, out)
        self._film = out.getvalue()

    def start(self, _request, _media, token):
        self._clock.sleep(SUBMIT_S)
        with self._lock:
            now = self._clock.monotonic_s()
            self._ends[token] = now + RENDER_S
            self.most = max(self.most, sum(end > now for end in self._ends.values()))
        return Handle(provider="fake", id=token)

    def status(self, handles):
        self.asked += 1
        now = self._clock.monotonic_s()
        done = JobStatus(state="succeeded", billed=True, outputs=(Output(name="film.mp4", size_bytes=len(self._film)),))
        return {one: done if self._ends[one.id] <= now else JobStatus(state="running") for one in handles}

    def fetch(self, _handle, _output, offset=0):
        return io.BytesIO(self._film[offset:])

    def find(self, tokens, _since):
        return {token: Handle(provider="fake", id=token) for token in tokens if token in self._ends}

    def cancel(self, _handle):
        return False


def planned(number: int) -> PlannedVideo:
    return PlannedVideo(
        step_id=f"{number:064x}",
        brief=Brief(object_prompt=f"lake {number} " + "words " * 40, text_only=True, seed=number),
        generator="film",
        model=MODEL,
        request=FILM,
        sources=(),
        estimate=Estimate(usd_micros=500_000, video_s=6.0),
    )


def runner_of(workspace: Workspace, service: Service, clock: FastClock) -> Runner:
    journal = workspace.journal
    return Runner(
        journal=journal,
        storage=FakeStorage(),
        generators={"film": service},
        clock=clock,
        gate=lambda _step: None,
        record=lambda step, _closed: journal.advance(
            step.id, StepState.FINISHED, StepState.RECORDED, record_id=step.id
        ),
        limit_of=lambda _model: Limit(in_flight=IN_FLIGHT),
    )


def schedule(folder: Path, jobs: int, speed: float) -> float:
    clock = FastClock(speed)
    workspace, service = Workspace(folder, clock=clock), Service(clock)
    workspace.journal.plan_all(planned(number) for number in range(jobs))
    runner = runner_of(workspace, service, clock)
    begun_s, wall = clock.monotonic_s(), time.perf_counter()
    for future in runner.submit(workspace.journal.ids()).values():
        assert future.result().state is StepState.DELIVERED
    took_s, wall = clock.monotonic_s() - begun_s, time.perf_counter() - wall
    runner.close()
    workspace.close()
    bound_s = math.ceil(jobs / IN_FLIGHT) * (SUBMIT_S + RENDER_S)
    ratio = took_s / bound_s
    print(
        f"{jobs} jobs, {IN_FLIGHT} in flight, time x{speed:g}: {took_s:.0f} s of simulated time ({wall:.0f} s on the wall), "
        f"bound {bound_s:.0f} s: {ratio:.3f} (goal {GOAL_BOUND}); at most {service.most} at once, "
        f"{service.asked} calls asked for news"
    )
    return ratio


def resume(folder: Path, count: int) -> float:
    clock = FastClock(1.0)
    workspace = Workspace(folder, clock=clock)
    workspace.journal.plan_all(planned(number) for number in range(count))
    workspace.close()
    begun = time.perf_counter()
    workspace, service = Workspace(folder, clock=clock), Service(clock)
    runner = runner_of(workspace, service, clock)
    runner.submit(workspace.journal.ids({StepState.PLANNED}))
    while workspace.journal.counts().get(StepState.SUBMITTED, 0) < IN_FLIGHT:
        time.sleep(0.02)  # noqa: TID251  # the wall is what is measured
    took_s = time.perf_counter() - begun
    runner.close()
    workspace.close()
    print(f"{count} planned jobs taken up, the first {IN_FLIGHT} submitted: {took_s:.2f} s (goal {GOAL_RESUME_S:g} s)")
    return took_s


def commits(folder: Path, rounds: int = 300) -> float:
    """Taken in turns, the median of each."""
    workspace = Workspace(folder)
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    use_safest_journal(bare, folder / "bare.db")
    bare.execute("create table row(id integer primary key, value text) strict")
    workspace.journal.plan_all(planned(number) for number in range(rounds))
    ours, theirs = [], []
    for number in range(rounds):
        begun = time.perf_counter()
        bare.execute("begin immediate")
        bare.execute("insert into row(value) values('x')")
        bare.execute("commit")
        theirs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        workspace.journal.advance(f"{number:064x}", StepState.PLANNED, StepState.CANCELLED, error={"billed": False})
        ours.append(time.perf_counter() - begun)
    bare.close()
    workspace.close()
    one, other = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    print(f"a change of state {one:.2f} ms, a bare commit {other:.2f} ms: {one / other:.2f} (goal {GOAL_COMMIT:g})")
    return one / other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=50.0)
    parser.add_argument("--planned", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commits(Path(folder) / "commits")
        resume(Path(folder) / "resume", asked.planned)
        schedule(Path(folder) / "schedule", asked.jobs, asked.speed)


if __name__ == "__main__":
    main()
