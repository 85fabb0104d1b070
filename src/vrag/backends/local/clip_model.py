"""Texts and pictures to vectors of one space, with a CLIP or SigLIP model that lies in a folder, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from typing_extensions import override

from vrag.backends.local.clip_pixels import Pixels
from vrag.backends.local.model_folder import ModelFolder
from vrag.backends.local.onnx_file import external_files
from vrag.backends.local.onnx_model import MAX_DIMENSION, OnnxModel, unit
from vrag.backends.local.text_embedder import MAX_CHARS, MAX_TOKENS, text_of
from vrag.errors import UnsupportedRequestError, UsageError
from vrag.interfaces import Embedder
from vrag.media.image import ImageLimits
from vrag.media.ref import OpenMedia
from vrag.values.requests import Estimate, ModelRef, Problem
from vrag.values.vectors import EmbeddingSpace, Item, Purpose

__all__ = ["ClipModelEmbedder"]

_TOKENS: Final = {"clip": 77, "siglip": 64}
"""Model type -> how many tokens it reads where its files do not say (defaults of transformers, 2026-11-29)."""
_TEXT_INPUTS: Final = ("input_ids", "attention_mask")
_PICTURE_INPUTS: Final = ("pixel_values",)
_EXPORT: Final = (
    "on a machine with the tools: pip install 'optimum-onnx[onnxruntime]', then "
    "optimum-cli export onnx --task zero-shot-image-classification --model FOLDER FOLDER/onnx"
)


@frozen(eq=False)
class _Tower:
    """A graph and which of its outputs is the vector of a text, or of a picture."""

    graph: OnnxModel
    output: str


class ClipModelEmbedder(Embedder):
    """Texts and pictures in one space, so that words find pictures by their pixels. No network, no GPU.

    The folder has `config.json` (`model_type` `clip` or `siglip`), `tokenizer.json`, `preprocessor_config.json`, and
    either `text_model.onnx` with `vision_model.onnx` or one `model.onnx`, each in `onnx/` or beside the others; their
    outputs are `text_embeds` and `image_embeds`, or, for `siglip` in two files, `pooler_output` (transformers and its
    exporters, checked 2026-11-29). One file runs both halves for every item, so two are faster.

    Texts are put in lower case and cut to what the model reads; for `siglip` they are padded to it, as it was trained.
    Pictures go through `vrag.media.image.load_image` and are then resized, cropped and scaled as the folder says. Each
    item runs alone, and purpose makes no difference. What `SentenceModelEmbedder` says of hostile graphs holds here too.
    """

    def __init__(self, folder: Path | str, *, name: str | None = None, limits: ImageLimits | None = None) -> None:
        """Load the model.

        Args:
            folder: Where the model lies; it is only read.
            name: Names the embedding space, by default the name of the folder.
            limits: Caps on pictures; by default those of `ImageLimits`, with sides from 1 pixel.

        Raises:
            UsageError: The folder cannot be used; says why.
            BackendError: The model loads, and fails with a text or a picture.
            MissingExtraError: The extra `onnx` is not installed.
        """
        self._folder = found = ModelFolder(Path(folder), name=name)
        self._limits = limits or ImageLimits(min_side_px=1)
        config = found.json("config.json")
        self._kind = found.one_of(config.get("model_type"), _TOKENS, "model_type")
        text, picture = self._graphs()
        self._pixels = Pixels.read(found)
        told = config.get("text_config")
        asked = told.get("max_position_embeddings") if isinstance(told, dict) else None
        tokens = found.size(asked, _TOKENS[self._kind], "text_config.max_position_embeddings", at_most=MAX_TOKENS)
        self._tokenizer = found.tokenizer(max_tokens=tokens)
        if self._kind == "siglip":
            self._pad(tokens)
        graphs = list(dict.fromkeys((text, picture)))
        files = [file for graph in graphs for file in (graph, *external_files(graph))]
        revision = found.revision([*files, found.folder / "tokenizer.json"])
        self._text, self._picture = self._towers(text, picture)
        probe = found.probe(self._tokenizer)
        self._blank = {
            "pixel_values": np.zeros((1, 3, self._pixels.height_px, self._pixels.width_px), np.float32),
            **self._ids(probe),
        }
        dimension = len(self._text_row(probe, None))
        self._picture_row(self._blank["pixel_values"], dimension)
        self._space = EmbeddingSpace(
            model=found.name,
            revision=revision,
            dimension=dimension,
            preprocessing=(
                f"lower case, the first {tokens} tokens{' padded' * (self._kind == 'siglip')} of the first {MAX_CHARS}"
                f" characters; {self._pixels}; unit length/1"
            ),
        )

    @property
    @override
    def model(self) -> ModelRef:
        return ModelRef(provider="local", id=f"{self._space.model}@{self._space.revision}")

    @property
    @override
    def space(self) -> EmbeddingSpace:
        """The space; its revision is a digest of the weights and of the tokenizer file."""
        return self._space

    @property
    @override
    def modalities(self) -> frozenset[str]:
        return frozenset({"text", "image"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        return Estimate(usd_micros=0, basis="runs on this machine")

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> NDArray[np.float32]:
        for number, item in enumerate(items):
            if item.kind not in self.modalities:
                message = f"This embedder takes text and pictures, not '{item.kind}'."
                raise UnsupportedRequestError(
                    message, problems=[Problem(kind="refused", field=f"items[{number}].kind", message=message)]
                )
            if item.kind == "image" and (media is None or item.media is None):
                raise UsageError(f"Item {number} is a picture: it needs its media ref, and a function that opens it.")
        rows = np.empty((len(items), self._space.dimension), np.float32)
        for number, (row, item) in enumerate(zip(rows, items, strict=True)):
            if item.kind == "text":
                row[:] = unit(self._text_row(text_of(number, item), self._space.dimension))
                continue
            assert media is not None  # checked for all items
            assert item.media is not None
            with media(item.media) as stream:
                data = stream.read(self._limits.max_bytes + 1)
            row[:] = unit(self._picture_row(self._pixels.of(data, self._limits), self._space.dimension))
        return rows

    def _text_row(self, text: str, dimension: int | None) -> NDArray[np.float64]:
        fed = self._blank | self._ids(text.lower())
        if fed["input_ids"].shape[1] == 0:
            return np.zeros(self._space.dimension)
        return self._row(self._text, fed, dimension)

    def _picture_row(self, pixels: NDArray[np.float32], dimension: int) -> NDArray[np.float64]:
        return self._row(self._picture, self._blank | {"pixel_values": pixels}, dimension)

    def _row(self, tower: _Tower, fed: dict[str, NDArray[Any]], dimension: int | None) -> NDArray[np.float64]:
        row: NDArray[np.float64] = tower.graph.run(tower.output, fed, (1, dimension))[0]
        if not 2 <= len(row) <= MAX_DIMENSION:
            raise tower.graph.broken(f"its rows have {len(row)} numbers, not 2 to {MAX_DIMENSION}")
        return row

    def _ids(self, text: str) -> dict[str, NDArray[Any]]:
        """Token ids of shape (1, tokens). All are attended to, padding too: SigLIP was trained without a mask."""
        ids = np.array([self._folder.encoded(self._tokenizer, text).ids], np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def _pad(self, tokens: int) -> None:
        """Pad every text to the length that the model was trained with."""
        told = self._folder.json("tokenizer_config.json").get("pad_token")
        pad = told.get("content") if isinstance(told, dict) else told
        number = self._tokenizer.token_to_id(pad) if isinstance(pad, str) else None
        if number is None:
            raise self._folder.refused(
                "tokenizer_config.json names no pad_token of tokenizer.json", "save the tokenizer again"
            )
        self._tokenizer.enable_padding(pad_id=number, pad_token=pad, length=tokens)

    def _graphs(self) -> tuple[Path, Path]:
        """The files for texts and for pictures; the same one twice where it is for both."""
        found = self._folder
        text, picture = (found.first(f"onnx/{kind}_model.onnx", f"{kind}_model.onnx") for kind in ("text", "vision"))
        if text is not None and picture is not None:
            return text, picture
        if text is not None or picture is not None:
            missing = "text_model.onnx" if text is None else "vision_model.onnx"
            raise found.refused(f"it has no {missing}", "copy both files, or export both as one model.onnx")
        weights = found.first("model.safetensors", "pytorch_model.bin")
        both = found.needed(
            "onnx/model.onnx", "model.onnx", hint=_EXPORT if weights else "give the folder of an exported model"
        )
        return both, both

    def _towers(self, text: Path, picture: Path) -> tuple[_Tower, _Tower]:
        if text == picture:
            graph = OnnxModel(self._folder, text, known=(*_TEXT_INPUTS, *_PICTURE_INPUTS))
            return self._tower(graph, text, "text_embeds"), self._tower(graph, text, "image_embeds")
        # In one file `pooler_output` would be either; of CLIP it is what comes before the common space.
        other = ("pooler_output",) if self._kind == "siglip" else ()
        words, looks = (
            OnnxModel(self._folder, text, known=_TEXT_INPUTS),
            OnnxModel(self._folder, picture, known=_PICTURE_INPUTS),
        )
        return self._tower(words, text, "text_embeds", *other), self._tower(looks, picture, "image_embeds", *other)

    def _tower(self, graph: OnnxModel, path: Path, *names: str) -> _Tower:
        chosen = next((name for name in names if graph.outputs.get(name, 0) in {2, None}), None)
        if chosen is None:
            raise self._folder.refused(
                f"{path.name} makes {graph.made}; needed is {' or '.join(names)} of 2 dimensions", _EXPORT
            )
        return _Tower(graph, chosen)
