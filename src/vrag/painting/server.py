"""The page on which a person paints the mask of one picture; it ends with what was painted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Final

from attrs import frozen
from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.errors import UsageError
from vrag.loopback import LoopbackPage, RefusedError, Reply, json_reply
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import thumbnail
from vrag.media.mask_draw import DrawnMask, draw_mask
from vrag.media.mask_spec import MaskSpec
from vrag.provenance.report.text import visible
from vrag.values.canonical import JSON, from_json, to_json

__all__ = ["MaskPage", "PaintedMask", "check_paintable", "paint_mask"]

_KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = ("page.html", "page.css", "page.js", "painter.css", "painter.js", "mask.js", "icon.svg")
_SHOWN_PX: Final = 4096
"""A larger picture is shown at this size; the mask is a value, so it loses nothing by that."""
_PAINTABLE: Final = frozenset({"rectangle", "ellipse", "polygon", "brush", "union", "subtract", "intersect", "invert"})
LIMITS: Final = ImageLimits(min_side_px=1)


@frozen(kw_only=True)
class PaintedMask:
    """What a person painted."""

    spec: MaskSpec
    """In fractions of the picture."""
    drawn: DrawnMask
    """At the full size of the upright picture."""


Keep = Callable[[PaintedMask], object]
"""Takes what was painted before the page says that it is saved; what it raises is shown there, and painting goes on."""


def paint_mask(
    picture: bytes,
    *,
    name: str,
    start: MaskSpec | None = None,
    keep: Keep | None = None,
    port: int = 0,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> PaintedMask | None:
    """Serve the painter on 127.0.0.1 until a mask is saved; None where Ctrl-C ended it.

    Args:
        picture: The encoded picture.
        name: How to call it, on the page and in errors.
        start: A mask to go on with.
        keep: Called with the mask once, before the page says that it is saved.
        port: Of 127.0.0.1; 0 is any free one.
        open_browser: Open the link in the browser of this machine as well.
        say: Takes the lines for the person, the link among them.
        clock: Makes the token of the link.

    Raises:
        UsageError: The port is taken, or `start` has parts that cannot be painted or leaves the picture.
        ImageRejectedError: The picture cannot be read.
    """
    with MaskPage(picture, name=name, start=start, keep=keep, port=port, clock=clock) as page:
        intro = f"Paint the mask of {visible(name)}. Open this link (it works once, and on this machine only):"
        page.run((intro, page.url), say=say, open_browser=open_browser)
        return page.painted


def check_paintable(spec: MaskSpec) -> None:
    """Refuse a mask that the painter cannot show: one with parts read from pixels, grown or feathered.

    Raises:
        UsageError: It is one.
    """
    if spec.shape not in _PAINTABLE:
        raise UsageError(
            f"A mask of shape '{spec.shape}' cannot be painted on; there are: {', '.join(sorted(_PAINTABLE))}.",
            hint="join it afterwards: MaskSpec.union(painted, other)",
        )
    for part in spec.parts:
        check_paintable(part)


class MaskPage(LoopbackPage):
    """The server behind the page."""

    title = "Paint a mask"
    again = "run vrag mask again"

    def __init__(
        self,
        picture: bytes,
        *,
        name: str,
        start: MaskSpec | None = None,
        keep: Keep | None = None,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Decode the picture, and listen.

        Raises:
            UsageError: As for `paint_mask`.
            ImageRejectedError: The picture cannot be read.
        """
        opened = open_image(picture, name, LIMITS)
        self.size_px = (opened.width_px, opened.height_px)
        if start is not None:
            check_paintable(start)
            draw_mask(start, self.size_px, name=name)
        self.painted: PaintedMask | None = None
        self._name, self._start, self._keep = name, start, keep
        self._writing = threading.Lock()
        folder = files("vrag.painting")
        served: dict[str, tuple[bytes, str]] = {
            f"/{file}": (folder.joinpath(file).read_bytes(), _KINDS[file.rpartition(".")[2]]) for file in _FILES
        }
        served["/"] = served.pop("/page.html")
        served["/picture.jpg"] = (thumbnail(picture, name, max_side_px=_SHOWN_PX, limits=LIMITS), "image/jpeg")
        super().__init__(clock=clock or SystemClock(), port=port, files=served)

    @override
    def get(self, path: str, query: Mapping[str, str]) -> Reply | None:
        if path != "/api/session":
            return None
        width_px, height_px = self.size_px
        return json_reply(
            {
                "name": visible(self._name),
                "width_px": width_px,
                "height_px": height_px,
                "mask": None if self._start is None else to_json(self._start),
                "secret": self.secret,
            }
        )

    @override
    def post(self, path: str, data: JSON) -> Reply | None:
        if path != "/api/mask":
            return None
        match data:
            case {"mask": dict(given), **rest} if not rest:
                spec = from_json(MaskSpec, given)
            case _:
                raise RefusedError('A mask is sent as {"mask": {…}}, and nothing else.')
        with self._writing:  # one at a time
            if self.stopped:
                raise self.ended()
            # By size alone: a part that reads the picture, or a file, is refused here.
            drawn = draw_mask(spec, self.size_px, name=self._name)
            painted = PaintedMask(spec=spec, drawn=drawn)
            if self.painted is not None:  # a second tab, before the server stops
                raise RefusedError("A mask was saved already.", status=409, code="already_saved")
            if self._keep is not None:
                self._keep(painted)
            self.painted = painted
        return json_reply({"share": drawn.share, "box_px": list(drawn.box_px)}, last=True)

    @override
    def stop(self) -> None:
        with self._writing:  # what is being kept is kept whole
            super().stop()
