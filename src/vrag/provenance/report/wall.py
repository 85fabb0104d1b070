"""The report: a wall of videos on one page that needs nothing else; each opens to its pictures, proof and record.

No script: what is open is the `:target` of the address, so the way back is the browser's own, and every video has a link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final, Protocol

from attrs import frozen

from vrag.media.ref import MediaRef
from vrag.provenance.report.markup import Markup, data_url, element, join, still
from vrag.provenance.report.page import FIGURE_PX, STYLE, VideoPage, document, figure
from vrag.provenance.report.sections import sections
from vrag.provenance.report.shown import Place, facts_of, state_of, title_of
from vrag.values.briefs import PlannedVideo

__all__ = ["OnWall", "Report", "report_page", "video_wall"]

_STYLE: Final = STYLE + files("vrag.provenance.report").joinpath("wall.css").read_text("utf-8")
_NOTEBOOK_BYTES: Final = 64 << 20
_NOTEBOOK_STYLE: Final = """
.vrag-wall{display:flex;flex-wrap:wrap;gap:1.25rem;align-items:flex-start}
.vrag-wall figure{margin:0;max-width:46rem}
.vrag-wall video,.vrag-wall img{max-width:100%;border-radius:6px}
.vrag-wall figcaption{font-weight:600;margin-top:.4rem;overflow-wrap:anywhere}
"""


@frozen(kw_only=True)
class Report:
    """What a report shows."""

    videos: Sequence[VideoPage]
    """Newest first, as a person wants them."""
    made_at: str
    """RFC 3339 UTC."""
    about: Sequence[str] = ()
    """What was chosen, such as "knowledge base brand" or "from 2026-11-01"."""
    films_folder: str | None = None
    """The folder beside the page that holds the films; None: they are inside the page."""


def report_page(report: Report) -> str:
    """The whole report as HTML."""
    keys = [_key(page, number) for number, page in enumerate(report.videos)]
    title = "Videos made from vetted pictures"
    return document(
        title,
        element(
            "header",
            element("p", " · ".join(["Report", *report.about]), class_="eyebrow"),
            element("h1", title),
            element("p", _summary(report), class_="facts"),
            _films_note(report),
        ),
        element(
            "main",
            _gallery(report, keys),
            *(_proof(page, number, keys, report.made_at) for number, page in enumerate(report.videos)),
        ),
        element(
            "footer",
            element(
                "p",
                "Everything shown was verified when this page was made, "
                f"{report.made_at[:16].replace('T', ' ')} UTC. To check it yourself: ",
                element("code", "vrag verify FILE.mp4 --key PUBLIC.pem"),
            ),
        ),
        style=_STYLE,
        films_beside=report.films_folder is not None,
    )


def _key(page: VideoPage, number: int) -> str:
    # The id of the record, which is hexadecimal; the number tells two pages of one record apart.
    digits = "".join(char for char in page.planned.step_id[:12] if char in "0123456789abcdef")
    return f"video-{digits}-{number + 1}"


def _summary(report: Report) -> str:
    count = len(report.videos)
    states = Counter(state_of(page)[2] for page in report.videos)
    pictures = {source.asset_id for page in report.videos for source in page.planned.sources}
    withheld = sum(page.withheld is not None for page in report.videos)
    changed = sum(bool(page.stale) for page in report.videos)
    parts = [f"{count} video{'' if count == 1 else 's'}"]
    parts += [f"{number} {state}" for state, number in states.items()]
    parts += [f"{withheld} withheld"] if withheld else []
    parts += [f"{changed} with changes since"] if changed else []
    parts += [f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}"] if pictures else []
    return " · ".join([*parts, report.made_at[:10]])


def _films_note(report: Report) -> Markup | None:
    if report.films_folder is None:
        return None
    return element(
        "p",
        "The films lie in the folder ",
        element("code", report.films_folder),
        " beside this page, each with its record: keep the two together.",
        class_="note",
    )


def _gallery(report: Report, keys: Sequence[str]) -> Markup:
    tiles = [_tile(page, key) for page, key in zip(report.videos, keys, strict=True)]
    shown = element("ul", *tiles, class_="wall") if tiles else element("p", "There is no such video.", class_="none")
    return element("section", shown, id="videos", class_="gallery", tabindex="-1", aria_label="All videos")


def _tile(page: VideoPage, key: str) -> Markup:
    length_s = (page.media.duration_s if page.media else None) or page.planned.request.duration_s
    sign = None if page.video_url is None else element("span", "▶ ", aria_hidden="true")
    length = element("span", sign, f"{length_s:.0f} s", class_="length")
    if page.poster is None:
        poster = element("span", "withheld" if page.withheld is not None else "no picture", class_="blank")
    else:
        poster = element("img", src=data_url(page.poster), alt="", loading="lazy")
    meta = [day for day in (_day(page),) if day] + [page.planned.generator, _made_from(page)]
    return element(
        "li",
        element(
            "a",
            element("span", poster, length, class_="still"),
            element("span", title_of(page.planned), class_="caption"),
            element("span", " · ".join(meta), class_="meta"),
            href=f"#{key}",
        ),
        element("p", *_badges(page), class_="badges"),
        class_="tile",
    )


def _day(page: VideoPage) -> str:
    try:
        return str(page.record["predicate"]["runDetails"]["metadata"]["finishedOn"])[:10]
    except (KeyError, TypeError):
        return ""


def _made_from(page: VideoPage) -> str:
    count = len(page.planned.sources)
    return {0: "words alone", 1: "1 picture"}.get(count, f"{count} pictures")


def _badges(page: VideoPage) -> list[Markup]:
    tone, mark, word = state_of(page)
    badges = [
        element("span", element("span", mark, aria_hidden="true"), f" {word}", class_=f"tag {tone}"),
    ]
    also = [
        ("withheld", "unsure", page.withheld is not None),
        ("changed since", "unsure", bool(page.stale)),
        ("edited picture", "soft", bool(page.edits)),
        (f"{len(page.planned.parts)} shots", "soft", bool(page.planned.parts)),
    ]
    return badges + [element("span", words, class_=f"tag {tone}") for words, tone, holds in also if holds]


def _proof(page: VideoPage, number: int, keys: Sequence[str], made_at: str) -> Markup:
    key = keys[number]
    return element(
        "article",
        element(
            "nav",
            element("a", "← All videos", href="#videos"),
            element(
                "span",
                element("a", "Previous", href=f"#{keys[number - 1]}") if number else None,
                element("a", "Next", href=f"#{keys[number + 1]}") if number + 1 < len(keys) else None,
                class_="after",
            ),
            class_="way",
            aria_label=f"From video {number + 1} of {len(keys)}",
        ),
        element("h2", title_of(page.planned), id=f"title-{key}"),
        element("p", " · ".join([*facts_of(page), _day(page) or made_at[:10]]), class_="facts"),
        *sections(page, Place(key=f"-{key}", level=3)),
        element("p", "Check it yourself: ", element("code", page.check_command), class_="check"),
        id=key,
        class_="proof",
        tabindex="-1",
        aria_labelledby=f"title-{key}",
    )


class OnWall(Protocol):
    """A finished video, as far as a wall needs it."""

    planned: PlannedVideo
    media: MediaRef

    def read_bytes(self) -> bytes:
        """The whole MP4."""
        ...

    def picture(self) -> bytes | None:
        """The encoded picture that was given to the generator; None for a text-only video."""
        ...


def video_wall(videos: Iterable[OnWall], *, problems: Sequence[str] = (), limit_bytes: int = _NOTEBOOK_BYTES) -> str:
    """Videos side by side as a piece of a page, for a notebook; what is beyond `limit_bytes` shows its picture only.

    Args:
        videos: What to show, in order.
        problems: What became of the others, a sentence each.
        limit_bytes: Of films that are put into the page.
    """
    shown: list[Markup] = []
    left = limit_bytes
    for video in videos:
        left -= video.media.size_bytes
        if left >= 0:
            shown.append(Markup(figure(video.read_bytes(), video.picture(), video.planned)))
        else:
            picture = video.picture()
            shown_picture = None if picture is None else still(picture, title_of(video.planned), height_px=FIGURE_PX)
            words = element(
                "figcaption", title_of(video.planned), " (film not shown here: the page would grow too large)"
            )
            shown.append(element("figure", shown_picture, words))
    listed = element("ul", *(element("li", problem) for problem in problems)) if problems else None
    # A notebook page sets no policy for its cells, so the style stands beside what it is for.
    style = Markup(f"<style>{_NOTEBOOK_STYLE}</style>")
    return join(style, element("section", element("div", *shown, class_="vrag-wall"), listed))
