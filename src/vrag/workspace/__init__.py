"""The truth on disk: journal, budget and ledger of one workspace."""

from __future__ import annotations

from pathlib import Path

from vrag.clock import Clock, SystemClock
from vrag.values.policy import Caps
from vrag.workspace.budget import Budget
from vrag.workspace.calls import Calls
from vrag.workspace.db import Database
from vrag.workspace.journal import Journal
from vrag.workspace.ledger import Ledger

__all__ = ["Workspace"]


class Workspace:
    """A folder with one SQLite file, `vrag.db`: what was planned, bought, made and recorded.

    Raises:
        FormatVersionError: A newer release wrote it.
    """

    def __init__(self, folder: Path | str, *, clock: Clock | None = None, caps: Caps | None = None) -> None:
        self.folder = Path(folder)
        self.clock = clock or SystemClock()
        self._database = Database(self.folder / "vrag.db", clock=self.clock)
        self.budget = Budget(self._database, self.clock, caps=caps)
        self.journal = Journal(self._database, self.clock, self.budget)
        self.calls = Calls(self._database, self.clock, self.budget)
        self.ledger = Ledger(self._database, clock=self.clock)

    @property
    def scope(self) -> str:
        """The secret id that makes purchase ids of this workspace impossible to guess."""
        return self._database.workspace_id

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self.calls.close()
        self._database.close()
