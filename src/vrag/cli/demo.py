"""`vrag demo`: the whole way once, on photographs that come with the library, without network or account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vrag.cli.output import Output
from vrag.cli.report import shown_picture
from vrag.cli.targets import slug
from vrag.cli.videos import describe
from vrag.clock import SystemClock, rfc3339
from vrag.compose.configuration import read_configuration
from vrag.errors import AlreadyExistsError, NoSuitableImageError, VRAGError

if TYPE_CHECKING:
    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.pipeline import VRAGPipeline
    from vrag.provenance.verify import Verification
    from vrag.results import FinishedVideo
    from vrag.values.vectors import Refusal

__all__ = ["demo", "demo_photos"]

_OBJECT: Final = "snowy mountain lake"
_ACTION: Final = "camera pans right"
_REFUSED: Final = "red shoes"
_KNOWLEDGE_BASE: Final = "demo"
_REVIEWER: Final = "demo"


@click.command()
@click.option("--out", metavar="DIR", default="vrag-demo", show_default=True, help="Where everything goes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
def demo(*, out: str, as_json: bool) -> int:
    """Make a video, its record and a page from photographs that come with vrag.

    It needs no network, no account and no GPU: 1280x720, 24 frames a second, 6 seconds, by camera moves. It also asks
    for something that no photograph shows, and is refused.

    \b
    Examples:
      vrag demo
      vrag demo --out first-look
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    output = Output(as_json=as_json)
    folder = Path(out)
    _check_folder(folder)
    studio = folder / "studio"
    from vrag.compose.assembly import Assembly  # noqa: PLC0415  # numpy and the rest: only where they are used
    from vrag.media.files import write_new  # noqa: PLC0415  # as above
    from vrag.pipeline import VRAGPipeline  # noqa: PLC0415  # as above
    from vrag.provenance.signing import export_public_key_pem  # noqa: PLC0415  # as above
    from vrag.values.briefs import Brief  # noqa: PLC0415  # as above

    # No file and no variable is read: the demo is the same everywhere.
    assembly = Assembly(read_configuration(None, environ={}, flags={"workspace.folder": (str(studio), "--out")}))
    with assembly.pipeline(VRAGPipeline) as pipeline:
        knowledge_base = pipeline.knowledge_base(_KNOWLEDGE_BASE)
        with demo_photos() as photos, output.progress("ingest") as progress:
            report = knowledge_base.ingest(
                photos / "captions.jsonl",
                approve_by=_REVIEWER,
                progress=lambda done, total, name: progress(done, total or 0, name),
            )
        output.say(
            f"1. {report.taken} photographs are in the knowledge base '{_KNOWLEDGE_BASE}', approved by '{_REVIEWER}'."
        )

        brief = Brief(object_prompt=_OBJECT, action_prompt=_ACTION, knowledge_base=_KNOWLEDGE_BASE)
        output.say(f'2. Asked for "{_OBJECT}", "{_ACTION}".')
        with output.progress("video") as progress:
            video = pipeline.generate(
                brief, notify=lambda event: None if event.progress is None else progress(event.progress, 1.0)
            )
        source = video.sources[0]
        output.say(f"   The best of {report.taken}: {source.caption}")
        film = video.save(folder / f"{slug(_OBJECT)}.mp4", overwrite=True)

        refusal = _refused(pipeline)
        output.say(f'3. Asked for "{_REFUSED}", and refused: {" ".join(refusal.reasons)}')

        verification = video.verify()
        verification.require()
        output.say("4. Verified: the film, its record and the picture belong together, and nothing was changed.")

        key = folder / "public-key.pem"
        write_new(key, [export_public_key_pem(assembly.signer)], overwrite=True)
        page = _page(folder / "report.html", film, video, verification, refusal, knowledge_base, key)
        document = describe(video, film)
    output.say()
    output.say(f"film    {film}")
    output.say(f"record  {film}.vrag.json")
    output.say(f"page    {page}   (open it in a browser)")
    output.say(f"key     {key}")
    output.say()
    output.say("Try next:")
    output.say(f"  vrag verify {film} --key {key}")
    output.say(f'  vrag search "dog" --kb {_KNOWLEDGE_BASE} --workspace {studio} --explain')
    output.say(
        f'  vrag generate --kb {_KNOWLEDGE_BASE} --object "red bowl" --action "camera pans left" --workspace {studio}'
    )
    output.document(
        {
            **document,
            "page": str(page),
            "public_key": str(key),
            "workspace": str(studio),
            "photographs": report.taken,
            "verification": {"ok": verification.ok, "trusted": verification.trusted},
            "refused": {"query": refusal.query, "reasons": list(refusal.reasons)},
        }
    )
    return 0


@contextmanager
def demo_photos() -> Iterator[Path]:
    """The folder of the photographs that come with the library, with `captions.jsonl` and `LICENCES.md`."""
    with as_file(files("vrag").joinpath("demo", "photos")) as folder:
        yield folder


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise AlreadyExistsError(f"'{folder}' is a file.", hint="vrag demo --out ANOTHER")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "studio" / "vrag.db").is_file():
        raise AlreadyExistsError(
            f"The folder '{folder}' holds other things, and the demo writes over nothing of yours.",
            hint="vrag demo --out ANOTHER",
        )


def _refused(pipeline: VRAGPipeline) -> Refusal:
    from vrag.values.briefs import Brief  # noqa: PLC0415  # as above

    asked = Brief(object_prompt=_REFUSED, action_prompt=_ACTION, knowledge_base=_KNOWLEDGE_BASE)
    try:
        pipeline.generate(asked)
    except NoSuitableImageError as error:
        return error.refusal
    raise VRAGError(f"'{_REFUSED}' should have been refused: no photograph of the demo shows that.")


def _page(
    path: Path,
    film: Path,
    video: FinishedVideo,
    verification: Verification,
    refusal: Refusal,
    knowledge_base: KnowledgeBase,
    key: Path,
) -> Path:
    from vrag.media.files import write_new  # noqa: PLC0415  # only here
    from vrag.provenance.report.markup import relative_url  # noqa: PLC0415  # as above
    from vrag.provenance.report.page import VideoPage, video_page  # noqa: PLC0415  # as above

    used = {source.asset_id for source in video.sources}
    shown = VideoPage(
        planned=video.planned,
        media=video.media,
        video_url=relative_url(film.name),
        pictures={
            asset.id: shown_picture(knowledge_base, asset, max_side_px=1280 if asset.id in used else 256)
            for asset in knowledge_base.assets()
        },
        verification=verification,
        record=video.record,
        made_at=rfc3339(SystemClock().now()),
        check_command=f"vrag verify {film.name} --key {key.name}",
        refusals=[refusal],
    )
    write_new(path, [video_page(shown).encode()], overwrite=True)
    return path
