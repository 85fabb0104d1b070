"""Captions that a model writes: each picture is described, and paid for, once."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from typing import Final

from attrs import field, frozen

from vrag.errors import AlreadyExistsError, ContentRejectedError, NotFoundError, UsageError
from vrag.interfaces import Captioner, Storage
from vrag.knowledge.captions import clean_text
from vrag.media.ref import MediaRef, OpenMedia, sha256_hex
from vrag.values.canonical import canonical_json, from_json, to_json

__all__ = ["Captions", "Spoken", "caption_names"]

_MAX_BYTES: Final = 64 << 10


@frozen(kw_only=True)
class Spoken:
    """What a captioner said about a picture."""

    text: str | None = None
    """None where it refused."""
    tags: tuple[str, ...] = field(default=())
    refused: str | None = None
    """Why it would not describe the picture."""
    truncated: bool = False


class Captions:
    """A captioner with a memory: what it said lies in the knowledge base's storage, by model and digest of the picture.

    So a picture that was described and then lost by a crash, removed or ingested again costs nothing a second time, on
    any machine. A refusal is remembered too.
    """

    def __init__(self, captioner: Captioner, storage: Storage) -> None:
        self.captioner = captioner
        self._storage = storage
        self._prefix = f"captions/{sha256_hex(str(captioner.model).encode())[:16]}"

    def known(self, image: MediaRef) -> Spoken | None:
        """What was said before, or None."""
        with (
            suppress(NotFoundError, ValueError, UsageError, RecursionError),
            self._storage.open(self._name(image)) as stream,
        ):
            return from_json(Spoken, json.loads(stream.read(_MAX_BYTES)))
        return None

    def of(self, image: MediaRef, media: OpenMedia) -> Spoken:
        """What the captioner says about the picture; asked only if it never was.

        Raises:
            BackendError: It could not answer. A refusal is an answer.
        """
        if (known := self.known(image)) is not None:
            return known
        try:
            result = self.captioner.caption(image, media)
        except ContentRejectedError as error:
            spoken = Spoken(refused=clean_text(error.message, limit=300) or "it gave no reason")
        else:
            tags = (tag for word in result.tags[:50] if (tag := clean_text(word, limit=100)))
            text = clean_text(result.text)
            spoken = Spoken(
                text=_whole(text) if text and result.truncated else text,
                tags=tuple(dict.fromkeys(tags)),
                refused=None if text else "it said nothing",
                truncated=result.truncated,
            )
        try:
            self._storage.put_named(self._name(image), BytesIO(canonical_json(to_json(spoken))))
        except AlreadyExistsError:
            return self.known(image) or spoken  # another process was quicker: both go on with its words
        return spoken

    def _name(self, image: MediaRef) -> str:
        return f"{self._prefix}/{image.sha256}.json"


def caption_names(storage: Storage, sha256: str) -> list[str]:
    """The names under which captions of the picture with this digest are kept, of every model."""
    return [name for name in storage.list("captions/") if name.endswith(f"/{sha256}.json")]


def _whole(text: str) -> str:
    """A text that was cut off, up to its last whole sentence, or to its last whole word."""
    for end in (". ", "。", " "):
        if (at := text.rfind(end)) > 0:
            return text[: at + len(end)].strip()
    return text
