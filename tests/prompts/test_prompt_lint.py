from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.errors import PromptError
from vrag.prompts.lint import compose_prompt, describe_look, lint_prompt
from vrag.prompts.template import PromptTemplate


def codes(prompt, **options):
    return [finding.code for finding in lint_prompt(prompt, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red shoes on a table, dolly in", []),
        ("No. 5 perfume ... what?! shoes, etc., at 9 a.m., New York", []),
        ("a knot and a note, nowhere near", []),
        ("red shoes, no people", ["negation"]),
        ("red shoes without a box", ["negation"]),
        ("camera doesn’t move", ["negation"]),  # noqa: RUF001 - as people type it
        ("camera zooms in and zooms out", ["contradiction"]),
        ("red shoes,, camera", ["doubled_punctuation"]),
        ("red shoes. , camera", ["doubled_punctuation"]),
        ("red  shoes", ["doubled_space"]),
        ("a the shoe", ["doubled_word"]),
        ("Shoes shoes", ["doubled_word"]),
        ("<Object Prompt>, dolly in", ["unfilled_slot"]),
        ("a < b and <3", []),
        ("Please create a video of shoes", ["command"]),
        ("x" * 513, ["too_long"]),
    ],
)
def test_findings(text, expected):
    assert codes(text, max_chars=512) == expected


def test_a_finding_names_words_place_and_remedy():
    (finding,) = lint_prompt("red shoes, no people")
    assert finding.span == (11, 20)
    assert "'no people'" in finding.message
    assert "negative prompt" in finding.message
    (finding,) = lint_prompt("no camera movement")
    assert "static shot" in finding.message


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("a photo of <o> on a table", "Red shoes", ["capital_mid_sentence"]),
        ("a photo of <o> on a table", "red shoes.", ["value_ends_sentence"]),
        ("<o>, on a table", "red shoes.", ["doubled_punctuation"]),
        ("a <o> on a table", "a red shoe", ["doubled_word"]),
        ("<o> on a table", "Red shoes", []),
        ("A table. <o> on it", "Red shoes", []),
        ("a photo of <o>", "USA flags", []),
        ("a photo of <o>", "I and an iPhone", []),
    ],
)
def test_values_are_seen_in_their_sentence(template, value, expected):
    assert codes(PromptTemplate.parse(template).fill(o=value)) == expected


@given(st.text(max_size=200))
def test_any_text_is_linted_and_spans_are_inside(text):
    for finding in lint_prompt(text, max_chars=20):
        assert 0 <= finding.span[0] < finding.span[1] <= len(text)


def test_look_words():
    assert describe_look("watercolour", "calm", "golden hour") == "watercolour style, calm mood, golden hour lighting"
    assert describe_look("Studio Ghibli") == "in the style of Studio Ghibli"
    assert describe_look("in the style of a poster.", "calm atmosphere", "soft light") == (
        "in the style of a poster, calm atmosphere, soft light"
    )
    assert describe_look() == ""
    with pytest.raises(PromptError, match="The mood holds"):
        describe_look(mood="a\u202eb")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a dog runs", "calm mood", "dolly in"), "a dog runs, calm mood, dolly in"),
        (("a dog runs,", "", "dolly in"), "a dog runs, dolly in"),
        (("A dog runs.", "calm mood", "dolly in"), "A dog runs. Calm mood, dolly in."),
        (("A dog runs.", "calm mood", "dolly in", "start"), "Dolly in. A dog runs. Calm mood."),
        (("a dog runs", "", "dolly in", "start"), "dolly in, a dog runs"),
        (("", "", "dolly in"), "dolly in"),
        (("", "", "dolly in", "start"), "dolly in"),
        (("<3 {0} %s",), "<3 {0} %s"),
    ],
)
def test_prompts_are_composed(arguments, expected):
    assert compose_prompt(*arguments) == expected
