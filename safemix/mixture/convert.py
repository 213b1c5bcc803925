"""Other definitions of the ratio, converted to the share of all rows: the one place for it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from safemix.errors import PlanError
from safemix.mixture.ratio import Constant, Cosine, Linear, Piecewise, Ratio

Definition = Literal["rows", "task", "tokens"]


def row_share(
    asked: Fraction,
    definition: Definition,
    *,
    others: Mapping[str, Fraction],
    mean_tokens: Mapping[str, float],
) -> Fraction:
    """Share of all rows that gives `asked` under another definition.

    Args:
        asked: "rows": safety rows per row of the mixture (returned as it is); "task": safety
            rows per task row; "tokens": safety's share of all trained tokens.
        definition: see above.
        others: share of all rows of each further source.
        mean_tokens: mean trained tokens of a row, per source; used for "tokens".

    Returns:
        s in [0, 1). With g the sum of `others` and t = 1 - s - g task rows per row: "task" solves
        s = asked t; "tokens" solves s m_s = asked (s m_s + t m_t + sum of g_i m_i).

    Raises:
        PlanError: if no share of rows gives it.
    """
    if definition == "rows":
        return asked
    taken = sum(others.values(), Fraction(0))
    if definition == "task":
        share = asked * (1 - taken) / (1 + asked)
    else:
        tokens = {
            name: Fraction(value).limit_denominator(10**6) for name, value in mean_tokens.items()
        }
        if not tokens["safety"] or not tokens["task"]:
            raise PlanError("ratio_of: tokens needs trained tokens in both task and safety")
        rest = (1 - taken) * tokens["task"]
        rest += sum((others[name] * tokens[name] for name in others), Fraction(0))
        share = asked * rest / (tokens["safety"] * (1 - asked) + asked * tokens["task"])
    if share + taken >= 1:
        raise PlanError(
            f"ratio {float(asked):g} of {definition} would need {float(share):.3g} of all "
            "rows, more than the other sources leave"
        )
    return share.limit_denominator(10**9)


def convert_ratio(
    ratio: Ratio,
    definition: Definition,
    *,
    others: Mapping[str, Fraction],
    mean_tokens: Mapping[str, float],
) -> Ratio:
    """`row_share` for every value of a ratio or schedule."""

    def share(value: Fraction) -> Fraction:
        return row_share(value, definition, others=others, mean_tokens=mean_tokens)

    match ratio:
        case Constant():
            return Constant(share(ratio.value))
        case Linear() | Cosine():
            return type(ratio)(share(ratio.start), share(ratio.end), ratio.steps)
        case Piecewise():
            return Piecewise(tuple((first, share(value)) for first, value in ratio.points))
        case _:
            raise PlanError(f"a ratio of type {type(ratio).__name__} cannot be converted")
