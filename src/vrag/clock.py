"""The only reader of time and of randomness.

Everything that needs the time, waits, or draws a random number takes a `Clock`; tests pass `vrag.testing.FakeClock`.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "rfc3339"]


class Clock(Protocol):
    """Time, waiting and randomness."""

    __slots__ = ()

    def now(self) -> datetime:
        """The time of day, aware, in UTC. It may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Wait for `duration_s` seconds."""
        ...

    def token_bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes."""
        ...


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251  # here, and nowhere else

    def monotonic_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Wait by `time.sleep`."""
        time.sleep(duration_s)  # noqa: TID251  # here, and nowhere else

    def token_bytes(self, count: int) -> bytes:
        """Bytes of the system's cryptographic source."""
        return secrets.token_bytes(count)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and `Z`: sorts as text in order of time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
