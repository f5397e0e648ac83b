"""Members of a population whose losses are not finite, without any models."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint import Checkpoints
from training.loop import ExitStatus
from training.metric_logger import MetricLogger
from training.metric_writers import MetricWriters
from training.progress import TrainProgress
from training.step import TrainState
from training.vmapped_trials.loop import Trial, VmappedTrainLoop
from training.vmapped_trials.partitioner import VmappedPartitioner

STEPS, MEMBERS, MOST = 20, 2, 3


def make_member(folder):
    folder.mkdir()
    progress = TrainProgress()
    writers = MetricWriters(folder, progress, step=0, steps=STEPS, silent=True)
    meter = MetricLogger(progress, writers, 0, None)
    return Trial(progress, meter, writers, Checkpoints(folder / "checkpoints"))


def step(active, state, carry, batch):
    one = jnp.ones(MEMBERS)
    skipped = jnp.asarray(batch["skipped"], jnp.float32)
    state = state.replace(step=state.step + active.astype(jnp.int32))
    return state, carry, {"loss": (one, one), "nonfinite_steps": (skipped, one)}


def go(folder, skipped, asked=()):
    """How each member ended, with its checkpoints and the steps it skipped last.

    Args:
      skipped: steps of member 1.
      asked: at which step each member is asked to leave.
    """
    members = [make_member(folder / str(k)) for k in range(MEMBERS)]
    partitioner = VmappedPartitioner(MEMBERS)
    content = {"x": jnp.zeros(MEMBERS)}
    state = TrainState(jnp.zeros(MEMBERS, jnp.int32), content, content)
    seen, ends = [], {}

    def ask():
        seen.append(len(seen) + 1)
        return [k for k, when in dict(asked).items() if seen[-1] >= when]

    def end(k, ending):
        steps = members[k].checkpoints.steps()
        ends[k] = ending, steps, members[k].progress.consecutive_nonfinite

    run = VmappedTrainLoop(
        members=members,
        partitioner=partitioner,
        step=step,
        batch=lambda k: {"skipped": np.array([False, k + 1 in skipped])},
        checkpoint_state=lambda state, carry: {"state": state},
        validate=lambda state, entry: {"loss": 1.0},
        best=("loss", "min"),
        steps=STEPS,
        eval_every=100,
        save_every=100,
        patience=0,
        max_nonfinite_steps=MOST,
        flops=lambda k, batch: 0,
        asked=ask,
        ended=end,
    )
    run.train(partitioner.put(state), (), 0)
    return ends


@pytest.mark.parametrize("skipped", [range(5, 8), range(5, STEPS)], ids=["3", "on"])
def test_a_member_ends_after_so_many_skipped_steps_whatever_the_next_is(
    tmp_path, skipped
):
    ends = go(tmp_path, skipped)
    assert ends[0] == (ExitStatus.FINISHED, [STEPS], [])
    ending, steps, consecutive_nonfinite = ends[1]
    assert (ending, steps) == (ExitStatus.NOT_FINITE, [8])  # one more was under way
    assert consecutive_nonfinite[:MOST] == [5, 6, 7]


def test_a_member_that_breaks_while_another_leaves_is_saved_first(tmp_path):
    ends = go(tmp_path, range(5, STEPS), asked={0: 7})
    assert ends[0][:2] == (ExitStatus.STOPPED, [7])
    ending, steps, consecutive_nonfinite = ends[1]
    assert (ending, steps) == (ExitStatus.NOT_FINITE, [8])
    assert consecutive_nonfinite[:MOST] == [5, 6, 7]
