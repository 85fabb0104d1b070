"""`vrag fake-bedrock`: a Bedrock on this machine, for people who write programs before they have an account."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event
from typing import Any

import click

from vrag.cli.session import Session, session_options
from vrag.errors import MissingExtraError, UsageError
from vrag.generation.catalogue import Catalogue
from vrag.values.canonical import JSON

__all__ = ["fake_bedrock"]

_BUCKET = "fake-films"
_KEY = "test"


@click.command("fake-bedrock")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to listen. [default: a free port]")
@click.option(
    "--render-seconds", type=click.FloatRange(min=0), default=5.0, show_default=True, help="How long a video takes."
)
@click.option("--s3-endpoint", metavar="URL", help="An S3 that takes the films. [default: moto's, on this machine]")
@click.option("--region", default="us-west-2", show_default=True, help="The Region that it plays.")
@click.option("--blocked-word", "blocked", multiple=True, metavar="WORD", help="Moderation refuses it; again for more.")
@session_options
def fake_bedrock(
    session: Session,
    *,
    port: int,
    render_seconds: float,
    s3_endpoint: str | None,
    region: str,
    blocked: tuple[str, ...],
) -> int:
    """Run a fake Amazon Bedrock on loopback: requests are checked as Bedrock does, films are small, nothing is charged.

    It prints the environment that points AWS programs to it, and what would have been charged when it ends (Ctrl-C);
    with --json all of that at its end. An S3 of your own is called with the keys in AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, and the fake takes the same.

    \b
    Examples:
      vrag fake-bedrock
      vrag fake-bedrock --port 8123 --render-seconds 1 --blocked-word gore
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.testing.bedrock import FakeBedrock  # noqa: PLC0415  # botocore

    output = session.output
    with ExitStack() as stack:
        endpoint = s3_endpoint or stack.enter_context(_moto())
        key_id, secret = _keys(s3_endpoint)
        s3 = stack.enter_context(_s3(endpoint, region, key_id, secret))
        given = {"s3": s3, "region": region, "render_s": render_seconds, "secrets": {key_id: secret}, "port": port}
        try:
            fake = stack.enter_context(FakeBedrock(**given, **_words(blocked)))
        except OSError as error:
            raise UsageError(f"The port {port} cannot be listened on: {error.strerror}.", hint="--port 0") from error
        environment = {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": fake.url,
            "AWS_ENDPOINT_URL_BEDROCK": fake.url,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_DEFAULT_REGION": region,
        }
        if s3_endpoint is None:  # else the keys are those that are set already
            environment |= {
                "AWS_ENDPOINT_URL_STS": endpoint,
                "AWS_ACCESS_KEY_ID": key_id,
                "AWS_SECRET_ACCESS_KEY": secret,
            }
        output.say(f"a fake Bedrock listens on {fake.url}; end it with Ctrl-C")
        output.say("paste this into another terminal:")
        for name, value in environment.items():
            output.say(f"  export {name}={value}")
        if s3_endpoint is None:
            output.say(f'a bucket is there: output_uri = "s3://{_BUCKET}/raw"')
        with suppress(ValueError):  # not the main thread
            # A shell starts what runs in its background deaf to Ctrl-C and `kill -INT`.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            Event().wait()
        charges = fake.charges
    output.say()
    return _ended(session, charges, environment)


def _ended(session: Session, charges: tuple[Any, ...], environment: dict[str, str]) -> int:
    """What was bought, and what it would have cost."""
    output, catalogue = session.output, Catalogue.load()
    counts = Counter(charge.model_id for charge in charges)
    rows: list[dict[str, JSON]] = [{"model": model, "calls": count} for model, count in sorted(counts.items())]
    output.say(f"{len(charges)} charges" if charges else "nothing was charged")
    output.table(
        ("model", "calls", "on demand"),
        [(row["model"], row["calls"], _prices(catalogue, row["model"])) for row in rows],
    )
    output.document({"charges": rows, "environment": environment})
    return 0


def _prices(catalogue: Catalogue, model_id: str) -> str:
    model = catalogue.find("aws-bedrock", model_id)
    known = [price for price in (model.prices if model else ()) if price.source.verified]
    said = [f"{price.usd_micros / price.per / 1e6:g} USD a {price.unit.replace('_', ' ')}" for price in known]
    return "; ".join(dict.fromkeys(said)) or "not known"


def _words(blocked: tuple[str, ...]) -> dict[str, Any]:
    return {"blocked_words": frozenset(word.lower() for word in blocked)} if blocked else {}


@contextmanager
def _moto() -> Iterator[str]:
    try:
        from moto.server import ThreadedMotoServer  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            "Without --s3-endpoint it needs moto's server, which takes the films.",
            hint="pip install 'moto[s3,server]', or --s3-endpoint URL",
        ) from error
    import logging  # noqa: PLC0415  # beside its use

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


def _keys(s3_endpoint: str | None) -> tuple[str, str]:
    key_id, secret = (os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return (key_id, secret) if s3_endpoint and key_id and secret else (_KEY, _KEY)


@contextmanager
def _s3(endpoint: str, region: str, key_id: str, secret: str) -> Iterator[Any]:
    import boto3  # noqa: PLC0415  # heavy
    from botocore.config import Config  # noqa: PLC0415  # as above
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # as above

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, connect_timeout=5, retries={"total_max_attempts": 2}),
    )
    try:
        where: dict[str, Any] = (
            {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        client.create_bucket(Bucket=_BUCKET, **where)
    except ClientError:
        pass  # it is there already, or buckets are made by somebody else
    except BotoCoreError as error:
        raise UsageError(
            f"'{endpoint}' does not answer as an S3: {type(error).__name__}.", hint="--s3-endpoint URL"
        ) from error
    try:
        yield client
    finally:
        client.close()
