"""The scripts of `examples/` as modules, and photographs to run them on."""

import importlib.util
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(request):
    """Loads a script such as `lecture-film/lecture_film.py`."""

    def load(path):
        name = f"example_{Path(path).stem}"
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        request.addfinalizer(lambda: sys.modules.pop(name, None))
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def photos(tmp_path):
    """Copies photographs of the package, by name, into a folder of their own."""

    def copy(folder, *names):
        target = tmp_path / folder
        target.mkdir()
        with as_file(files("vrag") / "demo" / "photos") as source:
            for name in names:
                shutil.copy(source / f"{name}.jpg", target)
        return target

    return copy


@pytest.fixture
def manifest():
    """All photographs of the package with their captions and licences."""
    with as_file(files("vrag") / "demo" / "photos" / "captions.jsonl") as path:
        yield path
