"""`VRAGPipeline` joins the steps and does none itself: plan, submit, record, deliver, revoke, resume."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from attrs import evolve

from vrag import __version__
from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import (
    GateError,
    JobUndecidedError,
    NoSuitableImageError,
    NotFoundError,
    PlanChangedError,
    UnsupportedRequestError,
    UsageError,
    VRAGError,
)
from vrag.generation.plan import Picked, plan_video
from vrag.generation.runner import Runner
from vrag.interfaces import Inpainter, Signer, Storage, VideoGenerator
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.selection import Selection
from vrag.media.image import conform
from vrag.provenance.record import VideoFacts, video_statement
from vrag.provenance.signing import sign_envelope
from vrag.results import BatchFailure, BatchResult, FinishedVideo, Resumed, Revocation, Ticket, Use
from vrag.values.assets import Review, check_knowledge_base_name
from vrag.values.briefs import Brief, Conformed, Plan, PlanFailure, PlannedVideo, Source
from vrag.values.canonical import to_json
from vrag.values.jobs import Event, StepState
from vrag.values.policy import Policy
from vrag.values.requests import VideoCapabilities
from vrag.values.vectors import Candidate, Refusal
from vrag.workspace import Workspace
from vrag.workspace.journal import ENDED, Step

__all__ = ["VRAGPipeline"]

_MAX_THREADS = 32


class VRAGPipeline:
    """Video from your own approved pictures, with a record of each.

    It is given objects: knowledge bases (a mapping, or a factory by name), video generators by name, a storage for
    media, a signer for records, and somebody to `ask` where no picture suits. `local` and `from_config` make them. Safe to use from many threads; `close` it, or
    use it in a `with` block.
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
        policy: Policy | None = None,
        ask: Callable[[Brief, Refusal], str | None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.workspace = workspace
        self.generators = dict(generators)
        self.inpainter = inpainter
        self.policy = policy or Policy()
        self._ask = ask
        self._knowledge_bases = knowledge_bases
        self._opened: dict[str, KnowledgeBase] = {}
        self._storage = storage
        self._signer = signer
        self._clock = clock or SystemClock()
        self._guard = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._closing = threading.Event()
        self._runner = Runner(
            journal=workspace.journal,
            storage=storage,
            generators=self.generators,
            clock=self._clock,
            gate=self._gate,
            record=self._record,
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

        A brief that cannot be planned is listed in `failures` with its error, and the others go on.
        """
        videos: list[PlannedVideo] = []
        failures: list[PlanFailure] = []
        used: set[str] = set()
        for index, brief in enumerate([briefs] if isinstance(briefs, Brief) else briefs):
            try:
                videos.append(self._plan_one(brief, used))
            except VRAGError as error:
                failures.append(PlanFailure(index=index, brief=brief, error=error.to_json()))
        return Plan(videos=tuple(videos), failures=tuple(failures))

    def _plan_one(self, brief: Brief, used: set[str]) -> PlannedVideo:
        """Plan one brief; `used` holds the pictures of the batch so far, and gets this one's."""
        name = brief.model or (next(iter(self.generators)) if len(self.generators) == 1 else None)
        if name not in self.generators or name is None:
            raise UsageError(
                f"Name a generator, not {name!r}; there are: {', '.join(sorted(self.generators)) or 'none'}."
            )
        planned = plan_video(
            brief,
            name=name,
            generator=self.generators[name],
            scope=self._scope(brief),
            pick=lambda brief, able: self._pick(brief, able, used if self.policy.reuse == "once a batch" else set()),
        )
        used.update(source.asset_id for source in planned.sources)
        return planned

    def _scope(self, brief: Brief) -> str:
        # The same picture in two knowledge bases is two purchases: a record of one names no asset of the other.
        if brief.text_only:
            return self.workspace.scope
        given = self._knowledge_bases
        named = brief.knowledge_base or ("" if callable(given) or len(given) != 1 else next(iter(given)))
        return f"{self.workspace.scope}/{named}"

    def _pick(self, brief: Brief, capabilities: VideoCapabilities, used: set[str]) -> Picked | None:
        if "start_frame" not in capabilities.roles:
            raise UnsupportedRequestError("This generator takes no picture.", hint="Brief(text_only=True)")
        knowledge_base = self.knowledge_base(brief.knowledge_base)
        if brief.picture is not None:
            asset = knowledge_base.asset(brief.picture)
            candidates: tuple[Candidate, ...] = (Candidate(asset_id=asset.id, chosen=True),)
            settings: Mapping[str, str | float] = {}
        else:
            query = brief.object_prompt or brief.action_prompt or brief.template or ""
            resting = timedelta(seconds=self.policy.cool_down_s)
            found = knowledge_base.search(
                query,
                filter=brief.filter,
                selection=Selection(exclude=used, cool_down=resting, last_used=self.workspace.journal.last_used),
            )
            named = (
                None if found.refusal is None else self._without_hit(brief, found.refusal, knowledge_base, capabilities)
            )
            if found.refusal is not None and named is None:
                return None
            asset = found.hits[0].asset if named is None else knowledge_base.asset(named)
            settings = found.settings
            candidates = tuple(
                evolve(candidate, chosen=candidate.asset_id == asset.id) for candidate in found.candidates
            )
        review = knowledge_base.gate(asset.id)
        with knowledge_base.open(asset.original) as stream:
            original = stream.read()
        fitted = conform(
            original,
            asset.file_name,
            width_px=brief.width_px,
            height_px=brief.height_px,
            mode=brief.fit,
            scale=capabilities.image.scale,
        )
        media = self._storage.put(BytesIO(fitted.data), fitted.media_type)
        return Picked(
            source=Source(
                asset_id=asset.id,
                knowledge_base=knowledge_base.name,
                role="start_frame",
                original=asset.original,
                conformed=Conformed(
                    media=evolve(media, width_px=fitted.width_px, height_px=fitted.height_px),
                    crop_px=fitted.crop_px,
                    mode=brief.fit,
                    upscaled=fitted.upscaled,
                ),
                review_sequence=review.sequence,
                caption=asset.caption,
                file_name=asset.file_name,
                rights=asset.rights,
            ),
            candidates=candidates,
            settings=settings,
        )

    def _without_hit(
        self, brief: Brief, refusal: Refusal, knowledge_base: KnowledgeBase, capabilities: VideoCapabilities
    ) -> str | None:
        """What the policy does where no picture suits: an asset that a person named, or None for no picture.

        Raises:
            NoSuitableImageError: Refuse it is.
        """
        if self.policy.no_picture == "ask" and self._ask is not None:
            named = self._ask(brief, refusal)
            if named is not None:
                return named
        elif self.policy.no_picture == "text only" and "start_frame" not in capabilities.required_roles:
            return None
        raise NoSuitableImageError(
            f"No suitable picture for '{refusal.query[:200]}' in '{knowledge_base.name}': " + " ".join(refusal.reasons),
            refusal=refusal,
            hint=f'vrag search "{refusal.query[:200]}" --kb {knowledge_base.name} --explain',
        )

    # -- buy

    def submit(self, plan: Plan, *, approved: str, budget_usd: float | None = None) -> list[Ticket]:
        """Buy what was approved.

        Args:
            plan: From `plan`, in this workspace.
            approved: `plan.digest`, as it was when a person looked at it.
            budget_usd: What the whole plan may cost at most.

        Raises:
            PlanChangedError: The plan is not the approved one; nothing was submitted.
            UsageError: Its price is over the budget, or not known where a budget is given.
        """
        if plan.digest != approved:
            raise PlanChangedError(
                f"This plan ({plan.digest[:12]}…) is not the approved one ({approved[:12]}…).", hint="approve it again"
            )
        if budget_usd is not None:
            self._check_budget(plan, budget_usd)
        for planned in plan.videos:
            self.workspace.journal.plan(planned)
        tickets = [Ticket(planned.step_id) for planned in plan.videos]
        for ticket in tickets:
            self._in_background(ticket)
        return tickets

    def _check_budget(self, plan: Plan, budget_usd: float) -> None:
        price = plan.usd_micros
        if price is None:
            if self.policy.unknown_price == "refuse":
                raise UsageError(
                    "The price of this plan is not known, so it cannot be kept within a budget.",
                    hint="Policy(unknown_price='allow')",
                )
        elif price > round(budget_usd * 1_000_000):
            raise UsageError(f"The plan costs {price / 1e6:.2f} USD; the budget is {budget_usd:.2f} USD.")

    def _in_background(self, ticket: Ticket) -> Future[None]:
        with self._guard:
            if self._closing.is_set():
                raise UsageError("This pipeline is closed.")
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="vrag")
            return self._threads.submit(
                ticket.run, lambda notify, stopped: self._drive(ticket.id, notify=notify, stopped=stopped)
            )

    def _drive(
        self,
        step_id: str,
        *,
        notify: Callable[[Event], None] = lambda _event: None,
        stopped: Callable[[], bool] = lambda: False,
        timeout_s: float | None = None,
    ) -> FinishedVideo:
        step = self.workspace.journal.get(step_id)
        if step.state in {StepState.FAILED, StepState.CANCELLED} and (step.error or {}).get("billed") is False:
            self.workspace.journal.retry(step_id)
        step = self._runner.drive(
            step_id, notify=notify, stopped=stopped, leaving=self._closing.is_set, timeout_s=timeout_s
        )
        if step.state is StepState.WITHHELD:
            raise GateError(
                "The video was made, but a picture of it may no longer be used: it is recorded and withheld.",
                asset_id=step.planned.sources[0].asset_id,
                state=str((step.error or {}).get("state", "unknown")),
                hint=f"vrag where-used {step.planned.sources[0].asset_id}",
            )
        return self._finished(step)

    def generate(
        self,
        brief: Brief,
        *,
        notify: Callable[[Event], None] = lambda _event: None,
        timeout_s: float | None = None,
    ) -> FinishedVideo:
        """Plan, buy, wait for and record one video. The same brief again finds the video that exists.

        Raises:
            NoSuitableImageError: No picture suits; `error.refusal` says why and shows the best there were.
            GateError: The picture may not be used.
            UnsupportedRequestError: The generator refuses the request.
            JobError: The job did not end well.
        """
        planned = self._plan_one(brief, set())
        self.workspace.journal.plan(planned)
        return self._drive(planned.step_id, notify=notify, timeout_s=timeout_s)

    def run(self, briefs: Iterable[Brief]) -> BatchResult:
        """Make many videos at once; never raises for one of them."""
        rows = list(briefs)
        failed: list[BatchFailure] = []
        undecided: list[BatchFailure] = []
        tickets: dict[int, Ticket] = {}
        used: set[str] = set()
        for index, brief in enumerate(rows):
            try:
                plan = Plan(videos=(self._plan_one(brief, used),))
                tickets[index] = self.submit(plan, approved=plan.digest)[0]
            except VRAGError as error:
                failed.append(BatchFailure(index=index, brief=brief, error=error.to_json()))
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
        if step.state is not StepState.DELIVERED:
            raise NotFoundError(f"The step '{step_id[:12]}…' has no delivered video; it is {step.state}.")
        return self._finished(step)

    def resume(self) -> Resumed:
        """Bring every step that was left unfinished to its end; nothing is bought that may have been bought before."""
        done: list[FinishedVideo] = []
        failed: dict[str, Mapping[str, object]] = {}
        for step in self.workspace.journal.steps(set(StepState) - ENDED - {StepState.UNDECIDED}):
            try:
                done.append(self._drive(step.id))
            except VRAGError as error:
                failed[step.id] = error.to_json()
        return Resumed(done=tuple(done), failed=failed)

    def decide(self, step_id: str, decision: Literal["give up", "buy again"]) -> None:
        """Settle a step of which nobody knows whether it was bought."""
        journal = self.workspace.journal
        given_up = {"error": "given_up", "message": "A person gave it up.", "billed": None, "retryable": False}
        if not journal.advance(step_id, StepState.UNDECIDED, StepState.FAILED, error=given_up):
            raise UsageError(
                f"The step '{step_id[:12]}…' is {journal.get(step_id).state}; only undecided ones are decided."
            )
        if decision == "buy again":
            journal.retry(step_id)

    def where_used(self, asset_id: str) -> tuple[Use, ...]:
        """Every step that uses this picture, itself or edited: planned, running, delivered or withheld; oldest first."""
        steps = {step.id: step for step in self.workspace.journal.using(asset_id)}
        # Through the records: what was made from an edited picture names only the edited one.
        for record_id in self.workspace.ledger.used_in(asset_id):
            if record_id not in steps:
                with suppress(NotFoundError):  # a record about something that is no step, such as an edited picture
                    steps[record_id] = self.workspace.journal.get(record_id)
        return tuple(
            Use(
                step_id=step.id,
                state=step.state.value,
                asset_id=asset_id,
                record_id=step.record_id,
                video_sha256=None if step.delivered is None else step.delivered.sha256,
                at=step.updated_at,
            )
            for step in sorted(steps.values(), key=lambda step: (step.created_at, step.id))
        )

    def revoke(self, asset_id: str, *, by: str, reason: str) -> Revocation:
        """Take a picture out of use at once and for ever, and list what was made from it."""
        knowledge_base = self._owner(asset_id)
        return self._revoked(knowledge_base.revoke(asset_id, by=by, reason=reason), by=by, reason=reason)

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
        names = sorted(given) if knowledge_bases is None else list(dict.fromkeys(knowledge_bases))
        done: list[Revocation] = []
        failed: VRAGError | None = None
        for name in names:
            try:
                review = self.knowledge_base(name).revoke_digest(sha256, by=by, reason=reason)
            except VRAGError as error:
                failed = failed or error
                continue
            done.append(self._revoked(review, by=by, reason=reason))
        if failed is not None:
            raise failed
        return tuple(done)

    def _owner(self, asset_id: str) -> KnowledgeBase:
        # A digest alone names no knowledge base, and must not be taken for the name of one.
        owner, slash, _ = asset_id.partition("/")
        return self.knowledge_base(owner if slash else None)

    def _revoked(self, review: Review, *, by: str, reason: str) -> Revocation:
        uses = self.where_used(review.asset_id)
        made = tuple(use for use in uses if use.state in {StepState.DELIVERED, StepState.RECORDED})
        receipt = self.workspace.ledger.add_receipt(
            kind="revocation",
            subject=review.asset_id,
            by=by,
            reason=reason,
            body={"review": to_json(review), "videos": [use.video_sha256 for use in made]},
        )
        blocked = tuple(use for use in uses if use.state not in {*ENDED, StepState.RECORDED})
        return Revocation(review=review, receipt=receipt, videos=made, blocked=blocked)

    def erase_media(self, asset_id: str, *, by: str, reason: str) -> int:
        """Delete the bytes of a revoked picture: the second step of a take-down. Records that name it still verify.

        Returns:
            Number of the receipt in the workspace.
        """
        knowledge_base = self._owner(asset_id)
        erasure = knowledge_base.erase_media(asset_id, by=by, reason=reason)
        return self.workspace.ledger.add_receipt(
            kind="media erasure", subject=erasure.asset_id, by=by, reason=reason, body=to_json(erasure)
        )

    def close(self) -> None:
        """Stop background work, and let go of files; running jobs of a provider run on. Closing twice is fine."""
        self._closing.set()
        with self._guard:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)
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

    def erase_text(self, step_id: str, *, by: str, reason: str) -> int:
        """Erase the words of a video (prompts, captions, names) for ever; its record stays and still verifies.

        Returns:
            How many texts were erased; a receipt of it stays.
        """
        step = self.workspace.journal.get(step_id)
        if step.state not in ENDED or step.record_id is None:
            raise UsageError(f"Only a recorded step forgets its words; '{step_id[:12]}…' is {step.state}.")
        erased = self.workspace.ledger.erase_text(step.record_id, by=by, reason=reason)
        self.workspace.journal.erase_words(step_id)
        return erased

    # -- what the runner is given

    def _gate(self, step: Step) -> None:
        for source in step.planned.sources:
            self.knowledge_base(source.knowledge_base).gate(source.asset_id)

    def _record(self, step: Step, closed: GateError | None) -> None:
        assert step.raw is not None and step.delivered is not None and step.status is not None  # noqa: PT018
        reviews = {
            source.asset_id: self.knowledge_base(source.knowledge_base).review_of(source.asset_id)
            for source in step.planned.sources
        }
        facts = VideoFacts(
            record_id=step.id,
            planned=step.planned,
            raw=step.raw,
            delivered=step.delivered if closed is None else None,
            withheld=None if closed is None else closed.message,
            status=step.status,
            reviews=reviews,
            started_at=step.submitted_at or step.created_at,
            finished_at=rfc3339(self._clock.now()),
            marks=("none: no marking is configured",),
            handle=step.handle,
            library_version=__version__,
        )
        drafted = video_statement(facts, policy=self.policy, clock=self._clock)
        envelope = sign_envelope(drafted.payload, self._signer)
        self.workspace.journal.advance(
            step.id,
            StepState.FINISHED,
            StepState.RECORDED,
            record_id=step.id,
            within=lambda connection: self.workspace.ledger.append(
                connection, drafted, envelope, public_key=self._signer.public_key
            ),
        )

    def _finished(self, step: Step) -> FinishedVideo:
        return FinishedVideo(
            step,
            storage=self._storage,
            ledger=self.workspace.ledger,
            signer=self._signer,
            open_original=lambda source: self.knowledge_base(source.knowledge_base).open(source.original),
        )
