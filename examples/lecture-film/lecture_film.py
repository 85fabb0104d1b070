"""A lecture outline becomes one film: a picture and a movement for each section, its title as a caption, crossfades.

`python lecture_film.py outline.csv --photos FOLDER_OR_MANIFEST --out film`
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from vrag import Brief, VRAGPipeline
from vrag.results import FinishedVideo
from vrag.values.briefs import ShotBrief


@dataclass(frozen=True, kw_only=True)
class Section:
    """One line of an outline."""

    title: str
    picture: str
    """What to look for."""
    action: str
    duration_s: float


def read_outline(path: Path) -> tuple[Section, ...]:
    """The sections of a CSV with the columns `title`, `picture`, `action` and `seconds`; a bad line is named."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = {"title", "picture", "action", "seconds"} - set(rows.fieldnames or ())
        if missing:
            raise SystemExit(f"{path.name}: columns are missing: {', '.join(sorted(missing))}")
        return tuple(_sections(path.name, rows))


def _sections(name: str, rows: csv.DictReader[str]) -> Iterator[Section]:
    for row in rows:
        try:
            duration_s = float(row["seconds"])
        except (TypeError, ValueError):
            raise SystemExit(f"{name}, line {rows.line_num}: '{row['seconds']}' is no number of seconds") from None
        yield Section(title=row["title"], picture=row["picture"], action=row["action"], duration_s=duration_s)


def storyboard(
    sections: Sequence[Section], *, knowledge_base: str, size_px: tuple[int, int], crossfade_s: float
) -> Brief:
    """One brief: each section is a shot with its own retrieved picture."""
    return Brief(
        knowledge_base=knowledge_base,
        shots=tuple(
            ShotBrief(object_prompt=one.picture, action_prompt=one.action, duration_s=one.duration_s)
            for one in sections
        ),
        crossfade_s=crossfade_s,
        width_px=size_px[0],
        height_px=size_px[1],
    )


def captions(sections: Sequence[Section], *, crossfade_s: float) -> str:
    """The titles as WebVTT; a title changes in the middle of its crossfade."""
    starts = [0.0, *accumulate(section.duration_s - crossfade_s for section in sections)]
    changes = [0.0, *(start + crossfade_s / 2 for start in starts[1:-1]), starts[-1] + crossfade_s]
    cues = [
        f"{number}\n{_clock(changes[number - 1])} --> {_clock(changes[number])}\n{_plain(section.title)}\n"
        for number, section in enumerate(sections, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _clock(time_s: float) -> str:
    minutes, milliseconds = divmod(round(time_s * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _plain(title: str) -> str:
    """One line that a player takes for words and nothing else."""
    return " ".join(title.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def make(pipeline: VRAGPipeline, sections: Sequence[Section], brief: Brief, out: Path) -> FinishedVideo:
    """Make the film, and write it with its record and its captions into `out`."""
    video = pipeline.generate(brief)
    out.mkdir(parents=True, exist_ok=True)
    video.save(out / "lecture.mp4", overwrite=True)
    (out / "lecture.vtt").write_text(captions(sections, crossfade_s=brief.crossfade_s), encoding="utf-8")
    return video


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outline", type=Path)
    parser.add_argument("--photos", required=True, type=Path, help="a folder or a manifest of vetted pictures")
    parser.add_argument("--out", type=Path, default=Path("film"))
    parser.add_argument("--workspace", type=Path, default=Path("studio"))
    parser.add_argument("--by", default="lecturer", help="who has vetted the pictures")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--crossfade", type=float, default=0.5, help="seconds")
    given = parser.parse_args(arguments)
    width_px, _, height_px = given.size.partition("x")
    sections = read_outline(given.outline)
    brief = storyboard(
        sections, knowledge_base="lecture", size_px=(int(width_px), int(height_px)), crossfade_s=given.crossfade
    )
    with VRAGPipeline.local(given.workspace) as pipeline:
        print(pipeline.knowledge_base("lecture").ingest(given.photos, approve_by=given.by))
        video = make(pipeline, sections, brief, given.out)
        print(f"{given.out / 'lecture.mp4'}: {video.media.duration_s} s, verified: {video.verify().ok}")
        for source in video.sources:
            print(f"  {source.file_name}: {source.rights.licence or 'no licence stated'}")


if __name__ == "__main__":
    main()
