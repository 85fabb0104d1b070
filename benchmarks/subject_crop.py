"""How much of the subject a crop keeps: `fit="subject"` against a crop around the centre.

    python benchmarks/subject_crop.py [--photos DIR]

Subjects were drawn by hand as boxes (`benchmarks/data/subjects.json`). Kept is the share of the box that is left in the
crop; `possible` is what a crop of that shape can keep at most. `held out` are the photographs in this repository, which
the search for the method's numbers did not use (terms that gained nothing were removed afterwards, with both sets in
sight: before, 0.671 at 9:16 and 0.853 at 1:1); `recomposed` are the same photographs cut to 78 % of each side at each corner
where the subject stays whole, because people who photograph put their subject in the middle. With --photos, a folder
with the files of the set that the method was tuned on, or with those of them that are found in installed packages
(skimage, sklearn, gradio, ultralytics), that set is listed too.

Goals, on the photographs held out: no shape worse than the centre; at 9:16 at least 1.1 times the centre's share, and
1.3 times when recomposed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from vrag.media.fit import centre_crop
from vrag.media.image import load_image
from vrag.media.subject import subject_crop

LABELS = Path(__file__).parent / "data" / "subjects.json"
PHOTOS = Path(__file__).parents[1] / "src" / "vrag" / "demo" / "photos"
SHAPES = {"16:9": 16 / 9, "1:1": 1.0, "9:16": 9 / 16}
KEPT_SIDE = 0.78

Box = tuple[float, float, float, float]


def labelled(folder: Path | None) -> Iterator[tuple[str, str, Image.Image, Box]]:
    for row in json.loads(LABELS.read_text())["pictures"]:
        places = [PHOTOS / row["file"]] if row["set"] == "held_out" else []
        if row["set"] == "tuning":
            places += [folder / row["file"]] if folder else []
            package, _, rest = row["from"].partition("/")
            spec = find_spec(package) if package.isidentifier() else None
            places += [Path(spec.origin).parent / rest] if spec and spec.origin else []
        place = next((place for place in places if place.is_file()), None)
        if place:
            pixels = load_image(place.read_bytes(), place.name).pixels
            yield row["set"].replace("_", " "), row["file"], pixels, tuple(row["box"])


def recomposed(picture: Image.Image, box: Box) -> Iterator[tuple[Image.Image, Box]]:
    width, height = picture.size
    for left in (0.0, 1 - KEPT_SIDE):
        for top in (0.0, 1 - KEPT_SIDE):
            if left <= box[0] and box[2] <= left + KEPT_SIDE and top <= box[1] and box[3] <= top + KEPT_SIDE:
                right, bottom = left + KEPT_SIDE, top + KEPT_SIDE
                part = (round(left * width), round(top * height), round(right * width), round(bottom * height))
                moved = [(box[side] - (left, top)[side % 2]) / KEPT_SIDE for side in range(4)]
                yield picture.crop(part), (moved[0], moved[1], moved[2], moved[3])


def kept(crop: tuple[int, int, int, int], size: tuple[int, int], box: Box) -> float:
    """Share of the subject that is inside the crop."""
    left, top, right, bottom = (crop[side] / size[side % 2] for side in range(4))
    across = max(0.0, min(right, box[2]) - max(left, box[0]))
    down = max(0.0, min(bottom, box[3]) - max(top, box[1]))
    return across * down / ((box[2] - box[0]) * (box[3] - box[1]))


def possible(size: tuple[int, int], aspect: float, box: Box) -> float:
    left, top, right, bottom = centre_crop(*size, aspect)
    across, down = (right - left) / size[0], (bottom - top) / size[1]
    return min(1.0, across / (box[2] - box[0])) * min(1.0, down / (box[3] - box[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with the files of the tuning set")
    options = parser.parse_args()
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    seconds = []
    print(f"{'picture':<32} " + " ".join(f"{shape + ' ours/centre':>18}" for shape in SHAPES))
    for set_, name, picture, box in labelled(options.photos):
        line = []
        for group, image, where in [
            (set_, picture, box),
            *((f"{set_}, recomposed", *other) for other in recomposed(picture, box)),
        ]:
            for shape, aspect in SHAPES.items():
                begin = time.perf_counter()
                crop = subject_crop(image, image.size, aspect)
                seconds.append(time.perf_counter() - begin)
                ours = kept(crop, image.size, where)
                centre = kept(centre_crop(*image.size, aspect), image.size, where)
                rows.setdefault((group, shape), []).append((ours, centre, possible(image.size, aspect, where)))
                if group == set_:
                    line.append(f"{ours:.2f} / {centre:.2f}")
        if set_ == "held out":
            print(f"{name[:32]:<32} " + " ".join(f"{text:>18}" for text in line))
    print(
        f"\n{'set':<22} {'shape':>6} {'n':>4} {'ours':>6} {'centre':>7} {'ratio':>6} {'possible':>9} {'whole: ours, centre':>20}"
    )
    for (group, shape), results in sorted(rows.items()):
        ours, centre, most = (statistics.mean(column) for column in zip(*results, strict=True))
        # "Whole": at least 95 % of what is possible.
        whole = [sum(row[side] >= 0.95 * row[2] for row in results) / len(results) for side in (0, 1)]
        print(
            f"{group:<22} {shape:>6} {len(results):4} {ours:6.3f} {centre:7.3f} {ours / centre:6.2f} {most:9.3f}"
            f" {whole[0]:12.0%} {whole[1]:7.0%}"
        )
    print(
        f"\nFinding takes {statistics.median(seconds) * 1e3:.0f} ms (median; the decoding of the picture not counted)."
    )


if __name__ == "__main__":
    main()
