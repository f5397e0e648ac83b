"""Optimisers: each against its paper's formula, and what all of them promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import LanguageModelCase, names
from helpers.optimizer_cases import (
    B1,
    B2,
    DECAY,
    EPS,
    GRADS,
    LR,
    MU,
    PARAMS,
    RHO,
    by_name,
    optim,
    updates_of,
)
from training.optim.matrix_optimizers import hidden_matrix_mask, num_input_axes
from training.optim.optimizers import OPTIMIZERS, learning_rate, make_optimizer
from utils.errors import UserError


def adam(grads, name):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
        yield (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)


def lion(grads, name):
    """Chen et al. (2023), algorithm 2."""
    m = 0.0
    for g in grads:
        yield np.sign(B1 * m + (1 - B1) * g)
        m = B2 * m + (1 - B2) * g


def sgd(grads, name):
    velocity = 0.0
    for g in grads:
        velocity = MU * velocity + g
        yield velocity


def plain_sgd(grads, name):
    yield from grads


def adadelta(grads, name):
    """Zeiler (2012), algorithm 1."""
    squares = moves = 0.0
    for g in grads:
        squares = RHO * squares + (1 - RHO) * g**2
        move = np.sqrt(moves + EPS) / np.sqrt(squares + EPS) * g
        moves = RHO * moves + (1 - RHO) * move**2
        yield move


# How a kernel is a matrix: inputs by outputs. The others are vectors.
MATRICES = {
    "embedding/table": (5, 4),
    "attention/query/kernel": (4, 6),
    "attention/output/kernel": (6, 4),
    "cell/recurrent": (4, 12),
}


def adafactor(grads, name):
    """Shazeer and Stern (2018), algorithms 4 and 5, with sums as in the paper."""
    shape = MATRICES.get(name)
    rows = columns = squares = 0.0
    for t, g in enumerate(grads, start=1):
        beta = 1 - t**-0.8
        if shape:
            g2 = g.reshape(shape).astype(np.float64) ** 2 + 1e-30
            rows = beta * rows + (1 - beta) * g2.sum(1, keepdims=True)
            columns = beta * columns + (1 - beta) * g2.sum(0, keepdims=True)
            second = (rows @ columns / rows.sum()).reshape(g.shape)
        else:
            squares = beta * squares + (1 - beta) * (g.astype(np.float64) ** 2 + 1e-30)
            second = squares
        update = g / np.sqrt(second)
        yield update / max(1.0, np.sqrt((update**2).mean()))


def muon(grads, name):
    """Jordan et al. (2024) by singular values, with optax's bias-corrected momentum."""
    if name not in MATRICES or "embedding" in name:
        yield from adam(grads, name)
        return
    moment = 0.0
    for k, g in enumerate(grads, start=1):
        moment = MU * moment + (1 - MU) * g
        nesterov = MU * moment / (1 - MU ** (k + 1)) + (1 - MU) * g / (1 - MU**k)
        matrix = nesterov.reshape(MATRICES[name])
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        yield (0.2 * max(MATRICES[name]) ** 0.5 * (u * s) @ v).reshape(g.shape)


def decays(name):
    return name.endswith(("kernel", "table", "recurrent"))


