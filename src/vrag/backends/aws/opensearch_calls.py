"""Requests that need more than one line: bulk writes told row by row, several searches at once, and pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from opensearchpy import exceptions as sdk

from vrag.backends.aws.errors import translated, without_secrets
from vrag.errors import BackendError, UsageError
from vrag.values.canonical import JSON

__all__ = ["NAME", "PartialWriteError", "bulk", "pages", "refuse_partial", "searches"]

PAGE_ROWS: Final = 500
BULK_BYTES: Final = 8 << 20
"""A bulk request is sent at this size; a domain takes 10 MiB or 100 MiB by its instance type."""

NAME: Final = "opensearch"
_KEEP_ALIVE: Final = "5m"
_BLOCKED: Final = "cluster_block_exception"


class PartialWriteError(BackendError):
    """Some rows of a bulk request were written and some were not; `keys` are those that were not."""

    code = "partial_write"

    def __init__(self, message: str, *, keys: Sequence[str] = (), **ids: Any) -> None:
        super().__init__(message, **ids)
        self.keys = tuple(keys)


def bulk(client: Any, index: str, actions: Sequence[Sequence[str]], keys: Sequence[str]) -> list[str]:
    """Send actions in order, by pages; what became of each. All pages are sent before a failure is told."""
    results: list[str] = []
    failed: dict[str, tuple[int, str]] = {}
    for page in _by_bytes(actions):
        with translated("bulk", NAME):
            answer = client.bulk(index=index, body="".join(line for action in page for line in action))
        for item in answer["items"]:
            [outcome] = item.values()
            if "error" in outcome:
                reason = f"{outcome['error'].get('type')}: {outcome['error'].get('reason')}"
                failed[keys[len(results)]] = (int(outcome["status"]), reason)
            results.append(str(outcome.get("result")))
    if failed and all(reason.startswith(_BLOCKED) for _, reason in failed.values()):
        raise UsageError(
            f"The index '{index}' is closed to writers: another one takes its place, or has taken it. "
            f"{len(failed)} of {len(actions)} rows were not written.",
            hint="open the knowledge base again, with the embedder that it was reindexed for; after a reindexing that "
            "was killed: vrag kb reindex",
        )
    if failed:
        shown = "; ".join(f"'{key}': {status} {reason}" for key, (status, reason) in list(failed.items())[:3])
        raise PartialWriteError(
            f"{len(failed)} of {len(actions)} rows were not written: {without_secrets(shown)}.",
            keys=list(failed),
            backend=NAME,
            operation="bulk",
            retryable=all(status == 429 or status >= 500 for status, _ in failed.values()),
            hint="write the rows of `keys` again",
        )
    return results


def searches(
    client: Any, index: str, bodies: Sequence[dict[str, JSON]], *, managed: bool
) -> list[list[dict[str, Any]]]:
    """Several searches in one request; the hits of each. Half an answer is no answer."""
    if not bodies:
        return []
    header: dict[str, JSON] = {}
    if managed:
        # How rare a word is, is counted over all shards; a shard that does not answer is an error.
        header = {"search_type": "dfs_query_then_fetch", "allow_partial_search_results": False}
    with translated("msearch", NAME):
        lines = [line for body in bodies for line in (header, body)]
        answer = client.msearch(index=index, body=lines)
        for one in answer["responses"]:
            if "error" in one:
                raise sdk.TransportError(one.get("status", 500), one["error"].get("type", ""), one)
    for one in answer["responses"]:
        refuse_partial(one, "msearch")
    return [one["hits"]["hits"] for one in answer["responses"]]


def pages(
    client: Any, index: str, clause: dict[str, JSON] | None, source: list[str], *, newest_first: bool
) -> Iterator[dict[str, Any]]:
    """Documents that searches see, by key and then by age, as the index was when the first one was asked for."""
    with translated("create_pit", NAME):
        pit = client.create_pit(index=index, keep_alive=_KEEP_ALIVE)["pit_id"]
    body: dict[str, Any] = {
        "size": PAGE_ROWS,
        "_source": source,
        "track_total_hits": False,
        "query": clause or {"match_all": {}},
        "sort": [{"key": "asc"}, {"write": "desc" if newest_first else "asc"}],
    }
    try:
        more = True
        while more:
            body["pit"] = {"id": pit, "keep_alive": _KEEP_ALIVE}
            with translated("search", NAME):
                answer = client.search(body=body)
            refuse_partial(answer, "search")
            pit = answer.get("pit_id", pit)
            hits = answer["hits"]["hits"]
            yield from hits
            more = len(hits) == PAGE_ROWS
            body["search_after"] = hits[-1]["sort"] if hits else None
    finally:
        # It ends by itself too; failing here must not hide what was read.
        with suppress(sdk.TransportError):
            client.delete_pit(body={"pit_id": [pit]})


def _by_bytes(actions: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    page: list[Sequence[str]] = []
    size_bytes = 0
    for action in actions:
        action_bytes = sum(len(line.encode()) for line in action)
        if page and size_bytes + action_bytes > BULK_BYTES:
            yield page
            page, size_bytes = [], 0
        page.append(action)
        size_bytes += action_bytes
    if page:
        yield page


def refuse_partial(answer: Mapping[str, Any], operation: str) -> None:
    """Raise `BackendError` for an answer that not every shard gave."""
    failed = answer.get("_shards", {}).get("failed", 0)
    if failed or answer.get("timed_out"):
        raise BackendError(
            f"{NAME} answered {operation} from a part of the index: {failed} shards failed.",
            backend=NAME,
            operation=operation,
            retryable=True,
        )
