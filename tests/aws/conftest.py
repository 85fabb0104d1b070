"""Servers for the tests of this folder: a fake S3 over HTTP, and a real OpenSearch node."""

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


_nodes = []


@pytest.fixture(scope="session")
def opensearch_url():
    """A running node; without anything to make one of, the tests that need it are skipped."""
    try:
        started = running_node()
        url = started.__enter__()
    except NodeUnavailableError as error:
        pytest.skip(f"no OpenSearch node: {error}")
    try:
        _nodes.append(_described(url))
        yield url
    finally:
        started.__exit__(None, None, None)


def _described(url):
    from opensearchpy import OpenSearch

    client = OpenSearch(url)
    try:
        version = client.info()["version"]["number"]
        plugins = client.cat.plugins(format="json", h="component,version")
        return version, ", ".join(f"{found['component']} {found['version']}" for found in plugins)
    finally:
        client.close()


def pytest_terminal_summary(terminalreporter):
    """What ran on a real node, for whoever reads the log."""
    for version, plugins in _nodes:
        ran = [report for report in terminalreporter.stats.get("passed", ()) if "OpenSearchOnNode" in report.nodeid]
        terminalreporter.write_line(f"OpenSearch {version}; plugins: {plugins}; {len(ran)} contract tests passed on it")
