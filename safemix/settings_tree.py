"""The keys of a run's settings, what each may be, and what may not stand together."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from safemix.settings_base import PromptingSettings, SettingsTree
from safemix.settings_controller import ControllerSettings, check_controller, name_ratio_kind
from safemix.settings_evaluation import EvaluationSettings
from safemix.settings_levers import LOOKALIKES, AnchorKey, FirstTokensKey, adjusts_itself
from safemix.settings_mitigation import (
    BaseSettings,
    MitigationSettings,
    expand_mitigation,
    merge_mimic,
    safety_need,
)
from safemix.settings_paraphrase import MimicSettings, expand_mimic

Precision = Literal["auto", "bf16", "fp16", "fp32"]


class ScheduleSettings(SettingsTree):
    """A ratio that moves with the step."""

    schedule: Literal["constant", "linear", "cosine", "piecewise"]
    start: float | str | None = Field(None, description="ratio at the first step")
    end: float | str | None = Field(None, description="ratio from step `steps` on")
    steps: int | None = Field(None, ge=1, description="optimizer steps from `start` to `end`")
    points: dict[int, float | str] | None = Field(None, description="piecewise: step -> ratio")

    @model_validator(mode="after")
    def _complete(self) -> ScheduleSettings:
        need = {
            "constant": ("start",),
            "linear": ("start", "end", "steps"),
            "cosine": ("start", "end", "steps"),
            "piecewise": ("points",),
        }[self.schedule]
        missing = [name for name in need if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a {self.schedule} schedule also needs {', '.join(missing)}")
        return self


def _kind_of_ratio(value: Any) -> str:
    if isinstance(value, ControllerSettings):
        return "ControllerSettings"
    if isinstance(value, Mapping):
        return "ControllerSettings" if "controller" in value else "ScheduleSettings"
    return "ScheduleSettings" if isinstance(value, ScheduleSettings) else "a ratio"


# Told apart by what is given, so that a mistake in a schedule is not told as "not a number".
RatioSetting = Annotated[
    Annotated[float | str, Tag("a ratio")]
    | Annotated[ScheduleSettings, Tag("ScheduleSettings")]
    | Annotated[ControllerSettings, Tag("ControllerSettings")],
    Discriminator(_kind_of_ratio),
]


class SourceSettings(SettingsTree):
    """Where the rows of one source come from, and how their columns are read."""

    file: str | None = Field(None, description="JSONL, JSON, CSV or Parquet file")
    hub: str | None = Field(None, description="Hugging Face dataset name or a saved dataset folder")
    builtin: Literal["task", "safety", "lookalikes"] | None = Field(
        None, description="rows that come with safemix"
    )
    pool: str | None = Field(None, description="name of a public safety pool")
    config: str | None = Field(None, description="configuration of a Hugging Face dataset")
    split: str = Field("train", description="split of a Hugging Face dataset")
    revision: str | None = Field(None, description="commit of a Hugging Face dataset")
    fields: dict[str, str] | None = Field(
        None, description="field map: prompt, completion, system, input, messages -> column or text"
    )
    prompting: PromptingSettings | None = Field(
        None, description="records are public task fields: {task: piqa, strategy: autoif+aoa}"
    )
    system: str | None = Field(None, description="system prompt for rows that have none")
    limit: int | None = Field(None, ge=1, description="use only the first rows")
    on_bad_row: Literal["skip", "refuse"] = Field(
        "skip", description="rows without an answer: skip and count, or stop"
    )
    ratio: RatioSetting | None = Field(None, description="share of all rows; further sources only")

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        places = ("file", "hub", "builtin", "pool")
        given = [n for n in places if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of file, hub, builtin (given: {given or 'none'}), or a pool"
            )
        taken = [n for n in ("fields", "system", "pool", "builtin") if getattr(self, n) is not None]
        if self.prompting is not None and taken:
            raise ValueError(
                f"prompting makes the whole prompt from task fields: leave out {taken[0]}"
            )
        return self


class SafetySettings(SourceSettings):
    """The safety source: its rows may be rewritten, and those that are no refusals left out."""

    mimic: MimicSettings | None = Field(
        None, description="rewrite the rows like the task's; offline, or the options of a model"
    )
    non_refusals: Literal["keep", "drop"] | None = Field(
        None, description="rows whose answer is no refusal; unset: dropped only for paraphrase"
    )
    first_tokens: FirstTokensKey = None
    anchor: AnchorKey = None

    @field_validator("mimic", mode="before")
    @classmethod
    def _short_mimic(cls, value: Any) -> Any:
        return expand_mimic(value)


class LoraSettings(SettingsTree):
    """Low-rank adapters (PEFT)."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: list[str] | str = "all-linear"
    dora: bool = False
    quantize: Literal["none", "nf4"] = Field("none", description="nf4 is QLoRA; needs a CUDA GPU")


