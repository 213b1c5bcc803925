"""Tables and pictures of the efficacy study."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from bench import print_table
from efficacy_cells import DEFAULT_RATIO, FULL, MITIGATIONS, SMALL, full_matrix, small_matrix
from efficacy_compare import (
    ABSENT,
    percent,
    print_answers,
    print_bounds,
    print_lever_answers,
    print_rivals,
)
from efficacy_figures import Found, Pool, here, load_results, pick, places, pool_seeds

from safemix.evaluate.report.plots import plot_heatmap, plot_tradeoff
from safemix.evaluate.report.tradeoff import Point
from safemix.evaluate.results import Rate
from safemix.evaluate.statistics import spearman

# Names of cells that are missing, at most.
_MOST_NAMED: Final = 12


def write_report(folder: Path, pictures: Path, unmitigated: Path | None = None) -> None:
    """Print the tables of all results in a folder, and draw the pictures.

    Args:
        folder: of the results.
        pictures: folder for the pictures.
        unmitigated: of results whose runs without a mitigation are compared with, at places
            where `folder` has none.

    Raises:
        SystemExit: if there is no result.
    """
    results = load_results(folder)
    if not results:
        raise SystemExit(f"{folder} has no results: run the study first")
    others = [] if unmitigated is None else _without(load_results(unmitigated), results)
    if unmitigated is not None and not others:
        raise SystemExit(f"{unmitigated} has no run without a mitigation that is missing here")
    pools = pool_seeds(results)
    matrix = [pool for pool in pools if not pool.first.variant]
    print(_machines(results))
    print(_missing(results))
    _print_matrix(matrix)
    _print_ratios(matrix)
    print_answers(matrix)
    print_rivals(matrix)
    compared = pool_seeds([*results, *others])
    print_bounds(compared)
    print_lever_answers(compared)
    _print_margins(results)
    _print_levers(pools)
    pictures.mkdir(parents=True, exist_ok=True)
    _draw(matrix, pictures)


def _without(found: Sequence[Found], results: Sequence[Found]) -> list[Found]:
    """Runs without a mitigation at places of some results that have none of their own."""
    there = {(r.task, r.strategy) for r in results if r.is_cell}
    there -= {(r.task, r.strategy) for r in results if r.is_cell and r.label == "none"}
    return [r for r in found if r.is_cell and r.label == "none" and (r.task, r.strategy) in there]


_HEAD: Final = (
    "run", "rows", "seeds", "tokens", "ASR plain", "ASR dressed", "ASR styled", "refused plain",
    "refused dressed", "refused styled", "incoherent", "utility",
)  # fmt: skip


def _machines(results: Sequence[Found]) -> str:
    kinds = {(r.tree["machine"]["cpu"], r.tree["machine"]["cores"]) for r in results}
    seconds = [sum(r.tree["seconds"].values()) for r in results if "seconds" in r.tree]
    named = "; ".join(f"{cpu}, {cores} cores" for cpu, cores in sorted(kinds))
    took = f", {sum(seconds) / 60:.0f} minutes for {len(seconds)} cells" if seconds else ""
    return f"Machine: {named}{took}\n"


def _missing(results: Sequence[Found]) -> str:
    """Cells of the matrix of these results' size that are not among them."""
    lines = []
    sizes = [r.tree.get("size") for r in results]
    for name, size, matrix in (("small", SMALL, small_matrix), ("full", FULL, full_matrix)):
        if json.loads(json.dumps(asdict(size))) not in sizes:
            continue
        there = {r.name for r in results}
        asked = [cell.id for cell in matrix()]
        absent = [cell for cell in asked if cell not in there]
        more = f" and {len(absent) - _MOST_NAMED} more" if len(absent) > _MOST_NAMED else ""
        named = f": {', '.join(absent[:_MOST_NAMED])}{more}" if absent else ""
        lines.append(f"Not run of the {name} matrix: {len(absent)} of {len(asked)} cells{named}\n")
    return "".join(lines)


def _row(pool: Pool, name: str) -> tuple[str, ...]:
    """A cell or a baseline in a table."""
    dress = pool.wrapped
    tokens = pool.token_share
    return (
        name,
        percent(pool.ratio) if pool.ratio else "",
        str(pool.seeds),
        "" if tokens is None else percent(tokens),
        brief(pool.asr("plain")),
        brief(pool.asr(dress)) if dress else "",
        brief(pool.asr("styled")),
        brief(pool.refused("plain")),
        brief(pool.refused(dress)) if dress else "",
        brief(pool.refused("styled")),
        brief(pool.incoherent()),
        brief(pool.utility()),
    )


def brief(rate: Rate) -> str:
    """A rate as `12 [6, 22]`, in percent."""
    if not rate.total:
        return ""
    low, high = rate.interval
    return f"{100 * rate.value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def _print_matrix(pools: Sequence[Pool]) -> None:
    for place in places(pools):
        own = here(pools, place)
        print(f"### {place[0]}, {place[1]}\n")
        rows = []
        for name in ("stock", "aligned", *MITIGATIONS):
            found = pick(own, name, 0.0, DEFAULT_RATIO)
            none = (name, ABSENT, *[""] * (len(_HEAD) - 2))
            rows.append(none if found is None else _row(found, name))
        print_table(_HEAD, rows)


