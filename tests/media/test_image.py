"""Pictures from strangers: what is taken, what is refused, and that what comes out is what a person saw."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import threading
import warnings
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter, PngImagePlugin

from vrag.errors import ImageRejectedError, UsageError
from vrag.media.image import ImageLimits, _stored_box, conform, encode_jpeg, load_image, thumbnail

EXIF_ORIENTATION = 0x0112
CODES = {"empty", "too_large", "too_many_pixels", "too_small", "unsupported_format", "animated", "undecodable"}


def scene(width: int = 320, height: int = 200, seed: int = 1) -> Image.Image:
    """A picture with smooth parts, edges and texture, different in each corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (width + height)], -1)
    coarse = Image.fromarray(rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8))
    texture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray((0.6 * base + 0.4 * texture).astype(np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def oriented(image: Image.Image, orientation: int, format_: str = "JPEG", **options: object) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encoded(image, format_, exif=exif, **options)


def psnr(one: Image.Image, two: Image.Image) -> float:
    error = float(np.mean((np.asarray(one, float) - np.asarray(two, float)) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def ssim(one: Image.Image, two: Image.Image) -> float:
    """Wang et al. 2004 on luma, with a Gaussian window of sigma 1.5."""

    def blur(values: np.ndarray) -> np.ndarray:
        kernel = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
        kernel /= kernel.sum()
        for axis in (0, 1):
            values = np.apply_along_axis(np.convolve, axis, values, kernel, "valid")
        return values

    a, b = (np.asarray(image.convert("L"), float) for image in (one, two))
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    return float(
        np.mean((2 * ma * mb + 6.5025) * (2 * cov + 58.5225) / ((ma**2 + mb**2 + 6.5025) * (va + vb + 58.5225)))
    )


def refusal(data: bytes, name: str = "x.jpg", **options: object) -> ImageRejectedError:
    with pytest.raises(ImageRejectedError) as caught:
        load_image(data, name, **options)
    assert caught.value.code in CODES
    assert caught.value.name == name
    return caught.value


@pytest.mark.parametrize(
    ("format_", "media_type", "least_db"),
    [("JPEG", "image/jpeg", 30), ("PNG", "image/png", 99), ("WEBP", "image/webp", 28), ("AVIF", "image/avif", 28)],
)
def test_each_format_by_its_content(format_, media_type, least_db):
    picture = scene()
    loaded = load_image(encoded(picture, format_), "picture.bin")
    assert (loaded.media_type, loaded.width_px, loaded.height_px) == (media_type, 320, 200)
    assert loaded.pixels.mode == "RGB"
    assert loaded.pixels.info == {}
    assert loaded.notes == ()
    assert psnr(loaded.pixels, picture) >= least_db


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(format_, orientation):
    upright = scene()
    # The inverse of each turn: 6 and 8 undo each other, the rest undo themselves.
    stored = upright
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation > 1:
        stored = upright.transpose(Image.Transpose(turns[orientation]))
    data = oriented(stored, orientation, format_)
    loaded = load_image(data, "x")
    assert (loaded.width_px, loaded.height_px) == upright.size == loaded.pixels.size
    assert psnr(loaded.pixels, upright) > 28
    fitted = conform(data, "x", width_px=160, height_px=90, media_type="image/png")
    expected = upright.crop(fitted.crop_px).resize((160, 90), Image.Resampling.LANCZOS)
    assert psnr(Image.open(io.BytesIO(fitted.data)), expected) > 28


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_crop_box_is_found_again_in_the_stored_picture(orientation):
    upright = scene(64, 40)
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    stored = upright.transpose(Image.Transpose(turns[orientation]))
    box = (3, 5, 20, 31)
    part = stored.crop(_stored_box(box, upright.size, orientation)).transpose(Image.Transpose(back[orientation]))
    assert part.tobytes() == upright.crop(box).tobytes()


def test_avif_is_turned_by_its_own_boxes_and_broken_exif_is_silent():
    stored = scene()
    data = oriented(stored, 6, "AVIF")
    loaded = load_image(data, "x.avif")
    assert (loaded.width_px, loaded.height_px) == (200, 320)
    assert psnr(loaded.pixels, stored.transpose(Image.Transpose.ROTATE_270)) > 28
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010F] = 6, "Maker"
    data = encoded(stored, "AVIF", exif=exif)
    at = max(data.find(b"II*\0"), data.find(b"MM\0*"))
    assert at > 0
    broken = data[: at + 8] + b"\xff\xff" + data[at + 10 :]
    assert load_image(broken, "x.avif").width_px == 200


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_no_reason_to_refuse_or_to_warn(format_):
    for tail in (
        b"",
        b"\xff" * 40,
        struct.pack("<HHHII", 9, 0x0112, 3, 1, 77),
        struct.pack("<HHHII", 1, 0x0112, 2, 9, 9),
    ):
        data = encoded(scene(), format_, exif=b"Exif\0\0II*\0\x08\0\0\0" + tail)
        assert load_image(data, "x").width_px == 320


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None].repeat(80, 0)
    loaded = load_image(encoded(Image.fromarray(ramp)), "x.png")
    assert np.abs(np.asarray(loaded.pixels)[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
def test_png_modes(mode):
    picture = scene().convert("RGBA" if mode in {"LA", "PA", "RGBA"} else "RGB").convert("P" if mode == "PA" else mode)
    loaded = load_image(encoded(picture), "x.png")
    assert loaded.pixels.mode == "RGB"
    assert psnr(loaded.pixels, picture.convert("RGB")) > (99 if mode != "1" else 40) - 1


def test_transparency_lies_on_the_background():
    picture = scene().convert("RGBA")
    picture.putalpha(0)
    hidden = encoded(picture)
    assert load_image(hidden, "x").pixels.getextrema() == ((255, 255),) * 3
    loaded = load_image(hidden, "x", background=(1, 2, 3))
    assert loaded.transparent
    assert loaded.pixels.getpixel((5, 5)) == (1, 2, 3)
    palette = scene().quantize(16)
    keyed = load_image(encoded(palette, transparency=bytes(16)), "x.png", background=(9, 9, 9))
    assert keyed.pixels.getextrema() == ((9, 9),) * 3
    assert not load_image(encoded(scene()), "x").transparent


def test_cmyk_follows_its_profile_and_says_when_it_has_none():
    grey = Image.new("CMYK", (80, 80), (0, 0, 0, 128))
    loaded = load_image(encoded(grey, "JPEG"), "x.jpg")
    assert "CMYK" in loaded.notes[0]
    assert loaded.pixels.getpixel((9, 9)) == pytest.approx((127, 127, 127), abs=3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wrong = load_image(encoded(grey, "JPEG", icc_profile=srgb), "x.jpg")
    assert "another kind" in wrong.notes[0]


def test_a_sound_profile_is_applied_and_a_broken_one_noted():
    # Primaries swapped by hand: red and blue columns of an sRGB profile change places, so red must come out blue.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    red = Image.new("RGB", (80, 80), (255, 0, 0))
    loaded = load_image(encoded(red, icc_profile=swapped), "x.png")
    assert loaded.pixels.getpixel((9, 9)) == pytest.approx((0, 0, 255), abs=3)
    assert loaded.notes == ()
    same = load_image(encoded(scene(), icc_profile=srgb), "x.png")
    assert psnr(same.pixels, scene()) > 45
    broken = load_image(encoded(red, icc_profile=b"no profile at all" * 20), "x.png")
    assert broken.notes == ("has a broken colour profile, which was ignored",)
    assert broken.pixels.getpixel((9, 9)) == (255, 0, 0)


def test_the_first_picture_of_an_mpo_is_taken_and_noted():
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (320, 200))])
    loaded = load_image(data, "phone.jpg")
    assert loaded.media_type == "image/jpeg"
    assert "MPO" in loaded.notes[0]
    assert psnr(loaded.pixels, scene()) > 28
    gain_map = encoded(scene(), "JPEG", xmp=b'<x:xmpmeta><rdf:Description hdrgm:Version="1.0"/></x:xmpmeta>')
    assert "gain map" in load_image(gain_map, "phone.jpg").notes[0]


def test_a_misleading_suffix_is_noted():
    assert load_image(encoded(scene()), "shot.JPG").notes == ("is named .jpg, but its content is PNG",)
    assert load_image(encoded(scene()), "shot v1.2 final").notes == ()


def test_caps_hold_before_anything_is_decoded():
    assert refusal(b"").code == "empty"
    assert refusal(encoded(scene()), limits=ImageLimits(max_bytes=100)).code == "too_large"
    assert refusal(encoded(scene(63, 200))).code == "too_small"
    # Headers alone, without any pixels behind them: only a check before decoding can tell.
    header = struct.pack(">II5B", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert refusal(png).code == "too_many_pixels"
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (19_999).to_bytes(3, "little") * 2
    assert refusal(b"RIFF" + struct.pack("<I", len(vp8x) + 4) + b"WEBP" + vp8x).code == "too_many_pixels"
    for format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        data = encoded(scene(400, 300), format_)
        error = refusal(data, limits=ImageLimits(max_pixels=119_999))
        assert (error.code, error.detail) == ("too_many_pixels", "400x300")


def test_more_pixels_than_pillow_warns_about_are_the_callers_choice(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    assert load_image(encoded(scene()), "x.png").width_px == 320


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF"])
def test_animations_are_refused(format_):
    data = encoded(scene(), format_, save_all=True, append_images=[scene(seed=2)])
    assert refusal(data).code == "animated"


def test_a_broken_apng_is_refused_without_a_warning():
    info = PngImagePlugin.PngInfo()
    info.add(b"acTL", bytes(8))
    assert refusal(encoded(scene(), pnginfo=info)).code == "animated"


@pytest.mark.parametrize(
    "data",
    [
        encoded(scene(), "GIF"),
        encoded(scene(), "TIFF"),
        encoded(scene(), "BMP"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0",
    ],
)
def test_other_formats_are_not_tried(data):
    error = refusal(data, "photo.jpg")
    assert error.code == "unsupported_format"
    assert "JPEG, PNG, WebP" in error.message


def test_heic_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "IMG_0001.HEIC")
    assert error.code == "unsupported_format"
    assert error.hint == "pip install 'vrag[heic]'"


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="the extra 'heic' is not installed")
def test_heic():
    import pillow_heif

    out = io.BytesIO()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    pillow_heif.from_pillow(scene()).save(out, quality=90, exif=exif.tobytes())
    loaded = load_image(out.getvalue(), "IMG_0001.HEIC")
    assert (loaded.media_type, loaded.width_px, loaded.height_px, loaded.notes) == ("image/heic", 200, 320, ())
    assert psnr(loaded.pixels, scene().transpose(Image.Transpose.ROTATE_270)) > 28
    for end in range(0, len(out.getvalue()) - 1, 97):
        refusal(out.getvalue()[:end])


def test_names_do_no_harm_in_messages():
    name = "a\x1b[31m\u202egpj.exe\n\ud800é.png"
    error = refusal(b"", name)
    assert error.message.isprintable()
    assert "é.png" in error.message
    assert len(refusal(b"", "x" * 100_000).message) < 200


def test_messages_hold_no_addresses():
    for format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        error = refusal(encoded(scene(), format_)[:300])
        assert "0x" not in f"{error}{error.detail}"
        assert error.__cause__ is None


GOOD = {
    "JPEG": oriented(scene(96, 80), 6),
    "progressive": encoded(scene(96, 80), "JPEG", progressive=True),
    "MPO": encoded(scene(96, 80), "MPO", save_all=True, append_images=[scene(96, 80)]),
    "PNG": encoded(scene(96, 80), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    "palette": encoded(scene(96, 80).quantize(32), transparency=3),
    "WEBP": oriented(scene(96, 80), 3, "WEBP"),
    "AVIF": oriented(scene(96, 80), 8, "AVIF"),
}


def loads_or_is_refused(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for use in (load_image, lambda data, name: conform(data, name, width_px=64, height_px=36)):
            with contextlib.suppress(ImageRejectedError):
                use(data, "x")
    assert caught == []


@pytest.mark.parametrize("kind", GOOD)
def test_every_truncation_loads_or_is_refused(kind):
    data = GOOD[kind]
    for end in range(0, len(data), max(1, len(data) // 150)):
        loads_or_is_refused(data[:end])
    assert refusal(data[: len(data) * 2 // 3] if kind != "MPO" else data[: len(data) // 3]).code == "undecodable"


@given(
    st.sampled_from(sorted(GOOD)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_every_damage_loads_or_is_refused(kind, damage):
    data = bytearray(GOOD[kind])
    for where, value in damage:
        # Half of the hits go to the first 400 bytes, where headers are.
        span = len(data) if value % 2 else min(400, len(data))
        data[int(where * (span - 1))] = value
    loads_or_is_refused(bytes(data))


@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"\0\0\0\x1cftypavif", b""]),
    st.binary(max_size=300),
)
@example(b"RIFF....WEBPVP8L", bytes(30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(start, rest):
    assert refusal(start + rest).code in CODES


# -- fitting


def photo(width: int, height: int) -> Image.Image:
    """Photographic statistics: energy falling with frequency, on hard edges."""
    rng = np.random.default_rng(7)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / max(width, height))
    layer = np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) * fall).real
    layer = (layer - layer.min()) / np.ptp(layer)
    y, x = np.mgrid[0:height, 0:width]
    disc = (np.hypot(x - width * 0.4, y - height * 0.5) < height * 0.3)[..., None]
    rgb = np.stack([layer, layer**1.3, 1 - layer], -1) * 0.8 + 0.2 * disc * (0.9, 0.1, 0.2)
    return Image.fromarray((rgb * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))


@pytest.mark.parametrize("size", [(2000, 1500), (1500, 2000), (2561, 1441)])
def test_cover_is_the_crop_it_says(size):
    original = photo(*size)
    data = encode_jpeg(original)
    fitted = conform(data, "x", width_px=640, height_px=360, media_type="image/png")
    left, top, right, bottom = fitted.crop_px
    assert (fitted.width_px, fitted.height_px) == (640, 360)
    assert abs((right - left) * 360 - (bottom - top) * 640) <= 320  # half a source pixel
    assert abs(left - (size[0] - right)) <= 1
    assert abs(top - (size[1] - bottom)) <= 1
    assert right - left == size[0] or bottom - top == size[1]
    expected = Image.open(io.BytesIO(data)).crop(fitted.crop_px).resize((640, 360), Image.Resampling.LANCZOS)
    assert ssim(Image.open(io.BytesIO(fitted.data)), expected) >= 0.99


def test_contain_keeps_all_between_bars():
    fitted = conform(
        encoded(Image.new("RGB", (300, 300), "white")),
        "x",
        width_px=640,
        height_px=360,
        mode="contain",
        media_type="image/png",
        background=(10, 20, 30),
    )
    out = Image.open(io.BytesIO(fitted.data))
    assert fitted.crop_px == (0, 0, 300, 300)
    assert out.size == (640, 360)
    assert out.getpixel((139, 180)) == (10, 20, 30) == out.getpixel((500, 180))
    assert out.getpixel((141, 0)) == (255, 255, 255) == out.getpixel((498, 359))
    assert fitted.upscaled


@given(
    st.tuples(st.integers(64, 500), st.integers(64, 500)),
    st.tuples(st.integers(16, 400), st.integers(16, 400)),
    st.floats(1, 4),
    st.sampled_from(["cover", "contain"]),
)
@settings(max_examples=80, deadline=None)
def test_no_pixels_are_invented_beyond_the_need(size, target, scale, mode):
    fitted = conform(
        encoded(Image.new("RGB", size, "red")),
        "x",
        width_px=target[0],
        height_px=target[1],
        mode=mode,
        scale=scale,
        media_type="image/png",
    )
    left, top, right, bottom = fitted.crop_px
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    out = Image.open(io.BytesIO(fitted.data))
    assert out.size == (fitted.width_px, fitted.height_px)
    # Smaller than the source where that is enough, as large as asked where the source allows, never below the video.
    assert target[0] <= fitted.width_px <= round(target[0] * scale)
    assert target[1] <= fitted.height_px <= round(target[1] * scale)
    if fitted.upscaled:
        assert (fitted.width_px, fitted.height_px) == target
    elif mode == "cover":
        assert fitted.width_px <= right - left + 1
        assert fitted.height_px <= bottom - top + 1


def test_nothing_of_the_metadata_comes_out():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 3
    exif.get_ifd(0x8825)[1] = "N"
    data = encoded(
        scene(),
        "JPEG",
        exif=exif,
        comment=b"secret remark",
        xmp=b"<x:secret/>",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    for media_type in ("image/jpeg", "image/png"):
        out = conform(data, "x", width_px=160, height_px=90, media_type=media_type).data
        for needle in (b"Exif", b"secret", b"ICC", b"iCCP", b"http"):
            assert needle not in out
    small = thumbnail(data, "x", max_side_px=100)
    assert b"Exif" not in small
    assert Image.open(io.BytesIO(small)).size == (100, 62)


def test_draft_keeps_the_full_size_and_never_falls_below_what_was_asked():
    data = oriented(scene(1600, 1000), 6)
    loaded = load_image(data, "x", draft_px=(200, 300))
    assert (loaded.width_px, loaded.height_px) == (1000, 1600)
    assert loaded.pixels.size == (250, 400)
    assert load_image(data, "x", draft_px=(5000, 5000)).pixels.size == (1000, 1600)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "squash"},
        {"scale": 0.5},
        {"scale": float("nan")},
        {"media_type": "image/gif"},
        {"width_px": 0},
        {"width_px": 99_999},
    ],
)
def test_what_conform_cannot_do(options):
    with pytest.raises(UsageError):
        conform(encoded(scene()), "x", **{"width_px": 160, "height_px": 90, **options})


def test_threads_give_the_serial_result():
    inputs = list(GOOD.values())
    serial = [conform(data, "x", width_px=64, height_px=36).data for data in inputs]
    results: list[list[bytes]] = [[] for _ in range(8)]

    def work(into: list[bytes]) -> None:
        into.extend(conform(data, "x", width_px=64, height_px=36).data for data in inputs)

    threads = [threading.Thread(target=work, args=(into,)) for into in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(into == serial for into in results)
