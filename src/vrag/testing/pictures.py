"""An inpainter that changes exactly what is white, and a captioner that names colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from threading import Lock
from typing import Final

import numpy as np
from PIL import Image
from typing_extensions import override

from vrag.errors import ContentRejectedError, UnsupportedRequestError, UsageError
from vrag.interfaces import Captioner, Inpainter
from vrag.media.ref import MediaRef, OpenMedia
from vrag.testing.faults import Call, Faults
from vrag.testing.media import describe
from vrag.values.requests import (
    CaptionResult,
    EditCapabilities,
    EditRequest,
    EditResult,
    Estimate,
    ImageRule,
    ModelRef,
    Problem,
)

__all__ = ["FakeCaptioner", "FakeInpainter"]

_EDITS: Final = EditCapabilities(
    operations=frozenset({"erase", "replace", "outpaint"}), image=ImageRule(max_side_px=4096), max_images=4
)


class FakeInpainter(Inpainter):
    """Turns every white-masked pixel into one half a brightness range away, and leaves the others as they are."""

    def __init__(self, *, capabilities: EditCapabilities = _EDITS, usd_micros: int | None = 0) -> None:
        self.faults = Faults("edit")
        self._capabilities = capabilities
        self._usd_micros = usd_micros
        self._rejections: list[str] = []
        self._lock = Lock()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every `edit` that was sent, in order."""
        return self.faults.calls

    def reject_next(self, *reasons: str) -> None:
        """Let moderation keep back one picture of the next edit for each reason."""
        with self._lock:
            self._rejections.extend(reasons)

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="fake", id="fake-inpainter@1")

    @property
    @override
    def capabilities(self) -> EditCapabilities:
        return self._capabilities

    @override
    def validate(self, request: EditRequest) -> tuple[Problem, ...]:
        can = self._capabilities
        found: list[tuple[str, str]] = []
        if request.operation not in can.operations:
            found.append(("operation", f"'{request.operation}' is not one of {', '.join(sorted(can.operations))}."))
        if request.count > can.max_images:
            found.append(("count", f"{request.count} pictures are more than {can.max_images}."))
        if request.operation in {"erase", "replace"} and request.mask is None:
            found.append(("mask", "A mask is needed; white is repainted."))
        if request.operation == "outpaint" and request.extend_px is None:
            found.append(("extend_px", "Say how far to grow on the left, top, right and bottom."))
        if max(request.image.width_px or 1, request.image.height_px or 1) > can.image.max_side_px:
            found.append(("image", f"A side is longer than {can.image.max_side_px} px."))
        return tuple(Problem(kind="refused", field=field, message=message) for field, message in found)

    @override
    def estimate(self, request: EditRequest) -> Estimate:
        price = None if self._usd_micros is None else self._usd_micros * request.count
        return Estimate(usd_micros=price, basis="a made-up price a picture")

    @override
    def edit(self, request: EditRequest, media: OpenMedia) -> EditResult:
        if problems := self.validate(request):
            raise UnsupportedRequestError(problems[0].message, problems=problems)
        with media(request.image) as stream, Image.open(stream) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        if request.mask is not None:
            with media(request.mask) as stream, Image.open(stream) as opened:
                mask = np.asarray(opened.convert("L"))
            if mask.shape != pixels.shape[:2]:
                raise UsageError(
                    f"The mask has {mask.shape[1]} x {mask.shape[0]} px, the picture "
                    f"{pixels.shape[1]} x {pixels.shape[0]} px; they must be equal."
                )
            pixels = np.where(mask[..., None] == 255, pixels ^ 128, pixels)
        elif request.extend_px is not None:
            left, top, right, bottom = request.extend_px
            pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
        with self.faults.at("edit", request=request):
            with self._lock:
                rejected = tuple(self._rejections[: request.count])
                del self._rejections[: request.count]
            if len(rejected) == request.count:
                raise ContentRejectedError(
                    f"Moderation kept all pictures back: {'; '.join(rejected)}.", backend="fake", operation="edit"
                )
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG")
            return EditResult(
                images=(out.getvalue(),) * (request.count - len(rejected)),
                rejected=rejected,
                billed=self._usd_micros != 0,
                report={"seed": request.seed} if request.seed is not None else {},
            )


class FakeCaptioner(Captioner):
    """Says colour and orientation; `max_chars` cuts the sentence off, and `refuse` names digests it will not describe."""

    def __init__(self, *, usd_micros: int | None = 0, max_chars: int = 200, refuse: Sequence[str] = ()) -> None:
        self.faults = Faults("caption")
        self._usd_micros = usd_micros
        self._max_chars = max_chars
        self._refuse = frozenset(refuse)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every `caption` that was sent, in order."""
        return self.faults.calls

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="fake", id="fake-captioner@1")

    @override
    def estimate(self, images: Sequence[MediaRef]) -> Estimate:
        price = None if self._usd_micros is None else self._usd_micros * len(images)
        return Estimate(usd_micros=price, basis="a made-up price a picture")

    @override
    def caption(self, image: MediaRef, media: OpenMedia) -> CaptionResult:
        with media(image) as stream:
            data = stream.read()
        with self.faults.at("caption", image=image):
            if image.sha256 in self._refuse:
                raise ContentRejectedError("The model will not describe this picture.", backend="fake")
            colour, orientation = describe(data)
            text = f"A {orientation} picture that is mostly {colour}."
            return CaptionResult(
                text=text[: self._max_chars], tags=(colour, orientation), truncated=len(text) > self._max_chars
            )
