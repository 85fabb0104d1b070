"""A real browser for the pages, and a workspace with videos of every fate."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HOSTILE = "camera pans down <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> &amp;"


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace with one plain film, one with hostile words, one erased, one withheld; `ids` names them."""
    pytest.importorskip("cv2", reason="films are made by the extra 'local'")
    from vrag import Brief, VRAGPipeline
    from vrag.cli.demo import demo_photos
    from vrag.errors import GateError
    from vrag.values.jobs import StepState

    folder = tmp_path_factory.mktemp("report") / "studio"
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("VRAG_")}
    with VRAGPipeline.local(folder) as pipeline:
        brand = pipeline.knowledge_base("brand")
        with demo_photos() as photos:
            brand.ingest(photos / "captions.jsonl", approve_by="ann")

        def brief(words: str, action: str, **changes: Any) -> Brief:
            size: dict[str, Any] = {"width_px": 320, "height_px": 180, "duration_s": 1.0, "fps": 24.0}
            return Brief(object_prompt=words, action_prompt=action, knowledge_base="brand", **(size | changes))

        plain = pipeline.generate(brief("snowy mountain lake", "camera pans right"))
        hostile = pipeline.generate(brief("dandelion", HOSTILE))
        erased = pipeline.generate(brief("red bowl", "camera zooms in", width_px=180, height_px=320))
        pipeline.erase_text(erased.id, by="ann", reason="asked to")
        held = brief("city skyline at night", "camera zooms in")
        (planned,) = pipeline.plan(held).videos

        def revoke(event: Any) -> None:
            if event.state is StepState.SUBMITTED and brand.review_of(planned.sources[0].asset_id).state == "approved":
                brand.revoke(planned.sources[0].asset_id, by="ann", reason="consent was withdrawn")

        with suppress(GateError):
            pipeline.generate(held, notify=revoke)
        ids = SimpleNamespace(plain=plain.id, hostile=hostile.id, erased=erased.id, withheld=planned.step_id)
        assets = SimpleNamespace(plain=plain.sources[0].asset_id, withheld=planned.sources[0].asset_id)
        state = pipeline.workspace.journal.get(planned.step_id).state
    os.environ.update(before)
    assert state is StepState.WITHHELD
    return SimpleNamespace(folder=folder, ids=ids, assets=assets, hostile=HOSTILE)


@pytest.fixture
def copied(studio: Any, tmp_path: Path) -> Path:
    """A workspace of one's own, to change."""
    shutil.copytree(studio.folder, tmp_path / "studio")
    return tmp_path / "studio"
