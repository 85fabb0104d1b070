"""Secrets of the environment, of configurations and of what providers say stand in nothing that is kept, shown or logged.

One program from pictures to evidence, on the paid way (the fake Bedrock, moto's S3) and on the local one, with failures whose
messages repeat the secrets. Then every byte that came of it is searched.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
import re
import sqlite3
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import boto3
import c2pa
import pytest
from attrs import define, field
from PIL import Image

from vrag.cli import main
from vrag.cli.demo import demo_photos
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import AccessDeniedError, ConfigError, VRAGError
from vrag.media.ref import sha256_hex
from vrag.pipeline import VRAGPipeline
from vrag.testing import SampleMedia
from vrag.testing.bedrock import FakeBedrock, Refusal
from vrag.values.briefs import Brief
from vrag.values.requests import EditRequest

KEY_ID = "AKIAPLANTED7EXAMPLE2"
SECRET_KEY = "wJalrXUtnF/210987654321+bPxRfiPLANTEDKEY"
TOKEN = "FwoGZXIvYXdzEPlantedToken0" + base64.b64encode(bytes(range(90))).decode()
PASSWORD = "hunter2-planted-horse"
PROXY_PASSWORD = "hunter3-planted-staple"
SIGNATURE = "c0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eedc0ffee5eed0bad"
PRESIGNED = (
    f"https://films.s3.amazonaws.com/raw/a.mp4?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY_ID}%2F20261129"
    f"&X-Amz-Security-Token={quote_plus(TOKEN)}&X-Amz-Signature={SIGNATURE}"
)
SECRETS = {
    "key id": KEY_ID,
    "secret key": SECRET_KEY,
    "session token": TOKEN,
    "password": PASSWORD,
    "proxy password": PROXY_PASSWORD,
    "signature": SIGNATURE,
}
LEAKS = {
    "key": f"User with {KEY_ID} and aws_secret_access_key={SECRET_KEY} may not do this",
    "bare": f"cannot sign with {SECRET_KEY} and {TOKEN}",
    "url": f"HTTP 403 for {PRESIGNED} through http://anna:{PROXY_PASSWORD}@proxy.example:8080/",
    "quoted": f"HTTP 403 for {quote(PRESIGNED, safe='')}, password: {PASSWORD}",
    "head": f"bad header Authorization: Basic {base64.b64encode(f'anna:{PASSWORD}'.encode()).decode()}",
    "base64": f"bad credentials {base64.b64encode(SECRET_KEY.encode()).decode()}",
}
"""What a careless service or proxy writes into its errors."""

FILE = """
[aws]
region = "us-west-2"
[aws.s3]
endpoint_url = "{moto}"
[aws.bedrock-runtime]
endpoint_url = "{bedrock}"

[workspace]
folder = "studio"
inpainter = {{ use = "aws:stability", endpoint_url = "https://bedrock.invalid" }}

[policy]
text = "{text}"

[generators.luma]
use = "aws:luma-ray"
output_uri = "s3://{bucket}/raw"
prices = {{ video_second = 0.5 }}

[generators.camera]
use = "local:camera-moves"

[knowledge_bases.brand]

[knowledge_bases.far]
store = {{ use = "aws:opensearch", endpoint_url = "{careless}", username = "anna", password_env = "SEARCH_LOGIN", sign = false }}

