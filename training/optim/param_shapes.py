"""Which parameters are matrices, and which of their axes are inputs.

Optimisers that look at rows and columns (muon, adafactor) need to know how a
kernel [D, H, Dh] is a matrix. Names tell it, as for every group of parameters:
by the time of an update there is nothing else.
"""

import math

import jax
import numpy as np
from flax.core import meta
from jaxtyping import PyTree

from training.optim.param_groups import map_named

VECTORS = ("bias", "scale")  # how names of what is no matrix end, whatever its rank
HIDDEN = ("kernel", "recurrent")  # names of maps between hidden states


def input_axes(name: str, shape: tuple[int, ...]) -> int:
    """How many of the first axes of a parameter are inputs; 0 for what is a vector.

    The output layer of an attention joins heads [H, Dh, D]; other kernels have one
    axis of inputs, [D, F] or [D, H, Dh], and tables one of words.
    """
    if len(shape) < 2 or name.endswith(VECTORS):
        return 0
    inputs = 2 if len(shape) > 2 and name.endswith("output/kernel") else 1
    sides = math.prod(shape[:inputs]), math.prod(shape[inputs:])
    return inputs if min(sides) > 1 else 0


def is_hidden(name: str, leaf: PyTree) -> bool:
    """Whether a parameter is a matrix between hidden states.

    Embeddings and output layers are called tables; what they do is not measured by
    the spectrum of the whole.
    """
    shape = np.shape(meta.unbox(leaf))
    return name.split("/")[-1] in HIDDEN and input_axes(name, shape) > 0


def hidden(params: PyTree) -> PyTree:
    """True for matrices between hidden states."""
    return map_named(is_hidden, params)


def not_hidden(params: PyTree) -> PyTree:
    """True for all others: embeddings, output layers, gains, biases, vectors."""
    return jax.tree.map(lambda found: not found, hidden(params))
