"""Is it still good at its task: accuracy on held-out rows.

Choices are scored, not generated: the likeliest answer counts, so that accuracy does not depend
on how an answer is spelt. Free answers are generated and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from safemix.errors import DataError, SettingsError
from safemix.evaluate.matching import Match, choose_match, exact_match, final_number, number_match
from safemix.evaluate.results import Decoding, Item, Measure
from safemix.evaluate.utility_rows import Question, chats, digest, of_records, of_rows, with_answer
from safemix.mitigation.inference import InferencePrompt, apply_inference
from safemix.rows.schema import Message

if TYPE_CHECKING:
    from safemix.evaluate.loglik import AnswerScore

__all__ = ["Normalise", "Scoring", "measure_answers", "measure_choice_rows", "measure_choices"]

Normalise = Literal["sum", "bytes", "tokens"]
Progress = Callable[[int, int], None]
# Chats that end with a user turn -> an answer to each.
Complete = Callable[[Sequence[Sequence[Message]]], Sequence[str]]

_SCORED: Final = "log-likelihood"
_HOW: Final[Mapping[Normalise, str]] = {
    "sum": "likeliest choice",
    "bytes": "likeliest choice per byte",
    "tokens": "likeliest choice per token",
}


class Scoring(TypedDict, total=False):
    """How choices are scored; every key may be left out.

    Attributes:
        normalise: "sum", the default; or "bytes" or "tokens" of the answer, to divide the sum by.
            Where choices are free texts of unequal length, "bytes" is lm-eval's `acc_norm`.
        inference: what goes before the system prompt; not part of the hash.
        batch_size: prompts of a forward pass on each rank, at most; 16 if unset.
        template: chat template, as for `loading.Encoder`.
        progress: told prompts scored and prompts in all.
    """

    normalise: Normalise
    inference: InferencePrompt | None
    batch_size: int
    template: str | None
    progress: Progress | None


def measure_choices(
    model: Any,
    tokenizer: Any,
    records: Sequence[Mapping[str, Any]],
    task: str,
    strategy: str = "benign",
    *,
    seed: int = 0,
    confirm: bool = False,
    **scoring: Unpack[Scoring],
) -> Measure:
    """Accuracy on records of a choice task, asked in a prompting strategy.

    Every choice is put into the answer of the record's row as training writes it ("B", "Option B
    makes physical sense.", "B. A bucket"), and the likeliest counts. By default the sum of the
    log-probabilities decides, as in lm-eval's `acc`: answers of these tasks open with a label or
    differ by it alone, and dividing by length, as `acc_norm` does, would favour the longer choice
    behind the label. A tie for the first place counts as wrong.

    Args:
        model: as for `loglik.answer_scores`; all ranks of a job call this together.
        tokenizer: a fast tokenizer.
        records: held-out records with the public fields of the task, and their right answers.
        task: name of a task of `prompting` with choices.
        strategy: one of `prompting.STRATEGIES`.
        seed: for the AutoIF templates, as for `prompting.render_one`.
        confirm: AOA answers open with a confirmation, as for `prompting.render_one`.
        **scoring: see `Scoring`.

    Returns:
        The measure; its `items` say what was chosen, and by how much.

    Raises:
        SettingsError: for an unknown task, strategy or `normalise`, or a task without choices.
        DataError: for no records, or one that cannot be used.
    """
    questions = of_records(task, strategy, records, seed=seed, confirm=confirm)
    return _measure_choices(model, tokenizer, questions, name=task, dress=strategy, **scoring)


def measure_choice_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str,
    dress: str = "plain",
    **scoring: Unpack[Scoring],
) -> Measure:
    """Accuracy on rows that bring their own choices.

    Args:
        model: as for `measure_choices`.
        tokenizer: a fast tokenizer.
        rows: mappings with `messages`, `choices` (texts of whole answers, two or more) and
            `answer` (number of the right one, from 0). An assistant turn at the end of `messages`
            is left out.
        name: of the rows, in tables.
        dress: how the prompts are dressed, in tables.
        **scoring: see `Scoring`.

    Raises:
        SettingsError: for an unknown `normalise`.
        DataError: for no rows, or one that cannot be used.
    """
    return _measure_choices(model, tokenizer, of_rows(rows), name=name, dress=dress, **scoring)


def measure_answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str,
    dress: str = "plain",
    match: Match | None = None,
    decoding: Decoding | None = None,
    inference: InferencePrompt | None = None,
    batch_size: int = 16,
    template: str | None = None,
    progress: Progress | None = None,
    complete: Complete | None = None,
) -> Measure:
    """Accuracy on rows with free answers: generate, then compare with the reference.

    Args:
        model: as for `generate.complete`; all ranks of a job call this together.
        tokenizer: a fast tokenizer.
        rows: mappings with `messages` that end with the right answer, or any other shape of row.
        name: of the rows, in tables.
        dress: how the prompts are dressed, in tables.
        match: "number" compares the numbers that the answers end with ("#### 18" first, as in
            GSM8K), "exact" the normalised texts; unset it is "number" if every reference has one
            after "####" or is a number alone.
        decoding: greedy with 256 tokens if unset; one sample a prompt.
        inference: what goes before the system prompt; not part of the hash.
        batch_size: prompts generated together on each rank.
        template: chat template, as for `loading.Encoder`.
        progress: as for `generate.complete`.
        complete: generates instead of `generate.complete`, which then needs neither model nor
            tokenizer.

    Returns:
        The measure, with every completion.

    Raises:
        DataError: for no rows, one that cannot be used, or a reference without a number.
        SettingsError: for more than one sample a prompt.
    """
    decoding = decoding or Decoding(max_new_tokens=256)
    if decoding.samples != 1:
        raise SettingsError(f"{decoding.samples} samples a prompt: utility is measured on 1")
    if not rows:
        raise DataError(f"{name} has no rows to measure: give held-out rows with their answers")
    whole = [with_answer(row, number) for number, row in enumerate(rows, 1)]
    prompts, references = [chat[:-1] for chat in whole], [chat[-1]["content"] for chat in whole]
    match = _checked_match(match, references)
    asked = prompts if inference is None else [apply_inference(c, inference) for c in prompts]
    if complete is None:
        from safemix.evaluate.generate import complete as generate

        answers: Sequence[str] = generate(
            model,
            tokenizer,
            asked,
            decoding,
            batch_size=batch_size,
            progress=progress,
            template=template,
        )
    else:
        answers = complete(asked)
    items = [
        _compared(f"{name}/{dress}/{n}", prompt, answer, reference, match)
        for n, (prompt, answer, reference) in enumerate(
            zip(prompts, answers, references, strict=True)
        )
    ]
    how = "last number" if match == "number" else "normalised text"
    return Measure(
        side="utility",
        name=name,
        dress=dress,
        metric=f"{match}_match",
        items=tuple(items),
        judge=f"same {how} as the reference",
        decoding=str(decoding),
        set_hash=digest(whole),
    )


def _measure_choices(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    name: str,
    dress: str,
    normalise: Normalise = "sum",
    inference: InferencePrompt | None = None,
    batch_size: int = 16,
    template: str | None = None,
    progress: Progress | None = None,
) -> Measure:
    if normalise not in _HOW:
        raise SettingsError(f"normalise {normalise!r} is unknown: give one of {', '.join(_HOW)}")
    if not questions:
        raise DataError(f"{name} has no rows to measure: give held-out rows with their answers")
    from safemix.evaluate.loglik import answer_scores

    rows = [{"messages": chat} for q in questions for chat in chats(q, inference)]
    found = answer_scores(
        model, tokenizer, rows, batch_size=batch_size, template=template, progress=progress
    )
    scores = iter(found)
    items = []
    for number, question in enumerate(questions):
        own = [next(scores) for _ in question.answers]
        items.append(_chosen(f"{name}/{dress}/{number}", question, own, normalise))
    return Measure(
        side="utility",
        name=name,
        dress=dress,
        metric="accuracy",
        items=tuple(items),
        judge=_HOW[normalise],
        decoding=_SCORED,
        set_hash=digest([[*q.prompt, *q.answers, q.gold] for q in questions]),
    )


def _chosen(
    key: str, question: Question, scores: Sequence[AnswerScore], normalise: Normalise
) -> Item:
    """What a model chose; an item without a verdict if a score is not finite."""
    values = [
        score.log_prob / _length(answer, score, normalise)
        for answer, score in zip(question.answers, scores, strict=True)
    ]
    prompt = question.prompt[-1]["content"]
    if not all(math.isfinite(value) for value in values):
        return Item(key, prompt, "", False, error="a log-probability is not finite")
    gold, best = question.gold, max(values)
    others = max(value for n, value in enumerate(values) if n != gold)
    chosen = question.answers[values.index(best)]
    ahead = f"the right one is {values[gold] - others:+.3f} against the best other"
    if values.count(best) > 1:
        return Item(key, prompt, "", False, f"a tie: {ahead}")
    return Item(key, prompt, "", values[gold] == best, f"chose {chosen!r}; {ahead}")


def _length(answer: str, score: AnswerScore, normalise: Normalise) -> int:
    if normalise == "sum":
        return 1
    return len(answer.encode()) if normalise == "bytes" else score.tokens


def _checked_match(match: Match | None, references: Sequence[str]) -> Match:
    match = match or choose_match(references)
    if match not in ("exact", "number"):
        raise SettingsError(f"match {match!r} is unknown: give exact or number")
    if match == "number":
        for number, reference in enumerate(references, 1):
            if final_number(reference) is None:
                raise DataError(f"row {number}: its answer has no number: use match exact")
    return match


def _compared(
    key: str, prompt: Sequence[Message], answer: str, reference: str, match: Match
) -> Item:
    right = number_match(answer, reference) if match == "number" else exact_match(answer, reference)
    if match == "number":
        reason = f"read {final_number(answer)}, right is {final_number(reference)}"
    else:
        reason = "the same" if right else f"right is {reference!r}"
    return Item(key, prompt[-1]["content"], answer, right, reason)
