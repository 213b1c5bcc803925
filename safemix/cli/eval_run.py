"""What `safemix eval` does, in one process or on every rank of a job."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safemix.cli.eval_files import (
    Results,
    earlier,
    held,
    open_folder,
    show,
    write_results,
)
from safemix.cli.eval_models import (
    check_backend,
    check_earlier,
    check_utility,
    default_out,
    start_ranks,
    within_memory,
)
from safemix.errors import DataError, SettingsError
from safemix.evaluate.compare import Comparison, compare
from safemix.evaluate.gate import GateRule, gate
from safemix.evaluate.loading_models import ModelPlace, find_model
from safemix.evaluate.plan import EvalPlan, EvalSettings, for_model, open_plan
from safemix.evaluate.suite_count import warnings_of
from safemix.evaluate.suite_judge import Judges
from safemix.evaluate.suite_leader import on_leader
from safemix.evaluate.suite_planned import check_comparable
from safemix.tracking.lines import Lines
from safemix.training.asked_models import Loaded, free, identify, load
from safemix.training.process import guarded, quieten, rank, world_size

if TYPE_CHECKING:
    from safemix.evaluate.results import Evaluation

PASSED, UNJUDGED, FAILED = 0, 1, 3


@dataclass(frozen=True)
class EvalJob:
    """The command line of `safemix eval`, read.

    Attributes:
        model: what is evaluated.
        against: "base", a model, an earlier result, or None.
        settings: what is asked.
        rule: of the gate.
        backend: "hf" or "vllm".
        batch_size: prompts at a time on each process.
        device: "auto" or "cpu".
        out: folder of the results; None for a default one.
        overwrite: start the folder anew.
        show_harmful: write harmful completions into the results.
        wandb: log to Weights & Biases.
    """

    model: str
    against: str | None
    settings: EvalSettings
    rule: GateRule
    backend: str = "hf"
    batch_size: int = 16
    device: str = "auto"
    out: Path | None = None
    overwrite: bool = False
    show_harmful: bool = False
    wandb: bool = False


def evaluate(job: EvalJob) -> int:
    """Carry out a job, and say the exit code.

    Raises:
        SafemixError: in a process of its own; in a job of several, rank 0 tells the error and the
            process ends.
    """
    _check(job)
    quieten()
    if world_size() == 1:
        return _evaluate(job)
    code = PASSED

    def work() -> None:
        nonlocal code
        code = _evaluate(job)

    guarded(work, debug=False)
    # One process tells the launcher.
    return code if rank() == 0 else PASSED


def _check(job: EvalJob) -> None:
    """Find what contradicts itself before anything is loaded."""
    asked, rule = job.settings, job.rule
    check_backend(job.backend, job.device)
    if rule.confidence is not None and not rule.asked:
        raise SettingsError("--confidence is for a gate: give --max-asr-rise or another bound")
    if rule.asked and job.against is None:
        raise SettingsError("a bound needs a model to compare with: give --against base or PATH")
    utility = asked.task is not None or bool(asked.lm_eval)
    sides = {
        "--max-asr-rise": (rule.max_asr_rise, bool(asked.harmful), "--harmful"),
        "--max-over-refusal-rise": (
            rule.max_over_refusal_rise, bool(asked.lookalikes), "--lookalikes",
        ),
        "--max-utility-drop": (rule.max_utility_drop, utility, "--task or --lm-eval"),
    }  # fmt: skip
    for option, (bound, measured, need) in sides.items():
        if bound is not None and not measured:
            raise SettingsError(f"{option} needs {need}: that side is not measured else")
    if rule.asked and not (asked.harmful or asked.lookalikes):
        raise SettingsError("a gate needs answers to look at: give --harmful or --lookalikes")


def _evaluate(job: EvalJob) -> int:
    place = find_model(job.model)
    known = earlier(job.against) if job.against is not None else None
    if known is not None:
        check_earlier(known, job.backend)
    other = _other(job, place) if known is None else None
    # What is asked is read before a model is loaded: a mistake in it shows at once.
    plan = open_plan(job.settings)
    start_ranks(job.device)
    check_utility(plan, job.backend)
    judges = Judges(plan)
    if known is not None:
        needed = {side for side, *_ in job.rule.bounds()} if job.rule.asked else set()
        check_comparable(known, plan, judges, needed=needed)
    identity = identify(place, job.device)
    out = job.out or default_out(place)
    with held(out):
        on_leader(lambda: open_folder(out, identity, job.model, overwrite=job.overwrite))
        model = _measured(job, plan, place, identity=identity, out=out, judges=judges)
        base = known
        if other is not None:
            identity = identify(other, job.device)
            base = _measured(job, plan, other, identity=identity, out=out, judges=judges)
        return _finish(job, model, base, out)


def _other(job: EvalJob, place: ModelPlace) -> ModelPlace | None:
    if job.against is None:
        return None
    return place.base if job.against == "base" else find_model(job.against)


def _measured(
    job: EvalJob, plan: EvalPlan, place: ModelPlace, *, identity: str, out: Path, judges: Judges
) -> Evaluation:
    from safemix.evaluate.suite import run_suite

    with within_memory(job.backend):
        loaded: Loaded = load(place, job.backend, job.device)
    try:
        with within_memory(job.backend, job.batch_size):
            return run_suite(
                loaded.model,
                loaded.tokenizer,
                for_model(plan, place.inference),
                name=place.given,
                identity=identity,
                out=out,
                batch_size=job.batch_size,
                template=place.template,
                complete=loaded.complete,
                longest=loaded.longest,
                backend=loaded.backend,
                judges=judges,
                progress=Lines(place.given),
            )
    finally:
        free(loaded)


def _finish(job: EvalJob, model: Evaluation, base: Evaluation | None, out: Path) -> int:
    """Compare, write and tell; the same on every rank, written by rank 0."""
    # An earlier base has all its verdicts, so what is missing can be had by the same command.
    missing = model.unjudged + (base.unjudged if base is not None else 0)
    compared, verdict, failure = list[Comparison](), None, None
    try:
        compared = compare(base, model) if base is not None else []
        # Without all verdicts the gate would judge by what happens to be there.
        if base is not None and job.rule.asked and not missing:
            verdict = gate(base, model, job.rule)
    except DataError as error:  # what was measured is kept all the same
        failure = error
    notes = [*_narrow(job), *warnings_of(model)]
    if base is not None:
        notes += [f"base: {note}" for note in warnings_of(base)]
    results = Results(model, None if failure else base, tuple(compared), verdict, tuple(notes))

    def write() -> None:
        write_results(out, results, show_harmful=job.show_harmful, wandb=job.wandb)
        show(results, out)
        if missing:
            _say(
                f"{missing} answers have no verdict, so there is no gate and the rates are of the "
                "others: run the same command again, only those are asked for; if a judge cannot "
                "decide them, give another"
            )

    # The others wait until all is said: a launcher ends rank 0 when one of them leaves.
    on_leader(write)
    if failure is not None:
        raise failure
    if missing:
        return UNJUDGED
    return PASSED if verdict is None or verdict.passed else FAILED


def _narrow(job: EvalJob) -> list[str]:
    """A warning of a gate that an attack in the task's dress would pass."""
    if not job.rule.asked or job.settings.dresses != ["plain"]:
        return []
    return [
        "the gate saw plain prompts alone, and a refusal that holds there may be gone in the dress "
        "of the task's rows: give --task, or --dress"
    ]


def _say(text: str) -> None:
    print(f"safemix: error: {text}", file=sys.stderr, flush=True)
