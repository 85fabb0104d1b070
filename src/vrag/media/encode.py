"""Pictures to bytes: PNG and JPEG of the pixels alone."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Final

from PIL import Image

from vrag.errors import UsageError

__all__ = ["JPEG_QUALITY", "encode_jpeg", "encode_png", "encoder"]

JPEG_QUALITY: Final = 92


def encode_png(image: Image.Image) -> bytes:
    """PNG of the pixels alone: no metadata of the source."""
    return _encode(image, format="PNG", compress_level=4)


def encode_jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """Baseline JPEG of the pixels alone: no metadata of the source.

    Chroma stays at full resolution (4:4:4): the film's encoder halves it anyway, and a red edge halved twice bleeds.
    On 14 photographs it cost 30 % more bytes at 1280 x 720 and gained 0.8 to 4.8 dB.
    """
    return _encode(image, format="JPEG", quality=quality, subsampling=0)


def _encode(image: Image.Image, **options: str | int) -> bytes:
    bare = image
    if image.info:  # Pillow's writers take comment, EXIF and profile from here
        bare = image.copy()
        bare.info = {}
    out = BytesIO()
    bare.save(out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def encoder(media_type: str) -> Callable[[Image.Image], bytes]:
    """The one of the two that writes this media type.

    Raises:
        UsageError: Neither does.
    """
    if media_type == "image/jpeg":
        return encode_jpeg
    if media_type == "image/png":
        return encode_png
    raise UsageError(f"Pictures are not written as '{media_type}'; 'image/jpeg' and 'image/png' are.")
