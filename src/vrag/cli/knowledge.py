"""`vrag ingest`, `review` and `search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vrag.cli.bases import approve_cost
from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.errors import UsageError
from vrag.values.assets import ReviewState
from vrag.values.canonical import JSON, to_json
from vrag.values.vectors import Is

if TYPE_CHECKING:
    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.values.vectors import Hit

__all__ = ["ingest", "review", "search"]


@click.command()
@click.argument("source")
@knowledge_base_option
@click.option("--approve", is_flag=True, help="Approve what is new at once; needs --by.")
@click.option("--by", metavar="NAME", help="Who approves.")
@click.option("--fold", is_flag=True, help="Leave out pictures that look like one that is there already.")
@click.option("--prune", is_flag=True, help="Take pictures that vanished from the source out of the index.")
@click.option("--yes", is_flag=True, help="Approve the price of paid backends without being asked.")
@session_options
def ingest(
    session: Session,
    *,
    source: str,
    kb: str | None,
    approve: bool,
    by: str | None,
    fold: bool,
    prune: bool,
    yes: bool,
) -> int:
    """Take pictures into a knowledge base: a folder, one picture, or a manifest (.csv, .jsonl).

    Running it again takes only what is new. A file that is rejected is named with its reason, and the others go on
    (exit code 4).

    \b
    Examples:
      vrag ingest ./photos --kb brand
      vrag ingest ./photos --kb brand --approve --by "$USER"
      vrag ingest captions.jsonl --kb brand
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    if approve != (by is not None):
        raise UsageError("--approve and --by NAME come together.", hint=f'vrag ingest {source} --approve --by "$USER"')
    output = session.output
    with session.knowledge_base(kb, filled=False) as knowledge_base, output.progress("ingest") as progress:
        report = knowledge_base.ingest(
            source,
            approve_by=by,
            approve_cost=lambda estimate: approve_cost(session, yes=yes, what=f"{estimate}\nGo on?"),
            near_duplicates="fold" if fold else "report",
            prune=prune,
            captioner=session.assembly.captioner(knowledge_base.name),
            progress=lambda done, total, name: progress(done, total or 0, name),
        )
        proposed = knowledge_base.count(Is(field="review", value=ReviewState.PROPOSED))
    for line in str(report).splitlines():
        output.say(line)
    if proposed:
        session.next_step("review", "--kb", report.knowledge_base, "--approve-all", "--by", '"$USER"')
    output.document({**report.to_json(), "proposed": proposed})
    return 0 if report.ok else 4 if report.partial else 1


