"""A clock that tests move by hand."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final

from typing_extensions import override

from vrag.clock import Clock
from vrag.errors import UsageError

__all__ = ["FakeClock"]

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock(Clock):
    """Time that stands still until it is moved, and bytes that look random and come from a seed."""

    def __init__(self, start: datetime = _START, *, seed: int = 0) -> None:
        self._start = start.astimezone(UTC)
        self._seed = seed
        self._elapsed = timedelta()
        self._slept_s: list[float] = []
        self._drawn = 0
        self._lock = Lock()

    @override
    def now(self) -> datetime:
        """The start, plus all that was advanced and slept."""
        with self._lock:
            return self._start + self._elapsed

    @override
    def monotonic_s(self) -> float:
        """Seconds since the start."""
        with self._lock:
            return self._elapsed.total_seconds()

    def advance(self, duration_s: float) -> None:
        """Move time forward.

        Raises:
            UsageError: `duration_s` is negative: time never goes back.
        """
        if duration_s < 0:
            raise UsageError(f"Time goes forward only, not by {duration_s} s.")
        with self._lock:
            self._elapsed += timedelta(seconds=duration_s)

    @override
    def sleep(self, duration_s: float) -> None:
        """Advance by `duration_s`, at once, and remember it in `slept_s`."""
        self.advance(duration_s)
        with self._lock:
            self._slept_s.append(duration_s)

    @property
    def slept_s(self) -> tuple[float, ...]:
        """Every `sleep`, in order."""
        with self._lock:
            return tuple(self._slept_s)

    @override
    def token_bytes(self, count: int) -> bytes:
        """`count` bytes; the same seed gives the same sequence of answers."""
        with self._lock:
            self._drawn += 1
            label = f"{self._seed}/{self._drawn}".encode()
        return hashlib.shake_256(label).digest(count)
