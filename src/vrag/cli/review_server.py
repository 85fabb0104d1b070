"""A web page on this machine alone, on which a person approves and rejects the pictures of a knowledge base.

Who gets in: the browser that opens the printed link. Its token works once and buys a session cookie; without the cookie
there is nothing to read. A page of another site can neither read (the cookie is not sent along, and no answer may be
embedded) nor decide (`Origin`, a header that needs the page's own secret). A `Host` that is not this machine is refused,
so no name that is made to point here helps. Browsers do not keep cookies apart by port: on a machine that is shared with
people you do not trust, open no page of theirs on 127.0.0.1 meanwhile.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from typing_extensions import override

from vrag.cli.review_desk import ReviewDesk, error_json
from vrag.clock import Clock, SystemClock
from vrag.errors import BackendError, NotFoundError, UsageError, VRAGError
from vrag.knowledge.captions import clean_text
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.values.assets import ReviewState
from vrag.values.canonical import JSON

__all__ = ["ReviewServer", "review_web"]

_HEADERS: Final = (
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
_PAGE_FILES: Final = (
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/review.css", "review.css", "text/css; charset=utf-8"),
    ("/review.js", "review.js", "text/javascript; charset=utf-8"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)
_ENTRANCE: Final = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><title>Review pictures</title>'
    b'<link rel="icon" href="/icon.svg"><p>One moment, please.'
)
_CSRF_HEADER: Final = "X-VRAG-Review"
_MAX_BODY_BYTES: Final = 256 << 10
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
        with suppress(KeyboardInterrupt):
            say(f"Reviewing '{knowledge_base.name}' as {by}. Open this link (it works once, and on this machine only):")
            say(server.url)
            say("Stop with the button Done on the page, or with Ctrl-C.")
            if open_browser:  # a browser in the terminal would keep us from serving it
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            server.serve_forever()
        server.stop()
        return dict(server.desk.made)


class ReviewServer(ThreadingHTTPServer):
    """The server behind the page; `serve_forever()` runs it, and it listens from the moment it is made."""

    daemon_threads = True

    def __init__(self, knowledge_base: KnowledgeBase, *, by: str, port: int = 0, clock: Clock | None = None) -> None:
        """Listen on 127.0.0.1.

        Raises:
            UsageError: As for `review_web`.
        """
        clock = clock or SystemClock()
        self.desk = ReviewDesk(knowledge_base, by=by, clock=clock)
        self.stopped = False
        token, self.session, self.csrf = (
            base64.urlsafe_b64encode(clock.token_bytes(32)).decode().rstrip("=") for _ in range(3)
        )
        self._token: str | None = token
        self._opening = threading.Lock()
        folder = files("vrag.cli") / "review_page"
        self.pages = {path: (folder.joinpath(name).read_bytes(), kind) for path, name, kind in _PAGE_FILES}
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"The port {port} of 127.0.0.1 cannot be used: {getattr(error, 'strerror', None) or error}.",
                hint="use --port 0, which takes any free one",
            ) from error
        self.url = f"http://127.0.0.1:{self.server_port}/?token={token}"
        self.cookie = f"vrag_review_{self.server_port}"
        self.hosts = frozenset({f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"})

    @override
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # the HTTP one would look up the name of the host
        self.server_name, self.server_port = "localhost", self.server_address[1]

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what comes here is a browser that went away."""

    def stop(self) -> None:
        """Let the running decision end, and take no other; open connections hear that it is over."""
        self.stopped = True
        self.desk.close()

    def spend(self, token: str) -> bool:
        """Whether this is the token of the link; it is true once."""
        with self._opening:
            fits = self._token is not None and _same(token, self._token)
            if fits:
                self._token = None
            return fits


@frozen(kw_only=True)
class _Reply:
    body: bytes
    media_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    last: bool = False
    """The server stops when this was sent."""


