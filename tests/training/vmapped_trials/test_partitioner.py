"""Tests of the placement of trials on devices."""

import subprocess
import sys

from helpers.entry_points import ROOT

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


def test_orthogonal_matrices_of_many_trials_do_not_wait_for_each_other():
    command = [sys.executable, "-c", ORTHOGONAL]
    subprocess.run(command, cwd=ROOT, timeout=100, check=True)
