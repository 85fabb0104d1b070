"""The end of a stack: real buckets over HTTP (moto), every other service by checked answers."""

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from vrag.backends.aws.infrastructure.destroy import destroy, empty_bucket, locked_until
from vrag.backends.aws.infrastructure.survey import survey
from vrag.backends.aws.infrastructure.template import STACK_TAG
from vrag.clock import SystemClock
from vrag.errors import AccessDeniedError, BackendError, UsageError
from vrag.testing.clock import FakeClock

OWNER = "123456789012"
KEY = {"KeyId": "11111111-2222-3333-4444-555555555555"}


NUMBERS = itertools.count()


@pytest.fixture
def s3(moto_url, s3_client):
    return s3_client(moto_url)


@pytest.fixture
def live(account, s3):
    """The account with real buckets. Every test has names of its own: the fake remembers what was locked and tagged."""
    account.clients = evolve(account.clients, s3=s3)
    account.names = evolve(account.names, stack=f"studio-{next(NUMBERS)}")
    return account


@pytest.fixture
def clock():
    return FakeClock(SystemClock().now())


def exists(s3, bucket):
    return bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]


def make_bucket(s3, name, *, tag=True, locked=False, objects=3):
    more = {"ObjectLockEnabledForBucket": True} if locked else {}
    s3.create_bucket(Bucket=name, **more)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if tag:
        stack = re.sub(r"-(media|ledger)-.*", "", name)
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": STACK_TAG, "Value": stack}]})
    for number in range(objects):
        for version in range(2):
            s3.put_object(Bucket=name, Key=f"pictures/{number}", Body=f"{number}/{version}".encode())
    if objects:
        s3.delete_object(Bucket=name, Key="pictures/0")


def tells_rest(account, *, there=(), key=None):
    """The answers of one survey, but for S3 and the stack."""
    asks = {
        "collection": (
            "batch_get_collection",
            {"collectionDetails": [{"name": account.names.stack}]},
            {"collectionDetails": []},
        ),
        "group": (
            "batch_get_collection_group",
            {"collectionGroupDetails": [{"name": account.names.stack}]},
            {"collectionGroupDetails": []},
        ),
    }
    for name, (operation, full, empty) in asks.items():
        account.tells("opensearchserverless", operation, full if name in there else empty)
    for name in ("encryption", "network", "data"):
        operation = "get_access_policy" if name == "data" else "get_security_policy"
        if name in there:
            kind = "accessPolicyDetail" if name == "data" else "securityPolicyDetail"
            account.tells("opensearchserverless", operation, {kind: {}})
        else:
            account.refuses("opensearchserverless", operation, "ResourceNotFoundException", "none", 404)
    for role in ("ingest", "generate", "audit"):
        if role in there:
            name = account.names.role(role)
            told = {"Path": "/", "RoleName": name, "RoleId": "A" * 16, "Arn": "arn:aws:iam::123456789012:role/x"}
            account.tells("iam", "get_role", {"Role": told | {"CreateDate": "2026-01-01T00:00:00Z"}})
        else:
            account.refuses("iam", "get_role", "NoSuchEntity", "none", 404)
    if key:
        account.tells("kms", "describe_key", {"KeyMetadata": KEY | {"KeyState": key}})
    else:
        account.refuses("kms", "describe_key", "NotFoundException", "none", 400)


def unheard(_done, _total, _state):
    """Nobody listens; the resources are counted all the same."""


ALL = ("collection", "group", "encryption", "network", "data", "ingest", "generate", "audit")


def deletes_stack(account, *, key=None):
    account.tells_stack("CREATE_COMPLETE")
    account.tells_stack("CREATE_COMPLETE")
    tells_rest(account, there=ALL, key=key)
    account.tells("cloudformation", "delete_stack", {})
    account.tells_stack("DELETE_IN_PROGRESS")
    account.lists("DELETE_COMPLETE", "DELETE_IN_PROGRESS")
    account.tells_stack("DELETE_COMPLETE")


def test_a_bucket_is_emptied_of_versions_markers_and_unfinished_uploads(s3):
    make_bucket(s3, "studio-full", objects=5)
    s3.create_multipart_upload(Bucket="studio-full", Key="half")
    assert empty_bucket(s3_only(s3), "studio-full", OWNER) == 11
    told = s3.list_object_versions(Bucket="studio-full")
    assert not told.get("Versions")
    assert not told.get("DeleteMarkers")
    assert not s3.list_multipart_uploads(Bucket="studio-full").get("Uploads")
    s3.delete_bucket(Bucket="studio-full")


