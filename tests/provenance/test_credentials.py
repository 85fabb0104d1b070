"""Content credentials: signed here, read back with the stock reader of c2pa, altered, stripped and refused."""

import errno
import hashlib
import io
import json
import multiprocessing
import shutil
import socketserver
import stat
import subprocess
import threading
import warnings
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from vrag.clock import SystemClock
from vrag.errors import BackendError, ConfigError, ProvenanceError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.certificates import (
    C2PA_CLAIM_SIGNING,
    DOCUMENT_SIGNING,
    claim_signer,
    development_signer,
    read_anchors,
)
from vrag.provenance.credentials import (
    ASSERTION,
    Claim,
    GivenPicture,
    SoftBinding,
    credentials_mismatch,
    read_credentials,
    sign_credentials,
)
from vrag.provenance.signing import LocalSigner
from vrag.testing import FakeClock, FakeSigner, make_film
from vrag.values.requests import ModelRef, Shot, VideoRequest

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'vrag[local]'")

PHOTO = (files("vrag") / "demo" / "photos" / "dandelion-in-meadow.jpg").read_bytes()
RECORD = "0f" * 32
EMAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION


def a_film():
    out = io.BytesIO()
    make_film(VideoRequest(shots=(Shot(prompt="x", duration_s=1.0),), width_px=320, height_px=180, fps=12), {}, out)
    return out.getvalue()


FILM = a_film()
PICTURE = MediaRef(sha256=sha256_hex(PHOTO), media_type="image/jpeg", size_bytes=len(PHOTO))
GIVEN = GivenPicture(asset_id=f"brand/{'ab' * 32}", role="start_frame", original_sha256="ab" * 32, given=PICTURE)
CLAIM = Claim(
    record_id=RECORD,
    raw_sha256=sha256_hex(FILM),
    model=ModelRef(provider="aws-bedrock", id="luma.ray-v2:0", region="us-west-2", account="the secret alias"),
    origin="trained_model",
    pictures=(GIVEN,),
    library_version="0.1.0",
)
AGREES = {
    "record_id": RECORD,
    "raw_sha256": CLAIM.raw_sha256,
    "given": [(GIVEN.asset_id, PICTURE.sha256)],
}


def photo(_ref):
    return io.BytesIO(PHOTO)


def stock_reader(film, settings=None):
    """The manifest store as the library itself reads it, with settings of its own."""
    settings = settings or {"verify": {"remote_manifest_fetch": False}}
    with c2pa.Reader("video/mp4", io.BytesIO(film), context=c2pa.Context.from_dict(settings)) as reader:
        content = json.loads(reader.json())
    return content["manifests"][content["active_manifest"]], content["validation_state"]


def actions_of(manifest):
    return next(one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))


