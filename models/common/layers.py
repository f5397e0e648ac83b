"""The parts every architecture is made of: linear maps, embeddings, residuals.

Kernels name their logical axes (embed, mlp, heads, kv, vocab), which is all a
model knows about how its parameters are spread over devices.
"""

import dataclasses
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


MAY_BE_ZERO = (
    *("attention_window", "memory_length", "clamp_length"),
    *("head_dim", "embedding_width"),
)


def check_field_ranges(config) -> None:
    """Raises ValueError for a number that no architecture can have.

    Sizes are 1 or more, those that MAY_BE_ZERO 0 or more, rates in 0 to 1, or None
    where that stands for another rate.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in MAY_BE_ZERO else 1
        if field.type is int and value < least:
            raise ValueError(f"model.{field.name}={value}: it must be {least} or more")
        is_rate = field.type in (float, float | None) and value is not None
        if is_rate and not 0 <= value < 1:
            raise ValueError(f"model.{field.name}={value}: it must be in 0 to 1")


def glorot_uniform(num_inputs: int, num_axes: int) -> Initializer:
    """Glorot and Bengio (2010) for a kernel whose first axes are the inputs."""
    return nn.initializers.variance_scaling(
        1.0,
        "fan_avg",
        "uniform",
        in_axis=tuple(range(num_inputs)),
        out_axis=tuple(range(num_inputs, num_axes)),
    )


class Dense(nn.Module):
    """A linear map of the last `num_inputs` axes onto `features`.

    Attributes:
      features: the sizes of the axes that come out.
      axes: logical names of the kernel's axes, inputs first.
      num_inputs: how many of the last axes go in.
      kernel_init: Glorot uniform where None.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    num_inputs: int = 1
    use_bias: bool = True
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        shape = x.shape[-self.num_inputs :] + self.features
        init = self.kernel_init or glorot_uniform(self.num_inputs, len(shape))
        kernel = self.param(
            "kernel", nn.with_logical_partitioning(init, self.axes), shape
        )
        y = dense(x, jnp.asarray(kernel, x.dtype), self.num_inputs)
        if not self.use_bias:
            return y
        bias_init = nn.with_logical_partitioning(zeros, self.axes[self.num_inputs :])
        return y + self.param("bias", bias_init, self.features).astype(y.dtype)


class Embedding(nn.Module):
    """A table of V vectors, also the weights of a tied output layer."""

    vocab_size: int
    width: int
    init: Initializer
    axes: tuple[str | None, str | None] = ("vocab", "embed")

    def setup(self):
        self.table = self.param(
            "table",
            nn.with_logical_partitioning(self.init, self.axes),
            (self.vocab_size, self.width),
        )

    def __call__(
        self, tokens: Int[Array, "..."], dtype: DType = jnp.float32
    ) -> Float[Array, "... D"]:
        return jnp.take(self.table, tokens, axis=0).astype(dtype)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) over the last axis, with gain and bias.

    Statistics are of float32; what comes out has the type of what goes in.
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
    """The bridge over a sublayer f, in two halves around it.

        post (Vaswani et al. 2017):  LayerNorm(x + Dropout(f(x)))
        pre  (Xiong et al. 2020):    x + Dropout(f(LayerNorm(x)))

    Attributes:
      norm: "pre" or "post".
    """

    norm: str
    dropout: Scalar

    def setup(self):
        self.layer_norm = LayerNorm()
        self.drop = Dropout(self.dropout)

    def preprocess(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """What the sublayer sees."""
        return self.layer_norm(x) if self.norm == "pre" else x

    def postprocess(
        self, x: Float[Array, "... D"], y: Float[Array, "... D"], *, train: bool
    ) -> Float[Array, "... D"]:
        """Joins the sublayer's result y to the x that came in."""
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

    Deviations: dropout after the inner layer, as in the authors' code
    (`feed_forward_dropout=0`: without, as in the paper); Shazeer's gated layers have
    no biases.

    Attributes:
      activation: one of ACTIVATIONS.
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
