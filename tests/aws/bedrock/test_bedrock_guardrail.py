"""Moderation by ApplyGuardrail: what is allowed, why not, what was charged, and answers of every policy."""

from __future__ import annotations

import io
from typing import Any

import botocore.session
import numpy as np
import pytest
from botocore.stub import Stubber
from PIL import Image

from vrag.backends.aws.guardrail import BedrockGuardrail, decode_answer
from vrag.errors import ImageRejectedError, ThrottledError, UsageError
from vrag.generation.catalogue import Catalogue
from vrag.testing import SampleMedia

PURPLE, RED = 5, 6
NO_USAGE = dict.fromkeys(
    (
        "topicPolicyUnits",
        "contentPolicyUnits",
        "wordPolicyUnits",
        "sensitiveInformationPolicyUnits",
        "sensitiveInformationPolicyFreeUnits",
        "contextualGroundingPolicyUnits",
    ),
    0,
)


def _picture(number: int, **size: int) -> bytes:
    media = SampleMedia()
    with media(media.picture(number, **size)) as stream:
        return stream.read()


@pytest.fixture
def guardrail(world: Any) -> BedrockGuardrail:
    return BedrockGuardrail(world.bedrock, "abc123", "1")


def test_calm_words_and_pictures_pass_and_are_charged(guardrail: BedrockGuardrail) -> None:
    told = guardrail.check(["a calm lake"], [_picture(RED)])
    assert (told.allowed, told.reasons, told.billed) == (True, (), True)
    assert told.usage == {"contentPolicyUnits": 1, "contentPolicyImageUnits": 1}
    assert told.model == "aws-bedrock:guardrail/abc123:1"


def test_what_is_blocked_says_why_and_not_with_which_words(guardrail: BedrockGuardrail) -> None:
    told = guardrail.check(["so much gore"])
    assert (told.allowed, told.reasons) == (False, ("content: VIOLENCE (HIGH)",))
    assert "gore" not in repr(told)
    assert guardrail.check([], [_picture(PURPLE)], source="OUTPUT").reasons == ("content: HATE (HIGH)",)


def test_nothing_to_ask_asks_nothing(guardrail: BedrockGuardrail, world: Any) -> None:
    told = guardrail.check(["", "  \n"], [])
    assert (told.allowed, told.billed) == (True, False)
    assert world.fake.calls("ApplyGuardrail") == 0


def test_large_pictures_are_checked_small_and_many_by_twenty(guardrail: BedrockGuardrail, world: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    assert len(out.getvalue()) > 4_000_000
    assert guardrail.check([], [out.getvalue()]).allowed
    webp = io.BytesIO()
    Image.new("RGB", (100, 80), (200, 40, 40)).save(webp, "WEBP")
    assert guardrail.check([], [webp.getvalue()]).allowed
    before = world.fake.calls("ApplyGuardrail")
    assert guardrail.check([], [_picture(RED)] * 45).usage == {"contentPolicyImageUnits": 45}
    assert world.fake.calls("ApplyGuardrail") == before + 3


def test_a_long_text_is_checked_to_its_end(guardrail: BedrockGuardrail) -> None:
    assert not guardrail.check(["a calm lake " * 3000 + " gore"]).allowed


def test_not_asked_is_no_permission(guardrail: BedrockGuardrail, world: Any) -> None:
    world.fake.faults.on("ApplyGuardrail")
    with pytest.raises(ThrottledError):
        guardrail.check(["a calm lake"])
    with pytest.raises(ImageRejectedError):
        guardrail.check([], [b"no picture"])
    with pytest.raises(UsageError, match="DRAFT or a number"):
        BedrockGuardrail(world.bedrock, "abc123", "latest")


def test_a_price_is_known_only_if_it_is_ours(world: Any) -> None:
    assert BedrockGuardrail(world.bedrock, "abc123").estimate(["a"], [b""]).usd_micros is None
    catalogue = Catalogue.load().with_price("aws-bedrock", "guardrails", "text_unit", 150)
    catalogue = catalogue.with_price("aws-bedrock", "guardrails", "image", 750)
    priced = BedrockGuardrail(world.bedrock, "abc123", catalogue=catalogue)
    assert priced.estimate(["a" * 1001, "b"], [b"", b""]).usd_micros == 3 * 150 + 2 * 750
    assert priced.estimate([], []).usd_micros == 0


ASSESSMENTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"topicPolicy": {"topics": [{"name": "Politics", "type": "DENY", "action": "BLOCKED"}]}}, ("topic: Politics",)),
    (
        {
            "wordPolicy": {
                "customWords": [{"match": "secret-word", "action": "BLOCKED"}],
                "managedWordLists": [{"match": "bad", "type": "PROFANITY", "action": "BLOCKED"}],
            }
        },
        ("word: one of a list", "word: PROFANITY"),
    ),
    (
        {
            "sensitiveInformationPolicy": {
                "piiEntities": [{"match": "ann@example.org", "type": "EMAIL", "action": "ANONYMIZED"}],
                "regexes": [{"name": "ticket", "match": "T-1", "regex": "T-.", "action": "BLOCKED"}],
            }
        },
        ("personal data: EMAIL", "pattern: ticket"),
    ),
    (
        {"contentPolicy": {"filters": [{"type": "HATE", "confidence": "LOW", "action": "NONE", "detected": True}]}},
        ("the guardrail gives no reason",),
    ),
]


@pytest.mark.parametrize(("assessment", "reasons"), ASSESSMENTS)
def test_answers_of_every_policy_in_the_shape_of_the_service(
    assessment: dict[str, Any], reasons: tuple[str, ...]
) -> None:
    """The answer goes through botocore, which refuses members that the service has not."""
    client = botocore.session.Session().create_client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    answer = {
        "action": "GUARDRAIL_INTERVENED",
        "outputs": [{"text": "no"}],
        "assessments": [assessment],
        "usage": {**NO_USAGE, "topicPolicyUnits": 1},
    }
    with Stubber(client) as stub:
        stub.add_response("apply_guardrail", answer)
        told = BedrockGuardrail(client, "abc123").check(["words"])
    assert (told.allowed, told.reasons, told.billed) == (False, reasons, True)
    for word in ("secret-word", "ann@example.org", "T-1"):
        assert word not in repr(told)
    assert decode_answer(answer).usage == {"topicPolicyUnits": 1}
