"""What a person asks to be measured, as settings: on the command line or in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from safemix.errors import SettingsError
from safemix.evaluate.results import Decoding
from safemix.settings_base import SettingsTree
from safemix.settings_evaluation import TaskRecordsSettings

__all__ = ["EvalSettings", "TaskSettings", "parse_evaluation", "read_evaluation_file"]


class TaskSettings(TaskRecordsSettings):
    """Held-out task rows: for utility, and as the model of the dress "styled"."""

    limit: int | None = Field(None, ge=1, description="rows measured, a fixed sample")


class EvalSettings(SettingsTree):
    """What is asked of a model, as a person writes it."""

    harmful: list[str] = Field(["builtin"], description="sets: a name, a file, or NAME=file")
    lookalikes: list[str] = Field(["builtin"], description="benign sets that look harmful")
    dress: list[str] | None = Field(
        None,
        description="plain, styled, or a prompting strategy; unset: plain and, with a task, in the "
        "layout of its rows and in its strategy",
    )
    system: str | None = Field(None, description="system prompt of the dress plain")
    limit: int | None = Field(None, ge=1, description="prompts of each set, a fixed sample")
    judge: str | dict[str, Any] = Field("refusal", description="of the harmful prompts' answers")
    task: TaskSettings | None = None
    lm_eval: list[str] = Field(default_factory=list, description="tasks of lm-eval by name")
    lm_eval_limit: int | None = Field(None, ge=1, description="rows of each lm-eval task")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1, description="completions of a prompt; needs a temperature")
    max_new_tokens: int = Field(128, ge=1)
    seed: int = Field(0, ge=0, description="of the samples of prompts, and of sampling")

    @model_validator(mode="after")
    def _agree(self) -> EvalSettings:
        for name in ("harmful", "lookalikes", "dress"):
            given = getattr(self, name) or []
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise ValueError(f"{name} names {twice[0]!r} twice: name each once")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0: greedy ones are equal")
        if self.dress == []:
            raise ValueError("dress is empty: give plain, styled or a prompting strategy")
        if "styled" in self.dresses and self.task is None:
            raise ValueError("dress styled needs held-out task rows to look like: give the task")
        if self.system is not None and "plain" not in self.dresses:
            raise ValueError("system is for the dress plain: add it, or leave system out")
        return self

    @property
    def dresses(self) -> list[str]:
        """How prompts are asked: a refusal that holds plain may be gone in the task's dress."""
        if self.dress is not None:
            return self.dress
        if self.task is None:
            return ["plain"]
        own = self.task.strategy
        return ["plain", *([] if own == "benign" else [own]), "styled"]

    @property
    def decoding(self) -> Decoding:
        """How completions are made."""
        return Decoding(
            self.temperature, self.top_p, self.max_new_tokens, self.samples, seed=self.seed
        )


def parse_evaluation(tree: Mapping[str, Any], origin: str = "evaluation") -> EvalSettings:
    """Validate a settings tree.

    Raises:
        SettingsError: one line with the key, the value and what is legal.
    """
    try:
        return EvalSettings.model_validate(dict(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            legal = ", ".join(EvalSettings.model_fields)
            message = f"unknown key: legal are {legal}"
        raise SettingsError(f"{origin}: {key + ': ' if key else ''}{message}") from None


def read_evaluation_file(path: Path) -> dict[str, Any]:
    """Read a settings tree from YAML.

    Raises:
        SettingsError: if the file is missing or no mapping.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such settings file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read: {type(error).__name__}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected a mapping of keys, found {type(tree).__name__}")
    return tree
