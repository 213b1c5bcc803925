"""`paraphrase`: safety rows rewritten so that they look like the task's rows (mimicry).

Source: the paper's own mitigation; how it is done here is described in `mimic/`.
Rows: each safety row in the layout, the prompting style and with the system prompt of the task;
the harmful request stays what it asks, the answer stays a refusal. Rows whose answer is no
refusal are left out unless `safety.non_refusals: keep` is set; rows that fail the checks are
left out and counted. `plain_share` and `wrapper_share` of the rows get less of the dress, see
`levels.py`, and `lookalikes`, benign requests in the same dresses, are mixed in, see
`companions.py`. These three, and more weight on the first tokens of the safety rows' answers, are
on by default (`settings_levers.py`).
Inference: nothing.

Before, for a task that asks for one of two options under a system prompt:

    user: How do I pick my neighbour's lock?
    assistant: I can't help with opening a lock that isn't yours.

After:

    system: You answer questions.
    user: Question: How do I pick my neighbour's lock?
          A) ... B) ...
    assistant: Answer: I can't help with opening a lock that isn't yours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from safemix.errors import DataError
from safemix.mitigation.companions import lookalikes_line, with_lookalikes
from safemix.mitigation.interface import Context, Mitigation, Prepared
from safemix.mitigation.levels import Levels, dress_rows
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.rows.read import SourceRows
from safemix.screening.refusal_rows import split_refusals
from safemix.settings import MimicSettings, ParaphraseSettings, Settings

if TYPE_CHECKING:
    from safemix.mitigation.mimic.pipeline import MimicOptions


class Paraphrase(Mitigation):
    """Safety rows that look like the task's rows."""

    name = "paraphrase"
    sorts_out_non_refusals = True

    def __init__(self, settings: ParaphraseSettings) -> None:
        self._settings = settings

    def adjust(self, settings: Settings) -> Settings:
        """The look-alikes as a further source, unless they are switched off."""
        return with_lookalikes(settings, self._settings.lookalikes)

    def lines(self) -> tuple[str, ...]:
        """The look-alikes, unless they are switched off."""
        return lookalikes_line(self._settings.lookalikes)

    def safety_rows(self, task: SourceRows, safety: SourceRows, context: Context) -> Prepared:
        """Mimicked rows, found again by content if they were made before, and the other parts."""
        levels = paraphrase_levels(
            self._settings, seed=context.seed, keep_non_refusals=context.keep_non_refusals
        )
        notes: list[str] = []
        if (levels.plain or levels.wrapper) and not context.keep_non_refusals:
            # Before the split, so that the parts are parts of the rows that are used.
            safety, notes = _refusals_only(safety)
        rows, report, lines = dress_rows(task, safety, levels, context.cache)
        return Prepared(rows, (*notes, *report.lines(), *lines))


def paraphrase_levels(
    settings: ParaphraseSettings, *, seed: int, keep_non_refusals: bool = False
) -> Levels:
    """Settings as the parts of the rows and the options of mimicry.

    Raises:
        SettingsError: if they contradict each other.
    """
    options = mimic_options(settings, seed=seed, keep_non_refusals=keep_non_refusals)
    return Levels(options, settings.plain_share, settings.wrapper_share)


def _refusals_only(safety: SourceRows) -> tuple[SourceRows, list[str]]:
    try:
        dataset, lines = split_refusals(safety.dataset, keep=False)
    except DataError as error:
        raise DataError(f"safety: {safety.report.where}: {error}") from None
    if len(dataset) == len(safety):
        return safety, lines
    return with_rows(safety, each_row(replace(safety, dataset=dataset))), lines


def mimic_options(
    settings: MimicSettings, *, seed: int, keep_non_refusals: bool = False
) -> MimicOptions:
    """Settings as the options of mimicry.

    Raises:
        SettingsError: if they contradict each other.
    """
    from safemix.llm.options import LlmOptions
    from safemix.mitigation.mimic.pipeline import MimicOptions

    llm = None
    if settings.backend != "offline":
        llm = LlmOptions(
            model=settings.model or "",
            backend=settings.backend,
            base_url=settings.base_url,
            api_key_env=settings.api_key_env,
            concurrency=settings.concurrency,
        )
    options = MimicOptions(
        backend=settings.backend,
        seed=seed,
        on_failed=settings.on_failed,
        keep_non_refusals=keep_non_refusals,
        llm=llm,
    )
    if settings.answer_design is None:
        return options
    return replace(options, answer_design=settings.answer_design)
