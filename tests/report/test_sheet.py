"""The contact sheet in a browser: a plan that waits for edits and choices, with hostile words, in every light and width."""

from importlib.resources import files

import pytest
from attrs import evolve

from vrag import Brief, VRAGPipeline
from vrag.cli.demo import demo_photos
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.media.mask_spec import MaskSpec
from vrag.provenance.marking import Marking
from vrag.testing import FakeInpainter, FakeVideoGenerator
from vrag.values.briefs import Edit
from vrag.workspace import Workspace

HOSTILE = "a boat</figcaption><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
REPLACE = Edit(
    operation="replace", mask=MaskSpec.rectangle(0.1, 0.6, 0.5, 0.9, unit="fraction"), prompt=HOSTILE, count=3
)


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """One film that is ready, one that waits for a choice, two for an edit, one that is not possible."""
    folder = tmp_path_factory.mktemp("sheet")
    local = Assembly(read_configuration(None, flags={"workspace.folder": (str(folder), "argument")}, environ={}))
    with VRAGPipeline(
        workspace=Workspace(folder),
        knowledge_bases={"nature": local.knowledge_base("nature")},
        storage=local.storage,
        signer=local.signer,
        inpainter=FakeInpainter(usd_micros=40_000),
        generators={"film": FakeVideoGenerator()},
        marking=Marking(credentials="none"),
    ) as pipeline:
        with demo_photos() as photos:
            pipeline.knowledge_base("nature").ingest(photos / "captions.jsonl", approve_by="ann")
        base = Brief(object_prompt="mountain lake", action_prompt="camera zooms in", edits=(REPLACE,))
        plan = pipeline.plan(base)
        pipeline.prepare(plan, approved=plan.digest)
        grown = Edit(operation="outpaint", to_video_shape=True)
        found = pipeline.plan(
            [
                base,
                evolve(base, object_prompt="green heron"),
                evolve(base, object_prompt="dandelion", width_px=720, height_px=1280, edits=(grown,)),
                evolve(base, object_prompt="red bowl", edits=()),
                evolve(base, object_prompt=f"quantum tax form {HOSTILE}", edits=()),
            ]
        )
        assert [one.waits_for for one in found.open] == ["choice", "edit", "edit"]
        assert (len(found.videos), len(found.failures)) == (1, 1)
        written = pipeline.contact_sheet(found)
        (folder / "sheet.html").write_text(written.to_html(), encoding="utf-8")
        # As Jupyter lays out a cell: its style overrules the height of a picture.
        style = "<style>body{width:780px} img{max-width:100%;height:auto}</style>"
        (folder / "cell.html").write_text(f"<meta charset=utf-8>{style}{written._repr_html_()}", encoding="utf-8")
    return folder / "sheet.html"


@pytest.mark.parametrize(("scheme", "width_px"), [("light", 1280), ("dark", 1280), ("light", 320)])
def test_the_sheet_is_whole_readable_and_runs_nothing(browser, sheet, scheme, width_px):
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-core: pip install '.[dev]'")
    page = browser.new_page(color_scheme=scheme, viewport={"width": width_px, "height": 800}, bypass_csp=False)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(sheet.as_uri())
    assert page.title() == "Plan of videos"
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    pictures = page.locator("img").evaluate_all("all => all.map(one => [one.naturalWidth, one.alt, one.clientHeight])")
    assert len(pictures) == 1 + 4 + 2
    assert all(wide > 0 and alt and high <= 800 for wide, alt, high in pictures)
    texts = page.locator("figcaption code").all_inner_texts()
    assert [text.rpartition("=")[2] for text in texts] == ["1", "2", "3"]
    assert "False" not in page.locator("body").inner_text()
    assert "972 px on the top" in page.locator("body").inner_text()
    page.evaluate((files(package) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []
    assert ([url for url in asked if not url.startswith(("file:", "data:"))], wrong) == ([], [])
    page.close()


def test_in_a_notebook_no_picture_is_higher_than_a_few_lines(browser, sheet):
    page = browser.new_page(viewport={"width": 900, "height": 800})
    page.goto(sheet.with_name("cell.html").as_uri())
    heights = page.locator("img").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert len(heights) == 1 + 4 + 2
    assert all(60 < height <= 141 for height in heights)
    page.close()
