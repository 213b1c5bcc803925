"""Errors that a user can mend. Each is one line: what was given, what is legal, what to do."""

from __future__ import annotations


class SafemixError(Exception):
    """Base of all errors that are shown to a user as one line, without a traceback."""


class SettingsError(SafemixError, ValueError):
    """A setting that is not legal, or settings that contradict each other."""


class DataError(SafemixError, ValueError):
    """A data file or a row that cannot be used."""


class PlanError(SafemixError, ValueError):
    """An impossible mixture: ratios, sizes or batch sizes that do not fit together."""


class ModelError(SafemixError, ValueError):
    """A model, tokenizer or chat template that cannot be used."""


class CheckpointError(SafemixError, RuntimeError):
    """A checkpoint that cannot be written, read, or that belongs to another run."""


class HostError(SafemixError, RuntimeError):
    """The training loop around safemix deals rows otherwise than the plan says."""


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory did not suffice, of a GPU or of the machine."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()
