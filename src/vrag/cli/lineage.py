"""`vrag lineage`: what something was made from, what was made of it, and what has changed since."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vrag.cli.session import Session, session_options
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vrag.pipeline import VRAGPipeline
    from vrag.provenance.lineage import LineageGraph
    from vrag.provenance.staleness import Now, Staleness
    from vrag.values.assets import Asset
    from vrag.values.requests import ModelRef
    from vrag.workspace import Workspace

__all__ = ["lineage", "named", "present", "through"]

_DIGITS: Final = re.compile(r"[0-9a-f]{8,64}")


@click.command()
@click.argument("thing", metavar="VIDEO|ASSET|SHA256|FILE")
@click.option("-o", "--output", "target", metavar="FILE.svg", help="Draw it as a picture, too.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.svg where it exists.")
@click.option("--stale", "with_stale", is_flag=True, help="Say what has changed since: pictures, captions, models.")
@session_options
def lineage(session: Session, *, thing: str, target: str | None, overwrite: bool, with_stale: bool) -> int:
    """Show what a video or picture was made from, and what was made of it, through every step.

    It reads the records of the workspace. A video is named by the id of its step (`vrag jobs`; the first 8 digits do), its
    SHA-256, or its file; a picture by its asset id, its SHA-256, or its file.

    \b
    Examples:
      vrag lineage shoes.mp4
      vrag lineage brand/9f86d0… -o lineage.svg
      vrag lineage 874dddd0 --stale
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.provenance.lineage import family  # noqa: PLC0415  # only where it is used
    from vrag.provenance.lineage_view import lineage_picture  # noqa: PLC0415  # as above
    from vrag.provenance.staleness import stale  # noqa: PLC0415  # as above
    from vrag.values.canonical import to_json  # noqa: PLC0415  # as above

    path = None if target is None else _free(Path(target), overwrite=overwrite)
    changed: tuple[Staleness, ...] | None = None
    if with_stale:
        with session.pipeline() as pipeline:
            workspace = pipeline.workspace
            key = named(session, workspace, thing)
            graph = family(workspace.ledger, key)
            changed = stale(workspace.ledger, key, present(session, pipeline))
    else:
        workspace = _workspace(session)
        try:
            graph = family(workspace.ledger, named(session, workspace, thing))
        finally:
            workspace.close()
    _say(session, graph)
    if changed is not None:
        _say_stale(session, changed)
    if path is not None:
        from vrag.media.files import write_new  # noqa: PLC0415  # as above

        write_new(path, [lineage_picture(graph).encode()], overwrite=overwrite)
        session.output.say(f"picture: {path}")
    session.output.document(
        {
            **graph.to_json(),
            "picture": None if path is None else str(path),
            **({} if changed is None else {"stale": to_json(changed)}),
        }
    )
    return 0


def _free(path: Path, *, overwrite: bool) -> Path:
    if path.suffix.lower() != ".svg":
        raise UsageError(f"The picture is an SVG file, not '{path.name}'.", hint="-o lineage.svg")
    if path.exists() and not overwrite:
        raise AlreadyExistsError(f"The file '{path}' exists.", hint="--overwrite, or another -o FILE.svg")
    return path


def _workspace(session: Session) -> Workspace:
    from vrag.workspace import Workspace  # noqa: PLC0415  # only here

    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():  # looking makes no workspace
        raise NotFoundError(f"There is no workspace '{folder}'.", hint="--workspace DIR")
    return Workspace(folder)


