"""`vrag plan`, `submit` and `batch`: nothing is bought unseen, nothing is lost, what failed can be run again."""

import json

import pytest

from vrag.cli import main
from vrag.cli.demo import demo_photos

SMALL = ("--kb", "brand", "--size", "160x90", "--duration", "0.5", "--fps", "8")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        capsys.readouterr()
        code = main(arguments)
        found = capsys.readouterr()
        return code, found.out, found.err

    folder = tmp_path / "photos"
    folder.mkdir()
    with demo_photos() as demo:
        for name in ("two-spaniel-dogs.jpg", "fig-in-red-bowl.jpg", "snowy-mountain-lake.jpg"):
            (folder / name).write_bytes((demo / name).read_bytes())
    assert invoke("ingest", "photos", "--kb", "brand", "--approve", "--by", "ann")[0] == 0
    return invoke


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# two films\na film of <object_prompt>, <action_prompt>\n<object_prompt>\n<colour> thing\n")
    return file


def test_a_plan_is_written_looked_at_and_submitted(run, prompts, tmp_path):
    code, out, err = run(
        *("plan", "prompts.txt", "--object", "lake", "--action", "camera pans left", *SMALL),
        *("-o", "plan.json", "--html", "plan.html"),
    )
    assert code == 4
    assert "line 4: The slot <colour> has no value" in out
    assert "next: vrag submit plan.json" in err
    assert "<img" in (tmp_path / "plan.html").read_text()
    assert run("jobs", "--json")[1].count('"id"') == 0, "planning buys nothing"

    code, out, _ = run("submit", "plan.json", "-o", "films", "--json")
    assert code == 0
    done = json.loads(out)["done"]
    assert sorted(path.name for path in (tmp_path / "films").glob("*.mp4")) == ["0001-lake.mp4", "0002-lake.mp4"]
    assert [one["row"] for one in done] == [0, 1]
    assert run("verify", "films/0001-lake.mp4")[0] == 0


def test_a_plan_that_was_changed_is_refused(run, prompts, tmp_path):
    run("plan", "--object", "lake", *SMALL, "-o", "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["plan"]["videos"][0]["request"]["shots"][0]["prompt"] = "something else"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    code, out, _ = run("submit", "plan.json", "--json")
    assert code == 2
    assert json.loads(out)["error"] == "plan_changed"
    (tmp_path / "plan.json").write_text("[]")
    assert run("submit", "plan.json")[0] == 2


def test_a_batch_goes_on_names_what_failed_and_writes_it_down(run, prompts, tmp_path):
    again = ("batch", "prompts.txt", "--object", "lake", "--object", "red shoes", *SMALL, "-o", "films")
    code, out, err = run(*again, "--action", "camera zooms in")
    assert code == 4
    assert "No suitable picture for 'red shoes'" in out
    assert "next: vrag batch films/failed.jsonl -o films" in err
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "films").glob("*.mp4")}
    assert len(made) == 2

    code, out, _ = run(*again, "--action", "camera zooms in", "--json")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "films").glob("*.mp4")} == made, "found, not remade"
    assert [one["error"] for one in json.loads(out)["failed"]] == ["no_suitable_image"] * 2

    code, out, _ = run("batch", "films/failed.jsonl", "--kb", "brand", "-o", "films", "--json")
    assert code == 1
    assert len(json.loads(out)["failed"]) == 2
    failed = (tmp_path / "films" / "failed.jsonl").read_text().splitlines()
    (tmp_path / "films" / "failed.jsonl").write_text("\n".join(failed).replace("red shoes", "dogs"))
    assert run("batch", "films/failed.jsonl", "--kb", "brand", "-o", "films")[0] == 0
    assert not (tmp_path / "films" / "failed.jsonl").exists()


def test_a_brief_file_brings_edits_and_flags_beat_it(run, tmp_path):
    (tmp_path / "brief.json").write_text(json.dumps({"object_prompt": "lake", "duration_s": 0.5, "seed": 3}))
    code, out, _ = run("generate", "--brief", "brief.json", *SMALL, "--seed", "4", "-o", "lake.mp4", "--json")
    assert code == 0, out
    assert json.loads(out)["media"]["width_px"] == 160
    (tmp_path / "brief.json").write_text(json.dumps({"object_promt": "lake"}))
    code, out, _ = run("generate", "--brief", "brief.json", *SMALL)
    assert code == 2
