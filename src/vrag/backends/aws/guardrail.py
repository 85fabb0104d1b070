"""Moderation before anything is bought: Amazon Bedrock Guardrails by ApplyGuardrail, which needs no model call.

StartAsyncInvoke takes no guardrail, so prompts and pictures of videos are checked apart.

Sources: service model of `bedrock-runtime` in botocore; Amazon Bedrock User Guide "Block harmful images with content
filters" (2026-11-20).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from attrs import field, frozen

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.errors import translated
from vrag.errors import UsageError
from vrag.generation.catalogue import Catalogue
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import thumbnail
from vrag.values.canonical import JSON
from vrag.values.requests import Estimate

__all__ = ["BedrockGuardrail", "Moderation", "Side", "decode_answer", "encode_request"]

Side = Literal["INPUT", "OUTPUT"]
"""What people give to a model, or what a model made: a guardrail may judge them differently."""
MODEL: Final = "guardrails"
_TEXT_CHARS: Final = 20_000
_UNIT_CHARS: Final = 1000
_SENT_SIDE_PX: Final = 2048
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg"}


@frozen(kw_only=True)
class Moderation:
    """What moderation says of some texts and pictures."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    """Why not: the policy and what it found, such as `content: VIOLENCE (HIGH)`; never the words themselves."""
    billed: bool | None = None
    usage: Mapping[str, int] = field(factory=dict)
    """Units that were charged, by the service's own names."""
    model: str = ""
    """Which guardrail, with its version."""


def encode_request(
    guardrail: str, version: str, texts: Sequence[str], images: Sequence[tuple[str, bytes]], source: Side
) -> dict[str, JSON]:
    """The parameters of ApplyGuardrail; `images` are pairs of `png` or `jpeg` and raw bytes."""
    content: list[JSON] = [{"text": {"text": text}} for text in texts]
    content += [{"image": {"format": kind, "source": {"bytes": data}}} for kind, data in images]
    return {"guardrailIdentifier": guardrail, "guardrailVersion": version, "source": source, "content": content}


def decode_answer(answer: Mapping[str, Any], model: str = "") -> Moderation:
    """What an answer of ApplyGuardrail says.

    A guardrail that would mask something steps in too: masked words are not those that were asked for.
    """
    usage = {name: units for name, units in (answer.get("usage") or {}).items() if isinstance(units, int) and units}
    allowed = answer.get("action") == "NONE"
    found = tuple(dict.fromkeys(reason for one in answer.get("assessments") or () for reason in _reasons(one)))
    reasons = () if allowed else found or (str(answer.get("actionReason") or "the guardrail gives no reason")[:200],)
    billed = any(name != "sensitiveInformationPolicyFreeUnits" for name in usage)
    return Moderation(allowed=allowed, reasons=reasons, billed=billed, usage=usage, model=model)


def _reasons(assessment: Mapping[str, Any]) -> Iterator[str]:
    lists = (
        ("topic", "topicPolicy", ("topics",), "name"),
        ("content", "contentPolicy", ("filters",), "type"),
        ("word", "wordPolicy", ("customWords", "managedWordLists"), "type"),
        ("personal data", "sensitiveInformationPolicy", ("piiEntities",), "type"),
        ("pattern", "sensitiveInformationPolicy", ("regexes",), "name"),
        ("grounding", "contextualGroundingPolicy", ("filters",), "type"),
    )
    for kind, policy, names, told in lists:
        for name in names:
            for one in (assessment.get(policy) or {}).get(name) or ():
                if one.get("action", "NONE") == "NONE":
                    continue  # only noticed
                # What matched may be personal, and would stand in records.
                what = str(one.get(told) or "one of a list")[:80]
                sure = f" ({one['confidence']})" if "confidence" in one else ""
                yield f"{kind}: {what}{sure}"


class BedrockGuardrail:
    """Checks texts and pictures against one guardrail; safe to use from many threads."""

    def __init__(
        self, client: Any, guardrail_id: str, version: str = "DRAFT", *, catalogue: Catalogue | None = None
    ) -> None:
        """Use a ready-made client; nothing is sent.

        Args:
            client: A boto3 client of `bedrock-runtime`, in the Region of the guardrail.
            guardrail_id: Its id or ARN.
            version: `DRAFT`, or a number.
            catalogue: Limits and prices; by default those of this release.

        Raises:
            UsageError: The version is none.
        """
        if version != "DRAFT" and not (version.isascii() and version.isdecimal() and version[0] != "0"):
            raise UsageError(f"A version of a guardrail is DRAFT or a number from 1 on, not '{version[:40]}'.")
        self._client = client
        self._id = guardrail_id
        self._version = version
        self._known = (catalogue or Catalogue.load()).model(PROVIDER, MODEL)
        self.model = f"{PROVIDER}:guardrail/{guardrail_id.rpartition('/')[2]}:{version}"

    def estimate(self, texts: Sequence[str], images: Sequence[object] = ()) -> Estimate:
        """What `check` would cost; nothing is sent. Not known without a price of your own."""
        amounts = {"text_unit": sum(math.ceil(len(text) / _UNIT_CHARS) for text in texts), "image": len(images)}
        return self._known.estimate({unit: amount for unit, amount in amounts.items() if amount})

    def check(self, texts: Sequence[str], images: Sequence[bytes] = (), *, source: Side = "INPUT") -> Moderation:
        """Ask the guardrail; a picture past its limits is checked as a smaller copy.

        Texts of more than 20 000 characters are checked in parts, pictures at most 20 a call. The first call whose
        answer is no ends it.

        Args:
            texts: Prompts and captions; those without a letter are not sent.
            images: Encoded pictures.
            source: Who made them.

        Raises:
            ImageRejectedError: One of `images` is no picture.
            BackendError: It could not be asked; this is no permission.
        """
        parts = [text[first : first + _TEXT_CHARS] for text in texts for first in range(0, len(text), _TEXT_CHARS)]
        parts = [part for part in parts if part.strip()]
        pictures = [self._picture(data) for data in images]
        many = int(self._known.limit("images").max or 1)
        calls: list[tuple[list[str], list[tuple[str, bytes]]]] = [([part], []) for part in parts]
        calls += [([], pictures[first : first + many]) for first in range(0, len(pictures), many)]
        if len(parts) == 1 and 0 < len(pictures) <= many:
            calls = [(parts, pictures)]
        usage: dict[str, int] = {}
        told = Moderation(allowed=True, billed=False, model=self.model)
        for some, seen in calls:
            asked = encode_request(self._id, self._version, some, seen, source)
            with translated("ApplyGuardrail", self.model):
                answer = self._client.apply_guardrail(**asked)
            told = decode_answer(answer, self.model)
            for name, units in told.usage.items():
                usage[name] = usage.get(name, 0) + units
            if not told.allowed:
                break
        return Moderation(allowed=told.allowed, reasons=told.reasons, billed=bool(usage), usage=usage, model=self.model)

    def _picture(self, data: bytes) -> tuple[str, bytes]:
        header = open_image(data, "picture", ImageLimits(min_side_px=1))
        sides = (header.width_px, header.height_px)
        fits = all(self._known.limit("image_side_px").takes(side) for side in sides)
        if header.media_type in _FORMATS and fits and self._known.limit("image_bytes").takes(len(data)):
            return _FORMATS[header.media_type], data
        return "jpeg", thumbnail(data, "picture", max_side_px=_SENT_SIDE_PX)
