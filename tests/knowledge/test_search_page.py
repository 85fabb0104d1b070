"""The page of an answer: complete, escaped, without anything from outside, and pleasant in a browser."""

import re
from html.parser import HTMLParser

import pytest

from vrag.knowledge.notebook import POLICY, SearchView, search_page
from vrag.knowledge.sources import SourcePicture

HOSTILE = "<img src=x onerror=alert(1)> \"dog\" 'quoted' \u202egod & </style><script>"


class Pictures(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.found.append(dict(attributes))


@pytest.fixture
def kb(tmp_path, local_kb, jpeg):
    kb = local_kb(tmp_path)
    source = [
        SourcePicture.from_bytes("a.jpg", jpeg(1), caption="brown dog"),
        SourcePicture.from_bytes("b.jpg", jpeg(2), caption=HOSTILE),
    ]
    kb.ingest(source, approve_by="ann")
    return kb


def test_hits_show_thumbnail_caption_score_and_state(kb):
    page = search_page(kb, kb.search("dog"))
    read = Pictures()
    read.feed(page)
    assert read.found[0]["alt"] == "brown dog"
    assert all(picture["src"].startswith("data:image/jpeg;base64,") for picture in read.found)
    assert len(read.found) == 2
    assert "script" not in read.tags
    assert not any("onerror" in picture for picture in read.found)
    assert "\u202e" not in page
    assert f'content="{POLICY}"' in page
    for shown in ("approved", "score 0.", "cosine ", "words: dog"):
        assert shown in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_a_refusal_shows_its_reasons_and_the_nearest(kb):
    page = SearchView(knowledge_base=kb, result=kb.search("red shoes <b>"))._repr_html_()
    assert "No suitable picture" in page
    assert "&lt;b&gt;" in page
    assert "none of these is used" in page
    assert page.count("<img") >= 1


def test_a_picture_whose_bytes_are_gone_is_still_listed(kb):
    result = kb.search("brown dog")
    kb._storage.delete(result.hits[0].asset.original)
    assert "its bytes cannot be shown" in search_page(kb, result)


def test_it_opens_in_a_browser_without_a_complaint(browser, kb, tmp_path):
    (tmp_path / "page.html").write_text(search_page(kb, kb.search("dog")), encoding="utf-8")
    page = browser.new_page(viewport={"width": 400, "height": 700})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("li img").evaluate_all("them => them.every(one => one.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("li .state").first.evaluate("one => getComputedStyle(one).borderRadius") != "0px"
    page.close()
    assert complaints == []
