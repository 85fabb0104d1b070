"""The sections of a video's page: film and pictures, verification, edits, candidates, what was asked, lineage, record.

Each is a function of a `VideoPage` and of where it stands: alone, or as one of many in a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vrag.provenance.lineage_view import lineage_picture, lineage_tree
from vrag.provenance.report.candidates import candidate_sections, refusal_section
from vrag.provenance.report.markup import Markup, data_url, element, join, link_target, text
from vrag.provenance.report.shown import (
    TIMES,
    Picture,
    Place,
    ShownEdit,
    VideoPage,
    is_erased,
    plural,
    state_of,
    title_of,
)
from vrag.provenance.statement import KEYED
from vrag.provenance.verify import Check
from vrag.values.briefs import Source
from vrag.values.canonical import JSON, pretty_json
from vrag.values.requests import Problem

__all__ = ["sections"]


def sections(page: VideoPage, place: Place) -> list[Markup]:
    """Everything about one video, in the order in which a person asks for it."""
    found = (
        _film_and_pictures(page),
        _verification(page, place),
        _since(page, place),
        _edits(page, place),
        *candidate_sections(page, place),
        _asked(page, place),
        *(refusal_section(page, number, refusal, place) for number, refusal in enumerate(page.refusals)),
        _lineage(page, place),
        _record(page, place),
    )
    return [one for one in found if one is not None]


# -- film and pictures


def _film_and_pictures(page: VideoPage) -> Markup:
    sources = page.planned.sources
    shown = [_source(page, source) for source in sources]
    if len(sources) > 1:  # the film alone, then its pictures in a row
        return join(_film(page), element("div", *shown, class_="pictures"))
    return element("div", _film(page), *shown, class_="pair" if shown else "alone")


def _film(page: VideoPage) -> Markup:
    sources, parts = page.planned.sources, page.planned.parts
    made = f"Made by {page.planned.model}"
    origin = {0: " from words alone.", 1: " from the picture beside it."}.get(len(sources), " from the pictures below.")
    if parts:
        made, origin = f"{len(parts)} shots, each made by {parts[0].model} and joined", f",{origin}" if sources else "."
    return element(
        "figure",
        _player(page),
        element("figcaption", element("strong", "The film. "), made, origin),
    )


def _player(page: VideoPage) -> Markup:
    width = (page.media.width_px if page.media else None) or page.planned.request.width_px
    height = (page.media.height_px if page.media else None) or page.planned.request.height_px
    if page.withheld is not None or page.video_url is None:
        why = page.withheld or "The film cannot be read from the storage."
        head = "Withheld" if page.withheld is not None else "Not here"
        return element("div", element("p", element("strong", head)), element("p", why), class_="blank")
    return element(
        "video",
        "This browser plays no MP4; the film lies beside this page.",
        src=page.video_url,
        poster=None if page.poster is None else data_url(page.poster),
        controls=True,
        loop=True,
        playsinline=True,
        preload="auto" if page.poster is None else "none",
        width=str(width),
        height=str(height),
        aria_label=f"The film: {title_of(page.planned)}",
    )


def _source(page: VideoPage, source: Source) -> Markup:
    picture = page.pictures.get(source.asset_id)
    left, top, right, bottom = source.conformed.crop_px
    whole = (left, top) == (0, 0) and (right, bottom) == (source.original.width_px, source.original.height_px)
    edited = f"after {plural(len(source.edits), 'edit')}, " if source.edits else ""
    kept = "whole" if whole else f"from {left}, {top} to {right}, {bottom} px"
    size = f"{source.original.width_px} {TIMES} {source.original.height_px} px, given to the generator {edited}{kept}"
    if picture is None or picture.image is None:
        image = element("div", element("p", "This picture can no longer be shown."), class_="blank")
    else:
        image = element("img", src=data_url(picture.image), alt=picture.caption)
    caption = picture.caption if picture else source.caption or source.asset_id
    credited = picture is not None and (picture.credit or picture.licence)
    return element(
        "figure",
        image,
        element(
            "figcaption",
            element("p", element("strong", "The picture. "), caption),
            element("p", _credit(picture)) if picture and credited else None,
            element("p", f"{picture.review[:1].upper()}{picture.review[1:]}.") if picture and picture.review else None,
            element("p", size, ", enlarged" if source.conformed.upscaled else "", "."),
        ),
    )


def _credit(picture: Picture) -> Markup:
    target = link_target(picture.licence_url)
    licence = element("a", picture.licence, href=target, rel="noreferrer") if target else text(picture.licence)
    return join(picture.credit, ", " if picture.credit and picture.licence else "", licence, ".")


# -- verification, and what changed


def _verification(page: VideoPage, place: Place) -> Markup:
    found, (tone, mark, _) = page.verification, state_of(page)
    broken = found.first_failure
    if broken is not None:
        words = "Not verified: something does not hold."
    elif not found.trusted:
        words = "The film and its record belong together, but the key that signed it is not known here."
    elif page.withheld is not None:
        words = "Verified: the record is whole; it says that this video was withheld."
    else:
        words = "Verified: the film and its record belong together, and nothing was changed."
    return place.section(
        "verification",
        "Verification",
        element("p", f"Checked when this page was made, {page.made_at[:16].replace('T', ' ')} UTC.", class_="note"),
        element(
            "div",
            element("p", element("span", mark, aria_hidden="true"), element("span", words), class_=f"state {tone}"),
            None
            if broken is None
            else element("p", element("strong", "Broken: "), broken.promise, ". ", broken.detail, ".", class_="broken"),
            element("ul", *(_check(check) for check in found.checks), class_="checks"),
            class_=f"card {tone}",
        ),
    )


def _check(check: Check) -> Markup:
    mark, word = {True: ("✓", "holds"), False: ("✗", "broken"), None: ("·", "not looked at")}[check.ok]
    tone = {True: "good", False: "bad", None: "soft"}[check.ok]
    return element(
        "li",
        element("span", mark, class_=tone, role="img", aria_label=word),
        element("span", f"{check.promise}: ", element("span", f"{check.detail}.", class_="soft")),
    )


def _since(page: VideoPage, place: Place) -> Markup | None:
    if page.stale is None:
        return None
    if not page.stale:
        body = element("p", "Its pictures, their words and its model stand as they did.", class_="note")
    else:
        rows = [
            join(
                element("dt", f"{one.kind[:1].upper()}{one.kind[1:]}"),
                element(
                    "dd",
                    element("div", "" if one.since is None else f"Since {one.since[:10]}; ", one.detail, "."),
                    element("div", element("code", one.what), class_="soft"),
                ),
            )
            for one in page.stale
        ]
        body = element("div", element("dl", *rows), class_="card unsure ink")
    return place.section("since", "Since it was made", body)


# -- edits


def _edits(page: VideoPage, place: Place) -> Markup | None:
    if not page.edits:
        return None
    return place.section(
        "edits",
        "How the picture was edited",
        element("p", "White in a mask is what was painted anew.", class_="note")
        if any(edit.mask for edit in page.edits)
        else None,
        *(_edit(page, edit) for edit in page.edits),
    )


def _edit(page: VideoPage, edit: ShownEdit) -> Markup:
    steps = [("Before", edit.before), ("Mask", edit.mask), ("After", edit.after)]
    figures = [
        element(
            "figure",
            element("img", src=data_url(image), alt=f"{name} the edit" if name != "Mask" else "The mask"),
            element("figcaption", name),
        )
        for name, image in steps
        if image is not None
    ]
    picture = page.pictures.get(edit.asset_id)
    rows: list[tuple[str, object]] = [
        ("Picture", picture.caption if picture and len(page.planned.sources) > 1 else None),
        ("Edit", edit.operation.replace("_", " ")),
        ("Asked for", edit.prompt),
        ("Made by", edit.model),
        ("Record", element("code", edit.record_id) if edit.record_id else None),
    ]
    return element(
        "div", element("div", *figures, class_="steps") if figures else None, element("dl", *_rows(rows)), class_="card"
    )


# -- what was asked


def _asked(page: VideoPage, place: Place) -> Markup:
    planned = page.planned
    brief, shots = planned.brief, planned.request.shots
    rows: list[tuple[str, object]] = [
        ("Prompt", _prompts(page)),
        ("Object", brief.object_prompt),
        ("Action", brief.action_prompt),
        ("Template", brief.template),
        ("Camera", ", then ".join(move.value for shot in shots for move in shot.camera) or None),
        ("Knowledge base", brief.knowledge_base),
        ("Seed", planned.request.seed),
        ("How it was read", _lines(planned.notes)),
        ("Not met", _lines(_unmet(page)) or "nothing: all that was asked was done"),
    ]
    return place.section("asked", "What was asked", element("div", element("dl", *_rows(rows)), class_="card"))


def _prompts(page: VideoPage) -> Markup | str:
    planned = page.planned
    if not is_erased(planned):
        return title_of(planned)
    digests = _digests(page.record, "predicate", "buildDefinition", "internalParameters", "request", "shots", "prompt")
    return join(
        "The words were erased. What stands for them in the record, and tells nothing of them: ",
        *(element("div", element("code", one)) for one in digests),
    )


def _digests(record: JSON, *path: str) -> list[str]:
    """Keyed digests at a path into a record; a list on the way stands for all of its members."""
    if isinstance(record, list):
        return [one for member in record for one in _digests(member, *path)]
    if not isinstance(record, dict):
        return []
    if path:
        return _digests(record.get(path[0]), *path[1:])
    return [str(record[KEYED])] if KEYED in record else []


def _unmet(page: VideoPage) -> list[str]:
    return [_problem(problem) for problem in page.planned.unmet]


def _problem(problem: Problem) -> str:
    return f"{problem.field}: {problem.message or 'words erased'}"


def _lines(lines: Sequence[str]) -> Markup | str:
    return join(*(element("div", line) for line in lines)) if lines else ""


# -- lineage and record


def _lineage(page: VideoPage, place: Place) -> Markup | None:
    graph = page.lineage
    if graph is None or not graph.into(graph.root):
        return None
    drawn = data_url(lineage_picture(graph).encode(), "image/svg+xml")
    words = "\n".join(lineage_tree(graph, "up"))
    return place.section(
        "lineage",
        "Where it comes from",
        element("p", "Read from the records of the workspace: left what was used, right what was made.", class_="note"),
        element(
            "div",
            element("img", src=drawn, alt="A picture of the lineage; the same stands below as text.", class_="drawn"),
            class_="scroll",
            tabindex="0",
            role="group",
            aria_label="Lineage as a picture",
        ),
        element("details", element("summary", "As text"), element("pre", words, tabindex="0")),
    )


def _record(page: VideoPage, place: Place) -> Markup:
    rows = [] if page.media is None else [("Film, SHA-256", page.media.sha256)]
    for source in page.planned.sources:
        rows += [("Picture as ingested, SHA-256", source.original.sha256)]
        rows += [(f"After {edit.operation.replace('_', ' ')}, SHA-256", edit.media.sha256) for edit in source.edits]
        rows += [("Picture as given to the generator, SHA-256", source.conformed.media.sha256)]
    rows += [("Record", page.verification.record_id)] if page.verification.record_id else []
    return place.section(
        "record",
        "The record",
        element(
            "p",
            "An in-toto statement, signed; it lies beside the film. Unless the policy says otherwise, words stand in it as "
            "keyed digests, so that it stays true when they are erased.",
            class_="note",
        ),
        element("div", element("dl", *_rows([(key, element("code", value)) for key, value in rows])), class_="card"),
        _evidence(page),
        element(
            "details",
            element("summary", "The whole record as JSON"),
            element("pre", element("code", pretty_json(page.record)), tabindex="0"),
        ),
    )


def _evidence(page: VideoPage) -> Markup | None:
    if page.evidence is None:
        return None
    name = f"{page.file_name}.vrag.json"
    return element(
        "p",
        element(
            "a",
            "Download the evidence",
            href=data_url(page.evidence, "application/json"),
            download=name,
            class_="button",
        ),
        " ",
        element(
            "span",
            "The signed record, as ",
            element("code", name),
            ". Put it beside the film and verify both.",
            class_="soft",
        ),
        class_="evidence",
    )


def _rows(rows: Iterable[tuple[str, object]]) -> list[Markup]:
    return [join(element("dt", label), element("dd", value)) for label, value in rows if value not in {None, ""}]
