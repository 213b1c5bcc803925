"""Schedulers of Ray Tune, as a sweep's settings name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler

from safemix.hosts.ray_keys import STEP
from safemix.tuning.driver import ENTRY, RATIO, TRIAL
from safemix.tuning.halving import Halving
from safemix.tuning.records import TrialRecord
from safemix.tuning.score import MARGIN, SCORE, WORST
from safemix.tuning.settings import SweepSettings
from safemix.tuning.space import DIGITS, Range

__all__ = ["HalvingScheduler", "scheduler_of", "trial_name_of"]

# Where a range of ratios begins at 0, of which nothing can be a multiple.
_LEAST: Final = 1e-4
Records = Callable[[], Sequence[TrialRecord]]


def scheduler_of(settings: SweepSettings, records: Records) -> Any:
    """The scheduler that the settings name.

    Args:
        settings: of the sweep.
        records: says how the trials stand.
    """
    if settings.scheduler == "asha":
        asha = settings.asha
        return HalvingScheduler(
            Halving(
                settings.bounds,
                asha.grace_steps,
                asha.reduction_factor,
                ratio_alone=settings.ratio_alone,
            ),
            records,
        )
    if settings.scheduler == "pbt":
        return _population(settings)
    return FIFOScheduler()


class HalvingScheduler(FIFOScheduler):
    """Stops trials by `Halving`, at their readings.

    Args:
        halving: says which.
        records: of all trials and of the baselines.
    """

    def __init__(self, halving: Halving, records: Records) -> None:
        super().__init__()
        self._halving, self._records = halving, records
        # A report is here before the trial's folder is read again.
        self._reported: dict[str, dict[int, Mapping[str, float]]] = {}
        self.reasons: dict[str, str] = {}
        """Trial that was stopped -> why."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: what it goes by is in the trials' records, and Ray's own files are pickles."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop or go on; the baseline, which has no score, always goes on."""
        step, name = result.get(STEP), trial_name_of(trial)
        if step is None or SCORE not in result:
            return str(TrialScheduler.CONTINUE)
        self._note(name, int(step), result)
        records = self._records()
        readings = {record.name: self._read(record) for record in records}
        reason = self._halving.reason_to_stop(records, readings, name, int(step))
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self.reasons[name] = reason
        return str(TrialScheduler.STOP)

    def _note(self, name: str, step: int, result: Mapping[str, Any]) -> None:
        read = {key: v for key, v in result.items() if isinstance(v, float) and "/" in key}
        known = self._reported.setdefault(name, {})
        if step and result[SCORE] <= WORST:
            # What is not finite is not in a report: such a run is broken, and not merely unread.
            margins = {
                key for reading in known.values() for key in reading if key.startswith(MARGIN)
            }
            read |= dict.fromkeys(margins, math.nan)
        known[step] = read

    def needless(self, record: TrialRecord) -> str | None:
        """Why a trial need not start; None if it is to."""
        return self._halving.nothing_to_gain(self._records(), record)

    def _read(self, record: TrialRecord) -> dict[int, Mapping[str, float]]:
        kept = {int(reading[STEP]): reading for reading in record.readings}
        return {**kept, **self._reported.get(record.name, {})}


def trial_name_of(trial: Any) -> str:
    """The name that the sweep gave a trial of Ray Tune."""
    return str(trial.custom_dirname or trial.config[ENTRY][TRIAL])


def _population(settings: SweepSettings) -> Any:
    domain = settings.space[RATIO]
    if not isinstance(domain, Range):
        raise TypeError("population-based training changes a ratio within a range")
    return PopulationBasedTraining(
        time_attr=STEP,
        metric=SCORE,
        mode="max",
        perturbation_interval=settings.pbt.every_steps,
        hyperparam_mutations={ENTRY: {RATIO: tune.loguniform(domain.low or _LEAST, domain.high)}},
        quantile_fraction=settings.pbt.quantile,
        resample_probability=0.0,
        perturbation_factors=tuple(settings.pbt.factors),
        custom_explore_fn=lambda config: _within(config, domain),
        log_config=False,
        require_attrs=False,  # the baseline has no score
    )


def _within(config: dict[str, Any], domain: Range) -> dict[str, Any]:
    entry = config[ENTRY]
    ratio = min(max(entry[RATIO], domain.low), domain.high)
    return {**config, ENTRY: {**entry, RATIO: float(f"{ratio:.{DIGITS}g}")}}
