"""Tests of the recurrent models' options and of their config errors."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ptb, wikitext2, wmt14
from helpers.architectures import (
    B,
    LanguageModelCase,
    S,
    Seq2SeqCase,
    T,
    V,
    W,
    small_config,
    tokens,
)
from models.rnn.config import Config
from models.rnn.language_model import LanguageModel
from models.rnn.model import Seq2Seq
from tasks.base import auxiliary_losses, likelihood_loss
from tests.models.rnn.test_cells import gru_reset_before, lstm
from utils.errors import UserError

LANGUAGE_MODELS = {
    "attentive": {
        "cell": "lstm",
        "layers": 1,
        "score": "bilinear",
        "readout": "maxout",
        "maxout_width": 9,
        "attention_window": 3,
    },
    "awd": {
        "cell": "lstm",
        "readout": "none",
        "attention_window": 0,
        "tie_embeddings": True,
    },
}
PUBLISHED = {
    "cell": "gru_reset_before",
    "layers": 1,
    "readout": "maxout",
    "maxout_width": 9,
    "initialization": "published",
}
FEEDING = {"cell": "lstm", "score": "dot", "input_feeding": True, "layers": 1}
CONDITIONAL = {**FEEDING, "conditional_gru": True}
TRANSLATORS = {
    "published": PUBLISHED,
    "feeding": FEEDING,
    "conditional": CONDITIONAL,
}


def shapes(model, *inputs):
    """Returns the shapes of a model's parameters."""
    labels = inputs[2 * (len(inputs) > 2)]

    def everything(model):
        hidden, _ = model(*inputs, train=False)
        return model.log_prob(hidden, labels)

    found = jax.eval_shape(nn.init(everything, model), jax.random.key(0))
    return nn.meta.unbox(found)


def drawn(model, *inputs):
    """Returns random parameters without compiling an initialisation."""
    noise = np.random.default_rng(7)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.4 * noise.normal(size=leaf.shape), leaf.dtype),
        shapes(model, *inputs),
    )


class SmallLanguageModel(LanguageModelCase):
    def __init__(self, name):
        config = small_config("rnn", **LANGUAGE_MODELS[name])
        self.model = LanguageModel(config, V)
        self.carry = functools.partial(self.model.initial_carry, train=False)
        self.variables = drawn(self.model, tokens((B, T)), self.carry(B))


class SmallTranslator(Seq2SeqCase):
    def __init__(self, name):
        config = small_config("rnn", **TRANSLATORS[name])
        self.model = Seq2Seq(config, W, V, shared_vocab=False)
        self.carry = functools.partial(self.model.initial_carry, train=False)
        self.source, self.target = tokens((B, S), W), tokens((B, T), V, seed=3)
        self.source_mask = jnp.arange(S) < jnp.asarray([[S], [S - 3]])
        self.target_mask = jnp.arange(T) < jnp.asarray([[T], [T - 1]])
        self.variables = drawn(self.model, *self.inputs(), ())


language_model = functools.cache(SmallLanguageModel)
translator = functools.cache(SmallTranslator)


