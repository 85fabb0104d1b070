"""The site builds strictly, every page can be reached, and the reference names what is public."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import vrag
from vrag.compose.configuration import read_configuration
from vrag.compose.document import FORMAT
from vrag.knowledge.portability import FORMAT as KNOWLEDGE_BASE_FORMAT
from vrag.provenance.export import EXPORT_FORMAT
from vrag.provenance.sidecar import SIDECAR_FORMAT
from vrag.provenance.statement import RECORD_VERSION
from vrag.values.briefs import Plan
from vrag.workspace.db import MIGRATIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODULES = re.findall(
    r"^::: (\S+)$",
    "\n".join((DOCS / "reference" / name).read_text(encoding="utf-8") for name in ("api.md", "errors.md")),
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not included in the" not in done.stderr, f"name it in mkdocs.yml: {done.stderr}"
    return folder


def test_every_public_name_stands_in_the_reference(site):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    named = {line.split()[0] for line in inventory.splitlines()}
    missing = [
        f"{module}.{name}"
        for module in MODULES
        if not module.endswith(".VRAGPipeline")
        for name in importlib.import_module(module).__all__
        if f"{module}.{name}" not in named
    ]
    assert missing == []


def test_the_site_loads_nothing_from_other_hosts(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|source|iframe)[^>]*?(?:src|href|srcset)="(https?:[^"]+)"', text)
        assert loaded == [], page.relative_to(site)


def test_what_can_be_imported_from_vrag_is_on_the_page_of_the_api():
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert [name for name in vrag.__all__ if not name.startswith("_") and f"`{name}`" not in text] == []


def test_links_of_files_outside_the_site_lead_somewhere():
    for name in ("README.md", "SECURITY.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        links = re.findall(r'(?:\]\(|src="|srcset=")(?!https?:|#)([^)"#]+)', text)
        assert [link for link in links if not (ROOT / link).exists()] == [], name


def test_the_switch_to_aws_in_the_readme_is_read_in_ten_lines(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block.count("\n") == 10
    (tmp_path / "vrag.toml").write_text(block, encoding="utf-8")
    found = read_configuration(tmp_path / "vrag.toml", environ={})
    assert found.parts["generators.luma"].use == "aws:luma-ray"


def test_the_formats_of_the_page_on_versions_are_those_that_are_written():
    text = (DOCS / "reference" / "versioning.md").read_text(encoding="utf-8")
    from vrag.backends.local.vector_rows import MIGRATIONS as VECTORS

    written = {
        "configuration": FORMAT,
        "workspace": len(MIGRATIONS),
        "vector store": len(VECTORS),
        "record": RECORD_VERSION,
        "sidecar": SIDECAR_FORMAT,
        "plan": Plan().format,
        "audit export": EXPORT_FORMAT,
        "export of a knowledge base": KNOWLEDGE_BASE_FORMAT,
    }
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(number) for name, number in rows} == written


def test_commands_that_pages_name_exist():
    from vrag.cli.app import app

    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md")]
    for page in pages:
        for word in re.findall(r"(?:^|[`$(]\s*)vrag ([a-z][a-z-]+)\b", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert word in app.commands, f"{page.relative_to(ROOT)}: vrag {word}"
