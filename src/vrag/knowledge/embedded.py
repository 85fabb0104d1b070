"""What a picture says about itself: IPTC-IIM, XMP and EXIF, read by hand from a few known places.

Broken metadata is no reason to refuse a picture that can be shown: what cannot be read says nothing. Sizes, depths and
counts are capped, and XML with a document type (where entities are declared) is not read at all.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from xml.parsers import expat  # entities are refused below, and the input is capped

from attrs import frozen

from vrag.errors import UsageError
from vrag.knowledge.rights import rights_end
from vrag.values.assets import Rights

__all__ = ["EmbeddedText", "embedded_text"]

_HEAD_BYTES: Final = 1 << 20
_PACKET_BYTES: Final = 256 << 10
_TEXT_BYTES: Final = 8_000
_MAX_WORDS: Final = 100
_XMP_JPEG: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_LICENCE = re.compile(r"\bcc0\b|\bcc[ -]by\b|creative ?commons|public domain|licen[cs]e", re.IGNORECASE)
_NOTICE = re.compile(
    r"©|\(c\)|\bcopyright\b|\ball rights reserved\b|\b(?:19|20)\d\d\b(?:\s*-\s*(?:19|20)\d\d\b)?", re.IGNORECASE
)
_DC: Final = "http://purl.org/dc/elements/1.1/ "
_TERMS: Final = "http://ns.adobe.com/xap/1.0/rights/ "
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "


@frozen(kw_only=True)
class EmbeddedText:
    """Words and rights inside a picture, as they stand there: not cleaned yet."""

    caption: str | None = None
    keywords: tuple[str, ...] = ()
    rights: Rights = Rights()


def embedded_text(data: bytes) -> EmbeddedText:
    """What the encoded picture says; of several descriptions that of IPTC, then XMP, then EXIF. Never raises."""
    head = data[:_HEAD_BYTES]
    iptc: dict[int, list[str]] = {}
    xmp: dict[str, list[str]] = {}
    for kind, block in _blocks(head):
        if kind == "iptc":
            iptc = iptc or _iptc(block)
        else:
            xmp = xmp or _xmp(block)
    tiffs = [head[at:] for at in _tiff_starts(head)]
    captions = (*iptc.get(120, ()), *xmp.get("description", ()), *_tiff_texts(tiffs, 0x010E))
    notices = (*iptc.get(116, ()), *xmp.get("rights", ()), *_tiff_texts(tiffs, 0x8298))
    return EmbeddedText(
        caption=next((text for text in captions if text.strip()), None),
        keywords=tuple(dict.fromkeys(iptc.get(25) or xmp.get("subject") or ()))[:_MAX_WORDS],
        rights=_rights(notices, xmp, iptc),
    )


def _rights(notices: tuple[str, ...], xmp: dict[str, list[str]], iptc: dict[int, list[str]]) -> Rights:
    """A copyright notice names the holder, or the licence where it speaks of one."""
    terms = (*notices, *xmp.get("UsageTerms", ()), *xmp.get("WebStatement", ()))
    licence = next((text for text in terms if _LICENCE.search(text)), None)
    names = (" ".join(_NOTICE.sub(" ", text).split()).strip(" ,.;:-") for text in notices if not _LICENCE.search(text))
    expires_on = None
    for day in iptc.get(37, ()):  # IIM 2:37, expiration date, CCYYMMDD
        with suppress(UsageError):
            written = f"{day[:4]}-{day[4:6]}-{day[6:8]}"
            rights_end(written)
            expires_on = written
    return Rights(
        licence=_short(licence), holder=_short(next((name for name in names if name), None)), expires_on=expires_on
    )


def _short(text: str | None) -> str | None:
    # `clean_text` is not used: captions.py builds on this module.
    kept = "".join(char if char.isprintable() else " " for char in text or "")
    return " ".join(kept.split())[:300] or None


def _blocks(head: bytes) -> Iterator[tuple[str, bytes]]:
    """The IPTC and XMP blocks of a JPEG, PNG or WebP; of others the first XMP packet that can be seen."""
    if head.startswith(b"\xff\xd8"):
        yield from _jpeg_blocks(head)
    elif head.startswith(b"\x89PNG"):
        yield from _png_blocks(head)
    elif head[8:12] == b"WEBP":
        at = 12
        while at + 8 <= len(head):
            (length,) = struct.unpack_from("<I", head, at + 4)
            if head[at : at + 4] == b"XMP ":
                yield "xmp", head[at + 8 : at + 8 + min(length, _PACKET_BYTES)]
            at += 8 + length + (length & 1)
    elif (start := head.find(b"<x:xmpmeta")) >= 0:
        yield "xmp", head[start : head.find(b"</x:xmpmeta>", start) + 12]


def _jpeg_blocks(head: bytes) -> Iterator[tuple[str, bytes]]:
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", head, at + 2)
        body = head[at + 4 : at + 2 + length]
        if head[at + 1] == 0xE1 and body.startswith(_XMP_JPEG):
            yield "xmp", body[len(_XMP_JPEG) :]
        elif head[at + 1] == 0xED and body.startswith(_PHOTOSHOP):
            yield from _resources(body[len(_PHOTOSHOP) :])
        at += 2 + max(2, length)


def _resources(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Image resource blocks (Adobe Photoshop file format specification, 2026-11-20); 0x0404 is IPTC-IIM."""
    at = 0
    while at + 12 <= len(body) and body[at : at + 4] == b"8BIM":
        (number,) = struct.unpack_from(">H", body, at + 4)
        at += 6 + (body[at + 6] | 1) + 1
        if at + 4 > len(body):
            return
        (length,) = struct.unpack_from(">I", body, at)
        if number == 0x0404:
            yield "iptc", body[at + 4 : at + 4 + length]
        at += 4 + length + (length & 1)


