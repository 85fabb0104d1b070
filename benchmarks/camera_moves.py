"""Camera-move films from one 12-megapixel still: vrag against MoviePy and ffmpeg's zoompan.

    pip install 'vrag[bench]' && python benchmarks/camera_moves.py [--picture PHOTO.jpg] [--rounds 3]

Speed: a zoom in, 1280x720, 24 frames a second, 144 frames, the same JPEG file to an MP4 file, x264 veryfast crf 20 for
everyone; the candidates take turns, and medians are compared. Jitter: a pan of 0.3 px a frame, encoded without loss,
decoded and registered by ECC against frame 0; what is left after the best straight line is jitter. The frames are
blurred a little first (sigma 3), because ECC itself errs by 0.02 px with the sub-pixel phase of fine detail; `floor` is
what it says of exact Lanczos shifts. The last column is the same for the film as it is delivered: there the encoder,
not the renderer, decides.
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
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image, ImageOps

from vrag.backends.local import camera_moves
from vrag.backends.local.camera_moves import CameraMoveRenderer
from vrag.media.ref import MediaRef
from vrag.prompts.camera import CameraMove
from vrag.values.requests import Input, Shot, VideoRequest

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 24, 144
SECONDS = FRAMES / FPS
PAN_PX, JUDGED = 0.3, 48
ENCODING = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "2"]
QUALITY, LOSSLESS = ("-crf", "20"), ("-qp", "0")


def texture() -> Image.Image:
    """A seeded 12-megapixel picture with detail at every scale, as a photograph has."""
    chance = np.random.default_rng(7)
    width, height = 4608, 2592
    picture = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 10):
        noise = chance.normal(size=(9 * 2**octave // 2, 16 * 2**octave // 2, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 40 / 1.35**octave
    for _ in range(150):
        centre = tuple(int(v) for v in chance.integers(0, (width, height)))
        colour = tuple(float(v) for v in chance.integers(0, 255, 3))
        cv2.circle(picture, centre, int(chance.integers(10, 120)), colour, -1, cv2.LINE_AA)
    return Image.fromarray(np.clip(picture + 120, 0, 255).astype(np.uint8))


def vrag_film(picture: Path, out: Path, *, codec: str = "h264", pan: bool = False) -> None:
    data = picture.read_bytes()
    ref = MediaRef(sha256=hashlib.sha256(data).hexdigest(), media_type="image/jpeg", size_bytes=len(data))
    move = CameraMove.PAN_RIGHT if pan else CameraMove.ZOOM_IN
    shot = Shot(prompt="", inputs=(Input(role="start_frame", media=ref),), camera=(move,), duration_s=SECONDS)
    request = VideoRequest(shots=(shot,), width_px=WIDTH, height_px=HEIGHT, fps=FPS, codec=codec)
    amount = PAN_PX * (FRAMES - 1) / (0.25 * WIDTH)
    renderer = CameraMoveRenderer(easing="linear", amount=amount) if pan else CameraMoveRenderer()
    with out.open("w+b") as film:
        renderer.render(request, lambda _: io.BytesIO(data), film, lambda _: None, lambda: False)


def lossless_vrag_film(picture: Path, out: Path) -> None:
    """The frames as they are drawn; such films are no product, so the renderer has no option for them."""
    encoders = camera_moves._ENCODERS  # noqa: SLF001
    delivered, encoders["h264"] = encoders["h264"], ("libx264", {"preset": "ultrafast", "qp": "0"})
    try:
        vrag_film(picture, out, pan=True)
    finally:
        encoders["h264"] = delivered


def moviepy_film(picture: Path, out: Path, *, pan: bool = False, quality: Sequence[str] = QUALITY) -> None:
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
        ffmpeg_params=[*quality, "-pix_fmt", "yuv420p"],
    )  # fmt: skip


def zoompan_film(picture: Path, out: Path, *, times: int, pan: bool = False, quality: Sequence[str] = QUALITY) -> None:
    """Zoompan rounds to whole pixels of its input: people enlarge the input `times` against that."""
    import imageio_ffmpeg

    wide = int(WIDTH * 1.25) if pan else WIDTH
    window = f"z=1.25:x='{PAN_PX * times}*on':y='(ih-ih/zoom)/2'"
    if not pan:
        window = f"z='1+0.4*on/{FRAMES - 1}':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
    shape = f"scale={wide * times}:-2:flags=bicubic,crop=iw:iw*9/16,"
    steps = f"{shape}zoompan={window}:d={FRAMES}:s={WIDTH}x{HEIGHT}:fps={FPS}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(picture), "-vf", steps]
    subprocess.run([*command, "-frames:v", str(FRAMES), *ENCODING, *quality, str(out)], check=True)


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
    grey = Image.open(picture).convert("L")
    k = grey.width / (WIDTH * 1.25)
    boxes = [(k * PAN_PX * n, 0.0, k * (WIDTH + PAN_PX * n), k * HEIGHT) for n in range(JUDGED)]
    return [np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)) for box in boxes]


CANDIDATES: dict[str, Callable[..., None]] = {
    "vrag h264": vrag_film,
    "vrag av1": partial(vrag_film, codec="av1"),
    "MoviePy": moviepy_film,
    "zoompan x1": partial(zoompan_film, times=1),
    "zoompan x4": partial(zoompan_film, times=4),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--picture", type=Path, help="a photograph of about 12 megapixels; default: a seeded texture")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture, out = Path(folder, "still.jpg"), Path(folder, "film.mp4")
        still = Image.open(given.picture).convert("RGB") if given.picture else texture()
        ImageOps.fit(still, (still.width, round(still.width * HEIGHT / WIDTH))).save(picture, quality=92)
        seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        size: dict[str, int] = {}
        for _ in range(given.rounds):
            for name, film in CANDIDATES.items():
                begin = time.perf_counter()
                film(picture, out)
                seconds[name].append(time.perf_counter() - begin)
                size[name] = out.stat().st_size // 1024
        drawn, delivered = {}, {}
        for name, film in CANDIDATES.items():
            film(picture, out, pan=True)
            delivered[name] = jitter_px(luma(out))
            lossless_vrag_film(picture, out) if "vrag" in name else film(picture, out, pan=True, quality=LOSSLESS)
            drawn[name] = jitter_px(luma(out))
        floor = jitter_px(exact_pan(picture))
    rates = {name: FRAMES / statistics.median(times) for name, times in seconds.items()}
    print(f"{'':12} {'fps':>7} {'x MoviePy':>10} {'KiB':>6} {'jitter px rms':>14} {'delivered':>10}")
    for name, rate in rates.items():
        ratio = rate / rates["MoviePy"]
        print(f"{name:12} {rate:7.1f} {ratio:10.2f} {size[name]:6} {drawn[name]:14.4f} {delivered[name]:10.4f}")
    print(f"{'floor':12} {'':25} {floor:14.4f}   exact Lanczos shifts, not encoded")
    print(f"Goals: vrag h264 at least 6 x MoviePy, jitter at most 0.002 px rms. Rounds: {given.rounds}.")


if __name__ == "__main__":
    main()
