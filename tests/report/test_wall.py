"""The report in a real browser: films play, words stay text, nothing is fetched, everybody can use it, evidence verifies."""

from __future__ import annotations

import base64
import io
import json
import re
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from PIL import Image

from vrag.cli import main
from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.lineage import Edge, LineageGraph, Node
from vrag.provenance.report.page import Picture, ShownEdit, VideoPage, video_page
from vrag.provenance.report.wall import Report, report_page, video_wall
from vrag.provenance.staleness import Staleness
from vrag.provenance.statement import KEYED
from vrag.provenance.verify import SAME_VIDEO, Check, Verification, verify_file
from vrag.values.briefs import AppliedEdit, Brief, Conformed, PlannedVideo, Source
from vrag.values.requests import Estimate, Input, ModelRef, Shot, VideoRequest
from vrag.values.vectors import Candidate

PLAY = """async video => {
    await video.play();
    await new Promise(done => video.requestVideoFrameCallback(() => video.requestVideoFrameCallback(done)));
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    video.pause();
    return [frames > 0, video.videoWidth, video.videoHeight];
}"""


@pytest.fixture(scope="module")
def written(studio, tmp_path_factory):
    """The report of the workspace, films inside."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["report", "-o", str(path), "--workspace", str(studio.folder)]) == 0
    html = path.read_text(encoding="utf-8")
    keys = {name: re.search(rf'id="(video-{step[:12]}-\d+)"', html)[1] for name, step in vars(studio.ids).items()}
    return SimpleNamespace(path=path, html=html, keys=SimpleNamespace(**keys))


@contextmanager
def opened(browser, path, fragment="", **options):
    """A page; whatever it asks for beside itself, and whatever it complains about, is an error."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = context.new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: seen.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(f"{path.as_uri()}{fragment}")
    yield page
    context.close()
    folder = path.parent.as_uri()
    assert [one for one in seen if not one.startswith(folder)] == []


def test_each_film_plays(browser, written):
    with opened(browser, written.path) as page:
        for name, size in (("plain", [320, 180]), ("hostile", [320, 180]), ("erased", [180, 320])):
            page.goto(f"{written.path.as_uri()}#{getattr(written.keys, name)}")
            film = page.locator("article:target video")
            assert film.evaluate("v => [v.autoplay, v.paused, v.controls]") == [False, True, True]
            assert film.evaluate(PLAY) == [True, *size]
        assert page.locator("article video").count() == 3, "the withheld film is not in the page"


def test_words_stay_text(browser, studio, written):
    with opened(browser, written.path) as page:
        assert page.title() == "Videos made from vetted pictures"
        tile = page.get_by_role("link", name=re.compile("dandelion"))
        assert f"dandelion, {studio.hostile}" in tile.inner_text()
        tile.click()
        assert page.locator("article:target h2").inner_text() == f"dandelion, {studio.hostile}"
        assert page.title() == "Videos made from vetted pictures"
        assert page.locator("script, iframe, object, embed, form, base, link").count() == 0
        assert page.evaluate("document.querySelectorAll('[onerror],[onload],[onclick],[style]').length") == 0


def test_the_policy_lets_nothing_in(written):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written.html)[1]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; img-src data:; media-src data:; "
        r"base-uri 'none'; form-action 'none'",
        policy,
    )
    assert not re.findall(r'(?:src|href|poster)="(?!data:|#|https://creativecommons)[^"]*"', written.html)


def test_tiles_open_and_close_by_keyboard_and_history(browser, written):
    with opened(browser, written.path) as page:
        wall = page.locator("#videos")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        shown = page.locator("article:target")
        shown.wait_for()
        assert not wall.is_visible()
        assert page.locator("article:visible").count() == 1
        page.get_by_role("link", name="Next").click()
        assert page.locator("article:visible").count() == 1
        page.go_back()
        page.go_back()
        wall.wait_for()
        assert page.locator("article:visible").count() == 0
        page.keyboard.press("Tab")
        page.locator("#videos a").first.focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="All videos").press("Enter")
        assert wall.is_visible()


