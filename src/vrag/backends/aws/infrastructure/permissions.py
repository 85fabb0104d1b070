"""What each role may do, as IAM statements; and every wildcard in them with its reason.

Sources, all read 2026-11-20: "Actions, resources, and condition keys" for Amazon Bedrock, Amazon S3 and Amazon OpenSearch
Serverless (Service Authorization Reference); "StartAsyncInvoke" (Amazon Bedrock API Reference); "Prerequisites for
inference profiles" and "Encryption in Amazon OpenSearch Serverless" (user guides).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from vrag.backends.aws.infrastructure.choices import Infrastructure
from vrag.generation.catalogue import Catalogue

__all__ = ["WILDCARDS", "Wildcard", "audit", "collection_rules", "generate", "ingest", "key_policy", "tls_only"]

Statement = dict[str, Any]
_PROFILE: Final = re.compile(r"(?:us|us-gov|eu|jp|apac|au|ca|global)\.(.+)")
_BEDROCK: Final = "arn:${AWS::Partition}:bedrock:${AWS::Region}:"
PICTURES: Final = "pictures"
VIDEOS: Final = "videos"
JOBS: Final = "jobs"
CHECKPOINTS: Final = "checkpoints"


@frozen(kw_only=True)
class Wildcard:
    """A `*` that the template holds on purpose."""

    where: str
    pattern: str
    """A regular expression of the whole resource or action."""
    shown: str
    reason: str


WILDCARDS: Final = (
    Wildcard(
        where="generate, `bedrock:ListAsyncInvokes`",
        pattern=r"\*",
        shown="`*`",
        reason="the action knows no resource; it shows the jobs of the account, and changes nothing",
    ),
    Wildcard(
        where="generate, one video job",
        pattern=re.escape(_BEDROCK) + r"\$\{AWS::Account(?:Id)\}:async-invoke/\*",
        shown="`async-invoke/*`",
        reason="Bedrock draws the id of a job when it starts",
    ),
    Wildcard(
        where="ingest and generate, models behind an inference profile",
        pattern=r"arn:\$\{AWS::Partition\}:bedrock:\*::foundation-model/[a-z0-9.:-]+",
        shown="`bedrock:*::foundation-model/ID`",
        reason="the profile chooses the Region; a condition allows it through that profile only",
    ),
    Wildcard(
        where="all roles, objects",
        pattern=r"arn:\$\{AWS::Partition\}:s3:::\$\{(?:Media|Ledger)Bucket\}/(?:pictures|videos|jobs|checkpoints)/\*",
        shown="`BUCKET/PREFIX/*`",
        reason="the keys are digests of what is stored",
    ),
    Wildcard(
        where="key policy",
        pattern=r"\*",
        shown="`*`",
        reason="in the policy of a key it means this key; KMS takes nothing else",
    ),
    Wildcard(
        where="bucket policies, denials only",
        pattern=r"\*|s3:\*|arn:\$\{AWS::Partition\}:s3:::\$\{(?:Media|Ledger)Bucket\}/\*",
        shown="principal `*`, action `s3:*`",
        reason="nobody may do anything without TLS 1.2; a denial allows nothing",
    ),
)
"""Every wildcard; the tests refuse any other."""


def sub(text: str) -> dict[str, str]:
    """`text` with its `${…}` filled in by CloudFormation."""
    return {"Fn::Sub": text}


def objects(bucket: str, *prefixes: str) -> list[dict[str, str]]:
    """The objects under these prefixes of a bucket of the template."""
    return [sub(f"arn:${{AWS::Partition}}:s3:::${{{bucket}}}/{prefix}/*") for prefix in prefixes]


def _bucket(name: str) -> dict[str, str]:
    return sub(f"arn:${{AWS::Partition}}:s3:::${{{name}}}")


def _statement(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[Any],
    condition: Mapping[str, Any] | None = None,
    *,
    effect: str = "Allow",
) -> Statement:
    made: Statement = {"Sid": sid, "Effect": effect, "Action": list(actions), "Resource": list(resources)}
    return made | {"Condition": dict(condition)} if condition else made


def _invoke(what: str, models: Sequence[str]) -> Iterator[Statement]:
    """`bedrock:InvokeModel` on exactly these models; on a profile, and through it on the model behind it."""
    plain = [model for model in models if not _PROFILE.fullmatch(model)]
    if plain:
        yield _statement(
            what,
            ["bedrock:InvokeModel"],
            [sub(f"arn:${{AWS::Partition}}:bedrock:${{AWS::Region}}::foundation-model/{model}") for model in plain],
        )
    for number, model in enumerate(model for model in models if model not in plain):
        matched = _PROFILE.fullmatch(model)
        assert matched is not None
        profile = sub(f"{_BEDROCK}${{AWS::AccountId}}:inference-profile/{model}")
        yield _statement(f"{what}Profile{number}", ["bedrock:InvokeModel"], [profile])
        yield _statement(
            f"{what}ThroughProfile{number}",
            ["bedrock:InvokeModel"],
            [sub(f"arn:${{AWS::Partition}}:bedrock:*::foundation-model/{matched[1]}")],
            {"StringEquals": {"bedrock:InferenceProfileArn": profile}},
        )


# Without `s3:ListBucket` a missing key is a 403. A condition on the prefix would do that too: HeadObject sends none.
_SEE: Final = ("s3:ListBucket",)
_STORE: Final = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


def _data_plane() -> Statement:
    return _statement("Collection", ["aoss:APIAccessAll"], [{"Fn::GetAtt": ["Collection", "Arn"]}])


def _key(infrastructure: Infrastructure, *actions: str) -> list[Statement]:
    if not infrastructure.kms:
        return []
    through = {"StringEquals": {"kms:ViaService": sub("s3.${AWS::Region}.${AWS::URLSuffix}")}}
    return [_statement("Key", actions, [{"Fn::GetAtt": ["Key", "Arn"]}], through)]


def _sign(infrastructure: Infrastructure) -> list[Statement]:
    if infrastructure.signing_key is None:
        return []
    return [_statement("Sign", ["kms:Sign", "kms:GetPublicKey"], [infrastructure.signing_key])]


def _checkpoints(infrastructure: Infrastructure) -> list[Statement]:
    if infrastructure.object_lock_days is None:
        return []
    return [
        _statement("Checkpoints", ["s3:GetObject", "s3:PutObject"], objects("LedgerBucket", CHECKPOINTS)),
        _statement("SeeCheckpoints", _SEE, [_bucket("LedgerBucket")]),
    ]


def _judge(infrastructure: Infrastructure) -> list[Statement]:
    if not infrastructure.guardrails:
        return []
    ours = [sub(f"{_BEDROCK}${{AWS::AccountId}}:guardrail/{guardrail}") for guardrail in infrastructure.guardrails]
    return [_statement("Judge", ["bedrock:ApplyGuardrail"], ours)]


def ingest(infrastructure: Infrastructure) -> list[Statement]:
    """Keep pictures, describe and embed them, write the index. No video can be started."""
    videos = [model.id for model in Catalogue.load().models if model.kind == "video_generator"]
    videos += [model for model in infrastructure.video_models if model not in videos and not _PROFILE.fullmatch(model)]
    return [
        _statement("Pictures", _STORE, objects("MediaBucket", PICTURES)),
        _statement("SeeMedia", _SEE, [_bucket("MediaBucket")]),
        *_invoke("Embed", infrastructure.embedding_models),
        *_invoke("Caption", infrastructure.caption_models),
        _statement(
            "NoVideos",
            ["bedrock:InvokeModel"],
            [
                sub(f"{_BEDROCK}${{AWS::AccountId}}:async-invoke/*"),
                *(sub(f"arn:${{AWS::Partition}}:bedrock:*::foundation-model/{model}") for model in videos),
            ],
            effect="Deny",
        ),
        *_judge(infrastructure),
        _data_plane(),
        *_sign(infrastructure),
        *_checkpoints(infrastructure),
        *_key(infrastructure, "kms:Decrypt", "kms:GenerateDataKey"),
    ]


def generate(infrastructure: Infrastructure) -> list[Statement]:
    """Search, edit, make videos and keep them. The pictures and the index are read only."""
    jobs = [sub(f"{_BEDROCK}${{AWS::AccountId}}:async-invoke/*")]
    return [
        _statement("Pictures", ["s3:GetObject"], objects("MediaBucket", PICTURES)),
        _statement("Videos", _STORE, objects("MediaBucket", VIDEOS)),
        _statement("Jobs", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], objects("MediaBucket", JOBS)),
        _statement("SeeMedia", _SEE, [_bucket("MediaBucket")]),
        *_invoke("Embed", infrastructure.embedding_models),
        *_invoke("Edit", infrastructure.edit_models),
        *_invoke("Film", infrastructure.video_models),
        # The reference lists `async-invoke` among the resources of InvokeModel, for StartAsyncInvoke.
        _statement("VideoJobs", ["bedrock:InvokeModel", "bedrock:GetAsyncInvoke"], jobs),
        _statement("ListVideoJobs", ["bedrock:ListAsyncInvokes"], ["*"]),
        *_judge(infrastructure),
        _data_plane(),
        *_sign(infrastructure),
        *_checkpoints(infrastructure),
        *_key(infrastructure, "kms:Decrypt", "kms:GenerateDataKey"),
    ]


def audit(infrastructure: Infrastructure) -> list[Statement]:
    """Read everything, old versions too, and change nothing; no model can be called."""
    look = ("s3:GetObject", "s3:GetObjectVersion")
    around = ("s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning")
    made = [
        _statement("Media", look, objects("MediaBucket", PICTURES, VIDEOS)),
        _statement("SeeMedia", around, [_bucket("MediaBucket")]),
    ]
    if infrastructure.object_lock_days is not None:
        made += [
            _statement(
                "Checkpoints",
                [*look, "s3:GetObjectRetention", "s3:GetObjectLegalHold"],
                objects("LedgerBucket", CHECKPOINTS),
            ),
            _statement("SeeCheckpoints", [*around, "s3:GetBucketObjectLockConfiguration"], [_bucket("LedgerBucket")]),
        ]
    return [*made, _data_plane(), *_key(infrastructure, "kms:Decrypt")]


def collection_rules(name: str) -> list[dict[str, Any]]:
    """The data access policy of the collection: ingest writes the index, the others read it."""

    def access(description: str, collection: Sequence[str], index: Sequence[str], *roles: str) -> dict[str, Any]:
        def rule(kind: str, resource: str, actions: Sequence[str]) -> dict[str, Any]:
            return {
                "ResourceType": kind,
                "Resource": [resource],
                "Permission": [f"aoss:{action}" for action in actions],
            }

        return {
            "Description": description,
            "Rules": [
                rule("collection", f"collection/{name}", collection), rule("index", f"index/{name}/*", index)
            ],
            "Principal": [f"${{{role}.Arn}}" for role in roles],
        }  # fmt: skip

    # Aliases are items of the collection: `vrag kb reindex` switches one.
    return [
        access(
            "Write the index",
            ("CreateCollectionItems", "UpdateCollectionItems", "DeleteCollectionItems", "DescribeCollectionItems"),
            ("CreateIndex", "UpdateIndex", "DeleteIndex", "DescribeIndex", "ReadDocument", "WriteDocument"),
            "IngestRole",
        ),
        access(
            "Read the index",
            ("DescribeCollectionItems",),
            ("DescribeIndex", "ReadDocument"),
            "GenerateRole",
            "AuditRole",
        ),
    ]


_ADMINISTER_KEY: Final = """
    CancelKeyDeletion DescribeKey DisableKey DisableKeyRotation EnableKey EnableKeyRotation GetKeyPolicy
    GetKeyRotationStatus ListGrants ListKeyPolicies ListKeyRotations ListResourceTags PutKeyPolicy RevokeGrant
    RotateKeyOnDemand ScheduleKeyDeletion TagResource UntagResource CreateAlias UpdateAlias DeleteAlias
    UpdateKeyDescription
    """.split()  # noqa: SIM905  # a list of words reads better as words


def key_policy() -> dict[str, Any]:
    """The policy of the key: the account looks after it; it is used through S3 and OpenSearch Serverless only."""
    account = {"AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")}
    services = [sub("s3.${AWS::Region}.${AWS::URLSuffix}"), sub("aoss.${AWS::Region}.${AWS::URLSuffix}")]
    through = {"StringEquals": {"kms:ViaService": services}}
    use = [
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
    ]
    grant = through | {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    look_after = [f"kms:{action}" for action in _ADMINISTER_KEY]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Principal": account, **_statement("LookAfterTheKey", look_after, ["*"])},
            {"Principal": account, **_statement("UseThroughServices", use, ["*"], through)},
            {"Principal": account, **_statement("GrantToServices", ["kms:CreateGrant"], ["*"], grant)},
        ],
    }


def tls_only(bucket: str) -> dict[str, Any]:
    """The policy of a bucket: no call without TLS, nor with TLS older than 1.2."""
    everything = [_bucket(bucket), sub(f"arn:${{AWS::Partition}}:s3:::${{{bucket}}}/*")]
    insecure = {"Bool": {"aws:SecureTransport": "false"}}
    outdated = {"NumericLessThan": {"s3:TlsVersion": "1.2"}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Principal": "*", **_statement("OnlyTLS", ["s3:*"], everything, insecure, effect="Deny")},
            {"Principal": "*", **_statement("OnlyNewTLS", ["s3:*"], everything, outdated, effect="Deny")},
        ],
    }
