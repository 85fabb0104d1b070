"""Batch files become briefs: columns, audiences, matrices, and failures that can be run again."""

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from vrag import Brief
from vrag.batches import matrix, read_briefs, size_of_shape
from vrag.errors import PromptError
from vrag.values.vectors import AllOf, Between, Is

BASE = Brief(knowledge_base="brand", width_px=1280, height_px=720)
ACTIONS = ("camera pans left", "camera zooms in")


def test_each_line_is_made_with_each_object_and_action_in_the_order_of_the_file():
    batch = read_briefs(
        b"a film of <object_prompt>, <action_prompt>\n<object_prompt>\n",
        "prompts.txt",
        base=BASE,
        objects=("a lake", "a dog"),
        actions=ACTIONS,
    )
    assert [row.line for row in batch.rows] == [1] * 4 + [2] * 4
    assert {(brief.object_prompt, brief.action_prompt) for brief in batch.briefs} == {
        (thing, action) for thing in ("a lake", "a dog") for action in ACTIONS
    }
    assert all(brief.knowledge_base == "brand" for brief in batch.briefs)


def test_columns_say_shape_filter_fit_length_and_look():
    data = (
        "object_prompt,aspect_ratio,filter,fit,duration_s,style,seed\n"
        "red shoes,9:16,tag=shoe; width_px>=1280,subject,4,watercolour,7\n"
    )
    (brief,) = read_briefs(data.encode(), "rows.csv", base=BASE).briefs
    assert (brief.width_px, brief.height_px) == (720, 1280)
    assert brief.filter == AllOf((Is(field="tags", value="shoe"), Between(field="width_px", low=1280)))
    assert (brief.fit, brief.duration_s, brief.look.style, brief.seed) == ("subject", 4.0, "watercolour", 7)


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("filter", "colour=red", "No field 'colour'"),
        ("fit", "stretch", "The fit is one of"),
        ("aspect_ratio", "99:1", "steeper than 1:10"),
        ("knowledge_base", "../other", "knowledge base"),
    ],
)
def test_a_bad_cell_is_a_problem_of_its_line_and_the_others_stay(column, cell, told):
    data = f"object_prompt,{column}\na lake,{cell}\na dog,\n"
    batch = read_briefs(data.encode(), "rows.csv", base=BASE)
    assert [brief.object_prompt for brief in batch.briefs] == ["a dog"]
    (problem,) = batch.problems
    assert problem.line == 2
    assert told in problem.message


def test_rows_of_one_audience_never_draw_on_the_knowledge_base_of_another():
    data = (
        "object_prompt,audience,knowledge_base\n"
        "a lake,press,brand\n"
        "a dog,staff,brand\n"
        "a cat,,brand\n"
        "a cow,staff,inside\n"
    )
    batch = read_briefs(data.encode(), "rows.csv")
    assert [(row.line, row.audience) for row in batch.rows] == [(2, "press"), (5, "staff")]
    assert [problem.line for problem in batch.problems] == [3, 4]
    assert "belongs to the audience 'press'" in batch.problems[0].message


def test_an_audience_that_was_given_decides_the_knowledge_base():
    given_to = {"press": "brand", "staff": "inside"}
    data = "object_prompt,audience,knowledge_base\na lake,staff,\na dog,press,inside\na cat,nobody,\n"
    batch = read_briefs(data.encode(), "rows.csv", audiences=given_to)
    assert [(row.line, row.brief.knowledge_base) for row in batch.rows] == [(2, "inside")]
    assert "draws on the knowledge base 'brand'" in batch.problems[0].message
    assert "not known" in batch.problems[1].message


def test_what_failed_can_be_run_again_alone():
    data = (
        '{"template": "a <colour> <object_prompt>", "object_prompt": "shoe", "colour": "red", "filter": "tag=shoe",'
        ' "aspect_ratio": "1:1", "style": "pastel", "take": 2, "audience": "press", "knowledge_base": "brand"}\n'
    )
    (row,) = read_briefs(data.encode(), "rows.jsonl", base=BASE).rows
    again = read_briefs(json.dumps(row.to_row()).encode(), "failed.jsonl", base=BASE)
    assert again.problems == ()
    assert again.rows == (evolve(row, line=1),)


def test_a_matrix_is_every_combination_once():
    batch = matrix(BASE, objects=("a", "b"), actions=ACTIONS, templates=("<object_prompt>",), seeds=(1, 2, 3))
    assert len(batch.rows) == len({(b.object_prompt, b.action_prompt, b.seed) for b in batch.briefs}) == 12


@given(st.integers(1, 9999), st.integers(1, 9999), st.integers(8, 1080).map(lambda half: 2 * half))
def test_sizes_are_even_and_keep_the_shape(width, height, short):
    try:
        size = size_of_shape(f"{width}:{height}", short)
    except PromptError:
        assert not 0.1 <= width / height <= 10
        return
    assert min(size) == short
    assert not any(side % 2 for side in size)
    assert abs(max(size) - short * max(width / height, height / width)) <= 1
