"""S3 storage under the contract of `Storage` on a fake S3 over HTTP, and what that fake cannot show."""

from __future__ import annotations

import io
import itertools
import urllib.request

import pytest
from s3_faults import CONFLICT, CORRUPT, CORRUPT_UPLOAD, CUT, LOSE_ANSWER, SLOW_DOWN, faulty_proxy

from vrag.backends.aws import s3
from vrag.backends.aws.s3 import S3Storage
from vrag.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackendError,
    NotFoundError,
    ThrottledError,
    UsageError,
    VerificationError,
)
from vrag.media.ref import sha256_hex
from vrag.testing.contracts import StorageContract

_numbers = itertools.count()
_MIB = 1 << 20
_LARGE = b"".join(number.to_bytes(4, "big") for number in range(3 * _MIB))  # 12 MiB


@pytest.fixture
def make(moto_url, s3_client):
    def new(url=moto_url, bucket=None, **options):
        client = s3_client(url)
        if bucket is None:
            bucket = f"bucket-{next(_numbers)}"
            client.create_bucket(Bucket=bucket)
        return S3Storage(client, bucket, "vrag/brand", **options)

    return new


class TestS3Storage(StorageContract):
    secrets = ("AKIAEXAMPLEKEYOFATEST", "secret-of-a-test")

    @pytest.fixture(autouse=True)
    def _new(self, make):
        self._make = make

    def make(self, tmp_path):
        return self._make()

    def tamper(self, backend, ref, data):
        backend._client.put_object(Bucket=backend._bucket, Key=backend._key(ref), Body=data)

    def object_count(self, backend):
        found = backend._client.list_objects_v2(Bucket=backend._bucket, Prefix="vrag/brand/objects/")
        return found["KeyCount"]


@pytest.fixture
def faulty(moto_url, make):
    """A storage behind the proxy, and the proxy."""
    with faulty_proxy(moto_url) as (proxy, url):
        yield make(url, part_bytes=5 * _MIB, multipart_bytes=8 * _MIB), proxy


def _put(storage, data):
    return storage.put(io.BytesIO(data), "video/mp4")


def _uploads(storage):
    return storage._client.list_multipart_uploads(Bucket=storage._bucket).get("Uploads", [])


def _read(storage, key, offset=0):
    with storage.open(key, offset) as stream:
        return stream.read()


def test_large_file__goes_in_parts_and_comes_back(faulty):
    storage, proxy = faulty
    ref = _put(storage, _LARGE)
    parts = [headers for method, path, headers in proxy.requests if method == "PUT" and "partNumber" in path]
    assert [int(headers["Content-Length"]) for headers in parts] == [5 * _MIB, 5 * _MIB, 2 * _MIB]
    assert all("x-amz-checksum-sha256" in headers for headers in parts)
    [complete] = [headers for method, path, headers in proxy.requests if method == "POST" and "uploads" not in path]
    assert complete["If-None-Match"] == "*"
    assert complete["x-amz-mp-object-size"] == str(len(_LARGE))
    assert _read(storage, ref) == _LARGE
    proxy.requests.clear()
    assert _put(storage, _LARGE) == ref
    assert [method for method, _, _ in proxy.requests] == ["HEAD"], "What is there need not travel."


def test_large_name__of_two_writers_one_wins_and_no_parts_stay(faulty):
    storage, _ = faulty
    storage.put_named("film", io.BytesIO(_LARGE))
    with pytest.raises(AlreadyExistsError):
        storage.put_named("film", io.BytesIO(_LARGE[::-1]))
    assert _read(storage, "film") == _LARGE
    assert _uploads(storage) == []


def test_damaged_upload__is_refused_and_leaves_nothing(faulty):
    storage, proxy = faulty
    for data in (b"small", _LARGE):
        proxy.faults = [("PUT", CORRUPT_UPLOAD)]
        with pytest.raises(BackendError, match="BadDigest"):
            _put(storage, data)
        with pytest.raises(NotFoundError):
            storage.open(_ref_of(storage, data))
        assert _uploads(storage) == []


def _ref_of(storage, data):
    from vrag.media.ref import MediaRef

    return MediaRef(sha256=sha256_hex(data), media_type="video/mp4", size_bytes=len(data))


def test_cut_downloads__go_on_where_they_stopped(faulty):
    storage, proxy = faulty
    ref = _put(storage, _LARGE)
    proxy.requests.clear()
    proxy.faults = [("GET", CUT)] * 5
    assert _read(storage, ref) == _LARGE
    gets = [headers for method, _, headers in proxy.requests if method == "GET"]
    assert len(gets) == 6
    starts = [int(headers["Range"][6:-1]) for headers in gets[1:]]
    assert starts == sorted(set(starts)), "Each goes on behind the last."
    assert all("If-Match" in headers for headers in gets[1:])


def test_download_that_never_gets_on__is_told(faulty):
    storage, proxy = faulty
    storage.put_named("one", io.BytesIO(b"x"))
    proxy.faults = [("GET", CUT)] * 9  # half of one byte is none
    with pytest.raises(BackendError) as raised:
        _read(storage, "one")
    assert raised.value.retryable


