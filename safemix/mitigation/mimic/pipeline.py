"""Safety rows in, mimicked and checked rows out, one at a time and in order.

A text of an LLM that fails a check is replaced by the offline renderer's, or set aside, as the
options say. The offline renderer has a few attempts; a row that passes in none is set aside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from safemix.errors import SettingsError
from safemix.llm.options import LlmOptions
from safemix.mitigation.mimic.checks import Similar, check
from safemix.mitigation.mimic.copied import TaskIndex
from safemix.mitigation.mimic.draft import Draft
from safemix.mitigation.mimic.render import OfflineRenderer
from safemix.mitigation.mimic.report import Outcome, Rejected, SafetyRow, Written
from safemix.rows.schema import Message
from safemix.screening.refusal import is_refusal
from safemix.styles.style import Styles

if TYPE_CHECKING:
    from safemix.mitigation.mimic.rewriter import Failed

Backend = Literal["offline", "openai", "hf"]
AnswerDesign = Literal["text", "option"]
OnFailed = Literal["offline", "reject"]

ATTEMPTS: Final = 3
NOT_A_REFUSAL: Final = "the answer is not a refusal"
OFFLINE: Final = "offline"


@dataclass(frozen=True)
class MimicOptions:
    """How safety rows are rewritten.

    Attributes:
        backend: what writes the prompt's texts.
        seed: of styles, models and made words.
        answer_design: where tasks have options, the refusal is the answer's text, or one of the
            options, which the answer names.
        on_failed: what to do with a row whose LLM text fails: render it offline, or set it aside.
        keep_non_refusals: mimic rows too whose answer is not a refusal.
        llm: the model to ask; needed by the backends other than offline.
        similarity_model: Hub id or folder of an embedding model. With it a question may lack words
            of the request, if it means the same.
        min_similarity: cosine from which two texts mean the same.
    """

    backend: Backend = "offline"
    seed: int = 0
    answer_design: AnswerDesign = "text"
    on_failed: OnFailed = "offline"
    keep_non_refusals: bool = False
    llm: LlmOptions | None = None
    similarity_model: str | None = None
    min_similarity: float = 0.8

    def __post_init__(self) -> None:
        for name, legal in (
            ("backend", get_args(Backend)),
            ("answer_design", get_args(AnswerDesign)),
            ("on_failed", get_args(OnFailed)),
        ):
            if getattr(self, name) not in legal:
                raise SettingsError(
                    f"{name} {getattr(self, name)!r}: use one of {', '.join(legal)}"
                )
        if self.seed < 0:
            raise SettingsError(f"seed {self.seed} is negative: use a whole number from 0")
        if not 0 < self.min_similarity <= 1:
            raise SettingsError(f"min_similarity {self.min_similarity}: use a number in (0, 1]")
        if self.backend == OFFLINE and self.llm is not None:
            raise SettingsError("backend offline asks no model: leave the model out, or use openai")
        if self.backend != OFFLINE and self.llm is None:
            raise SettingsError(f"backend {self.backend} needs a model: name it with model")
        if self.llm is not None and self.llm.backend != self.backend:
            raise SettingsError(f"backend {self.backend}, but the model's is {self.llm.backend}")


def run(
    rows: Iterable[SafetyRow], styles: Styles, options: MimicOptions, *, progress: bool = False
) -> Iterator[Outcome]:
    """Mimic safety rows: constant memory, results in the order of the rows.

    Args:
        rows: of the safety source.
        styles: of the task; at least one.
        options: how.
        progress: show how far an LLM is; the offline renderer has nothing to show.

    Raises:
        ModelError: if a model cannot be loaded or does not exist.
        HostError: if the server cannot be asked at all.
    """
    work = _Work(styles, options)
    if options.llm is not None:
        yield from _asked(rows, work, options.llm, progress)
        return
    for row in rows:
        reason = work.unusable(row)
        yield Rejected(row, reason) if reason else work.offline(row)


class _Work:
    """What all rows share."""

    def __init__(self, styles: Styles, options: MimicOptions) -> None:
        self.options = options
        self.renderer = OfflineRenderer(styles, options.seed, options.answer_design)
        self._index = TaskIndex.of(styles)
        self._similar: Similar | None = None
        if options.similarity_model is not None:
            from safemix.mitigation.mimic.similarity import Similarity

            self._similar = Similarity(options.similarity_model, options.min_similarity)

    def unusable(self, row: SafetyRow) -> str:
        """Why a row is not mimicked at all; "" if it is."""
        if row.problem or self.options.keep_non_refusals:
            return row.problem
        return "" if is_refusal(row.messages[-1]["content"]) else NOT_A_REFUSAL

    def offline(self, row: SafetyRow, failed: str = "") -> Outcome:
        """Render a row without a model; `failed` says why an LLM's text was not taken."""
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                draft = self.renderer.render(row.number, row.messages, attempt)
            except ValueError as error:  # texts that the layout would not read back
                reason = str(error)
                continue
            reason = self.check(draft) or ""
            if not reason:
                return _written(row, draft, attempt + 1, failed)
        return Rejected(row, reason)

    def taken(self, row: SafetyRow, answer: Draft | Failed) -> Outcome:
        """Take an LLM's draft if it passes the checks."""
        reason = self.check(answer) if isinstance(answer, Draft) else answer.reason
        if isinstance(answer, Draft) and reason is None:
            return _written(row, answer)
        if self.options.on_failed == "reject":
            return Rejected(row, reason or "")
        return self.offline(row, reason or "")

    def check(self, draft: Draft) -> str | None:
        """Why a draft may not be used; None if it may."""
        return check(draft, self._index, self._similar)


def _asked(
    rows: Iterable[SafetyRow], work: _Work, llm: LlmOptions, progress: bool
) -> Iterator[Outcome]:
    """Outcomes of rows that an LLM rewrites. It reads ahead, so rows wait here for their answer."""
    from safemix.mitigation.mimic.rewriter import rewrite

    waiting: deque[tuple[SafetyRow, str]] = deque()

    def questions() -> Iterator[tuple[int, Sequence[Message]]]:
        for row in rows:
            reason = work.unusable(row)
            waiting.append((row, reason))
            if not reason:
                yield row.number, row.messages

    def set_aside() -> Iterator[Outcome]:
        while waiting and waiting[0][1]:
            yield Rejected(*waiting.popleft())

    for answer in rewrite(questions(), work.renderer, llm, progress, check=work.check):
        yield from set_aside()
        yield work.taken(waiting.popleft()[0], answer)
    yield from set_aside()
    if waiting:
        raise RuntimeError(f"{len(waiting)} rows have had no answer of the rewriter")


def _written(row: SafetyRow, draft: Draft, attempts: int = 1, failed: str = "") -> Written:
    return Written(row, draft.messages, draft.style.name, draft.backend, attempts, failed)
