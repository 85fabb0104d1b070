"""Studios for the tests of edits and storyboards: the photographs of the package, made small and approved."""

import shutil
from importlib.resources import as_file, files

import pytest
from PIL import Image

from vrag import VRAGPipeline
from vrag.clock import SystemClock
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.provenance.marking import Marking
from vrag.workspace import Workspace


@pytest.fixture(scope="session")
def _photographs(tmp_path_factory):
    """The folder of a knowledge base of the fifteen photographs at a third of their size, made once."""
    folder, small = tmp_path_factory.mktemp("photographs"), tmp_path_factory.mktemp("small")
    with as_file(files("vrag") / "demo" / "photos") as photos:
        shutil.copy(photos / "captions.jsonl", small)
        for photo in photos.glob("*.jpg"):
            with Image.open(photo) as opened:
                opened.resize((opened.width // 3, opened.height // 3)).save(small / photo.name, quality=95)
    with VRAGPipeline.local(folder) as pipeline:
        report = pipeline.knowledge_base("nature").ingest(small / "captions.jsonl", approve_by="ann")
    assert (report.new, report.rejected) == (15, ())
    return folder / "kb"


@pytest.fixture
def studio(tmp_path, _photographs):
    """Makes pipelines over the real local parts, each in a folder of its own; any part may be replaced."""
    made = []

    def build(name="studio", **parts):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(_photographs, folder / "kb")
        flags = {"workspace.folder": (str(folder), "argument")}
        local = Assembly(read_configuration(None, flags=flags, environ={}))
        given = {
            "workspace": Workspace(folder, clock=parts.get("clock") or SystemClock()),
            "knowledge_bases": {"nature": local.knowledge_base("nature")},
            "storage": local.storage,
            "signer": local.signer,
            "inpainter": local.inpainter,
            "marking": Marking(credentials="none"),
            **parts,
        }
        if "generators" not in given:
            given["generators"] = {"camera": local.generator("camera")}
        pipeline = VRAGPipeline(**given)
        made.append(pipeline)
        return pipeline

    yield build
    for pipeline in made:
        pipeline.close()
