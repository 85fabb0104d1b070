"""Words in, rows out: how text is cut into the words of an FTS5 index, and how the words of a person become its query.

`indexed_words` and `match_expressions` cut text by one rule, that of `vrag.knowledge.words`; `WORDS_FORMAT` counts its
versions and is stored with every index. FTS5 alone takes 「赤い靴を履く」 for one word, and its trigram tokenizer finds
nothing shorter than three letters. Here text that is written without spaces goes in as pairs of letters that overlap
(赤い い靴 …), and letter by letter into a column of its own: a word of two letters is a pair, a longer one a phrase of
pairs, a shorter one a letter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from vrag.knowledge.words import clusters, content_words, is_spaced, runs_of, stem

__all__ = ["STOP_WORDS", "WORDS_FORMAT", "add_words", "indexed_words", "match_expressions", "ranked_keys", "rebuild"]

WORDS_FORMAT: Final = 2
"""Raised when the rule that cuts text or the FTS5 tokenizer changes: an older index is built anew when it is opened."""

_TOKENIZER: Final = "porter unicode61 remove_diacritics 0 categories 'L* N* Co M*'"
"""English stems; accents are taken off before, and marks belong to words (sqlite.org/fts5.html, checked 2026-11-20)."""

_LETTER_WEIGHT: Final = 0.3
"""A letter of a word says less than the word."""

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


def indexed_words(text: str) -> tuple[str, str]:
    """What is given to FTS5 for `text`: words and pairs of letters, and single letters; both empty without words."""
    words: list[str] = []
    letters: list[str] = []
    for run in runs_of(text):
        if is_spaced(run):
            words += run.split("'")
        else:
            cut = clusters(run)
            words += map("".join, pairwise(cut))
            letters += cut
    return " ".join(words), " ".join(letters)


def match_expressions(query: str) -> tuple[str, ...]:
    """FTS5 expressions for the plain text of a person, strictest first.

    All words, then (where no spaces divide them) the stems of all words, then any word, stem or pair of letters. Every
    word is quoted, so none is an operator. Stop words are left out unless there are no others. Text without words gives
    no expression.
    """
    runs = list(dict.fromkeys(runs_of(query)))
    spaced = list(dict.fromkeys(word for run in runs if is_spaced(run) for word in run.split("'") if word))
    spaced = [word for word in spaced if word not in STOP_WORDS] or (spaced if all(map(is_spaced, runs)) else [])
    unspaced = [run for run in runs if not is_spaced(run)]
    stems = list(dict.fromkeys(stem(word) for word in content_words(query) if not is_spaced(word))) if unspaced else []
    words = [_quoted(word) for word in spaced]
    pairs = ["".join(pair) for run in unspaced for pair in pairwise(clusters(run))]
    expressions = (
        _joined([*words, *map(_phrase, unspaced)], " AND "),
        _joined([*words, *map(_phrase, stems)], " AND "),
        _joined([*words, *map(_phrase, stems), *map(_quoted, pairs)], " OR "),
    )
    return tuple(dict.fromkeys(one for one in expressions if one))


def _joined(terms: Sequence[str], operator: str) -> str:
    return operator.join(list(dict.fromkeys(terms))[:MAX_QUERY_WORDS])


def _quoted(words: str) -> str:
    # Folded text has letters, digits and marks only: nothing to escape inside the quotes.
    return f'text : "{words}"'


def _phrase(run: str) -> str:
    """The letters of `run` beside each other."""
    cut = clusters(run)[:MAX_QUERY_WORDS]
    return f'letters : "{cut[0]}"' if len(cut) == 1 else _quoted(" ".join(map("".join, pairwise(cut))))


def rebuild(connection: sqlite3.Connection) -> None:
    """Make the index of words, or make it anew after another `WORDS_FORMAT`, from the texts of the rows."""
    connection.execute("begin immediate")
    try:
        connection.execute("drop table if exists words")
        connection.execute(f'create virtual table words using fts5(text, letters, tokenize="{_TOKENIZER}")')
        add_words(connection, connection.execute("select id, text from entry"))
        connection.execute("update store set words_format = ?", (WORDS_FORMAT,))
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def add_words(connection: sqlite3.Connection, texts: Iterable[tuple[int, str]]) -> None:
    """Index the texts of new rows, given with the ids of the rows."""
    rows = ((number, *indexed_words(text)) for number, text in texts)
    connection.executemany("insert into words(rowid, text, letters) values(?, ?, ?)", (r for r in rows if r[1] or r[2]))


def ranked_keys(
    connection: sqlite3.Connection, query: str, top_k: int, condition: str, values: Sequence[str | float]
) -> list[str]:
    """Keys of the rows that `query` finds, best first: rows with all words before rows with some, each by BM25, then key.

    `condition` is SQL text on `entry` made from constants, `values` are what its placeholders stand for. "Some words" is
    asked only when "all words" fell short of `top_k`: it is the slow one, linear in the rows that hold any of them.
    """
    statement = (
        "select entry.key from words join entry on entry.id = words.rowid"  # noqa: S608  # constants only, values bound
        f" where words match ? and {condition} order by bm25(words, 1.0, {_LETTER_WEIGHT}), entry.key limit ?"
    )
    found: dict[str, None] = {}
    for expression in match_expressions(query):
        rows = connection.execute(statement, (expression, *values, top_k + len(found)))
        found.update((key, None) for (key,) in rows)
        if len(found) >= top_k:
            break
    return list(found)[:top_k]
