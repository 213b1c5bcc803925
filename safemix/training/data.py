"""Sources read, encoded and mixed: from settings to a joined dataset and its plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets

from safemix.errors import DataError
from safemix.hosts.resume import write_json
from safemix.loading.dataset import MixedDataset
from safemix.loading.encode import Encoder
from safemix.loading.prepare import EncodedSource, load_encoded, prepare_source
from safemix.mixture import MixturePlan, Ratio, ratio_from
from safemix.mixture.convert import convert_ratio
from safemix.rows.read import read_source
from safemix.settings import ScheduleSettings, Settings, SourceSettings


@dataclass(frozen=True)
class Mixture:
    """All that training needs to know about the rows."""

    dataset: MixedDataset
    plan: MixturePlan
    notes: tuple[str, ...]
    """What was skipped, cut or dropped, a line each."""


def source_settings(settings: Settings) -> dict[str, SourceSettings]:
    """The sources in the plan's order: task, safety, then the further ones by name."""
    named = {"task": settings.task}
    if settings.safety is not None:
        named["safety"] = settings.safety
    return named | dict(sorted(settings.sources.items()))


def prepare_sources(settings: Settings, encoder: Encoder, cache: Path) -> str:
    """Read and encode all sources; one process of a machine does this for the others.

    Returns:
        The text of the manifest that `load_mixture` reads; it lies in `cache`.

    Raises:
        DataError: for a source that cannot be read or has no usable row.
    """
    entries: dict[str, Any] = {}
    for name, spec in source_settings(settings).items():
        rows = read_source(name, spec, settings.seed)
        encoded = prepare_source(rows, encoder, cache)
        entries[name] = {
            "path": str(encoded.path),
            "fingerprint": rows.fingerprint,
            "notes": [*rows.report.lines(), *encoded.report.lines()],
            "mean_tokens": encoded.report.mean_trained_tokens,
        }
    path = manifest_path(settings, cache)
    write_json(path, entries)
    return path.read_text("utf-8")


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
    return Mixture(dataset, plan, notes)


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


def _as_ratio(value: Any, name: str) -> Ratio:
    if isinstance(value, ScheduleSettings):
        value = value.model_dump(exclude_none=True)
    return ratio_from(value, name)


def quiet_datasets() -> None:
    """No progress bars of the datasets library: they would come once a rank."""
    datasets.disable_progress_bars()
