"""The vector store on OpenSearch: a cluster of one's own, an Amazon domain, or OpenSearch Serverless."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opensearchpy import exceptions as sdk
from typing_extensions import override

from vrag.backends.aws.errors import translated
from vrag.backends.aws.opensearch_calls import NAME, PartialWriteError, bulk, pages, refuse_partial, searches
from vrag.backends.aws.opensearch_index import Engine, Flavour, check_meta, field_types, index_body, space_type
from vrag.backends.aws.opensearch_query import (
    checked_vector,
    cosine_of,
    document,
    document_id,
    filter_clause,
    nearest_body,
    record_of,
    scored_body,
    word_bodies,
)
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError, NotFoundError, SpaceMismatchError, UsageError
from vrag.interfaces import VectorStore
from vrag.values.canonical import JSON
from vrag.values.vectors import (
    ASSET_FIELDS,
    EmbeddingSpace,
    FieldKind,
    Filter,
    Match,
    Receipt,
    VectorQuery,
    VectorRecord,
)

__all__ = ["OpenSearchVectorStore", "PartialWriteError", "switch_alias"]

_MGET_ROWS: Final = 500


class OpenSearchVectorStore(VectorStore):
    """Rows in one index or alias; vectors and words are searched side by side, and fused by whoever asks.

    **Exactness.** On a `managed` endpoint the rows that fulfil the filter are counted first. Up to `exact_up_to_rows`
    every one of them is compared by the k-NN scoring script; more are searched in the HNSW graph, with the filter
    inside, where `candidates` are looked at: close to exact, not exact. Serverless runs no scripts and always takes
    the graph.

    **Words** are cut by the local store's own code and ranked by its formula, so that one query ranks alike on both.
    Three things can differ: rows that were replaced count until Lucene merges them away; the length of a text of more
    than 40 words is stored roundly; and Serverless, without scripts, takes Lucene's BM25.

    **Visibility.** `get` and `delete` see a write at once; `search`, `scan` and `count` after a refresh. `settled` asks
    a managed endpoint for one, and so is true when it answers. Serverless refreshes by itself, about every 10 s, the
    first generation about every 60 s: there it counts the rows of the write that are visible. A write that was
    replaced before it was visible never settles there: ask with the later receipt.

    **Serverless of the first generation** takes no ids. Rows are inserted and the older ones of the same key deleted;
    an older one that was not visible yet stays until the next write of its key, and reads take the newest.

    The client repeats what its own settings say; here nothing is repeated. Its connections do not survive a fork.
    """

    def __init__(
        self,
        client: Any,
        index: str,
        space: EmbeddingSpace | None,
        *,
        fields: Mapping[str, FieldKind] = ASSET_FIELDS,
        engine: Engine = "lucene",
        flavour: Flavour = "managed",
        shards: int = 1,
        replicas: int = 1,
        exact_up_to_rows: int = 50_000,
        candidates: int = 200,
        clock: Clock | None = None,
    ) -> None:
        """Open the index, or make it for vectors of `space` (None: words only).

        Args:
            client: `opensearchpy.OpenSearch(…)`, with its signer or password; `close` closes it.
            index: The name of an index, or of an alias of one.
            space: What all vectors are compared in; it is stored in the mapping, and never changes.
            fields: The allow-list of what records may carry and filters may name; new ones are added to the mapping.
            engine: Of a new managed index. `faiss` needs 2.19 for cosines; Serverless has its own.
            flavour: What kind of endpoint it is; `vrag.backends.aws.opensearch_probe.probe` finds out.
            shards: Of a new managed index.
            replicas: Of a new managed index; 0 where there is one node.
            exact_up_to_rows: See above; 0 always takes the graph.
            candidates: How many rows the graph looks at, at least; up to 10 000.
            clock: Draws the random mark of each write.

        Raises:
            SpaceMismatchError: The index was made for another space.
            FormatVersionError: Another release made it.
            UsageError: The index was not made by this library.
        """
        self._client = client
        self._index = index
        self._space = space
        self._fields = dict(fields)
        self._flavour: Flavour = flavour
        self._exact_up_to_rows = exact_up_to_rows if flavour == "managed" else 0
        self._candidates = candidates
        self._clock = clock or SystemClock()
        self._pid = os.getpid()
        self._closed = False
        self._open(index_body(space, fields, engine=engine, flavour=flavour, shards=shards, replicas=replicas))

    @property
    def index(self) -> str:
        """The index or alias that it was opened by."""
        return self._index

    @property
    @override
    def space(self) -> EmbeddingSpace | None:
        return self._space

    @override
    def upsert(self, records: Sequence[VectorRecord]) -> Receipt:
        """Write rows in bulk; see `VectorStore.upsert`.

        Raises:
            PartialWriteError: The endpoint refused some rows: the others are written; write `keys` again.
        """
        client = self._usable()
        write = self._mark()
        rows = {record.key: document(record, self._space, self._fields, write) for record in records}
        ids = self._flavour != "serverless-classic"
        older = [] if ids else [hit["_id"] for hit in self._hits_of(list(rows))]
        actions = [
            [_line({"index": {"_id": document_id(key)} if ids else {}}), _line(body)] for key, body in rows.items()
        ]
        bulk(client, self._index, actions, list(rows))
        bulk(client, self._index, [[_line({"delete": {"_id": found}})] for found in older], older)
        return Receipt(id=f"write:{write}", count=len(rows))

    @override
    def delete(self, keys: Sequence[str]) -> Receipt:
        client = self._usable()
        asked = list(dict.fromkeys(key for key in keys if _is_key(key)))
        if self._flavour == "serverless-classic":
            hits = self._hits_of(asked)
            found = [hit["_id"] for hit in hits]
            bulk(client, self._index, [[_line({"delete": {"_id": one}})] for one in found], found)
            count = len({hit["_source"]["key"] for hit in hits})
        else:
            results = bulk(
                client, self._index, [[_line({"delete": {"_id": document_id(key)}})] for key in asked], asked
            )
            count = results.count("deleted")
        return Receipt(id="delete:" + (self._mark() if self._flavour == "managed" else json.dumps(asked)), count=count)

    @override
    def settled(self, receipt: Receipt) -> bool:
        client = self._usable()
        kind, _, what = receipt.id.partition(":")
        if kind not in {"write", "delete"}:
            return False
        if self._flavour == "managed":
            # A refresh takes milliseconds and reaches every copy of every shard; rows that were replaced meanwhile, or
            # lie on several shards, make any count or sequence number ambiguous.
            with translated("refresh", NAME):
                client.indices.refresh(index=self._index)
            return True
        if kind == "write":
            return receipt.count == 0 or self._count({"term": {"write": what}}) >= receipt.count
        return self._count({"terms": {"key": json.loads(what)}}) == 0

    @override
    def search(self, query: VectorQuery) -> Sequence[Match]:
        client = self._usable()
        clause = filter_clause(query.filter, self._fields)
        if query.vector is None and query.words is None:
            raise UsageError("A search needs a vector, words, or both.")
        if query.space is not None and query.space != self._space:
            raise SpaceMismatchError(
                f"The query is in {query.space}, and the index '{self._index}' holds {self._space or 'words only'}.",
                hint="embed the query with the embedder that the index was filled with",
            )
        bodies: list[dict[str, JSON]] = []
        scored = False
        if query.vector is not None:
            vector = checked_vector(query.vector, self._space, "The query")
            scored = self._exact_up_to_rows > 0 and self._count(clause) <= self._exact_up_to_rows
            bodies.append(
                scored_body(vector, query.top_k, clause)
                if scored
                else nearest_body(vector, query.top_k, clause, candidates=self._candidates)
            )
        if query.words is not None:
            bodies += word_bodies(query.words, query.top_k, clause)
        answers = searches(client, self._index, bodies, managed=self._flavour == "managed")
        cosines: dict[str, float] = {}
        if query.vector is not None:
            compared_by = "innerproduct" if scored else space_type(self._flavour)
            for hit in answers.pop(0):
                cosines.setdefault(hit["sort"][1], cosine_of(hit["_score"], compared_by))
        found = list(dict.fromkeys(hit["sort"][1] for hits in answers for hit in hits))[: query.top_k]
        ranks = {key: rank for rank, key in enumerate(found, start=1)}
        matches = (Match(key=key, cosine=cosines.get(key), word_rank=ranks.get(key)) for key in {**cosines, **ranks})
        return sorted(matches, key=_order)

    @override
    def get(self, keys: Sequence[str]) -> Sequence[VectorRecord]:
        client = self._usable()
        asked = list(dict.fromkeys(key for key in keys if _is_key(key)))
        found: dict[str, VectorRecord] = {}
        if self._flavour == "serverless-classic":
            found = {(record := record_of(hit["_source"])).key: record for hit in self._hits_of(asked, record=True)}
        else:
            for start in range(0, len(asked), _MGET_ROWS):
                ids = [document_id(key) for key in asked[start : start + _MGET_ROWS]]
                with translated("mget", NAME):
                    answer = client.mget(index=self._index, body={"ids": ids}, _source="key,record")
                for one in answer["docs"]:
                    if "error" in one:
                        raise BackendError(
                            f"{NAME} could not read '{one.get('_id')}': {one['error'].get('type')}.",
                            backend=NAME,
                            operation="mget",
                            retryable=True,
                        )
                    if one.get("found"):
                        record = record_of(one["_source"])
                        found[record.key] = record
        return [found[key] for key in keys if key in found]

    @override
    def scan(self, filter: Filter | None = None) -> Iterator[VectorRecord]:
        """Every row that fulfils the filter, in order of key, as the index was when the first one was asked for."""
        self._usable()
        return self._pages(filter_clause(filter, self._fields))

    @override
    def count(self, filter: Filter | None = None) -> int:
        self._usable()
        return self._count(filter_clause(filter, self._fields))

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.close()

    def _open(self, body: dict[str, Any]) -> None:
        """Make the index unless it is there; check that it is the one that is meant."""
        indices = self._client.indices
        with translated("indices.create", NAME):
            try:
                found = indices.get_mapping(index=self._index)
            except sdk.NotFoundError:
                try:
                    indices.create(index=self._index, body=body)
                except sdk.RequestError as error:
                    if error.error != "resource_already_exists_exception":  # made by another process meanwhile
                        raise
                found = indices.get_mapping(index=self._index)
        for name, about in found.items():
            mappings = about["mappings"]
            check_meta(mappings.get("_meta", {}), self._space, name)
            known = mappings.get("properties", {}).get("fields", {}).get("properties", {})
            wanted = field_types(self._fields)
            other = [key for key in wanted if key in known and known[key].get("type") != wanted[key]]
            if other:
                raise UsageError(
                    f"The field '{other[0]}' of the index '{name}' has the type {known[other[0]].get('type')}, not "
                    f"{wanted[other[0]]}.",
                    hint="ingest again into a new index, then switch the alias",
                )
            new = {key: {"type": kind} for key, kind in wanted.items() if key not in known}
            if new:
                with translated("indices.put_mapping", NAME):
                    indices.put_mapping(index=name, body={"properties": {"fields": {"properties": new}}})

    def _usable(self) -> Any:
        if self._closed:
            raise UsageError(f"The vector store '{self._index}' is closed.", hint="open it again")
        if self._pid != os.getpid():
            raise UsageError(
                "This vector store was made in another process, and its connections cannot be shared.",
                hint="make a new client and a new OpenSearchVectorStore after the fork",
            )
        return self._client

    def _mark(self) -> str:
        """Names a write; later ones sort behind earlier ones, to the microsecond of this machine's clock."""
        return f"{self._clock.now():%Y%m%dT%H%M%S%f}-{self._clock.token_bytes(6).hex()}"

    def _hits_of(self, keys: Sequence[str], *, record: bool = False) -> list[dict[str, Any]]:
        """Documents with these keys that searches see, by key and oldest first: there may be several of one key."""
        client, hits = self._client, list[dict[str, Any]]()
        for start in range(0, len(keys), _MGET_ROWS):
            clause: dict[str, JSON] = {"terms": {"key": list(keys[start : start + _MGET_ROWS])}}
            hits += pages(client, self._index, clause, ["key", "record"] if record else ["key"], newest_first=False)
        return hits

    def _pages(self, clause: dict[str, JSON] | None) -> Iterator[VectorRecord]:
        last = None
        for hit in pages(self._client, self._index, clause, ["key", "record"], newest_first=True):
            if hit["_source"]["key"] != last:  # of several documents of one key the newest comes first
                last = hit["_source"]["key"]
                yield record_of(hit["_source"])

    def _count(self, clause: dict[str, JSON] | None) -> int:
        with translated("count", NAME):
            answer = self._client.count(index=self._index, body={"query": clause or {"match_all": {}}})
        refuse_partial(answer, "count")
        return int(answer["count"])


