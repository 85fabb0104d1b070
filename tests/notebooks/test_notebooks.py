"""Each notebook runs from top to bottom in a kernel that reaches loopback only, and shows what it says it shows."""

import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OFFLINE = Path(__file__).parent / "offline"
LIMIT_S = 120
"""A slow machine may take longer than the 30 s that a reader should wait at most; what hangs is ended here."""

SHOWS = {
    "1": ["rejected   cut-off.jpg: undecodable", "5 without words", "captioned            5", "**The words below are syn",
          "0 new pictures", "IMG_0002.jpg, 'A green heron looks out over calm water' (manifest)"],
    "2": ["new                 15", "15 pictures approved", "osprey-on-branch.jpg", "hits: 0", "['city-skyline-at-night.jpg'",
          "is still found: False", "revoked by you - the photographer's contract ended"],
    "3": ["UnsupportedRequestError - The generator 'camera'", "3.75 USD", "**The pixels below are synthetic", "pictures: ()",
          "2 purchases, 7.5 USD", "10.0 s; verified: True"],
    "4": ["GateError - The picture", "read as   zoom in", "4 videos", "dogs.mp4 and dogs.mp4.vrag.json"],
    "5": ["1 not possible", "snowy-mountain-lake.jpg", "this file is", "start frame: fitted picture",
          "'city-skyline-at-night.jpg'] 5.0 s; verified: True"],
    "6": ["of the picture is repainted", "'replace' needs a model", "'outpaint' needs a model", "2 edits for 0.14 USD",
          "**The repainted pixels below are synthetic", "['outpaint']", "used in edit"],
    "7": ["waiting for: ['erase']", "270 x 480 crop", "edited picture", "<svg ", "3 films were made from it"],
}  # fmt: skip
"""What must stand in the outputs, by the number of the notebook."""
FILMS = {"1": 0, "2": 0, "3": 2, "4": 1, "5": 3, "6": 0, "7": 2}
"""How many films each shows."""


def offline_environment(home):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VRAG_"))}
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return kept | dead | {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH", "")])),
        "HOME": str(home),
        "TMPDIR": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }  # fmt: skip


def run(path, home):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=LIMIT_S, kernel_name="python3", resources={"metadata": {"path": str(home)}}
    )
    # In a thread of its own: the browser tests keep an event loop running in this one.
    with ThreadPoolExecutor() as threads:
        threads.submit(lambda: asyncio.run(client.async_execute(env=offline_environment(home)))).result()
    return notebook


def shown(notebook):
    """All that the outputs say, whatever they say it in."""
    said = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            said.append(output.get("text", ""))
            data = output.get("data", {})
            said += [data.get("text/markdown", ""), data.get("text/html", "")]
            if "text/html" not in data:
                said.append(data.get("text/plain", ""))
    return "\n".join(said)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_says(path, tmp_path):
    notebook = run(path, tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    said = shown(notebook)
    number = path.name[0]
    assert [words for words in SHOWS[number] if words not in said] == []
    assert said.count("<video ") == FILMS[number]


def test_synthetic_results_are_announced_above_them():
    """Where a fake makes the pixels, bold words say so before they are shown."""
    for number in "136":
        (path,) = FOLDER.glob(f"{number}-*.ipynb")
        code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        hosted = [source for source in code if "synthetic" in source]
        assert hosted, path.name
        for source in hosted:
            assert re.search(r'Markdown\(\s*"\*\*[^"]*synthetic[^"]*\*\*"', source), path.name
            after = source[source.index("synthetic") :]
            assert "display(" in after, "nothing is shown below the announcement"


def test_there_are_seven_and_they_are_committed_without_outputs():
    assert [path.name[0] for path in NOTEBOOKS] == list("1234567")
    for path in NOTEBOOKS:
        content = json.loads(path.read_text(encoding="utf-8"))
        nbformat.validate(nbformat.from_dict(content))
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), path.name


def configuration_cell(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return cells[0].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_cell_makes_it_run_on_aws(path, tmp_path, monkeypatch):
    """The other variant of the first cell is a configuration whose parts can all be made; nothing is sent."""
    source = configuration_cell(path)
    assert source.startswith("# The one cell to change")
    assert source.count('RUN_ON = "this machine"') == 1
    others = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][1:]
    assert not any("endpoint_url" in other or "aws:" in other for other in others)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    namespace = {}
    exec(source.replace('RUN_ON = "this machine"', 'RUN_ON = "AWS"'), namespace)
    file = namespace["folder"] / "vrag.toml"
    assert "127.0.0.1" not in file.read_text()
    environ = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    configuration = read_configuration(file, environ={})
    parts = Assembly(configuration, environ=environ)
    assert any(part.use.startswith("aws:") for part in configuration.parts.values())
    made = [parts.storage, parts.signer, parts.inpainter, *map(parts.generator, parts.generator_names())]
    made += [parts.captioner(name) for name in configuration.knowledge_bases or ()]
    assert "" not in {str(getattr(one, "model", "has none")) for one in made}
    for name in parts.generator_names():
        parts.generator(name).close()


def test_the_kernel_reaches_nothing_but_loopback(tmp_path):
    code = textwrap.dedent("""
        import socket
        for address in (("192.0.2.1", 80), ("example.org", 80)):
            try:
                socket.create_connection(address, timeout=1) if address[0][0].isdigit() else socket.socket().connect(address)
            except OSError as error:
                assert "loopback only" in str(error), error
            else:
                raise SystemExit("it got out")
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
