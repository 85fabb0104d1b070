"""Models for texts and pictures from folders: the contract, what is done to pictures, and hostile folders."""

from __future__ import annotations

import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vrag.backends import Context
from vrag.backends.local import backend
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import BackendError, ConfigError, ImageRejectedError, UsageError
from vrag.knowledge.sources import SourcePicture
from vrag.media.image import ImageLimits
from vrag.testing.contracts import EmbedderContract
from vrag.testing.media import SampleMedia
from vrag.values.vectors import Item

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from vrag.backends.local.clip_model import ClipModelEmbedder

COLOURS = {"red": (205, 40, 45), "green": (40, 150, 60), "blue": (40, 70, 200), "yellow": (235, 215, 50)}


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


class TestClipModelEmbedder(EmbedderContract):
    def make(self, tmp_path):
        return ClipModelEmbedder(self.folder)

    def sent(self, backend):
        return 0

    @pytest.fixture(autouse=True, params=["two files", "one file", "siglip"])
    def _folder(self, request, clip_folder):
        kind = "siglip" if request.param == "siglip" else "clip"
        self.folder = clip_folder(kind=kind, together=request.param == "one file")


def jpeg(colour, size=(96, 80), spot=0):
    picture = Image.new("RGB", size, colour)
    picture.paste((spot, spot, spot), (0, 0, 4, 4))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95)
    return out.getvalue()


def embed(embedder, *items):
    """Texts and encoded pictures, in order."""
    media = SampleMedia()
    made = [
        Item(kind="text", text=one)
        if isinstance(one, str)
        else Item(kind="image", media=media.add(one, "image/jpeg", 96, 80))
        for one in items
    ]
    return embedder.embed(made, "query", media)


def change(folder, name, **values):
    told = json.loads((folder / name).read_text(encoding="utf-8"))
    write(folder, name, {key: value for key, value in (told | values).items() if value is not None})


@pytest.mark.parametrize("options", [{}, {"together": True}, {"kind": "siglip"}])
def test_words_lie_beside_the_pictures_that_they_describe(clip_folder, options):
    rows = embed(ClipModelEmbedder(clip_folder(**options)), *COLOURS, *map(jpeg, COLOURS.values()))
    alike = rows[:4] @ rows[4:].T
    assert (alike.argmax(axis=1) == np.arange(4)).all()
    assert (alike.diagonal() > 0.8).all()


def test_two_files_and_one_give_the_same_rows_in_spaces_of_their_own(clip_folder):
    one, two = ClipModelEmbedder(clip_folder("one", together=True)), ClipModelEmbedder(clip_folder("two"))
    things = ["red shoes", jpeg(COLOURS["blue"])]
    assert np.abs(embed(one, *things) - embed(two, *things)).max() < 1e-6
    assert one.space != two.space


def test_a_picture_is_resized_and_cropped_as_transformers_does_it(clip_folder):
    folder = clip_folder()
    pixels = ClipModelEmbedder(folder)._pixels
    noise = np.random.default_rng(1).integers(0, 256, (301, 517, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    whole = Image.fromarray(noise).resize((32 * 517 // 301, 32), Image.Resampling.BICUBIC)
    left = (whole.width - 32) // 2
    expected = np.asarray(whole.crop((left, 0, left + 32, 32)), np.float64).transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(pixels.of(out.getvalue(), ImageLimits())[0] - expected).max() < 0.02


def test_a_sliver_of_a_picture_is_cropped_before_it_is_enlarged(clip_folder):
    embedder = ClipModelEmbedder(clip_folder())
    # Resized whole, it would have 32 x 1 920 000 pixels, which Pillow would be asked to make.
    assert embedder._pixels._box(1, 60_000) == pytest.approx((0, 29_999.5, 1, 30_000.5))
    assert np.isfinite(embed(embedder, jpeg((205, 40, 45), size=(1, 60_000)))).all()


def test_other_settings_are_another_space(clip_folder):
    folder = clip_folder()
    spaces = {ClipModelEmbedder(folder).space}
    change(folder, "preprocessor_config.json", resample=2)
    spaces.add(ClipModelEmbedder(folder).space)
    change(folder, "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5])
    spaces.add(ClipModelEmbedder(folder).space)
    spaces.add(ClipModelEmbedder(folder, name="other").space)
    spaces.add(ClipModelEmbedder(clip_folder("weights", seed=1), name="tiny-clip").space)
    assert len(spaces) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "'ViTImageProcessor', and only CLIPFeatureExtractor"),
        ({"do_resize": False}, "do_resize is off"),
        ({"do_center_crop": False}, "a size of the shortest edge without a crop"),
        ({"size": {"shortest_edge": 10**9}}, "shortest_edge is 1000000000, not a whole number from 1 to 1024"),
        ({"crop_size": {"height": 10**9, "width": 32}}, "height is 1000000000"),
        ({"crop_size": 64}, "crops 64 x 64 pixels out of a shortest edge of 32"),
        ({"size": {"shortest_edge": True}}, "shortest_edge is True"),
        ({"resample": 0}, "resample is '0', and only 2, 3"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std is not 3 usable numbers"),
        ({"image_mean": "0.5"}, "image_mean is not 3 usable numbers"),
        ({"rescale_factor": float("nan")}, "rescale_factor is not 1 usable numbers"),
    ],
)
def test_a_preprocessor_that_is_not_known_is_refused_by_name(clip_folder, values, message):
    folder = clip_folder()
    change(folder, "preprocessor_config.json", **values)
    with pytest.raises(UsageError, match=re.escape(message)):
        ClipModelEmbedder(folder)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("onnx/vision_model.onnx", "it has no vision_model.onnx"),
        ("onnx/text_model.onnx", "it has no text_model.onnx"),
        ("tokenizer.json", "it has no tokenizer.json"),
        ("preprocessor_config.json", "it has no preprocessor_config.json"),
        ("config.json", "model_type is 'None', and only clip, siglip"),
    ],
)
def test_missing_files_are_named(clip_folder, missing, message):
    folder = clip_folder()
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=re.escape(message)):
        ClipModelEmbedder(folder)


