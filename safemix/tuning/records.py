"""What a sweep knows of its trials: plain data, kept as JSON beside each trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from safemix.evaluate.results import Rate, Side

Kind = Literal["trial", "unmixed", "untouched"]
Status = Literal["waiting", "running", "done", "stopped", "failed"]
ENDED: Final[frozenset[Status]] = frozenset({"done", "stopped", "failed"})
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class Outcome:
    """One measure of a trial's evaluation, without texts.

    Attributes:
        side: "safety", "over_refusal", "coherence" or "utility".
        name: of the prompt set or task.
        dress: "plain", a prompting strategy, or "styled".
        metric: what is counted, such as "asr" or "accuracy".
        counted: "1" or "0" for each prompt in order, "?" for one without a verdict: trials of a
            sweep are asked the same prompts, so that two of them can be paired.
    """

    side: Side
    name: str
    dress: str
    metric: str
    counted: str

    @property
    def rate(self) -> Rate:
        """Share of ones; prompts without a verdict are left out."""
        return Rate(self.counted.count("1"), len(self.counted) - self.counted.count("?"))

    @property
    def key(self) -> str:
        """What pairs the same measure of two trials."""
        return f"{self.side}/{self.name}/{self.dress}/{self.metric}"


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it stands.

    Attributes:
        number: from 0, in the order they were asked for; those of the baselines are below 0.
        kind: "trial"; "unmixed" is ratio 0, and "untouched" the model before any training.
        point: what the search chose: key of the settings, with dots -> value.
        status: "stopped" was ended by the scheduler, "failed" by an error of its own.
        reason: why it was stopped, interrupted or failed, one line; "" otherwise.
        step: optimizer steps done.
        max_steps: of a whole trial.
        rows: rows trained on, those trained again after a restart included.
        seconds: of work, waiting not included.
        restarts: times it went on from a checkpoint after a worker was lost.
        ratios: (step, ratio) from which step on the plan drew with which ratio; more than one
            where population-based training or a controller changed it.
        outcomes: of the evaluation at its end; empty without one.
        readings: what was read while it trained, a mapping for each reading, with "step".
        folder: of the trial, relative to the sweep's.
    """

    number: int
    kind: Kind
    point: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "waiting"
    reason: str = ""
    step: int = 0
    max_steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    restarts: int = 0
    ratios: tuple[tuple[int, float], ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    readings: tuple[Mapping[str, float], ...] = ()
    folder: str = ""

    @property
    def name(self) -> str:
        """For tables and folders: `trial-03`, `unmixed` or `untouched`."""
        return f"trial-{self.number:02d}" if self.kind == "trial" else self.kind

    @property
    def ratio(self) -> float | None:
        """Share of safety rows at its end; 0 without mixing.

        Before it has trained it is the one it is to have; None where only its run file says it.
        """
        if self.kind != "trial":
            return 0.0
        if self.ratios:
            return self.ratios[-1][1]
        asked = self.point.get("ratio")
        return float(asked) if isinstance(asked, int | float) else None

    def side(self, side: Side) -> tuple[Outcome, ...]:
        """Outcomes of one side."""
        return tuple(outcome for outcome in self.outcomes if outcome.side == side)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"format": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TrialRecord:
        """The record of `to_json`; ValueError for another format."""
        if tree.get("format") != FORMAT_VERSION:
            raise ValueError(f"a trial's record of format {tree.get('format')!r}")
        values = {key: value for key, value in tree.items() if key != "format"}
        made = cls(**values)
        return replace(
            made,
            ratios=tuple((int(step), float(ratio)) for step, ratio in made.ratios),
            outcomes=tuple(Outcome(**_mapping(entry)) for entry in made.outcomes),
            readings=tuple(made.readings),
        )


def _mapping(entry: Any) -> dict[str, Any]:
    return dict(entry)
