"""InvokeModel: one JSON body in, one out; many at once in few threads. The one place for concurrency and its errors.

Throttling is retried by the client, as its `Config(retries=…)` says; an embedding that is asked twice costs a fraction of
a cent. Source: service model of `bedrock-runtime` in botocore (2026-11-20).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from vrag.backends.aws.errors import translated
from vrag.errors import BackendError, UsageError
from vrag.values.canonical import JSON

__all__ = ["Invoker"]

_MAX_BODY_BYTES: Final = 25_000_000


class Invoker:
    """Calls one model; safe to use from many threads."""

    def __init__(self, client: Any, model_id: str, *, in_flight: int = 8) -> None:
        """Use a ready-made client.

        Args:
            client: A boto3 client of `bedrock-runtime`.
            model_id: Model id, inference profile or ARN.
            in_flight: How many calls of one `each` run at once.
        """
        self._client = client
        self._model_id = model_id
        self._in_flight = in_flight
        self.backend = f"bedrock:{model_id}"

    def one(self, body: JSON) -> Mapping[str, Any]:
        """Call the model once.

        Raises:
            UsageError: The body is larger than any call may be; nothing was sent.
            BackendError: The call failed, or the answer is no JSON object.
        """
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > _MAX_BODY_BYTES:
            raise UsageError(f"The call would have {len(data)} bytes; allowed: at most {_MAX_BODY_BYTES}.")
        with translated("InvokeModel", self.backend):
            answer = self._client.invoke_model(
                modelId=self._model_id, body=data, contentType="application/json", accept="application/json"
            )
            read = answer["body"].read()
        try:
            decoded = json.loads(read)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise BackendError(
                f"{self.backend} answered with no JSON object.", backend=self.backend, operation="InvokeModel"
            )
        return decoded

    def each(self, bodies: Sequence[Callable[[], JSON]]) -> list[Mapping[str, Any]]:
        """Call the model for each body, several at once; the answers in order. Bodies are made when they are needed."""
        if len(bodies) <= 1:
            return [self.one(body()) for body in bodies]
        with ThreadPoolExecutor(min(self._in_flight, len(bodies)), "vrag-invoke") as pool:
            return list(pool.map(lambda body: self.one(body()), bodies))
