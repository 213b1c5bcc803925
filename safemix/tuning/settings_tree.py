"""The keys of a sweep's settings, and what each may be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from safemix.settings_base import SettingsTree
from safemix.tuning.space import Domain, Range, Space, Values

DEFAULT_TRIALS: Final = 16
HALVINGS: Final = 8
_RANGES: Final = ("log_uniform", "uniform")
RANGES: Final = ("log_uniform", "uniform")
LISTS: Final = ("grid", "choice")
KINDS: Final = (*RANGES, *LISTS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# YAML 1.1 reads 2e-4 as text.
_POWER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


class DomainSettings(SettingsTree):
    """What one key of the run may be."""

    log_uniform: list[float] | None = Field(
        None, description="two ends above 0; drawn evenly over the logarithm"
    )
    uniform: list[float] | None = Field(None, description="two ends; drawn evenly between them")
    grid: list[Any] | None = Field(None, description="values, each of which is tried")
    choice: list[Any] | None = Field(None, description="values that the searcher chooses from")
    whole: bool = Field(
        False, description="whole numbers only; found out by itself where the key takes no others"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_domain(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            inner = [key for key, item in value.items() if key not in KINDS and _looks_like(item)]
            if inner:
                raise ValueError(
                    f"no domain: write keys of the run with dots, such as KEY.{inner[0]}"
                )
            return value
        if isinstance(value, SettingsTree):
            return value
        raise ValueError(
            "no domain: give {log_uniform: [low, high]}, {uniform: [low, high]}, "
            "{grid: [values]} or {choice: [values]}"
        )

    @field_validator("log_uniform", "uniform", mode="before")
    @classmethod
    def _two_numbers(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("expected two numbers, [low, high]")
        if any(isinstance(end, bool) for end in value):
            raise ValueError("expected two numbers, not true or false")
        return value

    @field_validator("grid", "choice", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list of values")
        if any(isinstance(v, float) and not math.isfinite(v) for v in value):
            raise ValueError("expected finite numbers")
        return [float(v) if isinstance(v, str) and _POWER.fullmatch(v) else v for v in value]

    @model_validator(mode="after")
    def _one_kind(self) -> DomainSettings:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(KINDS)} (given: {', '.join(given) or 'none'})"
            )
        if self.whole and given[0] in LISTS:
            raise ValueError(f"whole is for log_uniform and uniform, not for {given[0]}")
        _ = self.domain  # refuses what cannot be
        return self

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def domain(self) -> Domain:
        """The same as the space knows it."""
        given = getattr(self, self.kind)
        if self.kind in LISTS:
            return Values(tuple(given), grid=self.kind == "grid")
        low, high = given
        return Range(low, high, log=self.kind == "log_uniform", whole=self.whole)


def _looks_like(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(set(value) & set(KINDS))


class BoundSettings(SettingsTree):
    """What the recommended run keeps to, with 95 % confidence, in every set and dress."""

    asr: float = Field(gt=0, le=1, description="attack success rate, a share")
    over_refusal: float | None = Field(None, gt=0, le=1, description="look-alikes refused")
    incoherent: float | None = Field(None, gt=0, le=1, description="answers that make no sense")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"asr": value} if number else value

    @property
    def shares(self) -> dict[str, float]:
        """The bounds that are given, by name."""
        return {name: value for name, value in self if value is not None}


class ScoreSettings(SettingsTree):
    """What `pbt` compares running trials by: -loss - weight * (what the margin fell too far)."""

    weight: float = Field(0.2, ge=0, description="nats of task loss per nat of margin")
    slack: float = Field(0.0, ge=0, description="nats that the margin may fall from step 0 on")


class AshaSettings(SettingsTree):
    """Asynchronous successive halving: trials far from the bound stop early, by the probe."""

    grace_steps: int = Field(50, ge=1, description="steps that every trial has")
    reduction_factor: int = Field(3, ge=2, description="one of so many goes on")


class PbtSettings(SettingsTree):
    """Population-based training: the worst go on from the best, at another ratio."""

    every_steps: int = Field(50, ge=1, description="steps between two changes")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share of the trials replaced")
    factors: list[float] = Field(
        [0.8, 1.25], min_length=1, description="what the ratio is multiplied by, one of them"
    )

    @field_validator("factors")
    @classmethod
    def _change(cls, value: list[float]) -> list[float]:
        if any(factor <= 0 or factor == 1 for factor in value):
            raise ValueError("factors are above 0 and not 1: the ratio has to change")
        if len(set(value)) < len(value):
            raise ValueError("a factor is given twice: give each once")
        return value


class ResourceSettings(SettingsTree):
    """What each worker of a trial takes."""

    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)


class SweepSettings(SettingsTree):
    """All settings of a sweep. `run` holds the keys of the run, wherever they were read from."""

    run: dict[str, Any]
    set: dict[str, Any] = Field(default_factory=dict, description="changes to the run")
    search: dict[str, DomainSettings] = Field(min_length=1, description="dotted key -> domain")
    trials: int | None = Field(None, ge=1, description="unset: 16, to bisect 8; a grid: all")
    searcher: Literal["optuna", "random", "grid", "bisect"] = "optuna"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    score: ScoreSettings = Field(default_factory=ScoreSettings)
    asha: AshaSettings = Field(default_factory=AshaSettings)
    pbt: PbtSettings = Field(default_factory=PbtSettings)
    bound: BoundSettings
    workers: int = Field(2, ge=1, description="processes of a trial")
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    parallel: int | Literal["auto"] = Field("auto", description="trials at a time")
    address: str | None = Field(None, description="of a Ray cluster; null starts Ray here")
    wait_for_resources: float = Field(0, ge=0, description="seconds")
    max_restarts: int = Field(2, ge=0, description="of a trial, after a lost worker")
    keep_checkpoints: bool = Field(True, description="of trials that have ended")
    seed: int = Field(0, ge=0, lt=2**32, description="of the searcher")
    output_dir: str = Field("runs/sweep", min_length=1)
    name: str = Field("sweep", description="W&B group of the trials, unless the run names one")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, tree: Any) -> Any:
        """A searcher and a number of trials that suit the search.

        Whoever writes a grid means the searcher grid. For the ratio alone bisection found the dense
        grid's ratio as often as the best of the others, with fewest trials (benchmarks/search.py).
        """
        if not isinstance(tree, Mapping):
            return tree
        made, search = dict(tree), tree.get("search")
        domains = search.values() if isinstance(search, Mapping) else ()
        if made.get("searcher") is None:
            grid = any(isinstance(d, Mapping) and d.get("grid") is not None for d in domains)
            made["searcher"] = "grid" if grid else "bisect" if _ratio_alone(made) else "optuna"
        if made.get("trials") is None and made["searcher"] != "grid":
            made["trials"] = HALVINGS if made["searcher"] == "bisect" else DEFAULT_TRIALS
        if made.get("scheduler") is None:
            made["scheduler"] = "none"
        return made

    @field_validator("parallel", mode="before")
    @classmethod
    def _parallel(cls, value: Any) -> Any:
        if value == "auto" or (
            isinstance(value, int) and not isinstance(value, bool) and value > 0
        ):
            return value
        raise ValueError("expected a number of trials, 1 or more, or auto")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected up to 64 letters, digits, dots, dashes and underscores")
        return value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        plain = value is None or re.fullmatch(r"auto|local|(ray://)?[^\s:/]+:\d{1,5}", value)
        if not plain:
            raise ValueError("expected auto, HOST:PORT or ray://HOST:PORT; null starts Ray here")
        return value

    @property
    def space(self) -> Space:
        """What is searched."""
        return {key: given.domain for key, given in self.search.items()}

    @property
    def bounds(self) -> dict[str, float]:
        """Bounds by name: asr, and over_refusal and incoherent where given."""
        return self.bound.shares

    @property
    def ratio_alone(self) -> bool:
        """Whether what is asked for is the smallest ratio within the bound on ASR."""
        return list(self.search) == ["ratio"] and list(self.bounds) == ["asr"]

    def save(self, path: Path) -> None:
        """Write the sweep, its run included, as YAML that reads back the same."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.to_tree(), sort_keys=False), "utf-8")

    def to_tree(self) -> dict[str, Any]:
        """As plain data, the domains as they were written."""
        tree = self.model_dump(mode="json")
        for key, given in self.search.items():
            tree["search"][key] = given.model_dump(mode="json", exclude_defaults=True)
        return tree


def _ratio_alone(tree: Mapping[str, Any]) -> bool:
    """Whether what is asked for is the smallest ratio within the bound on ASR."""
    search, bound = tree.get("search"), tree.get("bound")
    if not isinstance(search, Mapping) or list(search) != ["ratio"]:
        return False
    domain = search["ratio"]
    ranged = isinstance(domain, Mapping) and any(domain.get(kind) for kind in _RANGES)
    only_asr = not isinstance(bound, Mapping) or list(bound) == ["asr"]
    return ranged and only_asr and tree.get("scheduler") in (None, "none")
