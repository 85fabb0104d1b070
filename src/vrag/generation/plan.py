"""A brief becomes a planned video: final prompts, chosen pictures, validated requests, price. Nothing is bought."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import starmap
from typing import Final, Literal

from attrs import evolve, field, frozen

from vrag.errors import PromptError, UnsupportedRequestError, UsageError
from vrag.interfaces import VideoGenerator
from vrag.prompts.camera import CameraReading, read_camera
from vrag.prompts.lint import compose_prompt, describe_look, lint_prompt
from vrag.prompts.template import Filled, PromptTemplate
from vrag.values.briefs import Brief, ChoiceRule, Edit, PlannedEdit, PlannedVideo, ShotBrief, Source, Variant
from vrag.values.canonical import digest_json
from vrag.values.requests import (
    Estimate,
    Input,
    ModelRef,
    Problem,
    Shot,
    VideoCapabilities,
    VideoRequest,
    purchase_id,
)
from vrag.values.vectors import Candidate

__all__ = ["JOINER", "Picked", "Wait", "WaitingError", "choices_of", "chosen", "plan_video", "shot_briefs", "unedited"]

JOINER: Final = ModelRef(provider="local", id="join-1")
"""What joins single shots to one film: packets copied at cuts, frames mixed in crossfades."""


@frozen(kw_only=True)
class Picked:
    """The picture for a shot and how it was found."""

    source: Source
    candidates: tuple[Candidate, ...] = ()
    settings: Mapping[str, str | float] = field(factory=dict)


@frozen(kw_only=True)
class Wait:
    """Something that a plan must not do by itself: buy an edit, or choose among the variants of one."""

    waits_for: Literal["edit", "choice"]
    edit: PlannedEdit
    variants: tuple[Variant, ...] = ()
    """What a person chooses among."""


class WaitingError(Exception):
    """Pictures of the brief are not ready yet."""

    def __init__(self, *waits: Wait) -> None:
        super().__init__(", ".join(f"{wait.waits_for} {wait.edit.step_id[:12]}…" for wait in waits))
        self.waits = waits


Pick = Callable[[Brief, VideoCapabilities], Picked | None]


def plan_video(brief: Brief, *, name: str, generator: VideoGenerator, scope: str, pick: Pick) -> PlannedVideo:
    """Resolve one brief against one generator.

    A storyboard is one request where the generator takes as many shots and every joint is a cut; else each shot is a
    purchase of its own, and the whole is joined from them.

    Args:
        brief: What is asked.
        name: The generator's name in the pipeline.
        generator: Asked for its capabilities, its problems with the request, and its price; nothing is sent to it.
        scope: The secret id of the workspace, part of the purchase id.
        pick: Finds, checks and conforms the picture of a shot, or answers None for one without; raises
            `NoSuitableImageError`, `GateError` or `WaitingError`.

    Raises:
        PromptError: A template cannot be rendered.
        UnsupportedRequestError: The generator refuses; every reason is listed.
        WaitingError: A picture waits for an edit or a choice.
    """
    shots = shot_briefs(brief)
    together = len(shots) <= generator.capabilities.max_shots and not brief.crossfade_s
    if len(shots) > 1 and brief.crossfade_s >= min(shot.duration_s for shot in shots) / 2:
        shortest = min(shot.duration_s for shot in shots)
        raise UsageError(
            f"A crossfade of {brief.crossfade_s:g} s is too long for a shot of {shortest:g} s: two of them meet in it.",
            hint=f"crossfade_s below {shortest / 2:g}",
        )
    drafts = _drafts(shots, generator.capabilities, pick)
    if together:
        return _purchase(brief, drafts, name, generator, scope)
    parts = tuple(_purchase(one, [draft], name, generator, scope) for one, draft in zip(shots, drafts, strict=True))
    return _joined(brief, parts, name, scope)


def shot_briefs(brief: Brief) -> list[Brief]:
    """A brief for each shot of a storyboard; a brief without shots is its own."""
    return [_shot_brief(brief, shot) for shot in brief.shots] or [brief]


def unedited(brief: Brief) -> Brief:
    """The same without any edit, those of its shots included."""
    return evolve(brief, edits=(), shots=tuple(evolve(shot, edits=()) for shot in brief.shots))


def chosen(brief: Brief, waiting: PlannedEdit, choose: int | ChoiceRule) -> Brief:
    """The brief with a choice among the variants of one of its edits.

    Args:
        brief: What was asked.
        waiting: The edit, as the plan of `brief` has it.
        choose: As `Edit.choose`.

    Raises:
        UsageError: The brief has no such edit: the plan is not its plan.
    """
    place = len(waiting.source.edits)  # those before it are done

    def settled(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        if place >= len(edits):
            raise UsageError(
                f"The brief has {len(edits)} edits, and number {place + 1} waits.", hint="make the plan again"
            )
        return (*edits[:place], evolve(edits[place], choose=choose), *edits[place + 1 :])

    shots = [
        evolve(shot, edits=settled(one.edits)) if one == waiting.brief else shot
        for shot, one in zip(brief.shots, shot_briefs(brief), strict=False)
    ]
    return evolve(brief, shots=tuple(shots)) if shots else evolve(brief, edits=settled(brief.edits))


def choices_of(
    waiting: Collection[str], choices: int | ChoiceRule | Mapping[str, int | ChoiceRule]
) -> dict[str, int | ChoiceRule]:
    """The choice for each edit by its whole id.

    Args:
        waiting: Ids of the edits that wait for one.
        choices: One for all of them, or by the first digits of an id.

    Raises:
        UsageError: Nothing waits, an id fits none or several of them, or one number was given for several.
    """
    known = ", ".join(step_id[:12] for step_id in waiting) or "none"
    if not isinstance(choices, Mapping):
        if not waiting or (isinstance(choices, int) and len(waiting) > 1):
            raise UsageError(
                f"{len(waiting)} edits wait for a choice, and {choices!r} was given for one: {known}.",
                hint="name the edit: EDIT=NUMBER" if waiting else "vrag prepare buys the edits that a plan waits for",
            )
        return dict.fromkeys(waiting, choices)
    found: dict[str, int | ChoiceRule] = {}
    for name, choice in choices.items():
        fits = [step_id for step_id in waiting if name and step_id.startswith(name)]
        if len(fits) != 1:
            raise UsageError(
                f"{len(fits) or 'No'} edits that wait for a choice begin with '{name[:64]}'; there are: {known}."
            )
        found[fits[0]] = choice
    return found


def _shot_brief(brief: Brief, shot: ShotBrief) -> Brief:
    own = {
        name: getattr(shot, name)
        for name in (
            "object_prompt",
            "action_prompt",
            "template",
            "knowledge_base",
            "filter",
            "fit",
            "focus",
            "duration_s",
            "seed",
        )
        if getattr(shot, name) is not None
    }
    return evolve(
        brief,
        shots=(),
        crossfade_s=0.0,
        picture=shot.picture or brief.picture,
        edits=shot.edits or brief.edits,
        camera=shot.camera or brief.camera,
        **own,
    )


@frozen(kw_only=True)
class _Draft:
    """One shot, resolved."""

    brief: Brief
    shot: Shot
    picked: Picked | None
    reading: CameraReading
    notes: tuple[str, ...]


def _drafts(shots: list[Brief], capabilities: VideoCapabilities, pick: Pick) -> list[_Draft]:
    drafts: list[_Draft] = []
    waits: list[Wait] = []
    for brief in shots:
        try:
            drafts.append(_draft(brief, capabilities, pick))
        except WaitingError as error:
            waits += error.waits
    if waits:
        raise WaitingError(*waits)
    return drafts


def _draft(brief: Brief, capabilities: VideoCapabilities, pick: Pick) -> _Draft:
    filled = _fill(brief)
    reading = read_camera(brief.action_prompt or filled.text)
    picked = None if brief.text_only else pick(brief, capabilities)
    prompt = filled.text
    if capabilities.reads_prompt:
        look = {
            field: getattr(brief.look, field)
            for field in ("style", "mood", "lighting")
            if getattr(brief.look, field) is not None and field not in capabilities.fields
        }
        prompt = compose_prompt(prompt, describe_look(**look), ", ".join(move.value for move in brief.camera))
    return _Draft(
        brief=brief,
        shot=Shot(
            prompt=prompt,
            inputs=() if picked is None else (Input(role=picked.source.role, media=picked.source.conformed.media),),
            camera=brief.camera or reading.moves,
            duration_s=brief.duration_s,
        ),
        picked=picked,
        reading=reading,
        notes=(() if brief.camera else reading.notes) + _lints(filled, prompt, capabilities),
    )


def _purchase(brief: Brief, drafts: list[_Draft], name: str, generator: VideoGenerator, scope: str) -> PlannedVideo:
    request = VideoRequest(
        shots=tuple(draft.shot for draft in drafts),
        width_px=brief.width_px,
        height_px=brief.height_px,
        fps=brief.fps,
        seed=brief.seed,
        negative_prompt=brief.negative_prompt,
        look=brief.look,
        codec=brief.codec,
    )
    problems = generator.validate(request)
    refused = tuple(problem for problem in problems if problem.kind == "refused")
    if refused:
        raise UnsupportedRequestError(
            f"The generator '{name}' ({generator.model}) refuses: " + " ".join(p.message for p in refused),
            problems=refused,
        )
    unread = starmap(lambda index, draft: _unread_words(index, draft, generator.capabilities), enumerate(drafts))
    picks = [draft.picked for draft in drafts if draft.picked is not None]
    return PlannedVideo(
        step_id=purchase_id(request, generator.model, scope=scope, take=brief.take),
        brief=brief,
        generator=name,
        model=generator.model,
        request=request,
        sources=_unique(picked.source for picked in picks),
        candidates=tuple(candidate for picked in picks for candidate in picked.candidates),
        retrieval=picks[0].settings if picks else {},
        estimate=generator.estimate(request),
        unmet=tuple(problem for problem in problems if problem.kind == "unmet")
        + tuple(problem for problems in unread for problem in problems),
        notes=tuple(dict.fromkeys(note for draft in drafts for note in draft.notes)),
    )


def _unique(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Each picture once, in order; the same asset fitted in two ways is two."""
    return tuple({(source.asset_id, source.conformed.media.sha256): source for source in sources}.values())