def sign(signer, claim=CLAIM, film=FILM, **more):
    out = io.BytesIO()
    manifest = sign_credentials(
        io.BytesIO(film), out, claim, **{"media_type": "video/mp4", "signer": signer, "media": photo} | more
    )
    return (out.getvalue(), manifest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("c2pa")


@pytest.fixture(scope="module")
def signer(folder):
    return development_signer(folder)


@pytest.fixture(scope="module")
def signed(signer):
    return sign(signer)[0]


def issued(key, *, usage=EMAIL, life=timedelta(days=30), self_issued=False, name="Example Studio", ca=False):
    """A chain as one would buy it: a root, and a certificate for `key`."""
    now, root_key = SystemClock().now(), ec.generate_private_key(ec.SECP256R1())

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def begun(subject, public):
        issuer = subject if self_issued else named("Example Root")
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + life)
        )

    def usages(*, issues):
        names = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        return x509.KeyUsage(
            digital_signature=not issues, key_cert_sign=issues, crl_sign=issues, **dict.fromkeys(names.split(), False)
        )

    root = (
        begun(named("Example Root"), root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usages(issues=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        begun(named(name), key.public_key())
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usages(issues=ca), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(usage.dotted_string)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = [one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root)]
    return pem[0] + pem[1], pem[1].decode()


# -- what a film is


@pytest.mark.parametrize(
    ("claim", "term"),
    [
        (CLAIM, "trainedAlgorithmicMedia"),
        (evolve(CLAIM, origin="model_over_media"), "compositeWithTrainedAlgorithmicMedia"),
        (evolve(CLAIM, origin="algorithm"), "algorithmicallyEnhanced"),
        (
            evolve(CLAIM, origin="algorithm", pictures=(evolve(GIVEN, edited_by_model=True),)),
            "compositeWithTrainedAlgorithmicMedia",
        ),
        (evolve(CLAIM, pictures=(evolve(GIVEN, edited_by_model=True),)), "trainedAlgorithmicMedia"),
        (evolve(CLAIM, origin="algorithm", pictures=()), "algorithmicMedia"),
    ],
    ids=["trained model", "model over media", "algorithm", "algorithm, in-painted", "model, in-painted", "no picture"],
)
def test_the_digital_source_type_follows_what_made_the_film(signer, claim, term):
    manifest, state = stock_reader(sign(signer, claim)[0])
    assert state == "Valid"
    created = actions_of(manifest)[0]
    assert created["action"] == "c2pa.created"
    assert created["digitalSourceType"] == f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"


@pytest.mark.parametrize(
    ("origin", "relationship", "names"),
    [
        ("trained_model", "inputTo", ["c2pa.created"]),
        ("algorithm", "componentOf", ["c2pa.created", "c2pa.placed"]),
    ],
)
def test_pictures_are_inputs_of_a_model_and_parts_of_a_camera_move(signer, origin, relationship, names):
    manifest, _ = stock_reader(sign(signer, evolve(CLAIM, origin=origin))[0])
    assert [action["action"] for action in actions_of(manifest)] == names
    [ingredient] = manifest["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == (GIVEN.asset_id, relationship)
    assert PICTURE.sha256 in ingredient["metadata"].values()


def test_our_assertion_names_record_raw_film_model_and_pictures_and_no_account(signed):
    manifest, _ = stock_reader(signed)
    ours = next(one["data"] for one in manifest["assertions"] if one["label"] == ASSERTION)
    assert (ours["record_id"], ours["raw_sha256"], ours["origin"]) == (RECORD, CLAIM.raw_sha256, "trained_model")
    assert ours["model"] == {"provider": "aws-bedrock", "id": "luma.ray-v2:0", "region": "us-west-2"}
    assert ours["pictures"][0]["given_sha256"] == PICTURE.sha256
    assert b"secret alias" not in signed


def test_a_picture_given_twice_is_one_ingredient(signer):
    claim = evolve(CLAIM, pictures=(GIVEN, evolve(GIVEN, role="end_frame")))
    film, _ = sign(signer, claim)
    assert len(stock_reader(film)[0]["ingredients"]) == 1
    assert credentials_mismatch(read_credentials(io.BytesIO(film)), **AGREES) is None


def test_a_picture_with_other_bytes_is_not_signed_for(signer):
    with pytest.raises(ProvenanceError, match="has other bytes than its digest"):
        sign(signer, media=lambda _ref: io.BytesIO(PHOTO[:-1]))


def test_a_soft_binding_is_in_the_manifest_and_is_read_back(signer):
    binding = SoftBinding(algorithm="test.vrag.1", value="beef")
    film, _ = sign(signer, evolve(CLAIM, soft_bindings=(binding,)))
    assert read_credentials(io.BytesIO(film)).soft_bindings == (binding,)
    assert "c2pa.watermarked.bound" in [one["action"] for one in actions_of(stock_reader(film)[0])]


# -- what a reader finds


def test_the_development_chain_is_valid_and_trusted_only_by_who_has_its_root(folder, signed):
    unknown = read_credentials(io.BytesIO(signed))
    assert (unknown.state, unknown.failure) == ("Valid", "signingCredential.untrusted")
    assert unknown.signer == "Development signer of vrag"
    known = read_credentials(io.BytesIO(signed), anchors=read_anchors(folder))
    assert (known.state, known.failure) == ("Trusted", None)
    assert known.digital_source_type == "trainedAlgorithmicMedia"
    assert credentials_mismatch(known, **AGREES) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"record_id": "1" * 64}, "name the record"),
        ({"raw_sha256": "1" * 64}, "another output"),
        ({"given": []}, "other pictures"),
        ({"given": [(GIVEN.asset_id, "1" * 64)]}, "other pictures"),
        ({"given": [*AGREES["given"], ("brand/x", "1" * 64)]}, "other pictures"),
    ],
)
def test_credentials_that_contradict_the_record_are_told(signed, change, why):
    assert why in credentials_mismatch(read_credentials(io.BytesIO(signed)), **AGREES | change)


