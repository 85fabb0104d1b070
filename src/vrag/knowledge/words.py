"""Words of queries, captions and file names: folding, words, stems, what counts as content, and which is the subject.

Text of any script is folded by `folded` and cut by `runs_of`, here and in the word index alike, so that what the index
finds and what retrieval calls a match agree. Japanese, Chinese, Thai, Lao, Khmer and Burmese are written without spaces:
there a word matches where it stands inside the text, and Japanese is cut where kana end and other letters begin.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

__all__ = [
    "clusters",
    "content_words",
    "folded",
    "is_spaced",
    "matched_words",
    "runs_of",
    "stem",
    "subject",
    "words_of",
]

_HAN: Final = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HIRAGANA: Final = "\u3041-\u3096\u309d-\u309f"
_KATAKANA: Final = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HANGUL: Final = "\u1100-\u11ff\uac00-\ud7a3"
_SOUTH_EAST: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
_ALL_UNSPACED: Final = _HAN + _HIRAGANA + _KATAKANA + _HANGUL + _SOUTH_EAST

_RUN: Final = re.compile(
    f"[{_HAN}{_HIRAGANA}{_KATAKANA}]+|[{_HANGUL}]+|[{_SOUTH_EAST}]+|[^\\s{_ALL_UNSPACED}]+", re.UNICODE
)
_UNSPACED: Final = re.compile(f"[{_ALL_UNSPACED}]")
_IS_HANGUL: Final = re.compile(f"[{_HANGUL}]")
_HEAD_FIRST: Final = re.compile("[\u0590-\u06ff\u0750-\u077f]")
"""Hebrew and Arabic letters: there the noun comes before its adjectives."""
_JAPANESE: Final = re.compile(f"[{_HAN}]+[{_HIRAGANA}]*|[{_KATAKANA}]+[{_HIRAGANA}]*|[{_HIRAGANA}]+")
_KANA: Final = re.compile(f"[{_HIRAGANA}{_KATAKANA}]")
_INFLECTED: Final = re.compile(f"([{_HAN}{_KATAKANA}]+)[{_HIRAGANA}]+")
_COUNTED: Final = re.compile("^[一二两兩三四五六七八九十几幾]+[只隻条條个個张張匹座位名件双雙朵辆輛架杯本头頭群](?=.)")
_ENGLISH: Final = re.compile(r"[^\s']+(?:'[^\s']+)*")

_POSSESSIVE: Final = re.compile("'s?$")
_ELIDED: Final = re.compile("^(?:[cdjlmnst]|qu)'(?=..)")
"""The article and the like of "l'hôtel"; not the first letter of "o'clock"."""

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
    の を が は に へ と も で や から まで より です ます いる ある した して している する した
    """.split()  # noqa: SIM905  # as above
)
_MEDIUM: Final = frozenset(
    "photo photos photograph photographs picture pictures image images pic pics shot 写真 画像 照片 图片 圖片 사진".split()  # noqa: SIM905  # as above
)
"""Words for the picture itself: a query that says them asks for nothing by them."""
_IRREGULAR: Final = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "leaves": "leaf", "knives": "knife", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "lens": "lens", "lenses": "lens", "oxen": "ox", "running": "run", "ran": "run",
}  # fmt: skip
_PARTICLES: Final = ("에서", "으로", "을", "를", "은", "는", "의", "이", "가", "에", "와", "과", "도", "로")
"""Ends of Korean words, longest first."""
_SURE_PARTICLES: Final = frozenset({"을", "를", "은", "는", "의", "에서"})
"""Those that hardly end a word of one syllable more."""
_FOLDED_LETTERS: Final = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "ـ": None, "\u2019": "'"})
"""Arabic letters that Persian keyboards write in another way, the dash that only stretches a word, the apostrophe."""


@lru_cache(maxsize=4096)
def folded(text: str) -> str:
    """`text` as it is compared: NFKC, no case, no accents, ASCII digits; what is no letter, digit or mark is a space.

    Accents and vowel points are taken off Latin, Greek, Cyrillic (but й), Hebrew and Arabic letters; in other scripts a
    mark makes another letter of it. Apostrophes stay.
    """
    if text.isascii():
        return "".join(char if char.isalnum() or char == "'" else " " for char in text.lower())
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_FOLDED_LETTERS)
    kept: list[str] = []
    base = ""
    for char in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(char)
        if kind in {"Mn", "Mc"}:
            if base and not _is_accent(char, base):
                kept.append(char)
        elif kind == "Cf" and char != "\u200b":
            continue  # joiners and marks of direction stand inside words
        elif kind[0] in "LN" or char == "'":
            base = char
            kept.append(str(unicodedata.decimal(char)) if kind == "Nd" else char)
        else:
            base = ""
            kept.append(" ")
    return unicodedata.normalize("NFC", "".join(kept))


