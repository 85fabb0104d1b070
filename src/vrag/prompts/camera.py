"""The documented camera moves, typed, and the reader of camera words in a prompt."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CameraMove"]


class CameraMove(StrEnum):
    """One camera motion or speed; the value is the canonical phrase to put into a prompt.

    The first 25 are the 22 motions that Amazon documents for Nova Reel ("whip" comes in pairs of directions), and the
    two speeds; crane and handheld are common film terms beside them.

    Source: Amazon Nova User Guide, "Camera controls" (checked 2026-11-20).
    """

    AERIAL_SHOT = "aerial shot"
    ARC_SHOT = "arc shot"
    CLOCKWISE_ROTATION = "clockwise rotation"
    COUNTERCLOCKWISE_ROTATION = "counterclockwise rotation"
    DOLLY_IN = "dolly in"
    DOLLY_OUT = "dolly out"
    DOLLY_ZOOM = "dolly zoom"
    FOLLOWING_SHOT = "following shot"
    PAN_LEFT = "pan left"
    PAN_RIGHT = "pan right"
    PEDESTAL_DOWN = "pedestal down"
    PEDESTAL_UP = "pedestal up"
    STATIC_SHOT = "static shot"
    TILT_DOWN = "tilt down"
    TILT_UP = "tilt up"
    TRACK_LEFT = "track left"
    TRACK_RIGHT = "track right"
    WHIP_PAN_LEFT = "whip pan left"
    WHIP_PAN_RIGHT = "whip pan right"
    WHIP_TILT_DOWN = "whip tilt down"
    WHIP_TILT_UP = "whip tilt up"
    WHIP_ZOOM_IN = "whip zoom in"
    WHIP_ZOOM_OUT = "whip zoom out"
    ZOOM_IN = "zoom in"
    ZOOM_OUT = "zoom out"
    SLOW_MOTION = "slow motion"
    TIME_LAPSE = "time-lapse"
    CRANE_DOWN = "crane down"
    CRANE_UP = "crane up"
    HANDHELD = "handheld"
