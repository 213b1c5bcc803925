"""Token ids and labels, for every template and for awkward ones."""

import datetime
import pickle

import pytest
from templates_for_tests import (
    DROPS_ANSWERS,
    LLAMA2,
    MARKED,
    NO_END_OF_TURN,
    NO_GENERATION_PROMPT,
    SYSTEM_LAST,
    THINKING,
)
from tokenizers_for_tests import (
    NAMED,
    bare_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    mistral_tokenizer,
    qwen_tokenizer,
)

from safemix.errors import ModelError, SettingsError
from safemix.loading.encode import IGNORE, Encoder
from safemix.loading.templates import TEMPLATES, choose_template

SYSTEM = {"role": "system", "content": "You are helpful."}
USER = {"role": "user", "content": "Tom has 3 apples and buys 4.\n\nHow many? "}
ANSWER = {"role": "assistant", "content": "He has seven ✓ 7."}
CHATS = {
    "single": [USER, ANSWER],
    "system": [SYSTEM, USER, ANSWER],
    "turns": [
        SYSTEM,
        USER,
        ANSWER,
        {"role": "user", "content": "{{ messages }} {% if x %} and?"},
        {"role": "assistant", "content": "I cannot help."},
    ],
    "spaces": [
        {"role": "user", "content": "  \n has the  "},
        {"role": "assistant", "content": "\n B \n"},
    ],
    "unicode": [
        {"role": "user", "content": "日本語 \u0301e \ufb01 \u200d🏽"},
        {"role": "assistant", "content": "n\u00e9 \U0001d538"},
    ],
}
# name: (tokenizer, template, end-of-turn token)
OWN = {
    "thinking": (qwen_tokenizer, THINKING, "<|im_end|>"),
    "system_last": (mistral_tokenizer, SYSTEM_LAST, "</s>"),
    "llama2": (lambda **k: mistral_tokenizer(legacy=True, **k), LLAMA2, "</s>"),
    "no_generation_prompt": (qwen_tokenizer, NO_GENERATION_PROMPT, "<|im_end|>"),
    "marked": (qwen_tokenizer, MARKED, "<|im_end|>"),
}
ENDS = {
    "llama3": "<|eot_id|>",
    "chatml": "<|im_end|>",
    "qwen": "<|im_end|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "plain": "<|endoftext|>",
}


