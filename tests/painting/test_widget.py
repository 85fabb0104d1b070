"""The painter in a notebook: its Python side, its module in a real browser, and once a whole JupyterLab."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from vrag.errors import ImageRejectedError, MissingExtraError, NotFoundError, UsageError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.media.mask import MaskSpec
from vrag.testing import FakeClock, FakeStorage, FakeVectorStore
from vrag.values.canonical import to_json

from .conftest import SIZE, Hand, encoded, opened, serious

needs_anywidget = pytest.mark.skipif(find_spec("anywidget") is None, reason="needs anywidget: pip install '.[dev]'")
MASK = MaskSpec.rectangle(0.1, 0.2, 0.5, 0.6, unit="fraction")


def painter(*arguments, **options):
    from vrag.painting.widget import MaskPainter

    return MaskPainter(*arguments, **options)


def from_front_end(widget, **state):
    """What the comm of a front end does with a message of the user."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})


# -- in Python


@needs_anywidget
def test_the_mask_is_what_the_front_end_painted():
    widget = painter(encoded())
    assert widget.mask is None
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), "painted")
    from_front_end(widget, painted=to_json(MASK))
    assert widget.mask == MASK
    from_front_end(widget, painted=None)
    assert widget.mask is None
    assert seen == [to_json(MASK), None]


@needs_anywidget
def test_the_front_end_gets_what_it_shows():
    tag = Image.Exif()
    tag[0x0112] = 6
    widget = painter(encoded((3000, 4000), exif=tag), name="a\u202eb", mask=MASK)
    state = widget.get_state()
    assert state["_about"] == {"name": "a\\u202eb", "width_px": 4000, "height_px": 3000}
    assert state["painted"] == to_json(MASK)
    assert Image.open(io.BytesIO(state["_picture"])).size == (2048, 1536)
    assert "export default {render}" in state["_esm"]
    assert 'from "./' not in state["_esm"]
    assert ".vrag-painter" in state["_css"]
    widget.mask = ~MASK
    assert widget.get_state()["painted"] == to_json(~MASK)


@needs_anywidget
def test_what_a_front_end_sends_is_checked_on_use():
    widget = painter(encoded())
    from_front_end(widget, painted={"shape": "rectangle", "box": [0, 0, 9, 9], "evil": 1})
    with pytest.raises(UsageError, match="evil"):
        _ = widget.mask


@needs_anywidget
def test_the_preview_is_tinted_where_it_was_painted():
    widget = painter(encoded())
    with pytest.raises(UsageError, match="Nothing is painted"):
        widget.preview()
    widget.mask = MASK
    seen = np.asarray(Image.open(io.BytesIO(widget.preview().data)), int)
    plain = np.asarray(Image.open(io.BytesIO(encoded())), int)
    assert (seen[120, 100] - plain[120, 100])[0] > 40
    assert np.abs(seen[250, 350] - plain[250, 350]).max() < 8
    assert "image/jpeg" in widget.preview()._repr_mimebundle_()[0]


@needs_anywidget
def test_pictures_come_as_bytes_as_files_and_as_assets(tmp_path):
    (tmp_path / "shoes.jpg").write_bytes(encoded())
    assert painter(tmp_path / "shoes.jpg").get_state()["_about"]["name"] == "shoes.jpg"
    assert painter(str(tmp_path / "shoes.jpg")).get_state()["_about"]["width_px"] == 400
    kb = KnowledgeBase("brand", store=FakeVectorStore(None), storage=FakeStorage(), clock=FakeClock())
    kb.ingest([SourcePicture.from_bytes("p.jpg", encoded(), caption="Red shoes")])
    (asset,) = kb.assets()
    assert painter(asset.id[:20], knowledge_base=kb).get_state()["_about"]["name"] == "Red shoes"
    with pytest.raises(NotFoundError):
        painter("0" * 64, knowledge_base=kb)
    with pytest.raises(ImageRejectedError):
        painter(b"nothing")
    with pytest.raises(UsageError, match="cannot be painted on"):
        painter(encoded(), mask=MASK.feather(2, unit="px"))
    with pytest.raises(UsageError, match="leaves the picture"):
        painter(encoded()).mask = MaskSpec.rectangle(0, 0, 500, 10, unit="px")


