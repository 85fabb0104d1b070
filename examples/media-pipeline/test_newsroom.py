"""Every seam is a fake: no codec for the pictures' meaning, no model, no network, no account."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from newsroom import ClipDesk, Story
from PIL import Image

from vrag import VRAGPipeline
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.provenance.marking import Marking
from vrag.provenance.verify import verify_file
from vrag.testing import (
    FAKE_SPACE,
    FakeClock,
    FakeEmbedder,
    FakeSigner,
    FakeStorage,
    FakeVectorStore,
    FakeVideoGenerator,
)
from vrag.workspace import Workspace


@pytest.fixture
def pipeline(tmp_path: Path) -> VRAGPipeline:
    sport = KnowledgeBase(
        "sport", store=FakeVectorStore(space=FAKE_SPACE), storage=FakeStorage(), embedder=FakeEmbedder()
    )
    return VRAGPipeline(
        workspace=Workspace(tmp_path / "studio"),
        knowledge_bases={"sport": sport},
        generators={"film": FakeVideoGenerator()},
        storage=FakeStorage(),
        signer=FakeSigner(),
        marking=Marking(credentials="none"),
        clock=FakeClock(),
    )


def story(subject: str) -> Story:
    picture = io.BytesIO()
    Image.new("RGB", (1280, 720), "teal").save(picture, "JPEG")
    pictures = (("P1010042.JPG", picture.getvalue(), "a goalkeeper catches the ball"),)
    return Story(slug="final", subject=subject, motion="camera zooms in", pictures=pictures, editor="ann")


def test_a_story_becomes_a_clip_with_its_record(pipeline: VRAGPipeline, tmp_path: Path) -> None:
    clip = ClipDesk(pipeline, desk="sport", out=tmp_path / "out").file(story("goalkeeper"))
    assert clip is not None
    assert verify_file(clip.film, trusted_keys=[FakeSigner().public_key]).ok
    assert clip.record.is_file()
    assert len(clip.pictures) == 1


def test_no_picture_no_clip(pipeline: VRAGPipeline, tmp_path: Path) -> None:
    assert ClipDesk(pipeline, desk="sport", out=tmp_path / "out").file(story("submarine")) is None
