"""Read by the interpreter of a notebook's kernel before anything else: its sockets reach loopback only."""

import ipaddress
import socket

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def _check(sock, address):
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    try:
        local = ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        local = address[0] == "localhost"
    if not local:
        raise OSError(f"a notebook in the tests reaches loopback only, not {address[0]}")


def _guarded(self, address):
    _check(self, address)
    return _connect(self, address)


def _guarded_ex(self, address):
    _check(self, address)
    return _connect_ex(self, address)


socket.socket.connect = _guarded
socket.socket.connect_ex = _guarded_ex
