"""The example package: built, found through its entry point, and run under its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import vrag
from vrag.backends import Context
from vrag.errors import ConfigError
from vrag.interfaces import Embedder

EXAMPLE = Path(__file__).parents[2] / "examples" / "third-party-backend"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel, as `pip install --target` leaves it."""
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install hatchling")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD, str(folder)]
    name = subprocess.run(command, cwd=EXAMPLE, check=True, capture_output=True, text=True).stdout.split()[-1]
    with zipfile.ZipFile(folder / name) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture
def point(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    [point] = entry_points(group="vrag.backends", name="colour")
    return point


def test_it_is_found_through_its_entry_point(point, tmp_path):
    embedder = point.load()["embedder"]["nearest"]({}, Context(name="brand", folder=tmp_path))
    assert isinstance(embedder, Embedder)
    assert embedder.model.provider == "vrag-colour"


def test_its_factory_refuses_an_unknown_option(point, tmp_path):
    with pytest.raises(ConfigError, match="shade"):
        point.load()["embedder"]["nearest"]({"shade": "dark"}, Context(name="brand", folder=tmp_path))


def test_its_own_tests_pass(installed):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(Path(vrag.__file__).parents[1])])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), str(EXAMPLE)]
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "14 passed" in done.stdout
