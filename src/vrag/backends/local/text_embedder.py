"""Texts to vectors on any machine: the word vectors inside the `wordllama` wheel, read by a small loader of ours."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from typing_extensions import override

from vrag.errors import BackendError, MissingExtraError, UnsupportedRequestError, UsageError
from vrag.interfaces import Embedder
from vrag.media.ref import OpenMedia
from vrag.values.requests import Estimate, ModelRef, Problem
from vrag.values.vectors import EmbeddingSpace, Item, Purpose

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MAX_CHARS", "MAX_TOKENS", "WordLlamaEmbedder", "text_of"]

MAX_CHARS: Final = 16_384
"""Characters of a text that are looked at."""

MAX_TOKENS: Final = 512
"""Tokens of a text that are averaged, the first ones: a few paragraphs."""

_PREPROCESSING: Final = (
    f"lower case, mean of the first {MAX_TOKENS} tokens of the first {MAX_CHARS} characters, unit length/2"
)
_UNKNOWN_TOKEN: Final = 0
"""`<unk>`: stands for a text without any token, whose mean would not be a number."""

_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZERS: Final = ("tokenizers/l2_supercat_tokenizer_config.json", "tokenizer/l2_supercat_tokenizer_config.json")


@frozen(eq=False)
class _Model:
    table: NDArray[Any]
    tokenizer: Tokenizer
    space: EmbeddingSpace


class WordLlamaEmbedder(Embedder):
    """Texts as 256 numbers: the mean of their tokens' vectors. No network, no GPU, tens of thousands of texts a second.

    It reads two files of the installed `wordllama` wheel and never runs that package, which would go to a model hub for a
    tokenizer that its wheel keeps in another folder. An empty text gets the vector of the unknown token; long texts are
    cut after `MAX_CHARS` characters and `MAX_TOKENS` tokens. Text is put in lower case, because the tokens of "Dog" and
    "dog" differ. It knows English; other scripts than Latin tell it nothing, and retrieval asks it nothing about them.
    Purpose makes no difference: questions and stored items are embedded alike.

    Licence: the wheel is MIT, and says that its weights are distilled from the token tables of Llama 2 and 3 models
    (wordllama 0.4.0.post1, checked 2026-11-20). Whether Meta's community licence reaches such weights is for you to
    judge. To use another model, give the knowledge base any object that fits `vrag.interfaces.Embedder`, or none: a store
    without a space is searched by words. Vectors of two models never mix, so ingest again after a change.
    """

    def __init__(self) -> None:
        """Find the wheel; its files are read on first use.

        Raises:
            MissingExtraError: `wordllama` or `tokenizers` is not installed.
        """
        package = find_spec("wordllama")
        if package is None or not package.submodule_search_locations or find_spec("tokenizers") is None:
            raise _missing()
        self._folder = Path(package.submodule_search_locations[0])
        self._guard = threading.Lock()
        self._loaded: _Model | None = None

    @property
    @override
    def model(self) -> ModelRef:
        try:
            release = version("wordllama")
        except PackageNotFoundError:
            raise _missing() from None
        return ModelRef(provider="local", id=f"wordllama-l2-supercat-256@{release}")

    @property
    @override
    def space(self) -> EmbeddingSpace:
        """The space; its revision is the beginnings of the SHA-256 of the weights and of the tokenizer file."""
        return self._model().space

    @property
    @override
    def modalities(self) -> frozenset[str]:
        return frozenset({"text"})

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        return Estimate(usd_micros=0, basis="runs on this machine")

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> NDArray[np.float32]:
        texts = [text_of(number, item).lower() for number, item in enumerate(items)]
        model = self._model()
        rows = np.empty((len(texts), model.space.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            # One text at a time: the row cannot depend on its neighbours, and no thread pool meets a fork.
            tokens = model.tokenizer.encode(text, add_special_tokens=False).ids[:MAX_TOKENS] or [_UNKNOWN_TOKEN]
            mean = model.table[tokens].mean(axis=0, dtype=np.float64)
            length = np.sqrt(mean @ mean)
            row[:] = mean / length if length > 0 else np.eye(1, len(mean))[0]
        return rows

    def _model(self) -> _Model:
        with self._guard:
            if self._loaded is None:
                self._loaded = _load(self._folder)
            return self._loaded


def text_of(number: int, item: Item) -> str:
    """The text of the item with this number: its first `MAX_CHARS` characters, as UTF-8 can write them.

    Raises:
        UnsupportedRequestError: It is of another kind.
        UsageError: It has no text.
    """
    if item.kind != "text":
        message = f"This embedder takes text, not '{item.kind}'."
        raise UnsupportedRequestError(
            message,
            problems=[Problem(kind="refused", field=f"items[{number}].kind", message=message)],
            hint="embed a caption, or configure an embedder for pictures",
        )
    if item.text is None:
        raise UsageError(f"Item {number} has kind 'text' and no text.")
    # What cannot be written as UTF-8 (half of a surrogate pair) becomes "?".
    return item.text[:MAX_CHARS].encode("utf-8", "replace").decode()


def _load(folder: Path) -> _Model:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise _missing() from None
    weights = folder / _WEIGHTS
    tokens = next((folder / name for name in _TOKENIZERS if (folder / name).is_file()), folder / _TOKENIZERS[0])
    try:
        table = _read_safetensors(weights, "embedding.weight")
        tokenizer = Tokenizer.from_file(str(tokens))
        digests = [_sha256(path)[:16] for path in (weights, tokens)]
        if tokenizer.get_vocab_size() > len(table):
            raise ValueError("fewer vectors than tokens")  # noqa: TRY301  # all damage is told in one place
    except Exception as error:  # tokenizers raises bare Exception
        raise BackendError(
            f"The model files of the installed wordllama cannot be used: {error}.",
            backend="local",
            operation="load",
            hint="pip install --force-reinstall 'wordllama==0.4.0.post1'",
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    space = EmbeddingSpace(
        model="wordllama-l2-supercat-256",
        revision="-".join(digests),
        dimension=table.shape[1],
        preprocessing=_PREPROCESSING,
    )
    return _Model(table, tokenizer, space)


def _read_safetensors(path: Path, name: str) -> NDArray[Any]:
    """One tensor, mapped and not copied.

    The format: eight bytes with the length of the header, the header in JSON, the numbers
    (github.com/huggingface/safetensors, "Format", checked 2026-11-20).
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > 1 << 20:
            raise ValueError("the header is too long")
        entry = json.loads(file.read(header_bytes))[name]
    kind: np.dtype[Any] = np.dtype({"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
    rows, columns = entry["shape"]
    start, end = entry["data_offsets"]
    if end - start != rows * columns * kind.itemsize:
        raise ValueError("the header contradicts itself")
    mapped: NDArray[Any] = np.memmap(path, kind, "r", 8 + header_bytes + start, (rows, columns))
    return mapped.view(np.ndarray)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing() -> MissingExtraError:
    return MissingExtraError("The text embedder needs the extra 'local'.", hint="pip install 'vrag[local]'")
