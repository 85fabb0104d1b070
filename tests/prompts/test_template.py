from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.errors import PromptError
from vrag.prompts.template import MAX_PROMPT_CHARS, MAX_TEMPLATE_CHARS, PromptTemplate, shown

PLAIN = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"]), min_size=1, max_size=40).filter(
    str.strip
)
EVIL = st.sampled_from(
    ["{0.__class__}", "{x:>1000000000}", "%s%n", "${HOME}", "{{ 7*7 }}", r"\1\g<0>", "<action_prompt>"]
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


def test_slots_are_named_in_order_and_other_angles_are_text():
    template = PromptTemplate.parse("<b> < c <3 <a> <b> <Not> <<kept>> >")
    assert template.slots == ("b", "a")
    assert template.render(a="1", b="2") == "2 < c <3 1 2 <Not> <kept> >"


@given(pieces=st.lists(st.tuples(PLAIN.filter(lambda t: "<" not in t), NAMES), max_size=6), data=st.data())
def test_rendering_is_verbatim_concatenation(pieces, data):
    text = "".join(f"{before}<{name}>" for before, name in pieces) + " end"
    template = PromptTemplate.parse(text)
    values = {name: data.draw(st.one_of(PLAIN, EVIL)) for name in template.slots}
    # a text piece can end in ">" but never opens a slot, so the expected text is plain concatenation
    filled = template.fill(values)
    assert filled.text == "".join(before + values[name] for before, name in pieces) + " end"
    assert [filled.text[slot.start : slot.end] for slot in filled.slots] == [values[slot.name] for slot in filled.slots]


@given(text=st.text(max_size=60))
def test_a_template_that_fills_its_slots_with_themselves_comes_back(text):
    try:
        template = PromptTemplate.parse(text)
        again = template.render({name: f"<{name}>" for name in template.slots})
    except PromptError:
        return
    assert again == re.sub(r"<<([a-z][a-z0-9_]*)>>", r"<\1>", text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"object_prompt": "x"}, r"The slot <action_prompt> has no value. Slots with a value: <object_prompt>"),
        (
            {"object_prompt": "x", "acton_prompt": "y"},
            r"no slot <acton_prompt>; it has .* Did you mean 'action_prompt'",
        ),
        ({"object_prompt": " \t", "action_prompt": "y"}, r"The value of <object_prompt> is empty"),
        ({"object_prompt": 7, "action_prompt": "y"}, r"is int; text is needed"),
        ({"object_prompt": "a\u202eb", "action_prompt": "y"}, r"U\+202E at position 2: 'a\\u202eb'"),
        ({"object_prompt": "a\x1b[2J", "action_prompt": "y"}, r"U\+001B"),
        ({"object_prompt": "a\U000e0041", "action_prompt": "y"}, r"U\+E0041"),
        ({"object_prompt": "\ud800", "action_prompt": "y"}, r"U\+D800"),
        ({"object_prompt": "x" * MAX_PROMPT_CHARS, "action_prompt": "y"}, r"more than|at most"),
    ],
)
def test_what_cannot_be_rendered_is_said(values, message):
    with pytest.raises(PromptError, match=message):
        PromptTemplate.parse("<object_prompt>, <action_prompt>").render(values)


def test_scripts_that_need_joiners_and_marks_are_taken():
    words = "नमस्\u200dते \u200f\u05e9\u05dc 👩\u200d🚀\nline\ttab"
    assert PromptTemplate.parse("<o>").render(o=words) == words


def test_templates_have_a_line_a_length_and_words_of_their_own():
    with pytest.raises(PromptError, match="empty") as caught:
        PromptTemplate.parse(" ", line=4)
    assert caught.value.line == 4
    with pytest.raises(PromptError, match=f"at most {MAX_TEMPLATE_CHARS}"):
        PromptTemplate.parse("x" * (MAX_TEMPLATE_CHARS + 1))
    with pytest.raises(PromptError, match="given twice"):
        PromptTemplate.parse("<a>").render({"a": "1"}, a="2")
    assert PromptTemplate.parse("a photo of <o>, <a>, at <<night>>.").text_outside_slots == "a photo of, at <night>."


def test_many_slots_do_not_multiply_memory():
    with pytest.raises(PromptError, match="more than"):
        PromptTemplate.parse("<a>" * 2000).render(a="x" * 15_000)


def test_shown_hides_nothing():
    assert shown("a\u200b\x00" + "b" * 99, max_chars=10) == r"'a\u200b\x00bbbbbb…'"
