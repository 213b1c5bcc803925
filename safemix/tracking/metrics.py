"""`metrics.jsonl`: one JSON object a line, whatever happens to the process that writes it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class MetricsLog:
    """Appends metrics to a JSONL file.

    A line is handed to the operating system before `log` returns, so a killed process loses
    none. A number that is not finite is written as null and its name is listed under
    `nonfinite`: every line is valid JSON.

    Args:
        path: the file; made if absent.
        resume_step: lines of later steps, and torn ones, are removed first: a resumed run
            writes those steps again.

    Raises:
        OSError: if the file cannot be read or written.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            drop_after(path, resume_step)
        self._stream = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one line.

        Args:
            step: optimizer steps done.
            metrics: name -> number (also numpy's and torch's), text, or None.

        Raises:
            OSError: if the line cannot be written; it names the file.
        """
        try:
            self._stream.write(to_line(step, metrics))
            self._stream.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        """Close the file, its lines safe on the disk. May be called twice."""
        if self._stream.closed:
            return
        os.fsync(self._stream.fileno())
        self._stream.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def to_line(step: int, metrics: Mapping[str, Any]) -> str:
    """One line of the file, its line end included."""
    line: dict[str, Any] = {"step": int(step)}
    nonfinite = []
    for name, value in metrics.items():
        number = _plain(value)
        if isinstance(number, float) and not math.isfinite(number):
            nonfinite.append(name)
            number = None
        line[name] = number
    if nonfinite:
        line["nonfinite"] = nonfinite
    return json.dumps(line, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    number = value.item() if hasattr(value, "item") else value
    return number if isinstance(number, bool | int) else float(number)


def drop_after(path: Path, step: int) -> None:
    """Remove lines of steps after `step` and lines that are not whole, atomically.

    The file is replaced by a new one, so a process that dies meanwhile leaves the old file.

    Raises:
        OSError: if the new file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with path.open("rb") as old, temporary.open("wb") as new:
        for line in old:
            parsed = _parse(line)
            if parsed is not None and parsed["step"] <= step:
                new.write(line)
        new.flush()
        os.fsync(new.fileno())
    temporary.replace(path)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a metrics file, in order; a torn line is left out.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as stream:
        for line in stream:
            parsed = _parse(line)
            if parsed is not None:
                yield parsed


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    is_metrics = isinstance(parsed, dict) and isinstance(parsed.get("step"), int)
    return parsed if is_metrics else None
