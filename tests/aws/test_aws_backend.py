"""`aws:` in `vrag.toml`: every seam is made, connections are merged and shared, and what is missing is named."""

from __future__ import annotations

import asyncio
import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import botocore
import pytest

from vrag.backends import SEAMS, Context
from vrag.backends.aws import MODELS, backend
from vrag.backends.aws.clients import Clients
from vrag.compose.assembly import Assembly, installed_backends
from vrag.compose.configuration import read_configuration
from vrag.errors import AccessDeniedError, BackendError, ConfigError
from vrag.generation.catalogue import Catalogue
from vrag.interfaces import Captioner, Embedder, Inpainter, Storage, VideoGenerator
from vrag.media.ref import MediaRef
from vrag.testing.bedrock import FakeBedrock
from vrag.values.requests import EditRequest, Shot, VideoRequest
from vrag.values.vectors import Item

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
NEEDS = {
    "luma-ray": {"output_uri": "s3://films/here"},
    "nova-reel": {"output_uri": "s3://films/here"},
    "s3": {"bucket": "pictures"},
    "kms": {"key_id": "alias/x"},
    "guardrail": {"guardrail": "abc123"},
}
KINDS = {
    "embedder": Embedder,
    "storage": Storage,
    "video_generator": VideoGenerator,
    "inpainter": Inpainter,
    "captioner": Captioner,
}


