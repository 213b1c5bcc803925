"""Safety rows per optimizer step and per rank, beside the schemes of other systems.

Prints a table per setting; `--png FILE` draws the safety rows of the first steps of four schemes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bench
import numpy as np
from composition_schemes import SCHEMES, Counts, Scheme, Setting

PACKAGES = ("torch", "numpy", "datasets", "accelerate")
SETTINGS = (
    Setting(0.05, 128, 8, 16),
    Setting(0.02, 64, 8, 8),
    Setting(0.125, 8, 8, 1),
    Setting(0.001, 32, 8, 4),
)
DRAWN = (0, 1, 3, 7)
"""Places in SCHEMES of those in the picture."""


def main() -> None:
    """Run the benchmark."""
    parser = bench.parser(__doc__ or "")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the first setting")
    args = parser.parse_args()
    steps = 200 if args.quick else args.steps
    facts = bench.machine(PACKAGES)
    bench.print_header("Composition", facts)
    results, pictured = [], {}
    for setting in SETTINGS:
        rows = []
        for scheme in SCHEMES:
            counts, refused = _deal(scheme, setting, steps, args.seed)
            found = {"refused": refused} if counts is None else describe(counts, setting)
            rows.append({"setting": setting.text, "scheme": scheme.name, **found})
            rows[-1]["evidence"] = scheme.evidence
            if setting is SETTINGS[0] and counts is not None:
                pictured[scheme.name] = counts.sum(axis=1)
        results += rows
        _show(setting, steps, rows)
    if args.png:
        draw(args.png, SETTINGS[0], {SCHEMES[n].name: pictured[SCHEMES[n].name] for n in DRAWN})
        print(f"Picture: {args.png}")
    bench.write_json(args.json, facts, results)


def _deal(scheme: Scheme, setting: Setting, steps: int, seed: int) -> tuple[Counts | None, str]:
    try:
        return scheme.deal(setting, steps, seed), ""
    except ValueError as error:
        if not str(error).startswith("refused"):
            raise
        return None, str(error)


def describe(counts: Counts, setting: Setting) -> dict[str, Any]:
    """Figures of safety rows per step and rank.

    Args:
        counts: int64[steps, ranks].
        setting: what was asked for.
    """
    per_step, per_rank = counts.sum(axis=1), counts.sum(axis=0)
    total = int(per_step.sum())
    target = setting.ratio * setting.global_batch * np.arange(1, len(per_step) + 1)
    return {
        "min": int(per_step.min()),
        "max": int(per_step.max()),
        "mean": float(per_step.mean()),
        "std": float(per_step.std()),
        "none": float((per_step == 0).mean()),
        "realised": total / (setting.global_batch * len(per_step)),
        "worst_drift": float(np.abs(per_step.cumsum() - target).max()),
        "rank_min": float(per_rank.min() / total) if total else None,
        "rank_max": float(per_rank.max() / total) if total else None,
        "rank_gap": int((counts.max(axis=1) - counts.min(axis=1)).max()),
    }


def _show(setting: Setting, steps: int, rows: list[dict[str, Any]]) -> None:
    asked = setting.ratio * setting.global_batch
    print(f"### {setting.text}: {asked:.4g} safety rows a step asked, {steps:,} steps\n")
    head = ["scheme", "evidence", "rows a step, min..max", "mean", "std", "steps with none"]
    head += ["realised share", "furthest from target over the run, rows"]
    head += ["share per rank, min..max", "largest gap between ranks in a step, rows"]
    bench.print_table(head, [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    name = [row["scheme"], row["evidence"]]
    if "refused" in row:
        return [*name, row["refused"], *[""] * 7]
    if row["rank_min"] is None:
        shares = "no safety row at all"
    else:
        shares = f"{row['rank_min']:.1%} .. {row['rank_max']:.1%}"
    return [
        *name,
        f"{row['min']} .. {row['max']}",
        f"{row['mean']:.3f}",
        f"{row['std']:.2f}",
        f"{row['none']:.1%}",
        f"{row['realised']:.3%}",
        f"{row['worst_drift']:,.1f}",
        shares,
        str(row["rank_gap"]),
    ]


def draw(path: Path, setting: Setting, pictured: dict[str, Counts], steps: int = 120) -> None:
    """Safety rows of the first steps, a panel a scheme; the titles speak of all steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        len(pictured), 1, figsize=(9, 7), sharex=True, sharey=True, layout="constrained"
    )
    asked = setting.ratio * setting.global_batch
    for panel, (name, per_step) in zip(panels, pictured.items(), strict=True):
        shown = per_step[:steps]
        panel.bar(np.arange(len(shown)), shown, width=1.0, color="#31688e")
        panel.axhline(asked, color="#d1495b", linewidth=1)
        realised = per_step.mean() / setting.global_batch
        title = f"{name}: {per_step.min()} to {per_step.max()} rows, realised {realised:.2%}"
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_ylabel("safety rows")
        panel.set_xlim(-0.5, len(shown) - 0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("optimizer step")
    figure.suptitle(f"{setting.text}; the line is what was asked ({asked:.3g} rows)", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
