"""Every kernel of attention finds what attention in one piece does, gradients too."""

import functools
import importlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import LanguageModelCase, T, V, small_config, tokens
from models.attention import blockwise, dispatch
from models.attention.blockwise import blockwise_attention as in_blocks
from models.attention.cudnn import cudnn_attention
from models.attention.dot_product import AttentionInputs, xla_attention
from models.attention.pallas_tpu import tiling
from models.attention.pallas_tpu.attention import flash_attention_tpu
from models.common.devices import device_kind
from models.common.masks import causal_mask, sliding_window_mask
from training.parallel.mesh import AXES, RULES, abstract_mesh_context

DRAW = jnp.array([7, 9], jnp.uint32)
# Rows, heads, queries, keys, width of a head; who is seen; whether distances count.
MEETINGS = {
    "after a memory": ((2, 3, 7, 12, 4), "causal", True),
    "within a window": ((2, 2, 13, 21, 4), "near", True),
    "one query": ((2, 2, 1, 9, 4), "causal", True),
    "both sides": ((3, 2, 7, 7, 4), "source", True),
    "of a source": ((2, 2, 9, 11, 4), "source", False),
    "as it comes": ((2, 1, 5, 9, 4), "random", False),
}


def mask_of(kind, rows, queries, keys):
    random = np.random.default_rng(1)
    if kind == "source":
        return jnp.asarray(random.random((rows, 1, 1, keys)) < 0.6)
    if kind == "random":  # and a query that may look nowhere
        seen = random.random((rows, 1, queries, keys)) < 0.5
        seen[0, 0, 2] = False
        return jnp.asarray(seen)
    mask = causal_mask(queries, keys)
    if kind == "near":
        mask &= sliding_window_mask(queries, keys, 6)
    return mask[:, None]


def meeting_of(name, dtype=jnp.float32):
    """A meeting with its values, its mask, and weights of what is found."""
    (rows, heads, queries, keys, width), kind, by_distance = MEETINGS[name]
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    asked, met = (rows, heads, queries, width), (rows, heads, keys, width)
    position = distances = None
    if by_distance:
        columns = keys if kind != "source" else keys + queries - 1
        position, distances = draw(*asked), draw(columns, heads, width)
    meeting = AttentionInputs(draw(*asked), draw(*met), position, distances)
    mask = mask_of(kind, rows, queries, keys)
    return meeting, draw(*met), mask, draw(*asked)


def outcome(kernel, name, dropout, dtype=jnp.float32):
    """What is found, and the gradient of a number made of it."""
    meeting, values, mask, weights = meeting_of(name, dtype)

    def run(meeting, values):
        found = kernel(meeting, values, mask, DRAW if dropout else None, dropout)
        return (found * weights).astype(jnp.float32).sum(), found

    gradient = jax.value_and_grad(run, (0, 1), has_aux=True)
    (_, found), gradients = jax.jit(gradient)(meeting, values)
    return found, gradients


@pytest.fixture(params=["in blocks", "on a TPU, interpreted"])
def kernel(request, monkeypatch):
    """Cut so small that the meetings take several blocks or tiles a side."""
    if request.param == "in blocks":
        monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 3)
        return in_blocks
    for name, size in {"LANES": 2, "QUERIES": 4, "KEYS": 6}.items():
        monkeypatch.setattr(tiling, name, size)
    return flash_attention_tpu


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", MEETINGS)
def test_outputs_and_gradients_are_those_of_all_scores_at_once(kernel, name, dropout):
    ours = outcome(kernel, name, dropout)
    whole = outcome(xla_attention, name, dropout)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(whole), strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=4e-6)


@pytest.mark.parametrize("name", ["after a memory", "of a source"])
def test_in_bfloat16_they_are_as_near_to_float32_as_that_rounds(kernel, name):
    exact = outcome(xla_attention, name, 0.4)
    for run in (kernel, xla_attention):
        ours = outcome(run, name, 0.4, jnp.bfloat16)
        for one, other in zip(
            jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True
        ):
            assert one.dtype == jnp.bfloat16
            far = np.abs(np.asarray(one, np.float32) - other).max()
            assert far < 0.06 * np.abs(other).max()


