"""From names to objects: entry points, options, the local defaults, and what is told when a part is missing."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

import vrag
from vrag.backends import Backend, Context, check_options
from vrag.backends.local import backend
from vrag.compose import from_config
from vrag.compose.assembly import _OURS, GROUP, Assembly, installed_backends
from vrag.compose.configuration import read_configuration
from vrag.errors import ConfigError, MissingExtraError
from vrag.pipeline import VRAGPipeline
from vrag.testing import FakeEmbedder, FakeVideoGenerator
from vrag.values.policy import Policy

MADE: list[tuple[str, dict[str, object], Context]] = []
"""What the third-party package below was asked for."""


def _generator(options: dict[str, object], context: Context) -> FakeVideoGenerator:
    check_options(options, ("region", "token_env"))
    MADE.append(("generator", dict(options), context))
    return FakeVideoGenerator(clock=context.clock)


def _embedder(options: dict[str, object], context: Context) -> FakeEmbedder:
    MADE.append(("embedder", dict(options), context))
    return FakeEmbedder()


THEIRS = {"video_generator": {"pretend": _generator}, "embedder": {"pretend": _embedder}}


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is really installed, as far as `importlib.metadata` can tell."""
    site = tmp_path / "site"
    info = site / "acme_video-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-video\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nacme = acme_video:backend\nbroken = acme_video:nothing\nodd = acme_video:odd\n"
    )
    monkeypatch.syspath_prepend(str(site))
    module = type(sys)("acme_video")
    module.__dict__.update(backend=THEIRS, odd={"video": {}})
    monkeypatch.setitem(sys.modules, "acme_video", module)
    MADE.clear()
    return tmp_path


def _assembly(folder: Path, text: str, **environ: str) -> Assembly:
    (folder / "vrag.toml").write_text(text)
    return Assembly(read_configuration(folder / "vrag.toml", environ=environ), environ=environ)


def test_ours_is_the_entry_point_of_the_project() -> None:
    pyproject = Path(vrag.__file__).parents[2] / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("tested outside the source tree")
    declared = tomllib.loads(pyproject.read_text("utf-8"))["project"]["entry-points"][GROUP]
    assert declared == {point.name: point.value for point in _OURS}
    assert installed_backends()["local"].load() is backend


def test_a_third_party_backend_is_found_and_told_its_options_place_and_variables(third_party: Path) -> None:
    text = "[generators.main]\nuse = 'acme:pretend'\nregion = 'eu'\ntoken_env = 'ACME_TOKEN'\n"
    assembly = _assembly(third_party, text, ACME_TOKEN="hunter2")
    with assembly.pipeline(VRAGPipeline) as pipeline:
        assert isinstance(pipeline.generators["main"], FakeVideoGenerator)
        assert list(pipeline.generators) == ["main"]
    ((kind, options, context),) = MADE
    assert (kind, options) == ("generator", {"region": "eu", "token_env": "ACME_TOKEN"})
    assert context.environ["ACME_TOKEN"] == "hunter2"
    assert "hunter2" not in repr(context)
    assert context.folder == third_party / "studio" / "render" / "main"
    assert not context.folder.exists()


