"""What processes of a sweep share: who takes which trial, and what is written down."""

import functools
import math

import optuna
import pytest

from helpers.toy_sweep import LOSS, TWELVE, study
from sweeps import ledger
from sweeps.leases import Watch
from sweeps.objective import Objective
from sweeps.pruners import make_pruner
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
from sweeps.study import TakenAway
from utils.errors import UserError


@pytest.fixture(params=["journal", "sqlite"])
def opened(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}" if request.param == "sqlite" else None
    return functools.partial(study, tmp_path, url=url)


class Everyone(Watch):
    """Holds everyone for dead."""

    def is_alive(self, key, lease):
        return False


def states(found):
    return [slot.state for slot in found.slots()]


def test_two_processes_never_have_the_same_trial(opened):
    one, other = opened(), opened()
    claims = [(one, other)[n % 2].claim() for n in range(12)]
    assert [claim.slot for claim in claims] == list(range(12))
    assert [claim.point for claim in claims] == [{"seed": n} for n in range(12)]
    assert one.claim() is None
    assert other.claim() is None


def test_who_comes_second_at_one_moment_loses_and_takes_the_next(opened, monkeypatch):
    one, other = opened(), opened()
    before = one.slots()
    first = other.claim()
    monkeypatch.setattr(one, "slots", lambda: before)  # read before the other wrote
    mine = one.claim()
    assert (first.slot, mine.slot) == (0, 1)
    other.end(first, ledger.DONE, value=1.0, step=3)
    assert states(other)[:3] == [ledger.DONE, ledger.RUNNING, ledger.OPEN]


def test_a_dead_process_s_trial_goes_to_another_with_its_point(tmp_path):
    space = Space(tpe({"x": uniform(0, 1)}, size=14))
    found = study(tmp_path, space)
    claims = [found.claim() for _ in range(12)]
    for claim in claims:
        found.end(claim, ledger.DONE, value=claim.point["x"], step=1)
    first, second = found.claim(), found.claim()
    found.end(second, ledger.DONE, value=-1.0, step=1)  # TPE would say another now
    heir = study(tmp_path, space, watch=Everyone())
    taken = heir.claim()
    assert (taken.slot, taken.point) == (first.slot, first.point)
    states = [trial.state.name for trial in heir.study.trials]
    assert states[12:] == ["FAIL", "COMPLETE", "RUNNING"]


def test_time_in_which_nobody_ran_does_not_count(tmp_path, monkeypatch):
    found = study(tmp_path)
    found.claim()
    assert found.slots()[0].seconds == 0
    monkeypatch.setattr(found, "watch", Everyone())
    claim = found.claim()
    dead, _ = found.slots()[claim.slot].attempts
    assert (dead.outcome, dead.seconds) == (ledger.INTERRUPTED, None)
    found.end(claim, ledger.DONE, value=1.0, step=1)
    assert 0 < found.slots()[claim.slot].seconds < 5
    assert found.slots()[claim.slot].last.seconds == found.slots()[claim.slot].seconds


def test_a_process_taken_for_dead_learns_it_at_its_next_word(opened):
    slow = opened()
    claim = slow.claim()
    heir = opened(watch=Everyone())
    assert heir.claim().slot == claim.slot
    with pytest.raises(TakenAway):
        slow.renew(claim)
    with pytest.raises(TakenAway):
        slow.end(claim, ledger.DONE, value=0.0, step=1)


def test_what_is_written_down_is_read_by_all(opened):
    one = opened(space=Space(seeds(4), retries=0))
    claims = [one.claim() for _ in range(4)]
    one.end(claims[0], ledger.DONE, value=0.25, step=7)
    one.end(claims[1], ledger.DIVERGED)
    one.end(claims[2], ledger.FAILED, error="exit code 1: boom")
    one.end(claims[3], ledger.INTERRUPTED)
    other = opened(space=Space(seeds(4), retries=0))
    found = other.slots()
    ended = [ledger.DONE, ledger.DIVERGED, ledger.FAILED, ledger.OPEN]
    assert [slot.state for slot in found] == ended
    assert (found[0].last.value, found[0].last.step) == (0.25, 7)
    assert found[2].to_json()["error"] == "exit code 1: boom"
    assert other.study.best_value == 0.25
    assert other.study.best_params == {"seed": 0}


