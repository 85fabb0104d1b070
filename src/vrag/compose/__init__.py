"""Joins configured backends into a pipeline. With `vrag.cli` the only reader of configuration and environment.

The library itself is always given objects; this is where they are made from names. Reading a configuration imports no
backend, so `vrag config show` works where an optional part is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vrag.compose.configuration import find_file, read_configuration

if TYPE_CHECKING:
    from vrag.clock import Clock
    from vrag.pipeline import VRAGPipeline

    PipelineT = TypeVar("PipelineT", bound=VRAGPipeline)

__all__ = ["from_config", "local"]


def local(kind: type[PipelineT], folder: Path | str, *, clock: Clock | None = None) -> PipelineT:
    """A pipeline with everything embedded in `folder`; no file and no variable is read."""
    from vrag.compose.assembly import Assembly  # noqa: PLC0415  # the docstring above

    flags = {"workspace.folder": (str(Path(folder).absolute()), "argument")}
    return Assembly(read_configuration(None, flags=flags, environ={}), clock=clock).pipeline(kind)


def from_config(
    kind: type[PipelineT],
    path: Path | str | None = None,
    *,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
) -> PipelineT:
    """A pipeline as `vrag.toml` and `VRAG_*` variables say.

    Raises:
        ConfigError: Something there is not usable; the message has file and line, or the variable.
        FormatVersionError: A newer release wrote the file.
        MissingExtraError: A backend needs an optional part that is not installed.
    """
    from vrag.compose.assembly import Assembly  # noqa: PLC0415  # the docstring above

    environ = os.environ if environ is None else environ
    file = Path(path) if path is not None else find_file(environ)
    return Assembly(read_configuration(file, environ=environ), clock=clock, environ=environ).pipeline(kind)
