"""A film for each viewer: slots for their words, a cap on the money, a second take on request, and a way to be forgotten.

`python personal.py viewers.csv --photos FOLDER --budget-usd 5 --out films`, and later
`python personal.py --forget v-1002 --reason "asked to" --out films`
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attrs import evolve

from vrag import Brief, VRAGPipeline
from vrag.errors import PromptError
from vrag.prompts.template import check_text

TEMPLATE = "a postcard for <name> from <place>: <object_prompt>, <action_prompt>"
MAX_NAME_CHARS = 60
_ID = re.compile(r"[A-Za-z0-9-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """One line of a list of viewers. The id names files and rows; the words of a person never do."""

    id: str
    name: str
    place: str
    take: int = 1


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The viewers of a list, and what is wrong with its other lines."""

    viewers: tuple[Viewer, ...]
    problems: tuple[str, ...]


def read_viewers(path: Path) -> Listed:
    """Read a CSV with the columns `viewer`, `name`, `place` and, if wanted, `take`."""
    viewers: list[Viewer] = []
    problems: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            try:
                viewers.append(_viewer(row))
            except (PromptError, ValueError) as error:
                problems.append(f"line {rows.line_num}: {error}")
    return Listed(viewers=tuple(viewers), problems=tuple(problems))


def _viewer(row: Mapping[str, str | None]) -> Viewer:
    viewer_id, name, place = (row.get(column) or "" for column in ("viewer", "name", "place"))
    if not _ID.fullmatch(viewer_id):
        raise ValueError("the id of a viewer is 1 to 40 letters, digits and hyphens")
    for word, what in ((name, "the name"), (place, "the place")):
        if not word.strip():
            raise ValueError(f"{what} is empty")
        if len(word.splitlines()) > 1:
            raise ValueError(f"{what} has more than one line")
        check_text(word, what, max_chars=MAX_NAME_CHARS)
    take = row.get("take") or "1"
    if not (take.isascii() and take.isdigit() and 1 <= int(take) <= 99):
        raise ValueError("the take is a number from 1 to 99")
    return Viewer(id=viewer_id, name=name, place=place, take=int(take))


def briefs(viewers: Sequence[Viewer], base: Brief) -> list[Brief]:
    """A brief for each viewer. Values stand in their slots as they are: a name that looks like a slot is a name."""
    return [
        evolve(base, template=TEMPLATE, slots={"name": one.name, "place": one.place}, take=one.take) for one in viewers
    ]


def affordable(pipeline: VRAGPipeline, wanted: Sequence[Brief], budget_usd: float) -> tuple[int, int]:
    """How many of the first briefs fit into the budget, and what they cost in micro-USD. Nothing is bought.

    Raises:
        SystemExit: A price is not known; unknown is not zero.
    """
    plan = pipeline.plan(wanted)
    spent, count = 0, 0
    price_of = dict(zip(plan.rows, plan.videos, strict=True))
    for index in range(len(wanted)):
        price = price_of[index].estimate.usd_micros if index in price_of else 0  # one that cannot be made costs nothing
        if price is None:
            raise SystemExit("The price of this model is not known, so that no cap can hold. Give it in vrag.toml.")
        if spent + price > budget_usd * 1_000_000:
            break
        spent, count = spent + price, count + 1
    return count, spent


def make(pipeline: VRAGPipeline, viewers: Sequence[Viewer], base: Brief, out: Path, budget_usd: float) -> Iterator[str]:
    """Make what the budget allows, in the order of the list; tell of each what became of it."""
    wanted = briefs(viewers, base)
    count, spent = affordable(pipeline, wanted, budget_usd)
    yield f"{count} of {len(wanted)} films fit into {budget_usd:g} USD: {spent / 1e6:.2f} USD"
    out.mkdir(parents=True, exist_ok=True)
    made = read_register(out)
    result = pipeline.run(wanted[:count], budget_usd=budget_usd)
    for index, video in sorted(result.done.items()):
        viewer = viewers[index]
        file = f"{viewer.id}-{viewer.take}.mp4"
        video.save(out / file, overwrite=True)
        made[file] = {"viewer": viewer.id, "step": video.id}
        yield f"{viewer.id}: {file}"
    # Ids and steps, no words of a person: what is erased in the workspace must not live on beside it.
    (out / "register.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    for row in (*result.failed, *result.undecided):
        yield f"{viewers[row.index].id}: {row.error['message']}"


def read_register(out: Path) -> dict[str, dict[str, str]]:
    """Which film belongs to which viewer."""
    path = out / "register.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def forget(pipeline: VRAGPipeline, viewer_id: str, out: Path, *, by: str, reason: str) -> Iterator[str]:
    """Erase the words of one viewer for ever. Records stay, and still verify; a receipt says who decided it."""
    register = read_register(out)
    for step_id in dict.fromkeys(entry["step"] for entry in register.values() if entry["viewer"] == viewer_id):
        erased = pipeline.erase_text(step_id, by=by, reason=reason)
        yield f"{step_id[:12]}: {erased} texts erased, the record verifies: {pipeline.video(step_id).verify().ok}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("viewers", type=Path, nargs="?")
    parser.add_argument("--photos", type=Path, help="a folder or a manifest of vetted pictures")
    parser.add_argument("--out", type=Path, default=Path("films"))
    parser.add_argument("--workspace", type=Path, default=Path("studio"))
    parser.add_argument("--by", default="postcard desk")
    parser.add_argument("--object", default="mountain lake")
    parser.add_argument("--action", default="camera slowly pans right")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds")
    parser.add_argument("--budget-usd", type=float, default=0.0)
    parser.add_argument("--forget", metavar="VIEWER")
    parser.add_argument("--reason", default="")
    given = parser.parse_args(arguments)
    with VRAGPipeline.local(given.workspace) as pipeline:
        if given.forget:
            for line in forget(pipeline, given.forget, given.out, by=given.by, reason=given.reason):
                print(line)
            return
        if given.viewers is None:
            parser.error("name a list of viewers, or --forget one of them")
        if given.photos is not None:
            print(pipeline.knowledge_base("postcards").ingest(given.photos, approve_by=given.by))
        width_px, _, height_px = given.size.partition("x")
        base = Brief(
            object_prompt=given.object,
            action_prompt=given.action,
            knowledge_base="postcards",
            width_px=int(width_px),
            height_px=int(height_px),
            duration_s=given.duration,
        )
        listed = read_viewers(given.viewers)
        for line in (*listed.problems, *make(pipeline, listed.viewers, base, given.out, given.budget_usd)):
            print(line)


if __name__ == "__main__":
    main()
