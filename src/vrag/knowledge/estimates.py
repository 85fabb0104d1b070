"""What an ingest would cost, by asking the backends for estimates of exactly what they would be sent."""

from __future__ import annotations

from typing import Final, Literal

from vrag.interfaces import Embedder
from vrag.knowledge.captioning import Captions
from vrag.knowledge.embeddings import Embeddings
from vrag.knowledge.report import IngestEstimate
from vrag.knowledge.travelling import Chunk
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, CaptionSource
from vrag.values.requests import Estimate
from vrag.values.vectors import Item

__all__ = ["Estimating"]

_UNWRITTEN: Final = "x" * 200
"""Stands for a caption that is not written yet."""
_PROBE: Final = MediaRef(sha256="0" * 64, media_type="image/jpeg", size_bytes=1, width_px=64, height_px=64)


class Estimating:
    """Adds up what would be asked of a captioner and an embedder."""

    def __init__(
        self,
        embedder: Embedder | None,
        embeddings: Embeddings | None,
        kind: Literal["image", "text"],
        captions: Captions | None,
    ) -> None:
        self._embedder = embedder
        self._embeddings = embeddings
        self._kind = kind
        self._captions = captions
        self.is_paid = (embeddings is not None and embeddings.is_paid) or (
            captions is not None and captions.captioner.estimate([_PROBE]).usd_micros != 0
        )
        """Something may have to be paid."""
        self._pictures = 0
        self._known = 0
        self._asked = 0
        self._embedded = 0
        self._usd_micros: int | None = 0
        self._basis: dict[str, None] = {}

    def item(self, asset: Asset) -> Item:
        """What is embedded of an asset."""
        if self._kind == "image":
            return Item(kind="image", media=asset.original)
        return Item(kind="text", text=asset.caption)

    def add(self, chunk: Chunk) -> None:
        """Count what the pictures of a chunk would need."""
        assets = {key: one for key, one in chunk.assets().items() if chunk.leads(key) and one.erased_at is None}
        self._pictures += len(assets)
        self._known += sum(key in chunk.known for key in assets)
        asked: list[MediaRef] = []
        items: list[Item] = []
        for key, asset in assets.items():
            described, said = False, None
            if self._captions is not None and asset.caption_source in {None, CaptionSource.FILE_NAME}:
                said = self._captions.known(asset.original)
                described = said is None or said.text is not None
                if said is None:
                    asked.append(asset.original)
            row = chunk.known.get(key)
            if self._embedder is None or (self._kind == "image" and row is not None and row.vector is not None):
                continue
            if self._kind == "text" and described:
                item = Item(kind="text", text=_UNWRITTEN if said is None else said.text)
            elif self._kind == "image" or (asset.caption is not None and _has_changed(chunk, asset)):
                item = self.item(asset)
            else:
                continue
            if self._embeddings is None or self._embeddings.known(asset.original.sha256, item) is None:
                items.append(item)
        self._asked += len(asked)
        self._embedded += len(items)
        if asked and self._captions is not None:
            self._price(self._captions.captioner.estimate(asked))
        if items and self._embedder is not None:
            self._price(self._embedder.estimate(items))

    def result(self) -> IngestEstimate:
        """The sum so far."""
        return IngestEstimate(
            pictures=self._pictures,
            known=self._known,
            captions=self._asked,
            embeddings=self._embedded,
            usd_micros=self._usd_micros,
            basis=tuple(self._basis),
        )

    def _price(self, estimate: Estimate) -> None:
        price = estimate.usd_micros
        self._usd_micros = None if self._usd_micros is None or price is None else self._usd_micros + price
        if estimate.basis:
            self._basis[estimate.basis] = None


def _has_changed(chunk: Chunk, asset: Asset) -> bool:
    row = chunk.known.get(asset.id)
    return row is None or row.vector is None or row.text.partition("\n")[0] != asset.caption
