"""What `safemix eval` reads and leaves behind: the folder of the results, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from safemix.errors import DataError
from safemix.evaluate.compare import Comparison
from safemix.evaluate.gate import Gate
from safemix.evaluate.results import Evaluation, read_evaluation
from safemix.evaluate.store import FOLDER, take
from safemix.evaluate.suite_count import redact, without_raw
from safemix.evaluate.suite_leader import on_leader

if TYPE_CHECKING:
    from rich.console import Console

# A result is there when it is whole; until then what stood there before has another name, so that
# a gate is not read from it.
PREVIOUS: Final = "eval.previous.json"
RESULT, PAGE, PLOT, TEXTS = "eval.json", "eval.html", "eval.png", "completions.jsonl"
BASE: Final = "base.json"
TABLE: Final = "eval.md"
_OWNER: Final = "model.json"
_LOCK: Final = ".command.lock"
_MODEL_FILES: Final = ("config.json", "adapter_config.json", "settings.yaml")


@dataclass(frozen=True)
class Results:
    """What came out.

    Attributes:
        model: of the model.
        base: of the model that it is compared with; None without one.
        compared: measure by measure; empty without a base.
        gate: its verdict; None without bounds.
        notes: what a reader must know first, a line each.
    """

    model: Evaluation
    base: Evaluation | None
    compared: tuple[Comparison, ...]
    gate: Gate | None
    notes: tuple[str, ...]


def earlier(given: str) -> Evaluation | None:
    """An earlier result, if that is what is named: its folder or its `eval.json`.

    Raises:
        DataError: if it is a JSON file but no result, or answers in it have no verdict: what is
            evaluated now cannot mend that.
    """
    path = Path(given).expanduser()
    if path.is_dir() and not any((path / name).is_file() for name in _MODEL_FILES):
        path /= RESULT
        if not path.is_file():
            return None
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {type(error).__name__}") from None
    found = read_evaluation(text)
    if found.unjudged:
        why = next(i.error for m in found.measures for i in m.items if i.error is not None)
        raise DataError(
            f"{path} has {found.unjudged} answers without a verdict ({why}), and nothing is held "
            "against it until they have one: run the command that made it again, only those are "
            "asked for, or give the model itself to --against"
        )
    return found


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep the folder of the results for this command alone; all ranks call it, rank 0 holds it.

    Raises:
        DataError: on every rank, if another command has it, or it cannot be written.
    """
    folder = out / FOLDER
    lock = FileLock(folder / _LOCK)

    def hold() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            take(lock, out)
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error.strerror}") from None

    on_leader(hold)
    try:
        yield
    finally:
        lock.release()


def open_folder(out: Path, identity: str, name: str, *, overwrite: bool) -> None:
    """Make the folder of the results, or go on in it; on rank 0, which has it `held`.

    Raises:
        DataError: if it holds the results of another model, or cannot be written.
    """
    owner = out / FOLDER / _OWNER
    try:
        if overwrite:
            for path in (out / FOLDER).iterdir():
                if not path.name.startswith("."):  # those are locks
                    path.unlink()
            for file in (RESULT, PREVIOUS, BASE, TABLE, PAGE, PLOT, TEXTS):
                (out / file).unlink(missing_ok=True)
        elif (out / RESULT).exists() or owner.exists():
            _check_owner(out, owner, identity)
        if (out / RESULT).exists():
            (out / RESULT).replace(out / PREVIOUS)
        owner.write_text(json.dumps({"identity": identity, "model": name}), "utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}") from None


def _check_owner(out: Path, owner: Path, identity: str) -> None:
    try:
        found = json.loads(owner.read_text("utf-8"))
        same, name = found["identity"] == identity, found["model"]
    except (OSError, ValueError, KeyError, TypeError):
        same, name = False, "an unknown model"
    if not same:
        raise DataError(
            f"{out} holds the evaluation of another model ({name}): name another --out, or give "
            "--overwrite"
        )