class TrackingSettings(SettingsTree):
    """What is logged where. `metrics.jsonl` is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online if WANDB_API_KEY is set, else offline"
    )
    project: str = "safemix"
    run_name: str | None = None
    group: str | None = None
    progress_bar: bool = True


class Settings(SettingsTree):
    """All settings of one fine-tuning run."""

    model: str = Field("smollm2", description="Hub id, folder, `smollm2` or `tiny`")
    model_revision: str | None = None
    chat_template: str | None = Field(
        None, description="auto if unset; or llama3, chatml, mistral, qwen, gemma, plain"
    )
    task: SourceSettings
    safety: SafetySettings | None = None
    sources: dict[str, SourceSettings] = Field(default_factory=dict)
    mitigation: MitigationSettings = Field(
        default_factory=BaseSettings, description="what keeps the refusals, by name"
    )
    ratio: RatioSetting = Field(0.1, description="share of safety rows")
    ratio_of: Literal["rows", "task", "tokens"] = Field(
        "rows", description="rows: of all rows; task: per task row; tokens: of trained tokens"
    )
    granularity: Literal["row", "batch"] = "row"

    global_batch_size: int = Field(16, ge=1)
    micro_batch_size: int = Field(4, ge=1)
    epochs: float | None = Field(None, gt=0)
    max_steps: int | None = Field(None, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    lr_scheduler: str = "cosine"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0, lt=2**63)

    max_length: int = Field(1024, ge=8, description="tokens of a row")
    overlong: Literal["cut", "drop"] = "cut"
    pad_to_multiple_of: int = Field(8, ge=1)
    num_workers: int = Field(0, ge=0)

    lora: LoraSettings | Literal[False] = Field(default_factory=LoraSettings)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None
    ds_config: str | None = Field("zero2", description="name in ds_configs/, path, or null")
    device: Literal["auto", "cpu"] = "auto"

    save_steps: int = Field(0, ge=0, description="0: only at the end")
    save_total_limit: int | None = Field(3, ge=2)
    resume: Literal["auto", "never"] | str = "auto"
    logging_steps: int = Field(1, ge=1)
    audit_rows: bool = False
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    output_dir: str = "runs/run"
    cache_dir: str | None = Field(None, description="prepared rows; unset: .cache in output_dir")

    @model_validator(mode="before")
    @classmethod
    def _one_mimic(cls, tree: Any) -> Any:
        return merge_mimic(name_ratio_kind(tree)) if isinstance(tree, Mapping) else tree

    @field_validator("task", "safety", mode="before")
    @classmethod
    def _short_source(cls, value: Any) -> Any:
        return expand_source(value)

    @field_validator("mitigation", mode="before")
    @classmethod
    def _short_mitigation(cls, value: Any) -> Any:
        return expand_mitigation(value)

    @field_validator("sources", mode="before")
    @classmethod
    def _short_sources(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: expand_source(spec) for name, spec in value.items()}

    @field_validator("lora", mode="before")
    @classmethod
    def _lora_on(cls, value: Any) -> Any:
        return {} if value is True or value is None else value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        need = safety_need(self.mitigation)
        if self.safety is None and need == "needed":
            raise ValueError(
                f"mitigation {self.mitigation.name} changes safety rows but there is no safety "
                "source: set safety, or mitigation: none"
            )
        if self.safety is None and need == "used" and self.ratio not in (0, 0.0, "0"):
            raise ValueError(
                "ratio is above 0 but there is no safety source: set safety or ratio: 0"
            )
        for name, spec in self.sources.items():
            if name in ("task", "safety"):
                raise ValueError(f"sources.{name}: write it as the top-level key {name}")
            if spec.ratio is None:
                raise ValueError(f"sources.{name}: a further source needs a ratio")
        if LOOKALIKES in self.sources and getattr(self.mitigation, LOOKALIKES, None) is not None:
            raise ValueError(
                "sources.lookalikes: mitigation.lookalikes makes a source of that name"
            )
        if adjusts_itself(self.mitigation) and not self.evaluation.probes:
            raise ValueError(
                "mitigation.logit_adjustment: auto goes by what evaluation.probe_every reads, "
                "which is 0: set it to auto or a number of steps, or give a number of nats"
            )
        if self.granularity == "batch" and self.ratio_of == "tokens":
            raise ValueError("ratio_of: tokens needs granularity: row")
        for key, ratio in [("ratio", self.ratio)] + [
            (f"sources.{n}.ratio", s.ratio) for n, s in self.sources.items() if s.ratio is not None
        ]:
            _check_ratio(key, ratio)
        if isinstance(self.ratio, ControllerSettings):
            check_controller(
                self.ratio,
                self.evaluation,
                mitigation=self.mitigation.name,
                safety_rows=self.safety is not None and need != "dropped",
                granularity=self.granularity,
            )
        return self

    def save(self, path: Path) -> None:
        """Write the resolved settings as YAML."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), "utf-8")


def expand_source(value: Any) -> Any:
    """Turn the short forms of a source into a mapping.

    `builtin:NAME` names rows of safemix and `pool:NAME` a public safety pool; a string that is a
    file here, or ends like one, is a file; any other is a Hugging Face dataset name or folder.
    """
    if not isinstance(value, str):
        return value
    for place in ("builtin", "pool"):
        if value.startswith(f"{place}:"):
            return {place: value.removeprefix(f"{place}:")}
    path = Path(value)
    looks_like_file = path.suffix.lower() in {".jsonl", ".json", ".csv", ".parquet", ".ndjson"}
    return {"file": value} if looks_like_file or path.is_file() else {"hub": value}


def _check_ratio(key: str, ratio: RatioSetting) -> None:
    if isinstance(ratio, ControllerSettings):
        if key != "ratio":
            raise ValueError(
                f"{key}: a controller moves the safety rows' ratio only: give a number"
            )
        return  # its numbers were checked where they stand
    values: list[float | str | None]
    if isinstance(ratio, ScheduleSettings):
        values = [ratio.start, ratio.end, *(ratio.points or {}).values()]
    else:
        values = [ratio]
    for value in values:
        if value is None:
            continue
        try:
            number = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{key} {value!r} is no number and no fraction such as 1/20") from None
        if not 0 <= number < 1:
            raise ValueError(f"{key} {value} is outside [0, 1): 0.05 means five rows of a hundred")