def s3_only(s3):
    from vrag.backends.aws.infrastructure.stack import Clients

    return Clients(cloudformation=None, s3=s3, opensearchserverless=None, iam=None, kms=None, sts=None)


def test_a_bucket_of_more_than_one_page_is_emptied(s3, monkeypatch):
    monkeypatch.setattr("vrag.backends.aws.infrastructure.destroy._PAGE", 7)
    make_bucket(s3, "studio-pages", objects=12)
    notes = []
    assert empty_bucket(s3_only(s3), "studio-pages", OWNER, notes.append) == 25
    assert s3.list_objects_v2(Bucket="studio-pages")["KeyCount"] == 0


def test_everything_goes_and_every_service_is_asked_afterwards(live, s3, clock):
    names = live.names
    make_bucket(s3, names.media_bucket)
    make_bucket(s3, names.ledger_bucket, locked=True)  # nothing in it is locked any more
    deletes_stack(live)
    live.has_no_stack()
    tells_rest(live)
    notes, news = [], []
    done = destroy(live.clients, names, clock=clock, progress=lambda *told: news.append(told), note=notes.append)
    assert done.left == ()
    assert done.kept == {}
    assert {one.state for one in done.things} == {"gone"}
    assert len(done.things) == 12
    assert news == [(1, 2, "DELETE_IN_PROGRESS")]
    assert notes[0] == f"deleting the stack {names.stack}"
    assert not exists(s3, names.media_bucket)
    assert not exists(s3, names.ledger_bucket)
    live.all_was_asked()


def test_a_locked_bucket_is_left_whole_with_its_key_and_says_until_when(live, s3, clock):
    names = live.names
    make_bucket(s3, names.media_bucket)
    make_bucket(s3, names.ledger_bucket, locked=True)
    until = clock.now() + timedelta(days=3)
    s3.put_object(
        Bucket=names.ledger_bucket,
        Key="checkpoints/1",
        Body=b"x",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=until,
    )
    before = len(s3.list_object_versions(Bucket=names.ledger_bucket)["Versions"])
    deletes_stack(live, key="Enabled")
    live.has_no_stack()
    tells_rest(live, key="Enabled")
    live.tells("kms", "describe_key", {"KeyMetadata": KEY | {"KeyState": "Enabled"}})
    done = destroy(live.clients, names, clock=clock, progress=unheard)
    assert set(done.kept) == {names.ledger_bucket, KEY["KeyId"], names.alias}
    assert f"{until:%Y-%m-%d}" in done.kept[names.ledger_bucket]
    assert "it decrypts" in done.kept[KEY["KeyId"]]
    assert done.left == ()
    assert len(s3.list_object_versions(Bucket=names.ledger_bucket)["Versions"]) == before
    assert exists(s3, names.ledger_bucket)
    assert not exists(s3, names.media_bucket)
    live.all_was_asked()


