"""The page of `vrag mask`: a person paints in a real browser, and what is drawn is what was painted."""

from __future__ import annotations

import http.client
import io
import json
import random  # noqa: TID251  # seeded
import socket
from contextlib import contextmanager
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vrag.errors import ImageRejectedError, UsageError, VRAGError
from vrag.media.mask import MaskSpec, draw_mask, overlay_mask
from vrag.painting.server import MaskPage
from vrag.testing import FakeClock
from vrag.values.canonical import from_json, to_json

from .conftest import SIZE, Hand, encoded, opened, running, serious

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202eslived.jpg"


@contextmanager
def painting(browser, *, picture=None, size=SIZE, name="red shoes.jpg", start=None, keep=None, quiet=True, **options):
    shown = MaskPage(picture or encoded(size), name=name, start=start, keep=keep, clock=FakeClock())
    with running(shown) as server, opened(browser, server.url, quiet=quiet, **options) as page:
        yield Hand(page, size), server


def save(hand, server):
    hand.page.get_by_role("button", name="Save and close").click()
    hand.page.get_by_role("heading", name="The mask is saved").wait_for()
    assert server.painted is not None
    return server.painted


def pixels(painted):
    return np.asarray(Image.open(io.BytesIO(painted.drawn.data))) == 255


def near(box, expected, within=1):
    assert all(abs(a - b) <= within for a, b in zip(box, expected, strict=True)), (box, expected)


# -- painted with the mouse


@pytest.mark.parametrize("scale", [1, 2])
def test_a_rectangle_is_where_it_was_dragged(browser, scale):
    with painting(browser, device_scale_factor=scale) as (hand, server):
        hand.drag((40, 30), (120, 90), (260, 210))
        hand.says("Rectangle from 10 %, 10 % to 65 %, 70 % added; 1 shape.")
        painted = save(hand, server)
    assert painted.spec.shape == "rectangle"
    near(painted.drawn.box_px, (40, 30, 260, 210))
    assert abs(painted.drawn.share - 220 * 180 / 120_000) < 0.01


def test_a_rectangle_may_be_dragged_backwards_and_out_of_the_picture(browser):
    with painting(browser) as (hand, server):
        hand.drag((250, 200), (-30, -20))
        painted = save(hand, server)
    near(painted.drawn.box_px, (0, 0, 250, 200))


def test_a_brush_stroke_has_its_radius(browser):
    with painting(browser) as (hand, server):
        hand.page.keyboard.press("b")
        hand.page.get_by_role("slider").fill("40")
        hand.says("Brush 40 px.")
        hand.drag((100, 150), (180, 150), (300, 150))
        painted = save(hand, server)
    assert (painted.spec.shape, len(painted.spec.strokes)) == ("brush", 1)
    near(painted.drawn.box_px, (80, 130, 320, 170))
    white = pixels(painted)
    assert abs(int(white[:, 200].sum()) - 40) <= 1
    assert not white[132, 82], "its ends are round"


def test_a_curve_keeps_within_a_pixel_of_the_hand_with_few_points(browser):
    track = [(60 + n, 150 + 80 * np.sin(n / 40)) for n in range(0, 280, 2)]
    with painting(browser) as (hand, server):
        hand.page.keyboard.press("b")
        hand.drag(*track)
        painted = save(hand, server)
    points = np.array(painted.spec.strokes[0]) * SIZE
    assert len(points) < 60
    legs = list(pairwise(points))

    def distance(point):
        def to(a, b):
            along = np.clip(np.dot(point - a, b - a) / np.dot(b - a, b - a), 0, 1)
            return np.hypot(*(point - a - along * (b - a)))

        return min(to(a, b) for a, b in legs)

    assert max(distance(np.array(point)) for point in track) < 1


def test_an_ellipse_and_an_erasing_brush_are_joined_in_the_order_painted(browser):
    with painting(browser) as (hand, server):
        page = hand.page
        page.get_by_role("button", name="Ellipse").click()
        hand.drag((100, 50), (300, 250))
        page.get_by_role("button", name="Brush").click()
        page.get_by_role("button", name="Erase").click()
        assert page.get_by_role("button", name="Erase").get_attribute("aria-pressed") == "true"
        hand.drag((50, 150), (350, 150))
        hand.says("erased; 2 shapes.")
        painted = save(hand, server)
    assert painted.spec.shape == "subtract"
    near(painted.drawn.box_px, (100, 50, 300, 250))
    white = pixels(painted)
    assert white[100, 200]
    assert not white[150, 200]


