"""How a shot gets its picture: retrieved, passed by the gate, edited, fitted; and where it comes from is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from io import BytesIO
from typing import Protocol, get_args

from attrs import evolve, frozen

from vrag.errors import (
    ContentRejectedError,
    JobFailedError,
    JobUndecidedError,
    NoSuitableImageError,
    NotFoundError,
    UnsupportedRequestError,
    UsageError,
)
from vrag.generation.plan import Picked, Wait, WaitingError, shot_briefs, unedited
from vrag.interfaces import Inpainter, Storage
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.selection import Selection
from vrag.media.fit import outpaint_margins
from vrag.media.image import conform, edit_base
from vrag.media.mask import resize_mask
from vrag.media.mask_draw import draw_mask
from vrag.media.ref import MediaRef
from vrag.media.variants import change, repainted, sharpness
from vrag.values.assets import Asset
from vrag.values.briefs import (
    AppliedEdit,
    Brief,
    Choice,
    ChoiceRule,
    Conformed,
    Edit,
    PlannedEdit,
    PlannedVideo,
    Source,
    Variant,
    best_variant,
)
from vrag.values.jobs import StepState
from vrag.values.policy import Policy
from vrag.values.requests import EditRequest, VideoCapabilities, purchase_id
from vrag.values.vectors import Candidate, Refusal
from vrag.workspace import Workspace
from vrag.workspace.journal import Step

__all__ = ["INPAINTER", "Ask", "Choose", "Moderator", "Sourcing"]

INPAINTER = "inpainter"
"""Name of the one inpainter of a pipeline, in plans and in the journal."""
_EDIT_SIDE_PX = 4096

Ask = Callable[[Brief, Refusal], str | None]
"""Asked where no picture suits: names an asset, or None for no video with a picture."""
Choose = Callable[[PlannedEdit, Sequence[MediaRef]], int | None]
"""Chooses among the variants of an edit, from 1; None leaves it to a person."""


class Verdict(Protocol):
    """What a moderator says."""

    @property
    def allowed(self) -> bool:
        """Whether all of it may be sent."""
        ...

    @property
    def reasons(self) -> Sequence[str]:
        """Why not."""
        ...


class Moderator(Protocol):
    """Looks at words and pictures before they are sent to a paid model, such as a guardrail."""

    def check(self, texts: Sequence[str], images: Sequence[bytes]) -> Verdict:
        """What it says of them; it raises if it cannot be asked."""
        ...


@frozen(kw_only=True)
class Sourcing:
    """What a pipeline finds pictures with."""

    knowledge_base: Callable[[str | None], KnowledgeBase]
    storage: Storage
    workspace: Workspace
    inpainter: Inpainter | None
    policy: Policy
    scope: Callable[[Brief], str]
    ask: Ask | None = None
    choose: Choose | None = None
    moderator: Moderator | None = None

    def moderate(self, planned: PlannedVideo) -> None:
        """Ask the moderator about a purchase that costs money.

        Raises:
            ContentRejectedError: It refuses the words or a picture; nothing was bought.
        """
        if self.moderator is None or planned.estimate.usd_micros == 0:
            return
        request = planned.request
        texts = [shot.prompt for shot in request.shots] + [request.negative_prompt or ""]
        pictures = [self._bytes(source.conformed.media) for source in planned.sources]
        verdict = self.moderator.check([text for text in texts if text], pictures)
        if not verdict.allowed:
            raise ContentRejectedError(
                "Moderation refused it, and nothing was bought: " + "; ".join(verdict.reasons),
                backend="moderator",
                operation="check",
            )

    def pick(
        self, brief: Brief, capabilities: VideoCapabilities, used: AbstractSet[str] = frozenset()
    ) -> Picked | None:
        """The picture for one shot, ready for the model; None where the policy then says "without".

        Args:
            brief: Of the shot.
            capabilities: Of the generator.
            used: Assets that are not offered again.

        Raises:
            NoSuitableImageError: None suits.
            GateError: The one that was named may not be used.
            WaitingError: It waits for an edit or a choice.
        """
        if "start_frame" not in capabilities.roles:
            raise UnsupportedRequestError("This generator takes no picture.", hint="Brief(text_only=True)")
        knowledge_base = self.knowledge_base(brief.knowledge_base)
        found = self._find(brief, capabilities, knowledge_base, used)
        if found is None:
            return None
        asset, candidates, settings = found
        review = knowledge_base.gate(asset.id)
        with knowledge_base.open(asset.original) as stream:
            data = stream.read()
        source = Source(
            asset_id=asset.id,
            knowledge_base=knowledge_base.name,
            role="start_frame",
            original=asset.original,
            conformed=Conformed(media=asset.original, crop_px=(0, 0, 0, 0), mode="contain"),  # fitted below
            review_sequence=review.sequence,
            caption=asset.caption,
            file_name=asset.file_name,
            rights=asset.rights,
        )
        for edit in brief.edits:
            source, data = self._edited(edit, brief, source, data, candidates, settings)
        return Picked(source=self._fitted(brief, capabilities, source, data), candidates=candidates, settings=settings)

    def pinned(self, brief: Brief, capabilities: VideoCapabilities) -> Brief:
        """The brief with the picture named that suits best, for each shot of a storyboard; edits are not asked for yet.

        Raises:
            NoSuitableImageError: None suits.
        """
        found = [None if one.text_only else self.pick(one, capabilities) for one in shot_briefs(unedited(brief))]
        pictures = [None if pick is None else pick.source.asset_id for pick in found]
        if not brief.shots:
            return evolve(brief, picture=pictures[0])
        shots = tuple(evolve(shot, picture=one) for shot, one in zip(brief.shots, pictures, strict=True))
        return evolve(brief, shots=shots)

    # -- which one

    def _find(
        self, brief: Brief, capabilities: VideoCapabilities, knowledge_base: KnowledgeBase, used: AbstractSet[str]
    ) -> tuple[Asset, tuple[Candidate, ...], Mapping[str, str | float]] | None:
        if brief.picture is not None:
            asset = knowledge_base.asset(brief.picture)
            return asset, (Candidate(asset_id=asset.id, chosen=True),), {}
        query = brief.object_prompt or brief.action_prompt or brief.template or ""
        resting = timedelta(seconds=self.policy.cool_down_s)
        found = knowledge_base.search(
            query,
            filter=brief.filter,
            selection=Selection(exclude=used, cool_down=resting, last_used=self.workspace.journal.last_used),
        )
        if found.refusal is None:
            asset = found.hits[0].asset
        else:
            named = self._without_hit(brief, found.refusal, knowledge_base, capabilities)
            if named is None:
                return None
            asset = knowledge_base.asset(named)
        return (
            asset,
            tuple(evolve(candidate, chosen=candidate.asset_id == asset.id) for candidate in found.candidates),
            found.settings,
        )

    def _without_hit(
        self, brief: Brief, refusal: Refusal, knowledge_base: KnowledgeBase, capabilities: VideoCapabilities
    ) -> str | None:
        """What the policy does where no picture suits: an asset that a person named, or None for no picture."""
        if self.policy.no_picture == "ask" and self.ask is not None:
            named = self.ask(brief, refusal)
            if named is not None:
                return named
        elif self.policy.no_picture == "text only" and "start_frame" not in capabilities.required_roles:
            return None
        raise NoSuitableImageError(
            f"No suitable picture for '{refusal.query[:200]}' in '{knowledge_base.name}': " + " ".join(refusal.reasons),
            refusal=refusal,
            hint=f'vrag search "{refusal.query[:200]}" --kb {knowledge_base.name} --explain',
        )

    # -- edits

    def _edited(
        self,
        edit: Edit,
        brief: Brief,
        source: Source,
        data: bytes,
        candidates: tuple[Candidate, ...],
        settings: Mapping[str, str | float],
    ) -> tuple[Source, bytes]:
        """The source with one more edit, and the picture that came of it.

        Raises:
            WaitingError: The edit is not bought, or nobody chose among its variants.
            JobFailedError: It was tried and failed.
        """
        planned = self._plan_edit(edit, brief, source, data, candidates, settings)
        if planned is None:
            return source, data
        try:
            step = self.workspace.journal.get(planned.step_id)
        except NotFoundError:
            raise WaitingError(Wait(waits_for="edit", edit=planned)) from None
        if step.state is StepState.FAILED and (step.error or {}).get("billed") is not False:
            error = step.error or {}
            raise JobFailedError(
                f"The edit '{edit.operation}' failed: {error.get('message', 'no reason is known')}",
                job_id=step.id,
                billed=error.get("billed"),
                hint="ask for another take of the edit: Edit(take=2)",
            )
        if step.state is StepState.UNDECIDED:
            raise JobUndecidedError(
                f"Nobody knows whether the edit '{edit.operation}' was bought.", job_id=step.id, hint="vrag jobs"
            )
        if step.state is not StepState.DELIVERED:
            raise WaitingError(Wait(waits_for="edit", edit=planned))
        variant, choice = self._variant(edit, planned, step)
        media = step.outputs[variant - 1]
        edited = self._bytes(media)
        applied = AppliedEdit(step_id=step.id, operation=edit.operation, media=media, variant=variant, choice=choice)
        return evolve(source, edits=(*source.edits, applied)), edited

    def _plan_edit(
        self,
        edit: Edit,
        brief: Brief,
        source: Source,
        data: bytes,
        candidates: tuple[Candidate, ...],
        settings: Mapping[str, str | float],
    ) -> PlannedEdit | None:
        """The purchase, or None where the picture has the shape of the video already and nothing is to be added."""
        inpainter = self.inpainter
        if inpainter is None:
            raise UnsupportedRequestError(
                f"The edit '{edit.operation}' needs an inpainter, and this pipeline has none.",
                hint="pip install 'vrag[local]', or name one as [workspace] inpainter in vrag.toml",
            )
        able = inpainter.capabilities
        name = source.file_name or source.asset_id
        base = edit_base(data, name, max_side_px=min(able.image.max_side_px, _EDIT_SIDE_PX))
        width_px, height_px = base.width_px, base.height_px
        image = evolve(self.storage.put(BytesIO(base.data), base.media_type), width_px=width_px, height_px=height_px)
        mask = None
        if edit.mask is not None:
            drawn = draw_mask(edit.mask, data, name=name, open_media=self.storage.open)
            fitting = resize_mask(drawn.data, width_px, height_px)
            mask = evolve(self.storage.put(BytesIO(fitting), "image/png"), width_px=width_px, height_px=height_px)
        extend_px = edit.extend_px
        if edit.to_video_shape:
            if edit.operation != "outpaint":
                raise UsageError(f"Only 'outpaint' grows to the shape of the video, not '{edit.operation}'.")
            extend_px = outpaint_margins(width_px, height_px, brief.width_px / brief.height_px)
            if not any(extend_px):
                return None
        request = EditRequest(
            operation=edit.operation,
            image=image,
            mask=mask,
            mask_prompt=edit.mask_prompt,
            prompt=edit.prompt,
            negative_prompt=edit.negative_prompt,
            extend_px=extend_px,
            count=edit.count,
            seed=edit.seed,
        )
        problems = inpainter.validate(request)
        refused = tuple(problem for problem in problems if problem.kind == "refused")
        if refused:
            raise UnsupportedRequestError(
                f"The inpainter ({inpainter.model}) refuses: " + " ".join(p.message for p in refused), problems=refused
            )
        if edit.choose == "least changed" and mask is None and extend_px is None:
            raise UsageError(
                f"'least changed' compares what lies outside of a mask, and this edit ('{edit.operation}') has none.",
                hint="Edit(choose='sharpest'), or a number",
            )
        given = Conformed(media=image, crop_px=base.crop_px, mode="contain")
        return PlannedEdit(
            step_id=purchase_id(request, inpainter.model, scope=self.scope(brief), take=edit.take),
            brief=brief,
            generator=INPAINTER,
            model=inpainter.model,
            request=request,
            source=evolve(source, conformed=given),
            candidates=candidates,
            retrieval=settings,
            estimate=inpainter.estimate(request),
            unmet=tuple(problem for problem in problems if problem.kind == "unmet"),
        )

    def _variant(self, edit: Edit, planned: PlannedEdit, step: Step) -> tuple[int, Choice | None]:
        """The number of the variant that goes on, and how it was chosen where there are several."""
        made = step.outputs
        asked, by = edit.choose, "number in the brief"
        if asked is None and len(made) > 1 and self.choose is not None:
            asked, by = self.choose(planned, made), "function of the pipeline"
        if asked is None and self.policy.choose != "person":
            asked = self.policy.choose
        if len(made) == 1 and not isinstance(asked, int):
            return 1, None
        variants = tuple(Variant(media=media) for media in made)
        number = asked if isinstance(asked, int) else None
        if isinstance(asked, str):
            by, variants = asked, self._measured(planned, made, asked)
            number = best_variant(asked, variants)
        if number is None:
            variants = self._measured(planned, made, *get_args(ChoiceRule))
            raise WaitingError(Wait(waits_for="choice", edit=planned, variants=variants))
        if not 1 <= number <= len(made):
            raise UsageError(f"There is no variant {number} of this edit; it has {len(made)}.", hint="Edit(choose=1)")
        return number, None if len(made) == 1 else Choice(by=by, variants=variants)

    def _measured(self, planned: PlannedEdit, made: Sequence[MediaRef], *rules: ChoiceRule) -> tuple[Variant, ...]:
        request = planned.request
        before = self._bytes(request.image)
        white = repainted(
            request.image.width_px or 0,
            request.image.height_px or 0,
            mask=None if request.mask is None else self._bytes(request.mask),
            extend_px=request.extend_px,
        )
        measured = []
        for media in made:
            data = self._bytes(media)
            scores: dict[str, float | None] = {
                rule: sharpness(data, white) if rule == "sharpest" else change(before, data, white, request.extend_px)
                for rule in rules
            }
            known = {rule: score for rule, score in scores.items() if score is not None}
            measured.append(Variant(media=media, scores=known))
        return tuple(measured)

    def _bytes(self, media: MediaRef) -> bytes:
        with self.storage.open(media) as stream:
            return stream.read()

    # -- the shape of the video

    def _fitted(self, brief: Brief, capabilities: VideoCapabilities, source: Source, data: bytes) -> Source:
        fitted = conform(
            data,
            source.file_name or source.asset_id,
            width_px=brief.width_px,
            height_px=brief.height_px,
            mode=brief.fit,
            focus=brief.focus,
            scale=capabilities.image.scale,
        )
        media = self.storage.put(BytesIO(fitted.data), fitted.media_type)
        return evolve(
            source,
            conformed=Conformed(
                media=evolve(media, width_px=fitted.width_px, height_px=fitted.height_px),
                crop_px=fitted.crop_px,
                mode=brief.fit,
                upscaled=fitted.upscaled,
            ),
        )
