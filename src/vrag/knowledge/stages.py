"""Steps that work one behind the other, each in its own threads, with only so much between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import count
from queue import PriorityQueue, SimpleQueue
from threading import Condition, Event, Lock, Semaphore, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Calls", "Room", "Stages"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_LAST = 1 << 30


class Room:
    """So many units (bytes, pixels) may be held at once; who wants more waits. One who holds nothing is never kept."""

    def __init__(self, units: int) -> None:
        self._units = units
        self._held = 0
        self._closed = False
        self._changed = Condition()

    def take(self, units: int) -> None:
        """Hold `units`, after waiting until there is room, or until nobody holds anything."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._held + units <= self._units)
            self._held += units

    def give(self, units: int) -> None:
        """Hold them no longer."""
        with self._changed:
            self._held -= units
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody pass: the work is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Calls:
    """At most `in_flight` calls of services at once, those of later steps first, so that nothing piles up between."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._queue: PriorityQueue[tuple[int, int, Callable[[], None] | None]] = PriorityQueue()
        self._order = count()
        self._threads: list[Thread] = []
        self._lock = Lock()
        self._stopped = Event()

    def map(self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, urgency: int = 0) -> list[ResultT]:
        """`work` of each item, in order. Of several failures the first is raised, after all that began have ended."""
        futures = [self._submit(work, item, urgency) for item in items]
        problem: BaseException | None = None
        results: list[ResultT] = []
        for future in futures:
            try:
                results.append(future.result())
            except Exception as error:  # noqa: BLE001  # raised below
                problem = problem or error
                for other in futures:
                    other.cancel()
        if problem is not None:
            raise problem
        return results

    def close(self) -> None:
        """Wait for what has begun; what has not never begins."""
        self._stopped.set()
        for _ in self._threads:
            self._queue.put((_LAST, next(self._order), None))
        for thread in self._threads:
            thread.join()

    def _submit(self, work: Callable[[ItemT], ResultT], item: ItemT, urgency: int) -> Future[ResultT]:
        future: Future[ResultT] = Future()

        def call() -> None:
            if self._stopped.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001  # goes to who waits for it
                future.set_exception(error)

        self._queue.put((-urgency, next(self._order), call))
        with self._lock:
            if len(self._threads) < self._in_flight:
                thread = Thread(target=self._serve, name="vrag-call", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _serve(self) -> None:
        while (call := self._queue.get()[2]) is not None:
            call()


class Stages:
    """Steps joined by bounded queues. Use it in a `with` block: at its end every thread has ended."""

    def __init__(self) -> None:
        self._stopped = Event()
        self._pools: list[ThreadPoolExecutor] = []
        self._slots: list[Semaphore] = []
        self._feeders: list[Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        for slots in self._slots:
            slots.release()
        for feeder in self._feeders:
            feeder.join()
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def stage(
        self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, workers: int = 1, ahead: int = 1
    ) -> Iterator[ResultT]:
        """`work` of each item, in order, by `workers` threads that are at most `workers + ahead` items ahead.

        What `items` or `work` raises is raised here, after the results of everything before it.
        """
        done: SimpleQueue[Future[ResultT] | None] = SimpleQueue()
        slots = Semaphore(workers + ahead)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="vrag-stage")

        def run(item: ItemT) -> ResultT:
            if self._stopped.is_set():
                raise CancelledError  # nobody waits for it any more
            return work(item)

        def feed() -> None:
            try:
                for item in items:
                    slots.acquire()
                    if self._stopped.is_set():
                        break
                    done.put(pool.submit(run, item))
            except BaseException as error:  # noqa: BLE001  # goes to who waits for the result
                failed: Future[Any] = Future()
                failed.set_exception(error)
                done.put(failed)
            finally:
                done.put(None)

        feeder = Thread(target=feed, name="vrag-stage-feeder", daemon=True)
        self._pools.append(pool)
        self._slots.append(slots)
        self._feeders.append(feeder)
        feeder.start()
        while (future := done.get()) is not None:
            result = future.result()
            slots.release()
            yield result