def test_what_is_erased_can_be_painted_again(browser):
    with painting(browser) as (hand, server):
        hand.drag((100, 50), (300, 250))
        hand.page.keyboard.press("x")
        hand.drag((100, 100), (300, 200))
        hand.page.keyboard.press("x")
        hand.drag((180, 120), (220, 180))
        painted = save(hand, server)
    white = pixels(painted)
    assert [bool(white[150, x]) for x in (120, 200, 280)] == [False, True, False]


def test_undo_redo_invert_and_clear(browser):
    with painting(browser) as (hand, server):
        page = hand.page
        undo, redo = (page.get_by_role("button", name=name) for name in ("Undo", "Redo"))
        assert undo.get_attribute("aria-disabled") == "true"
        hand.drag((50, 40), (150, 140))
        hand.drag((200, 40), (300, 140))
        hand.says("2 shapes.")
        undo.click()
        hand.says("Undone; 1 shape.")
        redo.click()
        hand.says("Redone; 2 shapes.")
        page.get_by_role("button", name="Clear").click()
        hand.says("Cleared; nothing is painted.")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").filter(has_text="Nothing is painted yet.").wait_for()
        page.locator("canvas").focus()
        page.keyboard.press("Control+z")
        hand.says("Undone; 2 shapes.")
        assert page.get_by_role("alert").is_hidden()
        page.keyboard.press("Control+z")
        page.keyboard.press("Control+Shift+Z")
        page.keyboard.press("Control+Z")
        page.keyboard.press("Control+y")
        page.keyboard.press("Control+z")
        page.keyboard.press("i")
        hand.says("Inverted; 1 shape.")
        page.keyboard.press("Control+y")
        hand.says("There is nothing to redo.")
        painted = save(hand, server)
    assert painted.spec.shape == "invert"
    white = pixels(painted)
    assert not white[60:120, 70:130].any()
    assert white[:, 160:].all()


def test_an_empty_mask_inverts_to_the_whole_picture_and_back(browser):
    with painting(browser) as (hand, server):
        hand.page.keyboard.press("i")
        hand.says("Inverted; 1 shape.")
        hand.page.keyboard.press("i")
        hand.says("Inverted; nothing is painted.")
        hand.page.keyboard.press("i")
        assert save(hand, server).drawn.share == 1


def test_a_click_is_no_rectangle_but_a_dot_of_the_brush(browser):
    with painting(browser) as (hand, server):
        hand.drag((100, 100), (100, 100))
        hand.says("No rectangle: it has no width or no height.")
        hand.page.keyboard.press("b")
        hand.page.get_by_role("slider").fill("30")
        hand.drag((200, 100), (200, 100))
        painted = save(hand, server)
    near(painted.drawn.box_px, (185, 85, 215, 115))
    assert abs(painted.drawn.share * 120_000 - np.pi * 15**2) < 12


def test_zoomed_in_the_same_pixels_are_painted(browser):
    with painting(browser) as (hand, server):
        page = hand.page
        page.mouse.move(*hand.on_screen(300, 200))
        for _ in range(6):
            page.keyboard.press("+")
        assert page.locator("output.zoom").text_content() == "381 %"
        page.mouse.wheel(400, 300)
        box = page.locator(".stage").bounding_box()
        image = page.locator(".stage img").bounding_box()
        assert image["width"] > 3 * box["width"] / 1.01
        left, top = ((box[a] - image[a]) / (image["width"] / 400) for a in ("x", "y"))
        hand.drag((left + 20, top + 20), (left + 60, top + 50))
        page.keyboard.press("0")
        assert page.locator("output.zoom").text_content() == "100 %"
        painted = save(hand, server)
    near(painted.drawn.box_px, (left + 20, top + 20, left + 60, top + 50))


