"""Staleness: what of a video has changed since it was made - its pictures, their words, its template, its models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from attrs import frozen

from vrag.provenance.lineage import sources_of
from vrag.provenance.steps import ERASED, statement_of, step_kind, words_of
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.canonical import JSON
from vrag.values.requests import ModelRef
from vrag.workspace.ledger import Ledger

__all__ = ["Now", "StaleKind", "Staleness", "stale"]

StaleKind = Literal[
    "picture revoked",
    "picture expired",
    "picture rejected",
    "picture proposed",
    "picture gone",
    "picture erased",
    "picture reviewed again",
    "caption changed",
    "template changed",
    "model changed",
    "model legacy",
    "model retired",
]
_BY_STATE: Final[Mapping[ReviewState, StaleKind]] = {
    ReviewState.REVOKED: "picture revoked",
    ReviewState.EXPIRED: "picture expired",
    ReviewState.REJECTED: "picture rejected",
    ReviewState.PROPOSED: "picture proposed",
}
_BY_LIFE: Final[Mapping[str, StaleKind]] = {"legacy": "model legacy", "retired": "model retired"}


@frozen(kw_only=True)
class Staleness:
    """One thing that is no longer as it was when the video was made."""

    kind: StaleKind
    what: str
    """The asset id, the model, or `template`."""
    since: str | None
    """When that came about: RFC 3339 UTC or a day; None where nothing says when."""
    detail: str
    """For people; words of a person may stand in it."""


@frozen(kw_only=True)
class Now:
    """How things stand now, asked of whoever knows; what is left out is not compared."""

    review: Callable[[str], Review] | None = None
    """The review of an asset that holds now."""
    asset: Callable[[str], Asset | None] | None = None
    """An asset as the index knows it now; None where it is no longer there."""
    model: Callable[[str], ModelRef | None] | None = None
    """The model that a name of the configuration means now; None where there is none of that name."""
    lifecycle: Callable[[ModelRef], tuple[str, str | None] | None] | None = None
    """`active`, `legacy` or `retired` with the day that began; None for a model that is not listed."""
    template: Callable[[], str | None] | None = None
    """The template that would be used now; None is the built-in one."""


def stale(ledger: Ledger, key: str, now: Now) -> tuple[Staleness, ...]:
    """What has changed since a video was made, through every step that led to it, each thing once.

    What was erased cannot be compared, and is not said to have changed.

    Args:
        ledger: The ledger of the workspace.
        key: The id of the video's record (that of its step), or a SHA-256 of its bytes.
        now: Answers about the present. What it raises is raised.

    Raises:
        NotFoundError: No record names it.
        VerificationError: A record cannot be read.
        FormatVersionError: A newer release wrote one.
    """
    found: dict[tuple[str, str], Staleness] = {}
    graph = sources_of(ledger, key)
    for record_id in dict.fromkeys(record_id for node in graph.nodes.values() for record_id in node.records):
        statement = statement_of(ledger.get(record_id))
        if statement is not None:
            texts = {text.keyed_digest: text.value for text in ledger.texts(record_id)}
            for one in (*_pictures(statement, texts, now), *_template(statement, texts, now), *_model(statement, now)):
                found.setdefault((one.kind, one.what), one)
    return tuple(found.values())


def _pictures(statement: JSON, texts: Mapping[str, str], now: Now) -> Iterator[Staleness]:
    for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        notes = one["annotations"]
        if notes["kind"] == "asset":
            yield from _picture(notes, texts, now)


def _picture(notes: JSON, texts: Mapping[str, str], now: Now) -> Iterator[Staleness]:
    name: str = notes["asset_id"]
    asset = None
    if now.asset is not None:
        asset = now.asset(name)
        if asset is None:
            yield Staleness(
                kind="picture gone", what=name, since=None, detail="it is not in its knowledge base any more"
            )
            return
        if asset.erased_at is not None:
            yield Staleness(kind="picture erased", what=name, since=asset.erased_at, detail="its bytes were deleted")
    if now.review is not None:
        yield from _review(name, notes.get("review") or {}, now.review(name), asset)
    if asset is not None and asset.erased_at is None:
        then = words_of(notes.get("caption"), texts)
        if then not in {ERASED, asset.caption}:
            was, is_now = (f'"{caption}"' if caption else "none" for caption in (then, asset.caption))
            yield Staleness(kind="caption changed", what=name, since=None, detail=f"it was {was}, it is {is_now}")


def _review(name: str, then: JSON, review: Review, asset: Asset | None) -> Iterator[Staleness]:
    kind = _BY_STATE.get(review.state)
    because = f": {review.reason}" if review.reason else ""
    if kind == "picture expired" and asset is not None and asset.rights.expires_on is not None:
        yield Staleness(
            kind=kind, what=name, since=asset.rights.expires_on, detail="that was the last day of its rights"
        )
    elif kind is not None:
        yield Staleness(kind=kind, what=name, since=review.at, detail=f"by {review.by}{because}")
    elif isinstance(then.get("sequence"), int) and review.sequence > then["sequence"]:
        detail = f"{review.state} again by {review.by}{because}"
        yield Staleness(kind="picture reviewed again", what=name, since=review.at, detail=detail)


def _template(statement: JSON, texts: Mapping[str, str], now: Now) -> Iterator[Staleness]:
    asked = statement["predicate"]["buildDefinition"]["externalParameters"]
    if now.template is None or not isinstance(asked, dict) or "template" not in asked:
        return
    then, current = words_of(asked["template"], texts), now.template()
    if then not in {ERASED, current}:
        was, is_now = (f'"{one}"' if one else "the built-in one" for one in (then, current))
        yield Staleness(kind="template changed", what="template", since=None, detail=f"it was {was}, it is {is_now}")


def _model(statement: JSON, now: Now) -> Iterator[Staleness]:
    said = statement["predicate"]["buildDefinition"]["internalParameters"].get("generator")
    if not isinstance(said, dict) or not isinstance(said.get("provider"), str) or not isinstance(said.get("id"), str):
        return
    model = ModelRef(provider=said["provider"], id=said["id"], region=said.get("region"), account=said.get("account"))
    if now.lifecycle is not None:
        life = now.lifecycle(model)
        kept = said.get("lifecycle")
        then = kept.get("state") if isinstance(kept, dict) else None
        if life is not None and life[0] in _BY_LIFE and life[0] != then:
            yield Staleness(kind=_BY_LIFE[life[0]], what=str(model), since=life[1], detail=f"it is {life[0]}")
    name = said.get("name")
    # A film that was joined here has the name of the generator of its parts.
    if now.model is not None and isinstance(name, str) and step_kind(statement) != "assemble":
        current = now.model(name)
        if current is None:
            yield Staleness(
                kind="model changed", what=str(model), since=None, detail=f"'{name}' is not configured any more"
            )
        elif current != model:
            yield Staleness(kind="model changed", what=str(model), since=None, detail=f"'{name}' is now {current}")
