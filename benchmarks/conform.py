"""Fitting 12-megapixel JPEGs to 1280 x 720, against Pillow used naively, measured in turns in the same run.

Naive: decode all of it, turn it upright, crop, Lanczos, encode; the encoder and its settings are the same. The peer
and ours swap places each round. SSIM is taken against the naive picture, before encoding.

    python benchmarks/conform.py [--photos DIR] [--rounds N]

Goal: at least 2.4 times as fast at SSIM of at least 0.99. Without --photos the pictures are synthesised: noise with the
1/f spectrum of photographs under hard-edged shapes, blurred as a lens does, in the four orientations that cameras write.

Two groups are listed apart, because less can be saved there. A portrait that is cropped to a landscape gives up most of
its height, so that half its width is too little for that SSIM, and it is decoded whole; the same holds for photographs
of less than 3840 pixels. And the entropy decoding of a progressive JPEG, most of its cost, cannot be shortened.
"""

from __future__ import annotations

import argparse
import statistics
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from vrag.media.image import conform, encode_jpeg

WIDTH, HEIGHT = 1280, 720
GOAL_RATIO, GOAL_SSIM = 2.4, 0.99


def naive(data: bytes) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    scale = min(image.width / WIDTH, image.height / HEIGHT)
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    part = image.crop((left, top, left + width, top + height))
    return part.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def ssim(one: Image.Image, two: Image.Image) -> float:
    """Wang et al. 2004 on luma, Gaussian window of sigma 1.5."""
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    kernel /= kernel.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            windows = np.lib.stride_tricks.sliding_window_view(values, 11, axis)
            values = windows @ kernel
        return values

    a, b = (np.asarray(image.convert("L"), np.float64) for image in (one, two))
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    top = (2 * ma * mb + 6.5025) * (2 * cov + 58.5225)
    return float(np.mean(top / ((ma * ma + mb * mb + 6.5025) * (va + vb + 58.5225))))


def synthesise(seed: int, orientation: int) -> bytes:
    """One 4000 x 3000 JPEG, quality 90, 4:2:0, 2 to 4 MB, as a phone writes it."""
    rng = np.random.default_rng(seed)
    width, height = 4000, 3000
    fall = 1 / np.maximum(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]), 1 / width)
    planes = []
    for strength in (1.0, 0.25, 0.25):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width), np.float32)) * fall, (height, width))
        planes.append(noise / noise.std() * 40 * strength)
    luma, blue, red = planes
    y, x = np.ogrid[0:height, 0:width]
    for _ in range(12):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(60, 700)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        luma[inside] += rng.uniform(-50, 50)
        red[inside] += rng.uniform(-30, 30)
    ycc = np.stack([luma, blue, red], -1) + 128
    image = Image.fromarray(np.clip(ycc, 0, 255).astype(np.uint8), "YCbCr").convert("RGB")
    image = image.filter(ImageFilter.GaussianBlur(0.9))  # lens and demosaicing
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = BytesIO()
    image.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def measure(data: bytes, rounds: int) -> tuple[float, float, float]:
    """Median seconds of the naive way and of ours, and the SSIM."""
    times: dict[str, list[float]] = {"naive": [], "ours": []}
    ways = {
        "naive": lambda: encode_jpeg(naive(data)),
        "ours": lambda: conform(data, "x", width_px=WIDTH, height_px=HEIGHT),
    }
    for turn in range(rounds):
        for name in sorted(ways, reverse=bool(turn % 2)):
            start = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - start)
    lossless = conform(data, "x", width_px=WIDTH, height_px=HEIGHT, media_type="image/png").data
    alike = ssim(naive(data), Image.open(BytesIO(lossless)))
    return statistics.median(times["naive"]), statistics.median(times["ours"]), alike


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs instead of synthesised ones")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    if options.photos:
        files = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
        pictures = {path.name: path.read_bytes() for path in files}
    else:
        pictures = {f"synthetic, EXIF orientation {turn}": synthesise(turn, turn) for turn in (1, 3, 6, 8)}

    groups: dict[str, list[tuple[float, float]]] = {}
    print(f"{'picture':<36} {'Mpx':>5} {'naive':>9} {'ours':>9} {'ratio':>6} {'SSIM':>7}")
    for name, data in pictures.items():
        header = Image.open(BytesIO(data))
        upright = ImageOps.exif_transpose(header)
        kind = "baseline"
        if header.info.get("progressive"):
            kind = "progressive"
        elif min(upright.width / WIDTH, upright.height / HEIGHT) < 3 - 1e-2:
            kind = "baseline, decoded whole"
        slow, fast, alike = measure(data, options.rounds)
        groups.setdefault(kind, []).append((slow / fast, alike))
        size = header.width * header.height / 1e6
        times = f"{slow * 1e3:6.1f} ms {fast * 1e3:6.1f} ms {slow / fast:5.2f}x"
        print(f"{name[:36]:<36} {size:5.1f} {times} {alike:7.4f}  {kind}")
    for kind, results in sorted(groups.items()):
        ratio = statistics.median(ratio for ratio, _ in results)
        lowest = min(alike for _, alike in results)
        goal = f"; goal {GOAL_RATIO}x at {GOAL_SSIM}" if kind == "baseline" else ""
        print(f"{kind}: {len(results)} pictures, median ratio {ratio:.2f}x, lowest SSIM {lowest:.4f}{goal}")


if __name__ == "__main__":
    main()
