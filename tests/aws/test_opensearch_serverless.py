"""OpenSearch Serverless, both generations, over a fake at the transport, and all bodies as golden JSON.

The real service was not asked. `opensearch_bodies.json` is what is sent; whoever has a collection can compare.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from opensearchpy import OpenSearch
from serverless_fake import Collection

from vrag.backends.aws.opensearch import OpenSearchVectorStore, PartialWriteError
from vrag.backends.aws.opensearch_index import index_body
from vrag.backends.aws.opensearch_query import (
    cosine_of,
    document,
    filter_clause,
    nearest_body,
    record_of,
    scored_body,
    word_bodies,
)
from vrag.errors import BackendError, FormatVersionError, ThrottledError, UsageError
from vrag.values.vectors import (
    ASSET_FIELDS,
    AllOf,
    AnyOf,
    Between,
    EmbeddingSpace,
    Is,
    IsIn,
    Not,
    VectorQuery,
    VectorRecord,
)

_SPACE = EmbeddingSpace(model="tiny", revision="1", dimension=4, preprocessing="none")
_VECTOR = np.array([0.5, 0.5, -0.5, 0.5], np.float32)
_RECORD = VectorRecord(
    key="otter",
    vector=_VECTOR,
    text="A river otter 海辺の犬",
    fields={"tags": ("animal", "river"), "width_px": 640, "ingested_at": "2026-11-20T08:00:00.000001Z"},
    payload='{"a":1}',
)
_FILTER = AllOf((
    IsIn(field="tags", values=("animal", "city")),
    AnyOf((Between(field="width_px", low=100, high=2000.5), Between(field="height_px"))),
    Not(Is(field="licence", value="MIT")),
    AnyOf(()),
    AllOf(()),
))  # fmt: skip


def _bodies():
    made = {
        f"index {flavour} {engine}": index_body(
            _SPACE, ASSET_FIELDS, engine=engine, flavour=flavour, shards=2, replicas=1
        )
        for flavour, engine in (
            ("managed", "lucene"),
            ("managed", "faiss"),
            ("serverless-classic", "faiss"),
            ("serverless-next", "faiss"),
        )
    }
    clause = filter_clause(_FILTER, ASSET_FIELDS)
    return {
        **made,
        "index managed words only": index_body(None, {}, engine="lucene", flavour="managed", shards=1, replicas=0),
        "document": document(_RECORD, _SPACE, ASSET_FIELDS, "20261120T080000000000-00"),
        "nearest": nearest_body(_VECTOR, 10, clause, candidates=200),
        "nearest without filter": nearest_body(_VECTOR, 500, None, candidates=200),
        "scored": scored_body(_VECTOR, 10, clause),
        "words": word_bodies("the red shoes 赤い靴を", 10, clause),
    }


def test_bodies_are_the_golden_ones(request):
    golden = Path(__file__).with_name("opensearch_bodies.json")
    assert json.loads(golden.read_text()) == _bodies(), "Look at the difference; if it is meant, write the file anew."


def test_documents_come_back():
    body = json.loads(json.dumps(_bodies()["document"]))
    assert record_of(body) == _RECORD


def test_scores_become_cosines():
    for cosine in (-1.0, -0.25, 0.0, 0.5, 1.0):
        assert cosine_of((1 + cosine) / 2, "cosinesimil") == pytest.approx(cosine)
        product = 1 + cosine if cosine >= 0 else 1 / (1 - cosine)
        assert cosine_of(product, "innerproduct") == pytest.approx(cosine)


def test_too_large_filters_are_refused():
    for condition in (
        IsIn(field="tags", values=tuple(map(str, range(10_001)))),
        AllOf((AnyOf(tuple(Is(field="tags", value=str(number)) for number in range(400))),) * 3),
    ):
        with pytest.raises(UsageError, match="at most 1000 conditions with 10000 values"):
            filter_clause(condition, ASSET_FIELDS)


@pytest.fixture(params=["serverless-classic", "serverless-next"])
def served(request):
    """A collection of a generation, and a store on it."""
    collection = Collection(takes_ids=request.param == "serverless-next")
    store = OpenSearchVectorStore(collection.client(), "vrag", _SPACE, engine="faiss", flavour=request.param)
    return collection, store


def _row(key, *numbers, **options):
    vector = np.array(numbers, np.float32)
    return VectorRecord(key=key, vector=vector / np.linalg.norm(vector), **options)


def test_write__settles_when_the_collection_has_refreshed(served):
    collection, store = served
    receipt = store.upsert([_row("a", 1, 0, 0, 0, text="red shoes"), _row("b", -1, 1, 0, 0, text="red lake")])
    assert not store.settled(receipt)
    collection.refresh()
    assert store.settled(receipt)
    query = VectorQuery(vector=_row("q", 1, 0, 0, 0).vector, words="red shoes", space=_SPACE, top_k=5)
    found = {match.key: match for match in store.search(query)}
    assert found["a"].cosine == pytest.approx(1)
    assert found["b"].cosine == pytest.approx(-(0.5**0.5), abs=1e-4)
    assert (found["a"].word_rank, found["b"].word_rank) == (1, 2)
    assert store.count() == 2
    again = store.delete(["a", "never there"])
    assert again.count == 1
    assert not store.settled(again)
    collection.refresh()
    assert store.settled(again)
    assert [row.key for row in store.scan()] == ["b"]


def test_replaced_row__is_found_once_and_new(served, monkeypatch):
    monkeypatch.setattr("vrag.backends.aws.opensearch_calls.PAGE_ROWS", 2)
    collection, store = served
    store.upsert([_row(key, 1, 0, 0, 0, text="old") for key in "abc"])
    collection.refresh()
    new = _row("b", 0, 1, 0, 0, text="new", fields={"width_px": 7})
    store.upsert([new])
    collection.refresh()
    assert len(collection.visible) == 3
    assert store.get(["b", "c", "zebra"])[0] == new
    assert [row.key for row in store.scan()] == ["a", "b", "c"]
    assert [row.text for row in store.scan(Between(field="width_px", low=1))] == ["new"]


def test_two_writes_of_a_key_before_a_refresh__read_as_the_newest(served):
    collection, store = served
    store.upsert([_row("a", 1, 0, 0, 0, text="old")])
    store.upsert([_row("a", 1, 0, 0, 0, text="new")])
    collection.refresh()
    assert [row.text for row in store.scan()] == ["new"]
    assert [row.text for row in store.get(["a"])] == ["new"]
    query = VectorQuery(vector=_row("q", 1, 0, 0, 0).vector, space=_SPACE)
    assert [match.key for match in store.search(query)] == ["a"]
    store.upsert([_row("a", 1, 0, 0, 0, text="last")])
    collection.refresh()
    assert len(collection.visible) == 1, "The next write takes away what could not be seen before."


def test_no_script_and_no_refresh_is_sent(served):
    collection, store = served
    receipt = store.upsert([_row("a", 1, 0, 0, 0, text="red")])
    store.settled(receipt)
    store.search(VectorQuery(vector=_VECTOR, words="red", space=_SPACE, filter=Is(field="tags", value="x")))
    sent = json.dumps(collection.sent)
    assert "script" not in sent
    assert "_refresh" not in sent
    assert "dfs_query" not in sent


def test_ids_on_the_first_generation__are_refused_row_by_row():
    collection = Collection(takes_ids=False)
    store = OpenSearchVectorStore(collection.client(), "vrag", _SPACE, flavour="serverless-next")
    with pytest.raises(PartialWriteError, match="Document ID is not supported") as raised:
        store.upsert([_row("a", 1, 0, 0, 0)])
    assert raised.value.keys == ("a",)


def test_half_an_answer__is_an_error(served, monkeypatch):
    collection, store = served
    whole = collection.answer

    def half(method, url, body):
        status, answer = whole(method, url, body)
        for one in answer.get("responses", [answer]):
            one["_shards"] = {"failed": 1}
        return status, answer

    monkeypatch.setattr(collection, "answer", half)
    query = VectorQuery(vector=_VECTOR, space=_SPACE)
    for call in (lambda: store.search(query), store.count, lambda: list(store.scan())):
        with pytest.raises(BackendError, match="1 shards failed") as raised:
            call()
        assert raised.value.retryable


def test_error_of_one_search__is_that_of_all(served, monkeypatch):
    collection, store = served
    refused = {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "queue is full"}}
    monkeypatch.setattr(collection, "_search", lambda _: refused)
    with pytest.raises(ThrottledError, match="queue is full"):
        store.search(VectorQuery(vector=_VECTOR, space=_SPACE))


def test_nobody_answers__is_retryable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = OpenSearch(f"http://127.0.0.1:{taken.getsockname()[1]}", max_retries=0)
        with pytest.raises(BackendError, match="ConnectionError") as raised:
            OpenSearchVectorStore(client, "vrag", _SPACE)
        assert raised.value.retryable
        client.close()


def test_mapping_that_is_refused__says_why(monkeypatch):
    collection = Collection(takes_ids=True)
    whole = collection.answer
    refused = {
        "error": {"root_cause": [{"type": "mapper_parsing_exception", "reason": "Invalid engine"}]},
        "status": 400,
    }
    monkeypatch.setattr(
        collection, "answer", lambda method, *rest: (400, refused) if method == "PUT" else whole(method, *rest)
    )
    with pytest.raises(BackendError, match="Invalid engine"):
        OpenSearchVectorStore(collection.client(), "vrag", _SPACE)


def test_index_of_another_release__is_refused(served):
    collection, _ = served
    for number, hint in ((99, "upgrade"), (0, "ingest again")):
        collection.mapping["mappings"]["_meta"]["vrag"]["words_format"] = number
        with pytest.raises(FormatVersionError, match=hint):
            OpenSearchVectorStore(collection.client(), "vrag", _SPACE, flavour="serverless-next")
