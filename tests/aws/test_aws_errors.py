"""The table from SDK errors to ours, with real error objects of botocore and opensearch-py."""

from __future__ import annotations

import traceback

import pytest
from botocore import exceptions as sdk
from opensearchpy import exceptions as search

from vrag.backends.aws.errors import translated
from vrag.errors import (
    AccessDeniedError,
    BackendError,
    ContentRejectedError,
    ModelRetiredError,
    NotFoundError,
    ThrottledError,
    UsageError,
    VRAGError,
)


def _answer(code, status, text="", **more):
    about = {"RequestId": "req-1", "HTTPStatusCode": status}
    return sdk.ClientError({"Error": {"Code": code, "Message": text}, "ResponseMetadata": about, **more}, "InvokeModel")


_TABLE = [
    (_answer("ThrottlingException", 429), ThrottledError, True),
    (_answer("ModelNotReadyException", 429), ThrottledError, True),
    (_answer("SlowDown", 503), ThrottledError, True),
    (_answer("ServiceQuotaExceededException", 400), ThrottledError, True),
    (_answer("InternalServerException", 500), BackendError, True),
    (_answer("ServiceUnavailableException", 503), BackendError, True),
    (_answer("ConflictException", 400), BackendError, False),
    (_answer("ModelTimeoutException", 408), BackendError, True),
    (_answer("ModelErrorException", 424, originalStatusCode=500), BackendError, True),
    (_answer("ModelErrorException", 424, originalStatusCode=400), BackendError, False),
    (_answer("AccessDeniedException", 403), AccessDeniedError, False),
    (_answer("403", 403), AccessDeniedError, False),
    (_answer("ExpiredToken", 400, "The provided token has expired."), AccessDeniedError, False),
    (_answer("ResourceNotFoundException", 404, "Could not resolve the model id"), NotFoundError, None),
    (_answer("404", 404, "Not Found"), NotFoundError, None),
    (_answer("NoSuchKey", 404), NotFoundError, None),
    (_answer("ResourceNotFoundException", 404, "It has reached the end of its life."), ModelRetiredError, False),
    (_answer("ResourceNotFoundException", 404, "It is marked by provider as Legacy."), ModelRetiredError, False),
    (_answer("ValidationException", 400, "max length is 512"), BackendError, False),
    (_answer("ValidationException", 400, "This was blocked by our content filters."), ContentRejectedError, False),
    (_answer("ConditionalRequestConflict", 409), BackendError, True),
    (_answer("PreconditionFailed", 412), BackendError, False),
    (sdk.NoCredentialsError(), AccessDeniedError, False),
    (sdk.ProfileNotFound(profile="brand"), AccessDeniedError, False),
    (sdk.EndpointConnectionError(endpoint_url="http://127.0.0.1:1/"), BackendError, True),
    (sdk.ReadTimeoutError(endpoint_url="http://127.0.0.1:1/"), BackendError, True),
    (sdk.ParamValidationError(report="Missing required parameter"), BackendError, False),
    (search.ConnectionError("N/A", "refused", OSError("refused")), BackendError, True),
    (search.ConnectionTimeout("TIMEOUT", "slow", OSError("slow")), BackendError, True),
    (search.NotFoundError(404, "index_not_found_exception", {"error": {"reason": "no such index"}}), NotFoundError, None),
    (search.AuthorizationException(403, "security_exception", {}), AccessDeniedError, False),
    (search.TransportError(429, "rejected_execution_exception", {}), ThrottledError, True),
    (search.TransportError(503, "unavailable", "text"), BackendError, True),
    (search.RequestError(400, "parsing_exception", {"error": {"root_cause": [{"reason": "no"}]}}), BackendError, False),
    (search.SerializationError("bad json"), BackendError, False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "retryable"), _TABLE, ids=[str(number) for number in range(len(_TABLE))])
def test_each_error_has_its_kind(error, kind, retryable):
    with pytest.raises(VRAGError) as raised, translated("InvokeModel", "bedrock"):
        raise error
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error
    assert "0x" not in str(raised.value)
    if retryable is not None:
        assert raised.value.retryable is retryable
        assert (raised.value.operation, raised.value.backend) == ("InvokeModel", "bedrock")


def test_messages_hold_no_secret_and_no_account():
    text = (
        "User: arn:aws:iam::123456789012:user/anna with AKIAIOSFODNN7EXAMPLE may not read "
        "https://anna:pass@bucket.example/key?X-Amz-Signature=abcdef&X-Amz-Security-Token=tok; Signature=cafe"
    )
    with pytest.raises(AccessDeniedError) as raised, translated("GetObject", "s3"):
        raise _answer("AccessDenied", 403, text)
    shown = str(raised.value)
    for secret in ("123456789012", "AKIA", "abcdef", "tok;", "cafe", "pass"):
        assert secret not in shown
    assert "arn:aws:iam::…:user/anna" in shown
    assert raised.value.request_id == "req-1"


def test_the_error_of_the_sdk_and_what_it_came_of_can_be_shown_in_a_log():
    inner = OSError("https://bucket.example/key?X-Amz-Signature=abcdef and password: a,b;c&d")
    outer = search.ConnectionError("N/A", "http://anna:pass@proxy.example", inner)
    inner.__context__ = outer  # a ring
    with pytest.raises(BackendError) as raised, translated("search", "opensearch"):
        raise outer from inner
    shown = "".join(traceback.format_exception(raised.value)) + repr(outer.args)
    for secret in ("abcdef", "pass@", "a,b", "c&d"):
        assert secret not in shown


def test_other_errors_pass_through():
    for error in (UsageError("ours"), KeyError("theirs")):
        with pytest.raises(type(error)) as raised, translated("PutObject", "s3"):
            raise error
        assert raised.value is error
