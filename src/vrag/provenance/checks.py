"""What a verification is made of: checks with the promise that each stands for, and the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from vrag.errors import FormatVersionError, NotFoundError, UsageError, VerificationError

__all__ = ["Check", "Checks", "Verdict"]

_T = TypeVar("_T")


@frozen(kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """Of a file: `signature`, `signer`, `statement`, `video`, `texts`, `position`, `ledger`, `sources`, `credentials`. Of a
    ledger: see `vrag.provenance.audit`."""
    ok: bool | None
    """None: not looked at, because what it needs was not given."""
    detail: str
    """What was found. Text from the record is quoted in ASCII: it may come from a stranger."""
    promise: str
    """What holds when it is ok, and is broken when it is not."""
    seq: int | None = None
    """The first place in the ledger where it is wrong."""


@frozen(kw_only=True)
class Verdict:
    """The outcome of some checks."""

    checks: tuple[Check, ...]
    """In the order they were made."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong. An unknown signer is wrong only where trusted keys were given: see `trusted`."""
        return all(check.ok is not False for check in self.checks)

    @property
    def first_failure(self) -> Check | None:
        """The first thing that is wrong: the one at the lowest place of the ledger, else in the order of the checks."""
        failed = [check for check in self.checks if check.ok is False]
        return min(failed, key=lambda check: (check.seq is None, check.seq or 0), default=None)

    def require(self) -> None:
        """Go on only if all is well.

        Raises:
            VerificationError: For the first thing that is wrong; `promise` says what that breaks.
        """
        failure = self.first_failure
        if failure is not None:
            raise VerificationError(f"{failure.name}: {failure.detail}", promise=failure.promise)


class Checks:
    """Makes checks, one after the other."""

    def __init__(self) -> None:
        self.done: list[Check] = []

    def run(self, name: str, promise: str, work: Callable[[], tuple[str, _T]]) -> _T | None:
        """Do one check; None if it fails."""
        try:
            detail, result = work()
        except FormatVersionError:
            raise
        except (VerificationError, NotFoundError, UsageError) as error:
            self.done.append(Check(name=name, ok=False, detail=error.message, promise=promise))
            return None
        self.done.append(Check(name=name, ok=True, detail=detail, promise=promise))
        return result

    def add(self, name: str, promise: str, detail: str, *, ok: bool | None, seq: int | None = None) -> None:
        """Write down a check that was made elsewhere."""
        self.done.append(Check(name=name, ok=ok, detail=detail, promise=promise, seq=seq))

    def skip(self, name: str, promise: str, why: str) -> None:
        """A check that was not made."""
        self.add(name, promise, why, ok=None)
