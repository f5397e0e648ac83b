"""Tokenizers, encoding and batches."""

import json
import string
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict

from data import encoder
from data.bucket_shapes import bucket_numbers
from data.buckets import make_plan, open_plan
from data.encoder import Side
from data.encoding import Encoded, open_encoded
from data.filters import kept_pairs
from data.mixtures import mix, parts_of
from data.normalization import Normalizer
from data.permutation import Permutation
from data.sentences import SentenceBatches
from data.storage import written_whole
from data.streams import TextBatches, TextOnce
from data.tokenizers import (
    BOS,
    EOS,
    PAD,
    SPECIAL,
    UNK,
    dump_tokenizer,
    parse_tokenizer,
    read_vocabulary,
    train_tokenizer,
)
from data.vocabularies import open_tokenizers
from errors import UserError

SIZES = {"sentencepiece": 74, "unigram": 33}  # as many as the texts have
TEXTS = ["the cat sat on the mat", "a dog ate the cat", "über 12,5 °C — 東京 m²", ""]


class FakeCorpus:
    name, version, kind = "fake/en-de", "1.0.0", "parallel"
    splits = {"train": 3, "test": 1}  # noqa: RUF012
    fields = ("en", "de")

    def read(self, split, start=0, stop=None):
        pairs = [("the cat", "die Katze"), ("a dog", "ein Hund"), ("x", "")]
        return iter(pairs[: self.splits[split]][start:stop])


