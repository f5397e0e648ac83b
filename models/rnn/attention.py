"""Single-head attention and its scores.

A score projects the keys once per sentence (`project_keys`) and compares queries
with the projected keys at every step (`__call__`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.common.layers import Dense, Initializer
from models.common.masks import masked_softmax

SCORES = ("additive", "dot", "scaled_dot", "bilinear")


class AdditiveScore(nn.Module):
    """Additive score (Bahdanau et al. 2015, appendix A.1.2).

        e_ij = v . tanh(W q_i + U k_j)

    Attributes:
      width: size of the hidden layer (A).
      kernel_init: initializer of W and U; None: Glorot uniform.
      score_init: initializer of v; None: Glorot uniform.
    """

    width: int
    kernel_init: Initializer | None = None
    score_init: Initializer | None = None

    def setup(self):
        axes = ("embed", "gates")
        options = {"use_bias": False, "kernel_init": self.kernel_init}
        self.query = Dense((self.width,), axes, **options)
        self.key = Dense((self.width,), axes, **options)
        self.score = Dense(
            (1,), ("gates", None), use_bias=False, kernel_init=self.score_init
        )

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S A"]:
        """Computes U k for all keys."""
        return self.key(states)

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S A"]
    ) -> Float[Array, "B T S"]:
        hidden = jnp.tanh(self.query(query)[:, :, None] + keys[:, None])
        return self.score(hidden)[..., 0]


class DotScore(nn.Module):
    """Dot product (Luong et al. 2015, section 3.1): e_ij = q_i . k_j."""

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S E"]:
        """Returns the states, which are the keys."""
        return states

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S K"]
    ) -> Float[Array, "B T S"]:
        """Raises ValueError if queries and keys differ in width."""
        if query.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"model.score: a dot product of queries of width {query.shape[-1]} and "
                f"keys of width {keys.shape[-1]} is undefined; make the widths equal, "
                "or choose 'additive' or 'bilinear'"
            )
        return jnp.einsum("BTD,BSD->BTS", query, keys)


class ScaledDotScore(DotScore):
    """Scaled dot product (Vaswani et al. 2017, eq. 1): e_ij = q_i . k_j / sqrt(K)."""

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S K"]
    ) -> Float[Array, "B T S"]:
        return super().__call__(query, keys) * keys.shape[-1] ** -0.5


class BilinearScore(DotScore):
    """Bilinear score (Luong et al. 2015, "general"): e_ij = q_i . W k_j.

    Attributes:
      width: width of a query; keys may have another.
      kernel_init: initializer of W; None: Glorot uniform.
    """

    width: int
    kernel_init: Initializer | None = None

    def setup(self):
        self.key = Dense(
            (self.width,),
            ("embed", "gates"),
            use_bias=False,
            kernel_init=self.kernel_init,
        )

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S D"]:
        """Computes W k for all keys."""
        return self.key(states)


def make_score(
    name: str,
    *,
    width: int,
    query_width: int,
    kernel_init: Initializer | None = None,
    score_init: Initializer | None = None,
) -> nn.Module:
    """Returns the score of a name in SCORES.

    Args:
      width: size of the additive score's hidden layer.
      query_width: width of a query, for the bilinear score.
    """
    scores = {
        "additive": lambda: AdditiveScore(width, kernel_init, score_init),
        "dot": DotScore,
        "scaled_dot": ScaledDotScore,
        "bilinear": lambda: BilinearScore(query_width, kernel_init),
    }
    return scores[name]()


class SingleHeadAttention(nn.Module):
    """Attention with one head (Bahdanau et al. 2015, eq. 5 and 6).

        alpha_i = softmax_j(score(q_i, k_j)),   c_i = sum_j alpha_ij v_j

    Attributes:
      scorer: the score; its parameters are in this module's scope.
      remat: whether the backward pass recomputes the score, so that the additive
        score's hidden layer [B, T, S, A] is not stored.
    """

    scorer: nn.Module
    remat: bool = False

    def setup(self):
        nn.share_scope(self, self.scorer)

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S A"]:
        """Projects the keys for all queries."""
        return self.scorer.project_keys(states)

    def __call__(
        self,
        query: Float[Array, "B T D"],
        keys: Float[Array, "B S A"],
        values: Float[Array, "B S E"],
        mask: Bool[Array, "B #T S"],
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B T S"]]:
        """Returns context vectors and attention weights, for projected keys."""
        score = SingleHeadAttention._score
        if self.remat:
            score = nn.remat(score, prevent_cse=False)  # called inside a scan
        weights = masked_softmax(score(self, query, keys), mask)
        return jnp.einsum("BTS,BSE->BTE", weights, values), weights

    def _score(self, query, keys):
        return self.scorer(query, keys)
