"""Results of a sweep: its trials, the best config, and the importance of its keys."""

import dataclasses
import functools
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from sweeps.launch import read_description
from sweeps.objective import Metric
from sweeps.storage import Storage, run_name
from training.run_dir import RunDirectory, flatten_config
from utils.errors import UserError
from utils.paths import resolve_path

DONE = "done"
MIN_TRIALS = 4  # with a key, from which on its importance is computed
LOG_RATIO = 100  # of the largest to the smallest value, from which on the scale is log


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """The content of a sweep's folder."""

    path: Path | epath.Path
    config: dict
    trials: tuple[dict, ...]  # lines of trials.jsonl
    metric: str  # name of the objective
    direction: str  # "min" or "max", whichever is better

    @property
    def done(self) -> list[dict]:
        """Trials that finished, the best first."""
        sign = 1 if self.direction == "min" else -1
        done = [trial for trial in self.trials if trial["state"] == DONE]
        return sorted(done, key=lambda trial: (sign * trial["value"], trial["trial"]))

    @property
    def best(self) -> dict | None:
        return self.done[0] if self.done else None

    @functools.cached_property
    def importances(self) -> dict[str, float | None]:
        points = [trial["point"] for trial in self.done]
        values = [trial["value"] for trial in self.done]
        return importances(points, values, self.direction)

    def run(self, trial: dict) -> Path | epath.Path:
        return self.path / run_name(trial["trial"])

    @property
    def cost(self) -> str:
        """The hours of all trials times their devices, and those lost."""
        used, lost = (
            sum(trial.get(key) or 0 for trial in self.trials) / 3600
            for key in ("chip_seconds", "lost_seconds")
        )
        return f"{used:.2f} chip-hours; {lost:.2f} hours lost to interruptions"

    def best_config(self) -> str:
        """Returns the best trial's config as a file that train.py --config= takes."""
        if self.best is None:
            raise UserError(f"{self.path}: no trial of the sweep has finished yet")
        config = RunDirectory(self.run(self.best)).read_config()
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
    to 1; the largest comes first; None: too few trials have the key, or it is constant.
    """
    settings = {
        key: [to_optuna_value(point[key]) for point in points if key in point]
        for key in dict.fromkeys(itertools.chain(*points))
    }
    distributions = {
        key: make_distribution(used)
        for key, used in settings.items()
        if len(used) >= MIN_TRIALS and len(set(map(repr, used))) > 1
    }
    shares = _ped_anova(points, values, direction, distributions)
    return {**shares, **{key: None for key in settings if key not in shares}}


def _ped_anova(points, values, direction, distributions) -> dict[str, float]:
    if not distributions:
        return {}
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_min = direction == "min"
    study = optuna.create_study(direction="minimize" if is_min else "maximize")
    optuna.logging.set_verbosity(verbosity)
    for point, value in zip(points, values, strict=True):
        used = {key: x for key, x in distributions.items() if key in point}
        params = {key: to_optuna_value(point[key]) for key in used}
        trial = optuna.create_trial(params=params, distributions=used, value=value)
        study.add_trial(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study)


def make_distribution(used: list):
    """Returns Optuna's distribution over the values that the trials have of a key."""
    from optuna import distributions

    kinds = set(map(type, used))
    if not kinds <= {int, float}:
        return distributions.CategoricalDistribution(list(dict.fromkeys(used)))
    low, high = min(used), max(used)
    is_log = low > 0 and high / low >= LOG_RATIO
    if kinds == {int}:
        return distributions.IntDistribution(low, high, log=is_log)
    return distributions.FloatDistribution(low, high, log=is_log)


def to_optuna_value(value: Any) -> bool | int | float | str:
    """Returns a value of a key as Optuna can store it: lists and None as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def is_sweep(path: str | Path) -> bool:
    """Whether sweep.py made a folder, on a disk or in a bucket."""
    return (resolve_path(path) / "sweep.json").exists()


def open_sweep(path: str | Path) -> SweepResults:
    """Reads a sweep's folder. Raises UserError where it is damaged."""
    storage = Storage(path)
    description = read_description(storage)
    try:
        lines = (storage.read_bytes("trials.jsonl") or b"").splitlines()
        trials = tuple(json.loads(line) for line in lines)
        metric = Metric(**description["metric"])
        config = description["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is a damaged sweep: {error}") from error
    return SweepResults(storage.path, config, trials, metric.spec, metric.direction)


def config_source(config: dict, title: str) -> str:
    """Returns Python source of a resolved config, as differences from the defaults."""
    from configs import base

    name = config["model"]["name"]
    defaults = flatten_config(base.get_config(name).to_dict())
    values = {key: _as_tuples(x) for key, x in flatten_config(config).items()}
    changes = [item for item in values.items() if item[1] != defaults.get(item[0])]
    rows = "".join(f"    {key!r}: {value!r},\n" for key, value in changes)
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
