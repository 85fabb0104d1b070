"""Every exception of the library; the tree is this docstring.

```text
VRAGError                          `except VRAGError` misses nothing of ours
├── UsageError (ValueError)        the caller's fault, found before anything is sent or paid
│   ├── ConfigError                vrag.toml, a variable or a flag does not say something usable
│   ├── PromptError                a template, slot or batch line cannot be rendered
│   ├── ImageRejectedError         this picture is not taken; .name .code .detail
│   ├── MediaRejectedError         this video or file is not what it must be; .name .code .detail
│   ├── UnsupportedRequestError    this backend cannot do that; .problems say what it can
│   ├── SpaceMismatchError         vectors of two embedding spaces met
│   ├── FormatVersionError         written by a newer release; says which
│   ├── PlanChangedError           what was approved is not what would be bought
│   ├── BudgetError                a purchase would pass a cap; .cap names it
│   └── MissingExtraError (ImportError)   an optional part is not installed
├── GateError (PermissionError)    a picture that may not be used; .asset_id .state
├── NoSuitableImageError (LookupError)   retrieval answered "no"; .refusal holds reasons and candidates
├── NotFoundError (LookupError)    no such key, asset, job or record
│   └── ErasedError                the bytes were deleted by decision; says whose and why
├── AlreadyExistsError (FileExistsError)  a create-once name is taken
├── BackendError                   theirs; .backend .operation .request_id .retryable
│   ├── AccessDeniedError · ThrottledError · ModelRetiredError
│   └── ContentRejectedError       moderation refused input or output
├── JobError                       carries .job_id, .retryable and .billed (True, False or None for unknown)
│   └── JobFailedError · JobCancelledError · JobTimeoutError (TimeoutError) · JobUndecidedError
└── ProvenanceError                a record cannot be made or read
    └── VerificationError          what was checked does not hold; .promise names the broken one
```

A message gives the value, what is allowed and the next step; `hint` is the command to type next.
Errors carry ids and JSON, never bytes, credentials or object reprs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vrag.values.requests import Problem
    from vrag.values.vectors import Refusal

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "BackendError",
    "BudgetError",
    "ConfigError",
    "ContentRejectedError",
    "ErasedError",
    "FormatVersionError",
    "GateError",
    "ImageRejectedError",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "JobTimeoutError",
    "JobUndecidedError",
    "MediaRejectedError",
    "MissingExtraError",
    "ModelRetiredError",
    "NoSuitableImageError",
    "NotFoundError",
    "PlanChangedError",
    "PromptError",
    "ProvenanceError",
    "SpaceMismatchError",
    "ThrottledError",
    "UnsupportedRequestError",
    "UsageError",
    "VRAGError",
    "VerificationError",
]


class VRAGError(Exception):
    """Base of every error that this library raises on purpose.

    Attributes:
        message: What went wrong, with the value and what is allowed.
        hint: The next command or step, or None.
    """

    code: str = "error"
    """Stable, machine-readable name; `to_json` carries it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @override
    def __str__(self) -> str:
        return f"{self.message} Next: {self.hint}" if self.hint else self.message

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle keyword arguments too: a process pool must hand errors back whole."""
        fields = {key: value for key, value in vars(self).items() if key not in {"message", "__notes__"}}
        return partial(type(self), **fields), (self.message,)

    def to_json(self) -> dict[str, Any]:
        """The error as a JSON object: `error` (its code), `message`, `hint` and its ids."""
        extra = {
            key: value
            for key, value in vars(self).items()
            if key not in {"message", "hint"} and isinstance(value, str | int | float | bool | None)
        }
        return {"error": self.code, "message": self.message, "hint": self.hint, **extra}


class UsageError(VRAGError, ValueError):
    """The caller asked for something that cannot be; nothing was sent and nothing was paid."""

    code = "usage"


class ConfigError(UsageError):
    """A configuration file, variable or flag is not usable."""

    code = "config"


class PromptError(UsageError):
    """A template cannot be rendered: a slot is missing, unknown or empty."""

    code = "prompt"

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


class _RejectedError(UsageError):
    def __init__(self, message: str, *, name: str, code: str, detail: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.code = code
        self.detail = detail


class ImageRejectedError(_RejectedError):
    """A picture was not taken; `name`, `code` and `detail` say which and why."""

    code = "image_rejected"


class MediaRejectedError(_RejectedError):
    """A video or other file is not what it must be; `name`, `code` and `detail` say which and why."""

    code = "media_rejected"


class UnsupportedRequestError(UsageError):
    """A backend refuses a request before sending it; `problems` lists every reason."""

    code = "unsupported_request"

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class SpaceMismatchError(UsageError):
    """Vectors of two embedding spaces met; they can never be compared."""

    code = "space_mismatch"


class FormatVersionError(UsageError):
    """A file or database was written by a newer release than this one."""

    code = "format_version"


class PlanChangedError(UsageError):
    """The plan given is not the plan that was approved."""

    code = "plan_changed"


class BudgetError(UsageError):
    """A purchase would pass a cap of the budget; nothing was bought. `cap` names the cap."""

    code = "budget"

    def __init__(self, message: str, *, cap: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cap = cap


class MissingExtraError(UsageError, ImportError):
    """An optional part of the library is not installed; the hint is the install line."""

    code = "missing_extra"


class GateError(VRAGError, PermissionError):
    """A picture is not approved, expired or revoked and is not used."""

    code = "gate"

    def __init__(self, message: str, *, asset_id: str, state: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.asset_id = asset_id
        self.state = state


class NoSuitableImageError(VRAGError, LookupError):
    """No picture in the knowledge base suits the query; `refusal` holds the reasons and the best candidates."""

    code = "no_suitable_image"

    def __init__(self, message: str, *, refusal: Refusal, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal


class NotFoundError(VRAGError, LookupError):
    """No such key, asset, job or record."""

    code = "not_found"


class ErasedError(NotFoundError):
    """The bytes are gone because somebody decided it; the message says who, when and why."""

    code = "erased"


class AlreadyExistsError(VRAGError, FileExistsError):
    """A name that can be created once is taken already."""

    code = "already_exists"


class BackendError(VRAGError):
    """A backend failed. `retryable` says whether the same call may succeed later; the cause is the SDK's error."""

    code = "backend"

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        operation: str = "",
        request_id: str | None = None,
        retryable: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.backend = backend
        self.operation = operation
        self.request_id = request_id
        self.retryable = retryable


