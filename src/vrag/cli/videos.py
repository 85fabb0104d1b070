"""`vrag generate`, `verify` and `key`."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vrag.cli.output import Progress
from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError
from vrag.values.canonical import JSON, to_json

if TYPE_CHECKING:
    from vrag.provenance.verify import Verification
    from vrag.results import FinishedVideo
    from vrag.values.briefs import Brief
    from vrag.values.jobs import Event

__all__ = ["describe", "free_path", "generate", "key", "slug", "verify"]

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_MARKS = {True: "ok  ", False: "FAIL", None: "-   "}


@click.command()
@knowledge_base_option
@click.option("--object", "object_prompt", metavar="TEXT", help='What it shows, such as "red shoes"; also the query.')
@click.option("--action", "action_prompt", metavar="TEXT", help='What happens, such as "camera pans down".')
@click.option("--template", metavar="TEXT", help="The prompt with slots. [default: <object_prompt>, <action_prompt>]")
@click.option("--picture", metavar="ASSET", help="Take this picture instead of searching; it must be approved too.")
@click.option("--model", metavar="NAME", help="A generator of the configuration. [default: the only one]")
@click.option("-o", "--output", "target", metavar="FILE", help="The MP4 to write. [default: named after the object]")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@click.option("--size", metavar="WxH", help="Width and height in pixels. [default: 1280x720]")
@click.option("--fps", type=float, help="Frames a second. [default: 24]")
@click.option("--duration", "duration_s", type=float, metavar="SECONDS", help="Length. [default: 6]")
@click.option("--codec", metavar="NAME", help="Such as av1, if the generator has it. [default: h264]")
@click.option(
    "--fit", type=click.Choice(["cover", "contain"]), help="Crop, or keep all of the picture. [default: cover]"
)
@click.option("--seed", type=int, help="The same seed gives the same film, on models that have one.")
@click.option("--negative", "negative_prompt", metavar="TEXT", help="What must not be seen.")
@click.option("--style", metavar="TEXT", help='Such as "watercolour".')
@click.option("--mood", metavar="TEXT", help='Such as "calm".')
@click.option("--lighting", metavar="TEXT", help='Such as "golden hour".')
@click.option("--take", type=click.IntRange(min=1), default=1, help="2 makes a second video of the same request.")
@session_options
def generate(session: Session, *, kb: str | None, target: str | None, overwrite: bool, **asked: object) -> int:
    """Make one video from the best matching approved picture.

    FILE gets a signed record beside it: FILE.vrag.json. The same command again finds the video that exists.

    \b
    Examples:
      vrag generate --kb brand --object "red shoes" --action "camera pans down" -o shoes.mp4
      vrag generate --kb brand --object "red shoes" --size 720x1280 --duration 4 --fit contain
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    brief = _brief(session, kb, asked)
    path = _target(target, brief, overwrite=overwrite)
    output = session.output
    assert brief.knowledge_base is not None  # `_brief` names it
    session.require_made(brief.knowledge_base)
    with session.pipeline() as pipeline:
        session.require_filled(pipeline.knowledge_base(brief.knowledge_base))
        with output.progress("video") as progress:
            video = pipeline.generate(brief, notify=lambda event: _show(event, progress))
        video.save(path, overwrite=overwrite)
        document = describe(video, path)
    source = document["sources"][0] if document["sources"] else None
    output.say(f"video: {path}")
    output.say(f"record: {path}.vrag.json")
    if source:
        output.say(f"picture: {source['caption'] or source['file_name']} ({source['asset_id']})")
    output.say(f"prompt: {document['prompt']}")
    for note in document["notes"]:
        output.say(f"read as: {note}")
    for problem in document["unmet"]:
        output.say(f"not met: {problem['field']}: {problem['message']}")
    session.next_step("verify", str(path))
    output.document(document)
    return 0


def _show(event: Event, progress: Progress) -> None:
    if event.progress is not None:
        progress(event.progress, 1.0, event.state.value)


def _brief(session: Session, kb: str | None, asked: dict[str, object]) -> Brief:
    from vrag.values.briefs import Brief  # noqa: PLC0415  # beside what it needs
    from vrag.values.requests import Look  # noqa: PLC0415  # as above

    given = {name: value for name, value in asked.items() if value is not None}
    if not (given.get("object_prompt") or given.get("template") or given.get("picture")):
        raise UsageError(
            "Say what the video shows.", hint='vrag generate --object "red shoes" --action "camera pans down"'
        )
    look = Look(**{name: str(given.pop(name)) for name in ("style", "mood", "lighting") if name in given})
    size = given.pop("size", None)
    settings = session.configuration
    values = {
        name: settings.value(f"defaults.{name}")
        for name in ("width_px", "height_px", "fps", "duration_s", "codec", "fit")
    }
    if settings.value("defaults.model"):
        values["model"] = settings.value("defaults.model")
    if size is not None:
        values["width_px"], values["height_px"] = _size(str(size))
    try:
        return Brief(knowledge_base=session.knowledge_base_name(kb), look=look, **{**values, **given})
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        reason = str(error.args[0]) if error.args else "a value is out of its limits"
        raise UsageError(f"This cannot be asked: {reason}.", hint="vrag generate --help") from error


