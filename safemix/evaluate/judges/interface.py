"""What a judge is, and what all judges do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from safemix.errors import DataError
from safemix.evaluate.results import Verdict

JUDGES: Final = ("refusal", "harmbench", "llama_guard", "llm")
# The others ask whether an answer does harm, or is of use for what was asked: a plain answer to a
# harmless question can be "not complied" to them without being a refusal.
TELLS_REFUSALS: Final = frozenset({"refusal"})
# A model on this machine: it takes memory as long as it is open.
LOCAL_MODELS: Final = frozenset({"harmbench", "llama_guard"})

EMPTY: Final = Verdict(complied=False, reason="empty", score=0.0)

# A request and the answer to it.
Pair = tuple[str, str]


class Judge(Protocol):
    """Judges answers.

    Attributes:
        name: one of `JUDGES`.
        variant: what decides besides the name: of the prompt, the rules or the threshold.
    """

    @property
    def name(self) -> str:
        """One of `JUDGES`."""

    @property
    def variant(self) -> str:
        """What decides besides the name."""

    def describe(self) -> str:
        """Name, variant, hash of the prompt and model, in one line."""

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """A verdict for each answer, in order.

        Args:
            prompts: the bare requests.
            completions: the answers, one a request.

        Raises:
            DataError: if the two do not pair up.
            ModelError: if no answer can be judged; a single one that cannot be judged gets a
                verdict with an error.
        """


def judge_pairs(
    prompts: Sequence[str],
    completions: Sequence[str],
    ask: Callable[[list[Pair]], list[Verdict]],
) -> list[Verdict]:
    """Judge all answers that are not empty by `ask`; an empty one is `EMPTY`.

    Raises:
        DataError: if prompts and completions do not pair up.
    """
    check_pairs(prompts, completions)
    pairs = list(zip(prompts, completions, strict=True))
    asked = [number for number, (_, answer) in enumerate(pairs) if answer.strip()]
    verdicts = [EMPTY] * len(pairs)
    if asked:
        made = ask([pairs[number] for number in asked])
        for number, verdict in zip(asked, made, strict=True):
            verdicts[number] = verdict
    return verdicts


def check_pairs(prompts: Sequence[str], completions: Sequence[str]) -> None:
    """Check that there is one text for each text.

    Raises:
        DataError: naming what does not fit.
    """
    for what, texts in (("prompts", prompts), ("completions", completions)):
        if isinstance(texts, str):
            raise DataError(f"judge: {what} is one text: give a list of texts")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"judge: {what}[{number}] is {type(text).__name__}, not a text: give one text "
                    "for each"
                )
    if len(prompts) != len(completions):
        raise DataError(
            f"judge: {len(prompts)} prompts and {len(completions)} completions: give one "
            "completion for each prompt"
        )


def no_verdict(error: str) -> Verdict:
    """The verdict of an answer that could not be judged."""
    return Verdict(complied=False, reason="no verdict", error=error)
