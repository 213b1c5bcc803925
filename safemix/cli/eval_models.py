"""How a model is named, placed and started on the command lines that ask one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from safemix.errors import HostError, ModelError, SafemixError, SettingsError, out_of_memory
from safemix.evaluate.loading_models import ModelPlace
from safemix.training.process import world_size

if TYPE_CHECKING:
    from safemix.evaluate.plan import EvalPlan
    from safemix.evaluate.results import Evaluation

# Ranks wait for each other while one generates a long share.
_PATIENCE = timedelta(hours=24)


def start_ranks(device: str) -> None:
    """Let the processes of a launcher meet."""
    if world_size() == 1:
        return
    import os

    import torch
    import torch.distributed as dist

    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)


def default_out(place: ModelPlace) -> Path:
    """Where results go if no folder is named: into the run's folder, else beside one."""
    if place.run is not None:
        weights = place.adapter or Path(place.model)
        # A checkpoint of the run is another model than its result.
        part = weights.name if weights.name.startswith("checkpoint-") else ""
        return place.run / "eval" / part
    name = re.sub(r"[^\w.-]+", "-", place.given).strip("-.") or "model"
    return Path(f"eval-{name}")


def check_backend(backend: str, device: str) -> None:
    """Whether a model can be had so.

    Raises:
        SettingsError: for a backend or device that is not legal, or that a launcher cannot start.
    """
    if backend not in ("hf", "vllm"):
        raise SettingsError(f"--backend is {backend!r}: legal are hf, vllm")
    if device not in ("auto", "cpu"):
        raise SettingsError(f"--device is {device!r}: legal are auto, cpu")
    if backend == "vllm" and world_size() > 1:
        raise SettingsError("--backend vllm runs in one process and takes all GPUs: no launcher")


def check_earlier(base: Evaluation, backend: str) -> None:
    """Whether an earlier result can be compared with what a backend will generate.

    Raises:
        DataError: if another backend generated it.
        HostError: for vllm, if it is not installed.
    """
    from safemix.evaluate.compare import check_backends
    from safemix.evaluate.vllm_generate import vllm_name

    check_backends(base, vllm_name() if backend == "vllm" else backend)


def check_utility(plan: EvalPlan, backend: str) -> None:
    """Whether the right answers can be counted here; found before hours of other answers.

    Raises:
        ModelError, SettingsError: if not.
    """
    from safemix.evaluate.suite_utility import scores_choices

    choices = plan.task is not None and scores_choices(plan.task)
    if backend == "vllm" and (choices or plan.lm_eval):
        what = "choices are scored" if choices else "tasks of lm-eval are run"
        raise SettingsError(
            f"{what} by a model in this process: use --backend hf, or leave the task out"
        )
    if plan.lm_eval:
        from safemix.evaluate.lm_eval_tasks import check_lm_eval

        check_lm_eval(plan.lm_eval)


@contextmanager
def within_memory(backend: str, batch_size: int | None = None) -> Iterator[None]:
    """Say what helps here if memory does not suffice, on this rank or on another.

    Args:
        backend: hf or vllm.
        batch_size: of the command line, while a model is asked; None while it is loaded.

    Raises:
        ModelError: in place of running out of memory.
    """
    try:
        yield
    except Exception as error:
        # Of another rank's failure this one is told by a HostError; other lines are whole.
        told = isinstance(error, SafemixError) and not isinstance(error, HostError)
        if told or not out_of_memory(error):
            raise
        raise ModelError(f"out of memory: {_remedy(backend, batch_size)}") from error


def _remedy(backend: str, batch_size: int | None) -> str:
    if backend == "vllm":
        return "vLLM needs more than the GPUs have left: free them, or show it more of them"
    elsewhere = "--backend vllm, which shares the model out over all GPUs"
    if batch_size is None:
        return f"the model does not fit on a GPU: free the GPU, or use {elsewhere}"
    if batch_size > 1:
        return f"give a smaller --batch-size than {batch_size}; what was answered is kept"
    return f"--batch-size is 1 already: lower --max-new-tokens, free the GPU, or use {elsewhere}"
