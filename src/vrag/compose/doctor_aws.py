"""What `vrag doctor` asks of AWS: who calls, which models, buckets, indexes and keys can be used. Nothing is bought."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vrag.backends import Context
from vrag.backends.aws import opensearch_client
from vrag.backends.aws.clients import CONNECTION, Clients, Connection
from vrag.backends.aws.errors import translated, without_secrets
from vrag.backends.aws.opensearch_index import check_meta
from vrag.backends.aws.opensearch_indexes import active_index
from vrag.backends.aws.opensearch_probe import probe
from vrag.backends.aws.s3 import S3Storage
from vrag.clock import Clock
from vrag.compose.configuration import Part
from vrag.compose.doctor import Check
from vrag.compose.models import ConfiguredModel, configured_models
from vrag.errors import BackendError, NotFoundError, VRAGError

if TYPE_CHECKING:
    from vrag.compose.assembly import Assembly

__all__ = ["examine_aws"]

_SERVICE = {"s3": "s3", "kms": "kms", "opensearch": "opensearch", "opensearch-serverless": "opensearch"}
_QUICK_S = 15


def examine_aws(assembly: Assembly, *, environ: Mapping[str, str], clock: Clock) -> Iterator[Check]:
    """Every line about AWS."""
    parts = {
        key: part for key, part in sorted(assembly.configuration.parts.items()) if part.use.partition(":")[0] == "aws"
    }
    table = assembly.configuration.tables.get("aws")
    clients = Clients({} if table is None else assembly.with_paths(table.value), environ)
    reached = dict[str, Connection]()
    for key, part in parts.items():
        service = _SERVICE.get(_name(part), "bedrock-runtime")
        try:
            reached[key] = clients.connection(service, assembly.with_paths(part.options))
        except VRAGError as error:
            yield Check(name=f"region of {key}", state="FAIL", message=error.message, next_step=error.hint)
    yield from _regions(reached)
    works = dict[tuple[str | None, str | None], bool]()
    for connection in reached.values():
        who = connection.profile, connection.role_arn
        if who not in works:
            check = _caller(clients, connection)
            works[who] = check.state == "ok"
            yield check
    usable = {key for key, one in reached.items() if works[one.profile, one.role_arn]}
    for model in configured_models(assembly.configuration, clock.now()):
        if model.key in usable and model.problem is None:
            yield _model(clients, model, reached[model.key], clock.now())
    for bucket, options in _buckets(assembly, {key: part for key, part in parts.items() if key in usable}):
        yield _bucket(clients, bucket, options, clock)
    for key, part in parts.items():
        if key in usable and _name(part).startswith("opensearch"):
            yield from _index(assembly, key, part, environ, clock)
        if key in usable and _name(part) == "kms":
            yield _key(clients, part)
        if key in usable and _name(part) == "guardrail":
            yield Check(name="guardrail", state="-", message="not asked: every question to a guardrail costs money")


def _name(part: Part) -> str:
    return part.use.partition(":")[2]


def _regions(reached: Mapping[str, Connection]) -> Iterator[Check]:
    regions = dict[str, list[str]]()
    for key, connection in reached.items():
        regions.setdefault(str(connection.region), []).append(key)
    for region, keys in sorted(regions.items()):
        yield Check(name="region", state="ok", message=f"{region} for {', '.join(keys)}")


def _caller(clients: Clients, connection: Connection) -> Check:
    name = f"credentials ({clients.describe(connection)})"

    def ask() -> str:
        options = {
            key: value
            for key in ("profile", "region", "role_arn", "external_id")
            if (value := getattr(connection, key)) is not None
        }
        client = clients.client("sts", options, read_timeout_s=_QUICK_S, attempts=2)
        with translated("GetCallerIdentity", "sts"):
            answer = client.get_caller_identity()
        account, arn = str(answer["Account"]), str(answer["Arn"])
        return f"account …{account[-4:]}, {arn.rpartition(':')[2]}"

    return _tried(name, ask)


def _tried(name: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(name=name, state="ok", message=ask())
    except VRAGError as error:
        hint = error.hint
        if hint is None and isinstance(error, BackendError):
            hint = "look at endpoint_url, proxy and the network" if error.retryable else "vrag config show"
        return Check(name=name, state="FAIL", message=error.message, next_step=hint)


def _model(clients: Clients, model: ConfiguredModel, connection: Connection, now: datetime) -> Check:
    name, known = f"model {model.id}", model.known
    if known is not None and known.regions and connection.region not in known.regions:
        where = ", ".join(known.regions)
        return Check(
            name=name,
            state="FAIL",
            message=f"{model.key}: not offered in {connection.region}; offered in {where}",
            next_step=f'write: region = "{known.regions[0]}"',
        )
    asked = {key: value for key, value in model.part.options.items() if key in CONNECTION and key != "endpoint_url"}
    bare = known.id if known is not None else model.id
    try:
        control = clients.client("bedrock", asked, read_timeout_s=_QUICK_S, attempts=1)
        with translated("GetFoundationModel", "bedrock"):
            life = control.get_foundation_model(modelIdentifier=bare)["modelDetails"].get("modelLifecycle", {})
        with translated("GetFoundationModelAvailability", "bedrock"):
            access = control.get_foundation_model_availability(modelId=bare)
    except NotFoundError:
        return Check(
            name=name,
            state="FAIL",
            message=f"{model.key}: Bedrock in {connection.region} does not list it",
            next_step="vrag models",
        )
    except VRAGError as error:
        said = (
            "not in the catalogue" if known is None else f"{model.state} by the catalogue{_note(known.lifecycle.note)}"
        )
        return Check(
            name=name,
            state="-",
            message=f"{model.key}: {said}; the control plane did not tell: {error.message}",
            next_step="allow bedrock:GetFoundationModel and bedrock:GetFoundationModelAvailability",
        )
    return _judged(name, model.key, life, access, now)


def _note(note: str) -> str:
    return f" ({note})" if note else ""


def _judged(name: str, key: str, life: Mapping[str, Any], access: Mapping[str, Any], now: datetime) -> Check:
    ends = life.get("endOfLifeTime")
    if ends is not None and ends.astimezone(UTC) <= now:
        return Check(name=name, state="FAIL", message=f"{key}: ended on {ends:%Y-%m-%d}", next_step="vrag models")
    lacking = [
        what
        for what, good in (
            ("authorizationStatus", "AUTHORIZED"),
            ("entitlementAvailability", "AVAILABLE"),
            ("regionAvailability", "AVAILABLE"),
        )
        if access.get(what, good) != good
    ]
    if access.get("agreementAvailability", {}).get("status", "AVAILABLE") not in {"AVAILABLE", "PENDING"}:
        lacking.append("agreementAvailability")
    if lacking:
        return Check(
            name=name,
            state="FAIL",
            message=f"{key}: this account has no access ({', '.join(lacking)})",
            next_step="ask for model access in the Bedrock console of this Region",
        )
    until = f", until {ends:%Y-%m-%d}" if ends is not None else ""
    legacy = life.get("status") == "LEGACY"
    said = f"{key}: access, {'legacy' if legacy else 'active'}{until}"
    return Check(name=name, state="ok", message=said, next_step="plan another model: vrag models" if legacy else None)


def _buckets(assembly: Assembly, parts: Mapping[str, Part]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every bucket with the options of a part that uses it, once for each address."""
    seen = set[tuple[str, object]]()
    for part in parts.values():
        options = dict(assembly.with_paths(part.options))
        uri = options.get("output_uri")
        if isinstance(uri, str) and uri.startswith("s3://"):
            bucket = uri.removeprefix("s3://").partition("/")[0]
            address = options.pop("s3_endpoint_url", None)
            options.pop("endpoint_url", None)
            if address is not None:
                options["endpoint_url"] = address
        elif _name(part) == "s3" and isinstance(options.get("bucket"), str):
            bucket = str(options["bucket"])
        else:
            continue
        if (bucket, options.get("endpoint_url")) not in seen:
            seen.add((bucket, options.get("endpoint_url")))
            yield bucket, options


