"""Interventions in the forward pass of a model, given as arrays.

A `Knockout` is an argument of the program, so one compiled program runs all of them,
vmapped over the same parameters and batch. Models have no code for it: the methods that
compute the parts of a layer are intercepted (`flax.linen.intercept_methods`).

    heads      output of head h set to 0 before W^O: mask variable xi_h = 0 (Michel et
               al. 2019, "Are Sixteen Heads Really Better than One?", section 2.3)
    layers     residual branches of a layer set to 0: what remains is the residual
               stream and, with norm="post", the normalisations
    distance   keys at distance low <= |i - j| < high of every self-attention of a stack
               masked before the softmax; the memory of Transformer-XL included
    alignment  weights of the RNN's attention replaced: equal over all unmasked
               positions ("uniform"), moved by one position to the right, from the last
               to the first ("shifted"), or all on the last position ("last")
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import KVBlocks, TransposedKV
from models.attention.multi_head import MultiHeadAttention, SelfAttention
from models.common.layers import ResidualBlock
from models.rnn.attention import SingleHeadAttention

KINDS = ("heads", "layers", "distance", "alignment")
LAYER = re.compile(r"(.*)layers_\d+")  # path of a layer, after that of its stack
COLLECTION, NAME = "knockouts", "applied"  # where variables hold a knockout
NO_BAND = (0, 0)
NO_LIMIT = 2**30  # a distance beyond any text

# Indices are the values of `Knockout.alignment`.
ALIGNMENTS = ("learned", "uniform", "shifted", "last")


class Knockout(NamedTuple):
    """Parts of a model that are switched off, by the path of the module.

    Attributes:
      heads: which heads of an attention are kept.
      layers: whether the residual branches of a layer are kept.
      distance: ends [low, high) of the band of distances that a stack does not attend
        to; none if they are equal.
      alignment: index in ALIGNMENTS of the weights of an RNN's attention.
    """

    heads: dict[str, Bool[Array, "H"]]
    layers: dict[str, Bool[Array, ""]]
    distance: dict[str, Int[Array, "2"]]
    alignment: dict[str, Int[Array, ""]]


class Sites(NamedTuple):
    """The parts of a model that can be switched off, by the path of the module.

    Attributes:
      heads: number of heads of each attention.
      layers: layers with residual branches.
      distance: largest number of keys of the self-attention of each stack.
      alignment: attentions of an RNN.
    """

    heads: dict[str, int]
    layers: dict[str, None]
    distance: dict[str, int]
    alignment: dict[str, None]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knockout that the model has."""
        return tuple(kind for kind in KINDS if getattr(self, kind))

    def identity(self) -> Knockout:
        """Returns the knockout that switches nothing off."""
        return Knockout(
            {name: np.ones(heads, bool) for name, heads in self.heads.items()},
            {name: np.asarray(True) for name in self.layers},
            {name: np.asarray(NO_BAND, np.int32) for name in self.distance},
            {name: np.asarray(0, np.int32) for name in self.alignment},
        )


