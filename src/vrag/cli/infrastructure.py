"""`vrag aws`: what V-RAG needs in an AWS account, made, shown and taken away."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vrag.cli.output import Output
from vrag.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from vrag.backends.aws.infrastructure.choices import Infrastructure
    from vrag.backends.aws.infrastructure.cost import IdleCost
    from vrag.backends.aws.infrastructure.stack import ChangeSet, Clients, Stack

__all__ = ["aws"]

_SERVICES: Final = ("cloudformation", "s3", "opensearchserverless", "iam", "kms", "sts")


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--json`; it gets an `Output` as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
    @functools.wraps(command)
    def wrapped(*, as_json: bool, **given: Any) -> Any:
        return command(Output(as_json=as_json), **given)

    return wrapped


def _account_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--profile`, `--region` and `--endpoint-url`; it gets `Clients` as `clients`."""

    @click.option("--profile", metavar="NAME", help="Of ~/.aws. [default: AWS_PROFILE]")
    @click.option("--region", metavar="NAME", help="Where. [default: AWS_REGION, or that of the profile]")
    @click.option("--endpoint-url", metavar="URL", help="Another address for every service, such as a test server.")
    @functools.wraps(command)
    def wrapped(
        output: Output, *, profile: str | None, region: str | None, endpoint_url: str | None, **given: Any
    ) -> Any:
        return command(output, clients=_clients(profile, region, endpoint_url), **given)

    return wrapped


def _clients(profile: str | None, region: str | None, endpoint_url: str | None) -> Clients:
    import os  # noqa: PLC0415  # with boto3, whose habits it follows

    import boto3  # noqa: PLC0415  # costs more than the rest of the command line
    from botocore.config import Config  # noqa: PLC0415  # as above

    from vrag.backends.aws.errors import translated  # noqa: PLC0415  # botocore
    from vrag.backends.aws.infrastructure.stack import Clients  # noqa: PLC0415  # as above

    with translated("credentials", "aws"):
        session: Any = boto3.Session(profile_name=profile, region_name=region or os.environ.get("AWS_REGION"))
    if session.region_name is None:
        raise ConfigError("No AWS Region is known.", hint="--region us-west-2")
    config = Config(retries={"mode": "standard", "total_max_attempts": 8})
    with translated("connect", "aws"):
        made: dict[str, Any] = {
            service: session.client(service, endpoint_url=endpoint_url, config=config) for service in _SERVICES
        }
    return Clients(**made)


_name_option = click.option(
    "--name", default="vrag", show_default=True, metavar="NAME", help="Of the stack, and the beginning of all names."
)


