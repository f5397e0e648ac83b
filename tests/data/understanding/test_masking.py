"""Batches of masked language modeling."""

import functools
import itertools

import numpy as np
import pytest

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL
from data.tokenizers.build import train_tokenizer
from data.understanding import masking
from data.understanding.documents import Documents
from data.understanding.markers import MARKERS
from data.understanding.masking import (
    MaskedBatches,
    MaskingOptions,
    PieceTable,
    rank_words,
)
from data.understanding.segments import SentencePairs, cut_pairs, pack_segments
from utils.errors import UserError

LENGTH = 24
WORDS = ["ab", "abc", "b", "cab", "abab"]
CASES = {
    "plain": {},
    "whole words": {"whole_word": True},
    "next sentence": {"next_sentence": True},
    "both": {"whole_word": True, "next_sentence": True},
    "documents": {"document_order": True},
    "short": {"short_fraction": 0.5},
    "short pairs": {"short_fraction": 0.5, "next_sentence": True},
}


@functools.cache
def tokenizer():
    kept = train_tokenizer("wordpiece", [" ".join(WORDS), "ab abab"], 14, 1)
    return kept.with_tags(MARKERS)


def make_documents(seed=0, num_documents=8, max_sentences=12, max_words=7):
    """Returns random documents of random words."""
    random = np.random.default_rng(seed)
    tokens, sentences, documents = [], [0], [0]
    for _ in range(num_documents):
        for _ in range(random.integers(1, max_sentences)):
            words = random.choice(WORDS, random.integers(1, max_words))
            tokens += tokenizer().encode(" ".join(words))
            sentences.append(len(tokens))
        documents.append(len(sentences) - 1)
    arrays = map(np.asarray, (tokens, sentences, documents))
    return Documents(*arrays)


def make_batches(documents=None, seed=3, batch_size=5, document_order=False, **options):
    return MaskedBatches(
        make_documents() if documents is None else documents,
        tokenizer(),
        MaskingOptions(**{"probability": 0.3, **options}),
        batch_size=batch_size,
        max_length=LENGTH,
        document_order=document_order,
        seed=seed,
    )


def restored(batch):
    """Returns the tokens of a batch before they were masked."""
    tokens = batch["tokens"].copy()
    rows, columns = np.nonzero(batch["weights"])
    places = batch["positions"][rows, columns]
    tokens[rows, places] = batch["labels"][rows, columns]
    return tokens


def texts_of(row, mask):
    """Returns the texts of a row without BOS and EOS."""
    row = row[mask].tolist()
    assert row[0] == BOS
    assert row[-1] == EOS
    ends = [i for i, token in enumerate(row) if token == EOS]
    return [row[a + 1 : b] for a, b in itertools.pairwise([0, *ends])]


