"""Tests of the contract that the encoder of every architecture follows."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from configs import base
from helpers.architectures import (
    B,
    EncoderCase,
    S,
    V,
    names,
    shared_case,
    small_config,
)
from models import api
from models.registry import get_model_class

NAMES = names()
ADAPTIVE = {"cutoffs": (7, 19), "div_val": 2}
TWO = {"layers": 2}
OPTIONS = {
    "learned": ("transformer", {"position_encoding": "learned", "norm": "post"}),
    "per layer": ("transformer", {"position_encoding": "learned_per_layer", **TWO}),
    "rotary": ("transformer", {"position_encoding": "rotary", "head_dim": 6}),
    "shaw": ("transformer", {"position_encoding": "shaw", "max_distance": 2}),
    "relative": ("transformer", {"position_encoding": "relative", **ADAPTIVE}),
    "blockwise": ("transformer_xl", {"attention_impl": "blockwise"}),
    "scan": ("transformer_xl", {"scan_layers": True, "remat": True, **TWO}),
    "absolute": (
        "transformer_xl",
        {"position_encoding": "sinusoidal", "memory_length": 0},
    ),
    "lstm": ("rnn", {"cell": "lstm", "readout": "maxout", "maxout_width": 16}),
    "dot": ("rnn", {"score": "dot", "remat": True}),
    "scaled dot": ("rnn", {"score": "scaled_dot"}),
    "bilinear": ("rnn", {"score": "bilinear"}),
    "without readout": ("rnn", {"readout": "none", "attention_window": 0}),
}
CASES = {**{name: (name, {}) for name in NAMES}, **OPTIONS}
# Options of cells, attention and positions that tests of language models run, too.
FAST = {*NAMES, "relative", "without readout"}
PARAMETERS = [
    pytest.param(x, marks=[pytest.mark.slow] * (x not in FAST)) for x in CASES
]
encoder = functools.partial(shared_case, EncoderCase, layers=1)


def case_of(key, **changes):
    name, options = CASES[key]
    return encoder(name, **{**options, **changes})


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def without_padding(found, row):
    """Inputs of one row, cut to its tokens."""
    length = int(found.mask[row].sum())
    inputs = (array[row : row + 1, :length] for array in found.inputs())
    return dict(zip(("text", "segment_ids", "mask"), inputs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_classes_have_the_methods_and_parameters_of_the_contract(name):
    model = get_model_class(name, "Encoder")
    assert issubclass(model, api.Encoder)
    for method in ("__call__", "initial_carry", "initial_eval_carry"):
        expected = inspect.signature(getattr(api.Encoder, method)).parameters
        assert [*inspect.signature(getattr(model, method)).parameters] == [*expected]


@pytest.mark.parametrize("key", PARAMETERS)
def test_shapes_and_types_follow_the_contract(key):
    found = case_of(key)
    for carry in (found.carry(B), found.carry(B, memory_length=0)):
        hidden, after = jax.eval_shape(found.run, carry)
        assert hidden.shape == (B, S, found.model.hidden_width)
        assert shapes(after) == shapes(carry)
        assert all(len(leaf) == B for leaf in jax.tree.leaves(carry))
    assert found.carry(B, memory_length=0) == ()


@pytest.mark.parametrize("key", PARAMETERS)
def test_padding_never_matters(key):
    found = case_of(key)
    clean, _ = found.run()
    noise = jnp.where(found.mask, found.text, (found.text + 5) % V)
    segments = jnp.where(found.mask, found.segment_ids, 1 - found.segment_ids)
    noisy, _ = found.run(text=noise, segment_ids=segments)
    assert np.isfinite(noisy).all()
    valid = np.asarray(found.mask)
    np.testing.assert_array_equal(noisy[valid], clean[valid])
    for row in range(B):
        alone, _ = found.run((), **without_padding(found, row))
        np.testing.assert_allclose(alone[0], clean[row][valid[row]], atol=1e-5)


@pytest.mark.parametrize("key", PARAMETERS)
def test_each_position_depends_on_the_whole_text_and_its_segments(key):
    found = case_of(key)
    hidden, _ = found.run()
    for row in range(B):
        last = int(found.mask[row].sum()) - 1
        for place in (0, last):
            text = found.text.at[row, place].set((found.text[row, place] + 1) % V)
            changed, _ = found.run(text=text)
            difference = np.abs(changed - hidden).max(axis=-1)
            assert difference[row, [0, last]].min() > 1e-6
            assert difference[1 - row].max() == 0
        segments = found.segment_ids.at[row, last].set(0)
        changed, _ = found.run(segment_ids=segments)
        assert np.abs(changed - hidden)[row, 0].max() > 1e-6


@pytest.mark.parametrize(
    "key", [x for x in PARAMETERS if x.values != ("without readout",)]
)
def test_the_order_of_tokens_matters(key):
    found = case_of(key)
    hidden, _ = found.run()
    swapped, _ = found.run(text=found.text.at[0, 1:3].set(found.text[0, 2:0:-1]))
    assert np.abs(swapped - hidden)[0, 0].max() > 1e-4


@pytest.mark.parametrize("key", PARAMETERS)
def test_gradients_are_finite_and_reach_every_parameter(key):
    found = case_of(key)
    gradient = jax.jit(jax.grad(found.loss(found.carry(B))))
    gradients = gradient(found.variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_padding_alone_gives_finite_gradients(name):
    found = encoder(name)
    mask = found.mask.at[1].set(False)

    def loss(params):
        hidden, _ = found.run((), {"params": params}, train=True, mask=mask)
        return hidden.sum()

    gradients = jax.jit(jax.grad(loss))(found.variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_training_is_not(name):
    found = encoder(name, dropout=0.5, layers=1)
    np.testing.assert_array_equal(found.run()[0], found.run()[0])
    one, two = (
        found.run(train=True, rngs={"dropout": jax.random.key(seed)})[0]
        for seed in (1, 2)
    )
    assert not np.allclose(one, two)
    assert not np.allclose(one, found.run()[0])


@pytest.mark.parametrize("name", NAMES)
def test_dropout_of_zero_disables_every_dropout(name):
    others = {"attention_dropout": 0.5, "feed_forward_dropout": 0.5}
    found = encoder(name, dropout=0.0, **others)
    trained, _ = found.run(train=True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_allclose(trained, found.run()[0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name):
    found, exact = encoder(name, dtype="bfloat16"), encoder(name)
    near, after = found.run(found.carry(B))
    assert near.dtype == jnp.bfloat16
    assert shapes(after) == shapes(found.carry(B))
    theirs, _ = exact.run(exact.carry(B))
    valid = np.asarray(found.mask)
    difference = (near.astype(jnp.float32) - theirs)[valid]
    assert np.linalg.norm(difference) < 0.03 * np.linalg.norm(theirs[valid])


def products(jaxpr):
    """All matrix products of a program, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("key", PARAMETERS)
