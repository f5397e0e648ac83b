"""The layers of a stack as one loop: a program that does not grow with them.

Parameters stay those of single layers, so that a checkpoint fits either way: what
the loop goes over is stacked inside the program.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from models.transformer.block import TransformerBlock


def scanned(
    stack: nn.Module,
    x: Float[Array, "B T D"],
    memory: tuple[Float[Array, "B M D"], ...] | None,
    attention_context,
    source,
    *,
    train: bool,
) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T D"], ...]]:
    """The output of all layers and each layer's input; see `Stack.__call__`.

    Each layer has a dropout key of its own, not the one it would have unrolled.
    What layers sow in "losses" is added up over them; nothing else is kept of
    what they sow.
    """
    config, biases = stack.config, stack.biases
    layer = TransformerBlock(config, stack.cross, parent=None)
    watched = ["losses"] if stack.is_mutable_collection("losses") else []

    def one(x, part):
        params, key, old = part
        (y, _), sown = layer.apply(
            {"params": params},
            *(x, old, None, attention_context, biases, source),
            train=train,
            rngs={} if key is None else {"dropout": key},
            mutable=watched,
        )
        return y, (x, sown.get("losses", {}))

    if config.remat:
        one = jax.checkpoint(one, prevent_cse=False)
    old = None if memory is None else jnp.stack(memory)
    parts = (stacked_parameters(stack), dropout_keys(stack, train), old)
    x, (inputs, sown) = jax.lax.scan(one, x, parts)
    for path, losses in flatten_dict(sown).items():
        for total, weight in losses:
            stack.sow("losses", path[-1], (total.sum(axis=0), weight.sum(axis=0)))
    return x, tuple(inputs)


def stacked_parameters(stack: nn.Module):
    """Those of a layer, each with an axis over layers before its own."""
    params = nn.meta.unbox(stack.variables["params"])
    layers = [params[f"layers_{i}"] for i in range(stack.config.layers)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def dropout_keys(stack: nn.Module, train: bool) -> Array | None:
    """One a layer; None where nothing is drawn."""
    if not train or not stack.has_rng("dropout"):
        return None
    return jax.random.split(stack.make_rng("dropout"), stack.config.layers)
