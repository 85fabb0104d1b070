"""Camera-move films from one 12-megapixel still: vrag against MoviePy and ffmpeg's zoompan.

    pip install 'vrag[bench]' && python benchmarks/camera_moves.py [--picture PHOTO.jpg] [--rounds 3]

Speed: a zoom in, 1280x720, 24 frames a second, 144 frames, JPEG file to MP4 file, x264 veryfast crf 20 for everyone; the
candidates take turns, and medians are compared. Jitter: a pan of 0.3 px a frame, decoded and registered by ECC against
frame 0; what is left after the best straight line is jitter. The frames are blurred a little first (sigma 3), because
ECC itself errs by 0.02 px with the sub-pixel phase of fine detail; `floor` is what it says of exact Lanczos shifts.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from vrag.backends.local.camera_moves import CameraMoveRenderer
from vrag.media.image import conform
from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.values.requests import Input, Shot, VideoRequest

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 24, 144
SECONDS = FRAMES / FPS
PAN_PX, JUDGED = 0.3, 48
ENCODING = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-threads", "2"]


def texture(path: Path) -> None:
    """A seeded 12-megapixel picture with detail at every scale, as a photograph has."""
    chance = np.random.default_rng(7)
    picture = np.zeros((3000, 4000, 3), np.float32)
    for octave in range(1, 10):
        noise = chance.normal(size=(3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        picture += cv2.resize(noise, (4000, 3000), interpolation=cv2.INTER_CUBIC) * 40 / 1.35**octave
    for _ in range(150):
        centre = tuple(int(v) for v in chance.integers(0, (4000, 3000)))
        colour = tuple(float(v) for v in chance.integers(-90, 90, 3))
        blob = np.zeros_like(picture)
        cv2.circle(blob, centre, int(chance.integers(10, 250)), colour, -1, cv2.LINE_AA)
        picture += blob
    Image.fromarray(np.clip(picture + 120, 0, 255).astype(np.uint8)).save(path, quality=90)


def vrag_film(picture: Path, out: Path, *, codec: str = "h264", pan: bool = False) -> None:
    still = conform(picture.read_bytes(), picture.name, width_px=WIDTH, height_px=HEIGHT, scale=2.0)
    ref = MediaRef(
        sha256=hashlib.sha256(still.data).hexdigest(),
        media_type=still.media_type,
        size_bytes=len(still.data),
        width_px=still.width_px,
        height_px=still.height_px,
    )
    move = CameraMove.PAN_RIGHT if pan else CameraMove.ZOOM_IN
    shot = Shot(prompt="", inputs=(Input(role="start_frame", media=ref),), camera=(move,), duration_s=SECONDS)
    request = VideoRequest(shots=(shot,), width_px=WIDTH, height_px=HEIGHT, fps=FPS, codec=codec)
    amount = PAN_PX * (FRAMES - 1) / (0.25 * WIDTH)
    renderer = CameraMoveRenderer(easing="linear", amount=amount) if pan else CameraMoveRenderer()
    with out.open("w+b") as film:
        renderer.render(request, lambda _: io.BytesIO(still.data), film, lambda _: None, lambda: False)


def moviepy_film(picture: Path, out: Path, *, pan: bool = False) -> None:
    """The Ken Burns effect as tutorials write it."""
    from moviepy import CompositeVideoClip, ImageClip

    if pan:
        still = ImageClip(str(picture)).resized(width=int(WIDTH * 1.25)).with_duration(SECONDS)
        clip = still.with_position(lambda t: (-PAN_PX * FPS * t, "center"))
    else:
        still = ImageClip(str(picture)).resized(width=WIDTH).with_duration(SECONDS)
        clip = still.resized(lambda t: 1 + 0.4 * t / SECONDS).with_position("center")
    film = CompositeVideoClip([clip], size=(WIDTH, HEIGHT))
    film.write_videofile(
        str(out), fps=FPS, codec="libx264", preset="veryfast", threads=2, audio=False, logger=None,
        ffmpeg_params=["-crf", "20", "-pix_fmt", "yuv420p"],
    )  # fmt: skip


def zoompan_film(picture: Path, out: Path, *, times: int, pan: bool = False) -> None:
    """Zoompan rounds to whole pixels of its input: people enlarge the input `times` against that."""
    import imageio_ffmpeg

    wide = int(WIDTH * 1.25) if pan else WIDTH
    window = "z=1.25:x='{0}*on':y='(ih-ih/zoom)/2'".format(PAN_PX * times)
    if not pan:
        window = f"z='1+0.4*on/{FRAMES - 1}':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
    shape = f"scale={wide * times}:-2:flags=bicubic,crop=iw:iw*9/16,"
    steps = f"{shape}zoompan={window}:d={FRAMES}:s={WIDTH}x{HEIGHT}:fps={FPS}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(picture), "-vf", steps]
    subprocess.run([*command, "-frames:v", str(FRAMES), *ENCODING, str(out)], check=True)


def luma(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="gray") for _, frame in zip(range(JUDGED), film.decode(video=0), strict=False)]


def jitter_px(frames: Sequence[np.ndarray]) -> float:
    calm = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 3)[40:-40, 40:-40] for frame in frames]
    places = []
    for number, frame in enumerate(calm):
        warp = np.array([[1, 0, -PAN_PX * number], [0, 1, 0]], np.float32)
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-9)
        places.append(cv2.findTransformECC(calm[0], frame, warp, cv2.MOTION_TRANSLATION, stop, None, 1)[1][0, 2])
    numbers = np.arange(len(places))
    return float(np.std(places - np.polyval(np.polyfit(numbers, places, 1), numbers)))


def exact_pan(picture: Path) -> list[np.ndarray]:
    still = conform(picture.read_bytes(), picture.name, width_px=WIDTH, height_px=HEIGHT, scale=2.0)
    grey = Image.open(io.BytesIO(still.data)).convert("L")
    k = grey.width / (WIDTH * 1.25)
    boxes = [(k * PAN_PX * n, 0.0, k * (WIDTH + PAN_PX * n), k * HEIGHT) for n in range(JUDGED)]
    return [np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)) for box in boxes]


CANDIDATES: dict[str, Callable[..., None]] = {
    "vrag h264": vrag_film,
    "vrag av1": lambda picture, out, **options: vrag_film(picture, out, codec="av1", **options),
    "MoviePy": moviepy_film,
    "zoompan x1": lambda picture, out, **options: zoompan_film(picture, out, times=1, **options),
    "zoompan x4": lambda picture, out, **options: zoompan_film(picture, out, times=4, **options),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--picture", type=Path, help="a photograph of about 12 megapixels; default: a seeded texture")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = given.picture or Path(folder, "still.jpg")
        if given.picture is None:
            texture(picture)
        out = Path(folder, "film.mp4")
        seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        sizes: dict[str, int] = {}
        for _ in range(given.rounds):
            for name, film in CANDIDATES.items():
                begin = time.perf_counter()
                film(picture, out)
                seconds[name].append(time.perf_counter() - begin)
                sizes[name] = out.stat().st_size
        jitter = {}
        for name, film in CANDIDATES.items():
            film(picture, out, pan=True)
            jitter[name] = jitter_px(luma(out))
        floor = jitter_px(exact_pan(picture))
    rates = {name: FRAMES / statistics.median(times) for name, times in seconds.items()}
    print(f"{'':12} {'fps':>7} {'x MoviePy':>10} {'jitter px rms':>14} {'KiB':>7}")
    for name, rate in rates.items():
        print(f"{name:12} {rate:7.1f} {rate / rates['MoviePy']:10.2f} {jitter[name]:14.4f} {sizes[name] // 1024:7}")
    print(f"{'floor':12} {'':7} {'':10} {floor:14.4f}   exact Lanczos shifts, not encoded")
    print(f"goals: vrag h264 at least 6 x MoviePy, jitter at most 0.002 px rms; rounds: {given.rounds}")


if __name__ == "__main__":
    main()