def _png_blocks(head: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 8 <= len(head):
        length, chunk = struct.unpack_from(">I4s", head, at)
        if chunk == b"iTXt" and head.startswith(b"XML:com.adobe.xmp\0", at + 8):
            body = head[at + 26 : at + 8 + length]
            text = body[2:].split(b"\0", 2)[-1]
            if body[:1] == b"\x01":
                with suppress(zlib.error):
                    yield "xmp", zlib.decompressobj().decompress(text, _PACKET_BYTES)
            else:
                yield "xmp", text
        at += 12 + length


def _iptc(block: bytes) -> dict[int, list[str]]:
    """Data sets of record 2 by number (IPTC-IIM 4.2): keywords 25, expiration 37, copyright 116, caption 120."""
    found: dict[int, list[str]] = {}
    at = 0
    utf8 = False
    while at + 5 <= len(block) and block[at] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", block, at + 1)
        if length & 0x8000:
            break  # an extended data set: larger than any text
        value = block[at + 5 : at + 5 + length]
        if (record, number) == (1, 90):
            utf8 = value == b"\x1b%G"
        elif record == 2 and number in {25, 37, 116, 120} and len(found.get(number, ())) < _MAX_WORDS:
            found.setdefault(number, []).append(_decoded(value[:_TEXT_BYTES], utf8=utf8))
        at += 5 + length
    return found


def _decoded(value: bytes, *, utf8: bool) -> str:
    """UTF-8 where it says so or happens to be; Latin-1 as old programs wrote."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("utf-8", "ignore") if utf8 else value.decode("latin-1")


class _RefusedError(Exception):
    """XML that is not read on."""


def _xmp(packet: bytes) -> dict[str, list[str]]:
    """dc:description, dc:subject, dc:rights, xmpRights:UsageTerms and WebStatement (XMP part 1, 2012)."""
    start, end = packet.find(b"<"), packet.rfind(b">")
    packet = packet[max(start, 0) : end + 1]
    if len(packet) > _PACKET_BYTES:
        return {}
    wanted = {
        **{f"{_DC}{name}": name for name in ("description", "subject", "rights")},
        **{f"{_TERMS}{name}": name for name in ("UsageTerms", "WebStatement")},
    }
    found: dict[str, list[str]] = {}
    path: list[str] = []
    text: list[str] = []
    first: list[bool] = []

    def refuse(*_: object) -> None:
        raise _RefusedError

    def begin(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        text.clear()
        first.append(attributes.get("http://www.w3.org/XML/1998/namespace lang") == "x-default")
        if len(path) > 32:
            raise _RefusedError
        if tag == f"{_RDF}Description":
            for attribute, value in attributes.items():
                if attribute in wanted:
                    found.setdefault(wanted[attribute], []).append(value[:_TEXT_BYTES])

    def end_of(tag: str) -> None:
        is_default = first.pop()
        path.pop()
        value = "".join(text)[:_TEXT_BYTES].strip()
        text.clear()
        owner = tag if tag in wanted else next((one for one in reversed(path[-2:]) if one in wanted), None)
        if value and owner is not None and len(values := found.setdefault(wanted[owner], [])) < _MAX_WORDS:
            values.insert(0 if is_default else len(values), value)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = end_of
    parser.CharacterDataHandler = text.append
    # A cut packet has said something before it ends; one with entities is not believed at all.
    with suppress(expat.ExpatError, ValueError, LookupError):
        try:
            parser.Parse(packet, True)
        except _RefusedError:
            return {}
    return found


def _tiff_starts(head: bytes) -> Iterator[int]:
    """Where EXIF blocks may begin: in an APP1 segment of JPEG, in a chunk of PNG or of WebP."""
    for marker in (b"Exif\0\0", b"eXIf", b"EXIF"):
        at = head.find(marker)
        if at >= 0:
            # A WebP chunk has its length between its name and the block.
            yield at + len(marker) + (4 if marker == b"EXIF" else 0)


def _tiff_texts(tiffs: list[bytes], wanted: int) -> Iterator[str]:
    """An ASCII tag of the first directory (TIFF 6.0, section 8; EXIF 2.32, table 3)."""
    for tiff in tiffs:
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
        if order is None:
            continue
        with suppress(struct.error, UnicodeDecodeError):
            (start,) = struct.unpack_from(order + "I", tiff, 4)
            (count,) = struct.unpack_from(order + "H", tiff, start)
            for entry in range(min(count, 100)):
                at = start + 2 + 12 * entry
                tag, kind, length = struct.unpack_from(order + "HHI", tiff, at)
                if (tag, kind) == (wanted, 2):
                    (offset,) = (at + 8,) if length <= 4 else struct.unpack_from(order + "I", tiff, at + 8)
                    yield tiff[offset : offset + min(length, _TEXT_BYTES)].split(b"\0")[0].decode("utf-8")
                    break
