"""Tests that every implementation of attention computes `xla_attention`.

Outputs and gradients are compared on the CPU; the TPU kernels are interpreted.
"""

import functools
import importlib
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import LanguageModelCase, T, V, small_config, tokens
from models.attention import blockwise, dispatch
from models.attention.blockwise import blockwise_attention
from models.attention.cudnn import cudnn_attention
from models.attention.dot_product import AttentionInputs, xla_attention
from models.attention.pallas_tpu import kernels
from models.attention.pallas_tpu.attention import flash_attention_tpu
from models.common.dropout import DropoutMask
from models.common.masks import causal_mask, sliding_window_mask
from training.parallel.mesh import AXES, RULES, abstract_mesh_context

DROPOUT_KEYS = jnp.array([7, 9], jnp.uint32)
# Batch size, heads, queries, keys, head width; mask; whether positions are relative.
CASES = {
    "after a memory": ((2, 3, 7, 12, 4), "causal", True),
    "within a window": ((2, 2, 13, 21, 4), "window", True),
    "one query": ((2, 2, 1, 9, 4), "causal", True),
    "bidirectional": ((3, 2, 7, 7, 4), "source", True),
    "cross-attention": ((2, 2, 9, 11, 4), "source", False),
    "random mask": ((2, 1, 5, 9, 4), "random", False),
}


def make_mask(kind, batch_size, queries, keys):
    random = np.random.default_rng(1)
    if kind == "source":
        return jnp.asarray(random.random((batch_size, 1, 1, keys)) < 0.6)
    if kind == "random":  # with a query that attends to no key
        mask = random.random((batch_size, 1, queries, keys)) < 0.5
        mask[0, 0, 2] = False
        return jnp.asarray(mask)
    mask = causal_mask(queries, keys)
    if kind == "window":
        mask &= sliding_window_mask(queries, keys, 6)
    return mask[:, None]


def make_inputs(name, dtype=jnp.float32):
    """Inputs of attention, mask, and weights of the outputs in a sum."""
    (batch_size, heads, queries, keys, width), kind, is_relative = CASES[name]
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    query_shape = (batch_size, heads, queries, width)
    key_shape = (batch_size, heads, keys, width)
    position_query = relative_keys = None
    if is_relative:
        columns = keys if kind != "source" else keys + queries - 1
        position_query = draw(*query_shape)
        relative_keys = draw(columns, heads, width)
    query, key, value = (draw(*query_shape), draw(*key_shape), draw(*key_shape))
    inputs = AttentionInputs(query, key, value, position_query, relative_keys)
    mask = make_mask(kind, batch_size, queries, keys)
    return inputs, mask, draw(*query_shape)


def run_with_gradients(attention, name, dropout, dtype=jnp.float32):
    """Outputs, and gradients of their weighted sum by the inputs."""
    inputs, mask, weights = make_inputs(name, dtype)
    dropped = DropoutMask.from_rate(DROPOUT_KEYS, dropout) if dropout else None

    def run(inputs):
        output = attention(inputs, mask, dropped)
        return (output * weights).astype(jnp.float32).sum(), output

    gradient = jax.value_and_grad(run, has_aux=True)
    (_, output), gradients = jax.jit(gradient)(inputs)
    return output, gradients


@functools.cache
def expected_results(name, dropout, dtype=jnp.float32):
    """Those of `xla_attention`."""
    return run_with_gradients(xla_attention, name, dropout, dtype)


@pytest.fixture(params=["blockwise", "pallas"])
def attention(request, monkeypatch):
    """An implementation with tiles so small that the cases need several of them."""
    if request.param == "blockwise":
        monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 3)
        return blockwise_attention
    sizes = {"LANES": 2, "MAX_TILE_QUERIES": 4, "MAX_TILE_KEYS": 6}
    for name, size in sizes.items():
        monkeypatch.setattr(kernels, name, size)
    return flash_attention_tpu


WITH_DROPOUT = {"after a memory", "cross-attention", "random mask"}


@pytest.mark.parametrize(
    ("name", "dropout"),
    [  # each mask with or without dropout; the other half is slow
        pytest.param(
            *x, marks=[pytest.mark.slow] * ((x[1] > 0) != (x[0] in WITH_DROPOUT))
        )
        for x in itertools.product(CASES, (0.0, 0.4))
    ],
)
def test_outputs_and_gradients_equal_those_of_xla_attention(attention, name, dropout):
    ours = run_with_gradients(attention, name, dropout)
    expected = expected_results(name, dropout)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=4e-6)


