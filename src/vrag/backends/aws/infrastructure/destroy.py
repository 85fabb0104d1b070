"""The end of a stack: what it made and kept is emptied and deleted, and then every service is asked whether it is gone.

Sources, all read 2026-11-20: "Deleting a bucket", "Deleting object versions from a versioning-enabled bucket", "How S3
Object Lock works" (Amazon S3 User Guide); "ScheduleKeyDeletion" (AWS KMS API Reference); "Deleting a stack"
(CloudFormation User Guide).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from attrs import field, frozen
from botocore.exceptions import ClientError

from vrag.backends.aws.errors import translated, without_secrets
from vrag.backends.aws.infrastructure.choices import Names
from vrag.backends.aws.infrastructure.stack import (
    BACKEND,
    Clients,
    Progress,
    check_ours,
    describe,
    error_code,
    reasons,
    wait,
)
from vrag.backends.aws.infrastructure.survey import Thing, survey
from vrag.backends.aws.infrastructure.template import STACK_TAG
from vrag.clock import Clock
from vrag.errors import BackendError, UsageError, VRAGError
from vrag.values.canonical import JSON

__all__ = ["Destroyed", "destroy", "empty_bucket", "locked_until"]

Note = Callable[[str], None]
_PAGE: Final = 1000
_KEY_WAIT_DAYS: Final = 7
"""The shortest that KMS allows."""


@frozen(kw_only=True)
class Destroyed:
    """What is there after the end."""

    things: tuple[Thing, ...] = field(converter=tuple[Thing, ...])
    """Everything that the stack could hold, as each service told of it afterwards."""
    kept: Mapping[str, str] = field(factory=dict)
    """What was left on purpose, with the reason: it is locked, or it decrypts what is."""
    failed: Mapping[str, str] = field(factory=dict)
    """What could not be deleted, with the reason."""

    @property
    def left(self) -> tuple[Thing, ...]:
        """What should be gone and is not, or nobody knows."""
        return tuple(one for one in self.things if one.state in {"there", "unknown"} and one.id not in self.kept)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(kind, id, what became of it, why) for a table; with what never was there."""
        return [(one.kind, one.id, self._became(one), self._why(one)) for one in self.things]

    def _became(self, thing: Thing) -> str:
        return "kept" if thing.id in self.kept and thing.state == "there" else thing.state

    def _why(self, thing: Thing) -> str:
        return self.kept.get(thing.id) or self.failed.get(thing.id) or thing.detail

    def to_json(self) -> dict[str, JSON]:
        """As JSON."""
        heads = ("kind", "id", "state", "why")
        return {
            "things": [dict(zip(heads, row, strict=True)) for row in self.rows()],
            "left": [one.id for one in self.left],
        }


def destroy(
    clients: Clients, names: Names, *, clock: Clock, progress: Progress | None = None, note: Note | None = None
) -> Destroyed:
    """Delete the stack and everything that it made, then ask each service what is still there.

    The stack goes first, with its roles, so that nobody writes while the buckets are emptied. A bucket with objects
    under Object Lock is not touched, and the key that decrypts it stays; call it again once the lock has ended. What
    fails is told in the answer, and the rest is done all the same.

    Args:
        clients: Of the account and Region.
        names: Of the stack.
        clock: Waits, and says whether a lock has ended.
        progress: Of the deletion of the stack.
        note: Told what is being done.

    Raises:
        UsageError: The stack is somebody else's.
        AccessDeniedError: The caller may not look at the stack or delete it.
        BackendError: The stack could not be deleted; the buckets were not touched.
    """
    tell = note or (lambda _line: None)
    stack = describe(clients, names.stack)
    check_ours(stack)
    before = survey(clients, names)
    if stack is not None:
        tell(f"deleting the stack {stack.name}")
        _delete_stack(clients, stack.id, stack.name, clock, progress)
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    for bucket in (one.id for one in before if one.kind == "bucket" and one.state == "there"):
        try:
            why = _delete_bucket(clients, bucket, names, clock, tell)
        except VRAGError as error:
            failed[bucket] = error.message
        else:
            kept |= {bucket: why} if why else {}
    keys = [one.id for one in before if one.kind == "key" and one.state == "there"]
    needed = [one.id for one in before if one.kind == "bucket" and one.state != "gone" and one.id in {*kept, *failed}]
    for key in keys:
        if needed:
            kept |= dict.fromkeys((key, names.alias), f"it decrypts {needed[0]}")
            continue
        try:
            tell(f"deleting the key {key}")
            _delete_key(clients, key, names)
        except VRAGError as error:
            failed[key] = error.message
    after = survey(clients, names, key_id=keys[0] if keys else None)
    return Destroyed(things=after, kept=kept, failed=failed)


def _delete_stack(clients: Clients, stack_id: str, name: str, clock: Clock, progress: Progress | None) -> None:
    token = f"vrag-{clock.token_bytes(8).hex()}"
    with translated("DeleteStack", BACKEND):
        clients.cloudformation.delete_stack(StackName=stack_id, ClientRequestToken=token)
    if wait(clients, stack_id, 0, clock, progress, deleting=True) is not None:
        raise BackendError(
            f"The stack '{name}' ended as DELETE_FAILED. {reasons(clients, stack_id, token)} Its buckets were not touched.",
            backend=BACKEND,
            operation="DeleteStack",
            hint=f"vrag aws destroy --name {name}",
        )


