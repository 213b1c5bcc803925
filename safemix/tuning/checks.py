"""What can be known of a sweep before it starts: settings that cannot work are refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import SettingsError
from safemix.settings import Settings, accumulation_steps, parse_settings
from safemix.settings_evaluation import PROBE_EVERY
from safemix.settings_levers import LookalikesKey
from safemix.tuning.limits import BOUNDED, prompts_needed
from safemix.tuning.points import (
    LISTED,
    RATIO,
    distinct_points,
    drops_safety,
    run_of,
    run_tree,
    settle_point,
)
from safemix.tuning.space import Range, crossings, size

if TYPE_CHECKING:
    from safemix.tuning.settings_tree import SweepSettings

__all__ = ["check_sweep", "whole_keys"]

# Combinations of edges that are tried; above it one key is changed at a time.
_TRIED: Final = 256
_PLACE: Final = "trial"
# Keys of the run that are the same for all trials of a sweep, and why.
_COMPARED: Final = "trials are compared on the same prompts and rows"
_FIXED: Final[Mapping[str, str]] = {
    "task": _COMPARED,
    "evaluation": _COMPARED,
    "seed": _COMPARED,
    "model": "trials are compared with one untouched model",
    "model_revision": "trials are compared with one untouched model",
    "output_dir": "each trial has a folder of its own in the sweep's output_dir",
    "cache_dir": "trials share what is prepared",
    "resume": "each trial goes on by itself",
    "tracking": "each trial has a run of its own in one group",
}


def whole_keys(sweep: SweepSettings) -> list[str]:
    """Keys with a range of which the run takes whole numbers only.

    A number that is not whole is tried between whole ends.

    Raises:
        SettingsError: if a key may not be searched.
    """
    _check_keys(sweep)
    found = []
    for key, domain in sweep.space.items():
        if not isinstance(domain, Range) or domain.whole:
            continue
        if not (float(domain.low).is_integer() and float(domain.high).is_integer()):
            continue
        point = _using(sweep, key)
        if point is not None and not _accepts(sweep, {**point, key: _between(domain)}):
            found.append(key)
    return found


def check_sweep(sweep: SweepSettings) -> None:
    """Refuse what cannot work.

    Raises:
        SettingsError: one line.
    """
    run = parse_settings(run_of(sweep), "run")
    _check_keys(sweep)
    _check_searcher(sweep)
    _check_points(sweep)
    _check_number(sweep)
    _check_evaluation(sweep, run)
    _check_scheduler(sweep, run)
    _check_resources(sweep)


def _check_keys(sweep: SweepSettings) -> None:
    for key in sweep.search:
        why = _FIXED.get(key.partition(".")[0])
        if why is not None:
            raise SettingsError(f"search.{key}: {why}: set it in the run")
        parts = key.split(".")
        if not all(parts):
            raise SettingsError(f"search: {key!r} is no key: write it like lora.r")
    if "output_dir" in sweep.set:
        raise SettingsError("set.output_dir: the sweep has a key output_dir of its own: set that")


def _check_searcher(sweep: SweepSettings) -> None:
    kinds = {key: given.kind for key, given in sweep.search.items()}
    ranges = [key for key, domain in sweep.space.items() if isinstance(domain, Range)]
    if sweep.searcher == "grid":
        if ranges:
            raise SettingsError(
                f"search.{ranges[0]} is {kinds[ranges[0]]}, of which there is no end: a grid takes "
                "grid and choice only; list values, or set searcher: optuna or random"
            )
        points = distinct_points(sweep)
        if points is None:
            raise SettingsError(
                f"search: a grid of {size(sweep.space)} points is too large, {LISTED} are the "
                "most: give fewer values, or set searcher: optuna or random"
            )
        if sweep.trials is not None:
            raise SettingsError(
                f"trials {sweep.trials}: a grid tries each of its {len(points)} points: leave "
                "trials out"
            )
        return
    if sweep.searcher == "bisect":
        _check_bisection(sweep)
    grids = [key for key, kind in kinds.items() if kind == "grid"]
    if grids:
        raise SettingsError(
            f"search.{grids[0]} is a grid, each value of which is tried; searcher "
            f"{sweep.searcher} picks values: write choice, or set searcher: grid"
        )


def _check_bisection(sweep: SweepSettings) -> None:
    others = [key for key in sweep.search if key != RATIO]
    if others or not isinstance(sweep.space.get(RATIO), Range):
        raise SettingsError(
            f"searcher bisect looks for the smallest safe ratio, but {(others or [RATIO])[0]} is "
            "searched otherwise: search ratio alone, with log_uniform or uniform, or set "
            "searcher: optuna"
        )
    rising = [name for name in sweep.bounds if name != "asr"]
    if rising:
        raise SettingsError(
            f"searcher bisect goes by the bound on asr alone, and bound.{rising[0]} is given too: "
            "leave it out, or set searcher: optuna"
        )
    if sweep.scheduler == "pbt":
        raise SettingsError(
            "scheduler pbt begins all trials at once, so nothing is known to halve a range by: set "
            "searcher: random or optuna"
        )


def _check_number(sweep: SweepSettings) -> None:
    points = distinct_points(sweep)
    if points is not None and sweep.trials is not None and sweep.trials > len(points):
        raise SettingsError(
            f"trials {sweep.trials}: the search has only {len(points)} different points: set "
            f"trials: {len(points)}, or searcher: grid with lists of values"
        )


def _check_points(sweep: SweepSettings) -> None:
    """Try every value and end through the run's own checks; a key must do something somewhere."""
    useless = dict.fromkeys(sweep.search, "")
    for point in crossings(sweep.space, _TRIED):
        settings = _parsed(sweep, point)
        settled = settle_point(sweep, point)
        try:
            accumulation_steps(settings, sweep.workers)
        except SettingsError as error:
            raise SettingsError(f"{_where(point)}: {error}") from None
        useless = {key: settled.left_out[key] for key in useless if key in settled.left_out}
    for key, why in useless.items():
        raise SettingsError(f"search.{key}: it does nothing in any trial: {why}: leave it out")
    for key, domain in sweep.space.items():
        used = _using(sweep, key)
        # The ends are legal: then so is what lies between, if it is a number of the right type.
        if isinstance(domain, Range) and not domain.whole and used is not None:
            _parsed(sweep, {**used, key: _between(domain)})


