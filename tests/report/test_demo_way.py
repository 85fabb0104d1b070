"""`vrag demo`, whole: film, record, page and refusal, without network; then what a stranger can check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

import vrag

pytest.importorskip("cv2", reason="the demo needs the extra 'local'")

_WITHOUT_NETWORK = """
import socket, sys
def refuse(*_): raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
from vrag.cli import main
sys.exit(main(sys.argv[1:]))
"""


def _vrag(folder: Path, *arguments: str) -> tuple[int, Any]:
    path = os.pathsep.join([str(Path(vrag.__file__).parents[1]), *sys.path])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VRAG_")}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NETWORK, *arguments, "--json"],
        cwd=folder,
        env={**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error::ResourceWarning"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("demo way")
    code, said = _vrag(folder, "demo", "--out", "demo")
    assert code == 0, said
    return folder, said


def test_the_demo_ends_in_a_film_of_what_was_asked(first: tuple[Path, Any]) -> None:
    folder, said = first
    with av.open(str(folder / said["file"])) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (1280, 720, 24)
        assert sum(1 for _ in film.decode(stream)) == 144
    assert [source["file_name"] for source in said["sources"]] == ["snowy-mountain-lake.jpg"]
    assert said["model"].startswith("local:camera-moves")
    assert said["verification"] == {"ok": True, "trusted": True}
    assert said["refused"]["query"] == "red shoes"
    assert "shoes" in said["refused"]["reasons"][0]


def test_again_is_fine_and_finds_the_same_video(first: tuple[Path, Any]) -> None:
    folder, said = first
    code, again = _vrag(folder, "demo", "--out", "demo")
    assert code == 0
    assert (again["id"], again["sha256"]) == (said["id"], said["sha256"])


def test_a_stranger_verifies_a_copy_with_the_public_key_alone(first: tuple[Path, Any], tmp_path: Path) -> None:
    folder, said = first
    for name in (said["file"], said["record_file"], said["public_key"]):
        shutil.copy(folder / name, tmp_path)
    film, key = Path(said["file"]).name, Path(said["public_key"]).name
    code, found = _vrag(tmp_path, "verify", film, "--key", key)
    assert (code, found["ok"], found["trusted"]) == (0, True, True)
    code, found = _vrag(tmp_path, "verify", film)
    assert (code, found["ok"], found["trusted"]) == (5, True, False)
    assert not (tmp_path / "studio").exists(), "looking makes no workspace"

    for name, at in ((film, 5000), (f"{film}.vrag.json", 900)):
        whole = (tmp_path / name).read_bytes()
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / name).write_bytes(changed)
        code, found = _vrag(tmp_path, "verify", film, "--key", key)
        assert code == 5, name
        assert not found.get("ok", False)
        (tmp_path / name).write_bytes(whole)

    (tmp_path / f"{film}.vrag.json").unlink()
    code, found = _vrag(tmp_path, "verify", film, "--key", key)
    assert (code, found["error"]) == (5, "verification")


def test_its_workspace_knows_where_the_picture_went_and_revoking_blocks_it(
    first: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, said = first
    shutil.copytree(folder / said["workspace"], tmp_path / "studio")
    asset = said["sources"][0]["asset_id"]
    code, listed = _vrag(tmp_path, "jobs")
    assert (code, [job["state"] for job in listed["jobs"]]) == (0, ["delivered"])
    code, used = _vrag(tmp_path, "where-used", asset)
    assert (code, [use["video_sha256"] for use in used["uses"]]) == (0, [said["sha256"]])
    code, revoked = _vrag(tmp_path, "revoke", asset, "--by", "me", "--reason", "the licence ended")
    assert code == 0
    assert len(revoked["revoked"][0]["videos"]) == 1
    code, refused = _vrag(
        tmp_path, "generate", "--kb", "demo", "--object", "snowy mountain lake", "--picture", asset, "-o", "x.mp4"
    )
    assert (code, refused["error"], refused["state"]) == (3, "gate", "revoked")
    assert not (tmp_path / "x.mp4").exists()


def test_generate_writes_what_was_asked_and_never_over_a_file(first: tuple[Path, Any], tmp_path: Path) -> None:
    folder, said = first
    asked = ["generate", "--object", "red bowl", "--action", "camera zooms in", "--size", "320x240", "--fps", "12"]
    place = ["--duration", "1", "--workspace", str(folder / said["workspace"]), "-o", "bowl.mp4"]
    code, made = _vrag(tmp_path, *asked, *place)
    assert code == 0, made
    assert made["sources"][0]["file_name"] == "fig-in-red-bowl.jpg"
    with av.open(str(tmp_path / "bowl.mp4")) as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (320, 240)
        assert sum(1 for _ in film.decode(video=0)) == 12
    code, refused = _vrag(tmp_path, *asked, *place)
    assert (code, refused["error"]) == (1, "already_exists")
    assert _vrag(tmp_path, *asked, *place, "--overwrite")[1]["id"] == made["id"]
    code, refused = _vrag(tmp_path, "generate", "--object", "red shoes", "--workspace", str(folder / said["workspace"]))
    assert (code, refused["error"]) == (3, "no_suitable_image")
    assert refused["nearest"]


def test_a_browser_plays_the_film_of_the_demo_page(browser: Any, first: tuple[Path, Any]) -> None:
    folder, said = first
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((folder / said["page"]).as_uri())
    played = page.evaluate(
        """async () => {
            const film = document.querySelector('video');
            await film.play();
            await new Promise(done => film.requestVideoFrameCallback(() => film.requestVideoFrameCallback(done)));
            return [film.getVideoPlaybackQuality().totalVideoFrames > 0, film.videoWidth, film.videoHeight];
        }"""
    )
    assert played == [True, 1280, 720]
    text = page.inner_text("body")
    for words in ("snowy mountain lake", "Verified:", "CC0-1.0", "red shoes", "15 pictures were considered"):
        assert words in text
    assert complaints == []
    page.close()
