"""Plan of a comparison: the trials of each architecture at each budget.

Each architecture gets the same number of points from its own search space, and each
point gets sizes, or a number of steps, at which its training takes the budget. The best
point by the validation score is trained again with seeds that no trial has had.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from analysis.compare.corpus import Corpus
from analysis.compare.sizes import (
    QUANTITIES,
    Match,
    Quantity,
    match_steps,
    match_width,
    training_flops,
)
from sweeps.search_space import Point, Space, read_space
from sweeps.trial_configs import TrialConfigs, format_point
from training.run_dir import MACHINE_SPECIFIC_KEYS, flatten_config
from utils import strict_json
from utils.errors import UserError

VARIED = ("width", "steps")
# Keys of the data that do not change what a score is of.
BATCHING_KEYS = tuple(
    f"data.{key}"
    for key in (
        *("seed", "tokens_per_batch", "buckets", "batch_size", "segment_length"),
        *("bpe_dropout", "bpe_dropout_copies", "document_order", "max_ratio"),
        *("min_length", "drop_identical", "drop_duplicates", "max_length"),
    )
)


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of a comparison.

    Attributes:
      config: configs/DATA.py.
      overrides: config keys that the command line sets, for every model.
      models: arguments of the config file, after the colon of --config.
      equal: quantity that is equal, a key of QUANTITIES.
      budgets: amounts of it; (): what the first model takes.
      vary: "width" or "steps", which reaches the budget.
      space: file with the search space of each model.
      trials: points of each model; None: as many as its space has.
      seeds: number of runs of the best point.
      split: split on which these runs are scored, once.
    """

    config: str
    overrides: Mapping[str, Any]
    models: Sequence[str]
    equal: str = "parameters"
    budgets: Sequence[float] = ()
    vary: str = "width"
    space: str = "configs/sweeps/tuning.py"
    trials: int | None = None
    seeds: int = 3
    split: str = "test"

    def __post_init__(self):
        if len(set(self.models)) < max(2, len(self.models)):
            raise UserError(
                f"--models={','.join(self.models)}: name two models or more, each once"
            )
        if self.equal not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise UserError(f"Unknown --equal={self.equal}; choose one of {known}")
        steps_only, width_only = self.equal == "tokens", self.equal == "parameters"
        if (
            self.vary not in VARIED
            or {
                "width": steps_only,
                "steps": width_only,
            }[self.vary]
        ):
            raise UserError(
                f"--vary={self.vary} --equal={self.equal}: choose --vary=width, or "
                "--vary=steps with --equal=flops, seconds or tokens"
            )
        if ":" in self.config:
            raise UserError(
                f"--config={self.config}: name the models in --models instead"
            )

    def configs(self, model: str) -> TrialConfigs:
        """Returns the configs of a model's trials."""
        return TrialConfigs.from_flag(f"{self.config}:{model}", dict(self.overrides))


@dataclasses.dataclass(frozen=True)
class ModelPlan:
    """Trials of one architecture at one budget.

    Attributes:
      points: a point for each trial of the search, with what reaches the budget.
      costs: cost of each trial, in the quantity that is equal.
      seeds: seeds of the runs of the best point, which no trial has.
    """

    model: str
    points: list[Point]
    costs: list[float]
    seeds: list[int]


@dataclasses.dataclass(frozen=True)
class BudgetPlan:
    """Trials of all architectures at one budget."""

    name: str  # of its folder
    target: float
    models: list[ModelPlan]


@dataclasses.dataclass(frozen=True)
class Metric:
    """Validation score by which points are chosen; all architectures share it."""

    name: str
    direction: str  # "min" or "max", whichever is better


