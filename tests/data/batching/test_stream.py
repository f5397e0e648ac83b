"""Batches of parallel streams of a text."""

from collections import Counter

import numpy as np
import pytest

from data.batching.stream import LMEvalBatches, LMStreamBatches
from data.token_cache import TokenizedSplit
from helpers.fake_corpora import encoded


class TestStreams:
    def test_every_token_occurs_once_an_epoch_in_order(self):
        text = encoded([60])
        batches = LMStreamBatches(text, batch_size=4, length=5)
        labels = np.concatenate([batches[k]["labels"] for k in range(3)], axis=1)
        np.testing.assert_array_equal(labels.ravel(), text.tokens)

    @pytest.mark.parametrize("size", [60, 61, 67])
    def test_row_b_of_batch_k_plus_1_continues_row_b_of_batch_k(self, size):
        batches = LMStreamBatches(encoded([size]), batch_size=4, length=5)
        for k in range(40):
            here, after = batches[k], batches[k + 1]
            np.testing.assert_array_equal(here["labels"][:, -1], after["tokens"][:, 0])
            np.testing.assert_array_equal(here["labels"][:, :-1], here["tokens"][:, 1:])
            assert not after["reset"].any()

    def test_partial_batches_make_the_whole_batch(self):
        batches = LMStreamBatches(encoded([67]), batch_size=4, length=5)
        parts = [
            batches.partial_batch(9, rows) for rows in (slice(0, 1), slice(1, None))
        ]
        for name, value in batches[9].items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, value)

    def test_all_tokens_occur_equally_often(self):
        text = TokenizedSplit(np.arange(67), np.asarray([0, 67]), 0, 0, 0)
        batches = LMStreamBatches(text, batch_size=4, length=5)
        count = np.zeros(67, int)
        for k in range(67):
            np.add.at(count, batches[k]["labels"].ravel(), 1)
        assert set(count) == {4 * 5}

    @pytest.mark.parametrize(("size", "rows"), [(60, 4), (61, 4), (7, 3), (5, 1)])
    def test_evaluation_scores_every_token_exactly_once(self, size, rows):
        text = TokenizedSplit(np.arange(10, 10 + size), np.asarray([0, size]), 0, 0, 0)
        batches = LMEvalBatches(text, batch_size=rows, length=5)
        seen = Counter()
        for k in range(len(batches)):
            batch = batches[k]
            there = batch["weights"] > 0
            seen.update(batch["labels"][there].tolist())
            inner = there & (np.arange(5) > 0)
            before = batch["tokens"][inner]
            np.testing.assert_array_equal(before, batch["labels"][inner] - 1)
        assert seen == Counter(range(10, 10 + size))
        with pytest.raises(IndexError):
            batches[len(batches)]
