"""A web page for one person on this machine: who gets in, what every answer carries, and nothing of what it shows.

Who gets in: the browser that opens the printed link. Its token works once and buys a session cookie; without the cookie
there is nothing to read. A page of another site can neither read (the cookie is not sent along, and no answer may be
embedded) nor write (`Origin`, a header that needs the page's own secret). A `Host` that is not this machine is refused,
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
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from typing_extensions import override

from vrag.clock import Clock
from vrag.errors import BackendError, NotFoundError, UsageError, VRAGError
from vrag.provenance.report.text import visible
from vrag.values.canonical import JSON

__all__ = ["LoopbackPage", "RefusedError", "Reply", "error_json", "json_reply"]

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
_LENGTH: Final = re.compile(r"[0-9]{1,9}")


@frozen(kw_only=True)
class Reply:
    """One answer."""

    body: bytes
    media_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    last: bool = False
    """The server stops when this was sent."""


class RefusedError(UsageError):
    """A request that is answered with this status and nothing else."""

    def __init__(self, message: str, *, status: int = 400, code: str = "refused", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class LoopbackPage(ThreadingHTTPServer):
    """A page on 127.0.0.1; `serve_forever()` runs it, and it listens from the moment it is made."""

    daemon_threads = True
    title = "vrag"
    """What the tab says while the page loads."""
    again = "start it again"
    """What a person types for a new link."""
    over = "This has ended."
    """What it answers when it is over."""
    page_header = "X-VRAG-Page"
    """In which header the page's own script sends `secret` back."""
    max_body_bytes = 1 << 20

    def __init__(self, *, clock: Clock, port: int = 0, files: Mapping[str, tuple[bytes, str]]) -> None:
        """Listen.

        Args:
            clock: Makes the token.
            port: Of 127.0.0.1; 0 is any free one.
            files: Body and media type by path; `/` is the page.

        Raises:
            UsageError: The port is taken.
        """
        token, self.session, self.secret = (
            base64.urlsafe_b64encode(clock.token_bytes(32)).decode().rstrip("=") for _ in range(3)
        )
        self.files = files
        self.stopped = False
        self._token: str | None = token
        self._opening = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"The port {port} of 127.0.0.1 cannot be used: {getattr(error, 'strerror', None) or error}.",
                hint="use --port 0, which takes any free one",
            ) from error
        self.url = f"http://127.0.0.1:{self.server_port}/?token={token}"
        self.cookie = f"vrag_{self.server_port}"
        self.hosts = frozenset({f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"})

    def get(self, path: str, query: Mapping[str, str]) -> Reply | None:
        """Answer a visitor who is in; None where there is nothing."""
        raise NotImplementedError

    def post(self, path: str, data: JSON) -> Reply | None:
        """Take what the page itself sends; None where nothing is taken."""
        raise NotImplementedError

    def run(self, lines: Iterable[str], *, say: Callable[[str], None], open_browser: bool) -> None:
        """Say `lines`, the link among them, and serve until the last answer or Ctrl-C."""
        with suppress(KeyboardInterrupt):
            for line in lines:
                say(line)
            if open_browser:  # a browser in the terminal would keep us from serving it
                threading.Thread(target=webbrowser.open, args=(self.url,), daemon=True).start()
            self.serve_forever()
        self.stop()

    def stop(self) -> None:
        """Take nothing else; open connections hear that it is over."""
        self.stopped = True

    def ended(self) -> RefusedError:
        """The answer to whoever comes too late."""
        return RefusedError(self.over, status=503, code="stopped", hint=self.again)

    def spend(self, token: str) -> bool:
        """Whether this is the token of the link; it is true once."""
        with self._opening:
            fits = self._token is not None and _same(token, self._token)
            if fits:
                self._token = None
            return fits

    @override
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # the HTTP one would look up the name of the host
        self.server_name, self.server_port = "localhost", self.server_address[1]

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what comes here is a browser that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackPage  # pyright: ignore[reportIncompatibleVariableOverride]  # it is made by no other
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
        self._send(_failure(RefusedError("This is no request of the page.", status=int(code))))

    def _answer(self, work: Callable[[], Reply | None]) -> None:
        try:
            self._check_host()
            if self.server.stopped:
                raise self.server.ended()  # noqa: TRY301  # refused like the rest
            reply = work()
            if reply is None:
                raise _nothing()  # noqa: TRY301  # as above
        except VRAGError as error:
            reply = _failure(error)
        except (ConnectionError, TimeoutError):
            raise  # the browser went away
        except OSError as error:
            reply = _failure(RefusedError(f"The system refused: {error.strerror}.", status=500, code="system"))
        except Exception as error:  # noqa: BLE001  # one bad request must not end the others
            reply = _failure(RefusedError(f"Unexpected {type(error).__name__}.", status=500, code="internal"))
        try:
            self._send(reply)
        finally:
            if reply.last:  # also where nobody hears it any more: what it tells is done
                self.server.stop()
                self.server.shutdown()

    def _send(self, reply: Reply) -> None:
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

    def _get(self) -> Reply | None:
        path, query = self._target()
        if path == "/" and "token" in query:
            return self._enter(query["token"])
        self._check_session(path)
        if path in self.server.files:
            body, media_type = self.server.files[path]
            return Reply(body=body, media_type=media_type)
        return self.server.get(path, query)

    def _post(self) -> Reply | None:
        path, _ = self._target()
        self._check_session(path)
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise self._forbidden("Only the page itself may write.")
        if not _same(self.headers.get(self.server.page_header, ""), self.server.secret):
            raise self._forbidden("The page is not the one that this server gave out; load it again.")
        return self.server.post(path, self._body())

    def _target(self) -> tuple[str, dict[str, str]]:
        try:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=8)
        except ValueError:
            raise _nothing() from None
        if parts.scheme or parts.netloc or any(len(values) > 1 for values in query.values()):
            raise _nothing()
        return parts.path, {name: values[0] for name, values in query.items()}

    def _enter(self, token: str) -> Reply:
        """Trade the token for the cookie, and go to the page without it."""
        known = self._has_session()
        if not self.server.spend(token) and not known:
            raise self._forbidden("This link does not work, or not any more: each link works once.")
        cookie = f"{self.server.cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
        # The page turns itself to "/": a redirect by status would count as part of the visit that led here, and after a
        # click on a page of another origin (a terminal in the browser) a strict cookie would not be sent along.
        entrance = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{self.server.title}</title>'
            '<link rel="icon" href="/icon.svg"><p>One moment, please.'
        )
        return Reply(
            body=entrance.encode(),
            media_type="text/html; charset=utf-8",
            headers=(("Set-Cookie", cookie), ("Refresh", "0; url=/")),
        )

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise self._forbidden("This page is on 127.0.0.1 alone, and under no other name.")

    def _check_session(self, path: str) -> None:
        if not self._has_session():
            raise self._forbidden("There is no session here.")
        # Absent from old browsers and programs; "none" is a person who typed the address.
        if path != "/" and self.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
            raise self._forbidden("Nothing of this page may be part of another one.")

    def _has_session(self) -> bool:
        pairs = (part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";"))
        return any(name == self.server.cookie and _same(value, self.server.session) for name, _, value in pairs)

    def _body(self) -> JSON:
        if self.headers.get_content_type() != "application/json":
            raise RefusedError("The body must be application/json.", status=415)
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]+", length):
            raise RefusedError("The body needs a length.", status=411)
        if not _LENGTH.fullmatch(length) or int(length) > self.server.max_body_bytes:
            raise RefusedError(f"A body has at most {self.server.max_body_bytes} bytes.", status=413)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise RefusedError("The body is no JSON.") from None

    def _forbidden(self, message: str) -> RefusedError:
        return RefusedError(message, status=403, code="forbidden", hint=f"{self.server.again}, and open the new link")


def json_reply(data: JSON, *, status: int = 200, last: bool = False) -> Reply:
    """An answer for the page's own script."""
    return Reply(body=json.dumps(data).encode(), media_type="application/json; charset=utf-8", status=status, last=last)


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def error_json(error: VRAGError) -> JSON:
    """Code, message and hint of an error, for the page."""
    hint = None if error.hint is None else visible(error.hint)
    return {"error": error.code, "message": visible(error.message), "hint": hint}


_STATUS: Final[Mapping[type[VRAGError], int]] = MappingProxyType(
    {NotFoundError: 404, UsageError: 400, BackendError: 502}
)


def _failure(error: VRAGError) -> Reply:
    if isinstance(error, RefusedError):
        return json_reply(error_json(error), status=error.status)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return json_reply(error_json(error), status=status)


def _nothing() -> RefusedError:
    return RefusedError("There is no such page.", status=404, code="not_found")
