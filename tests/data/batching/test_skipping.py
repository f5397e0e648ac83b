"""Batches without some that are left out."""

import numpy as np

from data.batching.base import SkippingBatches, TrainBatches


class Numbered(TrainBatches):
    """Batches of their own number; a new text starts in row k of batch k."""

    shapes, epoch_length, batch_size = [(4,)], 100, 4

    def partial_batch(self, k, rows):
        batch = {"k": np.full(4, k), "reset": np.arange(4) == k}
        return {name: leaf[rows] for name, leaf in batch.items()}


def test_a_batch_that_is_left_out_is_followed_by_the_next():
    batches = SkippingBatches(Numbered())
    assert [batches[k]["k"][0] for k in range(4)] == [0, 1, 2, 3]
    batches.skip([2, 5, 1])
    assert [batches[k]["k"][0] for k in range(5)] == [0, 3, 4, 6, 7]
    assert [batches.number(k) for k in range(5)] == [0, 3, 4, 6, 7]
    assert batches.batch_size == batches.num_examples(1) == 4
    assert not hasattr(batches, "documents")


def test_texts_that_start_in_batches_left_out_start_in_the_batch_after():
    batches = SkippingBatches(Numbered())
    batches.skip([1, 2])
    assert batches[0]["reset"].tolist() == [True, False, False, False]
    assert batches[1]["reset"].tolist() == [False, True, True, True]
    assert batches.partial_batch(1, slice(2, 4))["reset"].tolist() == [True, True]
