"""The review page: who gets in, what it shows and takes, and a person at work on it in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

import vrag
from vrag.cli.review_server import ReviewServer, review_web
from vrag.errors import UsageError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock, FakeStorage, FakeVectorStore
from vrag.values.assets import ReviewState, Rights

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202eslived"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def jpeg(shade, size=(96, 64)):
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).point(lambda v: (v + shade) % 256).convert("RGB").save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def kb():
    """Three pictures with everything, one without a caption, one that is hostile in every field, one that expired."""
    kb = KnowledgeBase("brand", store=FakeVectorStore(None), storage=FakeStorage(), clock=FakeClock(NOON))
    rights = Rights(licence="CC-BY-4.0", holder="Ana Silva")
    captions = ["Red shoes on a table", "A dog in the snow", "\uff22lue hat"]
    report = kb.ingest(
        [
            SourcePicture.from_bytes(f"p{n}.jpg", jpeg(n * 30), caption=caption, tags=("shop", f"t{n}"), rights=rights)
            for n, caption in enumerate(captions)
        ]
        + [
            SourcePicture.from_bytes("IMG_0001.jpg", jpeg(120, (64, 96))),
            SourcePicture.from_bytes(
                HOSTILE.replace("/", "\u2215") + ".jpg",
                jpeg(150, (300, 66)),
                caption=HOSTILE,
                tags=(HOSTILE,),
                rights=Rights(licence=HOSTILE, holder=HOSTILE, notes=HOSTILE, releases=(HOSTILE,)),
            ),
            SourcePicture.from_bytes(
                "sea.jpg", jpeg(180), caption="Sea at noon", rights=Rights(expires_on="2026-11-19")
            ),
        ]
    )
    assert report.new == 6, report
    sea = find(kb, "Sea")
    kb.review(sea, ReviewState.APPROVED, by="Ana")
    return kb


def find(kb, caption):
    return next(asset.id for asset in kb.assets() if (asset.caption or asset.file_name).startswith(caption))


@contextmanager
def serving(kb, by="Ana Silva"):
    with ReviewServer(kb, by=by, clock=FakeClock(NOON)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            server.shutdown()
            thread.join()


class Visitor:
    """A browser without a will of its own."""

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
        about = self.json("/api/session")
        self.writing = {
            "Origin": f"http://127.0.0.1:{self.port}",
            "X-VRAG-Review": about["csrf"],
            "Content-Type": "application/json",
        }
        return self

    def json(self, path, status=200):
        got, _, data = self.ask("GET", path)
        assert got == status, data
        return json.loads(data)

    def decide(self, kb, pictures, state, reason=None, status=200):
        if not isinstance(pictures, dict):
            pictures = {one: kb.review_of(one).sequence for one in pictures}
        body = json.dumps({"pictures": pictures, "state": state, "reason": reason}).encode()
        got, _, data = self.ask("POST", "/api/review", body, **self.writing)
        assert got == status, data
        return json.loads(data)


ROUTES = ["/", "/review.js", "/review.css", "/api/session", "/api/assets", "/thumbnail/" + "0" * 64, "/nothing"]


def test_the_link_works_once_and_nothing_opens_without_it(kb):
    with serving(kb) as server:
        assert server.server_address[0] == "127.0.0.1"
        visitor = Visitor(server)
        for route in [*ROUTES, "/?token=", "/?token=x", "/?token=%ED%A0%80"]:
            status, headers, body = visitor.ask("GET", route)
            assert (status, json.loads(body)["error"]) == (403, "forbidden"), route
            assert "Set-Cookie" not in headers
        status, headers, body = visitor.ask("GET", visitor.path)
        assert status == 200
        assert headers["Refresh"] == "0; url=/"
        assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
        token = visitor.path.rpartition("=")[2]
        assert len(token) == 43
        assert token not in headers["Set-Cookie"]
        assert token.encode() not in body
        assert visitor.ask("GET", visitor.path)[0] == 403, "a second visitor does not get in"
        visitor.headers["Cookie"] = "a=b; " + headers["Set-Cookie"].partition(";")[0]
        assert visitor.ask("GET", visitor.path)[0] == 200, "the first one may press reload"
        assert visitor.ask("GET", "/")[0] == 200
        name, _, value = visitor.headers["Cookie"].removeprefix("a=b; ").partition("=")
        for wrong in (f"{name}={value[:-1]}", f"{name}=", f"other={value}", value, f"{name}={token}"):
            assert visitor.ask("GET", "/", Cookie=wrong)[0] == 403


def test_another_name_for_this_machine_is_refused(kb):
    with serving(kb) as server:
        visitor = Visitor(server)
        port = server.server_port
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1",
            f"127.0.0.1:{port + 1}",
            f"[::1]:{port}",
            "",
            None,
        ):
            assert visitor.ask("GET", visitor.path, Host=host)[0] == 403, host
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(f"GET {visitor.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
            assert b" 403 " in raw.recv(100)
        visitor.enter()
        assert visitor.ask("GET", "/", Host=f"localhost:{port}")[0] == 200
        assert visitor.ask("GET", f"http://127.0.0.1:{port}/")[0] == 404, "it is no proxy"


def test_every_answer_carries_the_policy(kb):
    with serving(kb) as server:
        visitor = Visitor(server)
        before = [visitor.ask("GET", route) for route in ROUTES]
        visitor.enter()
        picture = "/thumbnail/" + find(kb, "Red").rpartition("/")[2]
        after = [visitor.ask("GET", route) for route in [*ROUTES, "/icon.svg", picture]]
        wrong = [visitor.ask("PUT", "/"), visitor.ask("POST", "/api/review", b"{}"), visitor.ask("GET", "/?a=1&a=2")]
        assert [status for status, _, _ in wrong] == [501, 403, 404]
        for status, headers, _ in before + after + wrong:
            assert headers["Content-Security-Policy"] == (
                "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
                "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
            )
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Server"] == "vrag"
            assert (headers["Content-Type"] == "application/json; charset=utf-8") or status == 200
        assert Image.open(io.BytesIO(after[-1][2])).size == (96, 64)
        page = files("vrag.cli") / "review_page"
        for asset in page.iterdir():
            text = asset.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "//" not in text.replace("// ", ""), "nothing comes from elsewhere"
            assert "innerHTML" not in text
            assert " style=" not in text


def test_no_path_leads_out(kb, tmp_path):
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        digest = find(kb, "Red").rpartition("/")[2]
        for path in (
            "/../review_server.py", "/%2e%2e/review_server.py", "//etc/passwd", "/review_page/index.html", "/index.html",
            f"/thumbnail/../{digest}", f"/thumbnail/{digest[:8]}", f"/thumbnail/{digest.upper()}", f"/thumbnail/{digest}/",
            f"/thumbnail/brand/{digest}", "/thumbnail/" + "0" * 64, "/preview/" + "f" * 64, "/api/review", "/api/", "/?",
        ):  # fmt: skip
            status, _, _ = visitor.ask("GET", path)
            assert status == (200 if path == "/?" else 404), path


def test_only_the_page_itself_can_decide(kb):
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        shoes = find(kb, "Red")
        body = json.dumps({"pictures": {shoes: -1}, "state": "approved"}).encode()

        def post(data=body, **changes):
            return visitor.ask("POST", "/api/review", data, **{**visitor.writing, **changes})[0]

        port = server.server_port
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
            assert visitor.ask("GET", "/api/assets", Sec_Fetch_Site=site)[0] == 403
        for secret in ("", "x", None, visitor.headers["Cookie"].partition("=")[2]):
            assert post(X_VRAG_Review=secret) == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", None):
            assert post(Content_Type=kind) == 415
        assert post(Cookie=None) == 403
        assert post(None) == 411
        assert post(Content_Length="-1") == 411
        assert post(Transfer_Encoding="chunked") == 411
        assert post(None, Content_Length=str(10**6)) == 413
        assert post(None, Content_Length="9" * 5000) == 413
        for broken in (b"", b"{", b"\xff", b"[" * 100_000):
            assert post(broken) == 400
        assert kb.review_of(shoes).state is ReviewState.PROPOSED
        assert post() == 200
        assert kb.review_of(shoes).state is ReviewState.APPROVED


def test_the_list_is_filtered_and_paged_in_order_of_id(kb):
    kb.review(find(kb, "Red"), ReviewState.APPROVED, by="Ana")
    kb.review(find(kb, "A dog"), ReviewState.REJECTED, by="Ana", reason="no release")
    kb.revoke(find(kb, "\uff22lue"), by="Ana", reason="asked to")
    with serving(kb) as server:
        visitor = Visitor(server).enter()

        def captions(query):
            return {asset["caption"] for asset in visitor.json(f"/api/assets?{query}")["assets"]}

        assert captions("state=approved") == {"Red shoes on a table"}
        assert captions("state=expired") == {"Sea at noon"}
        assert captions("state=rejected") == {"A dog in the snow"}
        assert captions("state=revoked") == {"\uff22lue hat"}
        assert len(captions("state=proposed")) == 2
        assert captions("query=blue") == {"\uff22lue hat"}
        assert captions("query=TABLE+shoes") == {"Red shoes on a table"}
        assert captions("query=silva&tag=t1") == {"A dog in the snow"}
        assert captions("query=img_0001") == {None}
        assert captions("tag=shop&state=approved") == {"Red shoes on a table"}
        assert captions("tag=sho") == set()
        counts = visitor.json("/api/assets")["counts"]
        assert counts == {"": 6, "proposed": 2, "approved": 1, "rejected": 1, "expired": 1, "revoked": 1}

        seen, after = [], ""
        while after is not None:
            page = visitor.json(f"/api/assets?limit=4&after={after}")
            seen += [asset["id"] for asset in page["assets"]]
            after = page["next"]
            assert len(seen) <= 6
        assert seen == [asset.id for asset in kb.assets()]
        for wrong in ("state=all", "limit=0", "limit=201", "limit=x", "limit=1e1", "nothing=1", "query=" + "x" * 201):
            assert visitor.json(f"/api/assets?{wrong}", status=400)["message"]


@pytest.mark.parametrize(("zone", "usable"), [("Etc/GMT+12", 4), ("UTC", 3), ("Pacific/Kiritimati", 2)])
def test_a_day_of_rights_ends_at_the_midnight_of_the_knowledge_base(zone, usable):
    clock = FakeClock(datetime(2026, 11, 20, 11, tzinfo=UTC))
    kb = KnowledgeBase("brand", store=FakeVectorStore(None), storage=FakeStorage(), clock=clock, time_zone=zone)
    days = [f"2026-11-{day}" for day in range(18, 23)]
    kb.ingest(
        [
            SourcePicture.from_bytes(f"{day}.jpg", jpeg(n * 30), caption=day, rights=Rights(expires_on=day))
            for n, day in enumerate(days)
        ],
        approve_by="Ana",
    )
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        for state, expected in (("approved", days[-usable:]), ("expired", days[:-usable])):
            page = visitor.json(f"/api/assets?state={state}")
            assert sorted(asset["caption"] for asset in page["assets"]) == expected
            assert {asset["review"]["state"] for asset in page["assets"]} == {state}
            assert page["matching"] == page["counts"][state] == len(expected)


def test_foreign_text_cannot_reorder_the_line(kb):
    with serving(kb, by=HOSTILE) as server:
        visitor = Visitor(server).enter()
        assert "\\u202e" in visitor.json("/api/session")["by"]
        shown = json.dumps(visitor.json("/api/assets"), ensure_ascii=False)
        assert "\u202e" not in shown


def test_a_decision_is_written_with_name_and_reason(kb):
    shoes, dog, sea = (find(kb, name) for name in ("Red", "A dog", "Sea"))
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        answer = visitor.decide(kb, [shoes, dog], "rejected", "  no\u202e release\n for the person ")
        assert not answer["failed"]
        assert {asset["review"]["state"] for asset in answer["assets"]} == {"rejected"}
        assert answer["counts"]["rejected"] == 2
        (review,) = kb.history(shoes)
        assert (review.by, review.reason, review.at[:10]) == ("Ana Silva", "no release for the person", "2026-11-20")
        visitor.decide(kb, [shoes], "approved")
        assert [one.state for one in kb.history(shoes)] == [ReviewState.REJECTED, ReviewState.APPROVED]
        (card,) = visitor.decide(kb, [sea], "approved")["assets"]
        assert card["review"]["state"] == "expired", "approving does not lengthen a licence"
        assert server.desk.made == {"rejected": 2, "approved": 1}


def test_what_somebody_else_decided_meanwhile_is_not_overridden_unseen(kb):
    shoes, dog, hat = (find(kb, name) for name in ("Red", "A dog", "\uff22lue"))
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        kb.review(shoes, ReviewState.REJECTED, by="Bo", reason="no release")
        kb.revoke(hat, by="Bo", reason="asked to")
        answer = visitor.decide(kb, {shoes: -1, hat: 0, "brand/" + "0" * 64: -1, dog: -1}, "approved")
        assert [one["id"] for one in answer["failed"]] == [shoes, hat, "brand/" + "0" * 64]
        messages = [one["message"] for one in answer["failed"]]
        assert messages[0] == "Bo decided about it meanwhile: it is rejected."
        assert "revoked" in messages[1]
        assert {asset["review"]["state"] for asset in answer["assets"]} == {"rejected", "revoked", "approved"}
        assert kb.review_of(shoes).state is ReviewState.REJECTED
        assert kb.review_of(dog).state is ReviewState.APPROVED


@pytest.mark.parametrize(
    "body",
    [
        [], None, "x", {}, {"pictures": {}, "state": "approved"}, {"pictures": [], "state": "approved"},
        {"pictures": {"ID": 0}, "state": "revoked"}, {"pictures": {"ID": 0}, "state": "proposed"}, {"pictures": {"ID": 0}, "state": None},
        {"pictures": {"ID": True}, "state": "approved"}, {"pictures": {"ID": "0"}, "state": "approved"}, {"pictures": {"ID": -1}, "state": "rejected"},
        {"pictures": {"ID": -1}, "state": "rejected", "reason": " \u202e "}, {"pictures": {"ID": -1}, "state": "approved", "reason": ["x"]},
        {"pictures": {"ID": -1}, "state": "approved", "reason": "x" * 501}, {"pictures": {"ID": -1}, "state": "approved", "by": "Eve"},
        {"pictures": {"other/" + "0" * 64: -1}, "state": "approved"}, {"pictures": {"00000000": -1}, "state": "approved"},
        {"pictures": {f"brand/{n:064x}": -1 for n in range(501)}, "state": "approved"},
    ],
)  # fmt: skip
def test_a_decision_that_is_none_is_refused(kb, body):
    shoes = find(kb, "Red")
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        text = json.dumps(body).replace('"ID"', json.dumps(shoes)).encode()
        status, _, data = visitor.ask("POST", "/api/review", text, **visitor.writing)
        assert status == 400
        assert json.loads(data)["message"]
        assert not kb.history(shoes)


def test_reviews_that_cannot_be_read_are_shown_and_not_decided(kb):
    shoes = find(kb, "Red")
    kb.review(shoes, ReviewState.APPROVED, by="Ana")
    kb._storage.tamper(f"reviews/{shoes.rpartition('/')[2]}/000000.json", b"{")
    with serving(kb) as server:
        visitor = Visitor(server).enter()
        (card,) = visitor.json("/api/assets?query=shoes")["assets"]
        assert (card["review"]["state"], card["review"]["sequence"]) == ("unreadable", None)
        assert "cannot be read" in card["problem"]
        (failed,) = visitor.decide(kb, {shoes: 0}, "approved")["failed"]
        assert failed["error"] == "verification"


def test_done_ends_the_review_and_counts_it(kb):
    said = []
    result = []
    heard = threading.Event()

    def say(line):
        said.append(line)
        if "Stop" in line:
            heard.set()

    thread = threading.Thread(target=lambda: result.append(review_web(kb, by="Ana", say=say, clock=FakeClock(NOON))))
    thread.start()
    assert heard.wait(10)
    assert "this machine only" in said[0]

    class Printed:
        url = said[1]
        server_port = int(said[1].split(":")[2].partition("/")[0])

    visitor = Visitor(Printed).enter()
    kept = http.client.HTTPConnection("127.0.0.1", Printed.server_port, timeout=10)
    kept.request("GET", "/", headers=visitor.headers)
    assert kept.getresponse().read()
    visitor.decide(kb, [find(kb, "Red")], "approved")
    status, _, data = visitor.ask("POST", "/api/done", b"{}", **visitor.writing)
    assert (status, json.loads(data)) == (200, {"decided": {"approved": 1}})
    thread.join(10)
    assert result == [{"approved": 1}]
    kept.request("GET", "/", headers=visitor.headers)
    assert kept.getresponse().status == 503, "a connection that was left open reads nothing more"
    kept.close()


def test_ctrl_c_ends_it_too():
    code = (
        "from vrag.cli.review_server import review_web\n"
        "from vrag.knowledge.knowledge_base import KnowledgeBase\n"
        "from vrag.testing import FakeStorage, FakeVectorStore\n"
        "kb = KnowledgeBase('brand', store=FakeVectorStore(None), storage=FakeStorage())\n"
        "print(review_web(kb, by='Ana', say=lambda line: print(line, flush=True)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(vrag.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as running:
        for line in running.stdout:
            if line.startswith("Stop"):
                break
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=20)[0] == "{}\n"
        assert running.returncode == 0


def test_it_does_not_start_without_a_name_or_a_port(kb):
    for by in ("", "  "):
        with pytest.raises(UsageError, match="who decides"):
            ReviewServer(kb, by=by)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be used"):
            ReviewServer(kb, by="Ana", port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="65536"):
        ReviewServer(kb, by="Ana", port=65536)


# -- in a real browser


@contextmanager
def opened(browser, kb, *, quiet=True, decide=None, **options):
    """The page, as a person has it in front of them after the link; it may complain about nothing.

    `decide` takes the requests that decide; set before the page is loaded, so that none slips through.
    """
    options.setdefault("viewport", {"width": 1280, "height": 900})
    with serving(kb) as server:
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if decide is not None:
            page.route("**/api/review", decide)
        page.goto(server.url)
        page.wait_for_url(f"http://127.0.0.1:{server.server_port}/")
        page.locator("article").first.wait_for()
        yield page
        context.close()
        assert not quiet or complaints == []


def focused(page):
    return page.evaluate("document.activeElement.querySelector('h3')?.textContent")


def status_says(page, words):
    page.locator("#status").filter(has_text=words).wait_for()


def test_a_person_approves_and_rejects_with_the_keyboard_alone(browser, kb):
    with opened(browser, kb) as page:
        first, second = page.locator("#grid h3").nth(0).text_content(), page.locator("h3").nth(1).text_content()
        ids = [asset.id for asset in kb.assets() if kb.review_of(asset.id).state is ReviewState.PROPOSED]
        assert page.locator("article").count() == 5, "what is proposed is shown first"
        assert focused(page) == first, "the first picture has the focus"
        page.keyboard.press("a")
        status_says(page, "Approved: ")
        assert kb.review_of(ids[0]).by == "Ana Silva"
        assert kb.review_of(ids[0]).state is ReviewState.APPROVED
        assert page.locator(".badge").nth(0).text_content().endswith("approved")
        assert page.locator("#count-approved").text_content() == "1"
        assert page.locator("#count-proposed").text_content() == "4"
        assert focused(page) == second, "and the next one is at hand"

        page.keyboard.press("r")
        assert page.evaluate("document.activeElement.id") == "reason"
        page.keyboard.press("Enter")
        assert page.locator("#ask").is_visible(), "a rejection needs a reason"
        page.keyboard.type("a, r and x are letters here")
        page.keyboard.press("Enter")
        status_says(page, "Rejected: ")
        assert kb.review_of(ids[1]).reason == "a, r and x are letters here"

        page.keyboard.press("ArrowLeft")
        page.keyboard.press("k")
        assert focused(page) == first
        page.keyboard.press("r")
        page.keyboard.type("on second thoughts")
        page.keyboard.press("Enter")
        page.locator("#count-rejected").filter(has_text="2").wait_for()
        assert [review.state for review in kb.history(ids[0])] == [ReviewState.APPROVED, ReviewState.REJECTED]

        page.keyboard.press("End")
        page.keyboard.press("Enter")
        assert page.locator("#detail").is_visible()
        assert page.locator("#detail-image").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
        page.keyboard.press("a")
        page.locator("#detail-badge", has_text="approved").wait_for()
        page.locator("#detail-status", has_text="Approved: ").wait_for()
        page.keyboard.press("Escape")
        assert kb.review_of(ids[4]).state is ReviewState.APPROVED
        page.locator("article:focus").wait_for()


def test_a_selection_is_decided_at_once(browser, kb):
    with opened(browser, kb) as page:
        page.keyboard.press("x")
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("Shift+X")
        assert page.locator("#selected").text_content() == "3 selected"
        page.keyboard.press("a")
        assert page.locator("#ask-title").text_content() == "Approve 3 pictures"
        page.keyboard.press("Enter")
        status_says(page, "Approved: 3 pictures")
        assert page.locator("#selection").is_hidden()
        page.get_by_role("button", name="Select all shown").click()
        page.locator("#reject-selected").click()
        page.locator("#reason").fill("not ours")
        page.get_by_role("button", name="Reject", exact=True).click()
        status_says(page, "Rejected: 5 pictures")
        states = [kb.review_of(asset.id).state for asset in kb.assets()]
        assert states.count(ReviewState.REJECTED) == 5
        page.get_by_role("button", name="Done").click()
        page.get_by_text("The server has stopped").wait_for()
        assert "3 approved, 5 rejected" in page.locator("main").text_content()


def test_filters_by_state_words_and_tag(browser, kb):
    with opened(browser, kb) as page:
        page.get_by_role("radio", name="Expired 1").check()
        page.locator("h3", has_text="Sea at noon").wait_for()
        assert page.locator("article").count() == 1
        assert page.get_by_text("rights ended with 2026-11-19").is_visible()
        page.get_by_role("button", name="Approve", exact=True).click()
        page.locator("#problem", has_text="stayed expired").wait_for()
        page.get_by_role("radio", name="All 6").check()
        page.locator("article").nth(5).wait_for()
        page.keyboard.press("Tab")
        page.locator("article").first.focus()
        page.keyboard.press("/")
        page.keyboard.type("red table")
        page.keyboard.press("Enter")
        page.locator("#heading", has_text="1 picture").wait_for()
        assert page.locator("#grid h3").all_text_contents() == ["Red shoes on a table"]
        page.locator("#query").fill("nowhere")
        page.get_by_text("No picture here.").wait_for()
        page.locator("#query").fill("")
        page.locator("#tag").fill("t1")
        page.locator("#heading", has_text="1 picture").wait_for()
        assert page.locator("#grid h3").all_text_contents() == ["A dog in the snow"]


def test_hostile_words_stay_words_and_every_picture_has_its_words(browser, kb):
    with opened(browser, kb) as page:
        page.get_by_role("radio", name="All").check()
        page.locator("article").nth(5).wait_for()
        hostile = page.locator("article", has_text="onerror").first
        hostile.scroll_into_view_if_needed()
        hostile.focus()
        page.keyboard.press("Enter")
        page.locator("#detail-title", has_text="<script>").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("r")
        page.locator("#reason").fill(HOSTILE)
        page.keyboard.press("Enter")
        status_says(page, "Rejected: <script>")
        assert page.title() == "brand: review pictures"
        assert page.locator("script").count() == 1
        assert page.locator("[onerror]").count() == 0
        alts = page.locator("#grid img").evaluate_all("images => images.map(image => image.alt)")
        assert {"Red shoes on a table", "uncaptioned: IMG_0001.jpg"} < set(alts)
        assert all(alts)


def test_a_decision_of_somebody_else_is_shown_instead(browser, kb):
    with opened(browser, kb) as page:
        first = next(asset.id for asset in kb.assets() if kb.review_of(asset.id).state is ReviewState.PROPOSED)
        kb.review(first, ReviewState.REJECTED, by="Bo", reason="no release")
        page.keyboard.press("a")
        page.locator("#problem", has_text="Bo decided about it meanwhile: it is rejected.").wait_for()
        assert page.locator("article").first.get_by_text("no release").is_visible()
        assert kb.review_of(first).state is ReviewState.REJECTED


def test_a_slow_answer_leaves_the_person_where_they_are(browser, kb):
    held = []
    with opened(browser, kb, decide=lambda route: held.append(route)) as page:  # noqa: PLW0108  # functions alone
        page.keyboard.press("a")
        page.locator("[aria-busy]").wait_for()
        assert page.locator(".badge").first.text_content().endswith("proposed"), "not before it is written"
        page.keyboard.press("End")
        here = focused(page)
        page.keyboard.press("a")
        held.pop().continue_()
        status_says(page, "Approved: ")
        assert focused(page) == here
        assert held == [], "a key that is pressed twice decides once"


def test_a_server_that_is_gone_is_said(browser, kb):
    with opened(browser, kb, quiet=False, decide=lambda route: route.abort()) as page:
        page.keyboard.press("a")
        page.locator("#problem", has_text="The server does not answer").wait_for()
        assert page.locator(".badge").first.text_content().endswith("proposed"), "nothing is shown that was not taken"


def test_the_link_works_from_another_page_and_no_page_reads_or_frames_it(browser, kb):
    with serving(kb) as server:

        class Elsewhere(BaseHTTPRequestHandler):
            def do_GET(self):
                body = f'<a href="{server.url}">open</a><iframe src="{server.url.partition("?")[0]}"></iframe>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
            threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"http://localhost:{other.server_port}/")
            page.get_by_text("open").click()
            page.locator("article").first.wait_for()
            second = context.new_page()
            second.goto(f"http://localhost:{other.server_port}/")
            read = f"fetch('http://127.0.0.1:{server.server_port}/api/session').then(() => 'read', () => 'refused')"
            assert second.evaluate(read) == "refused"
            assert second.frames[1].locator("article").count() == 0
            assert browser.new_context().request.get(server.url).status == 403, "the link was used"
            context.close()
            other.shutdown()


@pytest.mark.parametrize("width_px", [320, 360, 1280])
def test_nothing_is_wider_than_the_screen(browser, kb, width_px):
    with opened(browser, kb, viewport={"width": width_px, "height": 800}) as page:
        page.get_by_role("radio", name="All").check()
        page.locator("article").nth(5).wait_for()
        page.get_by_role("button", name="Select all shown").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        assert page.evaluate("document.querySelector('#selection').getBoundingClientRect().right") <= width_px
        for key, dialog in (("Enter", "#detail"), ("r", "#ask"), ("?", "#help")):
            page.locator("article").first.focus()
            page.keyboard.press(key)
            box = page.locator(dialog).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width_px
            assert page.evaluate("d => d.scrollWidth - d.clientWidth", page.locator(dialog).element_handle()) <= 0
            page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, kb, scheme):
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-core: pip install '.[dev]'")
    axe = (files(package) / "axe.min.js").read_text(encoding="utf-8")
    kb.review(find(kb, "Red"), ReviewState.APPROVED, by="Ana")
    kb.review(find(kb, "A dog"), ReviewState.REJECTED, by="Ana", reason="no release")
    kb.revoke(find(kb, "\uff22lue"), by="Ana", reason="asked to")
    with opened(browser, kb, color_scheme=scheme, reduced_motion="reduce") as page:
        page.evaluate(axe)

        def check(what):
            found = page.evaluate("axe.run()")
            assert len(found["passes"]) > 15
            bad = [
                (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]
            ]
            assert [one for one in bad if one[1] in {"serious", "critical"}] == [], what

        page.get_by_role("radio", name="All").check()
        page.locator("article").nth(5).wait_for()
        check("the list")
        page.get_by_role("button", name="Select all shown").click()
        page.locator("article").first.focus()
        check("a selection")
        for key, dialog in (("Enter", "#detail"), ("r", "#ask"), ("?", "#help")):
            page.locator("article").first.focus()
            page.keyboard.press(key)
            page.locator(dialog).wait_for()
            check(dialog)
            page.keyboard.press("Escape")
        page.locator("#query").fill("nowhere")
        page.get_by_text("No picture here.").wait_for()
        check("nothing found")
