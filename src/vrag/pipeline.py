"""`VRAGPipeline` joins the steps and does none itself: plan, prepare, submit, record, deliver, revoke, resume."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from attrs import evolve

from vrag import __version__
from vrag.clock import Clock, SystemClock
from vrag.errors import (
    GateError,
    JobUndecidedError,
    NotFoundError,
    PlanChangedError,
    UsageError,
    VRAGError,
)
from vrag.finishing import Finishing
from vrag.generation.plan import WaitingError, choices_of, chosen, plan_video
from vrag.generation.runner import Runner
from vrag.interfaces import Inpainter, Signer, Storage, VideoGenerator
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.media.image import thumbnail
from vrag.media.mask import overlay_mask
from vrag.media.ref import MediaRef
from vrag.provenance.certificates import ClaimSigner
from vrag.provenance.checkpoints import CheckpointKeeper
from vrag.provenance.marking import Marking, Watermarker
from vrag.provenance.receipt import ReceiptSigner
from vrag.provenance.report.sheet import ContactSheet
from vrag.results import AssetView, BatchFailure, BatchResult, FinishedVideo, Resumed, Revocation, Ticket, Use
from vrag.sourcing import INPAINTER, Ask, Choose, Moderator, Sourcing
from vrag.takedown import TakeDown
from vrag.values.assets import check_knowledge_base_name
from vrag.values.briefs import Brief, ChoiceRule, OpenVideo, Plan, PlanFailure, PlannedEdit, PlannedVideo
from vrag.values.jobs import Event, StepState
from vrag.values.policy import Caps, Policy
from vrag.workspace import Workspace
from vrag.workspace.hooks import Hook
from vrag.workspace.journal import ENDED, Step

__all__ = ["VRAGPipeline"]


class VRAGPipeline:
    """Video from your own approved pictures, with a record of each.

    It is given objects: knowledge bases (a mapping, or a factory by name), video generators by name, a storage for
    media, a signer for records, and a signer with certificates for content credentials. `local` and `from_config` make
    them. Safe to use from many threads; `close` it, or use it in a `with` block.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        knowledge_bases: Mapping[str, KnowledgeBase] | Callable[[str], KnowledgeBase],
        generators: Mapping[str, VideoGenerator],
        storage: Storage,
        signer: Signer,
        inpainter: Inpainter | None = None,
        moderator: Moderator | None = None,
        policy: Policy | None = None,
        caps: Caps | None = None,
        marking: Marking | None = None,
        claim_signer: ClaimSigner | None = None,
        anchors: Callable[[], str | None] = lambda: None,
        watermarker: Watermarker | None = None,
        keepers: Sequence[CheckpointKeeper] = (),
        ask: Ask | None = None,
        choose: Choose | None = None,
        hook: Hook | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Join the parts; nothing is started and nothing is called.

        Args:
            workspace: Journal and ledger.
            knowledge_bases: By name, or a function that opens one.
            generators: By name.
            storage: Where fitted pictures and films lie.
            signer: Signs the records and the ledger.
            inpainter: Edits pictures.
            moderator: Looks at prompts and pictures of paid purchases before anything is bought.
            policy: What an organisation allows.
            caps: What may be spent at most.
            marking: What is put into a delivered film; content credentials where nothing is said.
            claim_signer: Signs the content credentials; needed unless `marking` says `none`.
            anchors: Certificates that content credentials are checked against, PEM.
            watermarker: Puts an invisible mark into a film.
            keepers: Where the newest checkpoint of the ledger is kept outside the workspace.
            ask: Names a picture where none suits.
            choose: Chooses among the variants of an edit, before the policy does.
            hook: Told of every call that leaves this library.
            clock: Time and randomness.

        Raises:
            UsageError: Content credentials are wanted and nobody signs them.
        """
        self._clock = clock or SystemClock()

        self.workspace = workspace
        self.generators = dict(generators)
        self.inpainter = inpainter
        self.policy = policy or Policy()
        self._knowledge_bases = knowledge_bases
        self._opened: dict[str, KnowledgeBase] = {}
        self._storage = storage
        self._signer = signer
        self._guard = threading.Lock()
        self._closing = threading.Event()
        if caps is not None:
            workspace.budget.caps = caps
        workspace.budget.unknown_price = self.policy.unknown_price
        self._sourcing = Sourcing(
            knowledge_base=self.knowledge_base,
            storage=storage,
            workspace=workspace,
            inpainter=self.inpainter,
            moderator=moderator,
            policy=self.policy,
            scope=self._scope,
            ask=ask,
            choose=choose,
        )
        self._finishing = Finishing(
            workspace=workspace,
            storage=storage,
            generators=self.generators,
            inpainter=self.inpainter,
            signer=signer,
            policy=self.policy,
            marking=marking or Marking(),
            claim_signer=claim_signer,
            anchors=anchors,
            watermarker=watermarker,
            keepers=tuple(keepers),
            review_of=lambda name, asset_id: self.knowledge_base(name).review_of(asset_id),
            library_version=__version__,
            clock=self._clock,
        )
        self._takedown = TakeDown(
            workspace=workspace,
            knowledge_base=self.knowledge_base,
            sign=ReceiptSigner(signer, library_version=__version__, text=self.policy.text, clock=self._clock),
        )
        self._runner = Runner(
            journal=workspace.journal,
            storage=storage,
            generators=self.generators,
            inpainters={} if self.inpainter is None else {INPAINTER: self.inpainter},
            clock=self._clock,
            gate=self._gate,
            finish=self._finishing.mark,
            assemble=self._finishing.join,
            record=self._finishing.record,
            hook=hook,
        )

    @classmethod
    def local(cls, folder: Path | str) -> Self:
        """Everything embedded in one folder: no account, no network, free camera moves."""
        from vrag.compose import local  # noqa: PLC0415  # the one upward import, see the layers in pyproject.toml

        return local(cls, Path(folder))

    @classmethod
    def from_config(cls, path: Path | str | None = None) -> Self:
        """As `vrag.toml` says; without `path` the file is looked for here and in the folders above."""
        from vrag.compose import from_config  # noqa: PLC0415  # as above

        return from_config(cls, path)

    # -- knowledge bases

    def knowledge_base(self, name: str | None = None) -> KnowledgeBase:
        """The knowledge base of this name; None where the pipeline was given exactly one.

        Raises:
            UsageError: No such name, or None where there is a choice.
        """
        given = self._knowledge_bases
        if name is None:
            if callable(given) or len(given) != 1:
                known = "any name" if callable(given) else ", ".join(sorted(given)) or "none"
                raise UsageError(f"Name a knowledge base; there are: {known}.", hint="knowledge_base='brand'")
            name = next(iter(given))
        check_knowledge_base_name(name)
        if not callable(given):
            if name not in given:
                raise UsageError(f"No knowledge base '{name}'; there are: {', '.join(sorted(given))}.")
            return given[name]
        with self._guard:
            if name not in self._opened:
                self._opened[name] = given(name)
            return self._opened[name]

    # -- plan

    def plan(self, briefs: Brief | Iterable[Brief]) -> Plan:
        """Resolve briefs to purchases; no picture and no video is bought.

        A brief that waits for an edit or a choice is in `open`, one that cannot be planned in `failures` with its error,
        and the others go on.
        """
        rows = [briefs] if isinstance(briefs, Brief) else list(briefs)
        return self._plan(dict(enumerate(rows)), set())

    def _plan(self, rows: Mapping[int, Brief], used: set[str], failed: Mapping[str, VRAGError] | None = None) -> Plan:
        """Plan rows; `failed` has the edits that were just tried in vain, which must not be open again."""
        videos: dict[int, PlannedVideo] = {}
        waiting: list[OpenVideo] = []
        failures: list[PlanFailure] = []
        for index, brief in rows.items():
            try:
                videos[index] = self._plan_one(brief, used)
            except WaitingError as error:
                if lost := [
                    (failed or {})[wait.edit.step_id] for wait in error.waits if wait.edit.step_id in (failed or {})
                ]:
                    failures.append(PlanFailure(index=index, brief=brief, error=lost[0].to_json()))
                    continue
                # What is not bought yet comes before what a person chooses.
                waits_for = {wait.waits_for for wait in error.waits}
                first: Literal["edit", "choice"] = "edit" if "edit" in waits_for else "choice"
                waits = [wait for wait in error.waits if wait.waits_for == first]
                edits = tuple(wait.edit for wait in waits)
                variants = tuple(wait.variants for wait in waits) if first == "choice" else ()
                waiting.append(OpenVideo(index=index, brief=brief, waits_for=first, edits=edits, variants=variants))
                used.update(edit.source.asset_id for edit in edits)
            except VRAGError as error:
                failures.append(PlanFailure(index=index, brief=brief, error=error.to_json()))
        return Plan(videos=tuple(videos.values()), rows=tuple(videos), open=tuple(waiting), failures=tuple(failures))

    def _plan_one(self, brief: Brief, used: set[str]) -> PlannedVideo:
        """Plan one brief; `used` holds the pictures of the batch so far, and gets this one's."""
        name, generator = self._generator(brief)
        once = self.policy.reuse == "once a batch"
        planned = plan_video(
            brief,
            name=name,
            generator=generator,
            scope=self._scope(brief),
            pick=lambda shot, able: self._sourcing.pick(shot, able, used if once else frozenset()),
        )
        self._finishing.check(planned)
        self._sourcing.moderate(planned)
        used.update(source.asset_id for source in planned.sources)
        return planned

    def _generator(self, brief: Brief) -> tuple[str, VideoGenerator]:
        name = brief.model or (next(iter(self.generators)) if len(self.generators) == 1 else None)
        if name not in self.generators or name is None:
            raise UsageError(
                f"Name a generator, not {name!r}; there are: {', '.join(sorted(self.generators)) or 'none'}."
            )
        return name, self.generators[name]

    def _scope(self, brief: Brief) -> str:
        # The same picture in two knowledge bases is two purchases: a record of one names no asset of the other.
        if brief.text_only:
            return self.workspace.scope
        given = self._knowledge_bases
        named = brief.knowledge_base or ("" if callable(given) or len(given) != 1 else next(iter(given)))
        return f"{self.workspace.scope}/{named}"

    def prepare(self, plan: Plan, *, approved: str, budget_usd: float | None = None) -> Plan:
        """Buy the edits that a plan waits for, and plan what waited for them again.

        An edit of an edit is open again in the new plan. One that failed is in its `failures`.

        Args:
            plan: From `plan` or `prepare`, in this workspace.
            approved: `plan.digest`, as it was when a person looked at it.
            budget_usd: What the edits may cost at most.

        Raises:
            PlanChangedError: The plan is not the approved one; nothing was bought.
            BudgetError: They would pass the budget or a cap, or a price is not known; nothing was bought.
        """
        self._check_approved(plan, approved)
        self._write_down(plan.edits, self._run_id(), budget_usd)
        failed: dict[str, VRAGError] = {}
        for step_id, bought in self._runner.submit(edit.step_id for edit in plan.edits).items():
            try:
                bought.result()
            except VRAGError as error:
                failed[step_id] = error
        return self._replanned(plan, {one.index: one.brief for one in plan.open}, failed)

    def _replanned(
        self, plan: Plan, waiting: Mapping[int, Brief], failed: Mapping[str, VRAGError] | None = None
    ) -> Plan:
        """The plan with its open rows planned again."""
        used = {source.asset_id for video in plan.videos for source in video.sources}
        again = self._plan(waiting, used if self.policy.reuse == "once a batch" else set(), failed)
        return Plan(
            videos=(*plan.videos, *again.videos),
            rows=(*plan.rows, *again.rows),
            open=again.open,
            failures=(*plan.failures, *again.failures),
        )

    def contact_sheet(self, plan: Plan) -> ContactSheet:
        """The plan to look at: every picture as the model will see it, with prompt and price."""

        def small(ref: MediaRef) -> bytes:
            return thumbnail(self._read(ref), ref.sha256[:12], max_side_px=480)

        def masked(ref: MediaRef, mask: MediaRef) -> bytes:
            return overlay_mask(self._read(ref), self._read(mask), name=ref.sha256[:12], max_side_px=480)

        return ContactSheet(plan=plan, thumbnail=small, overlay=masked)

    def _read(self, ref: MediaRef) -> bytes:
        with self._storage.open(ref) as stream:
            return stream.read()

    def formats(self, brief: Brief, sizes_px: Iterable[tuple[int, int]]) -> list[Brief]:
        """Briefs for the same film in several shapes, all from the one picture that suits best.

        Args:
            brief: What is asked; its own size does not count.
            sizes_px: (width, height) of each film, such as (1280, 720), (720, 1280) and (720, 720).

        Raises:
            NoSuitableImageError: No picture suits.
        """
        _, generator = self._generator(brief)
        pinned = self._sourcing.pinned(brief, generator.capabilities)
        return [evolve(pinned, width_px=width_px, height_px=height_px) for width_px, height_px in sizes_px]

    def choose(self, plan: Plan, choices: int | ChoiceRule | Mapping[str, int | ChoiceRule]) -> Plan:
        """Choose among the variants that a plan waits with, and plan again what waited for that. Nothing is bought.

        Args:
            plan: From `plan` or `prepare`, in this workspace.
            choices: A number from 1, or a rule (`sharpest`, `least changed`), for every edit that waits; or one for each
                edit by its id, of which the first digits are enough.

        Raises:
            UsageError: No edit that waits for a choice has this id, or several have; or nothing waits at all; or one
                number was given where several edits wait.
        """
        waiting = {edit.step_id: edit for one in plan.open if one.waits_for == "choice" for edit in one.edits}
        taken = choices_of(waiting, choices)
        rows: dict[int, Brief] = {}
        for one in plan.open:
            brief = one.brief
            for edit in one.edits if one.waits_for == "choice" else ():
                if edit.step_id in taken:
                    brief = chosen(brief, edit, taken[edit.step_id])
            rows[one.index] = brief
        return self._replanned(plan, rows)

    # -- buy

    def submit(self, plan: Plan, *, approved: str, budget_usd: float | None = None) -> list[Ticket]:
        """Buy what was approved.

        Args:
            plan: From `plan` or `prepare`, in this workspace.
            approved: `plan.digest`, as it was when a person looked at it.
            budget_usd: What the whole plan may cost at most.

        Raises:
            PlanChangedError: The plan is not the approved one; nothing was submitted.
            BudgetError: It would pass the budget or a cap, or a price is not known; nothing was submitted.
            UsageError: Some of it waits for an edit or a choice.
        """
        self._check_approved(plan, approved)
        if plan.open:
            raise UsageError(
                f"{len(plan.open)} of the videos wait for an edit or a choice; nothing was submitted.",
                hint="pipeline.prepare(plan, approved=plan.digest), or pipeline.choose(plan, 1)",
            )
        self._write_down(plan.videos, self._run_id(), budget_usd)
        return [self._ticket(planned.step_id) for planned in plan.videos]

    @staticmethod
    def _check_approved(plan: Plan, approved: str) -> None:
        if plan.digest != approved:
            raise PlanChangedError(
                f"This plan ({plan.digest[:12]}…) is not the approved one ({approved[:12]}…).", hint="approve it again"
            )

    def _run_id(self) -> str:
        return self._clock.token_bytes(16).hex()

    def _write_down(self, planned: Sequence[PlannedVideo | PlannedEdit], run_id: str, budget_usd: float | None) -> None:
        """Reserve the money of a run and write its steps down, or refuse all of it."""
        if self._closing.is_set():
            raise UsageError("This pipeline is closed.")
        cap = None if budget_usd is None else round(budget_usd * 1_000_000)
        self.workspace.budget.reserve_run(run_id, planned, usd_micros=cap)
        self.workspace.journal.plan_all(planned, run_id=run_id)
        for one in planned:
            step = self.workspace.journal.get(one.step_id)
            # What ended without a charge is tried again when it is asked for again.
            if step.state in {StepState.FAILED, StepState.CANCELLED} and (step.error or {}).get("billed") is False:
                self.workspace.journal.retry(step.id)

    def _ticket(self, step_id: str) -> Ticket:
        ticket = Ticket(step_id, finished=self._finished, cancel=lambda: self._runner.cancel(step_id))
        ticket.watch(self._runner.submit([step_id], notify=ticket.notify)[step_id])
        return ticket

    def generate(
        self,
        brief: Brief,
        *,
        budget_usd: float | None = None,
        notify: Callable[[Event], None] = lambda _event: None,
        timeout_s: float | None = None,
    ) -> FinishedVideo:
        """Plan, edit, buy, wait for and record one video. The same brief again finds the video that exists.

        Args:
            brief: What is asked.
            budget_usd: What edits and film may cost together at most.
            notify: Called in this thread with what happens.
            timeout_s: How long to wait for the film; the job runs on, and the same call finds it.

        Raises:
            NoSuitableImageError: No picture suits; `error.refusal` says why and shows the best there were.
            GateError: The picture may not be used.
            UnsupportedRequestError: The generator or the inpainter refuses the request.
            BudgetError: It would pass the budget or a cap.
            JobError: The job did not end well.
        """
        run_id = self._run_id()
        while True:
            try:
                planned = self._plan_one(brief, set())
                break
            except WaitingError as error:
                edits = [wait.edit for wait in error.waits if wait.waits_for == "edit"]
                if not edits:
                    raise _choose_first(error.waits[0].edit) from None
                self._write_down(edits, run_id, budget_usd)
                for edit in edits:
                    self._drive(edit.step_id, notify, timeout_s)
        self._write_down([planned], run_id, budget_usd)
        return self._finished(self._drive(planned.step_id, notify, timeout_s))

    def _drive(self, step_id: str, notify: Callable[[Event], None], timeout_s: float | None) -> Step:
        return self._runner.drive(step_id, notify=notify, leaving=self._closing.is_set, timeout_s=timeout_s)

    def run(self, briefs: Iterable[Brief], *, budget_usd: float | None = None) -> BatchResult:
        """Make many videos at once; never raises for one of them.

        Raises:
            BudgetError: Together they would pass the budget or a cap; of edits and of films, nothing of the two was bought.
        """
        rows = list(briefs)
        plan = self.plan(rows)
        while plan.edits:
            plan = self.prepare(plan, approved=plan.digest, budget_usd=budget_usd)
        failed: list[BatchFailure] = []
        undecided: list[BatchFailure] = []
        for one in plan.failures:
            rows_of = undecided if one.error["error"] == JobUndecidedError.code else failed
            rows_of.append(BatchFailure(index=one.index, brief=one.brief, error=one.error))
        failed += [
            BatchFailure(index=one.index, brief=one.brief, error=_choose_first(one.edits[0]).to_json())
            for one in plan.open
        ]
        ready = evolve(plan, open=(), failures=())
        tickets = dict(zip(ready.rows, self.submit(ready, approved=ready.digest, budget_usd=budget_usd), strict=True))
        done: dict[int, FinishedVideo] = {}
        for index, ticket in tickets.items():
            try:
                done[index] = ticket.result()
            except VRAGError as error:
                rows_of = undecided if isinstance(error, JobUndecidedError) else failed
                rows_of.append(BatchFailure(index=index, brief=rows[index], error=error.to_json()))
        return BatchResult(
            done=done, failed=tuple(sorted(failed, key=lambda row: row.index)), undecided=tuple(undecided)
        )

    # -- afterwards

    def video(self, step_id: str) -> FinishedVideo:
        """A delivered video by the id of its step."""
        step = self.workspace.journal.get(step_id)
        if step.state is not StepState.DELIVERED or step.kind == "edit":
            raise NotFoundError(f"The step '{step_id[:12]}…' has no delivered video; it is {step.state}.")
        return self._finished(step)

    def ticket(self, step_id: str) -> Ticket:
        """A ticket for a step of any day and process; work on it goes on."""
        return self._ticket(self.workspace.journal.get(step_id).id)

    def resume(self, step_ids: Iterable[str] | None = None) -> Resumed:
        """Bring steps that were left unfinished to their end; nothing is bought that may have been bought before.

        Args:
            step_ids: Those to go on with; None is all.
        """
        unfinished = set(StepState) - ENDED - {StepState.UNDECIDED}
        wanted = list(self.workspace.journal.ids(unfinished) if step_ids is None else step_ids)
        done: list[FinishedVideo] = []
        failed: dict[str, Mapping[str, object]] = {}
        for step_id, future in self._runner.submit(wanted).items():
            try:
                step = future.result()
                if step.kind != "edit":
                    done.append(self._finished(step))
            except VRAGError as error:
                failed[step_id] = error.to_json()
        return Resumed(done=tuple(done), failed=failed)

    def cancel(self, step_id: str) -> bool:
        """Spend nothing more on a step, and stop it where its provider can.

        Returns:
            Whether it will not be made. False where the provider cannot stop it: the charge stands, and a result that
            arrives is recorded.
        """
        return self._runner.cancel(self.workspace.journal.get(step_id).id)

    def decide(
        self, step_id: str, decision: Literal["give up", "buy again"], *, by: str = "", reason: str = ""
    ) -> None:
        """Settle a step of which nobody knows whether it was bought.

        Args:
            step_id: An undecided step.
            decision: `give up` leaves it; `buy again` plans it anew, and it may be paid twice.
            by: Who decides; with `reason` it becomes a receipt in the ledger.
            reason: Why.
        """
        journal = self.workspace.journal
        given_up = {"error": "given_up", "message": "A person gave it up.", "billed": None, "retryable": False}
        if not journal.advance(step_id, StepState.UNDECIDED, StepState.FAILED, error=given_up):
            raise UsageError(
                f"The step '{step_id[:12]}…' is {journal.get(step_id).state}; only undecided ones are decided."
            )
        if by and reason:
            self.workspace.ledger.add_receipt(
                kind="decision",
                subject=step_id,
                by=by,
                reason=reason,
                body={"decision": decision},
                sign=self._takedown.sign,
            )
        if decision == "buy again":
            journal.retry(step_id)

    # -- take-down

    def asset(self, asset_id: str) -> AssetView:
        """A picture, and where it is used."""
        return self._takedown.asset(asset_id)

    def where_used(self, asset_id: str) -> tuple[Use, ...]:
        """Every step that uses this picture, itself or edited: planned, running, delivered or withheld; oldest first."""
        return self._takedown.where_used(asset_id)

    def revoke(self, asset_id: str, *, by: str, reason: str) -> Revocation:
        """Take a picture out of use at once and for ever, and list what was made from it."""
        return self._takedown.revoke(asset_id, by=by, reason=reason)

    def revoke_everywhere(
        self, sha256: str, *, by: str, reason: str, knowledge_bases: Iterable[str] | None = None
    ) -> tuple[Revocation, ...]:
        """Take the picture with these bytes out of use in many knowledge bases, those too that do not have it yet.

        Args:
            sha256: Of the original bytes.
            by: Who decides.
            reason: Why; kept with the decision.
            knowledge_bases: Names; None is every one that was given to this pipeline, or opened by it.

        Raises:
            UsageError: It is no SHA-256, or `by` or `reason` is empty; nothing was revoked.
            VRAGError: One of them failed; the others have revoked it, and saying it again does what is left.
        """
        given = self._opened if callable(self._knowledge_bases) else self._knowledge_bases
        names = sorted(given) if knowledge_bases is None else knowledge_bases
        return self._takedown.revoke_everywhere(sha256, names, by=by, reason=reason)

    def erase_media(self, asset_id: str, *, by: str, reason: str) -> int:
        """Delete the bytes of a revoked picture: the second step of a take-down. Records that name it still verify.

        Returns:
            Number of the receipt in the workspace.
        """
        return self._takedown.erase_media(asset_id, by=by, reason=reason)

    def erase_text(self, step_id: str, *, by: str, reason: str) -> int:
        """Erase the words of a video (prompts, captions, names) for ever; its record stays and still verifies.

        Returns:
            How many texts were erased; a receipt of it stays.
        """
        return self._takedown.erase_text(step_id, by=by, reason=reason)

    # -- the end

    def close(self) -> None:
        """Stop background work, and let go of files; running jobs of a provider run on. Closing twice is fine."""
        self._closing.set()
        self._runner.close()
        for generator in self.generators.values():
            generator.close()
        given = {} if callable(self._knowledge_bases) else self._knowledge_bases
        for knowledge_base in {**given, **self._opened}.values():
            knowledge_base.close()
        self.workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what the parts are given

    def _gate(self, step: Step) -> None:
        for source in step.planned.sources:
            self.knowledge_base(source.knowledge_base).gate(source.asset_id)

    def _finished(self, step: Step) -> FinishedVideo:
        if step.state is StepState.WITHHELD:
            raise GateError(
                "The video was made, but a picture of it may no longer be used: it is recorded and withheld.",
                asset_id=step.planned.sources[0].asset_id,
                state=str((step.error or {}).get("state", "unknown")),
                hint=f"vrag where-used {step.planned.sources[0].asset_id}",
            )
        return FinishedVideo(
            step,
            storage=self._storage,
            ledger=self.workspace.ledger,
            signer=self._signer,
            open_original=lambda source: self.knowledge_base(source.knowledge_base).open(source.original),
            anchors=self._finishing.anchors,
        )


def _choose_first(edit: PlannedEdit) -> UsageError:
    return UsageError(
        f"The edit '{edit.request.operation}' has several variants ({edit.step_id[:12]}…); a person chooses one.",
        hint="Edit(choose=1), Edit(choose='sharpest'), or --choose 1 on the command line",
    )
