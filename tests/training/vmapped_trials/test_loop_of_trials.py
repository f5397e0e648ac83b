"""Members of a population whose losses are not finite, without any models."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint import Checkpoints
from training.loop import Ending
from training.metric_logger import Meter
from training.metric_writers import Writers
from training.progress import Progress
from training.step import TrainState
from training.vmapped_trials.loop import Member, PopulationRun
from training.vmapped_trials.partitioner import PopulationPartitioner

STEPS, MEMBERS, MOST = 20, 2, 3


def make_member(folder):
    folder.mkdir()
    progress = Progress()
    writers = Writers(folder, progress, step=0, steps=STEPS, silent=True)
    meter = Meter(progress, writers, 0, None)
    return Member(progress, meter, writers, Checkpoints(folder / "checkpoints"))


def step(active, state, carry, batch):
    one = jnp.ones(MEMBERS)
    skipped = jnp.asarray(batch["skipped"], jnp.float32)
    state = state.replace(step=state.step + active.astype(jnp.int32))
    return state, carry, {"loss": (one, one), "skipped": (skipped, one)}


def go(folder, skipped, asked=()):
    """How each member ended, with its checkpoints and the steps it skipped last.

    Args:
      skipped: steps of member 1.
      asked: at which step each member is asked to leave.
    """
    members = [make_member(folder / str(k)) for k in range(MEMBERS)]
    partitioner = PopulationPartitioner(MEMBERS)
    content = {"x": jnp.zeros(MEMBERS)}
    state = TrainState(jnp.zeros(MEMBERS, jnp.int32), content, content)
    seen, ends = [], {}

    def ask():
        seen.append(len(seen) + 1)
        return [k for k, when in dict(asked).items() if seen[-1] >= when]

    def end(k, ending):
        steps = members[k].checkpoints.steps()
        ends[k] = ending, steps, members[k].progress.in_a_row

    run = PopulationRun(
        members=members,
        partitioner=partitioner,
        step=step,
        batch=lambda k: {"skipped": np.array([False, k + 1 in skipped])},
        content=lambda state, carry: {"state": state},
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
    assert ends[0] == (Ending.FINISHED, [STEPS], [])
    ending, steps, in_a_row = ends[1]
    assert (ending, steps) == (Ending.NOT_FINITE, [8])  # one more was under way
    assert in_a_row[:MOST] == [5, 6, 7]


def test_a_member_that_breaks_while_another_leaves_is_saved_first(tmp_path):
    ends = go(tmp_path, range(5, STEPS), asked={0: 7})
    assert ends[0][:2] == (Ending.STOPPED, [7])
    ending, steps, in_a_row = ends[1]
    assert (ending, steps) == (Ending.NOT_FINITE, [8])
    assert in_a_row[:MOST] == [5, 6, 7]
