"""Trials of a population whose losses are not finite, without any models."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint import Checkpoints
from training.loop import ExitStatus, LoopSettings, RunRecord
from training.metrics import TrainProgress
from training.step import TrainState
from training.vmapped_trials.loop import VmappedTrainLoop
from training.vmapped_trials.partitioner import VmappedPartitioner

STEPS, TRIALS, LIMIT = 20, 2, 3
SETTINGS = LoopSettings(
    steps=STEPS,
    log_every=0,
    eval_every=100,
    save_every=100,
    patience=0,
    max_nonfinite_steps=LIMIT,
    metric="loss",
    direction="min",
)


def make_record(folder):
    folder.mkdir()
    checkpoints = Checkpoints(folder / "checkpoints")
    return RunRecord(SETTINGS, TrainProgress(), [], checkpoints)


def step(active, state, carry, batch):
    one = jnp.ones(TRIALS)
    skipped = jnp.asarray(batch["skipped"], jnp.float32)
    state = state.replace(step=state.step + active.astype(jnp.int32))
    return state, carry, {"loss": (one, one), "nonfinite_steps": (skipped, one)}


def go(folder, skipped, asked=()):
    """Exit status of each trial, its checkpoints, and the steps that ended it.

    Args:
      skipped: non-finite steps of trial 1.
      asked: step at which each trial is asked to stop.
    """
    records = [make_record(folder / str(k)) for k in range(TRIALS)]
    partitioner = VmappedPartitioner(TRIALS)
    content = {"x": jnp.zeros(TRIALS)}
    state = TrainState(jnp.zeros(TRIALS, jnp.int32), content, content)
    seen, ends = [], {}

    def ask():
        seen.append(len(seen) + 1)
        return [k for k, when in dict(asked).items() if seen[-1] >= when]

    def on_exit(k, status):
        steps = records[k].checkpoints.steps()
        ends[k] = status, steps, records[k].diverged_steps

    loop = VmappedTrainLoop(
        settings=SETTINGS,
        records=records,
        partitioner=partitioner,
        step=step,
        batch=lambda k: {"skipped": np.array([False, k + 1 in skipped])},
        checkpoint_state=lambda state, carry: {"state": state},
        validate=lambda state, stopped: {"loss": 1.0},
        flops=lambda k, batch: 0,
        stop_requests=ask,
        on_exit=on_exit,
    )
    loop.train(partitioner.put(state), ())
    return ends


@pytest.mark.parametrize("skipped", [range(5, 8), range(5, STEPS)], ids=["3", "on"])
def test_a_trial_ends_after_the_limit_of_skipped_steps_whatever_the_next_is(
    tmp_path, skipped
):
    ends = go(tmp_path, skipped)
    assert ends[0] == (ExitStatus.FINISHED, [STEPS], [])
    status, steps, diverged_steps = ends[1]
    assert (status, steps) == (ExitStatus.NOT_FINITE, [8])  # one more was under way
    assert diverged_steps[:LIMIT] == [5, 6, 7]


def test_a_trial_that_diverges_while_another_stops_is_saved_first(tmp_path):
    ends = go(tmp_path, range(5, STEPS), asked={0: 7})
    assert ends[0][:2] == (ExitStatus.STOPPED, [7])
    status, steps, diverged_steps = ends[1]
    assert (status, steps) == (ExitStatus.NOT_FINITE, [8])
    assert diverged_steps[:LIMIT] == [5, 6, 7]
