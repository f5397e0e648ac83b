"""Attention of a recurrent language model to its own last outputs."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dtypes import DType
from models.rnn.attention import SingleHeadAttention


class OutputWindow(NamedTuple):
    """The W outputs before a segment, oldest first.

    Attributes:
      outputs: outputs of the top layer, [B, W, D].
      valid_length: number of slots in use, the last ones, [B].
    """

    outputs: Float[Array, "B W D"]
    valid_length: Int[Array, "B"]


def empty_window(
    batch_size: int, length: int, width: int, dtype: DType = jnp.float32
) -> OutputWindow | tuple:
    """Returns the window before the first segment; () if `length` is 0."""
    if not length:
        return ()
    outputs = jnp.zeros((batch_size, length, width), dtype)
    return OutputWindow(outputs, jnp.zeros(batch_size, jnp.int32))


class LocalAttention(nn.Module):
    """Attention over a sliding window (Daniluk et al. 2017, section 3.1).

        c_t = attention(h_t; h_{t-W} .. h_{t-1})

    Attributes:
      alignment: single-head attention with one of the scores.
      remat: whether the backward pass recomputes the attention instead of storing
        W states for each output.
    """

    alignment: SingleHeadAttention
    remat: bool = False

    def __call__(
        self,
        outputs: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        window: OutputWindow | tuple,
    ) -> tuple[Float[Array, "B T D"], OutputWindow | tuple]:
        """Computes the context of each output and the next window.

        Args:
          outputs: outputs h_t of the top layer.
          mask: False at padding, which precedes each row's first output.
          window: the outputs before the segment, or ().

        Returns the contexts c_t and the next window; zeros and () without a window.
        """
        if not window:
            return jnp.zeros_like(outputs), ()
        size, length = window.outputs.shape[1], outputs.shape[1]
        padding = length - mask.sum(axis=1, dtype=jnp.int32)
        roll = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=0))
        old = roll(jnp.pad(window.outputs, ((0, 0), (0, length), (0, 0))), padding)
        new = jnp.pad(outputs, ((0, 0), (size, 0), (0, 0)))
        slots = jnp.arange(size + length) - padding[:, None]
        states = jnp.where((slots < size)[..., None], old, new)
        valid = slots >= size - window.valid_length[:, None]
        valid_length = jnp.minimum(window.valid_length + length - padding, size)
        attend = LocalAttention._attend
        if self.remat:
            attend = nn.remat(attend)
        # Called outside `attend`, because a lifted module cannot create parameters.
        keys = self.alignment.project_keys(states)
        contexts = attend(self, outputs, keys, states, valid)
        return contexts, OutputWindow(states[:, length:], valid_length)

    def _attend(self, outputs, keys, states, valid):
        """Attends from each output to the W states before it."""
        batch_size, length, width = outputs.shape
        size = states.shape[1] - length
        rows = batch_size * length
        slots = jnp.arange(length)[:, None] + jnp.arange(size)  # [T, W]
        contexts, weights = self.alignment(
            outputs.reshape(rows, 1, width),
            keys[:, slots].reshape(rows, size, -1),
            states[:, slots].reshape(rows, size, width),
            valid[:, slots].reshape(rows, 1, size),
        )
        weights = weights.reshape(batch_size, length, size)
        self.sow("intermediates", "attention", weights)
        return contexts.reshape(batch_size, length, width)
