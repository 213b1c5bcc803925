"""What a report says, before it is drawn: models, lines of the table, and the notes under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from safemix.errors import DataError
from safemix.evaluate.report.words import SIDE_NAMES, SIGNIFICANT, metric_name, printable
from safemix.evaluate.results import SIDES, Evaluation, Item, Measure, Side
from safemix.evaluate.statistics import Paired

_HASH = 12  # characters of a sha256 that are shown
_INCOHERENT = 0.5  # share of incoherent answers above which the other rates say little
_Key = tuple[str, int]  # key of a measure, and which of those that share it


@dataclass(frozen=True)
class Line:
    """One measure over all models.

    Attributes:
        side: one of `SIDES`.
        what: prompt set or task; empty if the side was not measured for any model.
        dress: of the prompts.
        metric: in words.
        measures: one for each model, None where it was not measured.
        changes: against the base, one for each model; None for the base itself and where one of
            the two was not measured.
    """

    side: Side
    what: str
    dress: str
    metric: str
    measures: tuple[Measure | None, ...]
    changes: tuple[Paired | None, ...]

    @property
    def measured(self) -> bool:
        """Some model has this measure."""
        return any(self.measures)


@dataclass(frozen=True)
class Report:
    """What a table, a page and a picture are made of.

    Attributes:
        models: names, each once; the base first if there is one.
        evaluations: in the order of `models`.
        has_base: the first model is what the others are compared with.
        lines: every side has one at least, in the order of `SIDES`.
        broken: for each model the measures of coherence where more than half of its answers are
            incoherent; its safety and over-refusal then say little.
        notes: what else decides the numbers.
    """

    models: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    has_base: bool
    lines: tuple[Line, ...]
    broken: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def make_report(
    evaluations: Evaluation | Sequence[Evaluation], base: Evaluation | None = None
) -> Report:
    """Lay several evaluations side by side.

    Args:
        evaluations: one or several; the base may be among them.
        base: what the others are compared with, on the items they share.

    Raises:
        DataError: if there is no evaluation.
    """
    given = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    if base is not None:
        given = [base, *(one for one in given if one is not base)]
    if not given:
        raise DataError("there is no evaluation to report on: give at least one")
    indexed = [_indexed(one) for one in given]
    lines = [line for side in SIDES for line in _side_lines(side, indexed, base is not None)]
    names = _unique([printable(one.model) for one in given])
    notes = _notes(names, given, lines, compared=base is not None and len(given) > 1)
    broken = tuple(_broken(one) for one in given)
    notes += [
        f"Warning: more than half of the answers of {name} are incoherent ({'; '.join(where)}): "
        "its safety and over-refusal say little."
        for name, where in zip(names, broken, strict=True)
        if where
    ]
    return Report(tuple(names), tuple(given), base is not None, tuple(lines), broken, tuple(notes))


def pair(first: Measure, second: Measure) -> Paired:
    """Two models on the items that both have: same id, same prompt, judged for both."""
    others = {item.id: item for item in first.items if item.error is None}
    counts: Counter[tuple[bool, bool]] = Counter()
    for item in second.items:
        other = others.get(item.id)
        if other is not None and item.error is None and other.prompt == item.prompt:
            counts[other.counted, item.counted] += 1
    return Paired(
        both=counts[True, True],
        only_first=counts[True, False],
        only_second=counts[False, True],
        neither=counts[False, False],
    )


def hidden_items(evaluation: Evaluation) -> frozenset[tuple[str, str]]:
    """Prompts and completions that only who asks for them may see.

    A completion to a harmful prompt is shown only if it was judged and no measure of safety
    counted it, in full or in part. The same completion is also an item of other measures
    (coherence), so it is known by its text and not by its place.
    """
    cleared: set[tuple[str, str]] = set()
    counted: set[tuple[str, str]] = set()
    asked: set[str] = set()
    for measure in evaluation.side("safety"):
        for item in measure.items:
            asked.add(item.prompt)
            (counted if item.may_harm else cleared).add((item.prompt, item.completion))
    every = {(i.prompt, i.completion) for m in evaluation.measures for i in m.items}
    return frozenset(
        one for one in every if one in counted or (one[0] in asked and one not in cleared)
    )


def is_hidden(item: Item, hidden: frozenset[tuple[str, str]]) -> bool:
    """Whether an item's completion is among the hidden ones."""
    return bool(item.completion) and (item.prompt, item.completion) in hidden


def _indexed(evaluation: Evaluation) -> dict[_Key, Measure]:
    """Measures by key; those that share one (another decoding, say) are numbered."""
    seen: Counter[str] = Counter()
    found: dict[_Key, Measure] = {}
    for measure in evaluation.measures:
        found[measure.key, seen[measure.key]] = measure
        seen[measure.key] += 1
    return found


