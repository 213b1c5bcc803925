"""A Weights & Biases run that follows a job, and never stops it.

One run a job: its id is kept in the output folder, so a resumed job goes on in the same run.
The step is a metric of its own (`safemix/step`) and the axis of all others. W&B's internal step
is left alone: it drops whatever comes with a step that it has already seen, as after a resume.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safemix.settings import TrackingSettings

STEP = "safemix/step"
_ID_FILE = "safemix_run_id"
_INIT_SECONDS = 30
_FINISH_SECONDS = 120
_SECRET_KEY = re.compile(r"(^|[_.-])(api_?key|token|secret|password|passwd|credentials?)$", re.I)
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


class WandbRun:
    """The W&B side of a job. After a failure it says so in one line and does nothing more.

    Args:
        settings: which mode, project, name and group.
        output_dir: the job's folder; the run lies in its folder `wandb`.
        config: the job's settings, shown with the run. Secrets in it are blanked.
        resume_step: step the job goes on from; above 0 the earlier run is continued.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        output_dir: Path,
        config: Mapping[str, Any],
        resume_step: int = 0,
    ) -> None:
        self._run: Any = None
        self.directory: Path | None = None
        self.mode = wandb_mode(settings)
        if self.mode == "disabled":
            return
        try:
            import wandb
        except Exception as error:  # a broken installation raises anything
            _warn(f"is not logged to ({_reason(error)}): pip install 'safemix[wandb]'")
            return
        try:
            keywords = _keywords(settings, output_dir, config, resume_step)
            self._run = self._start(wandb, keywords)
            self._run.define_metric(STEP)
            self._run.define_metric("*", step_metric=STEP)
            self.directory = Path(self._run.dir).parent
        except Exception as error:
            self._give_up(error)

    def _start(self, wandb: Any, keywords: dict[str, Any]) -> Any:
        common = _wandb_settings(wandb)
        wandb.setup(settings=wandb.Settings(silent=True))
        try:
            return wandb.init(mode=self.mode, settings=common, **keywords)
        except Exception as error:
            if self.mode != "online":
                raise
            _warn(f"cannot be reached ({_reason(error)}): this run is kept offline")
            self.mode = "offline"
            return wandb.init(mode="offline", settings=common, **keywords)

    @property
    def run(self) -> Any:
        """What `wandb.init` gave; None without W&B, after a failure, or when closed."""
        return self._run

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log metrics at an optimizer step."""
        if self._run is None:
            return
        try:
            self._run.log({STEP: step, **metrics})
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """End the run; waits two minutes at most for what is still to be sent."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        _warn(f"is off for the rest of this run ({_reason(error)}); training goes on")


def wandb_mode(settings: TrackingSettings) -> str:
    """`online`, `offline` or `disabled`. `auto` follows WANDB_MODE, then WANDB_API_KEY."""
    if settings.wandb != "auto":
        return settings.wandb
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked in ("online", "offline", "disabled"):
        return asked
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def run_id(output_dir: Path, resume_step: int) -> str:
    """The job's run id: the stored one when the job is resumed, else a new one, then stored.

    Raises:
        OSError: if it cannot be stored.
    """
    path = output_dir / "wandb" / _ID_FILE
    if resume_step > 0 and path.is_file():
        stored = path.read_text("utf-8").strip()
        if re.fullmatch(r"[0-9a-z]{8,64}", stored):
            return stored
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = uuid.uuid4().hex[:12]
    temporary = path.with_name(f".{_ID_FILE}.tmp")
    temporary.write_text(fresh + "\n", "utf-8")
    temporary.replace(path)
    return fresh


def without_secrets(value: Any, key: str = "") -> Any:
    """A copy of a settings tree with secrets blanked, by their key or inside a URL."""
    if _SECRET_KEY.search(key) and isinstance(value, str):
        return "***"
    if isinstance(value, Mapping):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, key) for inner in value]
    return _SECRET_IN_URL.sub("***@", value) if isinstance(value, str) else value


def _keywords(
    settings: TrackingSettings, output_dir: Path, config: Mapping[str, Any], resume_step: int
) -> dict[str, Any]:
    return {
        "project": settings.project,
        "name": settings.run_name,
        "group": settings.group,
        "dir": str(output_dir),
        "config": without_secrets(config),
        "id": run_id(output_dir, resume_step),
        "resume": "allow" if resume_step > 0 else None,
    }


def _wandb_settings(wandb: Any) -> Any:
    """No console capture (other ranks and bars write there), no code, no wait without end."""
    wanted = {
        "console": "off",
        "silent": True,
        "save_code": False,
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "init_timeout": _INIT_SECONDS,
        "finish_timeout": _FINISH_SECONDS,
    }
    # Older versions lack some of these; an unknown one is an error there.
    known = set(wandb.Settings.model_fields)
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = " ".join(lines[0].split()) if lines else ""
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _warn(text: str) -> None:
    print(f"safemix: warning: W&B {text}", file=sys.stderr, flush=True)
