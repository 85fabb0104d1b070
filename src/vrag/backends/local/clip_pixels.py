"""What a picture model is shown: a picture from a stranger as the numbers that its preprocessor file asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vrag.backends.local.model_folder import ModelFolder
from vrag.media.image import ImageLimits, load_image

__all__ = ["Pixels"]

_FILE: Final = "preprocessor_config.json"
_PROCESSORS: Final = (
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "SiglipImageProcessor",
    "SiglipImageProcessorFast",
)
_FILTERS: Final = {"2": Image.Resampling.BILINEAR, "3": Image.Resampling.BICUBIC}
"""By the numbers of Pillow, which the file uses."""
_MAX_SIDE_PX: Final = 1024
_DRAFT: Final = 2
"""A JPEG may be decoded smaller, but not below twice the size that is wanted."""


@frozen(kw_only=True)
class Pixels:
    """How pictures are resized, cropped and scaled: the file `preprocessor_config.json` of transformers."""

    width_px: int
    """Of what the model sees."""
    height_px: int
    """Of what the model sees."""
    shortest_edge_px: int | None
    """The shorter side is brought to this and the centre is taken; None squashes the whole picture into the size."""
    resample: str
    """`2` is bilinear, `3` bicubic."""
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: ModelFolder) -> Pixels:
        """What the folder says.

        Raises:
            UsageError: The file is missing, or asks for something that is not done here.
        """
        folder.needed(_FILE, hint="save the image processor beside the model")
        told = folder.json(_FILE)
        kind = folder.one_of(
            told.get("image_processor_type", told.get("feature_extractor_type")), _PROCESSORS, f"{_FILE}: its type"
        )
        for key in ("do_resize", "do_rescale"):
            if told.get(key, True) is not True:
                raise folder.refused(f"{_FILE}: {key} is off", "take another model")
        size = told.get("size", {})
        shortest = size if isinstance(size, int) else _inside(size, "shortest_edge")
        crops = told.get("do_center_crop", kind.startswith("CLIP")) is True
        if crops != (shortest is not None):
            raise folder.refused(
                f"{_FILE} asks for a size of {'two sides and' if crops else 'the shortest edge without'} a crop",
                "take another model",
            )
        sides = told.get("crop_size", {}) if crops else size

        def pixels(given: object, key: str) -> int:
            return folder.size(given, 224, f"{_FILE}: {key}", at_most=_MAX_SIDE_PX)

        width, height = (
            pixels(sides if isinstance(sides, int) else _inside(sides, key), key) for key in ("width", "height")
        )
        edge = pixels(shortest, "shortest_edge") if crops else None
        if edge is not None and edge < max(width, height):
            raise folder.refused(
                f"{_FILE} crops {width} x {height} pixels out of a shortest edge of {edge}", "see its files"
            )
        normal = told.get("do_normalize", True) is True
        resample = folder.one_of(str(told.get("resample", 3)), _FILTERS, f"{_FILE}: resample")
        return cls(
            width_px=width,
            height_px=height,
            shortest_edge_px=edge,
            resample=resample,
            scale=_numbers(folder, [told.get("rescale_factor", 1 / 255)], "rescale_factor", 1, above=0)[0],
            mean=_numbers(folder, told.get("image_mean"), "image_mean", 3) if normal else (0.0, 0.0, 0.0),
            std=_numbers(folder, told.get("image_std"), "image_std", 3, above=0) if normal else (1.0, 1.0, 1.0),
        )

    def of(self, data: bytes, limits: ImageLimits) -> NDArray[np.float32]:
        """The picture as float32 of shape (1, 3, height, width): red, green, blue.

        Raises:
            ImageRejectedError: As `vrag.media.image.load_image`.
        """
        least = _DRAFT * (self.shortest_edge_px or max(self.width_px, self.height_px))
        picture = load_image(data, "picture", limits=limits, draft_px=(least, least)).pixels
        seen = picture.resize((self.width_px, self.height_px), _FILTERS[self.resample], box=self._box(*picture.size))
        values = np.asarray(seen, np.float64) * self.scale
        made: NDArray[np.float32] = ((values - self.mean) / self.std).transpose(2, 0, 1)[None].astype(np.float32)
        return made

    def _box(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """What is kept, in pixels of the picture: as if it were resized first, without making that large a picture."""
        if self.shortest_edge_px is None:
            return 0, 0, width_px, height_px
        shorter = min(width_px, height_px)
        wide, high = (self.shortest_edge_px * side // shorter for side in (width_px, height_px))
        left, top = (wide - self.width_px) // 2, (high - self.height_px) // 2
        across, down = width_px / wide, height_px / high
        return (
            left * across,
            top * down,
            min((left + self.width_px) * across, width_px),
            min((top + self.height_px) * down, height_px),
        )

    @override
    def __str__(self) -> str:
        """One line that differs for whatever is done differently."""
        shape = f"{self.width_px} x {self.height_px}"
        if self.shortest_edge_px is not None:
            shape = f"centre {shape} of shortest edge {self.shortest_edge_px}"
        values = " ".join(f"{value:.6g}" for value in (self.scale, *self.mean, *self.std))
        return f"pictures {shape}, filter {self.resample}, scale mean std {values}"


def _inside(size: object, key: str) -> object:
    return size.get(key) if isinstance(size, Mapping) else None


def _numbers(folder: ModelFolder, found: Any, key: str, count: int, *, above: float = -math.inf) -> tuple[float, ...]:
    numbers = found if isinstance(found, list) else []
    fits = [isinstance(one, int | float) and math.isfinite(one) and above < one < 1e6 for one in numbers]
    if len(fits) != count or not all(fits):
        raise folder.refused(f"{_FILE}: {key} is not {count} usable numbers", "copy the model again")
    return tuple(float(one) for one in numbers)
