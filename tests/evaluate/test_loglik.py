"""Log-probabilities of given answers, against a plain loop over single rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from safemix.errors import DataError, ModelError, SettingsError
from safemix.evaluate import loglik
from safemix.evaluate.loglik import answer_log_probs, answer_scores
from safemix.training.known_models import resolve_model
from safemix.training.models import load_tokenizer

QUESTIONS = ("How many apples?", "Which one of these is it, when the train has left the station?")
ANSWERS = ("A", "B", "The answer is seven apples.", "10", "1", "A")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_model("tiny"))


@pytest.fixture
def model() -> Any:
    found = AutoModelForCausalLM.from_pretrained(resolve_model("tiny"), dtype=torch.float32)
    with torch.no_grad():
        for param in found.parameters():
            param.mul_(4.0)  # random weights this small give nearly the same to every token
    return found


def row(question: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def rows() -> list[dict[str, Any]]:
    return [row(question, answer) for question in QUESTIONS for answer in ANSWERS]


def by_hand(model: Any, tokenizer: Any, one: dict[str, Any]) -> tuple[float, int]:
    """One row, no padding, all logits, in float64."""
    turns = one["messages"]
    before = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(before, add_special_tokens=False)["input_ids"]
    text = turns[-1]["content"] + "<|im_end|>"
    answer = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([prompt + answer])).logits[0].double()
    found = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    return float(found.sum()), len(answer)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_as_by_hand_in_the_order_of_the_rows(model, tokenizer, batch_size: int) -> None:
    given = rows()
    found = answer_scores(model, tokenizer, given, batch_size=batch_size)
    wanted = [by_hand(model, tokenizer, one) for one in given]
    assert [score.tokens for score in found] == [tokens for _, tokens in wanted]
    assert [s.log_prob for s in found] == pytest.approx([value for value, _ in wanted], abs=1e-3)
    # Equal bits on Intel; on an AMD EPYC two passes were 4e-6 apart. Why was not found.
    assert found[0].tokens == found[5].tokens
    assert found[0].log_prob == pytest.approx(found[5].log_prob, abs=1e-4), "the same answer twice"
    assert len({round(score.log_prob, 2) for score in found}) > 8, "the model tells them apart"
    only = answer_log_probs(model, tokenizer, given, batch_size=batch_size)
    assert only == pytest.approx([score.log_prob for score in found], abs=1e-4)


def test_only_the_last_answer_of_a_chat_is_scored(model, tokenizer) -> None:
    more = [
        {"role": "system", "content": "Be brief."},
        *row("How many apples?", "Seven.")["messages"],
        *row("And pears?", "Nine of them.")["messages"],
    ]
    (found,) = answer_scores(model, tokenizer, [{"messages": more}])
    value, tokens = by_hand(model, tokenizer, {"messages": more})
    assert (found.log_prob, found.tokens) == (pytest.approx(value, abs=1e-3), tokens)


def test_answers_to_one_prompt_share_their_passes(model, tokenizer, monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []
    forward = model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    answer_scores(model, tokenizer, rows(), batch_size=2)
    # Two passes compare the layouts on one prompt, one scores both prompts.
    assert len(seen) == 3
    assert seen[-1][0] == 2


def test_a_model_that_heeds_no_such_mask_is_asked_row_by_row(model, tokenizer, monkeypatch) -> None:
    wanted = answer_log_probs(model, tokenizer, rows())
    monkeypatch.setattr(loglik, "takes_masks", lambda *_: False)
    assert answer_log_probs(model, tokenizer, rows()) == pytest.approx(wanted, abs=1e-3)
    monkeypatch.undo()
    forward = model.forward

    def blind(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = None  # sees the answers before as well
        return forward(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model, "forward", blind)
    assert answer_log_probs(model, tokenizer, rows()) == pytest.approx(wanted, abs=1e-3)


def test_the_model_and_the_random_state_are_left_alone(model, tokenizer) -> None:
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    first = answer_log_probs(model, tokenizer, rows())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(param.grad is None for param in model.parameters())
    assert answer_log_probs(model, tokenizer, rows()) == first


def test_lora_and_half_precision(model, tokenizer) -> None:
    from peft import LoraConfig, get_peft_model

    wanted = answer_log_probs(model, tokenizer, rows())
    halved = answer_log_probs(model.to(torch.bfloat16), tokenizer, rows())
    assert halved == pytest.approx(wanted, rel=0.1)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    lora = get_peft_model(model.to(torch.float32), config)
    found = answer_log_probs(lora, tokenizer, rows())
    assert found != pytest.approx(wanted, abs=1e-2), "the adapter counts"
    values = [by_hand(lora, tokenizer, one)[0] for one in rows()]
    assert found == pytest.approx(values, abs=1e-3)


def test_what_is_not_finite_stays_so(model, tokenizer) -> None:
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    assert all(math.isnan(value) for value in answer_log_probs(model, tokenizer, rows()))


def test_progress_and_nothing_to_do(model, tokenizer) -> None:
    told: list[tuple[int, int]] = []
    given = [row(f"question {n}", "A") for n in range(5)]
    answer_scores(model, tokenizer, given, batch_size=2, progress=lambda *at: told.append(at))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert answer_scores(model, tokenizer, []) == []


def test_batches_are_bounded_by_prompts_and_by_logits() -> None:
    def item(tokens: int, answers: int) -> loglik.ProbeItem:
        return loglik.ProbeItem((1,) * tokens, ((2,) * answers,), 0)

    items = [item(10, 5), item(30, 5), item(20, 5), item(5, 400), item(4, 400)]
    batches = loglik._batches(items, 2)
    assert sorted(n for batch in batches for n in batch) == [0, 1, 2, 3, 4]
    assert batches == [[3], [4], [1, 2], [0]]
    assert loglik._batches([item(9, 2)] * 3, 1) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, "row 2 does not end with an answer"),
        ({"messages": []}, "row 2 does not end with an answer"),
        (row("Hi", "  "), "row 2 cannot be scored: no answer"),
        (row("many " * 3000, "A"), "row 2 has .* tokens, more than the 2048"),
    ],
)
def test_bad_rows_are_named_in_one_line(model, tokenizer, bad: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        answer_scores(model, tokenizer, [row("Hi", "A"), bad])
    assert "\n" not in str(caught.value)


def test_bad_settings(model, tokenizer) -> None:
    with pytest.raises(SettingsError, match="batch_size 0"):
        answer_scores(model, tokenizer, rows(), batch_size=0)
    with pytest.raises(DataError, match="more than the 8"):
        answer_scores(model, tokenizer, rows(), max_length=8)
    with pytest.raises(ModelError, match="cannot generate"):
        answer_scores(torch.nn.Linear(2, 2), tokenizer, rows())
