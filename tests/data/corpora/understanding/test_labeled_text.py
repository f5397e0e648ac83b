"""Tables and JSON lines of a user's own files."""

import pytest

from helpers.tables import prepare_table, refusal, rows, write

HEADER = "label\ttext\tnote"
TABLE = [HEADER, "pos\tA “fine” film\tx", "", 'neg\t"Bad"\u2028one \t']
ROWS = [
    {"label": "pos", "text": "A “fine” film", "note": "x"},
    {"label": "neg", "text": '"Bad"\u2028one ', "note": ""},
]
OBJECTS = [
    '{"label": "pos", "text": "A “fine” film", "note": "x"}',
    "",
    '{"note": null, "text": "\\"Bad\\"\\u2028one ", "label": "neg"}',
]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    write(folder / "train.tsv.gz", TABLE)
    write(folder / "dev.tsv", ["\ufefftext\tnote\tlabel\r", "Gut\t1.50\tpos\r"])
    write(folder / "test.jsonl", OBJECTS)
    return folder


def test_every_column_is_read_by_name_from_every_format(source, data):
    builder = prepare_table("labeled_text", data, source)
    assert builder.kind == "table"
    assert list(builder.info.splits) == ["train", "validation", "test"]
    assert rows(builder, "train") == ROWS
    assert rows(builder, "test") == ROWS
    expected = [{"text": "Gut", "note": "1.50", "label": "pos"}]
    assert rows(builder, "validation") == expected


def test_a_prepared_table_is_opened_without_its_files_and_by_content(source, data):
    first = prepare_table("labeled_text", data, source)
    again = prepare_table("labeled_text", data)
    assert again.builder_config.name == first.builder_config.name
    assert rows(again, "train") == ROWS
    write(source / "dev.tsv", [HEADER, "pos\tAnders\t"])
    other = prepare_table("labeled_text", data, source)
    assert other.builder_config.name != first.builder_config.name
    assert rows(other, "validation")[0]["text"] == "Anders"


def test_numbers_of_json_stay_as_they_are_written(source, data):
    for name in ("train.tsv.gz", "dev.tsv", "test.jsonl"):
        (source / name).unlink()
    write(source / "train.jsonl", ['{"grade": 4.50, "id": 7, "seen": true}'])
    builder = prepare_table("labeled_text", data, source)
    assert rows(builder, "train") == [{"grade": "4.50", "id": "7", "seen": "true"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dev.tsv", [], "dev.tsv is empty: it holds no text"),
        (
            "dev.tsv",
            [HEADER],
            "dev.tsv is empty: it holds no example (the first line of a .tsv file nam",
        ),
        ("dev.tsv", ["A film", "x"], "dev.tsv, line 1: no header, since it has no tab"),
        ("dev.tsv", ["1\tA film"], "dev.tsv, line 1: no header, since '1' is no name"),
        ("dev.tsv", ["a\t" + "so " * 20], "line 1: no header, since 'so so"),
        ("dev.tsv", ["a\tb\ta"], "dev.tsv, line 1: the column 'a' is named twice"),
        (
            "dev.tsv",
            [*TABLE, "pos\tfour\tfive"[:8]],
            "dev.tsv, line 5: the row has 2 columns, and the header has 3",
        ),
        (
            "dev.tsv",
            ["label\ttext", "pos\tfilm"],
            "dev.tsv has the columns label, text, and",
        ),
        ("dev.tsv", b"a\tb\n1\t\xff\n", "dev.tsv, line 2: not UTF-8"),
        ("test.jsonl", ["[1]"], "test.jsonl, line 1: no object of JSON"),
        ("test.jsonl", [*OBJECTS, "{"], "test.jsonl, line 4: no object of JSON"),
        ("test.jsonl", ["text"], "test.jsonl, line 1: no object of JSON"),
        ("test.jsonl", ["[" * 100_000], "test.jsonl, line 1: no object of JSON"),
        ("test.jsonl", ['{"a": {"b": 1}}'], "the value of 'a' is neither text nor"),
        ("test.jsonl", ['{"a": 1, "a": 2}'], "line 1: no object of JSON (the key 'a'"),
        ("test.jsonl", ['{"a": "\\ud800"}'], "the text of 'a' has a lone surrogate"),
        (
            "test.jsonl",
            ['{"a": 1}', '{"b": 1}'],
            "test.jsonl, line 2: the object has the columns b, and the first one has a",
        ),
        ("test.tsv", TABLE, "holds both test.tsv and test.jsonl"),
    ],
)
def test_bad_files_are_named_with_their_line(source, data, name, content, said):
    write(source / name, content)
    assert said in refusal("labeled_text", data, source)


def test_without_files_it_says_which_are_needed(data):
    said = refusal("labeled_text", data)
    assert "a folder that holds train.tsv, valid.tsv (or .jsonl, plain or .gz)" in said
