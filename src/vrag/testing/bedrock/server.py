"""The fake itself: a real HTTP server on this machine that boto3 talks to as to Bedrock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

from typing_extensions import override

from vrag.clock import Clock, SystemClock
from vrag.errors import ThrottledError
from vrag.generation.catalogue import Catalogue, Model
from vrag.testing.bedrock.bodies import Body, unavailable
from vrag.testing.bedrock.control import availability, details
from vrag.testing.bedrock.jobs import Charge, Commission, Jobs
from vrag.testing.bedrock.video_models import luma_ray, nova_reel
from vrag.testing.bedrock.wire import Call, Refusal, Request, check_signature, http_status, read_call, refuse
from vrag.testing.faults import Faults
from vrag.testing.films import make_film
from vrag.values.canonical import JSON

__all__ = ["FakeBedrock", "LostReply", "serve"]

_OPERATIONS: Final = (
    "StartAsyncInvoke",
    "GetAsyncInvoke",
    "ListAsyncInvokes",
    "InvokeModel",
    "Converse",
    "ApplyGuardrail",
    "GetFoundationModel",
    "GetFoundationModelAvailability",
)
_PROVIDER: Final = "aws-bedrock"
_VIDEOS: Final[Mapping[str, Callable[[Body], Commission]]] = {
    "amazon.nova-reel-v1:0": nova_reel,
    "amazon.nova-reel-v1:1": nova_reel,
    "luma.ray-v2:0": luma_ray,
}


class LostReply(Exception):  # noqa: N818  # an answer that never comes, not a fault of this program
    """A fault: the connection is closed without an answer. With `late=True` the work was done and charged."""


class FakeBedrock:
    """A Bedrock runtime on loopback: checks what it is sent as Bedrock does, makes small films, and fails on demand.

    ```python
    with FakeBedrock(s3=boto3.client("s3", ...)) as fake:
        client = boto3.client("bedrock-runtime", endpoint_url=fake.url, region_name=fake.region, ...)
        fake.faults.on("StartAsyncInvoke", times=2)  # throttled twice
        fake.faults.on("StartAsyncInvoke", error=LostReply(), late=True)  # charged, and the answer is lost
        fake.jobs.script("moderation")  # the next job is refused when it is nearly done
    ```

    Faults on calls are those of `vrag.testing.Faults`, by the name of the operation; a `Refusal` is answered as an error
    of the service.
    """

    def __init__(
        self,
        *,
        s3: Any = None,
        clock: Clock | None = None,
        region: str = "us-east-1",
        secrets: Mapping[str, str] | None = None,
        render_s: float = 90.0,
        make_film: Callable[..., int] = make_film,
        blocked_words: frozenset[str] = frozenset({"gore"}),
        port: int = 0,
    ) -> None:
        """Listen on a free port of loopback.

        Args:
            s3: A client whose buckets take the files of jobs; None refuses jobs.
            clock: Says when jobs end, and which models have been retired.
            region: Of the ARNs it makes.
            secrets: Access key ids and their secrets; by default `test` with `test`.
            render_s: How long a job runs.
            make_film: Makes the films, with the signature of `vrag.testing.make_film`.
            blocked_words: Prompts with one of them are refused by moderation.
            port: Where to listen; 0 is any free one.
        """
        self.faults = Faults(*_OPERATIONS)
        self.region = region
        self.catalogue = Catalogue.load()
        self.clock = clock or SystemClock()
        self.blocked_words = blocked_words
        self.jobs = Jobs(s3=s3, clock=self.clock, region=region, render_s=render_s, make_film=make_film)
        self._secrets = dict(secrets or {"test": "test"})
        self._retired: set[str] = set()
        self._denied: set[str] = set()
        self._rejections: list[str] = []
        self._lock = Lock()
        self._server = _Server(("127.0.0.1", port), self._answer)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address, for `endpoint_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Everything that was bought, in order."""
        return tuple(self.jobs.charges)

    def calls(self, operation: str) -> int:
        """How many calls of an operation came, well formed and signed."""
        return sum(call.name == operation for call in self.faults.calls)

    def retire(self, model_id: str) -> None:
        """Bring a model to its end of life now; jobs that run go on."""
        with self._lock:
            self._retired.add(model_id)

    def deny(self, model_id: str) -> None:
        """Take away the access of the account to a model."""
        with self._lock:
            self._denied.add(model_id)

    def reject_next(self, *reasons: str) -> None:
        """Let moderation keep back one picture of the next edits, or the answer of the next captions, for each reason."""
        with self._lock:
            self._rejections.extend(reasons)

    def close(self) -> None:
        """Stop listening. Closing twice is fine."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: Request) -> JSON:
        check_signature(request, self._secrets)
        call = read_call(request)
        if call.operation not in _OPERATIONS:
            raise Refusal("UnknownOperationException", f"This fake does not know {call.operation}.")
        with self.faults.at(call.operation, **call.parameters):
            return getattr(self, f"_{call.operation}")(call)

    def _model(self, name: str) -> Model:
        """The model behind an id, or the refusal that Bedrock gives."""
        bare = name.rpartition("/")[2]
        model = self.catalogue.find(_PROVIDER, bare)
        if model is None or model.kind == "service":
            raise refuse("The provided model identifier is invalid.")
        if bare in self._retired or model.id in self._retired or model.state_on(self.clock.now().date()) == "retired":
            raise unavailable(model)
        if {bare, model.id} & self._denied:
            raise Refusal("AccessDeniedException", "You don't have access to the model with the specified model ID.")
        if model.profiles and bare not in model.profiles:
            raise refuse(
                f"Invocation of model ID {bare} with on-demand throughput isn’t supported. Retry your request with the "  # noqa: RUF001  # as it is
                "ID or ARN of an inference profile that contains this model."
            )
        return model

    def _body(self, model: Model, data: JSON) -> Body:
        return Body(model=model, data=data, blocked=self.blocked_words)

    def _StartAsyncInvoke(self, call: Call) -> JSON:  # noqa: N802  # the name of the operation
        given = call.parameters
        model = self._model(given["modelId"])
        body = given["modelInput"]
        if model.id in _VIDEOS:
            commission = _VIDEOS[model.id](self._body(model, body))
        elif model.id.startswith("amazon.nova-2-multimodal-embeddings"):
            from vrag.testing.bedrock.segments import nova_segments  # noqa: PLC0415  # numpy

            commission = nova_segments(self._body(model, body), self.jobs.s3)
        else:
            raise refuse("The model does not support asynchronous invocation.")
        token = given.get("clientRequestToken") or hashlib.sha256(self.clock.token_bytes(16)).hexdigest()
        output = given["outputDataConfig"]["s3OutputDataConfig"]
        return {"invocationArn": self.jobs.start(model.id, body, output, token, commission)}

    def _GetAsyncInvoke(self, call: Call) -> JSON:  # noqa: N802  # as above
        return self.jobs.get(call.parameters["invocationArn"])

    def _ListAsyncInvokes(self, call: Call) -> JSON:  # noqa: N802  # as above
        return self.jobs.page(call.parameters)

    def _InvokeModel(self, call: Call) -> JSON:  # noqa: N802  # as above
        from vrag.testing.bedrock.direct_models import answer  # noqa: PLC0415  # numpy

        model = self._model(call.parameters["modelId"])
        try:
            data = json.loads(call.parameters.get("body") or b"")
        except ValueError:
            raise refuse("Malformed input request, please reformat your input and try again.") from None
        if not isinstance(data, dict):
            raise refuse("Malformed input request: expected type: JSONObject")
        answered = answer(self._body(model, data), self._rejected)
        self._charge(model)
        return answered

    def _Converse(self, call: Call) -> JSON:  # noqa: N802  # as above
        from vrag.testing.bedrock.language import converse  # noqa: PLC0415  # numpy

        model = self._model(call.parameters["modelId"])
        answered = converse(model, call.parameters, self._rejected)
        self._charge(model)
        return answered

    def _ApplyGuardrail(self, call: Call) -> JSON:  # noqa: N802  # as above
        from vrag.testing.bedrock.language import guard  # noqa: PLC0415  # numpy

        return guard(call.parameters, self.blocked_words)

    def _GetFoundationModel(self, call: Call) -> JSON:  # noqa: N802  # as above
        model = self._listed(call.parameters["modelIdentifier"])
        return {"modelDetails": details(model, self.region)}

    def _GetFoundationModelAvailability(self, call: Call) -> JSON:  # noqa: N802  # as above
        model = self._listed(call.parameters["modelId"])
        return availability(model, allowed=model.id not in self._denied)

    def _listed(self, name: str) -> Model:
        model = self.catalogue.find(_PROVIDER, name.rpartition("/")[2])
        today = self.clock.now().date()
        if model is None or model.kind == "service" or model.id in self._retired or model.state_on(today) == "retired":
            raise Refusal(
                "ResourceNotFoundException", "Could not resolve the foundation model from the model identifier."
            )
        return model

    def _rejected(self) -> str | None:
        with self._lock:
            return self._rejections.pop(0) if self._rejections else None

    def _charge(self, model: Model) -> None:
        with self._lock:
            self.jobs.charges.append(Charge(model_id=model.id, token=None, at=self.clock.now()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], JSON]) -> None:
        super().__init__(address, _Handler)
        self.answer = answer

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any
    # One packet an answer: with Nagle's algorithm each one would wait for the acknowledgement of its head.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer one call."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(method=self.command, target=self.path, headers=headers, body=body)
        try:
            self._send(200, {}, self.server.answer(request))
        except LostReply:
            self.close_connection = True
        except Refusal as refusal:
            self._refuse(refusal)
        except ThrottledError as error:
            self._refuse(Refusal("ThrottlingException", error.message))

    do_POST = do_GET  # noqa: N815  # as above

    def _refuse(self, refusal: Refusal) -> None:
        self._send(
            http_status(refusal.code), {"x-amzn-ErrorType": refusal.code}, {"message": refusal.message, **refusal.more}
        )

    def _send(self, status: int, headers: Mapping[str, str], answer: JSON) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        request_id = hashlib.sha256(data + self.path.encode()).hexdigest()[:32]
        for name, value in {"Content-Type": "application/json", "x-amzn-RequestId": request_id, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """A library prints nothing."""


def serve(port: int = 0, *, s3: Any = None, region: str = "us-east-1", render_s: float = 5.0) -> FakeBedrock:
    """Start a fake for people, on the clock of this machine; close it, or use it in a `with` block.

    Args:
        port: Where to listen on loopback; 0 is any free one.
        s3: A client whose buckets take the films.
        region: Of the ARNs it makes.
        render_s: How long a job runs.
    """
    return FakeBedrock(s3=s3, region=region, render_s=render_s, port=port)
