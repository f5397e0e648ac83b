"""Study that processes of a sweep share: claims, results, sampling and pruning."""

import functools
import json
import math

import pytest

from helpers import fake_bucket
from helpers.toy_sweep import LOSS, TWELVE, study
from sweeps import trial_state
from sweeps.adaptive import SuccessiveHalving, sample_point
from sweeps.launch import init_folder, read_results
from sweeps.objective import Objective, parse_metrics
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
from sweeps.storage import Storage
from sweeps.study import LeaseLost
from sweeps.trial_state import LEASE_SECONDS, LivenessMonitor
from utils.errors import UserError


@pytest.fixture(scope="module")
def bucket():
    with fake_bucket.serve() as (fake, environment), pytest.MonkeyPatch.context() as m:
        for name, value in environment.items():
            m.setenv(name, value)
        yield fake


@pytest.fixture(params=["disk", "bucket"])
def opened(request, tmp_path):
    if request.param == "disk":
        return functools.partial(study, tmp_path)
    request.getfixturevalue("bucket")
    return functools.partial(study, f"gs://bucket/{tmp_path.name}")


class AllDead(LivenessMonitor):
    """Monitor that takes every process for dead."""

    def is_alive(self, attempt):
        return False


def document(found, trial, index, kind=""):
    """Returns a document of an attempt as it is stored."""
    return found.storage.read(trial_state.document_name(trial, index, kind))


def report(found, claim, values):
    """Reports values beside those of earlier steps; returns whether to prune."""
    prunes = found.should_prune(claim, {**claim.values, **values})
    found.renew(claim)
    return prunes


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
    dead, alive = successor.trials()[first.trial].attempts
    assert (dead.outcome, alive.outcome) == (trial_state.INTERRUPTED, None)


def test_time_between_attempts_does_not_count(tmp_path, monkeypatch):
    found = study(tmp_path)
    claim_next(found)
    assert found.trials()[0].total("seconds") == 0
    monkeypatch.setattr(found, "monitor", AllDead())
    claim = claim_next(found)
    dead, _ = found.trials()[claim.trial].attempts
    assert dead.outcome == trial_state.INTERRUPTED
    assert "seconds" not in dead.end
    claim.begin -= 3
    found.finish(claim, trial_state.DONE, value=1.0, step=1)
    assert 3 <= found.trials()[claim.trial].total("seconds") < 8


def test_chip_hours_and_lost_time_are_summed_over_attempts(tmp_path, monkeypatch):
    found = study(tmp_path)
    devices = {"kind": "tpu", "count": 4}
    claim = claim_next(found, devices=devices)
    claim.begin -= 100
    claim.record_checkpoint(20)
    claim.begin -= 30
    found.renew(claim)  # the last sign of the first attempt
    monkeypatch.setattr(found, "monitor", AllDead())
    claim = claim_next(found, devices=devices)
    claim.begin -= 50
    found.finish(claim, trial_state.INTERRUPTED, is_saved=True)
    claim = claim_next(found, devices=devices)
    claim.begin -= 10
    found.finish(claim, trial_state.DONE, value=1.0, step=1)
    row = found.trials()[0].to_json()
    assert row["attempts"] == 3
    assert row["seconds"] == pytest.approx(190, abs=2)
    assert row["chip_seconds"] == pytest.approx(760, abs=8)
    assert row["lost_seconds"] == pytest.approx(30, abs=1)


def test_a_process_taken_for_dead_loses_its_lease(opened):
    slow = opened()
    claim = claim_next(slow)
    successor = opened(monitor=AllDead())
    assert claim_next(successor).trial == claim.trial
    with pytest.raises(LeaseLost):
        slow.renew(claim)
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
    first = found[0].to_json()
    assert (first["value"], first["step"]) == (0.25, 7)
    assert found[2].to_json()["error"] == "exit code 1: boom"


def test_a_failed_trial_that_is_to_run_again_is_open_in_the_status(tmp_path):
    one = study(tmp_path, space=Space(seeds(1), retries=1))
    init_folder(one.storage, {"config": {}, "space": {}, "retries": 1}, LOSS)
    for state in (trial_state.OPEN, trial_state.FAILED):
        one.finish(claim_next(one), trial_state.FAILED, error="boom")
        rows = [json.dumps(trial.to_json()) for trial in one.trials()]
        (tmp_path / "trials.jsonl").write_text("\n".join(rows))
        [trial], _ = read_results(Storage(tmp_path))
        assert trial.state == state


