"""The key `evaluation`: what is measured while a run trains, on what, and how often."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from safemix.settings_base import SettingsTree

Strategy = Literal["benign", "aoa", "autoif", "autoif+aoa"]
TaskName = Literal["boolq", "gsm8k", "hellaswag", "mmlu", "openbookqa", "piqa", "winogrande"]
Margin = Literal["mean", "odds", "first"]
Dress = Literal["plain", "styled", "aoa", "autoif", "autoif+aoa"]
PROBE_EVERY: Final = 50
"""Steps between two readings of the probe where it costs little enough."""
PROBE_SHARE: Final = 0.015
"""Share of the training work that `probe_every: auto` may cost; the promise is 0.02."""
LEAST_READINGS: Final = 12
"""Readings that a run has at least with `logit_adjustment: auto`, as those of the study had."""
_OFF: Final = {"probe_every": 0, "eval_every": 0}


class TaskRecordsSettings(SettingsTree):
    """Task rows that are not trained on, and how they are asked."""

    file: str = Field(description="records of a task, rows with messages, or builtin:task")
    name: TaskName | None = Field(None, description="task of the records; unset: rows of chats")
    strategy: Strategy = Field("benign", description="how the records are asked")
    confirm: bool = Field(False, description="AOA answers open by confirming, as in training")

    @model_validator(mode="after")
    def _strategy_of_records(self) -> Self:
        if self.confirm and not self.strategy.endswith("aoa"):
            raise ValueError(f"confirm is for the AOA strategies, not for {self.strategy}")
        if self.name is None and self.strategy != "benign":
            raise ValueError("strategy is for records of a named task: give the task's name too")
        return self


class HeldOutSettings(TaskRecordsSettings):
    """Task rows for utility while a run trains; the keys are those of `safemix eval`."""

    limit: int | None = Field(None, ge=1, description="rows measured; unset: eval_prompts")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class EvaluationSettings(SettingsTree):
    """What is measured while training. `evaluation: false` measures nothing."""

    probe_every: int | Literal["auto"] = Field(
        "auto",
        description="optimizer steps between two readings of the refusal margin; auto: 50, or as "
        "many more as keep it below 2 % of the training work, but 12 readings in a run with "
        "logit_adjustment: auto; 0: never",
    )
    eval_every: int = Field(
        0, ge=0, description="steps between two evaluations with completions; 0: never"
    )
    eval_at_start: bool = Field(
        True, description="evaluate the model before the first step too, where eval_every is set"
    )
    harmful: list[str] = Field(
        ["builtin"], min_length=1, description="harmful prompt sets: names, NAME=FILE or files"
    )
    lookalikes: list[str] = Field(
        ["builtin"], min_length=1, description="benign prompt sets that sound unsafe"
    )
    dress: list[Dress] | None = Field(
        None,
        min_length=1,
        description="how prompts are asked; unset: plain, in the layout of the task's rows, and in "
        "the task's prompting strategy",
    )
    prompts: int = Field(
        32,
        ge=1,
        description="harmful prompts of a reading; half as many benign ones, "
        "as many with logit_adjustment: auto",
    )
    margin: Margin = Field(
        "odds", description="how openers are added up: odds, mean or first; see evaluate/probe.py"
    )
    every_margin: bool = Field(False, description="log the margin added up in the other ways too")
    eval_prompts: int = Field(60, ge=1, description="prompts of each set in an evaluation")
    max_new_tokens: int = Field(128, ge=1, description="tokens of a completion")
    judge: str | dict[str, Any] = Field(
        "refusal", description="who judges completions: a name, or {name, options of it}"
    )
    task: HeldOutSettings | None = Field(None, description="held-out task rows, for utility")

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if value is False:
            return dict(_OFF)
        return {} if value is True or value is None else value

    @field_validator("harmful", "lookalikes", "dress", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("probe_every", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value == "auto" or (whole and value >= 0):
            return value
        raise ValueError("expected a number of steps, 0 for never, or auto")

    @field_validator("dress")
    @classmethod
    def _once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("a dress is named twice: name each once")
        return value

    @model_validator(mode="after")
    def _used(self) -> EvaluationSettings:
        if self.task is not None and not self.eval_every:
            raise ValueError(
                "task gives held-out rows for an evaluation, but eval_every is 0: set eval_every"
            )
        return self

    @property
    def probes(self) -> bool:
        """Whether the margin is read at all."""
        return self.probe_every != 0
