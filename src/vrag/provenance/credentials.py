"""Content credentials: C2PA manifests in films, made and read without a network.

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
from typing import Any, BinaryIO, Final, Literal

from attrs import frozen

from vrag.errors import MissingExtraError, ProvenanceError, VRAGError
from vrag.media.ref import MediaRef, OpenMedia
from vrag.provenance.certificates import KEY_USAGES, ClaimSigner
from vrag.provenance.statement import NAMESPACE
from vrag.values.canonical import JSON
from vrag.values.requests import ModelRef

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

Origin = Literal["trained_model", "model_over_media", "algorithm"]

_IPTC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OURS: Final = NAMESPACE.removeprefix("urn:uuid:").removesuffix("#")
ASSERTION: Final = f"{_OURS}.generation"
"""Label of our assertion. A label begins with a name that its author owns; a UUID of our own is one, a domain would not be."""
SHA256: Final = f"{_OURS}.sha256"
"""Member of an ingredient's metadata: SHA-256 of the bytes that were given to the generator."""
_EMBED: Final = frozenset({"video/mp4", "video/quicktime"})
_SIDECAR: Final = frozenset({"video/webm", "video/x-matroska", "video/matroska"})
_MAX_INGREDIENTS: Final = 1000
_UNREADABLE: Final = "unreadable"
_ADDRESS: Final = re.compile(r"https?://\S+")
_UNTRUSTED: Final = "signingCredential.untrusted"


@frozen(kw_only=True)
class GivenPicture:
    """A picture that the film is made from."""

    asset_id: str
    role: str
    original_sha256: str
    given: MediaRef
    """The exact bytes that the generator got."""
    edited_by_model: bool = False
    """Whether a model in-painted it before."""


@frozen(kw_only=True)
class SoftBinding:
    """What a watermark says, so that a manifest can be found again after it was stripped."""

    algorithm: str
    """A name of the C2PA soft binding algorithm list, or one under a domain of the vendor's."""
    value: str
    """What a detector reads from the film."""


@frozen(kw_only=True)
class Claim:
    """What a manifest says of a film. It holds ids and digests: no prompt, caption or file name."""

    record_id: str
    raw_sha256: str
    model: ModelRef
    origin: Origin
    pictures: tuple[GivenPicture, ...] = ()
    library_version: str
    changes: tuple[str, ...] = ()
    """What was changed in its pixels after it was made, such as "visible label"."""
    soft_bindings: tuple[SoftBinding, ...] = ()

    @property
    def digital_source_type(self) -> str:
        """The IPTC term, as a URI."""
        return digital_source_type(
            self.origin,
            has_pictures=bool(self.pictures),
            edited_by_model=any(picture.edited_by_model for picture in self.pictures),
        )


@frozen(kw_only=True)
class CredentialIngredient:
    """An ingredient as a manifest names it."""

    title: str
    relationship: str
    """`parentOf`, `componentOf` or `inputTo`."""
    sha256: str | None = None
    """Of the bytes, where vrag wrote it."""


@frozen(kw_only=True)
class CredentialState:
    """What a film's content credentials say, and whether they hold."""

    state: Literal["Trusted", "Valid", "Invalid", "none"]
    """`Trusted`: sound, and the signer's chain ends in a known root. `Valid`: sound, by a signer nobody vouches for.
    `Invalid`: the film, the manifest or the signature was changed, or the certificate does not hold. `none`: there are
    none to read."""
    signer: str | None = None
    """Common name of the certificate; it is a name that anybody can choose, unless the state is Trusted."""
    issuer: str | None = None
    digital_source_type: str | None = None
    """The last part of the IPTC term, such as `trainedAlgorithmicMedia`."""
    record_id: str | None = None
    raw_sha256: str | None = None
    pictures: tuple[tuple[str, str], ...] = ()
    """Asset id and SHA-256 as given to the generator, as our assertion has them."""
    ingredients: tuple[CredentialIngredient, ...] = ()
    soft_bindings: tuple[SoftBinding, ...] = ()
    failure: str | None = None
    """The first failure code of C2PA, such as `assertion.bmffHash.mismatch`; or why nothing could be read."""
    signed_at: str | None = None
    """Of the time stamp, where there is one."""
    elsewhere: bool = False
    """The film only says at which address its manifest lies; that is never fetched."""

    @property
    def present(self) -> bool:
        """Whether the film has credentials, sound or not, that another manifest can keep as those of its parent."""
        return self.elsewhere or (self.state != "none" and not (self.failure or "").startswith(_UNREADABLE))


