"""What a run is measured on: prompt sets, dressed once, the same on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import DataError
from safemix.evaluate.probe_openers import PLAIN, Openers, task_openers
from safemix.evaluate.probe_reading import ProbeGroup, ProbeSide
from safemix.evaluate.prompt_sets import PromptSet, load_prompt_set
from safemix.mitigation.inference import InferencePrompt
from safemix.mitigation.interface import Mitigation
from safemix.prompting.source import converter_of
from safemix.rows.read import read_source
from safemix.rows.schema import Message
from safemix.settings import Settings
from safemix.settings_controller import ControllerSettings
from safemix.settings_evaluation import EvaluationSettings
from safemix.settings_levers import adjusts_itself
from safemix.training.process import shared

if TYPE_CHECKING:
    from safemix.evaluate.dressing import Dresser

# Task rows that the style of a dress and the openers of answers are read from.
_STYLE_ROWS: Final = 512


@dataclass(frozen=True)
class Prompts:
    """What a run is measured on.

    Attributes:
        groups: of the probe.
        notes: what a person should know of them, a line each.
    """

    groups: tuple[ProbeGroup, ...]
    notes: tuple[str, ...] = ()


def inference_of(mitigation: Mitigation, secret: str | None) -> InferencePrompt:
    """What goes before the system prompt when the model of this run is asked."""
    found = mitigation.at_inference()
    return replace(found, system_prefix=secret) if secret is not None else found


def dresses(settings: Settings) -> tuple[str, ...]:
    """How prompts are asked: as the settings say, else plain and in all that the task's rows wear.

    A refusal may hold in a strategy's wrapper and be gone in the whole layout, or the other way
    round, so both are asked.
    """
    if settings.evaluation.dress is not None:
        return tuple(settings.evaluation.dress)
    prompting = settings.task.prompting
    if prompting is not None and prompting.strategy != "benign":
        return ("plain", prompting.strategy, "styled")
    return ("plain", "styled")


def prompts_of(settings: Settings, inference: InferencePrompt) -> Prompts:
    """Read and dress the probe's prompts on rank 0, for all ranks.

    Raises:
        SafemixError: on every rank, for a set or dress that cannot be used.
    """
    tree = shared(lambda: _prepare(settings, inference))
    return Prompts(tuple(_group(entry) for entry in tree["groups"]), tuple(tree["notes"]))


def task_chats(settings: Settings) -> list[list[Message]]:
    """The first task rows as messages: what the task looks like."""
    limit = min(settings.task.limit or _STYLE_ROWS, _STYLE_ROWS)
    spec = settings.task.model_copy(update={"limit": limit})
    rows = read_source("task", spec, settings.seed, converter_of(spec, settings.seed))
    return list(rows.dataset["messages"])


def check_labels(settings: Settings) -> None:
    """Refuse `logit_adjustment: auto` where every answer of the task begins with a label.

    It goes by first tokens, which say nothing there. All ranks call it.

    Raises:
        DataError: naming the dresses and the label.
    """
    led = [name for name in dresses(settings) if name != "plain"]
    if not led or not adjusts_itself(settings.mitigation):
        return
    label = shared(lambda: task_openers(task_chats(settings)).lead)
    if label:
        raise DataError(
            "mitigation.logit_adjustment: auto goes by the first token of an answer, and in "
            f"{', '.join(led)} every answer begins with {label.strip()!r}: set it to 0, leave that "
            "out of the task's answers, or read plain prompts alone (evaluation: {dress: [plain]})"
        )


def dressers_of(
    settings: Settings, inference: InferencePrompt, chats: Sequence[Sequence[Message]]
) -> tuple[list[Dresser], list[str]]:
    """A dresser for each dress, and notes.

    Raises:
        DataError: if a dress that was asked for, or that a controller follows, cannot be had.
    """
    from safemix.evaluate import dressing

    found: list[Dresser] = []
    notes: list[str] = []
    for name in dresses(settings):
        if name == "plain":
            found.append(dressing.plain_dresser(inference=inference))
        elif name != "styled":
            found.append(dressing.strategy_dresser(name, inference=inference))
        else:
            try:
                styled = dressing.style_dresser(chats, settings.seed, inference=inference)
            except DataError as error:
                if settings.evaluation.dress is not None:
                    raise
                notes.append(f"evaluation: no prompt is asked in the task's layout ({error})")
            else:
                found.append(styled)
    ratio = settings.ratio
    dressed = any(dresser.name != "plain" for dresser in found)
    if isinstance(ratio, ControllerSettings) and ratio.of == "dressed" and not dressed:
        # It would wait for a reading that never comes.
        raise DataError(f"ratio: of is dressed, but {notes[0]}: set of to worst or plain")
    return found, notes


def prompt_sets(
    evaluation: EvaluationSettings, seed: int, harmful: int, lookalikes: int
) -> dict[ProbeSide, list[PromptSet]]:
    """The named sets of both sides, each a fixed subsample.

    Args:
        evaluation: names the sets.
        seed: of the subsamples.
        harmful: prompts of each harmful set, at most.
        lookalikes: the same of the benign ones.

    Raises:
        DataError: for a set that cannot be used.
    """
    return {
        "harmful": [
            load_prompt_set(spec, "safety").sample(harmful, seed) for spec in evaluation.harmful
        ],
        "lookalikes": [
            load_prompt_set(spec, "over_refusal").sample(lookalikes, seed)
            for spec in evaluation.lookalikes
        ],
    }


def reading_counts(settings: Settings) -> tuple[int, int]:
    """Prompts of each harmful set, and of each benign one, in a reading of the probe."""
    wanted = settings.evaluation
    # Where a line is drawn between the two sides, both count as much.
    part = 1 if adjusts_itself(settings.mitigation) else 2
    few = max(1, wanted.prompts // part // len(wanted.lookalikes))
    return -(-wanted.prompts // len(wanted.harmful)), few


def _prepare(settings: Settings, inference: InferencePrompt) -> dict[str, Any]:
    """The groups as plain JSON data; on one rank."""
    sets = prompt_sets(settings.evaluation, settings.seed, *reading_counts(settings))
    chats = task_chats(settings)
    dressers, notes = dressers_of(settings, inference, chats)
    dressed = task_openers(chats)
    groups = [
        {
            "side": side,
            "dress": dresser.name,
            # Each set by itself, as an evaluation dresses it: what is made up goes by the number.
            "chats": [chat for found in named for chat in dresser.dress(found.prompts)],
            **asdict(PLAIN if dresser.name == "plain" else dressed),
        }
        for dresser in dressers
        for side, named in sets.items()
    ]
    return {"groups": groups, "notes": notes}


def _group(entry: Mapping[str, Any]) -> ProbeGroup:
    chats: tuple[tuple[Message, ...], ...] = tuple(map(tuple, entry["chats"]))
    openers = Openers(tuple(entry["refusing"]), tuple(entry["complying"]), entry["lead"])
    return ProbeGroup(entry["side"], entry["dress"], chats, openers)