def awd(**changes):
    """Returns a small AWD-LSTM and its parameters."""
    config = small_config("rnn", **LANGUAGE_MODELS["awd"], **changes)
    return LanguageModel(config, V), language_model("awd").variables


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_segments_equal_a_padded_prompt_followed_by_single_tokens(name):
    case, text = language_model(name), tokens((B, 2 * T))
    _, first, carry = case.run(text[:, :T], case.carry(B))
    _, second, _ = case.run(text[:, T:], carry)
    whole = jnp.concatenate([first, second], axis=1)
    prompt = jnp.full((B, 4), V - 1).at[:, 1:3].set(text[:, :2])
    mask = jnp.zeros((B, 4), bool).at[:, 1:3].set(True)
    context, state = case.start(prompt, mask, case.carry(B))
    for t in range(2, 2 * T):
        state, logits = case.step(context, state, text[:, t : t + 1])
        np.testing.assert_allclose(logits[:, 0], whole[:, t], atol=1e-4)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_leaves_of_a_carry_have_a_batch_axis_and_pass_no_gradient(name):
    case = language_model(name)
    carry = case.carry(B)
    assert all(len(leaf) == B for leaf in jax.tree.leaves(carry))

    def total(variables):
        after = case.run(tokens((B, T)), carry, variables)[2]
        assert jax.tree.structure(after) == jax.tree.structure(carry)
        return sum(leaf.sum() for leaf in jax.tree.leaves(after.states))

    for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(case.variables)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_padding_changes_nothing_and_single_tokens_equal_one_pass(name):
    case = translator(name)
    _, whole, _ = case.run()
    pad = functools.partial(jnp.pad, pad_width=((0, 0), (0, 2)))
    noise = jnp.where(case.source_mask, case.source, (case.source + 5) % W)
    source, mask = pad(noise, constant_values=3), pad(case.source_mask)
    context, state = case.start(source, mask, ())
    state = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=1), state)
    for t in range(T):
        word = case.target[:, t : t + 1]
        other = (word + 1) % V if t else word
        state, logits = case.step(context, state, jnp.concatenate([other, word], 1))
        np.testing.assert_allclose(logits[:, 1], whole[:, t], atol=1e-4)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_decoder_computes_the_formulas_of_its_paper(name):
    case, feeding = translator(name), name != "published"
    params = jax.tree.map(np.asarray, case.variables["params"])
    decoder, width = params["decoder"], case.model.config.width
    kernel = {key: part.get("kernel") for key, part in decoder.items()}
    cell = {k: v for k, v in decoder["cells_0"].items() if k != "input"}
    w, b = (decoder["cells_0"]["input"][key] for key in ("kernel", "bias"))
    second = decoder.get("transition_cell", {})
    _, found, _ = case.run()

    def encode(model, source, mask):
        return model.encoder(model.source_embedding(source), mask, train=False)

    call = nn.apply(encode, case.model)
    annotations, backward = call(case.variables, case.source, case.source_mask)
    for row, length in enumerate((S, S - 3)):
        h = np.asarray(annotations)[row, :length]
        start = decoder["initial_state"]
        s = np.tanh(np.asarray(backward)[row] @ start["kernel"] + start["bias"])
        memory, input_feed = np.zeros(width), np.zeros(case.model.config.output_width)
        for t in range(T - row):
            y = params["target_embedding"]["table"][int(case.target[row, t])]
            bias = b + input_feed @ kernel["input_feed_proj"] if feeding else b
            if second:
                s, memory = lstm((s, memory), y, w, bias, cell["recurrent"], cell)
            if feeding:
                scores = (h[:, :width] + h[:, width:]) @ s
            else:
                look = decoder["alignment"]
                hidden = s @ look["query"]["kernel"] + h @ look["key"]["kernel"]
                scores = np.tanh(hidden) @ look["score"]["kernel"][:, 0]
            weights = np.exp(scores) / np.exp(scores).sum()
            context = weights @ h
            if second:
                again = (second["input"][key] for key in ("kernel", "bias"))
                again = (*again, second["recurrent"], second)
                new, memory = lstm((s, memory), context, *again)
            elif feeding:
                bias = bias + context @ kernel["context_proj"]
                new, memory = lstm((s, memory), y, w, bias, cell["recurrent"], cell)
            else:
                bias = bias + context @ kernel["context_proj"]
                new = gru_reset_before(s, y, w, bias, cell["recurrent"], cell)
            join = decoder["readout_layer"]["proj"]
            seen = np.concatenate([new if feeding else s, y, context])
            u = seen @ join["kernel"] + join["bias"]
            input_feed = np.tanh(u) if feeding else np.maximum(u[0::2], u[1::2])
            s = new
            logits = params["head"]["table"] @ input_feed + params["head"]["bias"]
            np.testing.assert_allclose(found[row, t], logits, atol=1e-4)


def test_published_initial_values_are_those_of_appendix_b():
    case = translator("published")
    init = jax.jit(functools.partial(case.model.init, train=False))
    variables = init(jax.random.key(0), *case.inputs(), ())
    params = nn.meta.unbox(variables)["params"]
    alignment = params["decoder"]["alignment"]
    np.testing.assert_array_equal(alignment["score"]["kernel"], 0.0)
    for part, spread in (
        (alignment["query"]["kernel"], 0.001),
        (alignment["key"]["kernel"], 0.001),
        (params["decoder"]["readout_layer"]["proj"]["kernel"], 0.01),
        (params["encoder"]["forward_0"]["input"]["kernel"], 0.01),
        (params["source_embedding"]["table"], 0.01),
    ):
        assert 0.8 * spread < np.std(part) < 1.2 * spread


