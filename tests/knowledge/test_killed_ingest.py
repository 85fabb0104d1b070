"""`kill -9` at any moment of an ingest: nothing acknowledged is lost, the store opens, the next run ends the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from vrag.media.ref import sha256_hex

# The child counts the calls into C (writes, syncs, SQL …) and kills itself at the n-th: a moment in the midst of any step.
CHILD = """
import os, signal, sys
from pathlib import Path
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.text_embedder import WordLlamaEmbedder
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge import drafting
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.testing import FakeClock

drafting.CHUNK_PICTURES = 4
folder, moment = Path(sys.argv[1]), int(sys.argv[2])
embedder = WordLlamaEmbedder()
calls = 0

def counting(frame, event, argument):
    global calls
    if event == "c_call":
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)

def told(done, total, name):
    os.write(1, name.encode() + b"\\n")

sys.setprofile(counting)
kb = KnowledgeBase("brand", store=LocalVectorStore(folder / "brand" / "index", embedder.space),
                   storage=FolderStorage(folder / "brand" / "storage"), embedder=embedder, clock=FakeClock())
kb.ingest(sys.argv[3], approve_by="ann", progress=told)
sys.setprofile(None)
os.write(1, b"calls %d\\n" % calls)
"""


def run_child(folder, photos, moment=0):
    command = [sys.executable, "-c", CHILD, str(folder), str(moment), str(photos)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode, done.stdout.split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, wordllama):
    import io

    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for number, word in enumerate(
        ("dog", "cat", "horse", "bird", "fish", "shoe", "hat", "boat", "car", "tree", "lake", "bridge")
    ):
        out = io.BytesIO()
        Image.linear_gradient("L").point(lambda v, n=number: (v * (n + 2)) % 256).save(out, "JPEG")
        (folder / f"{word}-{number}.jpg").write_bytes(out.getvalue())
    return folder


def index_of(kb):
    return [(row.key, row.text, dict(row.fields), row.payload, row.vector) for row in kb._store.scan()]


def same(one, other):
    return len(one) == len(other) and all(
        a[:4] == b[:4] and np.array_equal(a[4], b[4]) for a, b in zip(one, other, strict=True)
    )


def _moments(count):
    return [pytest.param(share, marks=[] if share < 4 else pytest.mark.slow) for share in range(count)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, lines = run_child(folder, photos)
    assert code == 0
    assert len(lines) == 14
    return folder, int(lines[-1])


@pytest.mark.parametrize("seed", _moments(24))
def test_nothing_acknowledged_is_lost_and_the_next_run_completes_it(seed, tmp_path, photos, undisturbed, local_kb):
    calm_folder, calls = undisturbed
    # Early seeds are spread over the run, the others drawn.
    moment = (
        [calls // 3, calls // 2, calls * 2 // 3, calls * 9 // 10][seed]
        if seed < 4
        else int(np.random.default_rng(seed).integers(1, calls))
    )
    code, told = run_child(tmp_path, photos, moment)
    assert code == -9

    kb = local_kb(tmp_path)  # the store opens
    present = {asset.file_name for asset in kb.assets()}
    assert set(told) <= present
    for name in told:
        data = (Path(photos) / name).read_bytes()
        asset = kb.asset(sha256_hex(data))
        kb.gate(asset.id)
        with kb.open(asset.original) as stream:
            assert stream.read() == data
    report = kb.ingest(photos, approve_by="ann")
    assert report.taken == 12
    assert report.unchanged >= len(told)
    assert same(index_of(kb), index_of(local_kb(calm_folder)))
    assert [len(kb.history(asset.id)) for asset in kb.assets()] == [1] * 12


def test_a_row_that_differs_would_be_seen(photos, local_kb, tmp_path):
    kb = local_kb(tmp_path)
    kb.ingest(photos)
    rows = index_of(kb)
    first = next(iter(kb._store.scan()))
    kb._store.upsert([evolve(first, text="other")])
    assert not same(rows, index_of(kb))
