"""What a request must be before a model sees it: the service model of botocore, and a signature that is computed again."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import botocore.session
from attrs import field, frozen
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import OperationModel, Shape
from typing_extensions import override

from vrag.values.canonical import JSON

__all__ = ["Call", "Refusal", "Request", "check_signature", "http_status", "read_call", "refuse"]


class Refusal(Exception):  # noqa: N818  # the answer of a service, not a fault of this program
    """An error that the service answers with."""

    def __init__(self, code: str, message: str, **more: JSON) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.more = more

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Copies keep the code: faults are raised as copies."""
        return (_again, (self.code, self.message, self.more))


def _again(code: str, message: str, more: Mapping[str, JSON]) -> Refusal:
    return Refusal(code, message, **more)


def refuse(message: str) -> Refusal:
    """A `ValidationException`, which is what Bedrock says of nearly every bad request."""
    return Refusal("ValidationException", message)


@frozen(kw_only=True)
class Request:
    """One HTTP request as it came."""

    method: str
    target: str
    """Path and query, still percent-encoded."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class Call:
    """A request that fits the service model."""

    operation: str
    parameters: Mapping[str, JSON]
    """As the caller of boto3 gave them; blobs in JSON are bytes."""


_CONTROL = ("GetFoundationModel", "GetFoundationModelAvailability")
"""What is known of the control plane, the service `bedrock`."""


@cache
def _operations() -> Mapping[str, Any]:  # the types of botocore know no members of its cached properties
    """Each operation with its model."""
    session = botocore.session.Session()
    runtime, control = (session.get_service_model(name) for name in ("bedrock-runtime", "bedrock"))
    found: dict[str, Any] = {name: runtime.operation_model(name) for name in runtime.operation_names}
    return found | {name: control.operation_model(name) for name in _CONTROL}


def http_status(code: str) -> int:
    """The HTTP status of an error code."""
    for operation in _operations().values():
        for shape in operation.error_shapes:
            if shape.name == code:
                return int(shape.metadata["error"]["httpStatusCode"])
    return 403 if code in {"InvalidSignatureException", "UnrecognizedClientException"} else 400


def check_signature(request: Request, secrets: Mapping[str, str]) -> None:
    """Compute Signature Version 4 of the request again.

    Raises:
        Refusal: There is none, its key is unknown, or it is of another request.
    """
    given = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), "
        r"Signature=([0-9a-f]{64})",
        request.headers.get("authorization", ""),
    )
    if given is None:
        raise Refusal("AccessDeniedException", "Missing Authentication Token")
    key_id, _day, region, service, signed, signature = given.groups()
    if service != "bedrock":
        raise Refusal(
            "InvalidSignatureException", f"Credential should be scoped to correct service: 'bedrock', not {service}."
        )
    if key_id not in secrets:
        raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    url = f"http://{request.headers.get('host', '')}{request.target}"
    again = AWSRequest(method=request.method, url=url, data=request.body)
    for name in signed.split(";"):
        again.headers[name] = request.headers.get(name, "")
    again.context["timestamp"] = request.headers.get("x-amz-date", "")
    auth = SigV4Auth(Credentials(key_id, secrets[key_id]), "bedrock", region)
    expected = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    if not hmac.compare_digest(expected, signature):
        raise Refusal(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )


def read_call(request: Request) -> Call:
    """Find the operation of a request and check every member of its input.

    Raises:
        Refusal: No operation has this path, or a member is missing, unknown, of a wrong type or out of its bounds.
    """
    parts = urlsplit(request.target)
    for name, operation in _operations().items():
        found = _matched(operation, request.method, parts.path)
        if found is not None:
            return Call(operation=name, parameters=_parameters(operation, found, parts.query, request))
    raise Refusal("UnknownOperationException", f"No operation answers {request.method} {parts.path}.")


def _matched(operation: OperationModel, method: str, path: str) -> dict[str, str] | None:
    """The members in the path; model ids and ARNs come percent-encoded, so that each is one segment."""
    template = operation.http["requestUri"].split("/")
    segments = path.split("/")
    if operation.http["method"] != method or len(template) != len(segments):
        return None
    found = {}
    for pattern, segment in zip(template, segments, strict=True):
        if pattern.startswith("{"):
            found[pattern.strip("{}")] = unquote(segment)
        elif pattern != segment:
            return None
    return found


def _parameters(operation: OperationModel, found: Mapping[str, str], query: str, request: Request) -> dict[str, JSON]:
    shape: Any = operation.input_shape
    queries = dict(parse_qsl(query, keep_blank_values=True))
    parameters: dict[str, JSON] = {}
    in_body: dict[str, Shape] = {}
    for name, member in shape.members.items():
        place, key = member.serialization.get("location"), member.serialization.get("name", name)
        source: Mapping[str, str] = {"uri": found, "querystring": queries, "header": request.headers}.get(place, {})
        if place is None:
            in_body[name] = member
        elif (text := source.get(key.lower() if place == "header" else key)) is not None:
            parameters[name] = _plain(member, text, name)
        if place == "querystring":
            queries.pop(key, None)
    if queries:
        raise refuse(f"Unknown query parameters: {', '.join(sorted(queries))}")
    if shape.serialization.get("payload"):
        parameters[shape.serialization["payload"]] = request.body
    elif in_body:
        parameters |= _body(request.body, in_body)
    if missing := sorted({*shape.required_members} - {*parameters}):
        raise refuse(f"Missing required members: {', '.join(missing)}")
    problems = [
        problem for name, value in parameters.items() for problem in _problems(shape.members[name], value, name)
    ]
    if problems:
        raise refuse(f"{len(problems)} validation error(s) detected: {'; '.join(problems)}")
    return parameters


def _plain(member: Shape, text: str, name: str) -> JSON:
    """A member of the path, query or headers from its text."""
    try:
        if member.type_name == "timestamp":
            return datetime.fromisoformat(text).astimezone(UTC)
        return int(text) if member.type_name == "integer" else text
    except ValueError:
        raise refuse(f"Value at '{name}' is no {member.type_name}: '{text}'") from None


def _body(data: bytes, members: Mapping[str, Shape]) -> dict[str, JSON]:
    try:
        body = json.loads(data or b"{}")
    except ValueError:
        raise Refusal("SerializationException", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal("SerializationException", "The body is no JSON object.")
    if unknown := sorted({*body} - {*members}):
        raise refuse(f"Unknown members: {', '.join(unknown)}")
    return {name: _with_blobs(members[name], value) for name, value in body.items()}


def _with_blobs(shape: Any, value: JSON) -> JSON:
    """`value` with base64 text as bytes where the model has a blob."""
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise Refusal("SerializationException", "A blob is not base64.") from None
    if shape.type_name == "structure" and isinstance(value, dict) and not getattr(shape, "is_document_type", False):
        return {
            key: _with_blobs(shape.members[key], item) if key in shape.members else item for key, item in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_with_blobs(shape.member, item) for item in value]
    return value


_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (bytes,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (datetime,),
}


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        if not isinstance(value, dict):
            yield f"The provided request is not valid: '{path}' is no JSON object"
        return
    kinds = _TYPES[shape.type_name]
    given = type(value)
    if not issubclass(given, kinds) or (given is bool and bool not in kinds):
        yield f"Value at '{path}' failed to satisfy constraint: Member must be of type {shape.type_name}"
        return
    yield from _out_of_bounds(shape, value, path)
    if shape.type_name == "structure":
        yield from (f"Missing required member '{path}.{name}'" for name in shape.required_members if name not in value)
        if getattr(shape, "is_tagged_union", False) and len(value) != 1:
            yield f"Exactly one member of '{path}' must be given, not {len(value)}"
        for name, item in value.items():
            if name not in shape.members:
                yield f"Unknown member '{path}.{name}'"
            else:
                yield from _problems(shape.members[name], item, f"{path}.{name}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _problems(shape.member, item, f"{path}[{index}]")


def _out_of_bounds(shape: Any, value: Any, path: str) -> Iterator[str]:
    rules: Mapping[str, Any] = shape.metadata
    size: Any = len(value) if hasattr(value, "__len__") else value
    if isinstance(size, int | float):
        if "min" in rules and size < rules["min"]:
            yield f"Value at '{path}' failed to satisfy constraint: Member must be at least {rules['min']}"
        if "max" in rules and size > rules["max"]:
            yield f"Value at '{path}' failed to satisfy constraint: Member must be at most {rules['max']}"
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        yield f"Value at '{path}' failed to satisfy constraint: Member must satisfy pattern {rules['pattern']}"
    if "enum" in rules and value not in rules["enum"]:
        yield f"Value at '{path}' failed to satisfy constraint: Member must satisfy enum value set {rules['enum']}"
