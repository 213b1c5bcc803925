"""Public benchmarks by name, through lm-evaluation-harness where it is installed.

Tested with lm-eval 0.4.13. Its tasks load their data from the Hugging Face Hub.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, Final

from safemix.errors import DataError, ModelError, SettingsError
from safemix.evaluate.results import Item, Measure

__all__ = ["check_lm_eval", "run_lm_eval"]

# Metrics of lm-eval that are right or wrong for each document, and what our table calls them.
_COUNTED: Final[Mapping[str, str]] = {
    "acc": "accuracy",
    "acc_norm": "accuracy_norm",
    "exact_match": "exact_match",
}


def run_lm_eval(
    model: Any,
    tasks: Sequence[str],
    *,
    tokenizer: Any = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 16,
    chat: bool = False,
    include_path: str | None = None,
) -> list[Measure]:
    """Run tasks of lm-eval, in one process.

    A group such as "mmlu" is counted over all documents of its tasks. No random number generator
    is seeded, and no code of a task that lm-eval marks as unsafe is run.

    Args:
        model: a folder or Hub id, or a model of transformers in this process.
        tasks: names of tasks, groups or tags of lm-eval, or paths of task files.
        tokenizer: of a model in this process; not changed.
        limit: documents of each task, the first ones.
        num_fewshot: examples before each question; unset, what each task says.
        batch_size: requests of a forward pass.
        chat: ask by the tokenizer's chat template. Published numbers mostly do not.
        include_path: folder with task files of your own. They may name Python code, which runs.

    Returns:
        For each name a measure for each metric and filter that is right or wrong for a document.

    Raises:
        ModelError: if lm-eval is not installed, or the model cannot be loaded.
        SettingsError: for an unknown task, or a job of several processes.
        DataError: if a task's data cannot be had, or none of its metrics can be counted.
    """
    manager = check_lm_eval(tasks, include_path)
    found: list[Measure] = []
    with _opened(model) as asked:
        harness = _harness(asked, tokenizer, batch_size)
        how = {"limit": limit, "num_fewshot": num_fewshot, "apply_chat_template": chat}
        for name in tasks:
            results = _run(harness, name, task_manager=manager, **how)
            found += _measures(name, results, chat)
    return found


def check_lm_eval(tasks: Sequence[str], include_path: str | None = None) -> Any:
    """Whether tasks can be run at all, before a model is loaded.

    Returns:
        lm-eval's manager of tasks.

    Raises:
        ModelError, SettingsError: as `run_lm_eval` does.
    """
    _check_installed()
    manager = import_module("lm_eval.tasks").TaskManager(include_path=include_path)
    _check_names(tasks, manager.all_tasks)
    return manager


def _check_installed() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ModelError("tasks of lm-eval need the package: pip install 'safemix[lm-eval]'")
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise SettingsError(
            f"tasks of lm-eval run in one process, not in a job of {dist.get_world_size()}: "
            "evaluate the saved model without a launcher"
        )


def _check_names(tasks: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(tasks, str) or not tasks:
        raise SettingsError("no task of lm-eval is named: give a list of names")
    names = set(known)
    for name in tasks:
        if name not in names and not name.endswith((".yaml", ".yml")):
            raise SettingsError(
                f"lm-eval has no task {name!r}: `lm-eval ls tasks` lists its {len(names)} names"
            )


def _opened(model: Any) -> AbstractContextManager[Any]:
    """What the harness is given: a path, or the model itself, ready and later as it was."""
    if isinstance(model, str):
        return nullcontext(model)
    if model is None:
        raise SettingsError("tasks of lm-eval need a model in this process, or a folder of one")
    return _Inner(model)


class _Inner(AbstractContextManager[Any]):
    """The bare model within its wrappers, in evaluation mode."""

    def __init__(self, model: Any) -> None:
        from safemix.evaluate.unwrapping import ready

        self._ready = ready(model)

    def __enter__(self) -> Any:
        return self._ready.__enter__().model

    def __exit__(self, *error: Any) -> None:
        self._ready.__exit__(*error)


def _harness(model: Any, tokenizer: Any, batch_size: int) -> Any:
    import torch

    given: dict[str, Any] = {"batch_size": batch_size, "trust_remote_code": False}
    if tokenizer is not None:
        given["tokenizer"] = copy.deepcopy(tokenizer)  # it sets a padding token
    if isinstance(model, str):
        found = torch.accelerator.current_accelerator()
        given["device"] = "cpu" if found is None else found.type
    try:
        return import_module("lm_eval.models.huggingface").HFLM(pretrained=model, **given)
    except (OSError, ValueError) as error:
        raise ModelError(f"lm-eval cannot load the model: {_line(error)}") from None


def _run(harness: Any, name: str, **how: Any) -> Mapping[str, Any]:
    """What the harness says of one task or group."""
    try:
        results: Mapping[str, Any] | None = import_module("lm_eval").simple_evaluate(
            harness,
            tasks=[name],
            **how,
            log_samples=True,
            bootstrap_iters=0,
            # Unset, it would seed the generators of the whole process.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"lm-eval cannot run task {name!r}: {_line(error)}: check the name and the connection "
            "to the Hub, or leave the task out"
        ) from None
    if results is None:
        raise SettingsError("lm-eval gave no results: run it on rank 0, without a launcher")
    return results


def _measures(name: str, results: Mapping[str, Any], chat: bool) -> Iterator[Measure]:
    """One measure for each metric and filter, over all documents of the tasks of a name."""
    samples = [(task, s) for task, own in sorted(results["samples"].items()) for s in own]
    kinds = {
        (metric, str(s["filter"])): None
        for _, s in samples
        for metric in s["metrics"]
        if metric in _COUNTED and _is_binary(s[metric])
    }
    if not kinds:
        legal = ", ".join(_COUNTED)
        given = ", ".join(sorted({m for _, s in samples for m in s["metrics"]})) or "none"
        raise DataError(
            f"task {name!r} of lm-eval has the metrics {given}, none of which is right or wrong "
            f"for a document: give a task with one of {legal}"
        )
    shots = sorted({int(n) for n in results["n-shot"].values()})
    dress = "/".join(map(str, shots)) + "-shot" + (", chat" if chat else "")
    scored = {c.get("output_type") for c in results["configs"].values()} == {"multiple_choice"}
    version = importlib.metadata.version("lm_eval")
    for metric, how in kinds:
        own = [(t, s) for t, s in samples if str(s["filter"]) == how and metric in s["metrics"]]
        yield Measure(
            side="utility",
            name=name,
            dress=dress,
            metric=_COUNTED[metric] + ("" if how == "none" else f" ({how})"),
            items=tuple(_item(task, sample, metric, scored) for task, sample in own),
            judge=f"lm-eval {version}",
            decoding="log-likelihood" if scored else "as the task says, lm-eval",
            set_hash=_digest([[task, s["doc_hash"], s["prompt_hash"]] for task, s in own]),
        )


def _item(task: str, sample: Mapping[str, Any], metric: str, scored: bool) -> Item:
    answer = sample["filtered_resps"][0] if sample["filtered_resps"] else ""
    return Item(
        id=f"{task}/{sample['doc_id']}/{sample['filter']}",
        prompt=str(sample["arguments"][0][0]),
        completion="" if scored else str(answer),
        counted=float(sample[metric]) == 1.0,
        reason=f"{metric}, right is {sample['target']}",
    )


def _is_binary(value: Any) -> bool:
    try:
        return float(value) in (0.0, 1.0)
    except (TypeError, ValueError):
        return False


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked).encode("utf-8", "surrogatepass")).hexdigest()
