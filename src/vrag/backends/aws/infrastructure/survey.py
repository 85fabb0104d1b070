"""What of a stack is in an account: each service is asked for each thing by its name, whatever CloudFormation says.

Names hold nothing random, so this works before a stack is made, while it is there, and after it was deleted.
Sources: service models of `s3`, `opensearchserverless`, `iam`, `kms` and `cloudformation` in botocore 1.44 (2026-11-20).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal

from attrs import frozen
from botocore.exceptions import ClientError

from vrag.backends.aws.errors import translated
from vrag.backends.aws.infrastructure.choices import Names
from vrag.backends.aws.infrastructure.stack import Clients, bucket_exists, describe, error_code
from vrag.backends.aws.infrastructure.template import ROLES
from vrag.errors import BackendError

__all__ = ["Thing", "survey"]

State = Literal["there", "gone", "ending", "unknown"]
_ABSENT: Final = frozenset({"NoSuchEntity", "NotFoundException", "ResourceNotFoundException"})


@frozen(kw_only=True)
class Thing:
    """One thing of a stack, and whether it is there."""

    kind: str
    id: str
    state: State
    """`ending`: KMS deletes it on a day that is set; `unknown`: the service did not say."""
    detail: str = ""


def survey(clients: Clients, names: Names, *, key_id: str | None = None) -> tuple[Thing, ...]:
    """Everything that a stack of this name can hold.

    Args:
        clients: Of the account and Region.
        names: Of the stack.
        key_id: The KMS key, where it is known; else its alias tells.
    """
    return tuple(_looked_at(clients, names, key_id))


def _looked_at(clients: Clients, names: Names, key_id: str | None) -> Iterator[Thing]:
    stack = names.stack
    yield _thing("stack", stack, lambda: describe(clients, stack))
    for bucket in (names.media_bucket, names.ledger_bucket):
        yield _thing("bucket", bucket, partial(bucket_exists, clients, bucket, names.account))
    aoss = clients.opensearchserverless
    yield _thing("collection", stack, lambda: aoss.batch_get_collection(names=[stack])["collectionDetails"])
    yield _thing("collection group", stack, lambda: _groups(aoss, stack))
    for kind in ("encryption", "network"):
        policy = f"{stack}-{kind[:3]}"
        yield _thing(f"{kind} policy", policy, partial(aoss.get_security_policy, name=policy, type=kind))
    policy = f"{stack}-data"
    yield _thing("data access policy", policy, partial(aoss.get_access_policy, name=policy, type="data"))
    for role in ROLES:
        name = names.role(role)
        yield _thing("role", name, partial(clients.iam.get_role, RoleName=name))
    yield from _keys(clients, names, key_id)


def _groups(aoss: Any, name: str) -> Any:
    if not hasattr(aoss, "batch_get_collection_group"):
        raise BackendError("This boto3 does not know collection groups.", hint="pip install --upgrade boto3")
    return aoss.batch_get_collection_group(names=[name])["collectionGroupDetails"]


def _keys(clients: Clients, names: Names, key_id: str | None) -> Iterator[Thing]:
    found: dict[str, Any] = {}

    def look(which: str) -> bool:
        found.update(clients.kms.describe_key(KeyId=which)["KeyMetadata"])
        return True

    alias = _thing("key alias", names.alias, partial(look, names.alias))
    yield alias
    if key_id is not None:
        found.clear()
        key = _thing("key", key_id, partial(look, key_id))
        if key.state != "there":
            yield key
    if found.get("KeyState") == "PendingDeletion":
        day = found["DeletionDate"].date().isoformat() if "DeletionDate" in found else "a day that KMS did not say"
        yield Thing(kind="key", id=found["KeyId"], state="ending", detail=f"KMS deletes it on {day}; it costs nothing")
    elif found:
        yield Thing(kind="key", id=found["KeyId"], state="there")


def _thing(kind: str, name: str, look: Callable[[], Any]) -> Thing:
    """Ask; an answer that is empty, or that there is no such thing, means gone."""
    try:
        with translated(f"look for the {kind}", "aws"):
            try:
                state: State = "there" if look() else "gone"
            except ClientError as error:
                if error_code(error) not in _ABSENT:
                    raise
                state = "gone"
    except BackendError as error:
        return Thing(kind=kind, id=name, state="unknown", detail=error.message)
    return Thing(kind=kind, id=name, state=state)
