"""Every fake under the contract of its seam."""

from __future__ import annotations

from vrag.testing import FAKE_SPACE, FakeVectorStore, FakeVideoGenerator
from vrag.testing.contracts import fakes


class TestFakeEmbedder(fakes.FakeEmbedderSuite):
    pass


class TestFakeVectorStore(fakes.FakeVectorStoreSuite):
    pass


class TestDelayedVectorStore(fakes.FakeVectorStoreSuite):
    def make(self, tmp_path, space=FAKE_SPACE):
        return FakeVectorStore(space, delayed=True)

    def settle(self, store, receipt):
        assert not store.settled(receipt)
        store.publish()


class TestFakeStorage(fakes.FakeStorageSuite):
    pass


class TestFakeVideoGenerator(fakes.FakeVideoGeneratorSuite):
    pass


class TestTokenVideoGenerator(fakes.FakeVideoGeneratorSuite):
    def make(self, tmp_path):
        return FakeVideoGenerator(recovery="token")


class TestForgetfulVideoGenerator(fakes.FakeVideoGeneratorSuite):
    def make(self, tmp_path):
        return FakeVideoGenerator(recovery="none")


class TestFakeVideoRenderer(fakes.FakeVideoRendererSuite):
    pass


class TestFakeInpainter(fakes.FakeInpainterSuite):
    pass


class TestFakeCaptioner(fakes.FakeCaptionerSuite):
    pass


class TestFakeSigner(fakes.FakeSignerSuite):
    pass