def test_tiles_fill_up_little_and_are_as_large_as_they_may_be():
    sizes = {128: 128, 129: 256, 256: 256, 384: 128, 512: 256, 1000: 256, 1: 128}
    assert {n: tiling.side_of(n, 256) for n in sizes} == sizes


def test_bounds_leave_out_tiles_that_nobody_sees(monkeypatch):
    for name, size in {"LANES": 2, "QUERIES": 2, "KEYS": 2}.items():
        monkeypatch.setattr(tiling, name, size)
    tiles = tiling.Tiling.of(4, 6)
    mask = tiles.with_mask(causal_mask(4, 6)[:, None])
    np.testing.assert_array_equal(tiles.bounds(mask), [[0, 2, 0, 3]])
    near = tiles.with_mask((causal_mask(4, 6) & sliding_window_mask(4, 6, 2))[:, None])
    np.testing.assert_array_equal(tiles.bounds(near), [[0, 2, 1, 3]])
    nothing = jnp.zeros((1, 1, 4, 6), bool)
    np.testing.assert_array_equal(tiles.bounds(nothing), [[0, 0, 0, 0]])


def test_members_of_a_population_may_each_drop_a_share_of_their_own(kernel):
    meeting, values, mask, weights = meeting_of("after a memory")
    keys = jnp.arange(6, dtype=jnp.uint32).reshape(3, 2)
    rates = jnp.array([0.1, 0.4, 0.7])

    def outcomes(kernel):
        def number(values, keys, rate):
            found = kernel(meeting, values, mask, keys, rate)
            return (found * weights).sum()

        gradient = jax.vmap(jax.value_and_grad(number), (None, 0, 0))
        return jax.jit(gradient)(values, keys, rates)

    for one, other in zip(outcomes(kernel), outcomes(xla_attention), strict=True):
        assert len(np.unique(np.round(other, 4), axis=0)) == len(rates)
        np.testing.assert_allclose(one, other, atol=4e-5)


def arrays_of(kernel, name):
    """Shapes of all arrays in the compiled program of a gradient."""
    meeting, values, mask, _ = meeting_of(name)

    def run(meeting, values):
        return kernel(meeting, values, mask, DRAW, 0.4).sum()

    text = jax.jit(jax.grad(run, (0, 1))).lower(meeting, values).compile().as_text()
    return set(re.findall(r"f32\[([\d,]+)\]", text))


def test_blocks_never_hold_all_scores(monkeypatch):
    monkeypatch.setitem(MEETINGS, "long", ((2, 3, 28, 40, 4), "causal", True))
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 7)

    def largest(kernel):
        arrays = [map(int, shape.split(",")) for shape in arrays_of(kernel, "long")]
        return max(functools.reduce(int.__mul__, shape, 1) for shape in arrays)

    scores = 2 * 3 * 28 * 40
    assert largest(xla_attention) >= scores
    assert largest(in_blocks) < scores / 2


@pytest.mark.parametrize("name", ["transformer", "transformer_xl"])
@pytest.mark.parametrize("kind", ["blockwise", "pallas"])
def test_a_model_may_take_any(monkeypatch, name, kind):
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 2)
    monkeypatch.setitem(dispatch.SUPPORTED_DEVICES, "pallas", ("cpu",))
    text, calls = tokens((2, T)), []
    found = []
    for one in ("xla", kind):
        path, function = dispatch.IMPLEMENTATIONS[one].split(":")
        module = importlib.import_module(path)
        plain = getattr(module, function)

        def noted(*inputs, one=one, plain=plain):
            calls.append(one)
            return plain(*inputs)

        monkeypatch.setattr(module, function, noted)
        case = LanguageModelCase(
            name, attention_impl=one, dropout=0.2, attention_dropout=0.5
        )
        rng = jax.random.key(5)
        _, logits, _ = case.run(text, case.carry(2), train=True, dropout=rng)
        found.append(logits)
        assert logits.shape == (2, T, V)
    assert set(calls) == {"xla", kind}
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("name", ["of a source", "as it comes"])
def test_what_cudnn_is_handed_is_the_same_attention(monkeypatch, name):
    plain = jax.nn.dot_product_attention

    def stand_in(*inputs, implementation, **options):
        assert implementation == "cudnn"
        assert inputs[0].shape[1] % 2 == inputs[1].shape[1] % 2 == 0
        return plain(*inputs, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    ours = outcome(cudnn_attention, name, 0.0)
    whole = outcome(xla_attention, name, 0.0)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=4e-6)
    with pytest.raises(ValueError, match="dropout"):
        outcome(cudnn_attention, name, 0.5)


