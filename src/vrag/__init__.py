"""V-RAG: AI video made from your own vetted pictures, with proof.

The flow, in ten lines:

1. `KnowledgeBase.ingest` loads pictures (hardened), embeds and indexes them; each is *proposed*.
2. A person approves them; only approved pictures are ever used.
3. A `Brief` names an object and an action; `VRAGPipeline.plan` retrieves the picture or says that none suits,
4. edits it where asked, fits it to the video without distortion, renders the prompt, checks the model's limits, and
   prices it.
5. `VRAGPipeline.submit` takes an approved plan; every purchase is written down before it is made.
6. A `VideoGenerator` makes the film: hosted, or the free camera moves of `vrag.backends.local`; shots are joined.
7. The film is fetched, checked, marked (content credentials), and recorded: an in-toto statement in a signed DSSE
   envelope, in an append-only ledger.
8. Only then is it delivered, with its record beside it.
9. `video.sources`, `where_used` and `revoke` follow the lineage both ways.
10. Every seam (`vrag.interfaces`) has a contract suite and a fake in `vrag.testing`.

Importing this package loads no cloud SDK, codec, array or picture library: names are loaded on use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrag.errors import NoSuitableImageError, VRAGError
    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.media.mask_spec import MaskSpec
    from vrag.pipeline import VRAGPipeline
    from vrag.prompts.camera import CameraMove
    from vrag.provenance.label import Label
    from vrag.provenance.marking import Marking
    from vrag.results import FinishedVideo, Ticket
    from vrag.values.briefs import Brief, Edit, Plan, ShotBrief
    from vrag.values.policy import Caps, Policy
    from vrag.values.requests import Look

__version__ = "0.1.0"

_HOMES = {
    "Brief": "vrag.values.briefs",
    "CameraMove": "vrag.prompts.camera",
    "Caps": "vrag.values.policy",
    "Edit": "vrag.values.briefs",
    "FinishedVideo": "vrag.results",
    "KnowledgeBase": "vrag.knowledge.knowledge_base",
    "Label": "vrag.provenance.label",
    "Look": "vrag.values.requests",
    "Marking": "vrag.provenance.marking",
    "MaskSpec": "vrag.media.mask_spec",
    "NoSuitableImageError": "vrag.errors",
    "Plan": "vrag.values.briefs",
    "Policy": "vrag.values.policy",
    "ShotBrief": "vrag.values.briefs",
    "Ticket": "vrag.results",
    "VRAGError": "vrag.errors",
    "VRAGPipeline": "vrag.pipeline",
}

__all__ = [
    "Brief",
    "CameraMove",
    "Caps",
    "Edit",
    "FinishedVideo",
    "KnowledgeBase",
    "Label",
    "Look",
    "Marking",
    "MaskSpec",
    "NoSuitableImageError",
    "Plan",
    "Policy",
    "ShotBrief",
    "Ticket",
    "VRAGError",
    "VRAGPipeline",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vrag' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
