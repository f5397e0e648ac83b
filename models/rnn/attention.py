"""Scores of a query against keys, and the attention of one head over them.

A score has two parts, since a key meets many queries: `project_keys`, once for
the states that are to be found, and the call itself, once a query.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.common.layers import Dense, Initializer
from models.common.masks import masked_softmax

SCORES = ("additive", "dot", "scaled_dot", "bilinear")


class Additive(nn.Module):
    """Additive score (Bahdanau et al. 2015, appendix A.1.2).

        e_ij = v . tanh(W q_i + U k_j)

    Attributes:
      width: A, the size of the layer under the tanh.
      kernel_init: of W and U; Glorot uniform where None.
      score_init: of v; Glorot uniform where None.
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
        """U k."""
        return self.key(states)

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S A"]
    ) -> Float[Array, "B T S"]:
        """Scores of every query with every key."""
        meeting = jnp.tanh(self.query(query)[:, :, None] + keys[:, None])
        return self.score(meeting)[..., 0]


class Dot(nn.Module):
    """Dot product (Luong et al. 2015, section 3.1): e_ij = q_i . k_j."""

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S E"]:
        """The states themselves."""
        return states

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S K"]
    ) -> Float[Array, "B T S"]:
        """Scores of every query with every key.

        Raises ValueError where their sizes differ.
        """
        if query.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"a query of size {query.shape[-1]} has no dot product with keys of "
                f"size {keys.shape[-1]}: make them equal, or take the additive score "
                "or a bilinear one as wide as the query"
            )
        return jnp.einsum("BTD,BSD->BTS", query, keys)


class ScaledDot(Dot):
    """Scaled dot product (Vaswani et al. 2017, eq. 1): e_ij = q_i . k_j / sqrt(D)."""

    def __call__(
        self, query: Float[Array, "B T D"], keys: Float[Array, "B S K"]
    ) -> Float[Array, "B T S"]:
        """As above; D is the size of a key."""
        return super().__call__(query, keys) * keys.shape[-1] ** -0.5


class Bilinear(Dot):
    """Bilinear score (Luong et al. 2015, "general"): e_ij = q_i . W k_j.

    Attributes:
      width: of a query, which need not be a key's.
      kernel_init: of W; Glorot uniform where None.
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
        """W k."""
        return self.key(states)


def make_score(
    name: str,
    *,
    width: int,
    query_width: int,
    kernel_init: Initializer | None = None,
    score_init: Initializer | None = None,
) -> nn.Module:
    """One of SCORES.

    Args:
      width: of the additive score's layer.
      query_width: of a query, for the bilinear score.
    """
    known = {
        "additive": lambda: Additive(width, kernel_init, score_init),
        "dot": Dot,
        "scaled_dot": ScaledDot,
        "bilinear": lambda: Bilinear(query_width, kernel_init),
    }
    return known[name]()


class SingleHeadAttention(nn.Module):
    """One distribution over keys, and the average of the values it weighs.

        alpha_i = softmax_j(score(q_i, k_j)),   c_i = sum_j alpha_ij v_j

    Attributes:
      scorer: a score; its parameters stand under this module's name.
      remat: whether the backward pass makes the score again, and with it the
        layer [B, T, S, A] in which queries meet keys, so that none is stored.
    """

    scorer: nn.Module
    remat: bool = False

    def setup(self):
        nn.share_scope(self, self.scorer)

    def project_keys(self, states: Float[Array, "B S E"]) -> Float[Array, "B S A"]:
        """What a score meets of the states, once for all queries."""
        return self.scorer.project_keys(states)

    def __call__(
        self,
        query: Float[Array, "B T D"],
        keys: Float[Array, "B S A"],
        values: Float[Array, "B S E"],
        mask: Bool[Array, "B #T S"],
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B T S"]]:
        """The contexts and the weights behind them, of keys already projected."""
        score = SingleHeadAttention._score
        if self.remat:
            score = nn.remat(score, prevent_cse=False)  # it stands in a scan
        weights = masked_softmax(score(self, query, keys), mask)
        return jnp.einsum("BTS,BSE->BTE", weights, values), weights

    def _score(self, query, keys):
        return self.scorer(query, keys)
