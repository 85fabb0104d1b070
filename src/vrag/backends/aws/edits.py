"""What both families of picture editors share: reading picture and mask, limits, and putting back what was to be kept."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import field, frozen
from PIL import Image, ImageFilter

from vrag.errors import ContentRejectedError, UnsupportedRequestError
from vrag.generation.catalogue import Model
from vrag.media.image import encode_png, load_image
from vrag.media.mask import check_mask
from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.requests import EditRequest, EditResult, Problem

__all__ = ["EditInputs", "check", "limit_problems", "read_inputs", "refused", "result_of", "seam_px"]

_SEAM_PX: Final = 8


@frozen(kw_only=True)
class EditInputs:
    """Picture and mask of a request, decoded; white in the mask is repainted."""

    picture: Image.Image = field(eq=False, repr=False)
    mask: Image.Image | None = field(default=None, eq=False, repr=False)
    """Mode L, each pixel 0 or 255, the picture's size."""

    @property
    def png(self) -> bytes:
        """The picture as it is sent."""
        return encode_png(self.picture)


def read_inputs(request: EditRequest, media: OpenMedia) -> EditInputs:
    """Decode picture and mask.

    Raises:
        UsageError: The mask has not the picture's size.
        ImageRejectedError: One of them is no picture.
    """
    loaded = load_image(_read(media, request.image), "picture")
    mask = None
    if request.mask is not None:
        mask = check_mask(_read(media, request.mask), loaded.width_px, loaded.height_px)
    return EditInputs(picture=loaded.pixels, mask=mask)


def refused(field: str, message: str) -> Problem:
    """A problem for which the request is not sent."""
    return Problem(kind="refused", field=field, message=message)


def limit_problems(model: Model, request: EditRequest) -> Iterator[Problem]:
    """What is past a limit of the model. The format of the picture is none: it is sent as PNG."""
    width_px, height_px = request.image.width_px or 0, request.image.height_px or 0
    values: list[tuple[str, str, float]] = [("count", "images", request.count)]
    if width_px and height_px:
        values += [
            ("image", "image_side_px", width_px),
            ("image", "image_side_px", height_px),
            ("image", "image_pixels", width_px * height_px),
            ("image", "image_aspect", width_px / height_px),
        ]
    if request.prompt is not None:
        values.append(("prompt", "prompt_chars", len(request.prompt)))
    if request.negative_prompt is not None:
        values.append(("negative_prompt", "negative_prompt_chars", len(request.negative_prompt)))
    if request.seed is not None:
        values.append(("seed", "seed", request.seed))
    values += [("extend_px", "extend_px", side) for side in request.extend_px or ()]
    for name, limit, value in values:
        known: Mapping[str, object] = model.limits
        if limit in known and (said := model.limit(limit).refusal(value)) is not None:
            yield refused(name, said)


def seam_px(grow_px: int = 0) -> int:
    """How far around the white of a mask an edit may reach."""
    return grow_px + _SEAM_PX


def result_of(
    answered: list[bytes],
    reasons: list[str],
    inputs: EditInputs,
    *,
    backend: str,
    size_px: tuple[int, int] | None = None,
    reach_px: int | None = None,
    report: Mapping[str, object] | None = None,
) -> EditResult:
    """The result of one call: pictures of the right size, with the pixels far from the mask as they were.

    Args:
        answered: The encoded pictures that came back.
        reasons: One for each picture that moderation kept back.
        inputs: What was sent.
        backend: For errors.
        size_px: The size that they must have; by default that of the picture.
        reach_px: How far around the white of the mask pixels are taken from the model; None takes all.
        report: What the model says that it did.

    Raises:
        ContentRejectedError: Moderation kept all of them back.
    """
    if not answered:
        said = "; ".join(reasons) or "no reason is given"
        raise ContentRejectedError(
            f"{backend} kept all pictures back: {said}.", backend=backend, operation="InvokeModel"
        )
    keep = None
    if reach_px is not None and inputs.mask is not None:
        keep = inputs.mask.filter(ImageFilter.MaxFilter(2 * reach_px + 1))
    images = []
    for data in answered:
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
        wanted = size_px or inputs.picture.size
        if picture.size != wanted:
            picture = picture.resize(wanted, Image.Resampling.LANCZOS)
        if keep is not None:
            picture = Image.composite(picture.convert("RGB"), inputs.picture, keep)
        images.append(encode_png(picture))
    return EditResult(images=tuple(images), rejected=tuple(reasons), billed=True, report=dict(report or {}))


def check(problems: tuple[Problem, ...]) -> None:
    """Raise what is refused.

    Raises:
        UnsupportedRequestError: With every refused problem.
    """
    stopping = [problem for problem in problems if problem.kind == "refused"]
    if stopping:
        raise UnsupportedRequestError(" ".join(problem.message for problem in stopping), problems=stopping)


def _read(media: OpenMedia, ref: MediaRef) -> bytes:
    with media(ref) as stream:
        return stream.read()
