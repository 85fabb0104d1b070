"""What a picture says of itself: its format, size, frames and orientation, read and capped before a pixel is decoded.

Formats are told by their first bytes, and the one matching Pillow reader is constructed directly. `PIL.Image.open` is
not used, for two reasons. It asks every registered reader, also those that other packages added. And it checks sizes
against `PIL.Image.MAX_IMAGE_PIXELS` by a *warning*: both that number and the warning filters belong to the whole
process, and neither can be set for one thread. Here each cap is an argument. What else of Pillow could warn (its EXIF
parser, its handling of broken APNG) is not reached: the orientation is read here, and PNG chunks are looked through.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from attrs import frozen
from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from typing_extensions import override

from vrag.errors import ImageRejectedError
from vrag.media.names import shown

__all__ = ["ImageLimits", "OpenedImage", "decoding", "open_image"]

_MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "HEIC": "image/heic",
}
_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{f".{name.lower()}": name for name in ("PNG", "WEBP", "AVIF", "GIF", "BMP", "PSD", "PDF", "SVG", "EPS")},
}
_REFUSED = (  # told apart only to say what it is
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
)


@frozen(kw_only=True)
class ImageLimits:
    """What is not even decoded. Each cap holds before memory is spent on pixels."""

    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    min_side_px: int = 64


@frozen(kw_only=True)
class OpenedImage:
    """A picture whose header was read and found within the limits; its pixels were not decoded yet."""

    reader: ImageFile.ImageFile
    kind: str
    """`JPEG`, `PNG`, `WEBP`, `AVIF` or `HEIC`."""
    orientation: int
    """1 to 8, as EXIF counts; from 5 on the picture is stored lying on its side."""
    width_px: int
    """Upright, at full size."""
    height_px: int
    """Upright, at full size."""
    notes: list[str]
    """What a person may want to know; decoding adds to it."""

    @property
    def media_type(self) -> str:
        """Of the bytes, from their content."""
        return _MEDIA_TYPES[self.kind]

    @property
    def profile(self) -> bytes:
        """The ICC profile, or nothing."""
        return _bytes(self.reader.info.get("icc_profile"))

    def as_stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """An upright (width, height) as the reader counts it, and the other way round."""
        return (size[1], size[0]) if self.orientation >= 5 else size


def open_image(data: bytes, name: str, limits: ImageLimits) -> OpenedImage:
    """Read the header and apply every cap; no pixel is decoded.

    Raises:
        ImageRejectedError: See `vrag.media.image.load_image`.
    """
    if not data:
        raise _rejected(name, "empty", "is empty.")
    if len(data) > limits.max_bytes:
        mib = len(data) / (1 << 20)
        raise _rejected(
            name, "too_large", f"has {mib:.1f} MiB; {limits.max_bytes / (1 << 20):g} are allowed.", str(len(data))
        )
    kind = _kind(data, name)
    if kind == "WEBP":
        _check_size(_webp_size(data), name, limits)  # its reader allocates a canvas when it is made
    elif kind == "PNG":
        _check_png_frames(data, name)
    with decoding(name):
        reader = _reader(kind, data, name)
        frames: int = getattr(reader, "n_frames", 1)
        orientation = _orientation(reader.info.get("exif"))
    _check_size(reader.size, name, limits)
    if frames != 1:
        raise _animated(name, f"holds {frames} pictures")
    notes = []
    suffix = re.search(r"\.[a-z0-9]{2,5}\Z", name.lower())
    named = _SUFFIXES.get(suffix.group()) if suffix else None
    if suffix and named not in {None, kind}:
        notes.append(f"is named {suffix.group()}, but its content is {kind}")
    if kind == "JPEG" and ("mp" in reader.info or b"hdrgm:Version" in _bytes(reader.info.get("xmp"))):
        notes.append("holds further pictures (MPO or gain map): the first was taken")
    width_px, height_px = reader.size[::-1] if orientation >= 5 else reader.size
    return OpenedImage(
        reader=reader, kind=kind, orientation=orientation, width_px=width_px, height_px=height_px, notes=notes
    )


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Whatever a reader raises inside means that this picture cannot be decoded."""
    try:
        yield
    except ImageRejectedError:
        raise
    # Thousands of odd files drew a dozen unrelated exception types out of the readers; the next release may add one.
    # Their text is not passed on: it can hold memory addresses.
    except Exception as error:  # noqa: BLE001
        raise _rejected(
            name, "undecodable", "is damaged or cut off and cannot be decoded.", type(error).__name__
        ) from None


