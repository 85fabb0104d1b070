"""Pictures from strangers: loaded upright and in sRGB; fitted without distortion; encoded without metadata.

The caps and the reading of headers are in `vrag.media.header`.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Final

import numpy as np
from attrs import field, frozen
from PIL import Image, ImageCms, ImageFile, ImageFilter

from vrag.errors import ImageRejectedError, UsageError
from vrag.media.encode import encode_jpeg, encode_png, encoder
from vrag.media.fit import FIT_MODES, Box, FitMode, Focus, centre_crop, crop_around, inside
from vrag.media.header import ImageLimits, OpenedImage, decoding, open_image
from vrag.media.names import shown
from vrag.media.subject import LOOKED_AT_PX, subject_crop

__all__ = [
    "ConformedImage",
    "ImageLimits",
    "LoadedImage",
    "conform",
    "edit_base",
    "encode_jpeg",
    "encode_png",
    "load_alpha",
    "load_image",
    "thumbnail",
]

RGB = tuple[int, int, int]

# Decoders shrink block by block, which shows when little is left for Lanczos to do: with drafts of 1.0 to 1.2 times the
# need, photographs of foliage and masonry fell to SSIM 0.971; from 1.5 on, the lowest of 14 was 0.990.
_DRAFT_MARGIN = 1.5
_MAX_SIDE_PX = 16_384
_BACKDROP_PX: Final = 192
_BACKDROP_LIGHT: Final = 0.7
_LIMITS = ImageLimits()
_WHITE: RGB = (255, 255, 255)
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of an ICC profile -> of the pixels it is for
# EXIF orientation -> what makes a stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@frozen(kw_only=True)
class LoadedImage:
    """A picture as a person sees it."""

    pixels: Image.Image = field(eq=False, repr=False)
    """RGB, 8 bits, upright, sRGB, without metadata; smaller than the original where a draft was asked for."""
    media_type: str
    """Of the original bytes, from their content."""
    width_px: int
    """Of the upright original at full size."""
    height_px: int
    """Of the upright original at full size."""
    transparent: bool = False
    """It had transparency, which lies on the background colour now."""
    notes: tuple[str, ...] = ()
    """What was done that a person may want to know: a broken profile ignored, a misleading suffix."""


@frozen(kw_only=True)
class ConformedImage:
    """A picture in the shape that was asked for, ready to be sent."""

    data: bytes = field(repr=False)
    """Encoded; sRGB; no EXIF, XMP, ICC profile or comment."""
    media_type: str
    width_px: int
    height_px: int
    crop_px: Box
    """Left, top, right, bottom of what was kept, in pixels of the upright original."""
    upscaled: bool = False
    """The original has fewer pixels than were needed."""
    notes: tuple[str, ...] = ()


def load_image(
    data: bytes,
    name: str,
    *,
    limits: ImageLimits = _LIMITS,
    draft_px: tuple[int, int] | None = None,
    background: RGB = _WHITE,
) -> LoadedImage:
    """Decode a picture from a stranger, or say by name and code why not.

    Takes JPEG (of an MPO or gain-map JPEG its first picture), PNG, WebP and AVIF, and HEIC with the extra `heic`. All
    eight EXIF orientations are applied; 16-bit grey is scaled, not clipped; CMYK and other colours go to sRGB by
    their profile, and a profile that is broken or made for another kind of pixels is ignored and noted.

    Args:
        data: The bytes of the file.
        name: How to call it in errors and notes; its suffix decides nothing.
        limits: Caps on bytes, pixels and sides.
        draft_px: (width, height), upright: a JPEG may be decoded smaller, but not smaller than this.
        background: What shows through transparent parts.

    Raises:
        ImageRejectedError: `code` is `empty`, `too_large`, `unsupported_format`, `too_many_pixels`, `too_small`,
            `animated` or `undecodable`. Whatever the bytes are, nothing else is raised.
    """
    opened = open_image(data, name, limits)
    with decoding(name):
        if draft_px is not None:
            _draft(opened, draft_px)
        opened.reader.load()
        flat, transparent = _flatten(opened.reader, background)
        pixels = _to_srgb(_upright(flat, opened), opened)
    return LoadedImage(
        pixels=pixels,
        media_type=opened.media_type,
        width_px=opened.width_px,
        height_px=opened.height_px,
        transparent=transparent,
        notes=tuple(opened.notes),
    )


def load_alpha(data: bytes, name: str, *, limits: ImageLimits = _LIMITS) -> Image.Image | None:
    """How opaque each pixel of the upright picture is, 8-bit grey; None for a picture without transparency.

    Raises:
        ImageRejectedError: As `load_image`.
    """
    opened = open_image(data, name, limits)
    with decoding(name):
        opened.reader.load()
        if not _transparent(opened.reader):
            return None
        return _bare(_upright(opened.reader.convert("RGBA").getchannel("A"), opened), "L")


def conform(
    data: bytes,
    name: str,
    *,
    width_px: int,
    height_px: int,
    mode: FitMode = "cover",
    focus: Focus | None = None,
    scale: float = 1.0,
    media_type: str = "image/jpeg",
    limits: ImageLimits = _LIMITS,
    background: RGB = (0, 0, 0),
) -> ConformedImage:
    """Bring a picture to the shape of a video; nothing is squashed.

    `cover` keeps the largest centred part that has the shape asked for (sides rounded to whole source pixels), and
    `subject` the part of that size that holds the most of the subject (`vrag.media.subject`), or lies around `focus`.
    `contain` keeps all of it, centred, with bars of `background`, and `blur` with a dimmed and blurred copy of the
    picture instead of bars. Transparent parts become white.

    A JPEG is decoded at half, a quarter or an eighth of its size where that leaves 1.5 times the pixels needed a side,
    and Lanczos does the rest: the picture of decoding it whole (SSIM at least 0.99 for `cover`), in less than half the
    time from 12 megapixels to 1280 x 720. Bicubic is faster still, but fell to 0.985. See `benchmarks/conform.py`.

    Args:
        data: The bytes of the file.
        name: How to call it in errors and notes.
        width_px: Of the video.
        height_px: Of the video.
        mode: `cover`, `contain`, `blur` or `subject`.
        focus: For `subject`: the box to keep, as fractions of the upright picture; None finds the subject.
        scale: How much larger than the video the result should be, at least 1. It is lowered to what the original
            holds, but not below 1.
        media_type: `image/jpeg` (quality 92, chroma at full resolution) or `image/png` (lossless, and far slower).
        limits: Caps on the original.
        background: Colour of the bars.

    Raises:
        ImageRejectedError: As `load_image`.
        UsageError: A size, scale, mode, focus or media type is not one of those above.
    """
    encode = encoder(media_type)
    if mode not in FIT_MODES:
        raise UsageError(f"The fit '{mode}' is not known; it is one of {', '.join(FIT_MODES)}.")
    if focus is not None and mode != "subject":
        raise UsageError(f"The fit '{mode}' takes no focus.", hint="use the fit 'subject'")
    if not (math.isfinite(scale) and scale >= 1 and min(width_px, height_px) >= 1):
        raise UsageError(f"{width_px} x {height_px} at scale {scale:g} is no size; sides and scale are at least 1.")

    opened = open_image(data, name, limits)
    full_w, full_h = opened.width_px, opened.height_px
    cropped = mode in {"cover", "subject"}
    if cropped:
        aspect = width_px / height_px
        if mode == "cover":
            crop = centre_crop(full_w, full_h, aspect)
        elif focus is not None:
            crop = crop_around(full_w, full_h, aspect, focus)
        else:
            looked_at = load_image(data, name, limits=limits, draft_px=(LOOKED_AT_PX, LOOKED_AT_PX)).pixels
            crop = subject_crop(looked_at, (full_w, full_h), aspect)
        held = min((crop[2] - crop[0]) / width_px, (crop[3] - crop[1]) / height_px)
    else:
        crop = (0, 0, full_w, full_h)
        held = max(full_w / width_px, full_h / height_px)
    factor = max(1.0, min(scale, held))
    out_w, out_h = round(width_px * factor), round(height_px * factor)
    if max(out_w, out_h) > _MAX_SIDE_PX:
        raise UsageError(f"{out_w} x {out_h} is too large; a side has at most {_MAX_SIDE_PX} pixels.")
    inner = (out_w, out_h) if cropped else inside(full_w, full_h, out_w, out_h)

    with decoding(name):
        fitted = _resample(opened, crop, inner)
    if inner != (out_w, out_h):
        canvas = _blurred(fitted, (out_w, out_h)) if mode == "blur" else Image.new("RGB", (out_w, out_h), background)
        canvas.paste(fitted, ((out_w - inner[0]) // 2, (out_h - inner[1]) // 2))
        fitted = canvas
    return ConformedImage(
        data=encode(fitted),
        media_type=media_type,
        width_px=out_w,
        height_px=out_h,
        crop_px=crop,
        upscaled=held < 1,
        notes=tuple(opened.notes),
    )


def thumbnail(data: bytes, name: str, *, max_side_px: int = 256, limits: ImageLimits = _LIMITS) -> bytes:
    """The whole picture, small, as JPEG; a picture that is smaller already keeps its size.

    Raises:
        ImageRejectedError: As `load_image`.
    """
    opened = open_image(data, name, limits)
    width, height = opened.width_px, opened.height_px
    side = min(max(width, height), max_side_px)
    with decoding(name):
        small = _resample(opened, (0, 0, width, height), inside(width, height, side, side))
    return encode_jpeg(small, quality=85)


def edit_base(
    data: bytes,
    name: str,
    *,
    max_side_px: int = 4096,
    max_pixels: int = 9_437_184,
    min_side_px: int = 64,
    limits: ImageLimits = _LIMITS,
) -> ConformedImage:
    """The whole picture as edits take it: PNG, upright, sRGB, without metadata, and scaled only where it is too large.

    PNG is lossless: a chain of edits loses nothing between them, and pixels that no edit touched stay as they were.

    Args:
        data: The bytes of the file.
        name: How to call it in errors and notes.
        max_side_px: A longer side is scaled down to this.
        max_pixels: More are scaled down to this many (9 437 184 is what Stability's image services take; Amazon
            Bedrock's user guide, checked 2026-11-20).
        min_side_px: What the shorter side must have after that; nothing is scaled up.
        limits: Caps on the original.

    Raises:
        ImageRejectedError: As `load_image`; `too_small` also for a shape so long that its shorter side gets too small.
    """
    opened = open_image(data, name, limits)
    width, height = opened.width_px, opened.height_px
    ratio = min(1.0, max_side_px / max(width, height), math.sqrt(max_pixels / (width * height)))
    size = (max(1, math.floor(width * ratio + 1e-9)), max(1, math.floor(height * ratio + 1e-9)))
    if min(size) < min_side_px:
        raise ImageRejectedError(
            f"'{shown(name)}' has {width} x {height} pixels, {size[0]} x {size[1]} for an edit;"
            f" each side needs at least {min_side_px}.",
            name=name,
            code="too_small",
            detail=f"{size[0]}x{size[1]}",
        )
    with decoding(name):
        whole = (
            _resample(opened, (0, 0, width, height), size)
            if ratio < 1
            else load_image(data, name, limits=limits).pixels
        )
    return ConformedImage(
        data=encode_png(whole),
        media_type="image/png",
        width_px=size[0],
        height_px=size[1],
        crop_px=(0, 0, width, height),
        notes=tuple(opened.notes),
    )


# -- geometry


def _stored_box(box: Box, upright_px: tuple[int, int], orientation: int) -> Box:
    """Where a box of the upright picture lies in the picture as it is stored."""
    width, height = upright_px
    left, top, right, bottom = box
    if orientation in {2, 3, 6, 7}:  # what is stored first is on the right
        left, right = width - right, width - left
    if orientation in {3, 4, 7, 8}:  # what is stored first is at the bottom
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)


def _draft(opened: OpenedImage, upright_px: tuple[int, int]) -> None:
    if opened.kind == "JPEG":
        across, down = opened.as_stored(upright_px)
        opened.reader.draft(None, (max(1, across), max(1, down)))


def _resample(opened: OpenedImage, crop: Box, size: tuple[int, int]) -> Image.Image:
    """The part `crop` of the upright picture at `size`, in sRGB. Turning and colour wait until the picture is small."""
    full = (opened.width_px, opened.height_px)
    spare = min((crop[2] - crop[0]) / size[0], (crop[3] - crop[1]) / size[1]) / _DRAFT_MARGIN
    shrink = next((by for by in (8, 4, 2) if spare >= by - 1e-3), 1)
    _draft(opened, (full[0] // shrink, full[1] // shrink))
    opened.reader.load()
    flat, _ = _flatten(opened.reader, _WHITE)
    # What it really was (only JPEG has drafts); rounded up to whole pixels, its grid is still exactly 1/2, 1/4 or 1/8.
    shrink = 1 << round(math.log2(max(opened.as_stored(full)) / max(flat.size)))
    left, top, right, bottom = _stored_box(crop, full, opened.orientation)
    box = (
        left / shrink,
        top / shrink,
        min(right / shrink, flat.width),
        min(bottom / shrink, flat.height),
    )
    small = flat.resize(opened.as_stored(size), Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    return _to_srgb(_upright(small, opened), opened)


def _blurred(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A backdrop: the picture over all of `size`, so soft that nothing of it draws the eye, and dimmed."""
    crop = centre_crop(picture.width, picture.height, size[0] / size[1])
    small = inside(*size, _BACKDROP_PX, _BACKDROP_PX)
    soft = picture.resize(small, Image.Resampling.BOX, box=crop).filter(ImageFilter.GaussianBlur(_BACKDROP_PX / 32))
    return soft.point([round(v * _BACKDROP_LIGHT) for v in range(256)] * 3).resize(size, Image.Resampling.BICUBIC)


def _upright(image: Image.Image, opened: OpenedImage) -> Image.Image:
    turn = _UPRIGHT.get(opened.orientation)
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image, background: RGB) -> tuple[Image.Image, bool]:
    """Pixels as L, RGB or CMYK of 8 bits, and whether there was transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip all above 255 to white
        grey = np.asarray(image).astype(np.uint32).clip(0, 65_535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)), False
    if _transparent(image):
        above = image.convert("RGBA")
        below = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(below, above).convert("RGB"), True
    if image.mode == "1":
        return image.convert("L"), False
    return (image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")), False


def _transparent(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info


def _to_srgb(image: Image.Image, opened: OpenedImage) -> Image.Image:
    if opened.profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(opened.profile)).profile
            if _MODES.get(getattr(source, "xcolor_space", "").strip()) == image.mode:
                converted = ImageCms.profileToProfile(
                    image,
                    ImageCms.ImageCmsProfile(source),
                    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if converted is not None:
                    return _bare(converted)
            else:
                opened.notes.append("has a colour profile for another kind of pixels, which was ignored")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            opened.notes.append("has a broken colour profile, which was ignored")
    if image.mode == "CMYK":
        opened.notes.append("is CMYK without a usable profile: its colours are approximate")
    return _bare(image)


def _bare(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """An image of its own, not the reader: without metadata and without the file behind it."""
    if image.mode != mode:
        image = image.convert(mode)
    elif isinstance(image, ImageFile.ImageFile):
        image = image.copy()
    image.info = {}
    return image
