"""The suites filled in for the fakes: read them as examples, or inherit one to test a fake of your own.

They are not named `Test…`, so that pytest collects only what a test module makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import evolve
from typing_extensions import override

from vrag.errors import BackendError
from vrag.interfaces import Captioner, Embedder, Inpainter, Signer, Storage, VectorStore, VideoGenerator, VideoRenderer
from vrag.media.ref import MediaRef
from vrag.testing.contracts.captioner import CaptionerContract
from vrag.testing.contracts.embedder import EmbedderContract
from vrag.testing.contracts.inpainter import InpainterContract
from vrag.testing.contracts.signer import SignerContract
from vrag.testing.contracts.storage import StorageContract
from vrag.testing.contracts.vector_store import VectorStoreContract
from vrag.testing.contracts.video_generator import VideoGeneratorContract
from vrag.testing.contracts.video_renderer import VideoRendererContract
from vrag.testing.media import SampleMedia, sample_edit
from vrag.testing.pictures import FakeCaptioner, FakeInpainter
from vrag.testing.signer import FakeSigner
from vrag.testing.storage import FakeStorage
from vrag.testing.vectors import FAKE_SPACE, FakeEmbedder, FakeVectorStore
from vrag.testing.videos import FakeVideoGenerator, FakeVideoRenderer
from vrag.values.jobs import Handle
from vrag.values.requests import EditRequest
from vrag.values.vectors import EmbeddingSpace

__all__ = [
    "FakeCaptionerSuite",
    "FakeEmbedderSuite",
    "FakeInpainterSuite",
    "FakeSignerSuite",
    "FakeStorageSuite",
    "FakeVectorStoreSuite",
    "FakeVideoGeneratorSuite",
    "FakeVideoRendererSuite",
]


class FakeEmbedderSuite(EmbedderContract):
    """`FakeEmbedder` under its contract."""

    @override
    def make(self, tmp_path: Path) -> Embedder:
        return FakeEmbedder()

    @override
    def sent(self, backend: Any) -> int:
        return len(backend.calls)


class FakeVectorStoreSuite(VectorStoreContract):
    """`FakeVectorStore` under its contract."""

    waived: ClassVar[Mapping[str, str]] = {
        "test_upsert__survives_a_kill": "it lives in memory, and dies with its process"
    }

    @override
    def make(self, tmp_path: Path, space: EmbeddingSpace | None = FAKE_SPACE) -> VectorStore:
        return FakeVectorStore(space)


class FakeStorageSuite(StorageContract):
    """`FakeStorage` under its contract."""

    @override
    def make(self, tmp_path: Path) -> Storage:
        return FakeStorage()

    @override
    def tamper(self, backend: Any, ref: MediaRef, data: bytes) -> None:
        backend.tamper(ref, data)

    @override
    def object_count(self, backend: Any) -> int:
        return int(backend.object_count)


class FakeVideoGeneratorSuite(VideoGeneratorContract):
    """`FakeVideoGenerator` under its contract."""

    @override
    def make(self, tmp_path: Path) -> VideoGenerator:
        return FakeVideoGenerator(recovery="list")

    @override
    def sent(self, backend: Any) -> int:
        return len(backend.calls)

    @override
    def job_count(self, backend: Any) -> int:
        return len(backend.charges)

    @override
    def finish(self, backend: Any, handle: Handle) -> None:
        backend.finish(handle)

    @override
    def reopen(self, backend: Any, tmp_path: Path) -> VideoGenerator:
        again: VideoGenerator = backend.reconnect()
        return again

    @override
    def break_find(self, backend: Any) -> None:
        backend.faults.on("find", error=BackendError("The second page did not come.", retryable=True))


class FakeVideoRendererSuite(VideoRendererContract):
    """`FakeVideoRenderer` under its contract."""

    @override
    def make(self, tmp_path: Path) -> VideoRenderer:
        return FakeVideoRenderer()


class FakeInpainterSuite(InpainterContract):
    """`FakeInpainter` under its contract."""

    @override
    def make(self, tmp_path: Path) -> Inpainter:
        return FakeInpainter()

    @override
    def sent(self, backend: Any) -> int:
        return len(backend.calls)

    @override
    def moderated(self, tmp_path: Path, media: SampleMedia, rejected: int) -> tuple[Inpainter, EditRequest]:
        inpainter: Any = self.make(tmp_path)
        inpainter.reject_next(*["violence"] * rejected)
        return inpainter, evolve(sample_edit(inpainter.capabilities, media), count=2)


class FakeCaptionerSuite(CaptionerContract):
    """`FakeCaptioner` under its contract."""

    @override
    def make(self, tmp_path: Path, **options: Any) -> Captioner:
        return FakeCaptioner(**options)

    @override
    def sent(self, backend: Any) -> int:
        return len(backend.calls)

    @override
    def cut_off(self, tmp_path: Path, image: MediaRef) -> Captioner:
        return self.make(tmp_path, max_chars=5)

    @override
    def refusing(self, tmp_path: Path, image: MediaRef) -> Captioner:
        return self.make(tmp_path, refuse=[image.sha256])


class FakeSignerSuite(SignerContract):
    """`FakeSigner` under its contract."""

    @override
    def make(self, tmp_path: Path) -> Signer:
        return FakeSigner()

    @override
    def sent(self, backend: Any) -> int:
        return len(backend.calls)
