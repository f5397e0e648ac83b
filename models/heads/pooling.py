"""Pooling of hidden states: one vector for a text."""

import operator

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.common.layers import Dense
from models.common.masks import masked_softmax


class Pooling(nn.Module):
    """Pools the hidden states of a text, by `head.pooling`.

        cls        tanh(W h_1 + b), of the first token, [CLS] (Devlin et al. 2019)
        mean, max  over all tokens, [CLS] and [SEP] included
        attention  sum_i alpha_i h_i, alpha = softmax_i(v . tanh(W h_i + b))
                   (Yang et al. 2016, eq. 5 to 7)

    Attributes:
      kind: "cls", "mean", "max" or "attention".
      width: width of the hidden states (D), and of the layers W.
    """

    kind: str
    width: int

    def setup(self):
        if self.kind in ("cls", "attention"):
            self.dense = Dense((self.width,), ("embed", "mlp"))
        if self.kind == "attention":
            self.score = Dense((1,), ("mlp", None), use_bias=False)

    def __call__(
        self, hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B D"]:
        """Returns a vector for each text; for "attention" it sows the weights."""
        if self.kind == "cls":
            return jnp.tanh(self.dense(hidden[:, 0]))
        if self.kind == "attention":
            scores = self.score(jnp.tanh(self.dense(hidden)))[..., 0]
            weights = masked_softmax(scores, mask)
            # Of the texts of a pair, each pooled by a call, the sum.
            self.sow("intermediates", "attention", weights, operator.add, lambda: 0.0)
            return jnp.einsum("BT,BTD->BD", weights, hidden)
        if self.kind == "max":
            lowest = jnp.finfo(hidden.dtype).min
            pooled = jnp.where(mask[..., None], hidden, lowest).max(axis=1)
            return jnp.where(mask.any(axis=1)[:, None], pooled, 0)  # a row of padding
        total = jnp.where(mask[..., None], hidden, 0).sum(axis=1)
        return total / jnp.maximum(mask.sum(axis=1), 1)[:, None].astype(hidden.dtype)
