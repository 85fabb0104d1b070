"""The pictures of the documentation are what the code makes today, and small."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "docs" / "assets"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_assets", ASSETS / "make_assets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def difference(one: Path, other: Path) -> float:
    """Mean distance of the pixels of all frames, of 255."""
    with Image.open(one) as first, Image.open(other) as second:
        assert first.size == second.size
        frames = getattr(first, "n_frames", 1)
        assert frames == getattr(second, "n_frames", 1)
        apart = []
        for number in range(0, frames, 7):
            first.seek(number)
            second.seek(number)
            pair = [np.asarray(picture.convert("RGB"), np.int16) for picture in (first, second)]
            apart.append(float(np.abs(pair[0] - pair[1]).mean()))
    return max(apart)


def test_the_film_beside_its_pictures_and_the_edit_are_made_again(maker, tmp_path):
    maker.films(tmp_path / "studio", tmp_path)
    for name in ("storyboard.webp", "storyboard-still.webp", "edit.webp"):
        assert difference(tmp_path / name, ASSETS / name) < 4, (
            f"make it again: python docs/assets/make_assets.py ({name})"
        )


@pytest.mark.slow
def test_pages_are_photographed_again(maker, walked, tmp_path):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium here: apt-get install chromium")
    maker.pages(walked, tmp_path)
    for name in ("plan.webp", "report.webp"):
        with Image.open(tmp_path / name) as made, Image.open(ASSETS / name) as kept:
            assert made.size == kept.size, name
            assert np.asarray(made.convert("L")).std() > 20, f"{name} is blank"
    assert "erase" in (tmp_path / "lineage.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_everything_is_made_from_the_tutorial_with_the_demonstration_photographs(maker, tmp_path):
    maker.main(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        file.name for file in ASSETS.iterdir() if file.suffix != ".py"
    } - {"__pycache__"}


def test_every_picture_is_small_is_used_and_is_described():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    shown = {*re.findall(r"assets/([\w.-]+\.(?:webp|svg|png|mp4))", text)}
    there = {file.name for file in ASSETS.iterdir() if file.suffix in {".webp", ".svg", ".png", ".mp4"}}
    assert there == shown
    assert sum(file.stat().st_size for file in ASSETS.iterdir() if file.is_file()) < 1_500_000
    assert re.findall(r"!\[\s*\]\(", text) == [], "a picture without a description"
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img [^>]*src=[^>]*>", text))
