"""From a point of a space to the config of its trial.

A config file is read again for every trial, since the key "model" says which of its
models it shall give.
"""

import dataclasses
import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sweeps.search_space import Choice, Point, Space
from training.run_dir import flatten_config
from utils.errors import UserError

MODEL = "model"  # the key that is no section here, but what follows the colon


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all trials of a sweep share.

    Attributes:
      file: configs/DATA.py.
      model: what follows its colon; None: what the file gives without.
      overrides: keys that the command line sets, for every trial.
    """

    file: str
    model: str | None
    overrides: dict[str, Any]

    @classmethod
    def of(cls, flag: str, overrides: dict[str, Any]) -> "Experiment":
        """Of --config=FILE:MODEL and --config.KEY=VALUE."""
        file, _, model = flag.partition(":")
        return cls(str(Path(file)), model or None, overrides)

    def config(self, point: Point) -> ConfigDict:
        """That of a trial. Raises UserError for what the config does not take."""
        own = dict(point)
        cfg = _read(self.file, own.pop(MODEL, self.model))
        for key, value in {**self.overrides, **own}.items():
            _set(cfg, key, value)
        return cfg

    def check(self, space: Space) -> None:
        """Raises UserError for a key that no model has, or a value of a wrong type."""
        domains = space.points.domains()
        models = domains.pop(MODEL, None)
        names = models.values if models else [self.model]
        configs = [_read(self.file, name) for name in names]
        for key, within in domains.items():
            having = [cfg for cfg in configs if _has(cfg, key)]
            if not having:
                raise _no_key(configs[0], key)
            for value in (
                within.values if isinstance(within, Choice) else [within.quantile(0)]
            ):
                _set(having[0], key, value)

    def describe(self) -> dict:
        """As JSON: the resolved config that trials start from."""
        return json.loads(self.config({}).to_json_best_effort())


def value_in_words(value: Any) -> str:
    """Short, for tables."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_in_words(point: Point) -> str:
    """As `optim.lr=0.001 seed=2`."""
    return " ".join(f"{key}={value_in_words(point[key])}" for key in point)


def _read(file: str, model: str | None) -> ConfigDict:
    spec = importlib.util.spec_from_file_location("trial_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(*([] if model is None else [model]))
    except KeyError as error:
        told = str(error.args[0])
        raise UserError(f"model={model!r}: {told}") from error


def _set(cfg: ConfigDict, key: str, value: Any) -> None:
    if not _has(cfg, key):
        raise _no_key(cfg, key)
    *sections, name = key.split(".")
    for section in sections:
        cfg = cfg[section]
    if isinstance(value, list) and issubclass(cfg.get_type(name), tuple):
        value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    try:
        cfg[name] = value
    except (TypeError, ValueError) as error:
        kind = cfg.get_type(name).__name__
        raise UserError(f"{key}={value!r} is not of type {kind}") from error


def _has(cfg: ConfigDict, key: str) -> bool:
    return key in flatten_config(cfg.to_dict()) and key != "model.name"


def _no_key(cfg: ConfigDict, key: str) -> UserError:
    if key == "model.name":
        return UserError('model.name: an architecture has keys of its own: use "model"')
    known = list(flatten_config(cfg.to_dict()))
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, 3)
    near += [k for k in known if k.rpartition(".")[2] == last and k not in near]
    near = near or [k for k in known if last in k][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "see configs/base.py"
    return UserError(f"the space sets {key}, which is no key of the config; {hint}")