def test_the_evidence_downloads_and_verifies(browser, studio, written, tmp_path):
    from vrag import VRAGPipeline
    from vrag.provenance.signing import export_public_key_pem

    with opened(browser, written.path, f"#{written.keys.plain}", accept_downloads=True) as page:
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download the evidence").click()
        film = tmp_path / waiting.value.suggested_filename.removesuffix(".vrag.json")
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
        source = page.locator("article:target video").get_attribute("src")
        film.write_bytes(base64.b64decode(source.partition(",")[2]))
    with VRAGPipeline.local(studio.folder) as pipeline:
        key = export_public_key_pem(pipeline._signer)
    found = verify_file(film, trusted_keys=[key])
    assert (found.ok, found.trusted, found.record_id) == (True, True, studio.ids.plain)
    film.write_bytes(film.read_bytes()[:-1] + b"?")
    assert verify_file(film, trusted_keys=[key]).first_failure.promise == SAME_VIDEO


def others(folder: Path) -> Path:
    """A report of videos that were edited, joined, and do not verify."""
    path = folder / "others.html"
    long = evolve(joined(), file_name="x" * 200)
    path.write_text(report_page(Report(videos=[edited(), long, broken()], made_at="2026-11-20T12:00:00Z")), "utf-8")
    return path


def fragments(path: Path) -> list[str]:
    found = [f"#{key}" for key in re.findall(r'<article id="([^"]+)"', path.read_text(encoding="utf-8"))]
    assert len(found) > 2
    return found


@pytest.mark.parametrize(
    ("scheme", "step"),
    [("light", 4), ("dark", 4), *(pytest.param(scheme, 1, marks=pytest.mark.slow) for scheme in ("light", "dark"))],
)
def test_axe_finds_nothing_serious(browser, written, scheme, step, tmp_path):
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-core: pip install '.[dev]'")
    axe = (files(package) / "axe.min.js").read_text(encoding="utf-8")
    for path in (written.path, others(tmp_path)):
        with opened(browser, path, color_scheme=scheme, reduced_motion="reduce") as page:
            page.evaluate(axe)
            page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            for fragment in ("", *fragments(path))[::step]:
                page.goto(f"{path.as_uri()}{fragment or '#'}")
                # What the dark scheme changes is colour.
                found = page.evaluate("axe.run()" if scheme == "light" else "axe.run({runOnly: ['color-contrast']})")
                assert len(found["passes"]) > (10 if scheme == "light" else 0)
                bad = [
                    (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]])
                    for one in found["violations"]
                ]
                assert [one for one in bad if one[1] in {"serious", "critical"}] == [], fragment
                assert "heading-order" not in {one[0] for one in bad}, fragment


@pytest.mark.parametrize("width_px", [320, 360, 768])
def test_nothing_is_wider_than_the_screen(browser, written, width_px, tmp_path):
    for path in (written.path, others(tmp_path)):
        with opened(browser, path, viewport={"width": width_px, "height": 800}) as page:
            for fragment in ("#", *fragments(path)):
                page.goto(f"{path.as_uri()}{fragment}")
                assert page.locator("article:visible").count() == (fragment != "#")
                assert page.evaluate("document.documentElement.scrollWidth") <= width_px, fragment


def test_a_withheld_video_shows_why_and_no_film(browser, written):
    with opened(browser, written.path, f"#{written.keys.withheld}") as page:
        text = page.locator("article:target").inner_text()
        assert page.locator("article:target video").count() == 0
    assert "Withheld" in text
    assert "consent was withdrawn" in text
    assert "Verified: the record is whole; it says that this video was withheld." in text
    assert "Picture revoked" in text


