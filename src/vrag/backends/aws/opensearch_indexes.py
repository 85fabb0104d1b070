"""The indexes of one knowledge base on OpenSearch: an alias that names the one in use, and one made to take its place.

The index in use is `NAME-000001`, `NAME-000002-…` …, and `NAME` is its alias. Stores open the index behind the alias, so
that one which is replaced is never written through it by somebody with the old embedder.

Sources: OpenSearch documentation "Aliases", "Blocks" (2.19; read 2026-11-20).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from typing_extensions import override

from vrag.backends.aws.errors import translated
from vrag.backends.aws.opensearch import OpenSearchVectorStore
from vrag.backends.aws.opensearch_calls import NAME
from vrag.backends.aws.opensearch_index import stored_space
from vrag.errors import BackendError, NotFoundError, UsageError
from vrag.interfaces import VectorStore
from vrag.knowledge.reindex import Indexes
from vrag.values.canonical import digest_json, to_json
from vrag.values.vectors import EmbeddingSpace

__all__ = ["OpenSearchIndexes", "active_index", "open_active"]

_AGAIN: Final = "vrag kb reindex: it goes on with what is there"


def active_index(client: Any, name: str) -> str | None:
    """The index behind the alias `name`, or `name` itself where it is an index; None where there is neither.

    Raises:
        UsageError: The alias names several.
    """
    with translated("indices.get_alias", NAME):
        answer = client.indices.get_alias(name=name, ignore=404)
        if answer.get("status") == 404:
            return name if client.indices.exists(index=name, ignore=404) else None
    found = sorted(answer)
    if len(found) > 1:
        raise UsageError(f"The alias '{name}' names several indexes: {', '.join(found)}.", hint="leave it one of them")
    return str(found[0])


def open_active(client: Any, name: str, space: EmbeddingSpace | None, **given: Any) -> OpenSearchVectorStore:
    """Open the index behind the alias `name`; make both where there is neither.

    Args:
        client: Of `opensearchpy`; the store closes it.
        name: The alias.
        space: What all vectors are compared in.
        given: As for `OpenSearchVectorStore`.

    Raises:
        SpaceMismatchError: The index was made for another space.
    """
    index = active_index(client, name)
    if index is not None:
        return OpenSearchVectorStore(client, index, space, **given)
    store = OpenSearchVectorStore(client, f"{name}-000001", space, **given)
    with translated("indices.put_alias", NAME):
        client.indices.put_alias(index=store.index, name=name)
    return store


class OpenSearchIndexes(Indexes):
    """Indexes of `OpenSearchVectorStore` behind one alias, on a managed endpoint.

    Two processes of one machine cannot reindex at once. Of two machines that do, the first one to switch wins, and the
    second is told so when it switches; both have paid. An index that was replaced stays, closed to writers, until the
    next reindexing.
    """

    def __init__(self, connect: Callable[[], Any], name: str, folder: Path, **given: Any) -> None:
        """Nothing is opened yet.

        Args:
            connect: Makes a client of `opensearchpy`; each is closed by who uses it.
            name: The alias.
            folder: Of this machine; a lock file lies there.
            given: As for `OpenSearchVectorStore`, for each index.
        """
        self._connect = connect
        self._name = name
        self._folder = folder
        self._given = given
        self._target: str | None = None

    @contextmanager
    @override
    def claim(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / "reindex.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"Another process is reindexing '{self._name}' from this machine.", hint="wait for its end"
            ) from None
        try:
            with self._client() as client:
                active = active_index(client, self._name)
                if active is not None:
                    _let_write(client, active)  # a killed run may have kept writers out
            yield
        finally:
            lock.release()

    @override
    def active(self) -> OpenSearchVectorStore:
        with self._opening() as client:
            index = active_index(client, self._name)
            if index is None:
                raise UsageError(f"There is no index '{self._name}'.", hint="vrag ingest FOLDER")
            with translated("indices.get_mapping", NAME):
                mapping = client.indices.get_mapping(index=index)[index]["mappings"]
            return OpenSearchVectorStore(client, index, stored_space(mapping.get("_meta", {}), index), **self._given)

    @override
    def beside(self, space: EmbeddingSpace | None) -> OpenSearchVectorStore:
        with self._opening() as client:
            active = active_index(client, self._name)
            if active is None or (number := self._number(active)) is None:
                raise UsageError(
                    f"'{active or self._name}' is no index behind an alias, so another cannot take its place.",
                    hint="name a new index (index = …) in the configuration, and ingest again",
                )
            self._remove_old(client, active, number)
            # Its name tells for which space it is made: two runs for two embedders never meet in one index.
            told = digest_json(None if space is None else to_json(space))[:12]
            store = OpenSearchVectorStore(client, f"{self._name}-{number + 1:06}-{told}", space, **self._given)
            self._target = store.index
            return store

    @override
    def switch(self, old: VectorStore, last_look: Callable[[], None]) -> None:
        if not isinstance(old, OpenSearchVectorStore):
            raise UsageError("Only an index of this alias can be replaced.")
        if self._target is None:
            raise UsageError(f"No index was made to take the place of '{old.index}'.")
        with self._client() as client:
            with translated("indices.add_block", NAME):
                # It answers when every write that is under way has ended.
                client.indices.add_block(index=old.index, block="write")
            try:
                with translated("indices.refresh", NAME):
                    client.indices.refresh(index=f"{old.index},{self._target}")
                last_look()
                self._point(client, old.index, self._target)
            except BaseException:
                if active_index(client, self._name) == old.index:
                    _let_write(client, old.index)
                raise

    def _point(self, client: Any, old: str, new: str) -> None:
        """Both or neither, and only if the alias still names the old one."""
        actions = [
            {"remove": {"index": old, "alias": self._name, "must_exist": True}},
            {"add": {"index": new, "alias": self._name}},
        ]
        try:
            with translated("indices.update_aliases", NAME):
                client.indices.refresh(index=new)
                client.indices.update_aliases(body={"actions": actions})
        except NotFoundError as error:
            raise BackendError(
                f"Another reindexing has replaced '{old}' meanwhile; nothing was switched.",
                backend=NAME,
                operation="switch",
                hint=_AGAIN,
            ) from error

    @contextmanager
    def _opening(self) -> Iterator[Any]:
        """A client for a store; it is closed here only if the store could not be made."""
        client = self._connect()
        try:
            yield client
        except BaseException:
            client.close()
            raise

    @contextmanager
    def _client(self) -> Iterator[Any]:
        client = self._connect()
        try:
            yield client
        finally:
            client.close()

    def _number(self, index: str) -> int | None:
        found = re.fullmatch(re.escape(self._name) + r"-([0-9]{6})(?:-[0-9a-f]{12})?", index)
        return int(found[1]) if found else None

    def _remove_old(self, client: Any, active: str, number: int) -> None:
        """What was replaced before, and what was begun and overtaken."""
        with translated("indices.delete", NAME):
            for name in client.indices.get(index=f"{self._name}-*", allow_no_indices=True):
                found = self._number(name)
                if found is not None and found <= number and name != active:
                    client.indices.delete(index=name, ignore_unavailable=True)


def _let_write(client: Any, index: str) -> None:
    with translated("indices.put_settings", NAME):
        client.indices.put_settings(index=index, body={"index.blocks.write": None})
