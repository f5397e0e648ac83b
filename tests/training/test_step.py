"""A step follows the gradient, whole or in parts, and only where it is finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from helpers.architectures import LanguageModelCase, Seq2SeqCase
from tasks.language_modeling import Task as LanguageModeling
from tasks.translation import Task as Translation
from training.gradients import gradients, total_loss
from training.metrics import compute, merge
from training.optim.optimizers import make_optimizer
from training.step import make_state, make_step

RATE = optax.constant_schedule(0.5)
SGD = optax.with_extra_args_support(optax.sgd(RATE))


def quadratic(variables, carry, batch, rng):
    error = (variables["params"]["x"] - batch["y"]) ** 2
    return {"loss": ((error * batch["w"]).sum(), batch["w"].sum())}, carry


def start(**options):
    return make_state({"x": jnp.zeros(3)}, SGD, **options)


BATCH = {"y": jnp.asarray([1.0, 2.0, 5.0]), "w": jnp.asarray([1.0, 3.0, 0.0])}


def test_a_step_follows_the_gradient_of_the_weighted_mean():
    state, _, pairs = make_step(quadratic, SGD, RATE, 0)(start(), (), BATCH)
    # d/dx of sum w (x - y)^2 / 4 at 0 is -w y / 2; half of it is the update.
    np.testing.assert_allclose(state.params["x"], [0.25, 1.5, 0.0])
    assert int(state.step) == 1
    metrics = compute(merge({}, pairs))
    assert metrics["loss"] == pytest.approx(13 / 4)
    assert metrics["gradient_norm"] == pytest.approx(np.hypot(0.5, 3.0))
    assert (metrics["learning_rate"], metrics["nonfinite_steps"]) == (0.5, 0)


def test_auxiliary_losses_are_minimised_too_each_by_its_own_mean():
    pairs = {
        "loss": (jnp.asarray(6.0), jnp.asarray(2.0)),
        "auxiliary/a": (jnp.asarray(10.0), jnp.asarray(4.0)),
        "auxiliary/b": (jnp.asarray(0.0), jnp.asarray(0.0)),
        "other": (jnp.asarray(1e9), jnp.asarray(1.0)),
    }
    assert float(total_loss(pairs)) == 5.5


def test_random_numbers_are_those_of_the_step_and_the_seed():
    def noise(variables, carry, batch, rng):
        value = jax.random.uniform(rng) + variables["params"]["x"].sum()
        return {"loss": (value, jnp.ones(()))}, carry

    drawn, still = {}, optax.constant_schedule(0.0)
    sgd = optax.with_extra_args_support(optax.sgd(still))
    for seed in (1, 2):
        step, state = make_step(noise, sgd, still, seed), start()
        for k in range(3):
            state, _, pairs = step(state, (), None)
            drawn[seed, k] = float(pairs["loss"][0])
    assert len(set(drawn.values())) == 6
    again = start().replace(step=jnp.asarray(2))
    assert float(step(again, (), None)[2]["loss"][0]) == drawn[2, 2]


def overflowing():
    """SGD beside a number that overflows at once, though updates stay finite."""
    overflow = optax.GradientTransformation(
        lambda params: jnp.ones(()),
        lambda updates, state, params=None: (updates, state * jnp.inf),
    )
    return optax.with_extra_args_support(optax.chain(overflow, optax.sgd(RATE)))


ADAM = optax.with_extra_args_support(optax.adam(RATE, eps=0.0))


@pytest.mark.parametrize(
    ("where", "optimizer"),
    [
        ("loss", SGD),
        ("gradient", SGD),
        ("update", ADAM),  # the gradient of the word without weight is 0: 0 / 0
        ("optimizer", overflowing()),
        ("carry", SGD),
    ],
)
def test_what_is_not_finite_changes_nothing_but_the_number_of_the_step(
    where, optimizer
):
    def loss(variables, carry, batch, rng):
        pairs, _ = quadratic(variables, carry, batch, rng)
        total, weight = pairs["loss"]
        if where == "gradient":  # that of a root is infinite at 0
            total = total + jnp.sqrt(variables["params"]["x"][0] * batch["bad"])
        elif where == "loss":
            total = total + jnp.where(batch["bad"], jnp.inf, 0)
        elif where == "carry":
            carry = carry / (1 - batch["bad"])
        return {"loss": (total, weight)}, carry + 1

    step = make_step(loss, optimizer, RATE, 0, ema_decay=0.9)
    before = make_state({"x": jnp.zeros(3)}, optimizer, ema_decay=0.9)
    bad, good = BATCH | {"bad": jnp.ones(())}, BATCH | {"bad": jnp.zeros(())}
    after, carry, pairs = step(before, jnp.zeros(2), bad)
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=before.step), before)
    np.testing.assert_array_equal(carry, 0)
    metrics = merge({}, pairs)
    assert metrics.pop("nonfinite_steps") == (1, 1)
    assert set(metrics.values()) == {(0, 0)}
    if where in ("loss", "carry"):
        assert merge({}, step(before, carry, good)[2])["nonfinite_steps"] == (0, 1)


def test_what_a_step_leaves_alone_may_be_infinite():
    cfg = base.get_config().optim
    cfg.update(name="nt_asgd", schedule="plateau")  # lowest losses, before any: inf
    optimizer, schedule = make_optimizer(cfg, steps=10)
    state = make_state({"x": jnp.zeros(3)}, optimizer)
    assert sum(np.isinf(leaf).any() for leaf in jax.tree.leaves(state)) == 3
    _, _, pairs = make_step(quadratic, optimizer, schedule, 0)(state, (), BATCH)
    assert merge({}, pairs)["nonfinite_steps"] == (0, 1)


def test_a_carry_that_is_not_finite_on_one_device_stops_the_step_on_all():
    def loss(variables, carry, batch, rng):
        pairs, carry = quadratic(variables, carry, batch, rng)
        return pairs, carry + batch["bad"]

    step = make_step(loss, SGD, RATE, 0, axis_name="data")
    mapped = jax.vmap(step, in_axes=(None, 0, 0), axis_name="data")
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), BATCH)
    batch["bad"] = jnp.asarray([0.0, jnp.inf])
    state, carry, pairs = mapped(start(), jnp.zeros((2, 3)), batch)
    np.testing.assert_array_equal(state.params["x"], 0)
    np.testing.assert_array_equal(carry, 0)
    np.testing.assert_array_equal(pairs["nonfinite_steps"][0], 1)


def test_the_mean_of_parameters_moves_as_its_decay_says():
    step, state = (
        make_step(quadratic, SGD, RATE, 0, ema_decay=0.75),
        start(ema_decay=0.75),
    )
    expected = np.zeros(3)
    for _ in range(3):
        state, _, _ = step(state, (), BATCH)
        expected = 0.75 * expected + 0.25 * np.asarray(state.params["x"])
    np.testing.assert_allclose(state.ema["x"], expected, rtol=1e-6)
    assert not np.allclose(state.ema["x"], state.params["x"], rtol=0.1)


def test_merging_metrics_is_adding_pairs():
    totals = {}
    for pair in [(6.0, 2.0), (1.0, 3.0), (0.0, 0.0)]:
        totals = merge(totals, {"loss": pair})
    assert totals == {"loss": (7.0, 5.0)}
    assert compute(totals) == {"loss": 7 / 5}
    assert np.isnan(compute({"loss": (0.0, 0.0)})["loss"])


ROWS = 6


def language_modeling(name):
    changes = {"activation_regularization": 0.5} if name == "rnn" else {}
    case = LanguageModelCase(name, layers=1, **changes)
    random = np.random.default_rng(0)
    batch = {
        "tokens": random.integers(5, 20, (ROWS, 5)),
        "labels": random.integers(5, 20, (ROWS, 5)),
        "weights": random.integers(0, 2, (ROWS, 5)).astype(np.float32),
        "reset": np.arange(ROWS) % 2 == 0,
    }
    carry = case.model.initial_carry(ROWS, train=True)
    noise = np.random.default_rng(1)

    def fill(leaf):
        if leaf.dtype != np.float32:
            return leaf
        return jnp.asarray(noise.normal(size=leaf.shape), leaf.dtype)

    task = LanguageModeling({"text": None})
    return task, case, jax.tree.map(fill, carry), batch


def translation(name):
    case = Seq2SeqCase(name, layers=1)
    random = np.random.default_rng(0)
    lengths = random.integers(2, 6, ROWS)
    mask = np.arange(5) < lengths[:, None]
    batch = {
        "source": random.integers(5, 20, (ROWS, 7)),
        "source_mask": np.ones((ROWS, 7), bool),
        "target_in": random.integers(5, 20, (ROWS, 5)),
        "target_mask": mask,
        "labels": random.integers(5, 20, (ROWS, 5)),
        "weights": mask.astype(np.float32),
        "reset": np.ones(ROWS, bool),
    }
    tokenizers = {"source": None, "target": None}
    return Translation(tokenizers, label_smoothing=0.1), case, (), batch


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (language_modeling, "rnn"),  # losses of its own
        (language_modeling, "transformer_xl"),  # a carry
        pytest.param(translation, "transformer", marks=pytest.mark.slow),
    ],
)
def test_a_batch_in_parts_has_the_gradient_metrics_and_carry_of_the_whole(make, name):
    task, case, carry, batch = make(name)

    def loss(variables, carry, batch, rng):
        return task.loss(case.model, variables, carry, batch, rng, train=True)

    found = {
        parts: jax.jit(functools.partial(gradients, loss, num_microbatches=parts))(
            case.variables["params"], carry, batch, jax.random.key(0)
        )
        for parts in (1, 3)
    }
    whole, parted = found[1], found[3]
    scale = optax.global_norm(whole[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * float(scale)),
        parted[0],
        whole[0],
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        parted[1:],
        whole[1:],
    )
    assert jax.tree.structure(parted) == jax.tree.structure(whole)
    weights = np.asarray(batch["weights"]).reshape(-1, 3, 5).sum(axis=(0, 2))
    assert len(set(weights.tolist())) > 1  # a mean of compute would be another


def test_the_pass_that_weighs_a_batch_costs_no_model():
    task, case, carry, batch = language_modeling("transformer")

    def loss(variables, carry, batch, rng):
        return task.loss(case.model, variables, carry, batch, rng, train=True)

    def flops(parts):
        call = functools.partial(gradients, loss, num_microbatches=parts)
        inputs = case.variables["params"], carry, batch, jax.random.key(0)
        lowered = jax.jit(call).lower(*inputs)
        return lowered.compile().as_text().count(" dot(")

    # A loop's body is there once, however often it runs.
    assert flops(3) <= flops(1)


def test_the_compiled_step_grows_in_proportion_to_the_number_of_arrays():
    """XLA would repeat the check of all arrays in each kernel that selects one."""

    def size(count):
        def loss(variables, carry, batch, rng):
            total = sum((x * batch).sum() for x in variables["params"].values())
            return {"loss": (total, jnp.ones(()))}, carry

        # Each array has a shape of its own, so that none share a check.
        params = {f"x{k}": jnp.ones(k + 1) for k in range(count)}
        adam = optax.with_extra_args_support(optax.adam(0.1))
        step = make_step(loss, adam, optax.constant_schedule(0.1), 0)
        lowered = jax.jit(step).lower(make_state(params, adam), (), jnp.ones(()))
        return len(lowered.compile().as_text())

    assert size(32) < 2.5 * size(16)
