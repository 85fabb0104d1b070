"""The CloudFormation template: plain dictionaries, written as JSON.

Sources, all read 2026-11-20: the resource schemas of CloudFormation; "DeletionPolicy attribute" and "Parameters"
(CloudFormation User Guide); "Scale to zero for Amazon OpenSearch Serverless", "Network access for Amazon OpenSearch
Serverless" (Amazon OpenSearch Service Developer Guide).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vrag.backends.aws.infrastructure import permissions
from vrag.backends.aws.infrastructure.choices import Infrastructure
from vrag.backends.aws.infrastructure.permissions import sub

__all__ = ["MAX_BODY_BYTES", "ROLES", "STACK_TAG", "body", "template"]

MAX_BODY_BYTES: Final = 51_200
"""The longest template that CloudFormation takes without a bucket."""
STACK_TAG: Final = "vrag:stack"
"""Marks what belongs to a stack; nothing without it is ever deleted."""
ROLES: Final = ("ingest", "generate", "audit")
# What holds data stays when the stack goes; what a failed creation made does not, else it would block the next one.
_KEPT: Final = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
_PURPOSES: Final = {
    "ingest": ("Takes pictures in: reads and writes pictures and the index; no video models.", permissions.ingest),
    "generate": ("Makes videos: reads pictures and the index, writes videos.", permissions.generate),
    "audit": ("Reads pictures, videos, checkpoints and the index; changes nothing.", permissions.audit),
}
_PRINCIPALS: Final = r"^$|^arn:aws[a-z-]*:iam::[0-9]{12}:(root|(user|role)/[A-Za-z0-9+=,.@_/-]{1,512})$"


def template(infrastructure: Infrastructure) -> dict[str, Any]:
    """The template as a dictionary, in the order in which a person reads it."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "V-RAG: pictures, their index, and separate roles to ingest, to generate and to audit.",
        "Parameters": {_principals(role): _principals_parameter(role) for role in ROLES},
        "Conditions": {
            f"Has{_principals(role)}": {
                "Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": _principals(role)}]}, ""]}]
            }
            for role in ROLES
        },
        "Resources": {
            **_key(infrastructure),
            **_media_bucket(infrastructure),
            **_ledger_bucket(infrastructure),
            **_collection(infrastructure),
            **{f"{role.capitalize()}Role": _role(infrastructure, role) for role in ROLES},
        },
        "Outputs": _outputs(infrastructure),
    }


def body(infrastructure: Infrastructure, *, indent: int | None = None) -> str:
    """The template as JSON text; without `indent` it is as short as it can be."""
    separators = (",", ":") if indent is None else None
    return json.dumps(template(infrastructure), indent=indent, separators=separators)


def _principals(role: str) -> str:
    return f"{role.capitalize()}Principals"


def _principals_parameter(role: str) -> dict[str, Any]:
    return {
        "Type": "CommaDelimitedList",
        "Default": "",
        "AllowedPattern": _PRINCIPALS,
        "ConstraintDescription": "ARNs of users, roles or accounts, separated by commas, without wildcards",
        "Description": (
            f"Who may assume the {role} role. Empty: whoever in this account has sts:AssumeRole on it in their own policy."
        ),
    }


def _tags(infrastructure: Infrastructure) -> list[dict[str, str]]:
    return [{"Key": STACK_TAG, "Value": infrastructure.name}]


def _key(infrastructure: Infrastructure) -> dict[str, Any]:
    if not infrastructure.kms:
        return {}
    return {
        "Key": {
            "Type": "AWS::KMS::Key",
            **_KEPT,
            "Properties": {
                "Description": sub("Pictures, videos and index of ${AWS::StackName}"),
                "EnableKeyRotation": True,
                "KeyPolicy": permissions.key_policy(),
                "PendingWindowInDays": 30,
                "Tags": _tags(infrastructure),
            },
        },
        "KeyAlias": {
            "Type": "AWS::KMS::Alias",
            **_KEPT,
            "Properties": {"AliasName": f"alias/{infrastructure.name}", "TargetKeyId": {"Ref": "Key"}},
        },
    }


