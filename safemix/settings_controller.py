"""The key `ratio` as a controller: a ratio that follows the readings of the run."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from safemix.settings_base import SettingsTree
from safemix.settings_evaluation import EvaluationSettings, Margin

DEFAULT_START: Final = Fraction(1, 10)
MARGIN_SCALES: Final[Mapping[Margin, float]] = {"odds": 5.0, "mean": 1.0, "first": 1.0}
"""Violation of a margin that counts as 1, in nats: of a whole opener of about five tokens, or of a
token."""
ASR_SCALE: Final = 0.1
"""Violation of an attack success rate that counts as 1: ten of a hundred prompts."""
_MARGIN_BAND_SHARE: Final = 0.2
_ASR_BAND_SHARE: Final = 0.25


class ControllerSettings(SettingsTree):
    """A ratio that rises when the run gets unsafe and falls while it is safe."""

    controller: Literal["target"]
    min_margin: float | None = Field(
        None, description="keep the refusal margin of the probe at or above this, in nats"
    )
    max_asr: float | None = Field(
        None, ge=0, lt=1, description="keep the attack success rate at or below this"
    )
    of: Literal["plain", "dressed", "worst"] = Field(
        "worst", description="harmful prompts as they are, dressed like the task, or the worse"
    )
    start: float | str | None = Field(None, description="first ratio; unset: 0.1, within bounds")
    min: float | str = Field(0.01, description="smallest ratio, above 0")
    max: float | str = Field(0.3, description="largest ratio")
    every: int = Field(1, ge=1, description="readings whose mean makes one decision")
    gain: float = Field(
        2.0,
        gt=0,
        description="change of ln(ratio) at 5 nats (1 a token) or 0.1 of ASR too near",
    )
    hysteresis: float | None = Field(
        None,
        ge=0,
        description="safe distance h from the bound: nearer than h the ratio rises, further than "
        "2 h it falls; unset: 1 nat (0.2 a token), or a quarter of max_asr",
    )
    patience: int = Field(
        3, ge=1, description="readings in a row that may be not finite before max is taken"
    )

    @model_validator(mode="after")
    def _fits(self) -> ControllerSettings:
        if (self.min_margin is None) == (self.max_asr is None):
            given = "neither" if self.min_margin is None else "both"
            raise ValueError(f"a controller needs one of min_margin, max_asr (given: {given})")
        if self.max_asr and self.hysteresis is not None and 2 * self.hysteresis >= self.max_asr:
            raise ValueError(
                f"hysteresis {self.hysteresis} is not below half of max_asr {self.max_asr}, so the "
                "ratio could never fall: leave it out for a quarter of max_asr"
            )
        low, high = _share("min", self.min), _share("max", self.max)
        if low > high:
            raise ValueError(f"min {self.min} is above max {self.max}: exchange them")
        if self.start is not None and not low <= _share("start", self.start) <= high:
            raise ValueError(f"start {self.start} is outside min {self.min} to max {self.max}")
        return self

    @property
    def bounds(self) -> tuple[Fraction, Fraction]:
        """Smallest and largest ratio, under the definition that `ratio_of` names."""
        return _share("min", self.min), _share("max", self.max)

    @property
    def first(self) -> Fraction:
        """The ratio at step 0."""
        low, high = self.bounds
        if self.start is None:
            return min(max(DEFAULT_START, low), high)
        return _share("start", self.start)

    def band(self, margin: Margin) -> float:
        """Safe distance from the bound, in the reading's unit; `margin` says which margin it is."""
        if self.hysteresis is not None:
            return self.hysteresis
        if self.max_asr is not None:
            return _ASR_BAND_SHARE * self.max_asr
        return _MARGIN_BAND_SHARE * MARGIN_SCALES[margin]


def name_ratio_kind(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree as it is, if its `ratio` says what it is.

    Raises:
        ValueError: for a mapping that is neither a schedule nor a controller.
    """
    ratio = tree.get("ratio")
    if isinstance(ratio, Mapping) and not {"schedule", "controller"} & set(ratio):
        given = ", ".join(map(str, ratio)) or "nothing"
        raise ValueError(
            f"ratio has the keys {given}: give schedule (constant, linear, cosine, piecewise) or "
            "controller: target among them"
        )
    return tree


def check_controller(
    ratio: ControllerSettings,
    evaluation: EvaluationSettings,
    *,
    mitigation: str,
    safety_rows: bool,
    granularity: str,
) -> None:
    """Refuse a controller that would have no reading to follow, or no rows to move.

    Args:
        ratio: the controller.
        evaluation: what the run measures.
        mitigation: name of the run's mitigation.
        safety_rows: whether the run trains on safety rows.
        granularity: the run's.

    Raises:
        ValueError: one line.
    """
    if not safety_rows:
        raise ValueError(
            f"ratio: a controller moves the share of safety rows, but mitigation {mitigation} "
            "trains on none here: set safety and a mitigation that uses it, or ratio: 0"
        )
    if granularity == "batch":
        raise ValueError(
            "ratio: a controller needs granularity: row; with batch a reading shows which source "
            "the last steps were of, not the ratio"
        )
    if ratio.min_margin is not None and not evaluation.probes:
        raise ValueError(
            "ratio: min_margin follows the probe, but evaluation.probe_every is 0: set it to auto "
            "or a number of steps"
        )
    if ratio.max_asr is not None and not evaluation.eval_every:
        raise ValueError(
            "ratio: max_asr follows the evaluation, but evaluation.eval_every is 0: set it to a "
            "number of steps"
        )
    dresses = evaluation.dress
    if dresses is not None and ratio.of == "plain" and "plain" not in dresses:
        raise ValueError("ratio: of is plain, but evaluation.dress has no plain: add it")
    if dresses is not None and ratio.of == "dressed" and set(dresses) == {"plain"}:
        raise ValueError("ratio: of is dressed, but evaluation.dress has only plain: add styled")


def _share(name: str, value: float | str) -> Fraction:
    """A share above 0 and below 1, exactly as it was written."""
    try:
        share = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} {value!r} is no number and no fraction such as 1/20") from None
    if not 0 < share < 1:
        raise ValueError(f"{name} {value} is outside (0, 1): 0.05 means five rows of a hundred")
    return share
