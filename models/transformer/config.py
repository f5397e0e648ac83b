"""The keys that Transformer and Transformer-XL share."""

import dataclasses
from typing import ClassVar

from models.attention.dispatch import IMPLEMENTATIONS
from models.attention.positions import RELATIVE_SCHEMES, SCHEMES
from models.common.adaptive_softmax import cluster_bounds, cluster_widths
from models.common.dropout import is_zero_rate, rate_if_enabled
from models.common.dtypes import DTYPES, DType, Scalar
from models.common.layers import ACTIVATIONS, Initializer, check_field_ranges, normal


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """The keys of `cfg.model` that both have; configs/base.py says what each means."""

    name: str
    layers: int
    width: int
    heads: int
    head_dim: int
    feed_forward: int
    activation: str
    norm: str
    final_norm: bool
    position_encoding: str
    max_positions: int
    max_distance: int
    clamp_length: int
    untie_biases: bool
    share_qkv: bool
    tie_embeddings: bool
    embedding_width: int
    cutoffs: tuple
    div_val: int
    tie_projections: bool
    dropout: float
    attention_dropout: float
    feed_forward_dropout: float | None
    attention_impl: str
    dtype: str
    remat: bool
    scan_layers: bool

    attention_bias: ClassVar[bool] = True
    output_dropout: ClassVar[bool] = False  # of what comes out of the last layer

    def __post_init__(self):
        check_field_ranges(self)
        if not self.head_dim and self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} is not a multiple of "
                f"model.heads={self.heads}; or set model.head_dim"
            )
        choices = {
            "norm": ("pre", "post"),
            "position_encoding": SCHEMES,
            "activation": tuple(ACTIVATIONS),
            "attention_impl": tuple(IMPLEMENTATIONS),
            "dtype": tuple(DTYPES),
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise ValueError(
                    f"model.{key}={getattr(self, key)!r}: there are {', '.join(known)}"
                )
        self._check_tables()
        if self.position_encoding == "rotary" and self.resolved_head_dim % 2:
            raise ValueError(
                f"model.head_dim={self.resolved_head_dim}: rotary positions rotate "
                "pairs, so it must be even"
            )
        if self.attention_impl == "cudnn":
            self._check_cudnn()
        if (self.attention_impl, self.dtype) == ("pallas", "float64"):
            raise ValueError(
                "model.dtype='float64': model.attention_impl='pallas' adds up in "
                "float32; use 'xla' or 'blockwise'"
            )

    def _check_tables(self) -> None:
        """Raises ValueError for cut-offs that no vocabulary has."""
        if not all(isinstance(cut, int) for cut in self.cutoffs):
            raise ValueError(
                f"model.cutoffs={self.cutoffs}: they must be whole numbers"
            )
        cluster_bounds(max(self.cutoffs, default=0) + 1, self.cutoffs)
        width = self.embedding_width or self.width
        cluster_widths(width, self.div_val, len(self.cutoffs) + 1)

    def _check_cudnn(self) -> None:
        """Raises ValueError for what cuDNN's attention has not."""
        size, encoding = self.resolved_head_dim, self.position_encoding
        missing = {
            f"model.position_encoding={encoding!r}": encoding in RELATIVE_SCHEMES,
            f"model.attention_dropout={self.attention_dropout}": not is_zero_rate(
                self.attention_dropout_rate
            ),
            f"model.dtype={self.dtype!r}": self.dtype != "bfloat16",
            f"model.head_dim={size}": size % 8 or size > 128,
        }
        for what, is_missing in missing.items():
            if is_missing:
                raise ValueError(
                    f"{what}: model.attention_impl='cudnn' has neither distances "
                    "nor attention_dropout, computes in bfloat16, and takes heads of "
                    "multiples of 8 up to 128; use 'xla' or 'blockwise'"
                )

    @property
    def resolved_head_dim(self) -> int:
        """Dh."""
        return self.head_dim or self.width // self.heads

    @property
    def compute_dtype(self) -> DType:
        """Of activations and of what is remembered; parameters are float32."""
        return DTYPES[self.dtype]

    @property
    def kernel_init(self) -> Initializer | None:
        """Of linear maps; None: Glorot uniform."""
        return None

    @property
    def embedding_init(self) -> Initializer:
        """Of embeddings."""
        return normal(self.width**-0.5)

    @property
    def attention_dropout_rate(self) -> Scalar:
        """Dropout of attention weights; `dropout=0` switches it off too."""
        return rate_if_enabled(self.dropout, self.attention_dropout)

    @property
    def ffn_dropout_rate(self) -> Scalar:
        """Dropout after the inner feed-forward layer; `dropout=0` switches it off."""
        if self.feed_forward_dropout is None:
            return self.dropout
        return rate_if_enabled(self.dropout, self.feed_forward_dropout)