def test_erased_words_show_as_digests(browser, written):
    with opened(browser, written.path, f"#{written.keys.erased}") as page:
        text = page.locator("article:target").inner_text()
        wall = page.locator("body").inner_text()
    assert text.count("Words erased") == 1
    assert re.search(r"The words were erased\..*\n[0-9a-f]{64}", text)
    assert "zooms in" not in wall
    assert "does not say" not in text, "a reason would repeat a word of the query"


def test_a_changed_film_is_red_and_names_the_broken_promise(browser, studio, copied, tmp_path, capsys):
    from vrag.workspace import Workspace

    workspace = Workspace(copied)
    delivered = workspace.journal.get(studio.ids.plain).delivered
    gone = workspace.journal.get(studio.ids.hostile).delivered
    workspace.close()
    (changed,) = (file for file in copied.rglob(delivered.sha256))
    changed.chmod(0o644)
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    (missing,) = (file for file in copied.rglob(gone.sha256))
    missing.unlink()
    path = tmp_path / "report.html"
    assert main(["report", "-o", str(path), "--workspace", str(copied), "--json"]) == 5
    said = {one["id"]: one["ok"] for one in json.loads(capsys.readouterr().out)["videos"]}
    assert said == {
        studio.ids.plain: False, studio.ids.hostile: False, studio.ids.erased: True, studio.ids.withheld: True,
    }  # fmt: skip
    assert str(copied) not in path.read_text(encoding="utf-8"), "no folder of this machine stands in the page"
    with opened(browser, path) as page:
        assert page.get_by_text("not verified", exact=False).count() >= 2
        page.get_by_role("link", name=re.compile("snowy")).click()
        card = page.locator("article:target .card.bad")
        assert f"Broken: {SAME_VIDEO}." in card.inner_text()
        red, green, _ = map(int, re.findall(r"\d+", card.evaluate("one => getComputedStyle(one).borderColor"))[:3])
        assert red > 3 * green


def test_large_films_lie_beside_the_page_and_it_says_so(browser, studio, tmp_path, capsys):
    path = tmp_path / "out" / "november.html"
    path.parent.mkdir()
    asked = ["report", "-o", str(path), "--workspace", str(studio.folder), "--embed-mb", "0"]
    assert main(asked) == 0
    folder = path.parent / "november-films"
    assert str(folder) in capsys.readouterr().out
    films = sorted(folder.glob("*.mp4"))
    assert len(films) == 3
    for film in films:
        assert verify_file(film).ok
    html = path.read_text(encoding="utf-8")
    assert "media-src 'self' data:" in html
    with opened(browser, path) as page:
        assert "november-films" in page.locator("header").inner_text()
        page.get_by_role("link", name=re.compile("snowy")).click()
        assert page.locator("article:target video").evaluate(PLAY) == [True, 320, 180]
    assert main(asked) != 0, "nothing is written over unasked"
    assert main([*asked, "--overwrite"]) == 0


def test_a_report_holds_what_was_asked_for(studio, tmp_path, capsys):
    def ids(*asked: str) -> set[str]:
        capsys.readouterr()
        path = tmp_path / "some.html"
        where = ["--workspace", str(studio.folder), "-o", str(path), "--overwrite", "--json"]
        assert main(["report", *asked, *where]) == 0
        return {one["id"] for one in json.loads(capsys.readouterr().out)["videos"]}

    everything = set(vars(studio.ids).values())
    assert ids() == ids("--kb", "brand") == ids("--since", "2020-01-01") == everything
    assert ids("--kb", "other") == ids("--until", "2020-01-01") == set()
    assert "There is no such video." in (tmp_path / "some.html").read_text(encoding="utf-8")
    assert ids("--video", studio.ids.plain[:10]) == {studio.ids.plain}
    assert ids("--video", studio.ids.plain, "--video", studio.ids.erased) == {studio.ids.plain, studio.ids.erased}


