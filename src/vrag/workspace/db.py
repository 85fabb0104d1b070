"""One SQLite file per workspace: journal, ledger, texts and caches. No SQL stands outside `vrag.workspace`."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import BackendError, FormatVersionError, UsageError, VRAGError

__all__ = ["Database", "use_safest_journal"]

_FIRST = """
create table workspace(id text not null, created_at text not null) strict;

-- journal: one row a step; `state` is written before the act that it names
create table step(
  id text primary key, state text not null, kind text not null, generator text not null,
  planned text not null, attempt integer not null default 1,
  handle text, status text, raw text, delivered text, record_id text, error text,
  usd_micros integer, video_s real not null, created_at text not null, submitted_at text, updated_at text not null
) strict;
create index step_state on step(state);
create table step_event(
  seq integer primary key, step_id text not null, state text not null, at text not null, detail text
) strict;
create index step_event_step on step_event(step_id, seq);
create table step_source(step_id text not null, asset_id text not null, sha256 text not null,
  primary key(step_id, asset_id)) strict;
create index step_source_asset on step_source(asset_id);
create index step_source_sha256 on step_source(sha256);

-- ledger: envelopes in order, never changed; the Merkle tree is taken over `leaf` by `seq`
create table entry(
  seq integer primary key, record_id text not null unique, statement_sha256 text not null,
  envelope blob not null, leaf blob not null, public_key blob not null, recorded_at text not null
) strict;
create trigger entry_no_update before update on entry begin select raise(abort, 'the ledger is append-only'); end;
create trigger entry_no_delete before delete on entry begin select raise(abort, 'the ledger is append-only'); end;
-- an index over what the envelopes say; it can be built again from them
create table subject(seq integer not null, sha256 text not null, name text not null) strict;
create index subject_seq on subject(seq);
create index subject_sha256 on subject(sha256);
create table lineage(
  seq integer not null, input_sha256 text not null, asset_id text, knowledge_base text, role text not null
) strict;
create index lineage_seq on lineage(seq);
create index lineage_input on lineage(input_sha256);
create index lineage_asset on lineage(asset_id);
create table receipt(
  seq integer primary key, kind text not null, subject text not null, by text not null,
  reason text not null, at text not null, body text not null
) strict;
create trigger receipt_no_update before update on receipt begin select raise(abort, 'receipts stay'); end;
create trigger receipt_no_delete before delete on receipt begin select raise(abort, 'receipts stay'); end;

-- the words behind keyed digests: erasing a row makes its digest unguessable for ever
create table text(
  keyed_digest text primary key, key blob not null, kind text not null, value text not null,
  record_id text not null
) strict;
create index text_record on text(record_id);
"""

_JOBS = """
alter table step add column model text not null default '';  -- JSON of its `ModelRef`: quotas count by it
alter table step add column knowledge_base text;             -- budgets have a cap each
alter table step add column run_id text;                     -- the run that asked for it last
alter table step add column owner text;                      -- the runner that works on it: the name of its lock file
alter table step add column outputs text;                    -- what an edit made
alter table step add column marks text;                      -- what was put into the delivered file
create index step_model on step(model, state);
create index step_run on step(run_id);
create table step_need(step_id text not null, needs text not null, position integer not null,
  primary key(step_id, position)) strict;
create index step_need_needs on step_need(needs);

-- paid calls that answer at once (captions, embeddings, moderation): written down before they are made
create table call(
  id text primary key, kind text not null, model text not null, state text not null,
  attempt integer not null default 1, owner text, result blob, error text, opened_at text not null, ended_at text
) strict;
create index call_state on call(state);

-- money: one row an attempt of a step or call, written in the transaction that lets it be sent
create table spend(
  token text primary key, kind text not null, run_id text, knowledge_base text,
  usd_micros integer, video_s real not null, at text not null,
  billed integer  -- 1 yes, 0 no, null not known (yet): counts as spent
) strict;
create index spend_at on spend(at);
create index spend_run on spend(run_id);
create index spend_base on spend(knowledge_base);
create table run(id text primary key, usd_micros integer, video_s real, created_at text not null) strict;

-- steps of an older release
update step set
  model = coalesce(json_extract(planned, '$.model'), ''),
  knowledge_base = coalesce(json_extract(planned, '$.sources[0].knowledge_base'),
    json_extract(planned, '$.brief.knowledge_base'));
insert into spend
  select case attempt when 1 then id else id || '-' || attempt end, kind, null, knowledge_base,
    usd_micros, video_s, submitted_at, json_extract(error, '$.billed')
  from step where submitted_at is not null;
