"""Good photographs among hundreds of broken, huge, animated, mislabelled and malicious files."""

import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vrag

PHOTOS = Path(vrag.__file__).parent / "demo" / "photos"
WORDS = [
    "apple",
    "bridge",
    "candle",
    "dolphin",
    "elephant",
    "feather",
    "guitar",
    "hammer",
    "igloo",
    "jacket",
    "kettle",
    "lantern",
    "mirror",
    "notebook",
    "orange",
    "pencil",
    "quilt",
    "rabbit",
    "saddle",
    "teapot",
    "umbrella",
    "violin",
    "window",
    "xylophone",
    "yacht",
    "zebra",
    "anchor",
    "basket",
    "cactus",
    "drum",
    "eagle",
    "flute",
    "garden",
    "hat",
    "island",
]

CHILD = """
import json, sys
from pathlib import Path
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.testing import FakeClock
folder = Path(sys.argv[1])
kb = KnowledgeBase("brand", store=LocalVectorStore(folder / "index", None), storage=FolderStorage(folder / "media"),
                   clock=FakeClock())
told = []
report = kb.ingest(sys.argv[2], approve_by="ann", progress=lambda done, total, name: told.append(name))
# Not `ru_maxrss`: it begins with the size of the process that forked this one.
status = Path("/proc/self/status")
peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0
found = {word: [hit.asset.file_name for hit in kb.search(word).hits] for word in json.loads(sys.argv[3])}
print(json.dumps({"report": report.to_json(), "told": told, "peak_kib": peak, "found": found}))
"""


def jpeg(seed, size=(640, 480), **options):
    places = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(places).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=85, **options)
    return out.getvalue()


def chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def bomb(side_px):
    """A PNG that says it is large, and is: all zeros, which pack to next to nothing."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(3 * side_px + 1)) for _ in range(side_px)) + packer.flush()
    head = side_px.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animated(kind):
    frames = [Image.new("RGB", (100, 100), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A folder, the names of the good pictures by the word that finds them, and the names of the bad ones."""
    folder = tmp_path_factory.mktemp("mixture")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.jpg").write_bytes(jpeg(9999))
    good, bad = {}, {}
    for path in PHOTOS.glob("*.jpg"):
        (folder / path.name).write_bytes(path.read_bytes())
        good[" ".join(path.stem.split("-")[:2])] = path.name
    for seed, word in enumerate(WORDS):
        (folder / f"{word}.jpg").write_bytes(jpeg(seed))
        good[word] = f"{word}.jpg"
    assert len(good) == 50

    generator = np.random.default_rng(7)
    whole = (PHOTOS / "fig-in-red-bowl.jpg").read_bytes()
    out = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(out, "PNG")
    png = out.getvalue()
    for number, share in enumerate(np.linspace(0.001, 0.95, 120)):
        bad[f"cut-{number}.jpg"] = whole[: int(len(whole) * share)]
    for number in range(40):
        bad[f"cut-{number}.png"] = png[: int(len(png) * (number + 1) / 42)]
    for number in range(60):  # a changed byte in the packed pixels of a PNG breaks its checksum
        flipped = bytearray(png)
        flipped[int(generator.integers(60, len(png) - 30))] ^= 1 << int(generator.integers(8))
        bad[f"flipped-{number}.png"] = bytes(flipped)
    for number, start in enumerate(
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"<html><script>",
            b"\x7fELF\2\1\1",
            b"MZ\x90",
            b"#!/bin/sh\n",
            b"%PDF-1.7\n",
            b"\x1f\x8b\x08",
            b"{}",
            b"\0" * 64,
        )
    ):
        for suffix in (".jpg", ".png", ".webp", ".heic"):
            bad[f"mislabelled-{number}{suffix}"] = start + bytes(300)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../../evil.sh", "echo")
    bad |= {
        "bomb.png": bomb(12_000),
        "header-bomb.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\x7f\xff\xff\xff" * 2 + b"\x08\x02\0\0\0"),
        "header-bomb.webp": b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(30),
        "huge.jpg": b"\xff\xd8\xff\xe0" + bytes(70 << 20),
        "moving.gif": animated("GIF"),
        "moving.jpg": animated("GIF"),
        "moving.png": animated("PNG"),
        "moving.webp": animated("WEBP"),
        "archive.jpg": zipped.getvalue(),
        "empty.jpg": b"",
        "tiny.jpg": jpeg(1, (20, 20)),
        "thin.jpg": jpeg(2, (4000, 8)),
        "many-rows.jpg": jpeg(3, (64, 64)).replace(
            b"\xff\xc0\x00\x11\x08\x00\x40\x00\x40", b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff"
        ),
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "not-there")
    (folder / "ring.jpg").symlink_to(folder / "ring.jpg")
    (folder / "broken-sidecar.jpg").write_bytes(jpeg(500))
    (folder / "broken-sidecar.json").write_text("{" * 100)
    bad |= dict.fromkeys(("pipe.jpg", "nowhere.jpg", "ring.jpg", "broken-sidecar.jpg"), b"")
    skipped = {"link-out.jpg", "folder-out", "run.sh"}
    (folder / "link-out.jpg").symlink_to(outside / "secret.jpg")
    (folder / "folder-out").symlink_to(outside, target_is_directory=True)
    (folder / "run.sh").write_text("rm -rf /")
    # Odd, but good: they are taken, and counted apart from the 50.
    odd = {
        "odd-polyglot.jpg": jpeg(600) + zipped.getvalue(),
        "odd-huge-exif.jpg": jpeg(601, exif=b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 60_000),
        "odd-entities.jpg": _with_xmp(jpeg(602)),
        "odd-wrong-suffix.png": jpeg(603),
        "..odd..jpg"[1:]: jpeg(604),
    }
    for name, data in odd.items():
        (folder / name).write_bytes(data)
    return folder, good, set(bad), skipped, set(odd) - {".odd..jpg"}


def _with_xmp(data):
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    packet = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><x:xmpmeta xmlns:x="adobe:ns:meta/">&l11;</x:xmpmeta>'.encode()
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def test_all_good_ones_are_searchable_and_every_bad_one_is_named_once(mixture, tmp_path):
    folder, good, bad, skipped, odd = mixture
    assert len(bad) > 270
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(folder), json.dumps(list(good))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    answer = json.loads(done.stdout)
    report = answer["report"]
    rejected = [entry["name"] for entry in report["rejected"]]
    assert len(rejected) == len(set(rejected))
    assert set(rejected) == bad
    assert report["new"] == len(good) + len(odd)
    assert {entry["name"] for entry in report["skipped"]} == skipped
    assert sorted(answer["told"]) == sorted([*rejected, *good.values(), *odd])
    for word, name in good.items():
        assert name in answer["found"][word], word
    assert str(folder) not in json.dumps(report)
    # 100 million pixels of RGB would be 300 MB: the largest picture that is decoded here has 2 million.
    assert answer["peak_kib"] < 320 << 10, answer["peak_kib"]
