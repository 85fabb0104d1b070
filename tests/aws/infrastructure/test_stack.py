"""Change sets, waiting and failures of a stack, against answers that botocore's service model has checked."""

import json

import pytest
from botocore.stub import ANY

from vrag.backends.aws.infrastructure.choices import Infrastructure
from vrag.backends.aws.infrastructure.stack import describe, discard, execute, prepare
from vrag.backends.aws.infrastructure.template import STACK_TAG, body
from vrag.errors import AccessDeniedError, BackendError, UsageError
from vrag.testing.clock import FakeClock

STUDIO = Infrastructure(name="studio")
MADE = {"Id": "arn:change", "StackId": "arn:studio"}
ROLE_ARN = "arn:aws:iam::123456789012:role/video-team"


def change(action, name, kind="AWS::S3::Bucket", **more):
    return {
        "Type": "Resource",
        "ResourceChange": {"Action": action, "LogicalResourceId": name, "ResourceType": kind, **more},
    }


def settings(**changed):
    return [{"OutputKey": "Settings", "OutputValue": json.dumps(STUDIO.settings | changed)}]


def free_account(account):
    account.has_no_stack()
    account.tells_caller()
    account.refuses("s3", "head_bucket", "404", "Not Found", 404)


def event(name, status, reason="", token="vrag-token", kind="AWS::S3::Bucket"):
    return {
        "StackId": "arn:studio",
        "StackName": "studio",
        "EventId": f"{name}-{status}",
        "LogicalResourceId": name,
        "ResourceType": kind,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "Timestamp": "2026-01-01T00:00:00Z",
        "ClientRequestToken": token,
    }


@pytest.fixture
def clock():
    return FakeClock()


def token_of(clock_seed):
    clock = FakeClock(seed=clock_seed)
    clock.token_bytes(8)
    return f"vrag-{clock.token_bytes(8).hex()}"


def test_a_new_stack_is_prepared_with_everything_that_it_needs(account, clock):
    free_account(account)
    asked = {
        "StackName": "studio",
        "ChangeSetName": ANY,
        "ClientToken": ANY,
        "ChangeSetType": "CREATE",
        "TemplateBody": body(STUDIO),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Parameters": [{"ParameterKey": "GeneratePrincipals", "ParameterValue": ROLE_ARN}],
        "Tags": [{"Key": STACK_TAG, "Value": "studio"}],
    }
    account.tells("cloudformation", "create_change_set", MADE, asked)
    account.tells("cloudformation", "describe_change_set", {"Status": "CREATE_IN_PROGRESS"})
    first = {"Status": "CREATE_COMPLETE", "Changes": [change("Add", "MediaBucket")], "NextToken": "more"}
    account.tells("cloudformation", "describe_change_set", first)
    rest = {"Status": "CREATE_COMPLETE", "Changes": [change("Add", "AuditRole", "AWS::IAM::Role")]}
    account.tells("cloudformation", "describe_change_set", rest, {"ChangeSetName": "arn:change", "NextToken": "more"})
    prepared = prepare(account.clients, STUDIO, {"generate": (ROLE_ARN,)}, clock=clock)
    assert prepared is not None
    assert prepared.creates
    assert [(one.action, one.logical_id) for one in prepared.changes] == [("Add", "MediaBucket"), ("Add", "AuditRole")]
    assert clock.slept_s == (5.0,)
    account.all_was_asked()


