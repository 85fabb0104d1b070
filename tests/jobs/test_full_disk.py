"""A disk that is full at any write: nothing that was acknowledged is lost, and nothing is bought again."""

import os
import subprocess
from collections import Counter

import pytest

from vrag.backends.local.storage import FolderStorage
from vrag.media.video import check_video
from vrag.values.jobs import StepState
from vrag.workspace import Workspace

SIZE = 4 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, leave):
    """Take all but `leave` bytes."""
    left = os.statvfs(folder)
    (folder / "filler").write_bytes(b"0" * max(0, left.f_bavail * left.f_frsize - leave))


def ends_well(provider, lives, folder, leave, at):
    asked = {"folder": str(folder / "w"), "who": "ours", "at": at, "fault": "none"}
    assert lives(**asked, kill=["submitting", "in", 1])["code"] == -9
    fill(folder, leave)
    first = lives(**asked, kill=None)["code"]
    assert first in {0, 1}
    told_by_then = (folder / "w" / "acknowledged").read_text().split()[1::2]
    (folder / "filler").unlink()
    assert lives(**asked, kill=None)["code"] == 0
    workspace, storage = Workspace(folder / "w"), FolderStorage(folder / "w" / "media")
    done = workspace.journal.steps({StepState.DELIVERED})
    assert len(done) == 3
    assert set(told_by_then) <= {step.id for step in done}
    for step in done:
        with storage.open(step.delivered) as stream:
            check_video(stream, "film", width_px=540, height_px=540, duration_s=5.0)
    assert Counter(entry.record_id for entry in workspace.ledger.entries()) == {step.id: 1 for step in done}
    workspace.close()
    assert set(Counter(provider(do="told")["charges"]).values()) == {1}
    assert not list(folder.rglob("*.part"))
    return first


# From hardly anything (no journal of SQLite fits) to room for some of the films.
@pytest.mark.parametrize("leave", [0, 16 << 10, 28 << 10])
def test_a_full_disk_loses_nothing(provider, lives, small_disk, leave):
    at = {**provider(do="account"), "prefix": f"full-{leave}"}
    first = ends_well(provider, lives, small_disk, leave, at)
    assert first == 1 or leave > 0


@pytest.mark.slow
@pytest.mark.parametrize("leave", range(0, 64 << 10, 2 << 10))
def test_a_disk_that_is_full_at_any_write_loses_nothing(provider, lives, small_disk, leave):
    at = {**provider(do="account"), "prefix": f"any-{leave}"}
    ends_well(provider, lives, small_disk, leave, at)
