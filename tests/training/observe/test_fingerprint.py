"""Tests of digests: equality, distance and the place of a single change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from training.observe.fingerprint import (
    RESOLUTION,
    Digest,
    digest_tree,
    digests_by_name,
    equals,
    locate_flipped_bit,
    named_arrays,
    relative_distance,
)

compiled = jax.jit(digest_tree)


def digests(tree) -> dict[str, Digest]:
    checksums, values = jax.device_get(compiled(tree))
    return digests_by_name(named_arrays(tree), checksums, values)


def digest(array) -> Digest:
    return digests({"x": jnp.asarray(array)})["x"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_every_flipped_bit_changes_the_checksums(dtype):
    array = np.asarray(jnp.asarray(np.arange(12).reshape(3, 4) % 2, dtype))
    before = digest(array)
    assert equals(before, digest(array.copy()))
    width = 1 if dtype == "bool" else 8 * array.dtype.itemsize
    unsigned = array.view(f"uint{8 * array.dtype.itemsize}")
    for bit in range(width):
        for place in ((0, 0), (1, 2), (2, 3)):
            changed = unsigned.copy()
            changed[place] ^= 1 << bit
            after = digest(changed.view(array.dtype))
            assert not equals(before, after)
            index = int(np.ravel_multi_index(place, array.shape))
            assert locate_flipped_bit(before, after, array.size) == (index, bit)


def test_the_order_of_elements_and_the_sign_of_zero_count():
    array = normal(5, 7)
    for other in (array[::-1], array[:, ::-1], np.where(array > 0, array, -array)):
        assert not equals(digest(array), digest(other))
    assert not equals(digest(np.zeros(3)), digest(-np.zeros(3)))


def test_rows_of_zeros_at_the_end_do_not_count():
    array = normal(5, 7)
    padded = np.concatenate([array, np.zeros((3, 7), np.float32)])
    assert equals(digest(array), digest(padded))
    shifted = np.concatenate([np.zeros((3, 7), np.float32), array])
    assert not equals(digest(array), digest(shifted))


def test_checksums_do_not_depend_on_the_sharding():
    mesh = jax.make_mesh((len(jax.devices()),), ("x",))
    array = normal(8 * mesh.size, 6)
    for spec in (P("x"), P()):
        sharded = jax.device_put(array, NamedSharding(mesh, spec))
        assert equals(digest(sharded), digest(array))


@pytest.mark.parametrize("size", [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_projections_estimate_the_relative_distance(size):
    ratios = []
    for seed in range(20):
        array, noise = normal(40, 50, seed=seed), normal(40, 50, seed=100 + seed)
        other = array + size * noise
        norms = [np.linalg.norm(each) for each in (other - array, array, other)]
        distance = norms[0] / max(norms[1:])
        ratios.append(relative_distance(digest(array), digest(other)) / distance)
    assert 0.7 < np.median(ratios) < 1.3
    assert 0.1 < np.min(ratios) < np.max(ratios) < 3


def test_a_change_below_the_resolution_is_no_equality():
    array = normal(40, 50)
    changed = array.copy()
    changed.view("uint32")[3, 4] ^= 1
    before, after = digest(array), digest(changed)
    assert relative_distance(before, after) == RESOLUTION
    assert locate_flipped_bit(before, after, array.size) == (3 * 50 + 4, 0)
    assert relative_distance(before, before) == 0


def test_several_flipped_bits_have_no_single_place():
    array = normal(40, 50)
    before = digest(array)
    assert locate_flipped_bit(before, before, array.size) is None
    for count in (2, 3, 2000):
        changed = array.copy()
        changed.reshape(-1)[:count] *= 2
        assert locate_flipped_bit(before, digest(changed), array.size) is None


def test_values_that_are_not_finite_are_infinitely_far_away():
    array = normal(4)
    broken = array.copy()
    broken[1] = np.nan
    assert relative_distance(digest(array), digest(broken)) == np.inf
    assert relative_distance(digest(broken), digest(broken)) == 0


def test_arrays_have_the_names_of_their_places():
    tree = {"params": {"a": {"b": jnp.ones(2)}}, "carry": [jnp.zeros(()), jnp.ones(1)]}
    assert list(digests(tree)) == ["carry/0", "carry/1", "params/a/b"]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_of_tiny_and_of_large_values_are_right(scale):
    array = normal(4, 5) * np.float32(scale)
    expected = np.linalg.norm(np.asarray(array, np.float64))
    assert digest(array).norm == pytest.approx(expected, rel=1e-5)