def _size(size: str) -> tuple[int, int]:
    width, mark, height = size.lower().partition("x")
    if not (mark and width.isascii() and height.isascii() and width.isdigit() and height.isdigit()):
        raise UsageError(f"A size is WIDTHxHEIGHT in pixels, not '{size[:40]}'.", hint="--size 1280x720")
    return int(width), int(height)


def _target(given: str | None, brief: Brief, *, overwrite: bool) -> Path:
    """Where the video goes; what cannot be written is found before anything is made or paid."""
    name = slug(brief.object_prompt or brief.template or "video")
    if given is None:
        return free_path(Path(), name)
    path = Path(given)
    if path.is_dir():
        return free_path(path, name)
    if not path.parent.is_dir():
        raise NotFoundError(f"There is no folder '{path.parent}' to write to.", hint=f"mkdir -p '{path.parent}'")
    taken = next((file for file in (path, path.with_name(f"{path.name}.vrag.json")) if file.exists()), None)
    if taken is not None and not overwrite:
        raise AlreadyExistsError(f"The file '{taken}' exists.", hint="--overwrite, or another -o FILE")
    return path


def slug(text: str) -> str:
    """A file name for `text`: lower case letters, digits and `-`, valid and unique on every common disk."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    words = "".join(char if char.isalnum() else " " for char in folded).split()
    name = "-".join(words)[:60].strip("-") or "video"
    return f"{name}-video" if name in _RESERVED else name


def free_path(folder: Path, name: str) -> Path:
    """`name.mp4` in `folder`, else `name-2.mp4` …: nothing there has that name in any case, and no record either."""
    taken = {entry.name.casefold() for entry in folder.iterdir()}
    candidates = (f"{name}.mp4" if number == 1 else f"{name}-{number}.mp4" for number in range(1, len(taken) + 2))
    return folder / next(one for one in candidates if not {one, f"{one}.vrag.json"} & taken)


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
            }
            for source in planned.sources
        ],
        "candidates": to_json(planned.candidates),
        "notes": list(planned.notes),
        "unmet": [{"field": problem.field, "message": problem.message} for problem in planned.unmet],
    }


@click.command()
@click.argument("file")
@click.option("--key", "keys", multiple=True, metavar="PEM", help="A public key that you trust; may be given again.")
@click.option("--sidecar", metavar="FILE", help="The record. [default: FILE.vrag.json]")
@session_options
def verify(session: Session, *, file: str, keys: tuple[str, ...], sidecar: str | None) -> int:
    """Check a video against its signed record, computing everything again.

    Without --key the key of the workspace is trusted, if there is one. A record that fits but was signed by an unknown
    key gives exit code 5: anybody can make such a record.

    \b
    Examples:
      vrag verify shoes.mp4
      vrag verify shoes.mp4 --key studio.pem
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    found = _verified(session, Path(file), Path(sidecar) if sidecar else None, [_read_key(key) for key in keys])
    show_checks(session, found)
    session.output.document({"file": file, **found.to_json()})
    if not found.trusted:
        session.next_step("verify", file, "--key", "PUBLIC.pem")
        session.output.note("      PUBLIC.pem is what `vrag key -o PUBLIC.pem` writes in the maker's workspace")
    return 0 if found.ok and found.trusted else 5


def _verified(session: Session, video: Path, sidecar: Path | None, keys: list[bytes]) -> Verification:
    from vrag.provenance.verify import verify_file  # noqa: PLC0415  # cryptography

    if keys:
        return verify_file(video, sidecar, trusted_keys=keys)
    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():  # looking must not make a workspace, nor a key
        return verify_file(video, sidecar)
    from vrag.workspace import Workspace  # noqa: PLC0415  # only here

    own = [session.assembly.signer.public_key]
    workspace = Workspace(folder)
    try:
        found = verify_file(
            video, sidecar, trusted_keys=own, ledger=workspace.ledger, storage_open=session.assembly.open_media
        )
    finally:
        workspace.close()
    # A stranger's film is not in our ledger, and need not be: what matters is that its signer is not known.
    return found if found.trusted else verify_file(video, sidecar, trusted_keys=own)


def _read_key(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise UsageError(f"The key '{path}' cannot be read: {error.strerror}.", hint="--key PUBLIC.pem") from error


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
