"""Texts to vectors with a sentence-transformers model that lies in a folder, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vrag.backends.local.model_folder import ModelFolder
from vrag.backends.local.onnx_file import external_files
from vrag.backends.local.onnx_model import MAX_DIMENSION, OnnxModel, unit
from vrag.backends.local.text_embedder import MAX_CHARS, MAX_TOKENS, text_of
from vrag.interfaces import Embedder
from vrag.media.names import shown
from vrag.media.ref import OpenMedia
from vrag.values.requests import Estimate, ModelRef
from vrag.values.vectors import EmbeddingSpace, Item, Purpose

__all__ = ["SentenceModelEmbedder"]

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_POOLED: Final = "sentence_embedding"
_TOKENS: Final = ("last_hidden_state", "token_embeddings")
_LAYERS: Final = ("Transformer", "Pooling", "Normalize")
_EXPORT: Final = (
    "on a machine with the tools: pip install 'optimum-onnx[onnxruntime]', then "
    "optimum-cli export onnx --task feature-extraction --model FOLDER FOLDER/onnx"
)


class SentenceModelEmbedder(Embedder):
    """Texts as the vectors of a sentence-transformers folder, such as all-MiniLM-L6-v2. No network, no GPU.

    The folder has `tokenizer.json`, `config.json` and `onnx/model.onnx` or `model.onnx`; beside them may stand
    `modules.json`, `1_Pooling/config.json` (mean, which is the default, or cls) and `sentence_bert_config.json`
    (`max_seq_length`, `do_lower_case`), as sentence-transformers writes them (sbert.net, checked 2026-11-29). A graph
    with the output `sentence_embedding` pools by itself; else `last_hidden_state` or `token_embeddings` is pooled.

    Texts are cut after `MAX_CHARS` characters and the model's own number of tokens, at most `MAX_TOKENS`. Each text
    runs alone: that costs up to 1.7 times the processor time of batches of 32 (MiniLM, captions of 17 tokens), and
    keeps memory flat and each row free of its neighbours, also in models with dynamic quantisation. Purpose makes no
    difference: prompts such as `query:` are not added.

    A model is a program: size caps, a check of what files it reads and of what it answers stand around it, but nothing
    bounds the time and memory that a hostile graph takes. Use those that you would run.
    """

    def __init__(self, folder: Path | str, *, name: str | None = None) -> None:
        """Load the model.

        Args:
            folder: Where the model lies; it is only read.
            name: Names the embedding space, by default the name of the folder. Two machines with one index name it
                alike.

        Raises:
            UsageError: The folder cannot be used; says why.
            BackendError: The model loads, and fails with a text.
            MissingExtraError: The extra `onnx` is not installed.
        """
        self._folder = found = ModelFolder(Path(folder), name=name)
        graph = found.needed(
            "onnx/model.onnx",
            "model.onnx",
            hint=_EXPORT if found.first("model.safetensors", "pytorch_model.bin") else "give the folder of a model",
        )
        pooling = self._pooling()
        settings = found.json("sentence_bert_config.json")
        self._lower = settings.get("do_lower_case") is True
        config = found.json("config.json")
        positions = found.size(
            config.get("max_position_embeddings"), MAX_TOKENS, "max_position_embeddings", at_most=1 << 20
        )
        tokens = found.size(settings.get("max_seq_length"), positions, "max_seq_length", at_most=1 << 20)
        tokens = min(tokens, positions, MAX_TOKENS)
        self._tokenizer = found.tokenizer(max_tokens=tokens)
        files = [graph, *external_files(graph), found.folder / "tokenizer.json"]
        revision = found.revision(files)
        self._graph = OnnxModel(found, graph, known=_INPUTS)
        self._output, self._pool = self._choose_output(pooling)
        dimension = len(self._row(found.probe(self._tokenizer), None))
        declared = found.json("1_Pooling/config.json").get("word_embedding_dimension")
        if self._pool is not None and declared not in {None, dimension}:
            raise found.refused(
                f"its rows have {dimension} numbers, and 1_Pooling/config.json says {declared}", "export it again"
            )
        self._space = EmbeddingSpace(
            model=found.name,
            revision=revision,
            dimension=dimension,
            preprocessing=(
                f"{'lower case, ' if self._lower else ''}{self._pool or 'own'} pooling of the first {tokens} tokens"
                f" of the first {MAX_CHARS} characters, unit length/1"
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
        return frozenset({"text"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        return Estimate(usd_micros=0, basis="runs on this machine")

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> NDArray[np.float32]:
        texts = [text_of(number, item) for number, item in enumerate(items)]
        rows = np.empty((len(texts), self._space.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = unit(self._row(text, self._space.dimension))
        return rows

    def _row(self, text: str, dimension: int | None) -> NDArray[np.float64]:
        encoded = self._folder.encoded(self._tokenizer, text.lower() if self._lower else text)
        ids = np.array([encoded.ids], np.int64)
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),  # nothing is padded, so every token counts
            "token_type_ids": np.array([encoded.type_ids], np.int64),
        }
        count = ids.shape[1]
        if count == 0:
            return np.zeros(self._space.dimension)
        if self._pool is None:
            return self._checked(self._graph.run(self._output, feeds, (1, dimension))[0])
        tokens = self._graph.run(self._output, feeds, (1, count, dimension))[0]
        return self._checked(tokens[0] if self._pool == "cls" else tokens.mean(axis=0))

    def _checked(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        if not 2 <= len(row) <= MAX_DIMENSION:
            raise self._graph.broken(f"its rows have {len(row)} numbers, not 2 to {MAX_DIMENSION}")
        return row

    def _pooling(self) -> str:
        """`mean` or `cls`, as the folder says."""
        found = self._folder
        settings = found.json("1_Pooling/config.json")
        asked = {key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True}
        known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        if isinstance(settings.get("pooling_mode"), str):
            return found.one_of(settings["pooling_mode"], known.values(), "pooling_mode")
        if not asked:
            return "mean"
        return known[found.one_of(" + ".join(sorted(asked)), known, "pooling")]

    def _choose_output(self, pooling: str) -> tuple[str, str | None]:
        """The output to take and how to pool it; None for one that is pooled."""
        outputs = self._graph.outputs
        if outputs.get(_POOLED, 0) in {2, None}:
            return _POOLED, None
        chosen = next((name for name in _TOKENS if outputs.get(name, 0) in {3, None}), None)
        if chosen is None:
            raise self._folder.refused(
                f"its graph makes {self._graph.made}; needed is {_POOLED} of 2 dimensions, or {' or '.join(_TOKENS)} of 3",
                _EXPORT,
            )
        layers = self._folder.read("modules.json")
        for layer in layers if isinstance(layers, list) else ():
            kind = str(layer.get("type") if isinstance(layer, dict) else layer).rpartition(".")[2]
            if kind not in _LAYERS:
                raise self._folder.refused(
                    f"modules.json has the layer '{shown(kind)}', which its graph leaves out", _EXPORT
                )
        return chosen, pooling
