"""Successive halving against Optuna's pruners, as an independent oracle."""

import binascii
import random

import optuna
import pytest
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

from sweeps.adaptive import SuccessiveHalving
from sweeps.search_space import Pruning
from sweeps.trial_state import RUNNING, Attempt, Trial


def make_trials(curves):
    """Returns trials that have logged the values of some curves, from step 1 on."""
    return [
        Trial(n, RUNNING, (Attempt(n, 0, {}, {"values": dict(enumerate(curve, 1))}),))
        for n, curve in enumerate(curves)
    ]


def make_rule(method, factor, sign=-1):
    pruning = Pruning(method, factor=factor)
    return SuccessiveHalving.from_pruning(pruning, 27, 1, sign)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_are_pruned_where_optuna_prunes_them(factor, direction):
    draw = random.Random(factor)
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    study = optuna.create_study(pruner=pruner, direction=direction)
    rule = make_rule("asha", factor, 1 if direction == "maximize" else -1)
    curves = []
    for number in range(40):
        trial, curve, pruned = study.ask(), [], (False, False)
        curves.append(curve)
        while len(curve) < 27 and not any(pruned):
            curve.append(draw.random())
            trial.report(curve[-1], len(curve))
            values, after = dict(enumerate(curve, 1)), len(curve) - 1
            seen = rule.compare(number, values, make_trials(curves), after)
            pruned = trial.should_prune(), seen is not None
            assert pruned[0] == pruned[1]
    assert 5 < sum(len(curve) < 27 for curve in curves) < 40


def test_brackets_have_the_shares_of_optuna():
    pruner = HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3)
    study = optuna.create_study(pruner=pruner)
    study.ask().should_prune()
    trial = study.ask()
    trial.report(1.0, 1)
    trial.should_prune()
    rule = make_rule("hyperband", 3)
    assert rule.brackets == len(pruner._pruners) == 4
    brackets = [rule.bracket(number) for number in range(5000)]
    shares = pruner._trial_allocation_budgets
    for bracket, share in enumerate(shares):
        expected = share / sum(shares)
        assert brackets.count(bracket) / 5000 == pytest.approx(expected, abs=0.03)
    assert binascii.crc32(b"0") % sum(shares) < sum(shares[: brackets[0] + 1])


def test_asha_has_one_bracket_and_hyperband_compares_within_one():
    assert {make_rule("asha", 3).bracket(n) for n in range(50)} == {0}
    rule = make_rule("hyperband", 3)
    own = next(n for n in range(50) if rule.bracket(n) == 0)
    same = next(n for n in range(own + 1, 99) if rule.bracket(n) == 0)
    other = next(n for n in range(50) if rule.bracket(n) == 1)
    curves = [[0.5] if n in (same, other) else [] for n in range(100)]
    seen = rule.compare(own, {1: 1.0}, make_trials(curves), 0)
    assert seen == {"rung": 0, "step": 1, "value": 1.0, "others": [[same, 0.5]]}
    assert rule.compare(own, {1: 0.4}, make_trials(curves), 0) is None


def test_a_rung_has_the_first_value_at_or_after_its_step():
    rule = make_rule("asha", 3)
    assert rule.rungs(0, {2: 0.9, 4: 0.8, 8: 0.7}) == [(2, 0.9), (4, 0.8)]
    assert rule.rungs(0, {}) == []
