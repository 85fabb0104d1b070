"""A picture is taken out of use: revoked, its films listed, its bytes and words erased, and a receipt of each act kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from attrs import frozen

from vrag.errors import NotFoundError, UsageError, VRAGError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.results import AssetView, Revocation, Use
from vrag.values.assets import Review
from vrag.values.canonical import to_json
from vrag.values.jobs import StepState
from vrag.workspace import Workspace
from vrag.workspace.journal import ENDED
from vrag.workspace.ledger import SignReceipt

__all__ = ["TakeDown"]


@frozen(kw_only=True)
class TakeDown:
    """What a pipeline takes pictures out of use with."""

    workspace: Workspace
    knowledge_base: Callable[[str | None], KnowledgeBase]
    sign: SignReceipt
    """Makes the entry of a receipt in the ledger."""

    def where_used(self, asset_id: str) -> tuple[Use, ...]:
        """Every step that uses this picture, itself or edited, oldest first."""
        steps = {step.id: step for step in self.workspace.journal.using(asset_id)}
        # Through the records: what was made from an edited picture names only the edited one.
        for record_id in self.workspace.ledger.used_in(asset_id):
            if record_id not in steps:
                with suppress(NotFoundError):  # a record about something that is no step
                    steps[record_id] = self.workspace.journal.get(record_id)
        return tuple(
            Use(
                step_id=step.id,
                kind=step.kind,
                state=step.state.value,
                asset_id=asset_id,
                record_id=step.record_id,
                video_sha256=None if step.delivered is None else step.delivered.sha256,
                at=step.updated_at,
            )
            for step in sorted(steps.values(), key=lambda step: (step.created_at, step.id))
        )

    def revoke(self, asset_id: str, *, by: str, reason: str) -> Revocation:
        """Take a picture out of use at once and for ever."""
        return self._revoked(self._owner(asset_id).revoke(asset_id, by=by, reason=reason), by=by, reason=reason)

    def revoke_everywhere(self, sha256: str, names: Iterable[str], *, by: str, reason: str) -> tuple[Revocation, ...]:
        """Take the picture with these bytes out of use in the knowledge bases with these names."""
        done: list[Revocation] = []
        failed: VRAGError | None = None
        for name in dict.fromkeys(names):
            try:
                review = self.knowledge_base(name).revoke_digest(sha256, by=by, reason=reason)
            except VRAGError as error:
                failed = failed or error
                continue
            done.append(self._revoked(review, by=by, reason=reason))
        if failed is not None:
            raise failed
        return tuple(done)

    def erase_media(self, asset_id: str, *, by: str, reason: str) -> int:
        """Delete the bytes of a revoked picture."""
        erasure = self._owner(asset_id).erase_media(asset_id, by=by, reason=reason)
        return self.workspace.ledger.add_receipt(
            kind="media erasure",
            subject=erasure.asset_id,
            by=by,
            reason=reason,
            body=to_json(erasure),
            sign=self.sign,
        )

    def erase_text(self, step_id: str, *, by: str, reason: str) -> int:
        """Erase the words of a recorded step."""
        step = self.workspace.journal.get(step_id)
        if step.state not in ENDED or step.record_id is None:
            raise UsageError(f"Only a recorded step forgets its words; '{step_id[:12]}…' is {step.state}.")
        erased = self.workspace.ledger.erase_text(step.record_id, by=by, reason=reason, sign=self.sign)
        self.workspace.journal.erase_words(step_id)
        return erased

    def asset(self, asset_id: str) -> AssetView:
        """A picture, and where it is used."""
        return AssetView(asset=self._owner(asset_id).asset(asset_id), find_uses=self.where_used)

    def _owner(self, asset_id: str) -> KnowledgeBase:
        # A digest alone names no knowledge base, and must not be taken for the name of one.
        owner, slash, _ = asset_id.partition("/")
        return self.knowledge_base(owner if slash else None)

    def _revoked(self, review: Review, *, by: str, reason: str) -> Revocation:
        uses = self.where_used(review.asset_id)
        made = tuple(
            use for use in uses if use.kind != "edit" and use.state in {StepState.DELIVERED, StepState.RECORDED}
        )
        receipt = self.workspace.ledger.add_receipt(
            kind="revocation",
            subject=review.asset_id,
            by=by,
            reason=reason,
            body={"review": to_json(review), "videos": [use.video_sha256 for use in made]},
            sign=self.sign,
        )
        blocked = tuple(use for use in uses if use.state not in {*ENDED, StepState.RECORDED})
        return Revocation(review=review, receipt=receipt, videos=made, blocked=blocked)
