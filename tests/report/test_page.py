"""The page of a video: everything foreign stays text, the policy allows no script, and a browser plays the film."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.report.markup import Markup, data_url, element, link_target, relative_url
from vrag.provenance.report.page import Picture, VideoPage, figure, video_page
from vrag.provenance.report.text import visible
from vrag.provenance.verify import Check, Verification
from vrag.values.assets import Asset, ReviewState
from vrag.values.briefs import Brief, Conformed, PlannedVideo, Source
from vrag.values.requests import Estimate, Input, ModelRef, Problem, Shot, VideoRequest
from vrag.values.vectors import Candidate, Hit, Refusal

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"'`\u202eslived"


def _jpeg(colour: tuple[int, int, int], width_px: int = 320, height_px: int = 180) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width_px, height_px), colour).save(out, "JPEG")
    return out.getvalue()


def _film(path: Path, *, frames: int = 72) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        across = np.tile(np.arange(1280, dtype=np.uint16), (720, 1))
        for number in range(frames):
            shade = ((across + 8 * number) % 256).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.dstack([shade, shade, 255 - shade]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _page(*, words: str = HOSTILE, video_url: str = "./film.mp4", ok: bool = True, trusted: bool = True) -> VideoPage:
    picture = _jpeg((40, 90, 140))
    ref = MediaRef(
        sha256=sha256_hex(picture), media_type="image/jpeg", size_bytes=len(picture), width_px=1600, height_px=1067
    )
    ids = [f"brand/{number:064x}" for number in range(3)]
    request = VideoRequest(shots=(Shot(prompt=f"{words}, pans down", inputs=(Input(role="start_frame", media=ref),)),))
    asset = Asset(
        id=ids[1], knowledge_base="brand", original=ref, file_name=words, caption=words, ingested_at="2026-11-20"
    )
    planned = PlannedVideo(
        step_id="a" * 64,
        brief=Brief(object_prompt=words, action_prompt="pans down", knowledge_base="brand"),
        generator="camera",
        model=ModelRef(provider="local", id=words),
        request=request,
        sources=(
            Source(
                asset_id=ids[0],
                knowledge_base="brand",
                role="start_frame",
                original=ref,
                conformed=Conformed(media=ref, crop_px=(0, 83, 1600, 983), mode="cover", upscaled=True),
                review_sequence=0,
                caption=words,
                file_name=words,
            ),
        ),
        candidates=(
            Candidate(asset_id=ids[0], cosine=0.71, word_rank=1, fused_score=0.27, chosen=True),
            Candidate(asset_id=ids[1], cosine=0.2, fused_score=0.1),
            Candidate(asset_id=ids[2], excluded=words),
        ),
        estimate=Estimate(usd_micros=0),
        unmet=(Problem(kind="unmet", field="look.mood", message=words),),
        notes=(words,),
    )
    return VideoPage(
        planned=planned,
        media=MediaRef(
            sha256="f" * 64, media_type="video/mp4", size_bytes=1, width_px=1280, height_px=720, duration_s=3.0
        ),
        video_url=video_url,
        pictures={
            asset_id: Picture(
                image=_jpeg((40 * number, 90, 140)),
                caption=words,
                credit=words,
                licence="CC-BY-4.0",
                licence_url="https://creativecommons.org/licenses/by/4.0/"
                if number
                else "javascript:document.title='owned'",
                review=words,
            )
            for number, asset_id in enumerate(ids)
        },
        verification=Verification(
            checks=(
                Check(name="signature", ok=True, detail="one changed byte would show", promise="It is what was signed"),
                Check(name="video", ok=ok, detail=words, promise="It is this video"),
                Check(name="ledger", ok=None, detail="no workspace was given", promise="It is in the ledger"),
            ),
            trusted=trusted,
        ),
        record={"text": words, "</code></pre><script>": "</script>"},
        made_at="2026-11-20T12:00:00.000000Z",
        check_command=f"vrag verify {words}",
        refusals=(
            Refusal(
                query=words,
                reasons=(words,),
                candidates=(Hit(asset=asset, review=ReviewState.APPROVED, cosine=0.1, fused_score=0.1, why=words),),
            ),
        ),
    )


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _seen(html: str) -> _Seen:
    seen = _Seen()
    seen.feed(html)
    seen.close()
    assert not seen.open, "every element is closed"
    return seen


def test_hostile_words_make_no_element_no_attribute_and_no_link() -> None:
    tame, hostile = _seen(video_page(_page(words="x"))), _seen(video_page(_page()))
    assert [(tag, set(given)) for tag, given in hostile.tags] == [(tag, set(given)) for tag, given in tame.tags]
    assert not [tag for tag, _ in hostile.tags if tag == "script"]
    assert not [name for _, given in hostile.tags for name in given if name.startswith("on") or name == "style"]
    links = [given["href"] for tag, given in hostile.tags if tag == "a"]
    assert all(link and link.startswith("https://") for link in links)
    assert "\u202e" not in video_page(_page())


def test_the_policy_allows_the_one_style_sheet_and_no_script() -> None:
    html = video_page(_page())
    policy = next(given["content"] or "" for tag, given in _seen(html).tags if given.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert html.count("<style>") == 1


def test_a_person_who_does_not_see_it_gets_it_too() -> None:
    html = video_page(_page(words="red shoes"))
    seen = _seen(html)
    assert dict(seen.tags)["html"] == {"lang": "en"}
    assert next(tag for tag, _ in seen.tags if tag in {"h1", "h2"}) == "h1"
    assert sum(tag == "h1" for tag, _ in seen.tags) == 1
    assert all("alt" in given for tag, given in seen.tags if tag == "img")
    assert all(given.get("scope") for tag, given in seen.tags if tag == "th")
    assert any(tag == "main" for tag, _ in seen.tags)
    assert "red shoes" in next(given["aria-label"] or "" for tag, given in seen.tags if tag == "video")
    assert "prefers-color-scheme: dark" in html
    assert "prefers-reduced-motion" in html


@pytest.mark.parametrize(
    ("ok", "trusted", "words"),
    [(True, True, "Verified:"), (True, False, "is not known here"), (False, True, "Not verified")],
)
def test_the_verdict_is_said_in_words(ok: bool, trusted: bool, words: str) -> None:
    html = video_page(_page(words="x", ok=ok, trusted=trusted))
    assert words in html
    assert ('class="card good"' in html) == (ok and trusted)


@given(st.text())
def test_any_text_is_one_text_node_and_encodes(text: str) -> None:
    collected: list[str] = []

    class Text(HTMLParser):
        def handle_data(self, data: str) -> None:
            collected.append(data)

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert tag == "p"
            assert dict(attrs) == {"title": visible(text, keep="\n\t")}

    parser = Text()
    parser.feed(element("p", text, title=text))
    parser.close()
    assert "".join(collected) == visible(text, keep="\n\t")
    visible(text).encode()
    assert visible(text).isprintable() or any(joiner in text for joiner in "\u200c\u200d") or not text.isprintable()
    assert "\n" not in visible(text)


def test_urls_stay_what_they_are() -> None:
    assert relative_url("javascript:alert(1).mp4") == "./javascript%3Aalert%281%29.mp4"
    assert relative_url("//evil.example/x") == "./evil.example/x"
    assert link_target("https://creativecommons.org/licenses/by/4.0/")
    for other in (
        "javascript:x",
        "http://a.example",
        "https://a@b.example/",
        "data:text/html,x",
        " https://a.example",
        None,
    ):
        assert link_target(other) is None
    with pytest.raises(ValueError, match="JPEG and PNG"):
        data_url(b"<svg onload=alert(1)>")
    with pytest.raises(ValueError, match="onclick"):
        element("p", onclick="x")


def test_an_attribute_is_escaped_even_when_it_is_markup() -> None:
    assert element("p", title=Markup('"><b>')) == '<p title="&quot;&gt;&lt;b&gt;"></p>'


def test_a_notebook_gets_a_fragment_with_film_and_picture() -> None:
    html = figure(b"\0\0", _jpeg((1, 2, 3)), _page().planned)
    assert [tag for tag, _ in _seen(html).tags] == ["figure", "video", "img", "figcaption"]
    assert [tag for tag, _ in _seen(figure(b"\0\0", None, _page().planned)).tags] == ["figure", "video", "figcaption"]


# -- in a real browser


@pytest.mark.parametrize("embedded", [False, True])
def test_a_browser_plays_the_film_and_runs_nothing(browser: Any, tmp_path: Path, embedded: bool) -> None:
    _film(tmp_path / "film.mp4")
    url = data_url((tmp_path / "film.mp4").read_bytes(), "video/mp4") if embedded else relative_url("film.mp4")
    (tmp_path / "page.html").write_text(video_page(_page(video_url=url)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    title = page.title()
    played = page.evaluate(
        """async () => {
            const film = document.querySelector('video');
            await film.play();
            await new Promise(done => film.requestVideoFrameCallback(() => film.requestVideoFrameCallback(done)));
            return {frames: film.getVideoPlaybackQuality().totalVideoFrames, width: film.videoWidth, at: film.currentTime};
        }"""
    )
    assert played["frames"] > 0
    assert played["width"] == 1280
    assert page.evaluate(
        "[...document.querySelectorAll('main figure img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert page.title() == title != "owned"
    assert complaints == []
    assert page.evaluate("getComputedStyle(document.body).margin") == "0px", "the style sheet was let in"
    page.close()


@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Any, tmp_path: Path, width_px: int) -> None:
    (tmp_path / "page.html").write_text(video_page(_page(words="x" * 300)), encoding="utf-8")
    page = browser.new_page(viewport={"width": width_px, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    page.close()
