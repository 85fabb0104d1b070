"""Never run, only type-checked: the public types are an interface and have their own tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, assert_type

from vrag import (
    Brief,
    CameraMove,
    Caps,
    Edit,
    FinishedVideo,
    KnowledgeBase,
    Label,
    Look,
    Marking,
    MaskSpec,
    NoSuitableImageError,
    Plan,
    Policy,
    ShotBrief,
    Ticket,
    VRAGError,
    VRAGPipeline,
)
from vrag.interfaces import Embedder, Inpainter, Signer, Storage, VectorStore, VideoGenerator, VideoRenderer
from vrag.media.ref import MediaRef
from vrag.results import BatchResult
from vrag.testing import (
    FakeEmbedder,
    FakeInpainter,
    FakeSigner,
    FakeStorage,
    FakeVectorStore,
    FakeVideoGenerator,
    FakeVideoRenderer,
)
from vrag.values.vectors import Refusal, SearchResult


def a_user(folder: Path) -> None:
    with VRAGPipeline.local(folder) as pipeline:
        brand = pipeline.knowledge_base("brand")
        assert_type(brand, KnowledgeBase)
        assert_type(brand.search("red shoes"), SearchResult)
        brief = Brief(object_prompt="red shoes", camera=(CameraMove.ZOOM_IN,), look=Look(mood="calm"))
        assert_type(pipeline.plan([brief]), Plan)
        assert_type(pipeline.submit(pipeline.plan(brief), approved="", budget_usd=1), list[Ticket])
        try:
            assert_type(pipeline.generate(brief), FinishedVideo)
        except NoSuitableImageError as error:
            assert_type(error.refusal, Refusal)
        except VRAGError as error:
            assert_type(error.hint, str | None)
        assert_type(pipeline.run([brief]), BatchResult)


def an_editor(pipeline: VRAGPipeline) -> None:
    sky = MaskSpec.rectangle(0, 0, 1, 0.4, unit="fraction")
    assert_type(sky - MaskSpec.luminance(0, 20), MaskSpec)
    shots = (
        ShotBrief(object_prompt="a lake"),
        ShotBrief(object_prompt="a dune", edits=(Edit(operation="erase", mask=sky),)),
    )
    open_plan = pipeline.plan(Brief(shots=shots, crossfade_s=0.5))
    assert_type(pipeline.prepare(open_plan, approved=open_plan.digest), Plan)
    assert_type(pipeline.formats(Brief(object_prompt="a lake"), [(1280, 720), (720, 1280)]), list[Brief])


policy, caps = Policy(no_picture="ask"), Caps(run_usd_micros=5_000_000)
marking = Marking(label=Label(text="AI-generated"))
edit_of_nothing = Edit(operation="paint")  # type: ignore[arg-type]


async def in_an_event_loop(ticket: Ticket) -> None:
    assert_type(await ticket, FinishedVideo)


embedder: Embedder = FakeEmbedder()
store: VectorStore = FakeVectorStore(None)
storage: Storage = FakeStorage()
generator: VideoGenerator = FakeVideoGenerator()
renderer: VideoRenderer = FakeVideoRenderer()
inpainter: Inpainter = FakeInpainter()
signer: Signer = FakeSigner()


class OwnStorage:
    """A stranger's backend fits without any base class."""

    def put(self, stream: BinaryIO, media_type: str) -> MediaRef:
        return MediaRef(sha256="0" * 64, media_type=media_type, size_bytes=len(stream.read()))

    def put_named(self, name: str, stream: BinaryIO) -> None: ...

    def open(self, key: MediaRef | str, offset: int = 0) -> BinaryIO:
        return BytesIO()

    def exists(self, key: MediaRef | str) -> bool:
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        yield prefix

    def delete(self, key: MediaRef | str) -> None: ...

    def uri(self, key: MediaRef | str) -> str:
        return "own:"


class WrongStorage(OwnStorage):
    def exists(self, key: MediaRef | str) -> str:  # type: ignore[override, explicit-override]
        return "yes"


own: Storage = OwnStorage()
wrong: Storage = WrongStorage()  # type: ignore[assignment]
typo = Brief(object_promt="red shoes")  # type: ignore[call-arg]
positional = Brief("red shoes")  # type: ignore[call-arg]
settings: Mapping[str, Sequence[str]] = {}
