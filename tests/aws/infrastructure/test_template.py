"""The template: judged by cfn-lint, and by reading what each role may do."""

import fnmatch
import itertools
import json
import re
import tomllib

import pytest
from cfnlint.api import ManualArgs, lint

from vrag.backends.aws import backend
from vrag.backends.aws.infrastructure.choices import LONGEST_NAME, NAME_LIMITS, Infrastructure, Names
from vrag.backends.aws.infrastructure.permissions import WILDCARDS
from vrag.backends.aws.infrastructure.template import MAX_BODY_BYTES, ROLES, STACK_TAG, body, template
from vrag.compose.configuration import read_configuration
from vrag.errors import UsageError
from vrag.generation.catalogue import Catalogue

ACCOUNT, REGION = "123456789012", "us-west-2"
FULL = Infrastructure(
    name="studio",
    kms=True,
    object_lock_days=365,
    guardrails=("abc123def456",),
    signing_key=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
    vpc_endpoints=("vpce-0123456789abcdef0",),
)
SEAM_OF = {
    "storage": "workspace.storage",
    "embedder": "knowledge_bases.brand.embedder",
    "vector_store": "knowledge_bases.brand.store",
    "video_generator": "generators.luma",
}
COMBINATIONS = [
    Infrastructure(name="studio", kms=kms, object_lock_days=days, generation=generation, standby=standby, **more)
    for kms, days, (generation, standby), more in itertools.product(
        (False, True),
        (None, 1),
        (("next", True), ("classic", True), ("classic", False)),
        ({}, {"vpc_endpoints": FULL.vpc_endpoints, "guardrails": FULL.guardrails, "signing_key": FULL.signing_key}),
    )
]


def described(infrastructure):
    return "-".join(
        (
            infrastructure.generation,
            "standby" if infrastructure.standby else "single",
            "kms" if infrastructure.kms else "aes",
            "locked" if infrastructure.object_lock_days else "open",
            "private" if infrastructure.vpc_endpoints else "public",
        )
    )