class AccessDeniedError(BackendError):
    """Credentials are missing, wrong or not allowed to do this."""

    code = "access_denied"


class ThrottledError(BackendError):
    """The backend asks for patience; nothing was done."""

    code = "throttled"


class ModelRetiredError(BackendError):
    """The model has reached its end of life; nothing was sent. The hint names alternatives."""

    code = "model_retired"


class ContentRejectedError(BackendError):
    """Moderation refused the input or the output."""

    code = "content_rejected"


class JobError(VRAGError):
    """A step did not end well. `billed` is True, False, or None when nobody can tell."""

    code = "job"

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        retryable: bool = False,
        billed: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id
        self.retryable = retryable
        self.billed = billed


class JobFailedError(JobError):
    """The generator says that the job failed."""

    code = "job_failed"


class JobCancelledError(JobError):
    """The job was cancelled."""

    code = "job_cancelled"


class JobTimeoutError(JobError, TimeoutError):
    """Waiting ended before the job did; the job may still end well."""

    code = "job_timeout"


class JobUndecidedError(JobError):
    """Whether the job was bought cannot be known; a person decides."""

    code = "job_undecided"


class ProvenanceError(VRAGError):
    """A record or ledger cannot be made or read."""

    code = "provenance"


class VerificationError(ProvenanceError):
    """Something that was checked does not hold; `promise` names the first broken one."""

    code = "verification"

    def __init__(self, message: str, *, promise: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.promise = promise
