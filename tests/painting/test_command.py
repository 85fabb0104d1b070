"""`vrag mask`: a person paints, the files are there, and what they hold is an edit that can be made."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from vrag.cli.app import run
from vrag.media.mask import MaskSpec, draw_mask
from vrag.values.briefs import Brief
from vrag.values.canonical import from_json, to_json

from .conftest import Hand, encoded, opened


@contextmanager
def command(*arguments, folder):
    """The command as a person starts it; gives the link, then what it said."""
    line = [sys.executable, "-m", "vrag.cli", "mask", *map(str, arguments), "--no-open"]
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            stream = started.stderr if "--json" in arguments else started.stdout
            link = next((one.strip() for one in stream if one.startswith("http://127.0.0.1:")), None)
            yield started, link
        finally:
            started.kill()


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "shoes.jpg").write_bytes(encoded())
    return tmp_path / "shoes.jpg"


def paint(browser, link):
    with opened(browser, link) as page:
        hand = Hand(page)
        hand.drag((40, 60), (200, 180))
        hand.says("1 shape.")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("heading", name="The mask is saved").wait_for()
        assert "16.0 % of the picture" in page.locator("main").text_content()


def test_a_file_gets_its_mask_as_json_and_png(browser, photo):
    folder = photo.parent
    with command(photo, "-o", "out/mask.json", "--png", "out/mask.png", folder=folder) as (started, link):
        paint(browser, link)
        said, noted = started.communicate(timeout=20)
        assert started.returncode == 0, noted
    assert "mask: out/mask.json\npng: out/mask.png\n16.0 % of the picture is repainted" in said
    assert "vrag mask --help" in noted
    spec = from_json(MaskSpec, json.loads((folder / "out/mask.json").read_bytes()))
    drawn = draw_mask(spec, (400, 300))
    assert np.abs(np.array(drawn.box_px) - (40, 60, 200, 180)).max() <= 1
    assert (folder / "out/mask.png").read_bytes() == drawn.data
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["mask.json", "mask.png"]


def test_an_asset_gets_a_brief_that_is_made_into_a_video(browser, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    photo = Image.effect_noise((400, 300), 60).convert("RGB")
    photo.save(photos / "shoes.png")
    assert run(["ingest", "photos", "--kb", "brand", "--approve", "--by", "Ana"]) == 0
    digest = json_of(capsys, ["review", "--kb", "brand", "--list", "--json"])["assets"][0]["asset_id"]
    with command(digest[:20], "--kb", "brand", "--brief", "brief.json", "--json", folder=tmp_path) as (started, link):
        paint(browser, link)
        said, noted = started.communicate(timeout=20)
        assert started.returncode == 0, noted
    document = json.loads(said)
    assert document["asset_id"] == digest
    assert document["files"] == {"mask": "mask.json", "brief": "brief.json"}
    brief = from_json(Brief, json.loads((tmp_path / "brief.json").read_bytes()))
    assert brief.picture == digest
    assert brief.edits[0].mask == from_json(MaskSpec, document["mask"])
    assert run(
        ["generate", "--kb", "brand", "--brief", "brief.json", "--action", "camera pans down",
         "--size", "320x180", "--duration", "1", "--fps", "6", "-o", "film.mp4"]
    ) == 0  # fmt: skip
    assert (tmp_path / "film.mp4").stat().st_size > 1000


def json_of(capsys, arguments):
    capsys.readouterr()
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_it_goes_on_with_a_mask_that_was_saved(browser, photo):
    folder = photo.parent
    spec = MaskSpec.ellipse(0.5, 0.5, 1, 1, unit="fraction")
    (folder / "mask.json").write_text(json.dumps(to_json(spec)))
    with command(photo, "--from", "mask.json", "--overwrite", folder=folder) as (started, link):
        with opened(browser, link) as page:
            hand = Hand(page)
            hand.drag((40, 60), (160, 120))
            hand.says("2 shapes.")
            page.get_by_role("button", name="Save").click()
            page.get_by_role("heading", name="saved").wait_for()
        assert started.wait(20) == 0
    assert from_json(MaskSpec, json.loads((folder / "mask.json").read_bytes())).parts[0] == spec


def test_ctrl_c_ends_it_and_writes_nothing(photo):
    for options, said in (((), "No mask was saved."), (("--json",), "")):
        with command(photo, *options, folder=photo.parent) as (started, _):
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=20)
            assert (started.returncode, err.strip()) == (130, said)
            assert not options or json.loads(out) == {"files": {}, "mask": None}
    assert list(photo.parent.iterdir()) == [photo]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing.jpg"], 2, "There is no file 'nothing.jpg'"),
        (["0123456789abcdef"], 2, "Name a knowledge base"),
        (["shoes.jpg", "-o", "taken.json"], 1, "'taken.json' exists already"),
        (["shoes.jpg", "-o", "a.json", "--png", "./a.json"], 2, "the same name"),
        (["shoes.jpg", "-o", "."], 2, "is a folder"),
        (["shoes.jpg", "--brief", "brief.json"], 2, "is in no knowledge base"),
        (["shoes.jpg", "--prompt", "blue shoes"], 2, "--brief brief.json"),
        (["shoes.jpg", "--from", "absent.json"], 2, "cannot be read"),
        (["shoes.jpg", "--from", "shoes.jpg"], 2, "is not JSON"),
        (["shoes.jpg", "--from", "taken.json"], 2, "This is not a MaskSpec"),
        (["shoes.jpg", "--from", "soft.json"], 2, "cannot be painted on"),
        (["taken.json", "-o", "b.json"], 2, "taken.json"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_painted(photo, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(photo.parent)
    (photo.parent / "taken.json").write_text("{}")
    soft = MaskSpec.rectangle(0, 0, 1, 1, unit="fraction").feather(3, unit="px")
    (photo.parent / "soft.json").write_text(json.dumps(to_json(soft)))
    found = run(["mask", *arguments, "--no-open"])
    said = capsys.readouterr().err
    assert words in said
    assert found == code, said


def test_the_files_of_the_command_are_png_and_json_of_the_whole_size(browser, tmp_path):
    (tmp_path / "tall.png").write_bytes(encoded((300, 5000), "PNG"))
    with command("tall.png", "--png", "mask.png", "--json", folder=tmp_path) as (started, link):
        with opened(browser, link) as page:
            page.keyboard.press("i")
            page.get_by_role("button", name="Save").click()
            page.get_by_role("heading", name="saved").wait_for()
        document = json.loads(started.communicate(timeout=20)[0])
    assert (document["width_px"], document["height_px"], document["share"]) == (300, 5000, 1.0)
    assert Image.open(io.BytesIO((tmp_path / "mask.png").read_bytes())).size == (300, 5000)
