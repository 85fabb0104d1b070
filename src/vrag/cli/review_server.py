"""A web page on this machine alone, on which a person approves and rejects the pictures of a knowledge base.

Who gets in and what every answer carries is in `vrag.loopback`; what the page shows is in `vrag.cli.review_desk`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Final

from typing_extensions import override

from vrag.cli.review_desk import ReviewDesk
from vrag.clock import Clock, SystemClock
from vrag.knowledge.captions import clean_text
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.loopback import LoopbackPage, RefusedError, Reply, json_reply
from vrag.values.assets import ReviewState
from vrag.values.canonical import JSON

__all__ = ["ReviewServer", "review_web"]

_PAGE_FILES: Final = (
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/review.css", "review.css", "text/css; charset=utf-8"),
    ("/review.js", "review.js", "text/javascript; charset=utf-8"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)
_MAX_DECISIONS: Final = 500
_MAX_REASON: Final = 500
_MAX_TEXT: Final = 200
_PAGE: Final = 60
_MAX_PAGE: Final = 200
_ONLY_DECISIONS: Final = frozenset({ReviewState.APPROVED, ReviewState.REJECTED})
_PICTURE = re.compile(r"/(thumbnail|preview)/([0-9a-f]{64})")


def review_web(
    knowledge_base: KnowledgeBase,
    *,
    by: str,
    port: int = 0,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> Mapping[str, int]:
    """Serve the review page until its Done button or Ctrl-C; how many pictures came to which state.

    Args:
        knowledge_base: Whose pictures; it stays open.
        by: Who decides; stands in every review.
        port: Of 127.0.0.1; 0 is any free one.
        open_browser: Open the link in the browser of this machine as well.
        say: Takes the lines for the person, the link among them.
        clock: Makes the token, and says which day it is.

    Raises:
        UsageError: `by` is empty, or the port is taken.
    """
    with ReviewServer(knowledge_base, by=by, port=port, clock=clock) as server:
        lines = (
            f"Reviewing '{knowledge_base.name}' as {by}. Open this link (it works once, and on this machine only):",
            server.url,
            "Stop with the button Done on the page, or with Ctrl-C.",
        )
        server.run(lines, say=say, open_browser=open_browser)
        return dict(server.desk.made)


class ReviewServer(LoopbackPage):
    """The server behind the page; `serve_forever()` runs it, and it listens from the moment it is made."""

    title = "Review pictures"
    again = "start the review again"
    over = "The review has ended."
    page_header = "X-VRAG-Review"
    max_body_bytes = 256 << 10

    def __init__(self, knowledge_base: KnowledgeBase, *, by: str, port: int = 0, clock: Clock | None = None) -> None:
        """Listen on 127.0.0.1.

        Raises:
            UsageError: As for `review_web`.
        """
        clock = clock or SystemClock()
        self.desk = ReviewDesk(knowledge_base, by=by, clock=clock)
        folder = files("vrag.cli") / "review_page"
        pages = {path: (folder.joinpath(name).read_bytes(), kind) for path, name, kind in _PAGE_FILES}
        super().__init__(clock=clock, port=port, files=pages)

    @override
    def get(self, path: str, query: Mapping[str, str]) -> Reply | None:
        if picture := _PICTURE.fullmatch(path):
            draw = self.desk.thumbnail if picture[1] == "thumbnail" else self.desk.preview
            return Reply(body=draw(picture[2]), media_type="image/jpeg")
        if path == "/api/session":
            return json_reply({**self.desk.about(), "csrf": self.secret})
        if path == "/api/assets":
            return json_reply(self.desk.listing(**_listing(query)))
        return None

    @override
    def post(self, path: str, data: JSON) -> Reply | None:
        if path == "/api/review":
            return json_reply(self.desk.decide(*_decision(data, self.desk.knowledge_base)))
        if path == "/api/done":
            return json_reply({"decided": dict(self.desk.made)}, last=True)
        return None

    @override
    def stop(self) -> None:
        """Let the running decision end, and take no other; open connections hear that it is over."""
        super().stop()
        self.desk.close()


def _listing(query: Mapping[str, str]) -> dict[str, JSON]:
    unknown = query.keys() - {"state", "query", "tag", "after", "limit"}
    state, limit = query.get("state", ""), query.get("limit", str(_PAGE))
    if unknown or any(len(value) > _MAX_TEXT for value in query.values()):
        raise RefusedError(f"A list is asked for by state, query, tag, after and limit, {_MAX_TEXT} characters each.")
    if state and state not in set(ReviewState):
        raise RefusedError(f"There is no such review state; there are: {', '.join(ReviewState)}.")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MAX_PAGE:
        raise RefusedError(f"A list has 1 to {_MAX_PAGE} pictures.")
    return {
        "state": state,
        "query": query.get("query", ""),
        "tag": query.get("tag", "").strip(),
        "after": query.get("after", ""),
        "limit": int(limit),
    }


def _decision(data: JSON, name: str) -> tuple[dict[str, int], ReviewState, str | None]:
    match data:
        case {"pictures": dict(pictures), "state": str(state), **rest} if rest.keys() <= {"reason"}:
            reason = rest.get("reason")
        case _:
            raise RefusedError('A decision is {"pictures": {ID: SEQUENCE}, "state": …, "reason": …}.')
    if state not in _ONLY_DECISIONS:
        raise RefusedError(
            f"The page approves and rejects, nothing else: state is one of {', '.join(sorted(_ONLY_DECISIONS))}.",
            hint="vrag revoke ASSET --by NAME --reason …",
        )
    if not 1 <= len(pictures) <= _MAX_DECISIONS:
        raise RefusedError(f"Decide about 1 to {_MAX_DECISIONS} pictures at a time, not {len(pictures)}.")
    whole = re.compile(re.escape(name) + r"/[0-9a-f]{64}")
    if not all(whole.fullmatch(key) and type(number) is int for key, number in pictures.items()):
        raise RefusedError(
            f"A picture is named by its whole id, '{name}/' and a SHA-256, with the review that was seen."
        )
    if not isinstance(reason, str | None) or len(reason or "") > _MAX_REASON:
        raise RefusedError(f"A reason is a text of at most {_MAX_REASON} characters.")
    reason = clean_text(reason or "", limit=_MAX_REASON)
    if state == ReviewState.REJECTED and reason is None:
        raise RefusedError("A rejection needs a reason.")
    return pictures, ReviewState(state), reason
