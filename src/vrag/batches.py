"""Batch files and matrices become briefs, each with the line it came from; what is wrong is found before anything is bought."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final

from attrs import evolve, frozen

from vrag.errors import PromptError, UsageError
from vrag.knowledge.filters import parse_filters
from vrag.media.fit import FIT_MODES
from vrag.prompts.batch import BatchFile, BatchProblem, BatchRow, read_batch
from vrag.values.assets import check_knowledge_base_name
from vrag.values.briefs import Brief
from vrag.values.canonical import JSON, digest_json, to_json

__all__ = ["Batch", "BatchBrief", "matrix", "read_briefs", "size_of_shape"]

_PLAIN: Final = ("model", "picture", "negative_prompt", "seed", "take", "duration_s", "width_px", "height_px")
_LOOK: Final = ("style", "mood", "lighting")


@frozen(kw_only=True)
class BatchBrief:
    """One row of a batch."""

    line: int | None
    """Where it stands in its file, from 1; None for a row of a matrix without a file."""
    brief: Brief
    audience: str | None = None
    """Whom it is for: an id of the caller's."""
    filter: str | None = None
    """The filter, as it was written."""

    def to_row(self) -> dict[str, JSON]:
        """The row as a line of JSONL, which `read_briefs` reads again."""
        brief = self.brief
        columns = {name: getattr(brief, name) for name in ("template", "object_prompt", "action_prompt", *_PLAIN)}
        columns |= {"knowledge_base": brief.knowledge_base, "audience": self.audience, "filter": self.filter}
        columns |= {"fit": brief.fit, **{name: getattr(brief.look, name) for name in _LOOK}, **brief.slots}
        return {name: value for name, value in columns.items() if value is not None}


@frozen(kw_only=True)
class Batch:
    """Rows in the order of their file, and what is wrong with the others."""

    rows: tuple[BatchBrief, ...]
    problems: tuple[BatchProblem, ...] = ()

    @property
    def briefs(self) -> tuple[Brief, ...]:
        """What a pipeline plans and runs."""
        return tuple(row.brief for row in self.rows)


def read_briefs(
    data: bytes,
    name: str,
    *,
    base: Brief | None = None,
    objects: Sequence[str] = (),
    actions: Sequence[str] = (),
    slots: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (),
    audiences: Mapping[str, str] | None = None,
) -> Batch:
    """Read `prompts.txt`, CSV or JSONL (see `read_batch`) into briefs.

    Columns set the knowledge base, filter (`tag=shoe; orientation=landscape`), picture, model, size or aspect ratio, fit,
    duration, seed, take, look and audience of a row. Where several objects, actions or seeds are given, each row is made
    for each of them, those in the row itself excepted.

    A knowledge base that rows of one audience draw on is closed to all others: a row of another audience, or of none, that
    names it is a problem.

    Args:
        data: The bytes of the file.
        name: Its name; the end says the format.
        base: What all rows have that they do not say themselves.
        objects: Object prompts of rows without one.
        actions: Action prompts of rows without one.
        slots: Values of further slots, for rows that do not set them.
        seeds: Seeds of rows without one.
        audiences: The knowledge base of each audience; a row of that audience takes it.

    Raises:
        PromptError: The file as a whole cannot be read.
    """
    start = base or Brief()
    problems: dict[tuple[int, str], BatchProblem] = {}
    rows: list[BatchBrief] = []
    for object_prompt in objects or (None,):
        for action_prompt in actions or (None,):
            prompts = {"object_prompt": object_prompt, "action_prompt": action_prompt}
            given = {**(slots or {}), **{slot: text for slot, text in prompts.items() if text is not None}}
            read = read_batch(data, name, slots=given, template=start.template)
            problems |= {(problem.line, problem.message): problem for problem in read.problems}
            for row, found in _converted(read, start, audiences or {}):
                if isinstance(found, BatchProblem):
                    problems[found.line, found.message] = found
                    continue
                spread = seeds if "seed" not in row.columns else ()
                rows += [evolve(found, brief=evolve(found.brief, seed=seed)) for seed in spread] or [found]
    kept, mixed = _apart(rows, audiences or {})
    problems |= {(problem.line, problem.message): problem for problem in mixed}
    # A row that has its own object and action is the same for each of those that were given.
    unique = {(row.line, digest_json(to_json(row.brief))): row for row in kept}
    return Batch(
        rows=tuple(sorted(unique.values(), key=lambda row: row.line or 0)),
        problems=tuple(sorted(problems.values(), key=lambda problem: problem.line)),
    )


