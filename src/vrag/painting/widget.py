"""The painter as a notebook widget: JupyterLab, Notebook 7, VS Code, Colab and marimo, through anywidget.

anywidget carries one ES module and one style sheet to the front end and keeps traits the same on both sides
(https://anywidget.dev, release 0.11.0, MIT, checked 2026-11-20).
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrag.errors import MissingExtraError, UsageError
from vrag.media.header import open_image
from vrag.media.image import thumbnail
from vrag.media.mask import overlay_mask
from vrag.media.mask_draw import draw_mask
from vrag.media.mask_spec import MaskSpec
from vrag.painting.server import LIMITS, check_paintable
from vrag.provenance.report.text import visible
from vrag.values.canonical import from_json, to_json

try:
    import traitlets
    from anywidget import AnyWidget
    from IPython.display import Image
except ImportError:
    raise MissingExtraError(
        "Painting in a notebook needs the extra 'notebook'.", hint="pip install 'vrag[notebook]'"
    ) from None

if TYPE_CHECKING:
    from vrag.knowledge.knowledge_base import KnowledgeBase

__all__ = ["MaskPainter"]

_SHOWN_PX = 2048  # it travels over the connection of the notebook


def _module() -> str:
    """Both modules as one, because a widget has one: the painter behind what it imports."""
    folder = files("vrag.painting")
    mask, painter = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("mask.js", "painter.js"))
    return mask + "".join(line for line in painter.splitlines(keepends=True) if not line.startswith("import "))


class MaskPainter(AnyWidget):
    """A picture to paint on, in a notebook; `mask` is what was painted so far.

    ```python
    painter = MaskPainter("9f86d081", knowledge_base=brand)
    painter                       # shows itself; paint
    Edit(operation="erase", mask=painter.mask)
    ```

    `observe(seen, "painted")` calls `seen` with each change; `painted` is the mask as JSON.
    """

    _esm = _module()
    _css = files("vrag.painting").joinpath("painter.css").read_text(encoding="utf-8")
    _picture = traitlets.Bytes().tag(sync=True)
    _about = traitlets.Dict().tag(sync=True)
    painted = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        picture: bytes | str | os.PathLike[str],
        *,
        knowledge_base: KnowledgeBase | None = None,
        mask: MaskSpec | None = None,
        name: str | None = None,
        **widget: Any,
    ) -> None:
        """Decode the picture.

        Args:
            picture: Encoded bytes; or the path of a file; or, with a knowledge base, the id of an asset.
            knowledge_base: Whose asset it is.
            mask: To go on with.
            name: How to call the picture, on screen and in errors.
            widget: Further traits of the widget, such as `layout`.

        Raises:
            UsageError: `mask` has parts that cannot be painted, or leaves the picture.
            NotFoundError: There is no such asset.
            ImageRejectedError: The picture cannot be read.
        """
        if isinstance(picture, bytes):
            self._data, known = picture, "picture"
        elif knowledge_base is not None:
            asset = knowledge_base.asset(os.fspath(picture))
            with knowledge_base.open(asset.original) as stream:
                self._data, known = stream.read(), asset.caption or asset.file_name
        else:
            with Path(picture).open("rb") as stream:
                self._data, known = stream.read(LIMITS.max_bytes + 1), Path(picture).name
        self._name = name or known
        opened = open_image(self._data, self._name, LIMITS)
        self._size_px = (opened.width_px, opened.height_px)
        super().__init__(
            _picture=thumbnail(self._data, self._name, max_side_px=_SHOWN_PX, limits=LIMITS),
            _about={"name": visible(self._name), "width_px": opened.width_px, "height_px": opened.height_px},
            painted=self._checked(mask),
            **widget,
        )

    @property
    def mask(self) -> MaskSpec | None:
        """What is painted, in fractions of the picture; None where nothing is. Give another one to replace it.

        Raises:
            UsageError: The front end sent what is no mask, or, on setting, as for the constructor.
        """
        return None if self.painted is None else from_json(MaskSpec, self.painted)

    @mask.setter
    def mask(self, mask: MaskSpec | None) -> None:
        """Replace what is painted."""
        self.painted = self._checked(mask)  # type: ignore[assignment]  # None is allowed

    def preview(self, *, max_side_px: int = 1280) -> Image:
        """The picture with what will be repainted tinted, as an edit would see it; `.data` is a JPEG.

        Raises:
            UsageError: Nothing is painted.
        """
        mask = self.mask
        if mask is None:
            raise UsageError("Nothing is painted yet.")
        drawn = draw_mask(mask, self._size_px, name=self._name)
        seen = overlay_mask(self._data, drawn.data, name=self._name, max_side_px=max_side_px)
        return Image(data=seen, format="jpeg")  # type: ignore[no-untyped-call]

    def _checked(self, mask: MaskSpec | None) -> dict[str, Any] | None:
        if mask is None:
            return None
        check_paintable(mask)
        draw_mask(mask, self._size_px, name=self._name)
        written: dict[str, Any] = to_json(mask)
        return written
