"""Published corpora that are read from local files."""

import os
from pathlib import Path

import pytest

from data.corpora.understanding.relations import mark_entities
from data.corpora.understanding.tagged_sentences import Atis
from data.registry import CORPORA, builder_class
from helpers.tables import prepare_table, refusal, rows, write

# Corpora with the name of their folder in $CORPORA.
FOLDERS = {
    **{name: name for name in ("sst2", "trec", "sick", "mrpc", "cola", "rte", "atis")},
    **{name: f"{name}_zh" for name in ("chnsenticorp", "ocnli", "afqmc")},
    **{name: name for name in ("conll2003_en", "resume_zh", "cais_zh", "finre_zh")},
    **{name: name for name in ("semeval2010_task8", "classics_zh")},
}


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_every_corpus_has_its_source_licence_and_reference():
    for name in FOLDERS:
        cls = builder_class(name)
        assert cls.name == name
        assert cls.HOMEPAGE.startswith("https://")
        assert cls.LICENSE
        assert "(" in cls.CITATION or ";" in cls.CITATION
    own = {name for name, module in CORPORA.items() if ".understanding." in module}
    generic = {"labeled_text", "tagged_text", "document_text", "cldr_fields"}
    assert own - generic == FOLDERS.keys()


@pytest.mark.skipif(
    "CORPORA" not in os.environ, reason="needs CORPORA=DIR with licensed texts"
)
@pytest.mark.parametrize("name", FOLDERS)
def test_the_splits_have_their_published_sizes(name, data):
    source = Path(os.environ["CORPORA"]) / FOLDERS[name]
    splits = prepare_table(name, data, source).info.splits
    sizes = {split: info.num_examples for split, info in splits.items()}
    assert sizes == builder_class(name).SIZES


def test_a_config_chooses_the_training_data(data):
    for stem in ("train", "train_phrases", "dev", "test"):
        write(data / f"raw/{stem}.tsv.gz", ["label\ttext", f"1\t{stem}"])
    builder = prepare_table("sst2", data, data / "raw")
    assert rows(builder, "train") == [{"label": "1", "text": "train"}]
    assert builder.info.redistribution_info.license == "None stated"
    assert builder.info.citation.startswith("Socher")
    phrases = prepare_table("sst2/phrases", data, data / "raw")
    assert rows(phrases, "train") == [{"label": "1", "text": "train_phrases"}]
    assert rows(phrases, "validation") == [{"label": "1", "text": "dev"}]
    assert prepare_table("sst2/phrases", data).info.name == "sst2"


def test_the_last_training_examples_are_validation_where_none_is_published(data):
    lines = [f"A\tA:b\ttext {n}" for n in range(502)]
    for stem, size in {"train": 502, "test": 1}.items():
        write(data / f"raw/{stem}.tsv", ["coarse\tfine\ttext", *lines[:size]])
    builder = prepare_table("trec", data, data / "raw")
    assert [row["text"] for row in rows(builder, "train")] == ["text 0", "text 1"]
    held_out = [row["text"] for row in rows(builder, "validation")]
    assert held_out == [f"text {n}" for n in range(2, 502)]
    write(data / "raw/train.tsv", ["coarse\tfine\ttext", *lines[:500]])
    said = refusal("trec", data / "other", data / "raw")
    assert "trec has 500 training examples, of which the last 500" in said


def test_every_tenth_example_of_semeval_is_validation(data):
    lines = [f"Other\t<e1>text</e1> <e2>{n}</e2>" for n in range(23)]
    for stem in ("train", "test"):
        write(data / f"raw/{stem}.tsv", ["label\tsentence", *lines])
    builder = prepare_table("semeval2010_task8", data, data / "raw")
    found = {
        split: [row["sentence"].split(">")[-2][:-4] for row in rows(builder, split)]
        for split in ("train", "validation", "test")
    }
    assert found["validation"] == ["9", "19"]
    numbers = [str(n) for n in range(23)]
    assert found["train"] == [n for n in numbers if n not in ("9", "19")]
    assert found["test"] == numbers


