from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.errors import PromptError
from vrag.prompts import batch as batch_module
from vrag.prompts.batch import read_batch

SLOTS = {"object_prompt": "red shoes", "action_prompt": "camera pans down"}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_prompts_txt(mark, end):
    lines = [
        "# shoes",
        "",
        "a photo of <object_prompt>, <action_prompt>",
        "  plain ü  ",
        "<object_prompt>",
        "<action_prompt>",
    ]
    read = read_batch(mark + end.join(lines).encode(), "prompts.txt", slots=SLOTS)
    assert [(row.line, row.prompt) for row in read.rows] == [
        (3, "a photo of red shoes, camera pans down"),
        (4, "plain ü"),
        (5, "red shoes"),
        (6, "camera pans down"),
    ]
    assert read.problems == ()
    assert all(row.slots == SLOTS for row in read.rows)  # the object is the query, also where the prompt leaves it out


def test_problems_have_lines_and_good_rows_stay():
    read = read_batch(b"ok\n<colour>\nok\n\n<object_prompt> two\na\x00b\n", "prompts.txt", slots=SLOTS)
    assert [row.line for row in read.rows] == [1, 5]
    assert [(problem.line, problem.message.split(".")[0]) for problem in read.problems] == [
        (2, "The slot <colour> has no value"),
        (3, "The same as line 1"),
        (6, "The template holds the invisible character U+0000 at position 2: 'a\\x00b'"),
    ]


def test_csv_has_typed_columns_and_formulas_are_text():
    data = (
        b"object_prompt,action_prompt,colour,template,seed,duration_s,take,aspect_ratio,negative_prompt\r\n"
        b'=1+1,"pan\r\nleft",red,"a <colour> <object_prompt>, <action_prompt>",7,6.5,2,16:9,no box\r\n'
        b"@SUM(A1),,,,,,,,\r\n"
    )
    read = read_batch(data, "b.csv", slots={"action_prompt": "dolly in"})
    first, second = read.rows
    assert (first.line, second.line) == (2, 4)
    assert first.prompt == "a red =1+1, pan\r\nleft"
    assert first.columns == {
        "seed": 7,
        "duration_s": 6.5,
        "take": 2,
        "aspect_ratio": "16:9",
        "negative_prompt": "no box",
    }
    assert second.prompt == "@SUM(A1), dolly in"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_of_other_spreadsheets(delimiter):
    data = "object_prompt,action_prompt\nshoes,\nhat,pan left\n".replace(",", delimiter).encode()
    read = read_batch(data, "b.csv")
    assert [row.prompt for row in read.rows] == ["hat, pan left"]
    assert [problem.message for problem in read.problems] == ["The value of <action_prompt> is empty."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,y,-1,,,", "The column seed is '-1'"),
        ("x,y,,0,,", "The column take is '0'"),
        ("x,y,,,16x9,", "write it like 16:9"),
        ("x,y,,,,inf", "The column duration_s is 'inf'"),
        ("x,y,,,,6,7", "7 cells, but the header has 6"),
        (",y,,,,", "The value of <object_prompt> is empty"),
        ("a\u202e,y,,,,", "U+202E"),
    ],
)
def test_a_bad_cell_is_a_problem_of_its_line(row, message):
    text = f"object_prompt,action_prompt,seed,take,aspect_ratio,duration_s\nok,ok,,,,\n{row}\n"
    read = read_batch(text.encode(), "b.csv")
    assert len(read.rows) == 1
    (problem,) = read.problems
    assert problem.line == 3
    assert message in problem.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nope", "Not JSON"),
        ("[1]", "An object is needed"),
        ('{"object_prompt": "a", "object_prompt": "b"}', "there twice"),
        ('{"object_prompt": {"a": 1}}', "must be text or a number"),
        ('{"object_prompt": true}', "must be text or a number"),
        ('{"object_prompt": "a", "seed": NaN}', "NaN is not JSON"),
        ('{"object_prompt": "a", "sed": 1}', "Did you mean 'seed'?"),
        ('{"object_prompt": "a", "seed": 7.5}', "a whole number"),
        ('{"object_prompt": ""}', "is empty"),
        ('{"object_prompt": "\\ud800"}', "U+D800"),
        ('{"seed": 1}', "no template"),
        ("[" * 50_000, "Nested too deeply"),
        ('{"seed": ' + "9" * 5000 + "}", "a number too long"),
        ('"' + "x" * 70_000 + '"', "at most"),
    ],
)
def test_a_bad_json_line_is_a_problem(line, message):
    good = json.dumps({"object_prompt": "hat", "seed": 3, "template": "<object_prompt> <n>", "n": 5, "mood": None})
    read = read_batch(f"{line}\n{good}\n".encode(), "b.jsonl")
    assert [(row.prompt, row.columns) for row in read.rows] == [("hat 5", {"seed": 3})]
    (problem,) = read.problems
    assert problem.line == 1
    assert message in problem.message


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("Schön".encode("utf-16"), "prompts.txt", "UTF-16LE"),
        ("Schön".encode("utf-16-be"), "prompts.txt", "UTF-16BE"),
        ("\ufeffShoes".encode("utf-32-le"), "prompts.txt", "UTF-32LE"),
        ("ok\r\nSchön".encode("latin-1"), "prompts.txt", "line 2, column 4: the byte 0xF6"),
        (b"x", "b.xlsx", "take .txt, .csv"),
        (b"Object Prompt\nx", "b.csv", "Did you mean 'object_prompt'"),
        (b"a,a\n1,2", "b.csv", "there twice"),
        (b'object_prompt\n"x\n', "b.csv", "line 2: not CSV"),
        (b"<object_prompt>\n<colr>", "prompts.txt", "has the slot <colour>"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(data, name, message):
    with pytest.raises(PromptError) as caught:
        read_batch(data, name, slots={**SLOTS, "colour": "red"})
    assert message in caught.value.message


def test_another_encoding_comes_with_the_command():
    with pytest.raises(PromptError) as caught:
        read_batch(b"Sch\xf6n", "dir/my prompts.txt", slots=SLOTS)
    assert caught.value.hint == "iconv -f WINDOWS-1252 -t UTF-8 'my prompts.txt' > utf8-'my prompts.txt'"


def test_caps(monkeypatch):
    monkeypatch.setattr(batch_module, "MAX_ROWS", 3)
    with pytest.raises(PromptError, match="more than 3 rows"):
        read_batch(b"a\nb\nc\nd\n", "prompts.txt")
    with pytest.raises(PromptError, match="Split it"):
        read_batch(b"a" * (batch_module.MAX_FILE_BYTES + 1), "prompts.txt")


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.sampled_from(['"', ",", "\n", "\r", "a", "<a>", "object_prompt", "{", "}", ":", "seed", "1", "\0", ";"])
        ).map(lambda parts: "".join(parts).encode()),
    ),
    suffix=st.sampled_from([".txt", ".csv", ".tsv", ".jsonl", "", ".doc"]),
)
def test_any_bytes_give_rows_problems_or_a_prompt_error(data, suffix):
    try:
        read = read_batch(data, f"file{suffix}", slots=SLOTS)
    except PromptError:
        return
    assert all(row.prompt for row in read.rows)
    lines = [row.line for row in read.rows] + [problem.line for problem in read.problems]
    assert len(lines) == len(set(lines))
