"""Reindexing on a real node: a new index beside the old one, an atomic switch, nothing lost, writers kept out."""

from __future__ import annotations

import hashlib
import threading

import pytest
from opensearchpy import OpenSearch

from vrag.backends.aws.opensearch_indexes import OpenSearchIndexes, active_index, open_active
from vrag.backends.local.storage import FolderStorage
from vrag.errors import BackendError, SpaceMismatchError, UsageError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.reindex import reindex
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock, FakeEmbedder, SampleMedia
from vrag.values.vectors import EmbeddingSpace

OLD = EmbeddingSpace(model="old-words", revision="1", dimension=32, preprocessing="lower-words/1")
NEW = EmbeddingSpace(model="new-words", revision="7", dimension=48, preprocessing="lower-words/2")


@pytest.fixture
def alias(opensearch_url, tmp_path):
    name = "vrag-re-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    yield name
    client = OpenSearch(opensearch_url)
    client.indices.delete(index=f"{name}*")
    client.close()


@pytest.fixture
def connect(opensearch_url):
    return lambda: OpenSearch(opensearch_url, maxsize=40, timeout=60)


@pytest.fixture
def base(alias, connect, tmp_path):
    opened = []

    def make(space=OLD):
        store = open_active(connect(), alias, space, replicas=0)
        embedder = None if space is None else FakeEmbedder(space=space)
        storage = FolderStorage(tmp_path / "pictures")
        opened.append(KnowledgeBase("brand", store=store, storage=storage, embedder=embedder, clock=FakeClock()))
        return opened[-1]

    yield make
    for kb in opened:
        kb.close()


def _pictures(count, first=0):
    media = SampleMedia()
    made = []
    for number in range(first, first + count):
        with media(media.picture(number)) as stream:
            made.append(SourcePicture.from_bytes(f"{number}.png", stream.read(), caption=f"dog number {number}"))
    return made


def _fill(kb, count, first=0):
    report = kb.ingest(_pictures(count, first), approve_by="ann")
    kb._store._client.indices.refresh(index=kb._store.index)
    return report


@pytest.fixture
def run(alias, connect, tmp_path):
    def go(embedder, machine="one", **options):
        indexes = OpenSearchIndexes(connect, alias, tmp_path / machine, replicas=0)
        return reindex(
            "brand", indexes=indexes, storage=FolderStorage(tmp_path / "pictures"), embedder=embedder, **options
        )

    return go


def _index(connect, alias):
    client = connect()
    try:
        return active_index(client, alias)
    finally:
        client.close()


def test_a_new_embedder_is_refused_until_the_index_is_made_again(alias, connect, base, run):
    old = base()
    _fill(old, 6)
    assert _index(connect, alias) == f"{alias}-000001"
    with pytest.raises(SpaceMismatchError) as caught:
        base(NEW)
    assert caught.value.hint.startswith("vrag kb reindex")
    report = run(FakeEmbedder(space=NEW))
    assert (report.before, report.after, report.pictures, report.embedded) == (OLD, NEW, 6, 6)
    assert report.switched
    assert _index(connect, alias).startswith(f"{alias}-000002-")
    new = base(NEW)
    assert [hit.asset.caption for hit in new.search("dog number 3").hits][:1] == ["dog number 3"]
    assert {asset.id for asset in new.assets()} == {asset.id for asset in old.assets()}
    assert not run(FakeEmbedder(space=NEW)).switched


def test_who_holds_the_old_index_reads_on_and_is_refused_when_writing(base, run):
    old = base()
    _fill(old, 3)
    run(FakeEmbedder(space=NEW))
    assert len(old.search("dog").hits) == 3
    for write in (
        lambda: old.ingest(_pictures(1, first=7)),
        lambda: old._store.delete([next(old.assets()).id]),
    ):
        with pytest.raises(UsageError, match="closed to writers") as caught:
            write()
        assert "open the knowledge base again" in caught.value.hint
    assert base(NEW).ingest(_pictures(1, first=7)).new == 1


class Busy(FakeEmbedder):
    """Does something while it embeds."""

    def __init__(self, work, **options):
        super().__init__(**options)
        self._work = work

    def embed(self, items, purpose, media=None):
        self._work(len(self.calls))
        return super().embed(items, purpose, media)


def test_what_is_written_meanwhile_is_in_the_new_index_and_searches_go_on(base, run):
    old = base()
    _fill(old, 70)
    gone = [asset.id for asset in old.assets()][-1]

    def work(call):
        assert old.search("dog number 5").hits
        if call == 1:
            _fill(old, 3, first=500)
            old._store.delete([gone])

    report = run(Busy(work, space=NEW))
    assert report.pictures == 72
    ids = {asset.id for asset in base(NEW).assets()}
    assert gone not in ids
    assert sum(asset.file_name in {"500.png", "501.png", "502.png"} for asset in base(NEW).assets()) == 3


