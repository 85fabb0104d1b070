"""What an administrator chooses for the AWS side of V-RAG, checked against the limits of every service at once.

Sources, all read 2026-11-20: the resource schemas of CloudFormation (`AWS::OpenSearchServerless::*`, `AWS::S3::Bucket`,
`AWS::IAM::Role`), "General purpose bucket naming rules" (Amazon S3 User Guide), and "CreateStack" (CloudFormation API
Reference).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import asdict, field, frozen

from vrag.errors import UsageError
from vrag.generation.catalogue import Catalogue
from vrag.values.canonical import JSON

__all__ = ["LONGEST_NAME", "NAME_LIMITS", "PROVIDER", "Infrastructure", "Names", "check_name", "check_principal"]

PROVIDER: Final = "aws-bedrock"
_ACCOUNT_LENGTH: Final = 12
_REGION_LENGTH: Final = 16  # the longest of today has 14 letters
NAME_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "CloudFormation stack": (128, 0),
    "OpenSearch Serverless collection and collection group": (32, 0),
    "OpenSearch Serverless policy": (32, len("-data")),
    "S3 bucket": (63, len("-ledger-") + _ACCOUNT_LENGTH + 1 + _REGION_LENGTH),
    "IAM role": (64, len("-generate-") + _REGION_LENGTH),
    "KMS alias": (256, len("alias/")),
}
"""For each service: the longest name that it takes, and how many letters are put behind the name of the stack."""
LONGEST_NAME: Final = min(limit - added for limit, added in NAME_LIMITS.values())
_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_RESERVED: Final = ("xn--", "sthree-", "amzn-s3-demo-", "aws")
_MODEL: Final = re.compile(r"[a-z0-9][a-z0-9.:-]{2,127}")
_GUARDRAIL: Final = re.compile(r"[a-z0-9]{4,64}")
_SIGNING_KEY: Final = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]{1,20}:[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_VPC_ENDPOINT: Final = re.compile(r"vpce-[0-9a-z]{8,17}")
_PRINCIPAL: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(root|(user|role)/[A-Za-z0-9+=,.@_/-]{1,512})")
_LONGEST_RETENTION_DAYS: Final = 36_500
_SHORTEST_JOB_DAYS: Final = 7
_MOST_OCU: Final = 1_700


def check_name(name: str) -> str:
    """`name`, if a stack and everything in it can be called so.

    Raises:
        UsageError: It is too long for a service, or has letters that one of them does not take; with a name that fits.
    """
    hint = f"--name {_fitting(name)}"
    if len(name) > LONGEST_NAME:
        service, (limit, added) = min(NAME_LIMITS.items(), key=lambda entry: entry[1][0] - entry[1][1])
        raise UsageError(
            f"The name '{name[:80]}' has {len(name)} letters; at most {LONGEST_NAME} are allowed: the name of an {service} "
            f"has at most {limit}, and {added} of them are needed behind yours.",
            hint=hint,
        )
    if not len(name) >= 3 or not _NAME.fullmatch(name) or name.startswith(_RESERVED):
        raise UsageError(
            f"The name '{name}' does not fit all services: it has 3 to {LONGEST_NAME} small letters (a to z), digits and "
            f"hyphens, begins with a letter, does not end with a hyphen, and does not begin with "
            f"{', '.join(_RESERVED)}.",
            hint=hint,
        )
    return name


def _fitting(name: str) -> str:
    """A name near to this one that fits."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain[:1].isalpha() or plain.startswith(_RESERVED):
        plain = f"vrag-{plain}"
    plain = plain[:LONGEST_NAME].strip("-")
    return plain if len(plain) >= 3 else "vrag"


def check_principal(arn: str) -> str:
    """`arn`, if it is one user, one role or one account that may assume a role.

    Raises:
        UsageError: It is something else, such as `*`.
    """
    if not _PRINCIPAL.fullmatch(arn):
        raise UsageError(
            f"'{arn[:120]}' is nobody who may assume a role; write the ARN of one user, role or account, without "
            "wildcards.",
            hint="--generate-principal arn:aws:iam::123456789012:role/video-team",
        )
    return arn


@frozen(kw_only=True)
class Names:
    """What everything of a stack is called in one account and Region; nothing is drawn at random."""

    stack: str
    account: str
    region: str

    @property
    def media_bucket(self) -> str:
        """Pictures, videos and the outputs of jobs."""
        return f"{self.stack}-media-{self.account}-{self.region}"

    @property
    def ledger_bucket(self) -> str:
        """Checkpoints of ledgers, under Object Lock."""
        return f"{self.stack}-ledger-{self.account}-{self.region}"

    @property
    def alias(self) -> str:
        """The KMS key."""
        return f"alias/{self.stack}"

    def role(self, role: str) -> str:
        """The role `ingest`, `generate` or `audit`. Roles belong to no Region, so theirs is in the name."""
        return f"{self.stack}-{role}-{self.region}"


def _models(*default: str) -> Any:
    return field(default=default, converter=tuple[str, ...])