def test_a_report_refuses_what_it_cannot_do(studio, tmp_path, capsys):
    where = ["--workspace", str(studio.folder), "-o", str(tmp_path / "x.html")]
    assert main(["report", "--since", "yesterday", *where]) == 2
    assert main(["report", "--video", "f" * 64, *where]) == 1
    assert main(["report", "--workspace", str(tmp_path / "none"), "-o", str(tmp_path / "x.html")]) == 1
    assert main(["report", "--workspace", str(studio.folder), "-o", str(tmp_path / "no" / "x.html")]) == 1
    assert not (tmp_path / "none").exists(), "looking makes no workspace"
    assert not list(tmp_path.iterdir())
    capsys.readouterr()


# -- pages of videos that were edited, joined, or do not verify


def jpeg(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 180), colour).save(out, "JPEG")
    return out.getvalue()


def ref(name: str, media_type: str = "image/png", **more: Any) -> MediaRef:
    size: dict[str, Any] = {"width_px": 1280, "height_px": 720}
    return MediaRef(sha256=sha256_hex(name.encode()), media_type=media_type, size_bytes=9, **(size | more))


def source(name: str, *edits: AppliedEdit) -> Source:
    original = ref(name)
    return Source(
        asset_id=f"brand/{original.sha256}", knowledge_base="brand", role="start_frame", original=original,
        conformed=Conformed(media=ref(f"{name} fitted"), crop_px=(0, 0, 1280, 720), mode="cover"),
        review_sequence=0, caption=name, file_name=f"{name}.jpg", edits=edits,
    )  # fmt: skip


def planned(prompts: list[str], sources: list[Source], parts: tuple[PlannedVideo, ...] = ()) -> PlannedVideo:
    inputs = tuple(Input(role="start_frame", media=one.conformed.media) for one in sources)
    return PlannedVideo(
        step_id=sha256_hex("".join(prompts).encode()),
        brief=Brief(object_prompt=prompts[0], knowledge_base="brand"),
        generator="camera",
        model=ModelRef(provider="local", id="camera-moves/1"),
        request=VideoRequest(shots=tuple(Shot(prompt=one, inputs=inputs) for one in prompts)),
        sources=tuple(sources),
        candidates=() if parts else tuple(Candidate(asset_id=one.asset_id, cosine=0.5, chosen=True) for one in sources),
        estimate=Estimate(usd_micros=0),
        parts=parts,
    )


def page_of(plan: PlannedVideo, **changes: Any) -> VideoPage:
    known: dict[str, Any] = {
        "planned": plan,
        "media": ref("film", "video/mp4", duration_s=4.0),
        "video_url": "data:video/mp4;base64,AAAA",
        "poster": jpeg("#335577"),
        "pictures": {one.asset_id: Picture(image=jpeg("#775533"), caption=one.caption or "") for one in plan.sources},
        "verification": Verification(
            checks=(Check(name="video", ok=True, detail="SHA-256", promise=SAME_VIDEO),),
            trusted=True,
            record_id="r" * 64,
        ),
        "record": {"predicate": {"runDetails": {"metadata": {"finishedOn": "2026-11-19T00:00:00Z"}}}},
        "made_at": "2026-11-20T12:00:00Z",
        "check_command": "vrag verify film.mp4",
        "evidence": b"{}",
    }
    return VideoPage(**(known | changes))


def edited() -> VideoPage:
    edit = AppliedEdit(step_id="e" * 64, operation="replace", media=ref("edited"))
    one = source("red shoes", edit)
    nodes = [Node(id=one.asset_id, kind="asset", sha256=one.original.sha256, title="red shoes", asset_id=one.asset_id)]
    nodes += [Node(id="film", kind="video", sha256=ref("film").sha256, title="blue shoes")]
    return page_of(
        planned(["blue shoes, pans down"], [one]),
        edits=[
            ShownEdit(
                asset_id=one.asset_id, operation="replace", model="local:opencv", prompt="<b>blue</b> shoes",
                record_id="e" * 64, before=jpeg("red"), mask=jpeg("white"), after=jpeg("blue"),
            )
        ],
        lineage=LineageGraph(
            root="film", nodes={node.id: node for node in nodes},
            edges=(Edge(source=one.asset_id, target="film", role="start_frame"),),
        ),
        stale=(Staleness(kind="model retired", what="local:x", since="2026-09-30", detail="it is retired"),),
    )  # fmt: skip