def test_readers_through_the_alias_find_one_whole_index_at_every_moment(alias, connect, base, run):
    """Between the two indexes there is no moment without one."""
    old = base()
    _fill(old, 20)
    seen, stop = set(), threading.Event()

    def watch():
        client = connect()
        while not stop.is_set():
            seen.add((client.count(index=alias)["count"], len(client.indices.get_alias(name=alias))))
        client.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    run(FakeEmbedder(space=NEW))
    stop.set()
    watcher.join()
    assert seen == {(20, 1)}


def test_of_two_machines_the_first_to_switch_wins_and_the_second_is_told(alias, connect, base, run):
    old = base()
    _fill(old, 5)
    other = EmbeddingSpace(model="third", revision="1", dimension=16, preprocessing="x/1")

    def first(call):
        if call == 0:
            assert run(FakeEmbedder(space=NEW), machine="two").switched

    with pytest.raises((BackendError, UsageError), match=r"replaced|closed|removed|no such index"):
        run(Busy(first, space=other))
    assert base(NEW).count() == 5
    again = run(FakeEmbedder(space=other))
    assert again.switched
    assert base(other).count() == 5


def test_a_switch_that_fails_leaves_the_old_index_open_and_a_claim_reopens_one(alias, connect, base, run, tmp_path):
    old = base()
    _fill(old, 2)
    indexes = OpenSearchIndexes(connect, alias, tmp_path / "one", replicas=0)
    active, beside = indexes.active(), indexes.beside(NEW)

    def broken():
        with pytest.raises(UsageError, match="closed to writers"):
            old.ingest(_pictures(1, first=30))
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        indexes.switch(active, broken)
    assert old.ingest(_pictures(1, first=31)).new == 1
    active._client.indices.add_block(index=active.index, block="write")  # as a killed run leaves it
    with indexes.claim(), pytest.raises(UsageError, match="Another process is reindexing"):
        OpenSearchIndexes(connect, alias, tmp_path / "one").claim().__enter__()
    assert old.ingest(_pictures(1, first=32)).new == 1
    active.close()
    beside.close()


def test_an_index_without_an_alias_is_not_replaced(opensearch_url, alias, connect, run, tmp_path):
    from vrag.backends.aws.opensearch import OpenSearchVectorStore

    OpenSearchVectorStore(connect(), alias, OLD, replicas=0).close()
    with pytest.raises(UsageError, match="no index behind an alias"):
        run(FakeEmbedder(space=NEW))


def test_reindex_by_name_and_what_the_doctor_says_of_the_index(opensearch_url, alias, tmp_path, monkeypatch):
    """`vrag kb reindex` with `aws:opensearch`: the assembly finds the indexes by the name of the store."""
    from vrag.compose.assembly import Assembly
    from vrag.compose.configuration import read_configuration
    from vrag.compose.doctor import examine

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    environ = {"AWS_ACCESS_KEY_ID": "test"}
    text = (
        "[aws]\nregion = 'us-east-1'\nendpoint_url = 'http://127.0.0.1:9'\n[generators.camera]\nuse = 'local:camera-moves'\n"
        "[knowledge_bases.brand]\nembedder = '{embedder}'\n"
        f"store = {{{{ use = 'aws:opensearch', index = '{alias}', endpoint_url = '{opensearch_url}', replicas = 0 }}}}\n"
    )

    def assembly(embedder):
        (tmp_path / "vrag.toml").write_text(text.format(embedder=embedder))
        return Assembly(read_configuration(tmp_path / "vrag.toml", environ={}), environ=environ)

    kb = assembly("none").knowledge_base("brand")
    _fill(kb, 4)
    kb.close()
    with_words = assembly("local:wordllama")
    with pytest.raises(SpaceMismatchError):
        with_words.knowledge_base("brand")
    from vrag.compose import doctor_aws

    part = with_words.configuration.parts["knowledge_bases.brand.store"]
    lines = {
        one.name: one
        for one in doctor_aws._index(with_words, "knowledge_bases.brand.store", part, environ, FakeClock())
    }
    assert lines["opensearch of brand"].state == "ok"
    assert "managed, version 2.19.1, engines lucene" in lines["opensearch of brand"].message
    assert (lines[f"index {alias}"].state, lines[f"index {alias}"].next_step.split(" --kb")[0]) == (
        "FAIL",
        "vrag kb reindex",
    )
    assert with_words.reindex("brand").switched
    kb = with_words.knowledge_base("brand")
    assert kb.search("dog number 2").hits
    kb.close()
    lines = {
        one.name: one
        for one in doctor_aws._index(with_words, "knowledge_bases.brand.store", part, environ, FakeClock())
    }
    assert lines[f"index {alias}"].state == "ok"
    assert any(one.state == "FAIL" and "credentials" in one.name for one in examine(with_words, environ=environ))