@pytest.mark.parametrize("way", ["remat", "scan_layers"])
@pytest.mark.parametrize("kind", ["blockwise", "pallas"])
def test_gradients_are_the_same_however_layers_are_gone_through(monkeypatch, kind, way):
    monkeypatch.setattr(blockwise, "CHUNK_QUERIES", 2)
    monkeypatch.setitem(dispatch.SUPPORTED_DEVICES, "pallas", ("cpu",))
    text, found = tokens((2, T)), []
    for one in ("xla", kind):
        changes = {"attention_impl": one, way: True, "attention_dropout": 0.5}
        case = LanguageModelCase("transformer_xl", dropout=0.2, **changes)

        def number(variables, case=case):
            rng = jax.random.key(5)
            _, logits, _ = case.run(
                text, case.carry(2), variables, train=True, dropout=rng
            )
            return (logits**2).mean()

        found.append(jax.tree.leaves(jax.grad(number)(case.variables)))
    assert max(np.abs(leaf).max() for leaf in found[0]) > 0.1
    for plain, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, plain, atol=1e-5)


def test_where_a_kernel_is_not_at_home_all_scores_are_made():
    assert device_kind() == "cpu"
    for name in ("pallas", "cudnn"):
        assert dispatch.select_implementation(name) is xla_attention
    assert dispatch.select_implementation("blockwise") is in_blocks


def test_the_devices_of_a_mesh_say_which_kernel_is_at_home():
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert dispatch.select_implementation("pallas") is flash_attention_tpu
        assert dispatch.select_implementation("cudnn") is xla_attention
        old = jax.sharding.AbstractDevice("TPU v4", 2, "tpu")
        with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=old)):
            assert dispatch.select_implementation("pallas") is xla_attention
            assert dispatch.select_implementation("blockwise") is in_blocks
        amd = jax.sharding.AbstractDevice("AMD Instinct MI300X", 1, "gpu")
        with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=amd)):
            assert dispatch.select_implementation("cudnn") is xla_attention
            assert dispatch.select_implementation("blockwise") is in_blocks
        with abstract_mesh_context():
            assert dispatch.select_implementation("pallas") is xla_attention
            assert dispatch.select_implementation("blockwise") is xla_attention


def test_a_kernel_is_handed_the_rows_and_heads_of_a_device():
    meeting, values, mask, _ = meeting_of("within a window")  # 2 rows, 2 heads
    sizes, kinds = (2, 1, 2), (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.AbstractMesh(sizes, AXES, axis_types=kinds)

    def shapes_of():
        jaxpr = jax.make_jaxpr(flash_attention_tpu)(meeting, values, mask, DRAW, 0.4)
        return set(re.findall(r"f32\[(\d,\d),128,4\]", str(jaxpr)))

    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(RULES):
        assert "1,1" in shapes_of()
    assert shapes_of() == {"2,2"}


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
def test_what_cudnn_has_not_is_refused(changes):
    able = {
        "attention_impl": "cudnn",
        "position_encoding": "sinusoidal",
        "dtype": "bfloat16",
        "head_dim": 8,
    }
    small_config("transformer", **able)
    with pytest.raises(ValueError, match="cudnn"):
        small_config("transformer", **able | changes)


def test_a_tpus_kernel_is_refused_float64():
    with pytest.raises(ValueError, match="float64"):
        small_config("transformer", attention_impl="pallas", dtype="float64")


def test_a_kernel_that_is_none_is_refused():
    with pytest.raises(KeyError, match="flash"):
        dispatch.select_implementation("flash")
    with pytest.raises(ValueError, match="xla, blockwise, pallas, cudnn"):
        small_config("transformer", attention_impl="flash")
