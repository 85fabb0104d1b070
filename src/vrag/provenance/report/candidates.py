"""Why a picture was taken: the candidates of a video with their scores, and queries that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from vrag.provenance.report.markup import Markup, data_url, element
from vrag.provenance.report.shown import Picture, Place, VideoPage, is_erased, plural
from vrag.values.vectors import Candidate, Refusal

__all__ = ["candidate_sections", "refusal_section"]

_SHOWN_CANDIDATES: Final = 5


def candidate_sections(page: VideoPage, place: Place) -> list[Markup]:
    """One section, or one for each part of a joined film; none where no picture was looked for."""
    planned = page.planned
    found = [("", planned.candidates)] if planned.candidates else []
    found = found or [
        (f": shot {number}", part.candidates) for number, part in enumerate(planned.parts, 1) if part.candidates
    ]
    return [
        _considered(page, candidates, name, Place(key=f"{name.rpartition(' ')[2]}{place.key}", level=place.level))
        for name, candidates in found
    ]


def _considered(page: VideoPage, found: Sequence[Candidate], name: str, place: Place) -> Markup:
    if is_erased(page.planned):  # a reason may repeat a word of the query
        found = [evolve(one, excluded=one.excluded and "not chosen; why was erased") for one in found]
    rows = [_candidate(one, page.pictures.get(one.asset_id)) for one in found]
    heads = ("Meaning", "Word rank", "Score", "Outcome")
    first, rest = rows[:_SHOWN_CANDIDATES], rows[_SHOWN_CANDIDATES:]
    note = (
        f"{plural(len(found), 'picture was', 'pictures were')} considered. Meaning is the cosine of caption and query, "
        "from -1 to 1; word rank 1 has the query's words best."
    )
    if len(found) == 1 and found[0].fused_score is None:
        note = "A person named the picture; nothing was searched."
    return place.section(
        "candidates",
        f"Why this picture{name}",
        element("p", note, class_="note"),
        _table(f"Candidates, best first{name}", heads, first),
        element(
            "details",
            element("summary", f"{len(rest)} more, further away"),
            _table(f"Further candidates{name}", heads, rest),
        )
        if rest
        else None,
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
    thumb = element("img", src=data_url(picture.image), alt="") if picture and picture.image is not None else None
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
        role="group",
        aria_label=caption,
    )


def refusal_section(page: VideoPage, number: int, refusal: Refusal, place: Place) -> Markup:
    """A query that was answered "no suitable picture", with the nearest there were."""
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
    return place.section(
        f"refused-{number}",
        f"Asked as well, and refused: “{refusal.query}”",
        element("p", "No suitable picture is an answer: nothing was animated.", class_="note"),
        element("div", *(element("p", reason) for reason in refusal.reasons), class_="card"),
        element("p", "The nearest there were:", class_="note") if rows else None,
        _table(f"Nearest pictures to “{refusal.query}”", ("Meaning", "Word rank", "Outcome"), rows) if rows else None,
    )
