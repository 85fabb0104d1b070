"""What may be spent: one choke point for every paid thing, asked in the transaction that lets it be sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from attrs import field, frozen

from vrag.clock import Clock, rfc3339
from vrag.errors import BudgetError
from vrag.values.briefs import Plan, PlannedEdit, PlannedVideo
from vrag.values.policy import Caps
from vrag.workspace.db import Database

__all__ = ["Budget", "Purchase", "Spent", "purchases_of"]

_NOT_BOUGHT = ("planned", "failed", "cancelled")


@frozen(kw_only=True)
class Purchase:
    """One attempt to buy something."""

    token: str
    kind: str
    """`generate`, `edit`, `assemble`, `caption`, `embed` or `moderate`."""
    usd_micros: int | None
    """None: the price is not known, which is never zero."""
    video_s: float = 0.0
    run_id: str | None = None
    knowledge_base: str | None = None


@frozen(kw_only=True)
class Spent:
    """What is spent, running or undecided."""

    usd_micros: int = 0
    """Of everything with a known price."""
    video_s: float = 0.0
    count: int = 0
    """How many purchases."""
    unknown: int = 0
    """How many of them have no known price."""
    undecided_usd_micros: int = 0
    """The part of `usd_micros` of which nobody knows (yet) whether it was billed."""


@frozen(kw_only=True)
class _Cap:
    name: str
    words: str
    limit: float
    is_money: bool
    where: str
    key: Mapping[str, str | None] = field(factory=dict)


class Budget:
    """Keeps purchases within the caps.

    A purchase is written down before it is sent and counts from then on; what turns out not to be billed is let go. A row
    of which nobody knows counts as spent.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        caps: Caps | None = None,
        unknown_price: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        self._database = database
        self._clock = clock
        self.caps = caps or Caps()
        """In force from now on; a pipeline sets them."""
        self.unknown_price: Literal["refuse", "allow"] = unknown_price

    # -- before anything is bought

    def reserve_run(
        self,
        run_id: str,
        plan: Plan | Iterable[PlannedVideo | PlannedEdit],
        *,
        usd_micros: int | None = None,
        video_s: float | None = None,
    ) -> None:
        """Begin a run, or go on with it: refuse it whole where it could pass a cap. What exists already costs nothing.

        Args:
            run_id: Names the run; its steps carry it.
            plan: Everything that the run is going to buy.
            usd_micros: The run's own cap, kept for every process that goes on with it; None is that of the caps.
            video_s: The run's own cap in seconds of video.

        Raises:
            BudgetError: It would pass a cap; nothing was reserved.
        """
        planned: Iterable[PlannedVideo | PlannedEdit] = (*plan.edits, *plan.videos) if isinstance(plan, Plan) else plan
        wanted = {one.token: one for step in planned for one in purchases_of(step, run_id=run_id)}
        now = rfc3339(self._clock.now())
        with self._database.transaction() as connection:
            connection.execute(
                "insert into run values(:id, :usd_micros, :video_s, :now) on conflict(id) do update set"
                " usd_micros = coalesce(:usd_micros, usd_micros), video_s = coalesce(:video_s, video_s)",
                {"id": run_id, "usd_micros": usd_micros, "video_s": video_s, "now": now},
            )
            known = self._bought(connection, list(wanted))
            fresh = [one for token, one in wanted.items() if token not in known]
            bases = {one.knowledge_base for one in fresh}
            self._check(connection, fresh, [cap for base in bases for cap in self._caps(connection, run_id, base)])

    @staticmethod
    def _bought(connection: sqlite3.Connection, step_ids: list[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(step_ids), 500):
            some = step_ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            rows = connection.execute(f"select id, state from step where id in ({marks})", some)  # noqa: S608  # only "?"
            found |= {row["id"] for row in rows if row["state"] not in _NOT_BOUGHT}
        return found

    # -- in the transaction of a purchase

    def charge(self, connection: sqlite3.Connection, purchase: Purchase) -> None:
        """Write a purchase down inside the caller's transaction, unless it would pass a cap.

        Raises:
            BudgetError: It would; the transaction must not go on.
        """
        self._check(connection, [purchase], self._caps(connection, purchase.run_id, purchase.knowledge_base))
        connection.execute(
            "insert or replace into spend(token, kind, run_id, knowledge_base, usd_micros, video_s, at, billed)"
            " values(?, ?, ?, ?, ?, ?, ?, null)",
            (
                purchase.token,
                purchase.kind,
                purchase.run_id,
                purchase.knowledge_base,
                purchase.usd_micros,
                purchase.video_s,
                rfc3339(self._clock.now()),
            ),
        )

    @staticmethod
    def settle(connection: sqlite3.Connection, token: str, *, billed: bool | None) -> None:
        """Say whether a purchase was billed; None changes nothing."""
        if billed is not None:
            connection.execute("update spend set billed = ? where token = ?", (int(billed), token))

    @staticmethod
    def release(connection: sqlite3.Connection, token: str) -> None:
        """Forget a purchase that was certainly never made."""
        connection.execute("delete from spend where token = ?", (token,))

    # -- what the caps are

    def _caps(self, connection: sqlite3.Connection, run_id: str | None, knowledge_base: str | None) -> list[_Cap]:
        caps, month = self.caps, self._clock.now().astimezone(UTC).strftime("%Y-%m")
        own = connection.execute("select usd_micros, video_s from run where id = ?", (run_id,)).fetchone()
        run_usd = caps.run_usd_micros if own is None or own["usd_micros"] is None else own["usd_micros"]
        run_s = caps.run_video_s if own is None or own["video_s"] is None else own["video_s"]
        by_run = ("run_id = :run", {"run": run_id})
        by_base = ("knowledge_base = :base", {"base": knowledge_base})
        by_month = ("at >= :first and at < :next", _bounds(month))
        found = [
            ("run_usd_micros", "this run", run_usd if run_id else None, True, by_run),
            (
                "knowledge_base_usd_micros",
                f"the knowledge base '{knowledge_base}'",
                caps.knowledge_base_usd_micros if knowledge_base else None,
                True,
                by_base,
            ),
            ("month_usd_micros", f"{month} (UTC)", caps.month_usd_micros, True, by_month),
            ("run_video_s", "this run", run_s if run_id else None, False, by_run),
            ("month_video_s", f"{month} (UTC)", caps.month_video_s, False, by_month),
        ]
        return [
            _Cap(name=name, words=words, limit=limit, is_money=is_money, where=where, key=key)
            for name, words, limit, is_money, (where, key) in found
            if limit is not None
        ]

    def _check(self, connection: sqlite3.Connection, fresh: list[Purchase], caps: list[_Cap]) -> None:
        for cap in caps:
            here = [
                one for one in fresh if cap.name != "knowledge_base_usd_micros" or one.knowledge_base == cap.key["base"]
            ]
            if cap.is_money and self.unknown_price == "refuse" and any(one.usd_micros is None for one in here):
                raise BudgetError(
                    f"A price is not known, and unknown is not zero: nothing is bought under the cap of "
                    f"{_usd(cap.limit)} USD for {cap.words}.",
                    cap=cap.name,
                    hint="give the price of this model, or set Policy(unknown_price='allow')",
                )
            new = sum(((one.usd_micros or 0) if cap.is_money else one.video_s) for one in here)
            if not new:
                continue
            spent = _sum(connection, cap.where, cap.key)
            old = spent.usd_micros if cap.is_money else spent.video_s
            if old + new > cap.limit + (0 if cap.is_money else 1e-6):
                shown, unit = (_usd, "USD") if cap.is_money else (_seconds, "s of video")
                raise BudgetError(
                    f"This would cost {shown(new)} {unit}, and {shown(old)} of the {shown(cap.limit)} {unit} for "
                    f"{cap.words} are spent, running or undecided; nothing was bought.",
                    cap=cap.name,
                    hint="ask for less, raise the cap, or settle what is undecided: vrag jobs",
                )

    # -- what was spent

    def spent(self, *, run_id: str | None = None, knowledge_base: str | None = None, month: str | None = None) -> Spent:
        """What is spent, running or undecided.

        Args:
            run_id: Only of this run.
            knowledge_base: Only for this knowledge base.
            month: Only in this month, UTC: `2026-11`.
        """
        parts: list[str] = ["1 = 1"]
        key: dict[str, str | None] = {}
        if run_id is not None:
            parts.append("run_id = :run")
            key["run"] = run_id
        if knowledge_base is not None:
            parts.append("knowledge_base = :base")
            key["base"] = knowledge_base
        if month is not None:
            parts.append("at >= :first and at < :next")
            key |= _bounds(month)
        with self._database.read() as connection:
            return _sum(connection, " and ".join(parts), key)


def purchases_of(planned: PlannedVideo | PlannedEdit, *, run_id: str | None = None) -> tuple[Purchase, ...]:
    """What buying it means: a joined video is its parts."""
    steps: tuple[PlannedVideo | PlannedEdit, ...] = (
        (planned,) if isinstance(planned, PlannedEdit) else planned.purchases
    )
    return tuple(
        Purchase(
            token=one.step_id,
            kind="edit" if isinstance(one, PlannedEdit) else "generate",
            usd_micros=one.estimate.usd_micros,
            video_s=one.estimate.video_s,
            run_id=run_id,
            knowledge_base=knowledge_base_of(one),
        )
        for one in steps
    )


def knowledge_base_of(planned: PlannedVideo | PlannedEdit) -> str | None:
    """The knowledge base that pays: that of the first picture."""
    return planned.sources[0].knowledge_base if planned.sources else planned.brief.knowledge_base


def _sum(connection: sqlite3.Connection, where: str, key: Mapping[str, str | None]) -> Spent:
    columns = (
        "coalesce(sum(usd_micros), 0) as usd_micros, coalesce(sum(video_s), 0.0) as video_s, count(*) as count,"
        " count(*) - count(usd_micros) as unknown,"
        " coalesce(sum(case when billed is null then usd_micros end), 0) as undecided_usd_micros"
    )
    query = f"select {columns} from spend where billed is not 0 and {where}"  # noqa: S608  # `where` is one of ours
    row = connection.execute(query, dict(key)).fetchone()
    return Spent(**dict(row))


def _bounds(month: str) -> dict[str, str | None]:
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return {"first": rfc3339(first), "next": rfc3339(following)}


def _usd(micros: float) -> str:
    return f"{micros / 1e6:.6f}".rstrip("0").rstrip(".") or "0"


def _seconds(seconds: float) -> str:
    return f"{seconds:g}"
