"""When the averaging of NT-ASGD begins."""

import jax.numpy as jnp
import pytest

from helpers.optimizer_cases import optim
from training.optim.on_validation import on_validation
from training.optim.optimizers import make_optimizer


def first_trigger(losses, n):
    """Algorithm 1 of Merity et al. (2017): the validation that starts averaging."""
    logs = []
    for t, loss in enumerate(losses):
        if t > n and loss > min(logs[: t - n]):
            return t
        logs.append(loss)
    return None


LOSSES = {
    "falls": ([9, 8, 7, 6, 5, 4, 3, 2], None),
    "rises": ([5, 6, 7, 8, 9, 10, 11, 12], 3),
    "stalls": ([9, 8, 5, 6, 4, 6, 6, 6], 5),
    "is equal": ([5, 5, 5, 5, 5, 5, 5, 5], None),
    "is nan": ([9, 8, 7, 6, float("nan"), 5, 4, 3], 4),
}


@pytest.mark.parametrize("name", LOSSES)
def test_averaging_begins_where_the_published_algorithm_begins(name):
    losses, expected = LOSSES[name]
    optimizer, _ = make_optimizer(optim(name="nt_asgd", non_monotone_interval=2), 10)
    state = optimizer.init({"x": jnp.zeros(2)})
    begun = []
    for loss in losses:
        state = on_validation(state, loss)
        begun.append(bool(state.average.is_triggered))
    assert (begun.index(True) if any(begun) else None) == expected
    assert begun == sorted(begun)
    if name != "is nan":
        assert first_trigger(losses, 2) == expected