@pytest.fixture
def keys(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return KEYS


def _made(seam, name, folder, settings=None, environ=KEYS, **options):
    context = Context(name="part", folder=folder, environ=environ, settings=settings or {"region": "us-east-1"})
    return backend[seam][name]({**NEEDS.get(name, {}), **options}, context)


NOT_OPENED = {"vector_store", "vector_indexes"}
PARTS = [(seam, name) for seam in SEAMS for name in backend[seam]]


def test_it_is_an_entry_point_of_a_source_tree_too():
    assert installed_backends()["aws"].load() is backend
    assert set(backend) == set(SEAMS)


@pytest.mark.parametrize(("seam", "name"), [part for part in PARTS if part[0] not in NOT_OPENED])
def test_every_part_is_made_without_sending_anything(seam, name, tmp_path, keys):
    made = _made(seam, name, tmp_path)
    if seam in KINDS:
        assert isinstance(made, KINDS[seam])
    assert made is not None


@pytest.mark.parametrize(("seam", "name"), PARTS)
def test_every_part_refuses_an_option_that_it_does_not_know(seam, name, tmp_path, keys):
    with pytest.raises(ConfigError, match="'bogus'"):
        _made(seam, name, tmp_path, bogus=1)
    with pytest.raises(ConfigError, match=r"'regoin'; .*Did you mean 'region'"):
        _made(seam, name, tmp_path, regoin="x")


def test_every_model_of_a_name_is_in_the_catalogue():
    for models in MODELS.values():
        for model in models:
            Catalogue.load().model("aws-bedrock", model)


@pytest.mark.parametrize(
    ("seam", "name", "options", "told"),
    [
        ("storage", "s3", {"bucket": 7}, "'bucket' is text"),
        ("video_generator", "luma-ray", {"output_uri": "films"}, "is no folder in S3"),
        ("embedder", "titan-image", {"dimension": 7}, "allowed: 256, 384, 1024"),
        ("embedder", "titan-image", {"model": "amazon.no-such"}, "has no model 'amazon.no-such'"),
        ("inpainter", "nova-canvas", {"quality": "best"}, "one of standard, premium"),
        ("captioner", "converse", {"max_tokens": -1}, "a whole number from 0 on"),
        ("video_generator", "luma-ray", {"allow_retired": "yes"}, "true or false"),
        ("video_generator", "luma-ray", {"prices": {"video_second": -1}}, "a number of USD"),
        ("storage", "s3", {"endpoint_url": "localhost:9000"}, "begins with https://"),
        ("storage", "s3", {"region": ""}, "text that is not empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_can(seam, name, options, told, tmp_path, keys):
    with pytest.raises(ValueError, match=told):
        _made(seam, name, tmp_path, **options)


def test_own_prices_take_the_place_of_unknown_ones(tmp_path, keys):
    request = VideoRequest(shots=(Shot(prompt="a lake", duration_s=5.0),), width_px=1280, height_px=720)
    assert _made("video_generator", "luma-ray", tmp_path).estimate(request).usd_micros is None
    priced = _made("video_generator", "luma-ray", tmp_path, prices={"video_second": 0.5})
    assert priced.estimate(request).usd_micros == 2_500_000
    embedder = _made("embedder", "cohere-embed", tmp_path, prices={"input_token": 0.00000012})
    assert embedder.estimate([Item(kind="text", text="red shoes " * 100)]).usd_micros == pytest.approx(30, abs=30)


# -- connections


def _clients(settings=None, environ=KEYS):
    return Clients(settings or {}, environ)


def test_a_part_beats_its_service_which_beats_the_table(keys):
    clients = _clients({"region": "us-east-1", "proxy": "http://one:1", "s3": {"region": "eu-west-1"}})
    assert clients.connection("s3", {}).region == "eu-west-1"
    assert clients.connection("s3", {"region": "ap-south-1"}).region == "ap-south-1"
    assert clients.connection("kms", {}).region == "us-east-1"
    assert clients.connection("s3", {}).proxy == "http://one:1"


def test_equal_connections_share_one_client_with_room_for_many_threads(keys):
    clients = _clients({"region": "us-east-1"})
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(lambda _: clients.client("s3", {"bucket": "x"}), range(64)))
    assert len({id(one) for one in made}) == 1
    assert clients.client("s3", {"region": "eu-west-1"}) is not made[0]
    config = made[0].meta.config
    assert config.max_pool_connections >= 32
    assert config.retries["mode"] == "standard"
    assert (config.connect_timeout, config.read_timeout) == (10, 60)


def test_an_edit_is_sent_once_because_twice_is_paid_twice(tmp_path, keys):
    with FakeBedrock() as fake:
        from vrag.errors import VRAGError
        from vrag.testing import SampleMedia, sample_edit
        from vrag.testing.bedrock import LostReply

        editor = _made("inpainter", "stability", tmp_path, endpoint_url=fake.url)
        media = SampleMedia()
        fake.faults.on("InvokeModel", error=LostReply(), late=True, times=3)
        with pytest.raises(VRAGError):
            editor.edit(sample_edit(editor.capabilities, media), media)
        assert len(fake.charges) == 1


def test_no_credentials_name_every_place_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessDeniedError) as caught:
        _made("storage", "s3", tmp_path, environ={})
    for words in ("AWS_ACCESS_KEY_ID (not set)", "AWS_PROFILE (not set)", "the profile 'default'", "container"):
        assert words in caught.value.message
    assert "AWS_PROFILE" in caught.value.hint


def test_half_of_a_key_pair_and_a_profile_that_is_not_there_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(AccessDeniedError) as caught:
        _made("storage", "s3", tmp_path, environ={"AWS_ACCESS_KEY_ID": "half"})
    assert "AWS_ACCESS_KEY_ID (set), AWS_SECRET_ACCESS_KEY (not set)" in caught.value.message
    with pytest.raises(ConfigError, match=r"no profile 'studio' in ~/\.aws/config .* there are: none"):
        _made("storage", "s3", tmp_path, profile="studio")
    credentials = tmp_path / "credentials"
    credentials.write_text("[work]\naws_access_key_id = a\naws_secret_access_key = b\n[bare]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigError, match="there are: work, bare"):
        _made("storage", "s3", tmp_path, profile="studio")
    _made("storage", "s3", tmp_path, profile="work", environ={})
    with pytest.raises(AccessDeniedError, match="the profile 'bare' of the configuration"):
        _made("storage", "s3", tmp_path, profile="bare", environ={})


def test_no_region_names_where_one_may_stand(tmp_path, keys):
    with pytest.raises(ConfigError, match=r"AWS_REGION and AWS_DEFAULT_REGION are not set") as caught:
        _made("storage", "s3", tmp_path, settings={"proxy": "http://p:1"})
    assert caught.value.hint == 'write: region = "us-east-1"'
    made = _made("embedder", "titan-image", tmp_path, {"proxy": "http://p:1"}, {**KEYS, "AWS_REGION": "eu-west-2"})
    assert made.model.region == "eu-west-2"


def test_a_role_is_assumed_by_the_credentials_of_the_caller(moto_url, s3_client, tmp_path, keys):
    s3_client(moto_url).create_bucket(Bucket="of-a-role")
    arn = "arn:aws:iam::123456789012:role/maker"
    settings = {"region": "us-east-1", "role_arn": arn, "external_id": "ours", "endpoint_url": moto_url}
    context = Context(name="part", folder=tmp_path, environ=KEYS, settings=settings)
    storage = backend["storage"]["s3"]({"bucket": "of-a-role"}, context)
    assert storage.put(io.BytesIO(b"x" * 100), "image/png").size_bytes == 100
    sts = Clients.of(context).client("sts", {})
    assert "assumed-role/maker/vrag" in sts.get_caller_identity()["Arn"]
    connection = Clients.of(context).connection("s3", {})
    assert Clients.of(context).describe(connection) == "AWS_ACCESS_KEY_ID, then the role maker"


def test_32_threads_and_a_running_event_loop_share_one_storage_and_one_embedder(moto_url, s3_client, tmp_path, keys):
    s3_client(moto_url).create_bucket(Bucket="shared")
    with FakeBedrock() as fake:
        settings = {
            "region": "us-east-1",
            "s3": {"endpoint_url": moto_url},
            "bedrock-runtime": {"endpoint_url": fake.url},
        }
        context = Context(name="part", folder=tmp_path, environ=KEYS, settings=settings)
        storage = backend["storage"]["s3"]({"bucket": "shared"}, context)
        embedder = backend["embedder"]["titan-image"]({"dimension": 256}, context)

        def work(number: int) -> tuple[MediaRef, bytes]:
            ref = storage.put(io.BytesIO(b"%d" % (number % 8) * 50), "image/png")
            row = embedder.embed([Item(kind="text", text=f"picture {number % 8}")], "index")
            with storage.open(ref) as stream:
                assert stream.read() == b"%d" % (number % 8) * 50
            return ref, row.tobytes()

        async def main() -> list[tuple[MediaRef, bytes]]:
            inside = work(0)  # called on the loop itself: it blocks, and it works
            assert await asyncio.to_thread(work, 8) == inside
            return await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(8)))

        in_loop = asyncio.run(main())
        with ThreadPoolExecutor(32) as pool:
            in_threads = list(pool.map(work, range(64)))
        assert {ref.sha256: row for ref, row in in_threads} == {ref.sha256: row for ref, row in in_loop}


# -- from a file


def _assembly(folder, text, **environ):
    (folder / "vrag.toml").write_text(text)
    return Assembly(read_configuration(folder / "vrag.toml", environ=environ), environ={**KEYS, **environ})


def test_the_table_of_the_file_is_for_all_parts_and_paths_are_relative_to_it(tmp_path, keys):
    text = (
        "[aws]\nregion = 'eu-west-1'\n[aws.s3]\nca_bundle = 'certs.pem'\n"
        "[workspace]\nstorage = { use = 'aws:s3', bucket = 'films' }\n"
        "[generators.luma]\nuse = 'aws:luma-ray'\nregion = 'us-west-2'\noutput_uri = 's3://films/raw'\n"
    )
    shutil.copy(Path(botocore.__file__).with_name("cacert.pem"), tmp_path / "certs.pem")
    assembly = _assembly(tmp_path, text)
    assert assembly.generator("luma").model.region == "us-west-2"
    assert assembly.storage.uri("x") == "s3://films/vrag/media/named/x"
    assert assembly.storage._client.meta.region_name == "eu-west-1"
    assert assembly.storage._client._endpoint.http_session._verify == str(tmp_path / "certs.pem")
    rows = {name: (value, origin) for name, value, origin in assembly.configuration.rows()}
    assert rows["aws.region"] == ("eu-west-1", "vrag.toml:1")
    assert rows["aws.s3.ca_bundle"] == ("certs.pem", "vrag.toml:1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[aws]\nregoin = 'x'", ["vrag.toml:2", "'regoin' in [aws]", "Did you mean 'region'?"]),
        ("[aws.s4]\nregion = 'x'", ["vrag.toml:1", "'s4' in [aws]", "Did you mean 's3'?"]),
        ("[aws.s3]\nbucket = 'x'", ["vrag.toml:2", "'bucket' in [aws.s3]"]),
        ("[aws]\nregion = 7", ["vrag.toml:1", "'region' is text"]),
        ("[knowledge_bases.b]\ntime_zone = 7", ["vrag.toml:2", "'time_zone' is text"]),
        ("[knowledge_bases.b]\npolicy = 'all'", ["vrag.toml:2", "'policy' is a table"]),
    ],
)
def test_what_the_new_tables_may_not_say_is_refused_with_its_line(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        _assembly(tmp_path, text + "\n")
    for words in told:
        assert words in caught.value.message


def test_an_option_of_a_constructor_is_refused_with_its_line(tmp_path, keys):
    text = "[aws]\nregion = 'us-east-1'\n[knowledge_bases.b]\nembedder = { use = 'aws:marengo', dimension = 9 }\n"
    with pytest.raises(ConfigError, match=r"vrag\.toml:4: 'aws:marengo': .*allowed: 512"):
        _assembly(tmp_path, text).knowledge_base("b")


def test_captioner_policy_and_time_zone_of_a_knowledge_base(tmp_path, keys):
    text = (
        "[aws]\nregion = 'us-east-1'\n[knowledge_bases.b]\nembedder = 'none'\ntime_zone = 'Europe/Berlin'\n"
        "captioner = { use = 'aws:converse', max_tokens = 99 }\n"
        "[knowledge_bases.b.policy]\nlicences = ['CC0-1.0']\nterritories = ['DE', 'AT']\n"
    )
    assembly = _assembly(tmp_path, text)
    assert isinstance(assembly.captioner("b"), Captioner)
    assert assembly.moderator is None
    knowledge_base = assembly.knowledge_base("b")
    try:
        assert knowledge_base.policy.licences == {"cc0-1.0"}
        assert knowledge_base.policy.territories == {"de", "at"}
    finally:
        knowledge_base.close()
    for wrong, told in (
        ("time_zone = 'Mars/Olympus'", r"vrag\.toml:2: No time zone 'Mars/Olympus'"),
        ("policy = { licenses = ['x'] }", r"vrag\.toml:2: .*licences, territories"),
    ):
        with pytest.raises(ConfigError, match=told):
            _assembly(tmp_path, f"[knowledge_bases.b]\n{wrong}\nembedder = 'none'\n").knowledge_base("b")
    assert _assembly(tmp_path, "").captioner("any") is None


def test_a_moderator_is_made_from_the_file(tmp_path, keys):
    text = (
        "[aws]\nregion = 'us-east-1'\n[workspace]\n"
        "moderator = { use = 'aws:guardrail', guardrail = 'abc123', version = '1' }\n"
    )
    assert _assembly(tmp_path, text).moderator.model == "aws-bedrock:guardrail/abc123:1"


def test_retired_models_are_problems_of_every_adapter_before_anything_is_sent(tmp_path, keys):
    """Nova Reel and Nova Canvas ended on 2026-09-30; an entitled account says so."""
    picture = MediaRef(sha256="0" * 64, media_type="image/png", size_bytes=1, width_px=640, height_px=640)
    edit = EditRequest(operation="remove_background", image=picture)
    video = VideoRequest(shots=(Shot(prompt="a lake", duration_s=6.0),), width_px=1280, height_px=720)
    for seam, name, request in (("inpainter", "nova-canvas", edit), ("video_generator", "nova-reel", video)):
        (problem,) = _made(seam, name, tmp_path).validate(request)
        assert (problem.kind, problem.field) == ("refused", "model")
        assert "2026-09-30" in problem.message
        assert "local:" in problem.message
        assert _made(seam, name, tmp_path, allow_retired=True).validate(request) == ()
    assert _made("inpainter", "stability", tmp_path).validate(edit) == ()


def test_an_unreachable_endpoint_is_a_backend_error_not_a_hang(tmp_path, keys):
    storage = _made("storage", "s3", tmp_path, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(BackendError):
        storage.exists("x")
