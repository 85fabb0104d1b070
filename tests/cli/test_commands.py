"""The command line: what it prints, its exit codes, its JSON, and that no hint names a command that is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

import vrag
from vrag.cli import main
from vrag.cli.app import EXIT_CODES, app
from vrag.cli.demo import demo_photos
from vrag.cli.targets import free_path, slug

SOURCES = Path(vrag.__file__).parent


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test stands in its own folder, with no configuration of the machine's."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("VRAG_")]:
        monkeypatch.delenv(name)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `vrag …` in this process; gives (exit code, stdout, stderr)."""

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        found = capsys.readouterr()
        return code, found.out, found.err

    return invoke


def _json(run: Run, *arguments: str) -> tuple[int, Any]:
    code, out, err = run(*arguments, "--json")
    assert err == "", "with --json nothing is said on stderr"
    return code, json.loads(out)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three of the demonstration photographs, under plain names, one file that is none, and a hostile name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with demo_photos() as demo:
        for name in ("two-spaniel-dogs.jpg", "fig-in-red-bowl.jpg", "snowy-mountain-lake.jpg"):
            (folder / name).write_bytes((demo / name).read_bytes())
    return folder


def test_ingest_review_search_end_to_end(run: Run, photos: Path) -> None:
    code, out, err = run("ingest", str(photos), "--kb", "brand")
    assert code == 0
    assert re.search(r"new +3\b", out)
    assert 'next: vrag review --kb brand --approve-all --by "$USER"' in err

    code, found = _json(run, "search", "dogs", "--kb", "brand")
    assert code == 3
    assert "proposed" in found["refusal"]["reasons"][0]

    code, listed = _json(run, "review", "--kb", "brand")
    assert code == 0
    ids = {row["file_name"]: row["asset_id"] for row in listed["assets"]}
    assert {row["state"] for row in listed["assets"]} == {"proposed"}

    short = ids["fig-in-red-bowl.jpg"].rpartition("/")[2][:10]
    assert run("review", "--kb", "brand", "--reject", short, "--by", "me", "--reason", "no")[0] == 0
    code, decided = _json(run, "review", "--kb", "brand", "--approve-all", "--by", "me")
    assert (code, decided["decided"]) == (0, {"approved": 2})

    code, out, _ = run("search", "dogs", "--kb", "brand", "--explain")
    assert code == 0
    assert "two-spaniel-dogs.jpg" in out
    assert "words:" in out
    assert "settings:" in out
    code, found = _json(run, "search", "red bowl", "--kb", "brand")
    assert code == 3, "what was rejected is no answer"


def test_one_bad_file_is_named_and_the_rest_goes_on(run: Run, photos: Path) -> None:
    (photos / "torn\x1b[31m.jpg").write_bytes((photos / "two-spaniel-dogs.jpg").read_bytes()[:2000])
    code, out, _ = run("ingest", str(photos), "--kb", "brand", "--approve", "--by", "me")
    assert code == 4
    assert re.search(r"approved +3\b", out)
    assert re.search(r"rejected +torn", out)
    assert "\x1b" not in out, "a name steers no terminal"
    code, report = _json(run, "ingest", str(photos), "--kb", "brand")
    assert code == 4
    assert (report["unchanged"], len(report["rejected"])) == (3, 1)


def test_only_bad_files_is_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert run("ingest", "photo.jpg", "--kb", "brand")[0] == 1