@click.command()
@knowledge_base_option
@click.option("--list", "listing", is_flag=True, help="List the pictures with their state. [default]")
@click.option("--approve-all", is_flag=True, help="Approve every picture that is proposed.")
@click.option("--approve", "approved", multiple=True, metavar="ASSET", help="Approve this one; may be given again.")
@click.option("--reject", "rejected", multiple=True, metavar="ASSET", help="Reject this one; may be given again.")
@click.option("--csv", "table", type=click.Path(exists=True), help="Decide as a table says: id, state, reason.")
@click.option("--web", is_flag=True, help="Decide on a web page of this machine; needs --by.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page; by default a free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option("--by", metavar="NAME", help="Who decides; needed for every decision.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept with the decision.")
@session_options
def review(
    session: Session,
    *,
    kb: str | None,
    listing: bool,
    approve_all: bool,
    approved: tuple[str, ...],
    rejected: tuple[str, ...],
    table: str | None,
    web: bool,
    port: int,
    open_browser: bool,
    by: str | None,
    reason: str | None,
) -> int:
    """Decide which pictures may be used; only approved ones ever are.

    An ASSET may be shortened to the first 8 or more characters of its digest.

    \b
    Examples:
      vrag review --kb brand
      vrag review --kb brand --approve-all --by "$USER"
      vrag review --kb brand --reject 9f86d081 --by "$USER" --reason "no model release"
      vrag review --kb brand --csv decisions.csv --by "$USER"
      vrag review --kb brand --web --open --by "$USER"
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    deciding = approve_all or approved or rejected or table or web
    if deciding and listing:
        raise UsageError("--list decides nothing: give it alone.", hint="vrag review --list")
    if deciding and not by:
        raise UsageError("A decision needs the name of who decides.", hint='--by "$USER"')
    output = session.output
    with session.knowledge_base(kb) as knowledge_base:
        if not deciding:
            rows = [
                {
                    "asset_id": asset.id,
                    "state": knowledge_base.review_of(asset.id).state.value,
                    "caption": asset.caption,
                    "file_name": asset.file_name,
                    "licence": asset.rights.licence,
                }
                for asset in knowledge_base.assets()
            ]
            _list(session, knowledge_base.name, rows)
            return 0
        assert by is not None  # checked above
        if web:
            return _on_a_page(session, knowledge_base, by=by, port=port, open_browser=open_browser)
        if table is not None:
            return _from_a_table(session, knowledge_base, table, by=by)
        decided: dict[str, int] = {}
        for chosen, state in ((rejected, ReviewState.REJECTED), (approved, ReviewState.APPROVED)):
            if chosen:
                decided[state.value] = len(knowledge_base.review(chosen, state, by=by, reason=reason))
        if approve_all:
            decided["approved"] = decided.get("approved", 0) + knowledge_base.approve_all(by=by)
        name = knowledge_base.name
    output.say(f"{name}: " + ", ".join(f"{count} {state}" for state, count in decided.items()))
    session.next_step("search", "WORDS", "--kb", name)
    output.document({"knowledge_base": name, "decided": decided, "by": by})
    return 0


def _on_a_page(session: Session, knowledge_base: KnowledgeBase, *, by: str, port: int, open_browser: bool) -> int:
    from vrag.cli.review_server import review_web  # noqa: PLC0415  # only this option needs a server

    # With --json the link must still reach the person.
    say = (lambda line: click.echo(line, err=True)) if session.output.as_json else session.output.say
    decided = review_web(knowledge_base, by=by, port=port, open_browser=open_browser, say=say)
    session.output.document({"knowledge_base": knowledge_base.name, "decided": dict(decided), "by": by})
    return 0


def _from_a_table(session: Session, knowledge_base: KnowledgeBase, table: str, *, by: str) -> int:
    report = knowledge_base.review_csv(Path(table).read_bytes(), by=by)
    for line in str(report).splitlines():
        session.output.say(line)
    session.output.document(report.to_json())
    return 0 if report.ok else 4 if report.partial else 1


def _list(session: Session, name: str, rows: Sequence[dict[str, JSON]]) -> None:
    output = session.output
    output.table(
        ("state", "asset", "licence", "picture"),
        [
            (
                row["state"],
                row["asset_id"].rpartition("/")[2][:12],
                row["licence"] or "-",
                row["caption"] or row["file_name"],
            )
            for row in rows
        ],
    )
    output.document({"knowledge_base": name, "assets": list(rows)})
    if any(row["state"] == "proposed" for row in rows):
        session.next_step("review", "--kb", name, "--approve-all", "--by", '"$USER"')


@click.command()
@click.argument("text")
@knowledge_base_option
@click.option("-k", "top_k", type=click.IntRange(1, 1000), default=10, show_default=True, help="At most so many.")
@click.option("--explain", is_flag=True, help="Say why each picture was found, and with which settings.")
@click.option("--filter", "filters", multiple=True, metavar="CONDITION", help="Such as tag=dog or width_px>=1280.")
@click.option("--like", is_flag=True, help="TEXT is an asset: find pictures like it.")
@click.option("--html", "page", type=click.Path(dir_okay=False), help="Write a page with thumbnails as well.")
@session_options
def search(
    session: Session,
    *,
    text: str,
    kb: str | None,
    top_k: int,
    explain: bool,
    filters: tuple[str, ...],
    like: bool,
    page: str | None,
) -> int:
    """Find approved pictures by what they show.

    "No suitable picture" is an answer: exit code 3, with the reasons and the nearest there are.

    \b
    Examples:
      vrag search "red shoes" --kb brand
      vrag search "red shoes" --kb brand --explain -k 3
      vrag search "dog" --kb brand --filter orientation=landscape --filter "width_px>=1280"
      vrag search 9f86d081 --like --kb brand
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.knowledge.filters import parse_filters  # noqa: PLC0415  # as in `review`
    from vrag.knowledge.notebook import search_page  # noqa: PLC0415  # as in `review`

    output = session.output
    with session.knowledge_base(kb) as knowledge_base:
        where = parse_filters(list(filters))
        ask = knowledge_base.search_picture if like else knowledge_base.search
        found = ask(text, top_k=top_k, filter=where)
        if page is not None:
            Path(page).write_text(search_page(knowledge_base, found), encoding="utf-8")
    refusal = found.refusal
    output.document(
        {
            "query": found.query,
            "hits": [_hit_json(hit) for hit in found.hits],
            "refusal": None
            if refusal is None
            else {"reasons": list(refusal.reasons), "nearest": [_hit_json(hit) for hit in refusal.candidates]},
            "settings": dict(found.settings),
        }
    )
    if page is not None:
        output.note(f"page: {page}")
    if refusal is not None:
        output.say(f"no suitable picture for '{found.query}'")
        for reason in refusal.reasons:
            output.say(f"  {reason}")
        if refusal.candidates:
            output.say("nearest:")
    shown = refusal.candidates[:5] if refusal is not None else found.hits
    if not explain:
        output.table(
            ("", "score", "picture", "asset"),
            [
                (number, f"{hit.fused_score:.3f}", hit.asset.caption or hit.asset.file_name, _short_id(hit))
                for number, hit in enumerate(shown, start=1)
            ],
        )
        return 3 if refusal is not None else 0
    for number, hit in enumerate(shown, start=1):
        output.say(f"{number:>3}. {hit.asset.caption or hit.asset.file_name}")
        output.say(f"     {hit.why}")
        output.say(f"     score {hit.fused_score:.3f}, {hit.review}, {hit.asset.file_name}, {_short_id(hit)}")
    output.say("settings:")
    for name, value in sorted(found.settings.items()):
        output.say(f"     {name}: {value}")
    return 3 if refusal is not None else 0


def _short_id(hit: Hit) -> str:
    return f"{hit.asset.knowledge_base}/{hit.asset.original.sha256[:12]}"


def _hit_json(hit: Hit) -> dict[str, JSON]:
    return {
        "asset_id": hit.asset.id,
        "file_name": hit.asset.file_name,
        "caption": hit.asset.caption,
        "review": hit.review.value,
        "fused_score": hit.fused_score,
        "cosine": hit.cosine,
        "word_rank": hit.word_rank,
        "matched_words": to_json(hit.matched_words),
        "why": hit.why,
    }
