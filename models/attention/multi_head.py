"""Attention: a distribution over keys, and the average of the values it weighs.

Masks are True where a query may look; a query that may look nowhere gets zeros.
Keys and values stand as [B, H, S, Dh], the order in which a product reads them,
so that a memory is never rearranged. Where a token at a time meets them keys stand
turned, [B, H, Dh, S]: XLA for CPUs multiplies these with several queries in half of
the time, and with one in the same.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.decode_attention import Tokens, View, attended_by_tokens
from models.attention.dispatch import kernel_of
from models.attention.dot_product import Meeting, scores_of
from models.attention.kv_blocks import Turned, Written
from models.attention.positions import rotate
from models.common.dropout import Dropout, is_off
from models.common.dtypes import DType, Number
from models.common.layers import Dense, Embedding, Initializer, normal
from models.common.masks import masked_softmax

Projected = tuple[Float[Array, "B H S Dh"], Float[Array, "B H S Dh"]]
ProjectedSource = tuple[Float[Array, "B H E Dh"], Float[Array, "B H E Dh"]]
Biases = tuple[Float[Array, "H Dh"], Float[Array, "H Dh"]]


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

        softmax(Q K^T / sqrt(d_k)) V a head, then W^O over all heads

    Keys and values come in projected (`project`), so that a decoder projects
    each position once.

    Attributes:
      heads: H.
      width: D, of what comes out.
      head_dim: Dh of a query, a key and a value.
      shared: one matrix makes queries, keys and values.
      kernel: one of `models.attention.dispatch.KERNELS`.
    """

    heads: int
    width: int
    head_dim: int
    dropout: Number
    use_bias: bool = True
    shared: bool = False
    kernel: str = "xla"
    kernel_init: Initializer | None = None

    def setup(self):
        split = (self.heads, self.head_dim)
        options = {"use_bias": self.use_bias, "kernel_init": self.kernel_init}
        axes = ("embed", "heads", "kv")
        self.query = Dense(split, axes, **options)
        if not self.shared:
            self.key = Dense(split, axes, **options)
            self.value = Dense(split, axes, **options)
        self.output = Dense(
            (self.width,), ("heads", "kv", "embed"), num_inputs=2, **options
        )
        self.drop = Dropout(self.dropout)

    def ask(self, x: Float[Array, "B T D"]) -> Float[Array, "B H T Dh"]:
        """The queries of a content."""
        return jnp.swapaxes(self.query(x), 1, 2)

    def project(self, content: Float[Array, "B S D"]) -> Projected:
        """The keys and values of a content."""
        if self.shared:
            return self.ask(content), self.ask(content)
        keys, values = self.key(content), self.value(content)
        return jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)

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
        return self.attend(Meeting(self.ask(x), keys), values, mask, train=train)

    def ask_turned(
        self, x: Float[Array, "B N D"], turned: Turned, mask: Bool[Array, "#B #N S"]
    ) -> Float[Array, "B N D"]:
        """What a token of each of N hypotheses finds among keys that all share."""
        keys, values = turned
        scores = jnp.einsum("BHNK,BHKS->BHNS", self.ask(x), keys)
        weights = self.weigh(scores, mask, train=False)
        return self.collect(jnp.einsum("BHNS,BHSK->BHNK", weights, values))

    def attend(
        self,
        meeting: Meeting,
        values: Float[Array, "B H S Dh"],
        mask: Bool[Array, "#B #T S"],
        *,
        oldest: Int[Array, ""] | None = None,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What all heads find, through W^O; weights are made if they are asked for.

        Args:
          mask: of keys in order.
          oldest: slot of the oldest key, where slots are a ring; else the first.
        """
        if oldest is not None:
            mask = jnp.roll(mask, oldest, axis=-1)
        if oldest is not None or self.is_mutable_collection("intermediates"):
            scores = scores_of(meeting, oldest)
            weights = self.weigh(scores, mask, train=train)
            return self.collect(jnp.einsum("BHTS,BHSK->BHTK", weights, values))
        keys = self.drop.keys() if train and not is_off(self.dropout) else None
        attended = kernel_of(self.kernel)
        return self.collect(
            attended(meeting, values, mask[:, None], keys, self.dropout)
        )

    def weigh(
        self,
        scores: Float[Array, "B H T S"],
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B H T S"]:
        """From raw scores to weights: scale, softmax, dropout."""
        weights = masked_softmax(scores * self.head_dim**-0.5, mask[:, None])
        self.sow("intermediates", "attention", weights)
        return self.drop(weights, deterministic=not train)

    def collect(self, found: Float[Array, "B H T Dh"]) -> Float[Array, "B T D"]:
        """W^O over what all heads found."""
        return self.output(jnp.swapaxes(found, 1, 2))


class SelfAttention(MultiHeadAttention):
    """Multi-head attention within a text, which may know how far tokens are apart.

        relative (Dai et al. 2019, section 3.3):
            A_ij = (W_q x_i + u) . W_kE x_j  +  (W_q x_i + v) . W_kR R_(i-j)
        shaw (Shaw et al. 2018, eq. 4, w^K clipped at a distance):
            A_ij = W_q x_i . (W_k x_j + w_(j-i))
        rotary (Su et al. 2021): queries and keys turned by their places

    Deviation from Shaw et al.: no such vectors on the side of the values, which
    the paper's table 3 finds to be worth nothing once the keys have them.

    Attributes:
      scheme: one of `positions.SCHEMES`; the absolute ones change nothing
        here.
      max_distance: k at which shaw clips.
      own_biases: whether u and v are this layer's; else they are handed in.
      dtype: of projected distances; that of the queries that they meet.
    """

    scheme: str = "none"
    max_distance: int = 1
    own_biases: bool = False
    dtype: DType = jnp.float32

    def setup(self):
        super().setup()
        shape = (self.heads, self.head_dim)
        init = self.kernel_init or normal(0.02)
        if self.scheme == "relative":
            self.position = Dense(
                shape, ("embed", "heads", "kv"), use_bias=False, kernel_init=init
            )
        if self.scheme == "shaw":
            rows = 2 * self.max_distance + 1
            self.distance = Embedding(rows, self.head_dim, init, (None, "kv"))
        if self.own_biases:
            self.biases = make_biases(self, init, shape)

    def project_distances(
        self, distances: Int[Array, "C"], encodings: Float[Array, "C D"] | None
    ) -> Float[Array, "C H Dh"] | None:
        """W_kR R or w for a row of distances i - j; None if they do not matter."""
        if self.scheme == "relative":
            return self.position(encodings.astype(self.dtype))
        if self.scheme == "shaw":
            last = self.max_distance
            one = self.distance(jnp.clip(-distances, -last, last) + last, self.dtype)
            return jnp.repeat(one[:, None], self.heads, axis=1)
        return None

    def place(
        self, x: Float[Array, "B H S Dh"], places: Int[Array, "#B #S"]
    ) -> Float[Array, "B H S Dh"]:
        """Queries or keys as they are compared."""
        return rotate(x, places) if self.scheme == "rotary" else x

    def keep(
        self, content: Float[Array, "B S D"], places: Int[Array, "#B #S"]
    ) -> Projected:
        """Keys, at their places, and values."""
        keys, values = self.project(content)
        return self.place(keys, places), values

    def _ask_twice(self, x, places, biases):
        """Queries for contents and for distances."""
        query = self.place(self.ask(x), places)
        if self.scheme != "relative":
            return query, query
        u, v = self.biases if self.own_biases else biases
        u, v = u.astype(query.dtype), v.astype(query.dtype)
        return query + u[:, None], query + v[:, None]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        kept: Projected,
        mask: Bool[Array, "#B #T S"],
        places: Int[Array, "#B #T"],
        distances: Float[Array, "C H Dh"] | None = None,
        biases: Biases | None = None,
        *,
        oldest: Int[Array, ""] | None = None,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What each token finds.

        Args:
          distances: in the order `relative_shift` describes.
          oldest: slot of the oldest key, where slots are a ring; else the first.
        """
        if oldest is not None and x.shape[1] > 2 * self.head_dim:
            # What is smaller turns: keys and values, or the scores of all queries.
            kept = tuple(jnp.roll(slots, -oldest, axis=2) for slots in kept)
            oldest = None
        keys, values = kept
        content, position = self._ask_twice(x, places, biases)
        if distances is None:
            position = None
        meeting = Meeting(content, keys, position, distances)
        return self.attend(meeting, values, mask, oldest=oldest, train=train)

    def step(
        self,
        x: Float[Array, "B N D"],
        past: Turned,
        written: Written,
        view: View,
        biases: Biases | None = None,
    ) -> Float[Array, "B N D"]:
        """What one token of each of N hypotheses finds."""
        tokens = Tokens(*self._ask_twice(x, view.places, biases))
        return self.collect(attended_by_tokens(tokens, past, written, view))


def make_biases(module: nn.Module, init: Initializer, shape: tuple[int, int]) -> Biases:
    """Parameters u (content) and v (position) of a module."""
    init = nn.with_logical_partitioning(init, ("heads", "kv"))
    return (
        module.param("content_bias", init, shape),
        module.param("position_bias", init, shape),
    )
