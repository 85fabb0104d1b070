"""Ingest at scale: overlapping steps beside the serial way, memory from 1 000 to 100 000 pictures, look-alike search.

```bash
python benchmarks/ingest.py          # about 3 minutes
python benchmarks/ingest.py --full   # memory with 100 000 pictures too: about ten minutes
```

Service times are simulated by fakes that sleep on real threads: caption 1 s, embedding 150 ms, put 30 ms. The bound is
that of list scheduling: 32 in flight, and no picture's three calls overlap each other.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.duplicates import Looks
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeCaptioner, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.testing.faults import Faults

CAPTION_S, EMBED_S, PUT_S, IN_FLIGHT = 1.0, 0.15, 0.03, 32


class ForgetfulEmbedder(FakeEmbedder):
    """The fake remembers every call, which is no memory of the ingest."""

    def embed(self, items, purpose, media=None):
        rows = super().embed(items, purpose, media)
        self.faults = Faults("embed")
        return rows


class InFlight:
    """Counts how many calls are under way."""

    def __init__(self):
        self.now, self.most, self._lock = 0, 0, Lock()

    def wait(self, duration_s):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(duration_s)  # noqa: TID251  # a service that takes its time
        with self._lock:
            self.now -= 1


class SlowCaptioner(FakeCaptioner):
    def __init__(self, calls, scale):
        super().__init__(usd_micros=1000)
        self.in_flight, self.scale = calls, scale

    def caption(self, image, media):
        self.in_flight.wait(CAPTION_S * self.scale)
        return super().caption(image, media)


class SlowEmbedder(FakeEmbedder):
    modalities = frozenset({"text"})

    def __init__(self, calls, scale):
        super().__init__(usd_micros=20)
        self.in_flight, self.scale = calls, scale

    def embed(self, items, purpose, media=None):
        for _ in items:
            self.in_flight.wait(EMBED_S * self.scale)
        return super().embed(items, purpose, media)


class SlowStorage(FakeStorage):
    def __init__(self, calls, scale):
        super().__init__()
        self.in_flight, self.scale = calls, scale

    def put(self, stream, media_type):
        self.in_flight.wait(PUT_S * self.scale)
        return super().put(stream, media_type)


def small_jpeg(seed: int) -> bytes:
    """A picture of 64 x 64 px in 8 x 8 coloured places: unlike any other."""
    places = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(places).resize((64, 64), Image.Resampling.BICUBIC).save(out, "JPEG", quality=70)
    return out.getvalue()


class Generated:
    """`count` pictures that are made when they are opened, each with eight of 20 000 words, common and rare ones."""

    def __init__(self, count: int, *, captioned: bool = False):
        self.count, self.captioned = count, captioned

    def __len__(self):
        return self.count

    def __iter__(self):
        for seed in range(self.count):
            places = np.random.default_rng(seed).zipf(1.2, 8) % 20_000 if self.captioned else ()
            yield SourcePicture(
                name=f"IMG_{seed}.jpg",
                open=lambda seed=seed: io.BytesIO(small_jpeg(seed)),
                caption=" ".join(f"word{place}" for place in places) or None,
            )


def ingest_s(count: int, in_flight: int, scale: float) -> tuple[float, int]:
    calls = InFlight()
    embedder = SlowEmbedder(calls, scale)
    kb = KnowledgeBase(
        "bench", store=FakeVectorStore(embedder.space), storage=SlowStorage(calls, scale), embedder=embedder
    )
    started = time.monotonic()
    report = kb.ingest(
        Generated(count), captioner=SlowCaptioner(calls, scale), in_flight=in_flight, approve_cost=lambda _: True
    )
    assert (report.new, report.captioned) == (count, count), report
    return time.monotonic() - started, calls.most


def overlap(runs: int) -> None:
    each = CAPTION_S + EMBED_S + PUT_S
    bound = math.ceil(1000 / IN_FLIGHT) * each
    times = []
    for _ in range(runs):
        taken, most = ingest_s(1000, IN_FLIGHT, 1.0)
        times.append(taken)
        assert most <= IN_FLIGHT, most
    median = float(np.median(times))
    print(f"1 000 pictures, {IN_FLIGHT} in flight: {median:.1f} s, bound {bound:.1f} s, ratio {median / bound:.3f}")
    serial, _ = ingest_s(40, 1, 0.1)
    print(
        f"the serial way: {serial / 40 / 0.1:.2f} s a picture, so {serial / 40 / 0.1 * 1000:.0f} s: {serial * 250 / median:.0f} times as long"
    )


def peak_kib(count: int) -> int:
    done = subprocess.run([sys.executable, __file__, "--one", str(count)], capture_output=True, text=True, check=True)
    print(f"  {done.stdout.strip()}", flush=True)
    return int(done.stdout.split()[0])


def anonymous_kib() -> int:
    """Memory that is no page of a file; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


def one(count: int) -> None:
    """In a process of its own: ingest `count` and print the peak of its memory."""
    anonymous = 0

    def look(done, *_):
        nonlocal anonymous
        if done % 50 == 0:
            anonymous = max(anonymous, anonymous_kib())

    with tempfile.TemporaryDirectory() as folder:
        embedder = ForgetfulEmbedder()
        store = LocalVectorStore(Path(folder) / "index", embedder.space)
        kb = KnowledgeBase("bench", store=store, storage=FolderStorage(Path(folder) / "media"), embedder=embedder)
        started = time.monotonic()
        assert kb.ingest(Generated(count, captioned=True), progress=look).new == count
        taken = time.monotonic() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kb.close()
    print(f"{peak} KiB ({anonymous} anonymous) at {count} pictures, {count / taken:.0f} pictures/s")


def look_alikes() -> None:
    looks, generator = Looks(), np.random.default_rng(1)
    for number, bits in enumerate(generator.integers(0, 2**63, 100_000)):
        looks.add(f"{int(bits):016x}", f"{number:064x}")
    times = []
    for bits in generator.integers(0, 2**63, 200):
        started = time.perf_counter()
        looks.nearest(f"{int(bits):016x}", "f" * 64)
        times.append(time.perf_counter() - started)
    print(f"look-alikes among 100 000: {1e3 * float(np.median(times)):.2f} ms a picture, exact")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="memory with 100 000 pictures")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one)
    else:
        look_alikes()
        print("peak memory:")
        few = peak_kib(1000)
        many = peak_kib(100_000 if asked.full else 10_000)
        print(f"  ratio {many / few:.3f}")
        overlap(asked.runs)