def switch_alias(client: Any, alias: str, index: str) -> tuple[str, ...]:
    """Point `alias` at `index` alone, in one step; the indexes it pointed at before.

    Fill a new index while searches go to the old one through the alias, then switch, then delete the old one.

    Raises:
        NotFoundError: There is no such index.
        BackendError: `alias` is the name of an index.
    """
    with translated("indices.update_aliases", NAME):
        if not client.indices.exists(index=index):
            raise NotFoundError(f"There is no index '{index}' to point '{alias}' at.")
        try:
            before = sorted(client.indices.get_alias(name=alias))
        except sdk.NotFoundError:
            before = []
        actions: list[JSON] = [{"remove": {"index": old, "alias": alias}} for old in before if old != index]
        actions.append({"add": {"index": index, "alias": alias, "is_write_index": True}})
        client.indices.update_aliases(body={"actions": actions})
    return tuple(before)


def _line(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _is_key(key: str) -> bool:
    try:
        return bool(key.encode())
    except UnicodeEncodeError:
        return False


def _order(match: Match) -> tuple[float, float, str]:
    """By cosine, best first; then by word rank; then by key. Rows without one come after those with it."""
    return (
        2.0 if match.cosine is None else -match.cosine,
        float("inf") if match.word_rank is None else match.word_rank,
        match.key,
    )
