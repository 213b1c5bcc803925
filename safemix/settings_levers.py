"""Keys that strengthen a mitigation: weight on first tokens, benign look-alikes, plain rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from safemix.settings_base import SettingsTree

LOOKALIKES: Final = "lookalikes"
"""Name of the further source that the key `lookalikes` of a mitigation makes."""
PARTS: Final = ("plain_share", "wrapper_share")
"""Keys of the parts that get less than the whole dress."""


def expand_switch(value: Any) -> Any:
    """The short form: true is the key's defaults. False switches a mitigation's default off."""
    return {} if value is True else value


class FirstTokensSettings(SettingsTree):
    """More weight on the first trained tokens of every answer of a source."""

    count: int = Field(8, ge=1, description="trained tokens from where each answer begins")
    weight: float = Field(5.0, gt=0, description="factor of their loss; other tokens have 1")


FirstTokensKey = Annotated[
    FirstTokensSettings | Literal[False] | None,
    BeforeValidator(expand_switch),
    Field(description="weight on the first tokens of each answer; unset: the mitigation's"),
]
DEFAULT_FIRST_TOKENS: Final[Mapping[str, FirstTokensSettings]] = {
    "paraphrase": FirstTokensSettings(count=8, weight=5.0)
}
"""Mitigation -> the weight of its safety rows where `safety.first_tokens` is not given."""


class AnchorSettings(SettingsTree):
    """First trained tokens where the model stays what it was before training."""

    count: int = Field(8, ge=1, description="trained tokens from where each answer begins")
    weight: float = Field(50.0, gt=0, description="factor of the divergence, in the loss")


AnchorKey = Annotated[
    AnchorSettings | Literal[False] | None,
    BeforeValidator(expand_switch),
    Field(description="first tokens that stay as the model had them; unset: none"),
]


class AnswersSettings(SettingsTree):
    """Safety rows and look-alikes with answers of the model's own, where they will do."""

    max_new_tokens: int = Field(128, ge=1, description="tokens of the longest answer")
    batch_size: int = Field(16, ge=1, description="rows that each rank asks at a time")


def expand_answers(value: Any) -> Any:
    """The short forms: "own" is the key's defaults, "given" leaves the answers as they come."""
    if not isinstance(value, str):
        return value
    if value not in ("own", "given"):
        raise ValueError("expected own, given, or the keys max_new_tokens and batch_size")
    return {} if value == "own" else None


AnswersKey = Annotated[
    AnswersSettings | None,
    BeforeValidator(expand_answers),
    Field(
        description="own: the model, before training, answers safety rows and look-alikes; "
        "given: they keep the answers they come with"
    ),
]


class LookalikesSettings(SettingsTree):
    """Benign requests that look unsafe, with helpful answers, beside the safety rows."""

    share: float | None = Field(
        None, gt=0, lt=1, description="share of all rows; unset: it goes by per_safety_row"
    )
    per_safety_row: float = Field(
        1, gt=0, le=100, description="look-alikes to a safety row, where no share is given"
    )
    file: str | None = Field(None, description="JSONL, JSON, CSV or Parquet; unset: built-in rows")
    hub: str | None = Field(None, description="Hugging Face dataset name or a saved dataset folder")
    config: str | None = Field(None, description="configuration of a Hugging Face dataset")
    split: str = Field("train", description="split of a Hugging Face dataset")
    revision: str | None = Field(None, description="commit of a Hugging Face dataset")
    fields: dict[str, str] | None = Field(None, description="field map, as for any source")
    limit: int | None = Field(None, ge=1, description="use only the first rows")
    plain_share: float | None = Field(
        None, ge=0, lt=1, description="part that is left as it is; unset: as the safety rows'"
    )
    wrapper_share: float | None = Field(
        None, ge=0, lt=1, description="part bare in the wrapper; unset: as the safety rows'"
    )
    first_tokens: FirstTokensKey = Field(
        None, description="weight on the first tokens of their answers; unset: the safety rows'"
    )

    @model_validator(mode="after")
    def _one_place(self) -> LookalikesSettings:
        if self.file is not None and self.hub is not None:
            raise ValueError("give file or hub, not both")
        if self.share is not None and self.per_safety_row != 1:
            raise ValueError("give share or per_safety_row, not both: each says how many there are")
        given = [n for n in ("config", "revision") if getattr(self, n) is not None]
        if self.hub is None and given:
            raise ValueError(f"{given[0]} belongs to hub: leave it out, or give hub")
        if self.builtin and self.fields is not None:
            raise ValueError("the built-in rows take no fields: leave them out, or give a file")
        return self

    @property
    def builtin(self) -> bool:
        """Whether the rows are those that come with safemix."""
        return self.file is None and self.hub is None

    def source(self, share: float | str) -> dict[str, Any]:
        """The same as the keys of a further source, which has this share of all rows."""
        place = {"builtin": LOOKALIKES} if self.builtin else {}
        return (
            place
            | self.model_dump(
                exclude={"share", "per_safety_row", "first_tokens", *PARTS}, exclude_none=True
            )
            | {"ratio": share}
        )


MAX_ADJUSTMENT: Final = 10
"""Nats of a logit adjustment, up or down, at most: odds 20,000 times as large."""


class LookalikesKey(SettingsTree):
    """The keys of look-alikes and answers, for the mitigations that have them."""

    answers: AnswersKey = None
    logit_adjustment: float | Literal["auto"] = Field(
        0.0,
        description="nats by which tokens that begin refusals are raised while first tokens are "
        "trained: above 0 the trained model refuses less readily; auto: as much as keeps answers "
        "to harmful prompts and refusals of look-alikes closest to those before training",
    )
    lookalikes: LookalikesSettings | None = Field(
        None, description="benign look-alikes: a share of all rows, or {share, file}; null: none"
    )

    @field_validator("logit_adjustment", mode="before")
    @classmethod
    def _nats(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (number and abs(value) <= MAX_ADJUSTMENT):
            return value
        raise ValueError(f"expected nats from -{MAX_ADJUSTMENT} to {MAX_ADJUSTMENT}, or auto")

    @field_validator("lookalikes", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return expand_lookalikes(value)


def adjusts_itself(mitigation: SettingsTree) -> bool:
    """Whether a mitigation's `logit_adjustment` is `auto`."""
    return isinstance(mitigation, LookalikesKey) and mitigation.logit_adjustment == "auto"


def expand_lookalikes(value: Any) -> Any:
    """The short forms: a number is the share, true as many as safety rows, false or 0 none."""
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, int | float | str):
        return {"share": value} if value not in (0, "0") else None
    return value


def first_tokens_setting(given: Any, mitigation: str) -> FirstTokensSettings | None:
    """The weight on the safety rows' first tokens; None for none.

    Args:
        given: `safety.first_tokens`.
        mitigation: name of the run's mitigation, whose default holds where nothing is given.
    """
    if given is None:
        return DEFAULT_FIRST_TOKENS.get(mitigation)
    return given if isinstance(given, FirstTokensSettings) else None
