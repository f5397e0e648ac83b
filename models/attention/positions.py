"""Where a token stands: the schemes a Transformer can be told it by.

Absolute schemes add a vector to what a layer reads:

    sinusoidal         fixed waves, once (Vaswani et al. 2017)
    learned            a table of places, once (Gehring et al. 2017)
    learned_per_layer  a table a layer, before each (Al-Rfou et al. 2018)

Relative ones change the score of a query and a key by their distance:

    relative           Transformer-XL's, sinusoidal with two biases (Dai et al. 2019)
    shaw               a table of distances, clipped (Shaw et al. 2018)
    rotary             queries and keys turned by their places (Su et al. 2021)

and `none` tells nothing.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from models.common.dtypes import upcast_to_f32
from models.common.layers import Embedding, normal

ABSOLUTE_SCHEMES = ("sinusoidal", "learned", "learned_per_layer")
SCHEMES = (*ABSOLUTE_SCHEMES, "relative", "shaw", "rotary", "none")
RELATIVE_SCHEMES = ("relative", "shaw")


def sinusoidal_encoding(
    positions: Int[Array, "..."], width: int, *, interleaved: bool
) -> Float[Array, "... D"]:
    """Sinusoidal position encoding (Vaswani et al. 2017, section 3.5).

        PE(pos, 2i) = sin(pos / 10000^(2i/D)),   PE(pos, 2i+1) = cos(the same)

    Transformer-XL's code has all sines before all cosines instead
    (`interleaved=False`), which permutes the axis D. An odd width drops the
    last cosine.
    """
    rates = 10000.0 ** (-jnp.arange(0, width, 2) / width)
    angles = positions[..., None].astype(jnp.float32) * rates
    both = (jnp.sin(angles), jnp.cos(angles))
    if interleaved:
        waves = jnp.stack(both, axis=-1).reshape(*positions.shape, -1)
    else:
        waves = jnp.concatenate(both, axis=-1)
    return waves[..., :width]


def apply_rope(
    x: Float[Array, "B H T Dh"], places: Int[Array, "#B #T"]
) -> Float[Array, "B H T Dh"]:
    """Rotary position embedding (Su et al. 2021, eq. 34), in halves.

    The pair (x_i, x_{i + Dh/2}) turns by place * 10000^(-2i/Dh), so that the dot
    product of a query and a key depends on the difference of their places only.
    The paper pairs neighbours, which permutes the axis.

    Angles are counted in 2^-32 of a turn, and whole turns fall out of 32 bits: however
    far into a text, a difference of places is the same difference of angles.
    """
    width = x.shape[-1]
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    steps = np.round(rates / (2 * np.pi) * 2**32).astype(np.uint32)
    turns = (places[..., None].astype(jnp.uint32) * steps).astype(jnp.int32)
    angles = turns[:, None].astype(upcast_to_f32(x).dtype) * (np.pi / 2**31)
    sines, cosines = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x, 2, axis=-1)
    turned = (left * cosines - right * sines, right * cosines + left * sines)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class AbsolutePositionEmbedding(nn.Module):
    """Adds to each token what an absolute scheme says of its place.

    Attributes:
      max_positions: places a learned table has; those beyond share the last.
    """

    scheme: str
    width: int
    max_positions: int

    def setup(self):
        if self.scheme == "learned":
            self.table = Embedding(self.max_positions, self.width, normal(0.02))

    def __call__(
        self, x: Float[Array, "B T D"], places: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """x, and PE of its places."""
        if self.scheme == "sinusoidal":
            waves = sinusoidal_encoding(places, self.width, interleaved=True)
            return x + waves.astype(x.dtype)
        if self.scheme == "learned":
            places = jnp.minimum(places, self.max_positions - 1)
            return x + self.table(places, x.dtype)
        return x
