"""What is known of paid models: where they run, until when, what they take and what they cost; each fact with its source.

The facts are data: `models.toml` beside this module. Nothing here asks a provider; a model that is not listed is unknown,
not refused.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from attrs import evolve, field, frozen

from vrag.errors import ModelRetiredError, UsageError
from vrag.values.requests import Estimate, Problem

__all__ = ["Catalogue", "ErrorFact", "Lifecycle", "Limit", "Model", "Price", "Source", "State"]

State = Literal["active", "legacy", "retired"]
_MILLION: Final = 1_000_000


@frozen(kw_only=True)
class Source:
    """Where a fact was read and when."""

    page: str
    """Title of the page; `""` where none was found."""
    checked_on: date
    verified: bool = True
    """False: believed, but found on no page. Such a price is never part of an estimate."""


@frozen(kw_only=True)
class Limit:
    """One documented limit of a request."""

    id: str
    what: str
    """What is counted, for people: `the prompt`."""
    unit: str = ""
    min: float | None = None
    max: float | None = None
    step: float | None = None
    """The value is a multiple of it."""
    one_of: tuple[str | float, ...] = ()
    source: Source

    @property
    def allowed(self) -> str:
        """What is allowed, for people: `1 to 512 characters`."""
        unit = f" {self.unit}" if self.unit else ""
        if self.one_of:
            return ", ".join(_shown(value) for value in self.one_of) + unit
        steps = f" in steps of {_shown(self.step)}" if self.step is not None else ""
        if self.min is None:
            return f"at most {_shown(self.max)}{unit}{steps}"
        if self.max is None:
            return f"at least {_shown(self.min)}{unit}{steps}"
        return f"{_shown(self.min)} to {_shown(self.max)}{unit}{steps}"

    def takes(self, value: str | float) -> bool:
        """Whether the value is within the limit."""
        if self.one_of:
            return value in self.one_of
        if isinstance(value, str):
            return False
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.step is None or value % self.step == 0)
        )

    def refusal(self, value: str | float) -> str | None:
        """A sentence with the value and the limit, or None where the value is taken."""
        if self.takes(value):
            return None
        unit = f" {self.unit}" if self.unit and not isinstance(value, str) else ""
        return f"{self.what[:1].upper()}{self.what[1:]}: {_shown(value)}{unit}; allowed: {self.allowed} ({self.id})."


@frozen(kw_only=True)
class Price:
    """What one thing costs on demand."""

    unit: str
    """`video_second`, `image`, `input_token`, `output_token` …"""
    usd_micros: int
    """Micro-USD for `per` units."""
    per: int = 1
    when: Mapping[str, str] = field(factory=dict)
    """Options of the request that it holds for, such as `{"resolution": "720p"}`."""
    source: Source


@frozen(kw_only=True)
class Lifecycle:
    """When a model stops."""

    legacy_on: date | None = None
    """From then on it takes no new customers."""
    retired_on: date | None = None
    """From then on requests fail; None where no day is announced."""
    note: str = ""
    source: Source


@frozen(kw_only=True)
class ErrorFact:
    """One documented error of a service."""

    code: str
    http_status: int
    operations: tuple[str, ...]
    retryable: bool
    """The same request may succeed later."""
    means: str
    contains: str = ""
    """A part of the message that tells it from others with the same code."""
    source: Source


@frozen(kw_only=True)
class Model:
    """One model of one provider."""

    provider: str
    id: str
    name: str
    kind: Literal["video_generator", "embedder", "captioner", "inpainter", "service"]
    regions: tuple[str, ...] = ()
    """Empty where they are not known."""
    profiles: tuple[str, ...] = ()
    """Ids to call it by where the bare id is not offered."""
    aliases: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    """What to use when it is retired: model ids, or `local:camera-moves`."""
    lifecycle: Lifecycle
    limits: Mapping[str, Limit] = field(factory=dict)
    quotas: Mapping[str, Limit] = field(factory=dict)
    """Limits of an account; a single request cannot break them."""
    prices: tuple[Price, ...] = ()
    source: Source

    def state_on(self, day: date) -> State:
        """Whether it can be called on that day."""
        if self.lifecycle.retired_on is not None and day >= self.lifecycle.retired_on:
            return "retired"
        if self.lifecycle.legacy_on is not None and day >= self.lifecycle.legacy_on:
            return "legacy"
        return "active"

    def limit(self, limit_id: str) -> Limit:
        """The limit with this id.

        Raises:
            UsageError: The model has no such limit.
        """
        try:
            return self.limits[limit_id]
        except KeyError:
            raise UsageError(
                f"{self.id} has no limit '{limit_id}'; it has: {', '.join(sorted(self.limits))}."
            ) from None

    def price(self, unit: str, **when: str) -> Price | None:
        """The price of a unit under these options, else one that holds for all options; None where none is known."""
        found = [one for one in self.prices if one.unit == unit and dict(one.when) in (when, {})]
        return max(found, key=lambda one: len(one.when), default=None)

    def estimate(self, amounts: Mapping[str, float], *, video_s: float = 0.0, **when: str) -> Estimate:
        """What these amounts cost, rounded up; not known as soon as one price is missing or unverified.

        Args:
            amounts: How many of each unit.
            video_s: Seconds of video that are made.
            when: Options that prices depend on.
        """
        total, pages = 0, []
        for unit, amount in amounts.items():
            price = self.price(unit, **when)
            if price is None:
                return Estimate(usd_micros=None, video_s=video_s, basis=f"no price of one {unit} of {self.id} is known")
            if not price.source.verified:
                basis = f"no confirmed price; {_usd(price)} is unverified, give your own"
                return Estimate(usd_micros=None, video_s=video_s, basis=basis)
            total += math.ceil(amount * price.usd_micros / price.per)
            pages.append(f"{_usd(price)}: {price.source.page}, {price.source.checked_on}")
        return Estimate(usd_micros=total, video_s=video_s, basis="; ".join(pages))


@frozen(kw_only=True)
class Catalogue:
    """All models that are known, and the errors of their services."""

    checked_on: date
    models: tuple[Model, ...]
    errors: tuple[ErrorFact, ...]

    @classmethod
    def load(cls) -> Catalogue:
        """The catalogue of this release; it is read once."""
        return _load()

    def find(self, provider: str, model_id: str) -> Model | None:
        """The model with this id, inference profile or alias, or None where it is not known."""
        for one in self.models:
            if one.provider == provider and model_id in {one.id, *one.profiles, *one.aliases}:
                return one
        return None

    def model(self, provider: str, model_id: str) -> Model:
        """The model with this id, inference profile or alias.

        Raises:
            UsageError: It is not in the catalogue.
        """
        found = self.find(provider, model_id)
        if found is None:
            known = sorted(one.id for one in self.models if one.provider == provider and one.kind != "service")
            raise UsageError(
                f"The catalogue of {self.checked_on} has no model '{model_id}' of '{provider}'; it has: "
                f"{', '.join(known) or 'none'}.",
                hint="vrag models",
            )
        return found

    def check_usable(self, model: Model, now: datetime, *, allow_retired: bool = False) -> None:
        """Make sure that the model can still be called; nothing is sent.

        Args:
            model: A model of this catalogue.
            now: The time of day.
            allow_retired: The account is entitled to call it after its end.

        Raises:
            ModelRetiredError: It is past its end of life; the hint names alternatives.
        """
        if allow_retired or model.state_on(now.date()) != "retired":
            return
        others = [f"{other} ({self._standing(model.provider, other, now)})" for other in model.alternatives]
        raise ModelRetiredError(
            f"{model.name} ({model.id}) reached its end of life on {model.lifecycle.retired_on}; nothing was sent.",
            backend=model.provider,
            hint=f"use {' or '.join(others)}" if others else "no successor is named; see: vrag models",
        )

    def _standing(self, provider: str, model_id: str, now: datetime) -> str:
        found = self.find(provider, model_id)
        return "no account needed" if found is None else found.lifecycle.note or found.state_on(now.date())

    def retired_problem(self, model: Model, now: datetime, *, allow_retired: bool = False) -> Problem | None:
        """What `validate` of an adapter says of a model past its end of life; None for one that can be called."""
        try:
            self.check_usable(model, now, allow_retired=allow_retired)
        except ModelRetiredError as error:
            return Problem(kind="refused", field="model", message=str(error))
        return None

    def with_price(
        self, provider: str, model_id: str, unit: str, usd_micros: int, *, per: int = 1, **when: str
    ) -> Catalogue:
        """This catalogue with a price of yours, such as one of a private agreement; without `when` for all options.

        Raises:
            UsageError: The model is not in the catalogue.
        """
        model = self.model(provider, model_id)
        source = Source(page="your own price", checked_on=self.checked_on)
        mine = Price(unit=unit, usd_micros=usd_micros, per=per, when=when, source=source)
        kept = [one for one in model.prices if one.unit != unit or (when and dict(one.when) != when)]
        changed = evolve(model, prices=(*kept, mine))
        return evolve(self, models=tuple(changed if one is model else one for one in self.models))


@cache
def _load() -> Catalogue:
    text = resources.files("vrag.generation").joinpath("models.toml").read_text(encoding="utf-8")
    return _read(tomllib.loads(text))


def _read(data: Mapping[str, Any]) -> Catalogue:
    checked_on: date = data["checked_on"]

    def source(entry: dict[str, Any]) -> Source:
        key: str = entry.pop("source")
        on: date = entry.pop("checked_on", checked_on)
        if key == "unverified":
            return Source(page="", checked_on=on, verified=False)
        return Source(page=data["sources"][key], checked_on=on)

    def limits(entries: list[dict[str, Any]]) -> Iterator[tuple[str, Limit]]:
        for entry in entries:
            read = dict(entry)
            one_of = tuple(read.pop("one_of", ()))
            limit = Limit(source=source(read), one_of=one_of, **read)
            yield limit.id, limit

    def model(entry: dict[str, Any]) -> Model:
        read = dict(entry)
        life, prices = dict(read.pop("lifecycle")), [dict(price) for price in read.pop("prices", [])]
        quotas, known = dict(limits(read.pop("quotas", []))), dict(limits(read.pop("limits", [])))
        where = source(read)
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in read.items()}
        return Model(
            lifecycle=Lifecycle(source=source(life), **life),
            limits=known,
            quotas=quotas,
            prices=tuple(Price(source=source(price), **price) for price in prices),
            source=where,
            **plain,
        )

    def error(entry: dict[str, Any]) -> ErrorFact:
        read = dict(entry)
        return ErrorFact(source=source(read), operations=tuple(read.pop("operations")), **read)

    return Catalogue(
        checked_on=checked_on,
        models=tuple(model(entry) for entry in data["models"]),
        errors=tuple(error(entry) for entry in data["errors"]),
    )


def _usd(price: Price) -> str:
    many = {1: "", _MILLION: "million "}.get(price.per, f"{price.per} ")
    return f"{price.usd_micros / _MILLION:g} USD a {many}{price.unit.replace('_', ' ')}"


def _shown(value: str | float | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
