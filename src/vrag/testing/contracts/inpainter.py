"""The contract of `Inpainter`."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
from attrs import evolve
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vrag.errors import ContentRejectedError, UnsupportedRequestError, UsageError
from vrag.interfaces import Inpainter
from vrag.media.ref import MediaRef
from vrag.testing.contracts.clauses import Contract, assert_estimate, assert_names_itself, refuses
from vrag.testing.media import SampleMedia, sample_edit
from vrag.values.requests import EditCapabilities, EditOperation, EditRequest

__all__ = ["InpainterContract"]

_ALL: tuple[EditOperation, ...] = ("erase", "replace", "outpaint", "remove_background", "search_and_replace")


class InpainterContract(Contract, suite=True):
    """Hooks: `make`, `sent`, and `moderated` where the model is behind a moderation."""

    seam: ClassVar[type] = Inpainter

    def moderated(self, tmp_path: Path, media: SampleMedia, rejected: int) -> tuple[Inpainter, EditRequest]:
        """A backend and a request for two pictures of which moderation keeps back `rejected` (1 or 2)."""
        raise NotImplementedError(
            f"{type(self).__name__} needs `moderated(self, tmp_path, media, rejected)`; where nothing is moderated, waive it."
        )

    @override
    def work(self, backend: Inpainter, number: int) -> object:
        media = SampleMedia()
        result = backend.edit(sample_edit(backend.capabilities, media, number), media)
        return [(_pixels(data).shape, np.round(_pixels(data).mean(axis=(0, 1))).tolist()) for data in result.images]

    def test_model__names_itself(self, backend: Inpainter) -> None:
        """Which model answers.

        When it fails: `model` is a `ModelRef` with provider and id, the same on each read.
        """
        assert_names_itself(backend)

    def test_capabilities__never_change(self, backend: Inpainter) -> None:
        """What it can be asked; it never changes.

        When it fails: capabilities are a constant of the model.
        """
        before = backend.capabilities
        assert isinstance(before, EditCapabilities)
        assert before.operations
        self.work(backend, 1)
        assert backend.capabilities == before

    def test_validate__names_what_it_will_not_do(self, backend: Inpainter) -> None:
        """What it will not do of `request`; nothing is sent.

        When it fails: compare operation, number of pictures and mask with `capabilities`; a good request has no problem.
        """
        media = SampleMedia()
        before = self.sent(backend)
        for operation in backend.capabilities.operations:
            assert not backend.validate(sample_edit(backend.capabilities, media, operation=operation))
        for field, request in self._beyond(backend.capabilities, media):
            refused = [problem.field for problem in backend.validate(request) if problem.kind == "refused"]
            assert field in refused, f"A request past its {field} is not refused, only: {refused}"
        assert self.sent(backend) == before, "A validation was sent."

    @staticmethod
    def _beyond(can: EditCapabilities, media: SampleMedia) -> list[tuple[str, EditRequest]]:
        good = sample_edit(can, media)
        requests = [("count", evolve(good, count=can.max_images + 1))]
        if other := next((one for one in _ALL if one not in can.operations), None):
            requests.append(("operation", evolve(good, operation=other, prompt="a lake", extend_px=(8, 8, 8, 8))))
        if good.mask is not None:
            requests.append(("mask", evolve(good, mask=None)))
        return requests

    def test_estimate__sends_nothing(self, backend: Inpainter) -> None:
        """What the request would cost; nothing is sent.

        When it fails: compute the price from the request.
        """
        before = self.sent(backend)
        assert_estimate(backend.estimate(sample_edit(backend.capabilities, SampleMedia())))
        assert self.sent(backend) == before, "An estimate was sent."

    def test_edit__one_call(self, backend: Inpainter) -> None:
        """Edit one picture in one paid call.

        When it fails: no retry inside `edit`: the caller counts calls and pays for each.
        """
        media, can = SampleMedia(), backend.capabilities
        before = self.sent(backend)
        request = evolve(sample_edit(can, media), count=can.max_images)
        result = backend.edit(request, media)
        assert len(result.images) + len(result.rejected) == request.count
        assert self.sent(backend) - before <= 1, "One edit was sent more than once."

    def test_edit__refuses_before_sending(self, backend: Inpainter) -> None:
        """A request with a refused problem raises `UnsupportedRequestError` before anything is sent.

        When it fails: `edit` calls `validate` first and raises with its problems.
        """
        media = SampleMedia()
        before = self.sent(backend)
        for field, request in self._beyond(backend.capabilities, media):
            with refuses(UnsupportedRequestError, f"A request past its {field}"):
                backend.edit(request, media)
        assert self.sent(backend) == before, "Something was sent before the refusal."

    def test_edit__mask_of_another_size(self, backend: Inpainter) -> None:
        """A mask that has not the picture's size raises `UsageError`.

        When it fails: compare the decoded pixels, not the refs; a mask is never scaled.
        """
        media = SampleMedia()
        before = self.sent(backend)
        good = sample_edit(backend.capabilities, media)
        width_px, height_px = _size(good.image)
        for size in ((width_px // 2, height_px // 2), (height_px, width_px)):
            wrong = media.mask(*size, white=(8, 8, 24, 24))
            with refuses(UsageError, f"A mask of {size[0]} x {size[1]} px"):
                backend.edit(evolve(good, operation=self._masked(backend), mask=wrong), media)
        assert self.sent(backend) == before, "Something was sent before the refusal."

    def test_edit__keeps_the_size(self, backend: Inpainter) -> None:
        """Each picture that comes back has the size of the input, unless the operation is `outpaint`.

        When it fails: a model that works at another size is scaled back by its adapter.
        """
        media = SampleMedia()
        for operation in backend.capabilities.operations:
            request = sample_edit(backend.capabilities, media, operation=operation)
            width_px, height_px = _size(request.image)
            left, top, right, bottom = request.extend_px or (0, 0, 0, 0)
            for data in backend.edit(request, media).images:
                assert _pixels(data).shape[:2] == (height_px + top + bottom, width_px + left + right)

    def test_edit__white_changes_and_the_rest_does_not(self, backend: Inpainter) -> None:
        """An all-black mask changes nothing; pixels under white change, pixels well away from white do not (PSNR >= 40 dB).

        When it fails: your vendor may repaint black: convert the mask in the adapter; paste the rest back if needed.
        """
        media, can = SampleMedia(), backend.capabilities
        operation = self._masked(backend)
        black = sample_edit(can, media, operation=operation, white=None)
        before = _pixels_of(black.image, media)
        for data in backend.edit(black, media).images:
            assert np.array_equal(_pixels(data), before), "An all-black mask changed the picture."
        request = sample_edit(can, media, operation=operation)
        assert request.mask is not None
        white = _pixels_of(request.mask, media)[..., 0] == 255
        rows, columns = np.nonzero(white)
        away = np.ones_like(white)
        margin = before.shape[0] // 8
        away[rows.min() - margin : rows.max() + margin, columns.min() - margin : columns.max() + margin] = False
        for data in backend.edit(request, media).images:
            after = _pixels(data)
            assert _psnr(before[white], after[white]) < 30, "Pixels under white have not changed."
            assert _psnr(before[away], after[away]) >= 40, "Pixels well away from white have changed."

    @staticmethod
    def _masked(backend: Inpainter) -> EditOperation:
        return next(one for one in _ALL if one in backend.capabilities.operations)

    def test_edit__moderation_is_typed(self, tmp_path: Path) -> None:
        """Pictures that moderation kept back are listed in `rejected`; if it kept all, `ContentRejectedError` is raised.

        When it fails: pictures and reasons together are as many as were asked for; an empty answer is never returned.
        """
        media = SampleMedia()
        inpainter, request = self.moderated(tmp_path, media, 1)
        result = inpainter.edit(request, media)
        assert len(result.images) == 1
        assert len(result.rejected) == 1
        assert all(result.rejected)
        inpainter, request = self.moderated(tmp_path, media, 2)
        with refuses(ContentRejectedError, "An edit of which moderation kept everything"):
            inpainter.edit(request, media)


def _size(image: MediaRef) -> tuple[int, int]:
    assert image.width_px is not None
    assert image.height_px is not None
    return image.width_px, image.height_px


def _pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _pixels_of(image: MediaRef, media: SampleMedia) -> NDArray[np.uint8]:
    with media(image) as stream:
        return _pixels(stream.read())


def _psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