def _is_accent(mark: str, base: str) -> bool:
    if 0xFE00 <= ord(mark) <= 0xFE0F or ord(mark) >= 0xE0100:
        return True  # variation selectors change the look alone
    if base < "\u0530":
        return not (base >= "\u0400" and mark == "\u0306")
    return bool(_HEAD_FIRST.match(base))


def runs_of(text: str) -> list[str]:
    """Folded runs of letters of one way of writing, in order; see `is_spaced` for what one of them is."""
    return [run for found in _RUN.findall(folded(text)) if (run := found.strip("'"))]


def is_spaced(run: str) -> bool:
    """Whether the run is a word; else it may hold several that no space divides."""
    return _UNSPACED.match(run) is None


def clusters(run: str) -> list[str]:
    """The letters of a run, each with its marks: the vowels and tones of Thai stay with their consonant."""
    found: list[str] = []
    for char in run:
        if found and unicodedata.category(char)[0] == "M":
            found[-1] += char
        else:
            found.append(char)
    return found


def words_of(text: str) -> list[str]:
    """The words of `text`, in order, folded, without the possessive `'s` and without `l'`."""
    words: list[str] = []
    for run in runs_of(text):
        if is_spaced(run):
            words += [_POSSESSIVE.sub("", _ELIDED.sub("", word)) for word in _ENGLISH.findall(run)]
        elif _KANA.search(run):
            words += [word for piece in _JAPANESE.findall(run) if (word := _without_particle(piece))]
        elif _IS_HANGUL.match(run):
            words.append(run)
        else:
            words += [_COUNTED.sub("", piece) for piece in run.split("的") if piece] or [run]
    return words


def _without_particle(piece: str) -> str:
    if len(piece) > 1 and piece not in _STOP and piece[-1] in "のをがはにへともで":
        return piece[:-1]
    return piece


def content_words(text: str) -> list[str]:
    """The words that say what is wanted: without articles, prepositions and words such as "photo"; each stem once."""
    words = words_of(text)
    content = [word for word in words if word not in _STOP and word not in _MEDIUM]
    # "photo" or "over" alone is still a question, if an odd one.
    return list({stem(word): word for word in reversed(content or words)}.values())[::-1]


def subject(text: str) -> str | None:
    """The word that names the thing: "shoes" of "red running shoes on a table", "wine" of "a glass of red wine".

    A noun phrase ends with its noun in English, Chinese, Japanese and Korean, and begins with it in Arabic and Hebrew.
    English prepositions begin what is only said about it. In other languages the guess can name the adjective.
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
    return phrase[0] if _HEAD_FIRST.match(phrase[0]) else phrase[-1]


def matched_words(query_words: list[str], text: str) -> tuple[str, ...]:
    """Those of `query_words` that `text` has too, in any of their forms ("dogs" and "dog"), in order."""
    stems = {stem(word) for word in words_of(text)}
    unspaced = [] if text.isascii() else [run for run in runs_of(text) if not is_spaced(run)]
    return tuple(word for word in query_words if stem(word) in stems or _stands_in(word, unspaced))


def _stands_in(word: str, unspaced: list[str]) -> bool:
    if not unspaced or is_spaced(word):
        return False
    wanted = stem(word)
    if _IS_HANGUL.match(word) and len(wanted) == 1:
        # A Korean word of one syllable is the beginning of what stands between spaces: 개가, but not 안개.
        return any(run.startswith(wanted) for run in unspaced)
    return any(wanted in run for run in unspaced)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """What the forms of a folded word have in common; never shown to people.

    English loses plural, -ing and -ed, Japanese the kana of its endings, Korean its particles.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if not word.isascii():
        return _stem_of_others(word)
    if len(word) < 3:
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


def _stem_of_others(word: str) -> str:
    if inflected := _INFLECTED.fullmatch(word):
        return inflected[1]
    if _IS_HANGUL.match(word):
        for particle in _PARTICLES:
            base = word.removesuffix(particle)
            if base != word and len(base) >= (1 if particle in _SURE_PARTICLES else 2):
                return base
    return word