def write_results(out: Path, results: Results, *, show_harmful: bool, wandb: bool) -> None:
    """Write the files of a result; on rank 0.

    What models said to harmful prompts that they complied with is left out, unless asked for.

    Raises:
        DataError: if a file cannot be written.
    """
    from safemix.evaluate.report.html import write_html
    from safemix.evaluate.report.plots import plot_sides
    from safemix.evaluate.report.text import markdown

    model, base = results.model, results.base
    if not show_harmful:
        model, base = redact(model), base and redact(base)
    notes = [*results.notes, *gate_lines(results.gate)]
    try:
        if base is not None:
            _write_json(out / BASE, base.to_json(completions=show_harmful))
        shown, shown_base = without_raw(model), base and without_raw(base)
        write_html(out / PAGE, shown, shown_base, show_harmful=show_harmful, notes=notes)
        plot_sides(out / PLOT, shown, shown_base)
        (out / TABLE).write_text(markdown(shown, shown_base), "utf-8")
        lines = [json.dumps(row, ensure_ascii=False) for row in _texts(model, base)]
        (out / TEXTS).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        # The last one: where it is, the others are whole.
        _write_json(out / RESULT, _tree(results, model, completions=show_harmful))
        (out / PREVIOUS).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}") from None
    if wandb:
        _log(out, model, base, show_harmful=show_harmful)


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    from safemix.hosts.resume import write_json

    write_json(path, tree)


def _tree(results: Results, model: Evaluation, *, completions: bool) -> dict[str, Any]:
    tree = model.to_json(completions=completions)
    tree["notes"] = list(results.notes)
    tree["base"] = results.base.model if results.base is not None else None
    tree["comparisons"] = [_compared(found) for found in results.compared]
    tree["gate"] = results.gate.to_json() if results.gate is not None else None
    return tree


def _compared(found: Comparison) -> dict[str, Any]:
    paired = found.paired
    low, high = paired.interval
    tree = {"key": found.key, "base": asdict(found.first), "model": asdict(found.second)}
    return tree | {
        "pairs": asdict(paired),
        "difference": paired.difference if paired.total else None,
        "low": low,
        "high": high,
        "p": paired.p_value,
    }


def _texts(model: Evaluation, base: Evaluation | None) -> Iterator[dict[str, Any]]:
    """A line for each item of each measure, for who wants to read them."""
    for one in (model, base):
        for measure in one.measures if one is not None else ():
            about = {"model": one.model if one else "", "measure": measure.key}
            yield from (about | asdict(item) for item in measure.items if item.completion)


def gate_lines(gate: Gate | None) -> list[str]:
    """The verdict of the gate, and each check."""
    if gate is None:
        return []
    by = gate.rule.confidence
    how = "point differences" if by is None else f"upper ends of {100 * by:g} % intervals"
    verdict = "passed" if gate.passed else "FAILED"
    failed = [check for check in gate.checks if not check.passed]
    lines = [f"gate {verdict}, by {how}: {len(failed)} of {len(gate.checks)} checks beyond a bound"]
    return lines + [str(check) for check in failed]


def show(results: Results, out: Path, console: Console | None = None) -> None:
    """Print the table of the four sides, the gate, and where the files are; on rank 0."""
    from rich.console import Console
    from rich.text import Text

    from safemix.evaluate.report.text import table

    console = console or Console()
    base = results.base and without_raw(results.base)
    console.print(table(without_raw(results.model), base))
    for note in results.notes:
        console.print(Text(f"warning: {note}"))
    for line in gate_lines(results.gate):
        console.print(Text(line))
    console.print(Text(f"{out}: {', '.join((RESULT, PAGE, PLOT, TABLE, TEXTS))}"))
    console.file.flush()


def _log(out: Path, model: Evaluation, base: Evaluation | None, *, show_harmful: bool) -> None:
    """A W&B run for this evaluation, as W&B is set up here; a failure of it stops nothing."""
    from safemix.evaluate.report.wandb_table import log_evaluations
    from safemix.settings import TrackingSettings
    from safemix.tracking.wandb_run import WandbRun

    follower = WandbRun(TrackingSettings(run_name=f"eval {model.model}"), out, model.settings)
    try:
        import wandb
    except ImportError:
        return  # said by the follower
    if wandb.run is not None:
        log_evaluations(wandb.run, model, base, show_harmful=show_harmful)
    follower.close()
