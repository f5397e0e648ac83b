"""Spaces in Optuna's terms: its samplers and distributions."""

import warnings

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeps.search_space import Choice, Distribution, Integers, LogUniform, Point, Space

PLAIN = (bool, int, float, str, type(None))  # what Optuna takes as a choice


def make_sampler(space: Space, slot: int) -> optuna.samplers.BaseSampler:
    """TPE, begun anew for each slot: equal results before it suggest equal points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        seed = (space.seed * 1_000_003 + slot) % 2**32
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def suggested(trial: optuna.Trial, key: str, value) -> object:
    """What the study suggests where a point has a Distribution."""
    if not isinstance(value, Distribution):
        return value
    if isinstance(value, Choice):
        return trial.suggest_categorical(key, value.values)
    if isinstance(value, Integers):
        return trial.suggest_int(key, value.low, value.high, log=value.log)
    log = isinstance(value, LogUniform)
    return trial.suggest_float(key, value.low, value.high, log=log)


def as_parameters(
    point: Point, domains: dict[str, Distribution]
) -> tuple[dict, dict[str, BaseDistribution]]:
    """Those of a point that Optuna can hold, with what they are of."""
    params = {
        key: value
        for key, value in point.items()
        if value in domains[key] and _holds(domains[key])
    }
    return params, {key: optunas(domains[key]) for key in params}


def _holds(domain: Distribution) -> bool:
    values = domain.values if isinstance(domain, Choice) else ()
    return all(isinstance(value, PLAIN) for value in values)


def optunas(domain: Distribution) -> BaseDistribution:
    """The same in Optuna's terms."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, Integers):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    log = isinstance(domain, LogUniform)
    return FloatDistribution(domain.low, domain.high, log=log)
