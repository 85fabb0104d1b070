"""`vrag doctor`: what is there and what is not, over an embedded workspace and over services on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import boto3
import pytest

from vrag.cli.doctor import doctor
from vrag.compose import doctor as library
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import UnsupportedRequestError, UsageError
from vrag.testing import FakeClock
from vrag.testing.bedrock import FakeBedrock


def _run(capsys, *arguments):
    code = doctor.main([*arguments, "--json"], prog_name="doctor", standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    return code, told


def _by_name(told):
    return {one["name"]: one for one in told["checks"]}


def test_an_embedded_workspace_is_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, told = _run(capsys)
    assert (code, told["ok"]) == (0, True)
    found = _by_name(told)
    assert found["configuration"]["state"] == "-"
    for name in ("workspace", "disk", "sqlite", "extra local", "generator camera"):
        assert found[name]["state"] == "ok", found[name]
    assert "journal" in found["sqlite"]["message"]
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"
    assert doctor.main([], prog_name="doctor", standalone_mode=False) == 0
    assert capsys.readouterr().out.endswith("all is well\n")


def test_what_is_missing_on_this_machine_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    for name in ("av", "wordllama"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(library, "find_spec", lambda name: None if name in {"av", "wordllama"} else object())
    code, told = _run(capsys)
    found = _by_name(told)
    assert code == 1
    assert found["disk"]["state"] == "FAIL"
    assert "make room" in found["disk"]["next"]
    assert (found["extra local"]["state"], found["extra local"]["next"]) == ("FAIL", "pip install 'vrag[local]'")
    assert found["free codec"]["state"] == "-"


def test_a_model_from_a_folder_needs_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    part = '{ use = "local:sentence-model", folder = "models/none" }'
    (tmp_path / "vrag.toml").write_text(f"[knowledge_bases.brand]\nembedder = {part}\n")
    monkeypatch.setattr(library, "find_spec", lambda name: None if name == "onnxruntime" else object())
    found = _by_name(_run(capsys)[1])
    assert (found["extra onnx"]["state"], found["extra onnx"]["next"]) == ("FAIL", "pip install 'vrag[onnx]'")
    assert "local:sentence-model" in found["extra onnx"]["message"]
    assert "wordllama" not in found["extra local"]["message"]


def test_a_configuration_that_cannot_be_read_is_the_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vrag.toml").write_text("[workspace]\nfoldr = 'x'\n")
    code, told = _run(capsys)
    assert code == 1
    (only,) = told["checks"]
    assert "vrag.toml:2" in only["message"]


FILE = """
[aws]
region = "us-west-2"
[aws.s3]
endpoint_url = "{moto}"
[aws.sts]
endpoint_url = "{moto}"
[aws.bedrock]
endpoint_url = "{bedrock}"
[aws.bedrock-runtime]
endpoint_url = "{bedrock}"
[workspace]
inpainter = "aws:stability"
[generators.luma]
use = "aws:luma-ray"
output_uri = "s3://{bucket}/raw"
{luma}
[knowledge_bases.brand]
embedder = "aws:titan-image"
captioner = "aws:converse"
storage = {{ use = "aws:s3", bucket = "{bucket}" }}
{more}
"""


@pytest.fixture
def account(tmp_path, monkeypatch):
    """Writes a configuration for services on loopback, and looks at it."""
    moto = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    url = "http://{}:{}".format(*moto.get_host_and_port())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    s3.create_bucket(Bucket="here")
    fake = FakeBedrock(region="us-west-2", clock=FakeClock(datetime(2026, 11, 20, tzinfo=UTC)))
    environ = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def look(bucket="here", more="", luma="", sts=url):
        text = FILE.format(moto=url, bedrock=fake.url, bucket=bucket, more=more, luma=luma)
        file = tmp_path / "vrag.toml"
        file.write_text(text.replace(f'[aws.sts]\nendpoint_url = "{url}"', f'[aws.sts]\nendpoint_url = "{sts}"'))
        assembly = Assembly(read_configuration(file, environ={}), environ=environ, clock=FakeClock())
        return {check.name: check for check in library.examine(assembly, environ=environ, clock=fake.clock)}

    look.fake, look.s3 = fake, s3
    yield look
    s3.close()
    fake.close()
    moto.stop()


def test_an_account_that_has_everything(account):
    found = account()
    assert {name: check.message for name, check in found.items() if check.state == "FAIL"} == {}
    assert found["region"].message.startswith("us-west-2 for generators.luma, knowledge_bases.brand.captioner")
    (caller,) = (check for name, check in found.items() if name.startswith("credentials"))
    assert caller.name == "credentials (AWS_ACCESS_KEY_ID)"
    assert "account …9012" in caller.message
    for model in ("luma.ray-v2:0", "us.amazon.nova-2-lite-v1:0", "stability.stable-image-inpaint-v1:0"):
        assert found[f"model {model}"].state == "ok"
        assert "access, active" in found[f"model {model}"].message
    assert found["bucket here"].message == "written, read and deleted a small object"
    assert "Contents" not in account.s3.list_objects_v2(Bucket="here")
    assert account.fake.charges == (), "nothing is bought"


def test_each_thing_that_is_not_there_fails_alone_and_says_what_to_do(account):
    account.fake.deny("luma.ray-v2:0")
    account.fake.retire("amazon.titan-embed-image-v1")
    found = account(bucket="elsewhere")
    failed = {name for name, check in found.items() if check.state == "FAIL"}
    assert failed == {"model luma.ray-v2:0", "model amazon.titan-embed-image-v1", "bucket elsewhere"}
    assert "no access" in found["model luma.ray-v2:0"].message
    assert "model access" in found["model luma.ray-v2:0"].next_step
    assert "does not list it" in found["model amazon.titan-embed-image-v1"].message
    assert "NoSuchBucket" in found["bucket elsewhere"].message


def test_a_retired_model_a_wrong_region_and_a_missing_key_are_told_without_asking(account, monkeypatch):
    found = account(more='[generators.old]\nuse = "aws:nova-reel"\noutput_uri = "s3://here/x"\n')
    assert "2026-09-30" in found["model amazon.nova-reel-v1:1"].message
    assert "local:camera-moves" in found["model amazon.nova-reel-v1:1"].message
    found = account(luma='region = "eu-west-1"')
    assert "offered in us-west-2" in found["model luma.ray-v2:0"].message
    assert found["model luma.ray-v2:0"].next_step == 'write: region = "us-west-2"'
    found = account(luma='profile = "nobody"')
    assert "no profile 'nobody'" in found["region of generators.luma"].message
    assert found["generator luma"].state == "FAIL"
    assert found["bucket here"].state == "ok", "the rest is looked at"


def test_without_the_control_plane_the_catalogue_answers(account):
    account.fake.faults.on("GetFoundationModel", times=20)
    found = account()
    check = found["model luma.ray-v2:0"]
    assert check.state == "-"
    assert "active by the catalogue (state uncertain" in check.message


def test_credentials_that_sts_cannot_be_asked_about_fail_and_nothing_else_is_asked(account):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = account(sts=f"http://127.0.0.1:{taken.getsockname()[1]}")
    (caller,) = (check for name, check in found.items() if name.startswith("credentials"))
    assert caller.state == "FAIL"
    assert "network" in caller.next_step
    assert not any(name.startswith("bucket") for name in found)


# -- prices


def _prices(folder, text="", environ=None, **asked):
    (folder / "vrag.toml").write_text(text)
    assembly = Assembly(read_configuration(folder / "vrag.toml", environ={}), environ=environ or {}, clock=FakeClock())
    defaults = {"generator": None, "knowledge_base": None, "width_px": 1280, "height_px": 720, "fps": 24.0}
    rows = library.price_job(assembly, **{**defaults, "duration_s": 5.0, "codec": "h264", **asked})
    return {row.what: row.estimate.usd_micros for row in rows}


def test_embedded_parts_are_free_and_paid_ones_are_counted(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    free = _prices(tmp_path, knowledge_base="brand")
    assert set(free.values()) == {0}
    assert "a video of 5 s by camera" in free
    text = (
        "[aws]\nregion = 'us-west-2'\n[workspace]\ninpainter = 'aws:stability'\n"
        "[generators.luma]\nuse = 'aws:luma-ray'\noutput_uri = 's3://here/raw'\nprices = { video_second = 0.5 }\n"
        "[knowledge_bases.brand]\nembedder = 'aws:cohere-embed'\ncaptioner = 'aws:converse'\n"
    )
    paid = _prices(tmp_path, text, knowledge_base="brand")
    assert paid["a video of 5 s by luma"] == 2_500_000
    assert paid["an edit (replace)"] == 70_000
    assert paid["a caption"] > 0
    assert _prices(tmp_path, text, duration_s=9.0)["a video of 9 s by luma"] == 4_500_000
    with pytest.raises(UnsupportedRequestError, match="6 s; allowed: 5, 9 s"):
        _prices(tmp_path, text, duration_s=6.0)
    with pytest.raises(UsageError, match="Name a generator; there are: luma"):
        _prices(tmp_path, text, generator="lumma")


def test_the_command_prices_the_job_it_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = doctor.main(["--price", "--duration", "4", "--size", "720x1280"], prog_name="doctor", standalone_mode=False)
    out = capsys.readouterr().out
    assert code == 0
    assert "a video of 4 s by camera" in out
    assert "nothing was bought" in out
    with pytest.raises(UsageError, match="belong to --price"):
        doctor.main(["--duration", "4"], prog_name="doctor", standalone_mode=False)
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        doctor.main(["--price", "--size", "big"], prog_name="doctor", standalone_mode=False)
