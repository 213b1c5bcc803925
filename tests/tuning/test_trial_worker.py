"""What a worker of a trial leaves of an error: its own reason, or nothing where a peer was lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from safemix.training import process
from safemix.tuning import worker
from safemix.tuning.attempts import failure

RUN: dict[str, Any] = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a worker whose run raises; gives what it leaves as the trial's reason."""
    import safemix.training.run as module

    monkeypatch.setattr(worker, "_speak_to", lambda path: None)

    def run(error: Exception, ranks: int, group: bool) -> str | None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(module, "run", broken)
        monkeypatch.setattr(process, "world_size", lambda: ranks)
        monkeypatch.setattr(dist, "is_initialized", lambda: group)
        settings = RUN | {"output_dir": str(tmp_path / "trial")}
        config = {"settings": settings, "score": None, "at_saves": False, "cwd": str(tmp_path)}
        with pytest.raises(type(error)):
            worker.train(config)
        return failure(tmp_path / "trial")

    return run


def test_an_error_of_its_own_is_the_trials_reason(fails) -> None:
    assert fails(ValueError("bad row"), 2, True) == "ValueError: bad row"


def test_a_rank_alone_has_an_error_of_its_own(fails) -> None:
    assert fails(ValueError("bad row"), 1, False) == "ValueError: bad row"


@pytest.mark.parametrize(
    ("error", "group"),
    [
        (RuntimeError("Connection closed by peer [127.0.0.1]:1"), True),
        # Seen where the other rank was killed for memory: Ray had destroyed the process group.
        (AssertionError("DeepSpeed backend not set, please initialize it"), False),
    ],
)
def test_a_rank_that_only_notices_a_lost_one_leaves_no_reason(fails, error, group) -> None:
    assert fails(error, 2, group) is None, "with a reason no worker would go on"


def test_what_drives_a_trial_loads_no_torch():
    # One such process a trial waits for its workers; torch and transformers take seconds to load.
    code = "import sys, safemix.tuning.driver; print({'torch', 'transformers'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"
