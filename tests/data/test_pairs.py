"""Text pairs: two columns of a table as a parallel corpus."""

import pytest

from configs import base
from data.pairs import describe_columns, open_pairs, open_pairs_dataset
from data.parallel_dataset import ParallelDataset
from helpers.tables import write
from utils.errors import UserError

HEADER = "id\tquestion\treply\tother\tthird"
TRAIN = [f"{n}\tis {n} even\t{('yes', 'no')[n % 2]}\t\t" for n in range(8)]
TEST = ["8\tis 8 even\tyes\tyes it is\tsure", "9\tis 9 even\tno\tnot so\tnever"]


@pytest.fixture
def cfg(tmp_path):
    source = tmp_path / "source"
    for name, lines in {"train": TRAIN, "valid": TRAIN[:2], "test": TEST}.items():
        write(source / f"{name}.tsv", [HEADER, *lines])
    cfg = base.get_config("rnn").data
    cfg.name, cfg.dir, cfg.source_dir = (
        "text_pairs",
        f"{tmp_path / 'data'}",
        f"{source}",
    )
    cfg.source_column, cfg.target_column = "question", "reply"
    cfg.reference_columns = ("other", "third")
    cfg.tokenizer = "word"
    return cfg


def refusal(cfg, **changes):
    cfg.update(changes)
    with pytest.raises(UserError) as caught:
        open_pairs(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_columns_are_a_parallel_corpus_and_all_are_read_by_name(cfg):
    corpus = open_pairs(cfg)
    assert (corpus.kind, corpus.fields) == ("parallel", ("question", "reply"))
    assert corpus.languages == corpus.targets == ()
    assert list(corpus.read("test")) == [("is 8 even", "yes"), ("is 9 even", "no")]
    assert list(corpus.read("train", 3, 4)) == [("is 3 even", "no")]
    assert corpus.column("test", "id") == ["8", "9"]
    assert corpus.column("train", "other") == [""] * 8
    assert corpus.column("test", "answer") is None
    assert corpus.documents("test") is None
    with pytest.raises(UserError, match="no split 'dev'"):
        corpus.column("dev", "id")


def test_pairs_are_batched_like_translations_with_all_references(cfg):
    dataset = open_pairs_dataset(cfg)
    assert isinstance(dataset, ParallelDataset)
    batch = dataset.train_batches()[0]
    assert sorted(batch["ids"].tolist())[-8:] == list(range(8))
    row = batch["ids"].tolist().index(5)
    source, target = dataset.tokenizers["source"], dataset.tokenizers["target"]
    assert source.decode(batch["source"][row].tolist()) == "is 5 even"
    assert target.decode(batch["labels"][row].tolist()) == "no"
    assert dataset.references("test") == [
        ["yes", "yes it is", "sure"],
        ["no", "not so", "never"],
    ]
    assert dataset.references("train")[1] == ["no"]
    cfg.reference_columns = ()
    assert open_pairs_dataset(cfg).references("test") == [["yes"], ["no"]]


def test_the_direction_may_be_reversed(cfg):
    cfg.reference_columns = ()
    cfg.reverse = True
    assert open_pairs_dataset(cfg).texts("test")[1] == ("no", "is 9 even")
    said = refusal(cfg, reference_columns=("other",))
    assert "exchange data.source_column and data.target_column" in said


@pytest.mark.parametrize(("code", "languages"), [("", ()), ("/zh", ("zh", "zh"))])
def test_a_config_names_the_language(cfg, code, languages):
    cfg.name = f"text_pairs{code}"
    assert open_pairs(cfg).languages == languages
    cfg.source_dir = None
    assert open_pairs(cfg).languages == languages


def test_a_document_column_gives_the_order_of_documents(cfg, tmp_path):
    rows = ["doc\ta\tb", "x\t1\t2", "x\t3\t4", "y\t5\t6"]
    for name in ("train", "valid"):
        write(tmp_path / f"ordered/{name}.tsv", rows)
    cfg.source_dir, cfg.reference_columns = f"{tmp_path / 'ordered'}", ()
    cfg.source_column, cfg.target_column = "a", "b"
    assert open_pairs(cfg).documents("train") == ["x", "x", "y"]
    cfg.document_order = True
    assert open_pairs_dataset(cfg).train_batches().epoch_length


def test_a_parallel_corpus_has_its_languages_as_columns(cfg, tmp_path):
    for name in ("train.en", "train.de", "valid.en", "valid.de"):
        write(tmp_path / "lines" / name, [f"{name} one", "two"])
    cfg.name, cfg.source_dir = "parallel_text/de-en", f"{tmp_path / 'lines'}"
    cfg.source_column = cfg.target_column = None
    cfg.reference_columns = ()
    corpus = open_pairs(cfg)
    assert corpus.languages == corpus.fields == ("de", "en")
    assert next(corpus.read("train")) == ("train.de one", "train.en one")
    cfg.source_column, cfg.target_column = "en", "de"
    assert open_pairs(cfg).languages == ("en", "de")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"source_column": "body"},
            "data.source_column='body': text_pairs/{key} has the columns id, other, "
            "question, reply, third; the first line of a .tsv file names them",
        ),
        (
            {"reference_columns": ("other", "fourth")},
            "data.reference_columns[1]='fourth': text_pairs/{key} has the columns id,",
        ),
        (
            {"reference_columns": ("other", "reply")},
            "data.reference_columns[1]='reply' is also data.target_column: choose",
        ),
        (
            {"target_column": None},
            "data.target_column is not set: choose one of id, other, question, reply,",
        ),
        (
            {"target_column": "question"},
            "data.target_column='question' is also data.source_column: choose another",
        ),
        ({"name": "text_pairs+text_pairs"}, "tables of columns cannot be mixed"),
        ({"name": "text_pairs/words"}, "'words' is no known language; name it text_pa"),
        ({"name": None}, "data.name is not set"),
    ],
)
def test_wrong_columns_are_refused_by_name(cfg, changes, said):
    if "{key}" in said:
        said = said.format(key=open_pairs(cfg).name.partition("/")[2])
    assert said in refusal(cfg, **changes)


def test_references_of_unequal_number_are_refused(cfg, tmp_path):
    write(tmp_path / "source/test.tsv", [HEADER, *TEST, "4\tis 4 even\tyes\t\tsure"])
    said = refusal(cfg)
    assert "split 'test': example 3 has 1 texts in data.reference_columns=other" in said
    assert "the first example has 2" in said


def test_the_description_counts_references_and_names_columns(cfg):
    assert list(describe_columns(open_pairs_dataset(cfg))) == [
        "from question to reply; further columns: id, other, third",
        "references of an example: 1 train, 1 validation, 3 test",
    ]
    cfg.reference_columns = ()
    assert len(list(describe_columns(open_pairs_dataset(cfg)))) == 1
