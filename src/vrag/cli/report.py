"""`vrag report`: a wall of videos on one page, each with its pictures, its verification and its record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click
from attrs import evolve, frozen

from vrag.cli.session import Session, session_options
from vrag.errors import AlreadyExistsError, NotFoundError, UsageError, VRAGError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.media.ref import MediaRef
    from vrag.pipeline import VRAGPipeline
    from vrag.provenance.report.page import Picture, VideoPage
    from vrag.provenance.staleness import Now
    from vrag.provenance.verify import Verification
    from vrag.results import FinishedVideo
    from vrag.values.assets import Asset
    from vrag.values.briefs import PlannedVideo
    from vrag.values.canonical import JSON
    from vrag.workspace.journal import Step

__all__ = ["report", "shown_picture"]

ValueT = TypeVar("ValueT")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SOURCE_PX, _CANDIDATE_PX, _POSTER_PX, _EDIT_PX = 720, 192, 640, 480
_CANDIDATES: Final = 5
"""Of each video, with a picture; the others by their words."""


@click.command()
@click.option("-o", "--output", "target", metavar="FILE.html", default="report.html", show_default=True)
@click.option("--kb", metavar="NAME", help="Only videos with a picture of this knowledge base.")
@click.option("--since", metavar="YYYY-MM-DD", help="Only videos recorded on this day (UTC) or later.")
@click.option("--until", metavar="YYYY-MM-DD", help="Only videos recorded on this day (UTC) or earlier.")
@click.option("--video", "videos", multiple=True, metavar="ID", help="Only this video; may be given again.")
@click.option(
    "--embed-mb",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Films of up to so many megabytes in all are put into the page; more are written beside it.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@session_options
def report(
    session: Session,
    *,
    target: str,
    kb: str | None,
    since: str | None,
    until: str | None,
    videos: tuple[str, ...],
    embed_mb: int,
    overwrite: bool,
) -> int:
    """Write one HTML page that shows every video with its proof; it works from a disk, without a network.

    Each video is verified again, which reads its film and its pictures. Exit code 5 where one does not verify.

    \b
    Examples:
      vrag report
      vrag report -o november.html --since 2026-11-01 --until 2026-11-30
      vrag report --kb brand --embed-mb 0
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.clock import SystemClock, rfc3339  # noqa: PLC0415  # only where it is used
    from vrag.media.files import write_new  # noqa: PLC0415  # as above
    from vrag.provenance.report.wall import Report, report_page  # noqa: PLC0415  # as above

    path = _free(Path(target), overwrite=overwrite)
    wanted = _Wanted(kb=kb, since=_day("--since", since), until=_day("--until", until))
    folder = session.configuration.folder
    if not (folder / "vrag.db").is_file():  # looking makes no workspace
        raise NotFoundError(f"There is no workspace '{folder}'.", hint="--workspace DIR")
    with session.pipeline() as pipeline:
        steps = _chosen(session, pipeline, wanted, videos)
        size = sum(step.delivered.size_bytes for step in steps if step.delivered is not None)
        beside = path.with_name(f"{path.stem}-films") if size > embed_mb << 20 else None
        collect = _Collect(session, pipeline, beside, made_at=rfc3339(SystemClock().now()), overwrite=overwrite)
        pages = []
        with session.output.progress("report") as progress:
            for number, step in enumerate(steps, start=1):
                pages.append(collect.page(step))
                progress(number, len(steps), pages[-1].file_name)
        html = report_page(
            Report(
                videos=pages,
                made_at=collect.made_at,
                about=wanted.said(),
                films_folder=None if beside is None else beside.name,
            )
        )
    write_new(path, [html.encode()], overwrite=overwrite)
    broken = [page for page in pages if not page.verification.ok]
    count = f"{len(pages)} video{'' if len(pages) == 1 else 's'}"
    session.output.say(f"report: {path} ({count}, {path.stat().st_size / 1e6:.1f} MB)")
    if beside is not None:
        session.output.say(f"films: {beside} (they are {size / 1e6:.1f} MB; --embed-mb puts more into the page)")
    for page in broken:
        failure = page.verification.first_failure
        why = "" if failure is None else f": {failure.promise}: {failure.detail}"
        session.output.say(f"NOT verified: {page.planned.step_id[:12]}{why}")
    session.output.document(
        {
            "report": str(path),
            "films": None if beside is None else str(beside),
            "videos": [_summary(page) for page in pages],
        }
    )
    return 5 if broken else 0


