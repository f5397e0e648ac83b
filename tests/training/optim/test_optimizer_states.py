"""What optimisers keep: where it lies, what a step changes, traced numbers."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import base
from helpers.architectures import B, LanguageModelCase, T, tokens
from helpers.optimizer_cases import GRADS, MU, PARAMS, by_name, optim, updates_of
from training.checkpoint import Checkpoints
from training.optim.on_validation import on_validation, update_on_validation
from training.optim.optimizers import OPTIMIZERS, make_optimizer
from training.parallel.partitioner import JitPartitioner
from training.step import make_state


def is_list(node):
    return isinstance(node, list)


@functools.cache
def boxed_shapes():
    """Shapes of some of a Transformer's parameters, with the names of their axes."""
    model = LanguageModelCase("transformer")
    found = jax.eval_shape(model.init, tokens((B, T)), model.carry(B))["params"]
    layer = found["stack"]["layers_0"]
    kept = ("self_attention", "feed_forward", "self_attention_residual")
    return {"embedding": found["embedding"]} | {name: layer[name] for name in kept}


FROZEN = "self_attention/value/bias"


@functools.cache
def first_state(name):
    """A partitioner, and a state that it laid out."""
    partitioner = JitPartitioner(base.get_config().parallel)
    changes = {"schedule": "plateau", "freeze": FROZEN}
    optimizer, _ = make_optimizer(optim(name=name, momentum=MU, **changes), 10)

    def make():
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), boxed_shapes())
        return make_state(ones, optimizer)

    return (
        partitioner,
        optimizer,
        partitioner.shardings_of(jax.eval_shape(make)),
        partitioner.init(make),
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_lie_where_their_parameters_lie(name):
    _, _, shardings, state = first_state(name)
    same = jax.tree.map(lambda leaf, place: leaf.sharding == place, state, shardings)
    assert all(jax.tree.leaves(same))
    specs = by_name(jax.tree.map(lambda leaf: leaf.sharding.spec, state.params))
    assert specs["self_attention/query/kernel"] == P("fsdp", "tensor", None)
    with_moments = set()
    for key, leaf in by_name(state.opt_state).items():
        [owner] = [name for name in specs if name in key] or [None]
        expected = specs.get(owner, P())
        if owner is None:
            # Counts, the losses of nt_asgd and the coefficients of muon.
            assert leaf.shape in ((), (5,), (3,)), key
        elif key.endswith("rows"):
            expected = P(*expected[: leaf.ndim])
        elif key.endswith("columns"):
            expected = P(*expected[-leaf.ndim :])
        assert leaf.sharding.spec == expected, key
        with_moments.add(owner)
    assert with_moments >= set(specs) - {FROZEN} - {None}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_keeps_the_layout_of_the_state_and_changes_only_what_trains(name):
    partitioner, optimizer, _, state = first_state(name)

    def step(state, carry, batch):
        updates, opt_state = optimizer.update(
            batch, state.opt_state, state.params, step=state.step
        )
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=opt_state), carry, {}

    grads = jax.tree.map(jnp.ones_like, state.params)
    compiled = partitioner.compile(step, state, (), shapes=1)
    copy = jax.tree.map(jnp.copy, state)
    after, _, _ = compiled(copy, (), grads)
    after = after.replace(opt_state=on_validation(after.opt_state, 1.0))
    same = jax.tree.map(
        lambda a, b: a.shape == b.shape and a.sharding == b.sharding, after, state
    )
    assert all(jax.tree.leaves(same))
    for key, leaf in by_name(after.params).items():
        moved = not np.array_equal(leaf, by_name(state.params)[key])
        assert moved == (key != FROZEN), key


def test_the_state_of_every_optimiser_is_saved_and_restored(tmp_path):
    states = {name: updates_of(name)[1] for name in OPTIMIZERS}
    states["frozen"] = first_state("muon")[-1].opt_state
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"state": states, "carry": ()}, {}, None)
    zeros = jax.tree.map(jnp.zeros_like, states)
    content, _ = checkpoints.restore(1, {"state": zeros, "carry": ()})
    found = content["state"]
    assert jax.tree.structure(found) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, found, states)
    checkpoints.close()


POPULATION = {
    "lr": [0.1, 0.2],
    "weight_decay": [0.0, 0.3],
    "b1": [0.9, 0.5],
    "b2": [0.9, 0.99],
    "eps": [1e-3, 1e-6],
    "momentum": [0.5, 0.0],
    "clip_norm": [0.1, 3.0],
    "plateau_factor": [0.5, 0.1],
}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_numbers_may_be_traced_so_that_many_runs_are_one_program(name):
    keys = {"name": name, "schedule": "plateau", "plateau_patience": 1, "warmup": 2}

    def run(numbers):
        cfg = types.SimpleNamespace(**optim(**keys).to_dict() | numbers)
        optimizer, _ = make_optimizer(cfg, 10)
        params, state = PARAMS, optimizer.init(PARAMS)
        for k, grads in enumerate(GRADS):
            updates, state = optimizer.update(grads, state, params, step=k)
            params = optax.apply_updates(params, updates)
            state = update_on_validation(state, jnp.float32(k))
        return params

    together = jax.jit(jax.vmap(run))(
        jax.tree.map(jnp.asarray, POPULATION, is_leaf=is_list)
    )
    for i in range(2):
        alone = jax.jit(lambda i=i: run({k: v[i] for k, v in POPULATION.items()}))()
        jax.tree.map(
            lambda many, one, i=i: np.testing.assert_allclose(
                many[i], one, rtol=1e-4, atol=1e-5
            ),
            together,
            alone,
        )