def test_what_a_killed_process_could_not_tell_optuna_is_told(opened, monkeypatch):
    dying = opened()
    monkeypatch.setattr(dying, "_tell", lambda *_: None)
    dying.end(dying.claim(), ledger.DONE, value=0.5, step=1)
    assert opened().study.best_value == 0.5


def test_trials_of_tpe_learn_from_those_before(tmp_path):
    space = Space(tpe({"x": log_uniform(1e-4, 1)}, size=30))
    found = study(tmp_path, space)

    def distance(claim):
        return abs(math.log10(claim.point["x"]) + 2)

    distances = []
    for _ in range(30):
        claim = found.claim()
        distances.append(distance(claim))
        found.end(claim, ledger.DONE, value=distances[-1], step=1)
    assert sum(distances[20:]) < 0.5 * sum(distances[:10])


def test_a_process_that_dies_changes_nothing_in_what_tpe_suggests(tmp_path):
    ranges = {"x": uniform(0, 1), "n": integers(1, 9), "c": choice("a", "b")}
    space = Space(zipped(tpe(ranges), seeds(16)))

    def points(folder, dying):
        folder.mkdir()
        found = study(folder, space)
        for number in range(16):
            claim = found.claim()
            if number in dying:
                found = study(folder, space, watch=Everyone())
                claim = found.claim()
                found.watch = Watch()
            yield claim.point
            value = claim.point["x"] - claim.point["n"]
            found.end(claim, ledger.DONE, value=value, step=1)

    whole = list(points(tmp_path / "whole", ()))
    assert list(points(tmp_path / "parts", (1, 5, 12))) == whole
    assert len({point["x"] for point in whole}) == 16


def test_a_list_before_tpe_tells_it_something(tmp_path):
    points = chained(listed([{"x": 0.5}]), tpe({"x": uniform(0, 1)}, size=1))
    found = study(tmp_path, Space(points))
    found.end(found.claim(), ledger.DONE, value=1.0, step=1)
    assert found.study.best_params == {"x": 0.5}
    assert 0 <= found.claim().point["x"] <= 1


def test_points_that_optuna_cannot_hold_are_kept_all_the_same(tmp_path):
    scales = [[["embedding", 0.1]], []]
    space = Space(grid({"optim.lr_scales": scales, "seed": [1]}))
    found = study(tmp_path, space)
    assert found.claim().point == {"optim.lr_scales": scales[0], "seed": 1}
    assert found.study.trials[0].params == {"seed": 1}


@pytest.mark.parametrize("pruning", [asha(factor=2), hyperband(factor=2)])
def test_a_trial_that_does_worse_than_all_others_is_stopped(tmp_path, pruning):
    space = Space(random({"x": uniform(0, 1)}, size=16), pruning=pruning)
    found = study(tmp_path, space)
    pruned = []
    for number in range(16):
        claim = found.claim()
        pruned.append(False)
        for step in range(1, 11):
            if found.report(claim, {step: float(number)}):
                pruned[-1] = True
                break
        outcome = ledger.PRUNED if pruned[-1] else ledger.DONE
        found.end(claim, outcome, value=float(number), step=step)
    assert not pruned[0]
    assert sum(pruned) >= 8


@pytest.mark.parametrize("pruning", [asha(factor=3), hyperband(factor=3, max_steps=1)])
def test_attempts_that_others_followed_are_no_rivals(tmp_path, pruning):
    """A trial that was interrupted is as good as one that was not."""

    def kept(path, interruptions):
        path.mkdir()
        found = study(path, Space(seeds(9), pruning=pruning))
        for _ in range(interruptions):
            claim = found.claim(lambda slot: slot.number == 0)
            found.report(claim, {1: 1.0})
            found.end(claim, ledger.INTERRUPTED)
        lives = []
        for number in (0, 3, 4, 5, 6, 7, 8, 1, 2):
            loss = 1.0 + number
            claim = found.claim(lambda slot, number=number: slot.number == number)
            if not found.report(claim, {1: loss}):
                lives.append(number)
            found.end(claim, ledger.DONE, value=loss, step=1)
        return lives

    assert kept(tmp_path / "a", 0) == kept(tmp_path / "b", 4) == [0, 1, 2]


