"""What the embedders of Bedrock share: order, odd texts, pictures that are too large, and vectors of unit length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from attrs import frozen
from typing_extensions import override

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.invoke import Invoker
from vrag.backends.aws.text import tokens_at_most
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError, UnsupportedRequestError, UsageError
from vrag.generation.catalogue import Catalogue, Model
from vrag.interfaces import Embedder, Vectors
from vrag.media.image import thumbnail
from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.canonical import JSON
from vrag.values.requests import Estimate, ModelRef
from vrag.values.vectors import EmbeddingSpace, Item, Purpose

__all__ = ["BedrockEmbedder", "Content"]

_LONGEST_CHARS: Final = 400_000
_LARGEST_BASE64: Final = 24_990_000


@frozen(kw_only=True)
class Content:
    """What is sent of an item: its text, or its picture."""

    text: str | None = None
    image: bytes | None = None
    media_type: str = "image/jpeg"


class BedrockEmbedder(Embedder):
    """An embedder by InvokeModel. Text without a letter is not sent: it has a fixed direction of its own."""

    batch = 1
    """How many texts one call takes; a picture is always alone."""
    preprocessing = ""
    """What is done to the input, and names its space."""
    max_side_px: int = 2048
    """Larger pictures are made smaller."""

    def __init__(
        self,
        client: Any,
        *,
        model_id: str,
        dimension: int,
        in_flight: int = 8,
        account: str | None = None,
        allow_retired: bool = False,
        catalogue: Catalogue | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use a ready-made client; nothing is sent.

        Args:
            client: A boto3 client of `bedrock-runtime`.
            model_id: Model id or inference profile.
            dimension: Length of the vectors.
            in_flight: How many calls of one `embed` run at once.
            account: An alias of the account, for records.
            allow_retired: This account may still call a model past its end of life.
            catalogue: Limits, prices and lifecycle; by default those of this release.
            clock: Says whether the model has been retired.

        Raises:
            UsageError: The model is not in the catalogue, or does not make vectors of this length.
        """
        self._catalogue = catalogue or Catalogue.load()
        self._known: Model = self._catalogue.model(PROVIDER, model_id)
        if (said := self._known.limit("dimension").refusal(dimension)) is not None:
            raise UsageError(said)
        self._clock = clock or SystemClock()
        self._allow_retired = allow_retired
        self._invoker = Invoker(client, model_id, in_flight=in_flight)
        self._model = ModelRef(provider=PROVIDER, id=model_id, region=client.meta.region_name, account=account)
        self._space = EmbeddingSpace(
            model=self._known.id, revision="1", dimension=dimension, preprocessing=self.preprocessing
        )

    @abstractmethod
    def encode(self, contents: Sequence[Content], purpose: Purpose) -> JSON:
        """The body for some texts (at most `batch`) or one picture."""

    @abstractmethod
    def decode(self, answer: Mapping[str, Any], count: int) -> list[list[float]]:
        """The vectors of an answer; `BackendError` where it holds an error."""

    def cut(self, text: str) -> str:
        """As much of a text as the model takes."""
        return text[:_LONGEST_CHARS]

    @property
    @override
    def model(self) -> ModelRef:
        return self._model

    @property
    @override
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    @override
    def modalities(self) -> frozenset[str]:
        return frozenset({"text", "image"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        tokens = sum(tokens_at_most(self.cut(item.text or "")) for item in items if item.kind == "text")
        images = sum(item.kind == "image" for item in items)
        amounts = {"input_token": tokens, "input_image": images}
        return self._known.estimate({unit: amount for unit, amount in amounts.items() if amount})

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> Vectors:
        for item in items:
            if item.kind not in self.modalities:
                raise UnsupportedRequestError(
                    f"{self._known.name} does not embed '{item.kind}'; it takes: {', '.join(sorted(self.modalities))}."
                )
            if item.kind == "image" and (media is None or item.media is None):
                raise UsageError("A picture to embed needs its media ref, and a function that opens it.")
        self._catalogue.check_usable(self._known, self._clock.now(), allow_retired=self._allow_retired)
        rows = np.zeros((len(items), self._space.dimension), np.float64)
        batches = self._batches(items, rows)
        bodies = [partial(self._body, [items[index] for index in batch], purpose, media) for batch in batches]
        for batch, answer in zip(batches, self._invoker.each(bodies), strict=True):
            vectors = self.decode(answer, len(batch))
            if [len(vector) for vector in vectors] != [self._space.dimension] * len(batch):
                raise self._broken(f"not {len(batch)} vectors of {self._space.dimension} numbers")
            rows[batch] = vectors
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise self._broken("a vector without a direction")
        unit: Vectors = (rows / lengths).astype(np.float32)
        return unit

    def _batches(self, items: Sequence[Item], rows: Any) -> list[list[int]]:
        """The indices of the items of each call; what has nothing to send gets its row now."""
        texts, alone = [], []
        for index, item in enumerate(items):
            if item.kind == "image":
                alone.append([index])
            elif any(character.isprintable() and not character.isspace() for character in item.text or ""):
                texts.append(index)
            else:
                rows[index, 0] = 1.0
        return [texts[first : first + self.batch] for first in range(0, len(texts), self.batch)] + alone

    def _body(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None) -> JSON:
        return self.encode([self._content(item, media) for item in items], purpose)

    def _content(self, item: Item, media: OpenMedia | None) -> Content:
        if item.kind == "text":
            return Content(text=self.cut("".join(c for c in item.text or "" if c.isprintable() or c.isspace())))
        assert media is not None  # checked for all items
        assert item.media is not None
        with media(item.media) as stream:
            data = stream.read()
        if self._fits(item.media, data):
            return Content(image=data, media_type=item.media.media_type)
        smaller = thumbnail(data, "picture", max_side_px=self.max_side_px)
        return Content(image=smaller)

    def _fits(self, ref: MediaRef, data: bytes) -> bool:
        """Whether a picture can be sent as it is."""
        known = self._known.limits
        values: dict[str, tuple[Any, ...]] = {
            "image_media_type": (ref.media_type,),
            "image_bytes": (len(data),),
            "image_base64_bytes": (4 * -(-len(data) // 3),),
            "image_side_px": (ref.width_px or 0, ref.height_px or 0),
        }
        # The body of a call has a limit too, and base64 is longer than the picture.
        if values["image_base64_bytes"][0] > _LARGEST_BASE64:
            return False
        plain = ref.media_type in {"image/png", "image/jpeg"} or "image_media_type" in known
        return plain and all(known[name].takes(one) for name, given in values.items() if name in known for one in given)

    def _broken(self, what: str) -> BackendError:
        return BackendError(
            f"{self._invoker.backend} answered with {what}.", backend=self._invoker.backend, operation="InvokeModel"
        )