@pytest.mark.parametrize("case", CASES)
class TestEveryKind:
    def test_a_batch_is_a_function_of_its_number_alone(self, case):
        one, two = (make_batches(**CASES[case]) for _ in range(2))
        for k in (0, 7, 40):
            for name, value in one[k].items():
                np.testing.assert_array_equal(two[k][name], value)
        three = make_batches(seed=4, **CASES[case])
        assert any((three[k]["tokens"] != one[k]["tokens"]).any() for k in range(3))

    def test_some_rows_are_those_of_the_whole_batch(self, case):
        batches = make_batches(**CASES[case])
        for k in (0, 11):
            whole = batches[k]
            for rows in (slice(0, 2), slice(2, None), slice(1, 5, 3)):
                for name, value in batches.partial_batch(k, rows).items():
                    np.testing.assert_array_equal(value, whole[name][rows])

    def test_arrays_have_their_shapes_and_types(self, case):
        batch = make_batches(**CASES[case])[1]
        shapes = {"tokens": (5, LENGTH), "positions": (5, 8), "ids": (5,)}
        types = {"weights": "float32", "mask": "bool", "reset": "bool"}
        assert ("is_next" in batch) is CASES[case].get("next_sentence", False)
        for name, value in batch.items():
            like = {"segment_ids": "tokens", "mask": "tokens"}.get(name, name)
            like = "positions" if name in ("labels", "weights") else like
            assert value.shape == shapes.get(like, (5,)), name
            assert value.dtype == types.get(name, "int32"), name

    def test_predicted_tokens_are_of_the_text_and_nothing_else_changes(self, case):
        documents = make_documents()
        batches = make_batches(documents, **CASES[case])
        text = documents.tokens.tolist()
        joined = ",".join(map(str, text))
        for k in range(batches.epoch_length):
            batch = batches[k]
            tokens, chosen = restored(batch), batch["weights"] > 0
            assert (batch["labels"][chosen] >= len(SPECIAL) - 2).all()
            assert (batch["labels"][~chosen] == PAD).all()
            for row in range(5):
                if batch["ids"][row] < 0:
                    assert not batch["mask"][row].any()
                    continue
                places = batch["positions"][row][chosen[row]].tolist()
                assert places == sorted(set(places))
                assert batch["mask"][row][places].all()
                inside = texts_of(tokens[row], batch["mask"][row])
                second = batch["segment_ids"][row] == 1
                assert second.sum() == (len(inside[1]) + 1 if len(inside) > 1 else 0)
                for one in inside:
                    assert one
                    assert ",".join(map(str, one)) in joined
            assert (batch["tokens"][~batch["mask"]] == PAD).all()

    def test_evaluation_reads_each_segment_once_with_masks_of_any_batch_size(
        self, case
    ):
        found = []
        for size in (3, 7):
            batches = make_batches(seed=None, batch_size=size, **CASES[case])
            rows = {}
            for k in range(len(batches)):
                batch = batches[k]
                for row, index in enumerate(batch["ids"].tolist()):
                    if index >= 0:
                        assert index not in rows
                        kept = ("tokens", "labels", "positions")
                        rows[index] = [batch[name][row].tolist() for name in kept]
            assert sorted(rows) == list(range(batches.num_segments))
            found.append(rows)
            with pytest.raises(IndexError):
                batches[len(batches)]
        assert found[0] == found[1]


def count_tokens(batches, num_batches):
    """Returns original tokens, inputs and chosen places of many rows."""
    originals, inputs, chosen, masks = [], [], [], []
    for k in range(num_batches):
        batch = batches[k]
        originals.append(restored(batch))
        inputs.append(batch["tokens"])
        masks.append(batch["mask"])
        places = np.zeros(batch["mask"].shape, bool)
        rows, columns = np.nonzero(batch["weights"])
        places[rows, batch["positions"][rows, columns]] = True
        chosen.append(places)
    return (np.concatenate(parts) for parts in (originals, inputs, chosen, masks))


@pytest.mark.parametrize("whole_word", [False, True])
def test_proportions_are_those_of_bert(whole_word):
    batches = make_batches(batch_size=50, probability=0.15, whole_word=whole_word)
    originals, inputs, chosen, mask = count_tokens(batches, 80)
    is_text = mask & ~np.isin(originals, (BOS, EOS))
    assert not (chosen & ~is_text).any()
    # Numbers are rounded for each text.
    wanted = np.maximum(1, np.round(0.15 * is_text.sum(axis=1)))
    if whole_word:
        assert (chosen.sum(axis=1) <= wanted).all()
        assert 0.7 * wanted.sum() < chosen.sum()
    else:
        np.testing.assert_array_equal(chosen.sum(axis=1), wanted)
    count = chosen.sum()
    is_masked = inputs[chosen] == tokenizer().tags["<mask>"]
    is_same = inputs[chosen] == originals[chosen]
    spread = 5 * np.sqrt(0.25 / count)
    ordinary = len(PieceTable(tokenizer()).ordinary)
    assert abs(is_masked.mean() - 0.8) < spread
    assert abs(is_same.mean() - 0.1 - 0.1 / ordinary) < spread
    drawn = inputs[chosen][~is_masked & ~is_same]
    assert set(drawn) == set(PieceTable(tokenizer()).ordinary.tolist())
    assert min(drawn) >= len(SPECIAL)
    # Each place of a full text is as likely as any other.
    if not whole_word:
        full = is_text.sum(axis=1) == LENGTH - 2
        assert full.sum() > 500
        rates = chosen[full, 1:-1].mean(axis=0)
        spread = np.sqrt(0.15 * 0.85 / full.sum())
        assert np.abs(rates - rates.mean()).max() < 4 * spread


