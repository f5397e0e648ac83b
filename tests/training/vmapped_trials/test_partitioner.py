"""Tests of the placement of trials on devices."""

import subprocess
import sys

import flax.linen as nn
import jax
import pytest
from jax.extend.core import jaxprs_in_params

from helpers.entry_points import ROOT
from training.vmapped_trials.partitioner import VmappedPartitioner

ORTHOGONAL = """
import flax.linen as nn
import jax

from training.vmapped_trials.partitioner import VmappedPartitioner

TRIALS = 12
partitioner = VmappedPartitioner(TRIALS)


def make(key):
    init = nn.initializers.orthogonal()
    return [init(one, (150, 150)) for one in jax.random.split(key, 8)]


for seed in range(2):
    keys = partitioner.put(jax.random.split(jax.random.key(seed), TRIALS))
    jax.block_until_ready(partitioner.init(make, keys))
"""


def decompositions(jaxpr):
    """Shapes of the matrices of all QR decompositions, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "qr":
            yield equation.invars[0].aval.shape
        for inner in jaxprs_in_params(equation.params):
            yield from decompositions(inner)


def test_orthogonal_matrices_of_trials_are_decomposed_one_by_one():
    keys = jax.random.split(jax.random.key(0), 3)

    def init(keys):
        make = nn.initializers.orthogonal()
        return VmappedPartitioner(3).init(lambda key: make(key, (5, 5)), keys)

    assert list(decompositions(jax.make_jaxpr(init)(keys).jaxpr)) == [(5, 5)]


@pytest.mark.slow
def test_orthogonal_matrices_of_many_trials_do_not_wait_for_each_other():
    command = [sys.executable, "-c", ORTHOGONAL]
    subprocess.run(command, cwd=ROOT, timeout=100, check=True)
