"""Faults on demand: the one way in which every fake is made to fail."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from attrs import define, frozen

from vrag.errors import ThrottledError, UsageError

__all__ = ["Call", "Faults"]


@frozen(kw_only=True)
class Call:
    """One call that reached a fake: what was refused before sending is not among them."""

    name: str
    arguments: Mapping[str, object]


@define(kw_only=True)
class _Rule:
    name: str
    error: Exception
    after: int
    times: int | None
    late: bool


class Faults:
    """What goes wrong, and when; and the calls that were made.

    ```python
    generator.faults.on("start", after=2)  # the third start is throttled, the fourth works
    generator.faults.on("start", error=BackendError("reply lost"), late=True)  # it starts and charges, then raises
    storage.faults.on("open", error=OSError("disk"), times=None)  # every time
    ```
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._rules: list[_Rule] = []
        self._calls: list[Call] = []
        self._lock = Lock()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call that was sent, in order."""
        with self._lock:
            return tuple(self._calls)

    def on(
        self, name: str, *, error: Exception | None = None, after: int = 0, times: int | None = 1, late: bool = False
    ) -> Faults:
        """Make calls of `name` fail.

        Args:
            name: The method.
            error: What is raised; by default a retryable `ThrottledError`.
            after: So many calls from now work first.
            times: So many calls fail then; None is all.
            late: The call does its work, and its answer is lost: how a purchase is made and not known of.

        Returns:
            Itself, so that faults can be listed one after the other; where two are due, the first one wins.

        Raises:
            UsageError: The fake has no such method.
        """
        if name not in self._names:
            raise UsageError(f"No call '{name}' that can fail; there are: {', '.join(self._names)}.")
        due = error or ThrottledError("Too many requests.", backend="fake", operation=name, retryable=True)
        with self._lock:
            self._rules.append(_Rule(name=name, error=due, after=after, times=times, late=late))
        return self

    @contextmanager
    def at(self, name: str, /, **arguments: object) -> Iterator[None]:
        """Note the call, and raise what is due: before the block, or after it where the fault is `late`."""
        with self._lock:
            self._calls.append(Call(name=name, arguments=arguments))
            due = self._due(name)
        if due is not None and not due.late:
            raise copy.copy(due.error)
        yield
        if due is not None:
            raise copy.copy(due.error)

    def _due(self, name: str) -> _Rule | None:
        """The first rule that strikes now; each rule of this name counts the call."""
        struck = None
        for rule in self._rules:
            if rule.name != name:
                continue
            if rule.after > 0:
                rule.after -= 1
            elif struck is None and rule.times != 0:
                rule.times = None if rule.times is None else rule.times - 1
                struck = rule
        return struck
