"""NT-ASGD: what is averaged, what is used, and what a checkpoint keeps of it."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from training.checkpoint import Checkpoints
from training.checkpoint_params import restore_params
from training.optim.on_validation import eval_params, on_validation
from training.optim.optimizers import make_optimizer
from training.step import make_state, make_step


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update(changes)
    return cfg


def quadratic(variables, carry, batch, rng):
    error = (variables["params"]["x"] - batch["y"]) ** 2
    return {"loss": ((error * batch["w"]).sum(), batch["w"].sum())}, carry


def averaging_run(state, step, first, last):
    """Steps of nt_asgd with a validation after each; the states after each."""
    found = []
    for k in range(first, last):
        state, _, _ = step(state, (), {"y": jnp.full(3, 1.0 + k), "w": jnp.ones(3)})
        state = state.replace(opt_state=on_validation(state.opt_state, float(k)))
        found.append(state)
    return found


def test_nt_asgd_uses_the_mean_and_goes_on_from_the_raw_parameters(tmp_path):
    changes = {"schedule": "constant", "weight_decay": 0.1, "clip_norm": 0.0}
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
        np.testing.assert_allclose(eval_params(state)["x"], expected, rtol=1e-5)

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for k in (2, 4):
        checkpoints.save(k, {"state": states[k], "carry": ()}, {}, None)
    checkpoints.manager.wait_until_finished()
    for k in (2, 4):
        used = eval_params(states[k])["x"]
        np.testing.assert_array_equal(restore_params(checkpoints, k)["x"], used)
        content, _ = checkpoints.restore(k, {"state": states[0], "carry": ()})
        last = averaging_run(content["state"], step, k + 1, 7)[-1]
        jax.tree.map(np.testing.assert_array_equal, last, states[-1])
    checkpoints.close()
