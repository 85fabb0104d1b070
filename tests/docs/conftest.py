"""A fresh environment with the network cut, pictures that are not the demonstration's, and pages run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(bash|python|\w+ title="[\w.-]+")\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# The whole suite, which this is a part of.
NOT_RUN = "pip install -e '.[dev]' && pytest"
PHOTOGRAPHS = {
    "chelsea.png": "tabby-cat-looking-up.png",
    "coffee.png": "cup-of-coffee-on-a-table.png",
    "rocket.jpg": "rocket-on-its-launch-pad-at-night.jpg",
    "astronaut.png": "astronaut-in-an-orange-suit.png",
    "hubble_deep_field.jpg": "galaxies-deep-in-space.jpg",
    "motorcycle_left.png": "motorcycle-in-a-garage.png",
}
"""Of the package scikit-image, all in the public domain or CC0; under names that say what they show."""
GUARD = """
import ipaddress, socket
_connect = socket.socket.connect
def _loopback_only(self, address):
    if self.family != socket.AF_UNIX and not ipaddress.ip_address(address[0]).is_loopback:
        raise OSError("the network is cut")
    return _connect(self, address)
socket.socket.connect = _loopback_only
"""


def _can_unshare() -> bool:
    """Whether a process may be given a network of its own, with nothing in it; `VRAG_TEST_CUT=guard` does without."""
    if shutil.which("unshare") is None or os.environ.get("VRAG_TEST_CUT") == "guard":
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


UNSHARED = _can_unshare()
CUT = "network cut by unshare" if UNSHARED else "network cut by a guard of sockets"


@attrs.frozen(kw_only=True)
class Fresh:
    """An environment into which only the dependencies were lent."""

    bin: Path
    source: Path
    """A copy of what a source release holds; `photos` in it has pictures."""

    def run(self, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a script as a reader would, without a network; the first line that fails ends it."""
        home = cwd / ".home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.defpath}",
            "HOME": str(home),
            "USER": "reader",
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as: no isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        cut = ["unshare", "-rn"] if UNSHARED else []
        return subprocess.run(
            [*cut, "bash", "-e", "-o", "pipefail", "-x", "-c", script],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1800,  # a machine that does much else at the same time
            check=False,
        )

    def walk(self, page: Path, cwd: Path, values: Mapping[str, str] | None = None) -> str:
        """Run every command and every Python block of a page, in order; what it printed.

        `values` replaces the right sides of the page's own settings, which is all that the page tells its reader to change.
        """
        script: list[str] = []
        blocks: list[str] = []
        for kind, content in FENCE.findall(page.read_text(encoding="utf-8")):
            if kind == "bash":
                script.append(content)
            elif kind == "python":
                blocks.append(content)
                (cwd / "page.py").write_text("\n".join(blocks), encoding="utf-8")
                # The blocks of a page go on from each other: one program, started where the last of them stands.
                script = [line for line in script if line != "python page.py\n"] + ["python page.py\n"]
            else:
                (cwd / kind.split('"')[1]).write_text(content, encoding="utf-8")
        text = "".join(line for block in script for line in block.splitlines(keepends=True) if NOT_RUN not in line)
        for name, value in (values or {}).items():
            text, found = re.subn(rf"^{name}=.*$", f'{name}="{value}"', text, flags=re.MULTILINE)
            assert found == 1, f"{page.name} sets {name} {found} times"
        done = self.run(text, cwd)
        assert done.returncode == 0, f"{page.name}\n{done.stdout}\n{done.stderr[-6000:]}"
        return done.stdout