"""

_TREE = """
-- hashes of complete subtrees of the ledger's Merkle tree: level 0 holds the leaves
create table tree(level integer not null, position integer not null, hash blob not null,
  primary key(level, position)) strict, without rowid;
create table checkpoint(size integer primary key, note text not null, at text not null) strict;
create trigger checkpoint_no_update before update on checkpoint begin select raise(abort, 'checkpoints stay'); end;
create trigger checkpoint_no_delete before delete on checkpoint begin select raise(abort, 'checkpoints stay'); end;
alter table receipt add column record_id text;  -- its entry in the ledger; null before receipts were entries
"""

MIGRATIONS = (_FIRST, _JOBS, _TREE)
"""Step n brings a file from schema n to n + 1. Steps are only ever added."""

_abandoned: list[object] = []  # connections inherited over a fork: using or closing them here could harm the parent's
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}


def use_safest_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Set the safest journal mode that this SQLite has; processes that open one new file must take turns.

    Below SQLite 3.51.3 two writers and a checkpoint can corrupt a WAL file (sqlite.org, "WAL-mode File Format",
    checked 2026-11-20), so older ones use a rollback journal.

    Raises:
        VRAGError: SQLite kept another mode.
    """
    mode = "wal" if sqlite3.sqlite_version_info >= (3, 51, 3) else "truncate"
    got = connection.execute(f"pragma journal_mode={mode}").fetchone()[0]
    if got != mode:
        raise VRAGError(f"SQLite refused the journal mode '{mode}' for '{path}' and uses '{got}'.")
    connection.execute(f"pragma synchronous={'full' if mode == 'wal' else 'extra'}")


class Database:
    """The database of a workspace; one connection a thread, opened in the safest mode that this SQLite has."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Open or create `path`; its folder is made.

        Raises:
            FormatVersionError: A newer release wrote it.
        """
        self.path = path
        self._clock = clock or SystemClock()
        self._closed = False
        self._begin_process()
        path.parent.mkdir(parents=True, exist_ok=True)
        # `pragma journal_mode` ignores the busy timeout, so processes that open at once take turns.
        with FileLock(f"{path}.lock"):
            self._migrate(self._connection())
        self.workspace_id: str = self._connection().execute("select id from workspace").fetchone()[0]
        """Secret and random: it makes purchase ids of this workspace impossible to guess."""

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise FormatVersionError(
                f"The workspace '{self.path}' has schema {version}; this release reads up to {len(MIGRATIONS)}.",
                hint="pip install --upgrade vrag",
            )
        for number in range(version, len(MIGRATIONS)):
            # executescript commits what is open before it starts, so the transaction is part of the script.
            connection.executescript(f"begin immediate; {MIGRATIONS[number]} pragma user_version={number + 1}; commit;")
        with self.transaction() as opened:
            if opened.execute("select 1 from workspace").fetchone() is None:
                opened.execute(
                    "insert into workspace values(?, ?)",
                    (self._clock.token_bytes(32).hex(), rfc3339(self._clock.now())),
                )

    def _begin_process(self) -> None:
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._pid = os.getpid()

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise UsageError(f"The workspace '{self.path}' is closed.")
        if self._pid != os.getpid():
            # A connection carried over a fork corrupts the file; the child keeps it unused and opens its own.
            _abandoned.append((self._local, self._open))
            self._begin_process()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            try:
                use_safest_journal(connection, self.path)
            except BaseException:
                connection.close()
                raise
            connection.execute("pragma foreign_keys=on")
            connection.execute("pragma secure_delete=on")  # erased words leave the pages of the file too
            self._local.connection = connection
            with self._guard:
                self._open.append(connection)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of the block is kept, or nothing.

        Raises:
            BackendError: The disk is full or fails, or another process has written for a minute; nothing was kept.
        """
        connection = self._connection()
        # Threads take turns here: SQLite itself would let them sleep and try again.
        with _translated(self.path), self._turn:
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                # On a full disk SQLite has rolled back already; a second rollback would hide the cause.
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file."""
        connection = self._connection()
        connection.execute("begin")
        try:
            yield connection
        finally:
            connection.execute("rollback")

    def forget(self) -> None:
        """Clear what was deleted out of the write-ahead file too, where there is one."""
        self._connection().execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        """Close every connection; closing twice is fine."""
        self._closed = True
        if self._pid == os.getpid():
            with self._guard:
                for connection in self._open:
                    connection.close()
                self._open.clear()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # The low byte is the kind, the rest says where.
        if error.sqlite_errorcode & 0xFF not in _PASSING:
            raise
        raise BackendError(
            f"The workspace '{path}' could not be written: {error}.",
            backend="workspace",
            operation="write",
            retryable=True,
            hint="free some space, then: vrag resume",
        ) from error
