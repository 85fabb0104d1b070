"""The stack in CloudFormation: change set, execution, waiting, and why something failed.

Sources, all read 2026-11-20: "CreateChangeSet", "ExecuteChangeSet", "DescribeStackEvents" and "Stack status codes"
(CloudFormation API Reference and User Guide); service model of `cloudformation` in botocore 1.44.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import frozen
from botocore.exceptions import ClientError

from vrag.backends.aws.errors import translated, without_secrets
from vrag.backends.aws.infrastructure.choices import Infrastructure, Names, check_principal
from vrag.backends.aws.infrastructure.template import MAX_BODY_BYTES, STACK_TAG, body
from vrag.clock import Clock
from vrag.errors import BackendError, UsageError
from vrag.values.canonical import JSON

__all__ = ["Change", "ChangeSet", "Clients", "Progress", "Stack", "caller", "describe", "discard", "execute", "prepare"]

Progress = Callable[[int, int, str], None]
"""Takes how many resources are done, of how many, and the state of the stack."""
BACKEND: Final = "cloudformation"
_POLL_S: Final = 5.0
_LIMIT_S: Final = 3600.0
_UPDATABLE: Final = frozenset(
    {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"}
)
_DELETE_FIRST: Final = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"})
_NO_CHANGES: Final = ("didn't contain changes", "No updates are to be performed")
_SHELL: Final = "REVIEW_IN_PROGRESS"
_LATER: Final = ("Resource creation cancelled", "Resource update cancelled")


@frozen(kw_only=True)
class Clients:
    """boto3 clients of one account and Region; the S3 one needs the address of its own Region."""

    cloudformation: Any
    s3: Any
    opensearchserverless: Any
    iam: Any
    kms: Any
    sts: Any

    @property
    def region(self) -> str:
        """Where the stack is."""
        return str(self.cloudformation.meta.region_name)


@frozen(kw_only=True)
class Stack:
    """What CloudFormation tells of a stack."""

    id: str
    name: str
    status: str
    reason: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    drift: str
    """As it was found the last time somebody looked: `IN_SYNC`, `DRIFTED` or `NOT_CHECKED`."""

    @property
    def is_ours(self) -> bool:
        """Made by `vrag aws deploy`."""
        return self.tags.get(STACK_TAG) == self.name

    @property
    def settings(self) -> dict[str, JSON]:
        """The choices that it was made with; empty where it does not say."""
        try:
            found = json.loads(self.outputs.get("Settings", "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@frozen(kw_only=True)
class Change:
    """What would happen to one resource."""

    action: str
    """`Add`, `Modify`, `Remove` …"""
    logical_id: str
    kind: str
    replaced: bool
    kept: bool
    """Taken out of the stack and not deleted."""


@frozen(kw_only=True)
class ChangeSet:
    """Changes that were computed and not made."""

    id: str
    stack_id: str
    name: str
    creates: bool
    changes: tuple[Change, ...]


def error_code(error: ClientError) -> str:
    """The code of what a service answered."""
    answer: Mapping[str, Any] = error.response
    return str(answer.get("Error", {}).get("Code", ""))


def caller(clients: Clients, name: str) -> Names:
    """Who calls, and so what everything is called.

    Raises:
        AccessDeniedError: The credentials are missing or not usable.
    """
    with translated("GetCallerIdentity", "sts"):
        account = clients.sts.get_caller_identity()["Account"]
    return Names(stack=name, account=account, region=clients.region)


def describe(clients: Clients, name: str) -> Stack | None:
    """The stack with this name or id; None if there is none.

    Raises:
        AccessDeniedError: The caller may not ask.
        BackendError: CloudFormation failed.
    """
    with translated("DescribeStacks", BACKEND):
        try:
            told = clients.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
    if told["StackStatus"] == "DELETE_COMPLETE":
        return None
    return Stack(
        id=told["StackId"],
        name=told["StackName"],
        status=told["StackStatus"],
        reason=without_secrets(told.get("StackStatusReason", "")),
        outputs={one["OutputKey"]: one["OutputValue"] for one in told.get("Outputs", ())},
        parameters={one["ParameterKey"]: one.get("ParameterValue", "") for one in told.get("Parameters", ())},
        tags={one["Key"]: one["Value"] for one in told.get("Tags", ())},
        drift=told.get("DriftInformation", {}).get("StackDriftStatus", "NOT_CHECKED"),
    )


def check_ours(stack: Stack | None) -> None:
    """Refuse a stack that somebody made otherwise.

    Raises:
        UsageError: It has another owner.
    """
    if stack is not None and not stack.is_ours and stack.status != _SHELL:
        raise UsageError(
            f"There is a stack '{stack.name}' that vrag did not make (it has no tag '{STACK_TAG}'); it is left alone.",
            hint="choose another --name",
        )


def prepare(
    clients: Clients, infrastructure: Infrastructure, principals: Mapping[str, tuple[str, ...]], *, clock: Clock
) -> ChangeSet | None:
    """Compute what would change; nothing is made yet. None if nothing would.

    Args:
        clients: Of the account and Region.
        infrastructure: What is wanted.
        principals: ARNs by role, `ingest`, `generate` or `audit`; a role that is not named keeps those it has.
        clock: Waits, and draws the name of the change set.

    Raises:
        UsageError: The stack is somebody else's, is busy, must be deleted first, or cannot become this; or buckets of an
            earlier stack are still there.
        AccessDeniedError: The caller may not do this.
        BackendError: CloudFormation refuses the template.
    """
    name = infrastructure.name
    stack = describe(clients, name)
    check_ours(stack)
    creates = stack is None or stack.status == _SHELL
    if stack is not None and not creates:
        _check_ready(stack)
        infrastructure.check_succeeds(stack.settings)
    else:
        _check_free(clients, infrastructure)
    before = stack.parameters if stack is not None else {}
    text = body(infrastructure)
    if len(text.encode()) > MAX_BODY_BYTES:
        raise UsageError(
            f"The template has {len(text.encode())} bytes; CloudFormation takes {MAX_BODY_BYTES}: name fewer models."
        )
    drawn = clock.token_bytes(8).hex()
    with translated("CreateChangeSet", BACKEND):
        made = clients.cloudformation.create_change_set(
            StackName=name,
            ChangeSetName=f"vrag-{drawn}",
            ClientToken=f"vrag-{drawn}",
            ChangeSetType="CREATE" if creates else "UPDATE",
            TemplateBody=text,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=_parameters(principals, before),
            Tags=[{"Key": STACK_TAG, "Value": name}],
        )
    told = _computed(clients, made["Id"], clock)
    if told["Status"] == "FAILED":
        _delete_change_set(clients, made["Id"])
        reason = str(told.get("StatusReason", ""))
        if any(sign in reason for sign in _NO_CHANGES):
            return None
        raise BackendError(
            f"CloudFormation refuses the template: {without_secrets(reason)}",
            backend=BACKEND,
            operation="CreateChangeSet",
            hint=f"vrag aws template --name {name}",
        )
    return ChangeSet(
        id=made["Id"],
        stack_id=made["StackId"],
        name=name,
        creates=creates,
        changes=tuple(_changes(clients, made["Id"], told)),
    )


def _check_ready(stack: Stack) -> None:
    """Refuse a stack that takes no change set now."""
    if stack.status in _UPDATABLE:
        return
    said = f"The stack '{stack.name}' is {stack.status}"
    if stack.status in _DELETE_FIRST:
        raise UsageError(
            f"{said}; nothing can be made of it, it must be deleted first.",
            hint=f"vrag aws destroy --name {stack.name}",
        )
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        raise UsageError(
            f"{said}; its roll-back must be ended first.",
            hint=f"aws cloudformation continue-update-rollback --stack-name {stack.name}",
        )
    raise UsageError(f"{said}; wait until that is over.", hint=f"vrag aws status --name {stack.name}")


def _check_free(clients: Clients, infrastructure: Infrastructure) -> None:
    """Refuse to make a stack whose buckets are there from an earlier one: it would fail in the middle."""
    names = caller(clients, infrastructure.name)
    wanted = [names.media_bucket] + ([names.ledger_bucket] if infrastructure.object_lock_days is not None else [])
    for bucket in wanted:
        if bucket_exists(clients, bucket, names.account):
            raise UsageError(
                f"The bucket '{bucket}' is still there from an earlier stack. Delete it with its content, or take another "
                "name for the new stack.",
                hint=f"vrag aws destroy --name {infrastructure.name}",
            )


def bucket_exists(clients: Clients, bucket: str, account: str) -> bool:
    """Whether this account has the bucket.

    Raises:
        AccessDeniedError: It is another account's, or the caller may not look.
    """
    with translated("HeadBucket", "s3"):
        try:
            clients.s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
        except ClientError as error:
            if error_code(error) in {"404", "NoSuchBucket", "NotFound"}:
                return False
            raise
    return True


def _parameters(
    principals: Mapping[str, tuple[str, ...]], before: Mapping[str, str]
) -> list[dict[str, Any]]:  # fmt: skip
    made: list[dict[str, Any]] = []
    for role in ("ingest", "generate", "audit"):
        key = f"{role.capitalize()}Principals"
        given = tuple(check_principal(arn) for arn in principals.get(role, ()))
        if given:
            made.append({"ParameterKey": key, "ParameterValue": ",".join(given)})
        elif key in before:
            made.append({"ParameterKey": key, "UsePreviousValue": True})
    return made


def _computed(clients: Clients, change_set_id: str, clock: Clock) -> dict[str, Any]:
    ends = clock.monotonic_s() + _LIMIT_S
    while True:
        with translated("DescribeChangeSet", BACKEND):
            told: dict[str, Any] = clients.cloudformation.describe_change_set(ChangeSetName=change_set_id)
        if told["Status"] in {"CREATE_COMPLETE", "FAILED"}:
            return told
        if clock.monotonic_s() >= ends:
            raise _late("compute the changes", "aws cloudformation list-change-sets")
        clock.sleep(_POLL_S)


def _changes(clients: Clients, change_set_id: str, told: Mapping[str, Any]) -> Iterator[Change]:
    while True:
        for one in told.get("Changes", ()):
            change = one["ResourceChange"]
            yield Change(
                action=change["Action"],
                logical_id=change["LogicalResourceId"],
                kind=change["ResourceType"],
                replaced=change.get("Replacement") in {"True", "Conditional"},
                kept=change["Action"] == "Remove" and str(change.get("PolicyAction", "")).startswith("Retain"),
            )
        if not told.get("NextToken"):
            return
        with translated("DescribeChangeSet", BACKEND):
            told = clients.cloudformation.describe_change_set(ChangeSetName=change_set_id, NextToken=told["NextToken"])


def _delete_change_set(clients: Clients, change_set_id: str) -> None:
    with translated("DeleteChangeSet", BACKEND):
        clients.cloudformation.delete_change_set(ChangeSetName=change_set_id)


def discard(clients: Clients, change_set: ChangeSet) -> None:
    """Forget changes that are not wanted, and the empty stack that came with those of a new one."""
    _delete_change_set(clients, change_set.id)
    if change_set.creates:
        with translated("DeleteStack", BACKEND):
            clients.cloudformation.delete_stack(StackName=change_set.stack_id)


def execute(
    clients: Clients,
    change_set: ChangeSet,
    *,
    clock: Clock,
    progress: Progress | None = None,
    limit_s: float = _LIMIT_S,
) -> Stack:
    """Make the changes and wait until they are made.

    Raises:
        BackendError: A resource failed; the message has the first reasons. Or it took too long; it still goes on.
    """
    token = f"vrag-{clock.token_bytes(8).hex()}"
    with translated("ExecuteChangeSet", BACKEND):
        clients.cloudformation.execute_change_set(ChangeSetName=change_set.id, ClientRequestToken=token)
    stack = wait(clients, change_set.stack_id, len(change_set.changes), clock, progress, limit_s)
    if stack is None or stack.status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        status = stack.status if stack else "DELETE_COMPLETE"
        again = "destroy" if change_set.creates else "deploy"
        raise BackendError(
            f"The stack '{change_set.name}' ended as {status}. {reasons(clients, change_set.stack_id, token)}",
            backend=BACKEND,
            operation="ExecuteChangeSet",
            hint=f"vrag aws {again} --name {change_set.name}",
        )
    return stack


def wait(
    clients: Clients,
    stack_id: str,
    total: int,
    clock: Clock,
    progress: Progress | None,
    limit_s: float = _LIMIT_S,
    *,
    deleting: bool = False,
) -> Stack | None:
    """The stack once nothing is in progress; None once it is deleted.

    Raises:
        BackendError: `limit_s` passed first.
    """
    ends = clock.monotonic_s() + limit_s
    while True:
        clock.sleep(_POLL_S)  # at once, CloudFormation may still tell how it was before
        stack = describe(clients, stack_id)
        if stack is None or stack.status == "DELETE_FAILED":
            return stack
        if not deleting and not stack.status.endswith("_IN_PROGRESS"):
            return stack
        if progress is not None:
            with suppress(BackendError):  # news are worth less than the wait
                wanted = "DELETE_COMPLETE" if stack.status.startswith("DELETE") else "COMPLETE"
                states = [one["ResourceStatus"] for one in resources(clients, stack_id)]
                progress(sum(state.endswith(wanted) for state in states), max(total, len(states)), stack.status)
        if clock.monotonic_s() >= ends:
            raise _late(f"bring the stack '{stack.name}' out of {stack.status}", f"vrag aws status --name {stack.name}")


def resources(clients: Clients, stack_id: str) -> list[dict[str, Any]]:
    """The resources of a stack, as CloudFormation lists them."""
    with translated("ListStackResources", BACKEND):
        pages = clients.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack_id)
        return [one for page in pages for one in page["StackResourceSummaries"]]


def reasons(clients: Clients, stack_id: str, token: str) -> str:
    """Why the operation with this token failed: what each resource says that failed by itself, the first one first."""
    found: list[str] = []
    seen = False
    with translated("DescribeStackEvents", BACKEND):
        pages = clients.cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
        for event in (event for page in pages for event in page["StackEvents"]):
            if event.get("ClientRequestToken") != token:
                if seen:
                    break  # they come newest first: what is older belongs to other operations
                continue
            seen = True
            reason = event.get("ResourceStatusReason", "")
            failed = event["ResourceStatus"].endswith("_FAILED") and not reason.startswith(_LATER)
            if failed and event["ResourceType"] != "AWS::CloudFormation::Stack":
                found.append(f"{event['LogicalResourceId']} ({event['ResourceType']}): {without_secrets(reason)}")
    return " ".join(reversed(found)) or "No resource gave a reason."


def _late(what: str, hint: str) -> BackendError:
    return BackendError(
        f"CloudFormation takes longer than expected to {what}; it goes on.", backend=BACKEND, retryable=True, hint=hint
    )
