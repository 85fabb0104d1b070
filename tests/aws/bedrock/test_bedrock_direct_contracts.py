"""Embedders, the captioner and the inpainters on Bedrock under the contracts of their seams, over HTTP."""

from __future__ import annotations

import io
from types import MappingProxyType

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from vrag.backends.aws.captioner import BedrockCaptioner
from vrag.backends.aws.cohere_embed import CohereEmbedder
from vrag.backends.aws.marengo import MarengoEmbedder
from vrag.backends.aws.nova_canvas import NovaCanvasInpainter
from vrag.backends.aws.nova_embeddings import NovaEmbedder
from vrag.backends.aws.stability import StabilityInpainter
from vrag.backends.aws.titan_embeddings import TitanEmbedder
from vrag.errors import ContentRejectedError, ThrottledError
from vrag.testing import SampleMedia, sample_edit
from vrag.testing.contracts import CaptionerContract, EmbedderContract, InpainterContract
from vrag.values.requests import EditRequest
from vrag.values.vectors import Item


class OverHttp:
    """What the suites below share; first among the bases, so that its hooks are found."""

    kind = None

    @pytest.fixture(autouse=True)
    def _worlds(self, worlds):
        self.worlds, self.made = worlds, {}

    def make(self, tmp_path, **options):
        world = self.worlds(tmp_path)
        backend = self.kind(world.bedrock, clock=world.clock, **options)
        self.made[id(backend)] = world, backend
        return backend

    def sent(self, backend):
        return len(self.made[id(backend)][0].fake.faults.calls)


class TestTitan(OverHttp, EmbedderContract):
    kind = TitanEmbedder


class TestNova(OverHttp, EmbedderContract):
    kind = NovaEmbedder


class TestCohere(OverHttp, EmbedderContract):
    kind = CohereEmbedder


class TestMarengo(OverHttp, EmbedderContract):
    kind = MarengoEmbedder


class TestCaptioner(OverHttp, CaptionerContract):
    kind = BedrockCaptioner

    def cut_off(self, tmp_path, image):
        return self.make(tmp_path, max_tokens=9)

    def refusing(self, tmp_path, image):
        backend = self.make(tmp_path)
        self.worlds(tmp_path).fake.reject_next("picture")
        return backend


class TestStability(OverHttp, InpainterContract):
    kind = StabilityInpainter
    waived = MappingProxyType(
        {"test_edit__moderation_is_typed": "one picture a call: moderation keeps all of it or nothing; see below"}
    )


class TestNovaCanvas(OverHttp, InpainterContract):
    kind = NovaCanvasInpainter

    def moderated(self, tmp_path, media, rejected):
        inpainter = self.make(tmp_path)
        self.worlds(tmp_path).fake.reject_next(*["violence"] * rejected)
        return inpainter, evolve(sample_edit(inpainter.capabilities, media), count=2)


@pytest.mark.parametrize("operation", ["erase", "replace", "outpaint", "search_and_replace", "remove_background"])
def test_a_picture_that_stability_keeps_back_is_no_success(world, operation):
    inpainter, media = StabilityInpainter(world.bedrock, clock=world.clock), SampleMedia()
    world.fake.reject_next("output image")
    with pytest.raises(ContentRejectedError, match="output image"):
        inpainter.edit(sample_edit(inpainter.capabilities, media, operation=operation), media)


@pytest.mark.parametrize("kind", [StabilityInpainter, NovaCanvasInpainter])
@pytest.mark.parametrize("white", [(0, 0, 40, 40), (300, 200, 512, 384)])
def test_exactly_the_white_side_is_repainted(world, kind, white):
    """The fake changes the side that the vendor says; the adapter may leave nothing of it and take nothing else."""
    inpainter, media = kind(world.bedrock, clock=world.clock), SampleMedia()
    picture, mask = media.picture(3, width_px=512, height_px=384), media.mask(512, 384, white=white)
    [data] = inpainter.edit(EditRequest(operation="replace", image=picture, mask=mask, prompt="a lake"), media).images
    with Image.open(media(picture)) as before, Image.open(io.BytesIO(data)) as after:
        changed = (np.asarray(before.convert("RGB")) != np.asarray(after)).any(axis=2)
    left, top, right, bottom = white
    assert changed[top:bottom, left:right].all()
    assert changed.sum() == (right - left) * (bottom - top)


def test_purposes_reach_the_model(world):
    for purpose, expected in (("index", "search_document"), ("query", "search_query")):
        CohereEmbedder(world.bedrock, clock=world.clock).embed([Item(kind="text", text="a lake")], purpose)
        assert f'"{expected}"'.encode() in world.fake.faults.calls[-1].arguments["body"]


def test_96_texts_are_one_call_of_cohere_and_throttling_is_typed(world):
    embedder = CohereEmbedder(world.bedrock, clock=world.clock)
    items = [Item(kind="text", text=f"lake {number}") for number in range(97)]
    assert embedder.embed(items, "index").shape == (97, 1024)
    assert world.fake.calls("InvokeModel") == 2
    world.fake.faults.on("InvokeModel")
    with pytest.raises(ThrottledError):
        embedder.embed(items, "index")


def test_a_picture_is_found_by_its_colour(world):
    embedder, media = TitanEmbedder(world.bedrock, clock=world.clock), SampleMedia()
    pictures = [Item(kind="image", media=media.picture(number)) for number in (1, 6)]
    rows = embedder.embed(pictures, "index", media)
    [question] = embedder.embed([Item(kind="text", text="red")], "query")
    assert (rows @ question).argmax() == 1
