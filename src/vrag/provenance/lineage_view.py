"""Lineage for people: a tree as lines of text, and a picture as SVG that needs nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Literal

from vrag.provenance.lineage import Edge, LineageGraph, Node
from vrag.provenance.report.markup import text
from vrag.provenance.report.text import visible
from vrag.provenance.steps import ERASED

__all__ = ["lineage_picture", "lineage_tree", "shortened"]

KINDS: Final = {
    "asset": "picture",
    "edited": "edited picture",
    "fitted": "fitted picture",
    "mask": "mask",
    "artefact": "artefact",
    "part": "part",
    "video": "video",
}

_WIDTH, _HEIGHT, _LANE, _GAP_X, _GAP_Y, _EDGE = 232, 92, 12, 84, 26, 24
_STYLE: Final = """
svg{background:#faf9f6}.box{fill:#fff;stroke:#d3cfc5}.asset{fill:#eef5ef;stroke:#9dbfa7}.edited{fill:#fbf3e2;stroke:#d9bd83}
.video{fill:#eaf2f8;stroke:#8fb4d0}.part{fill:#f2f6fa;stroke:#a9c2d6}.root{stroke-width:2.5}
.edge{fill:none;stroke:#8b8f94;stroke-width:1.4}.tip{fill:#8b8f94}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;fill:#1d1f21}
.kind{font-size:11px;letter-spacing:.06em;fill:#5c6066}.small{font-size:11.5px;fill:#5c6066}.title{font-weight:600}
.role{font-size:11px;fill:#5c6066;stroke:#faf9f6;stroke-width:4px;paint-order:stroke}
@media(prefers-color-scheme:dark){
svg{background:#131517}.box{fill:#1b1e21;stroke:#474c52}.asset{fill:#182a1e;stroke:#3f6b4d}.edited{fill:#2e2714;stroke:#7a6331}
.video{fill:#16242f;stroke:#3c6585}.part{fill:#1a2229;stroke:#3a4f61}text{fill:#e9e7e2}.kind,.small,.role{fill:#a5a9ae}
.role{stroke:#131517}.edge{stroke:#767b81}.tip{fill:#767b81}}
"""


def shortened(words: str, length: int) -> str:
    """`words` on one line in at most `length` characters, cut at a word where that loses little."""
    plain = " ".join(visible(words).split())
    if len(plain) <= length:
        return plain
    cut = plain[: length - 1]
    at_word = cut.rpartition(" ")[0]
    return f"{at_word if len(at_word) > length * 2 // 3 else cut}…"


def lineage_tree(graph: LineageGraph, direction: Literal["up", "down"]) -> list[str]:
    """The graph as an indented tree from its root, up to what it was made from or down to what was made of it.

    What hangs in several places is drawn out once, and named again with "(above)". Text is safe for a terminal.
    """
    edges: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        here, there = (edge.target, edge.source) if direction == "up" else (edge.source, edge.target)
        edges.setdefault(here, []).append((there, edge.role))
    return list(_branch(graph, edges, graph.root, "", "", "", set()))


def _branch(
    graph: LineageGraph,
    edges: Mapping[str, list[tuple[str, str]]],
    node_id: str,
    role: str,
    head: str,
    tail: str,
    seen: set[str],
) -> Iterator[str]:
    node = graph.nodes[node_id]
    again = node_id in seen and bool(edges.get(node_id))
    label = visible(role).replace("_", " ") + ": " if role else ""
    yield f"{head}{label}{_line(node)}{'  (above)' if again else ''}"
    if again:
        return
    seen.add(node_id)
    below = edges.get(node_id, [])
    for number, (other, its_role) in enumerate(below, start=1):
        last = number == len(below)
        yield from _branch(
            graph,
            edges,
            other,
            its_role,
            tail + ("└─ " if last else "├─ "),
            tail + ("   " if last else "│  "),
            seen,
        )


def _line(node: Node) -> str:
    parts = [KINDS[node.kind], _name(node)]
    if node.title:
        parts.append(f"({ERASED})" if node.title == ERASED else f'"{shortened(node.title, 60)}"')
    if node.detail:
        parts.append(f"[{shortened(node.detail, 60)}]")
    if node.at and node.kind in {"video", "part", "edited"}:
        parts.append(visible(node.at[:10]))
    return "  ".join(parts)


def _name(node: Node) -> str:
    if node.asset_id is not None:
        owner, _, digest = node.asset_id.rpartition("/")
        return visible(f"{owner}/{digest[:12]}")
    return visible(f"{(node.records or (node.sha256,))[0][:12]}")


def lineage_picture(graph: LineageGraph) -> str:
    """The graph as an SVG picture, from pictures on the left to videos on the right; light and dark.

    It has no script and loads nothing. Long names are shortened; everything foreign is escaped.
    """
    columns, ways = _columns(graph)
    heights = [sum(_height(graph, one) for one in column) + (len(column) - 1) * _GAP_Y for column in columns]
    width = 2 * _EDGE + len(columns) * _WIDTH + (len(columns) - 1) * _GAP_X
    height = 2 * _EDGE + max(heights)
    places: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - heights[number]) / 2
        for one in column:
            places[one] = (_EDGE + number * (_WIDTH + _GAP_X), top + _height(graph, one) / 2)
            top += _height(graph, one) + _GAP_Y
    title = f"Lineage of {_line(graph.nodes[graph.root])}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{text(title)}"><title>{text(title)}</title><style>{_STYLE}</style>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>'
        + "".join(_curve([places[one] for one in way]) for way in ways.values())
        + "".join(_box(node, places[node.id], root=node.id == graph.root) for node in graph.nodes.values())
        + "".join(_role(edge.role, places[way[0]], places[way[1]]) for edge, way in ways.items())
        + "</svg>\n"
    )


def _height(graph: LineageGraph, one: str) -> int:
    return _HEIGHT if one in graph.nodes else _LANE


def _columns(graph: LineageGraph) -> tuple[list[list[str]], dict[Edge, list[str]]]:
    """Each node right before its first use, rows in an order that crosses few lines, and the way of each edge.

    An edge that passes a column has a lane of its own there: an id that is no node.
    """
    ahead = dict.fromkeys(graph.nodes, 0)  # how many columns from the right
    for _ in graph.nodes:  # as many rounds as the longest way can have; bytes that made themselves end there too
        further = dict.fromkeys(graph.nodes, 0)
        for edge in graph.edges:
            further[edge.source] = max(further[edge.source], ahead[edge.target] + 1)
        if further == ahead or max(further.values()) >= len(graph.nodes):
            break
        ahead = further
    last = max(ahead.values())
    columns: list[list[str]] = [[] for _ in range(last + 1)]
    for node_id in graph.nodes:
        columns[last - ahead[node_id]].append(node_id)
    ways: dict[Edge, list[str]] = {}
    for number, edge in enumerate(graph.edges):
        passed = range(last - ahead[edge.source] + 1, last - ahead[edge.target])
        lanes = [f"lane {number} {column}" for column in passed]
        for column, lane in zip(passed, lanes, strict=True):
            columns[column].append(lane)
        ways[edge] = [edge.source, *lanes, edge.target]
    _order(columns, ways.values())
    return columns, ways


def _order(columns: list[list[str]], ways: Iterable[list[str]]) -> None:
    before: dict[str, list[str]] = {one: [] for column in columns for one in column}
    after: dict[str, list[str]] = {one: [] for column in columns for one in column}
    for way in ways:
        for left, right in pairwise(way):
            before[right].append(left)
            after[left].append(right)
    row = {one: place / len(column) for column in columns for place, one in enumerate(column)}
    for sweep in range(6):
        near, order = (after, columns[-2::-1]) if sweep % 2 == 0 else (before, columns[1:])
        for column in order:
            middle = {one: sum(map(row.__getitem__, near[one])) / len(near[one]) for one in column if near[one]}
            column.sort(key=lambda one, middle=middle: middle.get(one, row[one]))  # type: ignore[misc]
            row.update({one: place / len(column) for place, one in enumerate(column)})


def _curve(way: list[tuple[float, float]]) -> str:
    drawn = ""
    for number, ((left, y1), (right, y2)) in enumerate(pairwise(way), start=2):
        x1, x2 = left + _WIDTH, right - (3 if number == len(way) else 0)
        bend = (x2 - x1) / 2
        drawn += f"{'L' if drawn else 'M'}{x1:.0f} {y1:.0f}"
        drawn += f"C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    return f'<path class="edge" marker-end="url(#tip)" d="{drawn}"/>'


def _role(role: str, first: tuple[float, float], second: tuple[float, float]) -> str:
    at_x, at_y = (first[0] + _WIDTH + second[0]) / 2 - 2, (first[1] + second[1]) / 2 - 5
    label = text(shortened(role.replace("_", " "), 12))
    return f'<text class="role" x="{at_x:.0f}" y="{at_y:.0f}" text-anchor="middle">{label}</text>'


def _box(node: Node, place: tuple[float, float], *, root: bool) -> str:
    left, top = place[0], place[1] - _HEIGHT / 2
    first, second = _two_lines(node.title or _name(node))
    small = node.detail or (_name(node) if node.title else "")
    date = f" · {visible(node.at[:10])}" if node.at else ""
    lines = [
        ("kind", 21, f"{KINDS[node.kind].upper()}{date}"),
        ("title", 42, first),
        ("title", 59, second),
        ("small", 79, shortened(small, 34)),
    ]
    return (
        f"<g><title>{text(f'{_line(node)} {node.sha256}')}</title>"
        f'<rect class="box {node.kind}{" root" if root else ""}" x="{left:.0f}" y="{top:.0f}"'
        f' width="{_WIDTH}" height="{_HEIGHT}" rx="9"/>'
        + "".join(
            f'<text class="{style}" x="{left + 14:.0f}" y="{top + y:.0f}">{text(words)}</text>'
            for style, y, words in lines
            if words
        )
        + "</g>"
    )


def _two_lines(title: str) -> tuple[str, str]:
    """`title` as two lines of a box; letters of wide scripts count twice."""
    room, lines = 26, ["", ""]
    words = shortened(title, 2 * room).split(" ")
    for number in (0, 1):
        while words and _wide(f"{lines[number]} {words[0]}".strip()) <= room:
            lines[number] = f"{lines[number]} {words.pop(0)}".strip()
        if words and not lines[number]:  # one word longer than a line
            fits = next(n for n in range(len(words[0]), 0, -1) if _wide(words[0][:n]) <= room)
            lines[number], words[0] = words[0][:fits], words[0][fits:]
    if words:
        lines[1] = f"{lines[1][: room - 1]}…"
    return lines[0], lines[1]


def _wide(words: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in words)