def encoded(lengths, seed=0):
    """Examples of given lengths, EOS included, whose tokens tell where they stand."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(seed).integers(4, 99, offsets[-1]).astype(np.uint16)
    tokens[offsets[1:] - 1] = EOS
    return Encoded(tokens, offsets, 0, 0, 0)


@pytest.mark.parametrize("kind", ["byte", "char", "word", "sentencepiece", "unigram"])
class TestTokenizers:
    def test_text_comes_back_as_it_was(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert UNK not in ids
            assert max(ids, default=0) < tokenizer.vocab_size
            assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text

    def test_it_is_the_same_after_saving(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        again = parse_tokenizer(dump_tokenizer(tokenizer))
        assert again.vocab_size == tokenizer.vocab_size
        assert [again.encode(text) for text in TEXTS] == [
            tokenizer.encode(text) for text in TEXTS
        ]
        json.loads(dump_tokenizer(tokenizer))

    def test_pieces_are_as_many_as_numbers(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        ids = [BOS, *tokenizer.encode(TEXTS[2]), EOS]
        assert len(tokenizer.pieces(ids)) == len(ids)

    def test_learning_twice_gives_the_same(self, kind):
        one, two = (
            train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1) for _ in range(2)
        )
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
    with pytest.raises(UserError, match=r"vocab_size=75 is more than .* 74 pieces"):
        train_tokenizer("sentencepiece", TEXTS, 75, 1)


def test_encoding_keeps_every_token_and_is_done_once(tmp_path):
    corpus = FakeCorpus()
    calls = []

    def train():
        calls.append(1)
        return {"joint": train_tokenizer("byte", [], 99, 1)}

    for _ in range(2):
        joint = open_tokenizers(corpus, tmp_path, {"tokenizer": "byte"}, train)["joint"]
        sides = [("source", joint), ("target", joint)]
        found, _ = open_encoded(corpus, tmp_path, sides)
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

    def batches(self, seed=1, **options):
        source, target = (encoded(row, i) for i, row in enumerate(self.lengths))
        plan = make_plan(source, target, **{"count": 6, "batch_tokens": 200} | options)
        return SentenceBatches(source, target, plan, seed)

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

    def test_only_pairs_that_are_kept_come_out(self):
        kept = np.flatnonzero(self.lengths.max(axis=0) <= 20)
        batches = self.batches(kept=kept)
        found = [i for k in range(len(batches)) for i in batches[k]["ids"] if i >= 0]
        assert sorted(found) == kept.tolist()

    def test_the_parts_of_a_batch_are_the_batch(self):
        batches = self.batches()
        for k in (0, 7):
            whole = batches[k]
            cut = len(whole["ids"]) // 2
            parts = [batches.part(k, slice(0, cut)), batches.part(k, slice(cut, None))]
            for name, value in whole.items():
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(joined, value)

    def test_a_plan_is_made_once_and_then_read(self, tmp_path):
        batches, made = self.batches(), []

        def make():
            made.append(1)
            return batches.plan

        plans = [open_plan(tmp_path / "plan", make) for _ in range(2)]
        again = SentenceBatches(batches.source, batches.target, plans[1], seed=1)
        assert made == [1]
        for name, value in batches[3].items():
            np.testing.assert_array_equal(value, again[3][name])


@pytest.mark.parametrize("size", [1, 2, 5, 64, 1000])
def test_a_permutation_has_every_number_once_and_differs_by_key(size):
    everything = np.arange(size)
    one = Permutation(size, 1, 2)[everything]
    assert sorted(one) == list(range(size))
    np.testing.assert_array_equal(one, Permutation(size, 1, 2)[everything])
    if size > 5:
        assert (one != everything).mean() > 0.9
        assert (one != Permutation(size, 1, 3)[everything]).mean() > 0.9


def test_where_a_permutation_sends_a_number_is_anyone_s_guess():
    # Each of 16 places should get each of 16 numbers equally often.
    count = np.zeros((16, 16))
    for seed in range(1600):
        count[np.arange(16), Permutation(16, seed)[np.arange(16)]] += 1
    spread = ((count - 100) ** 2 / 100).sum()
    assert 150 < spread < 310  # chi squared, 225 degrees of freedom


FILTERS = {
    "max_length": 9,
    "min_length": 1,
    "max_ratio": 0.0,
    "drop_identical": False,
    "drop_duplicates": False,
}


@pytest.mark.parametrize(
    ("change", "kept", "reason"),
    [
        ({}, [0, 1, 2, 3, 4], "longer than data.max_length=9"),
        ({"min_length": 2}, [0, 1, 2, 3], "shorter than data.min_length=2"),
        ({"max_ratio": 2.5}, [0, 1, 2, 4], "data.max_ratio=2.5"),
        ({"drop_identical": True}, [0, 1, 3, 4], "identical"),
        ({"drop_duplicates": True}, [0, 2, 3, 4], "seen before"),
    ],
)
def test_pairs_are_left_out_for_a_reason_and_counted(change, kept, reason):
    tokenizer = train_tokenizer("word", ["a b c d e f g h i"], 99, 1)
    pairs = [
        *(("a b", "c d"), ("a b", "c d"), ("e f", "e f"), ("a b c d e f g", "h i")),
        *(("a", "b"), ("a b c d e f g h i", "a")),
    ]
    sides = [Side(tokenizer) for _ in range(2)]
    for pair in pairs:
        for side, text in zip(sides, pair, strict=True):
            side.add(text)
    source, target = (
        Encoded(
            np.asarray(side.tokens),
            np.concatenate([[0], np.cumsum(side.lengths)]),
            *(0, 0, 0),
            np.asarray(side.hashes),
        )
        for side in sides
    )
    found, dropped = kept_pairs(source, target, ConfigDict(FILTERS | change))
    assert found.tolist() == kept
    assert [name for name in dropped if reason in name]
    assert sum(dropped.values()) == len(pairs) - len(kept)


def test_moses_and_lower_case_come_before_tokens_and_moses_is_undone():
    normal = Normalizer("de", moses=True, lowercase=True)
    text = 'Ein "Mann" sagt: z.B. heute!'
    assert normal.apply(text) == 'ein " mann " sagt : z.b. heute !'
    assert normal.undo(normal.apply(text)) == 'ein "mann" sagt: z.b. heute!'
    tokenizer = train_tokenizer("word", [normal.apply(text)], 99, 1)
    again = parse_tokenizer(dump_tokenizer(tokenizer.with_normal(normal)))
    assert again.decode(again.encode(text)) == normal.comparable(text)
    assert again.shares_vocabulary(tokenizer)
    assert not again.shares_vocabulary(train_tokenizer("word", ["x"], 99, 1))


class OtherCorpus(FakeCorpus):
    name, languages = "other/en-fr", ("en", "fr")
    splits = {"train": 2, "validation": 1}  # noqa: RUF012
    fields = ("en", "fr")


class TestMixtures:
    def mixture(self, tagged=True):
        first = FakeCorpus()
        first.languages = ("en", "de")
        return mix([(first, 1), (OtherCorpus(), 2)], tagged=tagged)

    def test_each_part_comes_as_often_as_its_weight_says(self):
        mixture = self.mixture()
        sources = [source for source, _ in mixture.read("train")]
        assert mixture.splits == {"train": 3 + 2 * 2, "test": 1}
        assert sources == [
            *("<2de> the cat", "<2de> a dog", "<2de> x"),
            *("<2fr> the cat", "<2fr> a dog") * 2,
        ]
        assert list(mixture.read("test")) == [("<2de> the cat", "die Katze")]

    @pytest.mark.parametrize(("start", "stop"), [(0, 2), (2, 4), (3, 7), (6, None)])
    def test_any_part_can_be_read_alone(self, start, stop):
        mixture = self.mixture()
        everything = list(mixture.read("train"))
        assert list(mixture.read("train", start, stop)) == everything[start:stop]

    def test_several_targets_need_tags(self):
        with pytest.raises(UserError, match="target languages de, fr"):
            self.mixture(tagged=False)

    def test_names_say_how_often_a_corpus_comes(self):
        assert parts_of("a/en-de+b/en-de:3") == [("a/en-de", 1), ("b/en-de", 3)]
        assert parts_of("ted_hrlr/x:1.0.0") == [("ted_hrlr/x:1.0.0", 1)]
        with pytest.raises(UserError, match="'much' behind b is no weight"):
            parts_of("a+b:much")


def test_a_tag_names_the_target_language_and_is_not_shown():
    tagged = Normalizer(tag="<2de>")
    assert tagged.apply("a cat") == "<2de> a cat"
    assert tagged.undo("<2de> a cat") == "a cat"
    assert tagged.apply("<2fr> a cat") == "<2fr> a cat"  # asked for in the text


class TestVocabularyFiles:
    def test_a_list_of_words_is_taken_in_its_order(self, tmp_path):
        path = tmp_path / "words.txt"
        path.write_text("<unk>\nthe\ncat\n")
        tokenizer = read_vocabulary("word", path)
        assert tokenizer.symbols == [*SPECIAL, "the", "cat"]

    def test_a_model_of_sentencepiece_is_taken_as_it_is(self, tmp_path):
        path = tmp_path / "pieces.model"
        trained = train_tokenizer("sentencepiece", TEXTS, 74, 1)
        path.write_bytes(trained.model)
        assert read_vocabulary("sentencepiece", path).shares_vocabulary(trained)

    def test_what_is_not_there_or_no_model_is_refused(self, tmp_path):
        path = tmp_path / "pieces.model"
        with pytest.raises(UserError, match="there is no such file"):
            read_vocabulary("sentencepiece", path)
        path.write_text("not a model")
        with pytest.raises(UserError, match="no model of SentencePiece"):
            read_vocabulary("sentencepiece", path)
        with pytest.raises(UserError, match="byte needs none"):
            read_vocabulary("byte", path)


def test_a_corpus_in_parts_is_encoded_by_several_and_goes_on_after_a_kill(
    tmp_path, monkeypatch
):
    corpus = FakeCorpus()
    byte = train_tokenizer("byte", [], 99, 1)
    sides = [("source", byte), ("target", byte)]
    whole, _ = open_encoded(corpus, tmp_path / "whole", sides)
    monkeypatch.setattr(encoder, "PART", 1)
    once = encoder.encode_part
    done = []

    def killed(corpus, part, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.name)
        once(corpus, part, *rest)

    monkeypatch.setattr(encoder.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(encoder, "encode_part", killed)
    with pytest.raises(KeyboardInterrupt):
        open_encoded(corpus, tmp_path / "parts", sides)
    monkeypatch.setattr(encoder, "encode_part", once)
    monkeypatch.setattr(encoder.os, "cpu_count", lambda: 2)
    # As from a program without a guard around what it does: it must not run again.
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    main = sys.modules["__main__"]  # a worker of the tests' has no file
    monkeypatch.setattr(main, "__file__", str(program), raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    parts, folder = open_encoded(corpus, tmp_path / "parts", sides)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not (tmp_path / "ran").exists()
    for split, side in (("train", "source"), ("train", "target"), ("test", "target")):
        ours, theirs = parts[split][side], whole[split][side]
        for name in ("tokens", "offsets", "hashes"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.digest, ours.words) == (theirs.digest, theirs.words)


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

    def test_the_parts_of_a_batch_are_the_batch(self):
        batches = TextBatches(encoded([67]), rows=4, length=5)
        parts = [batches.part(9, rows) for rows in (slice(0, 1), slice(1, None))]
        for name, value in batches[9].items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, value)

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
