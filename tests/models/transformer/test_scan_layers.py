"""Tests that scanned layers compute the same from a smaller program."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import B, LanguageModelCase, S, Seq2SeqCase, T, tokens
from models.common.layers import FeedForward
from models.transformer import stack
from models.transformer.stack import dropout_keys
from tasks.base import likelihood_loss
from tests.models.test_precision import carry_of, products

CASES = {
    "memory": (LanguageModelCase, "transformer_xl", {}),
    "untied biases, post-norm": (
        LanguageModelCase,
        "transformer_xl",
        {"untie_biases": True, "norm": "post", "cutoffs": (7, 19), "div_val": 2},
    ),
    "positions per layer": (
        LanguageModelCase,
        "transformer",
        {"position_encoding": "learned_per_layer", "remat": True},
    ),
    "shaw": (LanguageModelCase, "transformer", {"position_encoding": "shaw"}),
    "translation": (Seq2SeqCase, "transformer", {}),
    "translation, memory": (Seq2SeqCase, "transformer_xl", {"remat": True}),
}
# The two kinds of models, and a memory, are in make test.
SLOW = CASES.keys() - {"memory", "translation"}
KEYS = [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in CASES]
ONE = ["memory", *(pytest.param(x, marks=pytest.mark.slow) for x in [*CASES][1:])]


@functools.cache
def case(key, **changes):
    kind, name, own = CASES[key]
    return kind(name, **own, **changes)


def objective(found):
    """Returns a function of variables to the training loss, its parts and the carry."""
    carry = carry_of(found)
    if isinstance(found, Seq2SeqCase):
        inputs, labels = (*found.inputs(), carry), found.target
    else:
        inputs, labels = (tokens((B, T)), carry), tokens((B, T), seed=4)
    batch = {"labels": labels, "weights": jnp.ones(labels.shape)}

    def loss(variables, rng=0):
        run = functools.partial(likelihood_loss, smoothing=0.0, train=True)
        pairs, after = run(found.model, variables, inputs, batch, jax.random.key(rng))
        return pairs["loss"][0] / labels.size, (pairs, after)

    return loss


@pytest.mark.parametrize("key", KEYS)
def test_loss_gradients_and_carry_equal_those_of_unrolled_layers(key):
    found = {}
    variables = case(key).variables
    for scan in (False, True):
        gradient = jax.value_and_grad(
            objective(case(key, scan_layers=scan)), has_aux=True
        )
        found[scan] = jax.jit(gradient)(variables)
    ours, theirs = (jax.tree.leaves(found[scan]) for scan in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def num_products(key, dtype="float32", **changes):
    """The number of matrix products of a gradient, all of them of a type."""
    found = case(key, dtype=dtype, **changes)
    gradient = jax.grad(objective(found), has_aux=True)
    made = list(products(jax.make_jaxpr(gradient)(found.variables).jaxpr))
    assert {v.aval.dtype for e in made for v in e.invars} == {jnp.dtype(dtype)}
    return len(made)


@pytest.mark.parametrize("key", ONE)
def test_a_program_does_not_grow_with_the_number_of_layers(key):
    two, three = (
        num_products(key, layers=layers, scan_layers=True) for layers in (2, 3)
    )
    assert two == three < num_products(key, layers=3, scan_layers=False)


@pytest.mark.parametrize("key", KEYS)
def test_products_of_scanned_layers_are_in_bfloat16(key):
    assert num_products(key, "bfloat16", scan_layers=True) > 5


@pytest.mark.parametrize(
    "key", ["memory", pytest.param("translation", marks=pytest.mark.slow)]
)
def test_init_makes_the_same_parameters(key):
    def init(scan):
        found = case(key, scan_layers=scan)
        if isinstance(found, Seq2SeqCase):
            return jax.jit(found.init)(*found.inputs(), found.carry(B))
        return jax.jit(found.init)(tokens((B, T)), found.carry(B))

    ours, theirs = init(True), init(False)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)  # axes' names too
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_each_layer_has_its_own_dropout_and_equal_keys_repeat_it(monkeypatch):
    found, draw = case("shaw", dropout=0.5, scan_layers=True), dropout_keys
    loss = jax.jit(objective(found))
    one, again, other = (float(loss(found.variables, rng)[0]) for rng in (1, 1, 2))
    assert one == again != other

    def all_the_first(layers, train):
        keys = draw(layers, train)
        return jnp.broadcast_to(keys[0], keys.shape)

    monkeypatch.setattr(stack, "dropout_keys", all_the_first)
    alike = float(jax.jit(objective(found))(found.variables, 1)[0])
    assert abs(alike - one) > 1e-3


def test_losses_that_layers_sow_are_summed(monkeypatch):
    plain = FeedForward.__call__

    def sowing(self, x, *, train):
        y = plain(self, x, train=train)
        self.sow("losses", "size", ((y**2).sum(axis=(1, 2)), jnp.full(len(y), 3.0)))
        return y

    # Before, so that what `init` would sow is not among the variables.
    found = [case("shaw", scan_layers=scan) for scan in (True, False)]
    monkeypatch.setattr(FeedForward, "__call__", sowing)
    ours, theirs = (
        jax.jit(objective(each))(found[1].variables)[1][0] for each in found
    )
    assert ours.keys() == theirs.keys() == {"loss", "auxiliary/size"}
    np.testing.assert_allclose(ours["auxiliary/size"], theirs["auxiliary/size"], 1e-5)
    assert ours["auxiliary/size"][1] == 2 * 3.0 * B


def test_intermediates_contain_the_attention_of_each_layer():
    found = case("translation", scan_layers=True)
    apply = functools.partial(found.model.apply, train=False, mutable=["intermediates"])
    _, kept = jax.eval_shape(apply, found.variables, *found.inputs(), ())
    weights = [leaf for leaf in jax.tree.leaves(kept) if leaf.shape[-2:] == (T, S)]
    assert len(weights) == found.model.config.layers


def test_a_generated_token_has_the_logits_of_one_pass():
    found, text = case("memory", scan_layers=True), tokens((B, T))
    carry = carry_of(found)
    _, whole, _ = found.run(text, carry)
    context, state = found.start(text[:, :-1], jnp.ones((B, T - 1), bool), carry)
    _, logits = found.step(context, state, text[:, -1:])
    np.testing.assert_allclose(logits[:, 0], whole[:, -1], atol=1e-4)


ON_A_MESH = """
import sys
sys.path.insert(0, "tests")
import jax
jax.config.update("jax_num_cpu_devices", 4)
import conftest
import tests.models.transformer.test_scan_layers as here
from configs import base
from flax.core import meta
from training.parallel.partitioner import JitPartitioner

cfg = base.get_config().parallel
cfg.update(data=1, fsdp=2, tensor=2)
found = here.case("translation", scan_layers=True)
partitioner = JitPartitioner(cfg)
variables = partitioner.init(lambda: found.init(*found.inputs(), ()))
shardings = jax.tree.map(lambda leaf: leaf.sharding, variables)
assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(shardings))
gradient = jax.value_and_grad(here.objective(found), has_aux=True)
step = jax.jit(gradient, out_shardings=(None, shardings))
with jax.set_mesh(partitioner.mesh):
    (loss, _), grads = step(variables)
single, _ = jax.jit(here.objective(found))(jax.device_get(variables))
assert abs(loss - single) < 1e-5, (loss, single)
print("ok")
"""


@pytest.mark.slow
def test_a_mesh_shards_the_parameters_of_each_layer():
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("ok\n"), done.stderr
