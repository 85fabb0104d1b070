"""Embedders, captioners and moderators whose calls are accounted: each answer is bought once, within the budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

from attrs import frozen
from typing_extensions import override

from vrag.errors import UnsupportedRequestError
from vrag.interfaces import Captioner, Embedder, Vectors
from vrag.media.ref import MediaRef, OpenMedia, sha256_hex
from vrag.values.canonical import from_json, to_json
from vrag.values.requests import CaptionResult, Estimate, ModelRef
from vrag.values.vectors import EmbeddingSpace, Item, Purpose
from vrag.workspace.calls import Calls, PaidCall
from vrag.workspace.journal import model_key

__all__ = ["Account", "Moderates", "PaidCaptioner", "PaidEmbedder", "PaidModerator"]

AnswerT_co = TypeVar("AnswerT_co", covariant=True)
AnswerT = TypeVar("AnswerT")


@frozen(kw_only=True)
class Account:
    """Who pays."""

    calls: Calls
    """Of the workspace."""
    knowledge_base: str | None = None
    run_id: str | None = None


class PaidEmbedder(Embedder):
    """An embedder whose rows are bought once each; what a free one would give costs nothing to keep either.

    Each item is a call of its own, so that a crash loses at most the one that is on its way.
    """

    def __init__(self, embedder: Embedder, account: Account) -> None:
        self._embedder = embedder
        self._account = account

    @property
    @override
    def model(self) -> ModelRef:
        return self._embedder.model

    @property
    @override
    def space(self) -> EmbeddingSpace:
        return self._embedder.space

    @property
    @override
    def modalities(self) -> frozenset[str]:
        return self._embedder.modalities

    @override
    def estimate(self, items: Sequence[Item]) -> Estimate:
        return self._embedder.estimate(items)

    @override
    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> Vectors:
        import numpy as np  # noqa: PLC0415  # only where vectors are made

        unknown = sorted({item.kind for item in items} - self.modalities)
        if unknown:
            raise UnsupportedRequestError(f"{self.model} takes {', '.join(sorted(self.modalities))}, not {unknown[0]}.")
        if not items:
            return self._embedder.embed(items, purpose, media)
        return np.stack([self._row(item, purpose, media) for item in items])

    def _row(self, item: Item, purpose: Purpose, media: OpenMedia | None) -> Vectors:
        import numpy as np  # noqa: PLC0415  # only where vectors are made

        asked = {"text": item.text, "kind": item.kind, "media": None if item.media is None else item.media.sha256}
        call = PaidCall(
            kind="embed",
            model=model_key(self.model),
            request={"item": asked, "purpose": str(purpose), "space": to_json(self.space)},
            usd_micros=self._embedder.estimate([item]).usd_micros,
            knowledge_base=self._account.knowledge_base,
            run_id=self._account.run_id,
        )

        def make() -> bytes:
            return np.asarray(self._embedder.embed([item], purpose, media)[0], "<f4").tobytes()

        return np.frombuffer(self._account.calls.buy(call, make), "<f4").astype(np.float32)


class PaidCaptioner(Captioner):
    """A captioner that is paid once a picture, and not asked again about one that it refused."""

    def __init__(self, captioner: Captioner, account: Account) -> None:
        self._captioner = captioner
        self._account = account

    @property
    @override
    def model(self) -> ModelRef:
        return self._captioner.model

    @override
    def estimate(self, images: Sequence[MediaRef]) -> Estimate:
        return self._captioner.estimate(images)

    @override
    def caption(self, image: MediaRef, media: OpenMedia) -> CaptionResult:
        call = PaidCall(
            kind="caption",
            model=model_key(self.model),
            request={"image": image.sha256},
            usd_micros=self._captioner.estimate([image]).usd_micros,
            knowledge_base=self._account.knowledge_base,
            run_id=self._account.run_id,
        )

        def make() -> bytes:
            return json.dumps(to_json(self._captioner.caption(image, media))).encode()

        return from_json(CaptionResult, json.loads(self._account.calls.buy(call, make)))


class Moderates(Protocol[AnswerT_co]):
    """Something that says whether texts and pictures are allowed, such as `BedrockGuardrail`."""

    @property
    def model(self) -> str:
        """Which one, with its version."""
        ...

    def estimate(self, texts: Sequence[str], images: Sequence[Any] = ()) -> Estimate:
        """What `check` would cost; nothing is sent."""
        ...

    def check(
        self, texts: Sequence[str], images: Sequence[bytes] = (), *, source: Literal["INPUT", "OUTPUT"] = "INPUT"
    ) -> AnswerT_co:
        """Ask."""
        ...


class PaidModerator:
    """A moderator that is paid once for the same texts and pictures; words are kept as digests only."""

    def __init__(self, moderator: Moderates[Any], account: Account, answer: type[Any]) -> None:
        """Wrap a moderator.

        Args:
            moderator: Is asked.
            account: Pays.
            answer: The attrs class of its answers, such as `Moderation`.
        """
        self._moderator = moderator
        self._account = account
        self._answer = answer

    @property
    def model(self) -> str:
        """Which one, with its version."""
        return self._moderator.model

    def estimate(self, texts: Sequence[str], images: Sequence[Any] = ()) -> Estimate:
        """What `check` would cost; nothing is sent."""
        return self._moderator.estimate(texts, images)

    def check(
        self, texts: Sequence[str], images: Sequence[bytes] = (), *, source: Literal["INPUT", "OUTPUT"] = "INPUT"
    ) -> Any:
        """The answer of the moderator, bought once."""
        digests = {
            "texts": [sha256_hex(text.encode("utf-8", "surrogatepass")) for text in texts],
            "images": [sha256_hex(image) for image in images],
            "source": source,
        }
        call = PaidCall(
            kind="moderate",
            model=self.model,
            request=digests,
            usd_micros=self._moderator.estimate(texts, images).usd_micros,
            knowledge_base=self._account.knowledge_base,
            run_id=self._account.run_id,
        )

        def make() -> bytes:
            return json.dumps(to_json(self._moderator.check(texts, images, source=source))).encode()

        return from_json(self._answer, json.loads(self._account.calls.buy(call, make)))
