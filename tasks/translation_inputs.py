"""What translation models are called with: from batches, hypotheses and lines."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def inputs(batch: dict) -> tuple:
    """What a Seq2Seq is called with, but for the carry."""
    names = ("source", "source_mask", "target_in", "target_mask")
    return tuple(batch[name] for name in names)


def decoder_inputs(
    found: Int[Array, "B T"], tokenizer
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """What a decoder reads to say what was found, and a mask to its end."""
    is_end = found == tokenizer.eos
    mask = jnp.cumsum(is_end, axis=1) - is_end == 0
    first = jnp.full((len(found), 1), tokenizer.bos, found.dtype)
    before = jnp.concatenate([first, found[:, :-1]], axis=1)
    return jnp.where(mask, before, tokenizer.pad), mask


def pad_sources(ids: list[list[int]], rows: int, width: int) -> dict[str, np.ndarray]:
    """Sentences as a padded array and its mask, each alone; `ids` are to be set."""
    source = np.zeros((rows, width), np.int32)
    mask = np.zeros((rows, width), bool)
    for row, sentence in enumerate(ids):
        source[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = True
    return {
        "source": source,
        "source_mask": mask,
        "reset": np.ones(rows, bool),
        "ids": np.full(rows, -1, np.int32),
    }
