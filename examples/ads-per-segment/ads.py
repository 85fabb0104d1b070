"""Ads for several audiences: each draws on its own knowledge base, and each row becomes a wide, a tall and a square film.

`python ads.py segments.csv --pictures outdoor=FOLDER --pictures city=FOLDER --budget-usd 20 --out ads`
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrag import Brief, VRAGPipeline
from vrag.batches import BatchBrief, read_briefs, size_of_shape
from vrag.errors import NoSuitableImageError
from vrag.results import FinishedVideo
from vrag.values.briefs import Plan

SHAPES = ("16:9", "9:16", "1:1")


@dataclass(frozen=True, kw_only=True)
class Ad:
    """One film that is to be made."""

    audience: str
    line: int
    """Where its row stands in the file."""
    shape: str
    brief: Brief


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What the rows of a file came to."""

    ads: tuple[Ad, ...]
    problems: tuple[str, ...]
    """Rows that cannot be made, each with its line."""


def read_campaign(
    path: Path, base: Brief, audiences: Mapping[str, str]
) -> tuple[tuple[BatchBrief, ...], tuple[str, ...]]:
    """The rows of a file, and what is wrong with the others."""
    batch = read_briefs(path.read_bytes(), path.name, base=base, audiences=audiences)
    homeless = [row for row in batch.rows if row.audience is None]
    problems = [f"line {problem.line}: {problem.message}" for problem in batch.problems]
    problems += [f"line {row.line}: a row of this campaign names an audience" for row in homeless]
    return tuple(row for row in batch.rows if row.audience is not None), tuple(problems)


def shaped(pipeline: VRAGPipeline, rows: Sequence[BatchBrief], *, short_side_px: int) -> Campaign:
    """Three briefs of one picture for each row; a row without a suitable picture is a problem of its own."""
    ads: list[Ad] = []
    problems: list[str] = []
    for row in rows:
        sizes = [size_of_shape(shape, short_side_px) for shape in SHAPES]
        try:
            briefs = pipeline.formats(row.brief, sizes)
        except NoSuitableImageError as error:
            problems.append(f"line {row.line}: {error.message}")
            continue
        ads += [
            Ad(audience=row.audience or "", line=row.line or 0, shape=shape, brief=brief)
            for shape, brief in zip(SHAPES, briefs, strict=True)
        ]
    return Campaign(ads=tuple(ads), problems=tuple(problems))


def prices(plan: Plan, ads: Sequence[Ad]) -> dict[str, int | None]:
    """Micro-USD for each audience; None where a price is not known, which is not the same as nothing."""
    found: dict[str, int | None] = {}
    for row, video in zip(plan.rows, plan.videos, strict=True):
        audience, price = ads[row].audience, video.estimate.usd_micros
        before = found.get(audience, 0)
        found[audience] = None if before is None or price is None else before + price
    return found


def write_report(path: Path, ads: Sequence[Ad], done: Mapping[int, FinishedVideo]) -> None:
    """One line for each film: whom it is for, what it cost, and which picture it was made from."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("audience", "line", "shape", "film", "usd", "picture", "crop_px", "record"))
        for index, video in sorted(done.items()):
            ad, source = ads[index], video.sources[0]
            price = video.planned.estimate.usd_micros
            table.writerow(
                (
                    ad.audience,
                    ad.line,
                    ad.shape,
                    film_name(ad),
                    "not known" if price is None else f"{price / 1e6:.4f}",
                    source.asset_id,
                    " ".join(map(str, source.conformed.crop_px)),
                    video.record_id,
                )
            )


def film_name(ad: Ad) -> str:
    """Where a film lies: a folder for each audience, so that one can be handed over alone."""
    return f"{ad.audience}/{ad.line:03}-{ad.shape.replace(':', 'x')}.mp4"


def make(pipeline: VRAGPipeline, ads: Sequence[Ad], out: Path, *, budget_usd: float | None) -> list[str]:
    """Make the films and the report; what failed is returned in words."""
    result = pipeline.run([ad.brief for ad in ads], budget_usd=budget_usd)
    for index, video in result.done.items():
        path = out / film_name(ads[index])
        path.parent.mkdir(parents=True, exist_ok=True)
        video.save(path, overwrite=True)
    write_report(out / "report.csv", ads, result.done)
    return [
        f"line {ads[row.index].line}, {ads[row.index].shape}: {row.error['message']}"
        for row in (*result.failed, *result.undecided)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("segments", type=Path)
    parser.add_argument("--pictures", action="append", required=True, metavar="AUDIENCE=FOLDER_OR_MANIFEST")
    parser.add_argument("--out", type=Path, default=Path("ads"))
    parser.add_argument("--workspace", type=Path, default=Path("studio"))
    parser.add_argument("--by", default="campaign desk", help="who has vetted the pictures")
    parser.add_argument("--short-side", type=int, default=720, help="pixels")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds")
    parser.add_argument("--budget-usd", type=float)
    given = parser.parse_args(arguments)
    sources = dict(pair.split("=", 1) for pair in given.pictures)
    with VRAGPipeline.local(given.workspace) as pipeline:
        for audience, pictures in sources.items():
            print(pipeline.knowledge_base(audience).ingest(Path(pictures), approve_by=given.by))
        base = Brief(duration_s=given.duration, fit="subject")
        rows, problems = read_campaign(given.segments, base, {name: name for name in sources})
        campaign = shaped(pipeline, rows, short_side_px=given.short_side)
        plan = pipeline.plan([ad.brief for ad in campaign.ads])
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "plan.html").write_text(pipeline.contact_sheet(plan).to_html(), encoding="utf-8")
        for audience, price in prices(plan, campaign.ads).items():
            print(f"{audience}: {'price not known' if price is None else f'{price / 1e6:.2f} USD'}")
        failed = make(pipeline, campaign.ads, given.out, budget_usd=given.budget_usd)
        for words in (*problems, *campaign.problems, *failed):
            print("not made:", words)
        print(f"{len(campaign.ads) - len(failed)} films, {given.out / 'report.csv'}")


if __name__ == "__main__":
    main()
