"""What all contract suites share: how a backend is made, clauses that cannot be bent, and those that hold for all."""

from __future__ import annotations

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Barrier, Thread
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar

import pytest
from typing_extensions import override

from vrag.errors import VRAGError
from vrag.values.requests import Estimate, ModelRef

__all__ = ["Contract", "assert_estimate", "assert_names_itself", "call_within", "refuses", "run_in_fork"]

_T = TypeVar("_T")
_THREADS: Final = 32


class Contract:
    """Base of the suites. A test class inherits one suite and defines its hooks; pytest does the rest."""

    seam: ClassVar[type]
    """The protocol of `vrag.interfaces`."""
    clauses: ClassVar[Mapping[str, Callable[..., None]]] = MappingProxyType({})
    """Every clause of the suite, by its name."""
    waived: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Clauses that this backend does not keep, each with the reason; one that is kept after all fails."""
    patience_s: ClassVar[float] = 20.0
    """How long a call that "never waits" may take, and how long a forked child may."""

    @override
    def __init_subclass__(cls, *, suite: bool = False, **options: object) -> None:
        """Collect the clauses of a suite; in a backend's class refuse to replace one, and mark those that are waived."""
        super().__init_subclass__(**options)
        if suite:
            cls.clauses = MappingProxyType(
                {name: getattr(cls, name) for name in dir(cls) if name.startswith("test_")},
            )
            return
        for name, clause in cls.clauses.items():
            here = getattr(cls, name, None)
            if getattr(here, "waives", here) is not clause:
                raise TypeError(f"{cls.__name__} replaces the clause {name}; say waived = {{'{name}': 'why'}} instead.")
            if here is not clause and name not in cls.waived:
                setattr(cls, name, clause)
        for name, reason in cls.waived.items():
            if name not in cls.clauses:
                raise TypeError(f"{cls.__name__} waives {name}, which is no clause of {cls.seam.__name__}Contract.")
            if not reason.strip():
                raise TypeError(f"{cls.__name__} waives {name} without a reason.")
            setattr(cls, name, _waived(cls.clauses[name], reason))

    def make(self, tmp_path: Path) -> Any:
        """A new backend. What it keeps lies under `tmp_path`: two folders are two backends that share nothing."""
        raise NotImplementedError(f"{type(self).__name__} needs `make(self, tmp_path)`: a new backend.")

    def sent(self, backend: Any) -> int:
        """How many calls `backend` has sent to its model or service; 0 for one that works in this process."""
        raise NotImplementedError(
            f"{type(self).__name__} needs `sent(self, backend)`: how many calls it has sent, or 0."
        )

    def work(self, backend: Any, number: int) -> object:
        """Use `backend` for something that `number` determines, and return what can be compared and pickled."""
        raise NotImplementedError(f"{type(self).__name__} needs `work(self, backend, number)`.")

    def held(self, backend: Any) -> int:  # noqa: ARG002  # for suites of backends that keep things
        """How many things a new backend holds; always 0 where two of them share nothing."""
        return 0

    def _worked(self, backend: Any, number: int) -> object:
        try:
            return self.work(backend, number)
        except VRAGError:
            raise
        except Exception as error:
            raise AssertionError(f"{type(backend).__name__} raised {error!r}.") from error

    @contextmanager
    def opened(self, tmp_path: Path) -> Iterator[Any]:
        """A backend that is closed afterwards, where it has `close`."""
        tmp_path.mkdir(parents=True, exist_ok=True)
        backend = self.make(tmp_path)
        try:
            yield backend
        finally:
            if hasattr(backend, "close"):
                backend.close()

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Any]:
        """A new backend for one clause."""
        with self.opened(tmp_path) as backend:
            yield backend

    def test_it_has_every_member_of_the_protocol(self, backend: Any) -> None:
        """A backend needs no base class: any object with these members fits.

        When it fails: compare the names of your methods and properties with `vrag.interfaces`.
        """
        missing = [name for name in _members(self.seam) if not hasattr(backend, name)]
        assert not missing, f"{type(backend).__name__} lacks {', '.join(missing)}."

    def test_32_threads_get_the_serial_result(self, tmp_path: Path) -> None:
        """Safe to call from many threads: 32 at once on one object give what one after the other gives.

        When it fails: look for state on `self` that is written without a lock, and connections bound to their thread.
        """
        with self.opened(tmp_path / "serial") as alone, self.opened(tmp_path / "threads") as shared:
            expected = [self.work(alone, number) for number in range(_THREADS)]
            start = Barrier(_THREADS)

            def work(number: int) -> object:
                start.wait()
                return self.work(shared, number)

            answers = [_in_thread(work, number) for number in range(_THREADS)]
            for number, (answer, serial) in enumerate(zip(answers, expected, strict=True)):
                error = answer.exception(timeout=6 * self.patience_s)
                assert error is None, f"Thread {number} raised {error!r}."
                assert answer.result() == serial, f"Thread {number} got another result than a serial call."

    def test_use_after_fork_works_or_is_refused(self, tmp_path: Path) -> None:
        """An object that was used and then inherited by `fork` works in the child, or refuses with a `VRAGError`.

        When it fails: connections and locks do not survive a fork; keep the process id and make them anew.
        """
        if not hasattr(os, "fork"):
            pytest.skip("This system has no fork.")
        with self.opened(tmp_path) as backend:
            expected = self.work(backend, 1)
            ending, answer = run_in_fork(lambda: self.work(backend, 1), self.patience_s)
            assert ending in {"answered", "refused"}, f"In a forked child it {ending}: {answer}"
            if ending == "answered":
                assert answer == expected, "In a forked child it gives another result."
            assert self._worked(backend, 1) == expected, "After a child used it, the parent gets another result."

    def test_two_objects_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        """No state is shared by all objects of a class or module: two of them work side by side.

        When it fails: look for class attributes and module variables that calls write to.
        """
        with self.opened(tmp_path / "alone") as alone:
            expected = [self.work(alone, number) for number in (1, 2)]
        with self.opened(tmp_path / "first") as first:
            assert self._worked(first, 1) == expected[0]
            with self.opened(tmp_path / "second") as second:
                assert self.held(second) == 0, "A new backend holds what another one was given."
                assert self._worked(second, 2) == expected[1]
                assert self._worked(first, 1) == expected[0], "The second object changed what the first one answers."
            assert self._worked(first, 1) == expected[0], (
                "Closing the second object changed what the first one answers."
            )


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def _waived(clause: Callable[..., None], reason: str) -> Callable[..., None]:
    @wraps(clause)
    def waived(*args: Any, **options: Any) -> None:
        clause(*args, **options)

    waived.waives = clause  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.xfail(reason=reason, strict=True)(waived)
    return marked


