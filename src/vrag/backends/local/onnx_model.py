"""One ONNX graph on this machine's processor: what goes in and comes out is checked, and nothing is believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vrag.backends.local.model_folder import ModelFolder, missing_extra
from vrag.errors import BackendError
from vrag.media.names import shown

__all__ = ["MAX_DIMENSION", "OnnxModel", "unit"]

MAX_DIMENSION: Final = 16_384

_INPUTS: Final[Mapping[str, type[np.generic]]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_OUTPUTS: Final = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})


class OnnxModel:
    """A graph, loaded. It runs one item at a time, so that no row depends on its neighbours. Safe for many threads."""

    def __init__(self, folder: ModelFolder, path: Path, *, known: Collection[str]) -> None:
        """Load `path`, a file of `folder` whose external files were checked before.

        Args:
            folder: Names the model in errors.
            path: The ONNX file.
            known: The inputs that can be given; the graph may want fewer.

        Raises:
            UsageError: ONNX Runtime cannot load it, or it wants another input.
            MissingExtraError: `onnxruntime` is not installed.
        """
        try:
            import onnxruntime  # noqa: PLC0415  # an optional extra
        except ImportError:
            raise missing_extra() from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it would print holds names from the file
        options.enable_mem_pattern = False  # one plan for each length of text would be kept
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # which prints
            )
            wanted = [(one.name, one.type) for one in self._session.get_inputs()]  # a name may be no UTF-8
            made = [(one.name, one.type, len(one.shape or ())) for one in self._session.get_outputs()]
        except Exception as error:  # its errors have no common base
            raise folder.refused(
                f"ONNX Runtime does not load {path.name} ({shown(str(error))})", "export the model again"
            ) from error
        self._name = folder.name
        self._kinds: dict[str, type[np.generic]] = {}
        for given, kind in wanted:
            if given not in known or kind not in _INPUTS:
                raise folder.refused(
                    f"{path.name} wants the input '{shown(given)}' of type {kind}; "
                    f"it may want {', '.join(sorted(known))}, as int64, int32, float or float16",
                    "export the model for feature extraction",
                )
            self._kinds[given] = _INPUTS[kind]
        self.outputs: dict[str, int | None] = {
            name: rank or None  # 0 is what it says where it does not know
            for name, kind, rank in made
            if kind in _OUTPUTS
        }
        """Names of what it makes of floating-point numbers, each with its number of dimensions if that is declared."""

    @property
    def made(self) -> str:
        """Its outputs, for people."""
        told = (
            f"{shown(name)} of {'some' if rank is None else rank} dimensions" for name, rank in self.outputs.items()
        )
        return ", ".join(told) or "no floating-point numbers"

    def run(self, output: str, feeds: Mapping[str, NDArray[Any]], shape: tuple[int | None, ...]) -> NDArray[np.float64]:
        """One output of this shape (None is any length), with float64 numbers that are all finite.

        Raises:
            BackendError: The graph fails, or makes something else.
        """
        try:
            fed = {name: np.asarray(feeds[name], kind) for name, kind in self._kinds.items()}
            [made] = self._session.run([output], fed)
        except Exception as error:  # as above
            raise self.broken(f"it does not run ({shown(str(error))})") from error
        fits = isinstance(made, np.ndarray) and made.dtype.kind == "f" and len(made.shape) == len(shape)
        if not fits or any(want not in {None, got} for want, got in zip(shape, made.shape, strict=True)):
            wanted = " x ".join("any" if side is None else str(side) for side in shape)
            raise self.broken(f"its output '{shown(output)}' has the shape {np.shape(made)}, not {wanted}")
        if not np.isfinite(made).all():
            raise self.broken(f"its output '{shown(output)}' holds what is not a number")
        checked: NDArray[np.float64] = made.astype(np.float64)
        return checked

    def broken(self, what: str) -> BackendError:
        """What to raise where the model misbehaves."""
        return BackendError(
            f"The model '{self._name}' cannot be used: {what}.",
            backend="local",
            operation="embed",
            hint="export the model again, or take another one",
        )


def unit(row: NDArray[np.float64]) -> NDArray[np.float32]:
    """The row at unit length; a row of zeros gets a fixed direction."""
    length = float(np.linalg.norm(row))
    made: NDArray[np.float32] = (row / length if length > 0 else np.eye(1, len(row))[0]).astype(np.float32)
    return made