def matrix(
    base: Brief,
    *,
    objects: Iterable[str] = (),
    actions: Iterable[str] = (),
    templates: Iterable[str] = (),
    seeds: Iterable[int] = (),
) -> Batch:
    """Every object with every action, template and seed; what is left out is as in `base`."""
    return Batch(
        rows=tuple(
            BatchBrief(
                line=None,
                brief=evolve(base, object_prompt=object_prompt, action_prompt=action_prompt, template=text, seed=seed),
            )
            for text in tuple(templates) or (base.template,)
            for object_prompt in tuple(objects) or (base.object_prompt,)
            for action_prompt in tuple(actions) or (base.action_prompt,)
            for seed in tuple(seeds) or (base.seed,)
        )
    )


def size_of_shape(aspect_ratio: str, short_side_px: int) -> tuple[int, int]:
    """Width and height, both even, of a shape such as `9:16` whose short side is given.

    Raises:
        PromptError: It is flatter or steeper than 1:10.
    """
    width, _, height = aspect_ratio.partition(":")
    shape = Fraction(int(width), int(height))
    if not Fraction(1, 10) <= shape <= 10:
        raise PromptError(f"The aspect ratio {aspect_ratio} is flatter or steeper than 1:10.")
    long_side = 2 * round(short_side_px * max(shape, 1 / shape) / 2)
    return (long_side, short_side_px) if shape >= 1 else (short_side_px, long_side)


def _converted(
    read: BatchFile, base: Brief, audiences: Mapping[str, str]
) -> Iterator[tuple[BatchRow, BatchBrief | BatchProblem]]:
    for row in read.rows:
        try:
            yield row, _brief(row, base, audiences)
        except (UsageError, ValueError) as error:
            message = error.message if isinstance(error, UsageError) else str(error.args[0])
            yield row, BatchProblem(line=row.line, message=message)


def _brief(row: BatchRow, base: Brief, audiences: Mapping[str, str]) -> BatchBrief:
    columns = row.columns
    values: dict[str, object] = {name: columns[name] for name in _PLAIN if name in columns}
    audience = str(columns["audience"]) if "audience" in columns else None
    named = str(columns["knowledge_base"]) if "knowledge_base" in columns else None
    own = audiences.get(audience) if audience is not None else None
    if audience is not None and audiences and own is None:
        raise PromptError(f"The audience '{audience[:80]}' is not known; there are: {', '.join(sorted(audiences))}.")
    if named is not None and own is not None and named != own:
        raise PromptError(f"The audience '{audience}' draws on the knowledge base '{own}', not on '{named[:80]}'.")
    if own or named:
        values["knowledge_base"] = check_knowledge_base_name(str(own or named))
    if "aspect_ratio" in columns:
        if {"width_px", "height_px"} & set(columns):
            raise PromptError("A row has an aspect ratio, or a width and a height, not both.")
        short_px = min(base.width_px, base.height_px)
        values["width_px"], values["height_px"] = size_of_shape(str(columns["aspect_ratio"]), short_px)
    if "fit" in columns:
        if columns["fit"] not in FIT_MODES:
            raise PromptError(f"The fit is one of {', '.join(FIT_MODES)}, not '{str(columns['fit'])[:40]}'.")
        values["fit"] = columns["fit"]
    if "filter" in columns:
        values["filter"] = parse_filters(term for term in str(columns["filter"]).split(";") if term.strip())
    look = {name: str(columns[name]) for name in _LOOK if name in columns}
    if look:
        values["look"] = evolve(base.look, **look)
    known = {name: row.slots.get(name) for name in ("object_prompt", "action_prompt")}
    further = {slot: text for slot, text in row.slots.items() if slot not in known}
    brief = evolve(base, template=row.template, slots=further, **known, **values)  # type: ignore[arg-type]
    return BatchBrief(line=row.line, brief=brief, audience=audience, filter=_text(columns.get("filter")))


def _text(cell: str | float | None) -> str | None:
    return None if cell is None else str(cell)


def _apart(rows: Sequence[BatchBrief], audiences: Mapping[str, str]) -> tuple[list[BatchBrief], list[BatchProblem]]:
    """Rows whose knowledge base is their audience's alone, and the others as problems."""
    owner: dict[str | None, str] = {name: audience for audience, name in audiences.items()}
    kept: list[BatchBrief] = []
    problems: list[BatchProblem] = []
    for row in rows:
        if row.audience is not None:
            owner.setdefault(row.brief.knowledge_base, row.audience)
    for row in rows:
        named = row.brief.knowledge_base
        if named in owner and owner[named] != row.audience:
            who = f"the audience '{row.audience}'" if row.audience else "a row without an audience"
            problems.append(
                BatchProblem(
                    line=row.line or 0,
                    message=f"The knowledge base '{named}' belongs to the audience '{owner[named]}'; {who} cannot draw on it.",
                )
            )
        else:
            kept.append(row)
    return kept, problems
