"""AWS KMS on loopback, for one asymmetric key: GetPublicKey and Sign over JSON 1.1, with a real P-256 key.

Moto's answers lack `KeySpec`, and it hashes a digest again (moto 5.1, seen 2026-11-21).
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils


@contextmanager
def running_kms():
    """Its URL."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def answer(operation, asked):
        told = {"KeyId": asked["KeyId"], "SigningAlgorithms": ["ECDSA_SHA_256"]}
        if operation == "GetPublicKey":
            encoded = base64.b64encode(public).decode()
            return told | {"PublicKey": encoded, "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
        assert (operation, asked["MessageType"]) == ("Sign", "DIGEST")
        signature = key.sign(base64.b64decode(asked["Message"]), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return told | {"Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": asked["SigningAlgorithm"]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(answer(self.headers["x-amz-target"].rpartition(".")[2], asked)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
