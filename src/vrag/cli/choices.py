"""What `--choose` says: a number or a rule, for all edits or for one by its id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from vrag.errors import UsageError

if TYPE_CHECKING:
    from vrag.values.briefs import Brief, ChoiceRule, Edit

__all__ = ["choosing", "read_choice", "read_choices"]


def read_choice(text: str) -> int | ChoiceRule:
    """A number from 1, or the name of a rule.

    Raises:
        UsageError: It is neither.
    """
    from vrag.values.briefs import ChoiceRule  # noqa: PLC0415  # beside what it needs

    rules: dict[str, ChoiceRule] = {rule.replace(" ", "-"): rule for rule in get_args(ChoiceRule)}
    if found := rules.get(text.replace(" ", "-")):
        return found
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UsageError(f"'{text[:80]}' is no variant: a number from 1, or {', '.join(rules)}.", hint="--choose 2")
    return int(text)


def read_choices(given: Iterable[str]) -> int | ChoiceRule | dict[str, int | ChoiceRule]:
    """One choice for all edits, or `EDIT=CHOICE` for each.

    Raises:
        UsageError: One of them is neither a number nor a rule, or both forms are mixed.
    """
    pairs = [one.rpartition("=") for one in given]
    plain = [choice for _, mark, choice in pairs if not mark]
    if plain and len(pairs) > 1:
        raise UsageError(f"'{plain[0][:80]}' is for all edits, and others are named.", hint="--choose EDIT=NUMBER")
    if plain:
        return read_choice(plain[0])
    return {edit: read_choice(choice) for edit, _, choice in pairs}


def choosing(brief: Brief, choice: int | ChoiceRule) -> Brief:
    """The brief with a choice for each edit of several variants that has none.

    Raises:
        UsageError: It has no such edit, or several and one number for all of them.
    """
    from attrs import evolve  # noqa: PLC0415  # beside its use

    every = [*brief.edits, *(edit for shot in brief.shots for edit in shot.edits)]
    several = [edit for edit in every if edit.count > 1 and edit.choose is None]
    if not several or (isinstance(choice, int) and len(several) > 1):
        raise UsageError(
            f"{len(several)} edits of the brief have variants to choose from; --choose {choice} is for one.",
            hint='write "choose" into each edit of the brief' if several else 'an edit with "count": 3 in --brief FILE',
        )

    def settled(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        return tuple(evolve(edit, choose=choice) if edit in several else edit for edit in edits)

    shots = tuple(evolve(shot, edits=settled(shot.edits)) for shot in brief.shots)
    return evolve(brief, edits=settled(brief.edits), shots=shots)
