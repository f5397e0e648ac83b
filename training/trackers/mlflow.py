"""Runs of MLflow (https://mlflow.org/docs/latest/ml/tracking)."""

import os
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from training.run_dir import flatten_config

EXPERIMENT = "attention-lab"
MAX_PARAMS = 100  # of one call, as the service allows


class MlflowRun:
    """Run of $MLFLOW_EXPERIMENT_NAME at $MLFLOW_TRACKING_URI.

    Attributes:
      id: what to give as `run_id` to go on in the same run.
      url: a page of the run, if there is one.
    """

    url = None

    def __init__(self, run_id: str | None, title: str, own_id: str, config: dict):
        """Opens a remote run.

        Args:
          run_id: id of the remote run; None: a new one.
          title: name of the run directory.
          own_id: id of the run directory.
          config: the resolved config.
        """
        self._client = MlflowClient()
        self.id = run_id or self._create(title, own_id, config)
        self._client.update_run(self.id, status="RUNNING")

    def _create(self, title: str, own_id: str, config: dict) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            experiment_id = self._client.create_experiment(name)
        else:
            experiment_id = experiment.experiment_id
        tags = {"run_id": own_id}
        run = self._client.create_run(experiment_id, run_name=title, tags=tags)
        params = [Param(key, str(x)) for key, x in flatten_config(config).items()]
        for start in range(0, len(params), MAX_PARAMS):
            some = params[start : start + MAX_PARAMS]
            self._client.log_batch(run.info.run_id, params=some)
        return run.info.run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Uploads metrics of a step, which may have others already."""
        now = int(1000 * time.time())
        values = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=values)

    def log_file(self, path: Path, name: str) -> None:
        """Uploads a file; `name` is its path in the run directory."""
        folder = os.path.dirname(name) or None
        self._client.log_artifact(self.id, str(path), folder)

    def close(self) -> None:
        """Returns when everything is uploaded."""
        self._client.set_terminated(self.id)
