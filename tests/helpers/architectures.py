"""Small models of every architecture found in models/, for the tests."""

import functools
import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.plan.step import parameter_shapes
from configs import base
from models.registry import ARCHITECTURES, get_model_class

# All different, so that a swapped axis cannot pass.
B, T, S, V, W = 2, 5, 7, 29, 31

SMALL = {
    "layers": 2,
    "width": 12,
    "heads": 3,
    "feed_forward": 22,
    "attention_width": 14,
    "attention_window": 2 * T,
    "memory_length": 2 * T,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "tie_embeddings": False,
    "norm": "pre",
}

SHARED = {}  # cases by kind and config


def names() -> list[str]:
    """Every architecture of the registry."""
    return list(ARCHITECTURES)


def only(*fast: str) -> list:
    """Every architecture as a parameter; tests of others than `fast` are slow."""
    return [
        pytest.param(x, marks=[pytest.mark.slow] * (x not in fast)) for x in names()
    ]


def small_config(name: str, **changes):
    """A Config of a few hundred parameters."""
    own = {"embedding_width": 10} if name == "rnn" else {}
    keys = {**SMALL, **own, **changes}
    keys = {key: value for key, value in keys.items() if key in base.MODELS[name]}
    return get_model_class(name, "Config")(**base.model(name, **keys))


