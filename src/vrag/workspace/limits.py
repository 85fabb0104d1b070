"""How fast and how often a model is called: slots, a rate, full jitter, and a breaker; one place for jobs and for calls."""

from __future__ import annotations

from attrs import define, frozen

from vrag.clock import Clock

__all__ = ["Lane", "Limit", "Patience", "jittered"]


@frozen(kw_only=True)
class Limit:
    """What one model in one Region takes from one account."""

    in_flight: int = 20
    """Jobs or calls at once."""
    starts_per_s: float | None = None
    """Starts in a second; None is no limit of ours."""


@frozen(kw_only=True)
class Patience:
    """How long something is tried again, and how long is waited in between."""

    first_s: float = 0.5
    longest_s: float = 30.0
    give_up_after_s: float = 900.0
    """Then it is left as it stands, to be resumed."""

    def wait_s(self, tries: int, clock: Clock) -> float:
        """Full jitter: anything from nothing to a time that doubles, so that many do not come back at once."""
        return jittered(min(self.longest_s, self.first_s * 2 ** min(tries, 20)), clock)


def jittered(longest_s: float, clock: Clock) -> float:
    """Anything between 0 and `longest_s`."""
    return longest_s * int.from_bytes(clock.token_bytes(4), "big") / 2**32


@define(kw_only=True, eq=False)
class Lane:
    """One model's way to its provider: who may go now, and who waits. Its user keeps it to one thread or a lock."""

    limit: Limit
    patience: Patience
    taken: int = 0
    """Slots in use by this runner."""
    open_at_s: float = 0.0
    """Nothing starts before, on the monotonic clock."""
    throttles: int = 0
    """In a row."""
    failures: int = 0
    """In a row, such as lost answers and errors of the service."""
    probing: bool = False
    """The breaker is half open: one goes ahead, and the others wait for how it fares."""
    went_well_at_s: float = float("-inf")

    def may_go(self, now_s: float) -> bool:
        """Whether one more may start now."""
        room = self.taken < (1 if self.probing else self.limit.in_flight)
        return room and now_s >= self.open_at_s

    def go(self, now_s: float) -> None:
        """Take a slot."""
        self.taken += 1
        if self.limit.starts_per_s:
            self.open_at_s = max(self.open_at_s, now_s) + 1 / self.limit.starts_per_s

    def went_well(self, now_s: float) -> None:
        """A call was answered."""
        self.throttles = self.failures = 0
        self.probing = False
        self.went_well_at_s = now_s

    def throttled(self, now_s: float, clock: Clock) -> None:
        """The provider asks for patience: the whole lane waits."""
        self.open_at_s = max(self.open_at_s, now_s + self.patience.wait_s(self.throttles, clock))
        self.throttles += 1

    def failed(self, now_s: float, clock: Clock) -> None:
        """No answer, or an error of the service; five in a row open the breaker."""
        self.failures += 1
        if self.failures >= _BREAKS_AFTER:
            self.open_at_s = max(self.open_at_s, now_s + _BROKEN_S / 2 + jittered(_BROKEN_S / 2, clock))
            self.probing = True

    def waits_in_vain(self, since_s: float, now_s: float) -> bool:
        """Whether nothing has gone well for as long as anybody waits."""
        return now_s - max(since_s, self.went_well_at_s) > self.patience.give_up_after_s


_BREAKS_AFTER = 5
_BROKEN_S = 30.0
