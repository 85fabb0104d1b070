"""Holds the content credentials in a film against its record; a part of `verify_file`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from vrag.errors import VerificationError
from vrag.provenance.credentials import credentials_mismatch, read_credentials
from vrag.provenance.verify import CREDENTIALS, CheckCredentials
from vrag.values.canonical import JSON

__all__ = ["credential_check"]

_GIVEN = " as given"


def credential_check(anchors: str | None = None, *, manifest: bytes | None = None) -> CheckCredentials | None:
    """What `verify_file` takes as `credentials`; None where c2pa is not installed, and they cannot be read.

    Args:
        anchors: Roots in PEM that make a signer Trusted. Without them sound credentials are Valid.
        manifest: The bytes of the `.c2pa` file beside the film, where its container holds none.
    """
    if find_spec("c2pa") is None:
        return None

    def check(video: Path | BinaryIO, statement: JSON) -> str | None:
        delivered = next((one for one in statement["subject"] if one["name"] == "delivered"), None)
        marks = (delivered or {}).get("annotations", {}).get("marks") or []
        if not any(isinstance(mark, dict) and mark.get("kind") == "c2pa" for mark in marks):
            return None
        made = statement["predicate"]["buildDefinition"]
        raw = next(one for one in statement["subject"] if one["name"] == "raw")
        given = {
            (one["name"].removesuffix(_GIVEN), one["digest"]["sha256"])
            for one in made["resolvedDependencies"]
            if one["name"].endswith(_GIVEN) and one.get("annotations", {}).get("role") == "start_frame"
        }
        with _opened(video) as film:
            state = read_credentials(
                film, (delivered or {}).get("mediaType", "video/mp4"), anchors=anchors, manifest=manifest
            )
        wrong = credentials_mismatch(
            state,
            record_id=made["internalParameters"]["record"]["id"],
            raw_sha256=raw["digest"]["sha256"],
            given=given,
        )
        if wrong is not None:
            raise VerificationError(wrong, promise=CREDENTIALS)
        return f"{state.state}, {state.digital_source_type}, signed by '{state.signer}'"

    return check


@contextmanager
def _opened(video: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(video, Path):
        with video.open("rb") as film:
            yield film
    else:
        video.seek(0)
        yield video
