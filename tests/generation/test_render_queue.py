"""The render queue: jobs that live in a folder, and end truthfully however their process does."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from vrag.errors import (
    BackendError,
    FormatVersionError,
    NotFoundError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.generation.render_queue import RenderQueue
from vrag.testing import FakeVideoRenderer
from vrag.testing.media import SampleMedia, sample_request
from vrag.values.jobs import Handle, Output

MEDIA = SampleMedia()
ENDED = {"succeeded", "failed", "cancelled", "lost"}


class ScriptedRenderer(FakeVideoRenderer):
    """A real small film, once it is let through; or what it is told to raise."""

    def __init__(self, raises=None):
        super().__init__()
        self.begun, self.gate, self.raises = threading.Event(), threading.Event(), raises

    def render(self, request, media, out, progress, stopped):
        progress(0.25)
        self.begun.set()
        while not self.gate.wait(0.005) and not stopped():
            pass
        if self.raises is not None:
            out.write(b"half a film")
            raise self.raises
        return super().render(request, media, out, progress, stopped)


def request(renderer, number=1):
    return sample_request(renderer.capabilities, MEDIA, number)


def ended(queue, handle):
    deadline = time.monotonic() + 60
    while True:
        status = queue.status([handle])[handle]
        if status.state in ENDED:
            return status
        assert time.monotonic() < deadline, f"still {status.state}"
        threading.Event().wait(0.005)


@pytest.fixture
def renderer():
    return ScriptedRenderer()


@pytest.fixture
def queue(renderer, tmp_path):
    with_gate = RenderQueue(renderer, tmp_path / "renders")
    yield with_gate
    with_gate.close()


def test_a_real_film_from_start_to_fetch_and_in_another_queue(tmp_path):
    moves = pytest.importorskip("vrag.backends.local.camera_moves", reason="the extra 'local' is not installed")
    noise = np.random.default_rng(0).integers(0, 255, (9, 16, 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((320, 180)).save(data, "PNG")
    picture = MEDIA.add(data.getvalue(), "image/png", 320, 180)
    renderer = moves.CameraMoveRenderer()
    asked = request(renderer)
    shot = evolve(asked.shots[0], inputs=(evolve(asked.shots[0].inputs[0], media=picture),), duration_s=0.5)
    asked = evolve(asked, shots=(shot,), width_px=160, height_px=90)
    queue = RenderQueue(renderer, tmp_path)
    handle = queue.start(asked, MEDIA, "a token")
    status = ended(queue, handle)
    assert (status.state, status.progress, status.billed) == ("succeeded", 1.0, False)
    assert status.report["frames"] == 12
    (output,) = status.outputs
    with queue.fetch(handle, output) as stream:
        film = stream.read()
    assert (output.role, output.media_type) == ("video", "video/mp4")
    assert (output.size_bytes, output.sha256) == (len(film), hashlib.sha256(film).hexdigest())
    queue.close()
    other = RenderQueue(renderer, tmp_path)
    assert other.status([handle]) == {handle: status}
    assert other.start(asked, MEDIA, "a token") == handle
    assert ended(other, handle) == status
    with other.fetch(handle, output, offset=100) as rest:
        assert rest.read() == film[100:]
    other.close()


def test_progress_is_seen_and_a_token_means_one_job(queue, renderer):
    handle = queue.start(request(renderer), MEDIA, "one")
    assert queue.start(request(renderer), MEDIA, "one") == handle
    waiting = queue.start(request(renderer, 2), MEDIA, "two")
    assert renderer.begun.wait(10)
    assert (queue.status([handle])[handle].state, queue.status([handle])[handle].progress) == ("running", 0.25)
    assert queue.status([waiting])[waiting].state == "queued"
    with pytest.raises(UsageError, match="another request"):
        queue.start(request(renderer, 3), MEDIA, "one")
    with pytest.raises(UsageError, match="same token"):
        queue.find(["one"], datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="not empty"):
        queue.start(request(renderer), MEDIA, "")
    with pytest.raises(UnsupportedRequestError):
        queue.start(evolve(request(renderer), width_px=17), MEDIA, "three")
    renderer.gate.set()
    assert {ended(queue, handle).state, ended(queue, waiting).state} == {"succeeded"}


def test_cancel_stops_what_runs_and_what_waits(queue, renderer, tmp_path):
    running, waiting = (queue.start(request(renderer, number), MEDIA, str(number)) for number in (1, 2))
    assert renderer.begun.wait(10)
    assert RenderQueue(renderer, tmp_path / "renders").cancel(running) is False, "a queue cancels its own jobs only"
    assert queue.cancel(waiting)
    assert queue.status([waiting])[waiting].state == "cancelled"
    assert queue.cancel(running)
    status = ended(queue, running)
    assert (status.state, status.error.code, status.outputs) == ("cancelled", "cancelled", ())
    assert not queue.cancel(running)
    assert queue.start(request(renderer), MEDIA, "1") == running
    assert queue.status([running])[running] == status, "an end is for good"
    assert not list((tmp_path / "renders").glob("*.part"))


def test_close_stops_joins_and_leaves_the_jobs_lost(renderer, tmp_path):
    queue, other = (RenderQueue(renderer, tmp_path) for _ in range(2))
    handles = [queue.start(request(renderer, number), MEDIA, str(number)) for number in (1, 2)]
    assert renderer.begun.wait(10)
    assert {status.state for status in other.status(handles).values()} == {"running"}
    queue.close()
    queue.close()
    for seen in (queue.status(handles), other.status(handles)):
        assert {status.state for status in seen.values()} == {"lost"}
        assert all(status.error.retryable for status in seen.values())
    with pytest.raises(UsageError, match="closed"):
        queue.start(request(renderer), MEDIA, "3")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vrag-render")]
    assert not list(tmp_path.glob("queue-*.lock"))
    renderer.gate.set()
    again = other.start(request(renderer), MEDIA, "1, again")
    assert ended(other, again).state == "succeeded", "rendered again under a new token"
    other.close()


KILLED = """
import sys, threading
from pathlib import Path
from vrag.generation.render_queue import RenderQueue
from vrag.testing import FakeVideoRenderer
from vrag.testing.media import SampleMedia, sample_request