def learned(tokenizer, encoded):
    """The trained texts, one string for each run of trained tokens."""
    runs, run = [], []
    for label in [*encoded.labels, IGNORE]:
        if label != IGNORE:
            run.append(label)
        elif run:
            runs.append(tokenizer.decode(run))
            run = []
    return runs


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_named_template_gives_the_ids_of_apply_chat_template(name, chat):
    tokenizer = NAMED[name]()
    encoder = Encoder(tokenizer, template=name)
    expected = tokenizer.apply_chat_template(
        CHATS[chat], chat_template=encoder.template, return_dict=False
    )
    encoded = encoder.encode(CHATS[chat])
    assert encoded.reason is None
    assert encoded.input_ids == expected
    assert all(b in (IGNORE, a) for a, b in zip(encoded.input_ids, encoded.labels, strict=True))


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", OWN)
def test_own_template_gives_the_ids_of_apply_chat_template(name, chat):
    make, template, _ = OWN[name]
    tokenizer = make(chat_template=template)
    encoded = Encoder(tokenizer).encode(CHATS[chat])
    assert encoded.input_ids == tokenizer.apply_chat_template(CHATS[chat], return_dict=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_labels_are_the_answers_and_their_end_of_turn(name):
    tokenizer, end = NAMED[name](), ENDS[name]
    found = learned(tokenizer, Encoder(tokenizer, template=name).encode(CHATS["turns"]))
    assert [text.strip() for text in found] == [
        f"He has seven ✓ 7.{end}",
        f"I cannot help.{end}",
    ]


@pytest.mark.parametrize("name", ["system_last", "llama2", "no_generation_prompt"])
def test_labels_with_own_templates(name):
    make, template, end = OWN[name]
    tokenizer = make(chat_template=template)
    found = learned(tokenizer, Encoder(tokenizer).encode(CHATS["turns"]))
    texts = ["He has seven ✓ 7.", "I cannot help."]
    assert [text.replace(" ", "") for text in found] == [
        f"{text}{end}".replace(" ", "") for text in texts
    ]


def test_thinking_is_learned_where_the_template_keeps_it():
    tokenizer = qwen_tokenizer(chat_template=THINKING)
    chat = [
        USER,
        {"role": "assistant", "content": "<think>\nThree\n</think>\n\nSeven."},
        USER,
        {"role": "assistant", "content": "<think>\nFour\n</think>\n\nEight."},
    ]
    encoded = Encoder(tokenizer).encode(chat)
    assert encoded.input_ids == tokenizer.apply_chat_template(chat, return_dict=False)
    assert learned(tokenizer, encoded) == [
        "Seven.<|im_end|>",
        "<think>\nFour\n</think>\n\nEight.<|im_end|>",
    ]


def test_generation_markers_decide_and_the_end_of_turn_is_added():
    tokenizer = qwen_tokenizer(chat_template=MARKED)
    found = learned(tokenizer, Encoder(tokenizer).encode(CHATS["turns"]))
    assert found == ["I cannot help.<|im_end|>"]


def test_generation_marker_around_the_line_break_does_not_train_it():
    template = MARKED.replace("{% endgeneration %}", "{{ '<|im_end|>\n' }}{% endgeneration %}")
    tokenizer = qwen_tokenizer(chat_template=template)
    assert learned(tokenizer, Encoder(tokenizer).encode(CHATS["single"])) == [
        "He has seven ✓ 7.<|im_end|>"
    ]


def test_qwen_writes_its_default_system_prompt_only_where_there_is_none():
    tokenizer = qwen_tokenizer()
    encoder = Encoder(tokenizer, template="qwen")
    without = tokenizer.decode(encoder.encode(CHATS["single"]).input_ids)
    empty = [{"role": "system", "content": ""}, *CHATS["single"]]
    assert "created by Alibaba Cloud" in without
    assert "Alibaba" not in tokenizer.decode(encoder.encode(CHATS["system"]).input_ids)
    assert "<|im_start|>system\n<|im_end|>" in tokenizer.decode(encoder.encode(empty).input_ids)


@pytest.mark.parametrize("name", ["llama3", "mistral", "gemma"])
def test_one_bos(name):
    tokenizer = NAMED[name]()
    ids = Encoder(tokenizer, template=name).encode(CHATS["turns"]).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_plain_writes_bos_where_the_tokenizer_would():
    tokenizer = mistral_tokenizer()
    encoded = Encoder(tokenizer).encode(CHATS["turns"])
    text = tokenizer.decode(encoded.input_ids)
    assert encoded.input_ids.count(tokenizer.bos_token_id) == 1
    assert text.startswith("<s>") and "### Response:" in text
    assert not choose_template(bare_tokenizer(), None).startswith("{{ bos_token }}")


def test_choice_of_the_template():
    own = qwen_tokenizer(chat_template=MARKED)
    assert choose_template(own, None) == MARKED
    assert choose_template(own, "chatml") == TEMPLATES["chatml"]
    assert choose_template(qwen_tokenizer(), None) == TEMPLATES["plain"]
    assert choose_template(own, THINKING) == THINKING


@pytest.mark.parametrize(
    ("make", "name", "missing"),
    [
        (qwen_tokenizer, "llama3", "<|begin_of_text|>"),
        (llama3_tokenizer, "chatml", "<|im_start|>"),
        (llama3_tokenizer, "mistral", "[INST]"),
        (bare_tokenizer, "gemma", "bos"),
        (gemma_tokenizer, "alpaca", "unknown"),
    ],
)
def test_template_that_does_not_fit_the_tokenizer(make, name, missing):
    with pytest.raises(ModelError) as caught:
        Encoder(make(), template=name)
    assert missing in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (NO_END_OF_TURN, "no end-of-turn token"),
        (DROPS_ANSWERS, "cannot be trained on"),
        ("{% for message in messages %}", "cannot be rendered: TemplateSyntaxError"),
        ("{{ messages[0].content + 1 }}", "cannot be rendered"),
        ("{{ raise_exception('no chats today') }}", "no chats today"),
    ],
)
def test_template_that_cannot_be_trained_on(template, problem):
    with pytest.raises(ModelError, match=problem):
        Encoder(qwen_tokenizer(chat_template=template))