def assert_names_itself(backend: Any) -> None:
    """`model` is a `ModelRef` with provider and id, the same on each read."""
    assert isinstance(backend.model, ModelRef)
    assert backend.model.provider
    assert backend.model.id
    assert backend.model == backend.model


def assert_estimate(estimate: object) -> None:
    """It is an `Estimate` with a price that can be: an integer from 0, or None."""
    assert isinstance(estimate, Estimate)
    assert estimate.usd_micros is None or (isinstance(estimate.usd_micros, int) and estimate.usd_micros >= 0)
    assert estimate.video_s >= 0


@contextmanager
def refuses(kind: type[VRAGError], what: str) -> Iterator[None]:
    """The block raises `kind`; anything else is a failed assertion that says what was to be refused."""
    try:
        yield
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}, not {kind.__name__}.") from error
    raise AssertionError(f"{what} was taken; it is refused with {kind.__name__}.")


def call_within(patience_s: float, call: Callable[[], _T]) -> _T:
    """What `call` returns, if it does so in time."""
    answer = _in_thread(lambda _: call(), 0)
    try:
        return answer.result(timeout=patience_s)
    except TimeoutError:
        raise AssertionError(f"It had not returned after {patience_s} s: it waits.") from None


def _in_thread(call: Callable[[int], _T], number: int) -> Future[_T]:
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call(number))
        except Exception as error:  # noqa: BLE001  # handed to whoever asks
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def run_in_fork(task: Callable[[], object], patience_s: float, *, die: bool = False) -> tuple[str, object]:
    """Run `task` in a forked child.

    Args:
        task: What to do; its result is pickled.
        patience_s: After so long the child is killed.
        die: The child kills itself when the task is done, with a signal that cannot be caught.

    Returns:
        How it ended (`answered`, `refused`, `broke`, `hung`, `died`), and the result or what it said.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Since 3.12 Python warns of a fork beside threads; that is just what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            message = _outcome(task)
            if die:
                os.kill(os.getpid(), signal.SIGKILL)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(message)
        finally:
            os._exit(0)
    os.close(writing)
    data = b""
    try:
        while select.select([reading], [], [], patience_s)[0]:
            part = os.read(reading, 65_536)
            if not part:
                return pickle.loads(data) if data else ("died", "without an answer")  # noqa: S301  # from our own child
            data += part
        return "hung", f"no answer within {patience_s} s"
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _outcome(task: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps(("answered", task()))
    except VRAGError as error:
        return pickle.dumps(("refused", str(error)))
    except BaseException as error:  # noqa: BLE001  # the parent tells
        return pickle.dumps(("broke", repr(error)))
