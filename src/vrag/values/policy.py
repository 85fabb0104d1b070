"""What an organisation allows; given to a pipeline once."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

__all__ = ["Policy"]


@frozen(kw_only=True)
class Policy:
    """Choices that decide what is used, bought and recorded."""

    text: Literal["keyed", "text"] = "keyed"
    """Prompts, captions and names in records: `keyed` keeps digests there and the words in a deletable table; `text`
    puts the words into the record, where they stay for ever."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """Whether a model whose price is not known may be used within a budget; unknown is never zero."""
