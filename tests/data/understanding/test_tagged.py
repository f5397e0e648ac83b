"""Tagged sentences: tokens of words, tags, intents, and what a cut loses."""

import collections
import functools

import numpy as np
import pytest

from configs import base
from data.tokenizers.base import BOS, EOS, SPECIAL, UNK
from data.tokenizers.symbols import CharTokenizer
from data.understanding import tagged
from data.understanding.labels import Labels
from data.understanding.tagged import TaggedBatches, TaggedTexts, open_tagged
from helpers.tables import write
from utils.errors import UserError

SENTENCES = [
    (["ab", "c", "abc"], ["B-X", "I-X", "O"]),
    (["c"], ["O"]),
    (["a", "bb", "c", "c"], ["O", "B-Y", "I-Y", "B-Y"]),
]
TOKENIZER = CharTokenizer([*SPECIAL, *"abc"])
A, B, C = (TOKENIZER.encode(letter)[0] for letter in "abc")
LABELS = Labels(["B-X", "B-Y", "I-X", "O"], [1, 1, 1, 1])


def test_words_are_tokenized_one_by_one():
    texts = TaggedTexts(SENTENCES, TOKENIZER, max_length=16)
    assert texts.tokens[0].tolist() == [BOS, A, B, C, A, B, C, EOS]
    assert texts.word_starts[0].tolist() == [1, 3, 4]
    assert texts.lengths.tolist() == [8, 3, 7]
    assert (texts.num_cut, texts.words_lost, texts.entities_lost) == (0, 0, 0)


def test_a_word_without_tokens_is_unknown():
    encode = functools.partial(tagged.encode_word, TOKENIZER)
    tokens, starts, _ = tagged.encode_words(["a", "", "b"], encode, 8)
    assert tokens.tolist() == [BOS, A, UNK, B, EOS]
    assert starts.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("max_length", "lost"),
    [(8, (0, 0, 0)), (7, (1, 0, 0)), (6, (2, 1, 1)), (5, (2, 3, 2)), (4, (2, 4, 3))],
)
def test_a_cut_keeps_the_end_and_counts_what_is_lost(max_length, lost):
    texts = TaggedTexts(SENTENCES, TOKENIZER, max_length)
    assert (texts.num_cut, texts.words_lost, texts.entities_lost) == lost
    for tokens, starts in zip(texts.tokens, texts.word_starts, strict=True):
        assert len(tokens) <= max_length
        assert tokens[-1] == EOS
        assert (starts < len(tokens) - 1).all()


@pytest.mark.parametrize(
    ("tags", "num_words", "expected"),
    [
        ("B-X I-X O B-Y B-Y", 0, 3),
        ("B-X I-X O B-Y B-Y", 1, 3),
        ("B-X I-X O B-Y B-Y", 2, 2),
        ("B-X I-X O B-Y B-Y", 4, 1),
        ("B-X I-Y", 1, 1),
        ("N V N", 1, 0),  # parts of speech
    ],
)
def test_an_entity_is_lost_with_its_last_word(tags, num_words, expected):
    assert tagged.count_entities_after(tags.split(), num_words) == expected


def test_batches_hold_positions_tags_and_weights_of_words():
    texts = TaggedTexts(SENTENCES, TOKENIZER, 16)
    labels = [LABELS.numbers(tags) for _, tags in SENTENCES]
    batches = TaggedBatches(texts, labels, np.asarray([1, 0, -1]), 4, 1)
    assert len(batches) == 1
    batch = batches[0]
    assert batch["ids"].tolist() == [0, 1, 2, -1]
    assert batch["tokens"].shape == (4, 8)
    assert batch["word_starts"].shape == batch["labels"].shape == (4, 6)
    assert batch["word_starts"].tolist()[0] == [1, 3, 4, 0, 0, 0]
    assert batch["labels"].tolist()[0] == [0, 2, 3, 0, 0, 0]
    # I-Y is unknown.
    assert batch["labels"].tolist()[2] == [3, 1, 0, 1, 0, 0]
    assert batch["weights"].tolist()[2] == [1, 1, 0, 1, 0, 0]
    assert batch["intents"].tolist() == [1, 0, 0, 0]
    assert batch["intent_weights"].tolist() == [1, 1, 0, 0]
    assert not batch["segment_ids"].any()
    assert not batch["weights"][3].any()


def test_words_beyond_a_cut_are_in_no_batch():
    texts = TaggedTexts(SENTENCES, TOKENIZER, 6)
    labels = [LABELS.numbers(tags) for _, tags in SENTENCES]
    batch = TaggedBatches(texts, labels, None, 3, 1)[0]
    assert batch["weights"].sum(axis=1).tolist() == [3, 1, 2]
    assert "intents" not in batch


@pytest.mark.parametrize(
    ("name", "expected"),
    [("b#a", "a"), ("a", "a"), ("c#b", "b"), ("x#y", "x#y"), ("C#", "C#"), ("#", "#")],
)
def test_of_several_intents_the_most_frequent_in_training_counts(name, expected):
    counts = collections.Counter({"a": 5, "b": 2, "b#a": 9})
    assert tagged.main_intent(name, "#", counts) == expected


