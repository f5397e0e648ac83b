"""The two ends of a Transformer: from tokens to vectors, and back to tokens."""

import flax.linen as nn

from models.common.adaptive_softmax import AdaptiveEmbedding, AdaptiveHead
from models.common.layers import Embedding, normal
from models.common.output_head import OutputHead
from models.transformer.config import StackConfig


def make_embedding(config: StackConfig, vocab_size: int) -> nn.Module:
    """One table or, with cut-offs or a width of its own, adaptive embeddings."""
    if not is_adaptive(config):
        return Embedding(vocab_size, config.width, config.embedding_init)
    return AdaptiveEmbedding(
        vocab_size, config.width, **clustering(config), init=config.embedding_init
    )


def make_head(
    config: StackConfig, vocab_size: int, embedding: nn.Module | None
) -> nn.Module:
    """A softmax over all words, or an adaptive one; tied to an embedding or not."""
    if not is_adaptive(config):
        return OutputHead(vocab_size, config.width, config.embedding_init, embedding)
    return AdaptiveHead(
        vocab_size,
        config.width,
        **clustering(config),
        init=config.embedding_init,
        embedding=embedding,
        tie_projections=config.tie_projections and embedding is not None,
    )


def is_adaptive(config: StackConfig) -> bool:
    """Whether tables are not simply [V, D]."""
    return bool(config.cutoffs) or config.embedding_width not in (0, config.width)


def clustering(config: StackConfig) -> dict:
    """How words are cut into clusters, as the modules take it."""
    return {
        "embedding_width": config.embedding_width or config.width,
        "cutoffs": tuple(config.cutoffs),
        "div_val": config.div_val,
        "projection_init": config.kernel_init or normal(config.width**-0.5),
    }
