"""Steps, schedules, metrics, logs and checkpoints."""

import json
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from errors import UserError
from training.averaging import evaluation_params, observe
from training.checkpoints import Checkpoints
from training.metrics import merged, total_weight
from training.optimizers import make_optimizer
from training.partitioning import make_mesh
from training.run_directory import RunDirectory
from training.step import make_state, make_step, total_loss
from training.writers import MetricsFile


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update(changes)
    return cfg


def quadratic(variables, carry, batch, rng):
    error = (variables["params"]["x"] - batch["y"]) ** 2
    return {"loss": ((error * batch["w"]).sum(), batch["w"].sum())}, carry


def test_a_step_follows_the_gradient_of_the_weighted_mean():
    schedule = optax.constant_schedule(0.5)
    step = make_step(quadratic, optax.sgd(schedule), schedule, 0)
    state = make_state({"x": jnp.zeros(3)}, optax.sgd(schedule))
    batch = {"y": jnp.asarray([1.0, 2.0, 5.0]), "w": jnp.asarray([1.0, 3.0, 0.0])}
    state, _, pairs = step(state, (), batch)
    # d/dx of sum w (x - y)^2 / 4 at 0 is -w y / 2; half of it is the update.
    np.testing.assert_allclose(state.params["x"], [0.25, 1.5, 0.0])
    assert int(state.step) == 1
    metrics = merged([pairs])
    assert metrics["loss"] == pytest.approx(13 / 4)
    assert metrics["gradient_norm"] == pytest.approx(np.hypot(0.5, 3.0))
    assert metrics["learning_rate"] == 0.5


def test_auxiliary_losses_are_minimised_too_each_by_its_own_mean():
    pairs = {
        "loss": (jnp.asarray(6.0), jnp.asarray(2.0)),
        "auxiliary/a": (jnp.asarray(10.0), jnp.asarray(4.0)),
        "auxiliary/b": (jnp.asarray(0.0), jnp.asarray(0.0)),
        "other": (jnp.asarray(1e9), jnp.asarray(1.0)),
    }
    assert float(total_loss(pairs)) == 5.5


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


def test_random_numbers_are_those_of_the_step_and_the_seed():
    def noise(variables, carry, batch, rng):
        return {"loss": (jax.random.uniform(rng) + variables["params"], 1.0)}, carry

    schedule = optax.constant_schedule(0.0)
    drawn = {}
    for seed in (1, 2):
        step = make_step(noise, optax.sgd(schedule), schedule, seed)
        state = make_state(jnp.zeros(()), optax.sgd(schedule))
        for k in range(3):
            state, _, pairs = step(state, (), None)
            drawn[seed, k] = float(pairs["loss"][0])
    assert len(set(drawn.values())) == 6
    again = make_state(jnp.zeros(()), optax.sgd(schedule)).replace(step=jnp.asarray(2))
    assert float(step(again, (), None)[2]["loss"][0]) == drawn[2, 2]


def test_merging_metrics_is_adding_pairs():
    parts = [{"loss": (6.0, 2.0)}, {"loss": (1.0, 3.0)}, {"loss": (0.0, 0.0)}]
    assert merged(parts) == {"loss": 7 / 5}
    assert total_weight(parts, "loss") == 5
    assert np.isnan(merged(parts[2:])["loss"])


def test_a_metrics_file_holds_each_step_once_after_a_restart(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in (1, 2, 3):
        first.write(step, "train", {"loss": 1.0 / step})
    with path.open("a") as file:
        file.write('{"step": 4, "spl')  # the process was killed here
    second = MetricsFile(path, 2)
    second.write(3, "train", {"loss": float("nan")})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1] == {"step": 3, "split": "train", "loss": None}


def test_seconds_of_training_go_on_after_a_restart(tmp_path):
    first = MetricsFile(tmp_path / "metrics.jsonl", 0)
    assert first.seconds == 0
    first.write(1, "train", {"loss": 1.0, "seconds": 5.0})
    first.write(1, "validation", {"loss": 1.0})
    first.write(2, "train", {"loss": 1.0, "seconds": 9.0})
    assert MetricsFile(tmp_path / "metrics.jsonl", 1).seconds == 5.0


def content(value):
    return {"state": {"params": {"w": jnp.full((3, 2), value)}}, "carry": ()}


def test_checkpoints_keep_the_newest_two_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, goodness in [
        (1, 5.0),
        (2, 9.0),
        (3, None),
        (4, 7.0),
        (5, None),
        (6, np.nan),
    ]:
        checkpoints.save(step, content(float(step)), goodness)
    checkpoints.manager.wait_until_finished()
    assert checkpoints.steps() == [2, 5, 6]
    assert (checkpoints.find("best"), checkpoints.find("last")) == (2, 6)
    assert checkpoints.find("5") == 5
    with pytest.raises(UserError, match="2, 5, 6"):
        checkpoints.find("3")
    found = checkpoints.restore(5, content(0.0))
    np.testing.assert_array_equal(found["state"]["params"]["w"], 5.0)
    params = checkpoints.restore_params(2)
    np.testing.assert_array_equal(params["w"], 2.0)
    checkpoints.close()


def test_a_write_that_fails_for_want_of_room_is_the_user_s_to_mend(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    big = jax.random.normal(jax.random.key(0), (400, 400))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def save():
        checkpoints.save(1, {"state": {"params": {"w": big}}}, None)
        checkpoints.close()

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(UserError, match="disk full"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_run_without_checkpoints_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.find("best")
    checkpoints.close()


def test_a_run_directory_of_another_config_is_refused_key_by_key(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    here = {"seed": 1, "optim": {"lr": 0.1}, "data": {"dir": "a"}}
    directory.check_config(here)
    directory.write_json("config.json", here)
    directory.check_config({**here, "data": {"dir": "elsewhere"}})
    with pytest.raises(UserError, match=r"optim\.lr is 0\.1 there and 0\.2 here"):
        directory.check_config({**here, "optim": {"lr": 0.2}})


def test_a_folder_of_other_things_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a run directory"):
        RunDirectory(tmp_path).check_config({})
    with pytest.raises(UserError, match="no run in"):
        RunDirectory(tmp_path).read_config()


def test_meshes_that_do_not_fit_the_devices_are_refused():
    count = len(jax.devices())
    assert make_mesh(-1, 1, 1).shape == {"data": count, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=f"the {count} devices"):
        make_mesh(1, 1, count + 1)
    with pytest.raises(UserError, match="at most one of them -1"):
        make_mesh(-1, -1, 1)
