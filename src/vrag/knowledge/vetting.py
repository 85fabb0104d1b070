"""Vetting: what holds for a picture, whether it may be used, and decisions carried out one by one or by the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from threading import RLock
from typing import Final

from attrs import evolve

from vrag.clock import Clock, rfc3339
from vrag.errors import FormatVersionError, GateError, NotFoundError, ProvenanceError, UsageError, VRAGError
from vrag.interfaces import Storage, VectorStore
from vrag.knowledge.erasure import Erasure, erase, tombstone
from vrag.knowledge.retrieval import UNREADABLE
from vrag.knowledge.review import Decision, ReviewFailure, ReviewReport, Reviews, read_decisions
from vrag.knowledge.rights import NOT_PERMITTED, UsePolicy, with_expiry
from vrag.knowledge.rows import asset_of, record_of
from vrag.values.assets import Asset, Review, ReviewState
from vrag.values.vectors import Is, VectorRecord

__all__ = ["Vetting", "check_by", "check_reason"]

_BATCH: Final = 64


class Vetting:
    """Reviews, policy and the index of one knowledge base, which says nothing of its own about either."""

    def __init__(
        self,
        name: str,
        *,
        store: VectorStore,
        storage: Storage,
        clock: Clock,
        policy: UsePolicy,
        zone: tzinfo,
        writing: RLock,
    ) -> None:
        """`writing` is held while a row is read and written back."""
        self.reviews = Reviews(storage, clock)
        self.policy = policy
        self._name = name
        self._store = store
        self._storage = storage
        self._clock = clock
        self._zone = zone
        self._writing = writing

    def held(self, asset: Asset) -> Review:
        """What holds for a picture now, see `KnowledgeBase.review_of`."""
        return with_expiry(asset, self.reviews.latest(asset), self._clock.now(), self._zone)

    def state_of(self, asset: Asset) -> str:
        """Its review state, `NOT_PERMITTED` or `UNREADABLE`."""
        try:
            state = self.held(asset).state
        except (ProvenanceError, UsageError):
            return UNREADABLE
        return NOT_PERMITTED if state is ReviewState.APPROVED and self.policy.refusal(asset.rights) else state

    def gate(self, asset: Asset) -> Review:
        """See `KnowledgeBase.gate`."""
        try:
            review = self.held(asset)
        except (ProvenanceError, UsageError) as error:
            raise GateError(
                f"The picture '{asset.id}' is not used: {error.message}",
                asset_id=asset.id,
                state=UNREADABLE,
                hint=getattr(error, "hint", None) or "restore the reviews from a backup, or use another picture",
            ) from error
        refusal = self.policy.refusal(asset.rights)
        if review.state is ReviewState.APPROVED and refusal is not None:
            raise GateError(
                f"The picture '{asset.id}' may not be used here: {refusal}.",
                asset_id=asset.id,
                state=NOT_PERMITTED,
                hint="use another picture, or ingest it again with the rights that it has",
            )
        if review.state is ReviewState.APPROVED:
            return review
        command = f"vrag review --kb {self._name} --approve {asset.id} --by NAME"
        hint = {
            ReviewState.REVOKED: "use another picture: a revoked one stays revoked",
            ReviewState.EXPIRED: f"ingest it again with a later 'expires_on', or use another picture ({command})",
        }.get(review.state, command)
        because = f" ({review.reason})" if review.reason else ""
        raise GateError(
            f"The picture '{asset.id}' may not be used: its review state is {review.state}{because}.",
            asset_id=asset.id,
            state=review.state,
            hint=hint,
        )

    def decide(
        self, records: Sequence[VectorRecord], state: ReviewState, *, by: str, reason: str | None
    ) -> tuple[Review, ...]:
        """One decision about each; those before one that is refused are made."""
        reviews: list[Review] = []
        try:
            # One by one: the list has what was decided before an error.
            reviews.extend(self.reviews.add(asset_of(record), state, by=by, reason=reason) for record in records)
        finally:
            # What was decided is told to the index, also when a later one was refused.
            for start in range(0, len(reviews), _BATCH):
                decided = {review.asset_id: review.state for review in reviews[start : start + _BATCH]}
                with self._writing:
                    rows = self._store.get(list(decided))
                    self._store.upsert([_with_hint(row, decided[row.key]) for row in rows])
        return tuple(reviews)

    def decide_table(self, data: bytes | str, *, by: str, find: Callable[[str], VectorRecord]) -> ReviewReport:
        """See `KnowledgeBase.review_csv`; `find` finds a picture by what stands for it."""
        check_by(by)
        wanted: dict[str, list[tuple[Decision, VectorRecord]]] = {}
        failed: list[ReviewFailure] = []
        for row in read_decisions(data):
            if isinstance(row, ReviewFailure):
                failed.append(row)
                continue
            try:
                record = find(row.asset_id)
            except (NotFoundError, UsageError) as error:
                failed.append(_failure(row.asset_id, error, line=row.line))
                continue
            wanted.setdefault(record.key, []).append((row, record))
        agreed: list[tuple[Decision, VectorRecord]] = []
        for rows in wanted.values():
            if len({decision.state for decision, _ in rows}) == 1:
                agreed.append(rows[0])
                continue
            lines = ", ".join(str(decision.line) for decision, _ in rows)
            torn = UsageError(f"Lines {lines} say different things about one picture; none of them is done.")
            failed += [_failure(decision.asset_id, torn, line=decision.line) for decision, _ in rows]
        agreed.sort(key=lambda pair: pair[0].line)
        return self.decide_many(agreed, by=by, failed=failed)

    def decide_many(
        self, decisions: Sequence[tuple[Decision, VectorRecord]], *, by: str, failed: Sequence[ReviewFailure] = ()
    ) -> ReviewReport:
        """Decide row by row, and tell what became of each; a storage that fails ends it, and what was decided holds."""
        decided: list[Review] = []
        failures = list(failed)
        unchanged = 0
        for decision, record in decisions:
            try:
                before = self.reviews.latest(asset_of(record)).sequence
            except (ProvenanceError, FormatVersionError):
                before = None  # it can still be revoked
            try:
                (review,) = self.decide([record], decision.state, by=by, reason=decision.reason)
            except (ProvenanceError, UsageError) as error:
                failures.append(_failure(decision.asset_id, error, line=decision.line or None))
                continue
            if review.sequence == before:
                unchanged += 1
            else:
                decided.append(review)
        ordered = tuple(sorted(failures, key=lambda failure: failure.line or 0))
        return ReviewReport(knowledge_base=self._name, decided=tuple(decided), unchanged=unchanged, failed=ordered)

    def approve_all(self, *, by: str) -> int:
        """See `KnowledgeBase.approve_all`."""
        keys = [record.key for record in self._store.scan(Is(field="review", value=ReviewState.PROPOSED))]
        approved = 0
        unreadable: Exception | None = None
        for start in range(0, len(keys), _BATCH):
            waiting: list[VectorRecord] = []
            decided: list[VectorRecord] = []
            for record in self._store.get(keys[start : start + _BATCH]):
                try:
                    state = self.reviews.latest(asset_of(record)).state
                except (ProvenanceError, FormatVersionError) as error:
                    unreadable = error
                    continue
                if state is ReviewState.PROPOSED:
                    waiting.append(record)
                else:
                    decided.append(_with_hint(record, state))
            if decided:  # the index had not heard of it
                self._store.upsert(decided)
            approved += len(self.decide(waiting, ReviewState.APPROVED, by=by, reason=None))
        if unreadable is not None:
            raise unreadable
        return approved

    def erase_media(self, asset: Asset, *, by: str, reason: str) -> Erasure:
        """See `KnowledgeBase.erase_media`."""
        check_by(by)
        check_reason(reason, "deletion")
        if self.reviews.latest(asset).state is not ReviewState.REVOKED:
            raise UsageError(
                f"The picture '{asset.id}' is not revoked, and only bytes of revoked ones are deleted.",
                hint=f"vrag revoke {asset.id} --by NAME --reason …",
            )
        now = rfc3339(self._clock.now())
        erasure = erase(self._storage, asset, Erasure(asset_id=asset.id, by=by.strip(), reason=reason.strip(), at=now))
        with self._writing:
            self._store.upsert([record_of(tombstone(asset, erasure), None, ReviewState.REVOKED)])
        return erasure


def _with_hint(record: VectorRecord, state: ReviewState) -> VectorRecord:
    return evolve(record, fields={**record.fields, "review": state})


def _failure(asset_id: str, error: VRAGError, *, line: int | None) -> ReviewFailure:
    return ReviewFailure(asset_id=asset_id[:150], error=error.code, message=error.message, line=line)


def check_by(by: str) -> None:
    """Raise `UsageError` unless somebody is named."""
    if not by.strip():
        raise UsageError("A decision needs the name of who decides.", hint='add --by "NAME"')


def check_reason(reason: str, act: str) -> None:
    """Raise `UsageError` unless there is a reason."""
    if not reason.strip():
        raise UsageError(f"A {act} needs a reason.", hint='add --reason "…"')
