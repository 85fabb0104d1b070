"""What `check` finds, and what it leaves alone."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

import vrag
from vrag.knowledge.check import BLURRED_BELOW, check, sharpness
from vrag.knowledge.rights import rights_end
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock
from vrag.values.assets import Rights
from vrag.values.requests import VideoCapabilities

PHOTOS = sorted((Path(vrag.__file__).parent / "demo" / "photos").glob("*.jpg"))


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def test_photographs_in_focus_are_sharp_and_blurred_ones_are_not():
    assert len(PHOTOS) == 15
    for path in PHOTOS:
        with Image.open(path) as photo:
            assert sharpness(photo) > BLURRED_BELOW
            assert sharpness(photo.filter(ImageFilter.GaussianBlur(0.0025 * max(photo.size)))) < BLURRED_BELOW
    assert sharpness(Image.new("RGB", (3000, 2000))) == 0
    assert sharpness(Image.new("RGB", (64, 10))) == 0


def test_each_kind_of_finding_names_its_picture_and_good_ones_are_left_alone(fake_kb):
    clock = FakeClock()
    with Image.open(PHOTOS[0]) as opened:
        photo = opened.convert("RGB")
    with Image.open(PHOTOS[3]) as opened:
        other = opened.convert("RGB")
    kb = fake_kb(clock=clock)
    kb.ingest(
        [
            SourcePicture.from_bytes("good.jpg", encoded(photo), caption="A meadow"),
            SourcePicture.from_bytes("copy.jpg", encoded(photo, quality=60), caption="A meadow again"),
            SourcePicture.from_bytes(
                "soft.jpg",
                encoded(photo.crop((0, 0, 1500, 850)).rotate(180).filter(ImageFilter.GaussianBlur(8))),
                caption="Fog",
            ),
            SourcePicture.from_bytes("IMG_1.jpg", encoded(other.rotate(180)), rights=Rights(expires_on="2026-01-20")),
            SourcePicture.from_bytes("thin.jpg", encoded(other.crop((0, 0, 300, 900))), caption="A stem"),
        ]
    )
    report = check(kb, clock=clock)
    codes = {(one.name, one.code) for one in report.findings}
    assert codes - {("copy.jpg", "near_duplicate"), ("good.jpg", "near_duplicate")} == {
        ("soft.jpg", "blurred"),
        ("IMG_1.jpg", "uncaptioned"),
        ("IMG_1.jpg", "rights_ending"),
        ("thin.jpg", "wrong_shape"),
        ("thin.jpg", "too_small"),
    }
    assert sum(code == "near_duplicate" for _, code in codes) == 1
    assert report.checked == 5
    assert "rights_ending" not in str(check(kb, expires_within_days=5, clock=clock))
    clock.advance(40 * 86400)
    assert "ended with 2026-01-20" in str(check(kb, clock=clock))
    # A model that makes upright films wants other pictures.
    upright = VideoCapabilities(roles=frozenset({"start_frame"}), sizes_px=((720, 1280),))
    assert {one.name for one in check(kb, capabilities=upright).findings if one.code == "wrong_shape"} >= {"good.jpg"}
    assert report.to_json()["findings"][0].keys() == {"asset_id", "name", "code", "reason"}


def test_rights_end_at_midnight_of_the_knowledge_base(fake_kb, jpeg):
    source = [SourcePicture.from_bytes("dog.jpg", jpeg(1), rights=Rights(expires_on="2026-01-20"))]
    clock = FakeClock()
    here, there = fake_kb(clock=clock), fake_kb("far", clock=clock, time_zone="Pacific/Kiritimati")  # 14 hours ahead
    for kb in (here, there):
        kb.ingest(source, approve_by="ann")
    clock.advance((rights_end("2026-01-20") - clock.now()).total_seconds() - 6 * 3600)
    ended = {kb.name: "ended with" in str(check(kb, clock=clock)) for kb in (here, there)}
    assert ended == {"brand": False, "far": True}
    for kb in (here, there):
        (asset,) = kb.assets()
        assert (kb.review_of(asset.id).state == "expired") is ended[kb.name]


@pytest.mark.parametrize("kind", ["gone", "changed"])
def test_a_picture_whose_bytes_cannot_be_used_is_a_finding(fake_kb, jpeg, kind):
    from vrag.testing import FakeStorage

    storage = FakeStorage()
    kb = fake_kb(storage=storage)
    kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1))])
    (asset,) = kb.assets()
    storage.delete(asset.original) if kind == "gone" else storage.tamper(asset.original, b"x")
    assert check(kb).findings[0].code == "unusable"
