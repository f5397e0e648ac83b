"""Position encodings of a Transformer, by `cfg.model.position_encoding`.

Absolute schemes add a vector to the input of a layer:

    sinusoidal         fixed sinusoids, before the first layer (Vaswani et al. 2017)
    learned            embeddings, before the first layer (Gehring et al. 2017)
    learned_per_layer  embeddings of each layer, before it (Al-Rfou et al. 2018)

Relative schemes add a term to the attention logits, by the relative position:

    relative           Transformer-XL: sinusoids and two biases (Dai et al. 2019)
    shaw               embeddings of clipped relative positions (Shaw et al. 2018)

`rotary` rotates queries and keys by their positions (Su et al. 2021), and `none`
encodes no positions.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from models.common.dtypes import upcast_to_f32
from models.common.layers import Embedding, normal

ABSOLUTE_SCHEMES = ("sinusoidal", "learned", "learned_per_layer")
RELATIVE_SCHEMES = ("relative", "shaw")
SCHEMES = (*ABSOLUTE_SCHEMES, *RELATIVE_SCHEMES, "rotary", "none")


def sinusoidal_encoding(
    positions: Int[Array, "..."], width: int, *, interleaved: bool
) -> Float[Array, "... D"]:
    """Computes sinusoidal position encodings (Vaswani et al. 2017, section 3.5).

        PE(pos, 2i) = sin(pos / 10000^(2i/D)),   PE(pos, 2i+1) = cos(the same)

    Transformer-XL's code puts all sines before all cosines instead
    (`interleaved=False`), which permutes the axis D. An odd width drops the
    last cosine.
    """
    rates = 10000.0 ** (-jnp.arange(0, width, 2) / width)
    angles = positions[..., None].astype(jnp.float32) * rates
    waves = jnp.stack(
        (jnp.sin(angles), jnp.cos(angles)), axis=-1 if interleaved else -2
    )
    return waves.reshape(*positions.shape, -1)[..., :width]


def apply_rope(
    x: Float[Array, "B H T K"], positions: Int[Array, "#B #T"]
) -> Float[Array, "B H T K"]:
    """Applies rotary position embedding (Su et al. 2021, eq. 34), in halves.

    The pair (x_i, x_{i + K/2}) is rotated by position * 10000^(-2i/K), so that the dot
    product of a query and a key depends on their relative position only. The paper
    pairs neighbours, which permutes the axis.

    Angles are integers, in units of 2^-32 of a turn, so that whole turns overflow: the
    same relative position is the same angle at any position in a text.
    """
    width = x.shape[-1]
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    units = np.round(rates / (2 * np.pi) * 2**32).astype(np.uint32)
    turns = (positions[..., None].astype(jnp.uint32) * units).astype(jnp.int32)
    angles = turns[:, None].astype(upcast_to_f32(x).dtype) * (np.pi / 2**31)
    sines, cosines = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x, 2, axis=-1)
    rotated = (left * cosines - right * sines, right * cosines + left * sines)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class AbsolutePositionEmbedding(nn.Module):
    """Adds absolute position encodings before the first layer, if the scheme has any.

    Attributes:
      max_positions: rows of a learned table; later positions share the last one.
    """

    scheme: str
    width: int
    max_positions: int

    def setup(self):
        if self.scheme == "learned":
            self.table = Embedding(self.max_positions, self.width, normal(0.02))

    def __call__(
        self, x: Float[Array, "B T D"], positions: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        if self.scheme == "sinusoidal":
            encoding = sinusoidal_encoding(positions, self.width, interleaved=True)
            return x + encoding.astype(x.dtype)
        if self.scheme == "learned":
            positions = jnp.minimum(positions, self.max_positions - 1)
            return x + self.table(positions, x.dtype)
        return x