def test_only_the_corpus_with_several_intents_divides_their_names():
    assert tagged.intent_separator("atis") == "#"
    assert tagged.intent_separator("atis/train_and_valid") == "#"
    assert tagged.intent_separator("tagged_text") is None


def files(folder, **splits):
    """Writes sentences, each `intent word/tag ...`, as files of columns."""
    for split, sentences in splits.items():
        lines = []
        for intent, *words in map(str.split, sentences):
            lines += [f"# intent = {intent}"]
            lines += ["\t".join(word.split("/")) for word in words] + [""]
        write(folder / f"{split}.conll", lines)


def config(tmp_path, **changes):
    cfg = base.get_config().data
    cfg.update(
        name="tagged_text",
        dir=str(tmp_path / "data"),
        source_dir=str(tmp_path / "source"),
        text_column="tokens",
        tag_column="tags",
        label_column="intent",
        tokenizer="char",
        batch_size=2,
        buckets=1,
        **changes,
    )
    return cfg


TRAIN = ["f to/O new/B-C york/I-C", "f#g rome/B-C", "g a/O", "g#f to/O rome/B-C"]


def test_a_corpus_is_read_with_its_tags_and_intents(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(tagged.INTENT_SEPARATORS, "tagged_text", "#")
    files(tmp_path / "source", train=TRAIN, valid=["f to/O rome/B-C"])
    dataset = open_tagged(config(tmp_path, max_length=7))
    assert dataset.tokenizers["tag"].names == ("B-C", "I-C", "O")
    assert dataset.tokenizers["label"].names == ("f", "g")
    assert dataset.intents("train") == ["f", "f", "g", "g"]
    assert dataset.texts("validation") == [("to rome",)]
    batch = dataset.evaluation_batches("train", batch_size=4)[0]
    assert batch["weights"].sum() == 6
    message = "train: 2 sentences cut to 7 tokens; 1 words and 1 entities lost\n"
    assert message in capsys.readouterr().err
    again = open_tagged(dataset.cfg, dataset.tokenizers)
    assert again.hashes == dataset.hashes
    epoch = [dataset.train_batches()[k]["ids"] for k in range(2)]
    assert sorted(np.concatenate(epoch)) == [0, 1, 2, 3]


def test_tags_and_intents_that_training_lacks_are_refused_or_counted(tmp_path):
    files(
        tmp_path / "source",
        train=TRAIN,
        valid=["f to/O rome/B-D"],
        test=["h to/O rome/B-C"],
    )
    cfg = config(tmp_path)
    dataset = open_tagged(cfg)
    with pytest.raises(UserError, match=r"sentence 1: .* no tag 'B-D'"):
        dataset.evaluation_batches("validation", batch_size=1)
    with pytest.raises(UserError, match="no label 'h'"):
        dataset.evaluation_batches("test", batch_size=1)
    cfg.unseen_labels = "count"
    batch = dataset.evaluation_batches("validation", batch_size=1)[0]
    assert batch["weights"][0, :2].tolist() == [1, 0]
    batch = dataset.evaluation_batches("test", batch_size=1)[0]
    assert batch["intent_weights"].tolist() == [0]


def test_intents_of_other_corpora_keep_their_names(tmp_path):
    files(tmp_path / "source", train=TRAIN, valid=["f to/O rome/B-C"])
    dataset = open_tagged(config(tmp_path))
    assert dataset.intents("train") == ["f", "f#g", "g", "g#f"]


def test_tags_of_other_kinds_than_those_of_training_are_refused(tmp_path):
    """Also where a file has no tag that shows that its tags mark entities."""
    files(tmp_path / "source", train=TRAIN, valid=["f to/O", "f rome/S-C"])
    dataset = open_tagged(config(tmp_path, unseen_labels="count"))
    with pytest.raises(UserError, match="validation, sentence 2: 'S-C' is no tag of I"):
        dataset.evaluation_batches("validation", batch_size=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tag_column": "intent", "label_column": None}, "'intent' holds a text"),
        ({"tag_column": "intent"}, "'intent' is also data.tag_column"),
        ({"tag_column": "pos"}, "data.tag_column='pos'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, changes, message):
    files(tmp_path / "source", train=TRAIN, valid=TRAIN[:1])
    cfg = config(tmp_path)
    cfg.update(changes)
    with pytest.raises(UserError, match=message):
        open_tagged(cfg)


def test_rows_with_another_number_of_tags_than_words_are_refused():
    columns = ("tokens", "tags")
    rows = [(["a"], ["O"]), (["a", "b"], ["O"])]
    with pytest.raises(UserError, match="train, sentence 2: 2 words in 'tokens' and 1"):
        list(tagged.check_rows(rows, "train", columns))
    for tag in ("", "B-a b"):
        with pytest.raises(UserError, match=f"sentence 1: the tag {tag!r} is empty or"):
            list(tagged.check_rows([(["a", "b"], ["O", tag])], "train", columns))
    with pytest.raises(UserError, match="sentence 1 has no words"):
        list(tagged.check_rows([([], [])], "train", columns))