def test_an_update_keeps_the_principals_that_nobody_named_and_shows_what_is_replaced(account, clock):
    parameters = [{"ParameterKey": "AuditPrincipals", "ParameterValue": ROLE_ARN}]
    account.tells_stack("UPDATE_COMPLETE", Parameters=parameters, Outputs=settings())
    asked = {"ChangeSetType": "UPDATE", "Parameters": [{"ParameterKey": "AuditPrincipals", "UsePreviousValue": True}]}
    rest = dict.fromkeys(("StackName", "ChangeSetName", "ClientToken", "TemplateBody", "Capabilities", "Tags"), ANY)
    account.tells("cloudformation", "create_change_set", MADE, asked | rest)
    changes = [
        change("Modify", "Collection", Replacement="True"),
        change("Remove", "LedgerBucket", PolicyAction="Retain"),
        change("Modify", "AuditRole", Replacement="False"),
    ]
    account.tells("cloudformation", "describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": changes})
    prepared = prepare(account.clients, STUDIO, {}, clock=clock)
    assert prepared is not None
    assert not prepared.creates
    assert [(one.replaced, one.kept) for one in prepared.changes] == [(True, False), (False, True), (False, False)]
    account.all_was_asked()


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_no_changes_is_no_error_and_leaves_no_change_set(account, clock, reason):
    account.tells_stack("CREATE_COMPLETE", Outputs=settings())
    account.tells("cloudformation", "create_change_set", MADE)
    account.tells("cloudformation", "describe_change_set", {"Status": "FAILED", "StatusReason": reason})
    account.tells("cloudformation", "delete_change_set", {}, {"ChangeSetName": "arn:change"})
    assert prepare(account.clients, STUDIO, {}, clock=clock) is None
    account.all_was_asked()


def test_a_refused_template_tells_why_without_the_account_number(account, clock):
    account.tells_stack("CREATE_COMPLETE", Outputs=settings())
    account.tells("cloudformation", "create_change_set", MADE)
    reason = "Role arn:aws:iam::123456789012:role/x is invalid"
    account.tells("cloudformation", "describe_change_set", {"Status": "FAILED", "StatusReason": reason})
    account.tells("cloudformation", "delete_change_set", {})
    with pytest.raises(BackendError, match="is invalid") as failed:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert "123456789012" not in failed.value.message


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED"])
def test_a_stack_that_failed_to_be_made_must_be_deleted_first(account, clock, status):
    account.tells_stack(status)
    with pytest.raises(UsageError, match=f"{status}.*deleted first") as refused:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert refused.value.hint == "vrag aws destroy --name studio"


def test_a_busy_stack_and_one_stuck_in_a_roll_back_are_refused(account, clock):
    account.tells_stack("UPDATE_IN_PROGRESS")
    with pytest.raises(UsageError, match="wait") as refused:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert refused.value.hint == "vrag aws status --name studio"
    account.tells_stack("UPDATE_ROLLBACK_FAILED")
    with pytest.raises(UsageError, match="roll-back") as refused:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert "continue-update-rollback" in str(refused.value.hint)


def test_a_stack_of_somebody_else_is_left_alone(account, clock):
    account.tells_stack("CREATE_COMPLETE", Tags=[])
    with pytest.raises(UsageError, match="vrag did not make"):
        prepare(account.clients, STUDIO, {}, clock=clock)


def test_a_bucket_of_an_earlier_stack_is_found_before_anything_is_made(account, clock):
    account.has_no_stack()
    account.tells_caller()
    account.tells(
        "s3", "head_bucket", {}, {"Bucket": account.names.media_bucket, "ExpectedBucketOwner": "123456789012"}
    )
    with pytest.raises(UsageError, match="earlier stack") as refused:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert refused.value.hint == "vrag aws destroy --name studio"


@pytest.mark.parametrize(
    ("before", "flag"),
    [
        ({"kms": True}, "--kms"),
        ({"generation": "classic"}, "--generation classic"),
        ({"standby": False}, "--no-standby"),
        ({"object_lock_days": 90}, "--object-lock 90"),
    ],
)
def test_what_holds_data_cannot_be_changed_by_forgetting_a_flag(account, clock, before, flag):
    account.tells_stack("CREATE_COMPLETE", Outputs=settings(**before))
    with pytest.raises(UsageError) as refused:
        prepare(account.clients, STUDIO, {}, clock=clock)
    assert refused.value.hint == f"vrag aws deploy --name studio {flag}"


def test_a_wildcard_principal_is_refused_before_anything_is_sent(account, clock):
    free_account(account)
    with pytest.raises(UsageError, match="without wildcards"):
        prepare(account.clients, STUDIO, {"audit": ("*",)}, clock=clock)


