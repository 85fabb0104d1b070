"""Certificates for content credentials: the development chain that the first use makes, and chains that were bought.

What C2PA asks of a certificate: X.509 v3, not issued by itself, key usage `digitalSignature`, and an extended key usage on
the reader's list. Source: C2PA Technical Specification 2.2, section "X.509 Certificates" (checked 2026-11-20).
"""

from __future__ import annotations

import os
import stat
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from vrag.clock import Clock, SystemClock
from vrag.errors import ConfigError, ProvenanceError
from vrag.interfaces import Signer
from vrag.media.files import sync_folder, write_new
from vrag.provenance.signing import LocalSigner

__all__ = ["KEY_USAGES", "ClaimSigner", "claim_signer", "development_signer", "read_anchors"]

C2PA_CLAIM_SIGNING: Final = "1.3.6.1.4.1.62558.2.1"
DOCUMENT_SIGNING: Final = "1.3.6.1.5.5.7.3.36"
KEY_USAGES: Final = (ExtendedKeyUsageOID.EMAIL_PROTECTION.dotted_string, DOCUMENT_SIGNING, C2PA_CLAIM_SIGNING)
"""Extended key usages that a claim signer may have; a stock reader of 2026-11 takes the first without being told."""

_DEVELOPMENT: Final = "development.pem"
_ANCHORS: Final = "anchors.pem"
_LIFE: Final = timedelta(days=5 * 365)
_RENEW: Final = timedelta(days=30)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_MAX_BYTES: Final = 1 << 20


@frozen(kw_only=True)
class ClaimSigner:
    """The key and the certificates that content credentials are signed with. Make one by the functions of this module."""

    signer: Signer
    """`ecdsa-p256-sha256` (ES256) or `ed25519` (Ed25519)."""
    chain_pem: str = field(repr=False)
    """The certificate of the key, then those that issued it, in PEM."""
    name: str
    """Common name of the certificate."""
    expires_at: datetime
    """After it nothing is signed, and manifests without a trusted time stamp read as Invalid."""
    tsa_url: str | None = None
    """An RFC 3161 time stamp service, asked at each signing; None asks nobody."""
    development: bool = False
    """Whether anybody could have made this chain: readers say Valid, never Trusted."""


def development_signer(folder: Path, *, clock: Clock | None = None) -> ClaimSigner:
    """The development chain in `folder`; the first use makes it.

    `development.pem` holds key and certificates and is readable by its owner alone. `anchors.pem` holds every root that was
    ever made here, public. The key of a root signs one certificate and is then gone: nothing else can come from it, so
    its root may be handed out. The certificate is valid for five years and is renewed in its last 30 days.

    Raises:
        ProvenanceError: A file can be read by others, was changed, or cannot be read or made.
    """
    clock = clock or SystemClock()
    path = folder / _DEVELOPMENT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _development(path, clock)
        if found is None:
            with FileLock(folder / ".development.lock"):
                found = _development(path, clock)
                if found is None:
                    _make_development(path, clock)
                    found = _development(path, clock)
    except OSError as error:
        raise ProvenanceError(
            f"The development certificates in '{folder}' cannot be used: {error.strerror or error}."
        ) from error
    if found is None:
        raise ProvenanceError(f"The development certificates in '{folder}' were removed while they were made.")
    return found


def claim_signer(
    *, chain: Path | bytes, key: Path | Signer, tsa_url: str | None = None, clock: Clock | None = None
) -> ClaimSigner:
    """A signer with a certificate that was issued to you.

    Args:
        chain: PEM: the certificate of the key first, then those that issued it; the root may be left out.
        key: A private key file (PKCS #8, PEM, not encrypted, mode 0600), or any `Signer`, such as one on KMS.
        tsa_url: An RFC 3161 time stamp service (http or https). Without one, manifests stop being valid with the
            certificate. If it does not answer, nothing is signed.
        clock: Says whether the certificate is valid now.

    Raises:
        ConfigError: Chain and key do not belong together, or C2PA does not take such a certificate.
        ProvenanceError: A file cannot be read, or the key file can be read by others.
    """
    return _claim_signer(chain, key, tsa_url=tsa_url, clock=clock or SystemClock(), development=False)


def read_anchors(folder: Path) -> str | None:
    """The roots of the development chains made in `folder`, in PEM; None where there are none."""
    try:
        return (folder / _ANCHORS).read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ProvenanceError(f"The roots in '{folder / _ANCHORS}' cannot be read.") from error


