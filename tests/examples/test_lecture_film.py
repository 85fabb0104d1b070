"""The lecture film: one picture a section, crossfades, captions that fit, and every picture in the record."""

import io
import itertools
import json
import re
from pathlib import Path

import pytest

from vrag import VRAGPipeline
from vrag.media.video import check_video
from vrag.provenance.verify import verify_file

OUTLINE = Path(__file__).parents[2] / "examples" / "lecture-film" / "outline.csv"
SIZE = ("--size", "192x108")


@pytest.fixture
def lecture(example):
    return example("lecture-film/lecture_film.py")


def seconds(clock):
    hours, minutes, rest = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def cues(text):
    return [(seconds(start), seconds(end), title) for start, end, title in re.findall(r"(\S+) --> (\S+)\n(.*)\n", text)]


def test_an_outline_becomes_a_film_with_captions_and_a_record_of_every_picture(lecture, manifest, tmp_path, capsys):
    out, studio = tmp_path / "film", tmp_path / "studio"
    lecture.main([str(OUTLINE), "--photos", str(manifest), "--out", str(out), "--workspace", str(studio), *SIZE])
    said = capsys.readouterr().out
    assert "verified: True" in said
    assert len([line for line in said.splitlines() if ".jpg: CC" in line]) == 5, "each picture with its licence"

    data = (out / "lecture.mp4").read_bytes()
    info = check_video(io.BytesIO(data), "lecture", duration_s=12.0)
    assert (info.width_px, info.height_px, info.frames) == (192, 108, 288)

    titles = cues((out / "lecture.vtt").read_text(encoding="utf-8"))
    assert [title for _, _, title in titles] == [one.title for one in lecture.read_outline(OUTLINE)]
    assert titles[0][0] == 0
    assert titles[-1][1] == pytest.approx(12.0)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(titles))
    assert titles[1][0] == pytest.approx(3 - 0.25), "a title changes in the middle of its crossfade"

    record = verify_file(out / "lecture.mp4")
    assert record.ok
    assert len(record.summary["sources"]) == 5
    assert json.loads((out / "lecture.mp4.vrag.json").read_bytes())

    # The same outline again makes nothing new.
    with VRAGPipeline.local(studio) as pipeline:
        steps = len(pipeline.workspace.journal.steps())
    lecture.main([str(OUTLINE), "--photos", str(manifest), "--out", str(out), "--workspace", str(studio), *SIZE])
    with VRAGPipeline.local(studio) as pipeline:
        assert len(pipeline.workspace.journal.steps()) == steps == 6


def test_a_bad_outline_is_told_with_its_line(lecture, tmp_path):
    outline = tmp_path / "outline.csv"
    outline.write_text("title,picture,action,seconds\nA,b,c,long\n")
    with pytest.raises(SystemExit, match=r"line 2: 'long' is no number"):
        lecture.read_outline(outline)
    outline.write_text("title,picture\nA,b\n")
    with pytest.raises(SystemExit, match="missing: action, seconds"):
        lecture.read_outline(outline)


def test_hostile_titles_stay_words_of_one_cue(lecture):
    section = lecture.Section(
        title="<c.red>A</c>\n\n00:00.000 --> 00:09.000\nB & C", picture="x", action="y", duration_s=2
    )
    text = lecture.captions([section, section], crossfade_s=0.5)
    assert text.count(" --> ") == 2
    assert "&lt;c.red&gt;A&lt;/c&gt; 00:00.000 --&gt; 00:09.000 B &amp; C" in text
