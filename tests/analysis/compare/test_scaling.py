"""Tests of scaling laws, against known laws."""

import numpy as np
import pytest

from analysis.compare.scaling import (
    ScalingLaw,
    back_test,
    find_crossing,
    fit_scaling_law,
)
from utils.errors import UserError

BUDGETS = 10.0 ** np.arange(12, 18)


def test_laws_with_a_limit_have_intervals_that_hold_the_truth():
    budgets = np.repeat(BUDGETS, 3)
    noise = np.random.default_rng(0).normal(0, 0.005, len(budgets))
    law = fit_scaling_law(budgets, losses(1.0, 4.0, 0.2, budgets) * np.exp(noise))
    for value, true in (
        (lambda law: law.exponent, 0.2),
        (lambda law: law.irreducible, 1.0),
        (lambda law: float(law.predict(1e18)), losses(1.0, 4.0, 0.2, 1e18)),
    ):
        low, high = law.interval(value)
        assert low <= true <= high
        assert high - low < true


def losses(limit, loss, exponent, budgets=BUDGETS):
    """Losses that have `loss` above the limit at the first budget."""
    return limit + loss * (budgets / 1e12) ** -exponent


@pytest.mark.parametrize("limit", [0.5, 1.7])
@pytest.mark.parametrize("exponent", [0.05, 0.15, 0.5])
def test_known_laws_are_recovered(limit, exponent):
    law = fit_scaling_law(BUDGETS, losses(limit, 4.0, exponent), num_resamples=0)
    assert law.exponent == pytest.approx(exponent, rel=2e-3)
    assert law.irreducible == pytest.approx(limit, rel=2e-2)
    assert law.predict(BUDGETS) == pytest.approx(losses(limit, 4.0, exponent), rel=1e-4)


def test_few_budgets_have_a_law_without_a_limit():
    law = fit_scaling_law(BUDGETS[:3], losses(0, 4.0, 0.1)[:3])
    assert (law.irreducible, law.exponent) == (0, pytest.approx(0.1))
    assert law.coefficient == pytest.approx(4.0 * 1e12**0.1)
    with pytest.raises(UserError, match="1 budget has no scaling law"):
        fit_scaling_law([1e12, 1e12], [3.0, 3.1])
    with pytest.raises(UserError, match="Each loss of a scaling law must be positive"):
        fit_scaling_law(BUDGETS[:2], [3.0, np.nan])


def test_two_budgets_with_one_run_each_have_no_interval():
    law = fit_scaling_law(BUDGETS[:2], [4.0, 3.0])
    assert law.interval(lambda law: law.exponent) is None
    assert law.predict(BUDGETS[:2]) == pytest.approx([4.0, 3.0])


def test_one_diverged_run_hardly_moves_the_fit():
    budgets = np.repeat(BUDGETS, 3)
    values = losses(1.0, 4.0, 0.2, budgets)
    values[7] *= 1.5
    law = fit_scaling_law(budgets, values, num_resamples=0)
    assert law.exponent == pytest.approx(0.2, rel=0.02)


def test_intervals_cover_the_exponent():
    budgets, covered = np.repeat(BUDGETS[:3], 4), 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(budgets))
        values = losses(0, 4.0, 0.1, budgets) * np.exp(noise)
        law = fit_scaling_law(budgets, values, num_resamples=60)
        low, high = law.interval(lambda law: law.exponent)
        covered += low <= 0.1 <= high
    assert covered >= 33  # of 40; of 95% that cover, fewer in 1 of 1000 draws


def test_crossings_are_found_with_an_interval():
    budgets = np.repeat(BUDGETS[:3], 4)
    laws = []
    for seed, (loss, exponent) in enumerate(((5.0, 0.12), (4.0, 0.05))):
        noise = np.random.default_rng(seed).normal(0, 0.005, len(budgets))
        values = losses(0, loss, exponent, budgets) * np.exp(noise)
        laws.append(fit_scaling_law(budgets, values, num_resamples=100))
    true = 1e12 * (5 / 4) ** (1 / 0.07)
    found = find_crossing(*laws)
    assert found.interval[0] <= true <= found.interval[1]
    assert found.interval[0] <= found.budget <= found.interval[1]
    assert (found.num_crossings, found.fraction) == (1, 1.0)
    assert "95% interval" in str(found)


def test_laws_that_cross_outside_of_the_range_do_not_count():
    first = ScalingLaw(0.0, 10.0, 0.2, (1e3, 1e6))
    second = ScalingLaw(0.0, 5.0, 0.1, (1e4, 1e8))  # equal at 2^10 = 1024
    found = find_crossing(first, second)
    assert found.budget is None
    assert str(found) == "no crossing within the measured range, 1e+04 to 1e+06"
    wide = ScalingLaw(0.0, 5.0, 0.1, (1e2, 1e8))
    inside = find_crossing(ScalingLaw(0.0, 10.0, 0.2, (1e2, 1e6)), wide)
    assert inside.budget == pytest.approx(1024)
    assert str(inside) == "crossing at 1.02e+03, without an interval"


def test_extrapolations_are_marked():
    law = ScalingLaw(0.0, 10.0, 0.2, (1e3, 1e6))
    found = [law.is_extrapolated(budget) for budget in (9e2, 1e3, 1e5, 1e6, 2e6)]
    assert found == [True, False, False, False, True]


def test_the_back_test_predicts_the_largest_budget():
    exact = back_test(BUDGETS, losses(1.0, 4.0, 0.2))
    assert exact.relative_error == pytest.approx(0, abs=1e-3)
    assert exact.budget == BUDGETS[-1]
    values = losses(1.0, 4.0, 0.2)
    values[-1] *= 2  # is not seen by the fit
    assert back_test(BUDGETS, values).relative_error == pytest.approx(-0.5, abs=1e-3)
    with pytest.raises(UserError, match="needs three budgets"):
        back_test(BUDGETS[:2], values[:2])
