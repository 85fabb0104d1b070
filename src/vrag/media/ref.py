"""`MediaRef`: what flows instead of bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import BinaryIO

from attrs import field, frozen, validators

__all__ = ["MediaRef", "OpenMedia", "sha256_hex"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen(kw_only=True)
class MediaRef:
    """Names bytes by their digest; the bytes themselves live in a `Storage`."""

    sha256: str = field(validator=validators.matches_re(_SHA256, func=re.fullmatch))
    """SHA-256 of the bytes, 64 lower-case hexadecimal digits."""
    media_type: str = field(validator=validators.matches_re(r"[a-z]+/[a-z0-9.+-]+", func=re.fullmatch))
    """IANA media type, such as `image/jpeg` or `video/mp4`; found from the content, never from a name."""
    size_bytes: int = field(validator=validators.ge(0))
    """Length of the bytes."""
    width_px: int | None = None
    """Width of the picture as shown (orientation applied); None where it has none or is not known."""
    height_px: int | None = None
    """Height of the picture as shown; None where it has none or is not known."""
    duration_s: float | None = None
    """Length in time; None for pictures."""


OpenMedia = Callable[[MediaRef], BinaryIO]
"""Opens the bytes behind a ref, from their start. Backends get one beside each request; `Storage.open` is one."""


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()
