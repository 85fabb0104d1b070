"""One program from the raw pictures to verified videos, with every seam named in `vrag.toml` as `aws:…`.

S3 is moto's over HTTP, KMS a server of ours with a real key, the index is a real OpenSearch node, Bedrock is the fake of `vrag.testing.bedrock`
over HTTP. `pytest -m live tests/aws/test_same_program.py` with `VRAG_TEST_LIVE_CONFIG=vrag.toml` runs it on an account.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import boto3
import numpy as np
import pytest
from attrs import define
from kms_server import running_kms
from opensearchpy import OpenSearch
from PIL import Image

import vrag.backends.aws.luma_ray as luma
from vrag.backends.aws import stability
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import VRAGError
from vrag.media.image import conform
from vrag.media.mask_spec import MaskSpec
from vrag.media.ref import sha256_hex
from vrag.pipeline import VRAGPipeline
from vrag.testing import SampleMedia, probe_film
from vrag.testing.bedrock import FakeBedrock
from vrag.values.assets import CaptionSource
from vrag.values.briefs import Brief, Edit
from vrag.values.requests import EditRequest

SIZE = (960, 540)
COLOURS = {"red": 6, "blue": 1, "green": 2, "yellow": 8}
"""Numbers of sample pictures that are mostly of that colour."""
BOX = (300, 200, 500, 340)
"""Of the picture that is repainted: left, top, right, bottom in px."""

FILE = """
[aws]
region = "us-west-2"
[aws.s3]
endpoint_url = "{moto}"
[aws.kms]
endpoint_url = "{kms}"
[aws.bedrock-runtime]
endpoint_url = "{bedrock}"
[aws.opensearch]
endpoint_url = "{opensearch}"

[workspace]
folder = "studio"
storage = {{ use = "aws:s3", bucket = "{bucket}" }}
signer = {{ use = "aws:kms", key_id = "alias/records" }}
inpainter = "aws:stability"
moderator = {{ use = "aws:guardrail", guardrail = "abc123" }}

[generators.luma]
use = "aws:luma-ray"
output_uri = "s3://{output}/raw"
prices = {{ video_second = 0.5 }}

[knowledge_bases.brand]
embedder = {{ use = "aws:titan-image", dimension = 256 }}
store = {{ use = "aws:opensearch", index = "{index}", replicas = 0 }}
storage = {{ use = "aws:s3", bucket = "{bucket}" }}
captioner = "aws:converse"
"""


@define
class World:
    """One account, and the configuration that names everything in it."""

    file: Path
    fake: FakeBedrock | None
    index: str = ""

    def jobs(self):
        return [charge for charge in self.fake.charges if charge.token is not None]


@pytest.fixture
def world(tmp_path, moto_url, opensearch_url, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    session = boto3.Session(region_name="us-west-2")
    s3 = session.client("s3", endpoint_url=moto_url)
    mark = sha256_hex(str(tmp_path).encode())[:20]
    bucket, output, index = f"pictures-{mark}", f"films-{mark}", f"vrag-e2e-{mark}"
    for name in (bucket, output):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    with FakeBedrock(s3=s3, region="us-west-2", render_s=0.2) as fake, running_kms() as kms:
        file = tmp_path / "vrag.toml"
        file.write_text(
            FILE.format(
                moto=moto_url, kms=kms, bedrock=fake.url, opensearch=opensearch_url, bucket=bucket, output=output,
                index=index,
            )
        )  # fmt: skip
        yield World(file, fake, index)
    client = OpenSearch(opensearch_url)
    client.indices.delete(index=f"{index}*", ignore=404)
    client.close()


def raw_pictures(folder):
    """Pictures without any words: camera names, no captions."""
    folder.mkdir()
    media = SampleMedia()
    for number in COLOURS.values():
        with media(media.picture(number, width_px=1200, height_px=800)) as stream:
            (folder / f"IMG_{number:04}.png").write_bytes(stream.read())
    return folder


def refreshed(knowledge_base, count):
    """An index shows what was written after a moment."""
    store = knowledge_base._store
    if hasattr(store, "index"):
        store._client.indices.refresh(index=store.index)
    assert knowledge_base.count() == count


def take_in(world, pipeline, folder):
    """Caption, embed, store, index and approve; the captions are the captioner's."""
    configuration = read_configuration(world.file, environ=os.environ)
    captioner = Assembly(configuration, environ=os.environ).captioner("brand")
    brand = pipeline.knowledge_base("brand")
    report = brand.ingest(folder, captioner=captioner, approve_by="ann", approve_cost=lambda estimate: True)
    assert (report.new, report.partial) == (len(COLOURS), False)
    refreshed(brand, len(COLOURS))
    assets = list(brand.assets())
    assert {asset.caption_source for asset in assets} == {CaptionSource.CAPTIONER}
    return {asset.file_name: asset for asset in assets}