def test_fingers_paint_and_two_of_them_zoom(browser):
    with painting(browser, has_touch=True) as (hand, server):
        session = hand.page.context.new_cdp_session(hand.page)

        def touch(kind, *points):
            places = [dict(zip("xy", hand.on_screen(*point), strict=True), id=n) for n, point in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        touch("touchStart", (40, 60))
        touch("touchMove", (160, 120))
        touch("touchEnd")
        hand.says("Rectangle from 10 %, 20 % to 40 %, 40 % added; 1 shape.")
        touch("touchStart", (190, 150))
        touch("touchStart", (190, 150), (210, 150))
        here = hand.on_screen(230, 150)
        places = [dict(zip("xy", hand.on_screen(190, 150), strict=True), id=0), {"x": here[0], "y": here[1], "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": places})
        touch("touchEnd")
        assert hand.page.locator("output.zoom").text_content() == "200 %"
        painted = save(hand, server)
    near(painted.drawn.box_px, (40, 60, 160, 120))


# -- painted with keys alone


def test_a_rectangle_with_the_keyboard_alone(browser):
    with painting(browser) as (hand, server):
        keys = hand.page.keyboard
        assert hand.page.evaluate("document.activeElement.tagName") == "CANVAS", "the picture has the focus"
        keys.press("r")
        for _ in range(10):
            keys.press("ArrowLeft")
            keys.press("ArrowUp")
        hand.says("crosshair at 35 %, 30 %")
        keys.press("Enter")
        hand.says("Rectangle started at 35 %, 30 %.")
        for _ in range(5):
            keys.press("ArrowRight")
            keys.press("ArrowDown")
        keys.press("Shift+ArrowRight")
        hand.says("rectangle from 35 %, 30 % to 43 %, 40 %")
        keys.press("Space")
        hand.says("added; 1 shape.")
        keys.press("Enter")
        keys.press("ArrowRight")
        keys.press("Escape")
        hand.says("Dropped.")
        keys.press("Tab")
        for _ in range(40):
            if hand.page.evaluate("document.activeElement.id") == "save":
                break
            keys.press("Shift+Tab")
        keys.press("Enter")
        hand.page.get_by_role("heading", name="The mask is saved").wait_for()
        painted = server.painted
    assert painted.drawn.box_px == (140, 90, 171, 120)


def test_a_brush_stroke_with_the_keyboard_alone(browser):
    with painting(browser) as (hand, server):
        keys = hand.page.keyboard
        keys.press("b")
        before = int(hand.page.get_by_role("slider").input_value())
        keys.press("]")
        keys.press("]")
        keys.press("[")
        brush = int(hand.page.get_by_role("slider").input_value())
        assert brush > before
        keys.press("Enter")
        for _ in range(10):
            keys.press("ArrowRight")
        keys.press("Enter")
        painted = save(hand, server)
    half = brush / 2
    near(painted.drawn.box_px, (200 - half, 150 - half, 260 + half, 150 + half))


# -- what is shown


def overlay_at(page, x, y):
    """Width and height of the canvas, and its pixel at this place, in fractions of it."""
    return page.evaluate(
        """([x, y]) => {
      const canvas = document.querySelector("canvas");
      canvas.blur();
      return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
        const {width, height} = canvas;
        const pixel = canvas.getContext("2d").getImageData(Math.round(x * width), Math.round(y * height), 1, 1);
        done([width, height, Array.from(pixel.data)]);
      })));
    }""",
        [x, y],
    )


def test_the_overlay_has_the_colour_of_the_preview_and_a_pixel_for_each_of_the_screen(browser):
    with painting(browser, device_scale_factor=2, viewport={"width": 500, "height": 700}) as (hand, server):
        hand.drag((100, 100), (200, 200))
        hand.page.mouse.move(5, 5)
        stage = hand.page.locator(".stage").bounding_box()
        width, height, middle = overlay_at(hand.page, 0.35, 0.5)
        painted = save(hand, server)
    assert (width, height) == (round(2 * stage["width"]), round(2 * stage["height"]))
    assert abs(middle[3] - 0.45 * 255) <= 1
    shown = np.asarray(Image.open(io.BytesIO(overlay_mask(encoded(), painted.drawn.data))), float)[150, 150]
    under = np.asarray(Image.open(io.BytesIO(encoded())), float)[150, 150]
    assert np.abs(under + middle[3] / 255 * (np.array(middle[:3]) - under) - shown).max() < 6


def random_work(seed):
    dice = random.Random(seed)
    for _ in range(dice.randint(4, 40)):
        x, y = dice.randint(0, 370), dice.randint(0, 270)
        box = [x / 400, y / 300, (x + dice.randint(5, 400 - x)) / 400, (y + dice.randint(5, 300 - y)) / 300]
        shape = dice.choice(["rectangle", "ellipse", "brush", "invert"])
        if shape == "brush":
            points = [[dice.random(), dice.random()] for _ in range(dice.randint(1, 3))]
            value = {"shape": "brush", "unit": "fraction", "strokes": [points], "radius": dice.choice([0.02, 0.05])}
        else:
            value = {"shape": shape, "unit": "fraction", "box": box}
        yield dice.choice(["paint", "erase"]) if shape != "invert" else "invert", value


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 30), marks=pytest.mark.slow)])
def test_any_order_of_shapes_means_the_same_in_the_browser_and_in_python(browser, seeds):
    with painting(browser) as (hand, _):
        for seed in seeds:
            work = list(random_work(seed))
            spec, rows = hand.page.evaluate(
                """async (work) => {
                  const {draw, erase, invert, paint} = await import("/mask.js");
                  const does = {paint, erase, invert};
                  const spec = work.reduce((spec, [what, shape]) => does[what](spec, shape), null);
                  const layer = () => {
                    const canvas = document.createElement("canvas");
                    canvas.width = 400; canvas.height = 300;
                    const pen = canvas.getContext("2d");
                    pen.lineCap = pen.lineJoin = "round";
                    return pen;
                  };
                  if (spec === null) return [null, ""];
                  const data = draw(spec, [400, 300], layer).getImageData(0, 0, 400, 300).data;
                  return [spec, data.filter((_, n) => n % 4 === 3).map((alpha) => alpha >= 128).join("")];
                }""",
                work,
            )
            one_by_one = np.zeros((300, 400), bool)
            for what, value in work:
                if what == "invert":
                    one_by_one = ~one_by_one
                    continue
                drawn = draw_mask(from_json(MaskSpec, value), SIZE)
                white = np.asarray(Image.open(io.BytesIO(drawn.data))) == 255
                one_by_one = one_by_one | white if what == "paint" else one_by_one & ~white
            if not one_by_one.any():
                continue
            joined = draw_mask(from_json(MaskSpec, spec), SIZE)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(joined.data))) == 255, one_by_one), seed
            shown = np.frombuffer(rows.encode(), np.uint8).reshape(300, 400) == ord("1")
            assert (shown != one_by_one).mean() < 0.01, seed