[checkpoints]
file = "outside/last.note"
storage = {{ use = "aws:s3", bucket = "kept", endpoint_url = "{careless}" }}
"""


@contextmanager
def careless_server():
    """Refuses everything, and repeats secrets: as S3 to signed calls, as OpenSearch to others."""
    leak = " ".join(LEAKS.values())

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("x-amz-date"):
                kind, text = "application/xml", leak.replace("&", "&amp;")
                body = f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>"
            else:
                kind = "application/json"
                reason = {"type": "security_exception", "reason": leak}
                body = json.dumps({"error": {"root_cause": [reason], **reason}, "status": 403})
            self.send_response(403)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815  # the names that http.server calls

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@define
class Desk:
    """A folder with a configuration, and everything that was said on the way."""

    folder: Path
    fake: FakeBedrock
    fill: dict[str, str]
    said: dict[str, bytes] = field(factory=dict)

    def write(self, text="keyed"):
        (self.folder / "vrag.toml").write_text(FILE.format(text=text, **self.fill))

    def open(self):
        return VRAGPipeline.from_config(self.folder / "vrag.toml")

    def failed(self, name, work):
        """The error of `work`, shown with all that it came of, as a log shows it."""
        with pytest.raises(VRAGError) as caught:
            work()
        error = caught.value
        shown = "".join(traceback.format_exception(error)) + str(error) + json.dumps(error.to_json()) + repr(error)
        self.said[f"error: {name}"] = shown.encode()
        return error


@pytest.fixture
def logged():
    """All that `vrag.*` logs, with tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("vrag")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def desk(tmp_path, moto_url, monkeypatch, logged):
    given = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "SEARCH_LOGIN": PASSWORD,
        "HTTPS_PROXY": f"http://anna:{PROXY_PASSWORD}@127.0.0.1:9",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VRAG_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    bucket = f"films-{sha256_hex(str(tmp_path).encode())[:20]}"
    s3 = boto3.client("s3", endpoint_url=moto_url, region_name="us-west-2")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    with (
        FakeBedrock(s3=s3, region="us-west-2", render_s=0.2, secrets={KEY_ID: SECRET_KEY}) as fake,
        careless_server() as careless,
    ):
        made = Desk(tmp_path, fake, {"moto": moto_url, "bedrock": fake.url, "careless": careless, "bucket": bucket})
        made.write()
        yield made
    s3.close()


def pictures(folder):
    """Photographs whose metadata hold secrets, with notes that do."""
    folder.mkdir()
    rows = []
    with demo_photos() as photos:
        for name, caption in (("snowy-mountain-lake.jpg", "snowy mountain lake"), ("two-spaniel-dogs.jpg", "two dogs")):
            exif = Image.Exif()
            exif[0x010E], exif[0x9286] = f"fetched from {PRESIGNED}", f"password {PASSWORD}".encode()
            with Image.open(photos / name) as photo:
                xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET_KEY} {TOKEN}</x:xmpmeta>".encode()
                photo.save(folder / name, exif=exif, xmp=xmp, comment=LEAKS["url"].encode())
            rows.append(json.dumps({"file": name, "caption": caption, "tags": ["lake", "brand"], "licence": "owned"}))
    (folder / "captions.jsonl").write_text("\n".join(rows))
    return folder / "captions.jsonl"


def brief(words, model, **changes):
    asked = {"action_prompt": "camera zooms in", "knowledge_base": "brand", "width_px": 960, "height_px": 540}
    return Brief(object_prompt=words, model=model, **(asked | {"duration_s": 5.0} | changes))


def local_brief(words, **changes):
    return brief(words, "camera", width_px=320, height_px=180, duration_s=0.5, fps=8.0, **changes)


