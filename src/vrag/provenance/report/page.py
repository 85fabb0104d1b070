"""The page that shows one video with its proof: film, pictures, candidates, edits, verification, record.

One file that works from a disk without a network. It holds no script; its policy allows one style sheet, by digest,
and pictures and films from inside the page or from beside it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Final

from vrag.provenance.report.markup import Markup, data_url, element, still
from vrag.provenance.report.sections import sections
from vrag.provenance.report.shown import Picture, Place, ShownEdit, VideoPage, facts_of, title_of
from vrag.values.briefs import PlannedVideo

__all__ = [
    "FIGURE_PX",
    "POLICY",
    "STYLE",
    "Picture",
    "ShownEdit",
    "VideoPage",
    "document",
    "figure",
    "policy",
    "video_page",
]

STYLE: Final = files("vrag.provenance.report").joinpath("style.css").read_text("utf-8")


def policy(style: str, *, films_beside: bool) -> str:
    """The content security policy of a page with this one style sheet, and everything else inside it.

    `file:` pages count files of their folder as 'self' in Chromium and Firefox.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    beside = "'self' " if films_beside else ""
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src {beside}data:; "
        "base-uri 'none'; form-action 'none'"
    )


FIGURE_PX: Final = 180
"""How high a film and its picture stand in a notebook: side by side, and several on a screen."""
POLICY: Final = policy(STYLE, films_beside=True)


def document(title: str, *body: object, style: str = STYLE, films_beside: bool = True) -> str:
    """A whole page of HTML around `body`."""
    return "<!doctype html>\n" + element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy(style, films_beside=films_beside)}">'),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", title),
            Markup(f"<style>{style}</style>"),
        ),
        element("body", *body),
        lang="en",
    )


def video_page(page: VideoPage) -> str:
    """The whole page as HTML."""
    title = title_of(page.planned)
    made_from = {0: "words alone", 1: "a vetted picture"}.get(len(page.planned.sources), "vetted pictures")
    return document(
        title,
        element(
            "header",
            element("p", f"Video made from {made_from}", class_="eyebrow"),
            element("h1", title),
            element("p", " · ".join([*facts_of(page), page.made_at[:10]]), class_="facts"),
        ),
        element("main", *sections(page, Place())),
        element("footer", element("p", "Check it yourself: ", element("code", page.check_command))),
    )


def figure(video: bytes, picture: bytes | None, planned: PlannedVideo) -> str:
    """The film with its picture beside it, for a notebook; it needs no style sheet."""
    source = planned.sources[0] if planned.sources else None
    caption = (source.caption or source.file_name) if source else ""
    edited = ", ".join(edit.operation.replace("_", " ") for edit in source.edits) if source else ""
    alt = f"Source picture{f' after {edited}' if edited else ''}: {caption}"
    shown = None if picture is None else still(picture, alt, height_px=FIGURE_PX)
    film = element(
        "video",
        src=data_url(video, "video/mp4"),
        aria_label=f"Film: {title_of(planned)}",
        controls=True,
        loop=True,
        muted=True,
        height=FIGURE_PX,
    )
    return element("figure", film, " ", shown, element("figcaption", title_of(planned)))
