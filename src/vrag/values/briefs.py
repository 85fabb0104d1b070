"""Briefs (what a user asks) and plans (what will be bought)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen, validators

from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.values.assets import Rights
from vrag.values.canonical import digest_json, to_json
from vrag.values.requests import Estimate, Look, ModelRef, Problem, VideoRequest
from vrag.values.vectors import Candidate, Filter

__all__ = ["Brief", "Conformed", "FitMode", "Plan", "PlanFailure", "PlannedVideo", "Source"]

FitMode = Literal["cover", "contain"]
"""`cover` crops to the shape of the video; `contain` keeps all of the picture and fills the rest. Neither squashes."""


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
    failures: tuple[PlanFailure, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over everything that would be bought; every byte is in it through the media refs."""
        return digest_json({"format": self.format, "videos": to_json(self.videos)})

    @property
    def usd_micros(self) -> int | None:
        """Sum of the estimates; None if one of them is not known."""
        prices = [video.estimate.usd_micros for video in self.videos]
        return None if None in prices else sum(price for price in prices if price is not None)
