"""The contact sheet of a plan: every picture as the model will see it, with prompt and price, before anything is bought."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Final

from attrs import field, frozen

from vrag.media.ref import MediaRef
from vrag.provenance.report.markup import Markup, data_url, element, join
from vrag.values.briefs import OpenVideo, Plan, PlanFailure, PlannedEdit, PlannedVideo, Source

__all__ = ["ContactSheet"]

Thumbnail = Callable[[MediaRef], bytes]
"""A small JPEG or PNG of a picture in the storage."""

_STYLE: Final = resources.files("vrag.provenance.report").joinpath("sheet.css").read_text("utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
)


@frozen(kw_only=True)
class ContactSheet:
    """A plan to look at. It shows itself in a notebook; as a page it needs no other file and no network."""

    plan: Plan
    thumbnail: Thumbnail = field(repr=False, eq=False)

    def to_html(self) -> str:
        """The whole page."""
        return "<!doctype html>\n" + element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("title", "Plan of videos"),
                Markup(f"<style>{_STYLE}</style>"),
            ),
            element("body", _header(self.plan), element("main", *_sections(self.plan, self.thumbnail))),
            lang="en",
        )

    def _repr_html_(self) -> str:
        """Plain figures, because a notebook has a style of its own."""
        shown = [
            element(
                "figure",
                *_pictures(video.sources, self.thumbnail, height="120"),
                element("figcaption", f"{_prompt(video)} - {_price(video.estimate.usd_micros)}"),
            )
            for video in self.plan.videos
        ]
        failures = element("ul", *map(_failure, self.plan.failures)) if self.plan.failures else None
        return element("section", element("p", _totals(self.plan)), *shown, failures)


def _header(plan: Plan) -> Markup:
    return element(
        "header",
        element("h1", "What would be made"),
        element("p", _totals(plan), class_="facts"),
        element("p", "Digest of this plan: ", element("code", plan.digest), class_="small"),
    )


def _totals(plan: Plan) -> str:
    parts = [f"{len(plan.videos)} videos"]
    parts += [f"{len(plan.open)} waiting"] if plan.open else []
    parts += [f"{len(plan.failures)} not possible"] if plan.failures else []
    seconds = sum(video.estimate.video_s for video in plan.videos)
    return f"{', '.join(parts)}; {seconds:g} s of video; {_price(plan.usd_micros)}"


def _price(micros: int | None) -> str:
    return "price not known" if micros is None else "free" if micros == 0 else f"{micros / 1e6:.2f} USD"


def _sections(plan: Plan, thumbnail: Thumbnail) -> list[Markup]:
    sections = []
    if plan.videos:
        cards = [_video(row, video, thumbnail) for row, video in zip(plan.rows, plan.videos, strict=True)]
        sections += [element("h2", "Ready"), element("ul", *cards, class_="wall")]
    if plan.open:
        cards = [_open(one, thumbnail) for one in plan.open]
        sections += [element("h2", "Waiting"), element("ul", *cards, class_="wall")]
    if plan.failures:
        sections += [element("h2", "Not possible"), element("ul", *map(_failure, plan.failures), class_="lines")]
    return sections


def _video(row: int, video: PlannedVideo, thumbnail: Thumbnail) -> Markup:
    request = video.request
    facts = f"{request.width_px} x {request.height_px}, {request.duration_s:g} s at {request.fps:g} frames a second"
    return element(
        "li",
        _strip(video.sources, thumbnail),
        element(
            "div",
            element(
                "p", element("span", _price(video.estimate.usd_micros), class_="price"), _prompt(video), class_="prompt"
            ),
            element("p", f"Row {row + 1}. {video.generator} ({video.model.id}). {facts}.", class_="small"),
            *[element("p", _source(source), class_="small") for source in video.sources],
            *[element("p", f"Read as: {note}", class_="small") for note in video.notes],
            *[element("p", f"Not met: {problem.message}", class_="small wait") for problem in video.unmet],
            class_="text",
        ),
    )


def _prompt(video: PlannedVideo) -> str:
    return " / ".join(shot.prompt for shot in video.request.shots)


def _source(source: Source) -> str:
    edits = "".join(f", {edit.operation}" for edit in source.edits)
    enlarged = ", enlarged" if source.conformed.upscaled else ""
    return f"{source.caption or source.file_name} ({source.asset_id.partition('/')[0]}{edits}, {source.conformed.mode}{enlarged})"


def _strip(sources: tuple[Source, ...], thumbnail: Thumbnail) -> Markup:
    if not sources:
        return element("div", "no picture: from words alone", class_="none")
    return element("div", *_pictures(sources, thumbnail), class_="strip")


def _pictures(sources: tuple[Source, ...], thumbnail: Thumbnail, **attributes: str) -> list[Markup]:
    return [
        element(
            "img",
            src=data_url(thumbnail(source.conformed.media)),
            alt=source.caption or source.file_name or "picture without a caption",
            **attributes,
        )
        for source in sources
    ]


def _open(one: OpenVideo, thumbnail: Thumbnail) -> Markup:
    waits = "to be edited" if one.waits_for == "edit" else "for a choice among the variants"
    return element(
        "li",
        _strip(tuple(edit.source for edit in one.edits), thumbnail),
        element(
            "div",
            element("p", one.brief.object_prompt or one.brief.template or "storyboard", class_="prompt"),
            element("p", f"Row {one.index + 1} waits {waits}.", class_="small wait"),
            *[element("p", _edit(edit), class_="small") for edit in one.edits],
            class_="text",
        ),
    )


def _edit(edit: PlannedEdit) -> Markup:
    asked = edit.request.prompt or edit.request.mask_prompt
    return join(
        f"{edit.request.operation}{f' ({asked})' if asked else ''}, {_price(edit.estimate.usd_micros)}: ",
        element("code", edit.step_id[:12]),
    )


def _failure(failure: PlanFailure) -> Markup:
    hint = failure.error.get("hint")
    asked = failure.brief.object_prompt or failure.brief.template or ""
    return element(
        "li",
        element("strong", f"Row {failure.index + 1}{f' ({asked})' if asked else ''}: "),
        element("span", str(failure.error.get("message")), class_="bad"),
        None if hint is None else element("p", "Next: ", element("code", str(hint)), class_="small"),
    )