def _bucket(infrastructure: Infrastructure, kind: str, **more: Any) -> dict[str, Any]:
    encryption: dict[str, Any] = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    if infrastructure.kms:
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Fn::GetAtt": ["Key", "Arn"]}}
        encryption = {"ServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}
    return {
        "Type": "AWS::S3::Bucket",
        **_KEPT,
        "Properties": {
            "BucketName": sub(f"{infrastructure.name}-{kind}-${{AWS::AccountId}}-${{AWS::Region}}"),
            "VersioningConfiguration": {"Status": "Enabled"},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            **more,
            "Tags": _tags(infrastructure),
        },
    }


def _bucket_policy(bucket: str) -> dict[str, Any]:
    return {
        "Type": "AWS::S3::BucketPolicy",
        **_KEPT,
        "Properties": {"Bucket": {"Ref": bucket}, "PolicyDocument": permissions.tls_only(bucket)},
    }


_LEFTOVERS: Final = {
    "Id": "unfinished-uploads",
    "Status": "Enabled",
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}


def _media_bucket(infrastructure: Infrastructure) -> dict[str, Any]:
    old = {"NoncurrentDays": infrastructure.old_version_days}
    rules = [
        _LEFTOVERS,
        {
            "Id": "old-versions",
            "Status": "Enabled",
            "NoncurrentVersionExpiration": old,
            "ExpiredObjectDeleteMarker": True,
        },
        {
            "Id": "job-outputs",
            "Status": "Enabled",
            "Prefix": f"{permissions.JOBS}/",
            "ExpirationInDays": infrastructure.job_output_days,
        },
    ]
    return {
        "MediaBucket": _bucket(infrastructure, "media", LifecycleConfiguration={"Rules": rules}),
        "MediaBucketPolicy": _bucket_policy("MediaBucket"),
    }


def _ledger_bucket(infrastructure: Infrastructure) -> dict[str, Any]:
    if infrastructure.object_lock_days is None:
        return {}
    retention = {"Mode": "COMPLIANCE", "Days": infrastructure.object_lock_days}
    return {
        "LedgerBucket": _bucket(
            infrastructure,
            "ledger",
            ObjectLockEnabled=True,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
            LifecycleConfiguration={"Rules": [_LEFTOVERS]},
        ),
        "LedgerBucketPolicy": _bucket_policy("LedgerBucket"),
    }


def _policy_text(policy: Mapping[str, Any] | Sequence[Any]) -> dict[str, str] | str:
    """OpenSearch Serverless takes its policies as text."""
    text = json.dumps(policy, separators=(",", ":"))
    return sub(text) if "${" in text else text


def _collection(infrastructure: Infrastructure) -> dict[str, Any]:
    name = infrastructure.name
    resource = {"ResourceType": "collection", "Resource": [f"collection/{name}"]}
    key = {"AWSOwnedKey": False, "KmsARN": "${Key.Arn}"} if infrastructure.kms else {"AWSOwnedKey": True}
    doors: dict[str, Any] = {"AllowFromPublic": not infrastructure.vpc_endpoints}
    if infrastructure.vpc_endpoints:
        doors["SourceVPCEs"] = list(infrastructure.vpc_endpoints)
    standby = "ENABLED" if infrastructure.standby else "DISABLED"
    collection: dict[str, Any] = {
        "Type": "AWS::OpenSearchServerless::Collection",
        "DependsOn": ["EncryptionPolicy", "NetworkPolicy"],
        "Properties": {"Name": name, "Type": "VECTORSEARCH", "StandbyReplicas": standby, "Tags": _tags(infrastructure)},
    }
    made: dict[str, Any] = {
        "EncryptionPolicy": _security_policy(name, "encryption", {"Rules": [resource], **key}),
        "NetworkPolicy": _security_policy(name, "network", [{"Rules": [resource], **doors}]),
    }
    if infrastructure.generation == "next":
        most = infrastructure.max_ocu
        made["CollectionGroup"] = {
            "Type": "AWS::OpenSearchServerless::CollectionGroup",
            "Properties": {
                "Name": name,
                "Generation": "NEXTGEN",
                "StandbyReplicas": standby,
                "CapacityLimits": {
                    "MinIndexingCapacityInOcu": 0,
                    "MinSearchCapacityInOcu": 0,
                    "MaxIndexingCapacityInOcu": most,
                    "MaxSearchCapacityInOcu": most,
                },
                "Tags": _tags(infrastructure),
            },
        }
        collection["DependsOn"].append("CollectionGroup")
        collection["Properties"]["CollectionGroupName"] = name
    access = {"Name": f"{name}-data", "Type": "data", "Policy": _policy_text(permissions.collection_rules(name))}
    return {
        **made,
        "Collection": collection,
        "DataPolicy": {"Type": "AWS::OpenSearchServerless::AccessPolicy", "Properties": access},
    }


def _security_policy(name: str, kind: str, policy: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    return {
        "Type": "AWS::OpenSearchServerless::SecurityPolicy",
        "Properties": {"Name": f"{name}-{kind[:3]}", "Type": kind, "Policy": _policy_text(policy)},
    }


def _role(infrastructure: Infrastructure, role: str) -> dict[str, Any]:
    purpose, statements = _PURPOSES[role]
    account = sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")
    parameter = _principals(role)
    who = {"AWS": {"Fn::If": [f"Has{parameter}", {"Ref": parameter}, account]}}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": sub(f"{infrastructure.name}-{role}-${{AWS::Region}}"),
            "Description": purpose,
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": who, "Action": "sts:AssumeRole"}],
            },
            "Policies": [
                {
                    "PolicyName": role,
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": statements(infrastructure)},
                }
            ],
            "Tags": _tags(infrastructure),
        },
    }