def _delete_bucket(clients: Clients, bucket: str, names: Names, clock: Clock, tell: Note) -> str | None:
    """Empty a bucket and delete it; why it was left, where it is locked."""
    with translated("GetBucketTagging", "s3"):
        try:
            told = clients.s3.get_bucket_tagging(Bucket=bucket, ExpectedBucketOwner=names.account)["TagSet"]
        except ClientError as error:
            if error_code(error) != "NoSuchTagSet":
                raise
            told = []
    _check_tag(f"bucket '{bucket}'", {one["Key"]: one["Value"] for one in told}, names)
    until, held = locked_until(clients, bucket, names.account)
    if held:
        return "it has objects under a legal hold; lift it (s3:PutObjectLegalHold), then destroy again"
    if until is not None and until > clock.now():
        return (
            f"Object Lock (COMPLIANCE) holds objects until {until:%Y-%m-%d %H:%M} UTC; nobody can delete them before, "
            "the root of the account neither. Destroy again after that"
        )
    tell(f"emptying the bucket {bucket}")
    count = empty_bucket(clients, bucket, names.account, tell)
    tell(f"{count} versions deleted from {bucket}")
    with translated("DeleteBucket", "s3"):
        clients.s3.delete_bucket(Bucket=bucket, ExpectedBucketOwner=names.account)
    return None


def _check_tag(what: str, tags: Mapping[str, str], names: Names) -> None:
    if tags.get(STACK_TAG) != names.stack:
        raise UsageError(
            f"The {what} has no tag {STACK_TAG}={names.stack}: it may be somebody else's, and is left alone."
        )


def locked_until(clients: Clients, bucket: str, account: str) -> tuple[datetime | None, bool]:
    """Until when Object Lock holds something in a bucket, and whether a legal hold does; one question per version.

    Raises:
        AccessDeniedError: The caller may not look.
        BackendError: S3 failed.
    """
    where = {"Bucket": bucket, "ExpectedBucketOwner": account}
    with translated("GetObjectLockConfiguration", "s3"):
        try:
            clients.s3.get_object_lock_configuration(**where)
        except ClientError as error:
            if error_code(error) == "ObjectLockConfigurationNotFoundError":
                return None, False
            raise
    latest: datetime | None = None
    with translated("HeadObject", "s3"):
        for page in clients.s3.get_paginator("list_object_versions").paginate(**where):
            for one in page.get("Versions", ()):  # a delete marker cannot be locked
                told = clients.s3.head_object(**where, Key=one["Key"], VersionId=one["VersionId"])
                if told.get("ObjectLockLegalHoldStatus") == "ON":
                    return latest, True
                until = told.get("ObjectLockRetainUntilDate")
                latest = until if until and (latest is None or until > latest) else latest
    return latest, False


def empty_bucket(clients: Clients, bucket: str, account: str, note: Note | None = None) -> int:
    """Delete every version, delete marker and unfinished upload of a bucket, page by page; how many versions there were.

    Raises:
        BackendError: S3 did not delete some of them; the message has the first reason.
    """
    where = {"Bucket": bucket, "ExpectedBucketOwner": account}
    count = 0
    with translated("AbortMultipartUpload", "s3"):
        for page in clients.s3.get_paginator("list_multipart_uploads").paginate(**where):
            for one in page.get("Uploads", ()):
                clients.s3.abort_multipart_upload(**where, Key=one["Key"], UploadId=one["UploadId"])
    while True:
        # The first page again and again: what stands on it is gone by the next question.
        with translated("ListObjectVersions", "s3"):
            page = clients.s3.list_object_versions(**where, MaxKeys=_PAGE)
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not found:
            return count
        with translated("DeleteObjects", "s3"):
            told = clients.s3.delete_objects(
                **where,
                Delete={
                    "Objects": [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found],
                    "Quiet": True,
                },
            )
        if refused := told.get("Errors"):
            raise BackendError(
                f"S3 did not delete {len(refused)} of {len(found)} versions of '{bucket}': {refused[0].get('Code')} "
                f"{without_secrets(refused[0].get('Message', ''))}",
                backend="s3",
                operation="DeleteObjects",
            )
        count += len(found)
        if note is not None and count % (10 * _PAGE) == 0:
            note(f"{count} versions deleted from {bucket}")


def _delete_key(clients: Clients, key: str, names: Names) -> None:
    with translated("ListResourceTags", "kms"):
        tags = clients.kms.list_resource_tags(KeyId=key)["Tags"]
    _check_tag(f"KMS key '{key}'", {one["TagKey"]: one["TagValue"] for one in tags}, names)
    with translated("ScheduleKeyDeletion", "kms"):
        clients.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=_KEY_WAIT_DAYS)
    with translated("DeleteAlias", "kms"):
        clients.kms.delete_alias(AliasName=names.alias)
