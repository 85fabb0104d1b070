"""Backends on AWS: Bedrock, S3, OpenSearch, KMS. `backend` is what `vrag.compose` finds.

Each module behind it, and boto3, is imported when its part is made. All parts of one assembly share their clients; see
`vrag.backends.aws.clients` for the options of a connection, which every part takes beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from vrag.backends import Backend, Context, check_options
from vrag.backends.aws.clients import CONNECTION, Clients
from vrag.errors import ConfigError
from vrag.interfaces import Captioner, Embedder, Inpainter, Signer, Storage, VectorStore, VideoGenerator
from vrag.values.canonical import JSON

if TYPE_CHECKING:
    from vrag.backends.aws.guardrail import BedrockGuardrail
    from vrag.generation.catalogue import Catalogue
    from vrag.knowledge.reindex import Indexes

__all__ = ["MODELS", "Options", "backend", "opensearch_client"]

MODELS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "titan-image": ("amazon.titan-embed-image-v1",),
        "nova-embeddings": ("amazon.nova-2-multimodal-embeddings-v1:0",),
        "cohere-embed": ("cohere.embed-v4:0",),
        "marengo": ("twelvelabs.marengo-embed-3-0-v1:0",),
        "luma-ray": ("luma.ray-v2:0",),
        "nova-reel": ("amazon.nova-reel-v1:1",),
        "stability": (
            "stability.stable-image-inpaint-v1:0",
            "stability.stable-image-erase-object-v1:0",
            "stability.stable-outpaint-v1:0",
            "stability.stable-image-search-replace-v1:0",
            "stability.stable-image-remove-background-v1:0",
        ),
        "nova-canvas": ("amazon.nova-canvas-v1:0",),
        "converse": ("us.amazon.nova-2-lite-v1:0",),
    }
)
"""The models behind each name; the option `model` takes the place of a single one."""

_BEDROCK: Final = ("account", "allow_retired", "prices", *CONNECTION)
_VIDEO: Final = ("output_uri", "model", "kms_key_id", "bucket_owner", "s3_endpoint_url", *_BEDROCK)
_S3: Final = ("bucket", "prefix", "kms_key_id", "bucket_owner", "multipart_bytes", "part_bytes", *CONNECTION)
_OPENSEARCH: Final = (
    "index",
    "sign",
    "username",
    "password_env",
    "engine",
    "shards",
    "replicas",
    "exact_up_to_rows",
    "candidates",
    *CONNECTION,
)
_SERVERLESS: Final = ("index", "generation", "candidates", *CONNECTION)
_EDIT_TIMEOUT_S: Final = 310
"""An edit may take minutes: Amazon Nova User Guide "Image generation and editing" (2026-11-20)."""


class Options:
    """Reads the options of one part, each with its kind."""

    def __init__(self, options: Mapping[str, JSON], known: tuple[str, ...]) -> None:
        """Refuse an option that is not `known`.

        Raises:
            ConfigError: With the nearest one.
        """
        check_options(options, known)
        self.given = options

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text that is not empty."""
        found: str | None = self._of_kind(name, str, "text that is not empty", '"…"', default)
        return found

    def need(self, name: str, example: str) -> str:
        """A text that must be given."""
        found = self.text(name)
        if found is None:
            raise ConfigError(f"It needs the option '{name}'.", hint=f'write: {name} = "{example}"')
        return found

    def one_of(self, name: str, allowed: tuple[str, ...], default: str) -> Any:
        """One of these texts."""
        found = self.text(name, default)
        if found not in allowed:
            raise ConfigError(f"The option '{name}' is one of {', '.join(allowed)}, not '{str(found)[:60]}'.")
        return found

    def whole(self, name: str, default: int) -> int:
        """A whole number from 0 on."""
        found: int = self._of_kind(name, int, "a whole number from 0 on", "1", default)
        return found

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        found: bool = self._of_kind(name, bool, "true or false", "true", default)
        return found

    def set(self, *names: str) -> dict[str, Any]:
        """Those of these texts and numbers that were given, as keyword arguments; whoever takes them knows their limits."""
        return {name: self.given[name] for name in names if name in self.given}

    def _of_kind(self, name: str, kind: type, what: str, example: str, default: Any) -> Any:
        if name not in self.given:
            return default
        value = self.given[name]
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not right or (kind is str and not value) or (kind is int and value < 0):
            raise ConfigError(f"The option '{name}' is {what}.", hint=f"write: {name} = {example}")
        return value


