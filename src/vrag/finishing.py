"""What happens to a film between its arrival and its delivery: joined, marked, recorded, and the ledger signed."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

from attrs import evolve, field, frozen

from vrag.clock import Clock, rfc3339
from vrag.errors import GateError, UsageError, VRAGError
from vrag.generation.catalogue import Catalogue
from vrag.interfaces import Inpainter, Signer, Storage, VideoGenerator
from vrag.media.assemble import assemble
from vrag.media.ref import MediaRef
from vrag.provenance.certificates import ClaimSigner
from vrag.provenance.checkpoints import CheckpointKeeper, checkpoint
from vrag.provenance.marking import Marking, MarkingFacts, Watermarker, check_marking, finish, given_pictures
from vrag.provenance.record import (
    ChoiceFacts,
    EditFacts,
    Option,
    PartFacts,
    VideoFacts,
    choice_statement,
    edit_statement,
    video_statement,
)
from vrag.provenance.signing import sign_envelope
from vrag.values.assets import Review
from vrag.values.briefs import PlannedVideo
from vrag.values.canonical import JSON, digest_json, to_json
from vrag.values.jobs import StepState
from vrag.values.policy import Policy
from vrag.values.requests import ModelRef
from vrag.workspace import Workspace
from vrag.workspace.journal import Step
from vrag.workspace.ledger import Draft

__all__ = ["Finishing"]

_log = logging.getLogger("vrag.ledger")


@frozen(kw_only=True)
class Finishing:
    """What a pipeline finishes films with."""

    workspace: Workspace
    storage: Storage
    generators: Mapping[str, VideoGenerator]
    inpainter: Inpainter | None
    signer: Signer
    policy: Policy
    marking: Marking
    claim_signer: ClaimSigner | None = None
    """Signs content credentials; needed unless `marking` says `none`."""
    anchors: Callable[[], str | None] = field(default=lambda: None)
    """Certificates that content credentials are checked against, PEM."""
    watermarker: Watermarker | None = None
    keepers: Sequence[CheckpointKeeper] = ()
    """Where the newest checkpoint of the ledger is kept outside the workspace."""
    review_of: Callable[[str, str], Review]
    """The review that holds, by knowledge base and asset."""
    library_version: str
    clock: Clock

    def __attrs_post_init__(self) -> None:
        if self.marking.credentials == "c2pa" and self.claim_signer is None:
            raise UsageError(
                "Content credentials need a key with certificates, and none was given.",
                hint="claim_signer=development_signer(folder), or marking=Marking(credentials='none')",
            )

    def check(self, planned: PlannedVideo) -> None:
        """Refuse marks that could not be put on this film, before it is bought.

        Raises:
            UsageError: Such as a label in a script that its font does not have.
        """
        request = planned.request
        check_marking(self.marking, width_px=request.width_px, height_px=request.height_px, signer=self.claim_signer)

    def join(self, step: Step, raws: Sequence[MediaRef]) -> MediaRef:
        """The films of the parts as one, stored."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vrag-join-")))
            paths = [self._local(raw, folder / f"{number}.mp4") for number, raw in enumerate(raws)]
            out = stack.enter_context((folder / "film.mp4").open("w+b"))
            openers = [partial(_opened, path) for path in paths]
            report = assemble(openers, out, crossfade_s=step.video.crossfade_s)
            out.seek(0)
            stored = self.storage.put(out, "video/mp4")
        return evolve(stored, width_px=report.width_px, height_px=report.height_px, duration_s=report.duration_s)

    def _local(self, ref: MediaRef, path: Path) -> Path:
        """The same bytes in a file that can be sought, as a codec needs it."""
        with self.storage.open(ref) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        return path

    def mark(self, step: Step) -> tuple[MediaRef, JSON]:
        """The delivered file and the marks in it, in their order."""
        raw, planned = step.raw, step.video
        assert raw is not None  # written with `fetched`
        generator = self.generators.get(step.generator)
        facts = MarkingFacts(
            record_id=step.id,
            raw_sha256=raw.sha256,
            model=(planned.parts or (planned,))[0].model,
            origin="trained_model" if generator is None else generator.capabilities.origin,
            pictures=given_pictures(
                planned.sources,
                edits_by_model=self.inpainter is None or self.inpainter.capabilities.origin != "algorithm",
            ),
            media_type=raw.media_type,
            library_version=self.library_version,
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vrag-mark-")))
            source = stack.enter_context(self._local(raw, folder / "raw.mp4").open("rb"))
            marked = finish(
                source,
                folder / "film.mp4",
                facts,
                self.marking,
                media=self.storage.open,
                signer=self.claim_signer,
                watermarker=self.watermarker,
                anchors=self.anchors(),
            )
            stored = self.storage.put(stack.enter_context((folder / "film.mp4").open("rb")), raw.media_type)
        delivered = evolve(stored, width_px=raw.width_px, height_px=raw.height_px, duration_s=raw.duration_s)
        return delivered, [
            {"kind": mark.step, "text": mark.text, "details": to_json(mark.details)} for mark in marked.marks
        ]

    def record(self, step: Step, closed: GateError | None) -> None:
        """Write the signed record of a step together with its state `recorded`, and sign the ledger as it is then."""
        drafts = [self._edit(step)] if step.kind == "edit" else [*self._choices(step), self._video(step, closed)]
        signed = [(drafted, sign_envelope(drafted.payload, self.signer)) for drafted in drafts]

        def append(connection: sqlite3.Connection) -> None:
            for drafted, envelope in signed:
                self.workspace.ledger.append(connection, drafted, envelope, public_key=self.signer.public_key)

        self.workspace.journal.advance(
            step.id,
            StepState.FINISHED,
            StepState.RECORDED,
            record_id=step.id,
            within=append,
        )
        try:
            checkpoint(self.workspace.ledger, self.signer, keepers=self.keepers)
        except VRAGError:
            # The record stands; `vrag verify` says what is wrong with the ledger, or which keeper is behind.
            _log.exception("The ledger could not be signed after the record %s.", step.id)

    def _edit(self, step: Step) -> Draft:
        status = step.status
        report = dict((status.report if status else None) or {})
        facts = EditFacts(
            record_id=step.id,
            planned=step.edit,
            variants=step.outputs,
            rejected=tuple(report.pop("rejected", ())),
            billed=status.billed if status else None,
            report=report,
            reviews=self._reviews(step),
            lifecycle=self._lifecycle(step.edit.model),
            started_at=step.submitted_at or step.created_at,
            finished_at=rfc3339(self.clock.now()),
            library_version=self.library_version,
        )
        return edit_statement(facts, policy=self.policy, clock=self.clock)

    def _choices(self, step: Step) -> list[Draft]:
        """One record for each choice among variants; the parts of a joined film have recorded theirs."""
        if step.video.parts:
            return []
        # Shots may share an edit, and take the same variant of it or another one.
        every = ((edit, edit.choice) for source in step.video.sources for edit in source.edits)
        made = {(edit.step_id, edit.variant): (edit, choice) for edit, choice in every}
        return [
            choice_statement(
                ChoiceFacts(
                    record_id=digest_json({"choice": edit.step_id, "variant": edit.variant, "for": step.id}),
                    step_id=step.id,
                    options=tuple(
                        Option(media=one.media, record_id=edit.step_id, scores=one.scores) for one in choice.variants
                    ),
                    chosen=edit.variant,
                    by=choice.by,
                    is_person=False,
                    started_at=step.created_at,
                    finished_at=rfc3339(self.clock.now()),
                    library_version=self.library_version,
                ),
                policy=self.policy,
                clock=self.clock,
            )
            for edit, choice in made.values()
            if choice is not None
        ]

    def _video(self, step: Step, closed: GateError | None) -> Draft:
        assert step.raw is not None and step.delivered is not None  # noqa: PT018  # written with `finished`
        parts = [(part, self.workspace.journal.get(part.step_id)) for part in step.video.parts]
        facts = VideoFacts(
            record_id=step.id,
            planned=step.video,
            raw=step.raw,
            delivered=step.delivered if closed is None else None,
            withheld=None if closed is None else closed.message,
            handle=step.handle,
            status=None if parts else step.status,
            parts=tuple(
                PartFacts(planned=part, raw=made.raw, record_id=made.record_id)
                for part, made in parts
                if made.raw is not None and made.record_id is not None
            ),
            reviews=self._reviews(step),
            marks=step.marks if step.marks is not None else ("none: not configured",),
            lifecycle=self._lifecycle(step.video.model),
            started_at=step.submitted_at or step.created_at,
            finished_at=rfc3339(self.clock.now()),
            library_version=self.library_version,
        )
        return video_statement(facts, policy=self.policy, clock=self.clock)

    def _reviews(self, step: Step) -> dict[str, Review]:
        return {
            source.asset_id: self.review_of(source.knowledge_base, source.asset_id) for source in step.planned.sources
        }

    def _lifecycle(self, model: ModelRef) -> JSON:
        known = Catalogue.load().find(model.provider, model.id)
        if known is None:
            return None
        dates = {name: str(day) for name in ("legacy_on", "retired_on") if (day := getattr(known.lifecycle, name))}
        return {"state": known.state_on(self.clock.now().date()), **dates}


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")
