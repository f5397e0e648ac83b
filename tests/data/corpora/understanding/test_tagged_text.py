"""Tagged sentences of a user's own files, in columns."""

import pytest

from helpers.tables import prepare_table, refusal, rows, write

TRAIN = ["-DOCSTART-\tO", "", "EU\tB-ORG", "rejects\tO", "", "", "# Peter\tB-PER"]
TRAIN += ["Blackburn\tI-PER", "-DOCSTART- -X- O O", "", "#\tO"]
SENTENCES = [
    {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"], "doc": "1"},
    {"tokens": ["# Peter", "Blackburn"], "tags": ["B-PER", "I-PER"], "doc": "2"},
    {"tokens": ["#"], "tags": ["O"], "doc": "2"},
]
INTENT = ["# intent = flight", "fly\tO", "rome\tB-to", "", "# intent = fare", "a\tO"]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    write(folder / "train.conll.gz", TRAIN)
    write(folder / "valid.txt", ["Paris B-LOC\r", "\r", "\u3000  O\r"])
    return folder


def test_sentences_and_documents_are_read_as_they_are(source, data):
    builder = prepare_table("tagged_text", data, source)
    assert builder.kind == "table"
    # The line of a document may follow without an empty line.
    assert rows(builder, "train") == SENTENCES
    assert rows(builder, "validation") == [
        {"tokens": ["Paris"], "tags": ["B-LOC"], "doc": ""},
        {"tokens": ["\u3000"], "tags": ["O"], "doc": ""},
    ]


def test_named_lines_and_further_columns_are_columns(source, data):
    write(source / "train.conll.gz", ["# id = 7", "EU  NNP I-NP B-ORG"])
    write(source / "valid.txt", ["# id = 8 = 9", "a\tDT\tI-NP\tO", "b\tNN\tO\tO"])
    builder = prepare_table("tagged_text", data, source)
    assert rows(builder, "validation") == [
        {
            "tokens": ["a", "b"],
            "column_2": ["DT", "NN"],
            "column_3": ["I-NP", "O"],
            "tags": ["O", "O"],
            "id": "8 = 9",
        }
    ]


def test_tags_without_entities_are_not_checked(source, data):
    write(source / "train.conll.gz", ["the\tDT", "Index\tI", "(\t-LRB-"])
    builder = prepare_table("tagged_text", data, source)
    assert rows(builder, "train")[0]["tags"] == ["DT", "I", "-LRB-"]


def test_conlleval_begins_an_entity_where_none_is_continued(source, data):
    tags = ["I-A", "I-A", "B-A", "O", "I-A", "I-B", "I-B", "B-A", "I-B"]
    write(source / "train.conll.gz", [f"w\t{tag}" for tag in tags])
    assert "line 1: ill-formed IOB2: I-A comes after the start of the sentence" in (
        refusal("tagged_text", data, source)
    )
    builder = prepare_table("tagged_text/conlleval", data, source)
    [sentence] = rows(builder, "train")
    assert sentence["tags"] == [
        *("B-A", "I-A", "B-A", "O", "B-A", "B-B", "I-B", "B-A", "B-B")
    ]
    assert builder.builder_config.name.startswith("conlleval-")
    again = prepare_table("tagged_text/conlleval", data)
    assert again.builder_config.name == builder.builder_config.name


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "valid.txt is empty: it holds no text"),
        (["-DOCSTART- O"], "valid.txt is empty: it holds no example"),
        (["a\tO", "", "b\tNN\tO"], "line 3: the line has 3 columns, and the first one"),
        (["a\tO", "b"], "line 2: the line has 1 columns, and the first one has 2"),
        (["a", "b"], "line 1: ['a'] lacks a token or a tag, which a tab or a space"),
        (["a\t"], "line 1: ['a', ''] lacks a token or a tag"),
        (["a\tO", "b\tI-X"], "line 2: ill-formed IOB2: I-X comes after O, but an"),
        (["a\tB-Y", "b\tI-X"], "line 2: ill-formed IOB2: I-X comes after B-Y, but an"),
        (["a\tB-X", "", "b\tI-X"], "line 3: ill-formed IOB2: I-X comes after the st"),
        (["a\tB-X", "", "b\tI"], "line 3: 'I' is no tag of IOB2, which are O, B-TYPE"),
        (["a\tB-X", "b\tE-X"], "line 2: 'E-X' is no tag of IOB2, which are O, B-TYPE"),
        ([*INTENT, "", "c\tO"], "line 8: the first sentence has a line '# intent = '"),
        (["c\tO", "", *INTENT], "line 3: this sentence has a line '# intent = ', and"),
        ([*INTENT[:1], *INTENT], "line 2: the sentence has two lines '# intent = '"),
        ([*INTENT[:1], "", "c\tO"], "line 1: there is no token after '# intent = fl"),
        (["# tags = 1", "c\tO"], "line 1: 'tags' is the name of another column"),
        (INTENT, "has the columns tokens, tags, intent, and"),
        (b"a\tO\n\xe9\tO\n", "valid.txt, line 2: not UTF-8"),
    ],
)
def test_bad_files_are_named_with_their_line(source, data, lines, said):
    write(source / "valid.txt", lines)
    message = refusal("tagged_text", data, source)
    assert "valid.txt" in message
    assert said in message


def test_an_unknown_config_is_refused(source, data):
    said = refusal("tagged_text/iob1", data, source)
    assert "no config 'iob1': choose tagged_text or tagged_text/conlleval" in said