def test_access_denied_is_said_as_such(account, clock):
    account.refuses("cloudformation", "describe_stacks", "AccessDenied", "User is not authorized", 403)
    with pytest.raises(AccessDeniedError, match="DescribeStacks"):
        prepare(account.clients, STUDIO, {}, clock=clock)


def prepared_change(account, clock):
    free_account(account)
    account.tells("cloudformation", "create_change_set", MADE)
    changes = [change("Add", "MediaBucket"), change("Add", "AuditRole")]
    account.tells("cloudformation", "describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": changes})
    prepared = prepare(account.clients, STUDIO, {}, clock=clock)
    assert prepared is not None
    return prepared


def test_changes_are_made_and_waited_for_with_news(account, clock):
    prepared = prepared_change(account, clock)
    account.tells(
        "cloudformation", "execute_change_set", {}, {"ChangeSetName": "arn:change", "ClientRequestToken": ANY}
    )
    account.tells_stack("CREATE_IN_PROGRESS")
    account.lists("CREATE_COMPLETE", "CREATE_IN_PROGRESS")
    account.tells_stack("CREATE_COMPLETE", Outputs=[{"OutputKey": "MediaBucketName", "OutputValue": "b"}])
    news = []
    stack = execute(account.clients, prepared, clock=clock, progress=lambda *told: news.append(told))
    assert stack.outputs == {"MediaBucketName": "b"}
    assert news == [(1, 2, "CREATE_IN_PROGRESS")]
    account.all_was_asked()


def test_a_failed_creation_tells_the_cause_and_the_next_command(account):
    clock = FakeClock(seed=7)
    prepared = prepared_change(account, clock)
    token = token_of(7)
    account.tells("cloudformation", "execute_change_set", {})
    account.tells_stack("ROLLBACK_COMPLETE")
    # Newest first, as CloudFormation lists them; an older operation has another token.
    events = [
        event("studio", "ROLLBACK_COMPLETE", "", token, "AWS::CloudFormation::Stack"),
        event("AuditRole", "CREATE_FAILED", "Resource creation cancelled", token),
        event("Collection", "CREATE_FAILED", "Second thing", token, "AWS::OpenSearchServerless::Collection"),
        event("MediaBucket", "CREATE_FAILED", "studio-media-123456789012 already exists", token),
        event("Key", "CREATE_FAILED", "an old failure", "another"),
    ]
    account.tells("cloudformation", "describe_stack_events", {"StackEvents": events})
    with pytest.raises(BackendError) as failed:
        execute(account.clients, prepared, clock=clock)
    message = failed.value.message
    assert "ended as ROLLBACK_COMPLETE" in message
    assert message.index("MediaBucket (AWS::S3::Bucket): ") < message.index("Second thing")
    assert "already exists" in message
    assert "cancelled" not in message
    assert "an old failure" not in message
    assert "123456789012" not in message
    assert failed.value.hint == "vrag aws destroy --name studio"


def test_waiting_ends_and_says_that_the_stack_goes_on(account, clock):
    prepared = prepared_change(account, clock)
    account.tells("cloudformation", "execute_change_set", {})
    for _ in range(3):
        account.tells_stack("CREATE_IN_PROGRESS")
    with pytest.raises(BackendError, match="it goes on") as late:
        execute(account.clients, prepared, clock=clock, limit_s=12)
    assert late.value.retryable
    assert late.value.hint == "vrag aws status --name studio"


def test_changes_that_nobody_wants_leave_nothing(account, clock):
    prepared = prepared_change(account, clock)
    account.tells("cloudformation", "delete_change_set", {}, {"ChangeSetName": "arn:change"})
    account.tells("cloudformation", "delete_stack", {}, {"StackName": "arn:studio"})
    discard(account.clients, prepared)
    account.all_was_asked()


def test_a_deleted_stack_is_no_stack(account):
    account.tells_stack("DELETE_COMPLETE")
    assert describe(account.clients, "arn:studio") is None
