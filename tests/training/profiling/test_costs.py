"""Guards of speed that need no clock: what the compiler counts in a training step.

Bounds are what was counted when they were recorded, with a tenth to spare; a change
that needs more has to say so here. Counts are of programs as tests compile them, whose
loops are fused less than a run's.
"""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import pytest

from benchmarks.harness.random_corpora import Sentences, Text
from benchmarks.harness.subjects import experiment
from benchmarks.harness.workloads import WORKS
from experiment.setup import TrainingSetup
from models.common import blockwise_cross_entropy

SMALLER = {"rows": 8, "length": 16, "vocabulary": 512, "layers": 2}
SIZES = {"width": 64, "heads": 4, "feed_forward": 128}
# Millions of FLOPs, of bytes that are read and written, of bytes of working memory.
RECORDED = {
    "small": (178.8, 62.7, 5.2),
    "xl_small": (104.2, 32.1, 2.8),
    "rnn_small": (128.1, 67.3, 6.4),
}


def shrunk(name):
    memory = 16 if WORKS[name].memory else 0
    return dataclasses.replace(WORKS[name], **SMALLER, **SIZES, memory=memory)


@functools.cache
def program(name):
    """A step's, compiled."""
    work = shrunk(name)
    kind = Sentences if work.is_translation else Text
    dataset = kind(work.rows, work.length, work.vocabulary)
    training = TrainingSetup.from_experiment(experiment(work), dataset)
    state = nn.meta.unbox(jax.eval_shape(training.make_state))
    inputs = (state, training.make_carry(), training.batch(0))
    return jax.jit(training.step, donate_argnums=(0, 1)).lower(*inputs).compile()


SLOW = {"small", "rnn_small"}  # compile longest


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in RECORDED],
)
def test_a_step_costs_no_more_than_was_recorded(name):
    costs = program(name).cost_analysis()
    found = (
        costs["flops"],
        costs["bytes accessed"],
        program(name).memory_analysis().temp_size_in_bytes,
    )
    for value, bound in zip(found, RECORDED[name], strict=True):
        assert 0.5 * bound < value / 1e6 < 1.1 * bound


def most_entries(text):
    """Of the largest array that a program names."""
    arrays = re.findall(r"f32\[([\d,]+)\]", text)
    shapes = ([int(size) for size in array.split(",")] for array in arrays)
    return max(functools.reduce(int.__mul__, shape, 1) for shape in shapes)


@pytest.mark.slow
def test_a_loss_in_blocks_never_holds_all_logits(monkeypatch):
    work = shrunk("small")
    logits = work.tokens * work.vocabulary
    assert most_entries(program("small").as_text()) >= logits
    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", logits // 4)
    program.cache_clear()
    assert most_entries(program("small").as_text()) < logits
    program.cache_clear()