def test_a_stale_listing_changes_nothing(tmp_path, monkeypatch):
    one, other = study(tmp_path), study(tmp_path, space=Space(seeds(12), retries=0))
    first = claim_next(one)
    listing = one.storage.list("study")
    one.finish(first, trial_state.DONE, value=1.0, step=1)
    claim_next(one)
    monkeypatch.setattr(other.storage, "list", lambda _: listing)
    other.monitor = AllDead()
    # Trial 0 seems dead and has ended; trial 1 seems open and is claimed.
    assert claim_next(other).trial == 2
    assert states(other)[:2] == [trial_state.DONE, trial_state.OPEN]
    assert document(one, 0, 1) is None
    assert document(one, 1, 1) is None


def test_a_claim_without_an_answer_is_known_by_its_token(tmp_path):
    """The first answer is lost; the repeated write finds its own document."""
    storage = Storage(tmp_path, timeout=5)
    create, lost = storage.files.create, [True]

    def create_and_lose(name, content):
        create(name, content)
        if lost and lost.pop():
            raise ConnectionResetError("lost")

    storage.files.create = create_and_lose
    found = study(tmp_path, storage=storage)
    assert claim_next(found).trial == 0
    assert claim_next(study(tmp_path)).trial == 1


def test_a_lease_ends_unless_it_is_renewed(tmp_path):
    found = study(tmp_path)
    claim = claim_next(found)
    claim.renewed -= LEASE_SECONDS + 1
    assert claim.is_expired
    found.renew(claim)
    assert not claim.is_expired


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


def test_each_point_of_tpe_can_be_sampled_again_from_what_was_recorded(tmp_path):
    ranges = {"x": uniform(0, 1), "n": integers(1, 9), "c": choice("a", "b")}
    space = Space(chained(listed([{"x": 0.5}]), tpe(ranges, size=19)), retries=0)
    found = study(tmp_path, space)
    for number in range(20):
        claim = claim_next(found)
        outcome = (trial_state.DONE, trial_state.FAILED, trial_state.PRUNED)[number % 3]
        claim.values = {1: 0.1 * number}
        if number % 7:  # the others stay running
            found.finish(claim, outcome, value=claim.point["x"], step=1)
    starts = [document(found, number, 0) for number in range(20)]
    points = {start["trial"]: start["point"] for start in starts}
    for start in starts[1:]:
        arguments = start["trial"], start["sampled_from"], points
        assert sample_point(space, found.objective, *arguments) == start["point"]
    assert "sampled_from" not in starts[0]
    assert {"trial": 0, "state": "running"} in starts[1]["sampled_from"]
    assert len({json.dumps(start["point"]) for start in starts}) == 20


def test_points_that_optuna_cannot_store_are_sampled_around(tmp_path):
    scales = [[["embedding", 0.1]], []]
    points = chained(
        grid({"optim.lr_scales": scales}), tpe({"x": uniform(0, 1)}, size=1)
    )
    found = study(tmp_path, Space(points))
    for expected in scales:
        claim = claim_next(found)
        assert claim.point == {"optim.lr_scales": expected}
        found.finish(claim, trial_state.DONE, value=1.0, step=1)
    assert 0 <= claim_next(found).point["x"] <= 1


@pytest.mark.parametrize("pruning", [asha(factor=2), hyperband(factor=2)])
def test_trials_that_are_worse_than_all_others_are_pruned(tmp_path, pruning):
    space = Space(random({"x": uniform(0, 1)}, size=16), pruning=pruning)
    found = study(tmp_path, space)
    pruned = []
    for number in range(16):
        claim = claim_next(found)
        pruned.append(False)
        for step in range(1, 11):
            if report(found, claim, {step: float(number)}):
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
            claim = claim_next(found, lambda number, _: number == 0)
            report(found, claim, {1: 1.0})
            found.finish(claim, trial_state.INTERRUPTED)
        survivors = []
        for number in (0, 3, 4, 5, 6, 7, 8, 1, 2):
            loss = 1.0 + number
            claim = claim_next(found, lambda other, _, number=number: other == number)
            if not report(found, claim, {1: loss}):
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
        report(found, claim, {step: curve[step] for step in range(1, 8)})
        found.finish(claim, trial_state.INTERRUPTED)
        claim = claim_next(found)
    if looks == "one by one":
        for step, value in curve.items():
            assert not report(found, claim, {step: value})
    else:
        assert not report(found, claim, curve)
    other = claim_next(found)
    assert (claim.trial, other.trial) == (0, 1)
    assert not report(found, other, {1: 8.0})


