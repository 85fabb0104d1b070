"""A real browser, and pictures to paint on."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from importlib.resources import files

import pytest
from PIL import Image

SIZE = (400, 300)


def encoded(size=SIZE, kind="JPEG", **options):
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def axe():
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-core: pip install '.[dev]'")
    return (files(package) / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(browser, url, *, quiet=True, **options):
    """A page that complains about nothing and asks nobody but its own server."""
    options.setdefault("viewport", {"width": 1000, "height": 900})
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.locator("canvas").wait_for()
    page.locator(".stage img").evaluate("image => image.decode()")
    yield page
    context.close()
    assert not quiet or complaints == []
    origin = url.partition("?")[0]
    assert [one for one in asked if not one.startswith((origin, f"blob:{origin}"))] == []


class Hand:
    """Works with the mouse in pixels of the picture."""

    def __init__(self, page, size=SIZE):
        self.page, self.size = page, size

    def on_screen(self, x, y):
        box = self.page.locator(".stage img").bounding_box()
        return box["x"] + x * box["width"] / self.size[0], box["y"] + y * box["height"] / self.size[1]

    def drag(self, *points):
        mouse = self.page.mouse
        mouse.move(*self.on_screen(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.on_screen(*point))
        mouse.up()

    def says(self, words):
        for _ in range(250):
            said = self.page.locator(".status").text_content().replace("\u00a0", " ")
            if words in said:
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"it says: {said}")


def serious(page, axe):
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
