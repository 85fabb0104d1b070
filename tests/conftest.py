"""What every test has in common: no network but loopback, no AWS settings, no configuration of the person who runs it."""

import ipaddress
import os
import socket

import pytest

_connect = socket.socket.connect


def _loopback_only(self, address):
    if self.family in {socket.AF_INET, socket.AF_INET6}:
        host = address[0]
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = host == "localhost"
        if not local:
            raise OSError(f"tests reach loopback only, not {host}")
    return _connect(self, address)


socket.socket.connect = _loopback_only

for _name in list(os.environ):
    if _name.startswith(("AWS_", "VRAG_")) and not _name.startswith("VRAG_TEST_"):
        del os.environ[_name]


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path_factory):
    """User folders point nowhere near the person's own."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))


_COSTLY = ("opensearch_url", "fresh")
"""Fixtures that are made once for a whole run."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Beside `pytest -n`: a file stays in one process, and so does everything that shares a costly fixture."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            shared = next((name for name in _COSTLY if name in getattr(item, "fixturenames", ())), str(item.path))
            item.add_marker(pytest.mark.xdist_group(shared))


def pytest_terminal_summary(terminalreporter):
    """What ran on a real node, for whoever reads the log; `.ci/run` looks for these lines."""
    counts = {}
    for report in terminalreporter.stats.get("passed", ()):
        node = dict(report.user_properties).get("opensearch_node")
        if node is not None and report.when == "call":
            contract, all_ = counts.get(node, (0, 0))
            counts[node] = (contract + ("OpenSearchOnNode::" in report.nodeid), all_ + 1)
    for node, (contract, all_) in counts.items():
        terminalreporter.write_line(f"{node}; {contract} contract tests passed on it, {all_} tests in all")