def _summary(page: VideoPage) -> dict[str, JSON]:
    return {
        "id": page.planned.step_id,
        "ok": page.verification.ok,
        "trusted": page.verification.trusted,
        "withheld": page.withheld,
        "stale": None if page.stale is None else [one.kind for one in page.stale],
    }


@frozen(kw_only=True)
class _Wanted:
    kb: str | None
    since: str | None
    until: str | None

    def takes(self, planned: PlannedVideo, day: str) -> bool:
        used = {planned.brief.knowledge_base, *(source.knowledge_base for source in planned.sources)}
        return (
            (self.kb is None or self.kb in used)
            and (self.since is None or day >= self.since)
            and (self.until is None or day <= self.until)
        )

    def said(self) -> list[str]:
        named = (("knowledge base", self.kb), ("from", self.since), ("to", self.until))
        return [f"{name} {value}" for name, value in named if value is not None]


def _day(flag: str, given: str | None) -> str | None:
    if given is not None and not _DAY.fullmatch(given):
        raise UsageError(f"A day is YYYY-MM-DD, not '{given[:40]}'.", hint=f"{flag} 2026-11-01")
    return given


def _free(path: Path, *, overwrite: bool) -> Path:
    if not path.parent.is_dir():
        raise NotFoundError(f"There is no folder '{path.parent}' to write to.", hint=f"mkdir -p '{path.parent}'")
    if path.exists() and not overwrite:
        raise AlreadyExistsError(f"The file '{path}' exists.", hint="--overwrite, or another -o FILE.html")
    return path


def _chosen(session: Session, pipeline: VRAGPipeline, wanted: _Wanted, videos: Sequence[str]) -> list[Step]:
    """The recorded videos that are asked for, newest first; a part stands under its film, unless it is named."""
    from vrag.cli.lineage import named  # noqa: PLC0415  # as above
    from vrag.values.briefs import PlannedVideo  # noqa: PLC0415  # as above
    from vrag.values.jobs import StepState  # noqa: PLC0415  # as above

    ledger = pipeline.workspace.ledger
    recorded = [
        (step, step.planned, ledger.get(step.record_id))
        for step in pipeline.workspace.journal.steps({StepState.DELIVERED, StepState.WITHHELD})
        if step.record_id is not None and isinstance(step.planned, PlannedVideo)
    ]
    if videos:
        keys = {named(session, pipeline.workspace, one) for one in videos}
        found = [(step, entry) for step, _, entry in recorded if keys & {step.id, *_bytes_of(step)}]
        missing = keys - {key for step, _ in found for key in (step.id, *_bytes_of(step))}
        if missing:
            raise NotFoundError(f"No recorded video '{min(missing)[:80]}'.", hint="vrag jobs")
    else:
        parts = {part.step_id for _, planned, _ in recorded for part in planned.parts}
        found = [
            (step, entry)
            for step, planned, entry in recorded
            if step.id not in parts and wanted.takes(planned, entry.recorded_at[:10])
        ]
    return [step for step, entry in sorted(found, key=lambda one: -one[1].seq)]


def _bytes_of(step: Step) -> list[str]:
    return [ref.sha256 for ref in (step.delivered, step.raw) if ref is not None]