def _joined(brief: Brief, parts: tuple[PlannedVideo, ...], name: str, scope: str) -> PlannedVideo:
    shots = tuple(part.request.shots[0] for part in parts)
    identity = {
        "parts": [part.step_id for part in parts],
        "crossfade_s": brief.crossfade_s,
        "model": JOINER.id,
        "scope": scope,
        "take": brief.take,
    }
    return PlannedVideo(
        step_id=digest_json(identity),
        brief=brief,
        generator=name,
        model=JOINER,
        request=evolve(parts[0].request, shots=shots),
        sources=_unique(source for part in parts for source in part.sources),
        estimate=_together([part.estimate for part in parts]),
        unmet=tuple(
            evolve(problem, field=problem.field.replace("shots[0]", f"shots[{index}]"))
            for index, part in enumerate(parts)
            for problem in part.unmet
        ),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        parts=parts,
        crossfade_s=brief.crossfade_s,
    )


def _together(estimates: list[Estimate]) -> Estimate:
    prices = [estimate.usd_micros for estimate in estimates]
    return Estimate(
        usd_micros=None if None in prices else sum(price for price in prices if price is not None),
        video_s=sum(estimate.video_s for estimate in estimates),
        basis=estimates[0].basis,
    )


def _fill(brief: Brief) -> Filled:
    known = {"object_prompt": brief.object_prompt, "action_prompt": brief.action_prompt}
    given = {slot: value for slot, value in known.items() if value is not None}
    if brief.template is None:
        if not given:
            raise PromptError(
                "A brief needs an object prompt, an action prompt or a template.",
                hint="Brief(object_prompt=..., action_prompt=...)",
            )
        return PromptTemplate.parse(", ".join(f"<{slot}>" for slot in given)).fill({**given, **brief.slots})
    template = PromptTemplate.parse(brief.template)
    # A template may use either, both or neither of the two; every other slot that is given must be used.
    used = {slot: value for slot, value in given.items() if slot in template.slots}
    return template.fill({**used, **brief.slots})


def _lints(filled: Filled, prompt: str, capabilities: VideoCapabilities) -> tuple[str, ...]:
    """What a person may want to word better; contradictions are among the notes of the reading already."""
    if not capabilities.reads_prompt:
        return ()
    findings = [finding for finding in lint_prompt(filled) if finding.code != "contradiction"]
    findings += [
        finding
        for finding in lint_prompt(prompt, max_chars=capabilities.max_prompt_chars)
        if finding.code == "too_long"
    ]
    return tuple(finding.message for finding in findings)


def _unread_words(index: int, draft: _Draft, capabilities: VideoCapabilities) -> tuple[Problem, ...]:
    """Words that a model which reads no prompt leaves undone; what the picture shows is not one of them."""
    if capabilities.reads_prompt:
        return ()
    unmet = [] if not draft.reading.rest else [draft.reading.rest]
    if draft.brief.template is not None:
        plain = PromptTemplate.parse(draft.brief.template).text_outside_slots
        rest = read_camera(plain).rest
        unmet += [rest] if rest else []
    return tuple(
        Problem(
            kind="unmet",
            field=f"shots[{index}].prompt",
            message=f"Not performed: '{words}'. This generator performs camera moves and reads no other words.",
        )
        for words in unmet
    )
