"""Batches of sentence pairs in document order."""

from collections import Counter

import numpy as np
import pytest

from data.batching.documents import DocumentBatches, choose_shapes
from data.token_cache import TokenizedSplit
from data.tokenizers.base import BOS, EOS, PAD
from helpers.fake_corpora import labels_of

SIZES = (7, 1, 12, 3, 3, 3, 9, 2, 5, 1, 1, 6, 4, 8)  # pairs of each document
N = sum(SIZES)
NAMES = [f"book {i % 5}" for i, size in enumerate(SIZES) for _ in range(size)]
DOCUMENT = np.repeat(np.arange(len(SIZES)), SIZES)
LENGTHS = np.random.default_rng(3).integers(2, 30, size=(2, N))


def encoded(lengths, seed=0):
    """Returns random examples of given lengths, EOS included."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(seed).integers(4, 29, offsets[-1]).astype(np.uint16)
    tokens[offsets[1:] - 1] = EOS
    return TokenizedSplit(tokens, offsets, 0, 0, 0)


def batches_of(**options):
    settings = {"batch_size": 4, "buckets": 3, "seed": 1, **options}
    source, target = (encoded(row, i) for i, row in enumerate(LENGTHS))
    return DocumentBatches(source, target, NAMES, **settings)


def epoch_of(batches, epoch=0):
    """Returns the batches of an epoch."""
    size = len(batches)
    return [batches[k] for k in range(epoch * size, (epoch + 1) * size)]


@pytest.mark.parametrize(("seed", "epoch"), [(None, 0), (1, 0), (1, 3)])
class TestEpochs:
    def test_every_pair_occurs_once_with_all_its_tokens(self, seed, epoch):
        batches, seen = batches_of(seed=seed), Counter()
        for batch in epoch_of(batches, epoch):
            for row, number in enumerate(batch["ids"]):
                if number < 0:
                    assert not batch["weights"][row].any()
                    assert not batch["source_mask"][row].any()
                    assert (batch["source"][row] == PAD).all()
                    continue
                seen[number] += 1
                there = labels_of(batches, batch, row)
                before = [BOS, *there[:-1]]
                assert batch["target_in"][row].tolist()[: len(there)] == before
        assert seen == Counter(range(N))

    def test_a_row_continues_a_document_or_resets_at_a_new_one(self, seed, epoch):
        before = np.full(4, -1)
        for batch in epoch_of(batches_of(seed=seed), epoch):
            for last, number, reset in zip(
                before, batch["ids"], batch["reset"], strict=True
            ):
                begins = number < 0 or number in np.cumsum((0, *SIZES))
                assert reset == begins
                if not begins:
                    assert number == last + 1
            before = batch["ids"]

    def test_rows_end_at_about_the_same_time(self, seed, epoch):
        ids = np.stack([b["ids"] for b in epoch_of(batches_of(seed=seed), epoch)])
        held = (ids >= 0).sum(axis=0)
        assert held.max() - held.min() <= 1
        assert held.max() == len(ids)


def test_batch_k_does_not_depend_on_earlier_batches():
    one, two = batches_of(), batches_of()
    for k in (0, 5, 200):
        one[k]
    for k in (200, 3, 77):
        for name, value in one[k].items():
            np.testing.assert_array_equal(value, two[k][name])


def test_epochs_and_seeds_differ():
    batches, other = batches_of(), batches_of(seed=2)
    orders = [epoch_of(batches), epoch_of(batches, 1), epoch_of(other)]
    assert len({str([b["ids"].tolist() for b in order]) for order in orders}) == 3


def test_shapes_are_few_and_padding_is_counted():
    batches = batches_of()
    found = {
        (*batches[k]["source"].shape, batches[k]["labels"].shape[1])
        for k in range(9 * len(batches))
    }
    assert found <= set(batches.shapes)
    assert 1 < len(batches.shapes) <= 3
    masks = [
        b[f"{side}_mask"] for b in epoch_of(batches) for side in ("source", "target")
    ]
    share = sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    assert batches.padding_fraction == pytest.approx(1 - share)
    shares = [batches_of(buckets=count).padding_fraction for count in (1, 2, 6)]
    assert shares == sorted(shares, reverse=True)


def test_one_shape_holds_every_pair_of_later_epochs():
    seen = np.asarray([[3, 9], [9, 3], [3, 9], [2, 2]])
    for count in (1, 2, 3):
        shapes = choose_shapes(seen, np.asarray([9, 9]), count)
        assert len(shapes) <= count
        assert (shapes == [9, 9]).all(axis=1).any()


def test_partial_batches_make_the_whole_batch():
    batches = batches_of()
    for k in range(len(batches)):
        parts = [batches.partial_batch(k, slice(a, a + 2)) for a in (0, 2)]
        for name, whole in batches[k].items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, whole)


def test_other_pairs_are_left_out_and_their_documents_continue():
    kept = np.flatnonzero((LENGTHS.max(axis=0) <= 20) & (np.arange(N) >= 2))
    assert len(kept) < N - 2
    batches = batches_of(indices=kept)
    rows = np.stack([batch["ids"] for batch in epoch_of(batches)], axis=1)
    read = [number for row in rows for number in row if number >= 0]
    assert sorted(read) == kept.tolist()
    begins = np.concatenate([b["ids"][b["reset"]] for b in epoch_of(batches)])
    first = kept[np.unique(DOCUMENT[kept], return_index=True)[1]]
    assert sorted(begins[begins >= 0]) == first.tolist()


def test_pairs_without_a_name_are_documents_alone_and_evaluation_ends():
    side = encoded([3] * 5)
    names = ["", "", "a", "a", ""]
    batches = DocumentBatches(side, side, names, batch_size=1, buckets=9)
    resets = [bool(batch["reset"][0]) for batch in epoch_of(batches)]
    assert resets == [True, True, True, False, True]
    assert [int(batch["ids"][0]) for batch in epoch_of(batches)] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        batches[5]
