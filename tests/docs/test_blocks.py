"""Every Python block of the documentation runs, page by page, in order; every command that it shows is run too."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"]
# Scripts for a shell, from end to end: `test_walk_through.py` runs them.
WALKED = {ROOT / "README.md", *ROOT.glob("docs/tutorial/*.md")}
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r'^```\w+ title="([\w.-]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return [(text[: match.start(2)].count("\n"), match[2]) for match in FENCE.finditer(text) if match[1] == language]


def pages_with(language):
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page, language)]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder with photographs in `photos/`, as a reader would have."""
    with as_file(files("vrag") / "demo" / "photos") as photos:
        (tmp_path / "photos").mkdir()
        for photo in photos.glob("*.jpg"):
            shutil.copy(photo, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(page, desk):
    """A block with a title is a file of that name."""
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        (desk / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, desk):
    write_files(page, desk)
    namespace = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def commands(page):
    lines = "".join(code for _, code in blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("vrag ")]


@pytest.mark.parametrize(
    "page", [page for page in pages_with("bash") if commands(page.values[0]) and page.values[0] not in WALKED]
)
def test_shown_commands_run(page, desk):
    write_files(page, desk)
    environment = {**os.environ, "USER": "reader", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands(page):
        words = shlex.split(os.path.expandvars(command).replace("$USER", "reader"), comments=True)
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, cwd=desk, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