def embedded(model, variables, text):
    def call(model, text):
        return model._embed(text, train=True)

    rngs = {"dropout": jax.random.key(3)}
    found = jax.jit(nn.apply(call, model))(variables, text, rngs=rngs)
    return np.asarray(found / variables["params"]["embedding"]["table"][text])


def test_embedding_dropout_zeroes_a_word_at_all_its_positions():
    model, variables = awd(dropout=0.1, dropout_input=0.0, dropout_embedding=0.5)
    text = jnp.tile(tokens((1, 20)), (2, 3))
    kept = embedded(model, variables, text)
    first = kept[0, :20, :1]
    np.testing.assert_allclose(kept, np.tile(first, (2, 3, 10)), atol=1e-5)
    assert set(np.unique(first.round(4))) == {0.0, 2.0}


@pytest.mark.parametrize("variational", [False, True])
def test_variational_dropout_draws_one_mask_a_row_for_all_steps(variational):
    model, variables = awd(
        dropout=0.1, dropout_input=0.5, variational_dropout=variational
    )
    kept = embedded(model, variables, tokens((B, 20)))
    assert set(np.unique(kept.round(4))) == {0.0, 2.0}
    same = np.ptp(kept, axis=1).max() < 1e-4
    assert same == variational
    assert np.abs(kept[0, 0] - kept[1, 0]).max() > 1


def run(model, variables, train=True, seed=1):
    carry = model.initial_carry(B, train=train)
    rngs = {"dropout": jax.random.key(seed)}
    apply = jax.jit(functools.partial(model.apply, train=train))
    return np.asarray(apply(variables, tokens((B, T)), carry, rngs=rngs)[0])


def test_a_dropout_of_zero_disables_every_dropout():
    rates = ("dropout_input", "dropout_hidden", "dropout_embedding", "weight_dropout")
    off, variables = awd(dropout=0.0, **dict.fromkeys(rates, 0.5))
    plain = run(off, variables, False)
    np.testing.assert_array_equal(run(off, variables), plain)
    for rate in ("dropout_hidden", "weight_dropout"):
        on, _ = awd(dropout=1e-6, **(dict.fromkeys(rates, 0.0) | {rate: 0.5}))
        assert np.abs(run(on, variables) - plain).max() > 1e-3, rate


def test_activation_penalties_are_their_formulas_and_leave_the_loss_alone():
    penalties = {
        "activation_regularization": 2.0,
        "temporal_activation_regularization": 3.0,
    }
    model, variables = awd(dropout=0.0, **penalties)
    text, weights = tokens((B, T)), jnp.ones((B, T)).at[1].set(0.0)
    batch = {"labels": text, "weights": weights}

    @functools.partial(jax.jit, static_argnums=0)
    def pairs(train):
        inputs = (text, model.initial_carry(B, train=train))
        options = {"smoothing": 0.0, "train": train}
        rng = jax.random.key(0)
        return likelihood_loss(model, variables, inputs, batch, rng, **options)[0]

    found, plain = pairs(True), pairs(False)
    assert plain.keys() == {"loss"}
    np.testing.assert_allclose(found["loss"], plain["loss"], rtol=1e-6)
    h = run(model, variables)[0]  # the other row has no weight
    for name, expected in (
        ("activation", 2 * (h**2).mean()),
        ("temporal_activation", 3 * ((h[1:] - h[:-1]) ** 2).mean()),
    ):
        total, weight = found[f"auxiliary/{name}"]
        np.testing.assert_allclose(total / weight, expected, rtol=1e-5)


def test_dropout_affects_activation_but_not_temporal_activation_regularisation():
    model, variables = awd(
        dropout=0.5,
        dropout_input=0.0,
        dropout_hidden=0.0,
        activation_regularization=1.0,
        temporal_activation_regularization=1.0,
    )
    carry, text = model.initial_carry(B, train=True), tokens((B, T))
    options = {"train": True, "mutable": ["losses"]}

    @jax.jit
    def losses(rng):
        rngs = {"dropout": rng}
        _, kept = model.apply(variables, text, carry, rngs=rngs, **options)
        return auxiliary_losses(kept["losses"], jnp.ones((B, T)))

    found = [losses(jax.random.key(seed)) for seed in (1, 2)]
    one, two = ([pair[0] for pair in pairs.values()] for pairs in found)
    assert abs(one[0] - two[0]) > 1e-3
    assert one[1] == two[1] > 0