def test_object_replaced_during_a_download__is_found(faulty, make, moto_url):
    storage, proxy = faulty
    ref = _put(storage, _LARGE)
    proxy.faults = [("GET", CUT)]
    with storage.open(ref) as stream:
        stream.read(1000)
        storage._client.put_object(Bucket=storage._bucket, Key=storage._key(ref), Body=_LARGE[::-1])
        with pytest.raises(VerificationError):
            stream.read()


@pytest.mark.parametrize("name", ["a picture", "a document"])
def test_damaged_download__is_found(faulty, name):
    storage, proxy = faulty
    data = bytes(range(256)) * 4000
    if name == "a picture":
        key = _put(storage, data)
    else:
        key = "note"
        storage.put_named(key, io.BytesIO(data))
    proxy.faults = [("GET", CORRUPT)]
    with pytest.raises(VerificationError):
        _read(storage, key)
    assert _read(storage, key) == data


def test_lost_answer_of_a_write__is_not_taken_for_another_writer(faulty):
    storage, proxy = faulty
    proxy.faults = [("PUT", LOSE_ANSWER)]
    storage.put_named("once", io.BytesIO(b"mine"))
    assert sum(method == "PUT" for method, _, _ in proxy.requests) >= 2
    assert _read(storage, "once") == b"mine"


def test_conflict_of_two_writes__is_retryable_or_taken(faulty):
    storage, proxy = faulty
    proxy.faults = [("PUT", CONFLICT)]
    with pytest.raises(BackendError) as raised:
        storage.put_named("race", io.BytesIO(b"x"))
    assert raised.value.retryable
    storage.put_named("race", io.BytesIO(b"x"))
    proxy.faults = [("PUT", CONFLICT)]
    with pytest.raises(AlreadyExistsError):
        storage.put_named("race", io.BytesIO(b"y"))


def test_slow_down__is_throttling(faulty):
    storage, proxy = faulty
    proxy.faults = [("PUT", SLOW_DOWN)] * 9
    with pytest.raises(ThrottledError) as raised:
        _put(storage, b"x")
    assert raised.value.retryable
    proxy.faults = [("PUT", SLOW_DOWN)]
    assert storage.exists(_put(storage, b"x")), "The client's own retry is enough for one."


def test_stream__seeks_and_is_checked_over_a_seek_back(make):
    storage = make()
    data = bytes(range(256)) * 8000
    ref = _put(storage, data)
    with storage.open(ref) as stream:
        assert stream.read(10) == data[:10]
        assert stream.seek(-5, io.SEEK_END) == len(data) - 5
        assert stream.read() == data[-5:]
        stream.seek(0)
        assert stream.read() == data
    assert _read(storage, ref, len(data) + 9) == b""


def test_presigned_url__opens_without_credentials(make):
    storage = make()
    ref = _put(storage, b"film")
    with urllib.request.urlopen(storage.presign(ref, expires_s=604_800)) as answer:
        assert answer.read() == b"film"
        assert answer.headers["Content-Type"] == "video/mp4"
    for wrong in (0, 604_801):
        with pytest.raises(UsageError, match="604800"):
            storage.presign(ref, expires_s=wrong)


def test_options__reach_the_service(moto_url, make):
    with faulty_proxy(moto_url) as (proxy, url):
        storage = make(url, kms_key_id="alias/vrag", bucket_owner="123456789012")
        storage.put_named("note", io.BytesIO(b"x"))
        headers = proxy.requests[-1][2]
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/vrag"
    assert headers["x-amz-server-side-encryption-bucket-key-enabled"] == "true"
    assert headers["x-amz-expected-bucket-owner"] == "123456789012"
    assert storage.uri("note") == f"s3://{storage._bucket}/vrag/brand/named/note"


def test_impossible_options__are_refused(make):
    for options in ({"part_bytes": 5 * _MIB - 1}, {"multipart_bytes": (5 << 30) + 1}):
        with pytest.raises(UsageError):
            make(**options)
    with pytest.raises(UsageError):
        S3Storage(make()._client, "bucket", "a/../b")


def test_list__reads_every_page(make, monkeypatch):
    monkeypatch.setattr(s3, "PAGE_KEYS", 4)
    storage = make()
    names = [f"many/{number:04}" for number in range(11)]
    for name in names:
        storage._client.put_object(Bucket=storage._bucket, Key=f"vrag/brand/named/{name}", Body=b"")
    storage._client.put_object(Bucket=storage._bucket, Key="vrag/brand/named/not ours", Body=b"")
    assert list(storage.list()) == names


def test_missing_bucket_and_credentials__are_typed(make, moto_url, s3_client):
    with pytest.raises(NotFoundError, match="NoSuchBucket"):
        _put(make(bucket="no-such-bucket"), b"x")
    import boto3

    client = boto3.session.Session(region_name="us-east-1").client("s3", endpoint_url=moto_url)
    client._request_signer._credentials = None
    with pytest.raises(AccessDeniedError, match="credentials"):
        _put(S3Storage(client, "bucket"), b"x")
