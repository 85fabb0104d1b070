"""What is wrong with a prompt before it is paid for, and how its parts are joined. Nothing is corrected silently."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from vrag.prompts.camera import read_camera
from vrag.prompts.template import Filled, check_text, shown

__all__ = ["Finding", "FindingCode", "compose_prompt", "describe_look", "lint_prompt"]

FindingCode = Literal[
    "negation",
    "contradiction",
    "too_long",
    "doubled_punctuation",
    "doubled_space",
    "doubled_word",
    "capital_mid_sentence",
    "value_ends_sentence",
    "unfilled_slot",
    "command",
]


@frozen(kw_only=True)
class Finding:
    """One thing in a prompt that a person should look at; the prompt is sent as it stands all the same."""

    code: FindingCode
    message: str
    """The words in question and what to do."""
    span: tuple[int, int]
    """Start and end in the prompt, in characters."""


_NEGATION = re.compile(
    r"\b(?:no(?!\.?\s?\d)(?!-one)|not|without|never|nor|none|nothing|nobody|cannot|(?:avoid|exclud)(?:e|s|es|ing)?"
    r"|(?:do|does|is|are|ca|wo|should|must|did)n['\u2019]?t)\b(?!\.\s?\d)(?P<object>(?:\s+[^\s,.;:!?]+){0,4})",
    re.IGNORECASE,
)
_PUNCTUATION = re.compile(r"[,;:.!?](?:\s*[,;:.!?])+")
_FINE_PUNCTUATION = re.compile(r"\.{3}[,;:!?]?|\?!|!\?")
_ABBREVIATION = re.compile(r"\b(?:etc|e\.g|i\.e|vs|inc|ltd|co|corp|no|st|dr|mrs?|ms|[js]r|[ap]\.m)$", re.IGNORECASE)
_SPACE = re.compile(r"(?<=\S)[ \t\u00a0]{2,}(?=\S)")
_WORD_TWICE = re.compile(r"\b(?P<word>[^\W\d_]+)\s+(?P=word)\b|\b(?:an?|the)\s+(?:an?|the)\b", re.IGNORECASE)
_FINE_TWICE = frozenset({"had", "that", "very", "bora", "blah", "new", "so"})
_SLOT_LIKE = re.compile(r"<[A-Za-z][\w -]{0,40}>")
_COMMAND = re.compile(
    r"\s*(?:please\b|(?:can|could|would) you\b|(?:create|generate|make|render|produce|give|show|draw)\s+(?:me\b|an?\b|the\b))",
    re.IGNORECASE,
)


def lint_prompt(prompt: str | Filled, *, max_chars: int | None = None) -> tuple[Finding, ...]:
    """What a person should look at in a prompt, in order of position.

    Given a `Filled` (`PromptTemplate.fill`), it also sees where a value does not fit into its sentence: "a photo of
    Red shoes", "red shoes. on a table".

    Args:
        prompt: The text as it would be sent.
        max_chars: The model's limit in characters; None is no limit.

    Source: Amazon Nova User Guide, "Amazon Nova Reel prompting best practices": a caption instead of a command, no
    negation words (checked 2026-11-20).
    """
    filled = prompt if isinstance(prompt, Filled) else Filled(text=prompt)
    found = [*_words(filled.text), *_camera(filled.text), *_marks(filled.text), *_seams(filled)]
    if max_chars is not None and len(filled.text) > max_chars:
        message = f"The prompt has {len(filled.text)} characters; the model takes {max_chars}. Shorten it."
        found.append(Finding(code="too_long", message=message, span=(max_chars, len(filled.text))))
    return tuple(sorted(found, key=lambda finding: finding.span))


def _words(text: str) -> Iterator[Finding]:
    for match in _NEGATION.finditer(text):
        remedy = "Say what is to be seen, and put the rest into the negative prompt."
        if re.search(r"\b(?:mov(?:e|ing|ement)|motion)\b", match["object"], re.IGNORECASE):
            remedy = "Say 'static shot'."
        message = f"{shown(match[0])}: video models tend to show what a negation names. {remedy}"
        yield Finding(code="negation", message=message, span=match.span())
    for match in _WORD_TWICE.finditer(text):
        if (match["word"] or "").casefold() not in _FINE_TWICE:
            yield Finding(code="doubled_word", message=f"{shown(match[0])}: a doubled word.", span=match.span())
    command = _COMMAND.match(text)
    if command:
        yield Finding(
            code="command",
            message=f"{shown(command[0].strip())}: describe the scene as a caption does, instead of giving a command.",
            span=command.span(),
        )


def _camera(text: str) -> Iterator[Finding]:
    reading = read_camera(text)
    for one, other in reading.contradictions:
        spans = [(phrase.start, phrase.end) for phrase in reading.phrases if {one, other} & set(phrase.moves[:1])]
        yield Finding(
            code="contradiction",
            message=f"'{one}' and '{other}' contradict each other at once. Take one, or join them with 'then'.",
            span=(min(start for start, _ in spans), max(end for _, end in spans)),
        )


def _marks(text: str) -> Iterator[Finding]:
    for match in _PUNCTUATION.finditer(text):
        abbreviated = match[0].startswith(".") and _ABBREVIATION.search(text, 0, match.start())
        if not _FINE_PUNCTUATION.fullmatch(match[0]) and not abbreviated:
            message = f"{shown(text[max(0, match.start() - 12) : match.end() + 8])}: doubled punctuation."
            yield Finding(code="doubled_punctuation", message=message, span=match.span())
    for match in _SPACE.finditer(text):
        message = f"{shown(text[max(0, match.start() - 12) : match.end() + 8])}: doubled spaces."
        yield Finding(code="doubled_space", message=message, span=match.span())
    for match in _SLOT_LIKE.finditer(text):
        message = f"{shown(match[0])} looks like a slot that was not filled; slots are written like <object_prompt>."
        yield Finding(code="unfilled_slot", message=message, span=match.span())


def _seams(filled: Filled) -> Iterator[Finding]:
    """Where a value of a slot does not fit into the sentence around it."""
    for slot in filled.slots:
        before, value, after = (
            filled.text[: slot.start].rstrip(" \t\"'(\u201c\u2018"),
            filled.text[slot.start : slot.end],
            filled.text[slot.end :].lstrip(" \t\"')\u201d\u2019"),
        )
        first = re.match(r"\s*([^\W\d_])([^\W\d_]*)", value)
        begins = not before or before[-1] in ".!?:\n\u2026"
        # "USA", "I" and "iPhone" are as they are; whether "Paris" is a name or a sentence, a person can tell
        if first and not begins and first[1].isupper() and first[2] and first[2].islower():
            message = f"<{slot.name}>: '{first[1]}{shown(first[2])[1:-1]}' has a capital in the middle of a sentence; "
            message += "write it small unless it is a name."
            yield Finding(
                code="capital_mid_sentence",
                message=message,
                span=(slot.start + first.start(1), slot.start + first.end()),
            )
        ending = re.search(r"(?<!\.)[.!?]\s*$", value)
        if ending and after[:1].islower() and not _ABBREVIATION.search(value, 0, ending.start()):
            message = f"<{slot.name}>: the value {shown(value)} ends a sentence that the template goes on with."
            yield Finding(code="value_ends_sentence", message=message, span=(slot.start + ending.start(), slot.end))


def describe_look(style: str | None = None, mood: str | None = None, lighting: str | None = None) -> str:
    """The look as words for a model that reads prompts and has no field for it; "" where nothing is given.

    "watercolour" becomes "watercolour style", "Studio Ghibli" "in the style of Studio Ghibli", and words that say it
    already ("in the style of …", "calm atmosphere", "soft light") stay as they are.

    Raises:
        PromptError: A value holds invisible characters.
    """
    parts = []
    for name, value in (("style", style), ("mood", mood), ("lighting", lighting)):
        words = (value or "").strip().rstrip(".,;")
        check_text(words, f"The {name}")
        if not words:
            continue
        said = re.search(_SAID[name], words, re.IGNORECASE)
        names = words.split()
        if name == "style" and not said and len(names) > 1 and all(word[0].isupper() for word in names):
            parts.append(f"in the style of {words}")
        else:
            parts.append(words if said else f"{words} {name}")
    return ", ".join(parts)


_SAID = {
    "style": r"\bstyled?\b|\b(?:look|aesthetics?)$",
    "mood": r"\b(?:mood|atmosphere|feel|feeling|vibes?)\b",
    "lighting": r"light(?:s|ing)?\b|\b(?:back|sun|candle|moon|rim)?lit\b|\b(?:shadows?|glow|sunshine)\b",
}


def compose_prompt(
    text: str, look_words: str = "", camera_phrase: str = "", place: Literal["start", "end"] = "end"
) -> str:
    """The prompt as it is sent: the text, then the look, with the camera phrase at the start or the end.

    The words of the text stay as they are; only a comma at its end gives way to the one that joins. Where it ends in a
    full stop, what is added becomes a sentence of its own.

    Source: Amazon Nova User Guide, "Amazon Nova Reel prompting best practices": camera words at the beginning or the
    end of a prompt (checked 2026-11-20).
    """
    text, look_words, camera_phrase = text.strip(), look_words.strip(), camera_phrase.strip()
    first = camera_phrase if place == "start" else ""
    added = ", ".join(words for words in (look_words, "" if first else camera_phrase) if words)
    sentence = text.endswith((".", "!", "?", "\u2026", "\u3002"))
    if not text or not added:
        whole = text or added
    elif sentence:
        whole = f"{text} {_capital(added)}."
    else:
        whole = f"{text.rstrip(',;: ')}, {added}"
    if not first:
        return whole
    if not whole:
        return first
    return f"{_capital(first)}. {whole}" if whole[0].isupper() else f"{first}, {whole}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
