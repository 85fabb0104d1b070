"""`kill -9` at every change of state, times every fault of the provider: nothing is paid twice, nothing is lost."""

import itertools
import json
from collections import Counter

import pytest

from vrag.backends.local.storage import FolderStorage
from vrag.media.video import check_video
from vrag.values.jobs import StepState
from vrag.workspace import Workspace

FAULTS = (
    "none",
    "start throttled",
    "quota full",
    "500 before the charge",
    "500 after the charge",
    "answer lost",
    "no answer",
    "questions throttled",
    "token forgotten, answer lost",
    "list lags",
    "download cut",
    "one job blocked by moderation",
)
KILLS = tuple(
    itertools.product(
        ("submitting", "submitted", "done", "fetched", "finished", "recorded", "delivered"), ("in", "after")
    )
)
JOBS = 3


def live(provider, lives, folder, who, fault, kill, nth):
    """One case: a life that is killed, lives until all is told, and one more; what came of it."""
    at = {**provider(do="account"), "prefix": folder.name}
    provider(do="fault", fault=fault)
    asked = {"folder": str(folder), "who": who, "at": at, "fault": fault}
    code = lives(**asked, kill=[*kill, nth] if kill else None)["code"]
    killed = code == -9
    assert killed or code in {0, 1}, (fault, kill, code)
    for _life in range(6):
        if code == 0:
            break
        code = lives(**asked, kill=None)["code"]
        assert code in {0, 1}, (fault, kill, code)
    assert code == 0, (fault, kill)
    before = provider(do="told")
    assert lives(**asked, kill=None)["code"] == 0
    told = provider(do="told")
    return killed, told["charges"], told["starts"] - before["starts"]


def check_ours(folder, charges, starts_when_resumed_again, jobs=JOBS):
    workspace, storage = Workspace(folder), FolderStorage(folder / "media")
    steps = workspace.journal.steps()
    assert len(steps) == jobs
    undecided = [step for step in steps if step.state is StepState.UNDECIDED]
    done = [step for step in steps if step.state is StepState.DELIVERED]
    assert len(done) + len(undecided) + sum(step.state is StepState.FAILED for step in steps) == jobs
    assert all(count == 1 for count in Counter(charges).values()), charges
    assert len(charges) == jobs - len(undecided)
    assert workspace.budget.spent().count >= len(charges)
    entries = Counter(entry.record_id for entry in workspace.ledger.entries())
    assert entries == {step.id: 1 for step in done}
    for step in done:
        with storage.open(step.delivered) as stream:
            check_video(stream, "film", width_px=540, height_px=540, duration_s=5.0)
    acknowledged = [line.removeprefix("done ") for line in (folder / "acknowledged").read_text().splitlines()]
    assert set(acknowledged) <= {step.id for step in done}
    assert not list(folder.rglob("*.part"))
    assert not list((folder / "locks").glob("*.lock"))
    assert starts_when_resumed_again == 0
    workspace.close()
    return undecided


def run_ours(provider, lives, tmp_path, fault, kill, nth=1):
    folder = tmp_path / f"{FAULTS.index(fault)}-{KILLS.index(kill) if kill else 'x'}-{nth}"
    killed, charges, starts = live(provider, lives, folder, "ours", fault, kill, nth)
    return killed, check_ours(folder, charges, starts)


# A seeded sample: each fault once and each kill at least once, at different jobs.
SAMPLE = [(fault, KILLS[(5 * index + 3) % len(KILLS)], 1 + index % JOBS) for index, fault in enumerate(FAULTS)]
SAMPLE += [("none", kill, 2) for kill in KILLS if kill not in {kill for _, kill, _ in SAMPLE}]


@pytest.mark.parametrize(
    ("fault", "kill", "nth"), SAMPLE, ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value)
)
def test_a_killed_buyer_pays_once_and_loses_nothing(provider, lives, tmp_path, fault, kill, nth):
    _killed, undecided = run_ours(provider, lives, tmp_path, fault, kill, nth)
    assert undecided == []


def test_three_runners_on_one_workspace_give_the_totals_of_one(provider, lives, tmp_path):
    at = {**provider(do="account", render_s=0.3), "prefix": "three"}
    asked = {"folder": str(tmp_path / "three"), "who": "ours", "at": at, "fault": "none", "jobs": 12}
    assert lives(**asked, kill=None, count=3)["codes"] == [0, 0, 0]
    charges = provider(do="told")["charges"]
    assert check_ours(tmp_path / "three", charges, 0, jobs=12) == []
    acknowledged = (tmp_path / "three" / "acknowledged").read_text().split()[1::2]
    assert set(Counter(acknowledged).values()) == {3}  # each of them knows of every end


def test_three_runners_of_which_one_is_killed(provider, lives, tmp_path):
    at = {**provider(do="account", render_s=0.3), "prefix": "killed"}
    asked = {"folder": str(tmp_path / "killed"), "who": "ours", "at": at, "fault": "none", "jobs": 12}
    codes = lives(**asked, kill=["submitted", "after", 5], count=3)["codes"]
    assert -9 in codes or codes == [0, 0, 0]
    assert lives(**asked, kill=None)["code"] == 0
    assert check_ours(tmp_path / "killed", provider(do="told")["charges"], 0, jobs=12) == []


@pytest.mark.slow
def test_the_whole_matrix_beside_a_naive_loop(provider, lives, tmp_path):
    table = []
    for fault in FAULTS:
        row = {"fault": fault, "kills": 0, "undecided": 0, "naive_kills": 0, "extra": 0, "lost": 0, "broken": 0}
        for nth, kill in zip(itertools.cycle((2, 3, 1)), KILLS, strict=False):
            killed, undecided = run_ours(provider, lives, tmp_path, fault, kill, nth)
            row["kills"] += killed
            row["undecided"] += len(undecided)
        for nth, kill in zip(itertools.cycle((2, 3, 1)), KILLS, strict=False):
            folder = tmp_path / f"naive-{FAULTS.index(fault)}-{KILLS.index(kill)}-{nth}"
            killed, charges, _ = live(provider, lives, folder, "naive", fault, kill, nth)
            row["naive_kills"] += killed
            row["extra"] += len(charges) - JOBS
            row["broken"] += sum(not whole(path) for path in folder.glob("*.mp4"))
            noted = Counter((folder / "ledger.jsonl").read_text().splitlines())
            row["lost"] += sum(noted[json.dumps({"video": path.name})] != 1 for path in folder.glob("*.mp4"))
        table.append(row)
        print(json.dumps(row), flush=True)
    assert sum(row["undecided"] for row in table) == 0
    assert sum(row["extra"] for row in table) > 0  # else the matrix would show nothing


def whole(path):
    from vrag.errors import MediaRejectedError

    try:
        with path.open("rb") as stream:
            check_video(stream, path.name, width_px=540, height_px=540, duration_s=5.0)
    except MediaRejectedError:
        return False
    return True
