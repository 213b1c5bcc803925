"""Row-steps that searches for the mixing ratio spend, beside a dense grid.

By default on a plant: response surfaces made by a documented model (`search_plant.py`), or fitted
to the efficacy study's cells (`--cells DIR`), with the product's searchers, score and rule and
Ray's own schedulers. `--real SWEEP` runs real sweeps of a sweep file instead, one after the other.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import bench
from search_cells import surfaces_of_cells
from search_loop import Course, PlantSweep
from search_measure import (
    GOAL,
    Reach,
    Target,
    choices_of,
    plain,
    reach,
    spread_text,
    target_of,
    within,
)
from search_methods import AGAIN, METHODS, VARIED, dense_grid, search
from search_plant import PROMPTS, TASK_ROWS, Surface, random_surfaces

PACKAGES: Final = ("ray", "optuna", "numpy")
# A seed of the noise for the grid, for measuring it again, and for what is held against it.
_GRID, _AGAIN, _SEARCH = 0, 1, 1000


def main() -> None:
    """Run the benchmark.

    Raises:
        SystemExit: for a dense grid that recommends nothing on any surface.
    """
    args = _arguments()
    # Population-based training tells of each change.
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    facts = bench.machine(PACKAGES)
    bench.print_header("Search", facts)
    if args.real:
        from search_real import run_real

        results = run_real(args.real, args.out, args.grid_points)
        bench.write_json(args.json, facts, results)
        return
    surfaces = _surfaces(args)
    plant = Plant(args, surfaces)
    print(plant.words())
    found = {AGAIN: plant.again()}
    for name, changes in {**METHODS, **(VARIED if args.vary else {})}.items():
        found[name] = plant.held(name, changes)
        print(f"{name}: done", file=sys.stderr, flush=True)
    show(found)
    results = {name: [plain(one) for one in reaches] for name, reaches in found.items()}
    bench.write_json(args.json, facts, {"surfaces": plant.names, "reach": results})


class Plant:
    """Surfaces with their dense grids, against which searches are held.

    Args:
        args: of the command line.
        surfaces: all; those on which the dense grid recommends nothing are left out.
    """

    def __init__(self, args: argparse.Namespace, surfaces: Sequence[Surface]) -> None:
        self.args, self.sizes = args, (args.prompts, args.task_rows)
        self.bounds = {"asr": args.bound}
        self.asked = len(surfaces)
        self.targets: list[tuple[Surface, Target]] = []
        for surface in surfaces:
            others = [self._grid(surface, _AGAIN + number) for number in range(args.again)]
            grid = self._grid(surface, _GRID)
            target = target_of(surface, grid, others, self.bounds)
            if target is not None:
                self.targets.append((surface, target))
        if not self.targets:
            raise SystemExit("the dense grid recommends nothing on any surface: raise --bound")

    @property
    def names(self) -> list[str]:
        """Of the surfaces that count."""
        return [surface.name for surface, _ in self.targets]

    def words(self) -> str:
        """What was held against what."""
        args, left_out = self.args, self.asked - len(self.targets)
        grid = self.targets[0][1].rows
        return (
            f"{len(self.targets)} surfaces; dense grid: {args.grid_points} ratios and the baseline "
            f"without mixing, {grid:,} row-steps. ASR within {args.bound:.0%} on {args.prompts} "
            f"prompts a dress, accuracy on {args.task_rows} rows. The dense grid recommends "
            f"nothing on {left_out} further surfaces.\n"
        )

    def again(self) -> list[Reach]:
        """The dense grid itself, measured again: what can be reached at all."""
        return [
            self._reach(target, self._grid(surface, _SEARCH)) for surface, target in self.targets
        ]

    def held(self, name: str, changes: Mapping[str, Any]) -> list[Reach]:
        """A search on every surface."""
        found = []
        for surface, target in self.targets:
            seed = self.args.seed * 100_000 + surface.seed
            settings = search(changes, self.args.bound, self.args.prompts, seed)
            course = PlantSweep(settings, surface, _SEARCH, self.sizes).run()
            found.append(self._reach(target, course))
        return found

    def _grid(self, surface: Surface, noise: int) -> Course:
        settings = dense_grid(self.args.grid_points, self.args.bound, self.args.prompts)
        return PlantSweep(settings, surface, noise, self.sizes).run()

    def _reach(self, target: Target, course: Course) -> Reach:
        return reach(choices_of(course, self.bounds), course.rows, target)


def show(found: Mapping[str, Sequence[Reach]]) -> None:
    """Two tables: by the ratio, and by what the recommended ratio is worth in truth."""
    head = ["search", "row-steps until within 20 %, of the grid's", "reached"]
    head += [f"at {GOAL:.0%} or less", "within 20 % of the usual ratio", f"at {GOAL:.0%} or less"]
    print("### Until the ratio is, and stays, within 20 % of the dense grid's\n")
    bench.print_table(head, [_near_row(name, reaches) for name, reaches in found.items()])
    head = ["search", "row-steps until as good, of the grid's", "reached", f"at {GOAL:.0%} or less"]
    head += ["whole sweep", "ratio at the end, times the grid's", "nothing recommended"]
    print("### Until ASR and accuracy are, and stay, as good in truth\n")
    bench.print_table(head, [_good_row(name, reaches) for name, reaches in found.items()])


def _near_row(name: str, reaches: Sequence[Reach]) -> list[str]:
    near, usual = [r.near for r in reaches], [r.near_usual for r in reaches]
    row = [name, spread_text(near), within(near), within(near, GOAL)]
    return [*row, within(usual), within(usual, GOAL)]


def _good_row(name: str, reaches: Sequence[Reach]) -> list[str]:
    good = [r.as_good for r in reaches]
    ratios = [r.ratio for r in reaches if r.ratio is not None]
    row = [name, spread_text(good), within(good), within(good, GOAL)]
    whole = spread_text([r.whole for r in reaches])
    ratio = bench.spread(ratios).text(digits=2) if ratios else ""
    return [*row, whole, ratio, str(len(reaches) - len(ratios))]


def _surfaces(args: argparse.Namespace) -> list[Surface]:
    if args.cells:
        return surfaces_of_cells(args.cells, args.surfaces, args.seed)
    return random_surfaces(args.surfaces, args.seed)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__ or "")
    parser.add_argument("--surfaces", type=int, default=40)
    parser.add_argument("--grid-points", type=int, default=24, help="ratios of the dense grid")
    parser.add_argument("--again", type=int, default=7, help="grids that say the usual ratio")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="harmful prompts of a dress")
    parser.add_argument("--task-rows", type=int, default=TASK_ROWS, help="held-out task rows")
    parser.add_argument("--bound", type=float, default=0.1, help="on the ASR")
    parser.add_argument("--vary", action="store_true", help="also one setting changed at a time")
    parser.add_argument("--cells", type=Path, metavar="DIR", help="results of efficacy.py")
    parser.add_argument("--real", type=Path, metavar="SWEEP", help="sweep file: train for real")
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help="for --real")
    args = parser.parse_args()
    if args.quick:
        args.surfaces, args.again = min(args.surfaces, 3), 2
    return args


if __name__ == "__main__":
    main()