def _check_evaluation(sweep: SweepSettings, run: Settings) -> None:
    """Whether the run measures what the recommendation goes by, on enough prompts."""
    wanted = run.evaluation
    if not wanted.eval_every:
        raise SettingsError(
            "evaluation.eval_every of the run is 0, so no trial would have an ASR: set it to a "
            "number of steps; one above max_steps evaluates at the end only"
        )
    if wanted.task is None:
        raise SettingsError(
            "evaluation.task of the run is not set, so no trial would have a utility: give "
            "held-out rows of the task"
        )
    sets = {"asr": 1, "over_refusal": 1, "incoherent": 1}
    # Incoherent answers are counted over all sets of a side together.
    sets["incoherent"] = min(len(wanted.harmful), len(wanted.lookalikes))
    for name, bound in sweep.bounds.items():
        need, have = prompts_needed(bound), wanted.eval_prompts * sets[name]
        if need is not None and have < need:
            raise SettingsError(
                f"bound.{name} {bound:g} cannot be shown with evaluation.eval_prompts "
                f"{wanted.eval_prompts}: even with no {BOUNDED[name].one} among {have} prompts the "
                f"95 % limit is above it; {need} prompts are the least"
            )


def _check_scheduler(sweep: SweepSettings, run: Settings) -> None:
    if sweep.scheduler == "none":
        return
    every = run.evaluation.probe_every
    first = PROBE_EVERY if every == "auto" else every
    key, steps = ("asha.grace_steps", sweep.asha.grace_steps)
    if sweep.scheduler == "pbt":
        key, steps = ("pbt.every_steps", sweep.pbt.every_steps)
    if not first:
        raise SettingsError(
            f"scheduler {sweep.scheduler} goes by the probe, but evaluation.probe_every of the run "
            "is 0: set it to a number of steps"
        )
    if steps < first:
        least = " or more (auto)" if every == "auto" else ""
        raise SettingsError(
            f"{key} {steps} is before the first reading of the probe, at step {first}{least}: "
            "raise it, or set evaluation.probe_every of the run"
        )
    if run.max_steps is not None and steps >= run.max_steps:
        raise SettingsError(
            f"{key} {steps} is not below the run's max_steps {run.max_steps}, so scheduler "
            f"{sweep.scheduler} would do nothing: lower it, or set scheduler: none"
        )
    if sweep.scheduler == "pbt":
        _check_pbt(sweep, run)


def _check_pbt(sweep: SweepSettings, run: Settings) -> None:
    if sweep.searcher == "grid":
        raise SettingsError(
            "scheduler pbt changes the ratio of running trials, which leaves no grid: set "
            "searcher: random or optuna"
        )
    if not isinstance(sweep.space.get(RATIO), Range):
        raise SettingsError(
            "scheduler pbt changes the ratio of running trials: search ratio with log_uniform or "
            "uniform"
        )
    others = [key for key in sweep.search if key != RATIO]
    if others:
        raise SettingsError(
            f"scheduler pbt changes the ratio only, and a trial that goes on from another one "
            f"could not keep its own {others[0]}: search the ratio alone, or set scheduler: asha"
        )
    if drops_safety(run_of(sweep)):
        raise SettingsError("scheduler pbt moves the share of safety rows, but the run has none")
    follows = isinstance(run.mitigation, LookalikesKey) and run.mitigation.lookalikes
    if follows and follows.share is None:
        raise SettingsError(
            "scheduler pbt changes the ratio of running trials, and look-alikes that go by the "
            "safety rows could not follow it: give mitigation.lookalikes of the run a "
            "share, for example mitigation: {name: paraphrase, lookalikes: 0.05}, or false"
        )


def _check_resources(sweep: SweepSettings) -> None:
    gpus = sweep.resources.gpus_per_worker
    if gpus != int(gpus) and (gpus > 1 or sweep.workers > 1):
        raise SettingsError(
            f"resources.gpus_per_worker {gpus:g}: workers of one trial cannot share a GPU: give a "
            "whole number, or workers: 1 and a share below 1"
        )


def _using(sweep: SweepSettings, key: str) -> dict[str, Any] | None:
    """A point in which a key does something; None if there is none."""
    return next(
        (p for p in crossings(sweep.space, _TRIED) if key not in settle_point(sweep, p).left_out),
        None,
    )


def _between(domain: Range) -> float:
    """A number of the range that is not whole."""
    middle = domain.low + (domain.high - domain.low) * 0.3819
    return middle if not float(middle).is_integer() else domain.low + (domain.high - domain.low) / 7


def _accepts(sweep: SweepSettings, point: Mapping[str, Any]) -> bool:
    try:
        _parsed(sweep, point)
    except SettingsError:
        return False
    return True


def _parsed(sweep: SweepSettings, point: Mapping[str, Any]) -> Settings:
    return parse_settings(run_tree(sweep, point, output_dir=_PLACE), _where(point))


def _where(point: Mapping[str, Any]) -> str:
    return f"search ({', '.join(f'{key}={value}' for key, value in point.items())})"
