"""The levers of the mitigation, each alone and together, as variants of one cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from efficacy_cells import DEFAULT_RATIO, Cell, merged


def _mitigation(**options: Any) -> dict[str, Any]:
    return {"mitigation": {"name": "paraphrase", **options}}


# Everything that may be a default is switched off, so that each lever is seen alone.
OFF: Final[Mapping[str, Any]] = merged(
    _mitigation(lookalikes=0, plain_share=0.0, wrapper_share=0.0, answer_design="text"),
    {"safety": {"first_tokens": False}},
)
_FIRST: Final = {"safety": {"first_tokens": {"count": 8, "weight": 20.0}}}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bare": {},
    "first_5": {"safety": {"first_tokens": {"count": 8, "weight": 5.0}}},
    "first_20": _FIRST,
    "few_rows": {"safety": {"limit": 15}},
    "more_rows": {"ratio": 0.2},
    "tokens": {"ratio_of": "tokens"},
    "lookalikes": _mitigation(lookalikes=0.05),
    "plain_part": _mitigation(plain_share=0.2),
    "wrapper_part": _mitigation(wrapper_share=0.3),
    "option": _mitigation(answer_design="option"),
    "two_epochs": {"epochs": 2},
    "low_rate": {"learning_rate": 3e-5},
    "first_20_lookalikes": merged(_mitigation(lookalikes=0.05), _FIRST),
    "first_20_parts": merged(_mitigation(plain_share=0.15, wrapper_share=0.35), _FIRST),
    "all": merged(_mitigation(lookalikes=0.05, plain_share=0.15, wrapper_share=0.35), _FIRST),
}
_PLACES: Final = (("piqa", "autoif+aoa"), ("piqa", "benign"))


def variant_cells(names: Sequence[str], ratio: float = DEFAULT_RATIO) -> Iterator[Cell]:
    """Cells of paraphrase with the named levers, on PIQA."""
    for task, strategy in _PLACES:
        for name in names:
            changes = merged(OFF, VARIANTS[name])
            yield Cell(task, strategy, "paraphrase", ratio, variant=name, changes=changes)