# The formula, and which parameters decay.
FORMULAS = {
    "adamw": (adam, decays),
    "adam": (adam, lambda name: False),
    "adafactor": (adafactor, decays),
    "adadelta": (adadelta, lambda name: False),
    "sgd": (sgd, lambda name: False),
    "lion": (lion, decays),
    "muon": (muon, decays),
    "nt_asgd": (plain_sgd, lambda name: True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_move_as_the_paper_s_formula_says(name):
    formula, is_decaying = FORMULAS[name]
    found = [by_name(params) for params in updates_of(name)[0]]
    for key, x in by_name(PARAMS).items():
        grads = [by_name(tree)[key] for tree in GRADS]
        for k, update in enumerate(formula(grads, key)):
            rate = LR * (1 - k / 10)
            x = x - rate * (update + DECAY * is_decaying(key) * x)
            message = f"{key} after update {k + 1}"
            np.testing.assert_allclose(
                found[k][key], x, rtol=1e-4, atol=1e-5, err_msg=message
            )


def test_without_momentum_sgd_is_the_gradient_and_has_no_state():
    found, state = updates_of("sgd", momentum=0.0, schedule="constant")
    moves = jax.tree.map(lambda new, old: (old - new) / LR, found[0], PARAMS)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        moves,
        GRADS[0],
    )
    assert not jax.tree.leaves(state)


def test_the_moments_of_adafactor_are_rows_and_columns():
    _, state = updates_of("adafactor")
    count = sum(leaf.size for leaf in jax.tree.leaves(state))
    vectors = 6 + 4 + 7
    assert count == 1 + vectors + sum(a + b for a, b in MATRICES.values())


@pytest.mark.parametrize("name", names())
def test_muon_moves_kernels_of_every_model_and_not_its_tables(name):
    params = jax.eval_shape(lambda: LanguageModelCase(name).variables["params"])
    found = by_name(hidden_matrix_mask(params))
    matrices = {key for key, is_hidden in found.items() if is_hidden}
    kernels = {key for key in found if key.endswith(("kernel", "recurrent"))}
    assert kernels - matrices <= {"local_attention/alignment/score/kernel"}  # a vector
    assert matrices <= kernels
    assert len(matrices) > 5


def test_heads_of_an_attention_are_one_matrix_on_both_of_its_sides():
    assert num_input_axes("attention/query/kernel", (12, 3, 4)) == 1
    assert num_input_axes("attention/output/kernel", (3, 4, 12)) == 2
    assert num_input_axes("attention/query/bias", (3, 4)) == 0
    assert num_input_axes("content_bias", (3, 4)) == 0
    assert num_input_axes("feed_forward/up/kernel", (12, 22)) == 1
    assert num_input_axes("alignment/score/kernel", (14, 1)) == 0
    assert num_input_axes("norm/scale", (12,)) == 0


@pytest.mark.parametrize(("clip", "factor"), [(0.0, 1.0), (2.5, 0.5), (9.0, 1.0)])
def test_gradients_are_clipped_by_their_norm_together(clip, factor):
    cfg = optim(name="sgd", lr=1.0, clip_norm=clip)
    optimizer, _ = make_optimizer(cfg, 10)
    grads = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(-4.0)}
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads, step=0)
    np.testing.assert_allclose(updates["a"], [-3.0 * factor, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 4.0 * factor, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "nt_asgd"])
def test_the_rate_is_that_of_the_step_however_many_updates_there_were(name):
    cfg = optim(name=name, schedule="linear", lr=1.0, clip_norm=0.0)
    optimizer, schedule = make_optimizer(cfg, 10)
    params = {"x": jnp.ones(3)}
    state = optimizer.init(params)
    early, _ = optimizer.update(params, state, params, step=0)
    late, _ = optimizer.update(params, state, params, step=8)
    np.testing.assert_allclose(late["x"], 0.2 * early["x"], rtol=1e-5)
    assert float(learning_rate(schedule, state, 8)) == pytest.approx(0.2)


@pytest.mark.parametrize("changes", [{}, {"name": "nt_asgd"}, {"freeze": "x"}])
def test_an_update_that_is_not_told_the_step_is_refused(changes):
    optimizer, _ = make_optimizer(optim(**changes), 10)
    params = {"x": jnp.ones(3), "y": jnp.ones(2)}
    with pytest.raises(TypeError, match="required keyword-only argument: 'step'"):
        optimizer.update(params, optimizer.init(params), params)


def test_an_unknown_optimiser_is_refused_with_those_there_are():
    known = "adamw, adam, adafactor, adadelta, sgd, lion, muon, nt_asgd"
    with pytest.raises(UserError, match=known):
        make_optimizer(optim(name="adamm"), 10)


@pytest.mark.parametrize(
    "change",
    [
        {"b1": 1.0},
        {"ema_decay": -0.1},
        {"lr": -1.0},
        {"final_lr_ratio": 1.5},
        {"wsd_decay_fraction": -0.5},
        {"plateau_factor": 1.0},
        {"plateau_patience": 0},
        {"step_decay_start": -1},
        {"step_decay_interval": 0},
        {"step_decay_factor": 1.5},
        {"non_monotone_interval": 0},
        {"weight_decay": float("nan")},
        {"lr": float("inf")},
    ],
)
def test_numbers_that_no_optimiser_can_have_are_refused(change):
    [(key, value)] = change.items()
    with pytest.raises(UserError, match=rf"optim\.{key}={value} must be"):
        make_optimizer(optim(**change), 10)
