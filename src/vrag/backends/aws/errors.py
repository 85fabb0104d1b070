"""What the SDKs of AWS and OpenSearch raise, as the errors of this library: one table for every adapter.

Sources: the botocore 1.43 service models of `bedrock-runtime` and `s3`, Amazon Bedrock "Model lifecycle" and
"Troubleshooting", opensearch-py 3.2 `opensearchpy.exceptions` (all read 2026-11-20).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore import exceptions as sdk

from vrag.errors import (
    AccessDeniedError,
    BackendError,
    ContentRejectedError,
    ModelRetiredError,
    NotFoundError,
    ThrottledError,
    VRAGError,
)

__all__ = ["cleaned", "translated", "without_secrets"]

_DENIED: Final = frozenset(
    """
    AccessDenied AccessDeniedException AllAccessDisabled AuthFailure ExpiredToken ExpiredTokenException
    IncompleteSignature InvalidAccessKeyId InvalidClientTokenId InvalidSignatureException InvalidToken
    MissingAuthenticationToken NotAuthorized OptInRequired RequestExpired RequestTimeTooSkewed SignatureDoesNotMatch
    TokenRefreshRequired UnauthorizedOperation UnrecognizedClientException
    """.split()  # noqa: SIM905  # a list of words reads better as words
)
_THROTTLED: Final = frozenset(
    """
    BandwidthLimitExceeded EC2ThrottledException LimitExceededException ModelNotReadyException PriorRequestNotComplete
    ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled RequestThrottledException
    ServiceQuotaExceededException SlowDown ThrottledException Throttling ThrottlingException TooManyRequestsException
    TransactionInProgressException
    """.split()  # noqa: SIM905  # as above
)
"""Codes after which nothing was done and the same call may succeed later; a full concurrency quota is HTTP 400."""
_ABSENT: Final = frozenset(
    {
        *("NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound"),
        *("NotFoundException", "ResourceNotFoundException"),
    }
)
_PASSING: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "InternalServerException",
        "ModelTimeoutException",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
_RETIRED: Final = ("reached the end of its life", "marked by provider as Legacy")
_MODERATED: Final = "blocked by our content filters"

_NO_CREDENTIALS: Final = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.ProfileNotFound,
    sdk.NoAuthTokenError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.UnknownCredentialError,
)
_CONNECTION: Final = (sdk.HTTPClientError, sdk.ConnectionError, sdk.IncompleteReadError)

_SIGNED: Final = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*")
_USER_IN_URL: Final = re.compile(r"(?<!\w)(\w+://)[^\s/@]+@")
_KEY_ID: Final = re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{8,}")
_ACCOUNT: Final = re.compile(r"(?<!\d)\d{12}(?!\d)")
_CREDENTIAL: Final = re.compile(
    r"(?i)(authorization|credential|signature|token|passw(?:or)?d|secret(?:[_ -]?access)?(?:[_ -]?key)?|api[_ -]?key)"
    r"(\"?(?:\s*[=:]\s*|%3D|%3A(?:%20)*))(?:(?:basic|bearer)\s+)?\S+"
)
# A secret key has 40 letters of base64, a session token hundreds; no name of a thing mixes cases and digits for so long.
_OPAQUE: Final = re.compile(
    r"(?<![\w+/])(?=[a-z0-9+/_]*[A-Z])(?=[A-Z0-9+/_]*[a-z])(?=[A-Za-z+/_]*[0-9])[\w+/]{40,}={0,2}", re.ASCII
)
_LONGEST: Final = 600

_RENEW_HINT: Final = "renew the credentials: aws sso login, or set AWS_PROFILE"
_ALLOW_HINT: Final = "allow this action in the IAM policy of the caller, and in the policy of the resource"
_LATER_HINT: Final = "call again later, or ask for a higher quota"


@contextmanager
def translated(operation: str, backend: str) -> Iterator[None]:
    """Raise what an SDK raises inside the block as an error of ours, with the SDK's error as its cause.

    Errors of ours pass through, and so does everything that is no error of botocore or opensearch-py. Messages hold no
    account number, key id, credential or query of a URL; nor does the SDK's error any more, which a log may show with ours.

    Args:
        operation: What was done, such as `PutObject`.
        backend: Which backend did it, such as `s3` or `bedrock:amazon.nova-2-lite-v1:0`.
    """
    try:
        yield
    except VRAGError:
        raise
    except sdk.ClientError as error:
        told: VRAGError = _of_answer(error, operation, backend)
        raise told from cleaned(error)
    except sdk.BotoCoreError as error:
        told = _of_botocore(error, operation, backend)
        raise told from cleaned(error)
    except Exception as error:
        # Not caught by its class: opensearch-py need not be loaded for Bedrock.
        if type(error).__module__.partition(".")[0] != "opensearchpy":
            raise
        told = _of_opensearch(error, operation, backend)
        raise told from cleaned(error)


def without_secrets(text: str) -> str:
    """`text` without account numbers, key ids, credentials and queries of URLs, cut at 600 characters."""
    text = _hidden(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _hidden(text: str) -> str:
    text = _SIGNED.sub(r"\1?…", text)
    text = _USER_IN_URL.sub(r"\1…@", text)
    text = _CREDENTIAL.sub(r"\1\2…", text)
    text = _OPAQUE.sub("…", text)  # before what may be a part of one
    return _ACCOUNT.sub("…", _KEY_ID.sub("…", text))


def cleaned(error: BaseException) -> BaseException:
    """`error`, and all that it came of, with words that can be shown: a log writes the whole chain."""
    _clean(error, set())
    return error


def _clean(value: Any, seen: set[int]) -> Any:
    """`value` without secrets; errors are changed themselves, each once."""
    if isinstance(value, str):
        return _hidden(value)
    if isinstance(value, dict):
        return {key: _clean(inner, seen) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        found = [_clean(inner, seen) for inner in value]
        return found if isinstance(value, list) else tuple(found)
    if isinstance(value, BaseException) and id(value) not in seen:
        seen.add(id(value))
        value.args = _clean(value.args, seen)
        for cause in (value.__cause__, value.__context__):
            _clean(cause, seen)
    return value


def _of_answer(error: sdk.ClientError, operation: str, backend: str) -> VRAGError:
    """The error for an answer that the service gave."""
    answer: Mapping[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    text = str(answer.get("Error", {}).get("Message", ""))
    about: Mapping[str, Any] = answer.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode") or 0)
    request_id = about.get("RequestId")
    ids: dict[str, Any] = {"backend": backend, "operation": operation, "request_id": request_id}
    said = f"{backend} refused {operation}: {code or status} {without_secrets(text)}".rstrip(" .") + "."
    if any(sign in text for sign in _RETIRED):
        return ModelRetiredError(said, **ids, hint="choose a model that is offered: vrag models")
    if _MODERATED in text:
        return ContentRejectedError(said, **ids, hint="change the prompt or the picture")
    if code in _THROTTLED or (status == 429 and code not in _PASSING):
        return ThrottledError(said, **ids, retryable=True, hint=_LATER_HINT)
    if code in _DENIED or status in {401, 403}:
        return AccessDeniedError(said, **ids, hint=_RENEW_HINT if "xpired" in code + text else _ALLOW_HINT)
    if code in _ABSENT or (status == 404 and not code.endswith("Exception")):
        return NotFoundError(said if request_id is None else f"{said} Request {request_id}.")
    retryable = code in _PASSING or status >= 500
    if code == "ModelErrorException":  # 424: the model itself failed, with a status of its own
        retryable = int(answer.get("originalStatusCode") or 0) >= 500
    return BackendError(said, **ids, retryable=retryable)


def _of_botocore(error: sdk.BotoCoreError, operation: str, backend: str) -> VRAGError:
    """The error for a call without an answer, or one that was never sent."""
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError(
            f"{backend} was not asked for {operation}: {without_secrets(str(error)).rstrip('.')}.",
            backend=backend,
            operation=operation,
            hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or: aws sso login",
        )
    lost = isinstance(error, _CONNECTION)
    # What urllib3 says holds addresses of objects; the kind of error says enough.
    said = type(error).__name__ if lost else without_secrets(str(error)).rstrip(".")
    return BackendError(
        f"{backend} gave no answer to {operation}: {said}.", backend=backend, operation=operation, retryable=lost
    )


def _of_opensearch(error: Any, operation: str, backend: str) -> VRAGError:
    """The error for an `opensearchpy` exception: `TransportError` has status, type and body."""
    arguments: tuple[Any, ...] = error.args
    status = arguments[0] if len(arguments) == 3 and isinstance(arguments[0], int) else None
    ids: dict[str, Any] = {"backend": backend, "operation": operation}
    if status is None:
        lost = len(arguments) == 3  # a ConnectionError: ("N/A", text, cause)
        said = type(error).__name__ if lost else without_secrets(str(error)).rstrip(".")
        return BackendError(f"{backend} gave no answer to {operation}: {said}.", **ids, retryable=lost)
    said = f"{backend} refused {operation}: {status} {without_secrets(_reason(arguments))}".rstrip(" .") + "."
    if status in {401, 403}:
        return AccessDeniedError(said, **ids, hint="allow it in the access policy of the domain or collection")
    if status == 404:
        return NotFoundError(said)
    if status == 429:
        return ThrottledError(said, **ids, retryable=True, hint=_LATER_HINT)
    return BackendError(said, **ids, retryable=status >= 500)


def _reason(arguments: tuple[Any, ...]) -> str:
    """The innermost reason that OpenSearch gives; else its error type."""
    kind, body = arguments[1], arguments[2]
    found = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(found, Mapping):
        roots = found.get("root_cause") or [found]
        return f"{roots[0].get('type', kind)}: {roots[0].get('reason', '')}"
    return str(found or kind)
