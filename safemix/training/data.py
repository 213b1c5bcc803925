"""Sources read, encoded and mixed: from settings to a joined dataset and its plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from safemix.errors import DataError, PlanError
from safemix.hosts.resume import write_json
from safemix.loading.dataset import MixedDataset
from safemix.loading.encode import Encoder
from safemix.loading.prepare import EncodedSource, load_encoded, prepare_source
from safemix.loading.weights import first_tokens_of
from safemix.mitigation.companions import lookalike_rows
from safemix.mitigation.interface import Context
from safemix.mitigation.paraphrase import paraphrase_levels
from safemix.mitigation.registry import mitigation_for
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.mixture import MixturePlan, Ratio, ratio_from
from safemix.mixture.convert import convert_ratio
from safemix.prompting.source import converter_of
from safemix.rows.pools import describe_pool
from safemix.rows.read import SourceRows, read_source
from safemix.screening.refusal_rows import split_refusals
from safemix.settings import ParaphraseSettings, ScheduleSettings, Settings, SourceSettings
from safemix.settings_controller import ControllerSettings
from safemix.settings_levers import LOOKALIKES, LookalikesKey
from safemix.training.arguments import cache_folder
from safemix.training.process import node_leader, rank, shared


@dataclass(frozen=True)
class Mixture:
    """All that training needs to know about the rows."""

    dataset: MixedDataset
    plan: MixturePlan
    notes: tuple[str, ...]
    """What was skipped, cut or dropped, a line each."""
    bounds: tuple[Fraction, Fraction] | None = None
    """Smallest and largest share of safety rows that a ratio controller may set."""


def source_settings(settings: Settings) -> dict[str, SourceSettings]:
    """The sources in the plan's order: task, safety, then the further ones by name."""
    named = {"task": settings.task}
    if settings.safety is not None:
        named["safety"] = settings.safety
    return named | dict(sorted(settings.sources.items()))


def prepare_sources(
    settings: Settings, encoder: Encoder, cache: Path, secret: str | None = None
) -> str:
    """Read and encode all sources; one process of a machine does this for the others.

    Args:
        settings: as the mitigation has adjusted them.
        encoder: how rows become tokens.
        cache: folder for what is made.
        secret: the secret prompt, for the mitigation that has one.

    Returns:
        The text of the manifest that `load_mixture` reads; it lies in `cache`.

    Raises:
        DataError: for a source that cannot be read or has no usable row.
    """
    entries: dict[str, Any] = {}
    task: SourceRows | None = None
    for name, spec in source_settings(settings).items():
        convert = converter_of(spec, settings.seed)
        rows, done = read_source(name, spec, settings.seed, convert), list[str]()
        licence = [] if spec.pool is None else describe_pool(spec.pool).splitlines()
        if name == "safety" and task is not None:
            rows, done = _mitigated(settings, task, rows, cache, secret)
        elif name == LOOKALIKES and task is not None:
            rows, done = _companions(settings, task, rows, cache)
        task = task or rows
        encoded = prepare_source(rows, encoder, cache)
        entries[name] = {
            "path": str(encoded.path),
            "fingerprint": rows.fingerprint,
            "notes": [*licence, *rows.report.lines(), *done, *encoded.report.lines()],
            "mean_tokens": encoded.report.mean_trained_tokens,
        }
    path = manifest_path(settings, cache)
    write_json(path, entries)
    return path.read_text("utf-8")


def _mitigated(
    settings: Settings, task: SourceRows, safety: SourceRows, cache: Path, secret: str | None
) -> tuple[SourceRows, list[str]]:
    """The safety rows as the run's mitigation wants them, and what was done, a line each."""
    mitigation = mitigation_for(settings)
    asked = settings.safety.non_refusals if settings.safety is not None else None
    keep = asked == "keep" or (asked is None and not mitigation.sorts_out_non_refusals)
    notes: list[str] = []
    if not mitigation.sorts_out_non_refusals:
        try:
            dataset, lines = split_refusals(safety.dataset, keep)
        except DataError as error:
            raise DataError(f"safety: {safety.report.where}: {error}") from None
        notes += lines
        if len(dataset) < len(safety):
            safety = with_rows(safety, each_row(replace(safety, dataset=dataset)))
    context = Context(settings.seed, cache, keep, secret)
    prepared = mitigation.safety_rows(task, safety, context)
    notes += prepared.notes
    if more := first_tokens_of(settings).get("safety"):
        notes.append(f"the first {more.count} trained tokens of an answer weigh {more.weight:g}")
    return prepared.rows, notes


def _companions(
    settings: Settings, task: SourceRows, rows: SourceRows, cache: Path
) -> tuple[SourceRows, list[str]]:
    """The look-alikes as the mitigation wants them; a user's own source of that name stays."""
    own = settings.mitigation
    if not isinstance(own, LookalikesKey) or own.lookalikes is None:
        return rows, []
    dress = None
    if isinstance(own, ParaphraseSettings):
        plain, wrapper = own.lookalike_parts
        dress = replace(paraphrase_levels(own, seed=settings.seed), plain=plain, wrapper=wrapper)
    answered = own.lookalikes.builtin
    prepared = lookalike_rows(task, rows, dress, cache, answered=answered)
    notes = list(prepared.notes)
    if own.lookalikes.first_tokens and (more := first_tokens_of(settings).get(LOOKALIKES)):
        notes.append(f"the first {more.count} trained tokens of an answer weigh {more.weight:g}")
    return prepared.rows, notes


