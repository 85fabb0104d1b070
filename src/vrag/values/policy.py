"""What an organisation allows; given to a pipeline once."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators

__all__ = ["Caps", "Policy"]


@frozen(kw_only=True)
class Policy:
    """Choices that decide what is used, bought and recorded."""

    text: Literal["keyed", "text"] = "keyed"
    """Prompts, captions and names in records: `keyed` keeps digests there and the words in a deletable table; `text`
    puts the words into the record, where they stay for ever."""
    no_picture: Literal["refuse", "ask", "text only"] = "refuse"
    """What follows where no picture suits: `refuse` raises, `ask` asks whoever the pipeline was given, `text only` makes the
    video without a picture, on a model that can."""
    reuse: Literal["allow", "once a batch"] = "allow"
    """Whether rows of one plan or batch may be made from the same picture."""
    cool_down_s: float = field(default=0.0, validator=validators.ge(0))
    """For so long after a picture was last used in a video it is not offered again. The same brief then finds another one."""
    choose: Literal["person", "sharpest", "least changed"] = "person"
    """Who chooses among the variants of an edit where its brief does not say: a person, or a rule that measures them."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """Whether a model whose price is not known may be used within a budget; unknown is never zero."""


@frozen(kw_only=True)
class Caps:
    """What may be spent at most; None is no cap. What is planned, running or undecided counts as spent.

    Money is integer micro-USD (1 USD = 1 000 000). A purchase whose price is not known is refused where a cap of money
    holds, unless `Policy.unknown_price` allows it.
    """

    run_usd_micros: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """One run: one `submit`, `generate`, `run` or `ingest`."""
    knowledge_base_usd_micros: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """All that was ever bought for one knowledge base."""
    month_usd_micros: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """All purchases of this workspace in one calendar month, UTC."""
    run_video_s: float | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """Seconds of video that one run makes."""
    month_video_s: float | None = field(default=None, validator=validators.optional(validators.ge(0)))