def test_whole_words_are_chosen_together():
    batches = make_batches(whole_word=True, batch_size=40)
    begins = PieceTable(tokenizer()).begins_word
    originals, _, chosen, mask = count_tokens(batches, 10)
    is_text = mask & ~np.isin(originals, (BOS, EOS))
    continues = is_text & ~begins[originals]
    assert continues.sum() > 100
    before = np.roll(chosen, 1, axis=1)
    cut = np.roll(~is_text, 1, axis=1)  # a long sentence is cut inside of a word
    np.testing.assert_array_equal((chosen != before) & continues & ~cut, False)
    assert chosen.any(axis=1).mean() > 0.9


def test_a_word_longer_than_the_share_of_its_text_is_chosen_where_no_other_is():
    begins = np.asarray([[True, False, True, False, False], [True, False] * 2 + [True]])
    ranks = np.asarray([[0.9, 0.5, 0.1, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
    is_text, wanted = np.ones(begins.shape, bool), np.asarray([1, 1])
    chosen, count = rank_words(ranks, begins, is_text, wanted, 2)
    assert count.tolist() == [2, 1]  # three tokens are too many
    assert chosen.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]
    _, count = rank_words(ranks, begins, is_text, wanted, 1)
    assert count.tolist() == [0, 1]


def test_whether_any_word_can_be_predicted_is_known(monkeypatch):
    monkeypatch.setattr(masking, "WORDS_BLOCK", 7)  # words lie across blocks
    words = sorted((tokenizer().encode(word) for word in WORDS), key=len)
    long, short = words[-1], words[0]
    assert len(short) == 1 < len(long)
    for words, expected in (([long] * 9, False), ([*[long] * 9, short], True)):
        tokens = np.asarray([i for word in words for i in word])
        documents = Documents(tokens, np.asarray([0, len(tokens)]), np.asarray([0, 1]))
        batches = make_batches(documents, whole_word=True, probability=1 / LENGTH)
        assert batches.can_predict() is expected
        assert make_batches(documents, probability=1 / LENGTH).can_predict()


def test_masks_change_from_epoch_to_epoch():
    batches = make_batches(batch_size=1)
    rows = {}
    for k in range(3 * batches.num_segments):
        batch = batches[k]
        rows.setdefault(int(batch["ids"][0]), []).append(batch["tokens"].tolist())
    assert all(len(tokens) == 3 for tokens in rows.values())
    assert sum(one != two for one, two, _ in rows.values()) > len(rows) // 2


class TestNextSentences:
    def test_half_of_the_second_texts_are_next_and_others_of_another_document(self):
        documents = make_documents(num_documents=12)
        pairs = SentencePairs(documents, LENGTH - 3)
        random = np.random.default_rng(0)
        indices = np.resize(np.arange(len(pairs)), 4000)
        lengths = np.full(4000, pairs.room)
        draws = random.random((4000, 4))
        first, second, is_next = pairs.divide(indices, lengths, draws)
        assert abs(is_next.mean() - 0.5) < 0.04
        assert ((first[:, 1] - first[:, 0]) > 0).all()
        assert ((second[:, 1] - second[:, 0]) > 0).all()
        owner = [
            np.searchsorted(documents.sentences, place, side="right") - 1
            for place in (first[:, 0], first[:, 1] - 1, second[:, 0], second[:, 1] - 1)
        ]
        owner = [np.searchsorted(documents.documents, s, "right") - 1 for s in owner]
        np.testing.assert_array_equal(owner[0], owner[1])
        np.testing.assert_array_equal(owner[2], owner[3])
        np.testing.assert_array_equal(owner[0], pairs.owners[indices])
        np.testing.assert_array_equal(owner[0] == owner[2], is_next)
        np.testing.assert_array_equal((first[:, 1] == second[:, 0]), is_next)
        # The boundary is that of two sentences, and all documents are drawn.
        assert np.isin(first[:, 1], documents.sentences).all()
        assert np.isin(second[:, 0], documents.sentences).all()
        assert set(owner[2][~is_next]) == set(range(12))
        totals = first[:, 1] - first[:, 0] + second[:, 1] - second[:, 0]
        assert totals.max() <= LENGTH - 3

    def test_two_documents_always_take_from_each_other(self):
        documents = make_documents(num_documents=2)
        batches = make_batches(documents, next_sentence=True)
        labels = np.concatenate([batches[k]["is_next"] for k in range(60)])
        assert 0.3 < labels.mean() < 0.7

    def test_documents_of_one_sentence_are_second_texts_only(self):
        documents = Documents(
            np.arange(4, 13), np.asarray([0, 3, 6, 8, 9]), np.asarray([0, 3, 4])
        )
        pairs = SentencePairs(documents, 30)
        assert pairs.owners.tolist() == [0]
        documents = Documents(
            np.arange(4, 13), np.asarray([0, 3, 6, 8, 9]), np.asarray([0, 1, 2, 3, 4])
        )
        assert not len(SentencePairs(documents, 30))

    def test_a_last_sentence_that_is_left_alone_follows_the_one_before(self):
        documents = Documents(
            np.arange(12), np.asarray([0, 4, 8, 12]), np.asarray([0, 3])
        )
        pairs = SentencePairs(documents, 8)
        assert pairs.first.tolist() == [0, 1]
        assert pairs.last.tolist() == [2, 3]


@pytest.mark.parametrize("room", [2, 5, 8])
def test_the_longer_text_of_a_pair_is_cut(room):
    for first, second in itertools.product(range(1, 12), repeat=2):
        a, b = first, second
        while a + b > room:
            a, b = (a - 1, b) if a > b else (a, b - 1)
        found = cut_pairs(np.asarray([first]), np.asarray([second]), room)
        assert (found[0].item(), found[1].item()) == (a, b)


class TestSegments:
    def test_they_hold_every_token_once_and_whole_sentences(self):
        documents = make_documents(num_documents=20)
        segments = pack_segments(documents, 12)
        np.testing.assert_array_equal(segments.starts[1:], segments.ends[:-1])
        assert segments.starts[0] == 0
        assert segments.ends[-1] == len(documents.tokens)
        lengths = segments.ends - segments.starts
        assert lengths.max() <= 12
        assert lengths.min() >= 1
        for end, length in zip(segments.ends.tolist(), lengths.tolist(), strict=True):
            assert end in documents.sentences or length == 12
        firsts = documents.sentences[documents.documents[:-1]]
        begins = segments.starts[segments.first_segments[:-1]]
        np.testing.assert_array_equal(begins, firsts)
        # No segment could take one sentence more.
        for number, end in enumerate(segments.ends[:-1].tolist()):
            place = np.searchsorted(documents.sentences, end)
            if end in firsts or documents.sentences[place] != end:
                continue
            total = documents.sentences[place + 1] - segments.starts[number]
            assert total > 12

    def test_a_long_sentence_is_cut_into_segments(self):
        documents = Documents(
            np.arange(13), np.asarray([0, 2, 11, 13]), np.asarray([0, 3])
        )
        segments = pack_segments(documents, 4)
        assert segments.starts.tolist() == [0, 2, 6, 10, 11]
        assert segments.ends.tolist() == [2, 6, 10, 11, 13]
        assert segments.first_segments.tolist() == [0, 5]


class TestShortSegments:
    def test_a_fraction_is_cut_after_a_sentence_and_no_other_changes(self):
        documents = make_documents(num_documents=60, max_sentences=40, max_words=3)
        short, whole = (
            make_batches(documents, batch_size=50, short_fraction=fraction)
            for fraction in (0.4, 0.0)
        )
        numbers, is_cut = [], []
        for k in range(4 * short.epoch_length):
            one, other = short[k], whole[k]
            np.testing.assert_array_equal(one["ids"], other["ids"])
            length = one["mask"].sum(axis=1)
            is_cut.append(length < other["mask"].sum(axis=1))
            for row, index in enumerate(one["ids"].tolist()):
                count = length[row] - 1  # [CLS] and text
                for name in one if not is_cut[-1][row] else ():
                    np.testing.assert_array_equal(one[name][row], other[name][row])
                end = whole.segments.starts[index] + count - 1
                assert end in documents.sentences or not is_cut[-1][row]
                tokens = restored(one)[row]
                assert tokens[count] == EOS
                np.testing.assert_array_equal(
                    tokens[:count], restored(other)[row][:count]
                )
                numbers.append(count - 1)
        # A short segment of this length, or of the next sentence's end, is not cut.
        assert 0.2 < np.concatenate(is_cut).mean() < 0.4
        assert {1, 2, 3, 4, 5} & set(numbers)

    def test_short_pairs_have_both_texts_and_half_are_next(self):
        documents = make_documents(num_documents=60, max_sentences=40, max_words=3)
        batches = make_batches(
            documents, batch_size=50, next_sentence=True, short_fraction=1.0
        )
        whole = make_batches(documents, batch_size=50, next_sentence=True)
        lengths, full, is_next = [], [], []
        for k in range(4 * batches.epoch_length):
            batch = batches[k]
            lengths.append(batch["mask"].sum(axis=1))
            full.append(whole[k]["mask"].sum(axis=1))
            is_next.append(batch["is_next"])
            assert (batch["segment_ids"].sum(axis=1) >= 2).all()  # a token and [SEP]
        lengths, full = np.concatenate(lengths), np.concatenate(full)
        assert abs(np.concatenate(is_next).mean() - 0.5) < 0.05
        assert lengths.max() <= LENGTH
        assert lengths.mean() < 0.8 * full.mean()

    def test_an_evaluation_reads_whole_segments(self):
        for case in ({}, {"next_sentence": True}):
            one, other = (
                make_batches(seed=None, short_fraction=fraction, **case)
                for fraction in (0.9, 0.0)
            )
            for k in range(len(one)):
                for name, value in one[k].items():
                    np.testing.assert_array_equal(value, other[k][name])


class TestDocumentOrder:
    @pytest.mark.parametrize("seed", [None, 5])
    def test_rows_continue_until_a_reset(self, seed):
        documents = make_documents(num_documents=9, max_sentences=30)
        batches = make_batches(documents, seed=seed, batch_size=4, document_order=True)
        firsts = set(batches.segments.first_segments.tolist())
        epochs = 1 if seed is None else 2
        seen, previous = [], np.full(4, -9)
        for k in range(epochs * batches.epoch_length):
            ids, reset = batches[k]["ids"], batches[k]["reset"]
            for row in range(4):
                if ids[row] < 0:
                    assert reset[row]
                elif not reset[row]:
                    assert ids[row] == previous[row] + 1
                    assert int(ids[row]) not in firsts
                else:
                    assert int(ids[row]) in firsts or k % batches.epoch_length == 0
                seen.append(int(ids[row]))
            previous = ids
        counts = np.bincount([index for index in seen if index >= 0])
        assert set(counts.tolist()) == {epochs}
        assert len(counts) == batches.num_segments
        assert seen.count(-1) < 4 * epochs

    def test_documents_come_in_another_order_in_each_epoch(self):
        batches = make_batches(batch_size=1, document_order=True)
        ids = [int(batches[k]["ids"][0]) for k in range(2 * batches.epoch_length)]
        half = batches.epoch_length
        assert sorted(ids[:half]) == sorted(ids[half:])
        assert ids[:half] != ids[half:]


@pytest.mark.parametrize(
    ("kind", "size", "text", "begins"),
    [
        ("sentencepiece", 9, "aab aab", {"\u2581aab": True, "b": False}),
        ("char", 9, "ab c", {"a": True, "b": True}),
        ("word", 9, "ab c", {"ab": True}),
        ("wordpiece", 12, "aab aab", {"aab": True, "##b": False}),
    ],
)
def test_words_are_known_from_the_pieces(kind, size, text, begins):
    if kind == "sentencepiece":
        size = 4 + 3 + 3
    plain = train_tokenizer(kind, [text], size, 1)
    table = PieceTable(plain.with_tags(MARKERS))
    for piece, expected in begins.items():
        number = plain.token_to_id(piece)
        if number is not None:
            assert table.begins_word[number] == expected
    assert table.ordinary.tolist() == list(range(len(SPECIAL), plain.vocab_size))
    with pytest.raises(UserError, match="has no <mask>"):
        PieceTable(plain)
