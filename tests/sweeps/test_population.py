"""Trials that differ in numbers train together as each would alone."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batching.stream import LMStreamBatches
from experiment import train
from experiment.inference import evaluate
from experiment.restore import open_run
from helpers.entry_points import run
from helpers.small_runs import config
from models.common.dropout import keep_threshold
from sweeps import population
from training import spikes
from training.checkpoint import Checkpoints
from training.loop import ExitStatus
from training.vmapped_trials.step import shared_part, varying_values
from utils.errors import UserError
from utils.locks import exclusive_lock


@functools.cache
def runs(which):
    """What tests/helpers/population_runs.py prints."""
    done = run("tests/helpers/population_runs.py", which)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


def test_a_trial_s_losses_are_those_of_the_same_run_alone():
    assert runs("fast")["float64"]["loss"] < 1e-9


@pytest.mark.slow
def test_all_are_those_of_runs_alone_and_close_in_float32():
    assert runs("all")["float64"]["loss"] < 1e-9
    assert runs("all")["float32"]["loss"] < 1e-5


def test_a_trial_that_diverges_or_has_ended_disturbs_no_other():
    found = runs("fast")["undisturbed"]
    assert found["losses"]  # to the bit
    assert found["states"]
    assert found["skipped"] == [0, 6]
    assert found["ended"]
    assert found["steps"] == [6, 0, 6, 6]


RATES = [2e-3, 5e-3, 1e30]
SMALL = {
    "steps": 6,
    "every.log": 1,
    "every.eval": 2,
    "every.checkpoint": 3,
    "decode.max_length": 2,
    "data.batch_size": 4,
    "eval.segment_length": 64,
    "max_nonfinite_steps": 2,
    "model.dropout": 0.1,
    "model.layers": 1,
    "optim.warmup": 0,
    "optim.name": "sgd",
    "optim.clip_norm": 0.0,
    "keep.last": 3,
}


def trial(data_dir, k, **changes):
    names = {"optim.lr": RATES[k], "seed": k}
    return config("python_stdlib", "transformer", data_dir, **SMALL | names | changes)


def rows(workdir, split, key="loss"):
    lines = map(json.loads, (workdir / "metrics.jsonl").open())
    return {row["step"]: row.get(key) for row in lines if row["split"] == split}


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """Three run directories, and why each run ended."""
    folder = tmp_path_factory.mktemp("population")
    workdirs = [folder / str(k) for k in range(3)]
    endings = population.train([trial(data_dir, k) for k in range(3)], workdirs)
    return workdirs, endings


def test_every_trial_has_an_ordinary_run_directory(whole, data_dir):
    workdirs, endings = whole
    assert endings == [ExitStatus.FINISHED, ExitStatus.FINISHED, ExitStatus.NOT_FINITE]
    for k, workdir in enumerate(workdirs):
        document = json.loads((workdir / "config.json").read_text())
        assert (document["seed"], document["optim"]["lr"]) == (k, RATES[k])
        assert (workdir / "about.json").exists()
        assert int((workdir / "exit_code").read_text()) == endings[k]
    assert list(rows(workdirs[0], "train")) == [1, 2, 3, 4, 5, 6]
    assert list(rows(workdirs[0], "validation")) == [2, 4, 6]
    card, _ = evaluate(open_run(workdirs[1], "last"), "validation")
    found = card["scores"]["loss"]["value"]
    np.testing.assert_allclose(found, rows(workdirs[1], "validation")[6], rtol=1e-6)


def test_a_run_that_diverges_ends_while_the_others_go_on(whole):
    workdirs, _ = whole
    skipped = rows(workdirs[2], "train", "nonfinite_steps")
    assert max(skipped) < 6
    assert max(skipped.values()) >= 2
    assert list((workdirs[2] / "replay").iterdir())


@pytest.mark.slow  # the losses of all trials are compared below
def test_a_trial_logs_what_it_would_alone(whole, data_dir, tmp_path):
    workdirs, _ = whole
    assert train.train(trial(data_dir, 0), tmp_path / "alone") is ExitStatus.FINISHED
    for split in ("train", "validation"):
        alone, together = (rows(w, split) for w in (tmp_path / "alone", workdirs[0]))
        assert list(alone) == list(together)
        np.testing.assert_allclose(*(list(r.values()) for r in (together, alone)), 1e-5)
    found = [
        Checkpoints(w / "checkpoints", is_reader=True).steps()
        for w in (tmp_path / "alone", workdirs[0])
    ]
    assert found[0] == found[1]


def test_what_was_stopped_goes_on_from_the_step_all_have(whole, data_dir, tmp_path):
    workdirs = [tmp_path / str(k) for k in range(2)]
    configs = [trial(data_dir, k) for k in range(2)]

    def stop_the_second():
        begun = (workdirs[1] / "metrics.jsonl").exists()
        return {1} if begun and 4 in rows(workdirs[1], "validation") else ()

    endings = population.train(configs, workdirs, stop_the_second)
    assert endings == [ExitStatus.FINISHED, ExitStatus.STOPPED]
    assert (workdirs[1] / "stopped").exists()
    (workdirs[0] / "exit_code").unlink()  # as if killed when all but this was written
    endings = population.train(configs, workdirs)
    assert endings == [ExitStatus.FINISHED] * 2
    for workdir, other in zip(workdirs, whole[0], strict=False):
        for split in ("train", "validation"):
            ours, theirs = rows(workdir, split), rows(other, split)
            assert list(ours) == list(theirs)
            np.testing.assert_allclose(list(ours.values()), list(theirs.values()), 1e-5)
    assert population.train(configs, workdirs) == endings  # nothing is left to do


def test_a_trial_that_another_process_trains_is_refused(data_dir, tmp_path):
    workdirs = [tmp_path / str(k) for k in range(2)]
    configs = [trial(data_dir, k) for k in range(2)]
    with (
        exclusive_lock(workdirs[1]),
        pytest.raises(UserError, match="another process trai"),
    ):
        population.train(configs, workdirs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.width": 32}, "model.width is 64 and 32"),
        ({"data.seed": 3}, "data.seed is 0 and 3"),
        ({"steps": 7}, "steps is 6 and 7 .*the same for all"),
        (
            {"model.feed_forward_dropout": 0.1},
            "model.feed_forward_dropout is None and 'a number' .*the same for all",
        ),
        (
            {"optim.clip_norm": 1.0},
            "optim.clip_norm is False and True .*0 for all or for none",
        ),
    ],
)
def test_what_may_not_differ_is_named(tmp_path, change, words):
    configs = [trial(tmp_path, 0), trial(tmp_path, 1, **change)]
    with pytest.raises(UserError, match=words):
        varying_values(configs)


def test_numbers_that_are_the_same_stay_constants(tmp_path):
    configs = [trial(tmp_path, 0), trial(tmp_path, 1)]
    assert varying_values(configs) == {"seed": [0, 1], "optim.lr": RATES[:2]}
    assert varying_values(configs[:1] * 2) == {}
    assert "optim.lr" not in shared_part(configs[0].to_dict())


def test_a_traced_rate_has_the_mask_of_the_same_one_that_is_not():
    rates = [0.0, 1e-9, 0.003, 0.1, 1 / 3, 0.5, 0.999, 1 - 2**-24]
    traced = jax.jit(jax.vmap(keep_threshold))(jnp.asarray(rates, jnp.float32))
    assert traced.tolist() == [int(keep_threshold(rate)) for rate in rates]
    assert traced.tolist() == pytest.approx([r * 2**32 for r in rates], rel=1e-7, abs=1)


@pytest.mark.slow
def test_each_trial_is_watched_as_it_would_be_alone(whole, data_dir, tmp_path):
    configs = [trial(data_dir, k, **{"every.watch": 2}) for k in (0, 1)]
    workdirs = [tmp_path / str(k) for k in (0, 1)]
    population.train(configs, workdirs)
    train.train(configs[1], tmp_path / "alone")
    for key in ("gradient_norm/embedding", "update_ratio/stack/layers_0"):
        alone = rows(tmp_path / "alone", "watch", key)
        watched = rows(workdirs[1], "watch", key)
        assert list(watched) == list(alone) == [2, 4, 6]
        np.testing.assert_allclose(list(watched.values()), list(alone.values()), 1e-4)
        assert watched != rows(workdirs[0], "watch", key)
    assert rows(workdirs[0], "train") == rows(whole[0][0], "train")  # unwatched


@pytest.mark.parametrize(
    "action",  # test_spikes.py keeps batches of a run alone
    [pytest.param("keep", marks=pytest.mark.slow), "stop"],
)
def test_a_trial_spikes_by_itself(data_dir, tmp_path, monkeypatch, action):
    read_batch = LMStreamBatches.partial_batch

    def poisoned(self, k, rows):
        batch = read_batch(self, k, rows)
        return batch | ({"labels": np.full_like(batch["labels"], 1)} if k == 7 else {})

    monkeypatch.setattr(LMStreamBatches, "partial_batch", poisoned)
    monkeypatch.setattr(spikes, "MIN_LOSSES", 4)
    changes = {"steps": 10, "on_spike": action, "spike_threshold": 4.0}
    changes |= {"every.eval": 10, "optim.name": "adamw", "data.batch_size": 8}
    # The first does not learn, so that no batch is worse than another.
    configs = [trial(data_dir, 0, **changes, **{"optim.lr": x}) for x in (1e-9, 2e-2)]
    workdirs = [tmp_path / "0", tmp_path / "1"]
    endings = population.train(configs, workdirs)
    second = ExitStatus.SPIKED if action == "stop" else ExitStatus.FINISHED
    assert endings == [ExitStatus.FINISHED, second]
    assert [list(rows(workdir, "spike")) for workdir in workdirs] == [[], [8]]
    assert (workdirs[1] / "replay" / "spike-8.npz").exists()
    steps = [int(path.name) for path in (workdirs[1] / "checkpoints").iterdir()]
    assert max(steps) == (6 if action == "stop" else 10)
    assert int((workdirs[1] / "exit_code").read_text()) == second


def test_a_population_cannot_leave_a_batch_out_for_one_trial(data_dir, tmp_path):
    with pytest.raises(UserError, match="on_spike='skip': the trials of a population"):
        population.train([trial(data_dir, 0, on_spike="skip")], [tmp_path])