def find_sites(forward: Callable, *inputs) -> Sites:
    """Returns what a forward pass computes that can be switched off.

    Args:
      forward: function that applies a model; it is traced for its shapes only.
      inputs: its arguments, or their shapes.
    """
    sites = Sites({}, {}, {}, {})

    def record(next_method, args, kwargs, context):
        part = _intercepted_part(context)
        if part == "heads":
            sites.heads[_path(context)] = args[0].shape[1]
        elif part == "layers":
            sites.layers[_layer(context)] = None
        elif part == "distance":
            stack, num_keys = _stack(context), args[2].shape[-1]
            sites.distance[stack] = max(num_keys, sites.distance.get(stack, 0))
        elif part == "alignment":
            sites.alignment[_path(context)] = None
        return next_method(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(forward, *inputs)
    return sites


def switched_off(knockout: Knockout):
    """Context manager in which the models that are traced have a knockout."""
    return nn.intercept_methods(
        lambda next_method, args, kwargs, context: _call_switched_off(
            knockout, next_method, args, kwargs, context
        )
    )


def switched_off_by_variables():
    """Context manager in which models have the knockout that their variables hold.

    For programs that apply a model themselves, such as searches; see `with_knockout`.
    """
    applied: list[Knockout] = []  # of the model that is applied, innermost last

    def intercept(next_method, args, kwargs, context):
        scope = context.module.scope
        if scope is None:  # a method that reads no variables, outside of `apply`
            return next_method(*args, **kwargs)
        found = scope.root.get_variable(COLLECTION, NAME)
        if found is None:  # in a transformation, such as a scan, of the same model
            found = applied[-1]
        applied.append(found)
        try:
            return _call_switched_off(found, next_method, args, kwargs, context)
        finally:
            applied.pop()

    return nn.intercept_methods(intercept)


def with_knockout(variables: dict, knockout: Knockout) -> dict:
    """Returns variables of a model that hold a knockout."""
    return variables | {COLLECTION: {NAME: knockout}}


def _call_switched_off(knockout: Knockout, next_method, args, kwargs, context):
    """Calls a method of a model with the parts of a knockout switched off."""
    part = _intercepted_part(context)
    if part == "heads":
        (heads,) = args
        is_kept = knockout.heads[_path(context)][:, None, None]
        args = (jnp.where(is_kept, heads, 0),)
    elif part == "layers":
        x, branch = args
        args = x, jnp.where(knockout.layers[_layer(context)], branch, 0)
    elif part == "distance":
        x, kv, mask, *others = args
        band = knockout.distance[_stack(context)]
        mask = mask & ~distance_mask(x.shape[1], mask.shape[-1], *band)
        args = x, kv, mask, *others
    elif part == "distance of a step":
        x, prefix, blocks, step_mask, *others = args
        band = knockout.distance[_stack(context)]
        far = step_distance_mask(prefix, blocks, step_mask.mask, *band)
        step_mask = step_mask._replace(mask=step_mask.mask & ~far)
        args = x, prefix, blocks, step_mask, *others
    outputs = next_method(*args, **kwargs)
    if part == "alignment":
        _, _, values, mask = args
        choice = knockout.alignment[_path(context)]
        weights = replace_weights(outputs[1], mask, choice)
        return jnp.einsum("BTS,BSE->BTE", weights, values), weights
    return outputs


def distance_mask(
    num_queries: int, num_keys: int, low: Int[Array, ""], high: Int[Array, ""]
) -> Bool[Array, "1 T S"]:
    """Returns where the distance of a query and a key is in [low, high).

    The queries are the last of the keys; keys in excess are a memory.
    """
    queries = jnp.arange(num_keys - num_queries, num_keys)[:, None]
    distance = abs(queries - jnp.arange(num_keys))[None]
    return (low <= distance) & (distance < high)


def step_distance_mask(
    prefix: TransposedKV,
    blocks: KVBlocks,
    mask: Bool[Array, "B N S"],
    low: Int[Array, ""],
    high: Int[Array, ""],
) -> Bool[Array, "B N S"]:
    """Returns which slots of a `StepMask` are at a distance in [low, high).

    Distances are those from the current token of each beam. A token attends to itself,
    so the last slot that its beam attends to is its own.
    """
    num_prefix, num_groups = prefix[1].shape[2], blocks[0][0].shape[0]
    beams_per_group = mask.shape[0] * mask.shape[1] // num_groups
    steps = jnp.arange(mask.shape[-1] - num_prefix) // beams_per_group
    positions = jnp.concatenate([jnp.arange(num_prefix), num_prefix + steps])
    current = jnp.where(mask, positions, 0).max(axis=-1, keepdims=True)
    distance = current - positions
    return (low <= distance) & (distance < high)


def replace_weights(
    weights: Float[Array, "B T S"], mask: Bool[Array, "B #T S"], choice: Int[Array, ""]
) -> Float[Array, "B T S"]:
    """Returns the weights that an index in ALIGNMENTS chooses.

    Args:
      mask: True at consecutive positions.
    """
    slots, size = jnp.arange(mask.shape[-1]), mask.sum(axis=-1, keepdims=True)
    first = mask.argmax(axis=-1, keepdims=True)
    source = first + (slots - first - 1) % jnp.maximum(size, 1)
    source = jnp.broadcast_to(source, weights.shape) % mask.shape[-1]
    choices = [
        weights,
        jnp.where(mask, 1 / jnp.maximum(size, 1), 0),
        jnp.where(mask, jnp.take_along_axis(weights, source, axis=-1), 0),
        jnp.where(mask & (slots == first + size - 1), 1, 0),
    ]
    choices = [
        jnp.broadcast_to(x, weights.shape).astype(weights.dtype) for x in choices
    ]
    return jax.lax.select_n(choice, *choices)


def _intercepted_part(context: nn.module.InterceptorContext) -> str | None:
    """Returns the kind of knockout that changes a method, if there is one."""
    module, method = context.module, context.method_name
    if isinstance(module, MultiHeadAttention):
        if method == "project_output":
            return "heads"
        if method == "__call__" and isinstance(module, SelfAttention):
            return "distance"
        if method == "decode_self_attention":
            return "distance of a step"
    if method == "postprocess" and isinstance(module, ResidualBlock):
        return "layers"
    if method == "__call__" and isinstance(module, SingleHeadAttention):
        return "alignment"
    return None


def _path(context) -> str:
    return "/".join(context.module.path)


def _layer(context) -> str:
    return LAYER.match(_path(context))[0]


def _stack(context) -> str:
    return LAYER.match(_path(context))[1].rstrip("/")
