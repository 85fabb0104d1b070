"""Text that comes with a picture: cleaned of what could deceive, and taken from a file name where it has words."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from vrag.knowledge.embedded import EmbeddedText, embedded_text
from vrag.values.assets import CaptionSource

__all__ = ["caption_of", "clean_text", "embedded_caption", "file_name_caption"]

_MAX_CAPTION: Final = 1_000

_DEVICE: Final = frozenset(
    """
    img imgp imag dsc dscn dscf dcim pxl mvimg mvi gopr dji cimg sam hpim pano burst cover raw hdr fb snapchat signal
    telegram whatsapp wa received screenshot screenshots scan scanned untitled unnamed unknown noname thumbnail thumb
    jpg jpeg jpe arw nef cr dng raf orf rw png webp avif heic heif gif tiff bmp mpo tmp temp kopie
    """.split()  # noqa: SIM905  # a list of words reads better as words
)
"""What cameras, phones and programs put into names; it says nothing about the picture."""
_FRONT: Final = frozenset(
    """
    image images img pic pics picture pictures photo photos photograph foto fotos bild bilder imagen immagine
    at on in of the a an by from and for with to
    """.split()  # noqa: SIM905  # as above
)
"""What is taken off the front: "photo of a dog" is a dog."""
_EMPTY: Final = _FRONT | frozenset(
    """
    file copy final edit edited new export original version download downloads upload attachment asset default sample
    test page scan no nr am pm jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
    """.split()  # noqa: SIM905  # as above
)
"""Words that are no caption on their own."""
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_CREDIT = re.compile(r"(?<=[^\W_])[ _-]by(?:[ _-][A-Z][^\W\d_]+)+[ _-]*$")
"""`Bridge_by_Ann_Example`: who made it is not what it shows."""
_CAMERA_TEXT = re.compile(
    r"(?:olympus|minolta|konica|sony|samsung|kodak|nikon|canon|fuji\w*|digital|camera|still|picture|pictures|dsc|dcim|"
    r"default|untitled|created by \w+|image|exif_jpeg_picture|[\W\d_])+",
    re.IGNORECASE,
)
"""Descriptions that cameras write by themselves, such as "OLYMPUS DIGITAL CAMERA"."""


def clean_text(text: str, *, limit: int = _MAX_CAPTION) -> str | None:
    """One line of plain text: NFC, without control and direction characters, at most `limit` long; None if empty."""
    kept = "".join(
        " "
        if char.isspace()
        else ""
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co"} and char != "\u200d"
        else char
        for char in unicodedata.normalize("NFC", text[: 4 * limit])
    )
    return " ".join(kept.split())[:limit].rstrip() or None


def file_name_caption(name: str) -> str | None:
    """The words of a file name: "red-shoes_02.jpg" and "RedShoes.JPG" are "red shoes"; "IMG_1234.jpg" has none.

    Numbers, dates, digests, ids and what devices write are no words.
    """
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name.replace("\\", "/").rsplit("/", 1)[-1])
    stem = _UUID.sub(" ", unicodedata.normalize("NFKC", clean_text(stem) or ""))
    stem = re.sub(r"screen[ _-]?shot", "screenshot", stem, flags=re.IGNORECASE)
    stem = _CREDIT.sub("", stem)
    words: list[str] = []
    for token in re.findall(r"[^\W_]+(?:['\u2019][^\W\d_]+)?", stem):
        if not re.fullmatch(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?\d{0,4}", token):
            continue  # a digit before a letter: a date, a size, a digest, an id
        plain = re.sub(r"\d+$", "", token)
        if plain.lower() in _DEVICE or (plain != token and len(plain) < 3):
            continue  # "P1020304", "no7"
        # RedShoes, HTMLPage; not McDonald's "iPhone", which is no harm as two words
        parts = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain).split()
        words += [part.lower() for part in parts if _is_word(part.lower())]
    while words and words[0] in _FRONT:
        words.pop(0)
    return (
        " ".join(words) if any((word not in _EMPTY and len(word) > 1) or not word.isascii() for word in words) else None
    )


def _is_word(word: str) -> bool:
    if word in _DEVICE:
        return False
    # Letters without a vowel are an id, not a word: "xkqz".
    return not (word.isascii() and len(word) > 3 and not re.search("[aeiouy]", word))


def embedded_caption(data: bytes) -> str | None:
    """What the picture says about itself (IPTC, XMP or EXIF); None where only its camera speaks."""
    return _described(embedded_text(data))


def _described(embedded: EmbeddedText) -> str | None:
    caption = None if embedded.caption is None else clean_text(embedded.caption)
    return None if caption is None or _CAMERA_TEXT.fullmatch(caption) or file_name_caption(caption) is None else caption


def caption_of(
    name: str,
    data: bytes,
    stated: str | None,
    source: CaptionSource,
    *,
    embedded: EmbeddedText | None = None,
) -> tuple[str, CaptionSource] | None:
    """The best caption there is, and where it is from; None for a picture without words.

    `embedded` saves reading `data` again.
    """
    if stated is not None and (text := clean_text(stated)):
        return text, source
    if text := _described(embedded or embedded_text(data)):
        return text, CaptionSource.EMBEDDED
    if text := file_name_caption(name):
        return text, CaptionSource.FILE_NAME
    return None