def test_one_embedder_serves_all_that_ask_for_the_same(third_party: Path) -> None:
    text = "".join(f"[knowledge_bases.{name}]\nembedder = 'acme:pretend'\n" for name in ("a", "b"))
    assembly = _assembly(third_party, text)
    for name in ("a", "b"):
        assembly.knowledge_base(name).close()
    assert len(MADE) == 1
    with pytest.raises(ConfigError, match=r"No knowledge base 'c' in .*vrag\.toml; there are: a, b"):
        assembly.knowledge_base("c")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("use = 'nobody:x'", ["vrag.toml:1", "'nobody'", "installed: acme, aws, broken, local, odd"]),
        ("use = 'acme:other'", ["no video generator 'other'", "it has: acme:pretend"]),
        ("use = 'local:opencv'", ["no video generator 'opencv'", "local:camera-moves", "another seam: inpainter"]),
        ("use = 'acme:pretend'\nregoin = 'eu'", ["vrag.toml:1: 'acme:pretend'", "'regoin'", "Did you mean 'region'?"]),
        ("use = 'broken:x'", ["'broken' (acme-video) cannot be imported"]),
        ("use = 'odd:x'", ["'odd' (acme-video) is not a mapping of seams"]),
        ("use = 'none'", ["cannot be none"]),
    ],
)
def test_what_cannot_be_made_says_where_what_and_what_there_is(third_party: Path, text: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        _assembly(third_party, f"[generators.x]\n{text}\n").generator("x")
    for words in told:
        assert words in caught.value.message
    assert caught.value.hint


def test_two_packages_with_one_name_are_told_apart(third_party: Path) -> None:
    info = third_party / "site" / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nacme = other:backend\n")
    with pytest.raises(ConfigError, match=r"'acme': (acme-video and other|other and acme-video)"):
        installed_backends()


def test_without_the_extra_the_default_searches_by_words_and_a_wish_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    default = Assembly(read_configuration(None, environ={}, start=tmp_path))
    knowledge_base = default.knowledge_base("brand")
    knowledge_base.close()
    assert "Searching by words only" in caplog.text
    assert "pip install 'vrag[local]'" in caplog.text
    with pytest.raises(MissingExtraError):
        _assembly(tmp_path, "[knowledge_bases.brand]\nembedder = 'local:wordllama'\n").knowledge_base("brand")
    _assembly(tmp_path, "[knowledge_bases.brand]\nembedder = 'none'\nstorage = {use='local:folder', folder='vault'}\n")


def test_limits_and_retrieval_are_settings_of_a_knowledge_base(tmp_path: Path) -> None:
    text = "[knowledge_bases.brand]\nembedder = 'none'\n[knowledge_bases.brand.retrieval]\nrrf_k = 20\n"
    knowledge_base = _assembly(tmp_path, text).knowledge_base("brand")
    assert knowledge_base.retrieval.rrf_k == 20
    knowledge_base.close()
    with pytest.raises(ConfigError, match=r"vrag.toml:3: .*max_bytes, max_pixels, min_side_px"):
        _assembly(
            tmp_path, "[knowledge_bases.brand]\nembedder = 'none'\n[knowledge_bases.brand.limits]\nmax_pixel = 2\n"
        ).knowledge_base("brand")


def test_paths_of_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    text = (
        "[knowledge_bases.brand]\nembedder = 'none'\nstore = {use = 'local:exact', folder = 'i'}\n"
        "storage = {use = 'local:folder', folder = 'vault'}\n"
    )
    knowledge_base = _assembly(tmp_path, text).knowledge_base("brand")
    knowledge_base.ingest([])
    knowledge_base.close()
    assert (tmp_path / "vault").is_dir()
    assert (tmp_path / "i").is_dir()


def test_policy_and_the_only_knowledge_base_reach_the_pipeline(third_party: Path) -> None:
    text = "[policy]\ntext = 'text'\n[knowledge_bases.brand]\nembedder = 'none'\n[generators.x]\nuse = 'acme:pretend'\n"
    (third_party / "vrag.toml").write_text(text)
    with from_config(VRAGPipeline, third_party / "vrag.toml", environ={}) as pipeline:
        assert pipeline.policy == Policy(text="text")
        assert pipeline.knowledge_base().name == "brand"


def test_every_part_of_ours_refuses_an_option_that_it_does_not_know(tmp_path: Path) -> None:
    found: Backend = backend
    for seam, names in found.items():
        for name, factory in names.items():
            with pytest.raises(ConfigError, match="'bogus'"):
                factory({"bogus": 1}, Context(name=f"{seam}-{name}", folder=tmp_path / "x"))
    assert not (tmp_path / "x").exists()
