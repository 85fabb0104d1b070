"""Words of queries, captions and file names: folding, stems, what counts as content, and which word is the subject."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

__all__ = ["content_words", "matched_words", "stem", "subject", "words_of"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_PREPOSITIONS: Final = frozenset(
    """
    about above across after against along among around at before behind below beneath beside besides between beyond by
    down during for from in inside into near next off on onto out outside over past through to toward towards under up
    upon via with within without while who which that whose where
    """.split()  # noqa: SIM905  # a list of words reads better as words
)
_STOP: Final = _PREPOSITIONS | frozenset(
    """
    a an and are as be been being is it its his her their our your my or of some the there these this those was were
    has have one any each
    """.split()  # noqa: SIM905  # a list of words reads better as words
)
_MEDIUM: Final = frozenset("photo photos photograph photographs picture pictures image images pic pics shot".split())  # noqa: SIM905  # as above
"""Words for the picture itself: a query that says them asks for nothing by them."""
_IRREGULAR: Final = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "leaves": "leaf", "knives": "knife", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "lens": "lens", "lenses": "lens", "oxen": "ox", "running": "run", "ran": "run",
}  # fmt: skip


def words_of(text: str) -> list[str]:
    """The words of `text`, in order, folded: NFKC, no case, no accents on Latin letters, no possessive `'s`."""
    folded = _unaccented(unicodedata.normalize("NFKC", text).casefold())
    return [re.sub(r"['\u2019]s?$", "", word) for word in _WORD.findall(folded)]


def content_words(text: str) -> list[str]:
    """The words that say what is wanted: without articles, prepositions and words such as "photo"; each stem once."""
    words = words_of(text)
    content = [word for word in words if word not in _STOP and word not in _MEDIUM]
    # "photo" or "over" alone is still a question, if an odd one.
    return list({stem(word): word for word in reversed(content or words)}.values())[::-1]


def subject(text: str) -> str | None:
    """The word that names the thing: "shoes" of "red running shoes on a table", "wine" of "a glass of red wine".

    A noun phrase in English ends with its noun, and prepositions begin what is only said about it.
    """
    phrase: list[str] = []
    for word in words_of(text):
        if word == "of":
            phrase = []  # "a cup of coffee" is looked for as coffee
        elif word in _PREPOSITIONS and phrase:
            break
        elif word not in _STOP and word not in _MEDIUM:
            phrase.append(word)
    if not phrase:
        return None
    while len(phrase) > 1 and phrase[-1].endswith("ing"):
        phrase.pop()  # "dog running" is about a dog
    return phrase[-1]


def matched_words(query_words: list[str], text: str) -> tuple[str, ...]:
    """Those of `query_words` that `text` has too, in any of their forms ("dogs" and "dog"), in order."""
    stems = {stem(word) for word in words_of(text)}
    return tuple(word for word in query_words if stem(word) in stems)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A light English stem of a folded word: plural, -ing and -ed taken off; never shown to people."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if not word.isascii() or len(word) < 3:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif re.search(r"(?:ss|x|ch|sh|zz)es$", word):
        word = word[:-2]
    elif word.endswith("s") and word[-2] not in "sui":
        word = word[:-1]
    base = word[:-3] if word.endswith("ing") else word[:-2] if word.endswith("ed") and word[-3:] != "eed" else word
    if base != word and len(base) > 2 and re.search("[aeiouy]", base):
        word = base
        if word[-1] == word[-2] and word[-1] not in "lsz":
            word = word[:-1]
    if word.endswith("ie"):
        word = word[:-2] + "y"
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _unaccented(text: str) -> str:
    if text.isascii():
        return text
    kept: list[str] = []
    for mark in unicodedata.normalize("NFD", text):
        # Only Latin: in Japanese a mark makes another letter of it.
        if not (unicodedata.combining(mark) and kept and kept[-1].isascii()):
            kept.append(mark)
    return unicodedata.normalize("NFC", "".join(kept))