def test_many_corrections_side_by_side_stay_within_what_a_mask_may_hold(browser):
    with painting(browser) as (hand, _):
        weight = hand.page.evaluate("""async () => {
          const {erase, paint, weigh} = await import("/mask.js");
          const dot = (x, y, radius) => ({shape: "brush", unit: "fraction", strokes: [[[x, y]]], radius});
          let spec = null;
          for (let n = 0; n < 60; n++) {
            spec = paint(spec, dot((n + 0.5) / 60, 0.5, 0.005));
            spec = erase(spec, dot((n + 0.5) / 60, 0.5, 0.002));
          }
          return weigh(spec);
        }""")
    assert weight["depth"] <= 4
    assert weight["parts"] <= 10


def test_a_mask_that_gets_too_large_is_not_taken(browser):
    full = MaskSpec.rectangle(0, 0, 1, 1, unit="fraction")
    for n in range(1, 32):  # each over all of the one before
        next_one = MaskSpec.rectangle(n / 100, n / 100, 1 - n / 100, 1 - n / 100, unit="fraction")
        full = full - next_one if n % 2 else full | next_one
    with painting(browser, start=full) as (hand, server):
        hand.page.keyboard.press("b")
        hand.drag((150, 150), (250, 150))
        hand.says("this is too much for one mask")
        assert save(hand, server).spec == full


# -- saving


