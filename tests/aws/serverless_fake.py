"""A fake OpenSearch Serverless collection behind `opensearch-py`'s transport: what the real one is documented to do.

Not the real thing: it knows the requests that the store sends and refuses all others. Writes become visible when the
test says so, as a collection refreshes by itself. The first generation refuses ids with the text that it gives.
"""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
from opensearchpy import Connection, OpenSearch

_REFUSED_ID = "Document ID is not supported in create/index operation request"


class Collection:
    """One collection with one index."""

    def __init__(self, *, takes_ids):
        self.takes_ids = takes_ids
        self.mapping = None
        self.written = {}
        self.visible = {}
        self.sent = []
        self._numbers = itertools.count()

    def refresh(self):
        """What the service does every 10 or 60 s."""
        self.visible = dict(self.written)

    def client(self):
        collection = self

        class Wire(Connection):
            def perform_request(self, method, url, params=None, body=None, *_args, **_options):
                status, answer = collection.answer(method, url, body)
                text = json.dumps(answer)
                if status >= 400 and not (method == "HEAD" and status == 404):
                    self._raise_error(status, text, "application/json")
                return status, {"content-type": "application/json"}, text

        return OpenSearch("http://127.0.0.1:9", connection_class=Wire)

    def answer(self, method, url, body):
        """Status and JSON for a request."""
        text = body.decode() if isinstance(body, bytes) else body
        lines = [json.loads(line) for line in (text or "").splitlines() if line]
        self.sent.append((method, url, lines))
        route = f"{method} {re.sub('^/vrag', '/INDEX', url)}"
        if route == "PUT /INDEX":
            self.mapping = lines[0]
            return 200, {"acknowledged": True}
        if route == "GET /INDEX/_mapping":
            if self.mapping is None:
                return 404, {"error": {"type": "index_not_found_exception", "reason": "no such index"}}
            return 200, {"vrag": {"mappings": self.mapping["mappings"]}}
        if route in {"PUT /INDEX/_bulk", "POST /INDEX/_bulk"}:
            return 200, self._bulk(lines)
        if route == "POST /INDEX/_search/point_in_time":
            return 200, {"pit_id": "pit"}
        if route == "DELETE /_search/point_in_time":
            return 200, {"pits": []}
        if route == "POST /_search":
            return 200, self._search(lines[0])
        if route in {"POST /INDEX/_msearch", "GET /INDEX/_msearch"}:
            return 200, {"responses": [self._search(one) for one in lines[1::2]]}
        if route == "POST /INDEX/_count":
            return 200, {"count": len(self._fitting(lines[0]["query"])), "_shards": {"failed": 0}}
        if route == "POST /INDEX/_mget" and self.takes_ids:
            found = [(one, self.written.get(one)) for one in lines[0]["ids"]]
            return 200, {"docs": [{"_id": i, "found": d is not None, "_source": d} for i, d in found]}
        return 404, {"error": {"type": "not_supported", "reason": f"{route} is not supported"}}

    def _bulk(self, lines):
        items, rest = [], iter(lines)
        for line in rest:
            [(action, about)] = line.items()
            if action == "delete":
                there = self.written.pop(about["_id"], None)
                outcome = {"result": "not_found" if there is None else "deleted", "status": 200}
            elif "_id" in about and not self.takes_ids:
                next(rest)
                outcome = {"status": 400, "error": {"type": "illegal_argument_exception", "reason": _REFUSED_ID}}
            else:
                self.written[about.get("_id", f"made-{next(self._numbers)}")] = next(rest)
                outcome = {"result": "created", "status": 201}
            items.append({action: outcome})
        return {"errors": any("error" in next(iter(item.values())) for item in items), "items": items}

    def _search(self, body):
        scored = self._fitting(body["query"])
        order = [next(iter(one)) for one in body["sort"]]
        hits = []
        for name, score in scored.items():
            document = self.visible[name]
            values = [score if field == "_score" else document[field] for field in order]
            hits.append({"_id": name, "_score": score, "sort": values, "_source": document})
        for one in reversed(body["sort"]):
            [(field, way)] = one.items()
            at = order.index(field)
            hits.sort(key=lambda hit, at=at: hit["sort"][at], reverse=way == "desc")
        after = body.get("search_after")
        if after is not None:
            seen = [hit["sort"] for hit in hits].index(after)
            hits = hits[seen + 1 :]
        return {"hits": {"hits": hits[: body["size"]]}, "_shards": {"failed": 0}, "timed_out": False}

    def _fitting(self, query):
        """Scores of the visible documents that a query finds."""
        found = {}
        for name, document in self.visible.items():
            score = self._score(query, document)
            if score is not None:
                found[name] = score
        return found

    def _score(self, query, document):
        [(kind, what)] = query.items()
        if kind == "knn":
            vector = what["vector"]
            if "vector" not in document or ("filter" in vector and self._score(vector["filter"], document) is None):
                return None
            product = float(np.dot(vector["vector"], document["vector"]))
            if self.takes_ids:
                return (1 + product) / 2
            return 1 + product if product >= 0 else 1 / (1 - product)
        if kind == "match_phrase":
            [about] = what.values()
            return 1.0 if about["query"] in document.get("words", "").split() else None
        if kind == "bool":
            return self._bool(what, document)
        value = None
        if kind in {"term", "terms", "range"}:
            [(field, wanted)] = what.items()
            value = document
            for part in field.split("."):
                value = (value or {}).get(part)
        held = value if isinstance(value, list) else [value]
        fits = {
            "match_all": lambda: True,
            "match_none": lambda: False,
            "term": lambda: wanted in held,
            "terms": lambda: any(one in wanted for one in held),
            "range": lambda: value is not None and wanted.get("gte", value) <= value <= wanted.get("lte", value),
        }[kind]()
        return 0.0 if fits else None

    def _bool(self, what, document):
        must = [self._score(one, document) for one in what.get("must", [])]
        should = [self._score(one, document) for one in what.get("should", [])]
        needed = [self._score(one, document) for one in what.get("filter", [])]
        if (
            None in must
            or None in needed
            or any(self._score(one, document) is not None for one in what.get("must_not", []))
        ):
            return None
        found = [score for score in should if score is not None]
        return None if len(found) < what.get("minimum_should_match", 0) else float(sum(must) + sum(found))
