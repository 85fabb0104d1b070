"""Statements read back: the type URIs of our records, and the form that every record has, whatever step it is about.

Sources: in-toto attestation framework, spec/v1/statement.md and resource_descriptor.md; SLSA Provenance v1,
slsa.dev/spec/v1.0/provenance (checked 2026-11-20). No SLSA level is claimed.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from attrs import field, frozen

from vrag.errors import FormatVersionError, VerificationError
from vrag.provenance.signing import strict_objects
from vrag.values.canonical import JSON
from vrag.workspace.ledger import Lineage, LineageInput

__all__ = [
    "BUILDER",
    "KEYED",
    "NAMESPACE",
    "PREDICATE_TYPE",
    "RECORD_VERSION",
    "STATEMENT_TYPE",
    "Statement",
    "build_type",
    "keyed_digest",
    "read_statement",
]

NAMESPACE: Final = "urn:uuid:f8776c51-6df1-4437-84db-1fed3000e8a9#"
"""Begins every type URI of ours. A random UUID is its own authority: no domain has to be owned, and none is borrowed."""
BUILDER: Final = f"{NAMESPACE}vrag"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
RECORD_VERSION: Final = 1
KEYED: Final = "hmac-sha256"
"""The member of a record that holds a keyed digest."""

_BUILD_TYPE: Final = re.compile(re.escape(NAMESPACE) + r"([a-z][a-z-]{0,63})/v([1-9][0-9]{0,5})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_READABLE: Final = "The record has the form that it claims"


def build_type(kind: str) -> str:
    """The build type URI of a kind of step: `generate`, `assemble`, `edit`, `choose` or `receipt`."""
    return f"{NAMESPACE}{kind}/v{RECORD_VERSION}"


def keyed_digest(key: bytes, kind: str, value: str) -> str:
    """HMAC-SHA256 under `key` over kind, a zero byte and value in UTF-8; hexadecimal."""
    return hmac.digest(key, f"{kind}\0{value}".encode(), "sha256").hex()


@frozen(kw_only=True)
class Statement:
    """A statement whose form was checked."""

    kind: str
    """The step: `generate`, `assemble`, `edit`, `choose`, `receipt`, or one of a later release with the same shape."""
    record_id: str
    lineage: Lineage
    """What was made from what. A receipt is about its subject and made nothing, so it has none."""
    content: JSON = field(repr=False)
    """The whole statement."""
    keyed_digests: frozenset[str]
    """Every keyed digest in it."""


def read_statement(payload: bytes) -> Statement:
    """Read a statement, of any kind of step, and check its form.

    Raises:
        FormatVersionError: A newer release wrote it.
        VerificationError: It is no statement of ours.
    """
    content, objects = strict_objects(payload, what="statement")
    _newer("statement type", _at(content, "_type"), STATEMENT_TYPE, "https://in-toto.io/Statement/v")
    _newer("predicate type", _at(content, "predicateType"), PREDICATE_TYPE, "https://slsa.dev/provenance/v")
    stated = _text(_at(content, "predicate", "buildDefinition", "buildType"), "buildType")
    match = _BUILD_TYPE.fullmatch(stated)
    if match is None:
        raise VerificationError(f"The build type {stated[:120]!a} is not one of vrag.", promise=_READABLE)
    if int(match[2]) > RECORD_VERSION:
        raise FormatVersionError(
            f"The record has version {match[2]}; this release reads up to {RECORD_VERSION}.",
            hint="pip install --upgrade vrag",
        )
    record = _at(content, "predicate", "buildDefinition", "internalParameters", "record")
    subjects: dict[str, str] = {}
    for one in _list(_at(content, "subject"), "subject"):
        name = _text(_at(one, "name"), "subject name")
        if name in subjects:
            raise VerificationError(f"Two subjects are named {name[:80]!a}.", promise=_READABLE)
        subjects[name] = _digest(one)
    if not subjects:
        raise VerificationError("The statement is about nothing: it has no subject.", promise=_READABLE)
    if _at(record, "kind") != match[1]:
        raise VerificationError("The kind of the record is not that of its build type.", promise=_READABLE)
    dependencies = _list(_at(content, "predicate", "buildDefinition", "resolvedDependencies"), "resolvedDependencies")
    for path in (("builder", "id"), ("metadata", "invocationId"), ("metadata", "finishedOn")):
        _text(_at(content, "predicate", "runDetails", *path), path[-1])
    inputs = tuple(_input(one) for one in dependencies)
    return Statement(
        kind=match[1],
        record_id=_text(_at(record, "id"), "record id"),
        lineage=Lineage(subjects={}) if match[1] == "receipt" else Lineage(subjects=subjects, inputs=inputs),
        content=content,
        keyed_digests=frozenset(_keyed(one[KEYED]) for one in objects if KEYED in one),
    )


def _input(dependency: JSON) -> LineageInput:
    notes = _at(dependency, "annotations")
    sha256, role = _digest(dependency), _text(_at(notes, "role"), "role")
    if _at(notes, "kind") == "artefact":
        return LineageInput(sha256=sha256, role=role)
    if _at(notes, "kind") != "asset":
        raise VerificationError("An input is neither asset nor artefact.", promise=_READABLE)
    asset_id = _text(_at(notes, "asset_id"), "asset_id")
    knowledge_base = _text(_at(notes, "knowledge_base"), "knowledge_base")
    if asset_id != f"{knowledge_base}/{sha256}":
        raise VerificationError("The id of an asset is not that of its digest.", promise=_READABLE)
    return LineageInput(sha256=sha256, role=role, asset_id=asset_id, knowledge_base=knowledge_base)


def _keyed(digest: JSON) -> str:
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise VerificationError("A keyed digest is not 64 hexadecimal digits.", promise=_READABLE)
    return digest


def _newer(what: str, found: JSON, known: str, family: str) -> None:
    if found == known:
        return
    if isinstance(found, str) and found.startswith(family):
        raise FormatVersionError(
            f"The {what} is {found[:120]!a}; this release reads '{known}'.", hint="pip install --upgrade vrag"
        )
    raise VerificationError(f"The {what} is not '{known}'.", promise=_READABLE)


def _at(content: JSON, *path: str) -> JSON:
    for name in path:
        if not isinstance(content, dict) or name not in content:
            raise VerificationError(f"The statement lacks '{name}' where it belongs.", promise=_READABLE)
        content = content[name]
    return content


def _text(value: JSON, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise VerificationError(f"The '{name}' of the statement is not a text.", promise=_READABLE)
    return value


def _list(value: JSON, name: str) -> list[JSON]:
    if not isinstance(value, list):
        raise VerificationError(f"The '{name}' of the statement is not a list.", promise=_READABLE)
    return value


def _digest(descriptor: JSON) -> str:
    digest = _at(descriptor, "digest", "sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise VerificationError("A digest is not 64 lower-case hexadecimal digits.", promise=_READABLE)
    return digest
