"""A folder with a model that somebody else made: found files, capped sizes, a digest, and a tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vrag.errors import MissingExtraError, UsageError
from vrag.media.names import shown

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["MAX_MODEL_BYTES", "ModelFolder", "missing_extra"]

MAX_MODEL_BYTES: Final = 4 << 30
"""Of all weights of one model together."""
_MAX_TOKENIZER_BYTES: Final = 64 << 20
_MAX_JSON_BYTES: Final = 4 << 20


class ModelFolder:
    """A folder as exporters lay it out. Whatever is in it, only `UsageError` is raised."""

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        """Look at the folder; `name` names the model, by default the folder does.

        Raises:
            UsageError: There is no such folder, or the name is empty or not printable.
        """
        if not folder.is_dir():
            raise UsageError(f"There is no model folder '{shown(str(folder))}'.", hint="give the folder of a model")
        self.folder = folder
        self.name = (name if name is not None else folder.resolve().name).strip()
        if not self.name or len(self.name) > 100 or not self.name.isprintable():
            raise UsageError(
                f"'{shown(self.name)}' is no name of a model; it has 1 to 100 printable characters.",
                hint="give a name",
            )

    def first(self, *names: str) -> Path | None:
        """The first of these that is a file, or None."""
        return next((path for path in (self.folder / name for name in names) if path.is_file()), None)

    def needed(self, *names: str, hint: str) -> Path:
        """The first of these that is a file.

        Raises:
            UsageError: None of them is there.
        """
        path = self.first(*names)
        if path is None:
            raise self.refused(f"it has no {' or '.join(names)}", hint)
        return path

    def json(self, name: str) -> dict[str, Any]:
        """An object in a JSON file; empty where there is no such file.

        Raises:
            UsageError: It is too large, or no JSON object.
        """
        read = self.read(name)
        if read is not None and not isinstance(read, dict):
            raise self.refused(f"{name} holds no JSON object", "copy the model again")
        return read or {}

    def read(self, name: str) -> Any:
        """What a JSON file holds; None where there is no such file.

        Raises:
            UsageError: It is too large, or no JSON.
        """
        path = self.first(name)
        if path is None:
            return None
        try:
            return json.loads(_capped(path, _MAX_JSON_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise self.refused(f"{name} cannot be read ({shown(str(error))})", "copy the model again") from error

    def tokenizer(self, *, max_tokens: int) -> Tokenizer:
        """The tokenizer of `tokenizer.json`: texts are cut to `max_tokens`, and nothing is padded.

        Raises:
            UsageError: It is missing, too large or broken.
            MissingExtraError: `tokenizers` is not installed.
        """
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  # an optional extra
        except ImportError:
            raise missing_extra() from None
        path = self.needed("tokenizer.json", hint="save the tokenizer as a fast one, which writes tokenizer.json")
        try:
            with _panics_told():
                made: Tokenizer = Tokenizer.from_str(_capped(path, _MAX_TOKENIZER_BYTES).decode("utf-8"))
                made.no_padding()
                made.enable_truncation(max_tokens)
        except Exception as error:  # tokenizers raises bare Exception
            raise self.refused(
                f"tokenizer.json cannot be used ({shown(str(error))})", "copy the model again"
            ) from error
        return made

    def encoded(self, tokenizer: Tokenizer, text: str) -> Encoding:
        """A text in tokens.

        Raises:
            UsageError: The tokenizer fails.
        """
        try:
            with _panics_told():
                return tokenizer.encode(text)
        except Exception as error:  # as above
            raise self.refused(
                f"tokenizer.json cannot be used ({shown(str(error))})", "copy the model again"
            ) from error

    def probe(self, tokenizer: Tokenizer) -> str:
        """A text that this tokenizer makes tokens of, to try the model with.

        Raises:
            UsageError: It makes none.
        """
        if not self.encoded(tokenizer, "a").ids:
            raise self.refused("its tokenizer makes no token of 'a'", "copy the model again")
        return "a"

    def revision(self, files: Sequence[Path]) -> str:
        """32 hexadecimal digits of the SHA-256 of the SHA-256 of each file, in this order.

        Raises:
            UsageError: Together they have more than `MAX_MODEL_BYTES`.
        """
        size = sum(path.stat().st_size for path in files)
        if size > MAX_MODEL_BYTES:
            raise self.refused(
                f"its weights have {size / (1 << 30):.1f} GiB; {MAX_MODEL_BYTES >> 30} are allowed",
                "take a smaller model",
            )
        return hashlib.sha256(b"".join(map(_sha256, files))).hexdigest()[:32]

    def size(self, found: object, default: int, key: str, *, at_most: int) -> int:
        """A whole number that a file of the folder gives, or `default` where it gives none.

        Raises:
            UsageError: It is no whole number from 1 to `at_most`.
        """
        value = default if found is None else found
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
            raise self.refused(f"{key} is {shown(str(value))}, not a whole number from 1 to {at_most}", "see its files")
        return value

    def refused(self, why: str, hint: str) -> UsageError:
        """What to raise where the folder cannot be used."""
        return UsageError(f"The model '{self.name}' cannot be used: {why}.", hint=hint)

    def one_of(self, found: object, allowed: Iterable[str], key: str) -> str:
        """A text that a file of the folder gives.

        Raises:
            UsageError: It is none of these.
        """
        allowed = tuple(allowed)
        if not isinstance(found, str) or found not in allowed:
            raise self.refused(
                f"{key} is '{shown(str(found))}', and only {', '.join(allowed)} can be run", "take another model"
            )
        return found


def missing_extra() -> MissingExtraError:
    """What to raise where ONNX Runtime or the tokenizers are not installed."""
    return MissingExtraError("A model from a folder needs the extra 'onnx'.", hint="pip install 'vrag[onnx]'")


@contextmanager
def _panics_told() -> Iterator[None]:
    """A panic of the Rust code in `tokenizers`, which is no `Exception`, as one."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error


def _capped(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit >> 20} MiB")
    return data


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
