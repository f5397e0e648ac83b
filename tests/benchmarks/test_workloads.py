"""What is timed: its products, parameters and batches."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from benchmarks.harness.protocol import product_seconds
from benchmarks.harness.random_corpora import Sentences, Text, VariedSentences
from benchmarks.harness.subjects import TrainStep, config, experiment, num_parameters
from benchmarks.harness.workloads import (
    WORKS,
    Product,
    decoding_products,
    flops,
    training_products,
)


@pytest.mark.parametrize(
    ("name", "billions"),  # of a step: counted by hand, see the peers' figures
    [("small", 94.6), ("base", 328.2), ("xl_small", 80.3), ("rnn_small", 50.4)],
)
def test_a_steps_products_are_those_counted_by_hand(name, billions):
    assert flops(training_products(WORKS[name])) / 1e9 == pytest.approx(
        billions, rel=2e-3
    )


@pytest.mark.parametrize(("beam", "billions"), [(1, 31.4), (4, 91.3)])
def test_a_searchs_products_are_those_counted_by_hand(beam, billions):
    found = flops(decoding_products(WORKS["small"], beam)) / 1e9
    assert found == pytest.approx(billions, rel=2e-3)


def test_without_distances_their_products_are_gone():
    found = flops(training_products(WORKS["xl_small"], distances=False))
    assert found / 1e9 == pytest.approx(74.8, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "parameters"),  # of the same models in PyTorch, as its peers count them
    [
        ("small", 7_585_600),
        ("base", 52_346_496),
        ("xl_small", 5_191_936),
        # PyTorch's three GRUs have a second bias of two of their gates.
        ("rnn_small", 8_254_528 - 3 * 2 * 256),
    ],
)
def test_ours_has_as_many_parameters_as_its_peers(name, parameters):
    work = WORKS[name]
    found = experiment(work)
    kind = Sentences if work.is_translation else Text
    batch = kind(2, 3, work.vocabulary).train_batches()[0]

    def init(batch):
        return nn.meta.unbox(found.task.init(found.model, jax.random.key(0), batch))

    assert num_parameters(jax.eval_shape(init, batch)) == parameters


def test_ours_trains_as_its_peers_do():
    for work in WORKS.values():
        cfg = config(work)
        assert (cfg.optim.name, cfg.optim.lr, cfg.optim.b2) == ("adam", 1e-4, 0.98)
        assert cfg.model.dropout == 0.1
        assert cfg.label_smoothing == (0.1 if work.is_translation else 0.0)
        if work.model == "rnn":
            assert not cfg.model.tie_embeddings
        else:
            assert cfg.model.norm == "post"
            assert cfg.model.attention_dropout == (0.1 if work.is_translation else 0)
    assert config(WORKS["xl_small"]).optim.clip_norm == 0.25


def test_batches_are_full():
    sentences = Sentences(rows=4, length=6, vocabulary=40).train_batches()
    assert sentences.shapes == [(4, 6, 6)]
    assert sentences.epoch_length > 1
    assert all(sentences[k]["weights"].all() for k in range(4))
    assert sentences[0]["source"].max() < 40
    assert Text(rows=3, length=5, vocabulary=40).train_batches()[1]["weights"].all()


def test_sentences_of_all_lengths_leave_room_in_a_full_batch():
    varied = VariedSentences(rows=200, length=32, vocabulary=40)
    lengths = varied.make_batches(256)
    sources = sum(int(lengths[k]["source_mask"].sum()) for k in range(len(lengths)))
    assert sources == varied.lengths.sum() < varied.rows * varied.length
    assert varied.limits.max() <= 32
    assert varied.limits.min() >= 10


@functools.cache
def tiny_step():
    return TrainStep(WORKS["xl_small"].shrunk())


def test_a_step_of_ours_learns_and_is_compiled_once():
    subject = tiny_step()
    before = np.asarray(jax.tree.leaves(subject.state.params)[0])
    for _ in range(3):
        subject.step()
    assert int(subject.state.step) == 3
    assert np.abs(np.asarray(jax.tree.leaves(subject.state.params)[0]) - before).max()
    facts = subject.facts()
    assert facts["compilations"] == 1
    assert facts["parameters"] == num_parameters(subject.state.params)
    assert facts["versions"]["jax"] == jax.__version__


def test_the_ceiling_is_timed_for_each_product():
    subject = tiny_step()
    few, many = (
        product_seconds(subject, Product(2, 32, 64, 64, count)) for count in (10, 1000)
    )
    assert 0 < few < many
