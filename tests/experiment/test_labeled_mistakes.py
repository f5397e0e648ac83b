"""Mistakes in labelled data end a run in one line, before its directory is written."""

import pytest

from experiment import train
from helpers.document_runs import masked_config
from helpers.entry_points import assert_refused, run
from helpers.labeled_runs import labeled_config
from helpers.tagged_runs import tagged_config
from training.loop import ExitStatus
from utils.errors import UserError

TABLE = "text\tlabel\na red fox\tx\nblue sea\ty\n"
WORDS = "to\tO\nrome\tB-C\n\nann\tB-P\n"
MARKED = "text\tlabel\n<e1>a</e1> of <e2>b</e2>\tx\n<e1>a</e1> in <e2>b</e2>\ty\n"
DOCUMENTS = "a b\nc d\n\na c\nb d\n"
TAG_AS_CLASS = {"task": "classification", "data.label_column": "tags"}
TAG_AS_CLASS["data.tag_column"] = None
PAIR = {"data.pair_column": "text"}
GRADES = {"head.regression": True}
NEXT = {"mlm.next_sentence": True}
WHOLE = {"mlm.whole_word": True, "data.tokenizer": "wordpiece", "data.max_length": 8}
WHOLE["data.vocab_size"] = 24  # letters alone
ORDER = {"data.document_order": True, "data.batch_size": 9}


def relation_config(folder, **changes):
    return labeled_config(folder, **{"task": "relation_extraction"} | changes)


# For each kind of data: its config, its file, a good one, and mistakes: a file for
# training, changes of the config, words of the error.
KINDS = {
    "texts": (
        labeled_config,
        "{}.tsv",
        TABLE,
        [
            ("", {}, "is empty: it holds no text"),
            ("text\tlabel\n", {}, "is empty: it holds no example"),
            ("text\tlabel\na\tx\nb\n", {}, "line 3: the row has 1 columns, and the"),
            (
                "text\tlabel\na\tx\nb\tx\n",
                {},
                "has one class in the training split (x)",
            ),
            (
                "text\tlabel\na\tx\nb\t\n",
                {},
                "train, example 2 has no label in the column 'label'; 1 examples",
            ),
            ("a red fox\n", {}, "no header, since it has no tab"),
            (TABLE.partition("\n")[2], {}, "has other|all splits need the same colum"),
            (
                TABLE + "c\tz\n",
                {"data.label_column": "class"},
                "the columns label, text",
            ),
            (TABLE, PAIR, "data.pair_column='text' is also data.text_column"),
            (TABLE, GRADES, "label='x' is no number, and head.regression=True"),
            (TABLE.replace("y", "z"), {}, "no label 'y'; data.unseen_labels='count'"),
        ],
    ),
    "sentences": (
        tagged_config,
        "{}.conll",
        WORDS,
        [
            ("", {}, "is empty: it holds no text"),
            ("a\tO\nb\tI-C\n", {}, "line 2: ill-formed IOB2: I-C comes after O"),
            ("a\tO\nb\n", {}, "line 2: the line has 1 columns, and the first one has"),
            (WORDS + "\nfox\t0\n", {}, "line 6: '0' is no tag of IOB2, which are O"),
            ("a\tO\nb\tB P\n", {}, "line 2: the tag 'B P' has a space, and tags are"),
            ("a\tN\nb\tV\n", {}, "have no f1, by which checkpoints are selected: se"),
            (
                "a\tN\nb\tV\n",
                {"keep.metric": "recall"},
                "to one of token_accuracy, sentence_accuracy, loss",
            ),
            ("a\tO\n\nb\tO\n", {}, "has one class in the training split (O)"),
            (WORDS.replace("P", "Q"), {}, "the training split has no tag 'B-P'"),
            (WORDS, {"data.label_column": "intent"}, "has the columns tags, tokens"),
            (WORDS, {"data.tag_column": None}, "data.tag_column is not set"),
            (WORDS, {"data.label_column": "tags"}, "is also data.tag_column: choose"),
            (WORDS, TAG_AS_CLASS, "the column 'tags' holds a sequence, and a text has"),
        ],
    ),
    "relations": (
        relation_config,
        "{}.tsv",
        MARKED,
        [
            (MARKED.replace("</e2>", "", 1), {}, "example 1: </e2> occurs 0 times"),
            (MARKED.replace("of", "of <e1>"), {}, "example 1: <e1> occurs 2 times"),
            (MARKED.replace("<e1>a</e1> in", "</e1>a<e1> in"), {}, "comes before <e1>"),
            (TABLE, {}, "example 1: <e1> occurs 0 times"),
            (MARKED, {"keep.metric": "official_f1"}, "have no official_f1, by which"),
        ],
    ),
    "documents": (
        masked_config,
        "{}.txt",
        DOCUMENTS,
        [
            (" \n\n", {}, "is empty: it holds no text"),
            ("a b\nc d\n", NEXT, "'train' is a single one: separate documents by blan"),
            ("a b\n\nc d\n", NEXT, "needs documents of two sentences or more"),
            (
                "bcdefgh\nhgfedcb\n",
                WHOLE,
                "has no word of 3 tokens or fewer, as many as a text's",
            ),
            (DOCUMENTS, ORDER, "data.batch_size=9 is more than the 2 segments of"),
            (DOCUMENTS, {"data.source_dir": "/nowhere"}, "is no folder, or empty"),
        ],
    ),
}
MISTAKES = [
    (kind, *mistake) for kind, (*_, mistakes) in KINDS.items() for mistake in mistakes
]


