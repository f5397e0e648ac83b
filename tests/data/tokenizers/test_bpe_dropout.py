"""BPE-dropout: reproducible segmentations of the training split."""

import functools
import itertools
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from data import token_writer
from data.batching.bucketed import RotatingSegmentations
from data.dataset import open_dataset
from data.token_cache import open_segmentation, open_token_cache
from data.tokenizers.base import EOS
from data.tokenizers.bpe_dropout import BPEDropout
from data.tokenizers.build import train_tokenizer
from utils.errors import UserError

RANDOM = np.random.default_rng(5)
WORDS = ["".join(RANDOM.choice([*"abcde"], RANDOM.integers(2, 8))) for _ in range(80)]
PAIRS = [
    tuple(" ".join(RANDOM.choice(WORDS, RANDOM.integers(2, 9))) for _ in range(2))
    for _ in range(60)
]


class MadeUp:
    name, version, kind = "made-up/a-b", "1.0.0", "parallel"
    splits = {"train": 50, "validation": 10}  # noqa: RUF012
    fields = ("a", "b")

    def read(self, split, start=0, stop=None):
        found = PAIRS[:50] if split == "train" else PAIRS[50:]
        return itertools.islice(found, start, stop)


@functools.cache
def pieces():
    return train_tokenizer("sentencepiece", [a for pair in PAIRS for a in pair], 150, 1)


@pytest.fixture
def drawn(tmp_path):
    """Tokenizes one segmentation of the corpus in a new folder."""
    sides = [("source", pieces()), ("target", pieces())]
    folders = (tmp_path / str(number) for number in itertools.count())

    def draw(probability=0.3, seed=1, copy=0):
        return open_segmentation(
            MadeUp(), next(folders) / "x", sides, BPEDropout(probability, seed, copy)
        )

    return draw


def rows(side):
    return [side.tokens[a:b].tolist() for a, b in itertools.pairwise(side.offsets)]


def same(one, other):
    return all(
        np.array_equal(getattr(one[side], name), getattr(other[side], name))
        for side in ("source", "target")
        for name in ("tokens", "offsets", "hashes")
    )


def test_probability_zero_gives_the_ordinary_segmentation(drawn, tmp_path):
    sides = [("source", pieces()), ("target", pieces())]
    ordinary, _ = open_token_cache(MadeUp(), tmp_path, sides)
    assert same(drawn(probability=0.0), ordinary["train"])
    assert not same(drawn(), ordinary["train"])


def test_every_segmentation_decodes_to_the_same_text_in_more_pieces(drawn):
    for copy in range(3):
        for side, column in (("source", 0), ("target", 1)):
            found = rows(drawn(copy=copy)[side])
            texts = [pair[column] for pair in PAIRS[:50]]
            assert [pieces().decode(row) for row in found] == texts
            assert all(row[-1] == EOS for row in found)
            fewest = sum(len(pieces().encode(text)) + 1 for text in texts)
            assert sum(map(len, found)) > 1.05 * fewest


def test_segmentations_and_seeds_differ_and_their_text_hashes_do_not(drawn):
    copies = [drawn(copy=0), drawn(copy=1), drawn(seed=2)]
    for one, other in itertools.combinations(copies, 2):
        assert not same(one, other)
        np.testing.assert_array_equal(one["source"].hashes, other["source"].hashes)


def test_a_segmentation_is_the_same_in_any_number_of_processes(drawn, monkeypatch):
    monkeypatch.setattr(token_writer, "SHARD_EXAMPLES", 13)
    monkeypatch.setattr(token_writer.os, "cpu_count", lambda: 1)
    once, again = drawn(), drawn()
    monkeypatch.setattr(token_writer.os, "cpu_count", lambda: 2)
    program = sys.modules["__main__"]
    monkeypatch.setattr(program, "__spec__", None)
    apart = drawn()
    assert same(once, again)
    assert same(once, apart)


