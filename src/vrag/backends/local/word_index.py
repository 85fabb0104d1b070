"""Words in, rows out: how text is cut into words, and how the words of a person become an FTS5 query.

The rule that cuts text stands in `words_of` alone; `WORDS_FORMAT` counts its versions and is stored with every index.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Sequence
from typing import Final

__all__ = ["STOP_WORDS", "WORDS_FORMAT", "indexed_text", "match_expressions", "ranked_keys", "words_of"]

WORDS_FORMAT: Final = 1
"""Raised when `words_of` or the FTS5 tokenizer changes: an index of another format must be built anew."""

TOKENIZER: Final = "porter unicode61"
"""The FTS5 tokenizer behind `words_of`: English stems, accents taken off (sqlite.org/fts5.html, checked 2026-11-20)."""

# fmt: off
STOP_WORDS: Final = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "into", "is", "it", "its",
    "of", "on", "or", "s", "t", "that", "the", "their", "there", "these", "this", "those", "to", "was", "were",
    "with",
})
# fmt: on
"""Words of a query that find nothing on their own; `s` and `t` are what is left of "dog's" and "isn't"."""

MAX_QUERY_WORDS: Final = 64
"""Only so many different words of a query are looked up."""

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of `text`, in order: runs of letters and digits after NFKC and case folding."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def indexed_text(text: str) -> str:
    """What is given to FTS5 for `text`: its words and nothing else, so that both sides are cut by the same rule."""
    return " ".join(words_of(text))


def match_expressions(query: str) -> tuple[str, ...]:
    """FTS5 expressions for the plain text of a person, strictest first: all words, then any word.

    Every word is quoted, so none is an operator. Stop words are left out unless there are no others. Text without words
    gives no expression.
    """
    words = list(dict.fromkeys(words_of(query)))
    # A word of letters and digits only needs no escaping inside the quotes.
    quoted = [f'"{word}"' for word in ([w for w in words if w not in STOP_WORDS] or words)[:MAX_QUERY_WORDS]]
    if len(quoted) < 2:
        return tuple(quoted)
    return " AND ".join(quoted), " OR ".join(quoted)


def ranked_keys(
    connection: sqlite3.Connection, query: str, top_k: int, condition: str, values: Sequence[str | float]
) -> list[str]:
    """Keys of the rows that `query` finds, best first: rows with all words before rows with some, each by BM25, then key.

    `condition` is SQL text on `entry` made from constants, `values` are what its placeholders stand for. "Some words" is
    asked only when "all words" fell short of `top_k`: it is the slow one, linear in the rows that hold any of them.
    """
    statement = (
        "select entry.key from words join entry on entry.id = words.rowid"  # noqa: S608  # constants only, values bound
        f" where words match ? and {condition} order by bm25(words), entry.key limit ?"
    )
    found: dict[str, None] = {}
    for expression in match_expressions(query):
        rows = connection.execute(statement, (expression, *values, top_k + len(found)))
        found.update((key, None) for (key,) in rows)
        if len(found) >= top_k:
            break
    return list(found)[:top_k]
