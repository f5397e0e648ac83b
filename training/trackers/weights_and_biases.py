"""Runs of Weights & Biases (https://docs.wandb.ai)."""

import os
from pathlib import Path

import wandb

PROJECT = "attention-lab"


class WandbRun:
    """Remote run of the project $WANDB_PROJECT; with WANDB_MODE=offline a local one."""

    def __init__(self, run_id: str | None, title: str, own_id: str, config: dict):
        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True, disable_git=True
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id or own_id,
            name=title,
            config=config,
            resume="allow",
            settings=settings,
        )
        # Their own step must rise with every call; one of splits may repeat.
        self._run.define_metric("*", step_metric="step")
        self.id, self.url = self._run.id, self._run.url

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def log_file(self, path: Path, name: str) -> None:
        folder = os.path.abspath(path)[: -len(name)]
        base = folder if os.path.abspath(path).endswith(name) else path.parent
        self._run.save(str(path), base_path=str(base), policy="now")

    def close(self) -> None:
        self._run.finish()
