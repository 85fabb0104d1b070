"""Prompt templates: text with named slots such as `<object_prompt>`, filled verbatim and never evaluated."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import Attribute, field, frozen
from typing_extensions import override

from vrag.errors import PromptError

__all__ = [
    "MAX_PROMPT_CHARS",
    "MAX_TEMPLATE_CHARS",
    "Filled",
    "FilledSlot",
    "PromptTemplate",
    "check_text",
    "nearest",
    "shown",
]

MAX_TEMPLATE_CHARS = 8_000
MAX_PROMPT_CHARS = 16_000
"""Far above what any video model reads; a model's own limit is in its capabilities."""

_SLOT = re.compile(r"<<(?P<literal>[a-z][a-z0-9_]*)>>|<(?P<slot>[a-z][a-z0-9_]*)>")
# What nobody can see but a model reads: controls, bidirectional overrides and isolates, line separators, lone
# surrogates (not encodable), and the tag characters, which carry hidden ASCII.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str, *, max_chars: int = 60) -> str:
    """`text` in quotes for a message: what cannot be seen is escaped, and what is long is cut."""
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    seen = "".join(
        c if c.isprintable() and unicodedata.category(c) != "Cf" else c.encode("unicode_escape").decode("ascii")
        for c in cut
    )
    return f"'{seen}'"


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the known word most like `name`; "" where none is like it."""
    close = get_close_matches(name, sorted(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_text(text: str, what: str, *, max_chars: int = MAX_PROMPT_CHARS, line: int | None = None) -> None:
    r"""Refuse text with invisible control characters, or that is too long.

    Line breaks (`\n`, `\r`) and tabs are allowed, as are the left-to-right and right-to-left marks and the joiners
    that Arabic, Hebrew, Indic scripts and emoji need.

    Raises:
        PromptError: It names `what` and shows the character escaped.
    """
    if len(text) > max_chars:
        raise PromptError(f"{what} has {len(text)} characters; at most {max_chars} are allowed.", line=line)
    hidden = _HIDDEN.search(text)
    if hidden:
        around = text[max(0, hidden.start() - 12) : hidden.end() + 12]
        raise PromptError(
            f"{what} holds the invisible character U+{ord(hidden[0]):04X} at position {hidden.start() + 1}: "
            f"{shown(around)}. Remove it.",
            line=line,
        )


@frozen(kw_only=True)
class FilledSlot:
    """Where the value of a slot stands in a filled prompt."""

    name: str
    start: int
    end: int


@frozen(kw_only=True)
class Filled:
    """A filled template that still knows which words came from which slot; lints use it."""

    text: str
    slots: tuple[FilledSlot, ...] = ()


def _valid_template(_instance: object, _attribute: Attribute[str], text: str) -> None:
    check_text(text, "The template", max_chars=MAX_TEMPLATE_CHARS)
    if not text.strip():
        raise PromptError("The template is empty. Write text with slots, such as '<object_prompt>, <action_prompt>'.")


@frozen
class PromptTemplate:
    """Text with named slots.

    A slot is `<name>`, where a name is `[a-z][a-z0-9_]*`. `<<name>>` is the literal text `<name>`. Any other `<` or
    `>` is text: "a < b", "<3", "<Not a slot>". There are no expressions, filters or format specifications.
    """

    text: str = field(validator=_valid_template)

    @classmethod
    def parse(cls, text: str, *, line: int | None = None) -> PromptTemplate:
        """Read a template; `line` is its line in a file, for messages.

        Raises:
            PromptError: It is empty, longer than `MAX_TEMPLATE_CHARS`, or holds invisible characters.
        """
        try:
            return cls(text)
        except PromptError as error:
            error.line = line
            raise

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in order of first use."""
        return tuple(dict.fromkeys(match["slot"] for match in _SLOT.finditer(self.text) if match["slot"]))

    @property
    def text_outside_slots(self) -> str:
        """What the template itself says: its text with each slot left out, as pieces joined by ", "."""
        marked = _SLOT.sub(lambda match: "\0" if match["slot"] else f"<{match['literal']}>", self.text)
        return ", ".join(piece for part in marked.split("\0") if (piece := part.strip(" \t\r\n,;:")))

    @override
    def __str__(self) -> str:
        return self.text

    def render(self, values: Mapping[str, str] | None = None, /, **named: str) -> str:
        """The prompt: each slot replaced by its value, verbatim, in one pass.

        A value that itself holds `<action_prompt>` stays as it is. Values come as a mapping, by name, or both.

        Raises:
            PromptError: A slot has no value or an empty one, a value has no slot or is given twice, or the text is
                longer than `MAX_PROMPT_CHARS` or holds invisible characters.
        """
        return self.fill(values, **named).text

    def fill(self, values: Mapping[str, str] | None = None, /, **named: str) -> Filled:
        """As `render`, and says where the values stand in the text."""
        twice = sorted(set(values or {}) & set(named))
        if twice:
            raise PromptError(f"The slot <{twice[0]}> is given twice: in the mapping and by name.")
        given: dict[str, Any] = {**(values or {}), **named}
        slots = self.slots
        for name in given:
            if name not in slots:
                has = f"it has {', '.join(f'<{slot}>' for slot in slots)}" if slots else "it has no slots"
                raise PromptError(
                    f"The template has no slot <{shown(str(name))[1:-1]}>; {has}.{nearest(str(name), slots)}"
                )
        for name in slots:
            if name not in given:
                known = ", ".join(f"<{slot}>" for slot in given) or "none"
                raise PromptError(f"The slot <{name}> has no value. Slots with a value: {known}.")
            value = given[name]
            if not isinstance(value, str):
                raise PromptError(f"The value of <{name}> is {type(value).__name__}; text is needed.")
            if not value.strip():
                raise PromptError(f"The value of <{name}> is empty.")
            check_text(value, f"The value of <{name}>")
        return self._filled(given)

    def _filled(self, values: Mapping[str, str]) -> Filled:
        parts: list[str] = []
        spans: list[FilledSlot] = []
        length = position = 0
        for match in _SLOT.finditer(self.text):
            name = match["slot"]
            before = self.text[position : match.start()]
            inserted = values[name] if name else f"<{match['literal']}>"
            parts += (before, inserted)
            start = length + len(before)
            length = start + len(inserted)
            if name:
                spans.append(FilledSlot(name=name, start=start, end=length))
            if length > MAX_PROMPT_CHARS:  # before joining: many slots times a long value is much memory
                raise PromptError(f"The filled prompt has more than {MAX_PROMPT_CHARS} characters.")
            position = match.end()
        parts.append(self.text[position:])
        text = "".join(parts)
        check_text(text, "The filled prompt")
        return Filled(text=text, slots=tuple(spans))
