"""The KMS signer on a fake KMS over HTTP that really signs.

moto's KMS hashes a digest once more, so its signatures verify with nothing: the fake here is its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vrag.backends.aws.kms import KmsSigner
from vrag.clock import SystemClock
from vrag.errors import AccessDeniedError, BackendError, ConfigError, ThrottledError
from vrag.provenance.certificates import claim_signer
from vrag.provenance.credentials import Claim, read_credentials, sign_credentials
from vrag.provenance.signing import sign_envelope, verify_envelope
from vrag.testing import make_film
from vrag.testing.contracts import SignerContract
from vrag.values.requests import ModelRef, Shot, VideoRequest

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
_CURVES = {"ECC_NIST_P256": ec.SECP256R1(), "ECC_NIST_P384": ec.SECP384R1()}


class FakeKms:
    """Answers GetPublicKey and Sign as the API Reference says, with one key."""

    def __init__(self, spec="ECC_NIST_P256"):
        self.spec, self.key = spec, ec.generate_private_key(_CURVES[spec])
        self.calls, self.fail = [], []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.headers["X-Amz-Target"].removeprefix("TrentService.")
                fake.calls.append((name, body))
                status, answer = fake.fail.pop(0) if fake.fail else fake.answer(name, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("x-amzn-RequestId", "request-1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_arguments):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)

    def answer(self, name, body):
        if body["KeyId"] not in {ARN, "alias/credentials"}:
            return 400, {"__type": "NotFoundException", "message": f"Key '{ARN}' does not exist"}
        algorithm = {"ECC_NIST_P256": "ECDSA_SHA_256", "ECC_NIST_P384": "ECDSA_SHA_384"}[self.spec]
        known = {"KeyId": ARN, "KeySpec": self.spec, "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": [algorithm]}
        if name == "GetPublicKey":
            form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            return 200, known | {"PublicKey": base64.b64encode(self.key.public_key().public_bytes(*form)).decode()}
        message = base64.b64decode(body["Message"])
        if body["SigningAlgorithm"] != algorithm or body.get("MessageType") != "DIGEST" or len(message) != 32:
            return 400, {"__type": "ValidationException", "message": "Digest is invalid length for algorithm"}
        signature = self.key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return 200, {"KeyId": ARN, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": algorithm}

    @contextmanager
    def running(self):
        thread = Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield boto3.client(
                "kms",
                endpoint_url=f"http://127.0.0.1:{self.server.server_address[1]}",
                region_name="eu-central-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=40),
            )
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.fixture
def kms():
    fake = FakeKms()
    with fake.running() as client:
        fake.client = client
        yield fake


class TestKmsSigner(SignerContract):
    @pytest.fixture(autouse=True)
    def _worlds(self):
        with ExitStack() as self.worlds:
            self.made = {}
            yield

    def make(self, tmp_path):
        fake = FakeKms()
        signer = KmsSigner(self.worlds.enter_context(fake.running()), key_id="alias/credentials")
        self.made[id(signer)] = fake, signer
        return signer

    def sent(self, backend):
        return sum(name == "Sign" for name, _ in self.made[id(backend)][0].calls)


def test_the_digest_is_sent_and_the_public_key_asked_for_once(kms):
    signer = KmsSigner(kms.client, key_id=ARN)
    long = bytes(20_000)  # past the 4096 bytes of a RAW message
    signer.sign(long)
    signer.sign(b"x")
    assert signer.keyid == hashlib.sha256(signer.public_key).hexdigest()
    assert [name for name, _ in kms.calls] == ["GetPublicKey", "Sign", "Sign"]
    sent = kms.calls[1][1]
    assert base64.b64decode(sent["Message"]) == hashlib.sha256(long).digest()
    assert (sent["MessageType"], sent["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")


def test_records_signed_by_it_verify(kms):
    signer = KmsSigner(kms.client, key_id=ARN)
    envelope = sign_envelope(b'{"a":1}', signer)
    assert verify_envelope(envelope, {signer.keyid: signer.public_key}) == b'{"a":1}'


def test_a_key_of_another_spec_is_refused_before_signing():
    fake = FakeKms("ECC_NIST_P384")
    with fake.running() as client:
        with pytest.raises(ConfigError, match="ECC_NIST_P384; it must be ECC_NIST_P256"):
            KmsSigner(client, key_id=ARN).sign(b"x")
        assert [name for name, _ in fake.calls] == ["GetPublicKey"]


@pytest.mark.parametrize(
    ("status", "kind", "error", "retryable"),
    [
        (400, "AccessDeniedException", AccessDeniedError, False),
        (400, "ThrottlingException", ThrottledError, True),
        (500, "KMSInternalException", BackendError, True),
        (500, "KeyUnavailableException", BackendError, True),
        (400, "DisabledException", BackendError, False),
        (400, "KMSInvalidStateException", BackendError, False),
    ],
)
def test_errors_are_ours_and_hold_no_account(kms, status, kind, error, retryable):
    signer = KmsSigner(kms.client, key_id=ARN)
    assert signer.keyid
    kms.fail.append((status, {"__type": kind, "message": f"{ARN} is not usable"}))
    with pytest.raises(error) as caught:
        signer.sign(b"x")
    assert caught.value.retryable is retryable
    assert caught.value.operation == "Sign"
    assert "123456789012" not in str(caught.value)
    assert signer.sign(b"x")  # nothing of a failure is kept


def test_a_failure_to_get_the_key_is_not_kept(kms):
    signer = KmsSigner(kms.client, key_id=ARN)
    kms.fail.append((500, {"__type": "KMSInternalException", "message": "later"}))
    with pytest.raises(BackendError):
        _ = signer.public_key
    assert signer.public_key


def test_it_shows_no_arn(kms):
    assert "123456789012" not in repr(KmsSigner(kms.client, key_id=ARN))


def test_content_credentials_are_signed_by_it(kms):
    """With a certificate that was issued for the key in KMS; the private key is nowhere else."""
    pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'vrag[local]'")
    signer = KmsSigner(kms.client, key_id=ARN)
    root_key, now = ec.generate_private_key(ec.SECP256R1()), SystemClock().now()

    def certificate(name, issues, public):
        flags = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        usage = x509.KeyUsage(
            digital_signature=not issues, key_cert_sign=issues, crl_sign=issues, **dict.fromkeys(flags.split(), False)
        )
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, "root")]
        builder = x509.CertificateBuilder(*reversed(names), public, x509.random_serial_number())
        for extension in (
            x509.BasicConstraints(ca=issues, path_length=None),
            usage,
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
        ):
            builder = builder.add_extension(extension, critical=False)
        made = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        return made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    leaf = certificate("KMS", issues=False, public=serialization.load_der_public_key(signer.public_key))
    root = certificate("root", issues=True, public=root_key.public_key())
    film, out = io.BytesIO(), io.BytesIO()
    make_film(VideoRequest(shots=(Shot(prompt="x", duration_s=0.2),), width_px=160, height_px=90), {}, film)
    claim = Claim(
        record_id="r",
        raw_sha256="0" * 64,
        model=ModelRef(provider="x", id="y"),
        origin="algorithm",
        library_version="0",
    )
    bought = claim_signer(chain=leaf + root, key=signer)
    sign_credentials(film, out, claim, media_type="video/mp4", signer=bought, media=lambda _ref: io.BytesIO())
    assert read_credentials(out, anchors=root.decode()).state == "Trusted"
    assert [name for name, _ in kms.calls] == ["GetPublicKey", "Sign"]

    kms.fail.append((400, {"__type": "AccessDeniedException", "message": f"{ARN} is not yours"}))
    with pytest.raises(AccessDeniedError):
        sign_credentials(film, io.BytesIO(), claim, media_type="video/mp4", signer=bought, media=lambda _ref: None)