def _bucket(clients: Clients, bucket: str, options: Mapping[str, Any], clock: Clock) -> Check:
    def ask() -> str:
        client = clients.client("s3", options, read_timeout_s=_QUICK_S, attempts=2)
        storage = S3Storage(client, bucket, "vrag-doctor", clock=clock)
        data = clock.token_bytes(16)
        ref = storage.put(io.BytesIO(data), "application/octet-stream")
        try:
            with storage.open(ref) as stream:
                stream.read()  # compared with its digest on the way
        finally:
            storage.delete(ref)
        return "written, read and deleted a small object"

    return _tried(f"bucket {bucket}", ask)


def _index(assembly: Assembly, key: str, part: Part, environ: Mapping[str, str], clock: Clock) -> Iterator[Check]:
    name = key.split(".")[1]
    table = assembly.configuration.tables.get("aws")
    context = Context(
        name=name,
        folder=assembly.folder,
        clock=clock,
        environ=environ,
        settings={} if table is None else assembly.with_paths(table.value),
    )
    try:
        client, index, given = opensearch_client(_name(part), assembly.with_paths(part.options), context)
    except VRAGError as error:
        yield Check(name=f"index of {name}", state="FAIL", message=error.message, next_step=error.hint)
        return
    try:
        found = probe(client, clock=clock)
        wanted = str(given.get("flavour", "managed"))
        fits = found.flavour == wanted and (wanted != "managed" or str(given["engine"]) in found.engines)
        yield Check(
            name=f"opensearch of {name}",
            state="ok" if fits else "FAIL",
            message=f"{found.flavour}, version {found.version or 'not told'}, engines {', '.join(found.engines) or 'none'}",
            next_step=None
            if fits
            else f"configured is {wanted} with the engine {given['engine']}: correct `use` or `engine`",
        )
        yield _mapping(assembly, client, name, index)
    except VRAGError as error:
        yield Check(name=f"opensearch of {name}", state="FAIL", message=error.message, next_step=error.hint)
    finally:
        client.close()


def _mapping(assembly: Assembly, client: Any, name: str, alias: str) -> Check:
    index = active_index(client, alias)
    if index is None:
        return Check(
            name=f"index {alias}", state="-", message="not made yet", next_step=f"vrag ingest FOLDER --kb {name}"
        )

    def ask() -> str:
        with translated("indices.get_mapping", "opensearch"):
            mapping = client.indices.get_mapping(index=index)[index]["mappings"]
        embedder = assembly.embedder(name)
        space = embedder.space if embedder else None
        check_meta(mapping.get("_meta", {}), space, index)
        return f"{index}, for {space or 'words only'}"

    return _tried(f"index {alias}", ask)


def _key(clients: Clients, part: Part) -> Check:
    def ask() -> str:
        from vrag.backends.aws.kms import KmsSigner  # noqa: PLC0415  # beside its use

        client = clients.client("kms", part.options, read_timeout_s=_QUICK_S, attempts=2)
        signer = KmsSigner(client, key_id=str(part.options.get("key_id", "")))
        return f"{signer.algorithm}, public key {signer.keyid[:12]}…"

    return _tried(f"key {without_secrets(str(part.options.get('key_id')))}", ask)
