"""IPTC, XMP and EXIF inside pictures: words and rights that are found, and attacks that find nothing."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vrag.knowledge.embedded import embedded_text
from vrag.knowledge.sources import SourcePicture
from vrag.values.assets import CaptionSource, Rights

XMP = """<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:r="http://ns.adobe.com/xap/1.0/rights/" r:WebStatement="{web}">
 <dc:description><rdf:Alt><rdf:li xml:lang="de">Zwei Hunde</rdf:li><rdf:li xml:lang="x-default">Two dogs &amp; a ball</rdf:li>
 </rdf:Alt></dc:description><dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>ball</rdf:li><rdf:li>dog</rdf:li></rdf:Bag>
 </dc:subject><dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2024 Ann Example. All rights reserved.</rdf:li></rdf:Alt>
 </dc:rights></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def plain(**options):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(out, **options)
    return out.getvalue()


def data_set(number, value, record=2):
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def with_iptc(*sets, utf8=True):
    block = (data_set(90, b"\x1b%G", 1) if utf8 else b"") + b"".join(sets)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + b"\0" * (len(block) % 2)
    other = b"8BIM\x04\x05\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    body = b"Photoshop 3.0\0" + other + resource
    data = plain(format="JPEG")
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + data[2:]


def with_packet(packet):
    data = plain(format="JPEG")
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def test_iptc_gives_caption_keywords_holder_and_expiry():
    said = embedded_text(
        with_iptc(
            data_set(120, "Zwei Hunde spielen über Gras".encode()),
            data_set(25, b"dog"),
            data_set(25, b"grass"),
            data_set(116, b"(c) 2023-2024 Ann Example, all rights reserved"),
            data_set(37, b"20271231"),
        )
    )
    assert (said.caption, said.keywords) == ("Zwei Hunde spielen über Gras", ("dog", "grass"))
    assert said.rights == Rights(holder="Ann Example", expires_on="2027-12-31")
    assert embedded_text(with_iptc(data_set(120, b"Caf\xe9 am See"), utf8=False)).caption == "Café am See"
    licensed = embedded_text(with_iptc(data_set(116, b"CC BY 4.0"), data_set(37, b"99999999")))
    assert licensed.rights == Rights(licence="CC BY 4.0")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG packed", "WEBP"])
def test_xmp_is_read_from_every_format(kind):
    packet = XMP.format(web="https://creativecommons.org/licenses/by/4.0/").encode()
    if kind == "JPEG":
        data = with_packet(packet)
    elif kind == "WEBP":
        data = plain(format="WEBP", xmp=packet)
    else:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=kind == "PNG packed")
        data = plain(format="PNG", pnginfo=text)
    said = embedded_text(data)
    assert (said.caption, said.keywords) == ("Two dogs & a ball", ("dog", "ball"))
    assert said.rights == Rights(licence="https://creativecommons.org/licenses/by/4.0/", holder="Ann Example")


def test_entities_and_bombs_say_nothing():
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    outside = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    for head in (f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>', outside, '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x">'):
        packet = head + XMP.replace("Two dogs", "&l11;&e;").format(web="x")
        assert embedded_text(with_packet(packet.encode())).caption is None
        assert embedded_text(with_packet(packet.encode("utf-16"))).caption is None
    assert embedded_text(with_packet(b"<a>" * 10_000)).caption is None
    bomb = zlib.compress(b"<x>" + bytes(50 << 20), 9)
    body = b"XML:com.adobe.xmp\0\x01\0\0\0" + bomb
    data = plain(format="PNG")
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    assert embedded_text(data[:33] + chunk + data[33:]).caption is None


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 900), st.integers(0, 255), st.integers(0, 900))
def test_damaged_metadata_never_raises(at, value, cut):
    for data in (with_iptc(data_set(120, b"Two dogs")), with_packet(XMP.format(web="x").encode())):
        damaged = bytearray(data)
        damaged[at] = value
        embedded_text(bytes(damaged))
        embedded_text(bytes(damaged[:cut]))


def test_what_a_picture_says_fills_what_the_source_does_not(fake_kb):
    data = with_iptc(data_set(120, b"Two dogs on grass"), data_set(25, b"dog"), data_set(116, b"Copyright Ann Example"))
    kb = fake_kb()
    kb.ingest([SourcePicture.from_bytes("IMG_1.jpg", data)])
    (asset,) = kb.assets()
    assert (asset.caption, asset.caption_source) == ("Two dogs on grass", CaptionSource.EMBEDDED)
    assert (asset.tags, asset.rights) == (("dog",), Rights(holder="Ann Example"))
    stated = SourcePicture.from_bytes(
        "IMG_1.jpg", data, caption="Zwei Hunde", tags=["hund"], rights=Rights(licence="CC0-1.0")
    )
    assert kb.ingest([stated]).updated == 1
    (asset,) = kb.assets()
    assert (asset.caption, asset.tags) == ("Zwei Hunde", ("hund",))
    assert asset.rights == Rights(licence="CC0-1.0", holder="Ann Example")
    assert kb.ingest([stated]).unchanged == 1
