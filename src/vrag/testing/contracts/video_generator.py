"""The contract of `VideoGenerator`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from attrs import evolve
from typing_extensions import override

from vrag.errors import BackendError, NotFoundError, UnsupportedRequestError, UsageError, VRAGError
from vrag.interfaces import VideoGenerator
from vrag.media.ref import sha256_hex
from vrag.testing.contracts.clauses import (
    Contract,
    assert_estimate,
    assert_names_itself,
    call_within,
    refuses,
)
from vrag.testing.contracts.requests import assert_refuses_what_it_cannot, beyond
from vrag.testing.media import SampleMedia, sample_request
from vrag.values.jobs import Handle, JobStatus, Output
from vrag.values.requests import VideoCapabilities

__all__ = ["VideoGeneratorContract"]

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FAR_AHEAD: Final = datetime(2999, 1, 1, tzinfo=UTC)


class VideoGeneratorContract(Contract, suite=True):
    """Hooks: `make`, `sent`, `job_count`, `finish`; `reopen` and `break_find` where the defaults do not fit.

    The jobs of the generator that `make` gives should not end before `finish` is called, where that can be arranged:
    else the clauses about waiting see less.
    """

    seam: ClassVar[type] = VideoGenerator

    def job_count(self, backend: VideoGenerator) -> int:
        """How many jobs the provider has started (and would charge), counted around the interface."""
        raise NotImplementedError(f"{type(self).__name__} needs `job_count(self, backend)`.")

    def finish(self, backend: VideoGenerator, handle: Handle) -> None:
        """Let the job end well, and return when `status` says so."""
        raise NotImplementedError(f"{type(self).__name__} needs `finish(self, backend, handle)`.")

    def reopen(self, backend: VideoGenerator, tmp_path: Path) -> VideoGenerator:  # noqa: ARG002  # for suites that reconnect
        """A second client of the same account, as another process would make one; by default made again in the folder."""
        again: VideoGenerator = self.make(tmp_path)
        return again

    def break_find(self, backend: VideoGenerator) -> None:
        """Make the next `find` see only a part, by a page that fails; needed where `recovery` is `list`."""
        raise NotImplementedError(f"{type(self).__name__} needs `break_find(self, backend)`.")

    @override
    def work(self, backend: VideoGenerator, number: int) -> object:
        media = SampleMedia()
        handle = backend.start(sample_request(backend.capabilities, media, number), media, self.token(number))
        status = self._finished(backend, handle)
        with backend.fetch(handle, _film(status)) as stream:
            return status.state, [output.role for output in status.outputs], len(stream.read(1000))

    def token(self, number: int) -> str:
        """A token as the library makes them: 64 hexadecimal digits."""
        return sha256_hex(f"{type(self).__qualname__} {number}".encode())

    def _start(self, backend: VideoGenerator, number: int = 1) -> Handle:
        media = SampleMedia()
        return backend.start(sample_request(backend.capabilities, media, number), media, self.token(number))

    def _finished(self, backend: VideoGenerator, handle: Handle) -> JobStatus:
        self.finish(backend, handle)
        status = backend.status([handle]).get(handle)
        assert status is not None, "There is no news of a job that has ended."
        assert status.state == "succeeded", f"The job ended as {status.state}: {status.error}."
        return status

    def test_model__names_itself(self, backend: VideoGenerator) -> None:
        """Which model answers.

        When it fails: `model` is a `ModelRef` with provider and id, the same on each read.
        """
        assert_names_itself(backend)

    def test_capabilities__never_change(self, backend: VideoGenerator) -> None:
        """What it can be asked; it never changes.

        When it fails: capabilities are a constant of the model, not what the provider is ready for at the moment.
        """
        before = backend.capabilities
        assert isinstance(before, VideoCapabilities)
        handle = self._start(backend)
        assert backend.capabilities == before
        self.finish(backend, handle)
        assert backend.capabilities == before

    def test_recovery__a_lost_job_is_found(self, backend: VideoGenerator, tmp_path: Path) -> None:
        """How a lost job is found: `token` (start again with the same token), `list` (`find`), or `none`.

        When it fails: a second client must find the job in the way that `recovery` names, without starting another.
        """
        assert backend.recovery in {"token", "list", "none"}
        handle = self._start(backend)
        count = self.job_count(backend)
        again = self.reopen(backend, tmp_path)
        try:
            if backend.recovery == "token":
                assert self._start(again) == handle
            elif backend.recovery == "list":
                assert again.find([self.token(1)], _LONG_AGO) == {self.token(1): handle}
            assert self.job_count(backend) == count, "Looking for a job started another one."
        finally:
            again.close()

    def test_validate__names_what_it_will_not_do(self, backend: VideoGenerator) -> None:
        """What it will not do of `request`; nothing is sent.

        When it fails: compare shots, lengths, size, rate, codec, roles and prompt with `capabilities`, one by one.
        """
        before = self.sent(backend)
        assert_refuses_what_it_cannot(backend, SampleMedia())
        assert self.sent(backend) == before, "A validation was sent."

    def test_validate__empty_within_capabilities(self, backend: VideoGenerator) -> None:
        """Empty for a request within `capabilities`.

        When it fails: either the capabilities promise too much, or `validate` refuses more than they say.
        """
        media = SampleMedia()
        for number in range(3):
            request = sample_request(backend.capabilities, media, number)
            assert tuple(backend.validate(request)) == ()

    def test_estimate__sends_nothing(self, backend: VideoGenerator) -> None:
        """What the request would cost; nothing is sent.

        When it fails: compute the price from the request; `video_s` is its length.
        """
        before = self.sent(backend)
        request = sample_request(backend.capabilities, SampleMedia())
        estimate = backend.estimate(request)
        assert_estimate(estimate)
        assert abs(estimate.video_s - request.duration_s) < 1e-6
        assert self.sent(backend) == before, "An estimate was sent."

    def test_start__does_not_wait(self, backend: VideoGenerator) -> None:
        """Start a job and return; it never waits for a render.

        When it fails: hand the work to the provider or to a worker, and return its handle.
        """
        before = self.job_count(backend)
        handle = call_within(self.patience_s, lambda: self._start(backend))
        assert isinstance(handle, Handle)
        assert self.job_count(backend) == before + 1
        self.finish(backend, handle)

    def test_start__refuses_before_sending(self, backend: VideoGenerator) -> None:
        """A request with a refused problem raises `UnsupportedRequestError` before anything is sent.

        When it fails: `start` calls `validate` first and raises with its problems.
        """
        media = SampleMedia()
        sent, jobs = self.sent(backend), self.job_count(backend)
        for number, (field, request) in enumerate(beyond(backend.capabilities, media)):
            with refuses(UnsupportedRequestError, f"A request past its {field}"):
                backend.start(request, media, self.token(100 + number))
        assert (self.sent(backend), self.job_count(backend)) == (sent, jobs), "Something was sent before a refusal."

    def test_start__same_token_same_job(self, backend: VideoGenerator) -> None:
        """The same token gives the same handle, and one job.

        When it fails: pass the token as the provider's idempotency key, or look for it before starting.
        """
        before = self.job_count(backend)
        first, second = self._start(backend), self._start(backend)
        other = self._start(backend, 2)
        assert first == second
        assert other != first
        self.finish(backend, first)
        assert self._start(backend) == first, "The token of a job that has ended started another one."
        assert self.job_count(backend) == before + 2

    def test_start__same_token_other_request(self, backend: VideoGenerator) -> None:
        """The same token with another request raises `UsageError` or `BackendError`, and starts nothing.

        When it fails: compare the request with the one the token was used for; a conflict answer of the provider is
        an error, not a handle.
        """
        media = SampleMedia()
        self._start(backend)
        before = self.job_count(backend)
        other = sample_request(backend.capabilities, media, 2)
        try:
            backend.start(other, media, self.token(1))
        except (UsageError, BackendError):
            pass
        except Exception as error:
            raise AssertionError(f"Another request with the same token raised {error!r}.") from error
        else:
            raise AssertionError("Another request was taken under a token that was used.")
        assert self.job_count(backend) == before

    def test_status__does_not_wait(self, backend: VideoGenerator) -> None:
        """What is known of these jobs; it never waits for a render.

        When it fails: ask the provider once and return what it says; the caller asks again.
        """
        handles = [self._start(backend, number) for number in (1, 2)]
        answer = call_within(self.patience_s, lambda: backend.status(handles))
        for status in answer.values():
            assert isinstance(status, JobStatus)
            assert status.progress is None or 0 <= status.progress <= 1
        for handle in handles:
            self.finish(backend, handle)

    def test_status__left_out_means_no_news(self, backend: VideoGenerator) -> None:
        """A handle left out of the answer means "no news".

        When it fails: the answer holds handles that were asked and no others; a job nobody knows is left out or `lost`.
        """
        handle, other = self._start(backend), self._start(backend, 2)
        assert backend.status([]) == {}
        self._finished(backend, handle)
        unknown = evolve(handle, id=handle.id + "-unknown")
        answer = backend.status([handle, unknown, handle])
        assert answer.keys() <= {handle, unknown}, "It answered for a job that was not asked for."
        assert answer[handle].state == "succeeded", "One unknown handle hid the news of another."
        assert unknown not in answer or answer[unknown].state == "lost"
        self.finish(backend, other)

    def test_status__success_names_a_video(self, backend: VideoGenerator) -> None:
        """A succeeded job names its outputs; one of them has the role `video`.

        When it fails: exactly one output has the role `video`; size and digest, if given, are those of its bytes.
        """
        handle = self._start(backend)
        status = self._finished(backend, handle)
        film = _film(status)
        with backend.fetch(handle, film) as stream:
            data = stream.read()
        assert data
        assert film.size_bytes in {None, len(data)}
        assert film.sha256 in {None, sha256_hex(data)}

    def test_status__an_end_is_for_good(self, backend: VideoGenerator) -> None:
        """A state that has ended (succeeded, failed, cancelled, lost) never changes again.

        When it fails: keep what a job ended as; a later `cancel` or `start` with its token does not move it.
        """
        handle = self._start(backend)
        ended = self._finished(backend, handle)
        for _ in range(3):
            assert backend.status([handle])[handle].state == ended.state
        backend.cancel(handle)
        self._start(backend)
        again = backend.status([handle])[handle]
        assert (again.state, again.outputs) == (ended.state, ended.outputs)

    def test_find__jobs_with_these_tokens_since(self, backend: VideoGenerator) -> None:
        """The jobs started with these tokens at or after `since`; a token left out was not found.

        When it fails: match whole tokens, leave out jobs before `since`, and look through every page of the list.
        """
        if backend.recovery != "list":
            with refuses(VRAGError, f"`find` where recovery is '{backend.recovery}'"):
                backend.find([self.token(1)], _LONG_AGO)
            return
        handles = {self.token(number): self._start(backend, number) for number in range(12)}
        asked = [self.token(3), self.token(11), self.token(99)]
        expected = {token: handles[token] for token in asked[:2]}
        assert backend.find(asked, _LONG_AGO) == expected
        assert backend.find(asked, _FAR_AHEAD) == {}
        assert backend.find([], _LONG_AGO) == {}

    def test_find__raises_if_it_could_not_look_completely(self, backend: VideoGenerator) -> None:
        """It raises if it could not look completely: an answer is the whole answer.

        When it fails: an error on a later page rises; where jobs cannot be listed at all, `find` raises always.
        """
        self._start(backend)
        if backend.recovery == "list":
            self.break_find(backend)
        with refuses(VRAGError, "A look that is not complete"):
            backend.find([self.token(1), self.token(2)], _LONG_AGO)

    def test_fetch__same_bytes_from_an_offset(self, backend: VideoGenerator) -> None:
        """The bytes of an output, from `offset`; the same on every fetch.

        When it fails: a download that was cut off goes on at `offset`, so the file must not be made anew.
        """
        handle = self._start(backend)
        film = _film(self._finished(backend, handle))

        def fetched(offset: int) -> bytes:
            with backend.fetch(handle, film, offset) as stream:
                return stream.read()

        whole = fetched(0)
        assert whole[4:8] == b"ftyp", "The film is not an MP4."
        assert fetched(0) == whole
        for offset in (1, len(whole) // 2, len(whole)):
            assert fetched(offset) == whole[offset:]

    def test_fetch__missing_is_typed(self, backend: VideoGenerator) -> None:
        """A missing one raises `NotFoundError`.

        When it fails: unknown outputs and outputs of unknown jobs are both missing; raise in `fetch`, not at the read.
        """
        handle = self._start(backend)
        film = _film(self._finished(backend, handle))
        with refuses(NotFoundError, "An output that is not there"):
            backend.fetch(handle, Output(name="never-there.mp4")).close()
        with refuses(NotFoundError, "An output of an unknown job"):
            backend.fetch(evolve(handle, id=handle.id + "-unknown"), film).close()

    def test_cancel__false_after_the_end(self, backend: VideoGenerator) -> None:
        """Ask to stop the job; False where the provider cannot, or it has ended.

        When it fails: True is "asked to stop", and such a job must not run to its end and be charged in full.
        """
        done, running = self._start(backend, 1), self._start(backend, 2)
        self._finished(backend, done)
        assert backend.cancel(done) is False
        if backend.cancel(running):
            status = backend.status([running]).get(running)
            assert status is None or status.state != "succeeded"
        else:
            self.finish(backend, running)

    def test_cancel__twice_is_fine(self, backend: VideoGenerator) -> None:
        """Cancelling twice is fine.

        When it fails: the provider's "already cancelled" is no error.
        """
        handle = self._start(backend)
        asked = backend.cancel(handle)
        assert isinstance(asked, bool)
        assert isinstance(backend.cancel(handle), bool)
        if not asked:
            self.finish(backend, handle)

    def test_close__jobs_run_on(self, backend: VideoGenerator, tmp_path: Path) -> None:
        """Let go of connections and workers; running jobs of a provider run on.

        When it fails: `close` cancels nothing at the provider; a worker of ours may leave a job `lost`.
        """
        handle = self._start(backend)
        backend.close()
        again = self.reopen(backend, tmp_path)
        try:
            status = again.status([handle]).get(handle)
            assert status is None or status.state not in {"failed", "cancelled"}, f"Closing left it {status}."
        finally:
            again.close()

    def test_close__twice_is_fine(self, backend: VideoGenerator) -> None:
        """Closing twice is fine.

        When it fails: a second `close` does nothing.
        """
        handle = self._start(backend)
        self.finish(backend, handle)
        backend.close()
        backend.close()


def _film(status: JobStatus) -> Output:
    films = [output for output in status.outputs if output.role == "video"]
    assert len(films) == 1, f"{len(films)} outputs have the role `video`: {[one.name for one in status.outputs]}"
    return films[0]
