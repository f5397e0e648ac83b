"""Layers of every architecture: linear maps, embeddings, residual blocks, MLPs.

Kernels name their logical axes (embed, mlp, heads, kv, vocab); models know nothing else
about the sharding of their parameters.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.common.dropout import Dropout
from models.common.dtypes import DType, Scalar
from models.common.matmul import dense

Initializer = jax.nn.initializers.Initializer

zeros = nn.initializers.zeros
normal = nn.initializers.normal


class Dense(nn.Module):
    """Linear map of the last `num_inputs` axes of the input onto `features`.

    Attributes:
      features: sizes of the output axes.
      axes: logical names of the kernel's axes, inputs first.
      kernel_init: initializer; None: uniform (Glorot and Bengio 2010).
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    num_inputs: int = 1
    use_bias: bool = True
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        shape = x.shape[-self.num_inputs :] + self.features
        axes = tuple(range(len(shape)))
        inputs, outputs = axes[: self.num_inputs], axes[self.num_inputs :]
        init = self.kernel_init or nn.initializers.glorot_uniform(inputs, outputs)
        init = nn.with_logical_partitioning(init, self.axes)
        kernel = self.param("kernel", init, shape)
        y = dense(x, jnp.asarray(kernel, x.dtype), self.num_inputs)
        if not self.use_bias:
            return y
        bias_init = nn.with_logical_partitioning(zeros, self.axes[self.num_inputs :])
        return y + self.param("bias", bias_init, self.features).astype(y.dtype)


class Embedding(nn.Module):
    """Embedding table of V vectors, also the weights of a tied output head."""

    vocab_size: int
    width: int
    init: Initializer
    axes: tuple[str | None, str | None] = ("vocab", "embed")

    def setup(self):
        init = nn.with_logical_partitioning(self.init, self.axes)
        self.table = self.param("table", init, (self.vocab_size, self.width))

    def __call__(
        self, tokens: Int[Array, "..."], dtype: DType = jnp.float32
    ) -> Float[Array, "... D"]:
        return jnp.take(self.table, tokens, axis=0).astype(dtype)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) over the last axis, with gain and bias.

    Statistics are in float32; the output has the type of the input.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return nn.LayerNorm(
            self.epsilon,
            dtype=x.dtype,
            param_dtype=jnp.promote_types(x.dtype, jnp.float32),
            use_fast_variance=False,
            scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("norm",)),
            bias_init=nn.with_logical_partitioning(zeros, ("norm",)),
            name="norm",
        )(x)


class ResidualBlock(nn.Module):
    """Residual connection, normalisation and dropout around a sublayer f.

        post (Vaswani et al. 2017):  LayerNorm(x + Dropout(f(x)))
        pre  (Xiong et al. 2020):    x + Dropout(f(LayerNorm(x)))

    Call `preprocess` before the sublayer and `postprocess` after it.

    Attributes:
      norm: "pre" or "post".
      epsilon: that of the normalisation.
    """

    norm: str
    dropout: Scalar
    epsilon: float = 1e-5

    def setup(self):
        self.layer_norm = LayerNorm(self.epsilon)
        self.drop = Dropout(self.dropout)

    def preprocess(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return self.layer_norm(x) if self.norm == "pre" else x

    def postprocess(
        self, x: Float[Array, "... D"], y: Float[Array, "... D"], *, train: bool
    ) -> Float[Array, "... D"]:
        """Adds the sublayer's output y to its residual input x."""
        x = x + self.drop(y, deterministic=not train)
        return self.layer_norm(x) if self.norm == "post" else x


ACTIVATIONS = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "reglu": nn.relu,
    "geglu": functools.partial(nn.gelu, approximate=False),
    "swiglu": nn.silu,
}
GATED = ("reglu", "geglu", "swiglu")


class FeedForward(nn.Module):
    """Position-wise feed-forward layer (Vaswani et al. 2017, eq. 2).

        W_2 f(W_1 x + b_1) + b_2

    or, gated (Shazeer 2020, eq. 6), W_2 (f(W_1 x + b_1) * (V x + c)) + b_2.

    Deviations: dropout after the inner layer, as in the authors' code, unless
    `feed_forward_dropout=0`, as in the paper; Shazeer's gated layers have no biases.

    Attributes:
      inner_width: size of the inner layer (F).
      activation: a key of ACTIVATIONS.
    """

    width: int
    inner_width: int
    dropout: Scalar
    activation: str = "relu"
    kernel_init: Initializer | None = None

    def setup(self):
        options = {"kernel_init": self.kernel_init}
        self.up = Dense((self.inner_width,), ("embed", "mlp"), **options)
        if self.activation in GATED:
            self.gate = Dense((self.inner_width,), ("embed", "mlp"), **options)
        self.down = Dense((self.width,), ("mlp", "embed"), **options)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "... D"], *, train: bool
    ) -> Float[Array, "... D"]:
        y = ACTIVATIONS[self.activation](self.up(x))
        if self.activation in GATED:
            y = y * self.gate(x)
        return self.down(self.drop(y, deterministic=not train))
