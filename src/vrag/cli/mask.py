"""`vrag mask`: paint by hand what an edit repaints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.errors import AlreadyExistsError, UsageError
from vrag.media.files import write_new
from vrag.media.names import shown
from vrag.values.canonical import JSON, from_json, pretty_json, to_json

if TYPE_CHECKING:
    from vrag.media.mask_spec import MaskSpec
    from vrag.painting.server import PaintedMask

__all__ = ["mask"]

_ID: Final = re.compile(r"([^/]+/)?[0-9a-f]{8,64}")


@frozen(kw_only=True)
class _Picture:
    data: bytes
    name: str
    asset_id: str | None = None
    knowledge_base: str | None = None


@click.command()
@click.argument("picture", metavar="ASSET|FILE")
@knowledge_base_option
@click.option(
    "-o", "--output", "target", default="mask.json", show_default=True, metavar="FILE", help="The mask, as JSON."
)
@click.option("--png", metavar="FILE", help="The mask drawn as well, in the size of the picture; white is repainted.")
@click.option("--brief", metavar="FILE", help="A brief with this picture and this edit, ready for `vrag generate`.")
@click.option("--prompt", metavar="TEXT", help="For --brief: what stands there instead. [default: it is erased]")
@click.option("--from", "start", metavar="FILE", help="Go on with this mask.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page; by default a free one.")
@click.option("--open/--no-open", "open_browser", default=True, show_default=True, help="Open the page in the browser.")
@session_options
def mask(
    session: Session,
    *,
    picture: str,
    kb: str | None,
    target: str,
    png: str | None,
    brief: str | None,
    prompt: str | None,
    start: str | None,
    overwrite: bool,
    port: int,
    open_browser: bool,
) -> int:
    """Paint on a web page of this machine which part of a picture an edit repaints.

    Without --kb, the name of a file that exists is that file. The mask is kept as shapes in fractions of the picture, not
    as pixels. In a brief it stands in an edit:

    \b
      {"picture": "brand/9f86d081…", "action_prompt": "camera pans down",
       "edits": [{"operation": "erase", "mask": {"shape": "rectangle",
                  "unit": "fraction", "box": [0.1, 0.2, 0.4, 0.6]}}]}

    \b
    Examples:
      vrag mask 9f86d081 --kb brand -o mask.json --png mask.png
      vrag mask 9f86d081 --kb brand --brief brief.json
      vrag generate --kb brand --brief brief.json --action "camera pans down"
      vrag mask photo.jpg --from mask.json --overwrite
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.painting.server import paint_mask  # noqa: PLC0415  # numpy and a server: only where they are used

    output = session.output
    targets = _targets(target, png, brief, overwrite=overwrite)
    if prompt is not None and brief is None:
        raise UsageError("--prompt goes into a brief, and none is written.", hint="add --brief brief.json")
    given = _picture(session, picture, kb)
    if brief is not None and given.asset_id is None:
        raise UsageError(
            f"'{picture}' is in no knowledge base, and a brief names a picture of one.",
            hint=f"vrag ingest {picture} --kb NAME",
        )
    painted = paint_mask(
        given.data,
        name=given.name,
        start=None if start is None else _mask_file(start),
        keep=_keeper(targets, given, prompt, overwrite=overwrite),
        port=port,
        open_browser=open_browser,
        # With --json the link must still reach the person.
        say=(lambda line: click.echo(line, err=True)) if output.as_json else output.say,
    )
    if painted is None:
        output.note("No mask was saved.")
        output.document({"files": {}, "mask": None})
        return 130
    drawn = painted.drawn
    for kind, path in targets.items():
        output.say(f"{kind}: {path}")
    output.say(f"{100 * drawn.share:.1f} % of the picture is repainted, within the box {drawn.box_px} px.")
    output.document(
        {
            "files": {kind: str(path) for kind, path in targets.items()},
            "mask": to_json(painted.spec),
            "asset_id": given.asset_id,
            "width_px": drawn.width_px,
            "height_px": drawn.height_px,
            "box_px": list(drawn.box_px),
            "share": drawn.share,
        }
    )
    if given.asset_id is None:
        output.note(f'next: Edit(operation="erase", mask=…) with the JSON of {target}, as `vrag mask --help` shows')
        return 0
    if brief is None:
        shape = {"picture": given.asset_id, "edits": [{"operation": "erase", "mask": "…"}]}
        output.note(f"a brief that uses it, with the JSON of {target} for …: {json.dumps(shape, ensure_ascii=False)}")
    owner = ("--kb", given.knowledge_base) if given.knowledge_base else ()
    session.next_step("generate", *owner, "--brief", brief or "brief.json", "--action", "camera pans down")
    return 0


def _targets(mask_file: str, png: str | None, brief: str | None, *, overwrite: bool) -> dict[str, Path]:
    """What is written, by kind; what cannot be written is found before anything is painted."""
    named = {"mask": mask_file, "png": png, "brief": brief}
    targets = {kind: Path(name) for kind, name in named.items() if name is not None}
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise UsageError("Two of the files have the same name.", hint="vrag mask --help")
    for path in targets.values():
        if path.is_dir():
            raise UsageError(f"'{path}' is a folder; give the name of a file.")
        if path.exists() and not overwrite:
            raise AlreadyExistsError(f"'{path}' exists already.", hint="choose another name, or add --overwrite")
    return targets


def _picture(session: Session, named: str, kb: str | None) -> _Picture:
    from vrag.painting.server import LIMITS  # noqa: PLC0415  # as above

    path = Path(named)
    if kb is None and path.is_file():
        with path.open("rb") as stream:
            return _Picture(data=stream.read(LIMITS.max_bytes + 1), name=path.name)
    if kb is None and not _ID.fullmatch(named):
        raise UsageError(
            f"There is no file '{shown(named)}', and that is no id of a picture either.",
            hint="vrag mask PHOTO.jpg, or vrag mask ASSET --kb NAME",
        )
    with session.knowledge_base(kb) as knowledge_base:
        asset = knowledge_base.asset(named)
        with knowledge_base.open(asset.original) as stream:
            data = stream.read()
        return _Picture(
            data=data, name=asset.caption or asset.file_name, asset_id=asset.id, knowledge_base=knowledge_base.name
        )


def _mask_file(name: str) -> MaskSpec:
    from vrag.media.mask_spec import MaskSpec  # noqa: PLC0415  # beside what it needs

    try:
        content: JSON = json.loads(Path(name).read_bytes())
    except OSError as error:
        raise UsageError(f"The mask '{name}' cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The mask '{name}' is not JSON: {error}.") from error
    return from_json(MaskSpec, content)


def _keeper(
    targets: dict[str, Path], given: _Picture, prompt: str | None, *, overwrite: bool
) -> Callable[[PaintedMask], None]:
    from vrag.values.briefs import Brief, Edit  # noqa: PLC0415  # beside what they need

    ours: set[Path] = set()  # written by an attempt that failed at another file

    def keep(painted: PaintedMask) -> None:
        edit = Edit(operation="erase" if prompt is None else "replace", mask=painted.spec, prompt=prompt)
        contents = {
            "mask": (json.dumps(to_json(painted.spec)) + "\n").encode(),
            "png": painted.drawn.data,
            "brief": (pretty_json(to_json(Brief(picture=given.asset_id, edits=(edit,)))) + "\n").encode(),
        }
        for kind, path in targets.items():
            write_new(path, [contents[kind]], overwrite=overwrite or path in ours)
            ours.add(path)

    return keep
