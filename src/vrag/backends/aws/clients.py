"""Connections to AWS: who calls, from where, by which address; one session and one client for equal ones.

Secrets are never options: they come from the chain of the SDK (variables, `~/.aws`, single sign-on, the role of a
container or machine). Source: boto3 "Credentials", "Configuration" and "Sessions: multithreading" (2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from attrs import evolve, frozen
from typing_extensions import override

from vrag.errors import AccessDeniedError, ConfigError
from vrag.values.canonical import JSON

if TYPE_CHECKING:
    from vrag.backends import Context

__all__ = ["CONNECTION", "SERVICES", "Clients", "Connection", "check_settings"]

CONNECTION: Final = ("profile", "region", "role_arn", "external_id", "endpoint_url", "proxy", "ca_bundle")
"""The options of a connection: of `[aws]`, of `[aws.SERVICE]`, and of every part."""
SERVICES: Final = ("bedrock", "bedrock-runtime", "kms", "opensearch", "s3", "sts")
"""`bedrock` is the control plane, which only `vrag doctor` asks."""

_IN_FLIGHT: Final = 40
_CONNECT_S: Final = 10
_ATTEMPTS: Final = 5
_SHARED: Final = "vrag.backends.aws.clients"


@frozen(kw_only=True)
class Connection:
    """How one service is reached."""

    profile: str | None = None
    """Of `~/.aws`; None is the SDK's own choice, which `AWS_PROFILE` decides."""
    region: str | None = None
    role_arn: str | None = None
    """A role that is assumed, and again whenever its credentials end."""
    external_id: str | None = None
    """What the owner of the role asks for."""
    endpoint_url: str | None = None
    """Another address: a private endpoint, or a fake."""
    proxy: str | None = None
    """None is what `HTTPS_PROXY` says; one with a password belongs there."""
    ca_bundle: str | None = None
    """A file of certificates to trust; None is what `AWS_CA_BUNDLE` says, else those of the SDK."""