class _Collect:
    """Makes what the page shows of each video; pictures that stand in several are made small once."""

    def __init__(
        self, session: Session, pipeline: VRAGPipeline, beside: Path | None, *, made_at: str, overwrite: bool
    ) -> None:
        from vrag.cli.lineage import present  # noqa: PLC0415  # as above

        self.made_at = made_at
        self._session = session
        self._pipeline = pipeline
        self._beside = beside
        self._overwrite = overwrite
        self._now: Now = present(session, pipeline)
        self._pictures: dict[tuple[str, int], Picture | None] = {}

    def page(self, step: Step) -> VideoPage:
        from vrag.cli.targets import slug  # noqa: PLC0415  # as above
        from vrag.provenance.lineage import sources_of  # noqa: PLC0415  # as above
        from vrag.provenance.report.edits import shown_edits  # noqa: PLC0415  # as above
        from vrag.provenance.report.page import VideoPage  # noqa: PLC0415  # as above
        from vrag.provenance.report.shown import title_of  # noqa: PLC0415  # as above
        from vrag.provenance.sidecar import sidecar_json  # noqa: PLC0415  # as above
        from vrag.provenance.staleness import stale  # noqa: PLC0415  # as above
        from vrag.values.briefs import PlannedVideo  # noqa: PLC0415  # as above

        planned = step.planned
        assert isinstance(planned, PlannedVideo)  # `_chosen` takes no other
        assert step.record_id is not None  # as above
        ledger = self._pipeline.workspace.ledger
        entry = ledger.get(step.record_id)
        name = f"{slug(title_of(planned))}-{step.id[:8]}.mp4"
        video = None if step.delivered is None or not self._delivered(step) else self._pipeline.video(step.id)
        sidecar = sidecar_json(entry, signer=self._session.assembly.signer)
        return VideoPage(
            planned=planned,
            media=None if video is None else video.media,
            video_url=None if video is None else self._film(video, name),
            pictures=self._shown(planned),
            verification=self._withheld_check(step, sidecar) if video is None else _verify(video),
            record=entry.statement,
            made_at=self.made_at,
            check_command=f"vrag verify {name} --key PUBLIC.pem",
            poster=None if video is None else self._poster(video),
            withheld=self._why(step, entry.statement) if video is None else None,
            edits=shown_edits(ledger, planned.sources, self._small),
            lineage=_tolerant(lambda: sources_of(ledger, entry.record_id)),
            stale=_tolerant(lambda: stale(ledger, entry.record_id, self._now)),
            evidence=sidecar,
            file_name=name,
        )

    @staticmethod
    def _delivered(step: Step) -> bool:
        from vrag.values.jobs import StepState  # noqa: PLC0415  # as above

        return step.state is StepState.DELIVERED

    def _why(self, step: Step, statement: JSON) -> str:
        from vrag.provenance.steps import words_of  # noqa: PLC0415  # as above

        texts = {text.keyed_digest: text.value for text in self._pipeline.workspace.ledger.texts(str(step.record_id))}
        made = statement["predicate"]["buildDefinition"]["internalParameters"]
        return words_of(made.get("withheld"), texts) or "It was made and recorded, and not delivered."

    # -- the film

    def _film(self, video: FinishedVideo, name: str) -> str | None:
        from vrag.provenance.report.markup import data_url, relative_url  # noqa: PLC0415  # as above

        try:
            if self._beside is None:
                return data_url(video.read_bytes(), "video/mp4")
            video.save(self._beside / name, overwrite=self._overwrite)
        except (AlreadyExistsError, UsageError):
            raise
        except VRAGError:
            return None  # its verification says what is wrong
        return relative_url(f"{self._beside.name}/{name}")

    def _poster(self, video: FinishedVideo) -> bytes | None:
        from vrag.media.image import encode_jpeg  # noqa: PLC0415  # Pillow
        from vrag.media.video import read_frame  # noqa: PLC0415  # av

        try:
            with video.open() as stream:
                frame = read_frame(stream, 0)
            frame.thumbnail((_POSTER_PX, _POSTER_PX))
            return encode_jpeg(frame, 82)
        except VRAGError:  # no codec here, or a film that cannot be read
            return _tolerant(lambda: None if not video.sources else self._small(video.sources[0].conformed.media))

    def _withheld_check(self, step: Step, sidecar: bytes) -> Verification:
        """The record of a video that was not delivered: everything but "this is the delivered video" is checked."""
        from vrag.provenance.verify import verify_file  # noqa: PLC0415  # as above

        assert step.raw is not None  # what was withheld was made
        assembly, ledger = self._session.assembly, self._pipeline.workspace.ledger
        try:
            with assembly.open_media(step.raw) as stream:
                found = verify_file(
                    stream,
                    sidecar,
                    trusted_keys=[assembly.signer.public_key],
                    storage_open=assembly.open_media,
                    ledger=ledger,
                )
        except VRAGError as error:
            return _failed(error)
        checks = tuple(
            evolve(check, ok=None, detail="nothing was delivered; the bytes as they were made fit the record")
            if check.name == "video" and check.detail.endswith("withheld, not delivered")
            else check
            for check in found.checks
        )
        return evolve(found, checks=checks)

    # -- pictures

    def _shown(self, planned: PlannedVideo) -> dict[str, Picture]:
        considered = [planned.candidates, *(part.candidates for part in planned.parts)]
        shown = {
            one.asset_id: self._picture(one.asset_id, _CANDIDATE_PX)
            for some in considered
            for one in some[:_CANDIDATES]
        }
        words = {one.asset_id: self._picture(one.asset_id, 0) for some in considered for one in some[_CANDIDATES:]}
        used = {source.asset_id: self._picture(source.asset_id, _SOURCE_PX) for source in planned.sources}
        return {key: picture for key, picture in {**words, **shown, **used}.items() if picture is not None}

    def _picture(self, asset_id: str, max_side_px: int) -> Picture | None:
        if (asset_id, max_side_px) not in self._pictures:
            self._pictures[asset_id, max_side_px] = _tolerant(lambda: self._found(asset_id, max_side_px))
        return self._pictures[asset_id, max_side_px]

    def _found(self, asset_id: str, max_side_px: int) -> Picture | None:
        asset = self._now.asset(asset_id) if self._now.asset is not None else None
        if asset is None:
            return None
        return shown_picture(self._pipeline.knowledge_base(asset.knowledge_base), asset, max_side_px=max_side_px)

    def _small(self, ref: MediaRef) -> bytes | None:
        from vrag.media.image import thumbnail  # noqa: PLC0415  # Pillow

        try:
            with self._session.assembly.open_media(ref) as stream:
                return thumbnail(stream.read(), ref.sha256[:12], max_side_px=_EDIT_PX)
        except VRAGError:
            return None


