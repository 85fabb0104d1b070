"""How long a text is for a model whose tokenizer is not published."""

from __future__ import annotations

import math
import re

__all__ = ["cut_to_tokens", "tokens_at_most"]

_PIECES = re.compile(r"[A-Za-z]+|[0-9]|\s+|.", re.DOTALL)


def tokens_at_most(text: str) -> int:
    """About how many tokens a text has, rather too many than too few.

    A word counts one for every four letters it has begun, a digit or sign one, and any other character one for each
    byte of its UTF-8, which no byte-level tokenizer exceeds. English counts about a fifth too many.
    """
    return sum(_tokens(piece) for piece in _PIECES.findall(text))


def cut_to_tokens(text: str, max_tokens: int) -> str:
    """The beginning of `text` that has at most so many tokens, cut between words."""
    used = 0
    for piece in _PIECES.finditer(text):
        used += _tokens(piece.group())
        if used > max_tokens:
            # The first word may be too long by itself; a letter has at most one token.
            return text[: piece.start()].rstrip() or text[:max_tokens]
    return text


def _tokens(piece: str) -> int:
    if piece.isspace():
        return 0
    return math.ceil(len(piece) / 4) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))
