"""What an OpenSearch endpoint can do, found by trying: pages, tables and live answers of the service disagree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen
from opensearchpy import exceptions as sdk

from vrag.backends.aws.errors import translated
from vrag.backends.aws.opensearch_index import Flavour
from vrag.clock import Clock, SystemClock

__all__ = ["Capabilities", "probe"]

_NOT_SUPPORTED: Final = frozenset({400, 403, 404, 405, 501})


@frozen(kw_only=True)
class Capabilities:
    """What `probe` found."""

    version: str | None
    """Of the server; None where it does not tell, as Serverless."""
    engines: tuple[str, ...]
    """The engines that a mapping may name."""
    custom_ids: bool
    """Whether documents may bring their ids."""
    refresh: bool
    """Whether a refresh can be asked for."""
    point_in_time: bool
    """Whether pages can be read from one state of the index."""
    scripts: bool
    """Whether queries may hold scripts; exact search and equal word ranks need them."""
    hybrid: bool
    """Whether the server can fuse rankings itself (the neural search plugin); this library fuses its own."""

    @property
    def flavour(self) -> Flavour:
        """The `flavour` to open a store with."""
        if not self.custom_ids:
            return "serverless-classic"
        return "managed" if self.refresh and self.scripts else "serverless-next"


def probe(client: Any, *, clock: Clock | None = None) -> Capabilities:
    """Find out what the endpoint behind an `opensearchpy.OpenSearch` supports.

    Makes three indexes whose names begin with `vrag-probe-`, writes one document, and removes them again. An engine is
    tried by a mapping alone, never by a document: a node without its native library can stop at that.

    Raises:
        AccessDeniedError: Indexes may not be made.
        BackendError: The endpoint does not answer.
    """
    name = f"vrag-probe-{(clock or SystemClock()).token_bytes(6).hex()}"
    with translated("probe", "opensearch"):
        try:
            client.indices.create(index=name, body={"mappings": {"properties": {"key": {"type": "keyword"}}}})
            return Capabilities(
                version=_version(client),
                engines=tuple(engine for engine in ("lucene", "faiss") if _takes_engine(client, name, engine)),
                custom_ids=_works(lambda: client.index(index=name, id="probe", body={"key": "probe"})),
                refresh=_works(lambda: client.indices.refresh(index=name)),
                point_in_time=_works(lambda: _open_and_end(client, name)),
                scripts=_works(lambda: client.search(index=name, body={"query": _SCRIPTED})),
                hybrid=_works(lambda: client.search(index=name, body={"query": _HYBRID})),
            )
        finally:
            with suppress(sdk.TransportError):
                client.indices.delete(index=name)


_SCRIPTED: Final[dict[str, Any]] = {"script_score": {"query": {"match_all": {}}, "script": {"source": "1.5"}}}
_HYBRID: Final[dict[str, Any]] = {"hybrid": {"queries": [{"match_all": {}}]}}


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except sdk.TransportError as error:
        if error.status_code in _NOT_SUPPORTED:
            return False
        raise
    return True


def _version(client: Any) -> str | None:
    try:
        return str(client.info()["version"]["number"])
    except sdk.TransportError as error:
        if error.status_code in _NOT_SUPPORTED:
            return None
        raise


def _takes_engine(client: Any, name: str, engine: str) -> bool:
    method = {"name": "hnsw", "engine": engine, "space_type": "l2"}
    vector = {"type": "knn_vector", "dimension": 2, "method": method}
    body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": {"vector": vector}}}
    made = _works(lambda: client.indices.create(index=f"{name}-{engine}", body=body))
    if made:
        client.indices.delete(index=f"{name}-{engine}")
    return made


def _open_and_end(client: Any, name: str) -> None:
    client.delete_pit(body={"pit_id": [client.create_pit(index=name, keep_alive="1m")["pit_id"]]})
