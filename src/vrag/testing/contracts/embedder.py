"""The contract of `Embedder`."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
from typing_extensions import override

from vrag.errors import UnsupportedRequestError
from vrag.interfaces import Embedder
from vrag.testing.contracts.clauses import Contract, assert_estimate, assert_names_itself, refuses
from vrag.testing.media import SampleMedia
from vrag.values.vectors import EmbeddingSpace, Item

__all__ = ["EmbedderContract"]

_TEXTS: Final = ("red shoes", "a mountain lake at dawn", "two dogs with a ball", "city lights", "", "🦦", "ñandú ж 鳥")


class EmbedderContract(Contract, suite=True):
    """Hooks: `make`, `sent`; `item` too if the embedder takes kinds other than text and image."""

    seam: ClassVar[type] = Embedder

    def item(self, kind: str, number: int, media: SampleMedia) -> Item:
        """One thing of this kind to embed; each `number` is another one."""
        if kind == "text":
            return Item(kind="text", text=f"{_TEXTS[number % len(_TEXTS)]} {number}")
        if kind == "image":
            return Item(kind="image", media=media.picture(number))
        raise NotImplementedError(f"{type(self).__name__} needs the hook `item` for the kind '{kind}'.")

    @override
    def work(self, backend: Embedder, number: int) -> object:
        media = SampleMedia()
        return np.round(backend.embed(self._items(backend, number, media), "index", media), 3).tolist()

    def _items(self, backend: Embedder, number: int, media: SampleMedia) -> list[Item]:
        return [self.item(kind, 10 * number + one, media) for kind in sorted(backend.modalities) for one in range(3)]

    def test_model__names_itself(self, backend: Embedder) -> None:
        """Which model answers.

        When it fails: `model` is a `ModelRef` with provider and id, the same on each read.
        """
        assert_names_itself(backend)

    def test_space__of_every_vector_and_never_changes(self, backend: Embedder) -> None:
        """The space of every vector that `embed` returns; it never changes.

        When it fails: `space.dimension` is the length of the rows; nothing that `embed` does may change `space`.
        """
        before = backend.space
        media = SampleMedia()
        rows = backend.embed(self._items(backend, 0, media), "index", media)
        assert isinstance(before, EmbeddingSpace)
        assert rows.shape[1] == before.dimension
        assert backend.space == before

    def test_modalities__are_the_kinds_that_embed_takes(self, backend: Embedder) -> None:
        """The kinds of `Item` that `embed` takes, such as `text` and `image`.

        When it fails: `embed` must take an item of each kind that `modalities` lists, for both purposes.
        """
        assert backend.modalities
        assert isinstance(backend.modalities, frozenset)
        media = SampleMedia()
        for kind in backend.modalities:
            items = [self.item(kind, 1, media)]
            assert len(backend.embed(items, "index", media)) == 1
            assert len(backend.embed(items, "query", media)) == 1

    def test_estimate__sends_nothing(self, backend: Embedder) -> None:
        """What `embed(items)` would cost; nothing is sent.

        When it fails: compute the price from the items alone; None is "not known", a negative price is no price.
        """
        before = self.sent(backend)
        assert_estimate(backend.estimate(self._items(backend, 0, SampleMedia())))
        assert self.sent(backend) == before, "An estimate was sent."

    def test_embed__in_order(self, backend: Embedder) -> None:
        """Embed `items`, in order.

        When it fails: a batch that was split, sorted or answered out of order must be put back into the order asked.
        """
        media = SampleMedia()
        items = self._items(backend, 0, media)
        rows = backend.embed(items, "index", media)
        alone = np.concatenate([backend.embed([item], "index", media) for item in items])
        alike = rows @ alone.T
        # Two items may share a vector, so each row must be nearest to its own item, but need not be alone in that.
        assert (alike.diagonal() >= alike.max(axis=1) - 1e-5).all(), "A row is nearer to another item than to its own."

    def test_embed__one_row_an_item(self, backend: Embedder) -> None:
        """One row an item, in order; `[]` gives an array of shape (0, space.dimension).

        When it fails: equal items get a row each; no item is dropped; an empty list is answered without a call.
        """
        media = SampleMedia()
        item = self._items(backend, 0, media)[0]
        assert backend.embed([item, item, item], "index", media).shape == (3, backend.space.dimension)
        assert backend.embed([], "index", media).shape == (0, backend.space.dimension)

    def test_embed__rows_are_float32_finite_and_unit(self, backend: Embedder) -> None:
        """Each row is float32, finite and of unit length, for odd text (empty, one emoji, 100 000 characters) too.

        When it fails: normalise after the cast to float32; give text without any token a fixed direction of its own.
        """
        media = SampleMedia()
        items = self._items(backend, 0, media)
        if "text" in backend.modalities:
            items += [Item(kind="text", text=text) for text in ("", " ", "🦦", "\x00", "lake " * 20_000, "x" * 100_000)]
        for purpose in ("index", "query"):
            rows = backend.embed(items, purpose, media)
            assert rows.dtype == np.float32
            assert np.isfinite(rows).all()
            assert np.allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1.0, atol=1e-4)

    def test_embed__same_item_same_row(self, backend: Embedder) -> None:
        """The same item gives the same row, alone or among others, to 1e-5.

        When it fails: padding to the longest text of a batch must not reach the pooled vector.
        """
        media = SampleMedia()
        items = self._items(backend, 0, media)
        if "text" in backend.modalities:
            items.append(Item(kind="text", text="a much longer text about lakes and mountains " * 20))
        together = backend.embed(items, "index", media)
        alone = np.concatenate([backend.embed([item], "index", media) for item in items])
        assert np.abs(together - alone).max() <= 1e-5

    def test_embed__refuses_an_unknown_kind(self, backend: Embedder) -> None:
        """A kind outside `modalities` is refused with `UnsupportedRequestError`, and nothing is sent.

        When it fails: look at the kinds of all items before the first one is sent.
        """
        media = SampleMedia()
        before = self.sent(backend)
        with refuses(UnsupportedRequestError, "An item of the kind 'smell'"):
            backend.embed([*self._items(backend, 0, media), Item(kind="smell", text="pine")], "index", media)
        assert self.sent(backend) == before, "Something was sent before the refusal."
