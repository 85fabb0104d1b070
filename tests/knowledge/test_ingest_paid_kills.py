"""`kill -9` while captions and embeddings are bought: nothing acknowledged is lost or paid again; the index ends the same."""

import hashlib
import io
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vrag.backends.local.vector_store import LocalVectorStore
from vrag.testing import FAKE_SPACE

# The child kills itself a random time after a random charge, from a thread of its own: in the midst of any step.
# Every charge is on the disk before its answer is given.
CHILD = """
import itertools, os, signal, sys, threading
from pathlib import Path
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.testing import FakeCaptioner, FakeClock, FakeEmbedder

folder, moment, delay_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
made = itertools.count(1)
charges = os.open(folder / "charges", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Forgetful(list):
    def append(self, call): pass

def charge(text):
    os.write(charges, text.encode() + b"\\n")
    if next(made) == moment:
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

class Captioner(FakeCaptioner):
    def caption(self, image, media):
        charge("caption " + image.sha256)
        answer = super().caption(image, media)
        from attrs import evolve
        return evolve(answer, text=f"{answer.text} Number {image.sha256[:8]}.")

class Embedder(FakeEmbedder):
    modalities = frozenset({"text"})
    def embed(self, items, purpose, media=None):
        for item in items:
            charge("embed " + item.text.split()[-1][:8])
        return super().embed(items, purpose, media)

captioner, embedder = Captioner(usd_micros=1000), Embedder(usd_micros=10)
captioner.faults._calls = embedder.faults._calls = Forgetful()
kb = KnowledgeBase("brand", store=LocalVectorStore(folder / "index", embedder.space),
                   storage=FolderStorage(folder / "media"), embedder=embedder, clock=FakeClock())

def told(done, total, name):
    os.write(acknowledged, name.encode() + b"\\n")

report = kb.ingest(sys.argv[4], captioner=captioner, approve_cost=lambda estimate: True, progress=told)
os.write(1, b"%d %d\\n" % (report.taken, report.new))
os._exit(0)
"""


def make_photos(folder, count):
    folder.mkdir()
    for seed in range(count):
        out = io.BytesIO()
        places = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(places).resize((64, 64)).save(out, "JPEG", quality=60)
        (folder / f"IMG_{seed:05d}.jpg").write_bytes(out.getvalue())
    return folder


def run_child(folder, photos, moment=0, delay_s=0.0):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(moment), str(delay_s), str(photos)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode


def index_of(folder):
    store = LocalVectorStore(folder / "index", FAKE_SPACE)
    rows = {row.key: (row.text, dict(row.fields), row.payload, row.vector.tobytes()) for row in store.scan()}
    store.close()
    return rows


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


def kill_often(tmp_path, photos, count, kills):
    folder = tmp_path / "disturbed"
    generator = np.random.default_rng(count)
    killed, paid_before, repeated = 0, Counter(), 0
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.iterdir()}
    for attempt in range(kills + 1):
        moment = 0 if attempt == kills else int(generator.integers(1, 2 * count // kills))
        code = run_child(folder, photos, moment, float(generator.uniform(0, 0.2)))
        killed += code == -9
        charges = Counter(lines(folder / "charges"))
        told = set(lines(folder / "acknowledged"))
        rows = index_of(folder)
        missing = [name for name in told if f"brand/{digests[name]}" not in rows]
        assert not missing, (attempt, len(missing))
        # Of what was acknowledged before this run nothing was paid in it.
        for name in paid_before:
            for call in (f"caption {digests[name]}", f"embed {digests[name][:8]}"):
                assert charges[call] == paid_before[name][call], (attempt, name)
        paid_before = {
            name: {call: charges[call] for call in (f"caption {digests[name]}", f"embed {digests[name][:8]}")}
            for name in told
        }
        repeated = sum(charges.values()) - len(charges)
    return folder, killed, repeated, charges


def check_kills(tmp_path, count, kills):
    photos = make_photos(tmp_path / "photos", count)
    assert run_child(tmp_path / "calm", photos) == 0
    undisturbed = index_of(tmp_path / "calm")
    assert len(undisturbed) == count
    assert len(lines(tmp_path / "calm" / "charges")) == 2 * count
    folder, killed, repeated, charges = kill_often(tmp_path, photos, count, kills)
    assert index_of(folder) == undisturbed
    assert len(charges) == 2 * count
    print(f"{count} pictures, {killed} kills: {repeated} of {2 * count} calls paid twice")
    return killed, repeated


def test_a_few_kills_of_a_small_ingest(tmp_path):
    killed, repeated = check_kills(tmp_path, 300, 3)
    assert killed >= 1
    # An answer is kept as soon as it is there: only calls under way are paid again, and these are 32 at most.
    assert repeated <= 32 * killed


@pytest.mark.slow
def test_twenty_kills_of_an_ingest_of_5000(tmp_path):
    killed, repeated = check_kills(tmp_path, 5000, 20)
    assert killed == 20
    assert repeated <= 32 * killed
