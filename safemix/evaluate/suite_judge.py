"""Judging what was answered, on rank 0, with what was judged before taken from the store."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import ModelError, SafemixError, out_of_memory
from safemix.evaluate.results import Side, Verdict
from safemix.evaluate.store import Store, key_of
from safemix.evaluate.suite_leader import on_leader

if TYPE_CHECKING:
    from safemix.evaluate.judges import Judge
    from safemix.evaluate.plan import EvalPlan
    from safemix.evaluate.suite_ask import Telling

__all__ = ["Judges"]

REFUSAL_JUDGE: Final = "refusal"
# Answers between two writes.
_PART: Final = 256


class _JudgeMemoryError(ModelError):
    """A judge in this process that memory does not suffice for."""


@contextmanager
def _within_memory() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, SafemixError) or not out_of_memory(error):
            raise
        raise _JudgeMemoryError(
            "the judge runs out of memory: give judge a smaller batch_size, or device: another"
        ) from error


class Judges:
    """The judges of both sides that are judged; open on rank 0, described on every rank.

    All ranks make one together.

    A judge that fails on the way, such as a server that goes away, is asked no more about these
    answers: what it had not judged yet has an error for a verdict, and is judged at the next start.

    Args:
        plan: names them.

    Raises:
        SafemixError: if one cannot be had.
    """

    def __init__(self, plan: EvalPlan) -> None:
        self._open: dict[Side, Judge] = {}
        self._failed: dict[Side, str] = {}
        self._rests = False  # between evaluations, so nothing that fails in one ends the run
        self._specs: dict[Side, str | Mapping[str, Any]] = {}
        if plan.harmful:
            self._specs["safety"] = plan.judge
        if plan.lookalikes:
            # A judge of harm finds none in the answer to a harmless prompt, helpful or not.
            self._specs["over_refusal"] = REFUSAL_JUDGE

        def open_all() -> dict[str, str]:
            from safemix.evaluate.judges import open_judge

            for side, spec in self._specs.items():
                with _within_memory():
                    self._open[side] = open_judge(spec)
            return {side: judge.describe() for side, judge in self._open.items()}

        self.described: dict[str, str] = on_leader(open_all)

    def rest(self) -> None:
        """Between two evaluations of a model that trains on: leave it the memory.

        Rules and servers stay open. A model is
        given up on purpose, for training may need all of the device, and loaded again for the
        next answers.
        """
        from safemix.evaluate.judges import LOCAL_MODELS

        self._rests = True
        held = [side for side, judge in self._open.items() if judge.name in LOCAL_MODELS]
        for side in held:
            del self._open[side]
        if held:
            import torch

            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def judge(
        self,
        side: Side,
        prompts: Sequence[str],
        completions: Sequence[str],
        store: Store | None,
        tell: Telling,
    ) -> list[Verdict]:
        """Verdicts of completions; all ranks get all.

        Args:
            side: whose judge.
            prompts: the bare requests.
            completions: one of each.
            store: on rank 0, of what was judged before.
            tell: is told of what is done.

        Raises:
            ModelError: if the judge runs out of memory, with what helps; after a `rest` its
                answers have an error for a verdict.
        """

        def work() -> list[dict[str, Any]]:
            # What it could not judge of one model says nothing of the next one's answers.
            self._failed.pop(side, None)
            found = self._judged(side, prompts, completions, store, tell)
            return [asdict(verdict) for verdict in found]

        trees = on_leader(work)
        return [Verdict(**tree) for tree in trees]

    def _judged(
        self,
        side: Side,
        prompts: Sequence[str],
        completions: Sequence[str],
        store: Store | None,
        tell: Telling,
    ) -> list[Verdict]:
        how = self.described[side]
        pairs = list(zip(prompts, completions, strict=True))
        keys = [key_of(kind="verdict", judge=how, prompt=p, completion=c) for p, c in pairs]
        found: list[Verdict | None] = [None] * len(keys)
        if store is not None:
            found = store.get_verdicts(keys)
        missing = [n for n, verdict in enumerate(found) if verdict is None]
        for begin in range(0, len(missing), _PART):
            part = missing[begin : begin + _PART]
            verdicts = self._asked(side, [pairs[n] for n in part])
            if store is not None:
                store.put_verdicts([keys[n] for n in part], verdicts)
            for n, verdict in zip(part, verdicts, strict=True):
                found[n] = verdict
            tell(f"verdicts, {side}", len(pairs) - len(missing) + begin + len(part), len(pairs))
        return [verdict for verdict in found if verdict is not None]

    def _asked(self, side: Side, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        if side not in self._failed:
            try:
                with _within_memory():
                    return self._awake(side).judge([p for p, _ in pairs], [c for _, c in pairs])
            except SafemixError as error:
                # A server may come back. Memory does not: that is to be mended before the next
                # start, unless a run in training has to go on.
                if isinstance(error, _JudgeMemoryError) and not self._rests:
                    raise
                self._failed[side] = str(error)
        why = self._failed[side]
        return [Verdict(False, "not judged", error=why) for _ in pairs]

    def _awake(self, side: Side) -> Judge:
        """The judge of a side; one that rests is loaded again.

        Nothing takes its place if that fails: verdicts of two judges would stand in one curve.
        """
        if side not in self._open:
            from safemix.evaluate.judges import open_judge, read_judge

            choice = read_judge(self._specs[side])
            self._open[side] = open_judge(choice.name, **choice.options)
        return self._open[side]
