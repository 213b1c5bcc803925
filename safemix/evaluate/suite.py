"""All four sides of one model: asked, judged and counted.

What the rates mean:

* `asr`: share of the harmful prompts whose answer complies *and is coherent*. A model that
  collapsed into repeating "B" obeys nobody; counting it, or not, would be an accident of the
  judge. The judge's own count stands beside it as the metric `complied`.
* `refused`: share of the benign look-alikes whose answer does not comply and is coherent.
* `incoherent`: share of incoherent answers, for each dress, apart for harmful prompts and
  look-alikes. Read it first: where it is high, the two above say nothing.
* several samples of a prompt: an attack succeeds if any of them does, for the attacker tries
  again; a look-alike is refused, and an answer incoherent, if at least half of them are. So a
  count is always one of prompts, as the intervals need.

It runs in one process or on every rank of a job; all ranks get the whole result. Every rank
generates its share, rank 0 dresses, judges and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from safemix.errors import DataError
from safemix.evaluate.plan import EvalPlan
from safemix.evaluate.results import HF, Evaluation
from safemix.evaluate.suite_ask import (
    ELSEWHERE,
    Asker,
    Complete,
    Keeper,
    Telling,
    completer,
    open_store,
)
from safemix.evaluate.suite_count import Asked, coherence_measures, side_measures
from safemix.evaluate.suite_judge import Judges
from safemix.evaluate.suite_leader import rank, ranks
from safemix.evaluate.suite_planned import Job, check_askable, dressed, jobs_of
from safemix.evaluate.suite_utility import measure_utility
from safemix.tracking.wandb_run import without_secrets

__all__ = ["run_suite"]


def run_suite(
    model: Any,
    tokenizer: Any,
    plan: EvalPlan,
    *,
    name: str = "model",
    identity: str | None = None,
    out: Path | None = None,
    batch_size: int = 16,
    template: str | None = None,
    complete: Complete | None = None,
    longest: int | None = None,
    backend: str = HF,
    judges: Judges | None = None,
    progress: Telling | None = None,
) -> Evaluation:
    """Ask a model everything in a plan. All ranks of a job call it.

    Args:
        model: a `PreTrainedModel`, `PeftModel`, or an engine around one; None with `complete`.
        tokenizer: of the model.
        plan: what is asked, from `open_plan`.
        name: of the model, for the results.
        identity: what tells this model from others, such as `loading_models.fingerprint`; with
            `out`, what the same model was asked before is not asked again.
        out: folder where answers and verdicts are kept as they come; None keeps nothing.
        batch_size: chats generated at a time, on each rank.
        template: chat template; None for the tokenizer's own.
        complete: makes the completions instead of `model`, such as vLLM.
        longest: tokens that the model takes, prompt and answer together, where `complete` makes the
            completions; None for no end.
        backend: what makes them: "hf", or "vllm" with its version. Kept answers of another one
            are not used.
        judges: of the plan, opened before, to have them for several models; on every rank.
        progress: is told of what is done, on rank 0.

    Raises:
        ModelError, SettingsError: if a judge cannot be had.
        DataError: if `out` cannot be used, or a row of the task, or a prompt is too long.
    """
    if out is not None and identity is None:
        raise DataError("out needs an identity of the model: give its fingerprint")
    judges = judges or Judges(plan)
    jobs = jobs_of(plan)
    bare, chats = dressed(jobs)
    if tokenizer is not None:
        check_askable(jobs, chats, plan, model, tokenizer, template=template, longest=longest)
    with open_store(out) as store:
        asker = Asker(
            complete=complete or completer(model, tokenizer, batch_size, template),
            keeper=Keeper(store, kept=out is not None),
            identity=identity,
            template=template,
            at_once=batch_size * ranks() if complete is None else ELSEWHERE,
            tell=progress if progress is not None and rank() == 0 else _silent,
            backend=backend,
        )
        answers = asker.ask(chats, plan.decoding)
        asked = _judged(jobs, answers, plan, judges, asker)
        utility = measure_utility(model, tokenizer, plan, asker, batch_size=batch_size)
    measures = [
        *side_measures(asked, "safety"),
        *side_measures(asked, "over_refusal"),
        *coherence_measures(asked),
        *utility,
    ]
    settings = _settings(plan, bare, identity, template) | {"backend": backend}
    return Evaluation(name, tuple(measures), settings)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _judged(
    jobs: Sequence[Job],
    answers: Sequence[list[str]],
    plan: EvalPlan,
    judges: Judges,
    asker: Asker,
) -> list[Asked]:
    """The jobs with their verdicts; the answers of a side are judged together."""
    begins = [0]
    for _, prompts, _ in jobs:
        begins.append(begins[-1] + len(prompts.prompts))
    texts = [answers[a:b] for a, b in pairwise(begins)]
    found: list[Asked] = []
    for side in dict.fromkeys(side for side, _, _ in jobs):
        own = [(job, made) for job, made in zip(jobs, texts, strict=True) if job[0] == side]
        asked = [p for job, _ in own for p in job[1].prompts for _ in range(plan.decoding.samples)]
        given = [text for _, made in own for samples in made for text in samples]
        verdicts = iter(judges.judge(side, asked, given, asker.keeper.store, asker.tell))
        for (_, prompts, dresser), made in own:
            found.append(
                Asked(
                    side=side,
                    prompts=prompts,
                    dress=dresser.name,
                    texts=made,
                    verdicts=[[next(verdicts) for _ in samples] for samples in made],
                    judge=judges.described[side],
                    decoding=str(plan.decoding),
                    labels=plan.task.labels if plan.task else (),
                )
            )
    return found


def _settings(
    plan: EvalPlan, chats: Mapping[str, str], identity: str | None, template: str | None
) -> dict[str, Any]:
    """What decides the numbers, beside what stands with each measure."""
    sets = {
        f"{side}/{prompts.name}": {"prompts": len(prompts.prompts), "sha256": prompts.sha256}
        for side, prompts, _ in jobs_of(plan)
    }
    task = plan.task
    return {
        "identity": identity,
        "decoding": asdict(plan.decoding),
        "judge": without_secrets(plan.judge),
        "dress": [dresser.name for dresser in plan.dressers],
        "chat_template": "the tokenizer's" if template is None else template,
        "sets": sets,
        "chats": dict(chats),
        "task": None
        if task is None
        else {"name": task.name, "strategy": task.strategy, "rows": len(task.rows)},
        "lm_eval": list(plan.lm_eval),
        "seed": plan.seed,
    }
