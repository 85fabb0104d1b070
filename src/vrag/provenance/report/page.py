"""The page that shows one video with its proof: film, picture, candidates, verification, record.

One file that works from a disk without a network. It holds no script; its policy allows one style sheet, by digest,
and pictures and films from inside the page or from beside it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

from attrs import field, frozen

from vrag.media.ref import MediaRef
from vrag.provenance.report.markup import Markup, data_url, element, join, link_target, text
from vrag.provenance.verify import Check, Verification
from vrag.values.briefs import PlannedVideo
from vrag.values.canonical import JSON, pretty_json
from vrag.values.requests import Problem
from vrag.values.vectors import Candidate, Refusal

__all__ = ["Picture", "VideoPage", "figure", "video_page"]

_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_SHOWN_CANDIDATES: Final = 5
_STYLE: Final = files("vrag.provenance.report").joinpath("style.css").read_text("utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self' data:; media-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)
"""`file:` pages count files of their folder as 'self' in Chromium and Firefox."""


@frozen(kw_only=True)
class Picture:
    """A picture of the knowledge base as the page shows it."""

    image: bytes = field(repr=False)
    """JPEG or PNG, already small enough for a page."""
    caption: str
    credit: str = ""
    """Whom to thank, such as '"Lake Sherburne" by Jacob W. Frank'."""
    licence: str = ""
    licence_url: str | None = None
    """Shown as a link only if it begins with `https://`."""
    review: str = ""
    """Such as "approved by demo on 2026-11-20"."""


@frozen(kw_only=True)
class VideoPage:
    """Everything that a page shows."""

    planned: PlannedVideo
    media: MediaRef
    """The delivered film."""
    video_url: str
    """`relative_url(name)` of the film beside the page, or `data_url(bytes, "video/mp4")`."""
    pictures: Mapping[str, Picture]
    """By asset id: the sources, and every candidate that shall be seen."""
    verification: Verification
    record: JSON
    """The statement."""
    made_at: str
    """RFC 3339 UTC; when the page was made and the video verified."""
    check_command: str
    """What to type to verify the film again."""
    refusals: Sequence[Refusal] = ()
    """Queries that were answered "no suitable picture", to show beside the one that was not."""


def video_page(page: VideoPage) -> str:
    """The whole page as HTML."""
    title = _title(page.planned)
    return "<!doctype html>\n" + element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", title),
            Markup(f"<style>{_STYLE}</style>"),
        ),
        element("body", _header(page, title), _main(page), _footer(page)),
        lang="en",
    )


def figure(video: bytes, picture: bytes | None, planned: PlannedVideo) -> str:
    """The film with its picture beside it, for a notebook; it needs no style sheet."""
    source = planned.sources[0] if planned.sources else None
    caption = (source.caption or source.file_name) if source else ""
    shown = (
        None
        if picture is None
        else element("img", src=data_url(picture), alt=f"Source picture: {caption}", title=caption, height="240")
    )
    film = element("video", src=data_url(video, "video/mp4"), controls=True, loop=True, muted=True, height="240")
    return element("figure", film, " ", shown, element("figcaption", planned.request.shots[0].prompt))


def _title(planned: PlannedVideo) -> str:
    return " / ".join(shot.prompt for shot in planned.request.shots)


def _header(page: VideoPage, title: str) -> Markup:
    media, request = page.media, page.planned.request
    length_s = media.duration_s or request.duration_s
    facts = (
        f"{length_s:.1f} s",
        f"{media.width_px or request.width_px} {_TIMES} {media.height_px or request.height_px}",
        f"{request.fps:g} frames a second",
        f"made by {page.planned.model}",
        page.made_at[:10],
    )
    return element(
        "header",
        element("p", "Video made from a vetted picture", class_="eyebrow"),
        element("h1", title),
        element("p", " · ".join(facts), class_="facts"),
    )


def _main(page: VideoPage) -> Markup:
    return element(
        "main",
        element(
            "div", _film(page), *(_source(page, index) for index in range(len(page.planned.sources))), class_="pair"
        ),
        _verification(page),
        _candidates(page),
        _asked(page),
        *(_refusal(page, refusal) for refusal in page.refusals),
        _record(page),
    )


def _film(page: VideoPage) -> Markup:
    sources = page.planned.sources
    return element(
        "figure",
        element(
            "video",
            "This browser plays no MP4; the film lies beside this page.",
            src=page.video_url,
            controls=True,
            loop=True,
            playsinline=True,
            preload="auto",
            width=str(page.media.width_px or page.planned.request.width_px),
            height=str(page.media.height_px or page.planned.request.height_px),
            aria_label=f"The film: {_title(page.planned)}",
        ),
        element(
            "figcaption",
            element("strong", "The film."),
            f" Made by {page.planned.model}",
            " from the picture beside it." if sources else " from words alone.",
        ),
    )


def _source(page: VideoPage, index: int) -> Markup:
    source = page.planned.sources[index]
    picture = page.pictures[source.asset_id]
    left, top, right, bottom = source.conformed.crop_px
    whole = (left, top) == (0, 0) and (right, bottom) == (source.original.width_px, source.original.height_px)
    kept = "whole" if whole else f"from {left}, {top} to {right}, {bottom} px"
    size = f"{source.original.width_px} {_TIMES} {source.original.height_px} px, given to the generator {kept}"
    return element(
        "figure",
        element("img", src=data_url(picture.image), alt=picture.caption),
        element(
            "figcaption",
            element("p", element("strong", "The picture. "), picture.caption),
            element("p", _credit(picture)) if picture.credit or picture.licence else None,
            element("p", f"{picture.review[:1].upper()}{picture.review[1:]}.") if picture.review else None,
            element("p", size, ", enlarged" if source.conformed.upscaled else "", "."),
        ),
    )


def _credit(picture: Picture) -> Markup:
    target = link_target(picture.licence_url)
    licence = element("a", picture.licence, href=target, rel="noreferrer") if target else text(picture.licence)
    return join(picture.credit, ", " if picture.credit and picture.licence else "", licence, ".")


def _verification(page: VideoPage) -> Markup:
    found = page.verification
    if not found.ok:
        tone, mark, words = "bad", "✗", "Not verified: something does not hold."
    elif not found.trusted:
        tone, mark = "unsure", "?"
        words = "The film and its record belong together, but the key that signed it is not known here."
    else:
        tone, mark = "good", "✓"
        words = "Verified: the film and its record belong together, and nothing was changed."
    return element(
        "section",
        element("h2", "Verification", id="verification"),
        element("p", f"Checked when this page was made, {page.made_at[:16].replace('T', ' ')} UTC.", class_="note"),
        element(
            "div",
            element("p", element("span", mark, aria_hidden="true"), element("span", words), class_=f"state {tone}"),
            element("ul", *(_check(check) for check in found.checks), class_="checks"),
            class_=f"card {tone}",
        ),
        aria_labelledby="verification",
    )


def _check(check: Check) -> Markup:
    mark, word = {True: ("✓", "holds"), False: ("✗", "broken"), None: ("·", "not looked at")}[check.ok]
    tone = {True: "good", False: "bad", None: "soft"}[check.ok]
    return element(
        "li",
        element("span", mark, class_=tone, role="img", aria_label=word),
        element("span", f"{check.promise}: ", element("span", f"{check.detail}.", class_="soft")),
    )


def _candidates(page: VideoPage) -> Markup | None:
    found = page.planned.candidates
    if not found:
        return None
    rows = [_candidate(one, page.pictures.get(one.asset_id)) for one in found]
    heads = ("Meaning", "Word rank", "Score", "Outcome")
    first, rest = rows[:_SHOWN_CANDIDATES], rows[_SHOWN_CANDIDATES:]
    note = (
        f"{len(found)} pictures were considered. Meaning is the cosine of caption and query, from -1 to 1; "
        "word rank 1 has the query's words best."
    )
    return element(
        "section",
        element("h2", "Why this picture", id="candidates"),
        element("p", note, class_="note"),
        _table("Candidates, best first", heads, first),
        element(
            "details",
            element("summary", f"{len(rest)} more, further away"),
            _table("Further candidates", heads, rest),
        )
        if rest
        else None,
        aria_labelledby="candidates",
    )


def _candidate(one: Candidate, picture: Picture | None) -> Markup:
    if one.chosen:
        outcome: object = element("span", "chosen", class_="tag good")
    else:
        outcome = element("span", one.excluded or "not chosen", class_="soft")
    caption = picture.caption if picture else one.asset_id
    cells = (_number("Meaning", one.cosine, "{:.2f}"), _number("Word rank", one.word_rank, "{}"))
    return _row(picture, caption, *cells, _number("Score", one.fused_score, "{:.3f}"), _cell("Outcome", outcome))


def _row(picture: Picture | None, caption: str, *cells: Markup) -> Markup:
    # Roles are said again because a narrow screen lays rows out as blocks, and some browsers then forget the table.
    thumb = element("img", src=data_url(picture.image), alt="") if picture else None
    return element(
        "tr",
        element("td", thumb, class_="thumb", role="cell"),
        element("th", caption, scope="row", role="rowheader"),
        *cells,
        role="row",
    )


def _cell(label: str, content: object, *, class_: str | None = None) -> Markup:
    return element("td", content, class_=class_, role="cell", data_label=label)


def _number(label: str, value: float | None, form: str) -> Markup:
    shown = element("span", "none", class_="soft") if value is None else form.format(value)
    return _cell(label, shown, class_="number")


def _table(caption: str, heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    others = (
        element("th", head, scope="col", role="columnheader", class_=None if head == "Outcome" else "number")
        for head in heads
    )
    first = element("th", "Picture", scope="col", colspan="2", role="columnheader")
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", first, *others, role="row"), role="rowgroup"),
            element("tbody", *rows, role="rowgroup"),
            role="table",
            aria_label=caption,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _asked(page: VideoPage) -> Markup:
    planned = page.planned
    brief, shots = planned.brief, planned.request.shots
    rows: list[tuple[str, object]] = [
        ("Prompt", _title(planned)),
        ("Object", brief.object_prompt),
        ("Action", brief.action_prompt),
        ("Camera", ", then ".join(move.value for shot in shots for move in shot.camera) or None),
        ("Knowledge base", brief.knowledge_base),
        ("Seed", planned.request.seed),
        ("How it was read", _lines(planned.notes)),
        ("Not met", _lines([_unmet(problem) for problem in planned.unmet]) or "nothing: all that was asked was done"),
    ]
    listed = [join(element("dt", label), element("dd", value)) for label, value in rows if value not in {None, ""}]
    return element(
        "section",
        element("h2", "What was asked", id="asked"),
        element("div", element("dl", *listed), class_="card"),
        aria_labelledby="asked",
    )


def _unmet(problem: Problem) -> str:
    return f"{problem.field}: {problem.message}"


def _lines(lines: Sequence[str]) -> Markup | str:
    return join(*(element("div", line) for line in lines)) if lines else ""


def _refusal(page: VideoPage, refusal: Refusal) -> Markup:
    rows = [
        _row(
            page.pictures.get(hit.asset.id),
            hit.asset.caption or hit.asset.file_name,
            _number("Meaning", hit.cosine, "{:.2f}"),
            _number("Word rank", hit.word_rank, "{}"),
            _cell("Outcome", element("span", "not near enough", class_="soft")),
        )
        for hit in refusal.candidates[:3]
    ]
    return element(
        "section",
        element("h2", f"Asked as well, and refused: “{refusal.query}”"),
        element("p", "No suitable picture is an answer: nothing was animated.", class_="note"),
        element("div", *(element("p", reason) for reason in refusal.reasons), class_="card"),
        element("p", "The nearest there were:", class_="note") if rows else None,
        _table("Nearest pictures", ("Meaning", "Word rank", "Outcome"), rows) if rows else None,
    )


def _record(page: VideoPage) -> Markup:
    rows = [("Film, SHA-256", page.media.sha256)]
    for source in page.planned.sources:
        rows += [("Picture as ingested, SHA-256", source.original.sha256)]
        rows += [("Picture as given to the generator, SHA-256", source.conformed.media.sha256)]
    return element(
        "section",
        element("h2", "The record", id="record"),
        element(
            "p",
            "An in-toto statement, signed; it lies beside the film. Unless the policy says otherwise, words stand in it as "
            "keyed digests, so that it stays true when they are erased.",
            class_="note",
        ),
        element(
            "div",
            element("dl", *(join(element("dt", key), element("dd", element("code", value))) for key, value in rows)),
            class_="card",
        ),
        element(
            "details",
            element("summary", "The whole record as JSON"),
            element("pre", element("code", pretty_json(page.record)), tabindex="0"),
        ),
        aria_labelledby="record",
    )


def _footer(page: VideoPage) -> Markup:
    return element("footer", element("p", "Check it yourself: ", element("code", page.check_command)))