def test_training_and_validation_may_be_joined(data):
    for stem in ("train", "valid", "test"):
        write(data / f"raw/{stem}.conll", ["# intent = x", f"{stem}\tO"])
    builder = prepare_table("atis/train_and_valid", data, data / "raw")
    words = {split: [r["tokens"] for r in rows(builder, split)] for split in Atis.SIZES}
    joined = {"train": [["train"], ["valid"]], "validation": [["valid"]]}
    assert words == {**joined, "test": [["test"]]}


def test_seen_is_empty_for_training(data):
    write(data / "raw/train.tsv", ["label\ttext", "1\tgood"])
    for stem in ("dev", "test"):
        write(data / f"raw/{stem}.tsv", ["label\ttext\tseen", "1\tgood\t1"])
    builder = prepare_table("chnsenticorp", data, data / "raw")
    assert [rows(builder, s)[0]["seen"] for s in ("train", "test")] == ["", "1"]


def test_resumes_are_read_as_conlleval_reads_them(data):
    for stem in ("train", "dev", "test"):
        write(data / f"raw/{stem}.conll", ["a\tO", "b\tI-NAME"])
    builder = prepare_table("resume_zh", data, data / "raw")
    assert rows(builder, "test")[0]["tags"] == ["O", "B-NAME"]


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("rte", {}, "rte is not downloaded: give --config.data.source_dir=DIR, a f"),
        ("sst2", {"train.tsv": ["a\tb"]}, "lacks dev.tsv: sst2 is read from train.tsv"),
        (
            "rte",
            {f"{stem}.tsv": ["label\ttext_a", "0\ta"] for stem in ("train", "dev")},
            "train.tsv lacks the column text_b; rte has label, text_a, text_b",
        ),
        ("sst2/words", {}, "sst2 has no config 'words': choose sst2 or sst2/phrases"),
        ("rte/words", {}, "rte has no config 'words': choose rte"),
    ],
)
def test_missing_files_and_columns_are_named(data, name, files, said):
    for path, lines in files.items():
        write(data / "raw" / path, lines)
    assert said in refusal(name, data, data / "raw" if files else None)


@pytest.mark.parametrize(
    ("sentence", "first", "second", "marked"),
    [
        ("ab sold cd", "ab", "cd", "<e1>ab</e1> sold <e2>cd</e2>"),
        ("ab sold cd", "cd", "ab", "<e2>ab</e2> sold <e1>cd</e1>"),
        ("ab ab cd cd", "ab", "cd", "<e1>ab</e1> ab <e2>cd</e2> cd"),
        ("abcd", "ab", "cd", "<e1>ab</e1><e2>cd</e2>"),
        ("abcd", "cd", "ab", "<e2>ab</e2><e1>cd</e1>"),
        ("abc of ab", "ab", "abc", "<e2>abc</e2> of <e1>ab</e1>"),
        ("ab of ab", "ab", "ab", "<e1>ab</e1> of <e2>ab</e2>"),
        ("xabc", "ab", "abc", "x<e2><e1>ab</e1>c</e2>"),
        ("xabc", "abc", "bc", "x<e1>a<e2>bc</e2></e1>"),
        ("xabc", "bc", "abc", "x<e2>a<e1>bc</e1></e2>"),
        ("ab", "ab", "ab", "<e1><e2>ab</e2></e1>"),
    ],
)
def test_entities_are_marked_where_they_do_not_overlap(sentence, first, second, marked):
    assert mark_entities(sentence, first, second) == marked


def test_finre_has_marked_sentences(data):
    header = "label\tentity_1\tentity_2\tsentence"
    for stem in ("train", "dev", "test"):
        write(data / f"raw/{stem}.tsv", [header, "owns\tB\tA\tA and B"])
    builder = prepare_table("finre_zh", data, data / "raw")
    [row] = rows(builder, "test")
    assert row["sentence"] == "<e2>A</e2> and <e1>B</e1>"
    assert (row["entity_1"], row["entity_2"]) == ("B", "A")
    write(data / "raw/dev.tsv", [header, "owns\tab\tbc\tabc"])
    said = refusal("finre_zh", data / "other", data / "raw")
    assert "dev.tsv: 'ab' and 'bc' do not both occur" in said
