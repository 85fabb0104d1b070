"""`vrag aws`: what the commands say, ask and return."""

import io
import json

import pytest

from vrag.backends.aws.infrastructure.choices import Infrastructure
from vrag.backends.aws.infrastructure.cost import HOURS_A_MONTH, forecast
from vrag.backends.aws.infrastructure.permissions import WILDCARDS
from vrag.backends.aws.infrastructure.template import template
from vrag.cli.app import app, run
from vrag.cli.infrastructure import aws

STUDIO = Infrastructure(name="studio")
MADE = {"Id": "arn:change", "StackId": "arn:studio"}
ADDED = {"Action": "Add", "LogicalResourceId": "MediaBucket", "ResourceType": "AWS::S3::Bucket"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(app.commands, "aws", aws)


@pytest.fixture
def vrag(account, capsys, monkeypatch, registered):
    """Runs a command against the account; `typed` is what a person types, None is no terminal."""
    monkeypatch.setattr("vrag.cli.infrastructure._clients", lambda *_given: account.clients)

    def call(*arguments, typed=None):
        monkeypatch.setattr("sys.stdin", io.StringIO() if typed is None else Terminal(typed))
        capsys.readouterr()
        code = run(["aws", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def prepares(account):
    account.has_no_stack()
    account.tells_caller()
    account.refuses("s3", "head_bucket", "404", "Not Found", 404)
    account.tells("cloudformation", "create_change_set", MADE)
    changes = [{"Type": "Resource", "ResourceChange": ADDED}]
    account.tells("cloudformation", "describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": changes})


def finishes(account, monkeypatch):
    monkeypatch.setattr("vrag.backends.aws.infrastructure.stack._POLL_S", 0.0)
    account.tells("cloudformation", "execute_change_set", {})
    toml = {"OutputKey": "VragToml", "OutputValue": '[aws]\nregion = "us-west-2"'}
    arn = {"OutputKey": "AuditRoleArn", "OutputValue": "arn:aws:iam::123456789012:role/studio-audit-us-west-2"}
    account.tells_stack("CREATE_COMPLETE", Outputs=[toml, arn])


def test_the_template_is_printed_and_written(vrag, tmp_path):
    code, out, _ = vrag("template", "--name", "studio")
    assert (code, json.loads(out)) == (0, template(STUDIO))
    file = tmp_path / "made" / "stack.json"
    code, out, _ = vrag("template", "--kms", "--object-lock", "365", "--video-model", "luma.ray-v2:0", "-o", str(file))
    assert code == 0
    assert str(file) in out
    assert json.loads(file.read_text()) == template(Infrastructure(kms=True, object_lock_days=365))


def test_a_bad_name_is_a_usage_error_with_a_good_one(vrag):
    code, _, err = vrag("template", "--name", "My Studio")
    assert code == 2
    assert "3 to 26" in err
    assert "next: --name my-studio" in err


def test_deploy_shows_changes_and_cost_before_it_asks(vrag, account, monkeypatch):
    prepares(account)
    finishes(account, monkeypatch)
    code, out, err = vrag("deploy", "--name", "studio", typed="y\n")
    assert code == 0, err
    assert out.index("MediaBucket") < out.index("while nobody uses it:") < out.index("CREATE_COMPLETE")
    assert "scales to zero" in out
    assert "not known" in out
    assert "Make these changes in us-west-2?" in err
    assert 'region = "us-west-2"' in out
    account.all_was_asked()


def test_deploy_that_is_declined_leaves_nothing(vrag, account):
    prepares(account)
    account.tells("cloudformation", "delete_change_set", {})
    account.tells("cloudformation", "delete_stack", {})
    code, _, err = vrag("deploy", "--name", "studio", typed="n\n")
    assert code == 1
    assert "Nothing was made." in err
    account.all_was_asked()


def test_deploy_without_a_terminal_needs_yes(vrag, account, monkeypatch):
    code, _, err = vrag("deploy", "--name", "studio")
    assert code == 2
    assert "next: vrag aws deploy --name studio --yes" in err
    code, out, _ = vrag("deploy", "--name", "studio", "--json", typed="y\n")
    assert (code, json.loads(out)["error"]) == (2, "usage")
    prepares(account)
    finishes(account, monkeypatch)
    code, out, _ = vrag("deploy", "--name", "studio", "--yes", "--json")
    told = json.loads(out)
    assert (code, told["status"], told["changed"]) == (0, "CREATE_COMPLETE", True)
    assert told["idle_cost"]["unknown"] == ["pictures and videos in S3", "index storage"]


def test_deploy_with_nothing_to_change_says_so(vrag, account):
    account.tells_stack("CREATE_COMPLETE")
    account.tells("cloudformation", "create_change_set", MADE)
    told = {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}
    account.tells("cloudformation", "describe_change_set", told)
    account.tells("cloudformation", "delete_change_set", {})
    code, out, _ = vrag("deploy", "--name", "studio", "--yes")
    assert (code, out) == (0, "studio: nothing to change\n")


def test_deploy_says_where_a_model_is_not_offered(vrag, account):
    account.tells_stack("UPDATE_IN_PROGRESS")
    code, _, err = vrag("deploy", "--name", "studio", "--video-model", "amazon.nova-reel-v1:1", "--yes")
    assert code == 2
    assert "amazon.nova-reel-v1:1 is not offered in us-west-2 but in us-east-1" in err


def test_deploy_that_is_denied_says_what(vrag, account):
    account.refuses("cloudformation", "describe_stacks", "AccessDenied", "is not authorized", 403)
    code, _, err = vrag("deploy", "--name", "studio", "--yes")
    assert code == 1
    assert "DescribeStacks" in err


def test_status_shows_the_stack_its_drift_and_what_it_costs(vrag, account):
    settings = {"OutputKey": "Settings", "OutputValue": json.dumps(STUDIO.settings | {"generation": "classic"})}
    drift = {"StackDriftStatus": "DRIFTED"}
    for _ in range(2):
        account.tells_stack("UPDATE_COMPLETE", Outputs=[settings], DriftInformation=drift)
        account.lists("CREATE_COMPLETE")
    code, out, _ = vrag("status", "--name", "studio", "--ocu-usd", "0.30")
    assert code == 0
    assert "studio: UPDATE_COMPLETE" in out
    assert "drift: DRIFTED" in out
    assert "438.00 USD a month" in out  # 2 units, 730 hours, 0.30 USD
    code, out, _ = vrag("status", "--name", "studio", "--json")
    told = json.loads(out)
    assert told["resources"] == [{"name": "R0", "kind": "AWS::IAM::Role", "id": "r0", "status": "CREATE_COMPLETE"}]
    assert told["idle_cost"]["lines"][0]["usd_micros_a_month"] is None  # the price of us-west-2 was found nowhere


def test_status_of_no_stack_or_of_a_failed_one_is_not_zero(vrag, account):
    account.has_no_stack()
    code, _, err = vrag("status", "--name", "studio")
    assert code == 1
    assert "next: vrag aws deploy --name studio" in err
    account.tells_stack("ROLLBACK_COMPLETE", StackStatusReason="it failed")
    account.lists("DELETE_COMPLETE")
    code, out, _ = vrag("status", "--name", "studio")
    assert code == 1
    assert "studio: ROLLBACK_COMPLETE (it failed)" in out
    assert "what it costs idle is not known" in out


def surveys(account, *, stack, role=False, bucket=False):
    if stack:
        account.tells_stack("CREATE_COMPLETE")
    else:
        account.has_no_stack()
    for there in (bucket, False):
        if there:
            account.tells("s3", "head_bucket", {})
        else:
            account.refuses("s3", "head_bucket", "404", "Not Found", 404)
    account.tells("opensearchserverless", "batch_get_collection", {"collectionDetails": []})
    account.tells("opensearchserverless", "batch_get_collection_group", {"collectionGroupDetails": []})
    for operation in ("get_security_policy", "get_security_policy", "get_access_policy"):
        account.refuses("opensearchserverless", operation, "ResourceNotFoundException", "", 404)
    told = {"Path": "/", "RoleName": "x", "RoleId": "A" * 16, "Arn": "arn:aws:iam::123456789012:role/x"}
    for number in range(3):
        if role and number == 0:
            account.tells("iam", "get_role", {"Role": told | {"CreateDate": "2026-01-01T00:00:00Z"}})
        else:
            account.refuses("iam", "get_role", "NoSuchEntity", "", 404)
    account.refuses("kms", "describe_key", "NotFoundException", "", 400)


def deletes(account, monkeypatch):
    monkeypatch.setattr("vrag.backends.aws.infrastructure.stack._POLL_S", 0.0)
    account.tells_caller()
    surveys(account, stack=True, role=True)
    account.tells_stack("CREATE_COMPLETE")
    surveys(account, stack=True, role=True)
    account.tells("cloudformation", "delete_stack", {})
    account.tells_stack("DELETE_COMPLETE")


def test_destroy_wants_the_name_typed_and_proves_that_all_is_gone(vrag, account, monkeypatch):
    deletes(account, monkeypatch)
    surveys(account, stack=False)
    code, out, err = vrag("destroy", "--name", "studio", typed="studio\n")
    assert code == 0, err
    assert "Type studio to delete all this for ever" in err
    assert "studio-ingest-us-west-2" in out
    assert "every service says that nothing is left" in out
    account.all_was_asked()


def test_destroy_fails_where_something_is_left(vrag, account, monkeypatch):
    deletes(account, monkeypatch)
    surveys(account, stack=False, role=True)
    code, out, _ = vrag("destroy", "--name", "studio", "--yes", "studio", "--json")
    assert code == 1
    assert json.loads(out)["left"] == ["studio-ingest-us-west-2"]


@pytest.mark.parametrize(
    ("arguments", "typed"), [((), "no\n"), ((), None), (("--yes", "other"), None), (("--json",), "x\n")]
)
def test_destroy_without_the_right_name_deletes_nothing(vrag, account, arguments, typed):
    account.tells_caller()
    surveys(account, stack=True, role=True)
    code, out, err = vrag("destroy", "--name", "studio", *arguments, typed=typed)
    assert code == 2
    assert "vrag aws destroy --name studio --yes studio" in err + out
    account.all_was_asked()


def test_destroy_leaves_a_locked_bucket_with_its_own_exit_code(vrag, account, monkeypatch):
    from vrag.backends.aws.infrastructure.destroy import Destroyed
    from vrag.backends.aws.infrastructure.survey import Thing

    account.tells_caller()
    surveys(account, stack=False, bucket=True)
    bucket = account.names.media_bucket
    left = Destroyed(things=[Thing(kind="bucket", id=bucket, state="there")], kept={bucket: "locked until Friday"})
    monkeypatch.setattr("vrag.backends.aws.infrastructure.destroy.destroy", lambda *_args, **_more: left)
    code, out, err = vrag("destroy", "--name", "studio", "--yes", "studio")
    assert code == 4
    assert "locked until Friday" in out
    assert "destroy again" in err


def test_destroy_of_nothing_is_done(vrag, account):
    account.tells_caller()
    surveys(account, stack=False)
    code, out, _ = vrag("destroy", "--name", "studio")
    assert (code, out) == (0, "studio: nothing is there in us-west-2\n")


def test_without_a_region_nothing_is_asked(capsys, monkeypatch, tmp_path, registered):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert run(["aws", "status"]) == 2
    assert "--region us-west-2" in capsys.readouterr().err


def test_clients_are_made_for_the_region_and_address_that_were_said(monkeypatch):
    from vrag.cli.infrastructure import _clients

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEKEYOFATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    made = _clients(None, "eu-west-1", "http://127.0.0.1:1")
    assert made.region == "eu-west-1"
    assert made.kms.meta.endpoint_url == "http://127.0.0.1:1"


def test_idle_cost_never_takes_unknown_for_zero():
    classic = STUDIO.settings | {"generation": "classic", "kms": True, "object_lock_days": 30}
    here = forecast(classic, "us-east-1")
    assert here.known_usd_micros == 2 * HOURS_A_MONTH * 240_000 + 1_000_000
    assert forecast(classic | {"standby": False}, "us-east-1").known_usd_micros == HOURS_A_MONTH * 240_000 + 1_000_000
    elsewhere = forecast(classic, "eu-west-1")
    assert "OpenSearch Serverless compute" in elsewhere.unknown
    assert "350.40 USD in us-east-1" in elsewhere.lines[0].basis
    assert elsewhere.total.startswith("1.00 USD a month, plus what is not known: OpenSearch Serverless compute")
    for cost in (here, elsewhere, forecast(STUDIO.settings, "eu-west-1")):
        assert all(line.source for line in cost.lines if line.usd_micros_a_month is not None)
        assert all("2026" in row[2] for row, line in zip(cost.rows(), cost.lines, strict=True) if line.source)
    assert [line.usd_micros_a_month for line in forecast(STUDIO.settings, "x").lines] == [0, None, None]


def test_the_page_lists_every_wildcard_with_its_reason():
    from pathlib import Path

    page = Path(__file__).parents[3] / "docs" / "how-to" / "set-up-aws.md"
    if not page.is_file():
        pytest.skip("the documentation is not here")
    text = page.read_text(encoding="utf-8")
    for one in WILDCARDS:
        assert f"| {one.where} | {one.shown} | {one.reason} |" in text
