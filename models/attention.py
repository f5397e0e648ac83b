"""Attention: a distribution over keys, and the average of the values it weighs.

Masks are True where a query may look; a query that may look nowhere gets zeros.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.layers import Dense, Initializer

Projected = tuple[Float[Array, "B S H Dh"], Float[Array, "B S H Dh"]]
ProjectedSource = tuple[Float[Array, "B E H Dh"], Float[Array, "B E H Dh"]]


def masked_softmax(
    scores: Float[Array, "... S"], mask: Bool[Array, "... #S"]
) -> Float[Array, "... S"]:
    """Softmax over the keys a mask leaves; zeros where it leaves none."""
    exact = jax.nn.softmax(scores.astype(jnp.float32), axis=-1, where=mask)
    return exact.astype(scores.dtype)


def relative_shift(
    scores: Float[Array, "... T C"], num_keys: int
) -> Float[Array, "... T S"]:
    """Turns columns of distances into columns of keys (Dai et al. 2019, appendix B).

    Column c of `scores` belongs to a distance that falls by one from column to
    column, such that the last query needs the columns from 0 on, the query
    before it those from 1 on:

        out[i, j] = scores[i, j + T - 1 - i]

    Entries beyond the last column (keys after a causal query) hold values of
    the next row; the causal mask removes them.
    """
    *rows, num_queries, columns = scores.shape
    padded = jnp.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(1, 0)])
    flat = padded.reshape(*rows, num_queries * (columns + 1))
    shifted = flat[..., num_queries:].reshape(*rows, num_queries, columns)
    return shifted[..., :num_keys]


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

        softmax(Q K^T / sqrt(d_k)) V a head, then W^O over all heads

    Keys and values come in projected (`project`), so that a decoder projects
    each position once.
    """

    heads: int
    width: int
    dropout: float
    use_bias: bool = True
    kernel_init: Initializer | None = None

    def setup(self):
        split = (self.heads, self.width // self.heads)
        options = {"use_bias": self.use_bias, "kernel_init": self.kernel_init}
        axes = ("embed", "heads", "kv")
        self.query = Dense(split, axes, **options)
        self.key = Dense(split, axes, **options)
        self.value = Dense(split, axes, **options)
        self.output = Dense(
            (self.width,), ("heads", "kv", "embed"), num_inputs=2, **options
        )
        self.drop = nn.Dropout(self.dropout)

    def project(self, content: Float[Array, "B S D"]) -> Projected:
        """The keys and values of a content."""
        return self.key(content), self.value(content)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        projected: Projected,
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What each position of x finds among the keys."""
        keys, values = projected
        scores = jnp.einsum("BTHK,BSHK->BHTS", self.query(x), keys)
        return self.mix(scores, values, mask, train=train)

    def mix(
        self,
        scores: Float[Array, "B H T S"],
        values: Float[Array, "B S H Dh"],
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """From raw scores to the output: scale, softmax, average, W^O."""
        scale = (self.width // self.heads) ** -0.5
        weights = masked_softmax(scores * scale, mask[:, None])
        self.sow("intermediates", "attention", weights)
        weights = self.drop(weights, deterministic=not train)
        return self.output(jnp.einsum("BHTS,BSHK->BTHK", weights, values))


class RelativeMultiHeadAttention(MultiHeadAttention):
    """Multi-head attention with relative positions (Dai et al. 2019, section 3.3).

        A_ij = (W_q x_i + u) . W_kE x_j  +  (W_q x_i + v) . W_kR R_(i-j)

    Biases u (content) and v (position) are handed in, since the reference
    shares them between layers.
    """

    use_bias: bool = False

    def setup(self):
        super().setup()
        self.position = Dense(
            (self.heads, self.width // self.heads),
            ("embed", "heads", "kv"),
            use_bias=False,
            kernel_init=self.kernel_init,
        )

    def project_positions(
        self, encodings: Float[Array, "C D"]
    ) -> Float[Array, "C H Dh"]:
        """W_kR R for a row of distances."""
        return self.position(encodings)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        projected: Projected,
        positions: Float[Array, "C H Dh"],
        biases: tuple[Float[Array, "H Dh"], Float[Array, "H Dh"]],
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """As above; `positions` in the order `relative_shift` describes."""
        keys, values = projected
        content_bias, position_bias = biases
        query = self.query(x)
        content = jnp.einsum("BTHK,BSHK->BHTS", query + content_bias, keys)
        distance = jnp.einsum("BTHK,CHK->BHTC", query + position_bias, positions)
        scores = content + relative_shift(distance, keys.shape[1])
        return self.mix(scores, values, mask, train=train)