def open_mixture(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, secret: str | None
) -> Mixture:
    """Prepare the data on one process, and open it on all.

    Raises:
        DataError: if a source cannot be used, or machines read different data.
    """
    cache = cache_folder(settings)
    manifest = manifest_path(settings, cache)
    encoder = Encoder(
        tokenizer,
        template=settings.chat_template,
        max_length=settings.max_length,
        overlong=settings.overlong,
    )

    def prepare() -> str:
        cache.mkdir(parents=True, exist_ok=True)
        if secret is not None:
            cache.chmod(0o700)  # the encoded rows hold the secret
        # Runs that share a cache make the same rows once, and not side by side. A run's own cache
        # needs no lock, which some shared file systems do not have.
        with FileLock(cache / ".lock") if settings.cache_dir is not None else nullcontext():
            return prepare_sources(settings, encoder, cache, secret)

    first = shared(prepare)

    def prepare_here() -> None:
        """On a machine that does not share the first one's disk."""
        if manifest.exists() and manifest.read_text("utf-8") == first:
            return
        if not same_rows(prepare(), first):
            raise DataError(
                f"the machine of rank {rank()} reads other rows than that of rank 0: give all "
                "machines the same files"
            )

    shared(prepare_here, leader=node_leader())
    return load_mixture(settings, manifest)


def same_rows(one: str, other: str) -> bool:
    """Whether two manifests are of the same rows; what was noted on the way may differ."""

    def rows(text: str) -> dict[str, Any]:
        return {name: {**e, "notes": []} for name, e in json.loads(text).items()}

    return rows(one) == rows(other)


def manifest_path(settings: Settings, cache: Path) -> Path:
    """Where the manifest of these settings lies; the same name on every process."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return cache / f"mixture-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def load_mixture(settings: Settings, manifest: Path) -> Mixture:
    """Open what `prepare_sources` wrote, and make the plan.

    Raises:
        DataError: if the manifest is not there.
        PlanError: if ratios, sizes and batch do not fit together.
    """
    try:
        entries = json.loads(manifest.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{manifest}: prepared data cannot be read: {error}") from None
    parts: dict[str, Any] = {}
    encoded: dict[str, EncodedSource] = {}
    for name, entry in entries.items():
        encoded[name] = load_encoded(name, Path(entry["path"]))
        parts[name] = encoded[name].rows
    # The metrics, the audit and the plan's state always know a source called safety.
    parts.setdefault("safety", [])
    mean_tokens = {name: float(entry["mean_tokens"]) for name, entry in entries.items()}
    dataset = MixedDataset(parts)
    plan = MixturePlan(
        dataset.sizes,
        _ratios(settings, mean_tokens),
        settings.global_batch_size,
        settings.seed,
        settings.granularity,
        fingerprints={name: entry["fingerprint"] for name, entry in entries.items()},
    )
    notes = tuple(f"{name}: {note}" for name, e in entries.items() for note in e["notes"])
    return Mixture(dataset, plan, notes, _bounds(settings, mean_tokens, dataset.sizes))


def _ratios(settings: Settings, mean_tokens: Mapping[str, float]) -> dict[str, Ratio]:
    further = {
        name: _as_ratio(spec.ratio, f"sources.{name}.ratio")
        for name, spec in settings.sources.items()
    }
    asked = _as_ratio(settings.ratio, "ratio")
    if settings.safety is None:
        return {"safety": asked, **further}
    others: dict[str, Fraction] = {name: ratio.maximum() for name, ratio in further.items()}
    safety = convert_ratio(asked, settings.ratio_of, others=others, mean_tokens=mean_tokens)
    return {"safety": safety, **further}


def _bounds(
    settings: Settings, mean_tokens: Mapping[str, float], sizes: Mapping[str, int]
) -> tuple[Fraction, Fraction] | None:
    """A ratio controller's bounds as shares of all rows; None without one.

    Raises:
        PlanError: if the largest ratio and those of the other sources do not fit together: told
            now, not when the controller gets there.
    """
    if not isinstance(settings.ratio, ControllerSettings):
        return None
    found = []
    for name, value in zip(("min", "max"), settings.ratio.bounds, strict=True):
        try:
            ratios = _ratios(settings.model_copy(update={"ratio": str(value)}), mean_tokens)
            MixturePlan(sizes, ratios, settings.global_batch_size)
        except PlanError as error:
            raise PlanError(f"ratio.{name} {float(value):g}: {error}") from None
        found.append(ratios["safety"].maximum())
    return found[0], found[1]


def _as_ratio(value: Any, name: str) -> Ratio:
    if isinstance(value, ControllerSettings):
        value = value.first
    if isinstance(value, ScheduleSettings):
        value = value.model_dump(exclude_none=True)
    return ratio_from(value, name)


def quiet_datasets() -> None:
    """No progress bars of the datasets library: they would come once a rank."""
    datasets.disable_progress_bars()
