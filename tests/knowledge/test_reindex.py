"""Another embedder: a new index beside the old one, an atomic switch, nothing lost and nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vrag.backends.local.index_pointer import active_folder, active_number, is_replaced, set_active
from vrag.backends.local.indexes import LocalIndexes
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import BackendError, FormatVersionError, SpaceMismatchError, UsageError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.reindex import reindex, reindex_estimate
from vrag.knowledge.rows import asset_of
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock, FakeEmbedder
from vrag.values.assets import ReviewState
from vrag.values.vectors import EmbeddingSpace

OLD = EmbeddingSpace(model="old-words", revision="1", dimension=32, preprocessing="lower-words/1")
NEW = EmbeddingSpace(model="new-words", revision="7", dimension=48, preprocessing="lower-words/2")


@pytest.fixture
def base(tmp_path):
    opened = []

    def make(space=OLD):
        storage = FolderStorage(tmp_path / "pictures")
        store = LocalVectorStore(active_folder(tmp_path / "index"), space)
        embedder = None if space is None else FakeEmbedder(space=space)
        kb = KnowledgeBase("brand", store=store, storage=storage, embedder=embedder, clock=FakeClock())
        opened.append(kb)
        return kb

    yield make
    for kb in opened:
        kb.close()


def pictures(jpeg, count, first=0):
    return [SourcePicture.from_bytes(f"{number}.jpg", jpeg(number), caption=f"dog number {number}") for number in range(first, first + count)]  # fmt: skip


def run(tmp_path, embedder, **options):
    storage = FolderStorage(tmp_path / "pictures")
    return reindex("brand", indexes=LocalIndexes(tmp_path / "index"), storage=storage, embedder=embedder, **options)


def rows(folder, space):
    store = LocalVectorStore(folder, space)
    try:
        return {row.key: row for row in store.scan()}
    finally:
        store.close()


def test_a_mismatch_is_refused_with_the_remedy_and_the_remedy_works(tmp_path, jpeg, base):
    old = base()
    old.ingest([*pictures(jpeg, 5), SourcePicture.from_bytes("IMG_9.jpg", jpeg(9))], approve_by="ann")
    before = rows(tmp_path / "index", OLD)
    with pytest.raises(SpaceMismatchError, match=r"old-words.*new-words") as caught:
        base(NEW)
    assert "vrag kb reindex" in str(caught.value.hint)
    with pytest.raises(SpaceMismatchError) as caught:
        KnowledgeBase("brand", store=old._store, storage=old._storage, embedder=FakeEmbedder(space=NEW))
    assert caught.value.hint.startswith("vrag kb reindex --kb brand")

    seen = []
    report = run(tmp_path, FakeEmbedder(space=NEW), progress=lambda done, total, name: seen.append((done, total, name)))
    assert (report.before, report.after, report.pictures, report.switched) == (OLD, NEW, 6, True)
    assert report.embedded == 6  # this embedder sees pictures
    assert [one[:2] for one in seen] == [(n, 6) for n in range(1, 7)]
    new = base(NEW)
    assert [hit.asset.caption for hit in new.search("dog number 3").hits][:1] == ["dog number 3"]
    after = rows(tmp_path / "index" / "gen-2", NEW)
    assert {key: (row.text, row.fields, row.payload) for key, row in after.items()} == {
        key: (row.text, row.fields, row.payload) for key, row in before.items()
    }
    assert all(row.vector.shape == (48,) for row in after.values())
    assert run(tmp_path, FakeEmbedder(space=NEW)).switched is False


def test_who_holds_the_old_index_reads_on_and_is_refused_when_writing(tmp_path, jpeg, base):
    old = base()
    old.ingest(pictures(jpeg, 3), approve_by="ann")
    run(tmp_path, FakeEmbedder(space=NEW))
    assert len(old.search("dog").hits) == 3
    for write in (
        lambda: old.ingest(pictures(jpeg, 1, first=7)),
        lambda: old._store.delete([next(old.assets()).id]),
    ):
        with pytest.raises(UsageError, match="taken the place") as caught:
            write()
        assert "open the knowledge base again" in caught.value.hint
    # A decision is kept with the pictures, and the new index asks there.
    asset = next(old.assets())
    with pytest.raises(UsageError, match="taken the place"):
        old.revoke(asset.id, by="ann", reason="withdrawn")
    new = base(NEW)
    assert new.review_of(asset.id).state is ReviewState.REVOKED
    assert asset.id not in {hit.asset.id for hit in new.search("dog").hits}
    assert new.ingest(pictures(jpeg, 1, first=7)).new == 1


class Busy(FakeEmbedder):
    """Does something while it embeds."""

    def __init__(self, work, **options):
        super().__init__(**options)
        self._work = work

    def embed(self, items, purpose, media=None):
        self._work(len(self.calls))
        return super().embed(items, purpose, media)


def test_what_is_written_meanwhile_is_in_the_new_index_and_searches_go_on(tmp_path, jpeg, base):
    old = base()
    old.ingest(pictures(jpeg, 130), approve_by="ann")
    first = next(old.assets())

    def work(call):
        assert old.search("dog number 5").hits
        if call == 1:
            old.ingest(pictures(jpeg, 3, first=500), approve_by="ann")
            old.revoke(first.id, by="ann", reason="withdrawn")
            old._store.delete([list(old.assets())[-1].id])
        if call == 2:
            old.ingest([SourcePicture.from_bytes("0.jpg", jpeg(0), caption="another caption")])

    report = run(tmp_path, Busy(work, space=NEW))
    expected = rows(tmp_path / "index", OLD)
    found = rows(tmp_path / "index" / "gen-2", NEW)
    assert {key: (row.text, row.fields, row.payload) for key, row in found.items()} == {
        key: (row.text, row.fields, row.payload) for key, row in expected.items()
    }
    assert report.pictures == len(expected) == 132
    assert found[first.id].fields["review"] == "revoked"
    assert "another caption" in {asset_of(row).caption for row in found.values()}


def test_writers_in_other_threads_lose_nothing(tmp_path, jpeg, base):
    """Every write either is in the new index, or was refused."""
    old = base()
    old.ingest(pictures(jpeg, 70), approve_by="ann")
    taken, stop = [], threading.Event()

    def write():
        number = 1000
        while not stop.is_set():
            number += 1
            try:
                old.ingest(pictures(jpeg, 1, first=number))
            except UsageError:
                return
            taken.append(f"dog number {number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run(tmp_path, FakeEmbedder(space=NEW))
    finally:
        stop.set()
        writer.join()
    captions = {asset.caption for asset in base(NEW).assets()}
    assert set(taken) <= captions
    assert len(captions) == 70 + len(taken)


def test_a_failed_run_leaves_the_old_index_and_the_next_pays_only_what_is_left(tmp_path, jpeg, base):
    kb = base()
    kb.ingest(pictures(jpeg, 200), approve_by="ann")

    def work(call):
        if call == 2:
            raise BackendError("no answer")

    with pytest.raises(BackendError):
        run(tmp_path, Busy(work, space=NEW))
    assert active_number(tmp_path / "index") == 1
    assert kb.search("dog number 9").hits
    storage = FolderStorage(tmp_path / "pictures")
    priced = FakeEmbedder(space=NEW, usd_micros=10)
    estimate = reindex_estimate("brand", indexes=LocalIndexes(tmp_path / "index"), storage=storage, embedder=priced)
    assert estimate.usd_micros == (200 - 128) * 10
    with pytest.raises(UsageError, match=r"cost 0\.00 USD"):
        run(tmp_path, priced)
    with pytest.raises(UsageError, match="nothing was sent"):
        run(tmp_path, priced, approve_cost=lambda _estimate: False)
    assert priced.calls == ()
    asked = []
    report = run(tmp_path, priced, approve_cost=lambda one: asked.append(one.usd_micros) or True)
    assert (report.embedded, asked) == (72, [720])
    # Begun for one embedder and finished for another: nothing of the first is left.
    third = EmbeddingSpace(model="third", revision="1", dimension=16, preprocessing="x")
    with pytest.raises(BackendError):
        run(tmp_path, Busy(work, space=OLD))
    assert run(tmp_path, FakeEmbedder(space=third)).embedded == 200
    assert active_folder(tmp_path / "index").name == "gen-3"
    # What was replaced before the last switch is gone; what was replaced by it stays for its readers.
    assert not (tmp_path / "index" / "store.sqlite3").exists()
    assert (tmp_path / "index" / "gen-2").exists()


def test_a_killed_run_is_continued_by_the_next(tmp_path, jpeg, base):
    base().ingest(pictures(jpeg, 200), approve_by="ann")
    script = (
        "import os, signal, sys; from pathlib import Path; from tests_reindex import NEW, Busy, run\n"
        "run(Path(sys.argv[1]), Busy(lambda call: os.kill(os.getpid(), signal.SIGKILL) if call == 2 else None, space=NEW))\n"
    )
    (tmp_path / "tests_reindex.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert active_number(tmp_path / "index") == 1
    assert base().count() == 200
    report = run(tmp_path, FakeEmbedder(space=NEW))
    assert (report.embedded, report.pictures) == (72, 200)


def test_words_only_and_back(tmp_path, jpeg, base):
    kb = base()
    kb.ingest(pictures(jpeg, 4), approve_by="ann")
    (gone, *_) = kb.assets()
    kb.revoke(gone.id, by="ann", reason="withdrawn")
    kb.erase_media(gone.id, by="ann", reason="asked to")
    report = run(tmp_path, None)
    assert (report.after, report.embedded) == (None, 0)
    words = base(None)
    assert words.search("dog").settings["space"] == "words only"
    back = run(tmp_path, FakeEmbedder(space=OLD))
    assert back.embedded == 3  # nothing of a picture whose bytes were deleted
    store = base()._store
    assert store.get([gone.id])[0].vector is None
    assert np.isclose(np.linalg.norm(store.get([next(iter({row.key for row in store.scan()} - {gone.id}))])[0].vector), 1)  # fmt: skip


def test_only_one_at_a_time(tmp_path, jpeg, base):
    base().ingest(pictures(jpeg, 2))
    with LocalIndexes(tmp_path / "index").claim(), pytest.raises(UsageError, match="Another process"):
        run(tmp_path, FakeEmbedder(space=NEW))
    assert run(tmp_path, FakeEmbedder(space=NEW)).switched
    with pytest.raises(UsageError, match="no index"):
        reindex("x", indexes=LocalIndexes(tmp_path / "nothing"), storage=FolderStorage(tmp_path / "p"), embedder=None)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", BackendError),
        (b"[]", BackendError),
        (b'{"format":1,"number":"../../other"}', BackendError),
        (b'{"format":1,"number":0}', BackendError),
        (b'{"format":1,"number":-3}', BackendError),
        (b'{"format":2,"number":2}', FormatVersionError),
    ],
)
def test_a_pointer_that_cannot_be_read_is_an_error_and_never_another_folder(tmp_path, document, error):
    (tmp_path / "active.json").write_bytes(document)
    for call in (active_folder, is_replaced):
        with pytest.raises(error):
            call(tmp_path)
    set_active(tmp_path, 3)
    assert active_folder(tmp_path) == tmp_path / "gen-3"
    assert [is_replaced(tmp_path / name) for name in (".", "gen-2", "gen-3", "gen-4")] == [True, True, False, False]


def test_the_configured_knowledge_base_is_reindexed_and_opened(tmp_path, jpeg):
    def assembly(*lines):
        (tmp_path / "vrag.toml").write_text("\n".join(["[workspace]", "folder = 'studio'", *lines]), encoding="utf-8")
        return Assembly(read_configuration(tmp_path / "vrag.toml", environ={}))

    with_words = ("[knowledge_bases.brand]", "embedder = 'none'")
    kb = assembly(*with_words).knowledge_base("brand")
    kb.ingest(pictures(jpeg, 3), approve_by="ann")
    kb.close()
    default = assembly("[knowledge_bases.brand]")
    with pytest.raises(SpaceMismatchError, match="words only") as caught:
        default.knowledge_base("brand")
    assert "vrag kb reindex" in str(caught.value.hint)
    report = default.reindex("brand")
    assert (report.switched, report.pictures) == (True, 3)
    again = default.knowledge_base("brand")
    assert again.search("dog").settings["space"].startswith("wordllama")
    again.close()
    assert json.loads((tmp_path / "studio" / "kb" / "brand" / "index" / "active.json").read_text())["number"] == 2
