"""How the fake answers the control plane: what a model is, how long it lasts, and whether the account may call it.

Source: service model of `bedrock` in botocore (2026-11-20).
"""

from __future__ import annotations

from datetime import date

from vrag.generation.catalogue import Model
from vrag.values.canonical import JSON

__all__ = ["availability", "details"]

_OUTPUTS = {"embedder": "EMBEDDING", "captioner": "TEXT", "inpainter": "IMAGE"}


def details(model: Model, region: str) -> JSON:
    """`modelDetails` of GetFoundationModel."""
    life = model.lifecycle
    told: dict[str, JSON] = {"status": "ACTIVE" if life.legacy_on is None else "LEGACY"}
    if life.legacy_on is not None:
        told["legacyTime"] = _midnight(life.legacy_on)
    if life.retired_on is not None:
        told["endOfLifeTime"] = _midnight(life.retired_on)
    outputs = [_OUTPUTS[model.kind]] if model.kind in _OUTPUTS else []  # no modality is named for video
    return {
        "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{model.id}",
        "modelId": model.id,
        "modelName": model.name,
        "providerName": model.id.partition(".")[0],
        "inputModalities": ["TEXT", "IMAGE"],
        "outputModalities": outputs,
        "inferenceTypesSupported": ["INFERENCE_PROFILE" if model.profiles else "ON_DEMAND"],
        "modelLifecycle": told,
    }


def availability(model: Model, *, allowed: bool) -> JSON:
    """The answer of GetFoundationModelAvailability."""
    return {
        "modelId": model.id,
        "agreementAvailability": {"status": "AVAILABLE" if allowed else "NOT_AVAILABLE"},
        "authorizationStatus": "AUTHORIZED" if allowed else "NOT_AUTHORIZED",
        "entitlementAvailability": "AVAILABLE" if allowed else "NOT_AVAILABLE",
        "regionAvailability": "AVAILABLE",
    }


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"
