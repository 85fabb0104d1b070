"""Lineage both ways: what a video or picture was made from, and what was made of it, read from the ledger.

A record names its inputs and outputs by digest, so the records of a workspace are one graph: assets, edited and fitted
pictures, parts, videos. `sources_of` and `used_in` walk it by the index of the ledger and read only the records they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from attrs import evolve, field, frozen

from vrag.errors import NotFoundError
from vrag.media.ref import MediaRef
from vrag.provenance.steps import (
    ERASED,
    NodeKind,
    caption_of,
    dependencies_of,
    fit_of,
    input_kind,
    internal_of,
    media_of,
    prompts_of,
    statement_of,
    step_detail,
    step_kind,
)
from vrag.values.canonical import JSON
from vrag.workspace.entries import Text
from vrag.workspace.ledger import Entry, Ledger

__all__ = [
    "Edge",
    "LineageGraph",
    "Node",
    "family",
    "sources_of",
    "used_in",
]


_VIDEO_NAMES: Final = ("delivered", "raw")
_ORDER: Final = ("video", "part", "edited", "fitted", "mask", "artefact", "asset")
"""What says most of a thing comes first."""


@frozen(kw_only=True)
class Node:
    """One thing in the graph: bytes by their digest, and what is known of them."""

    id: str
    """The asset id of a picture of a knowledge base, else the SHA-256 of the bytes."""
    kind: NodeKind
    sha256: str
    title: str = ""
    """Caption, file name or prompt for people; `ERASED` where they were deleted, empty where there were none."""
    detail: str = ""
    """Such as "replace", "cover, 1280 x 720" or "withheld"."""
    asset_id: str | None = None
    records: tuple[str, ...] = ()
    """Ids of the records that made it, oldest first; empty for an asset and for what its record only names."""
    at: str | None = None
    """When it was made, RFC 3339 UTC, as its first record says."""
    media: MediaRef | None = field(default=None, repr=False)
    """Type and size as far as a record says them."""


@frozen(kw_only=True)
class Edge:
    """`source` went into `target`."""

    source: str
    target: str
    role: str
    """What it was for: `start_frame`, `mask`, `shot` …; `fit` for a picture brought to the shape of the video."""


@frozen(kw_only=True)
class LineageGraph:
    """Nodes and edges around one node. Edges run from what was used to what was made."""

    root: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...] = ()

    def into(self, node_id: str) -> tuple[Edge, ...]:
        """What a node was made from."""
        return tuple(edge for edge in self.edges if edge.target == node_id)

    def out_of(self, node_id: str) -> tuple[Edge, ...]:
        """What was made from a node."""
        return tuple(edge for edge in self.edges if edge.source == node_id)

    def of_kind(self, *kinds: NodeKind) -> tuple[Node, ...]:
        """The nodes of these kinds, in the order they were found."""
        return tuple(node for node in self.nodes.values() if node.kind in kinds)

    def joined(self, other: LineageGraph) -> LineageGraph:
        """Both graphs as one, around the root of this one."""
        edges = dict.fromkeys((*self.edges, *other.edges))
        return evolve(self, nodes={**other.nodes, **self.nodes}, edges=tuple(edges))

    def to_json(self) -> dict[str, JSON]:
        """The graph as JSON: `root`, `nodes`, `edges`."""
        return {
            "root": self.root,
            "nodes": [
                {
                    "id": node.id,
                    "kind": node.kind,
                    "sha256": node.sha256,
                    "title": node.title,
                    "detail": node.detail,
                    "asset_id": node.asset_id,
                    "records": list(node.records),
                    "at": node.at,
                }
                for node in self.nodes.values()
            ],
            "edges": [{"source": edge.source, "target": edge.target, "role": edge.role} for edge in self.edges],
        }


def sources_of(ledger: Ledger, key: str) -> LineageGraph:
    """Everything that something was made from, through every step, back to the pictures of the knowledge bases.

    Args:
        ledger: The ledger of the workspace.
        key: The id of a record (of a video: the id of its step), an asset id, or the SHA-256 of bytes that a record names.

    Raises:
        NotFoundError: No record names it.
        VerificationError: A record that it meets cannot be read.
        FormatVersionError: A newer release wrote one.
    """
    return _look(ledger, key, up=True, down=False)


def used_in(ledger: Ledger, key: str) -> LineageGraph:
    """Everything that was made of something, through every step, down to the videos; arguments as for `sources_of`.

    Raises:
        NotFoundError: No record names it.
        VerificationError: A record that it meets cannot be read.
        FormatVersionError: A newer release wrote one.
    """
    return _look(ledger, key, up=False, down=True)


def family(ledger: Ledger, key: str) -> LineageGraph:
    """`sources_of` and `used_in` in one graph."""
    return _look(ledger, key, up=True, down=True)


def _look(ledger: Ledger, key: str, *, up: bool, down: bool) -> LineageGraph:
    builder = _Builder(ledger)
    first = [sha256 for entry in _first(ledger, key) for sha256 in builder.add(entry).made]
    start = first or [_digest(key)]
    below: list[str] = []
    if down or not first:
        # An asset is not its bytes: another knowledge base may have the same ones, and use them on its own.
        keys = [key] if "/" in key else dict.fromkeys((key, *start))
        below = [record for one in keys for record in ledger.used_in(one)]
    if not first and not below:
        raise NotFoundError(
            f"No record of this workspace names '{key[:150]}'.", hint="vrag jobs lists the videos that there are"
        )
    # Something that no record made is known by what used it: one such record says what it is.
    for entry, texts in ledger.with_texts(below if down else below[:1]):
        builder.add(entry, texts)
    if up:
        builder.climb(start)
    return builder.graph(key, start, up=up, down=down)


def _first(ledger: Ledger, key: str) -> tuple[Entry, ...]:
    """The records about `key`: the one with this id, else those that made these bytes."""
    try:
        return (ledger.get(key),)
    except NotFoundError:
        return ledger.by_artefact(_digest(key))


def _digest(key: str) -> str:
    return key.rpartition("/")[2]


@frozen(kw_only=True)
class _Step:
    made: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    """Digests."""


class _Builder:
    """Collects nodes and edges from records, each record once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._nodes: dict[str, Node] = {}
        self._same: dict[str, str] = {}
        """SHA-256 of raw bytes to that of the video: they are one node."""
        self._ids: dict[str, list[str]] = {}
        """SHA-256 to the ids of nodes with these bytes; two where two knowledge bases have one picture."""
        self._edges: dict[tuple[str, str], str] = {}
        self._said: dict[tuple[str, str], str] = {}
        """Edges that only the user of a thing says; they count where the thing has no record of its own."""
        self._added: dict[str, _Step] = {}

    def add(self, entry: Entry, texts: Iterable[Text] | None = None) -> _Step:
        """Take in one record; its words are read where they are not given."""
        if entry.record_id in self._added:
            return self._added[entry.record_id]
        statement = statement_of(entry)
        if statement is None:
            return _Step()
        if texts is None:
            texts = self._ledger.texts(entry.record_id)
        words = {text.keyed_digest: text.value for text in texts}
        made = self._outputs(entry, statement, words)
        used = self._inputs(statement, words)
        for target in made:
            for source, role in used.items():
                if source != target:
                    self._edges.setdefault((source, target), role)
        used_digests = [one["digest"]["sha256"] for one in dependencies_of(statement)]
        used_digests += [one["annotations"].get("made_from") for one in dependencies_of(statement)]
        step = _Step(
            made=tuple(one["digest"]["sha256"] for one in statement["subject"]),
            used=tuple(dict.fromkeys(one for one in used_digests if isinstance(one, str))),
        )
        self._added[entry.record_id] = step
        return step

    def climb(self, start: Iterable[str]) -> None:
        """Add the records that made these bytes, and those that made what they used."""
        waiting, seen = list(start), set[str]()
        while waiting:
            sha256 = waiting.pop()
            if sha256 in seen:
                continue
            seen.add(sha256)
            for entry in self._ledger.by_artefact(sha256):
                step = self.add(entry)
                seen.update(step.made)
                waiting += step.used

    def _outputs(self, entry: Entry, statement: JSON, texts: Mapping[str, str]) -> list[str]:
        described = {one["name"]: media_of(one) for one in statement["subject"]}
        named = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
        main = next((name for name in _VIDEO_NAMES if name in named), None)
        made = internal_of(statement)
        node = Node(
            id="",
            kind="edited" if step_kind(statement) == "edit" else "artefact" if main is None else "video",
            sha256="",
            title=prompts_of(made, texts),
            detail=step_detail(step_kind(statement), made),
            records=(entry.record_id,),
            at=statement["predicate"]["runDetails"]["metadata"]["finishedOn"],
        )
        if main is not None:
            sha256 = named[main]
            if main == "delivered" and "raw" in named:
                self._same[named["raw"]] = sha256
            self._put(evolve(node, id=sha256, sha256=sha256, media=described[main]))
            return [sha256]
        for name, sha256 in named.items():
            self._put(evolve(node, id=sha256, sha256=sha256, media=described[name]))
        return list(dict.fromkeys(named.values()))

    def _inputs(self, statement: JSON, texts: Mapping[str, str]) -> dict[str, str]:
        """Ids of what the step was given itself, with roles; what that was made from gets edges of its own."""
        pictures = {
            one["digest"]["sha256"] for one in dependencies_of(statement) if one["annotations"]["kind"] == "asset"
        }
        roles: dict[str, str] = {}
        made_from: dict[str, str] = {}
        how: dict[str, str] = {}
        for one in dependencies_of(statement):
            notes, sha256 = one["annotations"], one["digest"]["sha256"]
            is_asset = notes["kind"] == "asset"
            node_id = notes["asset_id"] if is_asset else sha256
            mode = notes.get("mode")
            if not is_asset and sha256 in pictures:
                continue  # the picture was given as it is
            self._put(
                Node(
                    id=node_id,
                    kind=input_kind(notes),
                    sha256=sha256,
                    title=caption_of(notes, texts) if is_asset else "",
                    detail=fit_of(notes) if mode else "",
                    asset_id=node_id if is_asset else None,
                    media=media_of(one),
                )
            )
            roles.setdefault(
                node_id, "picture" if step_kind(statement) == "edit" and notes["role"] != "mask" else notes["role"]
            )
            if isinstance(notes.get("made_from"), str) and not is_asset:
                made_from[node_id] = notes["made_from"]
                how[node_id] = "fit" if mode else "edit"
        given = frozenset(roles)
        for node_id, origin in made_from.items():
            for source in [one for one in self._ids.get(origin, ()) if one in given] or [origin]:
                if source != node_id:
                    self._said.setdefault((source, node_id), how[node_id])
                    roles.pop(source, None)
        parts = {node_id: role for node_id, role in roles.items() if role == "part"}
        return parts or roles  # pictures of a joined film went into its parts

    def _put(self, node: Node) -> None:
        ids = self._ids.setdefault(node.sha256, [])
        if node.id not in ids:
            ids.append(node.id)
        old = self._nodes.get(node.id)
        if old is None:
            self._nodes[node.id] = node
        elif node.records:  # its own record knows it best; where two steps made the same bytes it has both
            best = old if old.records else node
            self._nodes[node.id] = evolve(best, records=tuple(dict.fromkeys((*old.records, *node.records))))
        elif not old.records and (_rank(node) < _rank(old) or old.title == ERASED):
            self._nodes[node.id] = node

    def graph(self, key: str, start: Iterable[str], *, up: bool, down: bool) -> LineageGraph:
        """What can be reached from the root."""
        edges = dict(self._edges)
        for (source, target), role in self._said.items():
            if not self._nodes[target].records:
                edges.setdefault((source, target), role)
        for source, _ in edges:
            if source not in self._nodes:
                self._put(Node(id=source, kind="artefact", sha256=source))
        edges = {(self._one(s), self._one(t)): role for (s, t), role in edges.items() if self._one(s) != self._one(t)}
        for node_id in [one for one in self._nodes if self._one(one) != one]:
            video = self._nodes[self._one(node_id)]
            records = dict.fromkeys((*self._nodes.pop(node_id).records, *video.records))
            self._nodes[video.id] = evolve(video, records=tuple(records))
        roots = self._roots(key, start)
        kept: dict[str, None] = dict.fromkeys(roots)
        if up:
            kept |= dict.fromkeys(_reached(roots, _neighbours(edges, up=True)))
        if down:
            kept |= dict.fromkeys(_reached(roots, _neighbours(edges, up=False)))
        found = tuple(Edge(source=s, target=t, role=r) for (s, t), r in edges.items() if s in kept and t in kept)
        inputs = {edge.source for edge in found}
        nodes = {
            node_id: evolve(self._nodes[node_id], kind="part")
            if self._nodes[node_id].kind == "video" and node_id in inputs
            else self._nodes[node_id]
            for node_id in kept
        }
        return LineageGraph(root=roots[0], nodes=nodes, edges=found)

    def _one(self, node_id: str) -> str:
        return self._same.get(node_id, node_id)

    def _roots(self, key: str, start: Iterable[str]) -> list[str]:
        if key in self._nodes:
            return [key]
        found = [self._one(node_id) for one in start for node_id in self._ids.get(one, ())]
        return list(dict.fromkeys(found)) or [_digest(key)]


def _neighbours(edges: Iterable[tuple[str, str]], *, up: bool) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source, target in edges:
        here, there = (target, source) if up else (source, target)
        found.setdefault(here, []).append(there)
    return found


def _reached(roots: Iterable[str], neighbours: Mapping[str, list[str]]) -> Iterator[str]:
    waiting, seen = list(roots), set[str]()
    while waiting:
        node_id = waiting.pop(0)
        if node_id not in seen:
            seen.add(node_id)
            yield node_id
            waiting += neighbours.get(node_id, ())


def _rank(node: Node) -> int:
    return _ORDER.index(node.kind)
