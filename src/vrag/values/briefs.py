"""Briefs (what a user asks) and plans (what will be bought)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from attrs import field, frozen, validators

from vrag.media.fit import FitMode, Focus
from vrag.media.mask_spec import MaskSpec
from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.values.assets import Rights
from vrag.values.canonical import digest_json, to_json
from vrag.values.requests import EditOperation, EditRequest, Estimate, Look, ModelRef, Problem, VideoRequest
from vrag.values.vectors import Candidate, Filter

__all__ = [
    "AppliedEdit",
    "Brief",
    "Choice",
    "ChoiceRule",
    "Conformed",
    "Edit",
    "OpenVideo",
    "Plan",
    "PlanFailure",
    "PlannedEdit",
    "PlannedVideo",
    "ShotBrief",
    "Source",
    "Variant",
    "best_variant",
]

ChoiceRule = Literal["sharpest", "least changed"]
"""How a variant of an edit can be chosen by what is measured; `vrag.media.variants` says what the numbers mean."""


def _number_or_rule(_edit: object, _field: object, value: int | str | None) -> None:
    rules = get_args(ChoiceRule)
    if not (value is None or (isinstance(value, int) and value >= 1) or value in rules):
        raise ValueError(f"'choose' is a number from 1, or one of {', '.join(map(repr, rules))}, not {value!r}")


@frozen(kw_only=True)
class Edit:
    """One edit of the retrieved picture before it is animated."""

    operation: EditOperation
    mask: MaskSpec | None = None
    """What is repainted; drawn at the picture's size."""
    mask_prompt: str | None = None
    """Words for what is repainted, on an inpainter that reads them."""
    prompt: str | None = None
    negative_prompt: str | None = None
    to_video_shape: bool = False
    """`outpaint` grows the picture to the shape of the video, so that nothing of it is cropped."""
    extend_px: tuple[int, int, int, int] | None = None
    """`outpaint` by so much on the left, top, right and bottom."""
    count: int = field(default=1, validator=validators.ge(1))
    """How many variants are bought in one call."""
    choose: int | ChoiceRule | None = field(default=None, validator=_number_or_rule)
    """Which variant goes on, from 1, or the rule that chooses it; None is the only one, or leaves the choice to the
    pipeline, its policy, and at last to a person."""
    seed: int | None = None
    take: int = field(default=1, validator=validators.ge(1))
    """2 buys the same edit again."""


@frozen(kw_only=True)
class ShotBrief:
    """One shot of a storyboard; what is left out is as in the brief that it stands in."""

    object_prompt: str | None = None
    action_prompt: str | None = None
    template: str | None = None
    knowledge_base: str | None = None
    picture: str | None = None
    filter: Filter | None = None
    edits: tuple[Edit, ...] = ()
    camera: tuple[CameraMove, ...] = ()
    fit: FitMode | None = None
    focus: Focus | None = None
    duration_s: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    seed: int | None = None


@frozen(kw_only=True)
class Brief:
    """One video that a user asks for."""

    object_prompt: str | None = None
    """What it shows, such as "red shoes"; it is also the query for the picture."""
    action_prompt: str | None = None
    """What happens, such as "camera pans down"."""
    template: str | None = None
    """The prompt with named slots, each of which needs a value; None is `<object_prompt>, <action_prompt>`, or the
    one of the two that is given."""
    slots: Mapping[str, str] = field(factory=dict)
    """Values of further slots."""
    knowledge_base: str | None = None
    """Where to look for the picture; None is allowed where the pipeline has exactly one."""
    picture: str | None = None
    """An asset id: take this picture instead of searching. It passes the same gate."""
    text_only: bool = False
    """Use no picture at all, on a model that can."""
    filter: Filter | None = None
    model: str | None = None
    """A name from the pipeline's generators; None is allowed where it has exactly one."""
    camera: tuple[CameraMove, ...] = ()
    """Typed moves; where empty they are read from the action prompt."""
    look: Look = Look()
    negative_prompt: str | None = None
    seed: int | None = None
    width_px: int = field(default=1280, validator=validators.ge(16))
    height_px: int = field(default=720, validator=validators.ge(16))
    fps: float = field(default=24.0, validator=[validators.gt(0), validators.le(120)])
    duration_s: float = field(default=6.0, validator=validators.gt(0))
    codec: str = "h264"
    fit: FitMode = "cover"
    focus: Focus | None = None
    """For the fit `subject`: what to keep, as left, top, right, bottom in fractions of the picture; None finds it."""
    edits: tuple[Edit, ...] = ()
    """What is done to the picture, one after the other, lossless in between."""
    shots: tuple[ShotBrief, ...] = ()
    """A storyboard: several shots, each with its own picture and action. Where the model takes fewer shots at once, single ones
    are made and joined."""
    crossfade_s: float = field(default=0.0, validator=validators.ge(0))
    """How long one shot of a storyboard dissolves into the next; 0 is a cut."""
    take: int = field(default=1, validator=validators.ge(1))
    """2 buys a second video of the same request."""


@frozen(kw_only=True)
class Conformed:
    """How a picture was brought to the shape that a model takes; nothing is ever squashed."""

    media: MediaRef
    """The exact bytes that are given to the model."""
    crop_px: tuple[int, int, int, int]
    """Left, top, right, bottom of what was kept, in pixels of the upright original."""
    mode: FitMode
    upscaled: bool = False
    """The original was too small: detail is missing, and the record says so."""