def _several(flag: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(flag, multiple=True, metavar="ID", help=what)


def _choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every choice of a template; it gets an `Infrastructure` as `infrastructure`."""
    options = (
        _name_option,
        click.option(
            "--generation",
            type=click.Choice(["next", "classic"]),
            default="next",
            show_default=True,
            help="Of OpenSearch Serverless: next scales to zero, classic always runs.",
        ),
        click.option(
            "--standby/--no-standby", default=True, help="Copies in a second zone; only classic can do without."
        ),
        click.option("--max-ocu", type=int, default=8, show_default=True, help="Most compute units of next, each way."),
        click.option("--kms/--no-kms", default=False, help="Encrypt with a KMS key of your own."),
        click.option(
            "--object-lock",
            "object_lock_days",
            type=int,
            metavar="DAYS",
            help="A bucket for ledger checkpoints, locked.",
        ),
        _several("--vpc-endpoint", "The only way to the index: an OpenSearch Serverless VPC endpoint. Repeat it."),
        _several("--embedding-model", "Model of Bedrock that ingest and generate may call. Repeat it."),
        _several("--caption-model", "Model that ingest may call. Repeat it."),
        _several("--edit-model", "Model that generate may call. Repeat it."),
        _several("--video-model", "Model that generate may call. Repeat it."),
        _several("--guardrail", "Guardrail of Bedrock that ingest and generate may ask. Repeat it."),
        click.option("--signing-key", metavar="ARN", help="KMS key of yours that ingest and generate may sign with."),
        click.option(
            "--job-output-days", type=int, default=30, show_default=True, help="Keep outputs of jobs so long."
        ),
        click.option(
            "--old-version-days",
            type=int,
            default=30,
            show_default=True,
            help="Keep replaced and erased bytes so long.",
        ),
    )

    @functools.wraps(command)
    def wrapped(
        output: Output,
        *,
        name: str,
        generation: Any,
        standby: bool,
        max_ocu: int,
        kms: bool,
        object_lock_days: int | None,
        vpc_endpoint: tuple[str, ...],
        embedding_model: tuple[str, ...],
        caption_model: tuple[str, ...],
        edit_model: tuple[str, ...],
        video_model: tuple[str, ...],
        guardrail: tuple[str, ...],
        signing_key: str | None,
        job_output_days: int,
        old_version_days: int,
        **given: Any,
    ) -> Any:
        from vrag.backends.aws.infrastructure.choices import Infrastructure  # noqa: PLC0415  # the catalogue

        models = {
            "embedding_models": embedding_model,
            "caption_models": caption_model,
            "edit_models": edit_model,
            "video_models": video_model,
        }
        infrastructure = Infrastructure(
            name=name,
            generation=generation,
            standby=standby,
            max_ocu=max_ocu,
            kms=kms,
            object_lock_days=object_lock_days,
            vpc_endpoints=vpc_endpoint,
            guardrails=guardrail,
            signing_key=signing_key,
            job_output_days=job_output_days,
            old_version_days=old_version_days,
            **{key: chosen for key, chosen in models.items() if chosen},
        )
        return command(output, infrastructure=infrastructure, **given)

    result: Callable[..., Any] = wrapped
    for option in reversed(options):
        result = option(result)
    return result


def _ocu_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--ocu-usd", type=click.FloatRange(0, 100), metavar="USD", help="Your price of an OpenSearch unit for an hour."
    )(command)


@click.group()
def aws() -> None:
    """Look after what V-RAG needs in an AWS account: buckets, an index, and roles.

    \b
    Examples:
      vrag aws template -o vrag.json
      vrag aws deploy --region us-west-2
      vrag aws status --region us-west-2
      vrag aws destroy --region us-west-2
    """  # noqa: D301  # \b is click's mark for "do not wrap"


@aws.command()
@_json_option
@_choice_options
@click.option("-o", "--output", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def template(output: Output, *, infrastructure: Infrastructure, path: Path | None) -> int:
    """Print the CloudFormation template (JSON). No account is needed, and nothing is sent.

    \b
    Examples:
      vrag aws template --name studio
      vrag aws template --kms --object-lock 365 -o vrag-aws.json
    """  # noqa: D301  # as above
    from vrag.backends.aws.infrastructure.template import body  # noqa: PLC0415  # as above

    text = body(infrastructure, indent=2) + "\n"
    if path is None:
        # The template is JSON itself, so `--json` changes nothing.
        click.echo(text, nl=False)
        return 0
    from vrag.media.files import write_new  # noqa: PLC0415  # as above

    write_new(path, [text.encode()], overwrite=True)
    output.say(f"{path}: {len(text.encode())} bytes")
    output.document({"path": str(path), "size_bytes": len(text.encode())})
    return 0


@aws.command()
@_json_option
@_account_options
@_choice_options
@click.option("--ingest-principal", multiple=True, metavar="ARN", help="Who may assume the ingest role. Repeat it.")
@click.option("--generate-principal", multiple=True, metavar="ARN", help="Who may assume the generate role. Repeat it.")
@click.option("--audit-principal", multiple=True, metavar="ARN", help="Who may assume the audit role. Repeat it.")
@_ocu_option
@click.option("--yes", is_flag=True, help="Make the changes without being asked.")
def deploy(
    output: Output,
    *,
    clients: Clients,
    infrastructure: Infrastructure,
    ingest_principal: tuple[str, ...],
    generate_principal: tuple[str, ...],
    audit_principal: tuple[str, ...],
    ocu_usd: float | None,
    yes: bool,
) -> int:
    """Make the stack or change it: shows the changes and what they cost idle, asks once, and waits.

    Without a terminal it makes nothing unless --yes is said. An interrupted wait stops nothing: ask for the status.

    \b
    Examples:
      vrag aws deploy --region us-west-2
      vrag aws deploy --name studio --kms --object-lock 365 --yes
      vrag aws deploy --generate-principal arn:aws:iam::123456789012:role/video-team
    """  # noqa: D301  # as above
    from vrag.backends.aws.infrastructure.stack import discard, execute, prepare  # noqa: PLC0415  # botocore
    from vrag.clock import SystemClock  # noqa: PLC0415  # as above

    principals = {"ingest": ingest_principal, "generate": generate_principal, "audit": audit_principal}
    asked = sys.stdin.isatty() and not output.as_json
    if not (yes or asked):
        raise UsageError(
            "Here is no terminal to ask at, and a stack costs money: nothing was made.",
            hint=f"vrag aws deploy --name {infrastructure.name} --yes",
        )
    clock = SystemClock()
    for line in _not_offered(infrastructure, clients.region):
        output.note(f"note: {line}")
    changes = prepare(clients, infrastructure, principals, clock=clock)
    cost = _cost(infrastructure.settings, clients, ocu_usd)
    if changes is None:
        output.say(f"{infrastructure.name}: nothing to change")
        output.document({"stack": infrastructure.name, "changed": False, "idle_cost": cost.to_json()})
        return 0
    _show_changes(output, changes)
    _show_cost(output, cost)
    if not yes and not click.confirm(f"Make these changes in {clients.region}?", err=True):
        discard(clients, changes)
        output.note("Nothing was made.")
        return 1
    with output.progress(f"stack {infrastructure.name}") as progress:
        stack = execute(clients, changes, clock=clock, progress=progress)
    output.say(f"{stack.name}: {stack.status}")
    _show_outputs(output, stack)
    output.document(
        {
            "stack": stack.name,
            "changed": True,
            "status": stack.status,
            "outputs": dict(stack.outputs),
            "idle_cost": cost.to_json(),
        }
    )
    return 0


def _not_offered(infrastructure: Infrastructure, region: str) -> list[str]:
    """Models that the catalogue does not know in this Region."""
    from vrag.backends.aws.infrastructure.choices import PROVIDER  # noqa: PLC0415  # the catalogue
    from vrag.generation.catalogue import Catalogue  # noqa: PLC0415  # as above

    catalogue = Catalogue.load()
    chosen = [model for models in infrastructure.models.values() for model in models]
    known = [(model, catalogue.find(PROVIDER, model)) for model in chosen]
    return [
        f"{model} is not offered in {region} but in {', '.join(found.regions)} ({catalogue.checked_on})"
        for model, found in known
        if found is not None and found.regions and region not in found.regions
    ]


def _cost(settings: Any, clients: Clients, ocu_usd: float | None) -> IdleCost:
    from vrag.backends.aws.infrastructure.cost import forecast  # noqa: PLC0415  # as above

    price = None if ocu_usd is None else round(ocu_usd * 1_000_000)
    return forecast(settings, clients.region, ocu_hour_usd_micros=price)


def _show_changes(output: Output, changes: ChangeSet) -> None:
    output.say(f"{'new stack' if changes.creates else 'changes of the stack'} {changes.name}:")
    rows = [
        (
            change.action + (", replaced" if change.replaced else "") + (", kept outside" if change.kept else ""),
            change.logical_id,
            change.kind,
        )
        for change in changes.changes
    ]
    output.table(("change", "name", "kind"), rows)


def _show_cost(output: Output, cost: IdleCost) -> None:
    output.say()
    output.say(f"while nobody uses it: {cost.total}")
    output.table(("what", "a month", "why"), cost.rows())


def _show_outputs(output: Output, stack: Stack) -> None:
    for key, value in stack.outputs.items():
        if key not in {"VragToml", "Settings"}:
            output.say(f"{key}: {value}")
    if "VragToml" in stack.outputs:
        output.say()
        for line in stack.outputs["VragToml"].splitlines():
            output.say(line)


@aws.command()
@_json_option
@_account_options
@_name_option
@_ocu_option
def status(output: Output, *, clients: Clients, name: str, ocu_usd: float | None) -> int:
    """Show the stack, its resources, whether it drifted, what to paste into vrag.toml, and what it costs idle.

    Exit code 1 where there is no such stack, or it is not in a good state.

    \b
    Example:
      vrag aws status --name studio --region us-west-2
    """  # noqa: D301  # as above
    from vrag.backends.aws.infrastructure.choices import check_name  # noqa: PLC0415  # botocore
    from vrag.backends.aws.infrastructure.stack import describe, resources  # noqa: PLC0415  # as above
    from vrag.errors import NotFoundError  # noqa: PLC0415  # as above

    stack = describe(clients, check_name(name))
    if stack is None:
        raise NotFoundError(f"There is no stack '{name}' in {clients.region}.", hint=f"vrag aws deploy --name {name}")
    listed = resources(clients, stack.id)
    cost = _cost(stack.settings, clients, ocu_usd) if stack.settings else None
    output.say(f"{stack.name}: {stack.status}{f' ({stack.reason})' if stack.reason else ''}")
    output.say(f"drift: {stack.drift} (look again: aws cloudformation detect-stack-drift --stack-name {stack.name})")
    output.table(
        ("state", "name", "kind", "id"),
        [
            (one["ResourceStatus"], one["LogicalResourceId"], one["ResourceType"], one.get("PhysicalResourceId", ""))
            for one in listed
        ],
    )
    if cost is not None:
        _show_cost(output, cost)
    else:
        output.say("what it costs idle is not known: the stack does not say how it was made")
    _show_outputs(output, stack)
    good = stack.status.endswith("_COMPLETE") and "ROLLBACK" not in stack.status
    output.document(
        {
            "stack": stack.name,
            "status": stack.status,
            "reason": stack.reason,
            "drift": stack.drift,
            "resources": [
                {
                    "name": one["LogicalResourceId"],
                    "kind": one["ResourceType"],
                    "id": one.get("PhysicalResourceId"),
                    "status": one["ResourceStatus"],
                }
                for one in listed
            ],
            "outputs": dict(stack.outputs),
            "idle_cost": None if cost is None else cost.to_json(),
        }
    )
    return 0 if good else 1


@aws.command()
@_json_option
@_account_options
@_name_option
@click.option("--yes", metavar="NAME", help="The name again, instead of typing it when asked.")
def destroy(output: Output, *, clients: Clients, name: str, yes: str | None) -> int:
    """Delete the stack with all pictures and videos in it, then prove that nothing is left.

    Asks for the name of the stack. Exit code 4 where something is locked and was left, 1 where something else is left.

    \b
    Examples:
      vrag aws destroy --name studio --region us-west-2
      vrag aws destroy --name studio --yes studio
    """  # noqa: D301  # as above
    from vrag.backends.aws.infrastructure.choices import check_name  # noqa: PLC0415  # botocore
    from vrag.backends.aws.infrastructure.destroy import destroy as end  # noqa: PLC0415  # as above
    from vrag.backends.aws.infrastructure.stack import caller  # noqa: PLC0415  # as above
    from vrag.backends.aws.infrastructure.survey import survey  # noqa: PLC0415  # as above
    from vrag.clock import SystemClock  # noqa: PLC0415  # as above

    names = caller(clients, check_name(name))
    there = [one for one in survey(clients, names) if one.state != "gone"]
    if not there:
        output.say(f"{name}: nothing is there in {clients.region}")
        output.document({"things": [], "left": []})
        return 0
    output.say("what will be deleted, with everything in it:")
    output.table(("kind", "name", "now", ""), [(one.kind, one.id, one.state, one.detail) for one in there])
    if yes is None and sys.stdin.isatty() and not output.as_json:
        yes = click.prompt(f"Type {name} to delete all this for ever", err=True)
    if yes != name:
        raise UsageError(
            f"The name of the stack is '{name}'; it was not repeated, so nothing was deleted.",
            hint=f"vrag aws destroy --name {name} --yes {name}",
        )
    with output.progress(f"stack {name}") as progress:
        done = end(clients, names, clock=SystemClock(), progress=progress, note=output.note)
    shown = {one.id for one in there}
    output.table(("kind", "name", "now", "why"), [row for row in done.rows() if row[1] in shown or row[2] != "gone"])
    output.document(done.to_json())
    if done.left:
        output.note(f"left: {', '.join(one.id for one in done.left)}")
        return 1
    if done.kept:
        output.note("Something is locked and was left; destroy again once the lock has ended.")
        return 4
    output.say(f"{name}: every service says that nothing is left")
    return 0
