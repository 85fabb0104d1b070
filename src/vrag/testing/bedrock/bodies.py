"""How fake models read their bodies: unknown keys, types, documented limits, pictures and blocked words."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Collection, Iterable
from typing import Any

from attrs import frozen
from PIL import Image

from vrag.generation.catalogue import Model
from vrag.testing.bedrock.wire import Refusal, refuse
from vrag.values.canonical import JSON

__all__ = ["Body", "Picture", "read_picture", "word_count"]

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@frozen(kw_only=True)
class Picture:
    """A picture of a request, decoded."""

    data: bytes
    image: Image.Image
    media_type: str
    """Of the bytes, whatever the request says."""


def read_picture(text: object, path: str) -> Picture:
    """A picture in base64.

    Raises:
        Refusal: It is not base64 or not a picture.
    """
    if not isinstance(text, str):
        raise refuse(f"Malformed input request: #/{path}: expected type: String")
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            return Picture(data=data, image=opened.copy(), media_type=_FORMATS.get(opened.format or "", "other"))
    except (binascii.Error, OSError, ValueError):
        raise refuse(f"Malformed input request: #/{path}: the image could not be read") from None


def word_count(text: str) -> int:
    """Words and signs: what a tokenizer makes of a text at the least."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@frozen(kw_only=True)
class Body:
    """One JSON object of a request to a model; every member is named that the model knows."""

    model: Model
    data: dict[str, Any]
    path: str = ""
    blocked: Collection[str] = ()
    """Words that moderation refuses."""

    def known(self, *names: str, needs: Iterable[str] = ()) -> Body:
        """Itself, if it has no other members than these and all that are needed."""
        if unknown := sorted({*self.data} - {*names, *needs}):
            raise refuse(f"Malformed input request: #{self.path}: extraneous key [{unknown[0]}] is not permitted")
        for name in needs:
            if name not in self.data:
                raise refuse(f"Malformed input request: #{self.path}: required key [{name}] not found")
        return self

    def within(self, name: str, default: JSON = None) -> Body:
        """The object below a member."""
        value = self.data.get(name, default)
        if not isinstance(value, dict):
            raise refuse(f"Malformed input request: #{self.path}/{name}: expected type: JSONObject")
        return Body(model=self.model, data=value, path=f"{self.path}/{name}", blocked=self.blocked)

    def each(self, name: str) -> list[Body]:
        """The objects in a list."""
        values = self.data.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise refuse(f"Malformed input request: #{self.path}/{name}: expected type: JSONArray of objects")
        return [
            Body(model=self.model, data=value, path=f"{self.path}/{name}/{index}", blocked=self.blocked)
            for index, value in enumerate(values)
        ]

    def limited(self, limit: str, value: str | float, name: str = "") -> None:
        """Refuse a value past a documented limit."""
        if (said := self.model.limit(limit).refusal(value)) is not None:
            raise refuse(f"Malformed input request: #{self.path}{'/' if name else ''}{name}: {said}")

    def text(self, name: str, limit: str | None = None) -> str:
        """A text, within its limit of characters and without blocked words."""
        value = self.data[name]
        if not isinstance(value, str):
            raise refuse(f"Malformed input request: #{self.path}/{name}: expected type: String")
        if limit is not None:
            self.limited(limit, len(value), name)
        if {*re.findall(r"\w+", value.lower())} & {*self.blocked}:
            raise refuse(
                "The provided text prompt has been blocked by our content filters. Please adjust your text prompt to "
                "submit a new request."
            )
        return value

    def number(self, name: str, limit: str, *, whole: bool = True) -> float:
        """A number within its limit."""
        value = self.data[name]
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise refuse(
                f"Malformed input request: #{self.path}/{name}: expected type: {'Integer' if whole else 'Number'}"
            )
        self.limited(limit, value, name)
        return float(value)

    def one_of(self, name: str, *allowed: JSON) -> Any:
        """A value that is one of these."""
        if self.data.get(name) not in allowed:
            raise refuse(f"Malformed input request: #{self.path}/{name}: not one of {', '.join(map(str, allowed))}")
        return self.data[name]

    def picture(self, name: str) -> Picture:
        """A picture in base64."""
        return read_picture(self.data[name], f"{self.path.strip('/')}/{name}".strip("/"))


def unavailable(model: Model) -> Refusal:
    """What Bedrock says of a model past its end of life."""
    return Refusal(
        "ResourceNotFoundException", f"This model version has reached the end of its life: {model.id}. Please migrate."
    )
