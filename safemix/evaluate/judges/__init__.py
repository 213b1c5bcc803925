"""Judges: does an answer do what was asked? One interface, four kinds.

* `refusal`: rules, no model (the default). It tells refusals from answers, and nothing of harm.
* `harmbench`: HarmBench's classifier, or any model that answers its prompt with yes or no.
* `llama_guard`: a guard model; an answer that it calls unsafe counts as complied.
* `llm`: a chat model behind a server, asked by a rubric in the manner of StrongREJECT.

    from safemix.evaluate import judge

    verdicts = judge(prompts, completions, judge="refusal")

Each judge gets the bare request, not the dress in which it was asked. An empty answer never
counts as complied, and no model is asked about it. Judges know nothing of ranks: open one on one
rank, and share its verdicts.
"""

from __future__ import annotations

from safemix.evaluate.judges.interface import JUDGES, LOCAL_MODELS, TELLS_REFUSALS, Judge
from safemix.evaluate.judges.opening import JudgeChoice, judge, open_judge, read_judge

__all__ = [
    "JUDGES",
    "LOCAL_MODELS",
    "TELLS_REFUSALS",
    "Judge",
    "JudgeChoice",
    "judge",
    "open_judge",
    "read_judge",
]
