"""Anchors: a bucket with Object Lock, a second store, and time stamps of an authority of our own on loopback."""

import http.server
import shutil
import subprocess
import threading
from datetime import timedelta

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ed25519
from film_facts import add_entries

from vrag.clock import SystemClock
from vrag.errors import ProvenanceError, UsageError, VerificationError
from vrag.provenance.anchors import ObjectLockBucket, time_stamp, time_stamps
from vrag.provenance.audit import verify_ledger
from vrag.provenance.checkpoints import checkpoint, read_checkpoint
from vrag.provenance.receipt import ReceiptSigner
from vrag.provenance.signing import LocalSigner
from vrag.testing import FakeClock
from vrag.workspace.db import Database
from vrag.workspace.ledger import Ledger

KEY = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))


@pytest.fixture
def ledger(tmp_path):
    database = Database(tmp_path / "studio" / "vrag.db", clock=FakeClock())
    yield Ledger(database, FakeClock())
    database.close()


@pytest.fixture(scope="module")
def s3():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    client = boto3.client(
        "s3",
        endpoint_url="http://{}:{}".format(*server.get_host_and_port()),
        region_name="us-east-1",
        aws_access_key_id="AKIAEXAMPLEKEYOFATEST",
        aws_secret_access_key="secret-of-a-test",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="anchor", ObjectLockEnabledForBucket=True)
    client.create_bucket(Bucket="plain")
    yield client
    client.close()
    server.stop()


def bucket(s3, **given):
    return ObjectLockBucket(
        s3, "anchor", prefix=given.pop("prefix", "checkpoints"), retain=timedelta(days=1), clock=SystemClock()
    )


def test_a_bucket_with_object_lock_keeps_what_nobody_can_delete(ledger, s3):
    keeper = bucket(s3, prefix="a")
    assert keeper.newest(ledger.id) is None
    add_entries(ledger, KEY, "a")
    first = checkpoint(ledger, KEY, keepers=[keeper])
    add_entries(ledger, KEY, "b")
    second = checkpoint(ledger, KEY, keepers=[keeper])
    keeper.keep(ledger.id, first)
    assert keeper.newest(ledger.id) == second.note
    (version, _) = s3.list_object_versions(Bucket="anchor", Prefix="a/")["Versions"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket="anchor", Key=version["Key"], VersionId=version["VersionId"])
    kept = s3.head_object(Bucket="anchor", Key=version["Key"], VersionId=version["VersionId"])
    assert kept["ObjectLockMode"] == "COMPLIANCE"


def test_a_version_put_over_it_or_a_delete_marker_changes_nothing(ledger, s3):
    keeper = bucket(s3, prefix="b")
    add_entries(ledger, KEY, "a")
    made = checkpoint(ledger, KEY, keepers=[keeper])
    key = s3.list_object_versions(Bucket="anchor", Prefix="b/")["Versions"][0]["Key"]
    s3.put_object(Bucket="anchor", Key=key, Body=b"another checkpoint")
    assert keeper.newest(ledger.id) == made.note
    s3.delete_object(Bucket="anchor", Key=key)
    assert keeper.newest(ledger.id) == made.note
    assert verify_ledger(ledger, keepers=[keeper]).excludes_cutting


def test_two_histories_and_a_bucket_without_a_lock_are_refused(ledger, s3, tmp_path):
    keeper = bucket(s3, prefix="c")
    add_entries(ledger, KEY, "a")
    checkpoint(ledger, KEY, keepers=[keeper])
    database = Database(tmp_path / "other" / "vrag.db", clock=FakeClock())
    other = Ledger(database, FakeClock())
    add_entries(other, KEY, "other a")
    assert other.id == ledger.id
    with pytest.raises(VerificationError, match="rewritten"):
        checkpoint(other, KEY, keepers=[keeper])
    with pytest.raises(VerificationError, match="two histories"):
        keeper.keep(other.id, checkpoint(other, KEY))
    database.close()
    with pytest.raises(ProvenanceError):
        ObjectLockBucket(s3, "plain", clock=SystemClock()).keep(
            ledger.id, read_checkpoint(ledger.last_checkpoint().note)
        )
    with pytest.raises(ProvenanceError, match="NoSuchBucket"):
        ObjectLockBucket(s3, "none", clock=SystemClock()).newest(ledger.id)


# -- a time stamp authority of our own

CONFIG = """
[tsa]
default_tsa = ours
[ours]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


def openssl(*words, folder):
    return subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Address and root certificate of an authority that openssl runs."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command on this machine")
    folder = tmp_path_factory.mktemp("tsa")
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3")
    openssl(*new, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=test root", folder=folder)
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "tsa.key",
        "-out",
        "tsa.csr",
        "-subj",
        "/CN=tsa",
        folder=folder,
    )
    (folder / "ext").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
    sign = ("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "2")
    openssl(*sign, "-extfile", "ext", "-out", "tsa.pem", folder=folder)
    (folder / "serial").write_text("01")
    (folder / "tsa.conf").write_text(CONFIG.format(folder=folder))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (folder / "query").write_bytes(body)
            answer = b"noise"
            if self.path == "/":
                answer = openssl("ts", "-reply", "-config", "tsa.conf", "-queryfile", "query", folder=folder)
            self.send_response(500 if self.path == "/broken" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", (folder / "root.pem").read_bytes(), folder
    server.shutdown()
    thread.join()
    server.server_close()


def stamped(ledger, url, root, **given):
    sign = ReceiptSigner(KEY, library_version="0.1.0", clock=FakeClock(seed=given.pop("seed", 1)))
    return time_stamp(ledger, checkpoint(ledger, KEY), url, roots=[root], sign=sign, by="ada", **given)


def test_a_checkpoint_is_stamped_and_the_token_stands_in_the_ledger(ledger, authority):
    url, root, folder = authority
    add_entries(ledger, KEY, "a")
    made = stamped(ledger, url, root)
    assert made.checkpoint.size == 1
    assert list(time_stamps(ledger, roots=[root])) == [made]
    assert made.checkpoint.note.encode() not in (folder / "query").read_bytes()  # its digest was sent, nothing else
    assert [entry.record_id for entry in ledger.entries()][1].startswith("receipt-")
    add_entries(ledger, KEY, "b")
    assert stamped(ledger, url, root, seed=2).checkpoint.size == 3
    assert [one.checkpoint.size for one in time_stamps(ledger, roots=[root])] == [1, 3]


def test_a_stamp_of_another_authority_or_over_another_checkpoint_does_not_hold(ledger, authority, tmp_path):
    url, root, folder = authority
    add_entries(ledger, KEY, "a")
    stamped(ledger, url, root)
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-keyout", "o.key", "-out", "o.pem"),
        *("-subj", "/CN=test root"),
        folder=folder,
    )
    with pytest.raises(VerificationError, match="does not hold"):
        list(time_stamps(ledger, roots=[(folder / "o.pem").read_bytes()]))
    with pytest.raises(UsageError, match="root certificate"):
        list(time_stamps(ledger, roots=[]))
    with pytest.raises(UsageError, match="not PEM"):
        list(time_stamps(ledger, roots=[b"noise"]))


def test_an_authority_that_fails_leaves_no_receipt(ledger, authority):
    url, root, _ = authority
    add_entries(ledger, KEY, "a")
    for wrong, error in (
        (f"{url}broken", ProvenanceError),
        (f"{url}noise", VerificationError),
        ("http://127.0.0.1:9/", ProvenanceError),
        ("file:///etc/passwd", UsageError),
    ):
        with pytest.raises(error):
            stamped(ledger, wrong, root)
    assert ledger.receipts() == ()
