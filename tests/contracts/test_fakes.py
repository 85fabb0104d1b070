"""What the fakes promise beyond their contracts: scripts, faults, films, time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from vrag.errors import BackendError, ThrottledError, UsageError
from vrag.testing import (
    FakeClock,
    FakeEmbedder,
    FakeStorage,
    FakeVideoGenerator,
    Faults,
    SampleMedia,
    failing,
    make_film,
    probe_film,
    sample_request,
)
from vrag.values.jobs import JobStatus
from vrag.values.requests import Shot, VideoRequest
from vrag.values.vectors import Item


@pytest.fixture
def media():
    return SampleMedia()


def start(generator, media, token="t", number=0):
    return generator.start(sample_request(generator.capabilities, media, number), media, token)


def test_the_clock_moves_only_by_hand():
    clock = FakeClock(datetime(2026, 5, 1, 12, tzinfo=UTC), seed=3)
    before = clock.now()
    clock.sleep(0.25)
    clock.advance(3600)
    assert clock.now() - before == timedelta(seconds=3600.25)
    assert clock.monotonic_s() == 3600.25
    assert clock.slept_s == (0.25,)
    with pytest.raises(UsageError):
        clock.advance(-1)


def test_the_clock_draws_from_its_seed():
    one, same, other = FakeClock(seed=1), FakeClock(seed=1), FakeClock(seed=2)
    first = [one.token_bytes(16), one.token_bytes(16)]
    assert first == [same.token_bytes(16), same.token_bytes(16)]
    assert first[0] != first[1]
    assert other.token_bytes(16) not in first


def outcomes(faults, count):
    answers = []
    for _ in range(count):
        try:
            with faults.at("call"):
                answers.append("done")
        except (BackendError, OSError) as error:
            answers.append(type(error).__name__)
    return answers


def test_faults_strike_the_nth_call_and_then_no_more():
    faults = Faults("call").on("call", after=2, times=2)
    assert outcomes(faults, 5) == ["done", "done", "ThrottledError", "ThrottledError", "done"]
    assert len(faults.calls) == 5


def test_several_faults_come_one_after_the_other():
    faults = Faults("call").on("call").on("call", error=OSError("disk"), after=1).on("call", after=3, times=None)
    assert outcomes(faults, 6) == [
        "ThrottledError",
        "OSError",
        "done",
        "ThrottledError",
        "ThrottledError",
        "ThrottledError",
    ]


def test_a_late_fault_strikes_after_the_work():
    faults, done = Faults("call").on("call", late=True), []
    with pytest.raises(ThrottledError), faults.at("call"):
        done.append(1)
    assert done == [1]


def test_a_fault_on_an_unknown_method_is_refused():
    with pytest.raises(UsageError, match="No call 'strat' that can fail; there are: start, status"):
        FakeVideoGenerator().faults.on("strat")


def test_a_script_is_played_ask_by_ask(media):
    generator = FakeVideoGenerator()
    generator.next_job(JobStatus(state="queued"), None, *failing("moderation", billed=True))
    handle = start(generator, media)
    told = [generator.status([handle]).get(handle) for _ in range(7)]
    assert [status and status.state for status in told] == ["queued", None, "queued", "running", *["failed"] * 3]
    assert told[-1].error.code == "moderation"
    assert told[-1].billed is True


def test_a_lost_reply_has_charged(media):
    generator = FakeVideoGenerator(recovery="list")
    generator.faults.on("start", error=BackendError("reset"), late=True)
    with pytest.raises(BackendError, match="reset"):
        start(generator, media)
    assert generator.charges == ("t",)
    assert generator.reconnect().find(["t"], datetime(2020, 1, 1, tzinfo=UTC)).keys() == {"t"}


def test_a_forgotten_token_buys_twice(media):
    generator = FakeVideoGenerator()
    first = start(generator, media)
    generator.forget("t")
    assert start(generator, media) != first
    assert generator.charges == ("t", "t")


def test_a_provider_without_recovery_forgets_with_the_process(media):
    generator = FakeVideoGenerator(recovery="none")
    start(generator, media)
    start(generator.reconnect(), media)
    assert generator.charges == ("t", "t")


def test_find_looks_at_the_time_of_the_start(media):
    clock = FakeClock()
    generator = FakeVideoGenerator(recovery="list", clock=clock)
    start(generator, media, "early")
    clock.advance(60)
    noon = clock.now()
    start(generator, media, "late", 1)
    assert generator.find(["early", "late"], noon).keys() == {"late"}


def test_a_truncated_film_is_shorter_than_promised(media):
    generator = FakeVideoGenerator()
    handle = start(generator, media)
    generator.finish(handle)
    [output] = generator.status([handle])[handle].outputs
    generator.truncate(handle, to_bytes=500)
    data = generator.fetch(handle, output).read()
    assert len(data) == 500 < output.size_bytes


@pytest.mark.parametrize(("width_px", "height_px", "fps", "duration_s"), [(320, 180, 24, 1), (98, 130, 29.97, 0.7)])
def test_a_film_plays_as_asked_and_begins_with_its_picture(media, tmp_path, width_px, height_px, fps, duration_s):
    picture = media.picture(3, width_px=width_px, height_px=height_px)
    shots = (Shot(prompt="a lake", duration_s=duration_s), Shot(prompt="a hill", duration_s=duration_s))
    request = VideoRequest(shots=shots, width_px=width_px, height_px=height_px, fps=fps)
    with (tmp_path / "film.mp4").open("w+b") as out:
        count = make_film(request, {0: media(picture).read()}, out)
    film = probe_film((tmp_path / "film.mp4").read_bytes())
    assert (film.width_px, film.height_px, film.codec) == (width_px, height_px, "h264")
    assert film.frame_count == count == round(2 * duration_s * fps)
    assert film.fps == pytest.approx(fps, abs=1e-3)
    source = np.asarray(Image.open(media(picture)), dtype=float)
    error = np.mean((film.first_frame - source) ** 2)
    assert 10 * np.log10(255**2 / error) > 28


def test_the_same_film_has_the_same_bytes_in_another_job(media):
    films = []
    for token in ("a", "b"):
        generator = FakeVideoGenerator()
        handle = start(generator, media, token)
        generator.finish(handle)
        [output] = generator.status([handle])[handle].outputs
        films.append(generator.fetch(handle, output).read())
    assert films[0] == films[1]


def test_a_job_needs_its_pictures_only_at_the_start(media):
    generator = FakeVideoGenerator()
    handle = start(generator, media)
    media._data.clear()
    generator.finish(handle)
    assert generator.status([handle])[handle].state == "succeeded"


def test_texts_that_share_words_are_near_and_pictures_are_found_by_colour(media):
    embedder = FakeEmbedder()

    def near(one, other):
        rows = embedder.embed([one, other], "index", media)
        return float(rows[0] @ rows[1])

    def text(words):
        return Item(kind="text", text=words)

    assert near(text("red shoes"), text("two red shoes")) > 0.7
    assert near(text("red shoes"), text("a lake")) < 0.4
    red, blue = (Item(kind="image", media=media.picture(number)) for number in (6, 1))
    assert near(text("red"), red) > 0.6 > near(text("red"), blue)


def test_a_fake_counts_only_what_was_sent(media):
    storage, generator = FakeStorage(), FakeVideoGenerator()
    with pytest.raises(UsageError):
        storage.exists("../up")
    request = evolve(sample_request(generator.capabilities, media), codec="none")
    with pytest.raises(UsageError):
        generator.start(request, media, "t")
    assert (storage.calls, generator.calls) == ((), ())


def test_fakes_need_no_pytest_and_load_nothing_heavy_before_use():
    code = (
        "import sys; sys.modules['pytest'] = None; from vrag.testing import FakeClock, Faults; FakeClock().sleep(1);"
        "assert not {'numpy', 'PIL', 'av', 'cryptography'} & sys.modules.keys();"
        "from vrag.testing import FakeVideoGenerator, FakeEmbedder, FakeStorage, FakeSigner, FakeInpainter"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
