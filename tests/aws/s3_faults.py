"""An HTTP proxy on loopback that stands before a fake S3: it does what the fake leaves out, and breaks things to order.

The fake (moto) takes any SHA-256 for right and never has a conflict; the proxy compares `x-amz-checksum-sha256` with the
body as S3 does, and plays one fault for each entry of `faults`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CUT = "cut the answer in the middle"
CORRUPT = "turn one bit of the answer's body"
CORRUPT_UPLOAD = "turn one bit of the request's body"
LOSE_ANSWER = "pass the request on, then hang up"
SLOW_DOWN = "503 SlowDown"
CONFLICT = "409 ConditionalRequestConflict"


class FaultyProxy:
    """`faults` holds (method, fault) pairs; a request takes the first one of its method."""

    def __init__(self, target_url):
        self.target = urlsplit(target_url)
        self.faults = []
        self.requests = []
        self._lock = threading.Lock()

    def take(self, method):
        with self._lock:
            for pair in self.faults:
                if pair[0] == method:
                    self.faults.remove(pair)
                    return pair[1]
        return None


@contextmanager
def faulty_proxy(target_url):
    """The proxy and its URL."""
    proxy = FaultyProxy(target_url)

    class Handler(_Handler):
        faulty = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyProxy

    def log_message(self, *_args):
        pass

    def _answer(self):
        fault = self.faulty.take(self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faulty.requests.append((self.command, self.path, dict(self.headers)))
        if fault is CORRUPT_UPLOAD:
            body = _one_bit_turned(body)
        if fault is SLOW_DOWN:
            return self._refuse(503, "SlowDown")
        if fault is CONFLICT:
            return self._refuse(409, "ConditionalRequestConflict")
        said = self.headers.get("x-amz-checksum-sha256")
        # The header of CompleteMultipartUpload is about the object, not about the body.
        if said and self.command == "PUT" and base64.b64decode(said) != hashlib.sha256(body).digest():
            return self._refuse(400, "BadDigest")
        status, headers, answer = self._pass_on(body)
        if fault is LOSE_ANSWER:
            self.close_connection = True
            return None
        if fault is CORRUPT:
            answer = _one_bit_turned(answer)
        return self._send(status, headers, answer, cut=fault is CUT)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815  # the names that http.server calls

    def _pass_on(self, body):
        connection = http.client.HTTPConnection(self.faulty.target.hostname, self.faulty.target.port)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _send(self, status, headers, body, *, cut):
        self.send_response_only(status)
        dropped = {"content-length", "connection", "transfer-encoding", "server", "date"}
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(body)))
        for name, value in headers:
            if name.lower() not in dropped:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def _refuse(self, status, code):
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._send(status, [("Content-Type", "application/xml")], text, cut=False)


def _one_bit_turned(data):
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data
