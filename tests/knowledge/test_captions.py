"""Which names, descriptions and texts have words, and what is left of hostile ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.knowledge.captions import caption_of, clean_text, embedded_caption, file_name_caption
from vrag.values.assets import CaptionSource


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("red-shoes_02.jpg", "red shoes"),
        ("RedShoes.JPG", "red shoes"),
        ("red shoes (3).jpeg", "red shoes"),
        ("2023-07-14_red_shoes_1080p.webp", "red shoes"),
        ("IMG_20240102_sunset-at-the-beach.jpg", "sunset at the beach"),
        ("photo of a dog.jpg", "dog"),
        ("small-blue-flowers.jpg", "small blue flowers"),
        ("Bridge_by_Ann_Example.jpg", "bridge"),
        ("house-by-the-sea.jpg", "house by the sea"),
        ("dog.jpg", "dog"),
        ("dog2.jpg", "dog"),
        ("USAFlagOnPole.png", "usa flag on pole"),
        ("café-crème.png", "café crème"),
        ("赤い靴.jpg", "赤い靴"),
        ("кошка_01.jpg", "кошка"),
        ("sub/folder/brown_dog.jpg", "brown dog"),
        ("archive.tar.cat.png", "archive tar cat"),
    ],
)
def test_a_file_name_with_words_is_a_caption(name, caption):
    assert file_name_caption(name) == caption


@pytest.mark.parametrize(
    "name",
    [
        "IMG_1234.jpg",
        "img1234.JPG",
        "DSC_0042.JPG",
        "DSC00042.ARW.jpg",
        "DSCN1001.jpg",
        "DSCF0001.jpg",
        "P1020304.JPG",
        "PXL_20230102_101112123.jpg",
        "IMG-20230102-WA0012.jpg",
        "MVIMG_20180101.jpg",
        "GOPR0123.JPG",
        "DJI_0042.jpg",
        "20230102_101112.jpg",
        "2023-01-02.jpg",
        "1234.png",
        "image.png",
        "image(1).png",
        "photo.jpg",
        "photo-1.jpg",
        "picture_03.jpg",
        "Screenshot_2024-01-02_at_10.20.30.png",
        "screen-shot-3.png",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.jpg",
        "550e8400-e29b-41d4-a716-446655440000.jpg",
        "deadbeef-dead-beef-dead-beefdeadbeef.jpg",
        "d41d8cd98f00b204.jpg",
        "untitled.jpg",
        "Untitled-1.png",
        "scan0001.jpg",
        "FB_IMG_1500000000.jpg",
        "signal-2023-01-02-101112.jpg",
        "received_1234567.jpeg",
        "a.jpg",
        "x7.jpg",
        "_.jpg",
        "1.jpg",
        "100_0001.JPG",
        "05-Jan-2023.jpg",
        "Kopie.jpg",
        "WhatsApp Image 2023-01-02 at 10.11.12.jpeg",
        "Screen Shot 2020-01-01 at 9.41.00 AM.png",
        "Bild (2).jpg",
        "",
        ".jpg",
    ],
)
def test_a_file_name_without_words_is_none(name):
    assert file_name_caption(name) is None


@given(st.text(alphabet=st.characters(), max_size=300))
def test_cleaned_text_is_one_printable_line(text):
    cleaned = clean_text(text)
    if cleaned is not None:
        assert cleaned == " ".join(cleaned.split())
        assert len(cleaned) <= 1000
        assert not {"\u202e", "\x1b", "\0", "\n", "\u2066"} & set(cleaned)
        cleaned.encode()
    file_name_caption(text)


def test_what_the_camera_says_is_no_caption(jpeg):
    assert embedded_caption(jpeg(1, description="Two dogs on a lawn")) == "Two dogs on a lawn"
    for said in ("OLYMPUS DIGITAL CAMERA", "SONY DSC", "DCIM\\100", "Untitled", "", "   ", "default", "1234"):
        assert embedded_caption(jpeg(1, description=said)) is None
    assert embedded_caption(jpeg(1)) is None


@given(st.binary(max_size=400), st.integers(0, 200), st.integers(0, 255))
def test_broken_metadata_never_raises(tail, at, value):
    data = bytearray(b"\xff\xd8Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0\x20\0\0\0\x1a\0\0\0" + tail)
    if at < len(data):
        data[at] = value
    embedded_caption(bytes(data))


def test_captions_are_taken_in_order(jpeg):
    told = jpeg(1, description="Two dogs on a lawn")
    assert caption_of("red.jpg", told, "From the list", CaptionSource.MANIFEST) == ("From the list", "manifest")
    assert caption_of("red.jpg", told, "  \x07 ", CaptionSource.MANIFEST) == ("Two dogs on a lawn", "embedded")
    assert caption_of("red-hat.jpg", jpeg(1), None, CaptionSource.MANIFEST) == ("red hat", "file name")
    assert caption_of("IMG_1.jpg", jpeg(1), None, CaptionSource.MANIFEST) is None
