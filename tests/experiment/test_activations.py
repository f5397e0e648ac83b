"""Statistics of activations and attention, of every architecture and kind of task."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.attention.extract import entropy
from analysis.plan.step import dummy_tokenizers
from configs import base
from experiment import build
from experiment.activations import make_activation_statistics
from helpers.architectures import random_parameters

T, V = 6, 24
SIZES = {
    "layers": 2,
    "width": 16,
    "heads": 2,
    "feed_forward": 20,
    "attention_width": 8,
    "embedding_width": 16,
    "attention_window": 4,
    "memory_length": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
CASES = [
    ("language_modeling", "rnn"),
    ("language_modeling", "transformer"),
    ("language_modeling", "transformer_xl"),
    ("translation", "rnn"),
    ("translation", "transformer"),
    ("translation", "transformer_xl"),
    ("masked_language_modeling", "rnn"),
    ("masked_language_modeling", "transformer_xl"),
    ("classification", "transformer"),
    ("tagging", "rnn"),
]


class Case:
    """A small experiment with random parameters and a batch of two rows."""

    def __init__(self, task, model, **changes):
        cfg = base.get_config(model)
        cfg.model.update({k: v for k, v in SIZES.items() if k in cfg.model})
        cfg.task, cfg.data.vocab_size = task, V
        columns = {"classification": "label_column", "tagging": "tag_column"}
        if task in columns:
            cfg.data.text_column = "text"
            cfg.data[columns[task]] = "column"
        cfg.data.document_order = (task, model) == ("translation", "transformer_xl")
        cfg.update_from_flattened_dict(changes)
        self.experiment = build.build_experiment(cfg, dummy_tokenizers(cfg))
        task, model = self.experiment.task, self.experiment.model
        shapes = task.example_batch(cfg, T)
        self.batch = {name: draw(name, leaf) for name, leaf in shapes.items()}
        self.batch |= {"reset": np.zeros(2, bool)}
        self.batch.setdefault("weights", np.ones(self.batch["labels"].shape, "f4"))
        self.batch = jax.tree.map(jnp.asarray, self.batch)
        init = functools.partial(task.init, model)
        variables = random_parameters(init, jax.random.key(0), self.batch)
        self.params = variables["params"]
        self.carry = task.initial_carry(model, 2, train=True)

    @functools.cached_property
    def statistics(self):
        compute = make_activation_statistics(self.experiment)
        inputs = self.params, self.carry, self.batch, jax.random.key(1)
        return {name: float(x) for name, x in jax.jit(compute)(*inputs).items()}


def draw(name, leaf):
    """Returns an array of a shape: few tokens, a mask with padding in row 1."""
    random = np.random.default_rng(len(name))
    if leaf.dtype == bool:
        return np.arange(leaf.shape[1]) < np.asarray([[leaf.shape[1]], [3]])
    if np.issubdtype(leaf.dtype, np.floating):
        return np.ones(leaf.shape, leaf.dtype)
    largest = 2 if name in ("labels", "segment_ids") else 5
    return random.integers(0, largest, leaf.shape).astype(leaf.dtype)


@functools.cache
def case(task, model):
    return Case(task, model)


def sown_weights(case):
    """Attention weights that the model itself sows, by the path of the attention."""
    task, model = case.experiment.task, case.experiment.model
    inputs = (*task.model_inputs(case.batch), case.carry)
    if task.model_class == "Encoder":
        carry = model.initial_carry(2, train=True)
        inputs = (*task.model_inputs(case.batch), carry)
    apply = nn.apply(
        lambda model: model(*inputs, train=True), model, mutable=["intermediates"]
    )
    rngs = {"dropout": jax.random.key(1)}
    sown = jax.jit(lambda params: apply({"params": params}, rngs=rngs)[1])(case.params)
    found = jax.tree_util.tree_leaves_with_path(sown["intermediates"])
    names = [[key.key for key in path if hasattr(key, "key")] for path, _ in found]
    return {
        "/".join(name[:-1]): np.asarray(weights)
        for name, (_, weights) in zip(names, found, strict=True)
        if name[-1] == "attention"
    }


@pytest.mark.parametrize(("task", "model"), CASES)
def test_entropies_are_those_of_the_weights_that_models_sow(task, model):
    found = case(task, model).statistics
    expected = sown_weights(case(task, model))
    assert expected
    for path, weights in expected.items():
        path = f"{path}/alignment" if model == "rnn" else path
        rows = weights.sum(axis=-1) > 0.5  # queries with a key
        own = np.where(rows, entropy(weights[..., None, :]), 0).sum() / rows.sum()
        name = f"attention_entropy/{path}"
        np.testing.assert_allclose(found[name], own, rtol=1e-4, err_msg=name)
        assert math.isfinite(found[f"attention_logit_max/{path}"])


@pytest.mark.parametrize(("task", "model"), CASES)
def test_every_layer_has_a_largest_activation(task, model):
    found = case(task, model).statistics
    groups = {name.partition("/")[2] for name in found if name.startswith("act")}
    numbered = {group for group in groups if group.endswith(("_0", "_1"))}
    assert len(numbered) >= 2
    assert any("embedding" in group for group in groups)
    assert all(np.isfinite(list(found.values())))


def test_a_known_logit_and_a_known_activation_are_found():
    one = Case("translation", "transformer")
    layer = one.params["encoder"]["layers_1"]
    for name, value in (("query", 2.0), ("key", 3.0)):
        dense = layer["self_attention"][name]
        dense["kernel"] = jnp.zeros_like(dense["kernel"])
        dense["bias"] = jnp.full_like(dense["bias"], value)
    layer["feed_forward"]["up"]["bias"] += 1000.0
    found = one.statistics
    head_dim = SIZES["width"] // SIZES["heads"]
    place = "encoder/layers_1/self_attention"
    np.testing.assert_allclose(
        found[f"attention_logit_max/{place}"], 6 * math.sqrt(head_dim), rtol=1e-5
    )
    lengths = one.batch["source_mask"].sum(axis=1)
    np.testing.assert_allclose(
        found[f"attention_entropy/{place}"], np.log(lengths).mean(), rtol=1e-5
    )
    assert 990 < found["activation_max/encoder/layers_1"] < 10_000
    assert found["activation_max/encoder/layers_0"] < 100


def test_a_loop_over_time_has_statistics_of_its_layers():
    found = Case("translation", "rnn", **{"model.input_feeding": True}).statistics
    assert found["activation_max/decoder/input_feed_proj"] > 0
    assert found["activation_max/decoder/cells_1"] > 0


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("transformer", {"model.remat": True}),
        ("transformer", {"model.scan_layers": True}),
        ("transformer", {"model.attention_impl": "blockwise"}),
        ("transformer", {"grad_accum_steps": 2}),
        ("rnn", {"model.remat": True}),
        ("rnn", {"grad_accum_steps": 2}),
    ],
)
def test_however_a_step_is_computed_the_numbers_are_the_same(model, changes):
    changed = Case("translation", model, **changes)
    plain = case("translation", model)
    found = changed.statistics
    for name, value in plain.statistics.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4, atol=1e-6, err_msg=name
        )
