"""Runs of trackio (https://huggingface.co/docs/trackio)."""

import os
from pathlib import Path

import trackio

PROJECT = "attention-lab"


class TrackioRun:
    """Run of the project $TRACKIO_PROJECT, in a local database or in a Space.

    Its name is its identity, so it ends with the id of the run directory.
    """

    def __init__(self, run_id: str | None, title: str, own_id: str, config: dict):
        self.id = run_id or f"{title}-{own_id}"
        self.url = None
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=self.id,
            config=config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def log_file(self, path: Path, name: str) -> None:
        plain_name = f"{self.id}-{name.replace('/', '-')}"
        self._run.log_artifact(path, name=plain_name, type="result")

    def close(self) -> None:
        self._run.finish()