def digital_source_type(origin: Origin, *, has_pictures: bool, edited_by_model: bool = False) -> str:
    """The IPTC Digital Source Type of a film, as a URI.

    Pixels of a trained model are `trainedAlgorithmicMedia`. Media that a model changed are
    `compositeWithTrainedAlgorithmicMedia`, and so is a film that a plain algorithm made of an in-painted picture. A camera
    move over a picture is `algorithmicallyEnhanced`: an alteration by algorithm that keeps the main content, and it claims
    nothing about the picture itself. Without a picture a plain algorithm makes `algorithmicMedia`.
    """
    if origin == "trained_model":
        term = "trainedAlgorithmicMedia"
    elif origin == "model_over_media" or edited_by_model:
        term = "compositeWithTrainedAlgorithmicMedia"
    else:
        term = "algorithmicallyEnhanced" if has_pictures else "algorithmicMedia"
    return _IPTC + term


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
        builder = c2pa.Builder(_manifest(claim, parent=parent is not None), context=_context(anchors, claim))
        if parent is not None:
            parent.seek(0)
            builder.add_ingredient(
                {"title": "model output", "relationship": "parentOf", "label": "parent"},
                media_type,
                _Watched(parent, kept),
            )
        for label, picture in _labelled(claim):
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
        return CredentialState(state="Invalid", failure=f"{_UNREADABLE}: {kind}")
    except (ValueError, RecursionError):
        return CredentialState(state="Invalid", failure=f"{_UNREADABLE}: Json")
    return _state(content, state)


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


# -- what a manifest says


def _labelled(claim: Claim) -> list[tuple[str, GivenPicture]]:
    """Each picture once, however often it was given."""
    once = {(picture.asset_id, picture.given.sha256): picture for picture in claim.pictures}
    if len(once) > _MAX_INGREDIENTS:
        raise ProvenanceError(f"A manifest names at most {_MAX_INGREDIENTS} pictures; this film has {len(once)}.")
    return [(f"picture-{number}", picture) for number, picture in enumerate(once.values())]


def _manifest(claim: Claim, *, parent: bool) -> dict[str, JSON]:
    labels = [label for label, _ in _labelled(claim)]
    made: dict[str, JSON] = {
        "action": "c2pa.created",
        "digitalSourceType": claim.digital_source_type,
        "softwareAgent": {"name": f"{claim.model.provider}:{claim.model.id}"},
    }
    actions: list[dict[str, JSON]] = [made]
    if parent:
        # The model's own manifest says who created it; ours says what it was created from.
        made["action"], made["description"] = "c2pa.edited.metadata", "sources and record named"
        actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}, made]
    if labels and _relationship(claim) == "componentOf":
        actions.append({"action": "c2pa.placed", "parameters": {"ingredientIds": labels}})
    elif labels:
        made["parameters"] = {"ingredientIds": labels}
    actions += [{"action": "c2pa.edited", "description": change} for change in claim.changes]
    if claim.changes and parent:
        actions.append({"action": "c2pa.transcoded", "parameters": {"ingredientIds": ["parent"]}})
    actions += [{"action": "c2pa.watermarked.bound"} for _ in claim.soft_bindings]
    ours = {
        "version": 1,
        "record_id": claim.record_id,
        "raw_sha256": claim.raw_sha256,
        # without the alias of the account: that is the business of its holder
        "model": {"provider": claim.model.provider, "id": claim.model.id, "region": claim.model.region},
        "origin": claim.origin,
        "pictures": [
            {
                "asset_id": picture.asset_id,
                "role": picture.role,
                "original_sha256": picture.original_sha256,
                "given_sha256": picture.given.sha256,
                "edited_by_model": picture.edited_by_model,
            }
            for _, picture in _labelled(claim)
        ],
    }
    bindings = [
        {"label": "c2pa.soft-binding", "data": {"alg": one.algorithm, "blocks": [{"scope": {}, "value": one.value}]}}
        for one in claim.soft_bindings
    ]
    return {
        "title": claim.record_id,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": ASSERTION, "data": ours},
            *bindings,
        ],
    }


