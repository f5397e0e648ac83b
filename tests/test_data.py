"""Tokenizers, encoding and batches."""

import json
import string
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from data.bucket_shapes import bucket_numbers
from data.buckets import SentenceBatches
from data.encoding import Encoded, open_encoded, open_tokenizers, written_whole
from data.streams import TextBatches, TextOnce
from data.tokenizers import (
    BOS,
    EOS,
    PAD,
    SPECIAL,
    UNK,
    dump_tokenizer,
    parse_tokenizer,
    train_tokenizer,
)
from errors import UserError

TEXTS = ["the cat sat on the mat", "a dog ate the cat", "über 12,5 °C — 東京 m²", ""]


class FakeCorpus:
    name, version, kind = "fake/en-de", "1.0.0", "parallel"
    splits = {"train": 3, "test": 1}  # noqa: RUF012

    def read(self, split):
        number = self.splits[split]
        return iter(
            [("the cat", "die Katze"), ("a dog", "ein Hund"), ("x", "")][:number]
        )


def encoded(lengths, seed=0):
    """Examples of given lengths, EOS included, whose tokens tell where they stand."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(seed).integers(4, 99, offsets[-1]).astype(np.uint16)
    tokens[offsets[1:] - 1] = EOS
    return Encoded(tokens, offsets, 0, 0, 0)


@pytest.mark.parametrize("kind", ["byte", "char", "word", "sentencepiece"])
class TestTokenizers:
    def test_text_comes_back_as_it_was(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, 90, 1)
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert UNK not in ids
            assert max(ids, default=0) < tokenizer.vocab_size
            assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text

    def test_it_is_the_same_after_saving(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, 90, 1)
        again = parse_tokenizer(dump_tokenizer(tokenizer))
        assert again.vocab_size == tokenizer.vocab_size
        assert [again.encode(text) for text in TEXTS] == [
            tokenizer.encode(text) for text in TEXTS
        ]
        json.loads(dump_tokenizer(tokenizer))

    def test_pieces_are_as_many_as_numbers(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, 90, 1)
        ids = [BOS, *tokenizer.encode(TEXTS[2]), EOS]
        assert len(tokenizer.pieces(ids)) == len(ids)

    def test_learning_twice_gives_the_same(self, kind):
        one, two = (train_tokenizer(kind, TEXTS, 90, 1) for _ in range(2))
        assert dump_tokenizer(one) == dump_tokenizer(two)


def test_rare_words_are_unknown_and_so_is_the_symbol_for_it():
    tokenizer = train_tokenizer("word", ["a a b <unk>"], 99, 2)
    assert tokenizer.encode("a b <unk> c") == [len(SPECIAL), UNK, UNK, UNK]
    assert tokenizer.vocab_size == len(SPECIAL) + 1


def test_a_vocabulary_keeps_the_most_frequent():
    tokenizer = train_tokenizer("word", ["c c c b b a"], len(SPECIAL) + 2, 1)
    assert tokenizer.symbols == [*SPECIAL, "c", "b"]


def test_an_unknown_kind_and_a_size_without_room_are_refused():
    with pytest.raises(UserError, match="byte, word, char, sentencepiece"):
        train_tokenizer("wordpiece", TEXTS, 99, 1)
    with pytest.raises(UserError, match="vocab_size=3"):
        train_tokenizer("word", TEXTS, 3, 1)
    with pytest.raises(UserError, match="vocab_size=9"):
        train_tokenizer("sentencepiece", [string.printable.strip()], 9, 1)


def test_encoding_keeps_every_token_and_is_done_once(tmp_path):
    corpus = FakeCorpus()
    calls = []

    def train():
        calls.append(1)
        return {"joint": train_tokenizer("byte", [], 99, 1)}

    for _ in range(2):
        joint = open_tokenizers(corpus, tmp_path, {"tokenizer": "byte"}, train)["joint"]
        sides = [("source", joint), ("target", joint)]
        found = open_encoded(corpus, tmp_path, sides)
    assert len(calls) == 1
    side = found["train"]["target"]
    rows = [
        side.tokens[a:b] for a, b in zip(side.offsets, side.offsets[1:], strict=False)
    ]
    assert [joint.decode(row) for row in rows] == ["die Katze", "ein Hund", ""]
    assert all(row[-1] == EOS for row in rows)
    assert (side.characters, side.words, side.size) == (20, 7, 20)
    corpus.version = "2.0.0"
    open_tokenizers(corpus, tmp_path, {"tokenizer": "byte"}, train)
    assert len(calls) == 2


def test_what_breaks_half_way_leaves_nothing(tmp_path):
    def fill():
        with written_whole(tmp_path / "whole") as draft:
            (draft / "part").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path):
    target = tmp_path / "whole"
    with written_whole(target) as slow:
        (slow / "who").write_text("slow")
        with written_whole(target) as fast:
            (fast / "who").write_text("fast")
    assert (target / "who").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


class TestSentences:
    lengths = np.random.default_rng(3).integers(2, 30, size=(2, 300))

    def batches(self, **options):
        settings = {"count": 6, "batch_tokens": 200, "seed": 1, **options}
        source, target = (encoded(row, i) for i, row in enumerate(self.lengths))
        return SentenceBatches(source, target, **settings)

    @pytest.mark.parametrize("epoch", [0, 3])
    def test_every_pair_comes_once_an_epoch_with_all_its_tokens(self, epoch):
        batches = self.batches()
        seen = Counter()
        for k in range(len(batches)):
            batch = batches[epoch * len(batches) + k]
            for row, number in enumerate(batch["ids"]):
                if number < 0:
                    assert batch["weights"][row].sum() == 0
                    continue
                seen[number] += 1
                for name, side, mask in [
                    ("source", batches.source, "source_mask"),
                    ("labels", batches.target, "target_mask"),
                ]:
                    there = batch[name][row][batch[mask][row]]
                    start, end = side.offsets[number : number + 2]
                    np.testing.assert_array_equal(there, side.tokens[start:end])
                    assert (batch[name][row][~batch[mask][row]] == PAD).all()
        assert seen == Counter(range(300))

    def test_the_decoder_reads_what_it_should_have_said(self):
        batch = self.batches()[0]
        assert (batch["target_in"][batch["ids"] >= 0, 0] == BOS).all()
        inner = batch["target_mask"][:, 1:]
        np.testing.assert_array_equal(
            batch["target_in"][:, 1:][inner], batch["labels"][:, :-1][inner]
        )

    def test_batch_k_is_the_same_whatever_came_before(self):
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
        shares = [self.batches(count=count).padding for count in (1, 2, 6, 16)]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[-1] < shares[0] < 0.6

    def test_long_pairs_are_left_out_of_training_and_counted(self):
        batches = self.batches(max_length=20)
        long = (self.lengths.max(axis=0) > 20).sum()
        assert batches.num_dropped == long > 0
        kept = {i for k in range(len(batches)) for i in batches[k]["ids"] if i >= 0}
        assert len(kept) == 300 - long


def test_two_shapes_are_no_worse_than_a_cut_and_not_better_than_can_be():
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
    found = bucket_numbers(source, target, 2)
    assert best <= padded([found == 0, found == 1]) <= min(rivals)


def test_equal_lengths_need_one_bucket():
    same = np.full(7, 4)
    assert set(bucket_numbers(same, same, 5)) == {0}


class TestStreams:
    def test_every_token_comes_out_once_a_pass_and_in_order(self):
        text = encoded([60])
        batches = TextBatches(text, rows=4, length=5)
        labels = np.concatenate([batches[k]["labels"] for k in range(3)], axis=1)
        np.testing.assert_array_equal(labels.ravel(), text.tokens)

    @pytest.mark.parametrize("size", [60, 61, 67])
    def test_row_b_of_batch_k_plus_1_continues_row_b_of_batch_k(self, size):
        batches = TextBatches(encoded([size]), rows=4, length=5)
        for k in range(40):
            here, after = batches[k], batches[k + 1]
            np.testing.assert_array_equal(here["labels"][:, -1], after["tokens"][:, 0])
            np.testing.assert_array_equal(here["labels"][:, :-1], here["tokens"][:, 1:])
            assert not after["reset"].any()

    def test_no_token_is_favoured(self):
        text = Encoded(np.arange(67), np.asarray([0, 67]), 0, 0, 0)
        batches = TextBatches(text, rows=4, length=5)
        count = np.zeros(67, int)
        for k in range(67):
            np.add.at(count, batches[k]["labels"].ravel(), 1)
        assert set(count) == {4 * 5}

    @pytest.mark.parametrize(("size", "rows"), [(60, 4), (61, 4), (7, 3), (5, 1)])
    def test_evaluation_scores_every_token_exactly_once(self, size, rows):
        text = Encoded(np.arange(10, 10 + size), np.asarray([0, size]), 0, 0, 0)
        batches = TextOnce(text, rows=rows, length=5)
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


def test_data_needs_neither_jax_nor_tensorflow():
    code = "import sys, data.dataset; print({'jax', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