class Endless(FakeVideoRenderer):
    def render(self, *_):
        print(handle.id, flush=True)
        threading.Event().wait()

ready = threading.Lock()
renderer, media = Endless(), SampleMedia()
queue = RenderQueue(renderer, Path(sys.argv[1]))
Endless.render, render = lambda *args: (ready.acquire(), render(*args)), Endless.render
ready.acquire()
handle = queue.start(sample_request(renderer.capabilities, media, 1), media, "one")
ready.release()
"""


def test_what_a_killed_process_left_is_lost(renderer, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        handle = Handle(provider=renderer.model.provider, id=process.stdout.readline().strip())
        queue = RenderQueue(renderer, tmp_path)
        assert queue.status([handle])[handle].state == "running"
        assert queue.start(request(renderer), MEDIA, "one") == handle, "it is rendered over there"
        assert not renderer.begun.is_set()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert queue.status([handle])[handle].state == "lost"
    assert queue.start(request(renderer), MEDIA, "one") == handle
    assert queue.status([handle])[handle].state == "lost"
    renderer.gate.set()
    assert ended(queue, queue.start(request(renderer), MEDIA, "one, again")).state == "succeeded"
    queue.close()


@pytest.mark.parametrize(
    ("raised", "code", "retryable"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/place"), "disk_full", True),
        (OSError(errno.EIO, "Input/output error", "/secret/place"), "service", True),
        (BackendError("The encoder failed.", retryable=True), "backend", True),
        (UsageError("Not this picture."), "usage", False),
        (MemoryError(), "service", True),
        (RuntimeError("<object at 0x7f00> /secret/place"), "service", False),
        (SystemExit(1), "service", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_failed_render_is_told_and_the_queue_goes_on(raised, code, retryable, tmp_path):
    renderer = ScriptedRenderer(raised)
    renderer.gate.set()
    queue = RenderQueue(renderer, tmp_path)
    handle = queue.start(request(renderer), MEDIA, "one")
    status = ended(queue, handle)
    assert (status.state, status.error.code, status.error.retryable) == ("failed", code, retryable)
    assert "secret" not in status.error.message
    assert "0x" not in status.error.message
    assert not list(tmp_path.glob("*.part"))
    renderer.raises = None
    assert ended(queue, queue.start(request(renderer, 2), MEDIA, "two")).state == "succeeded"
    queue.close()


def test_a_report_that_is_no_json_fails_its_job_alone(tmp_path):
    class Careless(FakeVideoRenderer):
        def render(self, *given):
            super().render(*given)
            return {"quality": float("nan")}

    queue = RenderQueue(Careless(), tmp_path)
    assert ended(queue, queue.start(request(Careless()), MEDIA, "one")).state == "failed"
    queue.close()


def test_unknown_jobs_are_no_news_and_missing_films_are_typed(queue, renderer, tmp_path):
    stranger = Handle(provider=renderer.model.provider, id="0" * 64)
    climber = Handle(provider=renderer.model.provider, id="../../etc/passwd")
    assert queue.status([stranger, climber, Handle(provider="elsewhere", id="0" * 64)]) == {}
    with pytest.raises(NotFoundError):
        queue.fetch(climber, Output(name="video.mp4"))
    renderer.gate.set()
    handle = queue.start(request(renderer), MEDIA, "one")
    (output,) = ended(queue, handle).outputs
    with pytest.raises(NotFoundError, match="no output"):
        queue.fetch(handle, Output(name="../x"))
    (tmp_path / "renders" / f"{handle.id}.mp4").unlink()
    with pytest.raises(NotFoundError, match="no longer"):
        queue.fetch(handle, output)


def test_a_damaged_or_newer_state_is_an_error_and_no_news(queue, renderer, tmp_path):
    renderer.gate.set()
    handle = queue.start(request(renderer), MEDIA, "one")
    ended(queue, handle)
    file = tmp_path / "renders" / f"{handle.id}.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "format": 2}))
    with pytest.raises(FormatVersionError, match="format 2"):
        queue.status([handle])
    file.write_text("{")
    with pytest.raises(BackendError, match="cannot be read"):
        queue.status([handle])


def test_the_folder_keeps_no_words_and_no_token(queue, renderer, tmp_path):
    renderer.gate.set()
    asked = request(renderer)
    asked = evolve(asked, shots=(evolve(asked.shots[0], prompt="a very secret plan"),))
    ended(queue, queue.start(asked, MEDIA, "the-token"))
    for file in (tmp_path / "renders").iterdir():
        assert "token" not in file.name
        assert b"secret" not in file.read_bytes()
        assert b"the-token" not in file.read_bytes()


def test_a_folder_that_cannot_be_written_starts_nothing(renderer, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    queue = RenderQueue(renderer, tmp_path / "file" / "renders")
    with pytest.raises(BackendError, match="cannot be written") as caught:
        queue.start(request(renderer), MEDIA, "one")
    assert caught.value.retryable
    queue.close()
    with pytest.raises(UsageError, match="at least 1 worker"):
        RenderQueue(renderer, tmp_path, workers=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused(queue, renderer):
    handle = queue.start(request(renderer), MEDIA, "one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            queue.status([handle])
        except UsageError:
            queue.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    renderer.gate.set()
    assert ended(queue, handle).state == "succeeded"


def test_several_workers_render_at_once(tmp_path):
    together = threading.Barrier(3)

    class Meeting(FakeVideoRenderer):
        def render(self, *given):
            together.wait(20)
            return super().render(*given)

    queue = RenderQueue(Meeting(), tmp_path, workers=3)
    handles = [queue.start(request(Meeting(), number), MEDIA, str(number)) for number in range(3)]
    assert {ended(queue, handle).state for handle in handles} == {"succeeded"}
    queue.close()
