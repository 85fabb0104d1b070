"""What a person should look at in a knowledge base: pictures that will disappoint, and rights that run out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
from attrs import frozen
from PIL import Image
from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.errors import ImageRejectedError, NotFoundError, ProvenanceError, UsageError
from vrag.knowledge.duplicates import Looks
from vrag.knowledge.rights import rights_end
from vrag.media.fingerprint import fingerprint
from vrag.media.image import load_image
from vrag.values.assets import Asset
from vrag.values.canonical import JSON
from vrag.values.requests import VideoCapabilities

if TYPE_CHECKING:
    from vrag.knowledge.knowledge_base import KnowledgeBase

__all__ = ["BLURRED_BELOW", "CheckReport", "Finding", "check", "sharpness"]

BLURRED_BELOW: Final = 24.0
"""Of `sharpness`. The 15 demonstration photographs have 30 to 487, soft ones and shallow focus included; blurred by 0.2 % of
their longer side (3 px of 1600) they have 6 to 19."""
_SIDE_PX: Final = 1024
_GRID: Final = 16
_MIN_KEPT: Final = 0.5
_ORDER: Final = ("unusable", "blurred", "too_small", "wrong_shape", "uncaptioned", "near_duplicate", "rights_ending")


@frozen(kw_only=True)
class Finding:
    """One thing about one picture."""

    asset_id: str
    name: str
    code: str
    """`blurred`, `too_small`, `wrong_shape`, `uncaptioned`, `near_duplicate`, `rights_ending` or `unusable`."""
    reason: str


@frozen(kw_only=True)
class CheckReport:
    """What was found, the gravest first; it changes nothing."""

    knowledge_base: str
    checked: int
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, JSON]:
        """All of it as JSON."""
        return {
            "knowledge_base": self.knowledge_base,
            "checked": self.checked,
            "ok": self.ok,
            "findings": [
                {"asset_id": one.asset_id, "name": one.name, "code": one.code, "reason": one.reason}
                for one in self.findings
            ],
        }

    @override
    def __str__(self) -> str:
        counts = Counter(one.code for one in self.findings)
        lines = [f"Knowledge base '{self.knowledge_base}': {self.checked} pictures, {len(self.findings)} findings."]
        lines += [f"  {code:<15} {counts[code]:>7}" for code in _ORDER if counts[code]]
        lines += [f"  {one.code:<15} {one.name} ({one.asset_id}): {one.reason}" for one in self.findings]
        return "\n".join(lines)


def check(
    knowledge_base: KnowledgeBase,
    *,
    capabilities: VideoCapabilities | None = None,
    size_px: tuple[int, int] = (1280, 720),
    expires_within_days: int = 30,
    clock: Clock | None = None,
) -> CheckReport:
    """Look at every picture of a knowledge base; nothing is changed and nothing is sent.

    Args:
        knowledge_base: Whose pictures.
        capabilities: Of the video model that they are for; a picture is judged by the size of it that suits it best.
        size_px: Of the videos, where the model makes any size.
        expires_within_days: Rights that end so soon, or have ended, are reported; a day ends in the time zone of the
            knowledge base.
        clock: The time of now.
    """
    if expires_within_days < 0:
        raise UsageError(f"Rights are looked at 0 or more days ahead, not {expires_within_days}.")
    sizes = (capabilities.sizes_px if capabilities else None) or (size_px,)
    scale = capabilities.image.scale if capabilities and not capabilities.image.exact_size else 1.0
    soon = (clock or SystemClock()).now() + timedelta(days=expires_within_days)
    looks, names = Looks(), dict[str, str]()
    findings: list[Finding] = []
    checked = 0
    for asset in knowledge_base.assets():
        checked += 1
        found = [*_of_record(asset), *_of_shape(asset, sizes, scale)]
        if (
            asset.rights.expires_on is not None
            and (end := rights_end(asset.rights.expires_on, knowledge_base.zone)) <= soon
        ):
            gone = end <= soon - timedelta(days=expires_within_days)
            found.append(("rights_ending", f"Its rights {'ended' if gone else 'end'} with {asset.rights.expires_on}."))
        try:
            with knowledge_base.open(asset.original) as stream:
                data = stream.read()
            pixels = load_image(data, asset.file_name, draft_px=(_SIDE_PX, _SIDE_PX)).pixels
        except (ImageRejectedError, NotFoundError, ProvenanceError) as error:
            found.append(("unusable", error.message))
        else:
            if (sharp := sharpness(pixels)) < BLURRED_BELOW:
                found.append(("blurred", f"Nothing in it is sharp ({sharp:.0f}; {BLURRED_BELOW:g} is the least)."))
            if (look := fingerprint(pixels)) is not None:
                sha256 = asset.original.sha256
                if (near := looks.nearest(look, sha256)) is not None:
                    found.append(("near_duplicate", f"It looks like {names[near[0]]} ({near[1]} of 64 bits differ)."))
                looks.add(look, sha256)
                names[sha256] = asset.file_name
        findings += [Finding(asset_id=asset.id, name=asset.file_name, code=code, reason=why) for code, why in found]
    looks.close()
    findings.sort(key=lambda one: (_ORDER.index(one.code), one.asset_id))
    return CheckReport(knowledge_base=knowledge_base.name, checked=checked, findings=tuple(findings))


def sharpness(image: Image.Image) -> float:
    """How sharp the sharpest tenth of a picture is: 0 for a flat one, above 24 for one with something in focus.

    At 1024 px on its longer side it is cut into 16 x 16 tiles; of the largest Laplacian in each, the 90th percentile. So a
    shallow depth of field, a sky or a wall is no blur.
    """
    grey = image.convert("L")
    grey.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    level = np.asarray(grey, dtype=np.float32)
    middle = 4 * level[1:-1, 1:-1]
    edges = np.abs(middle - level[:-2, 1:-1] - level[2:, 1:-1] - level[1:-1, :-2] - level[1:-1, 2:])
    height, width = edges.shape[0] // _GRID, edges.shape[1] // _GRID
    if not height or not width:
        return 0.0
    tiles = edges[: height * _GRID, : width * _GRID].reshape(_GRID, height, _GRID, width).max(axis=(1, 3))
    return float(np.quantile(tiles, 0.9))


def _of_record(asset: Asset) -> Iterator[tuple[str, str]]:
    if asset.caption is None:
        yield "uncaptioned", "No words find it: give it a caption in a sidecar or manifest, and ingest again."


def _of_shape(asset: Asset, sizes: tuple[tuple[int, int], ...], scale: float) -> Iterator[tuple[str, str]]:
    width, height = asset.original.width_px or 0, asset.original.height_px or 0
    if not width or not height:
        return
    shape = width / height
    kept, best = max((min(shape / (w / h), (w / h) / shape), (w, h)) for w, h in sizes)
    if kept < _MIN_KEPT:
        yield "wrong_shape", f"Of its {width} x {height} px only {kept:.0%} are left at {best[0]} x {best[1]}."
    # Of the size that suits its shape best, how much of it the picture can fill without being enlarged.
    filled = min(width / best[0], height / best[1])
    if filled < scale:
        need = f"{round(best[0] * scale)} x {round(best[1] * scale)}"
        yield "too_small", f"It has {width} x {height} px; a video of {best[0]} x {best[1]} wants {need}."