@pytest.fixture(scope="session", params=[pytest.param(None, id=CUT)])
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Nothing is installed yet; what this interpreter has, but for vrag and pip, can be found."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "venv" / "lib" / version / "site-packages"
    lent = folder / "lent"
    lent.mkdir()
    for place in map(Path, site.getsitepackages()):
        for entry in place.iterdir() if place.is_dir() else ():
            ours = re.match(r"_?_?(editable_*(impl_)?_*)?vrag|pip\b|pip-|__pycache__|.*\.pth$", entry.name)
            if not ours and not (lent / entry.name).exists():
                (lent / entry.name).symlink_to(entry)
    (packages / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
    if not UNSHARED:
        (packages / "guard_of_sockets.py").write_text(GUARD, encoding="utf-8")
        (packages / "guard.pth").write_text("import guard_of_sockets\n", encoding="utf-8")
    source = folder / "vrag"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    own_pictures(source / "photos")
    return Fresh(bin=folder / "venv" / "bin", source=source)


@pytest.fixture(scope="session")
def installed(fresh: Fresh) -> Fresh:
    """The README has been followed in it, from its first command to its last."""
    fresh.walk(ROOT / "README.md", fresh.source)
    return fresh


@pytest.fixture(scope="session")
def walked(installed: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who followed the tutorial with pictures of their own."""
    folder = tmp_path_factory.mktemp("walked")
    own_pictures(folder / "pictures")
    photographs = (folder / "pictures" / PHOTOGRAPHS["chelsea.png"]).exists()
    asked = ("tabby cat", "cup of coffee") if photographs else ("white lighthouse", "bowl of lemons")
    said = installed.walk(
        ROOT / "docs" / "tutorial" / "on-the-command-line.md",
        folder,
        {
            "PICTURES": "pictures",
            "OBJECT": asked[0],
            "OTHER": asked[1],
            "ACTION": "camera slowly pans right",
            "MISSING": "red shoes",
        },
    )
    (folder / "said.txt").write_text(said, encoding="utf-8")
    return folder


# -- pictures


def own_pictures(folder: Path) -> None:
    """Photographs of scikit-image where it is installed, and drawn pictures with as much detail, in several formats."""
    folder.mkdir()
    found = importlib.util.find_spec("skimage")
    if found is not None and found.submodule_search_locations:
        data = Path(found.submodule_search_locations[0]) / "data"
        for name, told in PHOTOGRAPHS.items():
            if (data / name).is_file():
                shutil.copy(data / name, folder / told)
    lake, lighthouse, lemons, wall = _lake(), _lighthouse(), _lemons(), _wall()
    lake.save(folder / "mountain-lake-at-dawn.jpg", quality=90)
    # As a phone stores an upright picture: turned, with a note.
    turned = Image.Exif()
    turned[0x0112] = 6
    lighthouse.transpose(Image.Transpose.ROTATE_90).save(
        folder / "white-lighthouse-by-the-sea.jpg", quality=90, exif=turned
    )
    lemons.save(folder / "bowl-of-lemons.webp", quality=85)
    wall.save(folder / "red-brick-wall.png")


def _noise(width_px: int, height_px: int, seed: int, *, octaves: Sequence[int] = (3, 7, 19, 61, 211)) -> np.ndarray:
    """Fractal noise from 0 to 1: it has detail at every size, as a photograph has."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height_px, width_px), np.float32)
    for cells in octaves:
        grid = rng.random((max(2, cells * height_px // width_px), cells), np.float32)
        grown = Image.fromarray(grid).resize((width_px, height_px), Image.Resampling.BICUBIC)
        total += np.asarray(grown) / cells**0.7
    return (total - total.min()) / (total.max() - total.min())


def _between(low: Sequence[int], high: Sequence[int], share: np.ndarray) -> np.ndarray:
    return np.asarray(low, np.float32) + share[..., None] * (np.asarray(high, np.float32) - np.asarray(low, np.float32))


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _lake() -> Image.Image:
    width, shore = 1800, 640
    rows = np.linspace(0, 1, shore, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32)
    upper = _between((86, 128, 190), (250, 206, 170), np.clip(rows + 0.15 * _noise(width, shore, 1), 0, 1))
    for seed, colour, height in ((2, (118, 124, 150), 0.62), (3, (70, 78, 92), 0.42), (4, (30, 46, 40), 0.22)):
        ridge = shore * (1 - height * _noise(width, 40, seed)[20])
        inside = np.arange(shore)[:, None] > ridge[None, :]
        grain = _noise(width, shore, seed + 10)
        upper = np.where(inside[..., None], np.asarray(colour) * (0.7 + 0.6 * grain[..., None]), upper)
    water = upper[::-1][: shore - 60] * 0.72
    shift = (6 * np.sin(np.arange(len(water)) / 3.1)).astype(int)
    water = np.stack([np.roll(row, step, axis=0) for row, step in zip(water, shift, strict=True)])
    return _picture(np.vstack([upper, water]))


def _lighthouse() -> Image.Image:
    width, height = 1000, 1500
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32)
    sky = _between((70, 130, 200), (214, 226, 236), np.clip(rows * 1.2, 0, 1))
    clouds = np.clip(_noise(width, height, 21) * 2.2 - 1.1, 0, 1)
    pixels = 250 * clouds[..., None] + sky * (1 - clouds[..., None])
    sea = rows > 0.72
    waves = _noise(width, height, 22, octaves=(11, 47, 150))
    pixels = np.where(sea[..., None], _between((16, 60, 84), (120, 170, 180), waves), pixels)
    picture = _picture(pixels)
    draw = ImageDraw.Draw(picture)
    draw.polygon([(250, 1180), (760, 1180), (900, 1300), (140, 1300)], fill=(72, 68, 62))
    draw.polygon([(430, 360), (570, 360), (630, 1190), (370, 1190)], fill=(240, 238, 232))
    draw.polygon([(500, 360), (570, 360), (630, 1190), (520, 1190)], fill=(206, 206, 206))
    draw.rectangle((420, 320, 580, 362), fill=(60, 60, 66))
    draw.rectangle((450, 250, 550, 322), fill=(255, 226, 130))
    draw.polygon([(440, 252), (560, 252), (500, 190)], fill=(170, 40, 36))
    for top in (520, 720, 920):
        draw.rectangle((485, top, 512, top + 50), fill=(52, 58, 70))
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def _lemons() -> Image.Image:
    width, height = 1500, 1100
    pixels = _between((96, 64, 40), (150, 108, 70), _noise(width, height, 31, octaves=(2, 60, 240)))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    bowl = ((x - 750) / 560) ** 2 + ((y - 620) / 400) ** 2 < 1
    pixels = np.where(bowl[..., None], _between((60, 84, 130), (110, 140, 190), _noise(width, height, 32)), pixels)
    for middle_x, middle_y in ((560, 560), (800, 500), (960, 640), (700, 720), (880, 780)):
        away = ((x - middle_x) / 160) ** 2 + ((y - middle_y) / 120) ** 2
        light = np.clip(1.1 - ((x - middle_x + 60) ** 2 + (y - middle_y + 50) ** 2) / 60_000, 0.35, 1.1)
        peel = light * (0.9 + 0.15 * _noise(width, height, middle_x, octaves=(90, 220)))
        pixels = np.where((away < 1)[..., None], peel[..., None] * np.asarray((245, 214, 60)), pixels)
    return _picture(pixels)


def _wall() -> Image.Image:
    width, height = 1400, 1050
    rng = np.random.default_rng(41)
    picture = Image.new("RGB", (width, height), (186, 178, 166))
    draw = ImageDraw.Draw(picture)
    for row in range(height // 60 + 1):
        for column in range(-1, width // 160 + 1):
            left, top = column * 160 + (row % 2) * 80, row * 60
            shade = rng.uniform(0.8, 1.15)
            brick = tuple(min(255, round(part * shade)) for part in (158, 74, 56))
            draw.rectangle((left + 5, top + 5, left + 155, top + 55), fill=brick)
    grain = _noise(width, height, 42, octaves=(5, 90, 300))
    return _picture(np.asarray(picture, np.float32) * (0.75 + 0.5 * grain[..., None]))