def test_a_mask_that_the_server_refuses_is_said_on_the_page_and_painting_goes_on(browser):
    def stretched(route):
        data = route.request.post_data_json
        if data["mask"]["shape"] == "rectangle":
            data["mask"]["box"] = [0.5, 0.5, 1.5, 1.5]
        route.continue_(post_data=json.dumps(data))

    with painting(browser, quiet=False) as (hand, server):
        page = hand.page
        page.route("**/api/mask", stretched)
        hand.drag((50, 40), (150, 140))
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").filter(has_text="The rectangle leaves the picture at (1.5, 1.5) fraction").wait_for()
        assert server.painted is None
        page.keyboard.press("i")
        page.locator("canvas").focus()
        page.keyboard.press("i")
        assert save(hand, server).spec.shape == "invert"


def test_nothing_white_is_refused_with_words(browser):
    with painting(browser, quiet=False) as (hand, server):
        hand.drag((50, 40), (150, 140))
        hand.page.keyboard.press("x")
        hand.drag((40, 30), (160, 150))
        hand.page.get_by_role("button", name="Save").click()
        hand.page.get_by_role("alert").filter(has_text="The mask is empty").wait_for()
        assert server.painted is None


def test_what_cannot_be_written_is_said_and_saving_again_works(browser):
    tries = []

    def keep(painted):
        tries.append(painted)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")

    with painting(browser, quiet=False, keep=keep) as (hand, server):
        hand.drag((50, 40), (150, 140))
        hand.page.get_by_role("button", name="Save").click()
        hand.page.get_by_role("alert").filter(has_text="The system refused: No space left on device.").wait_for()
        assert save(hand, server) is tries[1]


def test_a_reload_keeps_what_was_painted(browser):
    with painting(browser) as (hand, server):
        hand.drag((50, 40), (250, 200))
        hand.page.reload()
        hand.page.locator("canvas").wait_for()
        painted = save(hand, server)
    near(painted.drawn.box_px, (50, 40, 250, 200))


def test_it_goes_on_with_a_mask_of_pixels(browser):
    start = MaskSpec.rectangle(10, 10, 100, 100, unit="px") - MaskSpec.polygon(
        [(20, 20), (60, 20), (20, 60)], unit="px"
    )
    with painting(browser, start=start) as (hand, server):
        hand.drag((200, 150), (300, 250))
        hand.says("3 shapes.")
        painted = save(hand, server)
    white = pixels(painted)
    assert [bool(white[y, x]) for x, y in ((15, 15), (25, 25), (90, 90), (250, 200))] == [True, False, True, True]


def test_a_picture_lies_upright_as_it_is_drawn(browser):
    tag = Image.Exif()
    tag[0x0112] = 6
    with painting(browser, picture=encoded((300, 400), exif=tag), size=(400, 300)) as (hand, server):
        assert hand.page.locator("#facts").text_content().startswith("400 \N{MULTIPLICATION SIGN} 300 pixels.")
        assert hand.page.locator(".stage img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
            400,
            300,
        ]
        hand.drag((10, 20), (390, 280))
        painted = save(hand, server)
    near(painted.drawn.box_px, (10, 20, 390, 280))


# -- for everybody


def test_hostile_names_stay_words(browser):
    with painting(browser, name=HOSTILE) as (hand, server):
        page = hand.page
        assert (
            page.title()
            == "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\\u202eslived.jpg: paint a mask"
        )
        assert "<script>" in page.locator("h1").text_content()
        assert "\\u202e" in page.locator("h1").text_content()
        assert page.locator("script").count() == 1
        assert page.locator("[onerror]").count() == 0
        assert page.locator("canvas").get_attribute("aria-label").startswith("Mask over <script>")
        hand.drag((50, 40), (250, 200))
        save(hand, server)


