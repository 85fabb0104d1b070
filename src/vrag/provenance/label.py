"""The visible label: a line of text on a film, drawn before anything is signed.

Sources (checked 2026-11-20; not legal advice): GB 45438-2025 asks for letters of at least 5 % of the shorter side, shown
for at least 2 s at the start; Article 50 of Regulation (EU) 2024/1689 for a label at the first exposure.
"""

from __future__ import annotations

import io
import unicodedata
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import BinaryIO, Final, Literal

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from vrag.errors import ProvenanceError, UsageError
from vrag.provenance.fonts import MAX_FONT_BYTES, find_font, font_with
from vrag.provenance.glyphs import covered, unshapable
from vrag.provenance.repaint import Planes, Repainted, repaint
from vrag.values.canonical import JSON

__all__ = ["Label", "check_label", "draw_label"]

_MAX_CHARS: Final = 80
_MARGIN: Final = 0.04
"""Distance from the edges, of the shorter side."""
_JOINERS: Final = {0x200C, 0x200D}


@frozen(kw_only=True)
class Label:
    """A text that everybody sees. The defaults keep the measures that the sources above ask for."""

    text: str = field(validator=validators.max_len(_MAX_CHARS))
    position: Literal["top left", "top", "top right", "bottom left", "bottom", "bottom right"] = "bottom right"
    size_fraction: float = field(default=0.05, validator=[validators.ge(0.01), validators.le(0.3)])
    """How high its tallest letter stands above the line, of the film's shorter side."""
    at: Literal["all", "start"] = "all"
    """The whole film, or its first `duration_s` seconds."""
    duration_s: float = field(default=2.5, validator=validators.ge(0.5))
    font: str | None = None
    """A TrueType or OpenType file with the characters of the text, as a path or as a file name among the system's fonts;
    None is the one that Pillow brings, which has plain Latin letters. It is never chosen silently: films would differ from
    machine to machine."""


@frozen(kw_only=True, eq=False)
class _Drawn:
    """A label as what it leaves of the film's light, and what it adds."""

    left_px: int
    top_px: int
    keep: NDArray[np.float32]
    """Share of the film that stays visible, by pixel; even sides."""
    white: NDArray[np.float32]
    """Share of white, by pixel."""


def check_label(label: Label, *, width_px: int, height_px: int) -> None:
    """Make sure, before anything is bought, that the label can be drawn rightly on such a film.

    Raises:
        UsageError: A character is not in the font or cannot be shaped here, or the text is wider than the film.
    """
    _layout(label, width_px, height_px)


def draw_label(film: BinaryIO, out: BinaryIO, label: Label) -> dict[str, JSON]:
    """Write `film` (an MP4) to `out` with the label on it, and return what was done, as JSON.

    Raises:
        UsageError: As `check_label`.
        MediaRejectedError: The film cannot be read.
        ProvenanceError: It cannot be written again.
    """
    made: list[_Drawn] = []

    def paint(planes: Planes, full_range: bool) -> None:
        if not made:
            made.append(_layout(label, planes[0].shape[1], planes[0].shape[0]))
        _blend(planes, made[0], full_range=full_range)

    done: Repainted = repaint(film, out, paint, until_s=None if label.at == "all" else label.duration_s)
    if done.frames_painted == 0:
        raise ProvenanceError("No frame of the film lies where the label belongs.")
    return {
        "text": label.text,
        "position": label.position,
        "size_fraction": label.size_fraction,
        "frames": done.frames_painted,
        "of_frames": done.info.frames,
        "encoder": done.encoder,
        "codec": done.info.codec,
    }


def _text(label: Label) -> str:
    text = unicodedata.normalize("NFC", label.text).strip()
    if not text:
        raise UsageError("The label is empty; write what it is to say, such as 'AI-generated'.")
    why = unshapable(text, shaper=_shaper())
    if why is not None:
        raise UsageError(f"The label cannot be drawn: {why}.")
    return text


def _letters(text: str) -> str:
    """Letters and digits without their accents: an accent must not stand for the height of a letter."""
    plain = "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one)[0] in "LN")
    return unicodedata.normalize("NFC", plain) or text


def _shaper() -> bool:
    return bool(features.check("raqm"))


@lru_cache(maxsize=8)
def _font_bytes(path: str | None) -> tuple[bytes, frozenset[int]]:
    if path is None:
        bundled = ImageFont.load_default(32)
        if not isinstance(bundled, ImageFont.FreeTypeFont):
            raise UsageError(
                "This Pillow has no FreeType, so no label can be drawn.", hint="pip install --upgrade Pillow"
            )
        data = getattr(bundled, "font_bytes", b"")
    else:
        try:
            with find_font(path).open("rb") as file:
                data = file.read(MAX_FONT_BYTES)
        except OSError as error:
            raise UsageError(f"The font '{path}' cannot be read: {error.strerror or error}.") from error
    return data, covered(data)