@pytest.mark.parametrize("looks", ["one by one", "at once", "interrupted"])
def test_rungs_keep_the_values_of_their_steps_however_they_are_reported(
    tmp_path, looks
):
    """A trial that falls from 9 to 2 is at its first rung no rival of one with 8."""
    found = study(tmp_path, Space(seeds(2), pruning=asha(factor=2)))
    curve = {step: 10.0 - step for step in range(1, 9)}
    claim = found.claim()
    if looks == "interrupted":
        found.report(claim, {step: curve[step] for step in range(1, 8)})
        found.end(claim, ledger.INTERRUPTED)
        claim = found.claim()
    if looks == "one by one":
        for step, value in curve.items():
            assert not found.report(claim, {step: value})
    else:
        assert not found.report(claim, curve)
    other = found.claim()
    assert (claim.slot, other.slot) == (0, 1)
    assert not found.report(other, {1: 8.0})


def test_an_interruption_changes_no_bracket(tmp_path):
    def brackets(path, interruptions):
        path.mkdir()
        pruning = hyperband(factor=3, max_steps=9)
        found = study(path, Space(seeds(9), pruning=pruning))
        drawn = {}
        for number in range(9):
            for _ in range(interruptions if number == 0 else 0):
                found.end(found.claim(), ledger.INTERRUPTED)
            claim = found.claim()
            found.report(claim, {1: 1.0})
            trial = found.study.trials[claim.trial.number]
            drawn[claim.slot] = found.study.pruner._get_bracket_id(found.study, trial)
            found.end(claim, ledger.DONE, value=1.0, step=1)
        return drawn

    without = brackets(tmp_path / "a", 0)
    assert len(set(without.values())) > 1
    assert brackets(tmp_path / "b", 1) == without


def test_loss_may_prune_where_bleu_is_looked_for(tmp_path):
    space = Space(seeds(4), pruning=asha(factor=2, metric="loss"))
    found = study(tmp_path, space)
    better = {"bleu": "max", "loss": "min"}
    found.objective = Objective.of(space, "bleu", better)
    assert found.objective.metric.direction == "max"
    found.study = optuna.create_study(
        direction="maximize", pruner=make_pruner(space.pruning, 10, 1)
    )
    good, bad = found.claim(), found.claim()
    assert not found.report(good, {1: 2.0})
    assert found.report(bad, {1: 3.0})


def test_a_rung_beyond_the_end_is_refused():
    with pytest.raises(UserError, match="min_steps=20"):
        make_pruner(Pruning("hyperband", min_steps=20), 10, 1)
    with pytest.raises(UserError, match="max_steps=N"):
        make_pruner(Pruning("hyperband"), None, 1)


def test_another_space_is_refused_with_what_changed(tmp_path):
    study(tmp_path, Space(grid({"seed": [1, 2]})))
    with pytest.raises(UserError) as refused:
        study(tmp_path, Space(grid({"seed": [1, 3]})))
    assert '"seed": 2' in str(refused.value)
    assert '"seed": 3' in str(refused.value)


def test_a_larger_sweep_goes_on_where_a_smaller_one_ended(tmp_path):
    small = study(tmp_path, count=2)
    for _ in range(2):
        small.end(small.claim(), ledger.DONE, value=1.0, step=1)
    assert small.claim() is None
    assert study(tmp_path, count=4).claim().slot == 2


def test_a_metric_needs_a_direction():
    with pytest.raises(UserError, match="bleu, loss"):
        Objective.of(
            Space(seeds(1), metric="speed"), "bleu", {"bleu": "max", "loss": 1}
        )
    space = Space(seeds(1), metric="train/speed", direction="max")
    metric = Objective.of(space, "bleu", {}).metric
    assert (metric.split, metric.name, metric.words) == (
        "train",
        "speed",
        "train/speed",
    )


def test_the_best_or_the_last_value_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "split": "validation", "loss": 3.0}\n'
        '{"step": 2, "split": "train", "loss": 0.0}\n'
        '{"step": 2, "split": "validation", "loss": 1.0}\n'
        '{"step": 3, "split": "validation", "loss": null}\n'
        '{"step": 4, "split": "validation", "loss": 2.0}\n'
        '{"step": 5, "split": "validation", "lo'
    )
    assert Objective(LOSS, "best", LOSS).judge(path) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).judge(path) == (4, 2.0)
    assert Objective(LOSS, "last", LOSS).judge(tmp_path / "none") is None
    with path.open("a") as file:
        file.write('ss": 1}\n{"step": 6, "split": "validation", "loss": null}\n')
    assert Objective(LOSS, "best", LOSS).judge(path) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).judge(path) is None
    assert TWELVE.num_trials(None) == 12
