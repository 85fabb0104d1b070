"""One contract suite a seam: inherit it, say how your backend is made, and run pytest.

```python
from vrag.testing.contracts import EmbedderContract


class TestColourEmbedder(EmbedderContract):
    def make(self, tmp_path):
        return ColourEmbedder()

    def sent(self, backend):
        return 0  # it runs in this process
```

Each test is a clause: a sentence of `vrag.interfaces`. A clause cannot be overridden; one that a backend cannot keep is
waived with a reason, in `waived`, and shows up as an expected failure.
"""

from __future__ import annotations

from vrag.testing.contracts.captioner import CaptionerContract
from vrag.testing.contracts.clauses import Contract
from vrag.testing.contracts.embedder import EmbedderContract
from vrag.testing.contracts.inpainter import InpainterContract
from vrag.testing.contracts.signer import SignerContract
from vrag.testing.contracts.storage import StorageContract
from vrag.testing.contracts.vector_store import VectorStoreContract
from vrag.testing.contracts.video_generator import VideoGeneratorContract
from vrag.testing.contracts.video_renderer import VideoRendererContract

__all__ = [
    "CaptionerContract",
    "Contract",
    "EmbedderContract",
    "InpainterContract",
    "SignerContract",
    "StorageContract",
    "VectorStoreContract",
    "VideoGeneratorContract",
    "VideoRendererContract",
]