@pytest.mark.parametrize("width_px", [320, 360, 1280])
@pytest.mark.parametrize("size", [(400, 300), (200, 900)])
def test_nothing_is_wider_than_the_screen(browser, width_px, size):
    with painting(browser, size=size, viewport={"width": width_px, "height": 740}, name="x" * 300) as (hand, server):
        page = hand.page
        page.get_by_text("All keys").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width_px
            assert min(box["width"], box["height"]) >= 24
        page.locator(".stage").scroll_into_view_if_needed()
        assert page.locator(".stage").bounding_box()["height"] <= 740
        hand.drag((50, 40), (150, 140))
        near(save(hand, server).drawn.box_px, (50, 40, 150, 140), within=2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, axe, scheme):
    with painting(browser, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as (hand, server):
        page = hand.page
        assert serious(page, axe) == []
        page.get_by_text("All keys").click()
        hand.drag((50, 40), (150, 140))
        page.get_by_role("button", name="Erase").click()
        assert serious(page, axe) == []
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").wait_for()
        assert serious(page, axe) == []
        page.keyboard.press("i")
        page.locator("canvas").focus()
        page.keyboard.press("i")
        hand.drag((50, 40), (150, 140))
        page.keyboard.press("i")
        save(hand, server)
        assert serious(page, axe) == []


def test_focus_is_seen_on_every_control(browser):
    with painting(browser) as (hand, _):
        hand.page.locator("#save").focus()
        seen = set()
        for _ in range(14):
            hand.page.keyboard.press("Tab")
            where, outline = hand.page.evaluate(
                "[document.activeElement.textContent || document.activeElement.tagName,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            if where and "…" not in where:
                assert outline == "solid" or hand.page.evaluate("document.activeElement === document.body"), where
            seen.add(where)
        assert {"Rectangle R", "Erase X", "INPUT", "Undo", "Clear", "CANVAS", "All keys"} <= seen


# -- who gets in


class Visitor:
    def __init__(self, server):
        self.port = server.server_port
        self.headers = {"Host": f"127.0.0.1:{self.port}"}
        self.path = server.url.removeprefix(f"http://127.0.0.1:{self.port}")

    def ask(self, method, path, body=None, **changes):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.headers, data

    def enter(self):
        status, headers, _ = self.ask("GET", self.path)
        assert status == 200
        self.headers["Cookie"] = headers["Set-Cookie"].partition(";")[0]
        secret = json.loads(self.ask("GET", "/api/session")[2])["secret"]
        self.writing = {
            "Origin": f"http://127.0.0.1:{self.port}",
            "X-VRAG-Page": secret,
            "Content-Type": "application/json",
        }
        return self


ROUTES = [
    "/",
    "/painter.js",
    "/mask.js",
    "/page.js",
    "/page.css",
    "/painter.css",
    "/icon.svg",
    "/picture.jpg",
    "/api/session",
]
MASK = to_json(MaskSpec.rectangle(0.1, 0.1, 0.5, 0.5, unit="fraction"))


@contextmanager
def serving(**options):
    with running(MaskPage(encoded(), name="x.jpg", clock=FakeClock(), **options)) as server:
        yield server


def test_the_link_works_once_and_nothing_opens_without_it():
    with serving() as server:
        assert server.server_address[0] == "127.0.0.1"
        visitor = Visitor(server)
        for route in [*ROUTES, "/nothing", "/?token=", "/?token=x", "/?token=%ED%A0%80"]:
            status, headers, body = visitor.ask("GET", route)
            assert (status, json.loads(body)["error"]) == (403, "forbidden"), route
            assert "Set-Cookie" not in headers
        status, headers, body = visitor.ask("GET", visitor.path)
        token = visitor.path.rpartition("=")[2]
        assert (status, len(token)) == (200, 43)
        assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
        assert token not in headers["Set-Cookie"]
        assert token.encode() not in body
        assert visitor.ask("GET", visitor.path)[0] == 403, "a second visitor does not get in"
        visitor.headers["Cookie"] = headers["Set-Cookie"].partition(";")[0]
        assert [visitor.ask("GET", route)[0] for route in ROUTES] == [200] * len(ROUTES)


def test_another_name_for_this_machine_is_refused():
    with serving() as server:
        visitor, port = Visitor(server), server.server_port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "", None):
            assert visitor.ask("GET", visitor.path, Host=host)[0] == 403, host
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(f"GET {visitor.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
            assert b" 403 " in raw.recv(100)
        visitor.enter()
        assert visitor.ask("GET", "/", Host=f"localhost:{port}")[0] == 200


def test_every_answer_carries_the_policy_and_nothing_comes_from_elsewhere():
    with serving() as server:
        visitor = Visitor(server)
        answers = [visitor.ask("GET", route) for route in ROUTES]
        visitor.enter()
        answers += [visitor.ask("GET", route) for route in [*ROUTES, "/nothing"]]
        answers += [visitor.ask("PUT", "/"), visitor.ask("POST", "/api/mask", b"{}"), visitor.ask("GET", "/?a=1&a=2")]
    for _, headers, _ in answers:
        assert headers["Content-Security-Policy"] == (
            "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "vrag"
    for name in ("page.html", "page.css", "page.js", "painter.css", "painter.js", "mask.js", "icon.svg"):
        text = (files("vrag.painting") / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "innerHTML" not in text
        assert " style=" not in text


def test_only_the_page_itself_can_save_and_only_once():
    with serving() as server:
        visitor, port = Visitor(server).enter(), server.server_port
        body = json.dumps({"mask": MASK}).encode()

        def post(data=body, path="/api/mask", **changes):
            return visitor.ask("POST", path, data, **{**visitor.writing, **changes})[0]

        for origin in (
            "https://evil.example",
            "null",
            f"http://127.0.0.1:{port + 1}",
            f"http://localhost:{port}",
            None,
        ):
            assert post(Origin=origin) == 403, origin
        for site in ("cross-site", "same-site"):
            assert post(Sec_Fetch_Site=site) == 403
        for secret in ("", "x", None, visitor.headers["Cookie"].partition("=")[2]):
            assert post(X_VRAG_Page=secret) == 403
        assert post(Content_Type="text/plain") == 415
        assert post(Cookie=None) == 403
        assert post(None) == 411
        assert post(Transfer_Encoding="chunked") == 411
        assert post(None, Content_Length=str(1 << 21)) == 413
        assert post(None, Content_Length="9" * 5000) == 413
        assert post(path="/../api/mask") == 404
        assert server.painted is None
        assert post() == 200
        assert server.painted.spec == from_json(MaskSpec, MASK)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"mask": null}', b'{"mask": []}', b'{"mask": {}}',
        json.dumps({"mask": MASK, "path": "/etc/passwd"}).encode(),
        json.dumps({"mask": {**MASK, "path": "/etc/passwd"}}).encode(),
        json.dumps({"mask": {**MASK, "box": [0, 0, 2, 1]}}).encode(),
        json.dumps({"mask": {**MASK, "box": [0, 0, float("nan"), 1]}}).encode(),
        json.dumps({"mask": {**MASK, "box": ["a", 0, 1, 1]}}).encode(),
        json.dumps({"mask": {"shape": "alpha"}}).encode(),
        json.dumps({"mask": {"shape": "image", "media": {"sha256": "0" * 64, "media_type": "image/png", "size_bytes": 1}}}).encode(),
        json.dumps({"mask": {"shape": "brush", "unit": "fraction", "radius": 0.1, "strokes": [[[0, 0]] * 10_001]}}).encode(),
        b'{"mask": ' + b'{"shape": "invert", "parts": [' * 900 + json.dumps(MASK).encode() + b"]}" * 900 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_mask_of_this_picture_is_refused_with_words(data):
    with serving() as server:
        visitor = Visitor(server).enter()
        status, _, answer = visitor.ask("POST", "/api/mask", data, **visitor.writing)
        assert status == 400
        assert json.loads(answer)["message"]
        assert server.painted is None
        assert visitor.ask("GET", "/")[0] == 200, "and it goes on"


def test_a_mask_that_cannot_be_kept_is_an_error_of_ours():
    def keep(painted):
        raise VRAGError("No.", hint="again")

    with serving(keep=keep) as server:
        visitor = Visitor(server).enter()
        status, _, answer = visitor.ask("POST", "/api/mask", json.dumps({"mask": MASK}).encode(), **visitor.writing)
        assert (status, json.loads(answer)) == (500, {"error": "error", "message": "No.", "hint": "again"})
        assert server.painted is None


def test_it_does_not_start_with_what_it_cannot_show():
    with pytest.raises(ImageRejectedError):
        MaskPage(b"GIF89a", name="x.gif")
    grown = MaskSpec.rectangle(0, 0, 1, 1, unit="fraction").grow(3, unit="px")
    with pytest.raises(UsageError, match="'grow' cannot be painted on"):
        MaskPage(encoded(), name="x.jpg", start=~grown)
    with pytest.raises(UsageError, match="leaves the picture"):
        MaskPage(encoded(), name="x.jpg", start=MaskSpec.rectangle(0, 0, 500, 10, unit="px"))
    with pytest.raises(UsageError, match="65536"):
        MaskPage(encoded(), name="x.jpg", port=65536)