def _catalogue(options: Options, models: tuple[str, ...]) -> Catalogue:
    """The catalogue with the prices of an own agreement: `prices = { video_second = 0.5 }`, in USD."""
    from vrag.generation.catalogue import Catalogue  # noqa: PLC0415  # reads a file

    catalogue = Catalogue.load()
    prices = options.given.get("prices", {})
    if not isinstance(prices, Mapping):
        raise ConfigError("The option 'prices' is a table of USD.", hint="write: prices = { video_second = 0.5 }")
    for unit, usd in prices.items():
        if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd < 1e6:
            raise ConfigError(f"The price of one {unit} is a number of USD from 0 on.")
        for model in models:
            # Prices of tokens are far below a micro-USD: they are kept for a million of them.
            catalogue = catalogue.with_price(
                "aws-bedrock", model, unit, round(usd * 1_000_000 * 1_000_000), per=1_000_000
            )
    return catalogue


def _bedrock(options: Options, models: tuple[str, ...], context: Context) -> dict[str, Any]:
    """What every adapter of Bedrock takes."""
    return {
        "account": options.text("account"),
        "allow_retired": options.flag("allow_retired", default=False),
        "catalogue": _catalogue(options, models),
        "clock": context.clock,
    }


def _embedder(name: str, options: Mapping[str, JSON], context: Context) -> Embedder:
    more = ("retrieval",) if name == "nova-embeddings" else ()
    read = Options(options, ("model", "dimension", "in_flight", *more, *_BEDROCK))
    model = read.text("model") or MODELS[name][0]
    given = {"model_id": model, **read.set("dimension", "in_flight", *more), **_bedrock(read, (model,), context)}
    client = Clients.of(context).client("bedrock-runtime", options)
    if name == "titan-image":
        from vrag.backends.aws.titan_embeddings import TitanEmbedder  # noqa: PLC0415  # numpy, as below

        return TitanEmbedder(client, **given)
    if name == "nova-embeddings":
        from vrag.backends.aws.nova_embeddings import NovaEmbedder  # noqa: PLC0415  # as above

        return NovaEmbedder(client, **given)
    if name == "cohere-embed":
        from vrag.backends.aws.cohere_embed import CohereEmbedder  # noqa: PLC0415  # as above

        return CohereEmbedder(client, **given)
    from vrag.backends.aws.marengo import MarengoEmbedder  # noqa: PLC0415  # as above

    return MarengoEmbedder(client, **given)


def _titan(options: Mapping[str, JSON], context: Context) -> Embedder:
    return _embedder("titan-image", options, context)


def _nova_embeddings(options: Mapping[str, JSON], context: Context) -> Embedder:
    return _embedder("nova-embeddings", options, context)


def _cohere(options: Mapping[str, JSON], context: Context) -> Embedder:
    return _embedder("cohere-embed", options, context)


def _marengo(options: Mapping[str, JSON], context: Context) -> Embedder:
    return _embedder("marengo", options, context)


def _video(name: str, options: Mapping[str, JSON], context: Context) -> dict[str, Any]:
    read = Options(options, _VIDEO)
    model = read.text("model") or MODELS[name][0]
    output_uri = read.need("output_uri", "s3://my-bucket/videos")
    clients = Clients.of(context)
    # The bucket lies in the region of the call; only the address of S3 is another one.
    beside = {key: value for key, value in options.items() if key != "endpoint_url"}
    if (address := read.text("s3_endpoint_url")) is not None:
        beside["endpoint_url"] = address
    return {
        "bedrock": clients.client("bedrock-runtime", options),
        "s3": clients.client("s3", beside),
        "output_uri": output_uri,
        "model_id": model,
        "kms_key_id": read.text("kms_key_id"),
        "bucket_owner": read.text("bucket_owner"),
        **_bedrock(read, (model,), context),
    }


