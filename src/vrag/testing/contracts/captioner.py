"""The contract of `Captioner`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from vrag.errors import ContentRejectedError
from vrag.interfaces import Captioner
from vrag.media.ref import MediaRef
from vrag.testing.contracts.clauses import Contract, assert_estimate, assert_names_itself, refuses
from vrag.testing.media import SampleMedia
from vrag.values.requests import CaptionResult

__all__ = ["CaptionerContract"]


class CaptionerContract(Contract, suite=True):
    """Hooks: `make`, `sent`, `cut_off`, `refusing`."""

    seam: ClassVar[type] = Captioner

    def cut_off(self, tmp_path: Path, image: MediaRef) -> Captioner:
        """A captioner whose text about `image` is cut off, by a very small limit of its length."""
        raise NotImplementedError(f"{type(self).__name__} needs `cut_off(self, tmp_path, image)`.")

    def refusing(self, tmp_path: Path, image: MediaRef) -> Captioner:
        """A captioner that refuses `image`."""
        raise NotImplementedError(f"{type(self).__name__} needs `refusing(self, tmp_path, image)`.")

    @override
    def work(self, backend: Captioner, number: int) -> object:
        media = SampleMedia()
        result = backend.caption(media.picture(number), media)
        return result.text, result.tags

    def test_model__names_itself(self, backend: Captioner) -> None:
        """Which model answers.

        When it fails: `model` is a `ModelRef` with provider and id, the same on each read.
        """
        assert_names_itself(backend)

    def test_estimate__sends_nothing(self, backend: Captioner) -> None:
        """What captions of these pictures would cost; nothing is sent.

        When it fails: compute the price from the number and size of the pictures.
        """
        media = SampleMedia()
        before = self.sent(backend)
        assert_estimate(backend.estimate([media.picture(number) for number in range(3)]))
        assert self.sent(backend) == before, "An estimate was sent."

    def test_caption__a_sentence_and_tags(self, backend: Captioner) -> None:
        """Describe one picture: a sentence without line breaks, and tags without duplicates.

        When it fails: join lines with spaces, strip the text, and keep the first of equal tags.
        """
        media = SampleMedia()
        for number in range(3):
            result = backend.caption(media.picture(number), media)
            assert isinstance(result, CaptionResult)
            assert result.text
            assert result.text == " ".join(result.text.split())
            assert isinstance(result.tags, tuple)
            assert all(tag and tag == tag.strip() for tag in result.tags)
            assert len(set(result.tags)) == len(result.tags)
            assert not result.truncated

    def test_caption__marks_what_was_cut_off(self, tmp_path: Path) -> None:
        """A text that was cut off is marked `truncated`.

        When it fails: read the reason for which the model stopped (`max_tokens` and the like).
        """
        media = SampleMedia()
        image = media.picture(1)
        assert self.cut_off(tmp_path, image).caption(image, media).truncated

    def test_caption__refusal_is_typed(self, tmp_path: Path) -> None:
        """A picture that the model refuses raises `ContentRejectedError`.

        When it fails: a refusal in words ("I cannot …") or by a filter is no caption.
        """
        media = SampleMedia()
        image = media.picture(1)
        with refuses(ContentRejectedError, "A picture that the model refuses"):
            self.refusing(tmp_path, image).caption(image, media)
