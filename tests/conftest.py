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
