"""Tests of how a memory of hidden states is updated."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers.architectures import small_config
from models.transformer_xl.model import Memory, init_memory


def test_a_memory_keeps_the_last_inputs_of_each_example_and_no_gradient():
    inputs = jnp.arange(1.0, 7.0).reshape(2, 3, 1)  # rows 1 2 3 and 4 5 6
    config = small_config("transformer_xl", layers=1, width=1, heads=1)
    memory = init_memory(config, 2, 4).append((inputs,), jnp.asarray([3, 1]))
    np.testing.assert_array_equal(memory.valid_length, [3, 1])
    np.testing.assert_array_equal(
        memory.hidden[0][..., 0], [[0, 1, 2, 3], [0, 0, 0, 4]]
    )
    memory = memory.append((10 * inputs,), jnp.asarray([2, 3]))
    np.testing.assert_array_equal(memory.valid_length, [4, 4])
    expected = [[2, 3, 10, 20], [4, 40, 50, 60]]
    np.testing.assert_array_equal(memory.hidden[0][..., 0], expected)

    def total(x):
        old = Memory((x,), jnp.asarray([3, 3]))
        return old.append((x,), jnp.asarray([3, 3])).hidden[0].sum()

    np.testing.assert_array_equal(jax.grad(total)(inputs), 0.0)