def test_a_resumed_segmentation_equals_an_uninterrupted_one(
    drawn, monkeypatch, tmp_path
):
    monkeypatch.setattr(token_writer, "SHARD_EXAMPLES", 13)
    monkeypatch.setattr(token_writer.os, "cpu_count", lambda: 1)
    whole, once, done = drawn(), token_writer.write_shard, []

    def killed(corpus, part, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part)
        once(corpus, part, *rest)

    sides = [("source", pieces()), ("target", pieces())]
    draw = functools.partial(
        open_segmentation, MadeUp(), tmp_path / "killed/x", sides, BPEDropout(0.3, 1, 0)
    )
    monkeypatch.setattr(token_writer, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        draw()
    monkeypatch.setattr(token_writer, "write_shard", once)
    assert same(draw(), whole)


@pytest.fixture
def own_text(tmp_path):
    """Returns the config of a parallel corpus in files."""
    folder = tmp_path / "source"
    folder.mkdir()
    for column, language in enumerate(("a", "b")):
        for split, texts in (("train", PAIRS[:50]), ("valid", PAIRS[50:])):
            lines = "".join(f"{pair[column]}\n" for pair in texts)
            (folder / f"{split}.{language}").write_text(lines)
    cfg = base.get_config().data
    cfg.name, cfg.vocab_size, cfg.tokens_per_batch = "parallel_text/a-b", 150, 150
    cfg.source_dir, cfg.dir, cfg.buckets = str(folder), str(tmp_path / "data"), 3
    return cfg


def changed(cfg, **changes):
    cfg = ConfigDict(cfg)
    cfg.update(changes)
    return cfg


def test_epochs_rotate_segmentations_and_hold_every_pair_once(own_text):
    dataset = open_dataset(changed(own_text, bpe_dropout=0.2, bpe_dropout_copies=2))
    batches = dataset.train_batches()
    assert isinstance(batches, RotatingSegmentations)
    assert len(batches.shapes) <= 3
    orders, k = [], 0
    for epoch in range(4):
        copy = dataset.segmentations[epoch % 2]
        seen = []
        while len(seen) < 50:
            batch = batches[k]
            for row, number in enumerate(batch["ids"]):
                if number >= 0:
                    seen.append(int(number))
                    for name, mask, side in (
                        ("source", "source_mask", "source"),
                        ("labels", "target_mask", "target"),
                    ):
                        there = batch[name][row][batch[mask][row]].tolist()
                        assert there == rows(copy[side])[number]
            shape = (*batch["source"].shape, batch["labels"].shape[1])
            assert shape in batches.shapes
            k += 1
        assert sorted(seen) == list(range(50))
        orders.append(seen)
    assert len(set(map(tuple, orders))) == 4
    np.testing.assert_array_equal(batches[1]["ids"], dataset.train_batches()[1]["ids"])


def test_partial_batches_of_hosts_make_the_whole_batch(own_text):
    dataset = open_dataset(changed(own_text, bpe_dropout=0.2, bpe_dropout_copies=2))
    batches = dataset.train_batches()
    k = batches.epoch_length + 1  # of the second copy
    whole = batches[k]
    halves = [
        batches.partial_batch(k, slice(0, 2)),
        batches.partial_batch(k, slice(2, None)),
    ]
    for name, value in whole.items():
        joined = np.concatenate([half[name] for half in halves])
        np.testing.assert_array_equal(joined, value)


def test_a_pair_too_long_in_one_segmentation_is_left_out_of_all(own_text):
    cfg = changed(own_text, bpe_dropout=0.3, bpe_dropout_copies=3)
    longest = np.max(
        [s.lengths for copy in open_dataset(cfg).segmentations for s in copy.values()],
        axis=0,
    )
    limit = int(np.median(longest))
    dataset = open_dataset(changed(cfg, max_length=limit))
    fits = np.flatnonzero(longest <= limit)
    assert sum(dataset.dropped.values()) == 50 - len(fits)
    for plan in dataset._train_plans:
        members = np.concatenate([bucket.members for bucket in plan.buckets])
        assert sorted(members) == fits.tolist()


def test_dropout_changes_neither_evaluation_nor_the_vocabulary(own_text):
    plain = open_dataset(own_text)
    with_dropout = open_dataset(changed(own_text, bpe_dropout=0.2))
    assert len(with_dropout.segmentations) == own_text.bpe_dropout_copies
    assert with_dropout.folder == plain.folder
    assert with_dropout.hashes["vocabulary"] == plain.hashes["vocabulary"]
    assert with_dropout.hashes["data"] != plain.hashes["data"]
    batches = with_dropout.evaluation_batches("validation", batch_size=8)
    one = plain.evaluation_batches("validation", batch_size=8)
    for name, value in one[0].items():
        np.testing.assert_array_equal(batches[0][name], value)


def test_the_folder_of_a_segmentation_depends_on_probability_seed_and_number(
    own_text, tmp_path
):
    for change in ({}, {"seed": 7}, {"bpe_dropout": 0.3}):
        cfg = {"bpe_dropout": 0.2, "bpe_dropout_copies": 2, **change}
        open_dataset(changed(own_text, **cfg))
    names = [path.name for path in (tmp_path / "data/encoded").glob("*/*-dropout-*")]
    assert len(names) == 6
    open_dataset(changed(own_text, bpe_dropout=0.2, bpe_dropout_copies=3))
    more = [path.name for path in (tmp_path / "data/encoded").glob("*/*-dropout-*")]
    assert len(more) == 7  # the first two are found again


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": "word"}, "data.tokenizer='word' has none: use 'sentencepiece'"),
        ({"tokenizer": "unigram", "vocab_size": 60}, "data.tokenizer='unigram' has"),
        ({"document_order": True}, "excludes data.document_order=True"),
        ({"bpe_dropout": 1.0}, "data.bpe_dropout=1.0: it must be at least 0"),
        ({"bpe_dropout": -0.1}, "data.bpe_dropout=-0.1: it must be at least 0"),
        ({"bpe_dropout_copies": 0}, "data.bpe_dropout_copies=0"),
    ],
)
def test_invalid_settings_are_refused(own_text, changes, said):
    with pytest.raises(UserError) as error:
        open_dataset(changed(own_text, **{"bpe_dropout": 0.1, **changes}))
    assert said in str(error.value)


def test_a_text_corpus_is_refused(own_text, tmp_path):
    for name in ("train", "valid"):
        lines = "".join(f"{pair[0]}\n" for pair in PAIRS)
        (tmp_path / "source" / f"{name}.txt").write_text(lines)
    with pytest.raises(UserError, match="needs a parallel corpus"):
        open_dataset(changed(own_text, name="plain_text", bpe_dropout=0.1))


def test_a_given_model_that_has_no_merges_is_refused(own_text, tmp_path):
    path = tmp_path / "model"
    texts = [text for pair in PAIRS for text in pair]
    for kind, size in (("sentencepiece", 150), ("unigram", 60)):
        path.write_bytes(train_tokenizer(kind, texts, size, 1).model)
        cfg = changed(own_text, vocabulary=str(path), bpe_dropout=0.1)
        if kind == "sentencepiece":
            assert open_dataset(cfg).segmentations
            continue
        with pytest.raises(UserError, match="not learned by byte-pair encoding"):
            open_dataset(cfg)
