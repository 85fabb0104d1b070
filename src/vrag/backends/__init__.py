"""Backends, and the door through which `vrag.compose` finds them.

A package registers an entry point in the group `vrag.backends` that loads a `Backend`; ours do the same:

```toml
[project.entry-points."vrag.backends"]
local = "vrag.backends.local:backend"
aws = "vrag.backends.aws:backend"
```

`use = "local:camera-moves"` in `vrag.toml` then means: entry point `local`, name `camera-moves`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen

from vrag.clock import Clock, SystemClock
from vrag.errors import ConfigError
from vrag.values.canonical import JSON
from vrag.values.vectors import EmbeddingSpace

__all__ = ["SEAMS", "Backend", "Context", "Factory", "check_options"]

SEAMS = (
    "embedder",
    "vector_store",
    "vector_indexes",
    "storage",
    "video_generator",
    "inpainter",
    "captioner",
    "signer",
    "moderator",
)
"""The keys of a `Backend`. `vector_indexes` has the names of `vector_store`, for stores that can be reindexed."""


@frozen(kw_only=True)
class Context:
    """What a factory is told beside its options."""

    name: str
    """What it is made for: the name of a knowledge base or of a generator, else of the seam."""
    folder: Path
    """A place of its own in the workspace; not made yet."""
    clock: Clock = field(factory=SystemClock)
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    """Where secrets are: an option `x_env` holds the name of the variable, never the secret."""
    space: EmbeddingSpace | None = None
    """For a vector store: the space of its vectors; None is words only."""
    settings: Mapping[str, JSON] = field(factory=dict)
    """What the file says once for all parts of this backend, such as its table `[aws]`."""
    shared: MutableMapping[str, Any] = field(factory=dict, repr=False)
    """The same object for all parts of one assembly: what they share, such as connections, under a key of their own."""


class Factory(Protocol):
    """Makes one object of a seam."""

    def __call__(self, options: Mapping[str, JSON], context: Context, /) -> Any:
        """Make it; a `ConfigError` names an option that it does not take, and imports happen only now."""
        ...


Backend = Mapping[str, Mapping[str, Factory]]
"""`{seam: {name: factory}}`; seams are those of `SEAMS`."""


def check_options(options: Mapping[str, JSON], known: tuple[str, ...] = ()) -> None:
    """Refuse an option that a factory does not take.

    Raises:
        ConfigError: With the option, the nearest known one and all known ones.
    """
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            allowed = f"it takes: {', '.join(known)}" if known else "it takes no options"
            hint = f"write: {near[0]} = …" if near else f"remove the option '{key}'"
            raise ConfigError(f"It does not know the option '{key}'; {allowed}.{guess}", hint=hint)