def forms(secret):
    """How a text may stand somewhere: plain, in a URL, in JSON, in base64 at any offset, in hexadecimal."""
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode()}
    found |= {binascii.hexlify(plain), secret.replace("/", "\\/").encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The letters at both ends depend on the neighbours; those between do not.
            found.add(encode(b"\0" * shift + plain)[(4 if shift else 0) : (len(plain) + shift) // 3 * 4])
    return {one.lower() for one in found}


BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


def opened(content):
    """`content`, and what stands in base64 in it, such as payloads of envelopes."""
    decoded = [base64.b64decode(one[: len(one) // 4 * 4]) for one in BASE64.findall(content)]
    return b"\n".join([content, *decoded]).lower()


def leaks(everything, secrets=SECRETS):
    return [
        (place, name)
        for place, content in everything.items()
        for whole in (opened(content),)
        for name, secret in secrets.items()
        if any(one in whole for one in forms(secret))
    ]


def files_below(folder, *, but=()):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and sha256_hex(path.read_bytes()) not in but
    }


def dump(path):
    """Every value of a database, so that no page layout cuts one in two."""
    connection = sqlite3.connect(path)
    told = "\n".join(connection.iterdump()).encode()
    blobs = []
    for (table,) in connection.execute("select name from sqlite_master where type='table'").fetchall():
        for row in connection.execute(f"select * from '{table}'"):
            blobs += [one for one in row if isinstance(one, bytes)]
    connection.close()
    return b"\n".join([told, *blobs])


def command(desk, capsys, *words, code=0):
    capsys.readouterr()
    found = main(words)
    told = capsys.readouterr()
    desk.said["command: " + " ".join(words[:3])] = (told.out + told.err).encode()
    assert found == code, told.out + told.err
    return told.out


def manifest(video):
    """The content credentials as the stock reader shows them."""
    with video.open() as film, c2pa.Reader("video/mp4", film) as reader:
        return reader.json().encode()


def fails(desk, pipeline, monkeypatch):
    """Every way in which somebody else's words come in."""
    from vrag.testing.bedrock import jobs

    for name, leak in LEAKS.items():
        for code in ("AccessDeniedException", "ValidationException"):
            desk.fake.faults.on("StartAsyncInvoke", error=Refusal(code, leak))
            asked = brief(f"a lake, {name} {code}", "luma", text_only=True)
            desk.failed(f"{name} {code}", lambda asked=asked: pipeline.generate(asked))
    for name, leak in LEAKS.items():
        monkeypatch.setitem(jobs._FAILURES, "service", ("INTERNAL_SERVER_EXCEPTION", leak))
        desk.fake.jobs.script("service", "service", "service")
        asked = brief(f"a pond {name}", "luma", text_only=True)
        desk.failed(f"failed job {name}", lambda asked=asked: pipeline.generate(asked))
        desk.fake.jobs._endings.clear()
    desk.failed("search", lambda: pipeline.knowledge_base("far"))
    environ = os.environ
    inpainter = Assembly(read_configuration(desk.folder / "vrag.toml", environ=environ), environ=environ).inpainter
    media = SampleMedia()
    request = EditRequest(
        operation="replace", image=media.picture(1), mask=media.mask(640, 360, white=(10, 10, 90, 90)), prompt="water"
    )
    desk.failed("proxy", lambda: inpainter.edit(request, media))


def test_planted_secrets_stand_nowhere(desk, logged, capsys, monkeypatch):
    source = pictures(desk.folder / "photos")
    given = {sha256_hex(path.read_bytes()) for path in source.parent.glob("*.jpg")}
    with desk.open() as pipeline:
        report = pipeline.knowledge_base("brand").ingest(source, approve_by="ann")
        assert report.new == 2
        plan = pipeline.plan([brief("snowy mountain lake", "luma"), local_brief("dogs")])
        sheet = pipeline.contact_sheet(plan).to_html()
        paid, free = pipeline.generate(brief("snowy mountain lake", "luma")), pipeline.generate(local_brief("dogs"))
        assert (paid.verify().ok, free.verify().ok) == (True, True)
        assert len(desk.fake.charges) == 1
        fails(desk, pipeline, monkeypatch)
        out = desk.folder / "out"
        out.mkdir()
        for number, video in enumerate((paid, free)):
            video.save(out / f"{number}.mp4")
            desk.said[f"manifest {number}"] = manifest(video)
            desk.said[f"notebook {number}"] = (repr(video) + (video._repr_html_() or "")).encode()
        (out / "sheet.html").write_text(sheet)
    listed = json.loads(command(desk, capsys, "jobs", "--json"))["jobs"]
    assert len(listed) >= 2 + 3 * len(LEAKS)
    for job in listed:
        command(desk, capsys, "jobs", "show", job["id"], "--json")
        desk.said[f"job {job['id']}"] = desk.said["command: jobs show " + job["id"]]
    command(desk, capsys, "report", "-o", "out/report.html")
    command(desk, capsys, "audit", "export", "-o", "out/export")
    command(desk, capsys, "audit", "export", "-o", "out/words", "--with-texts")
    command(desk, capsys, "verify", "--json")
    command(desk, capsys, "verify", "out/0.mp4", "--json")
    command(desk, capsys, "lineage", paid.record_id, "--json")
    command(desk, capsys, "config", "show")
    logs = logged.getvalue()
    assert "The ledger could not be signed" in logs, "the careless place of checkpoints was asked, and it was logged"
    assert "AccessDenied" in logs

    everything = desk.said | {"logs": logs.encode()}
    for name in ("studio", "state", "outside", "out"):
        everything |= {
            f"{name}/{place}": content for place, content in files_below(desk.folder / name, but=given).items()
        }
    everything |= {f"rows of {path}": dump(path) for path in (desk.folder / "studio").rglob("*.db")}
    kinds = {place.rpartition(".")[2] for place in everything}
    assert {"db", "mp4", "json", "html", "jsonl", "note"} <= kinds, kinds
    assert leaks(everything) == []
    # The search is able to find: it is shown the messages as they came, and the picture that was left out.
    for name, leak in LEAKS.items():
        assert leaks({name: leak.encode()}), name
    assert leaks(files_below(source.parent))


@pytest.mark.parametrize("text", ["keyed", "text"])
def test_words_are_in_the_record_only_where_the_policy_says_so(desk, text):
    desk.write(text)
    with desk.open() as pipeline:
        pipeline.knowledge_base("brand").ingest(pictures(desk.folder / "photos"), approve_by="ann")
        video = pipeline.generate(local_brief("dogs", action_prompt="camera zooms in, quartzfalcon"))
        places = {
            "ledger": pipeline.workspace.ledger.get(video.record_id).envelope,
            "sidecar": video.sidecar(),
            "manifest": manifest(video),
            "film": video.read_bytes(),
        }
    found = {place for place, _ in leaks(places, {"prompt": "quartzfalcon"})}
    assert found & {"ledger", "sidecar"} == (set() if text == "keyed" else {"ledger", "sidecar"})
    assert not found & {"manifest", "film"}


@pytest.mark.parametrize(
    "line",
    [
        f'output_uri = "{PRESIGNED}"',
        f'endpoint_url = "{PRESIGNED}"',
        f'proxy = "http://anna:{PROXY_PASSWORD}@proxy.example:8080"',
        f'region = "{KEY_ID}"',
        f'secret_access_key = "{SECRET_KEY}"',
        f'aws_session_token = "{TOKEN}"',
        f'password = "{PASSWORD}"',
    ],
)
def test_a_configuration_with_a_secret_is_refused_without_repeating_it(desk, capsys, line):
    file = desk.folder / "vrag.toml"
    file.write_text(file.read_text().replace('use = "aws:luma-ray"', f'use = "aws:luma-ray"\n{line}'))
    error = desk.failed("configuration", desk.open)
    assert isinstance(error, ConfigError)
    command(desk, capsys, "jobs", code=2)
    assert leaks(desk.said) == []


def test_credentials_that_a_helper_could_not_give_are_not_repeated(desk, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    helper = desk.folder / "helper.sh"
    helper.write_text(f"echo '{LEAKS['bare']}' >&2; exit 1\n")
    profile = desk.folder / "config"
    profile.write_text(f"[default]\ncredential_process = sh {helper}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = desk.failed("helper", desk.open)
    assert isinstance(error, AccessDeniedError)
    assert leaks(desk.said) == []