def repainted(world, brand, asset):
    """A part of the picture is painted anew, and the result is a picture of the knowledge base of its own.

    White of the mask is what changes: inside of the box pixels differ, away from it they do not.
    """
    assembly = Assembly(read_configuration(world.file, environ=os.environ), environ=os.environ)
    media = SampleMedia()
    with brand.open(asset.original) as stream:
        data = stream.read()
    size = asset.original.width_px, asset.original.height_px
    picture = media.add(data, asset.original.media_type, *size)
    mask = media.mask(*size, white=BOX)
    request = EditRequest(operation="replace", image=picture, mask=mask, prompt="smooth water")
    result = assembly.inpainter.edit(request, media)
    before, after = (
        np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), np.int16) for one in (data, result.images[0])
    )
    left, top, right, bottom = BOX
    change = np.abs(after - before)
    assert change[top:bottom, left:right].mean() > 30, "what the mask says was not repainted"
    change[top - 32 : bottom + 32, left - 32 : right + 32] = 0
    assert change.max() == 0, "something else was repainted"
    source = world.file.parent / "edited"
    source.mkdir(exist_ok=True)
    (source / "edited.png").write_bytes(result.images[0])
    count = brand.count()
    brand.ingest(source, approve_by="ann", approve_cost=lambda estimate: True)
    refreshed(brand, count + 1)
    return brand.asset(sha256_hex(result.images[0]))


def brief(**asked):
    return Brief(width_px=SIZE[0], height_px=SIZE[1], duration_s=5.0, knowledge_base="brand", **asked)


