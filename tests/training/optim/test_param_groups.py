"""Groups of parameters: what decays, what is frozen, and whose rate differs."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from helpers.architectures import LanguageModelCase, names
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import check_patterns, name_mask, named_leaves
from utils.errors import UserError

PARAMS = {
    "embedding": {"table": jnp.ones((3, 2))},
    "layers_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "layers_1": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update({"schedule": "constant", "lr": 0.1, "clip_norm": 0.0} | changes)
    return cfg


def updates_of(cfg, grads=ONES, params=PARAMS):
    """By name; and the state after the first step."""
    optimizer, _ = make_optimizer(cfg, 10)
    updates, state = optimizer.update(grads, optimizer.init(params), params, step=0)
    return named_leaves(updates), state


CLUSTERS = {"cutoffs": (8, 16), "div_val": 2, "tie_embeddings": True}


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in names()), ("transformer", CLUSTERS)],
)
def test_biases_and_gains_of_a_model_do_not_decay_and_all_else_does(name, changes):
    case = jax.eval_shape(lambda: LanguageModelCase(name, **changes).variables)
    params = case["params"]
    decays = name_mask(base.get_config().optim.weight_decay_params)(params)
    flat = jax.tree_util.tree_leaves_with_path(decays)
    kept = {path[-1].key for path, decay in flat if not decay}
    parts = {"candidate_bias", "content_bias", "position_bias", "cluster_bias"}
    parts |= {f"bias_{cluster}" for cluster in range(3)}
    assert {"bias"} <= kept <= {"bias", "scale"} | parts


def test_the_names_of_boxed_parameters_are_those_of_the_parameters_inside():
    case = LanguageModelCase("transformer")
    boxed = jax.eval_shape(case.init, jnp.zeros((1, 2), int), case.carry(1))["params"]
    assert any(
        isinstance(leaf, nn.Partitioned)
        for leaf in jax.tree.leaves(boxed, is_leaf=nn.meta.is_axis_metadata)
    )
    assert list(named_leaves(boxed)) == list(named_leaves(case.variables["params"]))
    assert "stack/layers_0/self_attention/output/kernel" in named_leaves(boxed)


@pytest.mark.parametrize("rule", ["adamw", "adafactor", "lion", "muon"])
def test_weight_decay_acts_on_what_the_pattern_says(rule):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for pattern, decaying in [
        (base.get_config().optim.weight_decay_params, ("kernel", "table")),
        ("layers_1", ("layers_1/kernel", "layers_1/bias")),
        ("", ()),
    ]:
        cfg = optim(name=rule, weight_decay=0.5, weight_decay_params=pattern)
        for name, update in updates_of(cfg, zeros)[0].items():
            expected = -0.05 if name.endswith(decaying) else 0.0
            np.testing.assert_allclose(update, expected, rtol=1e-5, err_msg=name)


def test_nt_asgd_decays_all():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for update in updates_of(optim(name="nt_asgd", weight_decay=0.5), zeros)[
        0
    ].values():
        np.testing.assert_allclose(update, -0.05, rtol=1e-5)


@pytest.mark.parametrize("scales", [tuple, list])
def test_the_first_pattern_that_matches_a_name_scales_its_rate(scales):
    pairs = scales([scales(["kernel", 3.0]), scales(["layers_1", 0.5])])
    found, _ = updates_of(optim(name="sgd", lr_scales=pairs))
    factors = {name: -float(update.mean()) / 0.1 for name, update in found.items()}
    assert factors == pytest.approx(
        {
            "embedding/table": 1.0,
            "layers_0/bias": 1.0,
            "layers_0/kernel": 3.0,
            "layers_1/bias": 0.5,
            "layers_1/kernel": 3.0,
        }
    )


@pytest.mark.parametrize(
    "rule", ["adamw", "adam", "adafactor", "adadelta", "lion", "muon", "nt_asgd"]
)
def test_what_is_frozen_never_changes_and_has_no_state(rule):
    cfg = optim(name=rule, weight_decay=0.5, clip_norm=1.0, freeze="embedding|layers_0")
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    grads["layers_0"]["kernel"] *= jnp.nan
    found, state = updates_of(cfg, grads)
    for name, update in found.items():
        if name.startswith("layers_1"):
            assert (update < 0).all()
        else:
            np.testing.assert_array_equal(update, 0.0)
    only = {"layers_1": PARAMS["layers_1"]}
    _, alone = updates_of(optim(name=rule), {"layers_1": ONES["layers_1"]}, only)
    if rule == "nt_asgd":
        state, alone = state.inner, alone.inner  # the average is a whole model

    def sizes(tree):
        return sorted(leaf.shape for leaf in jax.tree.leaves(tree))

    assert sizes(state) == sizes(alone)


def test_the_norm_that_is_clipped_does_not_count_what_is_frozen():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    grads["embedding"]["table"] *= 1e6
    cfg = optim(name="sgd", lr=1.0, clip_norm=1.0, freeze="^embedding/")
    found, _ = updates_of(cfg, grads)
    np.testing.assert_allclose(found["layers_0/bias"], -(12**-0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"freeze": "encoderr"}, r"optim\.freeze='encoderr'.*embedding/table"),
        (
            {"weight_decay_params": "^kernel"},
            r"optim\.weight_decay_params='\^kernel'",
        ),
        ({"lr_scales": (("bias", 2.0), ("head", 0.1))}, r"lr_scales='head'"),
        ({"lr_scales": (("", 2.0),)}, "lr_scales='' matches no"),
        ({"freeze": "."}, "all parameters"),
    ],
)
def test_a_pattern_that_does_nothing_or_all_is_refused(change, said):
    make_optimizer(optim(**change), 10)
    with pytest.raises(UserError, match=said):
        check_patterns(optim(**change), PARAMS)


def test_patterns_that_fit_are_accepted_for_arrays_and_for_shapes():
    cfg = optim(freeze="layers_0/.*bias", lr_scales=(("table$", 0.0),))
    check_patterns(cfg, PARAMS)
    check_patterns(cfg, jax.eval_shape(lambda: PARAMS))
    check_patterns(optim(weight_decay_params=""), PARAMS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"freeze": "(bias"}, r"optim\.freeze='\(bias' is not a regular"),
        (
            {"weight_decay_params": "*"},
            r"optim\.weight_decay_params='\*' is not a regular",
        ),
        ({"lr_scales": (("[", 1.0),)}, r"optim\.lr_scales='\[' is not a"),
        ({"freeze": "a{99999999999}"}, "the repetition number is too large"),
        ({"lr_scales": (("bias", math.inf),)}, "a factor of 0 or more"),
        (
            {"lr_scales": ("bias", 2.0)},
            "'bias': each entry must be a pair",
        ),
        ({"lr_scales": (("bias", "2"),)}, "must be a pair"),
        ({"lr_scales": (("bias", -1.0),)}, "a factor of 0 or more"),
    ],
)
def test_patterns_that_cannot_be_read_are_refused_at_once(change, said):
    with pytest.raises(UserError, match=said):
        make_optimizer(optim(**change), 10)


def test_rates_by_group_can_be_given_on_the_command_line_and_stored(monkeypatch):
    argv = ["train.py", "--config.optim.lr_scales=(('embedding',0.1),('bias',2.0))"]
    monkeypatch.setattr("sys.argv", argv)  # which ml_collections reads itself
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", base.get_config(), flag_values=values)
    values(argv)
    cfg = values["config"].value
    assert cfg.optim.lr_scales == (("embedding", 0.1), ("bias", 2.0))
    stored = json.loads(cfg.to_json_best_effort())
    again = base.get_config()
    again.update(stored)
    check_patterns(again.optim, PARAMS)
    assert [list(pair) for pair in again.optim.lr_scales] == [
        ["embedding", 0.1],
        ["bias", 2.0],
    ]
