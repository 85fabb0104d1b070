"""Content credentials: C2PA manifests put into films, read and checked, without a network.

An ingredient of a manifest does not bind the bytes of a picture, only its thumbnail. So each picture's SHA-256 stands in
the ingredient's metadata and in our own assertion, and it is compared with the bytes before signing.

Sources: C2PA Technical Specification 2.2; IPTC NewsCodes, Digital Source Type; c2pa-python 0.38 (checked 2026-11-20).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, BinaryIO, Final

from vrag.errors import MissingExtraError, ProvenanceError, VRAGError
from vrag.media.ref import OpenMedia
from vrag.provenance.certificates import KEY_USAGES, ClaimSigner
from vrag.provenance.manifest import (
    ASSERTION,
    SHA256,
    UNREADABLE,
    Claim,
    CredentialIngredient,
    CredentialState,
    GivenPicture,
    SoftBinding,
    digital_source_type,
    labelled,
    manifest_of,
    relationship_of,
    state_of,
)
from vrag.values.canonical import JSON

__all__ = [
    "ASSERTION",
    "Claim",
    "CredentialIngredient",
    "CredentialState",
    "GivenPicture",
    "SoftBinding",
    "can_embed",
    "credentials_mismatch",
    "digital_source_type",
    "read_credentials",
    "sign_credentials",
]

_EMBED: Final = frozenset({"video/mp4", "video/quicktime"})
_SIDECAR: Final = frozenset({"video/webm", "video/x-matroska", "video/matroska"})
_ADDRESS: Final = re.compile(r"https?://\S+")


def can_embed(media_type: str) -> bool:
    """Whether a container of this type holds a manifest; webm and Matroska have theirs in a `.c2pa` file."""
    return media_type in _EMBED


def sign_credentials(
    film: BinaryIO,
    out: BinaryIO,
    claim: Claim,
    *,
    media_type: str,
    signer: ClaimSigner,
    media: OpenMedia,
    parent: BinaryIO | None = None,
    anchors: str | None = None,
) -> bytes:
    """Write `film` with a signed manifest to `out`, or as it is where its container holds none, and return the manifest.

    Args:
        film: What is delivered but for the manifest; an open file.
        out: A seekable file, empty, open for reading and writing.
        claim: What the manifest says.
        media_type: Of the film.
        signer: Key and certificates.
        media: Opens the pictures as given.
        parent: The film as its model made it, if it carries credentials of its own: they are kept.
        anchors: Roots in PEM that the result is checked against.

    Raises:
        MissingExtraError: c2pa is not installed.
        ProvenanceError: A picture has other bytes than its digest; the disk is full; or the result does not validate.
        VRAGError: What the signer raised.
    """
    if media_type not in _EMBED | _SIDECAR:
        raise ProvenanceError(f"Content credentials for {media_type} are not made; video/mp4 and video/webm are.")
    c2pa = _c2pa()
    algorithm = {"ecdsa-p256-sha256": c2pa.C2paSigningAlg.ES256, "ed25519": c2pa.C2paSigningAlg.ED25519}
    kept: list[BaseException] = []
    source, target = _Watched(film, kept), _Watched(out, kept)
    film.seek(0)

    def sign(data: bytes) -> bytes:
        # The binding swallows what is raised here, KeyboardInterrupt too: it is kept, and raised below.
        try:
            return signer.signer.sign(data)
        except BaseException as error:  # noqa: BLE001  # as above
            kept.append(error)
            return b""

    try:
        builder = c2pa.Builder(manifest_of(claim, parent=parent is not None), context=_context(anchors, claim))
        if parent is not None:
            parent.seek(0)
            builder.add_ingredient(
                {"title": "model output", "relationship": "parentOf", "label": "parent"},
                media_type,
                _Watched(parent, kept),
            )
        for label, picture in labelled(claim):
            _add_picture(builder, label, picture, claim, media, kept)
        if not can_embed(media_type):
            builder.set_no_embed()
        with c2pa.Signer.from_callback(
            sign, algorithm[signer.signer.algorithm], signer.chain_pem, signer.tsa_url
        ) as native:
            manifest: bytes = builder.sign(native, media_type, source, target)
        out.flush()
    except c2pa.C2paError as error:
        raise _failed(kept, error, stamped=signer.tsa_url is not None) from (kept[0] if kept else error)
    if kept:
        raise _failed(kept) from kept[0]
    state = read_credentials(out, media_type, anchors=anchors, manifest=None if can_embed(media_type) else manifest)
    if state.state not in {"Valid", "Trusted"}:
        raise ProvenanceError(f"The film was signed, but its credentials do not hold: {state.failure}.")
    return manifest


def read_credentials(
    film: BinaryIO, media_type: str = "video/mp4", *, anchors: str | None = None, manifest: bytes | None = None
) -> CredentialState:
    """Read and check the content credentials of a film. Nothing is fetched, and nothing that a film holds raises.

    Args:
        film: An open, seekable file.
        media_type: What it is.
        anchors: Roots in PEM that make a signer Trusted. Without them the state is at best Valid.
        manifest: The bytes of its `.c2pa` file, if its manifest lies beside it.

    Raises:
        MissingExtraError: c2pa is not installed.
    """
    c2pa = _c2pa()
    film.seek(0)
    try:
        reader = c2pa.Reader.try_create(media_type, film, manifest, context=_context(anchors))
        if reader is None:
            return CredentialState(state="none")
        with reader:
            content = json.loads(reader.json())
            state = reader.get_validation_state()
    except c2pa.C2paError as error:
        kind = _kind(error)
        if kind == "Remote":
            return CredentialState(state="none", failure="manifest elsewhere, not fetched", elsewhere=True)
        if kind == "NotSupported" and manifest is None:
            return CredentialState(state="none", failure=f"{media_type:.40} holds no manifest")
        # A file that names a manifest and cannot be read is not one without credentials.
        return CredentialState(state="Invalid", failure=f"{UNREADABLE}: {kind}")
    except (ValueError, RecursionError):
        return CredentialState(state="Invalid", failure=f"{UNREADABLE}: Json")
    return state_of(content, state)


def credentials_mismatch(
    state: CredentialState, *, record_id: str, raw_sha256: str, given: Iterable[tuple[str, str]]
) -> str | None:
    """How the credentials of a film contradict its record; None if they agree.

    Args:
        state: From `read_credentials`.
        record_id: Of the record.
        raw_sha256: Of its subject `raw`.
        given: Asset id and SHA-256, as given to the generator, of each picture.
    """
    if state.state == "none":
        return "the film carries no content credentials: they were stripped, or it is another file"
    if state.state == "Invalid":
        return f"the content credentials do not hold: {state.failure}"
    if state.record_id != record_id:
        return f"the content credentials name the record {state.record_id!s:.80}, not {record_id}"
    if state.raw_sha256 != raw_sha256:
        return "the content credentials name another output of the generator than the record"
    titled = {(one.title, one.sha256) for one in state.ingredients if one.relationship != "parentOf"}
    if not set(state.pictures) == titled == set(given):
        return "the content credentials name other pictures than the record"
    return None


def _add_picture(
    builder: Any, label: str, picture: GivenPicture, claim: Claim, media: OpenMedia, kept: list[BaseException]
) -> None:
    with media(picture.given) as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != picture.given.sha256:
            raise ProvenanceError(
                f"The picture given for '{picture.asset_id}' has other bytes than its digest: nothing was signed.",
                hint="vrag verify",
            )
    described = {
        "title": picture.asset_id,
        "relationship": relationship_of(claim),
        "label": label,
        "description": picture.role,
        "metadata": {SHA256: picture.given.sha256},
    }
    with media(picture.given) as stream:
        builder.add_ingredient(described, picture.given.media_type, _Watched(stream, kept))


# -- the library


def _c2pa() -> Any:
    try:
        return import_module("c2pa")  # on use: 20 MB of native code of an extra
    except ImportError:
        raise MissingExtraError(
            "Content credentials need the package c2pa-python of the extra 'local'. Without them, say so: marking none.",
            hint="pip install 'vrag[local]'",
        ) from None


def _context(anchors: str | None, claim: Claim | None = None) -> Any:
    """The one place that makes settings. By default the library fetches addresses that it finds in a file.

    A context is made for each call (0.1 ms), because one does not outlive a fork.
    """
    # 1.3.6.1.5.5.7.3.8 and .9: time stamps and OCSP, which a list of one's own would leave out
    trust: dict[str, JSON] = {"trust_config": "\n".join([*KEY_USAGES, "1.3.6.1.5.5.7.3.8", "1.3.6.1.5.5.7.3.9", ""])}
    if anchors:
        trust["user_anchors"] = anchors
    settings: dict[str, JSON] = {
        "trust": trust,
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": True},
        "core": {"allowed_network_hosts": []},
    }
    if claim is not None:
        settings["builder"] = {
            "claim_generator_info": {"name": "vrag", "version": claim.library_version},
            "created_assertion_labels": ["c2pa.actions", ASSERTION, "c2pa.soft-binding"],
            "thumbnail": {"enabled": True, "long_edge": 256, "format": "jpeg"},
        }
    return _c2pa().Context.from_dict(settings)


class _Watched:
    """A stream whose errors are kept: the library reports each of them as one and the same."""

    def __init__(self, stream: BinaryIO, kept: list[BaseException]) -> None:
        self._kept = kept
        for name in ("read", "write", "seek", "tell", "flush"):
            setattr(self, name, self._watch(getattr(stream, name)))

    def _watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except BaseException as error:
                self._kept.append(error)
                raise

        return watched


def _kind(error: Exception) -> str:
    """`Remote` of "Remote: must fetch …"; what follows may quote the file."""
    return str(error).partition(":")[0][:40]


def _failed(kept: Sequence[BaseException], error: Exception | None = None, *, stamped: bool = False) -> BaseException:
    first = kept[0] if kept else None
    if isinstance(first, VRAGError):
        return first
    if isinstance(first, OSError):
        if first.errno in {errno.ENOSPC, errno.EDQUOT}:
            return ProvenanceError("The disk is full: the film could not be signed. Free some space; nothing was lost.")
        return ProvenanceError(f"The film could not be read or written while it was signed: {first.strerror}.")
    if first is not None:
        return first
    if stamped and "http" in str(error):
        return ProvenanceError("The time stamp service gave no time stamp, so nothing was signed. Sign again later.")
    said = _ADDRESS.sub("…", str(error))
    return ProvenanceError(f"The content credentials could not be made: {said:.300}")