def test_other_kinds_of_models_are_refused_by_name(clip_folder):
    folder = clip_folder()
    change(folder, "config.json", model_type="blip")
    with pytest.raises(UsageError, match="model_type is 'blip', and only clip, siglip can be run"):
        ClipModelEmbedder(folder)
    change(folder, "config.json", model_type="clip", text_config={"max_position_embeddings": 10**12})
    with pytest.raises(UsageError, match="not a whole number from 1 to 512"):
        ClipModelEmbedder(folder)
    unpadded = clip_folder("unpadded", kind="siglip")
    write(unpadded, "tokenizer_config.json", {"pad_token": "<nothing>"})
    with pytest.raises(UsageError, match="names no pad_token"):
        ClipModelEmbedder(unpadded)


def test_what_clip_makes_before_the_common_space_is_no_vector(clip_folder):
    folder = clip_folder(kind="siglip")
    change(folder, "config.json", model_type="clip")
    with pytest.raises(UsageError, match=re.escape("makes pooler_output of 2 dimensions; needed is text_embeds")):
        ClipModelEmbedder(folder)


def test_towers_of_two_spaces_are_refused(clip_folder):
    folder, other = clip_folder(), clip_folder("other", dimension=64)
    (other / "onnx/vision_model.onnx").rename(folder / "onnx/vision_model.onnx")
    with pytest.raises(BackendError, match=re.escape("shape (1, 64), not 1 x 96")):
        ClipModelEmbedder(folder)


def test_pictures_from_strangers_are_refused_by_the_loader(clip_folder):
    embedder = ClipModelEmbedder(clip_folder(), limits=ImageLimits(max_bytes=5000, min_side_px=1))
    for data, code in (
        (b"GIF89a" + b"x" * 99, "unsupported_format"),
        (b"", "empty"),
        (b"\xff\xd8\xff" * 9, "undecodable"),
    ):
        with pytest.raises(ImageRejectedError) as caught:
            embed(embedder, data)
        assert caught.value.code == code
    with pytest.raises(ImageRejectedError, match="are allowed"):
        embed(embedder, b"\xff\xd8\xff" + bytes(9000))
    with pytest.raises(UsageError, match="Item 1 is a picture"):
        embedder.embed([Item(kind="text", text="red"), Item(kind="image")], "index")


@pytest.fixture
def pictures():
    """Twelve pictures that no word describes, of four colours."""
    return [
        SourcePicture.from_bytes(f"IMG_{number:04}.jpg", jpeg(colour, spot=20 * number))
        for number, colour in enumerate([*COLOURS.values()] * 3)
    ]


def test_pictures_without_words_are_found_by_their_pixels(tmp_path, clip_folder, pictures):
    clip_folder("tiny")
    (tmp_path / "vrag.toml").write_text(
        """[knowledge_bases.brand]\nembedder = { use = "local:clip-model", folder = "tiny" }\n""", encoding="utf-8"
    )
    assembly = Assembly(read_configuration(tmp_path / "vrag.toml", environ={}), environ={})
    kb = assembly.knowledge_base("brand")
    try:
        report = kb.ingest(pictures, approve_by="ann")
        assert (report.new, report.uncaptioned) == (12, 12)
        for colour, value in COLOURS.items():
            found = kb.search(colour).hits
            assert all(hit.asset.caption is None and hit.matched_words == () for hit in found)
            digests = {hashlib.sha256(jpeg(value, spot=20 * number)).hexdigest() for number in range(12)}
            assert {hit.asset.original.sha256 for hit in found[:3]} <= digests
            # By a picture that is not in the knowledge base, and by one that is.
            like = kb.search_picture(jpeg(value, size=(200, 100), spot=99), top_k=3)
            assert {hit.asset.id for hit in like.hits} == {hit.asset.id for hit in found[:3]}
            assert like.settings["compared"] == "pixels"
            again = kb.search_picture(found[0].asset.id, top_k=2)
            assert {hit.asset.id for hit in again.hits} == {hit.asset.id for hit in found[1:3]}
        refused = kb.search("mountain lake")
        assert refused.refusal is not None
        assert refused.settings["thresholds"].startswith("learnt from 12 pictures")
    finally:
        kb.close()


def test_names_in_the_configuration(tmp_path, clip_folder):
    made = backend["embedder"]["clip-model"]({"folder": str(clip_folder()), "name": "house"}, context(tmp_path))
    assert made.space.model == "house"
    for options, message in (
        ({}, "'folder' is the path of a model"),
        ({"folder": ""}, "'folder' is the path of a model"),
        ({"folder": "x", "name": 3}, "'name' is a text"),
        ({"folder": "x", "revision": "main"}, "does not know the option 'revision'"),
    ):
        for name in ("clip-model", "sentence-model"):
            with pytest.raises(ConfigError, match=message):
                backend["embedder"][name](options, context(tmp_path))
    with pytest.raises(UsageError, match="no model folder"):
        backend["embedder"]["sentence-model"]({"folder": str(tmp_path / "none")}, context(tmp_path))


def context(folder):
    return Context(name="brand", folder=folder)
