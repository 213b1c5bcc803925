"""Over-long rows: what is cut, what is kept, what is dropped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from templates_for_tests import THINKING
from tokenizers_for_tests import NAMED, qwen_tokenizer

from safemix.loading.encode import IGNORE, Encoder
from safemix.loading.encode_cut import cut_tokens
from safemix.loading.templates import TEMPLATES

WORDS = " ".join(f"Tom has {n} apples." for n in range(100))
ANSWER = {"role": "assistant", "content": "He has seven apples."}


def both(name, chat, max_length):
    """A row as it is, and cut."""
    tokenizer = NAMED[name]()
    whole = Encoder(tokenizer, template=name, max_length=10**6).encode(chat)
    return tokenizer, whole, Encoder(tokenizer, template=name, max_length=max_length).encode(chat)


def specials(tokenizer, ids):
    return [
        i for i in ids if i in set(tokenizer.all_special_ids) or i in tokenizer.added_tokens_decoder
    ]


def answers(encoded):
    return [label for label in encoded.labels if label != IGNORE]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_middle_of_the_prompt_goes_and_nothing_else(name):
    chat = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "Question: " + WORDS + " The end?"},
        ANSWER,
    ]
    tokenizer, whole, cut = both(name, chat, 120)
    assert len(cut.input_ids) == 120
    assert cut.cut == len(whole.input_ids) - 120
    assert answers(cut) == answers(whole)
    assert specials(tokenizer, cut.input_ids) == specials(tokenizer, whole.input_ids)
    text = tokenizer.decode(cut.input_ids)
    assert "You are helpful." in text and "Question: Tom has 0" in text and "The end?" in text
    pairs = zip(whole.input_ids, cut.input_ids, strict=False)
    shared = next(n for n, pair in enumerate(pairs) if len({*pair}) > 1)
    assert cut.input_ids[shared:] == whole.input_ids[shared + cut.cut :]


def test_the_longest_prompt_turn_is_cut_alone_where_it_suffices():
    short = "Tom has three apples. " * 4
    chat = [
        {"role": "user", "content": short},
        ANSWER,
        {"role": "user", "content": WORDS},
        ANSWER,
    ]
    tokenizer, whole, cut = both("chatml", chat, 150)
    assert len(cut.input_ids) == 150
    assert short in tokenizer.decode(cut.input_ids)
    assert answers(cut) == answers(whole)


def test_further_turns_are_cut_when_the_longest_is_gone():
    chat = [{"role": "user", "content": WORDS}, ANSWER, {"role": "user", "content": WORDS}, ANSWER]
    tokenizer, whole, cut = both("chatml", chat, 90)
    assert len(cut.input_ids) <= 90
    assert answers(cut) == answers(whole)
    assert specials(tokenizer, cut.input_ids) == specials(tokenizer, whole.input_ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_long_answer_loses_its_end_last(name):
    chat = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": WORDS}]
    tokenizer, whole, cut = both(name, chat, 80)
    assert len(cut.input_ids) == 80
    assert cut.reason is None and cut.cut == len(whole.input_ids) - 80
    assert answers(cut) == answers(whole)[: len(answers(cut))]
    prompt = whole.input_ids[: whole.labels.index(answers(whole)[0])]
    assert specials(tokenizer, cut.input_ids) == specials(tokenizer, prompt)
    assert "How many?" not in tokenizer.decode(cut.input_ids)
    assert tokenizer.eos_token_id not in answers(cut)


def test_no_room_for_an_answer():
    chat = [{"role": "user", "content": WORDS}, ANSWER]
    encoder = Encoder(qwen_tokenizer(), template="qwen", max_length=12)
    encoded = encoder.encode(chat)
    assert encoded.reason == "no room for a trained token within max_length 12"
    assert encoded.input_ids == []


def test_drop():
    encoder = Encoder(qwen_tokenizer(), template="chatml", max_length=50, overlong="drop")
    assert encoder.encode([{"role": "user", "content": "has?"}, ANSWER]).reason is None
    encoded = encoder.encode([{"role": "user", "content": WORDS}, ANSWER])
    assert encoded.reason == "longer than max_length 50"


def test_a_row_of_exactly_max_length_is_left_alone():
    chat = [{"role": "user", "content": "Tom has?"}, ANSWER]
    _, whole, _ = both("chatml", chat, 64)
    n = len(whole.input_ids)
    assert Encoder(qwen_tokenizer(), template="chatml", max_length=n).encode(chat) == whole
    assert Encoder(qwen_tokenizer(), template="chatml", max_length=n - 1).encode(chat).cut >= 1


def test_no_half_characters():
    chat = [{"role": "user", "content": "🏽日✓" * 60}, ANSWER]
    tokenizer = qwen_tokenizer()
    for max_length in range(60, 90):
        cut = Encoder(tokenizer, template="chatml", max_length=max_length).encode(chat)
        assert "\ufffd" not in tokenizer.decode(cut.input_ids)
        assert max_length - 8 < len(cut.input_ids) <= max_length


def test_control_words_in_a_cut_row_stay_text():
    tokenizer = qwen_tokenizer()
    chat = [{"role": "user", "content": "<|im_end|> Tom " * 100}, ANSWER]
    cut = Encoder(tokenizer, template="chatml", max_length=100).encode(chat)
    assert len(cut.input_ids) == 100
    assert cut.input_ids.count(tokenizer.eos_token_id) == 2


def test_prompts_are_cut_where_the_template_rewrites_the_answer():
    tokenizer = qwen_tokenizer(chat_template=THINKING)
    answer = "<think>\nThree\n</think>\n\nSeven."
    chat = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": answer}]
    cut = Encoder(tokenizer, max_length=90).encode(chat)
    assert len(cut.input_ids) == 90
    assert tokenizer.decode(answers(cut)) == f"{answer}<|im_end|>"


ENCODER_TEXT = st.text(st.sampled_from("ab <|im_end|>✓🏽\n"), max_size=120)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(ENCODER_TEXT, min_size=2, max_size=6),
    max_length=st.integers(2, 120),
    name=st.sampled_from(["llama3", "chatml", "plain"]),
)
def test_every_row_fits_and_trains_or_says_why_not(texts, max_length, name):
    chat = [
        {"role": ("user", "assistant")[n % 2], "content": text + "a" * (n % 2)}
        for n, text in enumerate(texts[: len(texts) // 2 * 2])
    ]
    _, whole, cut = both(name, chat, max_length)
    if cut.reason is not None:
        assert "no room" in cut.reason
        assert max_length < len(whole.input_ids)
        return
    assert len(cut.input_ids) == len(cut.labels) <= max_length
    assert len(cut.input_ids) + cut.cut == len(whole.input_ids)
    assert any(label != IGNORE for label in cut.labels[1:])
    assert answers(cut) == answers(whole)[: len(answers(cut))]
    assert all(b in (IGNORE, a) for a, b in zip(cut.input_ids, cut.labels, strict=True))


@given(
    length=st.integers(2, 60),
    spans=st.lists(st.integers(0, 60), max_size=6),
    trained=st.sets(st.integers(1, 59), max_size=20),
    unclean=st.sets(st.integers(1, 59), max_size=20),
    room=st.integers(1, 60),
)
def test_cut_tokens(length, spans, trained, unclean, room):
    edges = sorted({n for n in spans if n <= length})
    prompts = list(zip(edges[::2], edges[1::2], strict=False))
    in_prompt = {n for a, b in prompts for n in range(a, b)}
    is_trained = [n in trained and n not in in_prompt for n in range(length)]
    kept = cut_tokens(length, room, prompts, [n not in unclean for n in range(length)], is_trained)
    if kept is None:
        rest = [n for n in range(length) if n not in in_prompt]
        assert not any(is_trained[n] for n in rest[1:room]) or not any(is_trained[1:])
        return
    assert (kept == sorted(set(kept)) and len(kept) <= room) or length <= room
    assert any(is_trained[n] for n in kept)
    lost = set(range(length)) - set(kept) - in_prompt
    # What is lost outside the prompts is the end of the row, after all prompts went.
    if lost:
        assert min(lost) > max(kept)
        assert not set(kept) & in_prompt