def num_parameters(model, *inputs):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, *inputs)))


@pytest.mark.parametrize(
    ("config", "size", "millions"), [(ptb, 10_000, 24.2), (wikitext2, 33_278, 33.5)]
)
def test_the_awd_lstms_have_the_published_sizes(config, size, millions):
    cfg = config.get_config("awd_lstm")
    model = LanguageModel(Config(**cfg.model), size)
    assert (cfg.optim.name, cfg.optim.lr) == ("nt_asgd", 30)
    assert model.config.widths == (1150, 1150, 400)
    carry = model.initial_carry(1, train=False)
    found = num_parameters(model, jnp.zeros((1, 2), int), carry)
    assert found / 1e6 == pytest.approx(millions, abs=0.05)


def test_rnnsearch_50_has_the_published_matrices_and_no_others():
    cfg = wmt14.get_config("rnnsearch50")
    size = cfg.data.vocab_size
    model = Seq2Seq(Config(**cfg.model), size, size, shared_vocab=False)
    word, mask = jnp.zeros((1, 2), int), jnp.ones((1, 2), bool)
    n, m, a, half = 1000, 620, 1000, 500
    gru = 3 * (m * n + n * n + n)
    encoder = size * m + 2 * gru
    alignment = n * a + 2 * n * a + a
    decoder = size * m + gru + 3 * 2 * n * n + (n * n + n) + alignment
    readout = (n + m + 2 * n + 1) * 2 * half + size * (half + 1)
    found = num_parameters(model, word, mask, word, mask, ())
    assert found == encoder + decoder + readout


def test_uniform_weights_fill_their_range_and_biases_are_zero():
    changes = {"initialization": "uniform", "init_scale": 0.3, **CONDITIONAL}
    word, mask = jnp.zeros((1, 2), int), jnp.ones((1, 2), bool)
    model = LanguageModel(small_config("rnn", **changes), V)
    translator = Seq2Seq(small_config("rnn", **changes), W, V, shared_vocab=False)
    for made, inputs in (
        (model, (word, model.initial_carry(1, train=False))),
        (translator, (word, mask, word, mask, ())),
    ):
        init = jax.jit(functools.partial(made.init, train=False))
        params = nn.meta.unbox(init(jax.random.key(0), *inputs))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            name = jax.tree_util.keystr(path)
            if "bias" in name:
                np.testing.assert_array_equal(leaf, 0.0, name)
            else:
                assert 0.2 < jnp.abs(leaf).max() <= 0.3, name
                assert leaf.min() < 0 < leaf.max(), name


@pytest.mark.parametrize("module", [ptb, wikitext2, wmt14])
def test_every_variant_of_a_config_has_a_model(module):
    for variant in module.VARIANTS:
        cfg = module.get_config(variant)
        if cfg.model.name == "rnn":
            assert cfg.is_locked
            Config(**cfg.model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cell": "gruu"},
            "Unknown model.cell 'gruu'; choose one of gru",
        ),
        (
            {"score": "cosine"},
            "Unknown model.score 'cosine'; choose one of additive",
        ),
        (
            {"readout": "relu"},
            "Unknown model.readout 'relu'; choose one of tanh",
        ),
        (
            {"initialization": "he"},
            "Unknown model.initialization 'he'; choose one",
        ),
        ({"activation_regularization": -1.0}, "model.activation_regularization=-1.0"),
        ({"weight_dropout": 1.0}, "model.weight_dropout=1.0"),
        ({"embedding_width": 0}, "model.embedding_width=0"),
        ({"readout": "none", "attention_window": 3}, "model.attention_window=3"),
        (
            {"readout": "maxout", "maxout_width": 9, "tie_embeddings": True},
            "model.maxout_width=9 must equal model.embedding_width=10",
        ),
    ],
)
def test_an_invalid_value_is_refused_with_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        small_config("rnn", **change)


def test_a_translation_without_a_readout_is_refused():
    config = small_config("rnn", readout="none", attention_window=0)
    with pytest.raises(UserError, match="is for language models"):
        Seq2Seq(config, W, V, shared_vocab=False)
