"""Scores of a query against keys, and the attention of one head over them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.attention import masked_softmax
from models.layers import Dense


class AdditiveAttention(nn.Module):
    """Additive attention (Bahdanau et al. 2015, appendix A.1.2).

        e_ij = v . tanh(W s_i + U h_j),   alpha_i = softmax_j(e_ij)

    A sentence's keys U h are the same at every step of a decoder, so they
    come in already projected (`project_keys`).

    Attributes:
      width: A, the size of the layer under the tanh.
    """

    width: int

    def setup(self):
        self.query = Dense((self.width,), ("embed", "mlp"), use_bias=False)
        self.key = Dense((self.width,), ("embed", "mlp"), use_bias=False)
        self.score = Dense((1,), ("mlp", None), use_bias=False)

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S A"]:
        """U h, once a sentence."""
        return self.key(states)

    def __call__(
        self,
        query: Float[Array, "B T D"],
        keys: Float[Array, "B S A"],
        values: Float[Array, "B S E"],
        mask: Bool[Array, "B #T S"],
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B T S"]]:
        """The contexts and the weights behind them."""
        meeting = jnp.tanh(self.query(query)[:, :, None] + keys[:, None])
        weights = masked_softmax(self.score(meeting)[..., 0], mask)
        return jnp.einsum("BTS,BSE->BTE", weights, values), weights
