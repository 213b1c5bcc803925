"""The levers of the mitigation, each alone and together, as variants of one cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from efficacy_cells import DATA, DEFAULT_RATIO, Cell, merged


def _mitigation(**options: Any) -> dict[str, Any]:
    return {"mitigation": {"name": "paraphrase", **options}}


def _first(weight: float) -> dict[str, Any]:
    return {"safety": {"first_tokens": {"count": 8, "weight": weight}}}


def _own(**options: Any) -> dict[str, Any]:
    answers = {"max_new_tokens": 64, "batch_size": 64}
    made = _mitigation(answers=answers, plain_share=0.1, wrapper_share=0.3, **options)
    return {"cache_dir": f"{DATA}/cache", **made}  # the aligned model is asked once for all cells


# Everything that is or may be a default is switched off, so that each lever is seen alone.
OFF: Final[Mapping[str, Any]] = merged(
    _mitigation(
        lookalikes=0,
        plain_share=0.0,
        wrapper_share=0.0,
        answers="given",
        logit_adjustment=0.0,
        answer_design="text",
    ),
    {"safety": {"first_tokens": False}},
)
# With the values of the defaults, so that what each part of them does can be told apart.
_LEVERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "first_5": _first(5.0),
    "first_10": _first(10.0),
    "first_20": _first(20.0),
    "few_rows": {"safety": {"limit": 15}},
    "more_rows": {"ratio": 0.2},
    "tokens": {"ratio_of": "tokens"},
    "lookalikes": _mitigation(lookalikes=True),
    "plain_part": _mitigation(plain_share=0.15),
    "wrapper_part": _mitigation(wrapper_share=0.35),
    "option": _mitigation(answer_design="option"),
    "two_epochs": {"epochs": 2},
    "low_rate": {"learning_rate": 3e-5},
    "first_lookalikes": merged(_mitigation(lookalikes=True), _first(5.0)),
    "first_parts": merged(_mitigation(plain_share=0.15, wrapper_share=0.35), _first(5.0)),
}
_HEAVIER: Final = {"first_tokens": {"count": 8, "weight": 7.0}}
_MORE: Final = {"share": 0.2, "plain_share": 0.1, "wrapper_share": 0.25}
# Most of them in the layout, where they are refused most.
_LAYOUT: Final = {"share": 0.2, "plain_share": 0.05, "wrapper_share": 0.15}
_EVEN: Final = {"share": 0.2, "plain_share": 0.1, "wrapper_share": 0.15}
_MOST: Final = {**_EVEN, "share": 0.3}
# Of safety rows fewer in the layout, where look-alikes are refused most, and more plain.
_PARTS: Final = {"mitigation": {"plain_share": 0.2, "wrapper_share": 0.35}}
# Between these and those of the others.
_BETWEEN: Final = {"mitigation": {"plain_share": 0.15, "wrapper_share": 0.3}}
_READ: Final = {
    "evaluation": {
        "probe_every": 6,
        "prompts": 48,
        "harmful": [f"rest={DATA}/probe_harmful.jsonl"],
        "lookalikes": [f"rest={DATA}/probe_lookalikes.jsonl"],
    }
}
# `default` gives nothing, so it is the mitigation as safemix has it.
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bare": OFF,
    **{name: merged(OFF, lever) for name, lever in _LEVERS.items()},
    "default": {},
    "default_3": _first(3.0),
    "default_10": _first(10.0),
    "default_20": _first(20.0),
    # More of the look-alikes where most of them are refused: in the whole layout of the task.
    "default_styled": _mitigation(lookalikes={"plain_share": 0.05, "wrapper_share": 0.1}),
    # A refusal as one of the options, which the answer then names, in place of the answer's text.
    "default_option": _mitigation(answer_design="option"),
    # First tokens held near the aligned model's, in place of the weight on them and beside it.
    "anchor": {"safety": {"first_tokens": False, "anchor": {"count": 8, "weight": 50.0}}},
    "anchor_300": {"safety": {"first_tokens": False, "anchor": {"count": 8, "weight": 300.0}}},
    "default_anchor": {"safety": {"anchor": {"count": 8, "weight": 50.0}}},
    # Answers of the model's own in safety rows and look-alikes, a little more weight on the latter.
    "own": _own(lookalikes=_HEAVIER),
    "adjusted": _own(lookalikes=_HEAVIER, logit_adjustment=0.7),
    # Twice as many look-alikes as safety rows; then the line where both sides are least bad, by
    # prompts that no evaluation asks.
    "own_more": _own(lookalikes=_MORE),
    "auto": merged(_own(lookalikes=_MORE, logit_adjustment="auto"), _READ),
    "auto_layout": merged(_own(lookalikes=_LAYOUT, logit_adjustment="auto"), _READ),
    "auto_20": merged(_own(lookalikes=_EVEN, logit_adjustment="auto"), _READ),
    # Three times as many look-alikes as safety rows.
    "auto_30": merged(_own(lookalikes=_MOST, logit_adjustment="auto"), _READ),
    "auto_30b": merged(_own(lookalikes=_MOST, logit_adjustment="auto"), merged(_READ, _PARTS)),
    # What is kept are the model's answers before training, and not its first tokens.
    "auto_30c": merged(
        _own(lookalikes=_MOST, logit_adjustment="auto"),
        merged(merged(_READ, _BETWEEN), {"evaluation": {"prompts": 64}}),
    ),
    # The same, with `auto` by the model of its own delay.
    "auto_30d": merged(
        _own(lookalikes=_MOST, logit_adjustment="auto"),
        merged(merged(_READ, _BETWEEN), {"evaluation": {"prompts": 64}}),
    ),
    "default_more": _mitigation(lookalikes=2 * DEFAULT_RATIO),
    # Its bound is what runs at the default ratio end with, see RESULTS.md.
    "controller": {
        "ratio": {"controller": "target", "min_margin": -3.0, "min": 0.02, "max": 0.3},
        "evaluation": {"margin": "odds", "probe_every": 5},
    },
}
_PLACES: Final = (
    ("piqa", "autoif+aoa"),
    ("piqa", "benign"),
    ("gsm8k", "autoif+aoa"),
    ("gsm8k", "benign"),
)


def variant_cells(names: Sequence[str], ratio: float = DEFAULT_RATIO) -> Iterator[Cell]:
    """Cells of paraphrase with the named levers."""
    for task, strategy in _PLACES:
        for name in names:
            yield Cell(task, strategy, "paraphrase", ratio, variant=name, changes=VARIANTS[name])