def test_end_of_turn_token_that_is_not_special():
    tokenizer = bare_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    encoder = Encoder(tokenizer, template="chatml")
    chat = [{"role": "user", "content": "has <|im_end|> now"}, ANSWER]
    encoded = encoder.encode(chat)
    assert encoded.input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    assert learned(tokenizer, encoded) == ["He has seven ✓ 7.<|im_end|>"]


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([USER], "no answer"),
        ([USER, {"role": "assistant", "content": " \n"}], "no answer"),
        ([], "no answer"),
        ([USER, {"role": "assistant"}], "no role or no text"),
        ([USER, {"role": "assistant", "content": ["x"]}], "no role or no text"),
        (["text"], "not a mapping"),
        ([USER, USER, ANSWER], "refuses the row: turns must go"),
        ([USER, {**ANSWER, "name": "a<|im_end|>"}], "field other than content"),
        ([{**USER, "role": "user</s>"}, ANSWER], "field other than content"),
    ],
)
def test_row_that_cannot_be_used_is_dropped_with_a_reason(chat, reason):
    is_mistral = "refuses" in reason or "</s>" in str(chat)
    tokenizer = mistral_tokenizer() if is_mistral else qwen_tokenizer()
    encoded = Encoder(tokenizer, template="mistral" if is_mistral else "chatml").encode(chat)
    assert reason in encoded.reason
    assert encoded.input_ids == [] and encoded.labels == [] and encoded.trained == 0


def test_row_from_which_the_template_drops_the_answer():
    template = TEMPLATES["chatml"].replace(
        "{% for message in messages %}",
        "{% for message in messages if message['content'] != 'secret' %}",
    )
    encoder = Encoder(qwen_tokenizer(chat_template=template))
    assert encoder.encode([USER, ANSWER]).reason is None
    hidden = encoder.encode([USER, {"role": "assistant", "content": "secret"}])
    assert "cannot be found" in hidden.reason


def test_encoder_leaves_the_tokenizer_as_it_was_and_ignores_its_state():
    tokenizer = llama3_tokenizer()
    encoder = Encoder(tokenizer, template="llama3")
    expected = encoder.encode(CHATS["turns"])
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    before = tokenizer.backend_tokenizer.to_str()
    assert Encoder(tokenizer, template="llama3").encode(CHATS["turns"]) == expected
    assert tokenizer.backend_tokenizer.to_str() == before
    assert len(tokenizer) == len(llama3_tokenizer())


def test_pickle_and_fingerprint():
    encoder = Encoder(qwen_tokenizer(), template="chatml", max_length=64)
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.encode(CHATS["turns"]) == encoder.encode(CHATS["turns"])
    assert copy.fingerprint() == encoder.fingerprint()
    others = [
        Encoder(qwen_tokenizer(), template="qwen", max_length=64),
        Encoder(qwen_tokenizer(), template="chatml", max_length=65),
        Encoder(qwen_tokenizer(), template="chatml", max_length=64, overlong="drop"),
    ]
    tokenizer = qwen_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    others.append(Encoder(tokenizer, template="chatml", max_length=64))
    assert len({encoder.fingerprint(), *(o.fingerprint() for o in others)}) == 5


def test_a_template_that_writes_the_date_has_another_fingerprint_tomorrow(monkeypatch):
    from safemix.loading import encode

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2099, 1, 2, tzinfo=tz)

    dated = "{% if false %}{{ strftime_now('%d') }}{% endif %}" + TEMPLATES["chatml"]
    encoders = [Encoder(qwen_tokenizer(), template=t) for t in (dated, TEMPLATES["chatml"])]
    today = [encoder.fingerprint() for encoder in encoders]
    monkeypatch.setattr(encode.datetime, "datetime", Tomorrow)
    tomorrow = [encoder.fingerprint() for encoder in encoders]
    assert today[0] != tomorrow[0] and today[1] == tomorrow[1]


def test_settings_that_are_not_legal():
    with pytest.raises(SettingsError, match="max_length 1"):
        Encoder(qwen_tokenizer(), max_length=1)
    with pytest.raises(SettingsError, match="overlong 'split'"):
        Encoder(qwen_tokenizer(), overlong="split")


def test_slow_tokenizer_is_refused():
    class Slow:
        chat_template = TEMPLATES["chatml"]

        def get_chat_template(self):
            return self.chat_template

    with pytest.raises(ModelError, match="not a fast one"):
        Encoder(Slow())