def test_a_knowledge_base_that_was_never_filled_is_told_and_not_made(run: Run, photos: Path, tmp_path: Path) -> None:
    for command in (
        ["search", "dogs", "--kb", "brnd"],
        ["generate", "--object", "dogs", "--kb", "brnd"],
        ["review", "--kb", "brnd"],
    ):
        code, _, err = run(*command)
        assert code == 1
        assert "next: vrag ingest FOLDER --kb brnd" in err
    assert not (tmp_path / "studio").exists()
    run("ingest", str(photos), "--kb", "brand")
    assert "There are: brand." in run("search", "dogs", "--kb", "brnd")[2]
    assert run("search", "dogs")[0] == 3, "the only one is meant where none is named"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["sarch"], 2, "No such command 'sarch'"),
        (["search"], 2, "Missing argument 'TEXT'"),
        (["search", "x", "--kb", "Brand"], 2, "A knowledge base is named by"),
        (["search", "x"], 2, "Name a knowledge base; there is none yet."),
        (["ingest", "nowhere", "--kb", "brand"], 1, "There is no folder or file 'nowhere'"),
        (["ingest", ".", "--approve"], 2, "come together"),
        (["review", "--kb", "brand", "--approve-all"], 2, "the name of who decides"),
        (["generate", "--kb", "brand"], 2, "Say what the video shows"),
        (["generate", "--kb", "brand", "--object", "x", "--size", "12"], 2, "WIDTHxHEIGHT"),
        (["generate", "--kb", "brand", "--object", "x", "--fps", "0"], 2, "'fps' must be > 0"),
        (["generate", "--kb", "brand", "--object", "x", "-o", "no/such/x.mp4"], 1, "There is no folder 'no/such'"),
        (["verify", "nothing.mp4"], 2, "cannot be read"),
        (["config", "show", "--config", "nothing.toml"], 2, "cannot be read"),
        (["demo", "--out", "."], 1, "writes over nothing of yours"),
    ],
)
def test_every_error_has_words_a_next_step_and_its_exit_code(
    run: Run, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    (tmp_path / "something").touch()
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert told in err
    assert "Traceback" not in err
    assert found in EXIT_CODES
    as_json, document = _json(run, *arguments)
    assert as_json == code
    assert told in document["message"]
    assert document["error"]


def test_an_unexpected_error_is_words_and_a_traceback_only_on_request(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrag.cli.settings.platform.system", lambda: 1 / 0)
    code, _, err = run("version")
    assert code == 1
    assert err == "error: Unexpected ZeroDivisionError: division by zero\nnext: VRAG_DEBUG=1 vrag … shows where\n"
    monkeypatch.setenv("VRAG_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("version")


def test_config_show_tells_each_origin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vrag.toml").write_text(
        "format = 1\n[workspace]\nfolder = 'made'\n[generators.x]\nuse = 'aws:luma-ray'\ntoken_env = 'LUMA_TOKEN'\n"
    )
    monkeypatch.setenv("VRAG_DEFAULTS_FPS", "30")
    monkeypatch.setenv("LUMA_TOKEN", "hunter2")
    code, found = _json(run, "config", "show")
    rows = {row["name"]: (row["value"], row["origin"]) for row in found["settings"]}
    assert code == 0
    assert rows["workspace.folder"] == ("made", "vrag.toml:3")
    assert rows["defaults.fps"] == (30.0, "VRAG_DEFAULTS_FPS")
    assert rows["generators.x.token_env"] == ("LUMA_TOKEN", "vrag.toml:4")
    assert found["workspace"] == str(tmp_path / "made")
    out = run("config", "show", "--workspace", "other")[1]
    assert re.search(r"workspace.folder +other +--workspace", out)
    assert "LUMA_TOKEN (set)" in out
    assert "hunter2" not in out


def test_names_of_videos_are_valid_and_free_on_every_disk(tmp_path: Path) -> None:
    assert slug("Red  Shoes/..\\*") == "red-shoes"
    assert slug("Çafé — à la carte") == "cafe-a-la-carte"
    assert slug("赤い靴") == "video"
    assert slug("CON") == "con-video"
    assert len(slug("x" * 500)) == 60
    for name in ("Lake.MP4", "lake-2.mp4.vrag.json"):
        (tmp_path / name).touch()
    assert free_path(tmp_path, "lake") == tmp_path / "lake-3.mp4"


def test_every_command_that_a_hint_names_exists() -> None:
    named = {
        (file.name, found)
        for file in SOURCES.rglob("*.py")
        if "testing" not in file.parts
        for found in re.findall(r"[\"'`]vrag ([a-z-]+)", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    unknown = sorted((file, found) for file, found in named if found not in app.commands)
    assert unknown == []


def test_every_command_helps_with_examples_and_takes_json(run: Run) -> None:
    commands = dict(app.commands)
    for name, group in app.commands.items():
        if isinstance(group, click.Group):
            commands |= {f"{name} {below}": command for below, command in group.commands.items()}
    for name, command in commands.items():
        code, out, _ = run(*name.split(), "--help")
        assert code == 0
        if not isinstance(command, click.Group):
            assert re.search(r"Examples?:\n +(VRAG_\S+ )?vrag " + name, out), name
            assert "--json" in out, name
    code, out, _ = run("--help")
    for number, meaning in EXIT_CODES.items():
        assert f"{number:>3}  {meaning}" in out


# -- as a process


def _python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SOURCES.parent), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_exit_codes_and_json_of_the_process() -> None:
    done = _python("-m", "vrag.cli", "version", "--json")
    assert (done.returncode, json.loads(done.stdout)["vrag"]) == (0, vrag.__version__)
    done = _python("-m", "vrag.cli", "search", "x", "--kb", "none", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"], done.stderr) == (1, "not_found", "")


def test_shells_complete_commands() -> None:
    done = _python("-m", "vrag.cli", _VRAG_COMPLETE="bash_complete", COMP_WORDS="vrag gen", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,generate"], done.stderr


def test_foreign_text_survives_a_terminal_that_knows_no_unicode() -> None:
    done = _python("-m", "vrag.cli", "search", "Ünïcode", "--kb", "GRÖSSE", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "GR" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_click_one_line_names_the_extra() -> None:
    code = "import sys; sys.modules['click'] = None; from vrag.cli import main; sys.exit(main(['version']))"
    done = _python("-c", code)
    assert done.returncode == 2
    assert done.stderr == "error: The command line needs the extra 'cli'.\nnext: pip install 'vrag[cli]'\n"


def test_the_command_line_starts_without_heavy_parts() -> None:
    code = (
        "import sys; from vrag.cli import main; main(['version']); main(['config', 'show', '--json']);"
        "print(sorted({'numpy', 'PIL', 'av', 'cv2', 'boto3', 'rich', 'cryptography'} & set(sys.modules)))"
    )
    done = _python("-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_with_their_exit_code(tmp_path: Path, number: int, code: int) -> None:
    program = (
        "import os, sys, vrag.cli.settings as s; from vrag.cli import main;"
        f"s.platform.system = lambda: os.kill(os.getpid(), {int(number)}) or 'x'; sys.exit(main(['version']))"
    )
    done = _python("-c", program)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_manifest_of_the_demo_photographs_states_their_licences() -> None:
    with demo_photos() as folder:
        rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text("utf-8").splitlines()]
        assert len(rows) >= 8
        licences = (folder / "LICENCES.md").read_text("utf-8")
        for row in rows:
            with Image.open(folder / row["file"]) as picture:
                assert picture.width >= 1280, row["file"]
                assert picture.height >= 720, row["file"]
            assert row["licence_url"].startswith("https://creativecommons.org/"), row["file"]
            assert row["file"] in licences
