"""Batches of labelled texts: contents, cuts, and what they depend on."""

import numpy as np
import pytest

from data.token_cache import TokenizedSplit
from data.tokenizers.base import BOS, EOS, PAD
from data.understanding.batches import LabeledBatches, Texts, cut_pair
from data.understanding.labels import Labels, parse_grades
from utils.errors import UserError


def split_of(examples):
    """Returns examples without EOS as one side of a tokenized split."""
    flat = [token for example in examples for token in (*example, EOS)]
    ends = np.cumsum([len(example) + 1 for example in examples])
    offsets = np.concatenate([[0], ends])
    return TokenizedSplit(np.asarray(flat, np.int32), offsets, 0, 0, 0)


def random_split(count, longest=30, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest, count)
    return split_of([random.integers(10, 99, n).tolist() for n in lengths])


def batches(count=50, **keywords):
    options = {"batch_size": 8, "num_buckets": 3, "seed": 5} | keywords
    texts = Texts([random_split(count)], 20)
    return LabeledBatches(texts, np.arange(count, dtype=np.int32), **options)


def test_a_text_is_between_cls_and_sep():
    tokens, first = Texts([split_of([[7, 8]])], 20)[0]
    assert tokens.tolist() == [BOS, 7, 8, EOS]
    assert first == 4


def test_the_second_text_of_a_pair_has_its_own_segment():
    tokens, first = Texts([split_of([[7, 8]]), split_of([[9]])], 20)[0]
    assert tokens.tolist() == [BOS, 7, 8, EOS, 9, EOS]
    assert first == 4


def test_of_a_pair_the_longer_text_is_cut():
    texts = Texts([split_of([[7] * 9]), split_of([[9, 9]])], 8)
    assert texts[0][0].tolist() == [BOS, 7, 7, 7, EOS, 9, 9, EOS]
    assert texts.num_cut == 1


@pytest.mark.parametrize("room", range(2, 12))
def test_a_cut_pair_fills_the_room_and_cuts_the_longer_text_first(room):
    for first in range(9):
        for second in range(9):
            kept = cut_pair(first, second, room)
            assert sum(kept) == min(room, first + second)
            if kept[0] < first and kept[1] < second:
                assert abs(kept[0] - kept[1]) <= 1


@pytest.mark.parametrize("seed", [None, 3])
def test_an_epoch_has_each_example_once_in_rows_of_its_label(seed):
    made, seen = batches(seed=seed), []
    for k in range(made.epoch_length):
        batch = made[k]
        assert batch["tokens"].shape == (8, batch["tokens"].shape[1])
        is_real = batch["ids"] >= 0
        assert (batch["weights"] == is_real).all()
        assert (batch["labels"][is_real] == batch["ids"][is_real]).all()
        assert not batch["mask"][~is_real].any()
        assert (batch["tokens"][~batch["mask"]] == PAD).all()
        seen.extend(batch["ids"][is_real].tolist())
    assert sorted(seen) == list(range(50))


def test_epochs_differ_and_a_batch_is_a_function_of_its_number():
    one, other = batches(), batches()
    epoch = one.epoch_length
    assert (one[epoch + 1]["ids"] == other[epoch + 1]["ids"]).all()
    assert any((one[k]["ids"] != one[epoch + k]["ids"]).any() for k in range(epoch))


def test_rows_of_a_batch_are_rows_of_the_whole_batch():
    made = batches()
    whole, part = made[2], made.partial_batch(2, slice(3, 6))
    assert all((part[key] == whole[key][3:6]).all() for key in whole)


def test_unknown_labels_have_no_weight():
    labels = np.asarray([0, -1, 1], np.int32)
    texts = Texts([random_split(3)], 20)
    batch = LabeledBatches(texts, labels, batch_size=4, num_buckets=1)[0]
    assert dict(zip(batch["ids"].tolist(), batch["weights"].tolist(), strict=True)) == {
        0: 1,
        1: 0,
        2: 1,
        -1: 0,
    }


def test_labels_are_sorted_counted_and_restored():
    labels = Labels.learn("label", ["b", "a", "b"])
    restored = Labels.load(labels.to_dict())
    assert (restored.names, restored.counts) == (("a", "b"), (1, 2))
    assert labels.numbers(["b", "c"]).tolist() == [1, -1]
    assert labels.balanced_weights().tolist() == [1.5, 0.75]


def test_declared_classes_keep_their_order():
    assert Labels.learn("label", ["x", "y"], ["y", "x", "z"]).counts == (1, 1, 0)


@pytest.mark.parametrize(
    ("examples", "message"),
    [(["a", "a"], "one class"), ([], "one class"), (["a", ""], "2 has no label")],
)
def test_labels_that_cannot_be_learned_are_refused(examples, message):
    with pytest.raises(UserError, match=message):
        Labels.learn("label", examples)


def test_an_unseen_label_is_refused_by_name_unless_it_is_counted():
    labels = Labels.learn("label", ["a", "b"])
    with pytest.raises(UserError, match=r"test, example 2: .* no label 'c'"):
        labels.check_seen(["a", "c"], "test", "error")
    labels.check_seen(["a", "c"], "test", "count")


def test_a_grade_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="test, example 2: score='x' is no number"):
        parse_grades(["1.5", "x"], "score", "test")
    with pytest.raises(UserError, match="finite"):
        parse_grades(["nan"], "score", "test")