@dataclasses.dataclass(frozen=True)
class Plan:
    """Trials of a comparison, before anything is run.

    Attributes:
      asked: JSON object of the arguments, which must not change when it resumes.
    """

    asked: dict
    metric: Metric
    budgets: list[BudgetPlan]

    @classmethod
    def from_request(cls, request: Request, corpus: Corpus | None = None) -> "Plan":
        """Matches every point of every model to the budgets.

        Args:
          corpus: None: vocabularies count as full, and batches as long as they can be.

        Raises:
          UserError: an argument, a space or a config does not allow a comparison.
        """
        spaces, metric = check_request(request)
        quantity = QUANTITIES[request.equal].of_corpus(corpus)
        targets = list(request.budgets) or [first_cost(request, spaces, quantity)]
        names = [f"{target:.6g}" for target in targets]
        if len(set(names)) < len(names):
            raise UserError(f"--budgets: {', '.join(names)} must all differ")
        budgets = [
            BudgetPlan(
                name,
                target,
                [
                    plan_model(request, model, spaces[model], quantity, target)
                    for model in request.models
                ],
            )
            for name, target in zip(names, targets, strict=True)
        ]
        return cls(asked_document(request, spaces), metric, budgets)

    @classmethod
    def from_dict(cls, document: dict) -> "Plan":
        """Reads what `to_dict` made, after JSON."""
        budgets = [
            BudgetPlan(**{**one, "models": [ModelPlan(**m) for m in one["models"]]})
            for one in document["budgets"]
        ]
        return cls(document["asked"], Metric(**document["metric"]), budgets)

    def to_dict(self) -> dict:
        """Returns a JSON object."""
        return dataclasses.asdict(self)

    def table(self, request: Request, flops: float | None) -> str:
        """Formats, for each budget and model, sizes, costs and points.

        Args:
          flops: those of all trainings, if they are known.
        """
        quantity = QUANTITIES[request.equal]
        num_trials = num_runs = 0
        lines = []
        for budget in self.budgets:
            lines.append(f"budget {quantity.format_cost(budget.target)}")
            for one in budget.models:
                match = Match({}, one.costs[0], budget.target)
                shared = one.points[0].items()
                for point in one.points:
                    shared = [item for item in shared if item in point.items()]
                shared = dict(shared)
                lines.append(f"  {one.model:15} {match.format(quantity)}")
                lines.append(f"    {format_point(shared)}")
                for number, point in enumerate(one.points):
                    own = {k: v for k, v in point.items() if k not in shared}
                    lines.append(f"    {number:>3}  {format_point(own)}")
                seeds = ", ".join(map(str, one.seeds))
                lines.append(f"    the best of them again with the seeds {seeds}")
                num_trials += len(one.points)
                num_runs += len(one.seeds)
        total = f"{num_trials} trials, and {num_runs} runs to score on {request.split}"
        return "\n".join([*lines, f"{total}{f', {flops:.3g} FLOPs' if flops else ''}"])


def total_flops(
    plan: Plan, request: Request, corpus: Corpus | None = None
) -> float | None:
    """Returns the FLOPs of all trials and runs; None for a config with epochs.

    Each is taken to need as many as the first point of its model.
    """
    total = 0.0
    for budget in plan.budgets:
        for one in budget.models:
            cfg = request.configs(one.model).config(one.points[0])
            if cfg.epochs:
                return None
            total += training_flops(cfg, corpus) * (len(one.points) + len(one.seeds))
    return total


def check_request(request: Request) -> tuple[dict[str, Space], Metric]:
    """Returns the space of each model, and the score that they share.

    Raises:
      UserError: a space or a config does not allow a comparison.
    """
    spaces = {model: open_space(request, model) for model in request.models}
    for model in request.models:
        check_steps(request, model)
    configs = {model: request.configs(model).config({}) for model in request.models}
    return spaces, shared_metric(configs)


def open_space(request: Request, model: str) -> Space:
    """Reads the space of a model.

    Raises:
      UserError: it is not one of independent points of one model.
    """
    space = read_space(request.space, model)
    where = f"--space={request.space}: the space of {model}"
    if space.points.is_adaptive:
        raise UserError(
            f"{where} has points of TPE, which depend on earlier results; the expected "
            "best of k trials needs independent ones: random, quasi_random or grid"
        )
    if space.pruning is not None:
        raise UserError(
            f"{where} stops trials early (pruning); a comparison needs the score of "
            "each whole trial"
        )
    if space.metric is not None:
        raise UserError(
            f"{where} has metric={space.metric!r}; points are chosen by the config's "
            "score: set --config.keep.metric"
        )
    reserved = {"model": "name the models in --models"}
    if request.vary == "steps":
        reserved["steps"] = reserved["epochs"] = "--vary=steps sets it"
    for key, reason in reserved.items():
        if key in space.points.domains():
            raise UserError(f"{where} has the key {key}: {reason}")
    request.configs(model).check(space)
    space.num_trials(request.trials)
    return space


