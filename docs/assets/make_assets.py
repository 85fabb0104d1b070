"""Makes the pictures of the documentation again, from the demonstration photographs and the tutorial's own commands.

    python docs/assets/make_assets.py [FOLDER]

It needs `pip install '.[dev]'`, and Chromium for the pictures of pages; without a browser those are left as they are.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from vrag import Brief, ShotBrief, VRAGPipeline
from vrag.cli.demo import demo_photos
from vrag.media.mask import draw_mask, overlay_mask
from vrag.media.video import iter_frames
from vrag.values.canonical import from_json

TUTORIAL = Path(__file__).parents[1] / "tutorial" / "on-the-command-line.md"
SHOTS = (
    ("snowy mountain lake", "camera pans right", "snowy-mountain-lake.jpg"),
    ("orange dune", "camera zooms in", "hikers-on-orange-dune.jpg"),
    ("colosseum", "camera tilts up", "roman-colosseum.jpg"),
)
TEAL = (0, 150, 136)


def main(into: Path) -> None:
    """Write every picture into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        films(folder / "own", into)
        run_tutorial(folder)
        pages(folder, into)


def films(folder: Path, into: Path) -> None:
    """What is made in Python, in a workspace of its own."""
    with VRAGPipeline.local(folder) as pipeline, demo_photos() as photos:
        pipeline.knowledge_base("brand").ingest(photos / "captions.jsonl", approve_by="ann")
        storyboard(pipeline, photos, into)
        edit(pipeline, photos, into)


def storyboard(pipeline: VRAGPipeline, photos: Path, into: Path) -> None:
    """Three photographs and the film of them, side by side: `storyboard.webp`, and `storyboard-still.webp`."""
    video = pipeline.generate(
        Brief(
            knowledge_base="brand",
            shots=tuple(ShotBrief(object_prompt=what, action_prompt=action, duration_s=2) for what, action, _ in SHOTS),
            crossfade_s=0.5,
            width_px=480,
            height_px=270,
            fps=12,
        )
    )
    assert [source.file_name for source in video.sources] == [name for _, _, name in SHOTS]
    small = [ImageOps.fit(Image.open(photos / name).convert("RGB"), (144, 81)) for _, _, name in SHOTS]
    frames = [Image.fromarray(frame) for frame in iter_frames(io.BytesIO(video.read_bytes()))]
    shown: list[Image.Image] = []
    for number, frame in enumerate(frames):
        now = min(len(SHOTS) - 1, number * len(SHOTS) // len(frames))
        canvas = Image.new("RGB", (648, 286), "white")
        canvas.paste(frame, (162, 8))
        for row, picture in enumerate(small):
            left, top = 6, 8 + row * 95
            if row == now:
                ImageDraw.Draw(canvas).rectangle((left - 4, top - 4, left + 147, top + 84), fill=TEAL)
            white = Image.new("RGB", picture.size, "white")
            canvas.paste(picture if row == now else Image.blend(picture, white, 0.5), (left, top))
        shown.append(canvas)
    milliseconds = round(1000 / 12)
    shown[0].save(
        into / "storyboard.webp",
        save_all=True,
        append_images=shown[1:],
        duration=milliseconds,
        loop=0,
        quality=62,
        method=4,
    )
    shown[len(shown) // 2].save(into / "storyboard-still.webp", quality=80, method=6)


def edit(pipeline: VRAGPipeline, photos: Path, into: Path) -> None:
    """The tutorial's edit, before, marked and after: `edit.webp`."""
    written = next(content for name, content in titled_blocks() if name == "erase.json")
    asked = {"object_prompt": "orange dune", "action_prompt": "camera zooms in", "knowledge_base": "brand"}
    brief = from_json(Brief, {**json.loads(written), **asked, "duration_s": 1.0})
    video = pipeline.generate(brief)
    (source,) = video.sources
    before = (photos / source.file_name).read_bytes()
    mask = brief.edits[0].mask
    assert mask is not None
    marked = overlay_mask(before, draw_mask(mask, before).data, max_side_px=1600)
    after = video.picture()
    assert after is not None
    original = Image.open(io.BytesIO(before)).convert("RGB")
    tinted = Image.open(io.BytesIO(marked)).convert("RGB")
    fitted = Image.open(io.BytesIO(after)).convert("RGB")
    left, top, right, bottom = source.conformed.crop_px
    row = [picture.crop((left, top, right, bottom)).resize(fitted.size) for picture in (original, tinted)]
    row.append(fitted)
    width, height = fitted.size
    part = (round(0.22 * width), round(0.66 * height), round(0.50 * width), round(0.98 * height))
    cut = [picture.crop(part) for picture in row]
    size = (300, round(300 * cut[0].height / cut[0].width))
    sheet = Image.new("RGB", (3 * size[0] + 16, size[1]), "white")
    for number, picture in enumerate(cut):
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (number * (size[0] + 8), 0))
    sheet.save(into / "edit.webp", quality=82, method=6)


def titled_blocks() -> list[tuple[str, str]]:
    """Files that the tutorial shows, by name."""
    text = TUTORIAL.read_text(encoding="utf-8")
    return re.findall(r'^```\w+ title="([\w.-]+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)


def run_tutorial(folder: Path) -> None:
    """Run every command of the tutorial, as a reader would."""
    for name, content in titled_blocks():
        (folder / name).write_text(content, encoding="utf-8")
    text = TUTORIAL.read_text(encoding="utf-8")
    script = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    environment = {
        **os.environ,
        "USER": "ann",
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    bash = shutil.which("bash") or "/bin/bash"
    subprocess.run([bash, "-e", "-c", script], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # the tutorial's own words


def pages(folder: Path, into: Path) -> None:
    """Pictures of what the tutorial wrote: `lineage.svg`, `plan.webp` and `report.webp`."""
    shutil.copy(folder / "lineage.svg", into / "lineage.svg")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.stderr.write("no Chromium here: the pictures of pages stay as they are\n")
        return
    for name, data in _screenshots(chromium, folder):
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture.save(into / name, quality=80, method=6)


def _screenshots(chromium: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # of the extra `dev`

    with sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 900, "height": 620})
        page.goto((folder / "plan.html").as_uri())
        yield "plan.webp", page.screenshot(clip={"x": 0, "y": 0, "width": 900, "height": 620})
        page.set_viewport_size({"width": 1000, "height": 640})
        page.goto((folder / "report.html").as_uri())
        yield "report.webp", page.screenshot()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
