"""Servers for the tests of this folder: a fake S3 over HTTP, and a real OpenSearch node."""

import os
import sys
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).parent))

from opensearch_node import NodeUnavailableError, running_node


@pytest.fixture(scope="session")
def moto_url():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_client():
    """Makes S3 clients for a URL; each call a new one."""

    def make(url, **options):
        config = Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=40,
        ).merge(Config(**options))
        return boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="AKIAEXAMPLEKEYOFATEST",
            aws_secret_access_key="secret-of-a-test",
            config=config,
        )

    return make


@pytest.fixture(scope="session")
def _node():
    """URL and description of a running node.

    Without anything to make one of, the tests that need it are skipped; with `VRAG_TEST_NEED_OPENSEARCH` set, as
    `.ci/run` does where there are Java and Maven, they fail. A node that does not start is an error always.
    """
    try:
        started = running_node()
        url = started.__enter__()
    except NodeUnavailableError as error:
        missing = f"no OpenSearch node: {error}"
        if os.environ.get("VRAG_TEST_NEED_OPENSEARCH"):
            pytest.fail(missing)
        pytest.skip(missing)
    try:
        yield url, _described(url)
    finally:
        started.__exit__(None, None, None)


@pytest.fixture(scope="session")
def opensearch_url(_node):
    """The address of a real node."""
    return _node[0]


@pytest.fixture(autouse=True)
def _noted(request):
    """Notes in the report of each test that uses a node which one it was; reports travel between processes."""
    if "opensearch_url" in request.fixturenames:
        request.node.user_properties.append(("opensearch_node", request.getfixturevalue("_node")[1]))


def _described(url):
    from opensearchpy import OpenSearch

    client = OpenSearch(url)
    try:
        version = client.info()["version"]["number"]
        plugins = client.cat.plugins(format="json", h="component,version")
        listed = ", ".join(f"{found['component']} {found['version']}" for found in plugins)
        return f"OpenSearch {version}; plugins: {listed}"
    finally:
        client.close()
