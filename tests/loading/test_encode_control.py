"""No text of a row becomes a control token, and no text is lost by that."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from templates_for_tests import THINKING
from tokenizers import AddedToken
from tokenizers_for_tests import NAMED, mistral_tokenizer, qwen_tokenizer, unigram_tokenizer

from safemix.loading.encode import Encoder
from safemix.loading.encode_match import match_literals
from safemix.loading.templates import TEMPLATES

WORDS = [
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|begin_of_text|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "<s>",
    "</s>",
    "<unk>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<|im_",
    "end|>",
    "\ue5a00\ue5a1",
    "\n",
    "\n\n",
    " ",
    "assistant\n",
    "{{ bos_token }}",
    "é✓",
]
# Surrogates cannot be encoded; NFC tokenizers would change composed letters.
PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cn", "Mn", "Lo", "Mc", "Co")), max_size=12)
TEXTS = st.lists(st.one_of(st.sampled_from(WORDS), PLAIN), max_size=8).map("".join)

ENCODERS = {name: Encoder(NAMED[name](), template=name, max_length=100_000) for name in TEMPLATES}


def control_ids(encoder):
    unk = encoder.tokenizer.unk_token_id
    return {i for i in encoder.tokenizer.all_special_ids if i != unk} | {
        i
        for i, token in encoder.tokenizer.added_tokens_decoder.items()
        if token.special and i != unk
    }


def count(encoder, ids):
    control = control_ids(encoder)
    return [i for i in ids if i in control]


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(system=TEXTS, user=TEXTS, answer=TEXTS)
def test_control_tokens_are_those_of_the_template_alone(name, system, user, answer):
    import unicodedata

    encoder = ENCODERS[name]
    tokenizer = encoder.tokenizer

    def chat(*texts):
        return [
            {"role": role, "content": unicodedata.normalize("NFC", text)}
            for role, text in zip(("system", "user", "assistant"), texts, strict=True)
        ]

    messages = chat(system, user, f"x{answer}x")
    encoded = encoder.encode(messages)
    ordinary = encoder.encode(chat("One.", "Two?", "Three."))
    assert encoded.reason is None
    assert count(encoder, encoded.input_ids) == count(encoder, ordinary.input_ids)
    text = tokenizer.apply_chat_template(messages, chat_template=encoder.template, tokenize=False)
    decoded = tokenizer.decode(encoded.input_ids, clean_up_tokenization_spaces=False)
    assert unicodedata.normalize("NFC", decoded) == unicodedata.normalize("NFC", text)
    labels = [label for label in encoded.labels if label != -100]
    learned = tokenizer.decode(labels, clean_up_tokenization_spaces=False).strip(" ")
    assert learned.startswith(f"x{unicodedata.normalize('NFC', answer)}x")
    assert len(count(encoder, labels)) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_other_tokens_of_the_row_stay_as_they_are(name):
    """Only the control word is read otherwise; nothing around it is moved or added."""
    encoder = ENCODERS[name]
    tokenizer, word = encoder.tokenizer, encoder.tokenizer.eos_token
    head, answer = "Tom has three apples and buys four more", "He has seven apples."
    chat = [
        {"role": "user", "content": f"{head} {word} now?"},
        {"role": "assistant", "content": answer},
    ]
    encoded = encoder.encode(chat)
    text = tokenizer.apply_chat_template(chat, chat_template=encoder.template, tokenize=False)
    whole = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    at = text.index(head) + len(head)
    before = [i for i, (_, end) in zip(whole.ids, whole.offsets, strict=True) if end <= at]
    after = [i for i, (a, _) in zip(whole.ids, whole.offsets, strict=True) if a >= at + 6 + 15]
    assert tokenizer.eos_token_id in whole.ids[len(before) : len(before) + 3]
    assert encoded.input_ids[: len(before)] == before
    assert encoded.input_ids[-len(after) :] == after
    assert len(encoded.input_ids) > len(whole.ids)


def test_a_model_that_knows_its_control_token_as_a_word():
    """A unigram vocabulary holds `</s>`, so plain text would become it without a break."""
    tokenizer = unigram_tokenizer()
    encoder = Encoder(tokenizer)
    chat = [
        {"role": "user", "content": "Tom </s> has</s>"},
        {"role": "assistant", "content": "four </s> apples"},
    ]
    encoded = encoder.encode(chat)
    assert encoded.input_ids.count(tokenizer.eos_token_id) == 1
    assert encoded.input_ids[-1] == encoded.labels[-1] == tokenizer.eos_token_id
    squeezed = re.sub(r"\s", "", tokenizer.decode(encoded.input_ids))
    assert squeezed == "###Instruction:Tom</s>has</s>###Response:four</s>apples</s>"


def test_control_token_found_through_the_normalizer():
    """A full-width form that the normalizer turns into the control word stays text too."""
    from tokenizers import normalizers

    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.backend_tokenizer.add_special_tokens(
        [AddedToken("<stop>", special=True, normalized=True)]
    )
    stop = tokenizer.convert_tokens_to_ids("<stop>")
    chat = [
        {"role": "user", "content": "a \uff1cstop\uff1e b"},
        {"role": "assistant", "content": "c"},
    ]
    encoder = Encoder(tokenizer, template="chatml")
    plain = tokenizer.apply_chat_template(chat, chat_template=encoder.template, return_dict=False)
    assert stop in plain
    assert stop not in encoder.encode(chat).input_ids


def test_control_token_that_swallows_the_space_beside_it():
    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.add_special_tokens(
        [AddedToken("<|go|>", special=True, normalized=False, rstrip=True, lstrip=True)]
    )
    template = (
        "{% for message in messages %}{{ '<|go|>' + message['role'] + '<|go|>' }}"
        "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|go|>assistant<|go|>' }}{% endif %}"
    )
    encoder = Encoder(tokenizer, template=template)
    go = tokenizer.convert_tokens_to_ids("<|go|>")
    chat = [{"role": "user", "content": "  Tom"}, {"role": "assistant", "content": "has "}]
    expected = tokenizer.apply_chat_template(chat, chat_template=template, return_dict=False)
    assert encoder.encode(chat).input_ids == expected
    chat[0]["content"] = "  Tom <|go|> has"
    assert encoder.encode(chat).input_ids.count(go) == 4


def test_control_words_in_a_text_that_the_template_rewrites():
    encoder = Encoder(qwen_tokenizer(chat_template=THINKING))
    answer = "<think>\nThree <|im_end|>\n</think>\n\nSeven."  # <think> itself is no control token
    chat = [{"role": "user", "content": "has"}, {"role": "assistant", "content": answer}]
    assert "rewrites a text that holds control tokens" in encoder.encode(chat).reason
    chat = [
        {"role": "user", "content": "has <|im_end|>"},
        {"role": "assistant", "content": "Seven."},
    ]
    encoded = encoder.encode(chat)
    assert encoded.reason is None
    assert encoded.input_ids.count(encoder.tokenizer.eos_token_id) == 2


def test_metaspace_at_the_start_is_not_repeated():
    """`prepend_scheme=first` adds a space at the start of a text: once, not in every piece."""
    tokenizer = mistral_tokenizer()
    encoder = Encoder(tokenizer, template="mistral")
    chat = [{"role": "user", "content": "Tom</s>"}, {"role": "assistant", "content": "has"}]
    assert tokenizer.decode(encoder.encode(chat).input_ids) == "<s>[INST] Tom</s>[/INST] has</s>"


@given(
    st.lists(st.text("ab ", max_size=3), min_size=1, max_size=4).flatmap(
        lambda contents: st.tuples(
            st.just(contents),
            st.lists(st.text("ab|", max_size=3), min_size=len(contents) + 1, max_size=5).map(
                lambda texts: texts[: len(contents) + 1]
            ),
            st.lists(st.sampled_from([str, str.strip, str.lstrip]), min_size=4, max_size=4),
        )
    )
)
def test_match_explains_the_whole_text(case):
    contents, literals, forms = case
    literals = (literals * 5)[: len(contents) + 1]
    gaps = [form(content) for form, content in zip(forms, contents, strict=False)]
    text = literals[0] + "".join(g + lit for g, lit in zip(gaps, literals[1:], strict=True))
    starts = match_literals(literals, contents, text)
    assert starts is not None
    ends = [start + len(lit) for start, lit in zip(starts, literals, strict=True)]
    assert [text[s:e] for s, e in zip(starts, ends, strict=True)] == literals
    assert starts[0] == 0 and ends[-1] == len(text)
    for end, start, content in zip(ends, starts[1:], contents, strict=False):
        assert text[end:start] in content
    assert match_literals(literals, contents, text + "!") is None


def test_match_is_not_exponential():
    literals, contents = ["a"] * 40, ["a" * 40] * 39
    assert match_literals(literals, contents, "a" * 800 + "b") is None
