"""Joining films: vrag against the ffmpeg binary, MoviePy and plain decoding and encoding.

    pip install 'vrag[bench]' && python benchmarks/assemble.py [--rounds 3] [--key-frame-s 1]

Two tasks at 1280 x 720, 24 frames a second, H.264: eight films of six seconds cut hard, and two films of six seconds
with a crossfade of half a second. Everybody reads the same files and writes an MP4 file; candidates take turns and
medians are compared. The encoder is x264 veryfast for all. `plain` decodes and encodes every frame by PyAV, the limit
of any way that does not copy. Each result is decoded: the right number of frames, at even times.

How much of a crossfade can be copied depends on the distance of key frames in the films, which is an option here.

Goals: hard cuts in at most 1/90 of MoviePy's time and no more than the binary's; a crossfade in at most 1/14 of
MoviePy's and 1/5 of the binary's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vrag.media.assemble import assemble

WIDTH, HEIGHT, FPS, SECONDS, FADE_S = 1280, 720, 24, 6, 0.5
FRAMES = FPS * SECONDS
X264 = {"preset": "veryfast", "crf": "20"}
FFMPEG = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-threads", "2"]


def source(path: Path, seed: int, key_frame_s: float) -> None:
    """A pan over a seeded texture."""
    rng = np.random.default_rng(seed)
    scene = np.zeros((HEIGHT + FRAMES, WIDTH + 2 * FRAMES, 3), np.float32)
    for cell in (8, 32, 128):
        coarse = rng.integers(0, 256, (scene.shape[0] // cell + 2, scene.shape[1] // cell + 2, 3), np.uint8)
        size = (scene.shape[1], scene.shape[0])
        scene += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float32) / 3
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    with av.open(str(path), "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=FPS, options=X264)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track.codec_context.gop_size = round(FPS * key_frame_s)
        for at in range(FRAMES):
            pixels = np.ascontiguousarray(picture[at : at + HEIGHT, 2 * at : 2 * at + WIDTH])
            container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(track.encode(None))


def vrag_joined(films: Sequence[Path], out: Path, *, fade_s: float) -> None:
    with out.open("w+b") as file:
        assemble([partial(path.open, "rb") for path in films], file, crossfade_s=fade_s)


def plain(films: Sequence[Path], out: Path, *, fade_s: float) -> None:
    fade, held, number = round(fade_s * FPS), [], 0
    with av.open(str(out), "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=FPS, options=X264)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"

        def put(pixels: np.ndarray) -> None:
            nonlocal number
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            number += 1
            container.mux(track.encode(frame))

        for path in films:
            before, held = held, []
            with av.open(str(path)) as film:
                for at, frame in enumerate(film.decode(video=0)):
                    pixels = frame.to_ndarray()
                    if at < len(before):
                        share = (at + 1) / (fade + 1)
                        pixels = (before[at] * (1 - share) + pixels * share + 0.5).astype(np.uint8)
                    held.append(pixels)
                    if len(held) > fade:
                        put(held.pop(0))
        for pixels in held:
            put(pixels)
        container.mux(track.encode(None))


def ffmpeg_joined(films: Sequence[Path], out: Path, *, fade_s: float) -> None:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    if fade_s:
        shift = f"xfade=transition=fade:duration={fade_s}:offset={SECONDS - fade_s}"
        inputs = [part for path in films for part in ("-i", str(path))]
        subprocess.run([*command, *inputs, "-filter_complex", f"[0][1]{shift}", *FFMPEG, str(out)], check=True)
    else:
        listing = out.with_suffix(".txt")
        listing.write_text("".join(f"file '{path}'\n" for path in films))
        subprocess.run([*command, "-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(out)], check=True)


def moviepy_joined(films: Sequence[Path], out: Path, *, fade_s: float) -> None:
    from moviepy import CompositeVideoClip, VideoFileClip, concatenate_videoclips
    from moviepy.video.fx import CrossFadeIn

    clips = [VideoFileClip(str(path), audio=False) for path in films]
    if fade_s:
        second = clips[1].with_start(SECONDS - fade_s).with_effects([CrossFadeIn(fade_s)])
        film = CompositeVideoClip([clips[0], second])
    else:
        film = concatenate_videoclips(clips)
    film.write_videofile(
        str(out), fps=FPS, codec="libx264", preset="veryfast", threads=2, audio=False, logger=None,
        ffmpeg_params=["-crf", "20", "-pix_fmt", "yuv420p"],
    )  # fmt: skip
    for clip in clips:
        clip.close()


def check(path: Path, wanted: int) -> str:
    with av.open(str(path)) as film:
        times = [frame.pts * frame.time_base for frame in film.decode(video=0)]
    even = {after - before for before, after in pairwise(times)} == {Fraction(1, FPS)}
    return f"{len(times)} of {wanted} frames, {'even' if even else 'UNEVEN'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--key-frame-s", type=float, default=1.0, help="distance of key frames in the films")
    options = parser.parse_args()
    candidates: dict[str, Callable[..., None]] = {"vrag": vrag_joined, "plain": plain}
    for package, name, way in (
        ("imageio_ffmpeg", "ffmpeg binary", ffmpeg_joined),
        ("moviepy", "MoviePy", moviepy_joined),
    ):
        if find_spec(package):
            candidates[name] = way
        else:
            print(f"{name} is left out: {package} is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        films = [Path(folder, f"{number}.mp4") for number in range(8)]
        for number, path in enumerate(films):
            source(path, number, options.key_frame_s)
        for task, given, fade_s in (("8 hard cuts", films, 0.0), ("crossfade of 2", films[:2], FADE_S)):
            wanted = len(given) * FRAMES - round(fade_s * FPS) * (len(given) - 1)
            seconds: dict[str, list[float]] = {name: [] for name in candidates}
            found = {}
            for _ in range(options.rounds):
                for name, way in candidates.items():
                    out = Path(folder, "out.mp4")
                    begin = time.perf_counter()
                    way(given, out, fade_s=fade_s)
                    seconds[name].append(time.perf_counter() - begin)
                    found[name] = f"{check(out, wanted)}, {out.stat().st_size >> 10} KiB"
            ours = statistics.median(seconds["vrag"])
            print(f"\n{task}, a key frame every {options.key_frame_s:g} s")
            for name, times in seconds.items():
                middle = statistics.median(times)
                print(f"  {name:14} {middle:8.3f} s  {middle / ours:7.1f} x vrag   {found[name]}")


if __name__ == "__main__":
    main()
