"""What every test has in common: no network but loopback, no AWS settings, no configuration of the person who runs it."""

import ipaddress
import os
import shutil
import signal
import socket
from functools import cache

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for what it starts in the background; the processes of our tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="module")
def browser():
    """A real browser, closed after each file: its event loop runs as long, and neither another browser nor asyncio
    takes a thread in which one does."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(
            executable_path=chromium, args=[*flags, "--autoplay-policy=no-user-gesture-required"]
        )
        yield running
        running.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `pytest -n`: a file stays in one process, and so do all files that use the OpenSearch node.

    Not `--dist loadgroup`: pytest-xdist 3.8 renames tests for it, which pytest 9.2 no longer takes, and then it groups
    nothing without a word.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "on a node" if _uses_node(config.rootpath / file) else file

    return Scheduling(config, log)


@cache
def _uses_node(path):
    return "opensearch_url" in path.read_text()


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