@pytest.mark.parametrize(
    "name",
    ["after a memory", pytest.param("cross-attention", marks=pytest.mark.slow)],
)
def test_bfloat16_differs_from_float32_by_rounding_only(attention, name):
    exact = expected_results(name, 0.4)
    near = run_with_gradients(attention, name, 0.4, jnp.bfloat16)
    for ours in (near, expected_results(name, 0.4, jnp.bfloat16)):
        pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True)
        for one, other in pairs:
            assert one.dtype == jnp.bfloat16
            difference = np.abs(np.asarray(one, np.float32) - other).max()
            assert difference < 0.06 * np.abs(other).max()


def test_tiles_are_the_largest_with_the_least_padding():
    sizes = {128: 128, 129: 256, 256: 256, 384: 128, 512: 256, 1000: 256, 1: 128}
    assert {n: kernels.choose_tile_size(n, 256) for n in sizes} == sizes


def test_bounds_skip_tiles_that_are_masked_entirely(monkeypatch):
    for name in ("LANES", "MAX_TILE_QUERIES", "MAX_TILE_KEYS"):
        monkeypatch.setattr(kernels, name, 2)
    tiles = kernels.Tiling.from_lengths(4, 6)
    mask = tiles.pad_mask(causal_mask(4, 6)[:, None])
    np.testing.assert_array_equal(tiles.key_tile_bounds(mask), [[0, 2, 0, 3]])
    window = tiles.pad_mask((causal_mask(4, 6) & sliding_window_mask(4, 6, 2))[:, None])
    np.testing.assert_array_equal(tiles.key_tile_bounds(window), [[0, 2, 1, 3]])
    nothing = jnp.zeros((1, 1, 4, 6), bool)
    np.testing.assert_array_equal(tiles.key_tile_bounds(nothing), [[0, 0, 0, 0]])


def test_vmapped_trials_may_have_dropout_rates_of_their_own(attention):
    inputs, mask, weights = make_inputs("after a memory")
    keys = jnp.arange(6, dtype=jnp.uint32).reshape(3, 2)
    rates = jnp.array([0.1, 0.4, 0.7])

    def run(attention):
        def weighted_sum(values, keys, rate):
            dropout = DropoutMask.from_rate(keys, rate)
            output = attention(inputs._replace(value=values), mask, dropout)
            return (output * weights).sum()

        gradient = jax.vmap(jax.value_and_grad(weighted_sum), (None, 0, 0))
        return jax.jit(gradient)(inputs.value, keys, rates)

    for one, other in zip(run(attention), run(xla_attention), strict=True):
        assert len(np.unique(np.round(other, 4), axis=0)) == len(rates)
        np.testing.assert_allclose(one, other, atol=4e-5)


def compiled_shapes(attention, name):
    """Shapes of all arrays in the compiled program of a gradient."""
    inputs, mask, _ = make_inputs(name)

    def run(inputs):
        dropout = DropoutMask.from_rate(DROPOUT_KEYS, 0.4)
        return attention(inputs, mask, dropout).sum()

    text = jax.jit(jax.grad(run)).lower(inputs).compile().as_text()
    return set(re.findall(r"f32\[([\d,]+)\]", text))


def test_blockwise_attention_never_stores_all_logits(monkeypatch):
    monkeypatch.setitem(CASES, "long", ((2, 3, 28, 40, 4), "causal", True))
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 7)

    def largest(attention):
        shapes = compiled_shapes(attention, "long")
        arrays = [map(int, shape.split(",")) for shape in shapes]
        return max(functools.reduce(int.__mul__, shape, 1) for shape in arrays)

    logits = 2 * 3 * 28 * 40
    assert largest(xla_attention) >= logits
    assert largest(blockwise_attention) < logits / 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("blockwise", "transformer"),
        ("pallas", "transformer_xl"),
        pytest.param("blockwise", "transformer_xl", marks=pytest.mark.slow),
        pytest.param("pallas", "transformer", marks=pytest.mark.slow),
    ],
)
def test_a_model_calls_the_implementation_of_its_config(monkeypatch, name, kind):
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 2)
    monkeypatch.setitem(dispatch.SUPPORTED_DEVICES, "pallas", ("cpu",))
    text, calls, outputs = tokens((2, T)), [], []
    for choice in ("xla", kind):
        path, function = dispatch.IMPLEMENTATIONS[choice].split(":")
        module = importlib.import_module(path)
        original = getattr(module, function)

        def recorded(*inputs, choice=choice, original=original):
            calls.append(choice)
            return original(*inputs)

        monkeypatch.setattr(module, function, recorded)
        changes = {"attention_impl": choice, "layers": 1}
        case = LanguageModelCase(name, **changes, dropout=0.2, attention_dropout=0.5)
        rng = jax.random.key(5)
        _, logits, _ = case.run(text, case.carry(2), train=True, dropout=rng)
        outputs.append(logits)
        assert logits.shape == (2, T, V)
    assert set(calls) == {"xla", kind}
    np.testing.assert_allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("name", ["cross-attention", "random mask"])