def named(session: Session, workspace: Workspace, thing: str) -> str:
    """The id or digest that a person means by `thing`: a file, a step, an asset, a digest, or the first digits of one.

    Raises:
        NotFoundError: Nothing has that name.
        UsageError: It names nothing that lineage is about, or several things.
    """
    path = Path(thing)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    owner, slash, digits = thing.rpartition("/")
    if not _DIGITS.fullmatch(digits):
        raise UsageError(
            f"'{thing[:120]}' is no file here, no id of a video or picture, and no SHA-256.",
            hint="vrag jobs lists the videos",
        )
    if len(digits) == 64:
        return thing
    if slash:
        session.require_made(owner)
        with session.knowledge_base(owner, filled=False) as knowledge_base:
            return knowledge_base.asset(thing).id
    found = [step.id for step in workspace.journal.steps() if step.id.startswith(digits)]
    if len(found) > 1:
        raise UsageError(f"'{thing}' begins the ids of {len(found)} steps; give more digits.", hint="vrag jobs")
    if not found:
        raise NotFoundError(f"No step of this workspace begins with '{thing}'.", hint="vrag jobs")
    return found[0]


def present(session: Session, pipeline: VRAGPipeline) -> Now:
    """How the pictures and models of a workspace stand now."""
    from vrag.clock import SystemClock  # noqa: PLC0415  # only where it is used
    from vrag.generation.catalogue import Catalogue  # noqa: PLC0415  # as above
    from vrag.provenance.staleness import Now  # noqa: PLC0415  # as above
    from vrag.sourcing import INPAINTER  # noqa: PLC0415  # as above

    known = set(session.assembly.knowledge_base_names())
    today = SystemClock().now().date()
    catalogue = Catalogue.load()

    def asset(asset_id: str) -> Asset | None:
        owner = asset_id.partition("/")[0]
        if owner not in known:
            return None
        try:
            return pipeline.knowledge_base(owner).asset(asset_id)
        except NotFoundError:
            return None

    def model(name: str) -> ModelRef | None:
        if name == INPAINTER:
            return None if pipeline.inpainter is None else pipeline.inpainter.model
        generator = pipeline.generators.get(name)
        return None if generator is None else generator.model

    def lifecycle(model: ModelRef) -> tuple[str, str | None] | None:
        found = catalogue.find(model.provider, model.id)
        if found is None:
            return None
        state = found.state_on(today)
        day = {"legacy": found.lifecycle.legacy_on, "retired": found.lifecycle.retired_on}.get(state)
        return state, None if day is None else day.isoformat()

    return Now(
        review=lambda asset_id: pipeline.knowledge_base(asset_id.partition("/")[0]).review_of(asset_id),
        asset=asset,
        model=model,
        lifecycle=lifecycle,
    )


def through(graph: LineageGraph) -> dict[str, str]:
    """By record id, what lies between the root and what the record made: "an edited picture", "a part"; else empty."""
    said = {"edited": "an edited picture", "part": "a part of a film"}
    found: dict[str, str] = {}
    for node in graph.nodes.values():
        between = {graph.nodes[one].kind for one in _above(graph, node.id) if one not in {graph.root, node.id}}
        for record_id in node.records:
            found[record_id] = ", ".join(words for kind, words in said.items() if kind in between)
    return found


def _above(graph: LineageGraph, node_id: str) -> Iterator[str]:
    waiting, seen = [node_id], set[str]()
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            yield one
            waiting += [edge.source for edge in graph.into(one)]


def _say(session: Session, graph: LineageGraph) -> None:
    from vrag.provenance.lineage_view import lineage_tree  # noqa: PLC0415  # as above

    sides = (
        ("made from", "up", graph.into(graph.root)),
        ("used in", "down", graph.out_of(graph.root)),
    )
    shown = [(head, direction) for head, direction, edges in sides if edges]
    if not shown:
        for line in lineage_tree(graph, "up"):
            session.output.say(line)
        session.output.say("made from no picture, and used in nothing")
    for head, direction in shown:
        session.output.say(f"{head}:")
        for line in lineage_tree(graph, "up" if direction == "up" else "down"):
            session.output.say(f"  {line}")


def _say_stale(session: Session, changed: tuple[Staleness, ...]) -> None:
    session.output.say("changed since:" if changed else "nothing has changed since")
    for one in changed:
        since = "" if one.since is None else f" since {one.since[:10]}"
        session.output.say(f"  {one.kind}{since}: {one.what}: {one.detail}")