def test_without_the_extra_it_says_what_to_install():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "from vrag.errors import MissingExtraError\n"
        "try:\n    import vrag.painting.widget\n"
        "except MissingExtraError as error:\n    print(error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "pip install 'vrag[notebook]'\n"
    assert issubclass(MissingExtraError, ImportError)


# -- in a browser, by the contract of anywidget: render({model, el}) returns what takes it away again

MODEL = """
class Model {
  constructor(state) { this.state = state; this.seen = {}; this.saved = []; }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; for (const see of this.seen[`change:${name}`] ?? []) see(); }
  on(event, see) { (this.seen[event] ??= []).push(see); }
  off(event, see) { this.seen[event] = (this.seen[event] ?? []).filter((one) => one !== see); }
  save_changes() { this.saved.push(structuredClone(this.state.painted)); }
}
const state = await (await fetch("/state.json")).json();
state._picture = new DataView(await (await fetch("/picture.jpg")).arrayBuffer());
const {default: widget} = await import("/widget.js");
window.model = new Model(state);
window.leave = widget.render({model, el: document.querySelector("#one")});
"""


@contextmanager
def front_end(widget, theme="", page_style=""):
    state = widget.get_state()
    page = (
        f'<!doctype html><html lang="en"><title>Notebook</title><link rel="icon" href="data:,"><link rel="stylesheet"'
        f' href="/widget.css"><style>{page_style}</style><body {theme}><main><h1>Notebook</h1><div id="one"></div></main>'
        f'<script type="module">{MODEL}</script>'
    )
    shown = {name: state[name] for name in ("_about", "painted")}
    served = {
        "/": (page.encode(), "text/html"),
        "/widget.js": (state["_esm"].encode(), "text/javascript"),
        "/widget.css": (state["_css"].encode(), "text/css"),
        "/state.json": (json.dumps(shown).encode(), "application/json"),
        "/picture.jpg": (state["_picture"], "image/jpeg"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, kind = served[self.path]
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@needs_anywidget
def test_what_is_painted_reaches_the_model_and_what_python_sets_is_shown(browser):
    widget = painter(encoded(), name="<b>shoes</b>")
    with front_end(widget) as url, opened(browser, url) as page:
        hand = Hand(page)
        assert page.locator("canvas").get_attribute("aria-label") == "Mask over <b>shoes</b>"
        hand.drag((40, 60), (200, 180))
        hand.says("1 shape.")
        saved = page.evaluate("model.saved")
        assert len(saved) == 1
        from_front_end(widget, painted=saved[0])
        assert np.allclose(widget.mask.box, (0.1, 0.2, 0.5, 0.6), atol=0.004)

        widget.mask = MASK | MaskSpec.ellipse(0.6, 0.6, 0.9, 0.9, unit="fraction")
        page.evaluate("spec => model.set('painted', spec)", widget.painted)
        hand.says("Another mask was given; 2 shapes.")
        assert page.evaluate("model.saved.length") == 1, "it is not sent back"
        page.get_by_role("button", name="Undo").click()
        hand.says("Undone; 1 shape.")
        assert page.evaluate("model.saved") == [saved[0], saved[0]]
        page.evaluate("model.set('painted', null)")
        hand.says("nothing is painted")

        page.evaluate("leave()")
        assert page.locator("#one canvas").count() == 0
        assert page.evaluate("Object.values(model.seen).flat().length") == 0


@needs_anywidget
def test_keys_do_not_reach_the_notebook_around_it(browser):
    with front_end(painter(encoded())) as url, opened(browser, url) as page:
        page.evaluate("window.heard = []; document.addEventListener('keydown', (event) => heard.push(event.key))")
        page.locator("canvas").focus()
        for key in ("b", "x", "x", "ArrowLeft", "Enter", "ArrowDown", "Enter", "Control+z", "q", "Tab"):
            page.keyboard.press(key)
        assert page.evaluate("heard") == ["Control", "q", "Tab"], "only what it does not use"
        assert page.evaluate("model.saved.length") == 2
        assert page.locator("[data-lm-suppress-shortcuts=true] canvas").count() == 1


@needs_anywidget
@pytest.mark.parametrize("dark", [False, True])
def test_it_takes_the_colours_of_the_notebook_and_axe_finds_nothing_serious(browser, axe, dark):
    style = ":root{--jp-ui-font-color1:%s;--jp-ui-font-color2:%s;--jp-layout-color1:%s;--jp-layout-color2:%s} body{background:%s;color:%s}"
    colours = (
        ("#fff", "#bdbdbd", "#111", "#212121", "#111", "#fff")
        if dark
        else ("#000", "#555", "#fff", "#eee", "#fff", "#000")
    )
    theme = f'data-jp-theme-light="{str(not dark).lower()}"'
    url_of = front_end(painter(encoded(), mask=MASK), theme, style % colours)
    scheme = "light" if dark else "dark"  # the notebook's theme wins over the system's
    with url_of as url, opened(browser, url, color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
        page.get_by_text("All keys").click()
        page.get_by_role("button", name="Erase").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("button", has_text="Undo").evaluate("b => getComputedStyle(b).backgroundColor") == (
            "rgb(17, 17, 17)" if dark else "rgb(255, 255, 255)"
        )
        assert serious(page, axe) == []


# -- in JupyterLab

NOTEBOOK = """\
from vrag.painting.widget import MaskPainter
from IPython.display import display
painter = MaskPainter("shoes.jpg")
display(painter)
"""
REPORT = "import pathlib, json; from vrag.values.canonical import to_json; pathlib.Path('seen.json').write_text(json.dumps(to_json(painter.mask)))"


@pytest.mark.slow
@needs_anywidget
@pytest.mark.skipif(find_spec("jupyterlab") is None, reason="needs JupyterLab: pip install jupyterlab")
def test_a_person_paints_in_jupyterlab(browser, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    (tmp_path / "shoes.jpg").write_bytes(encoded())
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK), nbformat.v4.new_code_cell(REPORT)])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "paint.ipynb")
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
        "--ServerApp.port_retries=50", "--IdentityProvider.token=painting", f"--ServerApp.root_dir={tmp_path}",
        "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"),
    }
    log = tmp_path / "lab.log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as lab:
        try:
            port = lab_port(tmp_path / "run", lab)
            context = browser.new_context(viewport={"width": 1280, "height": 1000})
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/paint.ipynb?token=painting")
            page.locator(".jp-Notebook .jp-Cell").first.click()
            page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")
            page.keyboard.press("Shift+Enter")
            page.locator(".vrag-painter canvas").wait_for()
            hand = Hand(page)
            hand.drag((40, 60), (200, 180))
            hand.says("1 shape.")
            page.keyboard.press("x")  # cuts a cell in JupyterLab, where it gets there
            hand.says("erasing")
            assert page.locator(".jp-Notebook .jp-Cell").count() >= 2
            page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").click()
            page.keyboard.press("Shift+Enter")
            for _ in range(200):
                if (tmp_path / "seen.json").exists():
                    break
                page.wait_for_timeout(100)
            context.close()
        finally:
            lab.terminate()
            lab.wait(20)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["shape"] == "rectangle"
    assert np.allclose(seen["box"], (40 / SIZE[0], 60 / SIZE[1], 200 / SIZE[0], 180 / SIZE[1]), atol=0.004)


def lab_port(folder, lab):
    """Of the server, from the file that it writes when it listens."""
    waiting = threading.Event()
    for _ in range(600):
        for file in folder.glob("jpserver-*.json"):
            port = json.loads(file.read_text())["port"]
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                    connection.request("GET", "/api/status?token=painting")
                    if connection.getresponse().status == 200:
                        return port
            except OSError:
                pass
        assert lab.poll() is None, "JupyterLab ended"
        waiting.wait(0.1)
    raise AssertionError("JupyterLab does not listen")