def test_each_pruning_can_be_decided_again_from_what_was_recorded(tmp_path):
    space = Space(seeds(12), pruning=hyperband(factor=2, max_steps=8))
    found = study(tmp_path, space)
    num_pruned = 0
    for number in range(12):
        claim = claim_next(found)
        for step in range(1, 9):
            if report(found, claim, {step: (number * 5) % 12 + 1 / step}):
                found.finish(claim, trial_state.PRUNED)
                num_pruned += 1
                end = document(found, number, 0, ".end")
                seen = end["compared_with"]
                rungs = found.halving.rungs(number, claim.values)
                assert rungs[seen["rung"]] == (seen["step"], seen["value"])
                others = [value for _, value in seen["others"]]
                assert not found.halving.continues(seen["value"], others)
                break
        else:
            found.finish(claim, trial_state.DONE, value=1.0, step=8)
    assert num_pruned >= 3


def test_a_trial_that_is_pruned_stays_so(tmp_path):
    found = study(tmp_path, Space(seeds(2), pruning=asha(factor=2)))
    report(found, claim_next(found), {1: 1.0})
    claim = claim_next(found)
    assert report(found, claim, {1: 2.0})
    seen = claim.compared_with
    assert not report(found, claim, {2: 0.0})  # the best at the next rung
    assert claim.compared_with == seen


def test_a_resumed_trial_is_not_compared_again_at_rungs_that_it_passed(tmp_path):
    found = study(tmp_path, Space(seeds(2), pruning=asha(factor=2)))
    claim = claim_next(found)
    assert not report(found, claim, {1: 2.0, 2: 2.0, 3: 2.0})
    found.finish(claim, trial_state.INTERRUPTED)
    better = claim_next(found, lambda number, _: number == 1)
    assert not report(found, better, {1: 1.0, 2: 1.0, 3: 1.0})
    claim = claim_next(found)
    for step in (1, 2, 3):  # again, from an older checkpoint
        assert not report(found, claim, {step: 2.0})
    assert not report(found, better, {4: 1.0})
    assert report(found, claim, {4: 2.0})


def test_the_loss_may_prune_trials_that_are_ranked_by_bleu(tmp_path):
    space = Space(seeds(4), pruning=asha(factor=2, metric="loss"))
    better = {"bleu": "max", "loss": "min"}
    objective = Objective.from_space(space, "bleu", better)
    assert objective.metric.direction == "max"
    sign = objective.pruning_metric.sign
    halving = SuccessiveHalving.from_pruning(space.pruning, 10, 1, sign)
    found = study(tmp_path, space, halving=halving)
    good, bad = claim_next(found), claim_next(found)
    assert not report(found, good, {1: 2.0})
    assert report(found, bad, {1: 3.0})


def test_a_first_rung_beyond_the_last_step_is_refused():
    with pytest.raises(UserError, match="min_steps=20"):
        SuccessiveHalving.from_pruning(Pruning("hyperband", min_steps=20), 10, 1, 1)
    with pytest.raises(UserError, match="max_steps=N"):
        SuccessiveHalving.from_pruning(Pruning("hyperband"), None, 1, 1)


def test_another_space_is_refused_with_the_difference(tmp_path):
    def init(space):
        description = {"config": {}, "space": space.to_dict()}
        init_folder(Storage(tmp_path), description, LOSS)

    init(Space(grid({"seed": [1, 2]})))
    with pytest.raises(UserError) as refused:
        init(Space(grid({"seed": [1, 3]})))
    assert "'seed': 2" in str(refused.value)
    assert "'seed': 3" in str(refused.value)


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


def test_the_best_or_the_last_value_is_the_final_one():
    content = (
        b'{"step": 1, "split": "validation", "loss": 3.0}\n'
        b'{"step": 2, "split": "train", "loss": 0.0}\n'
        b'{"step": 2, "split": "validation", "loss": 1.0}\n'
        b'{"step": 3, "split": "validation", "loss": null}\n'
        b'{"step": 4, "split": "validation", "loss": 2.0}\n'
        b'{"step": 5, "split": "validation", "lo'
    )
    rows = parse_metrics(content)
    assert Objective(LOSS, "best", LOSS).final_value(rows) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).final_value(rows) == (4, 2.0)
    assert Objective(LOSS, "last", LOSS).final_value(parse_metrics(None)) is None
    content += b'ss": 1}\n{"step": 6, "split": "validation", "loss": null}\n'
    rows = parse_metrics(content)
    assert Objective(LOSS, "best", LOSS).final_value(rows) == (2, 1.0)
    assert Objective(LOSS, "last", LOSS).final_value(rows) is None
    assert TWELVE.num_trials(None) == 12
