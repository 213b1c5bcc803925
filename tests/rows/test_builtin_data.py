"""The built-in safety pairs and look-alikes: counts, variety, and what each answer does."""

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations

import pytest

from safemix.errors import DataError
from safemix.rows.builtin import DEFAULT_TASK_ROWS, read_builtin

# A refusal says in the first person, in plain words, that it will not do what is asked.
REFUSAL = re.compile(
    r"\b(won't|will not|will never|can't|cannot|refus(e|ing)|declin(e|ing)|turn(ing)? .{0,16}down"
    r"|not (able|willing|going) to|i'm not|unable to|unwilling|i don't|i never|never going to"
    r"|rather not|no part|out of the question|off the table|must (decline|refuse|leave))\b",
    re.IGNORECASE,
)
# A look-alike's answer may say what one cannot do; it never says that the speaker will not help.
ASSISTANT_REFUSES = re.compile(
    r"\bI('m| am)? (sorry|won't|will not|can't|cannot|refuse|decline|unable|not able|must decline)"
    r"|\b(not|n't) (help|assist) (you )?with\b",
    re.IGNORECASE,
)
AFFIRMING = re.compile(
    r"^(sure|of course|certainly|absolutely(?! not)|yes|yeah|okay|ok|happy to|gladly|great"
    r"|no problem|here('s| is| are) (the|a|how|some|my)|step 1)\b",
    re.IGNORECASE,
)
FILES = ("safety", "lookalikes")


def rows_of(name):
    return list(read_builtin(name))


def tokens(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def opening(text, words=4):
    return " ".join(tokens(text)[:words])


@pytest.mark.parametrize(
    ("name", "least", "categories"), [("safety", 320, 14), ("lookalikes", 380, 12)]
)
def test_counts_and_even_categories(name, least, categories):
    rows = rows_of(name)
    per_category = Counter(row["category"] for row in rows)
    assert len(rows) >= least
    assert len(per_category) >= categories
    assert max(per_category.values()) <= 1.5 * min(per_category.values())
    # Categories take turns, so a short head of the file spans them all.
    assert len({row["category"] for row in rows[: len(per_category)]}) == len(per_category)


@pytest.mark.parametrize("name", FILES)
def test_rows_are_whole_text(name):
    for row in rows_of(name):
        assert set(row) == {"prompt", "completion", "category"}
        for text in row.values():
            assert isinstance(text, str)
            assert text == text.strip()
            assert len(text) > 2
            assert "  " not in text
            assert "<|" not in text
        assert row["completion"][-1] in ".?!"


@pytest.mark.parametrize("name", FILES)
def test_one_json_object_a_line(name):
    lines = files("safemix.rows.builtin").joinpath(f"{name}.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows_of(name)


@pytest.mark.parametrize("key", ["prompt", "completion"])
def test_all_texts_differ_across_both_files(key):
    texts = [" ".join(tokens(row[key])) for name in FILES for row in rows_of(name)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("key", "limit"), [("prompt", 0.6), ("completion", 0.5)])
def test_no_near_duplicates(name, key, limit):
    bags = [(frozenset(tokens(row[key])), row[key]) for row in rows_of(name)]
    close = [
        (first, second)
        for (a, first), (b, second) in combinations(bags, 2)
        if len(a & b) > limit * len(a | b)
    ]
    assert close == []


def test_near_duplicate_measure_sees_a_changed_word():
    a, b = (set(tokens(f"How do I steal a {what} from the shop next door?")) for what in "xy")
    assert len(a & b) > 0.6 * len(a | b)


def test_every_refusal_refuses():
    weak = [row["completion"] for row in rows_of("safety") if not REFUSAL.search(row["completion"])]
    assert weak == []


def test_refusals_are_short_and_say_more_than_no():
    for row in rows_of("safety"):
        words = len(tokens(row["completion"]))
        sentences = len(re.findall(r"[.!?](?:\s|$)", row["completion"]))
        assert 12 <= words <= 90, row["completion"]
        assert 1 <= sentences <= 4, row["completion"]


@pytest.mark.parametrize("text", ["Sure, here is", "Certainly! First", "Here's how to", "Yes, you"])
def test_affirming_openers_are_seen(text):
    assert AFFIRMING.match(text)


def test_no_refusal_opens_by_affirming():
    assert [r["completion"] for r in rows_of("safety") if AFFIRMING.match(r["completion"])] == []


def test_refusals_begin_differently():
    rows = rows_of("safety")
    openings = Counter(opening(row["completion"]) for row in rows)
    assert max(openings.values()) <= 4
    assert len(openings) >= 0.95 * len(rows)
    first_words = Counter(opening(row["completion"], 1) for row in rows)
    assert max(first_words.values()) <= 0.12 * len(rows)


def test_requests_vary_in_form():
    rows = rows_of("safety")
    prompts = [row["prompt"] for row in rows]
    questions = sum(prompt.endswith("?") for prompt in prompts)
    lengths = sorted(len(tokens(prompt)) for prompt in prompts)
    assert 0.25 * len(rows) <= questions <= 0.75 * len(rows)
    assert lengths[len(rows) // 10] <= 10
    assert lengths[-len(rows) // 20] >= 18
    assert len({opening(prompt) for prompt in prompts}) >= 0.85 * len(rows)


def test_requests_hold_no_operational_detail():
    detail = re.compile(r"https?://|\d+ ?(mg|ml|kg|grams?|degrees)\b|\b(step \d|firstly)\b", re.I)
    assert [row["prompt"] for row in rows_of("safety") if detail.search(row["prompt"])] == []


def test_self_harm_answers_name_help():
    help_named = re.compile(
        r"crisis|helpline|hotline|doctor|nurse|counsel|therapist|emergency|988|support"
        r"|prevention line|person you trust",
        re.IGNORECASE,
    )
    rows = [row for row in rows_of("safety") if row["category"] == "self_harm"]
    assert len(rows) >= 15
    assert [row["completion"] for row in rows if not help_named.search(row["completion"])] == []


def test_lookalikes_are_answered():
    for row in rows_of("lookalikes"):
        assert not ASSISTANT_REFUSES.search(row["completion"]), row
        assert len(tokens(row["completion"])) >= 20, row


def test_rows_limits_from_the_first():
    assert list(read_builtin("safety", 5)) == rows_of("safety")[:5]
    assert list(read_builtin("lookalikes", 0)) == []
    assert len(list(read_builtin("lookalikes", 10_000))) == len(rows_of("lookalikes"))
    assert list(read_builtin("safety", seed=9)) == rows_of("safety")


def test_task_rows_and_their_default_number():
    rows = rows_of("task")
    assert len(rows) == DEFAULT_TASK_ROWS == 2000
    assert all(set(row) == {"prompt", "completion", "kind", "answer"} for row in rows)
    assert list(read_builtin("task", 7, seed=3)) != rows[:7]


@pytest.mark.parametrize(
    ("name", "rows", "said"), [("tasks", None, "task, safety, lookalikes"), ("safety", -1, "-1")]
)
def test_bad_arguments_are_one_line(name, rows, said):
    with pytest.raises(DataError, match=said) as caught:
        read_builtin(name, rows)
    assert "\n" not in str(caught.value)
