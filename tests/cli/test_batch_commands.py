"""`vrag plan`, `submit` and `batch`: nothing is bought unseen, nothing is lost, what failed can be run again."""

import json
import re

import av
import pytest

from vrag import Brief
from vrag.cli import main
from vrag.cli.demo import demo_photos
from vrag.media.mask_spec import MaskSpec
from vrag.testing import FakeClock
from vrag.testing.bedrock import FakeBedrock
from vrag.values.briefs import Edit
from vrag.values.canonical import to_json

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


# -- variants


@pytest.fixture
def canvas(tmp_path, monkeypatch):
    """An editor that gives several variants in one call, over HTTP."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with FakeBedrock(clock=FakeClock()) as fake:  # of a day when the model was still offered
        part = f'{{ use = "aws:nova-canvas", allow_retired = true, region = "us-east-1", endpoint_url = "{fake.url}" }}'
        (tmp_path / "vrag.toml").write_text(f"[workspace]\ninpainter = {part}\n")
        replace = Edit(
            operation="replace",
            mask=MaskSpec.ellipse(0.4, 0.4, 0.6, 0.6, unit="fraction"),
            prompt="a boat",
            count=3,
        )
        (tmp_path / "brief.json").write_text(json.dumps(to_json(Brief(edits=(replace,)))))
        yield fake


def test_variants_are_bought_shown_and_chosen(canvas, run, tmp_path):
    asked = ("--object", "lake", *SMALL, "--brief", "brief.json")
    code, out, err = run("plan", *asked, "-o", "plan.json")
    assert (code, "next: vrag prepare plan.json" in err) == (0, True)
    (edit,) = re.findall(r"^  ([0-9a-f]{12}): replace in '[^']+', [0-9a-z .]+ USD$", out, re.MULTILINE)
    code, out, err = run("prepare", "plan.json", "--yes", "--html", "plan.html")
    assert code == 0
    assert re.search(rf"^  {edit}: replace, 3 variants$", out, re.MULTILINE)
    assert re.findall(r"^ +([123]) +[0-9]+\.[0-9]{2} +[0-9]+\.[0-9]{2}$", out, re.MULTILINE) == ["1", "2", "3"]
    assert "next: vrag prepare plan.json --choose 1" in err
    assert f"--choose {edit}=3" in (tmp_path / "plan.html").read_text()
    code, _, err = run("generate", *asked, "--yes")
    assert (code != 0, "--choose 1" in err) == (True, True)
    code, _, err = run("prepare", "plan.json", "--choose", f"{edit}=2")
    assert (code, "next: vrag submit plan.json" in err) == (0, True)
    assert run("submit", "plan.json", "-o", "films")[0] == 0
    code, out, _ = run("generate", *asked, "--choose", "sharpest", "-o", "lake.mp4", "--yes", "--json")
    assert code == 0
    assert run("verify", "lake.mp4")[0] == 0
    kinds = [job["kind"] for job in json.loads(run("jobs", "--json")[1])["jobs"]]
    assert sorted(kinds) == ["edit", "generate"], "equal variants make one film, and nothing was bought twice"


def test_the_configuration_names_the_rule_that_chooses(canvas, run, tmp_path):
    with (tmp_path / "vrag.toml").open("a") as file:
        file.write('[policy]\nchoose = "least changed"\n')
    asked = ("--object", "lake", *SMALL, "--brief", "brief.json", "-o", "lake.mp4", "--yes")
    assert run("generate", *asked)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--choose", "0"), "no variant: a number from 1, or sharpest, least-changed"),
        (("--choose", "prettiest"), "no variant"),
        (("--choose", "1", "--choose", "ab=2"), "is for all edits"),
        (("--choose", "2"), "0 edits wait for a choice"),
        (("--choose", "ab=2"), "No edits that wait for a choice begin with 'ab'"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(run, words, message):
    assert run("plan", "--object", "lake", *SMALL, "-o", "plan.json")[0] == 0
    code, _, err = run("prepare", "plan.json", *words)
    assert code != 0
    assert message in err


def test_choose_is_for_edits_of_several_variants(run, tmp_path):
    (tmp_path / "brief.json").write_text('{"edits": [{"operation": "remove_background"}]}')
    code, _, err = run("plan", "--object", "lake", *SMALL, "--brief", "brief.json", "--choose", "2")
    assert (code != 0, "0 edits of the brief have variants" in err) == (True, True)


# -- formats


FORMATS = ("--formats", "16:9,9:16,1:1")


def test_formats_are_siblings_with_names_that_never_collide(run, tmp_path):
    code, out, err = run("generate", "--object", "lake", *SMALL, *FORMATS, "-o", "lake.mp4")
    assert (code, out.count("picture: ")) == (0, 1)
    assert "next: vrag verify lake-16x9.mp4" in err
    sizes = {}
    for name in ("16x9", "9x16", "1x1"):
        with av.open(str(tmp_path / f"lake-{name}.mp4")) as film:
            frame = next(film.decode(video=0))
            sizes[name] = (frame.width, frame.height)
        assert run("verify", f"lake-{name}.mp4")[0] == 0
    assert sizes == {"16x9": (160, 90), "9x16": (90, 160), "1x1": (90, 90)}
    code, _, err = run("generate", "--object", "lake", *SMALL, *FORMATS, "-o", "lake.mp4")
    assert (code != 0, "lake-16x9.mp4' exists" in err) == (True, True)
    assert run("generate", "--object", "lake", *SMALL, *FORMATS, "-o", "lake.mp4", "--overwrite")[0] == 0
    # Without a name, and in a folder, what is there stays.
    for folder in (".", "films"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for _ in range(2):
            assert run("generate", "--object", "lake", *SMALL, *FORMATS, "-o", folder)[0] == 0
        assert len(list((tmp_path / folder).glob("lake-*x*-2.mp4"))) == 3
    found = json.loads(run("jobs", "--json")[1])
    assert len(found["jobs"]) == 3, "the same three films were found again"


def test_formats_of_an_edited_picture_share_the_edit(run, tmp_path):
    brief = to_json(Brief(edits=(Edit(operation="erase", mask=MaskSpec.ellipse(0.4, 0.4, 0.6, 0.6, unit="fraction")),)))
    (tmp_path / "brief.json").write_text(json.dumps(brief))
    code, out, _ = run(
        "generate", "--object", "lake", *SMALL, "--brief", "brief.json", *FORMATS, "-o", "a.mp4", "--json"
    )
    assert code == 0
    done = json.loads(out)["done"]
    assert [one["format"] for one in done] == ["16x9", "9x16", "1x1"]
    assert len({one["sources"][0]["asset_id"] for one in done}) == 1
    kinds = [job["kind"] for job in json.loads(run("jobs", "--json")[1])["jobs"]]
    assert sorted(kinds) == ["edit", "generate", "generate", "generate"]


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("16:9,32:18", "twice"),
        ("16:90,16x90", "twice"),
        ("16/9", "no format"),
        (",", "No format"),
        ("0:1", "no format"),
        ("9x9", "no format"),
    ],
)
def test_formats_that_cannot_be_are_refused_before_anything_is_made(run, formats, message):
    code, _, err = run("generate", "--object", "lake", *SMALL, "--formats", formats)
    assert (code != 0, message in err) == (True, True)
    assert run("jobs", "--json")[1].count('"id"') == 0