class _RefusedError(UsageError):
    """A request that is answered with this status and nothing else."""

    def __init__(self, message: str, *, status: int = 400, code: str = "refused", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer  # pyright: ignore[reportIncompatibleVariableOverride]  # it is made by no other
    protocol_version = "HTTP/1.1"
    timeout = 15  # seconds without a byte

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    @override
    def version_string(self) -> str:
        return "vrag"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep still: the terminal belongs to the command, and paths hold the token."""

    @override
    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # http.server calls this for what is no HTTP, and for methods that there are not; its page repeats the request.
        self._send(_failure(_RefusedError("This is no request of the review page.", status=int(code))))

    def _answer(self, work: Callable[[], _Reply]) -> None:
        try:
            self._check_host()
            if self.server.stopped:
                raise _stopped()  # noqa: TRY301  # refused like the rest
            reply = work()
        except VRAGError as error:
            reply = _failure(error)
        except (ConnectionError, TimeoutError):
            raise  # the browser went away
        except Exception as error:  # noqa: BLE001  # one bad request must not end the others
            reply = _failure(_RefusedError(f"Unexpected {type(error).__name__}.", status=500, code="internal"))
        self._send(reply)
        if reply.last:
            self.server.stop()
            self.server.shutdown()

    def _send(self, reply: _Reply) -> None:
        if reply.status >= 400 or reply.last:
            self.close_connection = True  # a body may be left unread
        self.send_response(reply.status)
        for name, value in (*_HEADERS, *reply.headers):
            self.send_header(name, value)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _get(self) -> _Reply:
        path, query = self._target()
        if path == "/" and "token" in query:
            return self._enter(query["token"])
        self._check_session(path)
        if path in self.server.pages:
            body, media_type = self.server.pages[path]
            return _Reply(body=body, media_type=media_type)
        if picture := _PICTURE.fullmatch(path):
            desk = self.server.desk
            draw = desk.thumbnail if picture[1] == "thumbnail" else desk.preview
            return _Reply(body=draw(picture[2]), media_type="image/jpeg")
        if path == "/api/session":
            return _json_reply({**self.server.desk.about(), "csrf": self.server.csrf})
        if path == "/api/assets":
            return _json_reply(self.server.desk.listing(**_listing(query)))
        raise _nothing()

    def _post(self) -> _Reply:
        path, _ = self._target()
        self._check_session(path)
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise _forbidden("Decisions come from the page itself.")
        if not _same(self.headers.get(_CSRF_HEADER, ""), self.server.csrf):
            raise _forbidden("The page is not the one that this server gave out; load it again.")
        data = self._body()
        if path == "/api/review":
            return _json_reply(self.server.desk.decide(*_decision(data, self.server.desk.knowledge_base)))
        if path == "/api/done":
            return _json_reply({"decided": dict(self.server.desk.made)}, last=True)
        raise _nothing()

    def _target(self) -> tuple[str, dict[str, str]]:
        try:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=8)
        except ValueError:
            raise _nothing() from None
        if parts.scheme or parts.netloc or any(len(values) > 1 for values in query.values()):
            raise _nothing()
        return parts.path, {name: values[0] for name, values in query.items()}

    def _enter(self, token: str) -> _Reply:
        """Trade the token for the cookie, and go to the page without it."""
        known = self._has_session()
        if not self.server.spend(token) and not known:
            raise _forbidden("This link does not work, or not any more: each link works once.")
        cookie = f"{self.server.cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
        # The page turns itself to "/": a redirect by status would count as part of the visit that led here, and after a
        # click on a page of another origin (a terminal in the browser) a strict cookie would not be sent along.
        return _Reply(
            body=_ENTRANCE,
            media_type="text/html; charset=utf-8",
            headers=(("Set-Cookie", cookie), ("Refresh", "0; url=/")),
        )

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _forbidden("This page is on 127.0.0.1 alone, and under no other name.")

    def _check_session(self, path: str) -> None:
        if not self._has_session():
            raise _forbidden("There is no session here.")
        # Absent from old browsers and programs; "none" is a person who typed the address.
        if path != "/" and self.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
            raise _forbidden("Nothing of this page may be part of another one.")

    def _has_session(self) -> bool:
        pairs = (part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";"))
        return any(name == self.server.cookie and _same(value, self.server.session) for name, _, value in pairs)

    def _body(self) -> JSON:
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError("The body must be application/json.", status=415)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            raise _RefusedError("The body needs a length.", status=411)
        if len(length) > 9 or int(length) > _MAX_BODY_BYTES:
            raise _RefusedError(f"A body has at most {_MAX_BODY_BYTES} bytes.", status=413)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _RefusedError("The body is no JSON.") from None


def _listing(query: Mapping[str, str]) -> dict[str, JSON]:
    unknown = query.keys() - {"state", "query", "tag", "after", "limit"}
    state, limit = query.get("state", ""), query.get("limit", str(_PAGE))
    if unknown or any(len(value) > _MAX_TEXT for value in query.values()):
        raise _RefusedError(f"A list is asked for by state, query, tag, after and limit, {_MAX_TEXT} characters each.")
    if state and state not in set(ReviewState):
        raise _RefusedError(f"There is no such review state; there are: {', '.join(ReviewState)}.")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MAX_PAGE:
        raise _RefusedError(f"A list has 1 to {_MAX_PAGE} pictures.")
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
            raise _RefusedError('A decision is {"pictures": {ID: SEQUENCE}, "state": …, "reason": …}.')
    if state not in _ONLY_DECISIONS:
        raise _RefusedError(
            f"The page approves and rejects, nothing else: state is one of {', '.join(sorted(_ONLY_DECISIONS))}.",
            hint="vrag revoke ASSET --by NAME --reason …",
        )
    if not 1 <= len(pictures) <= _MAX_DECISIONS:
        raise _RefusedError(f"Decide about 1 to {_MAX_DECISIONS} pictures at a time, not {len(pictures)}.")
    whole = re.compile(re.escape(name) + r"/[0-9a-f]{64}")
    if not all(whole.fullmatch(key) and type(number) is int for key, number in pictures.items()):
        raise _RefusedError(
            f"A picture is named by its whole id, '{name}/' and a SHA-256, with the review that was seen."
        )
    if not isinstance(reason, str | None) or len(reason or "") > _MAX_REASON:
        raise _RefusedError(f"A reason is a text of at most {_MAX_REASON} characters.")
    reason = clean_text(reason or "", limit=_MAX_REASON)
    if state == ReviewState.REJECTED and reason is None:
        raise _RefusedError("A rejection needs a reason.")
    return pictures, ReviewState(state), reason


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _json_reply(data: JSON, *, status: int = 200, last: bool = False) -> _Reply:
    return _Reply(
        body=json.dumps(data).encode(), media_type="application/json; charset=utf-8", status=status, last=last
    )


_STATUS: Final[Mapping[type[VRAGError], int]] = MappingProxyType(
    {NotFoundError: 404, UsageError: 400, BackendError: 502}
)


def _failure(error: VRAGError) -> _Reply:
    if isinstance(error, _RefusedError):
        return _json_reply(error_json(error), status=error.status)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return _json_reply(error_json(error), status=status)


def _forbidden(message: str) -> _RefusedError:
    return _RefusedError(message, status=403, code="forbidden", hint="start the review again, and open the new link")


def _nothing() -> _RefusedError:
    return _RefusedError("There is no such page.", status=404, code="not_found")


def _stopped() -> _RefusedError:
    return _RefusedError("The review has ended.", status=503, code="stopped", hint="start the review again")
