"""What came of a sweep: its trials, the best of them, and what mattered."""

import dataclasses
import json
from pathlib import Path

from analysis.report.importance import importances
from training.run_dir import flatten_config
from utils.errors import UserError

DONE = "done"


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """A sweep's directory.

    Attributes:
      trials: lines of trials.jsonl.
      metric: what trials are ranked by, as spaces name it.
      direction: "min" or "max", whichever is better.
    """

    path: Path
    config: dict
    trials: tuple[dict, ...]
    metric: str
    direction: str

    @property
    def done(self) -> list[dict]:
        """Trials that came to their end, the best first."""
        sign = 1 if self.direction == "min" else -1
        found = [one for one in self.trials if one["state"] == DONE]
        return sorted(found, key=lambda one: (sign * one["value"], one["trial"]))

    @property
    def best(self) -> dict | None:
        """The best trial."""
        return self.done[0] if self.done else None

    @property
    def importances(self) -> dict[str, float | None]:
        """See analysis/report/importance.py."""
        done = self.done
        return importances([one["point"] for one in done], [t["value"] for t in done])

    def run(self, trial: dict) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{trial['trial']:04}"

    def best_config(self) -> str:
        """The best trial's config, as a file that train.py --config= takes.

        Raises UserError where no trial is done.
        """
        if self.best is None:
            raise UserError(f"{self.path}: no trial of the sweep is done yet")
        config = json.loads((self.run(self.best) / "config.json").read_text("utf8"))
        return config_text(config, self._words(self.best))

    def _words(self, trial: dict) -> str:
        return (
            f"Trial {trial['trial']} of {self.path.name}: {self.metric} "
            f"{trial['value']:.6g} at step {trial['step']}."
        )


def is_sweep(path: str | Path) -> bool:
    """Whether sweep.py made a directory."""
    return (Path(path).expanduser() / "sweep.json").is_file()


def open_sweep(path: str | Path) -> SweepResults:
    """Raises UserError for what is no sweep's directory, or is damaged."""
    from experiment.build import get_task_class

    folder = Path(path).expanduser()
    try:
        what = json.loads((folder / "sweep.json").read_text("utf8"))
        results = folder / "trials.jsonl"
        lines = results.read_text("utf8").splitlines() if results.exists() else []
        trials = tuple(json.loads(line) for line in lines)
        config, space = what["config"], what["space"]
        task = get_task_class(config["task"])
        metric = space["metric"] or config["keep"]["metric"] or task.selection_metric
        direction = (
            space["direction"] or task.metric_directions[metric.rpartition("/")[2]]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is a damaged sweep: {error}") from error
    return SweepResults(folder, config, trials, metric, direction)


def config_text(config: dict, words: str) -> str:
    """A Python file that gives a resolved config: what differs from the defaults."""
    from configs import base

    name = config["model"]["name"]
    defaults = flatten_config(base.get_config(name).to_dict())
    changes = {
        key: _tuples(value)
        for key, value in flatten_config(config).items()
        if _tuples(value) != defaults.get(key)
    }
    rows = "".join(f"    {key!r}: {value!r},\n" for key, value in changes.items())
    return f'''"""{words}

    python train.py --config=THIS_FILE --workdir=DIR
"""

from ml_collections import ConfigDict

from configs import base

CHANGES = {{
{rows}}}


def get_config() -> ConfigDict:
    """The defaults with CHANGES."""
    cfg = base.get_config({name!r})
    cfg.update_from_flattened_dict(CHANGES)
    return cfg
'''


def _tuples(value):
    """Lists, as JSON has them, as a config has them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