def check_settings(settings: Mapping[str, JSON]) -> None:
    """Refuse what `[aws]` may not say.

    Raises:
        ConfigError: A key is unknown, or a value is no text; `key` is the dotted name below `aws`.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if key not in SERVICES:
                raise ConfigError(f"[aws.{key}] is no service; allowed: {', '.join(SERVICES)}.")
            for name, inner in value.items():
                _check_key(name, inner, f"[aws.{key}]")
        else:
            _check_key(key, value, "[aws]")


def _check_key(key: str, value: JSON, where: str) -> None:
    if key not in CONNECTION:
        raise ConfigError(f"{where} does not know the key '{key}'; it takes: {', '.join(CONNECTION)}.")
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: '{key}' is text that is not empty.", hint=f'write: {key} = "…"')


class Clients:
    """Makes and keeps sessions and clients; safe to use from many threads. Clients of boto3 are too, sessions are not.

    A client repeats a call that was throttled or broke off, as the mode `standard` of the SDK says. Connections do not
    survive a fork.
    """

    def __init__(self, settings: Mapping[str, JSON], environ: Mapping[str, str]) -> None:
        """Nothing is opened yet.

        Args:
            settings: The table `[aws]`.
            environ: Where `AWS_REGION` is looked up, and what is named when credentials are missing.
        """
        self._settings = settings
        self._environ = environ
        self._sessions: dict[Connection, Any] = {}
        self._clients: dict[tuple[str, Connection, int, int], Any] = {}
        self._lock = RLock()

    @classmethod
    def of(cls, context: Context) -> Self:
        """Those that all parts of one assembly share."""
        found: Self = context.shared.setdefault(_SHARED, cls(context.settings, context.environ))
        return found

    def connection(self, service: str, options: Mapping[str, JSON]) -> Connection:
        """How `service` is reached for a part: its own options beat `[aws.SERVICE]`, which beats `[aws]`.

        The region is `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile's where nobody says one.

        Raises:
            ConfigError: No region is known, there is no such profile, or an option is not usable.
        """
        found = self._merged(service, options)
        # A role is of no weight here, and assuming it needs a region first.
        own = self._session(Connection(profile=found.profile)).region_name
        region = found.region or self._environ.get("AWS_REGION") or own
        if region is None:
            raise ConfigError(
                "No AWS region is known: no 'region' is configured for this part or in [aws], AWS_REGION and "
                f"AWS_DEFAULT_REGION are not set, and {self._profile(found)} names none.",
                hint='write: region = "us-east-1"',
            )
        return evolve(found, region=region)

    def _merged(self, service: str, options: Mapping[str, JSON]) -> Connection:
        check_settings(self._settings)
        below = self._settings.get(service)
        said: dict[str, JSON] = {key: self._settings[key] for key in CONNECTION if key in self._settings}
        for table in (below if isinstance(below, Mapping) else {}, options):
            said |= {key: table[key] for key in CONNECTION if key in table}
        for key, value in said.items():
            _check_key(key, value, "This part")
        found = Connection(**said)
        url = urlsplit(found.endpoint_url or "https://x")
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ConfigError(
                f"'endpoint_url' is an address that begins with https:// or http://, not '{str(found.endpoint_url)[:80]}'."
            )
        return found

    def client(
        self, service: str, options: Mapping[str, JSON], *, read_timeout_s: int = 60, attempts: int = _ATTEMPTS
    ) -> Any:
        """The boto3 client of `service` for a part; the same one for equal connections. Nothing is sent.

        Args:
            service: One of `SERVICES` but `opensearch`.
            options: Of the part; only those of `CONNECTION` are looked at.
            read_timeout_s: How long one answer may take.
            attempts: How often one call is sent at most; 1 where a second one might be paid twice.

        Raises:
            ConfigError: See `connection`.
            AccessDeniedError: There are no credentials; the message names what was tried.
        """
        connection = self.connection(service, options)
        key = (service, connection, read_timeout_s, attempts)
        with self._lock:
            if key not in self._clients:
                self.credentials(connection)
                self._clients[key] = _new_client(
                    self._session(connection), service, connection, read_timeout_s, attempts
                )
            return self._clients[key]

    def credentials(self, connection: Connection) -> Any:
        """Credentials that renew themselves; those of a role are asked for when they are first used.

        Raises:
            AccessDeniedError: There are none; the message names what was tried.
        """
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # boto3

        from vrag.backends.aws.errors import cleaned, without_secrets  # noqa: PLC0415  # botocore

        tried = self._tried(connection)
        try:
            found = self._session(connection).get_credentials()
        except BotoCoreError as error:
            said = without_secrets(str(error))  # what a `credential_process` wrote, for example
            raise AccessDeniedError(
                f"No AWS credentials can be had: {type(error).__name__} ({said}). Tried: {tried}.",
                backend="aws",
                operation="credentials",
                hint="renew them, for example with: aws sso login",
            ) from cleaned(error)
        if found is None:
            raise AccessDeniedError(
                f"There are no AWS credentials. Tried: {tried}.",
                backend="aws",
                operation="credentials",
                hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or: aws sso login",
            )
        return found

    def describe(self, connection: Connection) -> str:
        """Whose credentials a connection uses, for people; no secret."""
        role = f", then the role {connection.role_arn.rpartition('/')[2]}" if connection.role_arn else ""
        if not connection.profile and self._environ.get("AWS_ACCESS_KEY_ID"):
            return f"AWS_ACCESS_KEY_ID{role}"
        return self._profile(connection) + role

    def _profile(self, connection: Connection) -> str:
        if connection.profile:
            return f"the profile '{connection.profile}'"
        if named := self._environ.get("AWS_PROFILE"):
            return f"the profile '{named}' (AWS_PROFILE)"
        return "the profile 'default'"

    def _tried(self, connection: Connection) -> str:
        if connection.profile:
            return f"{self._profile(connection)} of the configuration"
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
        variables = [f"{name} ({'set' if self._environ.get(name) else 'not set'})" for name in names]
        return f"{', '.join(variables)}, {self._profile(connection)} of ~/.aws, the role of a container or machine"

    def _session(self, connection: Connection) -> Any:
        """One session for all connections with the same identity."""
        import boto3  # noqa: PLC0415  # heavy
        from botocore.exceptions import ProfileNotFound  # noqa: PLC0415  # as above

        region = connection.region if connection.role_arn else None  # of STS; of no weight otherwise
        who = Connection(
            profile=connection.profile, role_arn=connection.role_arn, external_id=connection.external_id, region=region
        )
        with self._lock:
            if who not in self._sessions:
                try:
                    base = boto3.Session(profile_name=connection.profile)
                except ProfileNotFound as error:
                    known = ", ".join(boto3.Session().available_profiles[:10]) if connection.profile else ""
                    raise ConfigError(
                        f"There is no {self._profile(connection).removeprefix('the ')} in ~/.aws/config or "
                        f"~/.aws/credentials; there are: {known or 'none'}.",
                        hint=f"aws configure --profile {connection.profile or self._environ.get('AWS_PROFILE', 'NAME')}",
                    ) from error
                self._sessions[who] = base if connection.role_arn is None else self._assumed(base, connection)
            return self._sessions[who]

    def _assumed(self, base: Any, connection: Connection) -> Any:
        """A session of a role; STS is asked when the credentials are first used, and again before they end."""
        import boto3  # noqa: PLC0415  # heavy
        from botocore.credentials import (  # noqa: PLC0415  # as above
            AssumeRoleCredentialFetcher,
            CredentialProvider,
            CredentialResolver,
            DeferredRefreshableCredentials,
        )
        from botocore.session import Session  # noqa: PLC0415  # as above

        source = self.credentials(Connection(profile=connection.profile))
        merged = self._merged("sts", {})
        sts = evolve(merged, region=merged.region or connection.region)

        def client(_service: str, **keys: str) -> Any:
            return _new_client(base, "sts", sts, 30, _ATTEMPTS, **keys)

        extra = {
            "RoleSessionName": "vrag",
            **({"ExternalId": connection.external_id} if connection.external_id else {}),
        }
        fetcher = AssumeRoleCredentialFetcher(client, source, connection.role_arn or "", extra_args=extra, cache={})

        class Role(CredentialProvider):
            METHOD = "assume-role"

            @override
            def load(self) -> Any:
                return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)

        core = Session(profile=connection.profile)
        core.register_component("credential_provider", CredentialResolver(providers=[Role()]))
        return boto3.Session(botocore_session=core)

    def opensearch(
        self, options: Mapping[str, JSON], *, signing: str | None, login: tuple[str, str] | None, timeout_s: int = 60
    ) -> Any:
        """A new client of `opensearchpy`; who gets it closes it.

        Args:
            options: Of the part; `endpoint_url` is needed.
            signing: Sign requests for this service, `es` or `aoss`; None does not.
            login: User and password.
            timeout_s: How long one answer may take.

        Raises:
            ConfigError: No address is configured, or see `connection`.
            AccessDeniedError: Requests are to be signed, and there are no credentials.
        """
        import opensearchpy  # noqa: PLC0415  # heavy

        below = self._settings.get("opensearch")
        # An address for everything of AWS, in [aws], is none of an index.
        url = options.get("endpoint_url") or (below.get("endpoint_url") if isinstance(below, Mapping) else None)
        if not url:
            raise ConfigError(
                "An OpenSearch index needs the address of its endpoint.",
                hint='write: endpoint_url = "https://search-….us-east-1.es.amazonaws.com"',
            )
        connection = self._merged("opensearch", {**options, "endpoint_url": url})
        auth: Any = login
        if signing is not None:
            connection = self.connection("opensearch", {**options, "endpoint_url": url})
            kind = opensearchpy.RequestsAWSV4SignerAuth if connection.proxy else opensearchpy.Urllib3AWSV4SignerAuth
            auth = kind(self.credentials(connection), connection.region, signing)
        more: dict[str, Any] = {"maxsize": _IN_FLIGHT}
        if connection.proxy:
            more = {
                "connection_class": opensearchpy.RequestsHttpConnection,
                "proxies": {"http": connection.proxy, "https": connection.proxy},
                "pool_maxsize": _IN_FLIGHT,
            }
        if connection.ca_bundle:
            more["ca_certs"] = connection.ca_bundle
        return opensearchpy.OpenSearch(
            str(connection.endpoint_url),
            http_auth=auth,
            timeout=timeout_s,
            max_retries=_ATTEMPTS - 1,
            retry_on_timeout=False,
            **more,
        )


def _new_client(
    session: Any, service: str, connection: Connection, read_timeout_s: int, attempts: int, **keys: str
) -> Any:
    from botocore.config import Config  # noqa: PLC0415  # heavy

    more: dict[str, Any] = {}
    if connection.proxy:
        more["proxies"] = {"http": connection.proxy, "https": connection.proxy}
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=_CONNECT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=_IN_FLIGHT,
        tcp_keepalive=True,  # gateways drop what is silent for 350 s
        user_agent_extra="vrag",
        **more,
    )
    return session.client(
        service,
        region_name=connection.region,
        endpoint_url=connection.endpoint_url,
        verify=connection.ca_bundle,
        config=config,
        **keys,
    )
