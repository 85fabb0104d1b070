"""Names of files are hostile text: they come from strangers and end in terminals, logs and pages."""

from __future__ import annotations

__all__ = ["shown"]

_MAX_CHARS = 120


def shown(name: str) -> str:
    r"""A file name as it may stand in a message: one line, nothing that moves a cursor or turns the text around.

    Control characters, bidirectional controls, line separators and lone surrogates become escapes such as `\x1b`;
    letters of every script stay. More than 120 characters are cut in the middle, so that the suffix stays.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name[: 1 << 16])
    if len(safe) > _MAX_CHARS:
        half = _MAX_CHARS // 2
        safe = f"{safe[:half]}…{safe[-half:]}"
    return safe
