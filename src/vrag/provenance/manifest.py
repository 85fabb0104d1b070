"""What a manifest of C2PA says of a film, as values; and what one said, read back from its JSON.

Sources: C2PA Technical Specification 2.2; IPTC NewsCodes, Digital Source Type (checked 2026-11-20).
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

from vrag.errors import ProvenanceError
from vrag.media.ref import MediaRef
from vrag.provenance.statement import NAMESPACE
from vrag.values.canonical import JSON
from vrag.values.requests import ModelRef

__all__ = [
    "ASSERTION",
    "SHA256",
    "UNREADABLE",
    "Claim",
    "CredentialIngredient",
    "CredentialState",
    "GivenPicture",
    "SoftBinding",
    "digital_source_type",
    "labelled",
    "manifest_of",
    "relationship_of",
    "state_of",
]

Origin = Literal["trained_model", "model_over_media", "algorithm"]

_IPTC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OURS: Final = NAMESPACE.removeprefix("urn:uuid:").removesuffix("#")
ASSERTION: Final = f"{_OURS}.generation"
"""Label of our assertion. A label begins with a name that its author owns; a UUID of our own is one, a domain would not be."""
SHA256: Final = f"{_OURS}.sha256"
"""Member of an ingredient's metadata: SHA-256 of the bytes that were given to the generator."""
_MAX_INGREDIENTS: Final = 1000
UNREADABLE: Final = "unreadable"
"""Begins the failure of a manifest that is there and cannot be read."""
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
        return self.elsewhere or (self.state != "none" and not (self.failure or "").startswith(UNREADABLE))


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


def labelled(claim: Claim) -> list[tuple[str, GivenPicture]]:
    """Each picture once, however often it was given, with its label in the manifest.

    Raises:
        ProvenanceError: There are more than a manifest names.
    """
    once = {(picture.asset_id, picture.given.sha256): picture for picture in claim.pictures}
    if len(once) > _MAX_INGREDIENTS:
        raise ProvenanceError(f"A manifest names at most {_MAX_INGREDIENTS} pictures; this film has {len(once)}.")
    return [(f"picture-{number}", picture) for number, picture in enumerate(once.values())]


def manifest_of(claim: Claim, *, parent: bool) -> dict[str, JSON]:
    """The definition of a manifest, without its ingredients; `parent`: the film had credentials of its own."""
    labels = [label for label, _ in labelled(claim)]
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
    if labels and relationship_of(claim) == "componentOf":
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
            for _, picture in labelled(claim)
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


def relationship_of(claim: Claim) -> str:
    """How its pictures stand to the film, as C2PA names it."""
    # A camera move shows the picture's own pixels; a model takes it in and makes pixels of its own.
    return "componentOf" if claim.origin == "algorithm" else "inputTo"


def state_of(content: JSON, state: str | None) -> CredentialState:
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
