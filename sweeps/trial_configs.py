"""Configs of a sweep's trials, made from a config file and the points of a space.

The config file is read anew for every trial, since the key "model" of a point selects
one of its models.
"""

import dataclasses
import difflib
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sweeps.search_space import Choice, Point, Space
from training.run_dir import flatten_config
from utils.errors import UserError

MODEL = "model"  # key of a point: the text after the colon of --config


@dataclasses.dataclass(frozen=True)
class TrialConfigs:
    """Config file and overrides that all trials of a sweep share.

    Attributes:
      file: configs/DATA.py.
      model: text after its colon; None: the file's default.
      overrides: keys that the command line sets, for every trial.
    """

    file: str
    model: str | None
    overrides: dict[str, Any]

    @classmethod
    def from_flag(cls, flag: str, overrides: dict[str, Any]) -> "TrialConfigs":
        """Parses --config=FILE:MODEL; `overrides` are from --config.KEY=VALUE."""
        file, _, model = flag.partition(":")
        return cls(str(Path(file)), model or None, overrides)

    def config(self, point: Point) -> ConfigDict:
        """Returns the config of a trial.

        Raises:
          UserError: the config has no such key, or a value has the wrong type.
        """
        values = dict(point)
        cfg = _read_config(self.file, values.pop(MODEL, self.model))
        for key, value in {**self.overrides, **values}.items():
            _set_key(cfg, key, value)
        return cfg

    def check(
        self, space: Space, check_keys: Callable[[ConfigDict], None] | None = None
    ) -> None:
        """Checks the keys of a space and the types of their values.

        Args:
          check_keys: also checks the values.

        Raises:
          UserError: no model of the sweep has a key, or a value has the wrong type.
        """
        domains = space.points.domains()
        models = domains.pop(MODEL, None)
        names = models.values if models else [self.model]
        configs = [_read_config(self.file, name) for name in names]
        for key, domain in domains.items():
            having = [cfg for cfg in configs if _has_key(cfg, key)]
            if not having:
                raise _unknown_key(configs[0], key)
            is_choice, ends = isinstance(domain, Choice), (0, 1 - 2**-53)
            for value in domain.values if is_choice else map(domain.quantile, ends):
                _set_key(having[0], key, value)
                if check_keys:
                    check_keys(having[0])

    def to_dict(self) -> dict:
        """Returns the resolved config that trials start from, as JSON."""
        return json.loads(self.config({}).to_json_best_effort())


def format_value(value: Any) -> str:
    """Formats a value for tables, a float with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_point(point: Point) -> str:
    """Formats a point as in `optim.lr=0.001 seed=2`."""
    return " ".join(f"{key}={format_value(point[key])}" for key in point)


def _read_config(file: str, model: str | None) -> ConfigDict:
    get_config = runpy.run_path(file)["get_config"]
    try:
        return get_config() if model is None else get_config(model)
    except KeyError as error:
        raise UserError(f"model={model!r}: {error.args[0]}") from error


def _set_key(cfg: ConfigDict, key: str, value: Any) -> None:
    if not _has_key(cfg, key):
        raise _unknown_key(cfg, key)
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


def _has_key(cfg: ConfigDict, key: str) -> bool:
    return key in flatten_config(cfg.to_dict()) and key != "model.name"


def _unknown_key(cfg: ConfigDict, key: str) -> UserError:
    if key == "model.name":
        return UserError(
            'The space sets model.name, but models differ in their keys: set "model"'
        )
    known = list(flatten_config(cfg.to_dict()))
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, 3)
    near += [k for k in known if k.rpartition(".")[2] == last and k not in near]
    near = near or [k for k in known if last in k][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "see configs/base.py"
    return UserError(f"Unknown config key {key!r} in the space; {hint}")


def check_population(cfg: ConfigDict) -> None:
    """Checks what trials that train as one program cannot have.

    Raises:
      UserError: a trial would need several devices or parameters of another run.
    """
    mode, fsdp, tensor = cfg.parallel.mode, cfg.parallel.fsdp, cfg.parallel.tensor
    if (mode, fsdp, tensor) != ("jit", 1, 1):
        raise UserError(
            f"parallel.{mode=}, {fsdp=}, {tensor=}: each trial of a population is on "
            "one device, with mode='jit', fsdp=1 and tensor=1"
        )
    if cfg.on_spike == "skip":
        raise UserError(
            "on_spike='skip': the trials of a population share batches, so none can "
            "leave one out; choose 'off', 'keep' or 'stop'"
        )
    if cfg.init_from:
        raise UserError(
            f"init_from={cfg.init_from!r}: the trials of a population start from "
            "random parameters"
        )
