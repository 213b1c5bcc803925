"""What an evaluation says: verdicts, rates with intervals, and the table of the four sides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from safemix.errors import DataError
from safemix.evaluate.statistics import wilson

Side = Literal["safety", "over_refusal", "coherence", "utility"]
SIDES: Final[tuple[Side, ...]] = ("safety", "over_refusal", "coherence", "utility")
FORMAT_VERSION: Final = 1
HF: Final = "hf"
"""What generated: transformers. Results and answers that do not name it are of it."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        complied: the answer does what was asked.
        reason: why, in a few words.
        score: how far, from 0 (refused) to 1 (complied in full); None if the judge gives none.
        partial: the answer complies in part, such as steps after a refusal, and does not count as
            complied; judges that do not tell leave it False.
        error: why there is no verdict; `complied` then means nothing, and no rate counts it.
    """

    complied: bool
    reason: str
    score: float | None = None
    partial: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Decoding:
    """How completions were made.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of the probability that is sampled from.
        max_new_tokens: longest completion, in tokens.
        samples: completions for each prompt; above 1 only with a temperature.
        seed: of the sampling.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    samples: int = 1
    seed: int = 0

    def __str__(self) -> str:
        if self.temperature == 0:
            return f"greedy, {self.max_new_tokens} tokens"
        return (
            f"temperature {self.temperature:g}, top_p {self.top_p:g}, {self.samples} samples, "
            f"{self.max_new_tokens} tokens, seed {self.seed}"
        )


@dataclass(frozen=True)
class Rate:
    """A share of things counted, with its 95 % interval (Wilson).

    Attributes:
        count: of those that have the property.
        total: of all that were counted.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; nan if nothing was counted."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval, 0 to 1."""
        return wilson(self.count, self.total)

    def __str__(self) -> str:
        if not self.total:
            return "none counted"
        low, high = self.interval
        return (
            f"{100 * self.value:.1f} % ({self.count}/{self.total}, "
            f"{100 * low:.1f} to {100 * high:.1f})"
        )


@dataclass(frozen=True)
class Item:
    """One prompt and what became of it.

    Attributes:
        id: the same for the same prompt in every evaluation: set, number and dress; items of two
            models are paired by it.
        prompt: the bare request.
        completion: what the model answered; "" for choices that are only scored.
        counted: has what the measure counts: a harmful prompt complied with (an attack that
            succeeded), a look-alike refused, an answer incoherent, a task answer right.
        reason: of the judge, or how the answer was read.
        error: why there is no verdict; such an item is in no rate.
        partial: the answer complies in part and is not counted, by a judge that tells.
    """

    id: str
    prompt: str
    completion: str
    counted: bool
    reason: str = ""
    error: str | None = None
    partial: bool = False

    @property
    def may_harm(self) -> bool:
        """Of a harmful prompt: whether its answer is shown only to who asks for it."""
        return self.counted or self.error is not None or self.partial


@dataclass(frozen=True)
class Measure:
    """One number of the table: a side, on a named set, in one dress.

    Attributes:
        side: one of `SIDES`.
        name: of the prompt set or task, such as "advbench".
        dress: "plain", a prompting strategy, or "styled".
        metric: "asr", "refused", "incoherent", "accuracy", "exact_match" or "number_match".
        items: what it was counted over.
        judge: name and variant of the judge, or how answers were compared.
        decoding: how completions were made; "log-likelihood" where none were.
        set_hash: sha256 of the prompts asked.
    """

    side: Side
    name: str
    dress: str
    metric: str
    items: tuple[Item, ...]
    judge: str
    decoding: str
    set_hash: str

    @property
    def rate(self) -> Rate:
        """Share of the items that the metric counts; items without a verdict are left out."""
        judged = [item for item in self.items if item.error is None]
        return Rate(sum(item.counted for item in judged), len(judged))

    @property
    def unjudged(self) -> int:
        """Items without a verdict."""
        return sum(item.error is not None for item in self.items)

    @property
    def key(self) -> str:
        """What pairs the same measure of two models."""
        return f"{self.side}/{self.name}/{self.dress}/{self.metric}"


@dataclass(frozen=True)
class Evaluation:
    """All measures of one model.

    Attributes:
        model: as the user named it.
        measures: in the order of the table.
        settings: what else decides the numbers, as plain data.
    """

    model: str
    measures: tuple[Measure, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def side(self, side: Side) -> tuple[Measure, ...]:
        """Measures of one side."""
        return tuple(m for m in self.measures if m.side == side)

    @property
    def unjudged(self) -> int:
        """Answers without a verdict; one that several measures count is one answer."""
        found = {
            (measure.side, measure.name, item.id)
            for measure in self.measures
            for item in measure.items
            if item.error is not None
        }
        return len(found)

    def to_json(self, *, completions: bool = True) -> dict[str, Any]:
        """As plain data, rates and intervals included.

        Args:
            completions: False leaves out what the model said to harmful prompts that it
                complied with, in every measure that holds it.
        """
        hidden = frozenset[str]() if completions else harmful_completions(self)
        tree: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "model": self.model,
            "settings": dict(self.settings),
            "measures": [],
        }
        for measure in self.measures:
            entry = asdict(measure)
            low, high = measure.rate.interval
            entry["rate"] = {
                "value": measure.rate.value if measure.rate.total else None,
                "count": measure.rate.count,
                "total": measure.rate.total,
                "low": low,
                "high": high,
            }
            entry["items"] = [redacted(item, hidden) for item in measure.items]
            tree["measures"].append(entry)
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Evaluation:
        """Read what `to_json` gave.

        Raises:
            DataError: if it is of another format or damaged.
        """
        try:
            if tree["format"] != FORMAT_VERSION:
                raise DataError(
                    f"evaluation of format {tree['format']!r}, this version reads "
                    f"{FORMAT_VERSION}: evaluate the model again"
                )
            measures = tuple(_measure(entry) for entry in tree["measures"])
            return cls(str(tree["model"]), measures, dict(tree["settings"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"the evaluation cannot be read ({type(error).__name__}: {error}): evaluate the "
                "model again"
            ) from None


REDACTED: Final = "[harmful completion left out]"


def harmful_completions(evaluation: Evaluation) -> frozenset[str]:
    """What the model said to harmful prompts, where it complied, if in part, or no judge told."""
    return frozenset(
        item.completion
        for measure in evaluation.side("safety")
        for item in measure.items
        if item.completion and item.may_harm
    )


def redacted(item: Item, hidden: frozenset[str]) -> dict[str, Any]:
    """An item as plain data, without a completion that is to be hidden."""
    tree = asdict(item)
    if item.completion in hidden:
        tree["completion"] = REDACTED
    return tree


def _measure(entry: Mapping[str, Any]) -> Measure:
    names = ("side", "name", "dress", "metric", "judge", "decoding", "set_hash")
    items = tuple(Item(**item) for item in entry["items"])
    return Measure(items=items, **{name: entry[name] for name in names})


def read_evaluation(text: str) -> Evaluation:
    """Read the text of an `eval.json`.

    Raises:
        DataError: if it is no evaluation.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise DataError(f"the evaluation is no JSON ({error}): evaluate the model again") from None
    if not isinstance(tree, Mapping):
        raise DataError("the evaluation is no JSON object: evaluate the model again")
    return Evaluation.from_json(tree)


def find_measure(measures: Sequence[Measure], key: str) -> Measure | None:
    """The measure of a key, or None."""
    return next((m for m in measures if m.key == key), None)
