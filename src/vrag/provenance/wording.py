"""Words in records: keyed digests in place of texts, and nothing that a provider wrote may repeat a word of a user."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from vrag.clock import Clock
from vrag.prompts.camera import CameraMove
from vrag.provenance.statement import KEYED, keyed_digest
from vrag.values.briefs import Brief, PlannedEdit, PlannedVideo
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.ledger import Text

__all__ = ["Commit", "Commitments", "Words", "json_text", "plain", "texts_of"]

Commit = Callable[[str, str], dict[str, str]]
"""Turns a kind and a text into what stands for it in the record."""


class Commitments:
    """Makes keyed digests, each under 32 random bytes of its own, and keeps the texts for the deletable table."""

    def __init__(self, clock: Clock, *, policy: Literal["keyed", "text"] = "keyed") -> None:
        self._clock = clock
        self._policy = policy
        self._texts: list[Text] = []

    def __call__(self, kind: str, text: str) -> dict[str, str]:
        """What stands for `text` in a record."""
        value = _whole(text)
        key = self._clock.token_bytes(32)
        digest = keyed_digest(key, kind, value)
        self._texts.append(Text(kind=kind, value=value, key=key, keyed_digest=digest))
        return {KEYED: digest, "text": value} if self._policy == "text" else {KEYED: digest}

    @property
    def texts(self) -> tuple[Text, ...]:
        """All texts so far, in order."""
        return tuple(self._texts)


def texts_of(planned: PlannedVideo | PlannedEdit) -> list[str]:
    """Every text of a person in what was planned, parts included."""
    if isinstance(planned, PlannedEdit):
        edit = planned.request
        own = [edit.prompt, edit.negative_prompt, edit.mask_prompt]
    else:
        film = planned.request
        looks = (film.look.style, film.look.mood, film.look.lighting)
        own = [film.negative_prompt, *looks, *(shot.prompt for shot in film.shots)]
        own += [text for part in planned.parts for text in texts_of(part)]
    pictures = [text for source in planned.sources for text in (source.caption, source.file_name)]
    return [text for text in (*_of_brief(planned.brief), *own, *pictures) if text]


def _of_brief(brief: Brief) -> list[str | None]:
    shots = [text for shot in brief.shots for text in (shot.object_prompt, shot.action_prompt, shot.template)]
    edits = [*brief.edits, *(edit for shot in brief.shots for edit in shot.edits)]
    return [
        *(brief.object_prompt, brief.action_prompt, brief.template, brief.negative_prompt, *brief.slots.values()),
        *(brief.look.style, brief.look.mood, brief.look.lighting),
        *shots,
        *(text for edit in edits for text in (edit.prompt, edit.mask_prompt, edit.negative_prompt)),
    ]


_WORD: Final = re.compile(r"\w{3,}")
_CAMERA_WORDS: Final = frozenset(_WORD.findall(" ".join(["camera", *CameraMove]).casefold()))


class Words:
    """Keeps a user's words out of what others wrote: reports, settings, reasons."""

    def __init__(self, texts: Iterable[str], commit: Commit) -> None:
        lowered = {text.casefold() for text in texts if text}
        self._texts = {text for text in lowered if len(text) > 2 or not text.isascii()} - _CAMERA_WORDS
        self._words = {word for text in lowered for word in _WORD.findall(text)} - _CAMERA_WORDS
        self._commit = commit

    def _tells(self, text: str) -> bool:
        low = text.casefold()
        return not self._words.isdisjoint(_WORD.findall(low)) or any(one in low for one in self._texts)

    def guard(self, kind: str, value: JSON) -> JSON:
        """`value` with each text that repeats a word of the user as a keyed digest; camera words stay."""
        return self._guarded(kind, plain(value, scrub=True))

    def _guarded(self, kind: str, value: JSON) -> JSON:
        if isinstance(value, str):
            return self._commit(kind, value) if self._tells(value) else value
        if isinstance(value, dict):
            if any(self._tells(key) or key == KEYED for key in value):
                return self._commit(kind, json_text(value))
            return {key: self._guarded(kind, one) for key, one in value.items()}
        return [self._guarded(kind, one) for one in value] if isinstance(value, list) else value


def json_text(value: JSON) -> str:
    """`value` as canonical JSON text."""
    return canonical_json(plain(value)).decode()


def plain(value: JSON, *, scrub: bool = False, depth: int = 0) -> JSON:
    """`value` as JSON that every reader keeps, at most 40 deep: what is no such thing becomes text.

    With `scrub`, credentials and query strings are left out of the URLs in it.
    """
    if isinstance(value, str):
        return _CREDENTIALS.sub(r"\1\2", _whole(value)) if scrub else _whole(value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else hex(value)
    if isinstance(value, float):
        return value if abs(value) < 1 << 53 else str(value)  # NaN and infinity are text too
    if depth < 40 and isinstance(value, Mapping):
        return {plain(str(key), scrub=scrub): plain(one, scrub=scrub, depth=depth + 1) for key, one in value.items()}
    if depth < 40 and isinstance(value, list | tuple | set | frozenset):
        return [plain(one, scrub=scrub, depth=depth + 1) for one in value]
    return f"({type(value).__name__})"


# What stands in a URL between `//` and `@`, and after `?`, may be a credential.
_CREDENTIALS: Final = re.compile(r"(\w+://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?")


def _whole(text: str) -> str:
    """`text` without half characters, which names of files may have and UTF-8 has not."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
