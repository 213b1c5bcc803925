"""Pictures of a sweep, written to files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from safemix.tuning.records import TrialRecord

Path = str | os.PathLike[str]


def draw_front(
    path: Path,
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    recommended: TrialRecord | None,
    bound: Mapping[str, float],
) -> None:
    """Worst ASR over sets and dresses against utility, with 95 % intervals both ways.

    Trials are coloured by their ratio. The front, the bound on the ASR, the recommended trial and
    the baselines are marked. A small tick to the right of a point is the one-sided 95 % limit that
    is held against the bound. Trials without both sides are counted below the picture.

    Args:
        path: file to write; its ending says which kind (.png, .svg, .pdf). Replaced whole.
        records: all trials and baselines.
        front: those that no other beats on both sides.
        recommended: one of the records, or None.
        bound: metric -> highest share; `asr` is drawn if it is there.

    Raises:
        OSError: if the file cannot be written.
    """
    from safemix.evaluate.report.figures import save_figure
    from safemix.tuning.report.front_figure import front_figure

    save_figure(front_figure(records, front, recommended, bound), path)


def draw_by_ratio(
    path: Path,
    records: Sequence[TrialRecord],
    recommended: TrialRecord | None,
    bound: Mapping[str, float],
) -> None:
    """ASR of each dress (its worst set) and utility over the ratio, with 95 % intervals.

    The axis is logarithmic; ratio 0 and the untouched model stand apart at the left.

    Args:
        path: file to write; its ending says which kind (.png, .svg, .pdf). Replaced whole.
        records: all trials and baselines.
        recommended: one of the records, or None.
        bound: metric -> highest share; `asr` is drawn if it is there.

    Raises:
        OSError: if the file cannot be written.
    """
    from safemix.evaluate.report.figures import save_figure
    from safemix.tuning.report.ratio_figure import ratio_figure

    save_figure(ratio_figure(records, recommended, bound), path)


def draw_curves(
    path: Path, records: Sequence[TrialRecord], recommended: TrialRecord | None = None
) -> None:
    """Refusal margin (worst dress) and loss of each source by step, one thin line a trial.

    Lines are coloured by the ratio of their stretch. Trials that were stopped or failed end with a
    mark, and so does each change of the ratio.

    Args:
        path: file to write; its ending says which kind (.png, .svg, .pdf). Replaced whole.
        records: all trials and baselines.
        recommended: drawn with a thick line, or None.

    Raises:
        OSError: if the file cannot be written.
    """
    from safemix.evaluate.report.figures import save_figure
    from safemix.tuning.report.curves_figure import curves_figure

    save_figure(curves_figure(records, recommended), path)
