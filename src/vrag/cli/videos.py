"""`vrag generate`, `verify` and `key`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from vrag.cli.audit import is_database, read_key, verify_ledger_at
from vrag.cli.choices import choosing, read_choice
from vrag.cli.output import Progress
from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.cli.targets import target_of
from vrag.errors import BudgetError, UsageError
from vrag.values.canonical import JSON, from_json, to_json

if TYPE_CHECKING:
    from vrag.pipeline import VRAGPipeline
    from vrag.provenance.verify import Verification
    from vrag.results import FinishedVideo
    from vrag.values.briefs import Brief
    from vrag.values.jobs import Event

__all__ = [
    "approve",
    "ask_price",
    "brief_options",
    "configured_brief",
    "describe",
    "generate",
    "key",
    "usd",
    "verify",
]

_MARKS = {True: "ok  ", False: "FAIL", None: "-   "}


def brief_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what every video has: knowledge base, model, size, length, fit and look."""
    options = (
        knowledge_base_option,
        click.option(
            "--brief", "brief_file", metavar="FILE", help="JSON with fields of a brief, such as edits and shots."
        ),
        click.option("--picture", metavar="ASSET", help="Take this picture, not a search; it must be approved too."),
        click.option("--text-only", is_flag=True, default=None, help="Use no picture, on a model that can."),
        click.option("--model", metavar="NAME", help="A generator of the configuration. [default: the only one]"),
        click.option("--size", metavar="WxH", help="Width and height in pixels. [default: 1280x720]"),
        click.option("--fps", type=float, help="Frames a second. [default: 24]"),
        click.option("--duration", "duration_s", type=float, metavar="SECONDS", help="Length. [default: 6]"),
        click.option("--codec", metavar="NAME", help="Such as av1, if the generator has it. [default: h264]"),
        click.option(
            "--fit",
            type=click.Choice(["cover", "subject", "contain", "blur"]),
            help="Crop in the middle or around the subject, or keep all of the picture. [default: cover]",
        ),
        click.option("--negative", "negative_prompt", metavar="TEXT", help="What must not be seen."),
        click.option("--style", metavar="TEXT", help='Such as "watercolour".'),
        click.option("--mood", metavar="TEXT", help='Such as "calm".'),
        click.option("--lighting", metavar="TEXT", help='Such as "golden hour".'),
        click.option("--take", type=click.IntRange(min=1), help="2 makes a second video of the same request."),
        click.option(
            "--choose", metavar="N|RULE", help="The variant of an edit: a number, sharpest, or least-changed."
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@click.command()
@click.option("--object", "object_prompt", metavar="TEXT", help='What it shows, such as "red shoes"; also the query.')
@click.option("--action", "action_prompt", metavar="TEXT", help='What happens, such as "camera pans down".')
@click.option("--template", metavar="TEXT", help="The prompt with slots. [default: <object_prompt>, <action_prompt>]")
@click.option("--seed", type=int, help="The same seed gives the same film, on models that have one.")
@brief_options
@click.option("-o", "--output", "target", metavar="FILE", help="The MP4 to write. [default: named after the object]")
@click.option(
    "--formats", metavar="LIST", help="Siblings of one picture, such as 16:9,9:16,1:1; -o a.mp4 gives a-16x9.mp4."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@click.option("--budget-usd", type=click.FloatRange(min=0), metavar="USD", help="Buy up to this price, unasked.")
@click.option("--yes", is_flag=True, help="Buy without asking.")
@session_options
def generate(
    session: Session,
    *,
    kb: str | None,
    target: str | None,
    formats: str | None,
    overwrite: bool,
    budget_usd: float | None,
    yes: bool,
    **asked: object,
) -> int:
    """Make one video from the best matching approved picture.

    FILE gets a signed record beside it: FILE.vrag.json. The same command again finds the video that exists. A model that
    costs money shows the price and asks once.

    \b
    Examples:
      vrag generate --kb brand --object "red shoes" --action "camera pans down" -o shoes.mp4
      vrag generate --kb brand --object "red shoes" --size 720x1280 --duration 4 --fit subject
      vrag generate --kb brand --brief storyboard.json -o story.mp4
      vrag generate --kb brand --object "red shoes" --formats 16:9,9:16,1:1 -o shoes.mp4
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.cli.formats import generate_formats, read_formats, targets  # noqa: PLC0415  # it needs what is here

    brief = configured_brief(session, kb, asked)
    sizes = {} if formats is None else read_formats(formats, brief)
    if not (brief.object_prompt or brief.template or brief.picture or brief.shots):
        raise UsageError(
            "Say what the video shows.", hint='vrag generate --object "red shoes" --action "camera pans down"'
        )
    paths = (
        targets(target, brief, sizes, overwrite=overwrite) if sizes else [target_of(target, brief, overwrite=overwrite)]
    )
    output = session.output
    if not brief.text_only:
        session.require_made(session.knowledge_base_name(brief.knowledge_base))
    with session.pipeline() as pipeline:
        if not brief.text_only:
            session.require_filled(pipeline.knowledge_base(brief.knowledge_base))
        if sizes:
            return generate_formats(
                session, pipeline, brief, sizes, paths, overwrite=overwrite, budget_usd=budget_usd, yes=yes
            )
        (path,) = paths
        ask_price(session, pipeline, [brief], budget_usd=budget_usd, yes=yes)
        with output.progress("video") as progress:
            video = pipeline.generate(brief, budget_usd=budget_usd, notify=lambda event: _show(event, progress))
        video.save(path, overwrite=overwrite)
        document = describe(video, path)
    output.say(f"video: {path}")
    output.say(f"record: {path}.vrag.json")
    for source in document["sources"]:
        edits = f", {', '.join(source['edits'])}" if source["edits"] else ""
        output.say(f"picture: {source['caption'] or source['file_name']} ({source['asset_id']}){edits}")
    output.say(f"prompt: {document['prompt']}")
    for note in document["notes"]:
        output.say(f"read as: {note}")
    for problem in document["unmet"]:
        output.say(f"not met: {problem['field']}: {problem['message']}")
    session.next_step("verify", str(path))
    output.document(document)
    return 0


def ask_price(
    session: Session, pipeline: VRAGPipeline, briefs: list[Brief], *, budget_usd: float | None, yes: bool
) -> None:
    """Show what videos cost, edits first, and ask once. What cannot be planned costs nothing; making it says why."""
    from vrag.generation.plan import unedited  # noqa: PLC0415  # beside its use

    found = pipeline.plan(briefs)
    if found.open:
        # The film itself is priced on the picture as it is; an edit changes no price of a film.
        found = evolve(found, videos=pipeline.plan(map(unedited, briefs)).videos)
    estimates = [edit.estimate for edit in found.edits] + [video.estimate for video in found.videos]
    prices = [estimate.usd_micros for estimate in estimates]
    what = "purchases" if found.edits else "video" if len(briefs) == 1 else "videos"
    approve(session, prices, what, budget_usd=budget_usd, yes=yes)


def approve(session: Session, prices: Sequence[int | None], what: str, *, budget_usd: float | None, yes: bool) -> None:
    """Show what a purchase costs and ask once; free ones are not asked for.

    Raises:
        BudgetError: It is over the budget.
        UsageError: There is nobody to ask.
    """
    known = [price for price in prices if price is not None]
    total = None if len(known) < len(prices) else sum(known)
    if total == 0 or yes:
        return
    shown = f"{len(prices)} {what} for {usd(total)} USD"
    if budget_usd is not None:
        if total is not None and total > round(budget_usd * 1e6):
            raise BudgetError(f"{shown}; the budget is {budget_usd:.2f} USD. Nothing was bought.", cap="run")
        return
    if session.output.as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{shown}: nobody is here to be asked, and nothing was bought.", hint="--yes, or --budget-usd USD"
        )
    if not click.confirm(f"Buy {shown}?", err=True):
        raise click.Abort


def usd(micros: int | None) -> str:
    """A price for people."""
    return "an unknown number of" if micros is None else f"{micros / 1e6:.2f}"


def _show(event: Event, progress: Progress) -> None:
    if event.progress is not None:
        progress(event.progress, 1.0, event.state.value)


def configured_brief(session: Session, kb: str | None, asked: Mapping[str, object]) -> Brief:
    """A brief from flags, a file of `--brief`, and the defaults of the configuration, in this order."""
    from vrag.values.briefs import Brief  # noqa: PLC0415  # beside what it needs

    given = {name: value for name, value in asked.items() if value is not None}
    file = given.pop("brief_file", None)
    written = {} if file is None else _brief_file(str(file))
    look = {name: str(given.pop(name)) for name in ("style", "mood", "lighting") if name in given}
    size, choose = given.pop("size", None), given.pop("choose", None)
    settings = session.configuration
    values = {
        name: settings.value(f"defaults.{name}")
        for name in ("width_px", "height_px", "fps", "duration_s", "codec", "fit")
    }
    if settings.value("defaults.model"):
        values["model"] = settings.value("defaults.model")
    values |= written
    if size is not None:
        values["width_px"], values["height_px"] = _size(str(size))
    values |= given
    values["look"] = {**values.get("look", {}), **look}
    if not values.get("text_only"):
        values["knowledge_base"] = session.knowledge_base_name(kb or values.get("knowledge_base"))
    try:
        brief = from_json(Brief, values)
    except ValueError as error:
        if isinstance(error, UsageError) and "This is not a Brief" not in error.message:
            raise
        reason = str(error.args[0]) if error.args else "a value is out of its limits"
        raise UsageError(f"This cannot be asked: {reason}", hint="vrag generate --help") from error
    return brief if choose is None else choosing(brief, read_choice(str(choose)))


def _brief_file(name: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(name).read_bytes())
    except OSError as error:
        raise UsageError(f"The brief '{name}' cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The brief '{name}' is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"The brief '{name}' is no JSON object of the fields of a Brief.")
    return content


def _size(size: str) -> tuple[int, int]:
    width, mark, height = size.lower().partition("x")
    if not (mark and width.isascii() and height.isascii() and width.isdigit() and height.isdigit()):
        raise UsageError(f"A size is WIDTHxHEIGHT in pixels, not '{size[:40]}'.", hint="--size 1280x720")
    return int(width), int(height)


def describe(video: FinishedVideo, path: Path) -> dict[str, JSON]:
    """A finished video as JSON."""
    planned = video.planned
    return {
        "id": video.id,
        "file": str(path),
        "record_file": f"{path}.vrag.json",
        "sha256": video.media.sha256,
        "media": to_json(video.media),
        "prompt": " / ".join(shot.prompt for shot in planned.request.shots),
        "model": str(planned.model),
        "sources": [
            {
                "asset_id": source.asset_id,
                "file_name": source.file_name,
                "caption": source.caption,
                "sha256": source.original.sha256,
                "crop_px": list(source.conformed.crop_px),
                "edits": [edit.operation for edit in source.edits],
            }
            for source in planned.sources
        ],
        "candidates": to_json(planned.candidates),
        "notes": list(planned.notes),
        "unmet": [{"field": problem.field, "message": problem.message} for problem in planned.unmet],
    }


@click.command()
@click.argument("path", required=False, metavar="[VIDEO|WORKSPACE|LEDGER]")
@click.option("--key", "keys", multiple=True, metavar="PEM", help="A public key that you trust; may be given again.")
@click.option("--sidecar", metavar="FILE", help="The record of a video. [default: VIDEO.vrag.json]")
@click.option("--outside", multiple=True, metavar="FILE", help="A checkpoint kept outside, of a workspace or ledger.")
@click.option("--tsa-root", "roots", multiple=True, metavar="PEM", help="Check time stamps against this root.")
@session_options
def verify(
    session: Session,
    *,
    path: str | None,
    keys: tuple[str, ...],
    sidecar: str | None,
    outside: tuple[str, ...],
    roots: tuple[str, ...],
) -> int:
    """Check a video against its signed record, or a whole workspace, computing everything again.

    A workspace is a folder with `vrag.db`, which alone is a ledger; without an argument it is the one of this folder. The
    first thing that is wrong is named, with its place in the ledger and the promise that it breaks.

    Without --key the key of the workspace is trusted, if there is one. What fits but was signed by an unknown key gives
    exit code 5: anybody can make such a record.

    \b
    Examples:
      vrag verify shoes.mp4
      vrag verify shoes.mp4 --key studio.pem
      vrag verify
      vrag verify studio --outside /mnt/safe/studio.note
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    given = None if path is None else Path(path)
    if given is None or given.is_dir() or is_database(given):
        return verify_ledger_at(session, given, keys, outside, roots)
    found = _verified(session, given, Path(sidecar) if sidecar else None, [read_key(key) for key in keys])
    show_checks(session, found)
    session.output.document({"file": path, **found.to_json()})
    if not found.trusted:
        session.next_step("verify", str(path), "--key", "PUBLIC.pem")
        session.output.note("      PUBLIC.pem is what `vrag key -o PUBLIC.pem` writes in the maker's workspace")
    return 0 if found.ok and found.trusted else 5


def _verified(session: Session, video: Path, sidecar: Path | None, keys: list[bytes]) -> Verification:
    from vrag.provenance.certificates import read_anchors  # noqa: PLC0415  # cryptography
    from vrag.provenance.credential_check import credential_check  # noqa: PLC0415  # as above
    from vrag.provenance.verify import verify_file  # noqa: PLC0415  # as above

    folder = session.configuration.folder
    check = partial(verify_file, video, sidecar, credentials=credential_check(read_anchors(folder / "keys")))
    if keys:
        return check(trusted_keys=keys)
    if not (folder / "vrag.db").is_file():  # looking must not make a workspace, nor a key
        return check()
    from vrag.workspace import Workspace  # noqa: PLC0415  # only here

    own = [session.assembly.signer.public_key]
    workspace = Workspace(folder)
    try:
        found = check(trusted_keys=own, ledger=workspace.ledger, storage_open=session.assembly.open_media)
    finally:
        workspace.close()
    # A stranger's film is not in our ledger, and need not be: what matters is that its signer is not known.
    return found if found.trusted else check(trusted_keys=own)


def show_checks(session: Session, found: Verification) -> None:
    """Each check on a line, then the verdict."""
    for check in found.checks:
        session.output.say(f"{_MARKS[check.ok]}  {check.promise}: {check.detail}")
    if found.ok and found.trusted:
        session.output.say("verified")
    elif found.ok:
        session.output.say(f"NOT verified: signed by a key that is not known here ({', '.join(found.keyids)})")
    else:
        session.output.say("NOT verified")


@click.command()
@click.option("-o", "--output", "target", metavar="FILE", help="Write it there instead of showing it.")
@session_options
def key(session: Session, *, target: str | None) -> int:
    """Show the public key of this workspace, for those who verify its videos elsewhere.

    \b
    Examples:
      vrag key -o studio.pem
      vrag verify shoes.mp4 --key studio.pem
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.media.files import write_new  # noqa: PLC0415  # beside what follows
    from vrag.provenance.signing import export_public_key_pem  # noqa: PLC0415  # cryptography

    signer = session.assembly.signer
    pem = export_public_key_pem(signer)
    if target is not None:
        write_new(Path(target), [pem])
        session.output.say(f"public key {signer.keyid} written to {target}")
    else:
        for line in pem.decode("ascii").splitlines():
            session.output.say(line)
    session.output.document({"keyid": signer.keyid, "algorithm": signer.algorithm, "public_key": pem.decode("ascii")})
    return 0
