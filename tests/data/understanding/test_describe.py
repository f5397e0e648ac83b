"""Descriptions of labelled, graded and tagged texts, of relations and of documents."""

import pytest

from configs import base
from data.understanding.describe import describe, open_dataset
from helpers.document_runs import masked_config, write_documents
from helpers.tables import write
from utils.errors import UserError

WORDS = ["one", "two three", "one two three four five"]


def labelled_config(folder, task, rows, **data):
    """Returns a config of two splits of a table with the columns of its first row."""
    for stem in ("train", "valid"):
        write(folder / f"{stem}.tsv", rows)
    cfg = base.get_config("rnn")
    cfg.task = task
    cfg.data.update(name="labeled_text", source_dir=str(folder), tokenizer="word")
    cfg.data.update(dir=str(folder / "data"), text_column="text", batch_size=2)
    cfg.data.update(label_column="label", buckets=2, **data)
    return cfg


def description(cfg):
    return list(describe(open_dataset(cfg), cfg))


def cells(lines, first):
    """The cells of the line that begins with a word."""
    return next(line.split() for line in lines if line.split()[0] == first)


def test_labelled_texts_have_lengths_cuts_labels_padding_and_examples(tmp_path):
    rows = ["text\tlabel", *(f"{text}\t{'ab'[n % 2]}" for n, text in enumerate(WORDS))]
    cfg = labelled_config(tmp_path, "classification", rows, max_length=6)
    lines = description(cfg)
    assert "columns label, text" in lines[0]
    # 3, 4 and 7 tokens with [CLS] and [SEP].
    assert cells(lines, "train")[1:] == ["3", "14", "4.7", "4", "7", "7", "1", "0.00%"]
    assert cells(lines, "a") == ["a", "2", "2"]
    assert "labels: 2" in lines
    assert any(line.startswith("padding: ") for line in lines)
    assert "[2] text: 'one two three four five'" in lines
    assert "[1] label: 'b'" in lines
    assert lines[-1].split() == ["<bos>", "one", "two", "three", "four", "<eos>"]


def test_grades_have_a_range_instead_of_counts(tmp_path):
    rows = ["text\tlabel", *(f"{text}\t{n}.5" for n, text in enumerate(WORDS))]
    cfg = labelled_config(tmp_path, "classification", rows)
    cfg.head.regression = True
    assert "label, train: 0.5 to 2.5, mean 1.500" in description(cfg)
    write(tmp_path / "test.tsv", ["text\tlabel", "one\t1.5", "two\t", "two\t"])
    lines = description(cfg)
    assert "label, test: 2 without a grade" in lines
    assert "label, test: 1.5 to 1.5, mean 1.500" in lines
    write(tmp_path / "test.tsv", ["text\tlabel", "one\thigh"])
    with pytest.raises(UserError, match="test, example 1: label='high' is no number"):
        description(cfg)


def test_entities_of_relations_are_part_of_an_example(tmp_path):
    rows = [f"<e1> {a} </e1> in <e2> b </e2>\t{label}" for a, label in ("xr", "ys")]
    cfg = labelled_config(tmp_path, "relation_extraction", ["text\tlabel", *rows])
    lines = description(cfg)
    assert cells(lines, "r") == ["r", "1", "1"]
    assert lines[-1] == "    <bos> <e1> y </e1> in <e2> b </e2> <eos>"


def test_tags_of_all_words_are_counted(tmp_path):
    for stem in ("train", "valid"):
        rows = ["# intent = go", "in\tO", "New\tB-X", "York\tI-X", ""]
        rows += ["# intent = stay", "Rome\tB-X", ""]
        write(tmp_path / f"{stem}.conll", rows)
    cfg = labelled_config(tmp_path, "tagging", [])
    cfg.data.update(name="tagged_text", text_column="tokens", tag_column="tags")
    cfg.data.label_column = "intent"
    lines = description(cfg)
    assert cells(lines, "B-X") == ["B-X", "2", "2"]
    assert cells(lines, "stay") == ["stay", "1", "1"]
    assert "[0] tags: 'O B-X I-X'" in lines
    assert {"tags: 3", "labels: 2"} <= set(lines)


def test_documents_have_numbers_of_sentences_and_masked_examples(tmp_path):
    write_documents(tmp_path)
    lines = description(masked_config(tmp_path, **{"mlm.next_sentence": True}))
    split, documents, sentences, *_ = cells(lines, "train")
    assert (split, documents) == ("train", "60")
    assert int(sentences) > 120
    assert "<mask>" in "".join(lines)
    assert any("predicted: " in line and "; next: " in line for line in lines)


def test_an_unknown_task_is_refused():
    cfg = base.get_config("rnn")
    cfg.task = "sums"
    with pytest.raises(UserError, match="Unknown task 'sums'; choose one of language"):
        open_dataset(cfg)
