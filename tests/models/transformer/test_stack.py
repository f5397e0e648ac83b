"""Tests of the stack of Transformer blocks."""

import jax.numpy as jnp
import numpy as np

from helpers.architectures import small_config
from models.transformer.stack import Stack


def test_relative_positions_are_clamped_in_both_directions():
    changes = {"memory_length": 0, "clamp_length": 2, "untie_biases": True}
    config = small_config("transformer_xl", **changes)
    stack = Stack(config, cross=False)
    positions = jnp.arange(6, -7, -1)
    found = np.asarray(
        stack.bind({})._encode_relative_positions(positions, train=False)
    )
    by_position = dict(zip(positions.tolist(), found, strict=True))
    for far in (3, 6):
        np.testing.assert_array_equal(by_position[far], by_position[2])
        np.testing.assert_array_equal(by_position[-far], by_position[-2])
    assert len(np.unique(found, axis=0)) == 5
