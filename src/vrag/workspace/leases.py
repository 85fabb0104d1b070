"""Who works on a step: a lock file that its process holds for life, so that no clock and no heartbeat is needed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vrag.clock import Clock

__all__ = ["Owner"]


class Owner:
    """One worker of a workspace, alive until `release` or the end of its process, however that comes.

    Opening one removes the lock files that dead workers left.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pid = os.getpid()
        # A file between its creation and its lock looks abandoned: makers and sweepers take turns.
        with FileLock(folder / "turn"):
            self._sweep()
            while True:
                self.id = clock.token_bytes(12).hex()
                self._life = FileLock(self._file(self.id), thread_local=False)
                with suppress(Timeout):  # a test's clock may draw what another one drew
                    self._life.acquire(blocking=False)
                    break

    def is_alive(self, owner: str) -> bool:
        """Whether the worker of this name may still act."""
        if owner == self.id:
            return True
        path = self._file(owner)
        if not path.exists():
            return False
        try:
            with FileLock(path, blocking=False):
                return False
        except Timeout:
            return True

    def release(self) -> None:
        """Let go of everything; twice is fine."""
        if self._pid != os.getpid() or not self._life.is_locked:
            return  # a forked child must not let go for its parent
        with FileLock(self._folder / "turn"):
            self._life.release()
            self._file(self.id).unlink(missing_ok=True)

    def _file(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"

    def _sweep(self) -> None:
        for path in self._folder.glob("*.lock"):
            with suppress(Timeout, OSError), FileLock(path, blocking=False):
                path.unlink(missing_ok=True)
