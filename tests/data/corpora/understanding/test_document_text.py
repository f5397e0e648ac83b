"""Documents of sentences."""

from data.corpus import open_corpus
from helpers.tables import write

LINES = ["", "It rained.", " He\u2028left. \r", "", " ", "Next day.", "", ""]
DOCUMENTS = ["It rained.\n He\u2028left. ", "Next day."]


def test_a_document_is_an_example_with_its_sentences(tmp_path):
    write(tmp_path / "source/train.txt.gz", LINES)
    write(tmp_path / "source/valid/b.txt", ["Last."])
    write(tmp_path / "source/valid/a.txt", LINES)
    corpus = open_corpus("document_text", tmp_path / "data", tmp_path / "source")
    assert corpus.kind == "text"
    assert [text for (text,) in corpus.read("train")] == DOCUMENTS
    assert [text for (text,) in corpus.read("validation")] == [*DOCUMENTS, "Last."]
    again = open_corpus("document_text", tmp_path / "data")
    assert again == corpus
