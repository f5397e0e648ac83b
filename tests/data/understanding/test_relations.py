"""Texts with marked entities: tokens, positions, and what a cut loses."""

import functools

import numpy as np
import pytest

from configs import base
from data.tokenizers.base import BOS, EOS, SPECIAL
from data.tokenizers.symbols import CharTokenizer
from data.understanding import relations
from data.understanding.markers import MARKERS
from data.understanding.relations import MarkedTexts, RelationBatches, open_relations
from helpers.tables import write
from utils.errors import UserError

TOKENIZER = CharTokenizer([*SPECIAL, *"abc "]).with_tags(MARKERS)
A, B, C = (TOKENIZER.encode(letter)[0] for letter in "abc")
_, E1, END1, E2, END2 = TOKENIZER.tags.values()
TEXTS = ["a<e1>b</e1><e2>c</e2>", "<e2>c</e2>ab<e1>bb</e1>a"]


def marked_texts(max_length):
    encode = functools.partial(relations.encode_marked, TOKENIZER)
    return MarkedTexts(TEXTS, encode, max_length)


def test_markers_are_tokens_and_their_positions_are_known():
    texts = marked_texts(32)
    tokens = [BOS, A, E1, B, END1, E2, C, END2, EOS]
    assert texts.tokens[0].tolist() == tokens
    assert texts.entities.tolist() == [[2, 5], [6, 1]]
    for ids, (first, second) in zip(texts.tokens, texts.entities, strict=True):
        assert (ids[first], ids[second]) == (E1, E2)
    assert (texts.num_cut, texts.entities_lost) == (0, 0)


@pytest.mark.parametrize(
    ("max_length", "entities", "lost"),
    [(8, [[2, 5], [6, 1]], 0), (7, [[2, 5], [0, 1]], 1), (6, [[2, 0], [0, 1]], 2)],
)
def test_entities_beyond_a_cut_are_counted(max_length, entities, lost):
    texts = marked_texts(max_length)
    assert texts.entities.tolist() == entities
    assert (texts.num_cut, texts.entities_lost) == (2, lost)
    assert all(tokens[-1] == EOS for tokens in texts.tokens)
    assert texts.lengths.max() == max_length


def test_batches_hold_the_positions_of_entities():
    labels = np.asarray([1, 0], np.int32)
    batch = RelationBatches(marked_texts(32), labels, 4, 1)[0]
    assert batch["ids"].tolist() == [0, 1, -1, -1]
    assert batch["entities"].tolist() == [[2, 5], [6, 1], [0, 0], [0, 0]]
    assert batch["labels"].tolist() == [1, 0, 0, 0]
    assert batch["weights"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <e1>b</e1> <e2>c", "</e2> occurs 0 times in 'a <e1>b</e1> <e2>c'"),
        ("<e1>a</e1> <e1>b <e2>c</e2>", "<e1> occurs 2 times"),
        ("</e1>a<e1> <e2>c</e2>", "</e1> comes before <e1>"),
    ],
)
def test_texts_without_exactly_one_of_each_marker_are_refused(text, message):
    with pytest.raises(UserError) as caught:
        relations.check_markers(text, "train, example 3")
    assert message in str(caught.value)
    assert str(caught.value).startswith("train, example 3: ")


def config(tmp_path, rows):
    lines = ["label\tsentence", *rows]
    for split in ("train", "valid"):
        write(tmp_path / "source" / f"{split}.tsv", lines)
    cfg = base.get_config().data
    cfg.update(
        name="labeled_text",
        dir=str(tmp_path / "data"),
        source_dir=str(tmp_path / "source"),
        text_column="sentence",
        label_column="label",
        tokenizer="char",
        batch_size=2,
        buckets=1,
        max_length=12,
    )
    return cfg


def test_a_corpus_is_read_and_its_vocabulary_lacks_the_markers(tmp_path, capsys):
    rows = [f"x\t{TEXTS[0]}", f"y\t{TEXTS[1]}", "x\tabc abc <e1>c</e1> <e2>c</e2>"]
    dataset = open_relations(config(tmp_path, rows))
    tokenizer = dataset.tokenizers["text"]
    assert tokenizer.vocab_size == TOKENIZER.vocab_size
    assert list(tokenizer.tags) == list(MARKERS)
    batch = dataset.evaluation_batches("validation", batch_size=3)[0]
    assert batch["entities"].tolist() == [[2, 5], [6, 1], [9, 0]]
    assert batch["labels"].tolist() == [0, 1, 0]
    message = "validation: 1 texts cut to 12 tokens; 1 entities lost\n"
    assert message in capsys.readouterr().err
    again = open_relations(dataset.cfg, dataset.tokenizers)
    assert again.hashes == dataset.hashes
    assert dataset.train_batches()[0]["tokens"].shape == (2, 12)


def test_an_example_without_a_marker_is_named(tmp_path):
    rows = [f"x\t{TEXTS[0]}", "y\tabc <e1>a</e1>"]
    dataset = open_relations(config(tmp_path, rows))
    with pytest.raises(UserError, match="train, example 2: <e2> occurs 0 times"):
        dataset.train_batches()


def test_one_class_is_refused(tmp_path):
    with pytest.raises(UserError, match="one class"):
        open_relations(config(tmp_path, [f"x\t{TEXTS[0]}"] * 2))