def _claim_signer(
    chain: Path | bytes, key: Path | Signer, *, tsa_url: str | None, clock: Clock, development: bool
) -> ClaimSigner:
    if tsa_url is not None and not tsa_url.startswith(("http://", "https://")):
        raise ConfigError("The address of the time stamp service must begin with http:// or https://.")
    signer = _local(key) if isinstance(key, Path) else key
    certificates = _certificates(chain)
    leaf = certificates[0]
    if leaf.public_key().public_bytes(_DER, _SPKI) != signer.public_key:
        raise ConfigError(
            f"The first certificate of the chain is not that of the key {signer.keyid}. "
            "The chain begins with the certificate of the key; those that issued it follow."
        )
    _check_leaf(leaf, clock.now())
    for issued, issuer in pairwise(certificates):
        try:
            issued.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise ConfigError("The certificates are not in order: each must be issued by the one after it.") from error
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ClaimSigner(
        signer=signer,
        chain_pem="".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates),
        name=str(names[0].value) if names else "",
        expires_at=leaf.not_valid_after_utc,
        tsa_url=tsa_url,
        development=development,
    )


_DER: Final = serialization.Encoding.DER
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


def _local(path: Path) -> LocalSigner:
    if not path.is_file():  # `load_or_create` would make one, and no certificate would fit it
        raise ProvenanceError(f"There is no key file '{path}'.")
    return LocalSigner.load_or_create(path)


def _certificates(chain: Path | bytes) -> list[x509.Certificate]:
    try:
        if isinstance(chain, Path):
            with chain.open("rb") as file:
                chain = file.read(_MAX_BYTES)
        return x509.load_pem_x509_certificates(chain)
    except OSError as error:
        raise ProvenanceError(f"The certificates in '{chain!s}' cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError("The chain is not certificates in PEM.") from error


def _check_leaf(leaf: x509.Certificate, now: datetime) -> None:
    """What C2PA asks, before a film is paid rather than when it is signed."""
    wrong = None
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not usage.digital_signature:
            wrong = "its key usage is not digitalSignature"
        elif not any(one.dotted_string in KEY_USAGES for one in extended):
            wrong = f"its extended key usage is none of {', '.join(KEY_USAGES)}"
        elif any(one == ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE for one in extended):
            wrong = "its extended key usage is 'any'"
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        wrong = "it does not state its key usage and its extended key usage"
    if leaf.issuer == leaf.subject:
        wrong = "it is issued by itself"
    if wrong is not None:
        raise ConfigError(f"C2PA does not take this certificate: {wrong}.")
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise ConfigError(
            f"The certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, not on {now:%Y-%m-%d}. Configure one that is valid."
        )


def _development(path: Path, clock: Clock) -> ClaimSigner | None:
    """What the file holds; None where there is none, or its certificate is due to be renewed."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        # Windows keeps access lists, and its mode bits say nothing about other users.
        if os.name == "posix" and mode & 0o077:
            raise ProvenanceError(
                f"The development key '{path}' has mode {mode:04o}: others can read or change it. "
                "It must be for its owner alone (0600).",
                hint=f"chmod 600 '{path}'",
            )
        pem, begin, rest = file.read(_MAX_BYTES).decode("ascii", "replace").partition(_BEGIN)
    chain = (begin + rest).encode()
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        due = x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc - clock.now() < _RENEW
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ProvenanceError(
            f"The file '{path}' does not hold a development key with its certificates; remove it, and it is made anew."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ProvenanceError(f"The key in '{path}' is not ECDSA on P-256; remove the file, and it is made anew.")
    if due:
        return None
    return _claim_signer(chain, LocalSigner(key), tsa_url=None, clock=clock, development=True)


def _make_development(path: Path, clock: Clock) -> None:
    root_key, key = _key(clock), _key(clock)
    mark = clock.token_bytes(4).hex()  # two roots must not share a name: readers find an issuer by it
    root_name, name = _name(f"Development root {mark} of vrag"), _name("Development signer of vrag")
    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        _begin(root_name, root_name, root_key.public_key(), clock)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _begin(name, root_name, key.public_key(), clock)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issues=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    # The root first: a killed process may leave one that signed nothing, never a signature whose root is lost.
    known = read_anchors(path.parent) or ""
    anchor = root.public_bytes(serialization.Encoding.PEM)
    write_new(path.with_name(_ANCHORS), [known.encode(), anchor], overwrite=True)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.write(leaf.public_bytes(serialization.Encoding.PEM) + anchor)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _key(clock: Clock) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(clock.token_bytes(40), "big") % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Development of vrag, not an identity"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, clock: Clock
) -> x509.CertificateBuilder:
    now = clock.now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(clock.token_bytes(19), "big") | 1 << 151)
        .not_valid_before(now - timedelta(days=1))  # clocks of readers may be behind
        .not_valid_after(now + _LIFE)
    )


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        key_cert_sign=issues,
        crl_sign=issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
