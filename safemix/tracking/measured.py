"""Names of the metrics that are read now and then on fixed prompts, not at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_MARGINS: Final = ("safety/margin/", "safety/margin_lookalikes/")
_SEPARATIONS: Final = ("safety/separation/",)
_RATES: Final = ("safety/asr/", "safety/over_refusal/", "safety/incoherent/")
# Of the task source at every step; other metrics below utility/ are of an evaluation.
_EVERY_STEP: Final = ("utility/loss", "utility/row_share", "utility/token_share")


@dataclass(frozen=True)
class Measured:
    """Names that have a reading.

    Attributes:
        margins: refusal margins, in nats.
        separations: shares of pairs of prompts that are told apart, 0 to 1.
        rates: shares of prompts or task rows, 0 to 1.
    """

    margins: tuple[str, ...] = ()
    separations: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()


def measured_names(lines: Iterable[Mapping[str, Any]]) -> Measured:
    """What the lines of a metrics file hold, in the order of the sides."""
    names = {name: None for line in lines for name in line if line[name] is not None}

    def of(kinds: Iterable[str]) -> list[str]:
        return [name for kind in kinds for name in names if name.startswith(kind)]

    rates = of(_RATES)
    rates += [n for n in names if n.startswith("utility/") and n not in _EVERY_STEP]
    return Measured(tuple(of(_MARGINS)), tuple(of(_SEPARATIONS)), tuple(rates))
