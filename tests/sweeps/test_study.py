"""Study that processes of a sweep share: claims, results, sampling and pruning."""

import functools
import math

import optuna
import pytest

from helpers.toy_sweep import LOSS, TWELVE, study
from sweeps import trial_state
from sweeps.objective import Objective
from sweeps.optuna_adapter import make_pruner
from sweeps.scheduler import claim_next
from sweeps.search_space import (
    Pruning,
    Space,
    asha,
    chained,
    choice,
    grid,
    hyperband,
    integers,
    listed,
    log_uniform,
    random,
    seeds,
    tpe,
    uniform,
    zipped,
)
from sweeps.study import LeaseLost
from sweeps.trial_state import LivenessMonitor
from utils.errors import UserError


@pytest.fixture(params=["journal", "sqlite"])
def opened(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}" if request.param == "sqlite" else None
    return functools.partial(study, tmp_path, url=url)


class AllDead(LivenessMonitor):
    """Monitor that takes every process for dead."""

    def is_alive(self, key, lease):
        return False


def states(found):
    return [trial.state for trial in found.trials()]


def test_two_processes_never_claim_the_same_trial(opened):
    one, other = opened(), opened()
    claims = [claim_next((one, other)[n % 2]) for n in range(12)]
    assert [claim.trial for claim in claims] == list(range(12))
    assert [claim.point for claim in claims] == [{"seed": n} for n in range(12)]
    assert claim_next(one) is None
    assert claim_next(other) is None


def test_of_two_simultaneous_claims_the_second_takes_the_next_trial(
    opened, monkeypatch
):
    one, other = opened(), opened()
    before = one.trials()
    first = claim_next(other)
    monkeypatch.setattr(one, "trials", lambda: before)  # as read before the other claim
    mine = claim_next(one)
    assert (first.trial, mine.trial) == (0, 1)
    other.finish(first, trial_state.DONE, value=1.0, step=3)
    assert states(other)[:3] == [
        trial_state.DONE,
        trial_state.RUNNING,
        trial_state.OPEN,
    ]


def test_the_trial_of_a_dead_process_is_resumed_with_its_point(tmp_path):
    space = Space(tpe({"x": uniform(0, 1)}, size=14))
    found = study(tmp_path, space)
    claims = [claim_next(found) for _ in range(12)]
    for claim in claims:
        found.finish(claim, trial_state.DONE, value=claim.point["x"], step=1)
    first, second = claim_next(found), claim_next(found)
    # TPE would suggest another point after this.
    found.finish(second, trial_state.DONE, value=-1.0, step=1)
    successor = study(tmp_path, space, monitor=AllDead())
    taken = claim_next(successor)
    assert (taken.trial, taken.point) == (first.trial, first.point)
    states = [trial.state.name for trial in successor.study.trials]
    assert states[12:] == ["FAIL", "COMPLETE", "RUNNING"]


def test_time_between_attempts_does_not_count(tmp_path, monkeypatch):
    found = study(tmp_path)
    claim_next(found)
    assert found.trials()[0].seconds == 0
    monkeypatch.setattr(found, "monitor", AllDead())
    claim = claim_next(found)
    dead, _ = found.trials()[claim.trial].attempts
    assert (dead.outcome, dead.seconds) == (trial_state.INTERRUPTED, None)
    found.finish(claim, trial_state.DONE, value=1.0, step=1)
    assert 0 < found.trials()[claim.trial].seconds < 5
    assert (
        found.trials()[claim.trial].last.seconds == found.trials()[claim.trial].seconds
    )


def test_a_process_taken_for_dead_loses_its_lease(opened):
    slow = opened()
    claim = claim_next(slow)
    successor = opened(monitor=AllDead())
    assert claim_next(successor).trial == claim.trial
    with pytest.raises(LeaseLost):
        slow.send_heartbeat(claim)
    with pytest.raises(LeaseLost):
        slow.finish(claim, trial_state.DONE, value=0.0, step=1)


def test_results_are_read_by_all_processes(opened):
    one = opened(space=Space(seeds(4), retries=0))
    claims = [claim_next(one) for _ in range(4)]
    one.finish(claims[0], trial_state.DONE, value=0.25, step=7)
    one.finish(claims[1], trial_state.DIVERGED)
    one.finish(claims[2], trial_state.FAILED, error="exit code 1: boom")
    one.finish(claims[3], trial_state.INTERRUPTED)
    other = opened(space=Space(seeds(4), retries=0))
    found = other.trials()
    ended = [
        trial_state.DONE,
        trial_state.DIVERGED,
        trial_state.FAILED,
        trial_state.OPEN,
    ]
    assert [trial.state for trial in found] == ended
    assert (found[0].last.value, found[0].last.step) == (0.25, 7)
    assert found[2].to_json()["error"] == "exit code 1: boom"
    assert other.study.best_value == 0.25
    assert other.study.best_params == {"seed": 0}


