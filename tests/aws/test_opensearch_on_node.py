"""The OpenSearch store on a real node: its contract, and the same ranks as the local store."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from opensearchpy import OpenSearch

from vrag.backends.aws.opensearch import OpenSearchVectorStore, PartialWriteError, switch_alias
from vrag.backends.aws.opensearch_probe import probe
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.errors import BackendError, NotFoundError, SpaceMismatchError, UsageError
from vrag.testing import FAKE_SPACE
from vrag.testing.contracts import VectorStoreContract
from vrag.values.vectors import Between, EmbeddingSpace, FieldKind, Is, Not, VectorQuery, VectorRecord


@pytest.fixture(scope="module", autouse=True)
def _tidy(opensearch_url):
    """Indexes of this module go when it ends."""
    yield
    client = OpenSearch(opensearch_url)
    client.indices.delete(index="vrag-test-*")
    client.close()


@pytest.fixture
def opened(opensearch_url, tmp_path):
    """Opens stores, each with a client of its own; what lies under one folder is one index."""
    stores = []

    def make(name="store", space=FAKE_SPACE, **options):
        index = "vrag-test-" + hashlib.sha256(f"{tmp_path}/{name}".encode()).hexdigest()[:24]
        client = OpenSearch(opensearch_url, maxsize=40, timeout=60)
        stores.append(OpenSearchVectorStore(client, index, space, replicas=0, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


class TestOpenSearchOnNode(VectorStoreContract):
    @pytest.fixture(autouse=True)
    def _new(self, opensearch_url):
        self._url = opensearch_url

    def make(self, tmp_path, space=FAKE_SPACE):
        index = "vrag-test-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:24]
        return OpenSearchVectorStore(OpenSearch(self._url, maxsize=40, timeout=60), index, space, replicas=0)


_WORDS = (
    "a red blue running runs shoes shoe dogs dog's happily mountain mountains lakes at on the city night lights café "
    "naïve skiing relational ponies 赤い靴を履く 犬 海辺の犬 红鞋 山 собака собаки"
)


def _vector(number):
    row = np.random.default_rng(number).standard_normal(FAKE_SPACE.dimension)
    return (row / np.linalg.norm(row)).astype(np.float32)


def _rows(count, seed=5):
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, len(_WORDS.split()) + 1)
    return [
        VectorRecord(
            key=f"{number:04}",
            vector=_vector(number),
            text=" ".join(rng.choice(_WORDS.split(), rng.integers(1, 14), p=often / often.sum())),
            fields={"width_px": number},
        )
        for number in range(count)
    ]


def test_same_answers_as_the_local_store(opened, tmp_path):
    """60 questions to 300 rows: the same vectors found always, the same ranks by words nearly always."""
    rows, rng = _rows(300), np.random.default_rng(6)
    local, remote = LocalVectorStore(tmp_path / "local", FAKE_SPACE), opened()
    local.upsert(rows)
    remote.settled(remote.upsert(rows))
    same = 0
    for number in range(60):
        words = " ".join(rng.choice(_WORDS.split(), rng.integers(1, 5)))
        narrow = None if number % 2 else Not(Between(field="width_px", low=number, high=250))
        by_vector = VectorQuery(vector=_vector(1000 + number), top_k=10, filter=narrow, space=FAKE_SPACE)
        theirs, ours = local.search(by_vector), remote.search(by_vector)
        assert [match.key for match in theirs] == [match.key for match in ours]
        assert np.allclose([match.cosine for match in theirs], [match.cosine for match in ours], atol=1e-5)
        by_words = VectorQuery(words=words, top_k=10, filter=narrow)
        same += local.search(by_words) == remote.search(by_words)
    local.close()
    # The rest: phrases of scripts without spaces weigh their pairs one by one, and sums end in other last digits.
    assert same >= 54


def test_graph__finds_nearly_all_and_only_what_the_filter_lets(opened):
    rows = _rows(1500)
    exact, graph = opened(), opened(exact_up_to_rows=0)
    exact.settled(exact.upsert(rows))
    hit = 0
    for number in range(30):
        narrow = Between(field="width_px", low=1000 - 30 * number) if number % 2 else None
        query = VectorQuery(vector=_vector(5000 + number), top_k=10, filter=narrow, space=FAKE_SPACE)
        expected, found = exact.search(query), graph.search(query)
        cosines = {match.key: match.cosine for match in expected}
        assert len(found) == 10
        assert all(narrow is None or int(match.key) >= narrow.low for match in found)
        assert all(abs(cosines[match.key] - match.cosine) < 1e-4 for match in found if match.key in cosines)
        hit += sum(match.key in cosines for match in found)
    assert hit >= 0.95 * 300


def test_partial_failure__says_which_rows(opened):
    store = opened(fields={"size": FieldKind.NUMBER})
    store._fields["size"] = FieldKind.KEYWORD  # so that the server refuses what we let through
    rows = [VectorRecord(key=f"row {text}", fields={"size": text}) for text in ("12", "large", "13")]
    with pytest.raises(PartialWriteError, match="'row large': 400") as raised:
        store.upsert(rows)
    assert raised.value.keys == ("row large",)
    assert not raised.value.retryable
    assert [row.key for row in store.get([row.key for row in rows])] == ["row 12", "row 13"]


def test_bulk_pages__keep_order_and_count(opened, monkeypatch):
    monkeypatch.setattr("vrag.backends.aws.opensearch_calls.BULK_BYTES", 2000)
    monkeypatch.setattr("vrag.backends.aws.opensearch_calls.PAGE_ROWS", 7)
    store = opened()
    rows = _rows(40)
    receipt = store.upsert(rows)
    assert receipt.count == 40
    assert store.settled(receipt)
    assert list(store.scan()) == rows
    assert list(store.get([row.key for row in rows[::-1]])) == rows[::-1]
    assert store.delete([row.key for row in rows[:20]]).count == 20


def test_long_keys_and_odd_values__come_back(opened):
    rows = [
        VectorRecord(key="ж" * 512, text="otter"),
        VectorRecord(key="sha256:0", fields={"holder": 'a"b\\c\n', "width_px": 2**60}, payload='{"a":1e400}'),
        VectorRecord(key="_all/../%2e", fields={"width_px": -0.5, "tags": ()}),
    ]
    store = opened()
    store.settled(store.upsert(rows))
    assert list(store.get([row.key for row in rows])) == rows
    assert sorted(row.key for row in store.scan()) == sorted(row.key for row in rows)
    assert store.count(Between(field="width_px", low=float("-inf"), high=2**2000)) == 2
    assert store.count(Is(field="width_px", value=float("nan"))) == 0
    for bad in ({"holder": "x" * 40_000}, {"width_px": float("nan")}, {"tags": ("\ud800",)}):
        with pytest.raises(UsageError):
            store.upsert([VectorRecord(key="bad", fields=bad)])


def test_index__tells_what_it_was_made_for(opened, opensearch_url):
    first = opened()
    other = EmbeddingSpace(model="other", revision="1", dimension=FAKE_SPACE.dimension, preprocessing="x")
    with pytest.raises(SpaceMismatchError, match="other@1"):
        opened(space=other)
    with pytest.raises(SpaceMismatchError, match="words only"):
        opened(space=None)
    wider = {"added": FieldKind.KEYWORD, "width_px": FieldKind.NUMBER}
    second = opened(fields=wider)
    second.settled(second.upsert([VectorRecord(key="new", fields={"added": "x"})]))
    assert second.count(Is(field="added", value="x")) == 1
    with pytest.raises(UsageError, match="double"):
        opened(fields={"width_px": FieldKind.KEYWORD})
    client = first._client
    client.indices.create(index="vrag-test-foreign")
    with pytest.raises(UsageError, match="not made by vrag"):
        OpenSearchVectorStore(client, "vrag-test-foreign", None)


def test_alias__is_switched_in_one_step(opened):
    old, new = opened("old"), opened("new")
    client = old._client
    for store, key in ((old, "old"), (new, "new")):
        store.settled(store.upsert([VectorRecord(key=key)]))
    alias = f"{old._index}-live"
    assert switch_alias(client, alias, old._index) == ()
    live = OpenSearchVectorStore(client, alias, FAKE_SPACE)
    assert [row.key for row in live.scan()] == ["old"]
    assert switch_alias(client, alias, new._index) == (old._index,)
    assert [row.key for row in live.scan()] == ["new"]
    live.settled(live.upsert([VectorRecord(key="more")]))
    assert [row.key for row in new.scan()] == ["more", "new"]
    with pytest.raises(NotFoundError):
        switch_alias(client, alias, "vrag-test-absent")
    with pytest.raises(BackendError):
        switch_alias(client, old._index, new._index)


def test_probe__finds_a_managed_endpoint(opensearch_url):
    client = OpenSearch(opensearch_url)
    before = set(client.indices.get(index="*"))
    found = probe(client)
    assert found.flavour == "managed"
    assert (found.custom_ids, found.refresh, found.point_in_time, found.scripts) == (True, True, True, True)
    assert "lucene" in found.engines
    assert found.version == client.info()["version"]["number"]
    assert set(client.indices.get(index="*")) == before
    client.close()
