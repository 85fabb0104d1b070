"""Which hosted models a configuration names, and what `vrag models` says of them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vrag.cli.models import models
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.compose.models import configured_models

FILE = """
[workspace]
inpainter = "aws:stability"
[generators.reel]
use = "aws:nova-reel"
output_uri = "s3://here/x"
[generators.entitled]
use = "aws:nova-reel"
model = "amazon.nova-reel-v1:0"
allow_retired = true
output_uri = "s3://here/x"
[generators.theirs]
use = "acme:video"
model = "x"
[knowledge_bases.brand]
captioner = { use = "aws:converse", model = "eu.somebody.new-model-v1:0" }
embedder = "aws:titan-image"
"""


def test_every_part_names_its_models_with_their_state(tmp_path):
    (tmp_path / "vrag.toml").write_text(FILE)
    configuration = read_configuration(tmp_path / "vrag.toml", environ={})
    found = {(one.key, one.id): one for one in configured_models(configuration, datetime(2026, 11, 20, tzinfo=UTC))}
    retired = found["generators.reel", "amazon.nova-reel-v1:1"]
    assert retired.state == "retired"
    assert "local:camera-moves" in (retired.problem or "")
    assert found["generators.entitled", "amazon.nova-reel-v1:0"].problem is None
    assert found["knowledge_bases.brand.captioner", "eu.somebody.new-model-v1:0"].state is None
    assert found["knowledge_bases.brand.embedder", "amazon.titan-embed-image-v1"].state == "active"
    assert sum(key == "workspace.inpainter" for key, _ in found) == 5
    early = configured_models(configuration, datetime(2026, 1, 1, tzinfo=UTC))
    assert all(one.problem is None for one in early)


def test_the_command_marks_what_is_configured_and_says_what_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vrag.toml").write_text(FILE)
    assert models.main([], "models", standalone_mode=False) == 0
    out = capsys.readouterr().out
    assert "generators.reel: Nova Reel 1.1 (amazon.nova-reel-v1:1) reached its end of life on 2026-09-30" in out
    assert "bedrock-runtime" not in out
    assert "guardrails" not in out
    models.main(["--json"], "models", standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert list(told["refused"]) == ["generators.reel"]
    configured = {one["id"]: one["configured"] for one in told["models"]}
    assert configured["amazon.nova-reel-v1:1"] == ["generators.reel"], "a retired one that is configured is listed"
    assert configured["amazon.titan-embed-image-v1"] == ["knowledge_bases.brand.embedder"]
    assert "amazon.nova-canvas-v1:0" not in configured


@pytest.mark.parametrize(
    "page", ["how-to/use-bedrock.md", "how-to/use-s3-and-opensearch.md", "reference/configuration.md"]
)
def test_every_file_that_the_documentation_shows_can_be_read(page, tmp_path, monkeypatch):
    """Each block of TOML is a configuration, and each part of it on AWS is made as it stands there."""
    docs = Path(__file__).parents[2] / "docs"
    if not docs.is_dir():
        pytest.skip("the documentation is not here")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    blocks = re.findall(r"^```toml\n(.*?)^```", (docs / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "vrag.toml").write_text(block.replace('profile = "studio"', 'proxy = "http://p:1"'))
        environ = {"AWS_REGION": "us-west-2", "SEARCH_PASSWORD": "x"}
        assembly = Assembly(read_configuration(tmp_path / "vrag.toml", environ={}), environ=environ)
        for name in assembly.generator_names():
            assembly.generator(name).close()
        assert assembly.storage is not None
        assert assembly.inpainter is not None
        assert (assembly.moderator is None) == ("moderator" not in block)
        for name in assembly.configuration.knowledge_bases or ():
            assembly.captioner(name)
            assembly.embedder(name)