def check_video(pipeline, video, asset=None):
    """The film plays, begins with the picture that was meant, and its record verifies."""
    with pipeline._storage.open(video.media) as stream:
        film = probe_film(stream.read())
    assert (film.width_px, film.height_px) == SIZE
    assert film.duration_s == pytest.approx(5.0, abs=0.1)
    assert [source.asset_id for source in video.planned.sources] == ([] if asset is None else [asset.id])
    if asset is not None:
        with pipeline._storage.open(video.planned.sources[0].conformed.media) as stream:
            start = Image.open(io.BytesIO(stream.read())).convert("RGB").resize(SIZE)
        error = np.mean((np.asarray(start, np.float64) - film.first_frame) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 25, "the film does not begin with its picture"
        with pipeline.knowledge_base("brand").open(asset.original) as stream:
            original = Image.open(io.BytesIO(stream.read())).convert("RGB")
        means = (np.asarray(original.resize((1, 1), Image.Resampling.BOX)), film.first_frame.mean(axis=(0, 1)))
        assert np.abs(means[0].reshape(3) - means[1]).max() < 25, "the picture is another one than was meant"
    assert video.verify().ok


def edited_on_the_way(world, pipeline, asset):
    """The pipeline buys the edit itself, once, and the film begins with what came of it."""
    left, top, right, bottom = BOX
    mask = MaskSpec.rectangle(left, top, right, bottom, unit="px")
    edit = Edit(operation="replace", mask=mask, prompt="smooth water")
    edits = len(world.fake.charges) - len(world.jobs())
    asked = brief(object_prompt="a field", picture=asset.id, edits=(edit,))
    video = pipeline.generate(asked)
    check_video(pipeline, video, asset)
    assert len(world.fake.charges) - len(world.jobs()) == edits + 1
    plain = conform_of(pipeline, asset)
    with pipeline._storage.open(video.planned.sources[0].conformed.media) as stream:
        start = np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB").resize(SIZE), np.int16)
    change = np.abs(start - plain).mean(axis=2)
    assert change.max() > 60, "the edit is not in the start frame"
    assert np.median(change) < 3, "the rest is not as it was"
    assert pipeline.generate(asked).id == video.id
    assert len(world.fake.charges) - len(world.jobs()) == edits + 1


def conform_of(pipeline, asset):
    """The picture at the size of the film, without an edit."""
    with pipeline.knowledge_base("brand").open(asset.original) as stream:
        fitted = conform(stream.read(), asset.file_name, width_px=SIZE[0], height_px=SIZE[1], mode="cover")
    return np.asarray(Image.open(io.BytesIO(fitted.data)).convert("RGB"), np.int16)


def test_the_same_program_on_aws_names(world):
    with VRAGPipeline.from_config(world.file) as pipeline:
        assets = take_in(world, pipeline, raw_pictures(world.file.parent / "raw"))
        brand = pipeline.knowledge_base()
        red, blue = assets["IMG_0006.png"], assets["IMG_0001.png"]
        assert red.caption == "A landscape picture that is mostly red."
        (hit, *_) = brand.search("a red landscape").hits
        assert hit.asset.id == red.id

        check_video(pipeline, pipeline.generate(brief(object_prompt="a calm lake", text_only=True)))
        check_video(pipeline, pipeline.generate(brief(object_prompt="the sea", picture=blue.id)), blue)
        retrieved = pipeline.generate(brief(object_prompt="a red landscape", action_prompt="camera zooms in"))
        check_video(pipeline, retrieved, red)
        assert len(world.jobs()) == 3

        edited = repainted(world, brand, assets["IMG_0002.png"])
        check_video(pipeline, pipeline.generate(brief(object_prompt="a pond", picture=edited.id)), edited)

        rows = [brief(object_prompt=f"a {colour} landscape", action_prompt="camera pans left") for colour in COLOURS]
        done = pipeline.run([*rows, rows[0]])
        assert (done.failed, done.undecided) == ((), ())
        for row, number in enumerate(COLOURS.values()):
            check_video(pipeline, done.done[row], assets[f"IMG_{number:04}.png"])
        assert done.done[len(rows)].id == done.done[0].id, "the same row twice is one purchase"
        assert len(world.jobs()) == 4 + len(rows)
        assert len({charge.token for charge in world.jobs()}) == len(world.jobs())
        # The same brief again, in another life of the program, buys nothing.
    with VRAGPipeline.from_config(world.file) as again:
        video = again.generate(brief(object_prompt="a red landscape", action_prompt="camera zooms in"))
        assert video.id == retrieved.id
    assert len(world.jobs()) == 4 + len(COLOURS)


def test_the_pipeline_buys_an_edit_on_the_way(world):
    with VRAGPipeline.from_config(world.file) as pipeline:
        assets = take_in(world, pipeline, raw_pictures(world.file.parent / "raw"))
        edited_on_the_way(world, pipeline, assets["IMG_0008.png"])


# -- the checks above bite


def test_a_mask_of_the_wrong_polarity_is_noticed(world, monkeypatch):
    from attrs import evolve
    from PIL import ImageOps

    right = stability.encode_request
    monkeypatch.setattr(
        stability,
        "encode_request",
        lambda asked, inputs: right(asked, evolve(inputs, mask=ImageOps.invert(inputs.mask))),
    )
    with VRAGPipeline.from_config(world.file) as pipeline:
        assets = take_in(world, pipeline, raw_pictures(world.file.parent / "raw"))
        with pytest.raises(AssertionError, match="was not repainted"):
            repainted(world, pipeline.knowledge_base(), assets["IMG_0002.png"])


def test_another_picture_is_noticed(world, monkeypatch):
    right = luma.encode_request
    other = io.BytesIO()
    Image.new("RGB", SIZE, (250, 250, 0)).save(other, "JPEG")
    monkeypatch.setattr(
        luma, "encode_request", lambda asked, pictures: right(asked, dict.fromkeys(pictures, other.getvalue()))
    )
    with VRAGPipeline.from_config(world.file) as pipeline:
        assets = take_in(world, pipeline, raw_pictures(world.file.parent / "raw"))
        blue = assets["IMG_0001.png"]
        video = pipeline.generate(brief(object_prompt="the sea", picture=blue.id))
        with pytest.raises(AssertionError, match="does not begin with its picture"):
            check_video(pipeline, video, blue)


def test_a_bucket_that_is_not_the_one_is_noticed(world):
    world.file.write_text(world.file.read_text().replace("s3://films-", "s3://flims-"))
    with VRAGPipeline.from_config(world.file) as pipeline:
        with pytest.raises(VRAGError, match="Invalid Output Config"):
            pipeline.generate(brief(object_prompt="a calm lake", text_only=True))
        assert world.jobs() == []


@pytest.mark.live
def test_the_same_program_on_an_account(tmp_path):
    """`VRAG_TEST_LIVE_CONFIG` names a `vrag.toml` with one generator and the knowledge base `brand`, made for this test."""
    file = os.environ.get("VRAG_TEST_LIVE_CONFIG")
    if not file:
        pytest.skip("VRAG_TEST_LIVE_CONFIG does not name a configuration")
    world = World(Path(file), None)
    with VRAGPipeline.from_config(world.file) as pipeline:
        assets = take_in(world, pipeline, raw_pictures(tmp_path / "raw"))
        blue = assets["IMG_0001.png"]
        check_video(pipeline, pipeline.generate(brief(object_prompt="a calm lake", text_only=True)))
        check_video(pipeline, pipeline.generate(brief(object_prompt="the sea", picture=blue.id)), blue)
        edited = repainted(world, pipeline.knowledge_base("brand"), assets["IMG_0002.png"])
        check_video(pipeline, pipeline.generate(brief(object_prompt="a pond", picture=edited.id)), edited)
