"""Two training loops in one process that take turns, step by step, under one clock.

Loads that come and go on a shared machine then fall on both alike: the steps that are compared
stand next to each other, and which of the two goes first changes every step (A B, B A, A B).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

PATIENCE_S = 600.0


@dataclass
class Times:
    """Seconds of each step: on the clock, and of the process's CPU time on all its threads."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


class Turns:
    """Hands the turn from loop to loop; `order` names whose step comes when.

    A step reaches from one `arrive` to the next: forward, backward, optimizer, log, and the
    reading of the next step's batches.

    Args:
        order: a name for every step of every loop.
        wait: called before the clock is read, to let a device finish.
    """

    def __init__(self, order: Sequence[str], wait: Callable[[], None]) -> None:
        self.times = {name: Times() for name in dict.fromkeys(order)}
        self._order, self._at, self._wait = list(order), 0, wait
        self._changed = threading.Condition()
        self._gate = threading.Barrier(len(self.times))
        self._begun: dict[str, tuple[float, float]] = {}
        self._failed = False

    def arrive(self, name: str) -> None:
        """End the loop's step, if one has begun, and wait for its next turn."""
        if name in self._begun:
            self.finish(name)
        else:
            # The setting up of one loop must not fall into the other's first step.
            self._gate.wait(PATIENCE_S)
        with self._changed:
            if not self._changed.wait_for(lambda: self._failed or self._is_on(name), PATIENCE_S):
                raise TimeoutError(f"{name} waited {PATIENCE_S:.0f} s for its turn")
            if self._failed:
                raise RuntimeError(f"{name} stops because another loop has failed")
        self._begun[name] = (time.perf_counter(), time.process_time())

    def finish(self, name: str) -> None:
        """End the loop's step and pass the turn on."""
        self._wait()
        begun = self._begun.pop(name)
        self.times[name].wall_s.append(time.perf_counter() - begun[0])
        self.times[name].cpu_s.append(time.process_time() - begun[1])
        with self._changed:
            self._at += 1
            self._changed.notify_all()

    def fail(self) -> None:
        """Stop all loops."""
        self._gate.abort()
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def _is_on(self, name: str) -> bool:
        return self._at < len(self._order) and self._order[self._at] == name


class TurnCallback(TrainerCallback):  # type: ignore[misc]
    """Ties a Trainer's steps to `Turns`."""

    def __init__(self, turns: Turns, name: str) -> None:
        """`name` is the loop's name in `turns`."""
        self._turns, self._name = turns, name

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The batches are read; the step is next."""
        self._turns.arrive(self._name)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step has no next."""
        self._turns.finish(self._name)


def take_turns(turns: Turns, loops: dict[str, Callable[[], Any]]) -> None:
    """Run each loop in a thread of its own until all have ended.

    Raises:
        RuntimeError: if a loop fails; the first failure is its cause.
    """
    errors: list[BaseException] = []

    def run(loop: Callable[[], Any]) -> None:
        try:
            loop()
        except BaseException as error:
            errors.append(error)
            turns.fail()

    threads = [threading.Thread(target=run, args=(loop,), daemon=True) for loop in loops.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(f"a training loop failed: {errors[0]}") from errors[0]


def alternating(first: str, second: str, steps: int) -> list[str]:
    """A B, B A, A B, ...: `steps` steps of each."""
    pairs = ([first, second] if step % 2 == 0 else [second, first] for step in range(steps))
    return [name for pair in pairs for name in pair]
