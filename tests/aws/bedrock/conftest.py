"""A fake Bedrock beside moto's S3, both over HTTP on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from attrs import define
from botocore.config import Config

from vrag.testing import FakeClock
from vrag.testing.bedrock import FakeBedrock

BUCKET = "films"


@define
class World:
    """One account: a fake Bedrock of its own, a clock, and clients for it."""

    fake: FakeBedrock
    clock: FakeClock
    s3: Any
    bedrock: Any
    output_uri: str

    def client(self, **config: Any) -> Any:
        return bedrock_client(self.fake, **config)


def bedrock_client(fake: FakeBedrock, *, secret: str = "test", attempts: int = 1, **config: Any) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=fake.url,
        region_name=fake.region,
        aws_access_key_id="test",
        aws_secret_access_key=secret,
        config=Config(retries={"mode": "standard", "total_max_attempts": attempts}, max_pool_connections=40, **config),
    )


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    server = pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=40),
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()
    moto.stop()


@pytest.fixture
def worlds(s3: Any) -> Iterator[Callable[..., World]]:
    """Makes one account for each folder."""
    made: dict[Path, World] = {}

    def make(folder: Path, **options: Any) -> World:
        if folder not in made:
            clock = FakeClock()
            fake = FakeBedrock(s3=s3, clock=clock, **options)
            uri = f"s3://{BUCKET}/{len(made)}-{folder.name}-{fake.url.rpartition(':')[2]}"
            made[folder] = World(fake, clock, s3, bedrock_client(fake), uri)
        return made[folder]

    yield make
    for world in made.values():
        world.bedrock.close()
        world.fake.close()


@pytest.fixture
def world(worlds: Callable[..., World], tmp_path: Path) -> World:
    return worlds(tmp_path)
