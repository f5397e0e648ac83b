"""Steps, schedules, metrics, logs and checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import LanguageModelCase, names

from configs import base
from errors import UserError
from training.averaging import evaluation_params, observe
from training.checkpoints import Checkpoints
from training.optimizers import decays, make_optimizer, make_schedule
from training.partitioning import make_mesh
from training.step import make_state, make_step


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update(changes)
    return cfg


@pytest.mark.parametrize(
    ("name", "last"),
    [("constant", 2.0), ("linear", 0.0), ("cosine", 0.0), ("rsqrt", 2 * 0.1**0.5)],
)
def test_schedules_rise_to_the_highest_rate_and_end_where_they_should(name, last):
    cfg = optim(lr=2.0, schedule=name, warmup=10)
    schedule = make_schedule(cfg, 100)
    rates = [float(schedule(step)) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11), atol=1e-5)
    assert max(rates) == pytest.approx(2.0)
    assert rates[100] == pytest.approx(last, abs=1e-5)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_an_unknown_optimiser_or_schedule_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="adamw, adam, sgd, adadelta, nt_asgd"):
        make_optimizer(optim(name="adamm"), 10)
    with pytest.raises(UserError, match="constant, linear, cosine, rsqrt"):
        make_optimizer(optim(schedule="cosin"), 10)


@pytest.mark.parametrize("name", names())
def test_biases_and_gains_of_a_model_do_not_decay(name):
    params = LanguageModelCase(name).variables["params"]
    flat = jax.tree_util.tree_leaves_with_path(decays(params))
    kept = {path[-1].key for path, decay in flat if not decay}
    assert (
        {"bias"}
        <= kept
        <= {"bias", "scale", "candidate_bias"}
        | {
            "content_bias",
            "position_bias",
        }
    )


def test_weight_decay_acts_on_weights_only():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2, 2))}
    cfg = optim(lr=0.1, weight_decay=0.5, schedule="constant")
    optimizer, _ = make_optimizer(cfg, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0.0)


def test_adadelta_is_the_paper_s_algorithm():
    cfg = optim(name="adadelta", lr=1.0, schedule="constant", eps=1e-6, clip=0.0)
    optimizer, _ = make_optimizer(cfg, 10)
    x, squares, moves = 1.0, 0.0, 0.0
    state = make_state({"x": jnp.asarray(x)}, optimizer)
    opt_state = state.opt_state
    for gradient in (0.5, -2.0, 0.1, 3.0):
        updates, opt_state = optimizer.update(
            {"x": jnp.asarray(gradient)}, opt_state, state.params
        )
        squares = 0.95 * squares + 0.05 * gradient**2
        move = -((moves + 1e-6) ** 0.5) / (squares + 1e-6) ** 0.5 * gradient
        moves = 0.95 * moves + 0.05 * move**2
        np.testing.assert_allclose(updates["x"], move, rtol=1e-5)


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
        state = observe(state, loss)
        begun.append(bool(state.average.begun))
    assert (begun.index(True) if any(begun) else None) == expected
    assert begun == sorted(begun)
    if name != "is nan":
        assert first_trigger(losses, 2) == expected


def averaging_run(state, step, first, last):
    """Steps of nt_asgd with a validation after each; the states after each."""
    found = []
    for k in range(first, last):
        state, _, _ = step(state, (), {"y": jnp.full(3, 1.0 + k), "w": jnp.ones(3)})
        state = state.replace(opt_state=observe(state.opt_state, float(k)))
        found.append(state)
    return found


def test_nt_asgd_uses_the_mean_and_goes_on_from_the_raw_parameters(tmp_path):
    changes = {"schedule": "constant", "weight_decay": 0.1, "clip": 0.0}
    cfg = optim(name="nt_asgd", lr=0.3, non_monotone_interval=1, **changes)
    optimizer, schedule = make_optimizer(cfg, 10)
    step = jax.jit(make_step(quadratic, optimizer, schedule, 0))
    states = averaging_run(make_state({"x": jnp.zeros(3)}, optimizer), step, 0, 7)

    x, raw = 0.0, []
    for k in range(7):
        x -= 0.3 * (2 * (x - 1.0 - k) / 3 + 0.1 * x)
        raw.append(x)
    for k, state in enumerate(states):
        np.testing.assert_allclose(state.params["x"], raw[k], rtol=1e-5)
        # The loss after step 2 exceeds that of step 0, so steps 3 and later count.
        expected = np.mean(raw[3 : k + 1]) if k > 2 else raw[k]
        np.testing.assert_allclose(evaluation_params(state)["x"], expected, rtol=1e-5)

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for k in (2, 4):
        checkpoints.save(k, {"state": states[k], "carry": ()}, None)
    checkpoints.manager.wait_until_finished()
    for k in (2, 4):
        used = evaluation_params(states[k])["x"]
        np.testing.assert_array_equal(checkpoints.restore_params(k)["x"], used)
        resumed = checkpoints.restore(k, {"state": states[0], "carry": ()})["state"]
        last = averaging_run(resumed, step, k + 1, 7)[-1]
        jax.tree.map(np.testing.assert_array_equal, last, states[-1])
    checkpoints.close()


def test_meshes_that_do_not_fit_the_devices_are_refused():
    count = len(jax.devices())
    assert make_mesh(-1, 1, 1).shape == {"data": count, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=f"the {count} devices"):
        make_mesh(1, 1, count + 1)
    with pytest.raises(UserError, match="at most one of them -1"):
        make_mesh(-1, -1, 1)