def test_the_state_that_a_killed_process_did_not_write_is_repaired(opened, monkeypatch):
    dying = opened()
    monkeypatch.setattr(dying, "_tell", lambda *_: None)
    dying.finish(claim_next(dying), trial_state.DONE, value=0.5, step=1)
    assert opened().study.best_value == 0.5


def test_tpe_learns_from_earlier_trials(tmp_path):
    space = Space(tpe({"x": log_uniform(1e-4, 1)}, size=30))
    found = study(tmp_path, space)

    def distance(claim):
        return abs(math.log10(claim.point["x"]) + 2)

    distances = []
    for _ in range(30):
        claim = claim_next(found)
        distances.append(distance(claim))
        found.finish(claim, trial_state.DONE, value=distances[-1], step=1)
    assert sum(distances[20:]) < 0.5 * sum(distances[:10])


def test_a_dead_process_does_not_change_what_tpe_suggests(tmp_path):
    ranges = {"x": uniform(0, 1), "n": integers(1, 9), "c": choice("a", "b")}
    space = Space(zipped(tpe(ranges), seeds(16)))

    def points(folder, dying):
        folder.mkdir()
        found = study(folder, space)
        for number in range(16):
            claim = claim_next(found)
            if number in dying:
                found = study(folder, space, monitor=AllDead())
                claim = claim_next(found)
                found.monitor = LivenessMonitor()
            yield claim.point
            value = claim.point["x"] - claim.point["n"]
            found.finish(claim, trial_state.DONE, value=value, step=1)

    whole = list(points(tmp_path / "whole", ()))
    assert list(points(tmp_path / "parts", (1, 5, 12))) == whole
    assert len({point["x"] for point in whole}) == 16


def test_tpe_knows_the_results_of_listed_points(tmp_path):
    points = chained(listed([{"x": 0.5}]), tpe({"x": uniform(0, 1)}, size=1))
    found = study(tmp_path, Space(points))
    found.finish(claim_next(found), trial_state.DONE, value=1.0, step=1)
    assert found.study.best_params == {"x": 0.5}
    assert 0 <= claim_next(found).point["x"] <= 1


def test_points_that_optuna_cannot_store_are_kept_as_attributes(tmp_path):
    scales = [[["embedding", 0.1]], []]
    space = Space(grid({"optim.lr_scales": scales, "seed": [1]}))
    found = study(tmp_path, space)
    assert claim_next(found).point == {"optim.lr_scales": scales[0], "seed": 1}
    assert found.study.trials[0].params == {"seed": 1}


@pytest.mark.parametrize("pruning", [asha(factor=2), hyperband(factor=2)])
def test_trials_that_are_worse_than_all_others_are_pruned(tmp_path, pruning):
    space = Space(random({"x": uniform(0, 1)}, size=16), pruning=pruning)
    found = study(tmp_path, space)
    pruned = []
    for number in range(16):
        claim = claim_next(found)
        pruned.append(False)
        for step in range(1, 11):
            if found.report(claim, {step: float(number)}):
                pruned[-1] = True
                break
        outcome = trial_state.PRUNED if pruned[-1] else trial_state.DONE
        found.finish(claim, outcome, value=float(number), step=step)
    assert not pruned[0]
    assert sum(pruned) >= 8


@pytest.mark.parametrize("pruning", [asha(factor=3), hyperband(factor=3, max_steps=1)])
def test_interrupted_attempts_do_not_count_in_pruning(tmp_path, pruning):
    def kept(path, interruptions):
        path.mkdir()
        found = study(path, Space(seeds(9), pruning=pruning))
        for _ in range(interruptions):
            claim = claim_next(found, lambda trial: trial.number == 0)
            found.report(claim, {1: 1.0})
            found.finish(claim, trial_state.INTERRUPTED)
        survivors = []
        for number in (0, 3, 4, 5, 6, 7, 8, 1, 2):
            loss = 1.0 + number
            claim = claim_next(
                found, lambda trial, number=number: trial.number == number
            )
            if not found.report(claim, {1: loss}):
                survivors.append(number)
            found.finish(claim, trial_state.DONE, value=loss, step=1)
        return survivors

    assert kept(tmp_path / "a", 0) == kept(tmp_path / "b", 4) == [0, 1, 2]


