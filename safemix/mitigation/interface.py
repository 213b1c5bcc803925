"""What every mitigation is to a run: rows, settings, and what holds at inference."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from safemix.mitigation.inference import InferencePrompt
from safemix.rows.read import SourceRows
from safemix.settings import Settings


@dataclass(frozen=True)
class Context:
    """What a mitigation may need beside the rows.

    Attributes:
        seed: of the run.
        cache: folder for what is dear to make; None keeps nothing.
        keep_non_refusals: whether safety rows whose answer is no refusal are used.
        secret: the secret prompt, for the mitigation that has one; never shown.
    """

    seed: int = 0
    cache: Path | None = None
    keep_non_refusals: bool = True
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Prepared:
    """Safety rows made ready, and what was done to them."""

    rows: SourceRows
    notes: tuple[str, ...] = ()
    """Short lines for a person."""


class Mitigation:
    """Leaves everything as it is; each mitigation changes what it is about.

    A mitigation is made from its part of the settings. It never touches the task rows.
    """

    name: ClassVar[str]
    sorts_out_non_refusals: ClassVar[bool] = False
    """Whether `safety_rows` itself finds the rows whose answer is no refusal."""

    def adjust(self, settings: Settings) -> Settings:
        """The settings that the run goes by. Adjusting twice gives the same as once."""
        return settings

    def safety_rows(self, task: SourceRows, safety: SourceRows, context: Context) -> Prepared:
        """The safety rows to mix in.

        Args:
            task: rows of the task, to look at.
            safety: rows of the safety source as they were read.
            context: seed, cache and secret.

        Raises:
            DataError: if these rows cannot be made ready.
        """
        return Prepared(safety)

    def at_inference(self) -> InferencePrompt:
        """What belongs before a prompt when the tuned model is used."""
        return InferencePrompt(self.name)

    def lines(self) -> tuple[str, ...]:
        """What it does beside the rows, short lines for a person."""
        return ()


def without_safety(settings: Settings) -> Settings:
    """The settings of a run on task rows (and further sources) alone."""
    return settings.model_copy(update={"safety": None, "ratio": 0})
