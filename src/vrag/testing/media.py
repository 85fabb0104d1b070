"""Pictures made from a number, and requests that a model with these capabilities takes."""

from __future__ import annotations

import io
import math
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from vrag.errors import NotFoundError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.values.requests import (
    EditCapabilities,
    EditOperation,
    EditRequest,
    Input,
    Shot,
    VideoCapabilities,
    VideoRequest,
)

__all__ = ["SampleMedia", "describe", "sample_edit", "sample_request"]

_COLOURS: Final = {
    "black": (20, 20, 20),
    "blue": (40, 70, 200),
    "green": (40, 150, 60),
    "grey": (128, 128, 128),
    "orange": (235, 140, 30),
    "purple": (130, 50, 160),
    "red": (205, 40, 45),
    "white": (240, 240, 240),
    "yellow": (235, 215, 50),
}
_FORMATS: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


def describe(data: bytes) -> tuple[str, ...]:
    """Two words about a picture: its nearest plain colour and `landscape`, `portrait` or `square`."""
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        mean = np.asarray(picture.convert("RGB").resize((1, 1), Image.Resampling.BOX), dtype=np.float64)[0, 0]
    colour = min(_COLOURS, key=lambda name: math.dist(_COLOURS[name], mean))
    return colour, "square" if width == height else "landscape" if width > height else "portrait"


class SampleMedia:
    """Pictures in memory, and the function that opens them: give the object itself as `media`.

    ```python
    media = SampleMedia()
    picture = media.picture(1, width_px=320, height_px=180)
    captioner.caption(picture, media)
    ```
    """

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def __call__(self, ref: MediaRef) -> BinaryIO:
        """The bytes behind `ref`, from their start."""
        if ref.sha256 not in self._data:
            raise NotFoundError(f"No sample with the digest {ref.sha256}.")
        return io.BytesIO(self._data[ref.sha256])

    def add(self, data: bytes, media_type: str, width_px: int, height_px: int) -> MediaRef:
        """Keep encoded bytes of a picture."""
        ref = MediaRef(
            sha256=sha256_hex(data),
            media_type=media_type,
            size_bytes=len(data),
            width_px=width_px,
            height_px=height_px,
        )
        self._data[ref.sha256] = data
        return ref

    def picture(
        self, number: int = 0, *, width_px: int = 256, height_px: int = 192, media_type: str = "image/png"
    ) -> MediaRef:
        """A picture that differs for each `number`: a smooth colour with a disc of its opposite in the middle."""
        colour = np.array(list(_COLOURS.values())[number % len(_COLOURS)], dtype=np.float64)
        y, x = np.mgrid[0:height_px, 0:width_px]
        shade = 24 * np.sin(2 * np.pi * (x / width_px + (number % 97) / 97)) + 24 * (y / height_px - 0.5)
        pixels = colour + shade[..., None]
        disc = (x - width_px / 2) ** 2 + (y - height_px / 2) ** 2 < (min(width_px, height_px) / 10) ** 2
        pixels[disc] = 255 - colour
        # A stamp of the number keeps pictures apart that would look the same.
        for bit in range(min(16, width_px)):
            pixels[0, bit] = 255 if number >> bit & 1 else 0
        return self._encode(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), media_type)

    def mask(self, width_px: int, height_px: int, *, white: tuple[int, int, int, int] | None) -> MediaRef:
        """A mask with one white box (left, top, right, bottom in px); None is all black."""
        picture = Image.new("L", (width_px, height_px), 0)
        if white is not None:
            picture.paste(255, white)
        return self._encode(picture, "image/png")

    def _encode(self, picture: Image.Image, media_type: str) -> MediaRef:
        out = io.BytesIO()
        picture.save(out, _FORMATS[media_type], **({"quality": 95} if media_type != "image/png" else {}))
        return self.add(out.getvalue(), media_type, *picture.size)


def sample_request(capabilities: VideoCapabilities, media: SampleMedia, number: int = 0) -> VideoRequest:
    """The smallest request within `capabilities`; each `number` gives another one, by its picture or its words."""
    if capabilities.durations_s:
        duration_s = min(capabilities.durations_s)
    else:
        duration_s = min(max(capabilities.min_duration_s, 0.5), capabilities.max_duration_s)
    if capabilities.sizes_px:
        width_px, height_px = min(capabilities.sizes_px, key=math.prod)
    else:
        width_px, height_px = (min(side, capabilities.max_side_px // 2 * 2) for side in (160, 96))
    rates = capabilities.rates_fps
    move = min(capabilities.moves) if capabilities.moves else None
    roles = capabilities.required_roles or capabilities.roles & {"start_frame"}
    rule = capabilities.image
    scale = 1.0 if rule.exact_size else max(rule.scale, rule.min_side_px / min(width_px, height_px))
    picture = {
        "width_px": math.ceil(width_px * scale),
        "height_px": math.ceil(height_px * scale),
    }
    inputs = tuple(
        Input(role=role, media=media.picture(number, media_type=_pick(rule.media_types), **picture))
        for role in sorted(roles)
    )
    words = f"A calm lake at dawn, number {number}" if capabilities.reads_prompt else str(move or "")
    return VideoRequest(
        shots=(Shot(prompt=words, inputs=inputs, camera=(move,) if move else (), duration_s=duration_s),),
        width_px=width_px,
        height_px=height_px,
        fps=24.0 if rates is None or 24.0 in rates else min(rates),
        seed=number if "seed" in capabilities.fields else None,
        codec=capabilities.codecs[0],
    )


def sample_edit(
    capabilities: EditCapabilities,
    media: SampleMedia,
    number: int = 0,
    *,
    operation: EditOperation | None = None,
    white: tuple[int, int, int, int] | None = (96, 64, 160, 128),
) -> EditRequest:
    """An edit of a picture of 256 x 192 px (or twice, four times … as large, if the model wants) with a white box.

    `operation` defaults to the first of `erase`, `replace`, … that the model has; `white=None` is an all-black mask.
    """
    order: tuple[EditOperation, ...] = ("erase", "replace", "search_and_replace", "remove_background", "outpaint")
    able: list[EditOperation] = [one for one in order if one in capabilities.operations]
    chosen = able[0] if operation is None else operation
    times = max(1, math.ceil(capabilities.image.min_side_px / 192))
    width_px, height_px = 256 * times, 192 * times
    box = None if white is None else (white[0] * times, white[1] * times, white[2] * times, white[3] * times)
    masked = chosen in {"erase", "replace"}
    return EditRequest(
        operation=chosen,
        image=media.picture(
            number, width_px=width_px, height_px=height_px, media_type=_pick(capabilities.image.media_types)
        ),
        mask=media.mask(width_px, height_px, white=box) if masked and capabilities.needs_mask else None,
        mask_prompt="the disc" if chosen == "search_and_replace" or (masked and not capabilities.needs_mask) else None,
        prompt="smooth water" if chosen in {"replace", "search_and_replace", "outpaint"} else None,
        extend_px=(32 * times, 0, 32 * times, 0) if chosen == "outpaint" else None,
    )


def _pick(media_types: tuple[str, ...]) -> str:
    return next((one for one in ("image/png", "image/jpeg", "image/webp") if one in media_types), media_types[0])
