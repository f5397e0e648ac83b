"""Tests that equal systems are found to differ no more often than promised."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

from analysis.compare import calibration
from analysis.compare.calibration import SETTINGS, measure_rates, simulate
from analysis.compare.difference import (
    estimate_difference,
    resample,
    resampled_covariance,
    variance_parts,
)
from analysis.paired_tests import loss_statistics
from helpers.entry_points import run

SIMULATIONS = 2000
# Of so many splits, at a rate of 5%, as many are exceeded once in 1000 times.
MOST = binom.isf(0.001, SIMULATIONS, 0.05) / SIMULATIONS


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_systems_differ_no_more_often_than_promised(setting, seeds):
    deviations = SETTINGS[setting]
    for rates in measure_rates(SIMULATIONS, seeds, deviations, num_blocks=60):
        if rates.wrong is not None:
            assert rates.wrong <= MOST, rates


def test_rates_are_near_the_level_where_seeds_alone_vary():
    deviations = dataclasses.replace(SETTINGS["seeds"], system=0.0, own=1e-6)
    rates = next(measure_rates(SIMULATIONS, 5, deviations, num_blocks=20))
    least = binom.ppf(0.001, SIMULATIONS, 0.043) / SIMULATIONS  # Welch's, 5 seeds
    assert least <= rates.wrong <= MOST


def test_power_grows_with_seeds_and_differences():
    found = {}
    for seeds in (2, 3, 5):
        for rates in measure_rates(1000, seeds, SETTINGS["sentences"], num_blocks=60):
            found[seeds, rates.num_comparisons, rates.difference] = rates.found
    assert found[2, 1, 1.0] < found[3, 1, 1.0] < found[5, 1, 1.0]
    assert found[5, 1, 0.3] < found[5, 1, 1.0]
    assert found[5, 3, 1.0] < found[5, 2, 1.0] < found[5, 1, 1.0]


def test_one_seed_differs_too_often_where_seeds_vary():
    rates = next(measure_rates(1000, 1, SETTINGS["seeds"], num_blocks=60))
    assert rates.wrong > 0.3


def test_simulated_scores_have_the_deviations_of_the_setting():
    deviations = SETTINGS["sentences"]
    scores, covariance = simulate(3000, 2, deviations, num_blocks=40)
    training, system, own = (x**2 for x in dataclasses.astuple(deviations))
    expected = np.asarray([training + system + own, system, 0])
    found = np.cov(scores, rowvar=False)
    assert found[0, [0, 1, 2]] == pytest.approx(expected, abs=0.01)
    mean = covariance.mean(0)[0, [0, 1, 2]]
    assert mean == pytest.approx([system + own, system, 0], abs=0.003)


def test_the_bootstrap_decides_as_the_covariances_of_sentences_do():
    random, wrong = np.random.default_rng(0), 0
    for _ in range(120):
        values = random.normal(0, 1, (2, 1, 60)) + random.normal(0, 1, (2, 3, 60))
        values += random.normal(0, 0.1, (2, 3, 1))
        rows = values.reshape(6, 60)
        scores, resampled = resample(loss_statistics(rows, np.ones(60)), 100)
        covariance = resampled_covariance(resampled, 60)
        parts = variance_parts(scores, covariance, 3, 60)
        wrong += estimate_difference(scores, 3, parts).p <= 0.05
    assert wrong <= binom.isf(0.001, 120, 0.05)


def test_the_command_prints_the_table():
    done = run("analysis/compare/calibration.py", "--simulations=20")
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2 + len(calibration.SEEDS) * len(SETTINGS)
    assert {line.count("|") for line in lines} == {10}
