"""The embedded vector store: its contract, its words, its exactness, and what is left when it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from vrag.backends.local import vector_store
from vrag.backends.local.vector_scan import Snapshot, nearest
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.backends.local.word_index import STOP_WORDS
from vrag.errors import BackendError, FormatVersionError, SpaceMismatchError, UsageError
from vrag.testing import FAKE_SPACE
from vrag.testing.contracts import VectorStoreContract
from vrag.values.vectors import AllOf, AnyOf, Between, EmbeddingSpace, Is, IsIn, Not, VectorQuery, VectorRecord

SPACE = EmbeddingSpace(model="test", revision="1", dimension=8, preprocessing="none")


class TestLocalVectorStore(VectorStoreContract):
    def make(self, tmp_path, space=FAKE_SPACE):
        return LocalVectorStore(tmp_path / "index", space)


@pytest.fixture
def store(tmp_path):
    opened = LocalVectorStore(tmp_path / "index", SPACE)
    yield opened
    opened.close()


def unit(seed, dimension=8):
    row = np.random.default_rng(seed).standard_normal(dimension)
    return (row / np.linalg.norm(row)).astype(np.float32)


def captions(store, *texts):
    store.upsert([VectorRecord(key=f"{number}", text=text) for number, text in enumerate(texts)])


def found(store, words, top_k=10):
    return [match.key for match in store.search(VectorQuery(words=words, top_k=top_k))]


# words


def test_stop_words_find_nothing_on_their_own(store):
    captions(store, "A boat on the lake", "A man with a hat", "The dog's ball", "Dogs run", "To be or not")
    assert sorted(found(store, "a dog")) == ["2", "3"]
    assert found(store, "the hats of a man") == ["1"]
    assert found(store, "a bird on the roof") == []
    assert sorted(found(store, "the")) == ["0", "2"]
    assert "camera" not in STOP_WORDS


def test_rows_with_all_words_come_before_rows_with_some(store):
    captions(store, "red red red red", "shoes red and many other words that make this text a long one", "shoes", "hat")
    assert found(store, "red shoes")[0] == "1"
    assert set(found(store, "red shoes")) == {"0", "1", "2"}
    assert found(store, "red shoes", top_k=1) == ["1"]
    ranks = [match.word_rank for match in store.search(VectorQuery(words="red shoes"))]
    assert ranks == [1, 2, 3]


def test_equal_texts_rank_by_key(store):
    store.upsert([VectorRecord(key=key, text="one dog") for key in ("c", "a", "b")])
    assert found(store, "dog") == ["a", "b", "c"]


def test_capitals_width_accents_and_stems_make_no_difference(store):
    captions(store, "CAFÉ tables", "\uff37\uff29\uff24\uff25 shot", "Straße", "running 120fps", "cafe\u0301 chair")
    assert found(store, "café") == found(store, "cafe") == found(store, "Cafe\u0301")
    assert set(found(store, "cafe")) == {"0", "4"}
    assert found(store, "wide shots") == ["1"]
    assert found(store, "STRASSE") == ["2"]
    assert found(store, "runs 120FPS") == ["3"]


def test_long_queries_and_texts_are_taken(store):
    captions(store, "otter " + "x" * 100_000, " ".join(f"w{number}" for number in range(20_000)))
    assert found(store, "otter " * 5000) == ["0"]
    assert found(store, " ".join(f"w{number}" for number in range(5000))) == ["1"]


# vectors


def test_every_path_of_the_search_agrees_with_brute_force():
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((5000, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[2000:2600] = rows[7]  # ties over block borders
    rows *= rng.uniform(0.9991, 1.0009, (5000, 1)).astype(np.float32)  # within what `upsert` takes
    rows[2000:2600] = rows[7]
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    dead = rng.permutation(5000)[:700]
    snapshot = Snapshot(generation=0, vectors=rows, inverse_norms=(1 / lengths).astype(np.float32), dead=dead)
    alive = np.setdiff1d(np.arange(5000), dead)
    for query, share in ((unit(1, 16), None), (unit(2, 16), 0.02), (unit(3, 16), 0.6), (rows[7], None), (rows[7], 0.5)):
        among = None if share is None else rng.permutation(alive)[: int(share * len(alive))]
        allowed = alive if among is None else np.sort(among)
        precise = query.astype(np.float64)
        exact = rows[allowed].astype(np.float64) @ precise / lengths[allowed] / np.linalg.norm(precise)
        for top_k in (1, 10, 100, 10_000):
            floor = np.sort(exact)[::-1][min(top_k, len(exact)) - 1]
            answer = nearest(snapshot, query, top_k, among)
            assert {slot for _, slot in answer} >= set(allowed[exact > floor + 1e-12])
            assert len(answer) >= min(top_k, len(allowed))
            assert all(abs(cosine - exact[np.searchsorted(allowed, slot)]) < 1e-9 for cosine, slot in answer)
            ties = {cosine for cosine, slot in answer if slot == 7 or 2000 <= slot < 2600}
            assert len(ties) <= 1


_KEYS = st.sampled_from(["a", "b", "c'\";--", "d\x00e", "ключ", "\U0001d535", "\uffff", " "])
_TAGS = st.lists(st.sampled_from(["x", "y", "O'Hara", "ж"]), max_size=3, unique=True).map(tuple)
_ROWS = st.builds(
    lambda key, seed, tags, width, text: VectorRecord(
        key=key,
        vector=None if seed == 0 else unit(seed),
        text=text,
        fields={"tags": tags, **({} if width is None else {"width_px": width})},
    ),
    _KEYS,
    st.integers(0, 4),
    _TAGS,
    st.one_of(st.none(), st.integers(0, 5), st.sampled_from([2.5, 1e300, -(2**63)])),
    st.text(max_size=10),
)
_FILTERS = st.recursive(
    st.one_of(
        st.builds(Is, field=st.just("tags"), value=st.sampled_from(["x", "O'Hara", "never"])),
        st.builds(IsIn, field=st.just("width_px"), values=st.lists(st.sampled_from([0, 1, 2.5, 2**70])).map(tuple)),
        st.builds(
            Between,
            field=st.just("width_px"),
            low=st.sampled_from([None, 1, -(10**400)]),
            high=st.sampled_from([None, 2.5, 10**400]),
        ),
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


def holds(condition, fields):
    match condition:
        case None:
            return True
        case Not(negated=part):
            return not holds(part, fields)
        case AllOf(all_of=parts):
            return all(holds(part, fields) for part in parts)
        case AnyOf(any_of=parts):
            return any(holds(part, fields) for part in parts)
    value = fields.get(condition.field)
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    match condition:
        case Is(value=wanted):
            return wanted in values
        case IsIn(values=wanted):
            return any(one in wanted for one in values)
        case Between(low=low, high=high):
            return any((low is None or low <= one) and (high is None or one <= high) for one in values)


@given(
    st.lists(st.one_of(st.lists(_ROWS, max_size=4), st.tuples(_KEYS), st.none()), max_size=12),
    st.one_of(st.none(), _FILTERS),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_any_history_of_writes_leaves_what_a_dict_holds(tmp_path_factory, history, condition, top_k):
    folder = tmp_path_factory.mktemp("history")
    model = {}
    store, watcher = LocalVectorStore(folder, SPACE), LocalVectorStore(folder, SPACE)
    for step in history:
        if step is None:
            store.close()
            store = LocalVectorStore(folder, SPACE)
        elif isinstance(step, tuple):
            assert store.delete(step).count == sum(key in model for key in step)
            for key in step:
                model.pop(key, None)
        else:
            assert store.upsert(step).count == len({row.key for row in step})
            model.update((row.key, row) for row in step)
        watcher.search(VectorQuery(vector=unit(1)))
    fit = sorted((row for row in model.values() if holds(condition, row.fields)), key=lambda row: row.key)
    for one in (store, watcher):
        assert list(one.scan(condition)) == fit
        assert one.count(condition) == len(fit)
        assert list(one.get(list(model))) == list(model.values())
        cosines = sorted((-float(row.vector @ unit(2)), row.key) for row in fit if row.vector is not None)[:top_k]
        matches = one.search(VectorQuery(vector=unit(2), top_k=top_k, filter=condition))
        assert [match.key for match in matches] == [key for _, key in cosines]
        assert np.allclose([match.cosine for match in matches], [-cosine for cosine, _ in cosines], atol=1e-6)
        one.close()


def test_equal_cosines_at_the_last_place_are_cut_by_key(store):
    store.upsert([VectorRecord(key=f"k{number:03}", vector=unit(1)) for number in reversed(range(300))])
    matches = store.search(VectorQuery(vector=unit(1), top_k=4))
    assert [match.key for match in matches] == ["k000", "k001", "k002", "k003"]
    assert matches[0].cosine == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("mode", ["truncate", "wal"])
def test_compaction_keeps_every_row_and_gives_back_the_room(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3) if mode == "wal" else (3, 51, 2))
    monkeypatch.setattr(vector_store, "COMPACT_SLOTS", 8)
    monkeypatch.setattr(vector_store, "CHUNK_ROWS", 3)
    store, watcher = LocalVectorStore(tmp_path, SPACE), LocalVectorStore(tmp_path, SPACE)
    for turn in range(12):
        store.upsert([VectorRecord(key=f"k{number}", vector=unit(100 * turn + number)) for number in range(7)])
        store.delete(["k3"])
        for one in (store, watcher):
            for number in (0, 6):
                [match] = one.search(VectorQuery(vector=unit(100 * turn + number), top_k=1))
                assert match.key == f"k{number}"
    [file] = tmp_path.glob("vectors-*.f32")
    assert file.name != "vectors-0.f32"
    assert (tmp_path / "store.sqlite3-wal").exists() == (mode == "wal")
    (tmp_path / "vectors-999.f32").write_bytes(b"left by a compaction that died")
    store.close()
    watcher.close()
    reopened = LocalVectorStore(tmp_path, SPACE)
    assert [path.name for path in tmp_path.glob("vectors-*.f32")] == [file.name]
    assert sorted(row.key for row in reopened.scan()) == [f"k{number}" for number in (0, 1, 2, 4, 5, 6)]
    reopened.close()


# what is refused


def test_another_space_is_refused_with_the_remedy(tmp_path):
    LocalVectorStore(tmp_path, SPACE).close()
    for other in (evolve(SPACE, revision="2"), None):
        with pytest.raises(SpaceMismatchError, match="made for test@1") as caught:
            LocalVectorStore(tmp_path, other)
        assert "vrag kb reindex" in caught.value.hint


def test_a_newer_format_is_refused(tmp_path):
    LocalVectorStore(tmp_path, SPACE).close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as file:
        file.execute("update store set words_format = 99")
    file.close()
    with pytest.raises(FormatVersionError, match="format 99"):
        LocalVectorStore(tmp_path, SPACE)
    with sqlite3.connect(tmp_path / "store.sqlite3") as file:
        file.execute("pragma user_version = 99")
    file.close()
    with pytest.raises(FormatVersionError, match="schema 99"):
        LocalVectorStore(tmp_path, SPACE)


def test_damaged_files_are_told_and_not_read(tmp_path):
    store = LocalVectorStore(tmp_path, SPACE)
    store.upsert([VectorRecord(key="a", vector=unit(1))])
    store.close()
    os.truncate(tmp_path / "vectors-0.f32", 8)
    cut = LocalVectorStore(tmp_path, SPACE)
    with pytest.raises(BackendError, match="was cut or changed"):
        cut.search(VectorQuery(vector=unit(1)))
    cut.close()
    (tmp_path / "store.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(BackendError, match="could not open"):
        LocalVectorStore(tmp_path, SPACE)


def test_what_cannot_be_stored_is_refused_before_anything_is_written(store):
    for fields in ({"width_px": 2**63}, {"width_px": float("nan")}, {"width_px": True}, {"tags": ("\ud800",)},
                   {"tags": 3}, {"width_px": (1, 2)}, {"expires_on": ("a", "b")}):  # fmt: skip
        with pytest.raises(UsageError):
            store.upsert([VectorRecord(key="good"), VectorRecord(key="bad", fields=fields)])
    for record in (VectorRecord(key="\udc00"), VectorRecord(key="a", text="\udc00")):
        with pytest.raises(UsageError, match="UTF-8"):
            store.upsert([record])
    with pytest.raises(UsageError, match="UTF-8"):
        store.count(Is(field="tags", value="\udc00"))
    with pytest.raises(UsageError, match="vector, words, or both"):
        store.search(VectorQuery())
    assert store.count() == 0
    assert store.get(["\udc00"]) == []
    assert store.delete(["\udc00"]).count == 0


def test_use_after_close_is_refused(store):
    receipt = store.upsert([VectorRecord(key="a", text="otter")])
    pages = store.scan()
    store.close()
    for use in (
        lambda: store.upsert([]),
        lambda: store.delete(["a"]),
        lambda: store.search(VectorQuery(words="otter")),
        lambda: store.get(["a"]),
        store.scan,
        store.count,
        lambda: store.settled(receipt),
        lambda: list(pages),
    ):
        with pytest.raises(UsageError, match="closed"):
            use()


# many at once


def test_threads_read_while_one_writes(store):
    store.upsert([VectorRecord(key="fixed", vector=unit(1), text="otter")])

    def write():
        for number in range(60):
            store.upsert([VectorRecord(key=f"k{number % 7}", vector=unit(number + 2), text="dog")])

    def read():
        for _ in range(40):
            matches = store.search(VectorQuery(vector=unit(1), words="otter"))
            assert matches[0].key == "fixed"
            assert matches[0].word_rank == 1

    with ThreadPoolExecutor(9) as threads:
        for done in [threads.submit(write), *(threads.submit(read) for _ in range(8))]:
            done.result()
    assert store.count() == 8


def _write_many(folder, writer):
    store = LocalVectorStore(Path(folder), SPACE)
    for number in range(25):
        store.upsert([VectorRecord(key=f"{writer}-{number}", vector=unit(1000 * writer + number))])
    store.close()


def test_processes_open_a_new_store_and_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(str(tmp_path / "index"), writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    store = LocalVectorStore(tmp_path / "index", SPACE)
    seen = 0
    while any(writer.is_alive() for writer in writers):
        count = len(store.search(VectorQuery(vector=unit(1), top_k=100)))
        assert count >= seen
        seen = count
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    for writer in range(3):
        for number in (0, 24):
            [match] = store.search(VectorQuery(vector=unit(1000 * writer + number), top_k=1))
            assert match.key == f"{writer}-{number}"
    assert store.count() == 75
    store.close()


# kill -9

_VICTIM = """
import sys
from pathlib import Path
import numpy as np
from vrag.backends.local import vector_store
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.values.vectors import EmbeddingSpace, VectorRecord
vector_store.COMPACT_SLOTS = 8
store = LocalVectorStore(Path(sys.argv[1]), EmbeddingSpace(model="test", revision="1", dimension=8, preprocessing="none"))
for number in range(int(sys.argv[2]), 10**6):
    row = np.random.default_rng(number).standard_normal(8)
    vector = (row / np.linalg.norm(row)).astype(np.float32)
    keys = [f"k{number % 11}", f"n{number}"]
    store.upsert([VectorRecord(key=key, vector=vector, text=f"word{number}", payload=str(number)) for key in keys])
    print("wrote", number, flush=True)
    if number % 3 == 0:
        store.delete([f"n{number}"])
        print("deleted", number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_loses_no_acknowledged_row(tmp_path, request):
    kills = 50 if request.config.getoption("markexpr") == "slow" else 6
    rng = np.random.default_rng(11)
    last, wrote, deleted = 0, set(), set()
    for _ in range(kills):
        command = [sys.executable, "-c", _VICTIM, str(tmp_path), str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            acknowledged = [victim.stdout.readline().split() for _ in range(int(rng.integers(1, 25)))]
            with pytest.raises(subprocess.TimeoutExpired):
                victim.wait(timeout=float(rng.uniform(0, 0.01)))
            victim.kill()
            acknowledged += [line.split() for line in victim.stdout if line.endswith("\n")]
        for what, number in acknowledged:
            (wrote if what == "wrote" else deleted).add(int(number))
        last = max(wrote)
        store = LocalVectorStore(tmp_path, SPACE)
        rows = {row.key: row for row in store.scan()}
        for row in rows.values():
            assert (row.vector == unit(int(row.payload))).all()
            assert row.text == f"word{row.payload}"
        for number in wrote:
            assert int(rows[f"k{number % 11}"].payload) >= number
            # A delete that nobody answered for may have happened or not.
            assert number in deleted or number % 3 == 0 or f"n{number}" in rows
        assert not any(f"n{number}" in rows for number in deleted)
        [match, *_] = store.search(VectorQuery(vector=unit(last), words=f"word{last}", top_k=1))
        assert rows[match.key].payload == str(last)
        assert match.cosine == pytest.approx(1.0, abs=1e-6)
        assert match.word_rank is not None
        last = max(int(row.payload) for row in rows.values())
        store.close()
    print(f"{kills} kills, {len(wrote)} acknowledged writes, none lost")