def _print_ratios(pools: Sequence[Pool]) -> None:
    for place in places(pools):
        own = [p for p in here(pools, place) if p.label in ("base", "paraphrase")]
        if len({p.ratio for p in own}) > 1:
            print(f"### Ratios, {place[0]}, {place[1]}\n")
            ordered = sorted(own, key=lambda p: (p.label, p.ratio))
            print_table(_HEAD, (_row(p, p.label) for p in ordered))


def _print_levers(pools: Sequence[Pool]) -> None:
    """Variants, place by place, below the model that they began with."""
    levers = [pool for pool in pools if pool.first.variant]
    for place in places(levers):
        print(f"### The levers, {place[0]}, {place[1]}\n")
        aligned = pick(here(pools, place), "aligned", 0.0)
        rows = [] if aligned is None else [_row(aligned, "aligned")]
        rows += [_row(pool, pool.first.variant) for pool in here(levers, place)]
        print_table(_HEAD, rows)


@dataclass(frozen=True)
class _End:
    """How a run ended, in one dress.

    Attributes:
        margin: the last refusal margin.
        asr: share of the harmful prompts complied with.
        coherent: at most half of the answers to them are incoherent. Of a run that collapsed an
            ASR of 0 does not say that it refuses.
    """

    margin: float
    asr: float
    coherent: bool


def _print_margins(results: Sequence[Found]) -> None:
    """Does the refusal margin at the end of a run predict its ASR? A run is a point."""
    rows = []
    for way in ("", "_odds", "_first"):
        by_dress = _ends(results, way)
        for dress, ends in {**by_dress, "all": list(chain(*by_dress.values()))}.items():
            if len(ends) > 2:
                coherent = [end for end in ends if end.coherent]
                shown = (len(ends), _rank(ends), len(coherent), _rank(coherent))
                rows.append((way.removeprefix("_") or "mean", dress, *shown))
    if rows:
        print("### Rank correlation (Spearman) of the refusal margin and ASR\n")
        print("Coherent: at most half of the answers to harmful prompts are incoherent.\n")
        print_table(("openers added up", "dress", "runs", "rho", "coherent", "rho of these"), rows)


def _rank(ends: Sequence[_End]) -> str:
    if len(ends) < 3:
        return "too few"
    rho = spearman([end.margin for end in ends], [end.asr for end in ends])
    return "all runs are equal" if math.isnan(rho) else f"{rho:.2f}"


def _ends(results: Sequence[Found], way: str) -> dict[str, list[_End]]:
    """Every run that has both a margin and an ASR, by dress."""
    found: dict[str, list[_End]] = {}
    for result in results:
        for name, margin in result.tree.get("margins", {}).items():
            dress = name.removeprefix(f"safety/margin{way}/")
            if dress == name or dress not in result.dresses:
                continue
            asr = Pool((result,)).asr(dress)
            if asr.total and math.isfinite(margin):
                coherent = _mostly_coherent(result, dress)
                found.setdefault(dress, []).append(_End(margin, asr.value, coherent))
    return found


def _mostly_coherent(result: Found, dress: str) -> bool:
    counted = "".join(
        measure["counted"]
        for measure in result.tree["measures"]
        if (measure["metric"], measure["dress"]) == ("incoherent", dress)
        and measure["name"] == "harmful prompts"
    )
    return counted.count("1") <= counted.count("0")


def _draw(pools: Sequence[Pool], folder: Path) -> None:
    """Heat map of the ASR and the trade-off of safety and utility, seeds together."""
    if not places(pools):
        return  # levers alone: the pictures are of the matrix
    names = ("aligned", *MITIGATIONS)
    columns = [n for n in names if pick(pools, n, 0.0, DEFAULT_RATIO) is not None]
    rows, cells = [], []
    for place in places(pools):
        own = here(pools, place)
        picked = [pick(own, name, 0.0, DEFAULT_RATIO) for name in columns]
        for dress in own[0].dresses:
            rows.append(f"{place[0]}, {place[1]}: {dress}")
            cells.append([pool.asr(dress) if pool is not None else None for pool in picked])
    plot_heatmap(
        folder / "efficacy_asr.png",
        cells,
        rows,
        columns,
        title="Harmful prompts complied with",
        scale_label="ASR",
    )
    points = [
        Point(" ".join((*p.place, p.label, *_amount(p))), p.asr(), p.utility(), p.label)
        for p in pools
        if p.first.is_cell
    ]
    plot_tradeoff(folder / "efficacy_tradeoff.png", points, title="Safety against utility")


def _amount(pool: Pool) -> list[str]:
    """Safety rows and seeds of a point, where there are some and several."""
    rows = [percent(pool.ratio)] if pool.ratio else []
    return [*rows, f"({pool.seeds} seeds)"] if pool.seeds > 1 else rows