def shared_metric(configs: Mapping[str, ConfigDict]) -> Metric:
    """Returns the validation score that all models select checkpoints by.

    Raises:
      UserError: their scores are of different kinds, or of different data.
    """
    from analysis.compare.verdict import UNITS
    from experiment.build import get_task_class
    from experiment.validate import check_kept_metric

    found, directions = {}, {}
    for model, cfg in configs.items():
        check_kept_metric(cfg)
        task = get_task_class(cfg.task)
        name = cfg.keep.metric or task.default_metric(cfg)
        if name not in UNITS:
            tested = ", ".join(key for key in task.directions(cfg) if key in UNITS)
            raise UserError(
                f"{name!r}, by which {model} selects checkpoints, has no paired test: "
                f"set keep.metric to one of {tested}"
            )
        found[model] = {
            "task": cfg.task,
            "score": name,
            **{
                key: value
                for key, value in flatten_config(cfg.to_dict()).items()
                if key.startswith("data.")
                and key not in (*BATCHING_KEYS, *MACHINE_SPECIFIC_KEYS)
            },
        }
        directions[name] = task.directions(cfg)[name]
    (first, settings), *others = found.items()
    for model, other in others:
        for key, value in settings.items():
            if value != other[key]:
                raise UserError(
                    f"{first} and {model} do not share a score: {key} is {value!r} and "
                    f"{other[key]!r}"
                )
    return Metric(settings["score"], directions[settings["score"]])


def first_cost(
    request: Request, spaces: Mapping[str, Space], quantity: Quantity
) -> float:
    """Returns what the first model takes at its first point."""
    model = request.models[0]
    point = spaces[model].point(0)
    return float(quantity.cost(request.configs(model).config(point)))


def check_steps(request: Request, model: str) -> None:
    """Raises UserError where the number of steps depends on the corpus."""
    epochs = request.configs(model).config({}).epochs
    if epochs and request.equal != "parameters":
        raise UserError(
            f"--equal={request.equal}: {model} trains for epochs={epochs:g}, so its "
            "number of steps depends on the corpus: set --config.epochs=0 "
            "--config.steps=N"
        )


def plan_model(
    request: Request, model: str, space: Space, quantity: Quantity, target: float
) -> ModelPlan:
    """Matches the points of a model's space to a budget.

    Points that differ only in what does not change a cost have one match.
    """
    from training.vmapped_trials.step import shared_part  # takes seconds to import

    configs = request.configs(model)
    match = {"width": match_width, "steps": match_steps}[request.vary]
    points = [space.point(n) for n in range(space.num_trials(request.trials))]
    matches: dict[str, Match] = {}
    for point in points:
        key = json.dumps(shared_part(point), sort_keys=True)
        if key not in matches:
            matches[key] = match(configs, point, quantity, target)
    found = [matches[json.dumps(shared_part(p), sort_keys=True)] for p in points]
    used = {point.get("seed", configs.config({}).seed) for point in points}
    first = max(used) + 1
    return ModelPlan(
        model,
        [{**point, **one.settings} for point, one in zip(points, found, strict=True)],
        [float(one.cost) for one in found],
        list(range(first, first + request.seeds)),
    )


def asked_document(request: Request, spaces: Mapping[str, Space]) -> dict:
    """Returns the arguments as JSON: resolved configs, spaces, numbers."""
    document = {
        **{key: getattr(request, key) for key in ("equal", "vary", "seeds", "split")},
        "config": request.config,
        "models": list(request.models),
        "budgets": list(request.budgets),
        "trials": {m: space.num_trials(request.trials) for m, space in spaces.items()},
        "overrides": dict(request.overrides),
        "configs": {m: request.configs(m).to_dict() for m in request.models},
        "spaces": {model: space.to_dict() for model, space in spaces.items()},
    }
    return json.loads(strict_json.dumps(document))