def _rejected(name: str, code: str, what: str, detail: str = "", hint: str | None = None) -> ImageRejectedError:
    return ImageRejectedError(f"'{shown(name)}' {what}", name=name, code=code, detail=detail, hint=hint)


def _kind(data: bytes, name: str) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[at : at + 4] for at in range(8, length, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"}:
            return "HEIC"
    found = next((label for start, label in _REFUSED if data.startswith(start)), "not a known picture format")
    raise _rejected(
        name,
        "unsupported_format",
        f"is {found}; JPEG, PNG, WebP, AVIF and HEIC are taken.",
        found,
        "convert it to JPEG",
    )


class _Jpeg(JpegImagePlugin.JpegImageFile):
    @override
    def getexif(self) -> Image.Exif:
        """Nothing: opening looks here for a resolution, by a parser that warns about broken EXIF."""
        return Image.Exif()


def _reader(kind: str, data: bytes, name: str) -> ImageFile.ImageFile:
    if kind == "JPEG":
        return _Jpeg(BytesIO(data))
    if kind == "PNG":
        return PngImagePlugin.PngImageFile(BytesIO(data))
    if kind == "WEBP":
        return WebPImagePlugin.WebPImageFile(BytesIO(data))
    if kind == "AVIF":
        if not AvifImagePlugin.SUPPORTED:
            raise _rejected(name, "unsupported_format", "is AVIF, which this build of Pillow cannot read.", "AVIF")
        # Its EXIF is made unreadable, because Pillow's parser would warn about a broken one. Nothing is lost: by the
        # format's standard the picture is turned by its `irot` and `imir` boxes, which Pillow reports as EXIF.
        return AvifImagePlugin.AvifImageFile(
            BytesIO(re.sub(rb"(?s)(infe[\x02\x03].{3}(?:.{4}|.{6}))Exif", rb"\1skip", data))
        )
    try:
        from pillow_heif import HeifImageFile  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise _rejected(
            name,
            "unsupported_format",
            "is HEIC, which needs the extra 'heic'.",
            "HEIC",
            "pip install 'vrag[heic]'",
        ) from None
    reader: ImageFile.ImageFile = HeifImageFile(BytesIO(data))
    return reader


def _check_size(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise _rejected(
            name,
            "too_many_pixels",
            f"has {width} x {height} pixels, {width * height / 1e6:.1f} million;"
            f" {limits.max_pixels / 1e6:g} million are allowed.",
            f"{width}x{height}",
        )
    if min(width, height) < limits.min_side_px:
        raise _rejected(
            name,
            "too_small",
            f"has {width} x {height} pixels; each side needs at least {limits.min_side_px}.",
            f"{width}x{height}",
        )


def _animated(name: str, what: str) -> ImageRejectedError:
    return _rejected(
        name, "animated", f"{what}; a single one is taken.", hint="save the picture that you mean by itself"
    )


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _check_png_frames(data: bytes, name: str) -> None:
    """Refuse APNG here, also the broken ones that Pillow would only warn about."""
    at = 8
    while at + 8 <= len(data):
        length, chunk = struct.unpack_from(">I4s", data, at)
        if chunk == b"acTL":
            raise _animated(name, "is an animated PNG")
        at += 12 + length


def _orientation(exif: object) -> int:
    """EXIF orientation 1 to 8; 1 where it is missing or broken."""
    tiff = _bytes(exif).removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + {3: "H", 4: "I"}.get(kind, "B"), tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
