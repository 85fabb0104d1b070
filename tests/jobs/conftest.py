"""Two processes beside the test: the provider, and the one that forks buyers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Talker:
    """A process that answers a line of JSON with a line of JSON."""

    def __init__(self, script):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, **asked):
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process beside the test has ended"
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def provider():
    pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    pytest.importorskip("av", reason="the extra 'testing' is not installed")
    talker = Talker("provider.py")
    yield talker
    talker.close()


@pytest.fixture(scope="session")
def lives(provider):
    talker = Talker("lives.py")
    yield talker
    talker.close()
