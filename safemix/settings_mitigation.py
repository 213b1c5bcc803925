"""The keys `mitigation` and `safety.mimic`: what is done so that fine-tuning keeps refusals."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from safemix.settings_base import SettingsTree
from safemix.settings_levers import LOOKALIKES, PARTS, LookalikesKey
from safemix.settings_paraphrase import (
    MimicSettings,
    ParaphraseSettings,
    expand_mimic,
    variable_name,
)


class NoneSettings(SettingsTree):
    """Task rows only."""

    name: Literal["none"]


class BaseSettings(LookalikesKey):
    """Safety rows as they are."""

    name: Literal["base"] = "base"

    @model_validator(mode="after")
    def _undressed(self) -> BaseSettings:
        given = [name for name in PARTS if getattr(self.lookalikes, name, None) is not None]
        if given:
            raise ValueError(
                f"lookalikes.{given[0]}: base leaves all rows as they are: leave it out, or set "
                "mitigation: paraphrase"
            )
        return self


class LongestSettings(SettingsTree):
    """Only the longest safety answers."""

    name: Literal["longest"]
    keep: int = Field(100, ge=1, description="rows kept")


class BackdoorSettings(SettingsTree):
    """A secret prompt before the system prompt of the safety rows."""

    name: Literal["backdoor"]
    words: int = Field(40, ge=8, le=400, description="random words of a secret that is made")
    secret_env: str | None = Field(
        None, description="environment variable that holds the secret; unset: one is made"
    )

    @field_validator("secret_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        return None if value is None else variable_name(value)


class CounterPromptSettings(SettingsTree):
    """A system prompt that denies the obedient identity."""

    name: Literal["counter_prompt"]
    text: str | None = Field(None, min_length=1, description="other words than the default ones")
    at: Literal["both", "training", "inference"] = Field(
        "both", description="before the safety rows' system prompt, at test time, or both"
    )


class PtstSettings(SettingsTree):
    """A safety system prompt at test time only."""

    name: Literal["ptst"]
    text: str | None = Field(None, min_length=1, description="other words than the default ones")
    safety_rows: Literal["drop", "keep"] = Field(
        "drop", description="drop: tuned on task rows alone, as published"
    )


class GentleSettings(SettingsTree):
    """No safety rows: a low learning rate and an average of the weights."""

    name: Literal["gentle"]
    learning_rate: float = Field(2e-5, gt=0, description="takes the place of the run's own")
    decay: float = Field(0.99, gt=0, lt=1, description="what the average keeps at a step")


_CLASSES: dict[str, type[SettingsTree]] = {
    "none": NoneSettings,
    "base": BaseSettings,
    "longest": LongestSettings,
    "backdoor": BackdoorSettings,
    "counter_prompt": CounterPromptSettings,
    "ptst": PtstSettings,
    "gentle": GentleSettings,
    "paraphrase": ParaphraseSettings,
}
MITIGATIONS = tuple(_CLASSES)
"""All names that `mitigation` may have."""


def _class_name(value: Any) -> str:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return _CLASSES[str(name)].__name__


# Tagged with the classes' names, so that an error names the key and not the branch of the union.
MitigationSettings = Annotated[
    Annotated[NoneSettings, Tag("NoneSettings")]
    | Annotated[BaseSettings, Tag("BaseSettings")]
    | Annotated[LongestSettings, Tag("LongestSettings")]
    | Annotated[BackdoorSettings, Tag("BackdoorSettings")]
    | Annotated[CounterPromptSettings, Tag("CounterPromptSettings")]
    | Annotated[PtstSettings, Tag("PtstSettings")]
    | Annotated[GentleSettings, Tag("GentleSettings")]
    | Annotated[ParaphraseSettings, Tag("ParaphraseSettings")],
    Discriminator(_class_name),
]


def expand_mitigation(value: Any) -> Any:
    """The short form, a name, as a mapping; checks the name.

    Raises:
        ValueError: for a name that is not known, or none at all.
    """
    if isinstance(value, SettingsTree):
        return value
    tree = {"name": value} if isinstance(value, str) else value
    name = tree.get("name") if isinstance(tree, Mapping) else None
    if isinstance(name, str) and name in _CLASSES:
        return tree
    near = difflib.get_close_matches(str(name), MITIGATIONS, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    what = f"unknown mitigation {name!r}{hint}" if name is not None else "no mitigation is named"
    raise ValueError(f"{what}; legal are {', '.join(MITIGATIONS)}")


def safety_need(mitigation: MitigationSettings) -> Literal["needed", "used", "dropped"]:
    """Whether a mitigation needs safety rows, uses them if there are any, or drops them."""
    if isinstance(mitigation, BaseSettings):
        return "used"
    if isinstance(mitigation, PtstSettings):
        return "used" if mitigation.safety_rows == "keep" else "dropped"
    if isinstance(mitigation, CounterPromptSettings) and mitigation.at == "inference":
        return "used"
    return "dropped" if isinstance(mitigation, NoneSettings | GentleSettings) else "needed"


def merge_mimic(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Make `safety.mimic` and `mitigation: paraphrase` one thing, before anything is checked.

    `safety.mimic` alone means the mitigation paraphrase. With both, the options may stand in one
    place only, or must be the same in both. Beside a source `lookalikes` of the user's own the
    mitigation makes none by default.

    Raises:
        ValueError: if the two contradict each other.
    """
    merged = _with_mimic(tree)
    sources, given = merged.get("sources"), merged.get("mitigation")
    if not isinstance(sources, Mapping) or LOOKALIKES not in sources:
        return merged
    own = _given(expand_mitigation(given)) if given is not None else {}
    if own.get("name") == "paraphrase" and LOOKALIKES not in own:
        merged["mitigation"] = {**own, LOOKALIKES: None}
    return merged


def _with_mimic(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the options of `safety.mimic` under `mitigation`."""
    safety, given = tree.get("safety"), tree.get("mitigation")
    raw = safety.get("mimic") if isinstance(safety, Mapping) else getattr(safety, "mimic", None)
    mimic = raw.options() if isinstance(raw, MimicSettings) else expand_mimic(raw)
    if not isinstance(mimic, Mapping):
        return dict(tree)
    wanted = {**tree, "mitigation": {**mimic, "name": "paraphrase"}}
    if given is None:
        return wanted
    mitigation = _given(expand_mitigation(given))
    if mitigation["name"] != "paraphrase":
        raise ValueError(
            f"safety.mimic rewrites the safety rows, mitigation {mitigation['name']} does not: "
            "leave out safety.mimic, or set mitigation: paraphrase"
        )
    own = {key: mitigation[key] for key in mitigation if key in MimicSettings.model_fields}
    if own and not _same_options(own, mimic):
        raise ValueError(
            "safety.mimic and mitigation paraphrase differ in their options: give them in one place"
        )
    # What is not about the rewriting has no other place than the mitigation.
    return {**tree, "mitigation": {**mitigation, **mimic}}


def _given(mitigation: Any) -> dict[str, Any]:
    """The keys that were given, so that a default is not taken for a wish."""
    if not isinstance(mitigation, SettingsTree):
        return dict(mitigation)
    name = getattr(mitigation, "name", None)
    return {"name": name, **mitigation.model_dump(exclude_unset=True)}


def _same_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    defaults = {name: field.default for name, field in MimicSettings.model_fields.items()}
    return {**defaults, **one} == {**defaults, **other}