def test_a_legal_hold_keeps_a_bucket_too(s3):
    make_bucket(s3, "studio-held", locked=True, objects=1)
    s3.put_object(Bucket="studio-held", Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")
    assert locked_until(s3_only(s3), "studio-held", OWNER)[1] is True


def test_what_s3_does_not_delete_is_left_and_the_rest_goes_on(live, s3, clock):
    names = live.names
    make_bucket(s3, names.media_bucket)
    make_bucket(s3, names.ledger_bucket, locked=True)
    s3.put_object(
        Bucket=names.ledger_bucket,
        Key="checkpoints/1",
        Body=b"x",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=clock.now() + timedelta(days=1),
    )
    clock.advance(2 * 86_400)  # this machine's clock is wrong: S3 still holds it
    deletes_stack(live)
    live.has_no_stack()
    tells_rest(live)
    done = destroy(live.clients, names, clock=clock, progress=unheard)
    assert [one.id for one in done.left] == [names.ledger_bucket]
    assert "AccessDenied" in done.failed[names.ledger_bucket]
    assert (("bucket", names.media_bucket, "gone", "")) in done.rows()


def test_the_key_is_deleted_last_and_its_end_is_shown(live, s3, clock):
    make_bucket(s3, live.names.media_bucket)
    deletes_stack(live, key="Enabled")
    live.tells("kms", "list_resource_tags", {"Tags": [{"TagKey": STACK_TAG, "TagValue": live.names.stack}]})
    live.tells("kms", "schedule_key_deletion", {}, KEY | {"PendingWindowInDays": 7})
    live.tells("kms", "delete_alias", {}, {"AliasName": live.names.alias})
    live.has_no_stack()
    tells_rest(live)
    ending = KEY | {"KeyState": "PendingDeletion", "DeletionDate": datetime(2026, 12, 1, tzinfo=UTC)}
    live.tells("kms", "describe_key", {"KeyMetadata": ending}, KEY)
    done = destroy(live.clients, live.names, clock=clock, progress=unheard)
    assert done.left == ()
    assert ("key", KEY["KeyId"], "ending", "KMS deletes it on 2026-12-01; it costs nothing") in done.rows()
    live.all_was_asked()


def test_buckets_that_a_deleted_stack_left_are_found_by_their_names(live, s3, clock):
    make_bucket(s3, live.names.media_bucket)
    live.has_no_stack()
    live.has_no_stack()
    tells_rest(live)
    live.has_no_stack()
    tells_rest(live)
    done = destroy(live.clients, live.names, clock=clock, progress=unheard)
    assert done.left == ()
    assert not exists(s3, live.names.media_bucket)


def test_a_bucket_without_our_tag_is_left_alone(live, s3, clock):
    make_bucket(s3, live.names.media_bucket, tag=False)
    live.has_no_stack()
    live.has_no_stack()
    tells_rest(live)
    live.has_no_stack()
    tells_rest(live)
    done = destroy(live.clients, live.names, clock=clock, progress=unheard)
    assert [one.id for one in done.left] == [live.names.media_bucket]
    assert "no tag" in done.failed[live.names.media_bucket]
    assert s3.list_objects_v2(Bucket=live.names.media_bucket)["KeyCount"] == 2


def test_a_stack_that_cannot_be_deleted_stops_everything_before_data_is_touched(live, s3, clock):
    make_bucket(s3, live.names.media_bucket)
    live.tells_stack("CREATE_COMPLETE")
    live.tells_stack("CREATE_COMPLETE")
    tells_rest(live, there=ALL)
    live.tells("cloudformation", "delete_stack", {})
    live.tells_stack("DELETE_FAILED")
    failed = {
        "StackId": "arn:studio",
        "EventId": "1",
        "StackName": live.names.stack,
        "Timestamp": "2026-01-01T00:00:00Z",
        "LogicalResourceId": "IngestRole",
        "ResourceType": "AWS::IAM::Role",
        "ResourceStatus": "DELETE_FAILED",
        "ResourceStatusReason": "Cannot delete entity, must detach all policies first",
        "ClientRequestToken": f"vrag-{FakeClock().token_bytes(8).hex()}",
    }
    live.tells("cloudformation", "describe_stack_events", {"StackEvents": [failed]})
    with pytest.raises(BackendError, match=r"IngestRole.*must detach") as error:
        destroy(live.clients, live.names, clock=clock, progress=unheard)
    assert error.value.hint == f"vrag aws destroy --name {live.names.stack}"
    assert s3.list_objects_v2(Bucket=live.names.media_bucket)["KeyCount"] == 2


def test_what_is_still_there_afterwards_is_left_whatever_cloudformation_said(live, clock):
    deletes_stack(live)
    live.has_no_stack()
    tells_rest(live, there=("collection", "audit"))
    done = destroy(live.clients, live.names, clock=clock, progress=unheard)
    assert [(one.kind, one.state) for one in done.left] == [("collection", "there"), ("role", "there")]


def test_a_service_that_does_not_say_is_not_taken_for_gone(live):
    live.refuses("cloudformation", "describe_stacks", "AccessDenied", "no", 403)
    live.refuses("opensearchserverless", "batch_get_collection", "AccessDeniedException", "no", 403)
    live.tells("opensearchserverless", "batch_get_collection_group", {"collectionGroupDetails": []})
    for _ in range(2):
        live.refuses("opensearchserverless", "get_security_policy", "ResourceNotFoundException", "", 404)
    live.refuses("opensearchserverless", "get_access_policy", "ResourceNotFoundException", "", 404)
    for _ in range(3):
        live.refuses("iam", "get_role", "AccessDenied", "no", 403)
    live.refuses("kms", "describe_key", "AccessDeniedException", "no", 400)
    found = survey(live.clients, live.names)
    unknown = [one.kind for one in found if one.state == "unknown"]
    assert unknown == ["stack", "collection", "role", "role", "role", "key alias"]
    assert all(one.detail for one in found if one.state == "unknown")


def test_destroy_refuses_a_stack_of_somebody_else_and_says_when_it_may_not_look(live, clock):
    live.tells_stack("CREATE_COMPLETE", Tags=[])
    with pytest.raises(UsageError, match="left alone"):
        destroy(live.clients, live.names, clock=clock, progress=unheard)
    live.refuses("cloudformation", "describe_stacks", "AccessDenied", "no", 403)
    with pytest.raises(AccessDeniedError):
        destroy(live.clients, live.names, clock=clock, progress=unheard)
