"""`vrag generate --formats`: one approved picture, and a film of it in each of several shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vrag.cli.targets import free_path, slug, writable
from vrag.cli.videos import ask_price, describe
from vrag.errors import UsageError

if TYPE_CHECKING:
    from vrag.cli.session import Session
    from vrag.pipeline import VRAGPipeline
    from vrag.values.briefs import Brief
    from vrag.values.canonical import JSON

__all__ = ["generate_formats", "read_formats", "targets"]

_SHAPE: Final = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
_SIZE: Final = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})")


def read_formats(text: str, brief: Brief) -> dict[str, tuple[int, int]]:
    """The sizes that are asked for, by what a file name says of each.

    `16:9` keeps the shorter side of the brief, `1280x720` is taken as it is. Sides are even, as H.264 wants them.

    Raises:
        UsageError: One is neither a shape nor a size, or two of them are the same.
    """
    short = min(brief.width_px, brief.height_px)
    sizes: dict[str, tuple[int, int]] = {}
    for one in filter(None, map(str.strip, text.lower().split(","))):
        if size := _SIZE.fullmatch(one):
            wide, high = int(size[1]), int(size[2])
        elif shape := _SHAPE.fullmatch(one):
            across, down = int(shape[1]), int(shape[2])
            long = 2 * round(short * max(across, down) / min(across, down) / 2)
            wide, high = (long, short) if across > down else (short, long)
        else:
            raise UsageError(
                f"'{one[:40]}' is no format: a shape like 16:9, or a size like 1280x720.",
                hint="--formats 16:9,9:16,1:1",
            )
        name = one.replace(":", "x")
        if (wide, high) in sizes.values() or name in sizes:
            raise UsageError(
                f"The formats '{text[:80]}' have {wide}x{high} pixels, or the name '{name}', twice.",
                hint="--formats 16:9,9:16,1:1",
            )
        sizes[name] = (wide, high)
    if not sizes:
        raise UsageError("No format was named.", hint="--formats 16:9,9:16,1:1")
    return sizes


def targets(given: str | None, brief: Brief, names: Mapping[str, object], *, overwrite: bool) -> list[Path]:
    """A file for each format, `shoes-16x9.mp4`; what cannot be written is found before anything is made or paid.

    Raises:
        AlreadyExistsError: A file that `given` leads to exists.
        NotFoundError: Its folder does not.
    """
    path = Path() if given is None else Path(given)
    if path.is_dir():
        stem = slug(brief.object_prompt or brief.template or "video")
        return [free_path(path, f"{stem}-{name}") for name in names]
    return [writable(path.with_name(f"{path.stem}-{name}{path.suffix}"), overwrite=overwrite) for name in names]


def generate_formats(
    session: Session,
    pipeline: VRAGPipeline,
    brief: Brief,
    sizes: Mapping[str, tuple[int, int]],
    paths: list[Path],
    *,
    overwrite: bool,
    budget_usd: float | None,
    yes: bool,
) -> int:
    """Make the films, and say which file is which; one that fails stops no other."""
    output = session.output
    briefs = pipeline.formats(brief, sizes.values())
    ask_price(session, pipeline, briefs, budget_usd=budget_usd, yes=yes)
    result = pipeline.run(briefs, budget_usd=budget_usd)
    names = list(sizes)
    done: list[dict[str, JSON]] = []
    for index, video in sorted(result.done.items()):
        video.save(paths[index], overwrite=overwrite)
        done.append({"format": names[index], **describe(video, paths[index])})
        output.say(f"video: {paths[index]}")
    pictures = {source["asset_id"]: source for one in done for source in one["sources"]}
    for source in pictures.values():
        output.say(f"picture: {source['caption'] or source['file_name']} ({source['asset_id']})")
    failed = [{"format": names[row.index], **row.error} for row in (*result.failed, *result.undecided)]
    for one in failed:
        output.say(f"not made: {one['format']}: {one['message']}")
        if one.get("hint"):
            output.note(f"next: {one['hint']}")
    if done:
        session.next_step("verify", str(done[0]["file"]))
    output.document({"done": done, "failed": failed})
    return 0 if not failed else 4 if done else 1
