"""Results of a sweep: its trials, the best config, and the importance of its keys."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.run_dir import flatten_config
from utils.errors import UserError

DONE = "done"
MIN_TRIALS = 4  # with a key, from which on its importance is computed
LOG_RATIO = 100  # of the largest to the smallest value, from which on the scale is log


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """The content of a sweep's directory.

    Attributes:
      trials: lines of trials.jsonl.
      metric: name of the objective.
      direction: "min" or "max", whichever is better.
    """

    path: Path
    config: dict
    trials: tuple[dict, ...]
    metric: str
    direction: str

    @property
    def done(self) -> list[dict]:
        """Trials that finished, the best first."""
        sign = 1 if self.direction == "min" else -1
        done = [trial for trial in self.trials if trial["state"] == DONE]
        return sorted(done, key=lambda trial: (sign * trial["value"], trial["trial"]))

    @property
    def best(self) -> dict | None:
        """The trial with the best value; None where none has finished."""
        return self.done[0] if self.done else None

    @functools.cached_property
    def importances(self) -> dict[str, float | None]:
        """Importance of each key that the trials vary (see `importances`)."""
        points, values = (
            [trial[name] for trial in self.done] for name in ("point", "value")
        )
        return importances(points, values, self.direction)

    def run(self, trial: dict) -> Path:
        """Returns the run directory of a trial."""
        return self.path / "trials" / f"{trial['trial']:04}"

    def best_config(self) -> str:
        """Returns the best trial's config as a file that train.py --config= takes.

        Raises UserError where no trial has finished.
        """
        if self.best is None:
            raise UserError(f"{self.path}: no trial of the sweep has finished yet")
        config = json.loads((self.run(self.best) / "config.json").read_text("utf8"))
        title = (
            f"Trial {self.best['trial']} of {self.path.name}: {self.metric} "
            f"{self.best['value']:.6g} at step {self.best['step']}."
        )
        return config_source(config, title)


def importances(
    points: Sequence[Mapping[str, Any]], values: Sequence[float], direction: str = "min"
) -> dict[str, float | None]:
    """Computes the importance of hyper-parameters by PED-ANOVA, as Optuna does.

    PED-ANOVA (Watanabe et al. 2023) measures how far the distribution of a key among
    the best tenth of the trials is from its distribution among all. Importances sum
    to 1.

    Args:
      values: of the objective, one for each point.

    Returns:
      Importances by key, the largest first; None where too few trials have the key,
      or where it does not vary.
    """
    settings: dict[str, list] = {}
    for point in points:
        for key, value in point.items():
            settings.setdefault(key, []).append(value)
    varying = [
        key
        for key, used in settings.items()
        if len(used) >= MIN_TRIALS and len(set(map(repr, used))) > 1
    ]
    shares = _ped_anova(points, values, direction, varying) if varying else {}
    return {**shares, **{key: None for key in settings if key not in shares}}


def _ped_anova(points, values, direction, keys) -> dict[str, float]:
    import optuna

    distributions = {key: _distribution(key, points) for key in keys}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction={"min": "minimize"}.get(direction, "maximize")
    )
    optuna.logging.set_verbosity(verbosity)
    for point, value in zip(points, values, strict=True):
        params = {key: _optuna_value(point[key]) for key in keys if key in point}
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions={key: distributions[key] for key in params},
                value=value,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study)


def _distribution(key, points):
    """Returns Optuna's distribution over the values that the trials have of a key."""
    from optuna import distributions

    used = [_optuna_value(point[key]) for point in points if key in point]
    if not all(type(value) in (int, float) for value in used):
        return distributions.CategoricalDistribution(list(dict.fromkeys(used)))
    low, high = min(used), max(used)
    is_log = low > 0 and high / low >= LOG_RATIO
    if all(type(value) is int for value in used):
        return distributions.IntDistribution(low, high, log=is_log)
    return distributions.FloatDistribution(low, high, log=is_log)


def _optuna_value(value):
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def is_sweep(path: str | Path) -> bool:
    """Whether sweep.py made a directory."""
    return (Path(path).expanduser() / "sweep.json").is_file()


def open_sweep(path: str | Path) -> SweepResults:
    """Reads a sweep's directory. Raises UserError where it is damaged."""
    from experiment.build import get_task_class

    folder = Path(path).expanduser()
    try:
        description = json.loads((folder / "sweep.json").read_text("utf8"))
        results = folder / "trials.jsonl"
        lines = results.read_text("utf8").splitlines() if results.exists() else []
        trials = tuple(json.loads(line) for line in lines)
        config, space = description["config"], description["space"]
        task = get_task_class(config["task"])
        metric = space["metric"] or config["keep"]["metric"] or task.selection_metric
        direction = (
            space["direction"] or task.metric_directions[metric.rpartition("/")[2]]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is a damaged sweep: {error}") from error
    return SweepResults(folder, config, trials, metric, direction)


def config_source(config: dict, title: str) -> str:
    """Returns Python source of a resolved config, as differences from the defaults."""
    from configs import base

    name = config["model"]["name"]
    defaults = flatten_config(base.get_config(name).to_dict())
    changes = {
        key: _as_tuples(value)
        for key, value in flatten_config(config).items()
        if _as_tuples(value) != defaults.get(key)
    }
    rows = "".join(f"    {key!r}: {value!r},\n" for key, value in changes.items())
    return f'''"""{title}

    python train.py --config=THIS_FILE --workdir=DIR
"""

from ml_collections import ConfigDict

from configs import base

CHANGES = {{
{rows}}}


def get_config() -> ConfigDict:
    """Returns the default config with CHANGES."""
    cfg = base.get_config({name!r})
    cfg.update_from_flattened_dict(CHANGES)
    return cfg
'''


def _as_tuples(value):
    """Converts the lists of JSON to the tuples of a config."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
