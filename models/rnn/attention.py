"""Single-head attention with one of four scores."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.common.layers import Dense
from models.common.masks import masked_softmax
from models.rnn.config import Config


class SingleHeadAttention(nn.Module):
    """Attention with one head (Bahdanau et al. 2015, eq. 5 and 6).

        alpha_i = softmax_j(score(q_i, k_j)),   c_i = sum_j alpha_ij v_j

    The score, by `model.score`:

        additive    v . tanh(W q + U k)   (Bahdanau et al. 2015, appendix A.1.2)
        dot         q . k                 (Luong et al. 2015, section 3.1)
        scaled_dot  q . k / sqrt(K)       (Vaswani et al. 2017, eq. 1)
        bilinear    q . W k               (Luong et al. 2015, "general")

    Keys are projected once per sentence (`project_keys`), to U k or W k.

    Attributes:
      remat: whether the backward pass recomputes the score, so that the additive
        score's hidden layer [B, T, S, A] is not stored.
      query_width: width of queries, for the bilinear score; None: model.width.
    """

    config: Config
    remat: bool = False
    query_width: int | None = None

    def setup(self):
        config, axes = self.config, ("embed", "gates")
        options = {"use_bias": False, "kernel_init": config.init.attention}
        if config.score == "additive":
            self.query = Dense((config.attention_width,), axes, **options)
            self.key = Dense((config.attention_width,), axes, **options)
            options["kernel_init"] = config.init.score
            self.score = Dense((1,), ("gates", None), **options)
        elif config.score == "bilinear":
            self.key = Dense((self.query_width or config.width,), axes, **options)

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S A"]:
        """Projects the keys for all queries."""
        is_dot_product = self.config.score in ("dot", "scaled_dot")
        return states if is_dot_product else self.key(states)

    def compute_score(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S A"]
    ) -> Float[Array, "B T S"]:
        """Computes the score of projected keys.

        Raises ValueError for a dot product of unequal widths.
        """
        if self.config.score == "additive":
            hidden = jnp.tanh(self.query(query)[:, :, None] + keys[:, None])
            return self.score(hidden)[..., 0]
        if query.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"model.score: a dot product of queries of width {query.shape[-1]} and "
                f"keys of width {keys.shape[-1]} is undefined; make the widths equal, "
                "or choose 'additive' or 'bilinear'"
            )
        score = jnp.einsum("BTD,BSD->BTS", query, keys)
        if self.config.score == "scaled_dot":
            score *= keys.shape[-1] ** -0.5
        return score

    def __call__(
        self,
        query: Float[Array, "B T D"],
        keys: Float[Array, "B S A"],
        values: Float[Array, "B S E"],
        mask: Bool[Array, "B #T S"],
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B T S"]]:
        """Returns context vectors and attention weights, for projected keys."""
        compute_score = SingleHeadAttention.compute_score
        if self.remat:
            compute_score = nn.remat(compute_score, prevent_cse=False)  # in a scan
        weights = masked_softmax(compute_score(self, query, keys), mask)
        return jnp.einsum("BTS,BSE->BTE", weights, values), weights
