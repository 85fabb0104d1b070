"""What the stack costs while nobody uses it: dated prices with their sources. What is not known is said, never zero.

Every number can be replaced by yours. Prices are of us-east-1 where a source names no Region.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from attrs import field, frozen

from vrag.values.canonical import JSON

__all__ = ["HOURS_A_MONTH", "IdleCost", "Line", "forecast"]

HOURS_A_MONTH: Final = 730
OCU_HOUR_USD_MICROS: Final = 240_000
_KEY_MONTH_USD_MICROS: Final = 1_000_000
_OCU_REGION: Final = "us-east-1"
_OCU_PAGE: Final = "a third party's table of OpenSearch Serverless prices, 2026-03"
_CAPACITY_PAGE: Final = "Managing capacity limits for Amazon OpenSearch Serverless"
_ZERO_PAGE: Final = "Scale to zero for Amazon OpenSearch Serverless"
_KEY_PAGE: Final = "AWS Key Management Service pricing"
_CHECKED_ON: Final = date(2026, 11, 20)


@frozen(kw_only=True)
class Line:
    """One thing that is paid for while nothing happens."""

    what: str
    usd_micros_a_month: int | None
    """None: not known."""
    basis: str
    source: str
    """The page; empty where none was found."""
    checked_on: date = _CHECKED_ON
    confirmed: bool = True
    """False: by a third party, or believed."""

    def to_json(self) -> dict[str, JSON]:
        """As JSON."""
        return {
            "what": self.what,
            "usd_micros_a_month": self.usd_micros_a_month,
            "basis": self.basis,
            "source": self.source or None,
            "checked_on": self.checked_on.isoformat(),
            "confirmed": self.confirmed,
        }


@frozen(kw_only=True)
class IdleCost:
    """The idle cost of a stack, line by line."""

    lines: tuple[Line, ...] = field(converter=tuple[Line, ...])

    @property
    def known_usd_micros(self) -> int:
        """The sum of what is known, for a month; the stack costs at least that."""
        return sum(line.usd_micros_a_month or 0 for line in self.lines)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What has no known price."""
        return tuple(line.what for line in self.lines if line.usd_micros_a_month is None)

    @property
    def total(self) -> str:
        """For people: `350.40 USD a month, plus what is not known: index storage`."""
        known = f"{_usd(self.known_usd_micros)} a month"
        return f"{known}, plus what is not known: {', '.join(self.unknown)}" if self.unknown else known

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, USD a month, why) for a table."""
        return [
            (line.what, "not known" if line.usd_micros_a_month is None else _usd(line.usd_micros_a_month), _why(line))
            for line in self.lines
        ]

    def to_json(self) -> dict[str, JSON]:
        """As JSON."""
        lines = [line.to_json() for line in self.lines]
        return {"known_usd_micros_a_month": self.known_usd_micros, "unknown": list(self.unknown), "lines": lines}


def forecast(settings: Mapping[str, Any], region: str, *, ocu_hour_usd_micros: int | None = None) -> IdleCost:
    """What a stack with these settings costs in a month in which nothing happens.

    Args:
        settings: `Infrastructure.settings`, or what a stack remembers of them.
        region: The Region; the price of a compute unit is known for us-east-1 only.
        ocu_hour_usd_micros: Your price of an OpenSearch Compute Unit for an hour.
    """
    lines = [_collection(settings, region, ocu_hour_usd_micros)]
    if settings.get("kms"):
        lines.append(
            Line(
                what="KMS key",
                usd_micros_a_month=_KEY_MONTH_USD_MICROS,
                basis="1 USD a key; each yearly rotation may add as much",
                source=_KEY_PAGE,
            )
        )
    stored = "what is stored, by the GB; nothing while the bucket is empty"
    lines.append(_unknown("pictures and videos in S3", stored))
    if settings.get("object_lock_days"):
        lines.append(
            _unknown("checkpoints in S3", f"{stored}; kept {settings['object_lock_days']} days whatever happens")
        )
    lines.append(_unknown("index storage", "what is indexed, by the GB; about 0.024 USD a GB is believed"))
    return IdleCost(lines=lines)


def _collection(settings: Mapping[str, Any], region: str, price: int | None) -> Line:
    if settings.get("generation") == "next":
        return Line(
            what="OpenSearch Serverless compute",
            usd_micros_a_month=0,
            basis="scales to zero after 10 minutes without a request; while used, at most "
            f"{settings.get('max_ocu', 'the limit of')} units for indexing and as many for search",
            source=_ZERO_PAGE,
        )
    units = 2 if settings.get("standby", True) else 1
    why = f"at least {units} OCU ({'with' if units == 2 else 'without'} standby), all {HOURS_A_MONTH} hours"
    if price is not None:
        return _compute(units * HOURS_A_MONTH * price, f"{why}, {_usd(price)} an hour as you said", _CAPACITY_PAGE)
    there = units * HOURS_A_MONTH * OCU_HOUR_USD_MICROS
    if region == _OCU_REGION:
        basis = f"{why}, {_usd(OCU_HOUR_USD_MICROS)} an hour; it begins with twice as many"
        return _compute(there, basis, f"{_CAPACITY_PAGE}; {_OCU_PAGE}", confirmed=False)
    basis = f"{why}; {_usd(there)} in {_OCU_REGION}, no price of {region} was found: give --ocu-usd"
    return _compute(None, basis, f"{_CAPACITY_PAGE}; {_OCU_PAGE}", confirmed=False)


def _compute(usd_micros: int | None, basis: str, source: str, *, confirmed: bool = True) -> Line:
    return Line(
        what="OpenSearch Serverless compute",
        usd_micros_a_month=usd_micros,
        basis=basis,
        source=source,
        confirmed=confirmed,
    )


def _unknown(what: str, basis: str) -> Line:
    return Line(what=what, usd_micros_a_month=None, basis=basis, source="", confirmed=False)


def _why(line: Line) -> str:
    if not line.source:
        return line.basis
    return f"{line.basis} ({line.source}; checked {line.checked_on}{'' if line.confirmed else '; unconfirmed'})"


def _usd(micros: int) -> str:
    return f"{Decimal(micros) / 1_000_000:.2f} USD"