@pytest.mark.parametrize(("kind", "text", "changes", "words"), MISTAKES)
def test_a_mistake_is_told_in_one_line_and_leaves_no_run(
    tmp_path, kind, text, changes, words
):
    config, name, good, _ = KINDS[kind]
    for split in ("train", "dev"):
        content = text if split == "train" else good
        (tmp_path / name.format(split)).write_text(content)
    with pytest.raises(UserError) as caught:
        train.train(config(tmp_path, **changes), tmp_path / "run")
    assert any(each in str(caught.value) for each in words.split("|"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_label_with_a_line_break_is_refused(tmp_path):
    rows = '{"text": "a", "label": "x"}\n{"text": "b", "label": "y\\nz"}\n'
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    with pytest.raises(UserError, match=r"the label 'y\\nz' in .* has a line break"):
        train.train(labeled_config(tmp_path), tmp_path / "run")
    good = rows.replace("\\n", "")
    (tmp_path / "train.jsonl").write_text(good)
    cfg = labeled_config(tmp_path, **{"data.unseen_labels": "count"})
    with pytest.raises(UserError, match=r"the label 'y\\nz' in .* has a line break"):
        train.train(cfg, tmp_path / "run")


def test_positions_that_a_model_has_not_learned_are_refused(tmp_path):
    changes = {"model.position_encoding": "learned", "model.max_positions": 8}
    cfg = labeled_config(tmp_path, "transformer", **changes)
    with pytest.raises(UserError, match=r"is more than model\.max_positions=8"):
        train.train(cfg, tmp_path / "run")


def test_commands_tell_of_mistakes_and_of_what_is_cut(tmp_path):
    """A label unknown at evaluation, and lines of input that a model cannot read."""
    tables = {"train": TABLE, "dev": TABLE, "test": f"{TABLE}red\tz\n"}
    for split, text in tables.items():
        (tmp_path / f"{split}.tsv").write_text(f"\ufeff{text}".replace("\n", "\r\n"))
    cfg = labeled_config(tmp_path, steps=1, **{"data.batch_size": 64})
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    workdir = f"--workdir={tmp_path / 'run'}"
    assert_refused(run("eval.py", workdir), "test, example 3", "no label 'z'")
    done = run("eval.py", workdir, "--data.unseen_labels=count")
    assert done.returncode == 0, done.stderr.decode()
    assert b"accuracy" in done.stdout
    assert_refused(run("eval.py", workdir, "--split=tset"), "no split 'tset'")
    lines = ["a red fox", "", " ", "unknown <mask>", "x" * 100_000, "red " * 50_000]
    done = run("predict.py", workdir, given="\r\n".join(lines).encode())
    assert done.stderr.decode() == "line 6 cut to data.max_length=16 tokens\n"
    found = done.stdout.decode().split("\n")
    assert [line in ("x", "y") for line in found] == [
        *map(bool, map(str.strip, lines)),
        False,
    ]
    assert_refused(run("predict.py", workdir, given=b"a\n\xff\n"), "UTF-8 in line 2")