def _font(label: Label, text: str, size_px: float) -> ImageFont.FreeTypeFont:
    data, has = _font_bytes(label.font)
    missing = sorted({one for one in text if ord(one) not in has and ord(one) not in _JOINERS and not one.isspace()})
    if missing:
        shown = ", ".join(f"{one} (U+{ord(one):04X} {unicodedata.name(one, '?').lower()})" for one in missing[:5])
        font = "the font that Pillow brings" if label.font is None else f"'{Path(label.font).name}'"
        more = "" if len(missing) <= 5 else f" and {len(missing) - 5} more"
        other = font_with({ord(one) for one in text if not one.isspace() and ord(one) not in _JOINERS})
        raise UsageError(
            f"{font} lacks {shown}{more} of the label; give a font that has them, such as one of the Noto family.",
            hint="[marking.label] font = 'NotoSansSC-Regular.otf', after you have put the file there"
            if other is None
            else f"[marking.label] font = '{other}' in vrag.toml, or Label(font='{other}')",
        )
    engine = ImageFont.Layout.RAQM if _shaper() else ImageFont.Layout.BASIC
    try:
        return ImageFont.truetype(io.BytesIO(data), size_px, layout_engine=engine)
    except (OSError, ValueError) as error:
        raise UsageError(f"The font '{label.font}' cannot be used.") from error


def _layout(label: Label, width_px: int, height_px: int) -> _Drawn:
    text = _text(label)
    short = min(width_px, height_px)
    wanted = label.size_fraction * short
    tall = _letters(text)
    trial = -_font(label, text, 200).getbbox(tall, anchor="ls")[1]
    if trial <= 0:
        raise UsageError("The label has no letter that stands on the line.")
    size = ceil(200 * wanted / trial)
    while -(font := _font(label, text, size)).getbbox(tall, anchor="ls")[1] < wanted:
        size += 1  # hinting and rounding: never under the size that was asked for
    left, top, right, bottom = (int(number) for number in font.getbbox(text, anchor="ls"))
    soft = max(2, round(0.09 * size))
    pad = 3 * soft
    box_width, box_height = right - left, bottom - top
    margin = max(pad, round(_MARGIN * short))
    if box_width + 2 * margin > width_px or box_height + 2 * margin > height_px:
        raise UsageError(
            f"The label is {box_width} x {box_height} px at {label.size_fraction:.1%} of the shorter side, too large for a "
            f"film of {width_px} x {height_px}: shorten its text."
        )
    x = {"left": margin, "right": width_px - margin - box_width}.get(
        label.position.partition(" ")[2], (width_px - box_width) // 2
    )
    y = margin if label.position.startswith("top") else height_px - margin - box_height
    # Even corners: a chroma sample covers two by two pixels.
    x0, y0 = (x - pad) & ~1, (y - pad) & ~1
    x1, y1 = min((x + box_width + pad + 1) & ~1, width_px & ~1), min((y + box_height + pad + 1) & ~1, height_px & ~1)
    x0, y0 = max(x0, 0), max(y0, 0)
    canvas = Image.new("L", (x1 - x0, y1 - y0), 0)
    ImageDraw.Draw(canvas).text((x - x0 - left, y - y0 - top), text, fill=255, font=font, anchor="ls")
    edge = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(edge).text(
        (x - x0 - left, y - y0 - top), text, fill=255, font=font, anchor="ls", stroke_width=max(1, size // 16)
    )
    letters = np.asarray(canvas, np.float32) / np.float32(255)
    shadow = np.asarray(edge.filter(ImageFilter.GaussianBlur(soft)), np.float32) / 255
    outline = np.asarray(edge.filter(ImageFilter.GaussianBlur(max(1.0, size / 48))), np.float32) / 255
    dark = np.clip(np.maximum(shadow * 1.5, outline * 0.75), 0.0, 0.8)
    keep = ((1 - dark) * (1 - letters)).astype(np.float32)
    return _Drawn(left_px=x0, top_px=y0, keep=keep, white=letters.astype(np.float32))


def _blend(planes: Planes, drawn: _Drawn, *, full_range: bool) -> None:
    black, white = (0.0, 255.0) if full_range else (16.0, 235.0)
    height, width = drawn.keep.shape
    luma = planes[0][drawn.top_px : drawn.top_px + height, drawn.left_px : drawn.left_px + width]
    ink = white * drawn.white + black * (1 - drawn.white - drawn.keep)
    luma[:] = np.clip(luma * drawn.keep + ink + 0.5, 0, 255).astype(np.uint8)
    kept = drawn.keep.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    for plane in planes[1:]:
        top, left = drawn.top_px // 2, drawn.left_px // 2
        part = plane[top : top + height // 2, left : left + width // 2]
        part[:] = np.clip(part * kept + 128 * (1 - kept) + 0.5, 0, 255).astype(np.uint8)