def _verify(video: FinishedVideo) -> Verification:
    try:
        return video.verify()
    except VRAGError as error:  # such as a film that is not in the storage any more
        return _failed(error)


def _failed(error: VRAGError) -> Verification:
    from vrag.provenance.verify import SAME_VIDEO, Check, Verification  # noqa: PLC0415  # as above

    # A report is handed on: the message of a storage may name a folder of this machine.
    why = "its bytes are not in the storage" if isinstance(error, NotFoundError) else error.message.rstrip(".")
    return Verification(checks=(Check(name="video", ok=False, detail=why, promise=SAME_VIDEO),))


def _tolerant(work: Callable[[], ValueT]) -> ValueT | None:
    """One thing that cannot be shown keeps no page from being written; what is wrong with it is said by `vrag verify`."""
    try:
        return work()
    except VRAGError:
        return None


def shown_picture(knowledge_base: KnowledgeBase, asset: Asset, *, max_side_px: int) -> Picture:
    """A picture of a knowledge base for a page; without its bytes where they are gone, or `max_side_px` is 0."""
    from vrag.provenance.report.page import Picture  # noqa: PLC0415  # only where it is used

    review = knowledge_base.review_of(asset.id)
    stated: dict[str, JSON] = asset.metadata if isinstance(asset.metadata, dict) else {}
    title, url = stated.get("title"), stated.get("licence_url")
    by = asset.rights.holder or stated.get("author")
    try:
        image = None if max_side_px == 0 else knowledge_base.thumbnail(asset.id, max_side_px=max_side_px)
    except VRAGError:
        image = None
    return Picture(
        image=image,
        caption=asset.caption or asset.file_name,
        credit=" by ".join(part for part in (f"“{title}”" if title else "", str(by or "")) if part),
        licence=asset.rights.licence or "",
        licence_url=url if isinstance(url, str) else None,
        review=f"{review.state} by {review.by} on {review.at[:10]}",
    )
