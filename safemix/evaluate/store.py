"""What was answered and judged, kept as it comes, so that nothing is asked twice.

One JSONL file in the folder of the results, a line an answer, a verdict or a measure. A line is
found again by a hash of all that decided it: for an answer the model's fingerprint, the chat as
it was asked (set, dress and inference prompt are in it), the decoding, the chat template and the
backend. A process that was killed leaves at most one cut line at the end, which is removed at the
next start.

The file holds what models said to harmful prompts: it is for its owner alone, and no result file
is made from it without redaction unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from filelock import FileLock, Timeout

from safemix.errors import DataError
from safemix.evaluate.results import Verdict

__all__ = ["Store", "key_of", "take"]

_LOG: Final = logging.getLogger(__name__)

FOLDER: Final = ".asked"
_FILE: Final = "asked-1.jsonl"


def key_of(**parts: Any) -> str:
    """Hash of all that decides an answer; plain JSON data only.

    Example:
        >>> key_of(a=1) == key_of(a=1), key_of(a=1) == key_of(a=2)
        (True, False)
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def take(lock: FileLock, out: Path) -> None:
    """Keep the folder of the results for who holds the lock.

    Where the file system has no locks, as some that clusters share, it is said and goes on.

    Raises:
        DataError: if another one has it.
        OSError: if it cannot be written.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{out} is in use by another evaluation: wait for it, or name another folder"
        ) from None
    except NotImplementedError:
        _LOG.warning(
            "the file system of %s has no locks: a second evaluation there would not be noticed",
            out,
        )


class Store:
    """Texts, verdicts and measures by key. For one process; used with `with`.

    Args:
        folder: of the results; a folder of the store's own is made in it.

    Raises:
        DataError: if it cannot be written, is damaged, or another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self.path = self._folder / _FILE
        self._found: dict[str, Any] = {}
        self._file: IO[bytes] | None = None
        self._lock = FileLock(self._folder / ".lock")

    def __enter__(self) -> Self:
        if self._file is None:
            self.open()
        return self

    def open(self) -> None:
        """Read what is there and be ready to write; `with` does it if it was not done.

        Raises:
            DataError: if it cannot be written, is damaged, or another process has it open.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            take(self._lock, self._folder.parent)
        except OSError as error:
            raise self._trouble(error) from None
        try:
            self._read()
            self._file = os.fdopen(
                os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab"
            )
        except OSError as error:
            self._lock.release()
            raise self._trouble(error) from None
        except DataError:
            self._lock.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> Any:
        """What is kept under a key, or None."""
        return self._found.get(key)

    def put(self, found: Mapping[str, Any]) -> None:
        """Keep values by their keys; they are on disk when this returns.

        Raises:
            DataError: if they cannot be written.
        """
        if self._file is None:
            raise RuntimeError("a store is written inside `with` only")
        lines = [json.dumps({"key": key, "value": value}) + "\n" for key, value in found.items()]
        try:
            self._file.write("".join(lines).encode("ascii"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._trouble(error) from None
        self._found.update(found)

    def get_verdicts(self, keys: Sequence[str]) -> list[Verdict | None]:
        """Verdicts by key, None where there is none."""
        found = [self.get(key) for key in keys]
        return [None if tree is None else Verdict(**tree) for tree in found]

    def put_verdicts(self, keys: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts; one that says only that there was an error is asked for again."""
        pairs = zip(keys, verdicts, strict=True)
        self.put({key: asdict(verdict) for key, verdict in pairs if verdict.error is None})

    def _read(self) -> None:
        """Read the lines, and remove a last one that was cut."""
        if not self.path.exists():
            return
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    tree = json.loads(line)
                    self._found[tree["key"]] = tree["value"]
                except (ValueError, KeyError, TypeError):
                    raise DataError(
                        f"{self.path} line {number} is damaged: remove that line, or start anew "
                        "with --overwrite"
                    ) from None
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _trouble(self, error: OSError) -> DataError:
        return DataError(f"{self.path} cannot be written: {error.strerror}")
