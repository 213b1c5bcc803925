import json

import pytest
from rendering import label_answers, slot, text_answers

from safemix.mitigation.mimic.answers import answer_text
from safemix.mitigation.mimic.options import short_refusal
from safemix.styles.layout import Layout, Range
from safemix.styles.style import AnswerLayout, JsonKey

REFUSAL = 'I won\'t help with "that".'


def answers(kind, parts, body=0, **more):
    return AnswerLayout(kind, Layout(tuple(parts)), body, Range(1, 5, 9), **more)


def test_free_text_and_labels_are_the_refusal_itself():
    assert answer_text(text_answers(), REFUSAL) == REFUSAL
    assert answer_text(label_answers(), REFUSAL) == REFUSAL


def test_json_keeps_keys_order_and_fence():
    keys = (
        JsonKey("id", "number"),
        JsonKey("answer", "string"),
        JsonKey("why", "string"),
        JsonKey("tags", "list"),
    )
    layout = ["```json\n", slot(), "\n```"]
    made = answer_text(answers("json", layout, keys=keys, body_key="answer", indent=2), REFUSAL)
    assert made.startswith("```json\n{\n  ") and made.endswith("\n```")
    value = json.loads(made[8:-4])
    assert list(value.items()) == [("id", None), ("answer", REFUSAL), ("why", ""), ("tags", [])]


def test_json_label_that_is_a_number_stays_one():
    keys = (JsonKey("choice", "number"),)
    made = answer_text(answers("json", [slot()], keys=keys, body_key="choice"), "2", label=True)
    assert made == '{"choice": 2}'


def test_tags_stay_and_escape():
    layout = ["<answer>", slot(escape="xml"), "</answer>"]
    made = answer_text(answers("xml", layout), "No <b> for you.")
    assert made == "<answer>No &lt;b&gt; for you.</answer>"


@pytest.mark.parametrize(
    ("language", "expected"),
    [("python", "# No."), ("js", "// No."), ("sql", "-- No."), ("html", "<!-- No. -->")],
)
def test_code_fence_has_the_refusal_as_a_comment(language, expected):
    layout = [f"Sure! Here is the code:\n```{language}\n", slot("code"), "\n```"]
    made = answer_text(answers("code", layout, affirming=True, opener="Sure!"), "No.")
    assert made == f"```{language}\n{expected}\n```"


def test_many_lines_in_code_stay_verbatim():
    layout = ["```python\n", slot("code"), "\n```"]
    assert "No.\nNever." in answer_text(answers("code", layout), "No.\nNever.")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("Answer: ", "Answer: No."),
        ("### Response:\n", "### Response:\nNo."),
        ("The answer is ", "No."),
        ("The correct answer is clearly this one: ", "No."),
        ("Sure, here is: ", "No."),
    ],
)
def test_only_neutral_labels_come_along(before, expected):
    kind = answers("opener", [before, slot()], opener=before.strip())
    assert answer_text(kind, "No.") == expected


def test_words_after_another_slot_of_the_line_are_no_label():
    option = slot("label", values=("Method A", "Method B"))
    kind = answers("opener", ["Of course.\n\n", option, " works: ", slot(multiline=True)], body=1)
    assert answer_text(kind, "No.") == "No."
    kind = answers("text", [option, " works.\nAnswer: ", slot(multiline=True)], body=1)
    assert answer_text(kind, "No.") == "Answer: No."


def test_number_lines_are_left_out():
    layout = [slot(multiline=True), "\n#### ", slot("number")]
    assert answer_text(answers("number_line", layout), REFUSAL) == REFUSAL


def test_label_answers_keep_the_words_around_the_label():
    layout = ["The answer is (", slot("label", values=("A", "B")), ")."]
    kind = answers("label", layout, labels=("A", "B"))
    assert answer_text(kind, "B", label=True) == "The answer is (B)."


def test_long_refusals_are_shortened_to_their_first_sentence():
    long = "I cannot help with that. " + "It would hurt people. " * 10
    assert short_refusal(long) == "I cannot help with that."
    assert short_refusal("I cannot\nhelp.") == "I cannot help."
