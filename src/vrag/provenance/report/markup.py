"""HTML in which everything is escaped by one function, because only `element` makes markup."""

from __future__ import annotations

import base64
import html
import re
from urllib.parse import quote

from vrag.errors import UsageError
from vrag.media.header import ImageLimits, open_image
from vrag.media.image import thumbnail
from vrag.provenance.report.text import visible

__all__ = ["Markup", "data_url", "element", "join", "link_target", "relative_url", "still", "text"]

_VOID = frozenset({"meta", "img", "source", "br", "link", "col"})
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_IMAGE_TYPES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


class Markup(str):
    """Text that is HTML already. `element` and `join` are its only makers; everything else gets escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """The one escaping function: for content and for quoted attributes alike."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(value, keep="\n\t"), quote=True))


def join(*parts: object) -> Markup:
    """Pieces one after the other; what is not markup is escaped, None is left out."""
    return Markup("".join(text(part) for part in parts if part is not None))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name …>children</name>`; children that are not markup are escaped, attributes always.

    `class_` is `class`, `aria_label` is `aria-label`; True is a bare attribute, None and False are left out.
    """
    given = []
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(attribute) or attribute.startswith("on") or attribute == "style":
            raise UsageError(f"The attribute '{attribute}' is not allowed in a page.")
        if value is True:
            given.append(f" {attribute}")
        elif value is not None and value is not False:
            given.append(f' {attribute}="{text(str(value))}"')
    opened = f"<{name}{''.join(given)}>"
    return Markup(opened) if name in _VOID else Markup(f"{opened}{join(*children)}</{name}>")


def data_url(data: bytes, media_type: str | None = None) -> str:
    """`data` inside the page itself; pictures are recognised by their first bytes.

    Raises:
        UsageError: It is no JPEG or PNG, and no type was given.
    """
    found = media_type or next((kind for magic, kind in _IMAGE_TYPES if data.startswith(magic)), None)
    if found is None:
        raise UsageError("A page shows JPEG and PNG pictures.")
    return f"data:{found};base64,{base64.b64encode(data).decode('ascii')}"


def still(data: bytes, alt: str, *, height_px: int) -> Markup:
    """A small picture for a notebook, no higher than this; notebooks overrule a height, so its width says it.

    Raises:
        ImageRejectedError: It cannot be read.
    """
    small = thumbnail(data, "picture", max_side_px=2 * height_px, limits=ImageLimits(min_side_px=1))
    header = open_image(small, "picture", ImageLimits(min_side_px=1))
    width_px = round(min(1.0, height_px / header.height_px) * header.width_px)
    return element("img", src=data_url(small), alt=alt, title=alt, width=max(1, width_px))


def relative_url(path: str) -> str:
    """A path beside the page as a URL that no name can turn into another scheme or host."""
    return "./" + quote(path.lstrip("/"), safe="/")


def link_target(url: str | None) -> str | None:
    """`url` if it is an `https:` address, else None: nothing else is ever a link."""
    return url if url is not None and re.match(r"https://[A-Za-z0-9.-]+(?:[/?#]|$)", url) else None
