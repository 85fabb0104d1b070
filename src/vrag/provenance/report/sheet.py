"""The contact sheet of a plan: every picture as the model will see it, with prompt and price, before anything is bought."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Final

from attrs import field, frozen

from vrag.media.ref import MediaRef
from vrag.provenance.report.markup import Markup, data_url, element, join, still
from vrag.provenance.report.shown import plural
from vrag.values.briefs import OpenVideo, Plan, PlanFailure, PlannedEdit, PlannedVideo, Source, Variant, best_variant

__all__ = ["ContactSheet"]

Thumbnail = Callable[[MediaRef], bytes]
"""A small JPEG or PNG of a picture in the storage."""
Overlay = Callable[[MediaRef, MediaRef], bytes]
"""The same of a picture with its mask laid over it."""

_STILL_PX: Final = 140
"""How high a picture stands in a notebook."""
_MEASURED: Final = {"sharpest": "sharpness", "least changed": "change"}
_MEANING: Final = (
    "Sharpness is how much neighbouring pixels differ in what was repainted; noise counts as detail. Change is how far the "
    "rest moved from the picture, in levels from 0 to 255. Neither number knows what a picture shows."
)
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
    overlay: Overlay = field(repr=False, eq=False)

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
            element("body", _header(self.plan), element("main", *self._sections())),
            lang="en",
        )

    def _repr_html_(self) -> str:
        """Plain figures, because a notebook has a style of its own."""
        shown = [
            element(
                "figure",
                *_pictures(video.sources, self.thumbnail, height_px=_STILL_PX),
                element("figcaption", f"{_prompt(video)} - {_price(video.estimate.usd_micros)}"),
            )
            for video in self.plan.videos
        ]
        shown += [
            element(
                "figure",
                self._before(edit, height_px=_STILL_PX),
                *[self._variant(edit, number, one, height_px=_STILL_PX) for number, one in enumerate(variants, 1)],
                element("figcaption", _edit_line(edit, variants)),
            )
            for one in self.plan.open
            for edit, variants in _waiting(one)
        ]
        failures = element("ul", *map(_failure, self.plan.failures)) if self.plan.failures else None
        return element("section", element("p", _totals(self.plan)), *shown, failures)

    def _sections(self) -> list[Markup]:
        plan, sections = self.plan, []
        if plan.videos:
            cards = [_video(row, video, self.thumbnail) for row, video in zip(plan.rows, plan.videos, strict=True)]
            sections += [element("h2", "Ready"), element("ul", *cards, class_="wall")]
        waiting = [(one, edit, variants) for one in plan.open for edit, variants in _waiting(one)]
        if chosen := [self._choice(*one) for one in waiting if one[2]]:
            sections += [
                element("h2", "Waiting for a choice"),
                element("p", _MEANING, class_="small"),
                element("ul", *chosen, class_="wall choices"),
            ]
        if bought := [self._bought(one, edit) for one, edit, variants in waiting if not variants]:
            sections += [element("h2", "Waiting to be edited"), element("ul", *bought, class_="wall")]
        if plan.failures:
            sections += [element("h2", "Not possible"), element("ul", *map(_failure, plan.failures), class_="lines")]
        return sections

    def _bought(self, one: OpenVideo, edit: PlannedEdit) -> Markup:
        """An edit that is not bought: the picture, what would be repainted, the price, and what to type."""
        request = edit.request
        grown = None
        if request.extend_px is not None:
            sides = zip(("left", "top", "right", "bottom"), request.extend_px, strict=True)
            grown = "Adds " + ", ".join(f"{px} px on the {side}" for side, px in sides if px) + "."
        return element(
            "li",
            element("div", self._before(edit), class_="strip"),
            element(
                "div",
                element(
                    "p", element("span", _price(edit.estimate.usd_micros), class_="price"), _edit(edit), class_="prompt"
                ),
                element("p", f"Row {one.index + 1} waits to be edited: {_picture(edit.source)}.", class_="small wait"),
                None if request.mask is None else element("p", "Tinted: what is repainted.", class_="small"),
                None if grown is None else element("p", grown, class_="small"),
                element("p", f"{request.count} variants to choose from.", class_="small")
                if request.count > 1
                else None,
                *[element("p", f"Not met: {problem.message}", class_="small wait") for problem in edit.unmet],
                element("p", "To buy: ", element("code", "vrag prepare PLAN.json"), class_="small"),
                class_="text",
            ),
        )

    def _choice(self, one: OpenVideo, edit: PlannedEdit, variants: tuple[Variant, ...]) -> Markup:
        """The variants of an edit, side by side behind the picture that they were made of."""
        name = edit.step_id[:12]
        before = "before, with what was repainted tinted" if edit.request.mask else "before"
        figures = [
            element(
                "figure",
                self._before(edit),
                element("figcaption", element("strong", "Picture"), element("span", before, class_="small")),
            )
        ]
        tells = [
            rule for rule in _MEASURED if len({one.scores.get(rule) for one in variants}) > 1
        ]  # no tag among equals
        for number, variant in enumerate(variants, 1):
            best = [rule for rule in tells if best_variant(rule, variants) == number]
            figures.append(
                element(
                    "figure",
                    self._variant(edit, number, variant),
                    element(
                        "figcaption",
                        element("strong", f"Variant {number}"),
                        *[element("span", rule, class_="tag") for rule in best],
                        element("span", _scores(variant), class_="small"),
                        element("code", f"--choose {name}={number}"),
                    ),
                )
            )
        return element(
            "li",
            element("div", *figures, class_="variants"),
            element(
                "div",
                element("p", _edit(edit), class_="prompt"),
                element("p", f"Row {one.index + 1} waits for a choice: {_picture(edit.source)}.", class_="small wait"),
                element(
                    "p", "To choose: ", element("code", f"vrag prepare PLAN.json --choose {name}=1"), class_="small"
                ),
                element(
                    "p",
                    "In Python: ",
                    element("code", f'pipeline.choose(plan, {{"{name}": 1}})'),
                    ", or ",
                    element("code", "Edit(choose=1)"),
                    " in the brief.",
                    class_="small",
                ),
                class_="text",
            ),
        )

    def _before(self, edit: PlannedEdit, *, height_px: int | None = None) -> Markup:
        request, alt = edit.request, _alt(edit.source)
        if request.mask is None:
            return _shown(self.thumbnail(request.image), alt, height_px)
        return _shown(self.overlay(request.image, request.mask), f"{alt}; what is repainted is tinted", height_px)

    def _variant(self, edit: PlannedEdit, number: int, variant: Variant, *, height_px: int | None = None) -> Markup:
        return _shown(self.thumbnail(variant.media), f"variant {number} of {_edit(edit)}", height_px)


def _shown(data: bytes, alt: str, height_px: int | None = None) -> Markup:
    """As the page lays it out, or no higher than this in a notebook."""
    return element("img", src=data_url(data), alt=alt) if height_px is None else still(data, alt, height_px=height_px)


def _alt(source: Source) -> str:
    return source.caption or source.file_name or "picture without a caption"


def _header(plan: Plan) -> Markup:
    return element(
        "header",
        element("h1", "What would be made"),
        element("p", _totals(plan), class_="facts"),
        element("p", "Digest of this plan: ", element("code", plan.digest), class_="small"),
    )


def _totals(plan: Plan) -> str:
    parts = [plural(len(plan.videos), "video")]
    parts += [f"{len(plan.open)} waiting"] if plan.open else []
    parts += [f"{len(plan.failures)} not possible"] if plan.failures else []
    seconds = sum(video.estimate.video_s for video in plan.videos)
    return f"{', '.join(parts)}; {seconds:g} s of video; {_price(plan.usd_micros)}"


def _price(micros: int | None) -> str:
    return "price not known" if micros is None else "free" if micros == 0 else f"{micros / 1e6:.2f} USD"


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


def _picture(source: Source) -> str:
    return f"{(source.caption or source.file_name).rstrip('.')} ({source.knowledge_base})"


def _source(source: Source) -> str:
    edits = "".join(f", {edit.operation}" for edit in source.edits)
    enlarged = ", enlarged" if source.conformed.upscaled else ""
    return f"{source.caption or source.file_name} ({source.asset_id.partition('/')[0]}{edits}, {source.conformed.mode}{enlarged})"


def _strip(sources: tuple[Source, ...], thumbnail: Thumbnail) -> Markup:
    if not sources:
        return element("div", "no picture: from words alone", class_="none")
    return element("div", *_pictures(sources, thumbnail), class_="strip")


def _pictures(sources: tuple[Source, ...], thumbnail: Thumbnail, *, height_px: int | None = None) -> list[Markup]:
    return [_shown(thumbnail(source.conformed.media), _alt(source), height_px) for source in sources]


def _waiting(one: OpenVideo) -> Iterator[tuple[PlannedEdit, tuple[Variant, ...]]]:
    for place, edit in enumerate(one.edits):
        yield edit, one.variants[place] if place < len(one.variants) else ()


def _edit(edit: PlannedEdit) -> str:
    request = edit.request
    asked = request.prompt or request.mask_prompt
    return f"{request.operation.replace('_', ' ')}{f' ({asked})' if asked else ''}"


def _edit_line(edit: PlannedEdit, variants: tuple[Variant, ...]) -> Markup:
    """An edit in a notebook, with what to type."""
    if not variants:
        return join(f"Waits to be edited: {_edit(edit)} - {_price(edit.estimate.usd_micros)}")
    numbered = "; ".join(f"{number}: {_scores(one)}" for number, one in enumerate(variants, 1))
    command = f'pipeline.choose(plan, {{"{edit.step_id[:12]}": 1}})'
    return join(f"Waits for a choice: {_edit(edit)} - {numbered} - ", element("code", command))


def _scores(variant: Variant) -> str:
    return (
        ", ".join(f"{_MEASURED.get(rule, rule)} {score:.2f}" for rule, score in variant.scores.items())
        or "not measured"
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
