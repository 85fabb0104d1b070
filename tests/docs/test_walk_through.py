"""The commands of README and tutorials, run as they stand: a fresh environment, no network, pictures of one's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vrag.media.video import probe_video

ROOT = Path(__file__).parents[2]


def seconds(film: Path) -> float:
    with film.open("rb") as stream:
        return round(probe_video(stream, film.name).duration_s, 2)


def test_the_network_is_cut(fresh, tmp_path):
    reach = "python -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), timeout=5)'"
    done = fresh.run(reach, tmp_path)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert "imed out" not in done.stderr


def test_the_readme_can_be_followed(installed):
    told = installed.run("python -c 'import vrag; print(vrag.__file__)'", installed.source).stdout
    assert Path(told.strip()).is_relative_to(installed.bin.parent), "installed, not borrowed"
    made = installed.source
    assert seconds(made / "vrag-demo" / "snowy-mountain-lake.mp4") == 6
    assert seconds(made / "lake.mp4") == seconds(made / "left.mp4") == 6
    again = 'vrag generate --kb brand --object "mountain lake" --action "camera pans left" -o again.mp4 --json'
    found = json.loads(installed.run(again, made).stdout)
    assert [source["file_name"] for source in found["sources"]] == ["mountain-lake-at-dawn.jpg"]
    assert (made / "again.mp4").read_bytes() == (made / "left.mp4").read_bytes(), "the same command finds the same film"


def test_the_tutorial_can_be_followed_with_pictures_of_ones_own(walked):
    assert seconds(walked / "film.mp4") == seconds(walked / "edited.mp4") == 6
    films = sorted((walked / "films").glob("*.mp4"))
    assert len(films) == 6
    assert {seconds(film) for film in films} == {2}
    assert all(Path(f"{film}.vrag.json").is_file() for film in films)
    assert not (walked / "films" / "failed.jsonl").exists()
    for name in ("plan.html", "report.html", "lineage.svg", "studio.pem"):
        assert (walked / name).stat().st_size > 100, name


def test_what_is_not_there_and_what_was_revoked_is_refused(walked):
    assert (walked / "said.txt").read_text(encoding="utf-8").count("refused, exit code 3\n") == 2


def test_the_edit_and_the_take_down_are_in_the_lineage(installed, walked):
    shown = json.loads(installed.run("vrag lineage edited.mp4 --stale --json", walked).stdout)
    assert "erase" in json.dumps(shown)
    assert "picture revoked" in json.dumps(shown)
    assert installed.run("vrag verify film.mp4", walked).returncode == 0


def test_one_changed_byte_is_found_by_the_readers_own_command(installed, walked, tmp_path):
    data = bytearray((walked / "film.mp4").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "film.mp4").write_bytes(data)
    (tmp_path / "film.mp4.vrag.json").write_bytes((walked / "film.mp4.vrag.json").read_bytes())
    done = installed.run(f"vrag verify film.mp4 --key '{walked}/studio.pem'", tmp_path)
    assert done.returncode == 5


def test_the_tutorial_in_python_can_be_followed(installed, tmp_path):
    # The page installs from the folder that it is read in, and uses the photographs that come with the package.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(installed.source / name, tmp_path)
    shutil.copytree(installed.source / "src", tmp_path / "src")
    installed.walk(ROOT / "docs" / "tutorial" / "first-film.md", tmp_path)
    assert seconds(tmp_path / "lake.mp4") == 6