def test_every_product_of_a_training_step_is_in_bfloat16(key):
    found = case_of(key, dtype="bfloat16")
    gradient = jax.grad(found.loss(found.carry(B)))
    made = list(products(jax.make_jaxpr(gradient)(found.variables["params"]).jaxpr))
    assert len(made) > 5
    for product in made:
        assert {v.aval.dtype for v in product.invars} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("name", ["transformer", "transformer_xl"])
def test_scanned_layers_give_the_same_hidden_states_and_carry(name):
    found = encoder(name, **TWO)
    scanned = encoder(name, scan_layers=True, **TWO)
    carry = found.run(found.carry(B))[1]
    for ours, theirs in zip(
        jax.tree.leaves(found.run(carry)),
        jax.tree.leaves(scanned.run(carry, found.variables)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_attention_weights_are_sown_into_intermediates(name):
    found = encoder(name)
    apply = functools.partial(found.model.apply, train=False, mutable="intermediates")
    _, sown = jax.jit(apply)(found.variables, *found.inputs(), ())
    weights = jax.tree.leaves(sown)
    assert weights
    for leaf in weights:
        assert leaf.shape[-2:] == (S, S)
        np.testing.assert_allclose(leaf.sum(axis=-1), 1, atol=1e-5)
        assert np.asarray(leaf)[1, ..., S - 3 :].max() == 0


def test_later_positions_share_the_last_row_of_a_learned_table():
    options = {"position_encoding": "learned", "max_positions": 4}
    found = encoder("transformer", **options)
    hidden, _ = found.run()
    table = found.variables["params"]["position_embedding"]["table"]["table"]
    assert table.shape[0] == 4
    swapped = found.text.at[0, 4:6].set(found.text[0, 5:3:-1])
    ids = jnp.zeros((B, S), jnp.int32)
    one, two = (
        found.run(text=text, segment_ids=ids)[0] for text in (found.text, swapped)
    )
    np.testing.assert_allclose(one[0, 0], two[0, 0], atol=1e-5)
    assert np.isfinite(hidden).all()


def test_the_epsilon_of_the_config_reaches_every_normalisation():
    found = encoder("transformer", norm="post", **TWO)
    small, large = (
        found.model.clone(config=small_config("transformer", norm="post", **change))
        for change in ({}, {"norm_epsilon": 0.9})
    )

    def epsilons(model):
        seen = []

        def watch(call, args, kwargs, context):
            if type(context.module).__name__ == "LayerNorm":
                seen.append(context.module.epsilon)
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            jax.eval_shape(
                functools.partial(model.apply, train=False),
                found.variables,
                *found.inputs(),
                (),
            )
        return set(seen), len(seen)

    assert epsilons(small)[0] == {1e-5}
    assert epsilons(large)[0] == {0.9}
    assert base.MODELS["transformer"]["norm_epsilon"] == 1e-5
