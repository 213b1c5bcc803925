"""The same comparison with real trials: sweeps of one sweep file, one after the other.

Each goes through `safemix.tuning.tune.tune`. What is recommended when is read from the records that
a sweep keeps of its trials, while it runs. The truth is not known here, so that only the ratio is
held against the dense grid's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import bench
from search_loop import Course, Moment
from search_measure import choices_of, plain, reach, target_of_real
from search_methods import GRID, METHODS, grid_ratios

from safemix.errors import SettingsError
from safemix.tuning.driver import RATIO
from safemix.tuning.gather import read_records
from safemix.tuning.records import ENDED, TrialRecord
from safemix.tuning.settings import SweepSettings, load_sweep
from safemix.tuning.space import Range
from safemix.tuning.sweep import TRIALS

_EVERY_S: Final = 1.0


def run_real(sweep: Path, out: Path, points: int) -> dict[str, Any]:
    """Run the dense grid and every search, and print the table.

    Args:
        sweep: sweep file whose search is the ratio alone, within a range.
        out: gets a folder a sweep.
        points: of the dense grid.

    Returns:
        Figures by search.

    Raises:
        SettingsError: for a sweep file that cannot be used.
        SystemExit: if the dense grid recommends nothing.
    """
    given = load_sweep(sweep)
    domain = given.space.get(RATIO)
    if list(given.space) != [RATIO] or not isinstance(domain, Range) or domain.low <= 0:
        raise SettingsError(f"{sweep}: search ratio alone, with log_uniform, to compare searches")
    ratios = grid_ratios(points, domain.low, domain.high)
    grid = {"searcher": "grid", "scheduler": "none", "trials": None, "search.ratio.grid": ratios}
    course = _run(load_sweep(sweep, overrides(grid, out / "grid")))
    target = target_of_real(course, given.bounds)
    if target is None:
        raise SystemExit("the dense grid recommends nothing: see its report, and raise the bound")
    found: dict[str, Any] = {GRID: {"ratio": target.ratio, "rows": target.rows}}
    for number, (name, changes) in enumerate(METHODS.items()):
        try:
            folder = out / f"search-{number}"
            own = _run(load_sweep(sweep, overrides(_over(changes, ratios), folder)))
        except SettingsError as error:
            found[name] = {"not run": str(error)}
            continue
        found[name] = plain(reach(choices_of(own, given.bounds), own.rows, target))
    show(found)
    return found


def _over(changes: Mapping[str, Any], ratios: Sequence[float]) -> Mapping[str, Any]:
    """A search over a grid is one over the dense grid's ratios."""
    if "search" not in changes:
        return changes
    kept = {key: value for key, value in changes.items() if key != "search"}
    return {**kept, "trials": None, "search.ratio.grid": list(ratios)}


def overrides(changes: Mapping[str, Any], folder: Path) -> list[str]:
    """Changes to a sweep file, as `safemix tune --set` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()] + [
        f"output_dir={json.dumps(str(folder))}"
    ]


class Watch:
    """Follows a sweep by the records in its folder, in a thread of its own.

    Args:
        trials: the sweep's folder of trials.
    """

    def __init__(self, trials: Path) -> None:
        self._trials, self._done = trials, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._ended: list[TrialRecord] = []
        self._moments: list[Moment] = []
        self._rows = self._stopped = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self.look()

    @property
    def course(self) -> Course:
        """What was seen."""
        return Course(tuple(self._moments), self._rows, self._stopped, 0)

    def look(self) -> None:
        """Take up what has changed: a moment for each trial that is done since."""
        records = read_records(self._trials)
        self._rows = sum(record.rows for record in records)
        known = {record.name for record in self._ended}
        fresh = [r for r in records if r.status in ENDED and r.name not in known]
        for record in fresh:
            self._ended.append(record)
            if record.kind == "trial" and record.status == "done":
                self._moments.append(Moment(self._rows, tuple(self._ended)))
            self._stopped += record.status == "stopped"

    def _follow(self) -> None:
        while not self._done.wait(_EVERY_S):
            self.look()


def _run(settings: SweepSettings) -> Course:
    from safemix.tuning.tune import tune

    with Watch(Path(settings.output_dir) / TRIALS) as watch:
        tune(settings)
    return watch.course


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """One line a search."""
    head = ["search", "row-steps until within 20 %, of the grid's", "whole sweep"]
    head += ["ratio at the end, times the grid's"]
    rows = [_row(name, figures) for name, figures in found.items() if name != GRID]
    grid = found[GRID]
    print(f"Dense grid: ratio {grid['ratio']:.4g}, {grid['rows']:,} row-steps.\n")
    bench.print_table(head, rows)


def _row(name: str, figures: Mapping[str, Any]) -> Sequence[str]:
    if "not run" in figures:
        return name, f"not run: {figures['not run']}", "", ""
    near = "never" if figures["near"] is None else f"{figures['near']:.0%}"
    ratio = "none" if figures["ratio"] is None else f"{figures['ratio']:.2f}"
    return name, near, f"{figures['whole']:.0%}", ratio