def random_parameters(init, *inputs, scale=0.3):
    """Parameters of which none is zero or special, without compiling `init`."""
    shapes = nn.meta.unbox(jax.eval_shape(init, *inputs))
    draw = np.random.default_rng(7)  # jax would compile a program for every shape

    def drawn(path, leaf):
        middle = float("scale" in str(path[-1]))
        return jnp.asarray(draw.normal(middle, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


@functools.cache
def parameters_of(config: str, model: str):
    """Shapes of the parameters of configs/<config>.py:<model>."""
    cfg = importlib.import_module(f"configs.{config}").get_config(model)
    return parameter_shapes(cfg)


def tokens(shape, size=V, seed=1):
    """Tokens, all different within a row where there are enough."""
    draw = np.random.default_rng(seed)
    rows = [draw.permutation(size)[: shape[1]] for _ in range(shape[0])]
    return jnp.asarray(rows, jnp.int32)


def shared_case(kind, name: str, **changes):
    """The only case of a kind with a config, so that its programs are compiled once."""
    key = kind, small_config(name, **changes)
    if key not in SHARED:
        SHARED[key] = kind(name, **changes)
    return SHARED[key]


class LanguageModelCase:
    """A language model, its variables, and calls as plain functions."""

    def __init__(self, name: str, **changes):
        model = get_model_class(name, "LanguageModel")
        self.model = model(small_config(name, **changes), V)
        self.carry = functools.partial(self.model.initial_carry, train=False)

        def everything(model, tokens, carry):
            hidden, _ = model(tokens, carry, train=False)
            return model.log_prob(hidden, tokens)

        self.init = functools.partial(
            nn.init(everything, self.model), jax.random.key(0)
        )
        self.variables = random_parameters(self.init, tokens((B, T)), self.carry(B))

    def run(self, tokens, carry, variables=None, *, train=False, **rngs):
        """Hidden states, logits and the next carry."""
        return self._run(variables or self.variables, tokens, carry, train, rngs)

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _run(self, variables, tokens, carry, train, rngs):
        def both(model, tokens, carry):
            hidden, carry = model(tokens, carry, train=train)
            return hidden, model.logits(hidden), carry

        call = nn.apply(both, self.model)
        return call(variables, tokens, carry, rngs=rngs)

    def log_prob(self, hidden, labels, **options):
        """Log probability of labels."""
        return self._apply("log_prob", tuple(options.items()), hidden, labels)

    def start(self, prompt, mask, carry, **options):
        """Context and state after a prompt."""
        return self._apply("start", tuple(options.items()), prompt, mask, carry)

    def _apply(self, method, options, *inputs):
        return self._compiled(method, options, self.variables, *inputs)

    @functools.partial(jax.jit, static_argnums=(0, 1, 2))
    def _compiled(self, method, options, variables, *inputs):
        return self.model.apply(variables, *inputs, method=method, **dict(options))

    def step(self, context, state, token):
        """The next state and logits."""
        return self._step(self.variables, context, state, token)

    @functools.partial(jax.jit, static_argnums=0)
    def _step(self, variables, context, state, token):
        return self.model.apply(variables, context, state, token, method="step")


class Seq2SeqCase:
    """An encoder-decoder, its variables, and calls as plain functions."""

    def __init__(self, name: str, **changes):
        config = small_config(name, **changes)
        model = get_model_class(name, "Seq2Seq")
        self.model = model(config, W, V, shared_vocab=False)
        self.carry = functools.partial(self.model.initial_carry, train=False)
        self.source = tokens((B, S), W, seed=2)
        self.source_mask = jnp.arange(S) < jnp.asarray([[S], [S - 3]])
        self.target = tokens((B, T), V, seed=3)
        self.target_mask = jnp.arange(T) < jnp.asarray([[T], [T - 1]])

        def everything(model, *inputs):
            hidden, _ = model(*inputs, train=False)
            return model.log_prob(hidden, inputs[2])

        self.init = functools.partial(
            nn.init(everything, self.model), jax.random.key(0)
        )
        self.variables = random_parameters(self.init, *self.inputs(), self.carry(B))

    def inputs(self, **changes):
        """What the model is called with, but for the carry."""
        names = ("source", "source_mask", "target", "target_mask")
        return tuple(changes.get(name, getattr(self, name)) for name in names)

    def run(self, carry=None, variables=None, *, train=False, rngs=None, **changes):
        """Hidden states, logits and the next carry."""
        carry = self.carry(B, memory_length=0) if carry is None else carry
        inputs = self.inputs(**changes)
        return self._run(variables or self.variables, inputs, carry, train, rngs)

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _run(self, variables, inputs, carry, train, rngs):
        def both(model, *inputs):
            hidden, carry = model(*inputs, train=train)
            return hidden, model.logits(hidden), carry

        return nn.apply(both, self.model)(variables, *inputs, carry, rngs=rngs)

    start = LanguageModelCase.start
    _apply, _compiled = LanguageModelCase._apply, LanguageModelCase._compiled
    step = LanguageModelCase.step
    _step = LanguageModelCase._step


class EncoderCase:
    """An encoder of texts, its variables, and calls as plain functions."""

    def __init__(self, name: str, **changes):
        model = get_model_class(name, "Encoder")
        self.model = model(small_config(name, **changes), V)
        self.carry = functools.partial(self.model.initial_carry, train=False)
        self.text = tokens((B, S), V, seed=2)
        self.segment_ids = jnp.asarray(jnp.arange(S) > 2, jnp.int32)[None].repeat(B, 0)
        self.mask = jnp.arange(S) < jnp.asarray([[S], [S - 3]])
        self.init = functools.partial(
            nn.init(lambda model, *inputs: model(*inputs, train=False), self.model),
            jax.random.key(0),
        )
        self.variables = random_parameters(self.init, *self.inputs(), self.carry(B))

    def inputs(self, **changes):
        """Returns the inputs of the model except for the carry."""
        names = ("text", "segment_ids", "mask")
        return tuple(changes.get(name, getattr(self, name)) for name in names)

    def run(self, carry=None, variables=None, *, train=False, rngs=None, **changes):
        """Hidden states and the next carry."""
        carry = self.carry(B, memory_length=0) if carry is None else carry
        inputs = self.inputs(**changes)
        return self._run(variables or self.variables, inputs, carry, train, rngs)

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _run(self, variables, inputs, carry, train, rngs):
        return self.model.apply(variables, *inputs, carry, train=train, rngs=rngs)

    def loss(self, carry):
        """Function of parameters whose gradient every state of a token enters."""
        shape = B, S, self.model.hidden_width
        weights = jnp.asarray(np.random.default_rng(3).normal(size=shape))
        weights *= self.mask[..., None]

        def loss(params):
            hidden, _ = self.run(carry, {"params": params}, train=True)
            return (hidden.astype(jnp.float32) * weights).sum()

        return loss
