"""Bucketed batches of sentence pairs: shapes and order."""

import errno
from collections import Counter

import numpy as np
import pytest

from data.batching.bucketed import BucketedBatches
from data.batching.buckets import (
    assign_buckets,
    open_plan,
    plan_batches,
    plan_segmentations,
)
from data.batching.shuffle import Permutation
from data.tokenizers.base import BOS
from helpers.fake_corpora import encoded, labels_of


class TestSentences:
    lengths = np.random.default_rng(3).integers(2, 30, size=(2, 300))

    def batches(self, seed=1, **options):
        source, target = (encoded(row, i) for i, row in enumerate(self.lengths))
        plan = plan_batches(
            source, target, **{"num_buckets": 6, "tokens_per_batch": 200} | options
        )
        return BucketedBatches(source, target, plan, seed)

    @pytest.mark.parametrize("epoch", [0, 3])
    def test_every_pair_occurs_once_an_epoch_with_all_its_tokens(self, epoch):
        batches = self.batches()
        seen = Counter()
        for k in range(len(batches)):
            batch = batches[epoch * len(batches) + k]
            for row, number in enumerate(batch["ids"]):
                if number < 0:
                    assert batch["weights"][row].sum() == 0
                    continue
                seen[number] += 1
                labels_of(batches, batch, row)
        assert seen == Counter(range(300))

    def test_decoder_inputs_are_the_shifted_labels(self):
        batch = self.batches()[0]
        assert (batch["target_in"][batch["ids"] >= 0, 0] == BOS).all()
        inner = batch["target_mask"][:, 1:]
        np.testing.assert_array_equal(
            batch["target_in"][:, 1:][inner], batch["labels"][:, :-1][inner]
        )

    def test_batch_k_does_not_depend_on_earlier_batches(self):
        one, two = self.batches(), self.batches()
        for k in (0, 5, 200):
            one[k]
        for k in (200, 3, 77):
            for name, value in one[k].items():
                np.testing.assert_array_equal(value, two[k][name])

    def test_epochs_and_seeds_differ(self):
        batches, other = self.batches(), self.batches(seed=2)
        first = [batches[k]["ids"].tolist() for k in range(len(batches))]
        second = [
            batches[len(batches) + k]["ids"].tolist() for k in range(len(batches))
        ]
        assert first != second
        assert first != [other[k]["ids"].tolist() for k in range(len(other))]

    def test_shapes_are_few_and_within_the_budget(self):
        batches = self.batches()
        found = {
            (*batches[k]["source"].shape, batches[k]["labels"].shape[1])
            for k in range(2 * len(batches))
        }
        assert found == set(batches.shapes)
        assert len(found) <= 6
        assert all(rows * max(s, t) <= 200 for rows, s, t in found)

    def test_more_buckets_pad_less(self):
        shares = [
            self.batches(num_buckets=count).padding_fraction for count in (1, 2, 6, 16)
        ]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[-1] < shares[0] < 0.6

    def test_only_selected_pairs_occur(self):
        kept = np.flatnonzero(self.lengths.max(axis=0) <= 20)
        sides = [encoded(row, i) for i, row in enumerate(self.lengths)]
        sizes = {"num_buckets": 6, "tokens_per_batch": 200}
        [plan] = plan_segmentations([sides], **sizes, indices=kept, dropped={})
        batches = BucketedBatches(*sides, plan, seed=1)
        found = [i for k in range(len(batches)) for i in batches[k]["ids"] if i >= 0]
        assert sorted(found) == kept.tolist()

    def test_partial_batches_make_the_whole_batch(self):
        batches = self.batches()
        for k in (0, 7):
            whole = batches[k]
            cut = len(whole["ids"]) // 2
            parts = [
                batches.partial_batch(k, slice(0, cut)),
                batches.partial_batch(k, slice(cut, None)),
            ]
            for name, value in whole.items():
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(joined, value)

    def test_a_plan_is_made_once_and_then_read(self, tmp_path):
        batches, made = self.batches(), []

        def make():
            made.append(1)
            return batches.plan

        plans = [open_plan(tmp_path / "plan", make) for _ in range(2)]
        again = BucketedBatches(batches.source, batches.target, plans[1], seed=1)
        assert made == [1]
        for name, value in batches[3].items():
            np.testing.assert_array_equal(value, again[3][name])

    def test_a_plan_that_cannot_be_stored_is_used(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
        plan = self.batches().plan
        assert open_plan(tmp_path / "plan", lambda: plan) is plan


@pytest.mark.parametrize("size", [1, 2, 5, 64, 1000])
def test_a_permutation_has_every_number_once_and_differs_by_key(size):
    everything = np.arange(size)
    one = Permutation(size, 1, 2)[everything]
    assert sorted(one) == list(range(size))
    np.testing.assert_array_equal(one, Permutation(size, 1, 2)[everything])
    if size > 5:
        assert (one != everything).mean() > 0.9
        assert (one != Permutation(size, 1, 3)[everything]).mean() > 0.9


def test_a_permutation_is_close_to_uniform():
    # Each of 16 places should get each of 16 numbers equally often.
    count = np.zeros((16, 16))
    for seed in range(1600):
        count[np.arange(16), Permutation(16, seed)[np.arange(16)]] += 1
    spread = ((count - 100) ** 2 / 100).sum()
    assert 150 < spread < 310  # chi squared, 225 degrees of freedom


def test_two_shapes_lie_between_the_best_split_and_the_optimum():
    source, target = np.random.default_rng(5).integers(1, 9, (2, 40))

    def padded(parts):
        return sum(
            part.sum() * (source[part].max() + target[part].max())
            for part in parts
            if part.any()
        )

    rivals = [
        padded([side <= limit, side > limit])
        for side in (source, target)
        for limit in range(1, 9)
    ]
    whole = source.max() + target.max()
    best = min(
        np.where((source <= a) & (target <= b), a + b, whole).sum()
        for a in range(1, 9)
        for b in range(1, 9)
    )
    found = assign_buckets(source, target, 2)
    assert best <= padded([found == 0, found == 1]) <= min(rivals)


def test_equal_lengths_need_one_bucket():
    same = np.full(7, 4)
    assert set(assign_buckets(same, same, 5)) == {0}
