"""Config keys that Transformer and Transformer-XL share."""

import dataclasses
import pkgutil
from typing import ClassVar

from models.api import ModelConfig
from models.attention.dispatch import IMPLEMENTATIONS
from models.attention.positions import RELATIVE_SCHEMES, SCHEMES
from models.common.dropout import is_zero_rate, rate_if_enabled
from models.common.dtypes import Scalar
from models.common.layers import ACTIVATIONS, Initializer, normal

# Imported for `cutoffs`, or an `embedding_width` other than `width`.
CHECK_CLUSTERS = "models.common.adaptive_softmax:check_clusters"


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """Keys of `cfg.model` of both architectures."""

    heads: int
    head_dim: int
    feed_forward: int
    activation: str
    norm: str
    final_norm: bool
    norm_epsilon: float
    position_encoding: str
    max_positions: int
    max_distance: int
    clamp_length: int
    untie_biases: bool
    share_qkv: bool
    scale_embeddings: bool
    cutoffs: tuple
    div_val: int
    tie_projections: bool
    attention_dropout: float
    feed_forward_dropout: float | None
    attention_impl: str
    scan_layers: bool

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "norm": ("pre", "post"),
        "position_encoding": SCHEMES,
        "activation": tuple(ACTIVATIONS),
        "attention_impl": tuple(IMPLEMENTATIONS),
    }
    attention_bias: ClassVar[bool] = True
    output_dropout: ClassVar[bool] = False  # dropout after the last layer

    def __post_init__(self):
        super().__post_init__()
        if not self.head_dim and self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} must be a multiple of "
                f"model.heads={self.heads}, unless model.head_dim is set"
            )
        if self.is_adaptive:
            check_clusters = pkgutil.resolve_name(CHECK_CLUSTERS)
            width = self.embedding_width or self.width
            check_clusters(self.cutoffs, width, self.div_val)
        if self.position_encoding == "rotary" and self.resolved_head_dim % 2:
            raise ValueError(
                f"model.head_dim={self.resolved_head_dim} must be even for "
                "model.position_encoding='rotary', which rotates pairs"
            )
        if self.attention_impl == "cudnn":
            self._check_cudnn()
        if (self.attention_impl, self.dtype) == ("pallas", "float64"):
            raise ValueError(
                "model.dtype='float64': model.attention_impl='pallas' accumulates in "
                "float32; use 'xla' or 'blockwise'"
            )

    def _check_cudnn(self) -> None:
        """Raises ValueError for options that cuDNN's attention does not support."""
        size, encoding = self.resolved_head_dim, self.position_encoding
        unsupported = {
            f"model.position_encoding={encoding!r}": encoding in RELATIVE_SCHEMES,
            f"model.attention_dropout={self.attention_dropout}": not is_zero_rate(
                self.attention_dropout_rate
            ),
            f"model.dtype={self.dtype!r}": self.dtype != "bfloat16",
            f"model.head_dim={size}": size % 8 or size > 128,
        }
        for option, is_unsupported in unsupported.items():
            if is_unsupported:
                raise ValueError(
                    f"{option}: model.attention_impl='cudnn' supports neither relative "
                    "positions nor attention_dropout, and needs dtype 'bfloat16' and a "
                    "head_dim that is a multiple of 8 up to 128; use 'xla' or "
                    "'blockwise'"
                )

    @property
    def is_adaptive(self) -> bool:
        """Whether the token embedding is more than one table [V, D]."""
        return bool(self.cutoffs) or self.embedding_width not in (0, self.width)

    @property
    def resolved_head_dim(self) -> int:
        """Width of a head (K): model.head_dim or, if 0, width / heads."""
        return self.head_dim or self.width // self.heads

    @property
    def kernel_init(self) -> Initializer | None:
        """Initializer of linear maps; None: Glorot uniform."""
        return None

    @property
    def embedding_init(self) -> Initializer:
        """Initializer of token embeddings; GPT-2's if they are not scaled."""
        return normal(self.width**-0.5 if self.scale_embeddings else 0.02)

    @property
    def embedding_scale(self) -> float:
        """Factor of token embeddings: sqrt(D) (Vaswani et al. 2017, 3.4), or 1."""
        return self.width**0.5 if self.scale_embeddings else 1.0

    @property
    def attention_dropout_rate(self) -> Scalar:
        """Dropout rate of attention weights; 0 if model.dropout is 0."""
        return rate_if_enabled(self.dropout, self.attention_dropout)

    @property
    def ffn_dropout_rate(self) -> Scalar:
        """Dropout rate inside the feed-forward layer; 0 if model.dropout is 0."""
        if self.feed_forward_dropout is None:
            return self.dropout
        return rate_if_enabled(self.dropout, self.feed_forward_dropout)