@pytest.mark.parametrize("looks", ["one by one", "at once", "interrupted"])
def test_rungs_have_the_values_of_their_steps_however_they_are_reported(
    tmp_path, looks
):
    """The loss falls from 9 to 2; the first rung must have 9, above the other's 8."""
    found = study(tmp_path, Space(seeds(2), pruning=asha(factor=2)))
    curve = {step: 10.0 - step for step in range(1, 9)}
    claim = claim_next(found)
    if looks == "interrupted":
        found.report(claim, {step: curve[step] for step in range(1, 8)})
        found.finish(claim, trial_state.INTERRUPTED)
        claim = claim_next(found)
    if looks == "one by one":
        for step, value in curve.items():
            assert not found.report(claim, {step: value})
    else:
        assert not found.report(claim, curve)
    other = claim_next(found)
    assert (claim.trial, other.trial) == (0, 1)
    assert not found.report(other, {1: 8.0})


def test_an_interruption_does_not_change_the_bracket_of_hyperband(tmp_path):
    def brackets(path, interruptions):
        path.mkdir()
        pruning = hyperband(factor=3, max_steps=9)
        found = study(path, Space(seeds(9), pruning=pruning))
        drawn = {}
        for number in range(9):
            for _ in range(interruptions if number == 0 else 0):
                found.finish(claim_next(found), trial_state.INTERRUPTED)
            claim = claim_next(found)
            found.report(claim, {1: 1.0})
            trial = found.study.trials[claim.optuna_trial.number]
            drawn[claim.trial] = found.study.pruner._get_bracket_id(found.study, trial)
            found.finish(claim, trial_state.DONE, value=1.0, step=1)
        return drawn

    without = brackets(tmp_path / "a", 0)
    assert len(set(without.values())) > 1
    assert brackets(tmp_path / "b", 1) == without


def test_the_loss_may_prune_trials_that_are_ranked_by_bleu(tmp_path):
    space = Space(seeds(4), pruning=asha(factor=2, metric="loss"))
    found = study(tmp_path, space)
    better = {"bleu": "max", "loss": "min"}
    found.objective = Objective.from_space(space, "bleu", better)
    assert found.objective.metric.direction == "max"
    found.study = optuna.create_study(
        direction="maximize", pruner=make_pruner(space.pruning, 10, 1)
    )
    good, bad = claim_next(found), claim_next(found)
    assert not found.report(good, {1: 2.0})
    assert found.report(bad, {1: 3.0})


def test_a_first_rung_beyond_the_last_step_is_refused():
    with pytest.raises(UserError, match="min_steps=20"):
        make_pruner(Pruning("hyperband", min_steps=20), 10, 1)
    with pytest.raises(UserError, match="max_steps=N"):
        make_pruner(Pruning("hyperband"), None, 1)


def test_another_space_is_refused_with_the_difference(tmp_path):
    study(tmp_path, Space(grid({"seed": [1, 2]})))
    with pytest.raises(UserError) as refused:
        study(tmp_path, Space(grid({"seed": [1, 3]})))
    assert '"seed": 2' in str(refused.value)
    assert '"seed": 3' in str(refused.value)


def test_a_larger_sweep_resumes_a_smaller_one(tmp_path):
    small = study(tmp_path, count=2)
    for _ in range(2):
        small.finish(claim_next(small), trial_state.DONE, value=1.0, step=1)
    assert claim_next(small) is None
    assert claim_next(study(tmp_path, count=4)).trial == 2


def test_an_unknown_metric_needs_a_direction():
    with pytest.raises(UserError, match="bleu, loss"):
        Objective.from_space(
            Space(seeds(1), metric="speed"), "bleu", {"bleu": "max", "loss": 1}
        )
    space = Space(seeds(1), metric="train/speed", direction="max")
    metric = Objective.from_space(space, "bleu", {}).metric
    assert (metric.split, metric.name, metric.spec) == (
        "train",
        "speed",
        "train/speed",
    )


def test_the_best_or_the_last_value_is_the_final_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "split": "validation", "loss": 3.0}\n'
        '{"step": 2, "split": "train", "loss": 0.0}\n'
        '{"step": 2, "split": "validation", "loss": 1.0}\n'
        '{"step": 3, "split": "validation", "loss": null}\n'
        '{"step": 4, "split": "validation", "loss": 2.0}\n'
        '{"step": 5, "split": "validation", "lo'
    )
    assert Objective(LOSS, "best", LOSS).final_value(path) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).final_value(path) == (4, 2.0)
    assert Objective(LOSS, "last", LOSS).final_value(tmp_path / "none") is None
    with path.open("a") as file:
        file.write('ss": 1}\n{"step": 6, "split": "validation", "loss": null}\n')
    assert Objective(LOSS, "best", LOSS).final_value(path) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).final_value(path) is None
    assert TWELVE.num_trials(None) == 12
