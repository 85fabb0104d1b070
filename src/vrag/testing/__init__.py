"""Fakes of every seam and the contract suites that backends pass.

The fakes are deterministic, safe to use from many threads and need no network; each has `calls` (what reached it) and
`faults` (what goes wrong, and when). The suites are in `vrag.testing.contracts`; only they need pytest.

Importing this package loads no array, picture or codec library: names are loaded on use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrag.testing.clock import FakeClock
    from vrag.testing.faults import Call, Faults
    from vrag.testing.films import Film, make_film, probe_film
    from vrag.testing.media import SampleMedia, sample_edit, sample_request
    from vrag.testing.pictures import FakeCaptioner, FakeInpainter
    from vrag.testing.signer import FakeSigner
    from vrag.testing.storage import FakeStorage
    from vrag.testing.vectors import FAKE_SPACE, FakeEmbedder, FakeVectorStore
    from vrag.testing.videos import FakeVideoGenerator, FakeVideoRenderer, failing
    from vrag.testing.watermark import FakeWatermarker

# Without this a failed clause would say only "AssertionError". Where pytest runs, it is loaded before us.
if (_pytest := sys.modules.get("pytest")) is not None:
    _pytest.register_assert_rewrite("vrag.testing.contracts")

_HOMES = {
    "FAKE_SPACE": "vectors",
    "Call": "faults",
    "FakeCaptioner": "pictures",
    "FakeClock": "clock",
    "FakeEmbedder": "vectors",
    "FakeInpainter": "pictures",
    "FakeSigner": "signer",
    "FakeStorage": "storage",
    "FakeVectorStore": "vectors",
    "FakeVideoGenerator": "videos",
    "FakeVideoRenderer": "videos",
    "FakeWatermarker": "watermark",
    "Faults": "faults",
    "Film": "films",
    "SampleMedia": "media",
    "failing": "videos",
    "make_film": "films",
    "probe_film": "films",
    "sample_edit": "media",
    "sample_request": "media",
}

__all__ = [
    "FAKE_SPACE",
    "Call",
    "FakeCaptioner",
    "FakeClock",
    "FakeEmbedder",
    "FakeInpainter",
    "FakeSigner",
    "FakeStorage",
    "FakeVectorStore",
    "FakeVideoGenerator",
    "FakeVideoRenderer",
    "FakeWatermarker",
    "Faults",
    "Film",
    "SampleMedia",
    "failing",
    "make_film",
    "probe_film",
    "sample_edit",
    "sample_request",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vrag.testing' has no attribute '{name}'")
    return getattr(import_module(f"vrag.testing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