def resolved(value, made):
    """What CloudFormation would make of the functions that the template uses."""
    if isinstance(value, list):
        return [resolved(one, made) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Fn::Sub"}:
        known = {
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": made["Name"],
            "MediaBucket": f"{made['Name']}-media-{ACCOUNT}-{REGION}",
            "LedgerBucket": f"{made['Name']}-ledger-{ACCOUNT}-{REGION}",
            "Collection.CollectionEndpoint": "https://abc123.us-west-2.aoss.amazonaws.com",
            "Key.Arn": "arn:aws:kms:us-west-2:123456789012:key/the-key",
        } | {f"{role.capitalize()}Role.Arn": f"arn:aws:iam::{ACCOUNT}:role/{role}" for role in ROLES}
        return re.sub(r"\$\{([^}]+)\}", lambda match: known[match[1]], value["Fn::Sub"])
    if set(value) == {"Fn::GetAtt"}:
        return (
            resolved({"Fn::Sub": "${" + ".".join(value["Fn::GetAtt"]) + "}"}, made)
            if value["Fn::GetAtt"]
            != [
                "Collection",
                "Arn",
            ]
            else f"arn:aws:aoss:{REGION}:{ACCOUNT}:collection/abc123"
        )
    return {key: resolved(one, made) for key, one in value.items()}


def statements(infrastructure, role):
    resource = template(infrastructure)["Resources"][f"{role.capitalize()}Role"]
    return resolved(resource["Properties"]["Policies"][0]["PolicyDocument"]["Statement"], {"Name": infrastructure.name})


def allowed(infrastructure, role, action, resource):
    """Whether IAM would allow it if every condition held; a denial wins."""
    hits = [
        one["Effect"]
        for one in statements(infrastructure, role)
        if any(fnmatch.fnmatchcase(action, wanted) for wanted in one["Action"])
        and any(fnmatch.fnmatchcase(resource, wanted) for wanted in one["Resource"])
    ]
    return "Allow" in hits and "Deny" not in hits


def media(key, *, bucket="media"):
    return f"arn:aws:s3:::studio-{bucket}-{ACCOUNT}-{REGION}/{key}"


def model(model_id, region=REGION):
    return f"arn:aws:bedrock:{region}::foundation-model/{model_id}"


def each_to_lint():
    """Every combination; the half that differs only in what is private is slow."""
    for number, one in enumerate(COMBINATIONS):
        marks = [] if number % 2 == number // 2 % 2 else [pytest.mark.slow]
        yield pytest.param(one, id=described(one), marks=marks)


@pytest.mark.parametrize("infrastructure", list(each_to_lint()))
def test_cfn_lint_finds_nothing_in_any_combination(infrastructure):
    found = lint(body(infrastructure), config=ManualArgs(regions=["us-west-2"]))
    assert [f"{one.rule.id} {one.message}" for one in found] == []


def test_cfn_lint_would_find_a_mistake():
    broken = template(FULL)
    broken["Resources"]["MediaBucket"]["Properties"]["VersioningConfigurations"] = {}
    assert lint(json.dumps(broken), config=ManualArgs(regions=["us-west-2"]))


def test_the_template_fits_into_one_call():
    assert max(len(body(one).encode()) for one in COMBINATIONS) < MAX_BODY_BYTES / 2


@pytest.mark.parametrize("infrastructure", [Infrastructure(), FULL], ids=described)
def test_every_bucket_is_private_versioned_encrypted_and_owned(infrastructure):
    resources = template(infrastructure)["Resources"]
    buckets = {key: one["Properties"] for key, one in resources.items() if one["Type"] == "AWS::S3::Bucket"}
    assert len(buckets) == (2 if infrastructure.object_lock_days else 1)
    for bucket in buckets.values():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == ("aws:kms" if infrastructure.kms else "AES256")
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert any(one.get("AbortIncompleteMultipartUpload") for one in rules)


@pytest.mark.parametrize("infrastructure", [Infrastructure(), FULL], ids=described)
def test_every_bucket_refuses_calls_without_tls(infrastructure):
    resources = template(infrastructure)["Resources"]
    buckets = [key for key, one in resources.items() if one["Type"] == "AWS::S3::Bucket"]
    for bucket in buckets:
        policy = resources[f"{bucket}Policy"]["Properties"]
        assert policy["Bucket"] == {"Ref": bucket}
        insecure = policy["PolicyDocument"]["Statement"][0]
        assert (insecure["Effect"], insecure["Principal"], insecure["Action"]) == ("Deny", "*", ["s3:*"])
        assert insecure["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert len(insecure["Resource"]) == 2
        assert {one["Effect"] for one in policy["PolicyDocument"]["Statement"]} == {"Deny"}


def test_job_outputs_expire_after_seven_days_at_the_earliest():
    rules = template(Infrastructure(job_output_days=7))["Resources"]["MediaBucket"]["Properties"]
    (jobs,) = [one for one in rules["LifecycleConfiguration"]["Rules"] if one["Id"] == "job-outputs"]
    assert (jobs["Prefix"], jobs["ExpirationInDays"]) == ("jobs/", 7)
    with pytest.raises(UsageError, match="7 days or more"):
        Infrastructure(job_output_days=6)


def test_what_holds_data_stays_when_the_stack_goes_and_the_rest_goes():
    resources = template(FULL)["Resources"]
    kept = {key for key, one in resources.items() if one.get("DeletionPolicy")}
    assert kept == {"MediaBucket", "MediaBucketPolicy", "LedgerBucket", "LedgerBucketPolicy", "Key", "KeyAlias"}
    for key in kept:
        # Kept, but for what a failed creation has made: that would stand in the way of the next one.
        assert resources[key]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resources[key]["UpdateReplacePolicy"] == "Retain"


def test_the_ledger_bucket_is_locked_in_compliance_mode():
    assert "LedgerBucket" not in template(Infrastructure())["Resources"]
    bucket = template(FULL)["Resources"]["LedgerBucket"]["Properties"]
    assert bucket["ObjectLockEnabled"] is True
    assert bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"] == {"Mode": "COMPLIANCE", "Days": 365}


def test_the_key_rotates_and_is_used_through_its_services_only():
    key = template(FULL)["Resources"]["Key"]["Properties"]
    assert key["EnableKeyRotation"] is True
    look_after, use, grant = resolved(key["KeyPolicy"]["Statement"], {"Name": "studio"})
    assert {one["Principal"]["AWS"] for one in (look_after, use, grant)} == {f"arn:aws:iam::{ACCOUNT}:root"}
    assert not {"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant"} & set(look_after["Action"])
    assert "kms:PutKeyPolicy" in look_after["Action"]  # KMS refuses a policy that locks its owner out
    services = ["s3.us-west-2.amazonaws.com", "aoss.us-west-2.amazonaws.com"]
    assert use["Condition"] == {"StringEquals": {"kms:ViaService": services}}
    assert grant["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


def test_no_allowed_action_has_a_wildcard_and_no_unexplained_resource():
    for infrastructure in COMBINATIONS:
        resources = template(infrastructure)["Resources"]
        for key, resource in resources.items():
            properties = resource["Properties"]
            documents = [one["PolicyDocument"] for one in properties.get("Policies", ())]
            documents += [properties[name] for name in ("KeyPolicy", "PolicyDocument") if name in properties]
            for statement in (one for document in documents for one in document["Statement"]):
                where = "key policy" if key == "Key" else key
                check_statement(where, statement)


def check_statement(where, statement):
    if statement["Effect"] == "Allow":
        assert not [one for one in statement["Action"] if "*" in one]
        assert statement.get("Principal") != "*"
    for resource in statement["Resource"]:
        text = resource if isinstance(resource, str) else resource.get("Fn::Sub", "")
        if "*" not in text or (statement["Effect"] == "Deny" and where == "IngestRole"):
            continue
        reasons = [one for one in WILDCARDS if re.fullmatch(one.pattern, text)]
        assert reasons, f"{where} {statement['Sid']}: {text}"
        if text == "*":
            assert where == "key policy" or statement["Action"] == ["bedrock:ListAsyncInvokes"]
        if ":bedrock:*:" in text:
            assert "bedrock:InferenceProfileArn" in statement["Condition"]["StringEquals"]


def test_no_trust_policy_trusts_a_service_or_everybody():
    for infrastructure in (Infrastructure(), FULL):
        made = template(infrastructure)
        for role in ROLES:
            name = role.capitalize()
            (trust,) = made["Resources"][f"{name}Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert (trust["Effect"], trust["Action"]) == ("Allow", "sts:AssumeRole")
            condition, given, default = trust["Principal"]["AWS"]["Fn::If"]
            assert (condition, given) == (f"Has{name}Principals", {"Ref": f"{name}Principals"})
            assert default == {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
            parameter = made["Parameters"][f"{name}Principals"]
            pattern = re.compile(parameter["AllowedPattern"])
            assert pattern.fullmatch(parameter["Default"])
            assert pattern.fullmatch(f"arn:aws:iam::{ACCOUNT}:role/video/team")
            assert not pattern.fullmatch("*")
            assert not pattern.fullmatch(f"arn:aws:iam::{ACCOUNT}:role/*")


def test_audit_reads_and_can_change_nothing():
    actions = {action for one in statements(FULL, "audit") for action in one["Action"]}
    assert all(re.match(r"(s3:(Get|List)|kms:Decrypt$|aoss:APIAccessAll$)", action) for action in actions)
    for key, bucket in (("pictures/a", "media"), ("videos/a", "media"), ("checkpoints/1", "ledger")):
        assert allowed(FULL, "audit", "s3:GetObject", media(key, bucket=bucket))
        assert not allowed(FULL, "audit", "s3:PutObject", media(key, bucket=bucket))
        assert not allowed(FULL, "audit", "s3:DeleteObject", media(key, bucket=bucket))
    assert not allowed(FULL, "audit", "bedrock:InvokeModel", model("luma.ray-v2:0"))


def test_generate_reads_pictures_writes_videos_and_starts_films():
    assert allowed(FULL, "generate", "s3:GetObject", media("pictures/objects/ab/ab"))
    assert not allowed(FULL, "generate", "s3:PutObject", media("pictures/objects/ab/ab"))
    assert not allowed(FULL, "generate", "s3:DeleteObject", media("pictures/objects/ab/ab"))
    assert allowed(FULL, "generate", "s3:PutObject", media("videos/objects/ab/ab"))
    assert allowed(FULL, "generate", "s3:PutObject", media("jobs/x/output.mp4"))
    assert allowed(FULL, "generate", "bedrock:InvokeModel", model("luma.ray-v2:0"))
    assert not allowed(FULL, "generate", "bedrock:InvokeModel", model("luma.ray-v2:0", "eu-west-1"))
    assert not allowed(FULL, "generate", "bedrock:InvokeModel", model("acme.other-v1:0"))
    assert allowed(FULL, "generate", "bedrock:GetAsyncInvoke", f"arn:aws:bedrock:{REGION}:{ACCOUNT}:async-invoke/abc")
    assert allowed(
        FULL, "generate", "bedrock:ApplyGuardrail", f"arn:aws:bedrock:{REGION}:{ACCOUNT}:guardrail/abc123def456"
    )
    assert allowed(FULL, "generate", "kms:Sign", FULL.signing_key)
    assert not allowed(Infrastructure(name="studio"), "generate", "kms:Sign", FULL.signing_key)


def test_nobody_can_delete_a_checkpoint():
    for role in ROLES:
        assert not allowed(FULL, role, "s3:DeleteObject", media("checkpoints/1", bucket="ledger"))
        assert not allowed(FULL, role, "s3:DeleteObjectVersion", media("checkpoints/1", bucket="ledger"))
        assert not allowed(FULL, role, "s3:PutObjectRetention", media("checkpoints/1", bucket="ledger"))


def test_ingest_embeds_and_captions_and_can_start_no_video():
    assert allowed(FULL, "ingest", "s3:PutObject", media("pictures/objects/ab/ab"))
    assert not allowed(FULL, "ingest", "s3:GetObject", media("videos/objects/ab/ab"))
    assert allowed(FULL, "ingest", "bedrock:InvokeModel", model("amazon.titan-embed-image-v1"))
    profile = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile/us.amazon.nova-2-lite-v1:0"
    assert allowed(FULL, "ingest", "bedrock:InvokeModel", profile)
    films = [one.id for one in Catalogue.load().models if one.kind == "video_generator"]
    assert films
    for film in films:
        assert not allowed(FULL, "ingest", "bedrock:InvokeModel", model(film))
    job = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:async-invoke/abc"
    assert not allowed(FULL, "ingest", "bedrock:InvokeModel", job)
    # A video model that is unknown to the catalogue is denied too, even where it was slipped in as a captioner.
    slipped = Infrastructure(name="studio", caption_models=("acme.film-v1:0",), video_models=("acme.film-v1:0",))
    assert not allowed(slipped, "ingest", "bedrock:InvokeModel", model("acme.film-v1:0"))


def test_a_model_stands_only_where_its_kind_belongs():
    with pytest.raises(UsageError, match="video_generator, not a captioner"):
        Infrastructure(caption_models=("luma.ray-v2:0",))
    with pytest.raises(UsageError, match="without wildcards"):
        Infrastructure(video_models=("*",))


@pytest.mark.parametrize("infrastructure", [Infrastructure(name="studio"), FULL], ids=described)
def test_only_ingest_writes_the_index(infrastructure):
    policy = json.loads(
        resolved(template(infrastructure)["Resources"]["DataPolicy"]["Properties"]["Policy"], {"Name": "studio"})
    )
    may = {}
    for rule in policy:
        for principal in rule["Principal"]:
            may.setdefault(principal.rpartition("/")[2], set()).update(
                action for one in rule["Rules"] for action in one["Permission"]
            )
        assert all("*" not in action for one in rule["Rules"] for action in one["Permission"])
        assert {resource for one in rule["Rules"] for resource in one["Resource"]} == {
            "collection/studio",
            "index/studio/*",
        }
    assert set(may) == set(ROLES)
    reading = {"aoss:DescribeCollectionItems", "aoss:DescribeIndex", "aoss:ReadDocument"}
    assert may["generate"] == may["audit"] == reading
    assert {"aoss:WriteDocument", "aoss:CreateIndex"} <= may["ingest"]


def test_the_collection_is_behind_its_policies():
    for infrastructure in COMBINATIONS:
        resources = template(infrastructure)["Resources"]
        collection = resources["Collection"]
        assert collection["Properties"]["Type"] == "VECTORSEARCH"
        assert {"EncryptionPolicy", "NetworkPolicy"} <= set(collection["DependsOn"])
        (network,) = json.loads(resources["NetworkPolicy"]["Properties"]["Policy"])
        assert network["AllowFromPublic"] is not bool(infrastructure.vpc_endpoints)
        assert network.get("SourceVPCEs", []) == list(infrastructure.vpc_endpoints)
        text = resources["EncryptionPolicy"]["Properties"]["Policy"]
        encryption = json.loads(text["Fn::Sub"] if infrastructure.kms else text)
        assert encryption["AWSOwnedKey"] is not infrastructure.kms
        group = resources.get("CollectionGroup")
        assert bool(group) is (infrastructure.generation == "next")
        if group:
            assert group["Properties"]["Generation"] == "NEXTGEN"
            assert group["Properties"]["CapacityLimits"]["MinSearchCapacityInOcu"] == 0


def test_everything_that_may_be_deleted_by_name_is_tagged():
    for key, resource in template(FULL)["Resources"].items():
        if resource["Type"] in {"AWS::S3::Bucket", "AWS::KMS::Key"}:
            assert {"Key": STACK_TAG, "Value": "studio"} in resource["Properties"]["Tags"], key


def test_the_longest_name_fits_every_service():
    longest = "n" * LONGEST_NAME
    names = Names(stack=longest, account=ACCOUNT, region="x" * 16)
    made = template(Infrastructure(name=longest, object_lock_days=1))["Resources"]
    assert max(len(names.media_bucket), len(names.ledger_bucket)) == 63
    assert all(len(names.role(role)) <= 64 for role in ROLES)
    for resource in made.values():
        name = resource["Properties"].get("Name")
        assert name is None or 3 <= len(name) <= 32
    assert all(limit - added >= LONGEST_NAME for limit, added in NAME_LIMITS.values())


def test_the_names_of_the_template_are_those_that_are_looked_for():
    names = Names(stack="studio", account=ACCOUNT, region=REGION)
    made = resolved(template(FULL)["Resources"], {"Name": "studio"})
    assert made["MediaBucket"]["Properties"]["BucketName"] == names.media_bucket
    assert made["LedgerBucket"]["Properties"]["BucketName"] == names.ledger_bucket
    assert made["KeyAlias"]["Properties"]["AliasName"] == names.alias
    assert [made[f"{role.capitalize()}Role"]["Properties"]["RoleName"] for role in ROLES] == list(
        map(names.role, ROLES)
    )
    assert [made[key]["Properties"]["Name"] for key in ("EncryptionPolicy", "NetworkPolicy", "DataPolicy")] == [
        "studio-enc",
        "studio-net",
        "studio-data",
    ]


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("n" * 27, "n" * 26),
        ("My Studio", "my-studio"),
        ("9lives", "vrag-9lives"),
        ("studio-", "studio"),
        ("a", "vrag"),
        ("aws-films", "vrag-aws-films"),
        ("xn--films", "xn-films"),
        ("фильм", "vrag"),
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_one_that_does(name, fitting):
    with pytest.raises(UsageError, match="26") as refused:
        Infrastructure(name=name)
    assert refused.value.hint == f"--name {fitting}"
    assert Infrastructure(name=fitting).name == fitting


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"standby": False}, "classic"),
        ({"generation": "third"}, "next and classic"),
        ({"object_lock_days": 0}, "1 to 36500"),
        ({"max_ocu": 1}, "2 to 1700"),
        ({"vpc_endpoints": ("vpc-1",)}, "VPC endpoint"),
        ({"guardrails": ("*",)}, "guardrail"),
        ({"signing_key": "alias/x"}, "ARN of a KMS key"),
        ({"old_version_days": 0}, "1 day"),
    ],
)
def test_an_impossible_choice_is_refused(choice, said):
    with pytest.raises(UsageError, match=said):
        Infrastructure(**choice)


@pytest.mark.parametrize("infrastructure", COMBINATIONS[::5], ids=described)
def test_the_output_for_vrag_toml_is_a_configuration(infrastructure, tmp_path):
    outputs = template(infrastructure)["Outputs"]
    text = resolved(outputs["VragToml"]["Value"], {"Name": "studio"})
    read = tomllib.loads(text)
    (tmp_path / "vrag.toml").write_text(text, encoding="utf-8")
    parts = read_configuration(tmp_path / "vrag.toml", environ={}).parts
    for seam, key in SEAM_OF.items():
        part = parts[key]
        source, _, name = part.use.partition(":")
        assert source == "aws"
        assert name in backend[seam]
    assert len(text) < 4096
    assert read["workspace"]["storage"]["bucket"] == f"studio-media-{ACCOUNT}-{REGION}"
    assert read["knowledge_bases"]["brand"]["store"]["generation"] == infrastructure.generation
    assert ("kms_key_id" in read["generators"]["luma"]) is infrastructure.kms
    assert json.loads(outputs["Settings"]["Value"]) == infrastructure.settings