@frozen(kw_only=True)
class Infrastructure:
    """The choices that make a template.

    Raises:
        UsageError: A choice is not possible; nothing was sent.
    """

    name: str = field(default="vrag", converter=check_name)
    """Of the stack, and the beginning of every name in it."""
    generation: Literal["next", "classic"] = "next"
    """Of OpenSearch Serverless: `next` scales to zero, `classic` always runs."""
    standby: bool = True
    """Copies in a second Availability Zone; only `classic` can do without."""
    max_ocu: int = 8
    """`next`: the most compute units for indexing, and again for search."""
    kms: bool = False
    """A KMS key of your own for the buckets and the collection."""
    object_lock_days: int | None = None
    """A bucket for ledger checkpoints that nobody can delete for so many days; None makes none."""
    vpc_endpoints: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    """Ids of OpenSearch Serverless VPC endpoints; the collection is reachable from nowhere else. None: by IAM alone."""
    embedding_models: tuple[str, ...] = _models("amazon.titan-embed-image-v1")
    caption_models: tuple[str, ...] = _models("us.amazon.nova-2-lite-v1:0")
    edit_models: tuple[str, ...] = _models(
        "us.stability.stable-image-inpaint-v1:0", "us.stability.stable-image-erase-object-v1:0"
    )
    video_models: tuple[str, ...] = _models("luma.ray-v2:0")
    guardrails: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    """Ids of guardrails that may judge prompts and pictures."""
    signing_key: str | None = None
    """The ARN of a KMS key that signs records; it is yours, and not part of the stack."""
    job_output_days: int = 30
    """How long what Bedrock wrote is kept after vrag has fetched it."""
    old_version_days: int = 30
    """How long replaced and deleted objects can be brought back; an erased picture is gone after so many days."""

    def __attrs_post_init__(self) -> None:
        """Check what no service would say before money is spent."""
        if self.generation not in {"next", "classic"}:
            raise UsageError(
                f"There is no generation '{self.generation}'; there are next and classic.", hint="--generation next"
            )
        if self.generation == "next" and not self.standby:
            raise UsageError(
                "Only the classic generation can do without standby copies.", hint="--generation classic --no-standby"
            )
        self._check_numbers()
        for endpoint in self.vpc_endpoints:
            if not _VPC_ENDPOINT.fullmatch(endpoint):
                raise UsageError(f"'{endpoint[:60]}' is no VPC endpoint; one looks like vpce-0123456789abcdef0.")
        for guardrail in self.guardrails:
            if not _GUARDRAIL.fullmatch(guardrail):
                raise UsageError(f"'{guardrail[:60]}' is no id of a guardrail; one looks like abc123def456.")
        if self.signing_key is not None and not _SIGNING_KEY.fullmatch(self.signing_key):
            raise UsageError(
                f"'{self.signing_key[:120]}' is no ARN of a KMS key (an alias is not enough for a policy)."
            )
        for kind, models in self.models.items():
            for model in models:
                _check_model(kind, model)

    def _check_numbers(self) -> None:
        if not 2 <= self.max_ocu <= _MOST_OCU:
            raise UsageError(f"2 to {_MOST_OCU} compute units can be allowed, not {self.max_ocu}.", hint="--max-ocu 8")
        days = self.object_lock_days
        if days is not None and not 1 <= days <= _LONGEST_RETENTION_DAYS:
            raise UsageError(
                f"Object Lock holds 1 to {_LONGEST_RETENTION_DAYS} days, not {days}.", hint="--object-lock 365"
            )
        if self.job_output_days < _SHORTEST_JOB_DAYS:
            raise UsageError(
                f"Outputs of jobs are kept {_SHORTEST_JOB_DAYS} days or more, not {self.job_output_days}: an interrupted "
                "batch fetches them later.",
                hint="--job-output-days 30",
            )
        if self.old_version_days < 1:
            raise UsageError(f"Old versions are kept 1 day or more, not {self.old_version_days}.")

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """The models by what they do, as the catalogue calls it."""
        return {
            "embedder": self.embedding_models,
            "captioner": self.caption_models,
            "inpainter": self.edit_models,
            "video_generator": self.video_models,
        }

    @property
    def settings(self) -> dict[str, JSON]:
        """What a stack remembers of the choices: those that cannot be changed later, and those that cost."""
        kept = ("generation", "standby", "max_ocu", "kms", "object_lock_days")
        return {key: value for key, value in asdict(self).items() if key in kept}

    def check_succeeds(self, before: Mapping[str, JSON]) -> None:
        """Make sure that a stack with the settings `before` can become this.

        Raises:
            UsageError: A choice that holds data or encrypts it would change.
        """
        for key, flag in (
            ("generation", f"--generation {before.get('generation')}"),
            ("standby", "--standby" if before.get("standby") else "--no-standby"),
            ("kms", "--kms" if before.get("kms") else "--no-kms"),
        ):
            if key in before and before[key] != getattr(self, key):
                raise UsageError(
                    f"The stack '{self.name}' was made with {flag}, and that cannot be changed while it holds data. Say it "
                    "again, or make another stack and move the knowledge base (vrag kb export).",
                    hint=f"vrag aws deploy --name {self.name} {flag}",
                )
        locked = before.get("object_lock_days")
        if locked is not None and self.object_lock_days is None:
            raise UsageError(
                f"The stack '{self.name}' has a bucket under Object Lock for {locked} days; it cannot be left out.",
                hint=f"vrag aws deploy --name {self.name} --object-lock {locked}",
            )


def _check_model(kind: str, model: str) -> None:
    if not _MODEL.fullmatch(model):
        raise UsageError(
            f"'{model[:80]}' is no id of a model; write one model or inference profile, without wildcards.",
            hint="vrag models",
        )
    known = Catalogue.load().find(PROVIDER, model)
    if known is not None and known.kind != kind:
        raise UsageError(f"{model} is a {known.kind}, not a {kind}; its role would allow too much.", hint="vrag models")