def test_stripped_credentials_are_told():
    state = read_credentials(io.BytesIO(FILM))
    assert (state.state, state.present) == ("none", False)
    assert "stripped" in credentials_mismatch(state, **AGREES)


@pytest.mark.parametrize(
    "mark", [b"mdat", b"moov", RECORD[:16].encode(), b"c2pa.actions.v2", b"trainedAlgorithmicMedia"]
)
def test_a_changed_byte_makes_them_invalid(signed, mark):
    changed = bytearray(signed)
    changed[signed.rindex(mark) + len(mark) + 8] ^= 1
    state = read_credentials(io.BytesIO(bytes(changed)))
    assert state.state == "Invalid"
    assert state.failure
    assert "do not hold" in credentials_mismatch(state, **AGREES)


def test_padding_and_free_boxes_are_not_covered_so_the_record_has_the_digest_of_all_bytes(signed):
    padded = bytearray(signed)
    padded[signed.rindex(bytes(500)) + 250] ^= 1  # room in the manifest that its signature leaves out
    assert read_credentials(io.BytesIO(bytes(padded))).state == "Valid"
    longer = signed + b"\0\0\0\x10free" + b"12345678"
    assert read_credentials(io.BytesIO(longer)).state == "Valid"
    assert len({hashlib.sha256(one).digest() for one in (signed, padded, longer)}) == 3


@pytest.mark.parametrize("length", [0, 7, 40, 3000])
def test_a_cut_file_is_no_crash(signed, length):
    assert read_credentials(io.BytesIO(signed[:length])).state in {"none", "Invalid"}


def test_a_manifest_at_an_address_is_never_fetched(signer):
    """Neither by reading the film nor by keeping it as a parent; with the library's own settings it would be."""
    asked = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            film = io.BytesIO()
            created = {"action": "c2pa.created", "digitalSourceType": CLAIM.digital_source_type}
            address = f"http://127.0.0.1:{server.server_address[1]}/manifest.c2pa"
            builder = c2pa.Builder(
                {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]},
                context=c2pa.Context.from_dict({}),
            )
            builder.set_no_embed()
            builder.set_remote_url(address)
            callback = c2pa.Signer.from_callback(signer.signer.sign, c2pa.C2paSigningAlg.ES256, signer.chain_pem, None)
            with callback as native:
                builder.sign(native, "video/mp4", io.BytesIO(FILM), film)
            state = read_credentials(film)
            assert (state.state, state.elsewhere, state.present) == ("none", True, True)
            kept, _ = sign(signer, film=film.getvalue(), parent=film)
            assert read_credentials(io.BytesIO(kept)).state == "Valid"
            assert asked == []
            film.seek(0)
            with suppress(c2pa.C2paError):  # the library's own settings do ask, so that this test can fail
                c2pa.Reader.try_create("video/mp4", film)
            assert asked
        finally:
            server.shutdown()
            thread.join()


def test_a_forked_process_reads_and_signs(signer, signed):
    """A context does not outlive a fork, so none is kept."""
    assert read_credentials(io.BytesIO(signed)).state == "Valid"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from Python 3.12 on
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=lambda: queue.put(read_credentials(io.BytesIO(sign(signer)[0])).state))
        child.start()
    assert queue.get(timeout=30) == "Valid"
    child.join()


# -- the model's own credentials


@pytest.fixture(scope="module")
def vendor_film(tmp_path_factory):
    vendor = development_signer(tmp_path_factory.mktemp("vendor"))
    return sign(vendor, evolve(CLAIM, pictures=(), record_id="of the vendor"))[0]


def test_the_models_own_manifest_is_kept_as_the_parent(signer, vendor_film):
    film, _ = sign(signer, film=vendor_film, parent=io.BytesIO(vendor_film))
    manifest, state = stock_reader(film)
    assert state == "Valid"
    parent, picture = manifest["ingredients"]
    assert (parent["relationship"], picture["relationship"]) == ("parentOf", "inputTo")
    assert parent["active_manifest"]
    assert [one["action"] for one in actions_of(manifest)] == ["c2pa.opened", "c2pa.edited.metadata"]
    assert credentials_mismatch(read_credentials(io.BytesIO(film)), **AGREES) is None