def _relationship(claim: Claim) -> str:
    # A camera move shows the picture's own pixels; a model takes it in and makes pixels of its own.
    return "componentOf" if claim.origin == "algorithm" else "inputTo"


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
        "relationship": _relationship(claim),
        "label": label,
        "description": picture.role,
        "metadata": {SHA256: picture.given.sha256},
    }
    with media(picture.given) as stream:
        builder.add_ingredient(described, picture.given.media_type, _Watched(stream, kept))


# -- what a manifest said


def _state(content: JSON, state: str | None) -> CredentialState:
    """What stands in the active manifest; any part may be missing or of another kind."""
    manifest = _at(content, "manifests", _at(content, "active_manifest"))
    assertions = [one for one in _list(_at(manifest, "assertions")) if isinstance(one, dict)]
    actions = [
        action
        for one in assertions
        if str(one.get("label", "")).startswith("c2pa.actions")
        for action in _list(_at(one, "data", "actions"))
    ]
    kind = next((kind for action in actions if (kind := _text(action, "digitalSourceType"))), None)
    ours = next((one.get("data") for one in assertions if one.get("label") == ASSERTION), None)
    failures = _list(_at(content, "validation_results", "activeManifest", "failure"))
    for delta in _list(_at(content, "validation_results", "ingredientDeltas")):
        failures = failures + _list(_at(delta, "validationDeltas", "failure"))
    codes = [code for one in failures if (code := _text(one, "code"))]
    codes.sort(key=lambda code: code == _UNTRUSTED)  # the least of them, and told first where there are others
    known: Literal["Trusted", "Valid", "Invalid"] = (
        "Trusted" if state == "Trusted" else "Valid" if state == "Valid" else "Invalid"
    )
    return CredentialState(
        state=known,
        signer=_text(manifest, "signature_info", "common_name"),
        issuer=_text(manifest, "signature_info", "issuer"),
        digital_source_type=None if kind is None else kind.rpartition("/")[2],
        record_id=_text(ours, "record_id"),
        raw_sha256=_text(ours, "raw_sha256"),
        pictures=tuple(
            (name, digest)
            for one in _list(_at(ours, "pictures"))
            if (name := _text(one, "asset_id")) and (digest := _text(one, "given_sha256"))
        ),
        ingredients=tuple(
            CredentialIngredient(
                title=_text(one, "title") or "",
                relationship=_text(one, "relationship") or "",
                sha256=_text(one, "metadata", SHA256),
            )
            for one in _list(_at(manifest, "ingredients"))
        ),
        soft_bindings=tuple(
            SoftBinding(algorithm=_text(one, "data", "alg") or "", value=value)
            for one in assertions
            if str(one.get("label", "")).startswith("c2pa.soft-binding")
            for block in _list(_at(one, "data", "blocks"))
            if (value := _text(block, "value"))
        ),
        failure=next(iter(codes), None),
        signed_at=_text(manifest, "signature_info", "time"),
    )


def _at(content: JSON, *path: JSON) -> JSON:
    for name in path:
        content = content.get(name) if isinstance(content, dict) and isinstance(name, str) else None
    return content


def _text(content: JSON, *path: str) -> str | None:
    found = _at(content, *path)
    return found if isinstance(found, str) else None


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


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
