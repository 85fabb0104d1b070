"""Backends whose calls are accounted keep the contracts of their seams, and pay once."""

import pytest

from vrag.errors import ContentRejectedError
from vrag.generation.paid import Account, PaidCaptioner, PaidEmbedder, PaidModerator
from vrag.testing import FakeCaptioner, FakeEmbedder, SampleMedia
from vrag.testing.contracts import fakes
from vrag.values.requests import CaptionResult, Estimate
from vrag.values.vectors import Item
from vrag.workspace import Workspace

_open = []


@pytest.fixture(autouse=True)
def _closed():
    yield
    while _open:
        _open.pop().close()


def account(tmp_path):
    _open.append(Workspace(tmp_path / "w"))
    return Account(calls=_open[-1].calls, knowledge_base="brand")


class TestPaidEmbedder(fakes.FakeEmbedderSuite):
    def make(self, tmp_path):
        return PaidEmbedder(super().make(tmp_path), account(tmp_path))

    def sent(self, backend):
        return super().sent(backend._embedder)


class TestPaidCaptioner(fakes.FakeCaptionerSuite):
    def make(self, tmp_path, **options):
        return PaidCaptioner(super().make(tmp_path, **options), account(tmp_path))

    def sent(self, backend):
        return super().sent(backend._captioner)


def test_rows_and_captions_are_paid_once_for_a_knowledge_base(tmp_path):
    media, paid = SampleMedia(), account(tmp_path)
    embedder, captioner = FakeEmbedder(usd_micros=10), FakeCaptioner(usd_micros=1000)
    items = [Item(kind="text", text=text) for text in ("one", "two", "one")]
    picture = media.picture(1)
    for _ in range(2):
        PaidEmbedder(embedder, paid).embed(items, "index", media)
        PaidCaptioner(captioner, paid).caption(picture, media)
    assert len(embedder.calls) == 2
    assert len(captioner.calls) == 1
    assert _open[-1].budget.spent(knowledge_base="brand").usd_micros == 1020


def test_a_moderator_is_paid_once_and_its_words_are_not_kept(tmp_path):
    asked = []

    class Moderator:
        model = "words@1"

        def estimate(self, texts, images=()):
            return Estimate(usd_micros=5)

        def check(self, texts, images=(), *, source="INPUT"):
            asked.append(texts)
            if "gore" in texts:
                raise ContentRejectedError("no", backend="words")
            return CaptionResult(text="allowed")

    paid = PaidModerator(Moderator(), account(tmp_path), CaptionResult)
    assert paid.check(["a secret lake"]) == paid.check(["a secret lake"])
    assert asked == [["a secret lake"]]
    for _ in range(2):
        with pytest.raises(ContentRejectedError):
            paid.check(["gore"])
    assert len(asked) == 2
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / "w").glob("vrag.db*"))