def joined() -> VideoPage:
    sources = [source("red shoes"), source("a dog"), source("a lake")]
    parts = tuple(planned([f"{one.caption}, pans"], [one]) for one in sources)
    return page_of(planned([f"{one.caption}, pans" for one in sources], sources, parts), stale=())


def broken() -> VideoPage:
    checks = (
        Check(name="signature", ok=True, detail="one changed byte would show", promise="The record is what was signed"),
        Check(name="video", ok=False, detail="this file is another", promise=SAME_VIDEO),
    )
    one = page_of(planned(["a storm"], []), verification=Verification(checks=checks, trusted=True), poster=None)
    return evolve(one, video_url=None)


def test_an_edit_shows_before_mask_and_after(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(video_page(edited()), encoding="utf-8")
    with opened(browser, path) as page:
        section = page.get_by_role("region", name="How the picture was edited")
        assert section.locator("figcaption").all_inner_texts() == ["Before", "Mask", "After"]
        assert section.locator("img").evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
        assert "<b>blue</b> shoes" in section.inner_text()
        lineage = page.get_by_role("region", name="Where it comes from")
        assert lineage.locator("img").evaluate("one => one.complete && one.naturalWidth > 300")
        assert "Model retired" in page.get_by_role("region", name="Since it was made").inner_text()


def test_a_joined_film_shows_every_picture_and_why_each(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(video_page(joined()), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator(".pictures img").count() == 3
        headings = page.get_by_role("heading", level=2).all_inner_texts()
        assert [one for one in headings if "Why" in one] == [f"Why this picture: shot {n}" for n in (1, 2, 3)]
        assert "3 shots, each made by local:camera-moves/1 and joined, from the pictures below." in page.inner_text(
            "main"
        )
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
        assert len(ids) == len(set(ids))


def test_ids_are_one_of_a_kind_in_a_report_with_the_same_video_twice():
    html = report_page(Report(videos=[edited(), edited(), joined()], made_at="2026-11-20T12:00:00Z"))
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|aria-labelledby=")([^"]+)"', html)) <= set(ids)


def test_a_picture_that_is_gone_keeps_its_place():
    one = edited()
    html = video_page(evolve(one, pictures={}))
    assert "This picture can no longer be shown." in html
    assert "From words alone" not in html
    erased = evolve(one.planned.request, shots=(Shot(prompt=""),))
    record = {
        "predicate": {
            "buildDefinition": {"internalParameters": {"request": {"shots": [{"prompt": {KEYED: "d" * 64}}]}}}
        }
    }
    html = video_page(evolve(one, planned=evolve(one.planned, request=erased), record=record))
    assert f"<code>{'d' * 64}</code>" in html


# -- in a notebook


def test_a_wall_for_a_notebook_has_each_film_and_stays_small():
    class Film:
        def __init__(self, name: str, size_bytes: int) -> None:
            self.planned = planned([f"<i>{name}"], [source(name)])
            self.media = ref(name, "video/mp4")
            self.media = evolve(self.media, size_bytes=size_bytes)

        def read_bytes(self) -> bytes:
            assert self.media.size_bytes < 100, "a film that is not shown is not read"
            return b"film"

        def picture(self) -> bytes:
            return jpeg("red")

    html = video_wall(
        [Film("one", 50), Film("two", 5000), Film("three", 1)], problems=["Row 4: <refused>"], limit_bytes=99
    )
    assert html.count("<video") == 1, "what comes after the limit is not shown either"
    assert html.count("<figure") == 3
    assert "&lt;i&gt;two" in html
    assert "<li>Row 4: &lt;refused&gt;</li>" in html
    assert "<script" not in html
