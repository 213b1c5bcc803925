"""The keys of mimicry and of the mitigation `paraphrase`, with its presets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from safemix.settings_base import SettingsTree
from safemix.settings_levers import (
    LOOKALIKES,
    PARTS,
    LookalikesKey,
    LookalikesSettings,
    expand_lookalikes,
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # The form of the efficacy study, `benchmarks/efficacy.py`, that kept both sides best.
    "calibrated": {
        "answers": {"max_new_tokens": 64},
        "plain_share": 0.15,
        "wrapper_share": 0.3,
        LOOKALIKES: {"per_safety_row": 3, "plain_share": 0.1, "wrapper_share": 0.15},
        "logit_adjustment": "auto",
    }
}
"""Preset -> its values of the keys of paraphrase; a key that is given wins."""


class MimicSettings(SettingsTree):
    """How safety rows are rewritten to look like the task rows."""

    backend: Literal["offline", "openai", "hf"] = Field(
        "offline", description="offline: no model; openai: a server; hf: a local model"
    )
    model: str | None = Field(None, description="model of the openai or hf backend")
    base_url: str | None = Field(None, description="OpenAI-compatible server")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable with the key")
    concurrency: int = Field(8, ge=1, description="questions under way at once")
    answer_design: Literal["text", "option"] | None = Field(
        None, description="multiple choice: refusal as the answer's text or as the chosen option"
    )
    on_failed: Literal["offline", "reject"] = Field(
        "offline", description="rows that fail the checks: written offline instead, or left out"
    )

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str) -> str:
        return variable_name(value)

    @model_validator(mode="after")
    def _model_fits(self) -> MimicSettings:
        if self.backend == "offline":
            given = [name for name in ("model", "base_url") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"the offline backend takes no {given[0]}: leave it out")
        elif self.model is None:
            raise ValueError(f"backend {self.backend} needs model: the name of the rewriter")
        if self.backend == "hf" and self.base_url is not None:
            raise ValueError("the hf backend runs here and takes no base_url: leave it out")
        return self

    def options(self) -> dict[str, Any]:
        """The keys of this class alone, without the name of a mitigation."""
        return self.model_dump(include=set(MimicSettings.model_fields))


class ParaphraseSettings(MimicSettings, LookalikesKey):
    """Safety rows rewritten to look like the task rows."""

    name: Literal["paraphrase"]
    preset: Literal["calibrated"] | None = Field(
        None,
        description="calibrated: own answers, three look-alikes to a safety row and the line "
        "between refusing and answering kept where it was; keys that are given win",
    )
    # What one cell of the efficacy study, `benchmarks/efficacy.py`, came to so far.
    lookalikes: LookalikesSettings | None = Field(
        default_factory=LookalikesSettings,
        description="benign look-alikes: a share of all rows, or {share, file}; false: none",
    )
    plain_share: float = Field(
        0.15, ge=0, lt=1, description="part of the safety rows that is left as it is"
    )
    wrapper_share: float = Field(
        0.35, ge=0, lt=1, description="part that stands bare in the wrapper of the task's requests"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, tree: Any) -> Any:
        name = tree.get("preset") if isinstance(tree, Mapping) else None
        return _filled(tree, PRESETS[name]) if isinstance(name, str) and name in PRESETS else tree

    @property
    def lookalike_parts(self) -> tuple[float, float]:
        """The look-alikes' plain and wrapper parts: their own, or those of the safety rows."""
        own = [getattr(self.lookalikes, name, None) for name in PARTS]
        plain, wrapper = own
        return (
            self.plain_share if plain is None else plain,
            self.wrapper_share if wrapper is None else wrapper,
        )

    @model_validator(mode="after")
    def _parts(self) -> ParaphraseSettings:
        if self.plain_share + self.wrapper_share >= 1:
            plain, wrapper = (
                f"{name} {getattr(self, name)}"
                + ("" if name in self.model_fields_set else " (its default)")
                for name in PARTS
            )
            raise ValueError(
                f"{plain} and {wrapper} leave nothing to mimic: "
                "give less than 1 together, or mitigation: base"
            )
        if sum(self.lookalike_parts) >= 1:
            bare, wrapped = self.lookalike_parts
            raise ValueError(
                f"lookalikes: plain_share {bare} and wrapper_share {wrapped} leave none in the "
                "task's layout: give less than 1 together"
            )
        return self


def _filled(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and the preset's values where nothing was."""
    tree = {**preset, **given}
    own = expand_lookalikes(tree[LOOKALIKES])
    if isinstance(own, Mapping):
        values = dict(preset[LOOKALIKES])
        if own.get("share") is not None:
            del values["per_safety_row"]  # one of the two says how many
        tree[LOOKALIKES] = {**values, **own}
    return tree


def expand_mimic(value: Any) -> Any:
    """The short form, a backend's name, as a mapping; false is none."""
    if value is False:
        return None
    return {"backend": value} if isinstance(value, str) else value


def variable_name(value: str) -> str:
    """Check the name of an environment variable; a secret put there by mistake is not repeated.

    Raises:
        ValueError: if it is no name.
    """
    if not _VARIABLE.fullmatch(value):
        raise ValueError("give the name of an environment variable, not what it holds")
    return value
