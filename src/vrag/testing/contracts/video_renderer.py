"""The contract of `VideoRenderer`."""

from __future__ import annotations

import io
import json
from typing import ClassVar

from attrs import evolve
from typing_extensions import override

from vrag.errors import JobCancelledError, UnsupportedRequestError
from vrag.interfaces import VideoRenderer
from vrag.media.ref import sha256_hex
from vrag.testing.contracts.clauses import Contract, assert_estimate, assert_names_itself, refuses
from vrag.testing.contracts.requests import assert_refuses_what_it_cannot, beyond
from vrag.testing.films import probe_film
from vrag.testing.media import SampleMedia, sample_request
from vrag.values.canonical import JSON
from vrag.values.requests import VideoCapabilities, VideoRequest

__all__ = ["VideoRendererContract"]


class VideoRendererContract(Contract, suite=True):
    """Hook: `make`."""

    seam: ClassVar[type] = VideoRenderer

    @override
    def sent(self, backend: VideoRenderer) -> int:
        return 0

    @override
    def work(self, backend: VideoRenderer, number: int) -> object:
        media = SampleMedia()
        data, _ = self._render(backend, sample_request(backend.capabilities, media, number), media)
        return sha256_hex(data)

    @staticmethod
    def _render(backend: VideoRenderer, request: VideoRequest, media: SampleMedia) -> tuple[bytes, JSON]:
        out = io.BytesIO()
        report = backend.render(request, media, out, lambda _: None, lambda: False)
        return out.getvalue(), report

    def test_model__names_itself(self, backend: VideoRenderer) -> None:
        """Which renderer, with its version.

        When it fails: the id changes with every release that changes a pixel.
        """
        assert_names_itself(backend)
        assert any(one.isdigit() for one in backend.model.id), f"'{backend.model.id}' has no version."

    def test_capabilities__never_change(self, backend: VideoRenderer) -> None:
        """What it can be asked; it never changes.

        When it fails: capabilities are a constant of the renderer.
        """
        before = backend.capabilities
        assert isinstance(before, VideoCapabilities)
        self.work(backend, 1)
        assert backend.capabilities == before

    def test_validate__names_what_it_will_not_do(self, backend: VideoRenderer) -> None:
        """What it will not do of `request`.

        When it fails: compare shots, lengths, size, rate, codec, roles and prompt with `capabilities`, one by one.
        """
        media = SampleMedia()
        assert_refuses_what_it_cannot(backend, media)
        assert not backend.validate(sample_request(backend.capabilities, media))

    def test_estimate__price_is_usually_zero(self, backend: VideoRenderer) -> None:
        """What the request would cost; its price is usually 0.

        When it fails: `usd_micros` is an integer from 0, or None for "not known"; `video_s` is the request's length.
        """
        request = sample_request(backend.capabilities, SampleMedia())
        estimate = backend.estimate(request)
        assert_estimate(estimate)
        assert abs(estimate.video_s - request.duration_s) < 1e-6

    def test_render__writes_an_mp4_and_reports(self, backend: VideoRenderer) -> None:
        """Write an MP4 to `out` (a seekable file, empty) and return what was done, as JSON, for the record.

        When it fails: the file stays open; the report holds only what `json.dumps` takes.
        """
        media, out = SampleMedia(), io.BytesIO()
        request = sample_request(backend.capabilities, media)
        report = backend.render(request, media, out, lambda _: None, lambda: False)
        assert not out.closed, "`out` belongs to the caller: leave it open."
        assert out.getvalue()[4:8] == b"ftyp", "The film is not an MP4."
        assert report
        assert json.loads(json.dumps(report)) == report, "The report is not JSON."

    def test_render__refuses_before_writing(self, backend: VideoRenderer) -> None:
        """A request with a refused problem raises `UnsupportedRequestError` before anything is written.

        When it fails: `render` calls `validate` first and raises with its problems.
        """
        media = SampleMedia()
        for field, request in beyond(backend.capabilities, media):
            out = io.BytesIO()
            with refuses(UnsupportedRequestError, f"A request past its {field}"):
                backend.render(request, media, out, lambda _: None, lambda: False)
            assert out.getvalue() == b"", "Something was written before the refusal."

    def test_render__size_rate_and_length(self, backend: VideoRenderer) -> None:
        """The film has the size, the frame rate and (to one frame) the length that the request asks.

        When it fails: the number of frames is `round(duration_s * fps)`; the frame rate is exact, not rounded.
        """
        media, can = SampleMedia(), backend.capabilities
        request = sample_request(can, media)
        asked = [request]
        if can.rates_fps is None:
            asked.append(evolve(request, fps=12.5))
        if can.sizes_px is None:
            asked.append(sample_request(evolve(can, sizes_px=((98, 130),)), media))
        for one in asked:
            film = probe_film(self._render(backend, one, media)[0])
            assert (film.width_px, film.height_px) == (one.width_px, one.height_px)
            assert abs(film.fps - one.fps) < 1e-3
            assert abs(film.frame_count - one.duration_s * one.fps) <= 1

    def test_render__same_request_same_bytes(self, backend: VideoRenderer) -> None:
        """The same request and the same pictures give the same bytes.

        When it fails: one encoder thread, no dates in the container, every random number from the request's seed.
        """
        media = SampleMedia()
        request = sample_request(backend.capabilities, media)
        assert self._render(backend, request, media)[0] == self._render(backend, request, media)[0]

    def test_render__progress_rises_to_one(self, backend: VideoRenderer) -> None:
        """`progress` is called with numbers that never fall, from 0 to 1, the last of them 1.

        When it fails: call it a last time when the file is complete.
        """
        media = SampleMedia()
        told: list[float] = []
        request = sample_request(backend.capabilities, media)
        backend.render(request, media, io.BytesIO(), told.append, lambda: False)
        assert told
        assert told == sorted(told)
        assert told[0] >= 0
        assert told[-1] == 1

    def test_render__stops_soon(self, backend: VideoRenderer) -> None:
        """When `stopped()` turns true it soon raises `JobCancelledError`.

        When it fails: ask `stopped` before every frame.
        """
        media = SampleMedia()
        request = sample_request(backend.capabilities, media)
        for patience in (0, 3):
            told: list[float] = []
            asked: list[int] = []

            def stopped(asked: list[int] = asked, patience: int = patience) -> bool:
                asked.append(1)
                return len(asked) > patience

            with refuses(JobCancelledError, "A render that was stopped"):
                backend.render(request, media, io.BytesIO(), told.append, stopped)
            assert not told or told[-1] < 1, "It rendered to the end after it was stopped."
            assert len(asked) <= patience + 4, "It asked `stopped` on and on after the answer was yes."