def _outputs(infrastructure: Infrastructure) -> dict[str, Any]:
    outputs: dict[str, tuple[str, Any]] = {
        "VragToml": ("Paste this into vrag.toml", sub(_toml(infrastructure))),
        "MediaBucketName": ("Pictures, videos and the outputs of jobs", {"Ref": "MediaBucket"}),
        "CollectionEndpoint": ("Where the index is", {"Fn::GetAtt": ["Collection", "CollectionEndpoint"]}),
        "Settings": ("How this stack was made; vrag aws reads it", json.dumps(infrastructure.settings, sort_keys=True)),
    }
    for role in ROLES:
        outputs[f"{role.capitalize()}RoleArn"] = (
            f"Assume it to {role}", {"Fn::GetAtt": [f"{role.capitalize()}Role", "Arn"]}
        )  # fmt: skip
    if infrastructure.object_lock_days is not None:
        outputs["LedgerBucketName"] = ("Checkpoints of ledgers, under Object Lock", {"Ref": "LedgerBucket"})
    if infrastructure.kms:
        outputs["KeyArn"] = ("Encrypts the buckets and the collection", {"Fn::GetAtt": ["Key", "Arn"]})
    return {name: {"Description": what, "Value": value} for name, (what, value) in outputs.items()}


def _toml(infrastructure: Infrastructure) -> str:
    bucket = 'bucket = "${MediaBucket}", bucket_owner = "${AWS::AccountId}"'
    key = ', kms_key_id = "${Key.Arn}"' if infrastructure.kms else ""
    job_key = '\nkms_key_id = "${Key.Arn}"' if infrastructure.kms else ""
    store = f'endpoint_url = "${{Collection.CollectionEndpoint}}", generation = "{infrastructure.generation}"'
    return f"""\
[aws]
region = "${{AWS::Region}}"

[workspace]
storage = {{ use = "aws:s3", {bucket}, prefix = "{permissions.VIDEOS}"{key} }}

[knowledge_bases.brand]
embedder = "aws:titan-image"
storage = {{ use = "aws:s3", {bucket}, prefix = "{permissions.PICTURES}/brand"{key} }}
store = {{ use = "aws:opensearch-serverless", {store} }}

[generators.luma]
use = "aws:luma-ray"
output_uri = "s3://${{MediaBucket}}/{permissions.JOBS}"
bucket_owner = "${{AWS::AccountId}}"{job_key}
"""
