"""A newsroom's own code: a story with its pictures goes in, a clip with its record comes out.

`vrag` is one step of it. Nothing is global: the pipeline is handed in, and pictures come as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vrag import Brief, NoSuitableImageError, VRAGPipeline
from vrag.knowledge.sources import SourcePicture


@dataclass(frozen=True, kw_only=True)
class Story:
    """What an editor files."""

    slug: str
    subject: str
    motion: str
    pictures: tuple[tuple[str, bytes, str], ...]
    """File name, bytes and caption of each."""
    editor: str


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What the newsroom's other systems take."""

    story: str
    film: Path
    record: Path
    pictures: tuple[str, ...]
    """SHA-256 of each picture that is in the film."""


class ClipDesk:
    """Makes a clip of a story, from the pictures of its desk and no others."""

    def __init__(self, pipeline: VRAGPipeline, *, desk: str, out: Path) -> None:
        self._pipeline = pipeline
        self._desk = desk
        self._out = out

    def file(self, story: Story) -> Clip | None:
        """Take the story's pictures in, vetted by its editor, and make a clip; None where no picture suits."""
        pictures = self._pipeline.knowledge_base(self._desk)
        pictures.ingest(
            [SourcePicture.from_bytes(name, data, caption=caption) for name, data, caption in story.pictures],
            approve_by=story.editor,
        )
        brief = Brief(
            object_prompt=story.subject,
            action_prompt=story.motion,
            knowledge_base=self._desk,
            width_px=640,
            height_px=360,
            duration_s=2,
        )
        try:
            video = self._pipeline.generate(brief)
        except NoSuitableImageError:
            return None
        film = video.save(self._out / f"{story.slug}.mp4")
        return Clip(
            story=story.slug,
            film=film,
            record=film.with_name(film.name + ".vrag.json"),
            pictures=tuple(source.original.sha256 for source in video.sources),
        )