@frozen(kw_only=True)
class Variant:
    """One of the pictures that an edit gave."""

    media: MediaRef
    scores: Mapping[str, float] = field(factory=dict)
    """By name of the rule; what could not be measured is left out."""


def best_variant(rule: str, variants: Sequence[Variant]) -> int | None:
    """The number, from 1, of the one with the best score; the first of equals, None unless all were measured."""
    scores = [one.scores[rule] for one in variants if rule in one.scores]
    if not scores or len(scores) < len(variants):
        return None
    return 1 + scores.index(max(scores) if rule == "sharpest" else min(scores))


@frozen(kw_only=True)
class Choice:
    """Which of several variants was taken, and by whom or what."""

    by: str
    """The rule, `number in the brief`, or `function of the pipeline`."""
    variants: tuple[Variant, ...]


@frozen(kw_only=True)
class AppliedEdit:
    """An edit that was bought, in the history of a source."""

    step_id: str
    """The step that made it; its record has this id too."""
    operation: EditOperation
    media: MediaRef
    """The variant that went on."""
    variant: int = 1
    choice: Choice | None = None
    """How that variant was chosen; None where there was only one."""


@frozen(kw_only=True)
class Source:
    """A picture that a planned video is made from."""

    asset_id: str
    knowledge_base: str
    role: str
    original: MediaRef
    conformed: Conformed
    review_sequence: int
    """Which review allowed it; the gate is read again at submission."""
    caption: str | None = None
    file_name: str = ""
    rights: Rights = Rights()
    """What the holder allowed at this moment."""
    edits: tuple[AppliedEdit, ...] = ()
    """What was done to the picture before it was fitted, first one first."""


@frozen(kw_only=True)
class PlannedEdit:
    """One edit of one picture, resolved: everything that is needed to buy it, and what it would cost."""

    step_id: str
    """The identity of the purchase."""
    brief: Brief
    generator: str
    """Name of the inpainter in the pipeline."""
    model: ModelRef
    request: EditRequest
    source: Source
    """The picture; `conformed` is what is given to the inpainter, `edits` what was done to it before."""
    candidates: tuple[Candidate, ...] = ()
    retrieval: Mapping[str, str | float] = field(factory=dict)
    estimate: Estimate
    unmet: tuple[Problem, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """The picture, as a video has them."""
        return (self.source,)


@frozen(kw_only=True)
class PlannedVideo:
    """One brief, resolved: everything that is needed to buy it, and what it would cost."""

    step_id: str
    """The identity of the purchase, and its token."""
    brief: Brief
    generator: str
    model: ModelRef
    request: VideoRequest
    sources: tuple[Source, ...]
    candidates: tuple[Candidate, ...] = ()
    retrieval: Mapping[str, str | float] = field(factory=dict)
    """Settings of the search that chose the picture."""
    estimate: Estimate
    unmet: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """How words were read, such as "'pans down' is a tilt down"."""
    parts: tuple[PlannedVideo, ...] = ()
    """Single shots that are made first and joined to this one; then `request` says what the whole is to be."""
    crossfade_s: float = 0.0

    @property
    def purchases(self) -> tuple[PlannedVideo, ...]:
        """What is asked of a generator: the parts of a joined video, else itself."""
        return self.parts or (self,)


@frozen(kw_only=True)
class OpenVideo:
    """A brief that waits for something that `plan` must not buy."""

    index: int
    """Position of the brief in the list that was given, from 0."""
    brief: Brief
    waits_for: Literal["edit", "choice"]
    edits: tuple[PlannedEdit, ...]
    """Those that are to be bought, or whose variants a person chooses among."""
    variants: tuple[tuple[Variant, ...], ...] = ()
    """What there is to choose from, for each of `edits`; empty where they are not bought."""


@frozen(kw_only=True)
class PlanFailure:
    """A brief that cannot be planned, with the error as JSON."""

    index: int
    """Position of the brief in the list that was given, from 0."""
    brief: Brief
    error: Mapping[str, object]


@frozen(kw_only=True)
class Plan:
    """Briefs resolved to purchases. No image and no video has been bought to make it."""

    format: int = 1
    videos: tuple[PlannedVideo, ...] = ()
    rows: tuple[int, ...] = ()
    """Position of the brief of each video in the list that was given, from 0."""
    open: tuple[OpenVideo, ...] = ()
    """Briefs that wait for an edit, which `prepare` buys, or for a person's choice."""
    failures: tuple[PlanFailure, ...] = ()

    @property
    def edits(self) -> tuple[PlannedEdit, ...]:
        """What `prepare` would buy, each once."""
        waiting = (edit for one in self.open if one.waits_for == "edit" for edit in one.edits)
        return tuple({edit.step_id: edit for edit in waiting}.values())

    @property
    def digest(self) -> str:
        """SHA-256 over everything that would be bought; every byte is in it through the media refs."""
        bought = {"format": self.format, "videos": to_json(self.videos)}
        return digest_json(bought | ({"edits": to_json(self.edits)} if self.edits else {}))

    @property
    def usd_micros(self) -> int | None:
        """Sum of the estimates; None if one of them is not known."""
        estimates = [edit.estimate for edit in self.edits] + [video.estimate for video in self.videos]
        prices = [estimate.usd_micros for estimate in estimates]
        return None if None in prices else sum(price for price in prices if price is not None)