def test_it_is_kept_of_a_film_that_was_written_again(signer, vendor_film):
    claim = evolve(CLAIM, changes=("visible label",))
    film, _ = sign(signer, claim, film=FILM, parent=io.BytesIO(vendor_film))  # FILM: the vendor's manifest is lost
    manifest, state = stock_reader(film)
    assert state == "Valid"
    assert manifest["ingredients"][0]["active_manifest"]
    names = ["c2pa.opened", "c2pa.edited.metadata", "c2pa.edited", "c2pa.transcoded"]
    assert [one["action"] for one in actions_of(manifest)] == names


def test_a_parent_whose_manifest_does_not_hold_spoils_nothing(signer, vendor_film):
    broken = vendor_film[:-1] + bytes([vendor_film[-1] ^ 1])
    before = read_credentials(io.BytesIO(broken))
    assert (before.state, before.present) == ("Invalid", True)
    film, _ = sign(signer, film=broken, parent=io.BytesIO(broken))
    assert read_credentials(io.BytesIO(film)).state == "Valid"


# -- other containers


@pytest.mark.parametrize("media_type", ["video/webm", "video/x-matroska"])
def test_a_container_without_a_place_gets_a_manifest_beside_it(signer, media_type):
    film = b"\x1a\x45\xdf\xa3" + bytes(5000)
    out, manifest = sign(signer, film=film, media_type=media_type)
    assert out == film
    assert read_credentials(io.BytesIO(film), media_type).state == "none"
    state = read_credentials(io.BytesIO(film), media_type, manifest=manifest)
    assert credentials_mismatch(state, **AGREES) is None
    other = read_credentials(io.BytesIO(film[:-1] + b"x"), media_type, manifest=manifest)
    assert (other.state, other.failure) == ("Invalid", "assertion.dataHash.mismatch")


# -- what goes wrong


def test_what_the_signer_raises_is_raised(signer):
    class Refusing(LocalSigner):
        def sign(self, message):
            raise BackendError("KMS refused", backend="kms", operation="Sign", retryable=True)

    refusing = evolve(signer, signer=Refusing(signer.signer._key))
    with pytest.raises(BackendError, match="KMS refused"):
        sign(refusing)


def test_an_interrupt_while_signing_is_not_swallowed(signer):
    class Interrupted(LocalSigner):
        def sign(self, message):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sign(evolve(signer, signer=Interrupted(signer.signer._key)))


def test_a_signature_of_another_key_is_found(signer):
    other = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ProvenanceError, match="could not be made"):
        sign(evolve(signer, signer=other))


def test_a_full_disk_is_told(signer):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 3000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.raises(ProvenanceError, match="disk is full"):
        sign_credentials(io.BytesIO(FILM), Full(), CLAIM, media_type="video/mp4", signer=signer, media=photo)


# -- certificates


def test_the_development_key_is_for_its_owner_alone(tmp_path):
    made = development_signer(tmp_path / "c2pa")
    path = tmp_path / "c2pa" / "development.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = development_signer(tmp_path / "c2pa")
    assert (again.chain_pem, again.signer.keyid) == (made.chain_pem, made.signer.keyid)
    path.chmod(0o640)
    with pytest.raises(ProvenanceError, match="others can read or change it"):
        development_signer(tmp_path / "c2pa")


def test_processes_that_start_at_once_get_one_development_chain(tmp_path):
    chains = []
    threads = [threading.Thread(target=lambda: chains.append(development_signer(tmp_path).chain_pem)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chains) == 8
    assert len(set(chains)) == 1


def test_an_old_development_chain_is_renewed_and_its_root_kept(tmp_path):
    clock = FakeClock()
    first = development_signer(tmp_path, clock=clock)
    clock.advance((first.expires_at - clock.now()).total_seconds() - 86_400)
    second = development_signer(tmp_path, clock=clock)
    assert second.expires_at > first.expires_at
    assert read_anchors(tmp_path).count("BEGIN CERTIFICATE") == 2


def test_a_damaged_development_file_says_what_to_do(tmp_path):
    development_signer(tmp_path)
    path = tmp_path / "development.pem"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ProvenanceError, match="remove it"):
        development_signer(tmp_path)


@pytest.mark.parametrize("usage", [EMAIL.dotted_string, DOCUMENT_SIGNING, C2PA_CLAIM_SIGNING])
def test_a_bought_certificate_signs(tmp_path, usage):
    key = ec.generate_private_key(ec.SECP256R1())
    chain, root = issued(key, usage=ObjectIdentifier(usage))
    path, chain_path = tmp_path / "key.pem", tmp_path / "chain.pem"
    chain_path.write_bytes(chain)
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    bought = claim_signer(chain=chain_path, key=path)
    assert (bought.name, bought.development) == ("Example Studio", False)
    film, _ = sign(bought, anchors=root)
    assert read_credentials(io.BytesIO(film), anchors=root).state == "Trusted"