def _luma_ray(options: Mapping[str, JSON], context: Context) -> VideoGenerator:
    given = _video("luma-ray", options, context)
    from vrag.backends.aws.luma_ray import LumaRayGenerator  # noqa: PLC0415  # botocore

    return LumaRayGenerator(**given)


def _nova_reel(options: Mapping[str, JSON], context: Context) -> VideoGenerator:
    given = _video("nova-reel", options, context)
    from vrag.backends.aws.nova_reel import NovaReelGenerator  # noqa: PLC0415  # Pillow

    return NovaReelGenerator(**given)


def _stability(options: Mapping[str, JSON], context: Context) -> Inpainter:
    read = Options(options, ("inference_profile", *_BEDROCK))
    # An edit has no token: one that is sent twice is paid twice.
    client = Clients.of(context).client("bedrock-runtime", options, read_timeout_s=_EDIT_TIMEOUT_S, attempts=1)
    from vrag.backends.aws.stability import StabilityInpainter  # noqa: PLC0415  # Pillow

    profile = read.text("inference_profile") or "us"
    return StabilityInpainter(client, profile=profile, **_bedrock(read, MODELS["stability"], context))


def _nova_canvas(options: Mapping[str, JSON], context: Context) -> Inpainter:
    read = Options(options, ("model", "quality", *_BEDROCK))
    model = read.text("model") or MODELS["nova-canvas"][0]
    quality = read.one_of("quality", ("standard", "premium"), "standard")
    client = Clients.of(context).client("bedrock-runtime", options, read_timeout_s=_EDIT_TIMEOUT_S, attempts=1)
    from vrag.backends.aws.nova_canvas import NovaCanvasInpainter  # noqa: PLC0415  # Pillow

    return NovaCanvasInpainter(client, model_id=model, quality=quality, **_bedrock(read, (model,), context))


def _converse(options: Mapping[str, JSON], context: Context) -> Captioner:
    read = Options(options, ("model", "max_tokens", "prompt", *_BEDROCK))
    model = read.text("model") or MODELS["converse"][0]
    given = {**read.set("prompt"), "max_tokens": read.whole("max_tokens", 512), **_bedrock(read, (model,), context)}
    client = Clients.of(context).client("bedrock-runtime", options, read_timeout_s=120)
    from vrag.backends.aws.captioner import BedrockCaptioner  # noqa: PLC0415  # Pillow

    return BedrockCaptioner(client, model_id=model, **given)


def _s3(options: Mapping[str, JSON], context: Context) -> Storage:
    read = Options(options, _S3)
    bucket = read.need("bucket", "my-bucket")
    prefix = options.get("prefix", f"vrag/{context.name}")
    if not isinstance(prefix, str):
        raise ConfigError("The option 'prefix' is text.", hint='write: prefix = "vrag/brand"')
    client = Clients.of(context).client("s3", options)
    from vrag.backends.aws.s3 import S3Storage  # noqa: PLC0415  # botocore

    return S3Storage(
        client,
        bucket,
        prefix,
        kms_key_id=read.text("kms_key_id"),
        bucket_owner=read.text("bucket_owner"),
        multipart_bytes=read.whole("multipart_bytes", 64 << 20),
        part_bytes=read.whole("part_bytes", 16 << 20),
        clock=context.clock,
    )


