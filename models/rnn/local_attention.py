"""Attention of a recurrent layer over its own last outputs."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dtypes import DType
from models.rnn.attention import SingleHeadAttention


class Recent(NamedTuple):
    """The last outputs before a segment.

    Attributes:
      outputs: N of them, oldest first, [B, N, D].
      filled: how many of the N there are, the last ones, [B].
    """

    outputs: Float[Array, "B N D"]
    filled: Int[Array, "B"]


def none_yet(
    rows: int, length: int, width: int, dtype: DType = jnp.float32
) -> Recent | tuple:
    """What the first segment finds; () where there is no room for any."""
    if not length:
        return ()
    outputs = jnp.zeros((rows, length, width), dtype)
    return Recent(outputs, jnp.zeros(rows, jnp.int32))


class LookBack(nn.Module):
    """Each output's context among the N before it (Daniluk et al. 2017, section 3.1).

    c_t = attention(h_t; h_{t-N} .. h_{t-1})

    Attributes:
      alignment: the attention, with any of its scores.
      remat: whether the backward pass does it again, so that neither the N states
        of each output are stored nor what they make.
    """

    alignment: SingleHeadAttention
    remat: bool = False

    def __call__(
        self,
        outputs: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        recent: Recent | tuple,
    ) -> tuple[Float[Array, "B T D"], Recent | tuple]:
        """The contexts and the last outputs; without room, zeros and ().

        Padding, where mask is False, stands before a row's first output.
        """
        if not recent:
            return jnp.zeros_like(outputs), ()
        window, length = recent.outputs.shape[1], outputs.shape[1]
        padding = length - mask.sum(axis=1, dtype=jnp.int32)
        roll = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=0))
        old = roll(jnp.pad(recent.outputs, ((0, 0), (0, length), (0, 0))), padding)
        new = jnp.pad(outputs, ((0, 0), (window, 0), (0, 0)))
        place = jnp.arange(window + length) - padding[:, None]
        states = jnp.where((place < window)[..., None], old, new)
        there = place >= window - recent.filled[:, None]
        filled = jnp.minimum(recent.filled + length - padding, window)
        attend = nn.remat(LookBack._attend) if self.remat else LookBack._attend
        # Outside, so that the alignment has made its parameters before it is lifted.
        keys = self.alignment.project_keys(states)
        contexts = attend(self, outputs, keys, states, there)
        return contexts, Recent(states[:, length:], filled)

    def _attend(self, outputs, keys, states, there):
        """Each output's view of as many states before it as there are more."""
        batch, length, width = outputs.shape
        window = states.shape[1] - length
        rows = batch * length
        slots = jnp.arange(length)[:, None] + jnp.arange(window)  # [T, N]
        contexts, weights = self.alignment(
            outputs.reshape(rows, 1, width),
            keys[:, slots].reshape(rows, window, -1),
            states[:, slots].reshape(rows, window, width),
            there[:, slots].reshape(rows, 1, window),
        )
        self.sow("intermediates", "attention", weights.reshape(batch, length, window))
        return contexts.reshape(batch, length, width)