def test_an_ed25519_certificate_signs():
    key = ed25519.Ed25519PrivateKey.generate()
    chain, root = issued(key)
    film, _ = sign(claim_signer(chain=chain, key=LocalSigner(key)))
    assert read_credentials(io.BytesIO(film), anchors=root).state == "Trusted"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "extended key usage is none of"),
        ({"usage": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}, "extended key usage is none of"),
        ({"self_issued": True}, "issued by itself"),
        ({"ca": True}, "not digitalSignature"),
        ({"life": timedelta(days=-1)}, "Configure one that is valid"),
    ],
)
def test_a_certificate_that_would_be_refused_is_refused_at_once(options, why):
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigError, match=why):
        claim_signer(chain=issued(key, **options)[0], key=LocalSigner(key))


def test_a_chain_of_another_key_or_in_another_order_is_refused():
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain, root = issued(key)
    with pytest.raises(ConfigError, match="not that of the key"):
        claim_signer(chain=chain, key=LocalSigner(other))
    with pytest.raises(ConfigError, match="not that of the key"):
        claim_signer(chain=issued(key)[0], key=FakeSigner())
    leaf = chain[: -len(root)]
    with pytest.raises(ConfigError, match="not in order"):
        claim_signer(chain=leaf + issued(key)[1].encode(), key=LocalSigner(key))
    with pytest.raises(ConfigError, match="not certificates in PEM"):
        claim_signer(chain=b"nothing", key=LocalSigner(key))


def test_a_missing_key_file_is_not_made(tmp_path):
    with pytest.raises(ProvenanceError, match="no key file"):
        claim_signer(chain=b"", key=tmp_path / "key.pem")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def time_stamps(tmp_path_factory):
    """An RFC 3161 service on loopback."""
    if shutil.which("openssl") is None:
        pytest.skip("no time stamp service: the program openssl is missing")
    folder = tmp_path_factory.mktemp("tsa")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    (folder / "extensions").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
    names = {"signer_cert": "tsa.pem", "certs": "ca.pem", "signer_key": "tsa.key", "serial": "serial"}
    settings = "".join(f"{name}={folder / path}\n" for name, path in names.items())
    rest = "signer_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\ness_cert_id_alg=sha256\n"
    (folder / "settings").write_text(f"[tsa]\ndefault_tsa=one\n[one]\n{settings}{rest}")
    (folder / "serial").write_text("01\n")
    root = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=root", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *root)
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "tsa.key", "-out", "csr", "-subj", "/CN=tsa")
    made = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tsa.pem", "-extfile", "extensions")
    openssl("x509", "-req", "-in", "csr", *made)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            openssl("ts", "-reply", "-config", "settings", "-queryfile", "query", "-out", "reply")
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", (folder / "ca.pem").read_text()
        server.shutdown()
        thread.join()


def test_a_manifest_ends_with_its_certificate_unless_it_has_a_time_stamp(time_stamps):
    address, stamp_root = time_stamps
    key = ec.generate_private_key(ec.SECP256R1())
    chain, root = issued(key, life=timedelta(seconds=3))
    roots = root + stamp_root
    bought = claim_signer(chain=chain, key=LocalSigner(key))
    plain, stamped = (sign(one)[0] for one in (bought, evolve(bought, tsa_url=address)))
    before = [read_credentials(io.BytesIO(film), anchors=roots) for film in (plain, stamped)]
    assert [one.state for one in before] == ["Trusted", "Trusted"]
    assert (before[0].signed_at, bool(before[1].signed_at)) == (None, True)
    for _ in range(100):
        if (state := read_credentials(io.BytesIO(plain), anchors=roots)).state == "Invalid":
            break
        threading.Event().wait(0.1)
    assert (state.state, state.failure) == ("Invalid", "signingCredential.expired")
    assert read_credentials(io.BytesIO(stamped), anchors=roots).state == "Trusted"


def test_a_time_stamp_service_that_is_not_there_is_told_without_its_address(signer):
    with pytest.raises(ProvenanceError, match="time stamp service gave no time stamp") as caught:
        sign(evolve(signer, tsa_url="http://name:password@127.0.0.1:9/"))
    assert "password" not in str(caught.value)
