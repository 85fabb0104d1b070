"""The contract of `VectorStore`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pytest
from attrs import evolve
from numpy.typing import NDArray
from typing_extensions import override

from vrag.errors import SpaceMismatchError, UsageError
from vrag.interfaces import VectorStore
from vrag.testing.contracts.clauses import Contract, call_within, refuses, run_in_fork
from vrag.testing.vectors import FAKE_SPACE
from vrag.values.vectors import (
    AllOf,
    AnyOf,
    Between,
    EmbeddingSpace,
    Filter,
    Is,
    IsIn,
    Match,
    Not,
    Receipt,
    VectorQuery,
    VectorRecord,
)

__all__ = ["VectorStoreContract"]

_OTHER: Final = EmbeddingSpace(model="other", revision="1", dimension=FAKE_SPACE.dimension, preprocessing="other/1")
_WORDS: Final = ("lake", "mountain", "dog", "ball", "red", "shoes", "city", "night")


def _vector(number: int) -> NDArray[np.float32]:
    row = np.random.default_rng(number).standard_normal(FAKE_SPACE.dimension)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def _record(number: int, key: str | None = None, **fields: Any) -> VectorRecord:
    return VectorRecord(
        key=key or f"row-{number:03}",
        vector=_vector(number),
        text=f"{_WORDS[number % 8]} {_WORDS[number // 8 % 8]}",
        fields={"tags": (f"n{number}", "even" if number % 2 == 0 else "odd"), "width_px": number, **fields},
        payload=f'{{"number":{number},"text":"ж \\"quoted\\""}}',
    )


def _keys(matches: Sequence[Match]) -> list[str]:
    return [match.key for match in matches]


class VectorStoreContract(Contract, suite=True):
    """Hooks: `make` (with the space); `settle` where a write is not visible at once."""

    seam: ClassVar[type] = VectorStore

    @override
    def make(self, tmp_path: Path, space: EmbeddingSpace | None = FAKE_SPACE) -> Any:
        """A store for vectors of `space` (None: words only) on what lies under `tmp_path`, which may hold rows already."""
        return super().make(tmp_path)

    def settle(self, store: VectorStore, receipt: Receipt) -> None:
        """Bring about that searches see the write; a store without a need for this hook shows it at once."""
        assert store.settled(receipt), "Writes are not visible at once: the suite needs the hook `settle`."

    @override
    def sent(self, backend: VectorStore) -> int:
        return 0

    @override
    def held(self, backend: VectorStore) -> int:
        return backend.count()

    @override
    def work(self, backend: VectorStore, number: int) -> object:
        rows = [_record(number * 5 + one, f"work-{number}-{one}", holder=f"owner {number}") for one in range(5)]
        self._write(backend, rows)
        mine = Is(field="holder", value=f"owner {number}")
        query = VectorQuery(vector=_vector(number * 5 + 2), words="lake dog red", filter=mine, space=FAKE_SPACE)
        # Not the rank itself: how rare a word is (BM25) depends on the rows of the other threads.
        found = [(match.key, round(match.cosine or 0.0, 3), bool(match.word_rank)) for match in backend.search(query)]
        return found, backend.count(mine), [row.payload for row in backend.get([rows[3].key])]

    def _write(self, store: VectorStore, records: Sequence[VectorRecord]) -> Receipt:
        receipt = store.upsert(records)
        self.settle(store, receipt)
        return receipt

    @contextmanager
    def _without_space(self, tmp_path: Path) -> Iterator[VectorStore]:
        folder = tmp_path / "words-only"
        folder.mkdir()
        store = self.make(folder, None)
        try:
            yield store
        finally:
            store.close()

    @staticmethod
    def _near(number: int, **options: Any) -> VectorQuery:
        return VectorQuery(vector=_vector(number), space=FAKE_SPACE, **options)

    def test_space__is_that_of_its_vectors(self, backend: VectorStore, tmp_path: Path) -> None:
        """The space of its vectors; None is a store that is searched by words only.

        When it fails: `space` is the one the store was made for; without one, words still find rows.
        """
        assert backend.space == FAKE_SPACE
        with self._without_space(tmp_path) as store:
            assert store.space is None
            self._write(store, [evolve(_record(0), vector=None)])
            assert _keys(store.search(VectorQuery(words="lake"))) == ["row-000"]

    def test_upsert__replaces_whole(self, backend: VectorStore) -> None:
        """Write rows; a key that exists is replaced whole.

        When it fails: fields, words and vector of the old row must not be left beside those of the new one.
        """
        receipt = self._write(backend, [_record(0, holder="a"), _record(1)])
        assert receipt.count == 2
        new = VectorRecord(key="row-000", vector=_vector(7), text="night")
        self._write(backend, [new])
        assert list(backend.get(["row-000"])) == [new]
        assert backend.count() == 2
        assert backend.count(Is(field="holder", value="a")) == 0
        assert _keys(backend.search(VectorQuery(words="lake"))) == ["row-001"]
        [match] = backend.search(self._near(7, top_k=1))
        assert match.key == "row-000"

    def test_upsert__all_or_none(self, backend: VectorStore) -> None:
        """All rows of one call are written or, if it raises `UsageError`, none.

        When it fails: check every row before the first one is written.
        """
        with refuses(UsageError, "A row with an unknown field"):
            backend.upsert([_record(0), _record(1, colour="red"), _record(2)])
        assert backend.get(["row-000", "row-001", "row-002"]) == []
        assert backend.count() == 0
        assert self._write(backend, [_record(0), _record(1), _record(2)]).count == 3
        assert backend.count() == 3

    def test_upsert__last_of_a_key_wins(self, backend: VectorStore) -> None:
        """A key that comes twice in one call ends as the last one.

        When it fails: keep the order of the call, also where writes are sent in bulk.
        """
        self._write(backend, [_record(1, "twice"), _record(2, "twice"), _record(3, "twice")])
        assert list(backend.get(["twice"])) == [_record(3, "twice")]
        assert backend.count() == 1

    def test_upsert__refuses_a_bad_vector(self, backend: VectorStore) -> None:
        """A vector of a wrong length, not finite or not of unit length (to 1e-3) is refused with `UsageError`.

        When it fails: NaN compares false with everything, so check `abs(norm - 1) <= 1e-3`, not its opposite.
        """
        good = _vector(1)
        odd = good.copy()
        odd[0] = np.nan
        bad = {"too short": good[:-1], "of length 1.01": good * np.float32(1.01), "zero": good * 0, "not finite": odd}
        for what, vector in bad.items():
            with refuses(UsageError, f"A vector that is {what}"):
                backend.upsert([evolve(_record(1), vector=vector)])
        assert backend.count() == 0
        self._write(backend, [evolve(_record(1), vector=good * np.float32(1.0005))])
        assert backend.count() == 1

    def test_upsert__refuses_vectors_without_a_space(self, tmp_path: Path) -> None:
        """A vector in a store without a space is refused with `SpaceMismatchError`.

        When it fails: a store of words takes rows whose vector is None, and no others.
        """
        with self._without_space(tmp_path) as store:
            with refuses(SpaceMismatchError, "A vector"):
                store.upsert([_record(1)])
            assert store.count() == 0

    def test_upsert__refuses_an_unknown_field(self, backend: VectorStore) -> None:
        """A field outside the allow-list is refused with `UsageError`.

        When it fails: compare the names with `vrag.values.vectors.ASSET_FIELDS` (or your own list) before writing.
        """
        with refuses(UsageError, "A field 'colour'"):
            backend.upsert([_record(1, colour="red")])
        assert backend.count() == 0

    def test_upsert__survives_a_kill(self, tmp_path: Path) -> None:
        """What `upsert` returned from is not lost when the process is killed.

        When it fails: `upsert` must not return before the rows are where another process finds them.
        """
        if not hasattr(os, "fork"):
            pytest.skip("This system has no fork, and nothing to kill a process in the middle.")
        rows = [_record(number) for number in range(20)]

        def write() -> None:
            store = self.make(tmp_path)
            store.upsert(rows[:10])
            store.upsert(rows[10:])

        assert run_in_fork(write, self.patience_s, die=True)[0] == "died"
        with self.opened(tmp_path) as store:
            assert list(store.get([row.key for row in rows])) == rows

    def test_delete__unknown_key_is_no_error(self, backend: VectorStore) -> None:
        """Remove rows; a key that is not there is no error, and `count` is how many were there.

        When it fails: count what was removed, not what was asked; a key that comes twice counts once.
        """
        self._write(backend, [_record(0), _record(1), _record(2)])
        receipt = backend.delete(["row-000", "row-002", "row-000", "never there"])
        self.settle(backend, receipt)
        assert receipt.count == 2
        assert [row.key for row in backend.scan()] == ["row-001"]
        assert "row-000" not in _keys(backend.search(self._near(0, words="lake")))

    def test_settled__answers_at_once_and_truly(self, backend: VectorStore) -> None:
        """Whether searches see that write; it answers at once and never waits.

        When it fails: answer False while the write is under way, and let the caller ask again.
        """
        receipt = backend.upsert([_record(0)])
        seen = call_within(self.patience_s, lambda: backend.settled(receipt))
        assert not seen or _keys(backend.search(self._near(0))) == ["row-000"], "Settled, but a search does not see it."
        self.settle(backend, receipt)
        assert backend.settled(receipt)
        assert _keys(backend.search(self._near(0))) == ["row-000"]

    def test_search__by_vector_by_words_or_both(self, backend: VectorStore) -> None:
        """Find rows by `query.vector`, by `query.words`, or by each of the two.

        When it fails: each of the two gets its own ranking; a row without a vector is found by words only.
        """
        words_only = VectorRecord(key="words-only", text="otter")
        silent = VectorRecord(key="silent", vector=_vector(9))
        self._write(backend, [words_only, silent])
        assert _keys(backend.search(self._near(9))) == ["silent"]
        assert _keys(backend.search(VectorQuery(words="otter"))) == ["words-only"]
        assert set(_keys(backend.search(self._near(9, words="otter")))) == {"silent", "words-only"}

    def test_search__at_most_top_k_by_each(self, backend: VectorStore) -> None:
        """At most `top_k` by vector and at most `top_k` by words; a row found by both comes once, with both.

        When it fails: merge the two rankings by key; cut each at `top_k` before merging, not after.
        """
        self._write(backend, [_record(number) for number in range(64)])
        matches = backend.search(self._near(0, words="lake", top_k=3))
        assert sum(match.cosine is not None for match in matches) == 3
        assert sum(match.word_rank is not None for match in matches) == 3
        assert len(set(_keys(matches))) == len(matches)
        self._write(backend, [VectorRecord(key="both", vector=_vector(900), text="otter")])
        both = {match.key: match for match in backend.search(self._near(900, words="otter", top_k=3))}["both"]
        assert both.cosine is not None
        assert both.word_rank == 1

    def test_search__cosines_and_ranks(self, backend: VectorStore) -> None:
        """Rows found by vector carry their cosine to 1e-4; the best rank by words is 1, and ranks are 1, 2, 3 ….

        When it fails: convert a distance or a scaled score to the cosine; give ranks, not scores of the word search.
        """
        rows = [_record(number) for number in range(30)]
        self._write(backend, rows)
        exact = {row.key: float(np.dot(_vector(99), row.vector)) for row in rows if row.vector is not None}
        matches = backend.search(self._near(99, words="mountain", top_k=30))
        assert all(abs(match.cosine - exact[match.key]) <= 1e-4 for match in matches if match.cosine is not None)
        assert sum(match.cosine is not None for match in matches) == 30
        ranks = sorted(match.word_rank for match in matches if match.word_rank is not None)
        assert ranks == list(range(1, len(ranks) + 1))
        assert len(ranks) > 3

    def test_search__sorted_with_ties_by_key(self, backend: VectorStore) -> None:
        """Sorted by cosine, best first, then by word rank; equal ones by key.

        When it fails: sort the merged answer by (cosine descending, word rank, key), those without a cosine last.
        """
        near = [_record(number) for number in range(12)]
        equal = [VectorRecord(key=key, vector=_vector(5)) for key in ("tie-b", "tie-c", "tie-a")]
        words = [VectorRecord(key=f"words-{number}", text="otter" + " otter" * number) for number in range(3)]
        self._write(backend, [*words, *equal, *near])
        matches = backend.search(self._near(5, words="otter", top_k=6))
        cosines = [match.cosine for match in matches[:6] if match.cosine is not None]
        assert len(cosines) == 6
        assert all(one >= two - 1e-6 for one, two in pairwise(cosines))
        assert _keys(matches[:4]) == ["row-005", "tie-a", "tie-b", "tie-c"]
        assert [match.word_rank for match in matches[6:]] == [1, 2, 3]

    def test_search__filter_is_exact(self, backend: VectorStore) -> None:
        """The filter is applied exactly: every match fulfils it, and the best `top_k` that fulfil it are found.

        When it fails: filter before the nearest rows are chosen, not after: else a narrow filter finds too few.
        """
        rows = [_record(number, holder="x" if number % 50 == 0 else "X y") for number in range(300)]
        self._write(backend, rows)
        query = _vector(301)
        for condition, fits in _conditions().items():
            expected = sorted(
                (row for row in rows if fits(row)), key=lambda row: -float(np.dot(query, row.vector))  # type: ignore[arg-type]
            )  # fmt: skip
            found = backend.search(VectorQuery(vector=query, top_k=5, filter=condition, space=FAKE_SPACE))
            assert _keys(found) == [row.key for row in expected[:5]], f"Filter: {condition}"
            by_words = backend.search(VectorQuery(words="lake mountain", top_k=300, filter=condition))
            allowed = {row.key for row in expected if {"lake", "mountain"} & set(row.text.split())}
            assert set(_keys(by_words)) == allowed, f"Filter: {condition}"

    def test_search__refuses_a_filter_on_an_unknown_field(self, backend: VectorStore) -> None:
        """A filter on a field outside the allow-list is refused with `UsageError`.

        When it fails: call `vrag.values.vectors.check_filter` before searching, also for nested filters.
        """
        self._write(backend, [_record(0)])
        for condition in (Is(field="colour", value="red"), Not(AllOf((Is(field="key", value="row-000"),)))):
            with refuses(UsageError, f"The filter {condition}"):
                backend.search(self._near(0, filter=condition))

    def test_search__refuses_a_foreign_space(self, backend: VectorStore, tmp_path: Path) -> None:
        """A query vector of another space, or any in a store without a space, is refused with `SpaceMismatchError`.

        When it fails: compare `query.space` with the whole `space`: equal dimensions do not make vectors comparable.
        """
        self._write(backend, [_record(0)])
        with refuses(SpaceMismatchError, "A query vector of another space"):
            backend.search(VectorQuery(vector=_vector(0), space=_OTHER))
        with self._without_space(tmp_path) as store, refuses(SpaceMismatchError, "A query vector without a space"):
            store.search(self._near(0))

    def test_search__words_are_plain_text(self, backend: VectorStore) -> None:
        """Words are plain text: no character of theirs is an operator, and words that name nothing match nothing.

        When it fails: quote every word for the query language underneath; answer [] where no word is left.
        """
        self._write(backend, [_record(0), VectorRecord(key="otter", text="a river otter")])
        for words in ("otter", "otter*", "(otter", '"otter', "otter)", "-otter", "otter:", "text:otter", "^otter~"):
            assert "otter" in _keys(backend.search(VectorQuery(words=words))), f"Words: {words}"
        for words in ("", "  ", "*", '"', "()", "ot*", "-", "key:*", "1=1;--", "'", "NEAR", "zebra OR", "\x00", "🦓"):
            assert backend.search(VectorQuery(words=words)) == [], f"Words: {words}"
        assert _keys(backend.search(VectorQuery(words="otter AND zebra NOT river"))) == ["otter"]

    def test_get__unchanged_in_the_order_asked(self, backend: VectorStore) -> None:
        """The rows with these keys, in the order asked, missing ones left out; vectors, fields and payload unchanged.

        When it fails: the payload comes back byte for byte, a vector as float32, a tuple of tags as a tuple.
        """
        rows = [_record(number, holder="ж'\";--", size_bytes=2**40, ingested_at="2026-01-01") for number in range(4)]
        rows.append(VectorRecord(key="bare/ж", payload='{"a":[1,2.5,null]}'))
        self._write(backend, rows)
        asked = ["bare/ж", "row-002", "never there", "row-000"]
        assert list(backend.get(asked)) == [rows[4], rows[2], rows[0]]
        assert list(backend.get([])) == []

    def test_scan__in_order_of_key_each_once(self, backend: VectorStore) -> None:
        """Every row that fulfils the filter, in order of key, each once.

        When it fails: sort by key, and page by "greater than the last key", not by a number of rows to leave out.
        """
        for number in (5, 2, 9, 0, 7, 2):
            self._write(backend, [_record(number)])
        assert [row.key for row in backend.scan()] == ["row-000", "row-002", "row-005", "row-007", "row-009"]
        assert list(backend.scan(Is(field="tags", value="odd"))) == [_record(5), _record(7), _record(9)]

    def test_count__rows_that_fulfil_the_filter(self, backend: VectorStore) -> None:
        """How many rows fulfil the filter.

        When it fails: None counts all; the filter is the same as that of `search`.
        """
        rows = [_record(number, holder="x" if number % 50 == 0 else "X y") for number in range(101)]
        self._write(backend, rows)
        assert backend.count() == 101
        for condition, fits in _conditions().items():
            assert backend.count(condition) == sum(map(fits, rows)), f"Filter: {condition}"

    def test_close__twice_is_fine(self, tmp_path: Path) -> None:
        """Let go of files and connections; closing twice is fine.

        When it fails: a second `close` does nothing.
        """
        with self.opened(tmp_path) as store:
            self._write(store, [_record(0)])
            before = _open_files()
            store.close()
            assert _open_files() <= before
            store.close()


def _number(row: VectorRecord) -> float:
    number = row.fields["width_px"]
    assert isinstance(number, int)
    return number


def _conditions() -> Mapping[Filter, Callable[[VectorRecord], bool]]:
    """Filters, and the same thing in Python."""
    return {
        Is(field="holder", value="x"): lambda row: row.fields["holder"] == "x",
        Is(field="tags", value="odd"): lambda row: _number(row) % 2 == 1,
        Is(field="licence", value="MIT"): lambda _: False,
        IsIn(field="tags", values=("n3", "n4", "n2000")): lambda row: _number(row) in {3, 4},
        IsIn(field="tags", values=()): lambda _: False,
        Between(field="width_px", low=10, high=20.5): lambda row: 10 <= _number(row) <= 20,
        Between(field="width_px", low=95): lambda row: _number(row) >= 95,
        Between(field="height_px"): lambda _: False,
        AllOf((Is(field="tags", value="even"), Between(field="width_px", high=9))): lambda row: (
            _number(row) in {0, 2, 4, 6, 8}
        ),
        AnyOf((Is(field="width_px", value=1), Is(field="width_px", value=50.0))): lambda row: _number(row) in {1, 50},
        Not(Is(field="holder", value="x")): lambda row: row.fields["holder"] != "x",
        Not(Is(field="licence", value="MIT")): lambda _: True,
        AllOf(()): lambda _: True,
        AnyOf(()): lambda _: False,
    }


def _open_files() -> int:
    """How many files this process holds open, where the system tells."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.is_dir() else 0
