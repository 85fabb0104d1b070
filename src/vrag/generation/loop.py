"""One thread that decides, and a few that act: commands come in, timers are due, acts come back."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeAlias

from vrag.clock import Clock

__all__ = ["Command", "Loop"]

Command: TypeAlias = Callable[[], None]
_log = logging.getLogger("vrag.jobs")
_SLICE_S: Final = 0.05
"""So soon a command is noticed while nothing acts."""
_LEAST_S: Final = 0.001
_BUSY_WAIT_S: Final = 0.01


class Loop:
    """Commands run one after the other in a thread that lives only while there is something to do.

    Acts run in threads beside it, and give a command back. Two sets of threads, so that long acts do not hold up short ones.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        threads: int,
        turn: Command,
        is_idle: Callable[[], bool],
        rest: Command,
        failed: Callable[[Exception], None],
    ) -> None:
        """Start nothing yet.

        Args:
            clock: Time.
            threads: How many act at once; a quarter as many do what is slow.
            turn: Called on each turn, after the commands.
            is_idle: Whether the thread may end.
            rest: Called before it ends.
            failed: A command failed; nobody may be left waiting for ever.
        """
        self._clock = clock
        self._turn, self._is_idle, self._rest, self._failed = turn, is_idle, rest, failed
        self._quick = ThreadPoolExecutor(threads, thread_name_prefix="vrag-submit")
        # Few, so that what is ready does not hold up what is next to be sent; it has all of a render's time.
        self._slow = ThreadPoolExecutor(max(2, threads // 4), thread_name_prefix="vrag-finish")
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._timers: list[tuple[float, int, Command]] = []
        self._numbers = itertools.count()
        self._acting = 0

    def send(self, command: Command) -> None:
        """Let the deciding thread do something."""
        with self._guard:
            self._inbox.put(command)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="vrag-jobs", daemon=True)
                self._thread.start()
            elif self._thread is None:
                self._drain()

    def now_s(self) -> float:
        """The monotonic clock."""
        return self._clock.monotonic_s()

    def at(self, due_s: float, command: Command) -> None:
        """Do it then; for the deciding thread."""
        heapq.heappush(self._timers, (due_s, next(self._numbers), command))

    def act(self, act: Callable[[], Command], *, slow: bool = False) -> None:
        """Do something that blocks, elsewhere; what it gives is done here."""
        self._acting += 1

        def acted(done: Future[Command]) -> None:
            self._inbox.put(lambda: self._back(done))

        (self._slow if slow else self._quick).submit(act).add_done_callback(acted)

    def close(self) -> None:
        """Wait until there is nothing to do. Closing twice is fine."""
        with self._guard:
            self._closed = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._quick.shutdown(wait=True)
        self._slow.shutdown(wait=True)

    def _back(self, done: Future[Command]) -> None:
        self._acting -= 1
        done.result()()

    def _run(self) -> None:
        wait_s = 0.0
        while True:
            try:
                self._pause(wait_s)
                self._drain()
                self._turn()
                wait_s = self._due()
            except Exception as error:  # noqa: BLE001  # whoever waits is told
                _log.exception("The runner of jobs failed.")
                self._failed(error)
                wait_s = 0.0
            with self._guard:
                if self._is_idle() and not self._acting and self._inbox.empty():
                    self._timers.clear()
                    self._rest()
                    self._thread = None
                    return

    def _pause(self, wait_s: float) -> None:
        if wait_s <= 0:
            return
        if self._acting:
            # Something will come in from the threads that act. A test's clock must not run away from them.
            with suppress(queue.Empty):
                self._inbox.get(timeout=_BUSY_WAIT_S)()
        else:
            self._clock.sleep(min(max(wait_s, _LEAST_S), _SLICE_S))

    def _drain(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            command()

    def _due(self) -> float:
        """Do what is due; how long until the next."""
        now = self.now_s()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        if not self._inbox.empty():
            return 0.0
        return self._timers[0][0] - now if self._timers else _SLICE_S
