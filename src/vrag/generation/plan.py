"""A brief becomes a planned video: final prompt, chosen picture, validated request, price. Nothing is bought."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from vrag.errors import PromptError, UnsupportedRequestError
from vrag.interfaces import VideoGenerator
from vrag.prompts.camera import CameraReading, read_camera
from vrag.prompts.lint import compose_prompt, describe_look, lint_prompt
from vrag.prompts.template import Filled, PromptTemplate
from vrag.values.briefs import Brief, PlannedVideo, Source
from vrag.values.requests import Input, Problem, Shot, VideoCapabilities, VideoRequest, purchase_id
from vrag.values.vectors import Candidate

__all__ = ["Picked", "plan_video"]


@frozen(kw_only=True)
class Picked:
    """The picture for a brief and how it was found."""

    source: Source
    candidates: tuple[Candidate, ...] = ()
    settings: Mapping[str, str | float] = field(factory=dict)


def plan_video(
    brief: Brief,
    *,
    name: str,
    generator: VideoGenerator,
    scope: str,
    pick: Callable[[Brief, VideoCapabilities], Picked | None],
) -> PlannedVideo:
    """Resolve one brief against one generator.

    Args:
        brief: What is asked.
        name: The generator's name in the pipeline.
        generator: Asked for its capabilities, its problems with the request, and its price; nothing is sent to it.
        scope: The secret id of the workspace, part of the purchase id.
        pick: Finds, checks and conforms the picture, or answers None for a video without one; raises
            `NoSuitableImageError` or `GateError`.

    Raises:
        PromptError: The template cannot be rendered.
        UnsupportedRequestError: The generator refuses; every reason is listed.
    """
    capabilities = generator.capabilities
    filled = _fill(brief)
    text = filled.text
    reading = read_camera(brief.action_prompt or text)
    moves = brief.camera or reading.moves
    picked = None if brief.text_only else pick(brief, capabilities)
    inputs = () if picked is None else (Input(role=picked.source.role, media=picked.source.conformed.media),)
    look_fields = {
        field: getattr(brief.look, field)
        for field in ("style", "mood", "lighting")
        if getattr(brief.look, field) is not None
    }
    in_prompt = {field: words for field, words in look_fields.items() if field not in capabilities.fields}
    prompt = text
    if capabilities.reads_prompt:
        phrases = "" if not brief.camera else ", ".join(move.value for move in brief.camera)
        prompt = compose_prompt(text, describe_look(**in_prompt), phrases)
    request = VideoRequest(
        shots=(Shot(prompt=prompt, inputs=inputs, camera=moves, duration_s=brief.duration_s),),
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
    unmet = tuple(problem for problem in problems if problem.kind == "unmet") + _unread_words(
        brief, reading, capabilities
    )
    return PlannedVideo(
        step_id=purchase_id(request, generator.model, scope=scope, take=brief.take),
        brief=brief,
        generator=name,
        model=generator.model,
        request=request,
        sources=() if picked is None else (picked.source,),
        candidates=() if picked is None else picked.candidates,
        retrieval={} if picked is None else picked.settings,
        estimate=generator.estimate(request),
        unmet=unmet,
        notes=(() if brief.camera else reading.notes) + _lints(filled, prompt, capabilities),
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


def _unread_words(brief: Brief, reading: CameraReading, capabilities: VideoCapabilities) -> tuple[Problem, ...]:
    """Words that a model which reads no prompt leaves undone; what the picture shows is not one of them."""
    if capabilities.reads_prompt:
        return ()
    unmet = [] if not reading.rest else [reading.rest]
    if brief.template is not None:
        plain = PromptTemplate.parse(brief.template).text_outside_slots
        rest = read_camera(plain).rest
        unmet += [rest] if rest else []
    return tuple(
        Problem(
            kind="unmet",
            field="shots[0].prompt",
            message=f"Not performed: '{words}'. This generator performs camera moves and reads no other words.",
        )
        for words in unmet
    )
