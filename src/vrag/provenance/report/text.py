"""Foreign text (names, captions, prompts) made safe to show to a person, on a terminal or in a page."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

_JOINERS = "\u200c\u200d"  # they shape emoji and many scripts, and move nothing


def visible(value: object, *, keep: str = "") -> str:
    r"""`value` as text in which every character that could steer a terminal or reorder a line shows as `\x1b` or `\u202e`.

    Control characters, line and paragraph separators, direction marks and lone surrogates are escaped, so the result
    always encodes as UTF-8 and stays on its line.

    Args:
        value: What to show.
        keep: Characters that may pass, such as a line feed inside `<pre>`.
    """
    shown = str(value)
    if shown.isascii() and shown.isprintable():  # the common case, and films of many megabytes as text
        return shown
    return "".join(
        char
        if char in keep or char in _JOINERS or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else char.encode("unicode_escape").decode("ascii")
        for char in shown
    )