def test_cudnn_gets_padded_inputs_of_the_same_attention(monkeypatch, name):
    original = jax.nn.dot_product_attention

    def stand_in(*inputs, implementation, **options):
        assert implementation == "cudnn"
        assert inputs[0].shape[1] % 2 == inputs[1].shape[1] % 2 == 0
        return original(*inputs, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    ours = run_with_gradients(cudnn_attention, name, 0.0)
    expected = expected_results(name, 0.0)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=4e-6)
    with pytest.raises(ValueError, match="dropout"):
        run_with_gradients(cudnn_attention, name, 0.5)


@functools.cache
def gradients_of_model(kind, option):
    """Gradients of a Transformer-XL with dropout; layers are alike under remat."""
    changes = {option: True, "layers": 1 if option == "remat" else 2}
    rates = {"dropout": 0.2, "attention_dropout": 0.5}
    case = LanguageModelCase("transformer_xl", attention_impl=kind, **changes, **rates)

    def loss(variables):
        inputs = tokens((2, T)), case.carry(2), variables
        _, logits, _ = case.run(*inputs, train=True, dropout=jax.random.key(5))
        return (logits**2).mean()

    return jax.tree.leaves(jax.jit(jax.grad(loss))(case.variables))


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("blockwise", "remat"),
        pytest.param("pallas", "scan_layers", marks=pytest.mark.slow),
        pytest.param("blockwise", "scan_layers", marks=pytest.mark.slow),
        pytest.param("pallas", "remat", marks=pytest.mark.slow),
    ],
)
def test_gradients_do_not_depend_on_remat_or_scan_layers(monkeypatch, kind, option):
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 2)
    monkeypatch.setitem(dispatch.SUPPORTED_DEVICES, "pallas", ("cpu",))
    expected = gradients_of_model("xla", option)
    assert max(np.abs(leaf).max() for leaf in expected) > 0.1
    for one, other in zip(gradients_of_model(kind, option), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_unsupported_devices_fall_back_to_xla():
    assert dispatch.device_kind() == "cpu"
    for name in ("pallas", "cudnn"):
        assert dispatch.select_implementation(name) is xla_attention
    assert dispatch.select_implementation("blockwise") is blockwise_attention


def test_the_devices_of_the_mesh_decide_what_is_supported():
    select = dispatch.select_implementation
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert select("pallas") is flash_attention_tpu
        assert select("cudnn") is xla_attention
        old = jax.sharding.AbstractDevice("TPU v4", 2, "tpu")
        with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=old)):
            assert select("pallas") is xla_attention
            assert select("blockwise") is blockwise_attention
        amd = jax.sharding.AbstractDevice("AMD Instinct MI300X", 1, "gpu")
        with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=amd)):
            assert select("cudnn") is xla_attention
            assert select("blockwise") is blockwise_attention
        with abstract_mesh_context():
            assert select("pallas") is xla_attention
            assert select("blockwise") is xla_attention


def test_the_tpu_kernel_gets_the_shard_of_its_device():
    inputs, mask, _ = make_inputs("within a window")  # 2 examples, 2 heads
    dropout = DropoutMask.from_rate(DROPOUT_KEYS, 0.4)
    sizes, kinds = (2, 1, 2), (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.AbstractMesh(sizes, AXES, axis_types=kinds)

    def kernel_shapes():
        trace = jax.make_jaxpr(flash_attention_tpu)
        jaxpr = trace(inputs, mask, dropout)
        return set(re.findall(r"f32\[(\d,\d),128,4\]", str(jaxpr)))

    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(RULES):
        assert "1,1" in kernel_shapes()
    assert kernel_shapes() == {"2,2"}


@pytest.mark.parametrize(
    "changes",
    [
        {"position_encoding": "relative"},
        {"position_encoding": "shaw"},
        {"attention_dropout": 0.1, "dropout": 0.1},
        {"dtype": "float32"},
        {"head_dim": 12},
        {"head_dim": 136},
    ],
)
def test_a_config_that_cudnn_does_not_support_is_rejected(changes):
    supported = {
        "attention_impl": "cudnn",
        "position_encoding": "sinusoidal",
        "dtype": "bfloat16",
        "head_dim": 8,
    }
    small_config("transformer", **supported)
    with pytest.raises(ValueError, match="cudnn"):
        small_config("transformer", **supported | changes)


def test_the_tpu_kernel_rejects_float64():
    with pytest.raises(ValueError, match="float64"):
        small_config("transformer", attention_impl="pallas", dtype="float64")


def test_an_unknown_implementation_is_rejected():
    with pytest.raises(KeyError, match="flash"):
        dispatch.select_implementation("flash")
    with pytest.raises(ValueError, match="xla, blockwise, pallas, cudnn"):
        small_config("transformer", attention_impl="flash")