def opensearch_client(name: str, options: Mapping[str, JSON], context: Context) -> tuple[Any, str, dict[str, Any]]:
    """A new client for `opensearch` or `opensearch-serverless`, the name of the index, and what its store is given."""
    read = Options(options, _SERVERLESS if name == "opensearch-serverless" else _OPENSEARCH)
    index = read.text("index") or context.name
    given: dict[str, Any] = {"clock": context.clock, **read.set("candidates")}
    clients = Clients.of(context)
    if name == "opensearch-serverless":
        generation = read.one_of("generation", ("next", "classic"), "next")
        given |= {"flavour": f"serverless-{generation}", "engine": "faiss"}
        return clients.opensearch(options, signing="aoss", login=None), index, given
    given |= {"engine": read.one_of("engine", ("lucene", "faiss"), "lucene")}
    given |= {key: read.whole(key, 0) for key in ("shards", "replicas", "exact_up_to_rows") if key in options}
    user = read.text("username")
    login = None
    if user is not None:
        variable = read.need("password_env", "OPENSEARCH_PASSWORD")
        password = context.environ.get(variable)
        if not password:
            raise ConfigError(f"The variable '{variable}' (of 'password_env') is not set.", hint=f"export {variable}=…")
        login = (user, password)
    sign = read.flag("sign", default=login is None and _is_amazon(options, context))
    return clients.opensearch(options, signing="es" if sign else None, login=login), index, given


def _is_amazon(options: Mapping[str, JSON], context: Context) -> bool:
    below = context.settings.get("opensearch")
    url = options.get("endpoint_url") or (below.get("endpoint_url") if isinstance(below, Mapping) else None) or ""
    return ".amazonaws.com" in str(url)


def _opensearch(options: Mapping[str, JSON], context: Context) -> VectorStore:
    client, index, given = opensearch_client("opensearch", options, context)
    from vrag.backends.aws.opensearch_indexes import open_active  # noqa: PLC0415  # numpy

    return open_active(client, index, context.space, **given)


def _opensearch_serverless(options: Mapping[str, JSON], context: Context) -> VectorStore:
    client, index, given = opensearch_client("opensearch-serverless", options, context)
    from vrag.backends.aws.opensearch_indexes import open_active  # noqa: PLC0415  # numpy

    return open_active(client, index, context.space, **given)


def _opensearch_indexes(options: Mapping[str, JSON], context: Context) -> Indexes:
    first, index, given = opensearch_client("opensearch", options, context)
    first.close()
    from vrag.backends.aws.opensearch_indexes import OpenSearchIndexes  # noqa: PLC0415  # numpy

    return OpenSearchIndexes(
        lambda: opensearch_client("opensearch", options, context)[0], index, context.folder, **given
    )


def _serverless_indexes(options: Mapping[str, JSON], _context: Context) -> Indexes:
    Options(options, _SERVERLESS)
    raise ConfigError(
        "An index of OpenSearch Serverless is not reindexed in place: writers cannot be kept out of it there.",
        hint="name another index for the new embedder (index = …), and ingest again",
    )


def _kms(options: Mapping[str, JSON], context: Context) -> Signer:
    read = Options(options, ("key_id", *CONNECTION))
    key_id = read.need("key_id", "alias/vrag-records")
    client = Clients.of(context).client("kms", options)
    from vrag.backends.aws.kms import KmsSigner  # noqa: PLC0415  # cryptography

    return KmsSigner(client, key_id=key_id)


def _guardrail(options: Mapping[str, JSON], context: Context) -> BedrockGuardrail:
    read = Options(options, ("guardrail", "version", "prices", *CONNECTION))
    guardrail, version = read.need("guardrail", "abc123def456"), read.text("version") or "DRAFT"
    client = Clients.of(context).client("bedrock-runtime", options)
    from vrag.backends.aws.guardrail import BedrockGuardrail  # noqa: PLC0415  # Pillow

    return BedrockGuardrail(client, guardrail, version, catalogue=_catalogue(read, ("guardrails",)))


backend: Backend = {
    "embedder": {
        "titan-image": _titan,
        "nova-embeddings": _nova_embeddings,
        "cohere-embed": _cohere,
        "marengo": _marengo,
    },
    "vector_store": {"opensearch": _opensearch, "opensearch-serverless": _opensearch_serverless},
    "vector_indexes": {"opensearch": _opensearch_indexes, "opensearch-serverless": _serverless_indexes},
    "storage": {"s3": _s3},
    "video_generator": {"luma-ray": _luma_ray, "nova-reel": _nova_reel},
    "inpainter": {"stability": _stability, "nova-canvas": _nova_canvas},
    "captioner": {"converse": _converse},
    "signer": {"kms": _kms},
    "moderator": {"guardrail": _guardrail},
}
