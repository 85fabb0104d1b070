"""Nova Canvas: pictures in the manner of others, for accounts that may still call it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from vrag.backends.aws.nova_canvas import NovaCanvasInpainter, encode_variation
from vrag.errors import ContentRejectedError, ModelRetiredError, UnsupportedRequestError
from vrag.testing import SampleMedia


def _picture() -> bytes:
    media = SampleMedia()
    with media(media.picture(6, width_px=640, height_px=480)) as stream:
        return stream.read()


def test_variations_come_in_number_and_size_and_are_one_charge(world: Any) -> None:
    canvas = NovaCanvasInpainter(world.bedrock, clock=world.clock)
    made = canvas.vary([_picture()], prompt="a calm lake", count=3, seed=4)
    assert len(made.images) == 3
    assert made.report["seed"] == 4
    with Image.open(io.BytesIO(made.images[0])) as opened:
        assert opened.size == (640, 480)
    assert len(world.fake.charges) == 1
    world.fake.reject_next("output image")
    partly = canvas.vary([_picture()], count=2)
    assert (len(partly.images), len(partly.rejected)) == (1, 1)
    world.fake.reject_next("output image")
    with pytest.raises(ContentRejectedError):
        canvas.vary([_picture()])


def test_values_past_a_limit_and_a_retired_model_are_not_sent(world: Any) -> None:
    canvas = NovaCanvasInpainter(world.bedrock, clock=world.clock)
    for given, told in (
        ({"similarity": 0.1}, "0.2 to 1"),
        ({"count": 6}, "1 to 5"),
        ({"prompt": "x" * 1025}, "1 to 1024"),
    ):
        with pytest.raises(UnsupportedRequestError, match=told):
            canvas.vary([_picture()], **given)
    with pytest.raises(UnsupportedRequestError, match="1 to 5"):
        canvas.vary([])
    world.clock.advance(366 * 86_400)
    with pytest.raises(ModelRetiredError, match="2026-09-30"):
        canvas.vary([_picture()])
    assert world.fake.calls("InvokeModel") == 0


def test_the_body_of_a_variation() -> None:
    body = encode_variation([b"a", b"b"], prompt="lake", negative_prompt="people", similarity=0.5, count=2, seed=9)
    assert body == {
        "taskType": "IMAGE_VARIATION",
        "imageVariationParams": {
            "images": ["YQ==", "Yg=="],
            "similarityStrength": 0.5,
            "text": "lake",
            "negativeText": "people",
        },
        "imageGenerationConfig": {"numberOfImages": 2, "quality": "standard", "seed": 9},
    }