def _side_lines(side: Side, indexed: Sequence[dict[_Key, Measure]], compare: bool) -> list[Line]:
    keys = dict.fromkeys(k for one in indexed for k, m in one.items() if m.side == side)
    if not keys:
        nothing = (None,) * len(indexed)
        return [Line(side, "", "", "", nothing, nothing)]
    repeated = {key for key, number in keys if number}
    return [_line([one.get(key) for one in indexed], key[0] in repeated, compare) for key in keys]


def _line(measures: Sequence[Measure | None], repeated: bool, compare: bool) -> Line:
    some = next(measure for measure in measures if measure is not None)
    first = measures[0]
    changes = tuple(
        pair(first, m) if compare and place and first is not None and m is not None else None
        for place, m in enumerate(measures)
    )
    what = printable(some.name) + (f" ({printable(some.decoding)})" if repeated else "")
    dress, metric = printable(some.dress), printable(metric_name(some.metric))
    return Line(some.side, what, dress, metric, tuple(measures), changes)


def _broken(evaluation: Evaluation) -> tuple[str, ...]:
    """Where most answers are incoherent: name and dress."""
    return tuple(
        f"{printable(m.name)}, {printable(m.dress)}"
        for m in evaluation.side("coherence")
        if m.rate.value > _INCOHERENT
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Names that occur twice get a number, so that no two columns look the same."""
    total, seen, result = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        result.append(f"{name} ({seen[name]})" if total[name] > 1 else name)
    return result


def _notes(
    names: Sequence[str], evaluations: Sequence[Evaluation], lines: Sequence[Line], compared: bool
) -> list[str]:
    measures = [m for one in evaluations for m in one.measures]
    notes = [
        "Lower is better for safety, over-refusal and coherence; higher for utility. "
        "Intervals: 95 %, Wilson."
    ]
    if compared:
        notes.append(
            "Changes in points on the items that both models have: 95 % interval (Newcombe), p of "
            f"McNemar's test; n where fewer could be paired. Better or worse: p<{SIGNIFICANT:g}, "
            "no correction for many lines."
        )
    notes.append("Judge: " + _grouped([(m.judge, SIDE_NAMES[m.side]) for m in measures]))
    notes.append("Decoding: " + _grouped([(m.decoding, SIDE_NAMES[m.side]) for m in measures]))
    notes.append("Prompt sets (sha256): " + _hashes(measures))
    notes.append("Unjudged items, in no rate: " + _unjudged(names, evaluations))
    return notes + [note for line in lines if compared and (note := _unlike(line))]


def _grouped(pairs: Sequence[tuple[str, str]]) -> str:
    """Values with the sides they are of, like "a (safety, over-refusal); b (utility)"."""
    groups: dict[str, dict[str, None]] = {}
    for value, side in pairs:
        groups.setdefault(printable(value), {})[side] = None
    return "; ".join(f"{value} ({', '.join(sides)})" for value, sides in groups.items()) or "none"


def _hashes(measures: Sequence[Measure]) -> str:
    """Each set with its hash, said more closely where one name has several hashes."""
    found: dict[tuple[str, ...], set[str]] = {}
    for m in measures:
        for known in ((m.name,), (m.name, m.side)):
            found.setdefault(known, set()).add(m.set_hash)
    words: dict[str, None] = {}
    for m in measures:
        parts = [m.name]
        if len(found[m.name,]) > 1:
            parts.append(SIDE_NAMES[m.side])
        if len(found[m.name, m.side]) > 1:
            parts.append(m.dress)
        words[printable(f"{', '.join(parts)} {m.set_hash[:_HASH] or 'no hash'}")] = None
    return "; ".join(words) or "none"


def _unjudged(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    words = [
        f"{m.unjudged} of {len(m.items)} in {printable(m.key)} of {name}"
        for name, one in zip(names, evaluations, strict=True)
        for m in one.measures
        if m.unjudged
    ]
    return "; ".join(words) or "none"


def _unlike(line: Line) -> str:
    """A warning where the models of a line were not measured in the same way."""
    present = [m for m in line.measures if m is not None]
    kinds = {
        "judge": {m.judge for m in present},
        "decoding": {m.decoding for m in present},
        "prompts": {m.set_hash for m in present},
    }
    unlike = [name for name, values in kinds.items() if len(values) > 1]
    if not unlike:
        return ""
    where = f"{SIDE_NAMES[line.side]}, {line.what}, {line.dress}, {line.metric}"
    return f"Warning: the models differ in {' and '.join(unlike)} ({where}): compare with care."
