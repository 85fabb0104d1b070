"""An S3 prefix as a source, against moto's server over HTTP."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from vrag.errors import BackendError, NotFoundError, VRAGError
from vrag.knowledge.s3_source import S3Source
from vrag.knowledge.sources import NotTaken, SourcePicture

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto", reason="needs the package moto")
pytest.importorskip("flask", reason="needs moto's server: pip install 'moto[server]'")

SERVER = """
import sys, warnings
warnings.simplefilter("ignore")
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def client():
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    port = server.stdout.readline().strip()
    made = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield made
    made.close()
    server.communicate("")


@pytest.fixture
def bucket(client, request):
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=name)

    def put(key, data):
        client.put_object(Bucket=name, Key=key, Body=data)

    put.name = name
    return put


def test_a_prefix_is_ingested_with_its_sidecars_and_what_vanishes_is_told(client, bucket, jpeg, fake_kb):
    bucket("photos/dog.jpg", jpeg(1))
    bucket("photos/sub/IMG_1.jpg", jpeg(2))
    bucket("photos/sub/IMG_1.json", b'{"caption": "A parrot", "license": "CC0-1.0"}')
    bucket("photos/IMG_2.png", jpeg(3))
    bucket("photos/IMG_2.txt", "Eine rote Tür".encode())
    bucket("photos/broken.jpg", jpeg(4)[:200])
    bucket("photos/notes.pdf", b"x")
    bucket("photos/.hidden/x.jpg", jpeg(5))
    bucket("photos/folder/", b"")
    bucket("photos/big.jpg", b"\xff\xd8" + bytes(200_000))
    bucket("elsewhere/cat.jpg", jpeg(6))
    source = S3Source(client, bucket.name, "photos/", max_bytes=100_000)
    kb = fake_kb()
    report = kb.ingest(source)
    assert (report.new, [one.name for one in report.skipped]) == (3, ["notes.pdf"])
    assert {one.name: one.code for one in report.rejected} == {"broken.jpg": "undecodable", "big.jpg": "too_large"}
    assert {asset.file_name: asset.caption for asset in kb.assets()} == {
        "dog.jpg": "dog",
        "IMG_1.jpg": "A parrot",
        "IMG_2.png": "Eine rote Tür",
    }
    assert kb.ingest(source).unchanged == 3
    client.delete_object(Bucket=bucket.name, Key="photos/dog.jpg")
    assert [(one.name, one.pruned) for one in kb.ingest(source).vanished] == [("dog.jpg", False)]
    assert [(one.name, one.pruned) for one in kb.ingest(source, prune=True).vanished] == [("dog.jpg", True)]
    assert kb.count() == 2
    assert not kb.ingest(source).vanished


def test_more_than_a_page_is_listed_in_order(client, bucket):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: bucket(f"p/{number:04d}.jpg", b"x"), range(1005)))
    names = [entry.name for entry in S3Source(client, bucket.name, "p/")]
    assert names == [f"{number:04d}.jpg" for number in range(1005)]


def test_an_object_that_was_replaced_or_removed_since_it_was_listed_is_not_taken(client, bucket, jpeg, fake_kb):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        bucket(name, jpeg(ord(name[0])))
    entries = list(S3Source(client, bucket.name))
    bucket("a.jpg", jpeg(77))
    client.delete_object(Bucket=bucket.name, Key="b.jpg")
    assert all(isinstance(entry, SourcePicture) for entry in entries)
    report = fake_kb().ingest(entries)
    assert {one.name: one.code for one in report.rejected} == dict.fromkeys(("a.jpg", "b.jpg"), "unreadable")
    assert report.new == 1


def test_a_missing_bucket_and_a_dead_server_are_typed(client, bucket):
    with pytest.raises(NotFoundError, match="no-such-bucket-here"):
        list(S3Source(client, "no-such-bucket-here"))
    from botocore.config import Config

    dead = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(BackendError) as caught:
        list(S3Source(dead, "b"))
    assert caught.value.retryable
    assert isinstance(caught.value, VRAGError)
    dead.close()


def test_what_is_no_picture_is_named(client, bucket):
    bucket("x.exe", b"x")
    (entry,) = S3Source(client, bucket.name)
    assert isinstance(entry, NotTaken)
    assert entry.code == "unknown_suffix"
